"""Signatures of webhooks, as standardwebhooks.com has them: HMAC-SHA256 over id, time and body.

The secret of a webhook is derived from the key of the home and the webhook's id, so it is stored
nowhere and shown once; another webhook of the same name has another one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

__all__ = ["secret_text", "signature_headers", "webhook_secret"]


def webhook_secret(pepper: bytes, webhook_id: str) -> bytes:
    """The key with which one webhook's messages are signed."""
    return hmac.digest(pepper, b"salver webhook secret\0" + webhook_id.encode(), hashlib.sha256)


def secret_text(secret: bytes) -> str:
    """A secret as receivers configure it."""
    return f"whsec_{base64.b64encode(secret).decode()}"


def signature_headers(secret: bytes, message_id: str, at_s: float, body: bytes) -> dict[str, str]:
    """The three headers of a message.

    >>> secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    >>> message = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.0, b'{"test": 2432232314}')
    >>> signature_headers(secret, *message)["webhook-signature"]
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    stamp = str(int(at_s))
    digest = hmac.digest(secret, b".".join((message_id.encode(), stamp.encode(), body)), hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
