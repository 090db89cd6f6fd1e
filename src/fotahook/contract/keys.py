"""Keys and tokens that a service derives from its one secret key instead of storing them.

Each purpose has its own key (HMAC-SHA256 of a label), which reveals nothing about the others.
"""

import base64
import hashlib
import hmac
import secrets
from functools import partial
from typing import Final

SECRET_KEY_BYTES: Final = 32


def generate_secret_key() -> str:
    """A new secret key as text, for ``FOTAHOOK_SECRET_KEY`` or a key file."""
    return base64.urlsafe_b64encode(secrets.token_bytes(SECRET_KEY_BYTES)).decode()


def parse_secret_key(text: str) -> bytes:
    """The bytes of a secret key; ValueError, without the text, if it is not base64 of at least 32 bytes."""
    try:
        # Strict: a lenient decoder would turn a mistyped key into another one.
        key = base64.b64decode(text.strip(), altchars=b"-_", validate=True)
    except ValueError:
        key = b""
    if len(key) < SECRET_KEY_BYTES:
        raise ValueError(f"the secret key must be URL-safe base64 of at least {SECRET_KEY_BYTES} bytes")
    return key


def _derive(purpose: str, secret_key: bytes, *labels: str) -> bytes:
    # With lengths, so that ("a", "bc") and ("ab", "c") are different labels.
    info = b"".join(b"%d:%b" % (len(encoded), encoded) for label in (purpose, *labels) if (encoded := label.encode()))
    return hmac.digest(secret_key, b"fotahook " + info, hashlib.sha256)


signing_seed = partial(_derive, "ed25519")
"""The ed25519 seed of the service, whose signature proves no account."""
account_signing_seed = partial(_derive, "ed25519-account")
"""The ed25519 seed of an account: a signature by it is good for that account alone."""
account_signing_key = partial(_derive, "signing-key")
"""The HMAC key of an account's signing key, by its id."""
cursor_key = partial(_derive, "cursor")
key_mark = partial(_derive, "mark")
"""What a store keeps of its secret key, to recognize it by. It reveals nothing about the key."""


def access_token(secret_key: bytes, client_id: str, issued_at: float) -> str:
    """The token of a client issued at that time, always the same."""
    key = _derive("token", secret_key, client_id, repr(float(issued_at)))
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def fingerprint(secret: str) -> bytes:
    """The stored hash of a secret of 122 random bits or more, which is only verified. Not for passwords."""
    # surrogatepass: any text that a caller sends is only wrong, never an error.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
