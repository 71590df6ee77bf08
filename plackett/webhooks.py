"""For servers that are told of events: is this delivery Plackett's, and from just now?"""

import hashlib
import hmac
import json
import time
from typing import Any

TOLERANCE_SECONDS = 300


def verify(*, secret: str, signature: str, body: bytes, tolerance: float = TOLERANCE_SECONDS) -> dict[str, Any]:
    """The event of a delivery whose signature fits.

    Args:
        secret: of the webhook.
        signature: the header `Plackett-Signature`.
        body: the bytes as they came.
        tolerance: seconds that the sender's clock and this one may differ.

    Raises:
        ValueError: it is not from who has the secret, or too old.
    """
    parts = [part.partition("=") for part in signature.split(",")]
    sent = next((value for name, _, value in parts if name.strip() == "t"), "")
    if not (sent.isascii() and sent.isdecimal()):
        raise ValueError("The header Plackett-Signature says no instant.")
    expected = hmac.new(secret.encode(), f"{sent}.".encode() + body, hashlib.sha256).hexdigest()
    given = [value.strip() for name, _, value in parts if name.strip() == "v1"]
    if not any(hmac.compare_digest(expected.encode(), one.encode()) for one in given):
        raise ValueError("The signature does not fit: another secret, or another body.")
    if abs(time.time() - int(sent)) > tolerance:
        raise ValueError(f"The delivery was signed more than {tolerance:.0f} seconds ago, or in the future.")
    event: dict[str, Any] = json.loads(body)
    return event
