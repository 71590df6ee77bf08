"""The compose files: they parse, name the parts, and hold no secret."""

from typing import Any

import pytest
import yaml

from tests.stack.running import REPOSITORY

FILES = ("docker-compose.yml", "docker-compose.gpu.yml")


def compose(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((REPOSITORY / name).read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_the_parts_are_there_and_ours_come_from_one_image() -> None:
    services = compose("docker-compose.yml")["services"]
    assert set(services) == {"postgres", "redis", "web", "worker", "gpu-worker"}
    assert {services[name]["build"] for name in ("web", "worker", "gpu-worker")} == {"."}


def test_the_gpu_file_changes_parts_that_exist() -> None:
    assert set(compose("docker-compose.gpu.yml")["services"]) <= set(compose("docker-compose.yml")["services"])


@pytest.mark.parametrize("name", FILES)
def test_every_secret_comes_from_the_environment(name: str) -> None:
    for service in compose(name)["services"].values():
        for variable, value in service.get("environment", {}).items():
            if any(word in variable for word in ("PASSWORD", "SECRET", "URL")):
                assert ":?" in value, f"{variable} has to come from the environment"
