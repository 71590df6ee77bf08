"""Entering models in the registry."""

from pathlib import Path
from typing import Any

from django.conf import settings

from training.models import ModelVersion, Run

KIND_OF_MODEL = {
    Run.Kind.SFT: ModelVersion.Kind.POLICY,
    Run.Kind.DPO: ModelVersion.Kind.POLICY,
    Run.Kind.PPO: ModelVersion.Kind.POLICY,
    Run.Kind.REWARD: ModelVersion.Kind.REWARD,
}


def model_of(run: Run, *, folder: Path, report: dict[str, Any]) -> ModelVersion:
    """The registry's entry for what a run made, not yet saved."""
    return ModelVersion(
        project_id=run.project_id,
        name=run.name,
        kind=KIND_OF_MODEL[Run.Kind(run.kind)],
        run=run,
        parent=run.base_version,
        folder=str(folder.relative_to(settings.RUNS_ROOT)),
        size_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        report=report,
    )
