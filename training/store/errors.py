"""What can go wrong with the store, told apart by what helps."""


class StoreError(Exception):
    """Something is not in the store, or could not be put there; the message is for people."""


class StoreAway(StoreError):
    """It does not answer, or is too busy: the same again may succeed later."""


class StoreRefuses(StoreError):
    """It answers, and refuses: credentials, rights, a bucket that is not there. Somebody has to look."""


class NotThere(StoreError):
    """There is no such object."""


class Damaged(StoreError):
    """What was read is not what was written: its sha256 differs. `name` is the object's."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class Stopped(Exception):
    """Whoever asked for the work wants it no more."""
