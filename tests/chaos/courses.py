"""The runs of the chaos trials: tiny models, long enough by their number of steps, with state of every kind."""

from dataclasses import replace

from tests.chaos.ground import Ground
from tests.chaos.trial import Course, Trial, run_trial

CHECKPOINT_EVERY = {"reward": 20, "ppo": 4}
STEPS = {"reward": 320, "ppo": 36}  # where the first try begins; more where that is too short
CONFIG = {
    "reward": {"batch_size": 4, "learning_rate": 1e-3, "evaluate_every": 50},
    "ppo": {
        "batch_size": 8, "max_response_length": 8, "learning_rate": 1e-3, "evaluate_every": 10, "sample_every": 10,
        "evaluation_prompts": 4, "inner_epochs": 2, "minibatches": 2, "kl_target": 0.5, "kl_horizon": 100,
        "normalise_reward": True, "entropy_coefficient": 0.01, "missing_eos_penalty": 0.5,
    },
}  # fmt: skip
MARGIN = 1.4


def course_of(kind: str, *, steps: int, named: dict[str, str] | None = None) -> Course:
    """A run of so many steps. PPO needs `named` to say which reward model it reads."""
    config = {**CONFIG[kind], "max_steps": steps, "checkpoint_every": CHECKPOINT_EVERY[kind]}
    return Course(kind, config, named or {})


def undisturbed_run(
    ground: Ground, kind: str, *, seconds: float, named: dict[str, str] | None = None
) -> tuple[Course, Trial]:
    """A run whose steps take at least so many seconds, and what it is to be repeated as; tries until one is so long.

    Raises:
        AssertionError: it failed.
    """
    course = course_of(kind, steps=STEPS[kind], named=named)
    while True:
        trial = run_trial(ground, course)
        assert trial.ended is not None and trial.ended.state == "succeeded", trial.ended
        if trial.timeline.seconds >= seconds:
            return course, trial
        steps = int(trial.timeline.step * MARGIN * seconds / max(trial.timeline.seconds, 1.0)) + 1
        course = replace(course, config={**course.config, "max_steps": steps})


def model_of(ground: Ground, trial: Trial) -> str:
    """How other runs name the model that a run made."""
    ((number,),) = ground.ask("SELECT id FROM training_modelversion WHERE run_id = %s", trial.run)
    return f"registry:{number}"
