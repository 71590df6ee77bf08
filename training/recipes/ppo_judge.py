"""The judge of ``recipes.ppo``: a reward model that nothing is trained against.

``--judge`` names one; else one is trained at the start, in DIR/judge, from the half of the rankings that the reward
model did not learn from (``--half``), or, where that learned from all of them, from a half with another seed: then the
report says that the two are not apart.
"""

from pathlib import Path
from typing import Any

from training.core.errors import StopRequested, UsageError
from training.core.halving import MicroBatchBudget
from training.core.randomness import derive_seed
from training.core.records import read_rankings
from training.core.reward_sources.episodes import RewardSource
from training.core.runfolder import read_run
from training.core.tokens import ChatEncoder
from training.recipes.configs import PpoConfig, RewardConfig, build, describe
from training.recipes.judging import JudgeFacts, accuracy_at, are_disjoint, load_judge, reward_run, reward_run_at
from training.recipes.launch import Session, is_finished
from training.recipes.ppo_models import reading_of
from training.recipes.prompts import PromptData
from training.recipes.reward import train_reward

JUDGE = "judge"
FEWEST_RANKINGS = 16
# Of a judge with --lora-rank whose reward model is no run of ours to learn from.
LORA_LEARNING_RATE = 5e-4
# What a judge shares with the reward model that it is to check: all but where it lies, its data's half and its seed.
ITS_OWN = ("model", "data", "output", "seed", "half", "resume", "stop_after", "ensemble", "device", "shard")


def given_judge(
    session: Session[PpoConfig], data: PromptData, encoder: ChatEncoder, budget: MicroBatchBudget
) -> tuple[RewardSource, JudgeFacts] | None:
    """That of --judge, or None without the flag; asked before the run begins, so that the flag can be mended.

    Raises:
        UsageError: --judge cannot be used.
    """
    if session.config.judge is None:
        return None
    run, reward = reward_run_at(session.config.judge), reward_run(session.config.rewards)
    facts = JudgeFacts("given", are_disjoint(run, reward), accuracy_at(session, session.config.judge))
    return _load(session, session.config.judge, data, encoder, budget), facts


def made_judge(
    session: Session[PpoConfig], data: PromptData, encoder: ChatEncoder, budget: MicroBatchBudget
) -> tuple[RewardSource | None, JudgeFacts]:
    """The judge that is trained where none is given; None with the reason where there can be none.

    Raises:
        StopRequested: asked to stop while it was trained; it goes on from its own checkpoints.
    """
    made = make_judge(session)
    if isinstance(made, str):
        session.say(f"no judge: {made}")
        return None, JudgeFacts(made)
    return _load(session, str(made[0]), data, encoder, budget), made[1]


def _load(
    session: Session[PpoConfig], folder: str, data: PromptData, encoder: ChatEncoder, budget: MicroBatchBudget
) -> RewardSource:
    reading = reading_of(session, data, encoder, budget)
    return load_judge(session, folder, flag="--judge", name=JUDGE, reading=reading)


def make_judge(session: Session[PpoConfig]) -> tuple[Path, JudgeFacts] | str:
    """Train a judge in DIR/judge, as the reward model was trained; or say why there can be none."""
    config = session.config
    if config.no_judge:
        return "--no-judge was given"
    rankings = len(read_rankings(Path(config.data)).used_lines)
    if rankings < FEWEST_RANKINGS:
        return f"{rankings} rankings in --data are too few to train one from; --judge can name one"
    run = reward_run(config.rewards)
    learned_from = (run or {}).get("config", {}).get("half", "all")
    half = "first" if learned_from == "second" else "second"
    folder = session.folder / JUDGE
    judging = Session("reward", judge_config(config, run, half=half, folder=folder), folder)
    # It is stopped, and ended in time, with the run that it belongs to.
    judging.stop, judging.device, judging.world = session.stop, session.device, session.world
    judging.prefix = f"{JUDGE}: "
    if not is_finished(judging):
        session.say(f"training a judge from the {half} half of the rankings")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        train_reward(judging)
    except UsageError as error:
        return f"it could not be trained ({error})"
    except StopRequested as error:
        raise StopRequested(f"{error} of the judge") from None
    disjoint = are_disjoint(session.world.from_main(read_run(folder)), run)
    return folder / "model", JudgeFacts("made", disjoint, accuracy_at(session, str(folder)))


def judge_config(config: PpoConfig, run: dict[str, Any] | None, *, half: str, folder: Path) -> RewardConfig:
    """That of the reward model's run, as far as it is known, on the other half."""
    taken: dict[str, Any] = {}
    if run is not None:
        names = {description.name for description in describe(RewardConfig)} - set(ITS_OWN)
        taken = {name: value for name, value in run["config"].items() if name in names}
    elif config.lora_rank:
        taken = {"lora_rank": config.lora_rank, "learning_rate": LORA_LEARNING_RATE}
    base = run["config"]["model"] if run is not None and Path(run["config"]["model"]).is_dir() else config.model
    own = {
        "model": base, "data": config.data, "output": str(folder), "seed": derive_seed(config.seed, JUDGE),
        "half": half, "resume": True, "device": config.device, "micro_batch_tokens": config.micro_batch_tokens,
    }  # fmt: skip
    return build(RewardConfig, taken | own)
