"""`manage.py push_model`: a model of the registry into a repository of a hub, with the caller's own token.

The token comes from the environment (HF_TOKEN) and is neither stored nor shown. HF_ENDPOINT names another hub than
huggingface.co. The package huggingface_hub comes with transformers; a server without the trainer lacks it.
"""

import importlib
import os
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from annotate.errors import Refused
from training.base_models import HUB_ID
from training.models import ModelVersion
from training.selectors_models import ModelFile, doubts_about, files_to_take
from training.services.model_archive import Broken, copy_model
from training.services.registry import note_push


class Command(BaseCommand):
    help = (
        "Push a model of the registry into a repository of a hub, as one commit. The token is read from HF_TOKEN. A "
        "new repository is private."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", type=int, metavar="ID", help="id of the model, as in /models/ID/")
        parser.add_argument("repository", metavar="OWNER/NAME", help="made if it does not exist")
        parser.add_argument("--public", action="store_true", help="everybody may read the repository")
        parser.add_argument(
            "--despite-doubts", action="store_true", help="although its run is suspect or its data was withdrawn"
        )
        parser.add_argument("--dry-run", action="store_true", help="check everything here, send nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        if not HUB_ID.fullmatch(options["repository"]):
            raise CommandError("The repository is named OWNER/NAME.")
        model = ModelVersion.objects.filter(pk=options["model"]).first()
        if model is None:
            raise CommandError(f"There is no model {options['model']}.")
        doubts = doubts_about(model)
        if doubts and not options["despite_doubts"]:
            raise CommandError(f"{' '.join(doubts)} --despite-doubts pushes it nevertheless.")
        try:
            files = files_to_take(model)
        except Refused as refused:
            raise CommandError(refused.message) from None
        told = f"{len(files)} files, {sum(one.size_bytes for one in files):,} bytes, of {model}"
        token, hub = _token(), _hub()
        if options["dry_run"]:
            self.stdout.write(f"Would be pushed to {options['repository']}: {told}. 0 files were sent (dry run).")
            return
        try:
            with _on_disk(files) as here:
                where = _push(hub, token, model, here, repository=options["repository"], public=options["public"])
        except (Broken, OSError) as problem:
            raise CommandError(f"Nothing was pushed: {problem}") from None
        note_push(model, where=where)
        self.stdout.write(f"Pushed to {where}: {told}.")


@contextmanager
def _on_disk(files: list[ModelFile]) -> Iterator[list[ModelFile]]:
    """The files, those that are in a bucket alone brought here for as long as the block lasts.

    Raises:
        Broken, OSError: they could not be brought.
    """
    if all(one.path is not None for one in files):
        yield files
        return
    root = Path(settings.FETCHED_ROOT)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".push-") as name:
        target = Path(name) / "model"
        copy_model(files, target, progress=lambda _: None)
        yield [replace(one, path=target / one.name) for one in files]


def _push(hub: Any, token: str, model: ModelVersion, files: list[ModelFile], *, repository: str, public: bool) -> str:
    """Makes the repository where it is missing, and one commit with the files; returns the commit's address.

    Raises:
        CommandError: the hub refused or could not be reached, or everybody may read what is there.
    """
    title = f"Model {model.pk} of Plackett: {model.name}"
    try:
        api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
        api.create_repo(repository, private=not public, exist_ok=True)
        if not public and not api.model_info(repository).private:
            raise CommandError(f"Everybody may read {repository}; --public says that this is meant.")
        operations = [hub.CommitOperationAdd(one.name, str(one.path)) for one in files]
        return str(api.create_commit(repository, operations, commit_message=title).commit_url)
    except CommandError:
        raise
    except Exception as problem:  # the package hands on what its HTTP library raises, whichever that is
        raise CommandError(f"The hub did not take it: {problem}") from None


def _token() -> str:
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise CommandError("Put a token of the hub that may write into the variable HF_TOKEN.")
    return token


def _hub() -> Any:
    """The package, imported here alone: it is heavy, and only this command wants it.

    Raises:
        CommandError: it is not installed.
    """
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise CommandError("This needs the Python package huggingface-hub, which comes with the trainer.") from None
