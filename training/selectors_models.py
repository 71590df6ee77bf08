"""Reads about one model of the registry: who may change it, what it came from and what came from it, its files.

Who may see it at all is asked in selectors.py.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from annotate.errors import Conflict, Forbidden
from training.base_models import is_model_folder
from training.models import ModelEvent, ModelVersion, Run, RunInput
from training.selectors import (
    Someone,
    engineered_projects,
    get_model_for,
    lineage_of,
    models_for,
    runs_for,
    withdrawn_among,
)
from training.selectors_store import folder_name, readable_folder, store_of, stored_files

CARD_NAME, SUMS_NAME, CONFIG_NAME = "README.md", "SHA256SUMS", "config.json"
CARD_BYTES = 400_000
_FRONT_MATTER = re.compile(r"\A---\r?\n.*?^---\r?\n", re.DOTALL | re.MULTILINE)


def get_model_to_change(user: Someone, model_id: int) -> ModelVersion:
    """The model, for an engineer of its own project: who reads a shared one from elsewhere may not change it.

    Raises:
        NotFound: no such model, or none of the caller's business.
        Forbidden: the caller may at most read it.
    """
    found = get_model_for(user, model_id)
    if not engineered_projects(user).filter(pk=found.project_id).exists():
        raise Forbidden(_("Only engineers of its own project may change a shared model."))
    return found


def doubts_about(model: ModelVersion) -> list[str]:
    """Why nobody should use the model without having looked, in sentences; none for most models."""
    found = []
    if withdrawn_among([model]):
        found.append(_("It was trained from a snapshot that was withdrawn since. Do not use it further."))
    if (model.run is not None and model.run.suspect) or model.report.get("suspect"):
        words = _("The run that made it was suspect: it may have learned to please the reward model and not people.")
        found.append(words)
    return found


def runs_reading(model: ModelVersion) -> QuerySet[Run]:
    """Runs that start from the model or read it as a reward model or judge, the newest first."""
    named = RunInput.objects.filter(version=model).values("run_id")
    return Run.objects.filter(Q(base_version=model) | Q(pk__in=named)).order_by("-pk")


def runs_using(user: Someone, model: ModelVersion) -> QuerySet[Run]:
    """Those of the runs that read the model which are the user's to see, the newest first."""
    return runs_for(user).filter(pk__in=runs_reading(model).values("pk"))


def events_of(model: ModelVersion) -> QuerySet[ModelEvent]:
    """What was done with the model, the newest first."""
    return ModelEvent.objects.filter(model=model).select_related("actor").order_by("-pk")


# --- lineage ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Beside:
    """What the run of a model read besides its base. `version` is None unless the reader may see it."""

    role: str
    name: str
    version: ModelVersion | None


@dataclass(frozen=True, slots=True)
class Generation:
    """How one model came about. Of a model that is none of the reader's business its number alone is to be shown."""

    model: ModelVersion
    visible: bool
    beside: list[Beside]


@dataclass(frozen=True, slots=True)
class Use:
    """A run that reads a model: as what it starts from (`role` is empty), or as what the role says."""

    run: Run
    role: str
    model: ModelVersion | None


def generations_of(user: Someone, model: ModelVersion) -> list[Generation]:
    """The models that this one descends from and itself, the oldest first."""
    line = [*reversed(lineage_of(model)), model]
    inputs = list(RunInput.objects.filter(run__in=[one.run_id for one in line if one.run_id]).select_related("version"))
    wanted = {one.pk for one in line} | {one.version_id for one in inputs if one.version_id}
    visible = set(models_for(user).filter(pk__in=wanted).values_list("pk", flat=True))

    def beside(run_id: int | None) -> list[Beside]:
        own = (one for one in inputs if one.run_id == run_id)
        return [
            Beside(one.get_role_display(), one.name, one.version if one.version_id in visible else None) for one in own
        ]

    return [Generation(one, one.pk in visible, beside(one.run_id)) for one in line]


def uses_of(user: Someone, model: ModelVersion, *, limit: int) -> tuple[list[Use], int]:
    """The newest runs that read the model and are the user's to see, with what they made; how many others there are."""
    seen = list(runs_using(user, model)[:limit])
    roles = dict(RunInput.objects.filter(version=model, run__in=seen).values_list("run_id", "role"))
    uses = [
        Use(run, str(RunInput.Role(roles[run.pk]).label) if run.pk in roles else "", getattr(run, "model", None))
        for run in seen
    ]
    return uses, runs_reading(model).count() - len(seen)


# --- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model; `name` is its path inside the model's folder, with slashes.

    Attributes:
        path: an ordinary file on this disk; None of one that is in the bucket alone.
        key: its object in the bucket, whose `sha256` is known.
    """

    name: str
    path: Path | None
    size_bytes: int
    key: str = ""
    sha256: str = ""


def files_of(model: ModelVersion) -> list[ModelFile]:
    """The files of the model by name; links are left out, and nothing is there once it is deleted."""
    if model.deleted_at is not None:
        return []
    found = list(_walk(model.path, "")) if is_model_folder(model.path) else list(_in_bucket(model))
    return sorted(found or _walk(model.path, ""), key=lambda one: one.name)


def _in_bucket(model: ModelVersion) -> Iterator[ModelFile]:
    if model.run is None or (store := store_of(model.run)) is None:
        return
    for one in stored_files(model):
        name = one.path.removeprefix(f"{folder_name(model)}/")
        yield ModelFile(name, None, one.size_bytes, store.key(one), one.sha256)


def _walk(folder: Path, before: str) -> Iterator[ModelFile]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{before}{entry.name}/")
        elif entry.is_file(follow_symlinks=False):
            yield ModelFile(before + entry.name, Path(entry.path), entry.stat(follow_symlinks=False).st_size)


def files_to_take(model: ModelVersion) -> list[ModelFile]:
    """The files of a model that somebody takes away, without sums that were made elsewhere; never half a folder.

    Raises:
        Conflict: it was deleted (code `deleted`), or neither its folder nor its files in the bucket are there
            (`damaged`).
    """
    model.refresh_from_db(fields=["deleted_at"])
    if model.deleted_at is not None:
        raise Conflict(_("This model was deleted: its files are gone, its lineage stays."), code="deleted")
    found = files_of(model)
    if not any(one.name == CONFIG_NAME for one in found):
        raise Conflict(_("The model's files are not on this server."), code="damaged")
    return [one for one in found if one.name != SUMS_NAME]


def card_of(model: ModelVersion) -> str:
    """The card in the model's folder, in Markdown, without its machine-readable head; empty if there is none."""
    folder = None if model.deleted_at is not None else readable_folder(model)
    path = (folder or model.path) / CARD_NAME
    if model.deleted_at is not None or path.is_symlink():
        return ""
    try:
        with path.open("rb") as file:
            text = file.read(CARD_BYTES).decode(errors="replace")
    except OSError:
        return ""
    return _FRONT_MATTER.sub("", text, count=1).strip()
