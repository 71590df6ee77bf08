"""Three runs out of `make chaos`, shorter: the trainer, its worker, and both servers killed at a moment drawn by seed.

Each comes by itself to what it would have been: equal weights, every step once in the file and in the database.
"""

import pytest

from tests.chaos.courses import CHECKPOINT_EVERY, course_of
from tests.chaos.ground import open_ground
from tests.chaos.trial import draw_share, run_trial
from tests.chaos.verdict import faults_of

pytestmark = [pytest.mark.stack, pytest.mark.slow]
STEPS = 160
SEED = 1


def test_whatever_is_killed_in_its_midst_the_run_ends_as_if_nothing_had_been() -> None:
    course = course_of("reward", steps=STEPS)
    with open_ground() as ground:
        undisturbed = run_trial(ground, course)
        assert undisturbed.ended is not None and undisturbed.ended.state == "succeeded", undisturbed.ended
        assert undisturbed.timeline.steps == list(range(1, STEPS + 1)) and undisturbed.census.most == 1
        for victim in ("trainer", "worker", "servers"):
            share = draw_share(SEED, victim, 0)
            trial = run_trial(ground, course, victim=victim, undisturbed=undisturbed, share=share, hurry=True)
            faults = faults_of(ground, trial, undisturbed, checkpoint_every=CHECKPOINT_EVERY["reward"])
            assert faults == [], (victim, share, trial, ground.log_of("worker-gpu"))
