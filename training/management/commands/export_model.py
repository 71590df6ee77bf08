"""`manage.py export_model`: a model of the registry as an ordinary folder elsewhere, every file checked."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from annotate.errors import Refused
from training.models import ModelVersion
from training.selectors_models import files_to_take
from training.services.model_archive import Broken, copy_model


class Command(BaseCommand):
    help = (
        "Copy a model of the registry into a folder, which any program loads. The folder appears when all of it was "
        "written and read again; SHA256SUMS in it has the hash of every file."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", type=int, metavar="ID", help="id of the model, as in /models/ID/")
        parser.add_argument("folder", type=Path, metavar="DIR", help="does not exist yet, or is empty")
        parser.add_argument("--dry-run", action="store_true", help="say what would be copied, write nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        target: Path = options["folder"].absolute()
        if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise CommandError(f"{target} is not an empty folder; name one that does not exist yet.")
        model = ModelVersion.objects.filter(pk=options["model"]).first()
        if model is None:
            raise CommandError(f"There is no model {options['model']}.")
        try:
            files = files_to_take(model)
            size = sum(one.size_bytes for one in files)
            told = f"{len(files)} files, {size:,} bytes, of {model}"
            if options["dry_run"]:
                self.stdout.write(f"Would be copied to {target}: {told}. 0 files were written (dry run).")
                return
            with tqdm(total=size, unit="B", unit_scale=True, disable=options["verbosity"] == 0) as bar:
                copy_model(files, target, progress=bar.update)
        except Refused as refused:
            raise CommandError(refused.message) from None
        except (Broken, OSError) as problem:
            raise CommandError(f"Nothing was exported: {problem}") from None
        self.stdout.write(f"Copied to {target} and checked: {told}.")
