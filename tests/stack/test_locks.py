"""The lock files follow pyproject.toml and name neither a place to download from nor a build of torch."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.stack.running import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def pins(*names: str) -> dict[str, str]:
    """Package name → pinned version of these lock files."""
    lines = [
        line.partition(";")[0].strip()
        for name in names
        for line in (REPOSITORY / "requirements" / f"{name}.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line) for line in lines), lines
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


@pytest.mark.parametrize("extra", ["", "test", "lint"])
def test_every_dependency_is_pinned_to_a_version_that_pyproject_allows(extra: str) -> None:
    wanted = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    locked = pins(extra or "run", "torch")
    for requirement in map(Requirement, wanted):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None and requirement.specifier.contains(version), f"{requirement}: make lock"


def test_the_sets_agree() -> None:
    run = pins("run")
    for name in ("test", "lint"):
        other = pins(name)
        assert {package: other[package] for package in run} == run


def test_no_package_of_one_cuda_build_is_locked() -> None:
    found = [name for name in pins("run", "test", "lint") if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert set(found) <= {"nvidia-ml-py"}  # asks whatever driver there is, without CUDA
    assert pins("torch") == {"torch": "2.13.0"}
