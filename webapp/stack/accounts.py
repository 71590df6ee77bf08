"""Who the embedded servers run as, and where that account can read and write.

Postgres refuses to run as root, so root hands its servers to an unprivileged account. That account may be unable to
enter the folders above the virtual environment or the data (a checkout under /root); we never change a folder that we
did not make, so programs are copied and data is placed elsewhere instead.
"""

import os
import pwd
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webapp.stack.errors import StackError

FALLBACK_ROOT = Path("/var/lib/plackett")


@dataclass(frozen=True)
class Account:
    """The account of a server process; `switch` is false when it is simply our own."""

    name: str
    uid: int
    gid: int
    switch: bool

    @property
    def popen_options(self) -> dict[str, Any]:
        """Arguments for subprocess that make the child run as this account."""
        if not self.switch:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Gives a file or folder that we made to the account."""
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def can_use(self, folder: Path) -> bool:
        """Whether the account can enter the folder and write in it."""
        return self._test('test -w "$1" && test -x "$1"', folder)

    def can_run(self, program: Path) -> bool:
        """Whether the account can reach and execute the program."""
        return self._test('test -x "$1" && test -r "$1"', program)

    def _test(self, expression: str, path: Path) -> bool:
        command = ["/bin/sh", "-c", expression, "sh", str(path)]
        return subprocess.run(command, cwd="/", check=False, **self.popen_options).returncode == 0


def server_account(data_dir: Path) -> Account:
    """The account to run a server as: ourselves, or for root the owner of the data, else `postgres`, else `nobody`.

    Raises:
        StackError: we are root and there is no unprivileged account, or the data belongs to another user.
    """
    owner = data_dir.stat().st_uid if data_dir.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner != os.geteuid():
            raise StackError(f"{data_dir} belongs to {_name(owner)}: run as that user, or set PLACKETT_HOME elsewhere.")
        return Account(name=_name(os.geteuid()), uid=os.geteuid(), gid=os.getegid(), switch=False)
    if owner:
        return Account(name=_name(owner), uid=owner, gid=data_dir.stat().st_gid, switch=True)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid, switch=True)
    raise StackError("Postgres does not run as root, and this machine has no account 'postgres' or 'nobody'.")


def make_data_dir(data_dir: Path) -> tuple[Path, Account]:
    """Makes the folder of one server, owned by the account that it runs as, mode 0700.

    Where that account cannot enter the place asked for, the folder is made under /var/lib/plackett and a link to it
    is left in the place asked for.

    Returns:
        The real folder and the account.
    """
    account = server_account(data_dir)
    if data_dir.exists():
        real = data_dir.resolve()
        return real, _checked(real, account)
    if data_dir.is_symlink():
        raise StackError(f"{data_dir} links to {data_dir.readlink()}, which is gone.")
    make_home(data_dir.parent)
    real = _new_folder(data_dir, account)
    if not account.can_use(real):
        real.rmdir()
        make_home(FALLBACK_ROOT)
        real = _new_folder(FALLBACK_ROOT / f"{data_dir.name}-{secrets.token_hex(4)}", account)
        data_dir.symlink_to(real)
    return real.resolve(), _checked(real, account)


def make_home(home: Path) -> None:
    """Makes the data folder, mode 0700; for root 0711, as the servers' account has to pass through it."""
    if not home.exists():
        home.mkdir(parents=True)
        home.chmod(0o711 if os.geteuid() == 0 else 0o700)


def reachable_program(program: Path, *, package_dirs: list[Path], copy_dir: Path, account: Account) -> Path:
    """The program itself, or, where the account cannot reach it, its copy.

    Args:
        program: an executable inside the first of `package_dirs`.
        package_dirs: sibling folders to copy, with their layout kept (the libraries are found by relative path).
        copy_dir: folder for the copy, inside a folder that the account can use; its name tells the version.
    """
    if account.can_run(program):
        return program
    copied = copy_dir / package_dirs[0].name / program.relative_to(package_dirs[0])
    if not copied.exists():
        _copy_whole(package_dirs, copy_dir)
    if not account.can_run(copied):
        raise StackError(f"The account {account.name} can run neither {program} nor its copy {copied}.")
    return copied


def _copy_whole(package_dirs: list[Path], copy_dir: Path) -> None:
    partial = copy_dir.with_name(f"{copy_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for package_dir in package_dirs:
        if package_dir.exists():
            skipped = shutil.ignore_patterns("include", "doc", "__pycache__", "*.a")
            shutil.copytree(package_dir, partial / package_dir.name, ignore=skipped, symlinks=True)
    partial.chmod(0o755)
    partial.rename(copy_dir)


def _new_folder(folder: Path, account: Account) -> Path:
    folder.mkdir(mode=0o700)
    account.own(folder)
    return folder


def _checked(folder: Path, account: Account) -> Account:
    if not account.can_use(folder):
        raise StackError(
            f"The account {account.name} cannot use {folder}: set PLACKETT_HOME to a folder it can enter, or run as "
            "an ordinary user."
        )
    return account


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
