"""The end of ``recipes.dpo``: how well the implicit reward agrees with people, the report, and the saved model."""

from typing import Any

from training.core.evaluation import evaluate
from training.core.policy_reports import implicit_margins, policy_warnings
from training.core.randomness import derive_seed
from training.core.reports import accuracy_words, warnings_about
from training.recipes.configs import DpoConfig
from training.recipes.dpo_setup import Prepared
from training.recipes.launch import Session
from training.recipes.policy_finish import publish_policy

Rewards = list[list[float]]


def finish_dpo(
    session: Session[DpoConfig], prepared: Prepared, rewards: dict[str, Rewards], *, steps: int, skipped: int
) -> str:
    """Write the report and publish the model; what came out, in one line.

    Args:
        rewards: of each held-out split, the implicit rewards of its responses by the weights to publish.
        skipped: of the steps, those whose gradients were not finite.
    """
    report = dpo_report(session.config, prepared, rewards, steps=steps, skipped=skipped)
    publish_policy(
        session,
        prepared.learner.model,
        prepared.encoder,
        kind="dpo",
        report=report,
        data_sha256=prepared.snapshot.sha256,
        stop_ids=prepared.stop_ids,
    )
    return f"trained {steps} steps, {accuracy_words(report['validation'])}"


def dpo_report(
    config: DpoConfig, prepared: Prepared, rewards: dict[str, Rewards], *, steps: int, skipped: int
) -> dict[str, Any]:
    """What ``report.json`` holds: ``evaluation.evaluate`` of the implicit rewards, and their ``margins``.

    That a margin grows while both of its sides fall is DPO's known way to go wrong.
    """
    encoded = prepared.encoded
    report: dict[str, Any] = {
        "kind": "dpo",
        "steps": steps,
        "beta": config.beta,
        "counts": {
            "read": prepared.snapshot.read,
            "used": sum(data.rankings for data in encoded.splits.values()),
            "dropped": dict(sorted(encoded.dropped.items())),
            **{
                split: {"rankings": data.rankings, "prompts": len(data), "pairs": data.pairs}
                for split, data in encoded.splits.items()
            },
        },
    }
    below, seed = config.unranked == "below", derive_seed(config.seed, "bootstrap")
    train = prepared.train.rankings
    for split, data in prepared.held_out.items():
        report[split] = evaluate(
            data.rankings, rewards[split], seed=config.seed, known_annotators=train.known_annotators,
            annotators=train.annotators, below=below,
        ) | {"margins": implicit_margins(data.rankings, rewards[split], seed=seed, below=below)}  # fmt: skip
    about_data = warnings_about(
        {split: report[split] for split in prepared.held_out},
        defused_texts=encoded.defused,
        skipped_steps=skipped,
        not_packed=None if prepared.layout.packed else prepared.layout_reason,
        shared_groups=encoded.shared_groups,
        cut=encoded.cut,
    )
    report["warnings"] = policy_warnings(report, trained_on=about_data)
    return report
