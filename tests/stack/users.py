"""The stack as an ordinary user runs it, where the tests themselves run as root."""

import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.stack.running import REPOSITORY


@dataclass(frozen=True)
class Starter:
    """Who starts it: with which Python, and what that one needs in its environment; by default as we are."""

    python: list[str] = field(default_factory=lambda: [sys.executable])
    user: int | None = None
    environment: dict[str, str] = field(default_factory=dict)


def ordinary_user() -> pwd.struct_passwd | None:
    """Somebody who is not root and may read this checkout; None where we are that ourselves, or nobody may."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody if can_run("/bin/sh", nobody) else None


def starter_for(user: pwd.struct_passwd | None, folder: Path) -> Starter:
    """Our Python if the user can run it, or a copy in the folder, as pyenv under root's folder is closed."""
    if user is None:
        return Starter()
    if can_run(sys.executable, user):
        return Starter(user=user.pw_uid)
    base, version = Path(sys.base_prefix), f"python3.{sys.version_info.minor}"
    without = shutil.ignore_patterns("site-packages", "test", "idlelib", "config-*")
    shutil.copytree(base / "lib" / version, folder / "lib" / version, ignore=without)
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy(library, folder / "lib")
    shutil.copy(Path(sys.executable).resolve(), folder / "python")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    needed = {"PYTHONHOME": str(folder), "PYTHONPATH": packages, "LD_LIBRARY_PATH": str(folder / "lib")}
    return Starter([str(folder / "python")], user.pw_uid, needed)


def can_run(program: str, user: pwd.struct_passwd) -> bool:
    """Whether the user may start the program and read this checkout."""
    command = ["/bin/sh", "-c", 'test -x "$1" && test -r "$2"', "sh", program, str(REPOSITORY / "manage.py")]
    return subprocess.run(command, user=user.pw_uid, group=user.pw_gid, extra_groups=[], check=False).returncode == 0
