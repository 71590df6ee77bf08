"""The Dockerfile. No image is built here: it is linted, and read for what each image would hold and run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from tests.deploy.files import BASE, NODE, OVERLAYS, REPOSITORY, SET, compose, filled
from webapp.stack.__main__ import parser

IMAGES = ("web", "worker-cpu", "worker-cuda")
TRAINERS = {"torch", "transformers", "accelerate", "peft", "safetensors", "gguf", "numpy", "nvidia-ml-py"}


class Stages:
    """The instructions of each stage, and of the stages that it is made from."""

    def __init__(self) -> None:
        self.base: dict[str, str] = {}
        self.own: dict[str, list[tuple[str, str]]] = {}
        for step in DockerfileParser(fileobj=(REPOSITORY / "Dockerfile").open("rb")).structure:
            if step["instruction"] == "FROM":
                image, _, name = step["value"].partition(" AS ")
                self.base[name], self.own[name] = image, []
            elif self.own and step["instruction"] != "COMMENT":
                self.own[name].append((step["instruction"], step["value"]))

    def all_of(self, name: str) -> list[tuple[str, str]]:
        return (self.all_of(self.base[name]) if self.base[name] in self.base else []) + self.own[name]


@pytest.fixture(scope="module")
def stages() -> Stages:
    return Stages()


def names_in(lock: str) -> set[str]:
    pins = (REPOSITORY / "requirements" / lock).read_text().splitlines()
    return {pin.partition("==")[0] for pin in pins if "==" in pin}


def test_the_linter_finds_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", REPOSITORY / "Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout == "", done.stdout + done.stderr


def test_the_linter_would_find_something() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", "-"],
        input="FROM debian\nRUN cd /x\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "DL3006" in done.stdout


@pytest.mark.parametrize("image", IMAGES)
def test_no_image_runs_as_root(stages: Stages, image: str) -> None:
    users = [value for instruction, value in stages.all_of(image) if instruction == "USER"]
    assert users == ["10001:10001"], "a number, so that a cluster can see that it is not root"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_takes_packages_and_code_from_other_stages_and_installs_nothing(stages: Stages, image: str) -> None:
    steps = stages.all_of(image)
    copied = [value for instruction, value in steps if instruction == "COPY"]
    packages = {"web": "web-packages", "worker-cpu": "cpu-packages", "worker-cuda": "cuda-packages"}[image]
    client = [] if image == "web" else ["--from=client /srv/plackett/plackett plackett"]
    assert copied == ["--from=source /srv/plackett .", *client, f"--from={packages} /opt/venv /opt/venv"]
    assert not any("pip" in value for instruction, value in steps if instruction == "RUN")


def test_the_web_image_has_no_torch(stages: Stages) -> None:
    installed = [value for instruction, value in stages.all_of("web-packages") if "pip install" in value]
    assert installed == ["pip install -r requirements/web.txt"]
    assert not names_in("web.txt") & TRAINERS
    assert names_in("run.txt") & TRAINERS == TRAINERS - {"torch"}, "torch has a file of its own"


# What the web image holds, imported where neither the client nor its httpx can be.
_WITHOUT_THE_CLIENT = """
import sys
sys.modules["plackett"] = sys.modules["httpx"] = None
import django
django.setup()
import pkgutil, importlib
import annotate, training.management.commands, webapp.management.commands, webapp.stack.__main__, webapp.urls
from django.core.management import get_commands, load_command_class
commands = {name: app for name, app in get_commands().items() if app in ("annotate", "training", "webapp")}
for name, app in commands.items():
    load_command_class(app, name)
for found in pkgutil.walk_packages(annotate.__path__, "annotate."):
    importlib.import_module(found.name)
print(len(commands))
"""


def test_the_web_image_holds_no_client_and_its_code_asks_for_none(stages: Stages) -> None:
    copied = [value for name in ("web", "source") for kind, value in stages.all_of(name) if kind == "COPY"]
    assert copied and not any("client" in value or "plackett plackett" in value for value in copied)
    assert "httpx" not in names_in("web.txt") and {"httpx", "tqdm"} <= names_in("run.txt")
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_THE_CLIENT], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and int(done.stdout) > 10, done.stderr


def test_the_web_image_has_the_same_versions_as_all_others() -> None:
    pins = {name: set((REPOSITORY / "requirements" / name).read_text().splitlines()) for name in ("web.txt", "run.txt")}
    assert len(pins["web.txt"]) > 30
    assert pins["web.txt"] <= pins["run.txt"]


@pytest.mark.parametrize("stage", ["cpu-packages", "cuda-packages"])
def test_workers_have_everything(stages: Stages, stage: str) -> None:
    installed = " ".join(value for instruction, value in stages.all_of(stage) if instruction == "RUN")
    assert re.findall(r"requirements/\w+\.txt", installed) == [
        "requirements/torch.txt",
        "requirements/run.txt",
        "requirements/models.txt",
    ]
    # Only the processor image asks another index for torch; nothing else comes from there.
    assert installed.count("--index-url") == (1 if stage == "cpu-packages" else 0)


def test_what_is_copied_exists_and_is_let_through(stages: Stages) -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = [value.split()[:-1] for steps in stages.own.values() for kind, value in steps if kind == "COPY"]
    sources = {source for names in copied if not names[0].startswith("--from") for source in names}
    assert len(sources) > 5
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert source in allowed or f"{Path(source).parent}/*.txt" in allowed, source


def test_every_command_is_one_that_we_have(stages: Stages) -> None:
    commands = [json.loads(value) for image in IMAGES for kind, value in stages.own[image] if kind == "CMD"]
    for name in (BASE, NODE, *OVERLAYS):
        for service in filled(compose(name), SET)["services"].values():
            commands += [service["command"]] if "command" in service else []
            commands += [service["healthcheck"]["test"][1:]] if "healthcheck" in service else []
    ours = [command[3:] for command in commands if command[:3] == ["python", "-m", "webapp.stack"]]
    assert len(ours) > 10
    for arguments in ours:
        parser().parse_args(arguments)  # ends the process where it is unknown
    with pytest.raises(SystemExit):
        parser().parse_args(["worker", "GPU 1"])
