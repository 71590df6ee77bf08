"""What may import what, and that neither the web nor a Celery worker ever loads torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "peft", "accelerate", "numpy", "pyarrow", "boto3", "botocore")

WEB = """
from webapp.wsgi import application
from django.urls import get_resolver
patterns = list(get_resolver().url_patterns)
def walk(found):
    for one in found:
        walk(one.url_patterns) if hasattr(one, "url_patterns") else getattr(one, "callback", None)
walk(patterns)
"""
WORKER = """
from webapp.celery import app
app.loader.import_default_modules()
assert "training.ring" in app.tasks
import training.runner.attempt, training.runner.station
"""


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh process has loaded after running the code."""
    report = "\nimport sys, json\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code + report],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("code", [WEB, WORKER], ids=["web", "worker"])
def test_neither_the_web_nor_a_worker_loads_torch(code: str) -> None:
    loaded = modules_after(code)
    assert "training" in loaded and "annotate" in loaded
    assert not loaded & set(HEAVY)


def test_the_look_at_loaded_modules_would_find_torch() -> None:
    assert "torch" in modules_after("import training.core.local_models")


def test_every_import_keeps_to_the_contracts() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts:" in done.stdout and ", 0 broken" in done.stdout
