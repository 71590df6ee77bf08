"""Three runs out of `make chaos`, shorter: the trainer, its worker, and both servers killed at a moment drawn by seed.

Each comes by itself to what it would have been: equal weights, every step once in the file and in the database.
The stack is an ordinary user's, so that this is seen to run too where the other tests run as root.
"""

import os
import warnings

import psutil
import pytest

from tests.chaos.courses import CHECKPOINT_EVERY, course_of
from tests.chaos.ground import Ground, open_ground
from tests.chaos.trial import draw_share, run_trial
from tests.chaos.verdict import faults_of
from tests.stack.users import ordinary_user

pytestmark = [pytest.mark.stack, pytest.mark.slow]
STEPS = 160
SEED = 1


def test_whatever_is_killed_in_its_midst_the_run_ends_as_if_nothing_had_been() -> None:
    course = course_of("reward", steps=STEPS)
    user = ordinary_user()
    if user is None and os.geteuid() == 0:
        warnings.warn("This checkout is closed to other users: the stack was seen to run as root alone.", stacklevel=1)
    with open_ground(user) as ground:
        everything_is_of(user.pw_uid if user else os.geteuid(), ground)
        undisturbed = run_trial(ground, course)
        assert undisturbed.ended is not None and undisturbed.ended.state == "succeeded", undisturbed.ended
        assert undisturbed.timeline.steps == list(range(1, STEPS + 1)) and undisturbed.census.most == 1
        for victim in ("trainer", "worker", "servers"):
            share = draw_share(SEED, victim, 0)
            trial = run_trial(ground, course, victim=victim, undisturbed=undisturbed, share=share, hurry=True)
            faults = faults_of(ground, trial, undisturbed, checkpoint_every=CHECKPOINT_EVERY["reward"])
            assert faults == [], (victim, share, trial, ground.log_of("worker-gpu"))


def everything_is_of(user: int, ground: Ground) -> None:
    """An ordinary user's stack changes no account, and its folder is closed to others."""
    if user != 0:
        assert {psutil.Process(pid).uids().effective for pid in ground.stack.recorded().values()} == {user}
        assert (ground.home.stat().st_mode & 0o777) == 0o700
