"""The demo project: something to rank, example rankings to train from, and three accounts to try it with."""

import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any, TypedDict

from django.db import transaction

from annotate.errors import Refused
from annotate.models import ApiToken, ImportBatch, Project, ProjectVersion, Role, Snapshot, User
from annotate.services.imports import import_files
from annotate.services.projects import add_member, create_project
from annotate.services.snapshots import freeze_snapshot
from annotate.services.tokens import create_token, find_token, revoke_token

SLUG = "demo"
DATA = Path(__file__).resolve().parent.parent / "demo"
PROMPTS, EXAMPLES = "demo.jsonl", "example_rankings.jsonl"
SNAPSHOT = "Example rankings"
LOGINS = "demo-logins.json"
#: Marks the accounts that are ours to reset; `.invalid` is no mail domain.
MAIL = "demo.invalid"

GUIDELINES = """\
Each task shows a prompt and four or five responses to it. Put them in order, the best first.

**What better means, in this order**

1. *True and safe.* A response that states something false, or that could hurt someone who follows it, stands below \
one that does not, however well it is written.
2. *To the point.* It does what was asked: the right question, the right language, the length and form that were wanted.
3. *Clear.* It is easy to follow and has no filler, no repetition and no sudden end.

A longer response is not a better one.

**How to say it**

- Two responses that you cannot tell apart belong in one place: a tie is an answer, a coin flip is not.
- Leave a response *unranked* if you cannot judge it, for example because it needs knowledge that you lack.
- If none is acceptable, say *all bad*. You may still order them.
- Between two places you may say how much better the upper one is. Leave it open where you are not sure.
- Flag what is *wrong*, *unsafe*, *off topic* or *cut off*. A flag explains; it does not change the order.

**Arithmetic and code**: check the result first. A right result with a short reason beats a long reason with a wrong \
result. **Rewriting**: what was to be kept must still be there. **Several turns**: judge the last answer in the light \
of all that was said before.

The responses come from a very small language model, so many of them are bad. That is meant: there is something to rank.
"""

RULES: dict[str, Any] = {
    "guidelines": GUIDELINES,
    "allow_ties": True,
    "allow_partial": True,
    "allow_all_bad": True,
    "strength": ProjectVersion.Strength.OPTIONAL,
    "rationale": ProjectVersion.Rationale.OPTIONAL,
    "allow_rewrite": True,
    "criteria": [
        {"key": "helpful", "label": "Helpful", "kind": "likert", "low": 1, "high": 5, "required": False},
    ],
    "flags": [
        {"key": "wrong", "label": "Factually wrong"},
        {"key": "unsafe", "label": "Unsafe"},
        {"key": "off_topic", "label": "Off topic"},
        {"key": "cut_off", "label": "Cut off"},
    ],
}


class Login(TypedDict):
    username: str
    password: str
    token: str


def seed_demo(*, home: Path, data: Path = DATA) -> list[str]:
    """Makes whatever of the demo is not there yet, and returns a line for each thing that it made.

    What somebody changed or removed since stays as it is. Writes `home/demo-logins.json` (mode 600); an account whose
    log-in is not in that file gets a new password and token, if it is one of the demo's.
    """
    done: list[str] = []
    project = _project(done)
    _import(project, data / PROMPTS, done, overlap=1)
    _import(project, data / EXAMPLES, done)
    _logins(project, home / LOGINS, done)
    _snapshot(project, done)
    return done


def missing_parts(*, home: Path, data: Path = DATA) -> list[str]:
    """What seed_demo would make."""
    project = Project.objects.filter(slug=SLUG).first()
    parts = [] if project else ["the project 'demo'"]
    parts += [f"the records of {name}" for name in (PROMPTS, EXAMPLES) if _is_new(project, data / name)]
    logins = _read(home / LOGINS)
    parts += [f"the log-in {name}" for name in _SCOPES if not _works(logins.get(name))]
    if not Snapshot.objects.filter(project=project).exists():
        parts.append(f"the snapshot {SNAPSHOT!r}")
    return parts


def _project(done: list[str]) -> Project:
    project = Project.objects.filter(slug=SLUG).first()
    if project is None:
        project = create_project(
            slug=SLUG,
            name="Demo",
            description="Answers of a very small language model to everyday prompts.",
            rules=RULES,
            overlap=1,
            lease_seconds=3600,
        )
        done.append("Made the project 'demo'.")
    return project


def _import(project: Project, path: Path, done: list[str], *, overlap: int | None = None) -> None:
    if not _is_new(project, path):
        return
    (report,) = import_files(project=project, files=[path], format="plackett", overlap=overlap)
    done.append(f"Imported {report.written} records from {path.name}; {report.fault_count} had faults.")


def _is_new(project: Project | None, path: Path) -> bool:
    return path.exists() and not ImportBatch.objects.filter(project=project, source=path.name).exists()


def _snapshot(project: Project, done: list[str]) -> None:
    if Snapshot.objects.filter(project=project).exists():
        return
    try:
        snapshot = freeze_snapshot(project=project, name=SNAPSHOT)
    except Refused:
        return  # no example rankings: nothing to freeze, and nothing wrong
    done.append(f"Froze the snapshot {SNAPSHOT!r}: {snapshot.counts['rankings']} rankings.")


# --- accounts ---------------------------------------------------------------------------------------------------------

_SCOPES: dict[str, list[str]] = {
    "annotator": [ApiToken.Scope.READ.value, ApiToken.Scope.ANNOTATE.value],
    "manager": ApiToken.Scope.values,
    "admin": ApiToken.Scope.values,
}


def _logins(project: Project, path: Path, done: list[str]) -> None:
    known = _read(path)
    logins = {name: known[name] for name in _SCOPES if _works(known.get(name))}
    missing = [name for name in _SCOPES if name not in logins]
    if not missing:
        return
    with transaction.atomic():
        for name in missing:
            logins[name] = _make_login(project, name)
        # Inside the transaction: if the file cannot be written, no account is made that nobody can use.
        write_private(path, json.dumps({name: logins[name] for name in _SCOPES}, indent=2) + "\n")
    done.append(f"Wrote the log-ins of {', '.join(missing)} to {path}.")


def _read(path: Path) -> dict[str, Login]:
    try:
        found: dict[str, Login] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _works(login: Login | None) -> bool:
    """Whether this database still has the account and its token. (Of another database, it has neither.)"""
    if not isinstance(login, dict) or not all(isinstance(login.get(key), str) for key in Login.__annotations__):
        return False
    token = find_token(login["token"])
    return token is not None and token.user.username == login["username"]


def _make_login(project: Project, name: str) -> Login:
    mail = f"{name}@{MAIL}"
    user = User.objects.filter(email=mail).first()
    if user is None:
        taken = User.objects.filter(username=name).exists()
        user = User(username=f"demo-{name}" if taken else name, email=mail, first_name="Demo", last_name=name)
    password = secrets.token_urlsafe(12)
    user.set_password(password)
    user.is_active = True
    user.is_superuser = user.is_staff = name == "admin"
    user.save()
    if name != "admin":
        role = Role.MANAGER if name == "manager" else Role.ANNOTATOR
        add_member(project=project, user=user, role=role, engineer=name == "manager")
    for old in ApiToken.objects.filter(user=user, name="demo"):
        revoke_token(token=old)
    _, token = create_token(user=user, name="demo", scopes=_SCOPES[name])
    return {"username": user.username, "password": password, "token": token}


def write_private(path: Path, text: str) -> None:
    """Replaces a file whole, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it mode 600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
