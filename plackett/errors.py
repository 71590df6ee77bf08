"""What can go wrong, each with one line that says what to do."""

from collections.abc import Mapping
from typing import Any


class PlackettError(Exception):
    """Anything that this package raises."""


class Disconnected(PlackettError):
    """The server cannot be reached, or went away and did not come back."""


class Refused(PlackettError):
    """The server understood and said no.

    Attributes:
        status: of the HTTP answer.
        code: a stable word for programs.
        fields: dotted path of what was sent → what is wrong there.
        extra: what a program needs to go on.
    """

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(error.get("code", ""))
        self.fields: dict[str, str] = dict(error.get("fields") or {})
        self.extra: dict[str, Any] = dict(error.get("extra") or {})
        message = str(error.get("message") or f"The server answered {status}.")
        where = "; ".join(f"{path}: {what}" for path, what in self.fields.items())
        super().__init__(f"{message} ({where})" if where else message)


class RunFailed(PlackettError):
    """A run ended without success.

    Attributes:
        run: as the API shows it.
    """

    def __init__(self, run: Mapping[str, Any]) -> None:
        self.run = dict(run)
        reason = str(run.get("reason") or "").strip().splitlines()
        super().__init__(f"Run {run['id']} {run['state']}{': ' + reason[0] if reason else ''}")
