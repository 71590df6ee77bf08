"""Why a service refused: one family, which pages and API turn into answers."""


class Refused(Exception):
    """A request that cannot be carried out, with what to do about it.

    Attributes:
        code: a stable word for programs.
        message: a sentence for people.
        fields: field path → what is wrong there.
        extra: what a program needs to go on (for example the current draft after a conflict).
    """

    status = 400
    code = "invalid"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        fields: dict[str, str] | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.fields = fields or {}
        self.extra = extra or {}


class Invalid(Refused):
    """The content breaks a rule of the project."""

    status = 422


class Conflict(Refused):
    """The content is fine, but the world has moved on."""

    status = 409
    code = "conflict"


class Forbidden(Refused):
    """A member without the right to do this."""

    status = 403
    code = "forbidden"


class NotFound(Refused):
    """There is no such thing, or it is none of the caller's business: the two look the same."""

    status = 404
    code = "not_found"
