"""The Idempotency-Key header of creating POSTs."""

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from rest_framework.exceptions import ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotate.api.bodies import keep_body
from annotate.models import User
from annotate.services.idempotency import Answer, answer_once, answer_once_finished

HEADER = "Idempotency-Key"
MAX_KEY_CHARACTERS = 200


P = ParamSpec("P")
View = TypeVar("View", bound=APIView)
Post = Callable[Concatenate[View, Request, P], Response]


def idempotent(post: Post[View, P]) -> Post[View, P]:
    """Lets a view's `post` be repeated safely: `@idempotent` above `def post(self, request, …) -> Response`.

    With the header, the key, all that the view writes and its answer commit in one transaction. The same key with the
    same bytes gives the first answer again, marked `Idempotent-Replay: true`; with other bytes 422. A view refuses by
    raising: then nothing is kept, and the request may be corrected or tried again under the same key. Without the
    header nothing changes.
    """
    return _with_key(post, answer_once, _body_sha256)


def idempotent_but(*told_once: str) -> Callable[[Post[View, P]], Post[View, P]]:
    """As idempotent, for an answer with secrets of which only a hash is kept: repeated, these fields of it are null."""

    def decorated(post: Post[View, P]) -> Post[View, P]:
        return _with_key(post, answer_once, _body_sha256, told_once)

    return decorated


def idempotent_once_finished(post: Post[View, P]) -> Post[View, P]:
    """As idempotent, for a POST that is too long for one transaction and writes nothing twice by its own nature; its
    body may be of any size."""
    return _with_key(post, answer_once_finished, keep_body)


def _with_key(
    post: Post[View, P],
    once: Callable[..., Answer],
    body_sha256: Callable[[Request], str],
    told_once: tuple[str, ...] = (),
) -> Post[View, P]:
    @functools.wraps(post)
    def wrapped(self: View, request: Request, *args: P.args, **kwargs: P.kwargs) -> Response:
        key = key_of(request)
        if key is None:
            return post(self, request, *args, **kwargs)
        first: list[Response] = []

        def act() -> Answer:
            first.append(post(self, request, *args, **kwargs))
            body = json.loads(JSONRenderer().render(first[0].data) or "null")
            return Answer(first[0].status_code, body | dict.fromkeys(told_once) if told_once else body)

        answer = once(
            user=cast(User, request.user),
            endpoint=request.path,
            key=key,
            body_sha256=body_sha256(request),
            act=act,
        )
        if not answer.replayed:
            return first[0]
        return Response(answer.body, status=answer.status, headers={"Idempotent-Replay": "true"})

    wrapped.is_idempotent = True  # type: ignore[attr-defined]  # for the OpenAPI document
    return cast(Post[View, P], wrapped)


def key_of(request: Request) -> str | None:
    """The request's key; None if it has none.

    Raises:
        ValidationError: empty, longer than 200 characters, or not printable ASCII.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS or not (key.isascii() and key.isprintable()):
        message = f"Send 1 to {MAX_KEY_CHARACTERS} printable ASCII characters, for example a UUID."
        raise ValidationError(cast(Any, {HEADER: [message]}))
    return key


def _body_sha256(request: Request) -> str:
    # Hashed as sent, before anything parses it: two spellings of one JSON object are two bodies.
    return hashlib.sha256(request._request.body).hexdigest()
