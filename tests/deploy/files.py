"""The compose files and the Dockerfile as the tests read them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = "docker-compose.yml"
NODE = "docker-compose.node.yml"
S3, NODE_S3 = "docker-compose.s3.yml", "docker-compose.node-s3.yml"
OVERLAYS = ("docker-compose.gpu.yml", "docker-compose.cluster.yml", S3)
SET = {
    "PLACKETT_SHARED": "/mnt/plackett",
    "PLACKETT_PRIVATE_ADDRESS": "10.0.0.1",
    "PLACKETT_NODE": "gpu-2",
    "PLACKETT_ARTIFACTS": "s3://bucket/plackett",
}
OURS = ("prepare", "web", "worker", "gpu-worker", "cpu-worker", "beat")

_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Z0-9_]+)(?P<how>:-|:\?)(?P<rest>[^}]*)\}")


class Unset(ValueError):
    """A variable that has to be set is not."""


def compose(name: str) -> dict[str, Any]:
    """A compose file with its anchors followed and its variables as they stand."""
    loaded = yaml.safe_load((REPOSITORY / name).read_text())
    assert isinstance(loaded, dict)
    return loaded


def filled(value: Any, variables: Mapping[str, str]) -> Any:
    """The value with its variables filled in, as compose does it: ${A:-default}, ${A:?what is missing}, $$ for $.

    Raises:
        Unset: a variable that has to be set is not.
    """
    if isinstance(value, dict):
        return {key: filled(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, variables) for one in value]
    return _VARIABLE.sub(lambda match: _fill(match, variables), value) if isinstance(value, str) else value


def _fill(match: re.Match[str], variables: Mapping[str, str]) -> str:
    if match.group() == "$$":
        return "$"
    known = variables.get(match["name"], "")
    if not known and match["how"] == ":?":
        raise Unset(f"{match['name']}: {match['rest']}")
    return known or match["rest"]
