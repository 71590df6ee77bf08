"""The end of ``recipes.sft``: held-out perplexity before and after, the report, and the saved model."""

from typing import Any

import numpy as np

from training.core.bootstrap import Floats
from training.core.documents import Documents
from training.core.policy_reports import perplexity_report, policy_line, policy_warnings
from training.core.randomness import derive_seed
from training.core.tokens import PLAIN_TEMPLATE_NAME
from training.recipes.configs import SftConfig
from training.recipes.launch import Session
from training.recipes.policy_finish import publish_policy
from training.recipes.sft_setup import Prepared

Losses = dict[str, Floats]


def finish_sft(
    session: Session[SftConfig], prepared: Prepared, *, before: Losses, after: Losses, steps: int, skipped: int
) -> str:
    """Write the report and publish the model; what came out, in one line.

    Args:
        before: of each held-out split, the loss of each of its documents before the first step.
        after: those of the weights to publish.
        skipped: of the steps, those whose gradients were not finite.
    """
    report = sft_report(session.config, prepared, before=before, after=after, steps=steps, skipped=skipped)
    publish_policy(
        session,
        prepared.learner.model,
        prepared.encoder,
        kind="sft",
        report=report,
        data_sha256=prepared.file.sha256,
        stop_ids=prepared.stop_ids,
    )
    return f"trained {steps} steps, {policy_line(report)}"


def sft_report(
    config: SftConfig, prepared: Prepared, *, before: Losses, after: Losses, steps: int, skipped: int
) -> dict[str, Any]:
    """What ``report.json`` holds."""
    encoded = prepared.encoded
    report: dict[str, Any] = {
        "kind": "sft",
        "steps": steps,
        "counts": {
            "read": prepared.file.read,
            "used": sum(map(len, encoded.splits.values())),
            "dropped": dict(sorted(encoded.dropped.items())),
            "sources": dict(sorted(encoded.sources.items())),
            **{split: counts_of(documents) for split, documents in encoded.splits.items()},
        },
    }
    for split, documents in prepared.held_out.items():
        found = held_out_report(documents, before[split], after[split], seed=config.seed)
        report[split] = found["validation"]
        if split == "validation":
            report["before"] = found["before"]
    report["warnings"] = policy_warnings(
        report,
        skipped_steps=skipped,
        defused_texts=encoded.defused,
        template=PLAIN_TEMPLATE_NAME if prepared.encoder.template_name == PLAIN_TEMPLATE_NAME else None,
        trained_on=warnings_about_data(prepared),
    )
    return report


def counts_of(documents: Documents) -> dict[str, int]:
    """Of one split; ``tokens`` are those that are learned."""
    return {"documents": len(documents), "tokens": documents.all_targets}


def held_out_report(documents: Documents, before: Floats, after: Floats, *, seed: int) -> dict[str, Any]:
    """``perplexity_report`` of a split."""
    tokens = np.array([documents.targets(number) for number in range(len(documents))], np.float64)
    groups = [str(group) for group in documents.groups]
    return perplexity_report(after, tokens, groups, seed=derive_seed(seed, "bootstrap"), before=before)


def warnings_about_data(prepared: Prepared) -> list[str]:
    """What is to be known of the documents and their rows."""
    found = []
    if shared := prepared.encoded.shared_groups:
        found.append(
            f"{shared} split groups stand in more than one split: held-out text may resemble what was learned."
        )
    if not prepared.layout.packed:
        found.append(f"Documents were not packed ({prepared.layout_reason}).")
    return found
