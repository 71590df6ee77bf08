"""A project with a snapshot to train from, folders of its own for every test, and the cast."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from annotate.models import Project, Role, Snapshot
from tests.annotate.factories import make_project, make_user
from tests.training.django.helpers import RunCast, make_snapshot


@pytest.fixture(scope="session")
def models_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the tiny model in it, made once."""
    root = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-m", "training.recipes.tiny_model", "--output", str(root / "tiny")]
    subprocess.run(command, check=True, capture_output=True)
    return root


@pytest.fixture
def runs_root(tmp_path: Path, settings: Any, models_root: Path) -> Path:
    """Folders that no other test sees."""
    settings.RUNS_ROOT, settings.MODELS_ROOT = tmp_path / "runs", models_root
    return tmp_path / "runs"


@pytest.fixture
def project(db: None) -> Project:
    return make_project()


@pytest.fixture
def snapshot(project: Project) -> Snapshot:
    return make_snapshot(project)


@pytest.fixture
def people(project: Project) -> RunCast:
    elsewhere = make_project()
    return RunCast(
        alice=make_user(project=project, role=Role.MANAGER, engineer=True),
        bob=make_user(project=project, role=Role.MANAGER),
        charlie=make_user(project=elsewhere, role=Role.MANAGER, engineer=True),
        sue=make_user(is_superuser=True),
    )
