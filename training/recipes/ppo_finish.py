"""The end of ``recipes.ppo``: the policy before and after, the report, blind pairs for people, and the saved model."""

from typing import Any

from training.core.errors import StopRequested
from training.core.files import shown_name
from training.core.policy_reports import policy_warnings
from training.core.tokens import PLAIN_TEMPLATE_NAME
from training.recipes.comparison import BEST_OF, Side, compare_sides
from training.recipes.configs import PpoConfig
from training.recipes.judging import JudgeFacts
from training.recipes.launch import Session
from training.recipes.loop import Progress
from training.recipes.policy_finish import publish_policy
from training.recipes.ppo_setup import Prepared
from training.recipes.ppo_watch import EVALUATION, Answered, Watch, answer
from training.recipes.prompts import Prompts

CANDIDATES = "candidates"


def finish_policy(
    session: Session[PpoConfig],
    prepared: Prepared,
    watch: Watch,
    judge: JudgeFacts,
    progress: Progress,
    *,
    kept_step: int | None,
) -> str:
    """Compare the policy with what it was, write the report and publish the model; what was done, in one line."""
    report: dict[str, Any] = {
        "kind": "ppo",
        "steps": progress.step,
        "counts": prepared.data.counts(),
        "rewards": [{"name": source.name, "weight": source.weight} for source in prepared.models.sources],
        "judge": vars(judge),
        "suspect": watch.alarm.suspect,
        "kept_step": kept_step,
        "curve": watch.alarm.curve,
    }
    prompts = prepared.data.splits[session.config.evaluate_split]
    numbers = watch.numbers_of(prompts)
    if numbers:
        report |= compare(session, prepared, watch, prompts, numbers, step=kept_step or progress.step)
    report["warnings"] = policy_warnings(
        report,
        skipped_steps=progress.skipped_steps,
        defused_texts=prepared.data.defused,
        template=PLAIN_TEMPLATE_NAME if prepared.encoder.template_name == PLAIN_TEMPLATE_NAME else None,
    )
    if prepared.models.trunk is not None:
        prepared.models.trunk.check_base()
    publish_policy(
        session,
        prepared.models.policy,
        prepared.encoder,
        kind="ppo",
        report=report,
        data_sha256=prepared.data.file.sha256,
        stop_ids=prepared.models.stop_ids,
    )
    return summary_of(report)


def compare(
    session: Session[PpoConfig], prepared: Prepared, watch: Watch, prompts: Prompts, numbers: list[int], *, step: int
) -> dict[str, Any]:
    """``before``, ``after`` (the weights of ``step``) and what lies between them; writes the blind pairs."""

    def ask(purpose: str, *, each: int = 1, reference: bool) -> Answered:
        found = answer(
            session, prepared.models, prompts, numbers, judge=watch.judge, purpose=purpose, each=each,
            reference=reference,
        )  # fmt: skip
        if found is None:
            raise StopRequested(f"{session.stop.reason or 'stopped with another process'} before the report")
        return found

    # The same draws before and after, so that what has not changed is the same text.
    before, after = ask(EVALUATION, reference=True), ask(EVALUATION, reference=False)
    candidates = ask(CANDIDATES, each=BEST_OF, reference=True)

    def side(found: Answered) -> Side:
        return Side(found.figures, [episode.text for episode in found.sampled.episodes])

    return compare_sides(
        session, [prompts.record(number) for number in numbers], split=session.config.evaluate_split,
        before=side(before), after=side(after), candidates=candidates.figures,
        makers={"start": shown_name(session.config.model), "trained": f"{session.folder.name}, step {step}"},
    )  # fmt: skip


def summary_of(report: dict[str, Any]) -> str:
    """What came of the run, in one line."""
    words = f"trained {report['steps']} steps"
    if "after" in report:
        words += f", score {report['before']['score']:.3f} before and {report['after']['score']:.3f} after"
    if (win := report.get("win_rate")) is not None:
        words += f", {100 * win['value']:.0f} % preferred by the judge"
    return words + (", suspect of over-optimisation" if report["suspect"] else "")
