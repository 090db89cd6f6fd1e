"""Everything secret that a service hands out, derived from its one secret key, so that none of it is ever stored.

Each purpose gets its own key (HMAC-SHA256 of a label): knowing one tells nothing of
another. Who changes the secret key changes them all.
"""

import base64
import hashlib
import hmac
import secrets
from typing import Final

SECRET_KEY_BYTES: Final = 32


def generate_secret_key() -> str:
    """A fresh secret key as text, for ``FOTAHOOK_SECRET_KEY`` or a key file."""
    return base64.urlsafe_b64encode(secrets.token_bytes(SECRET_KEY_BYTES)).decode()


def parse_secret_key(text: str) -> bytes:
    """The bytes of a secret key; ValueError if it is no base64 of at least 32 bytes. The text is never repeated."""
    try:
        # Strictly: a decoder that skips what it does not know would make another key of a mistyped one.
        key = base64.b64decode(text.strip(), altchars=b"-_", validate=True)
    except ValueError:
        key = b""
    if len(key) < SECRET_KEY_BYTES:
        raise ValueError(f"the secret key must be URL-safe base64 of at least {SECRET_KEY_BYTES} bytes")
    return key


def signing_seed(secret_key: bytes) -> bytes:
    """The ed25519 seed with which the service signs every delivery."""
    return _derive(secret_key, "ed25519")


def account_signing_key(secret_key: bytes, key_id: str) -> bytes:
    """The HMAC key of an account's signing key, by its id."""
    return _derive(secret_key, "signing-key", key_id)


def access_token(secret_key: bytes, client_id: str, issued_at: float) -> str:
    """The token of a client issued at that moment: the same one as often as it is asked for."""
    return (
        base64.urlsafe_b64encode(_derive(secret_key, "token", client_id, repr(float(issued_at)))).decode().rstrip("=")
    )


def fingerprint(secret: str) -> bytes:
    """What is stored of a secret that is only ever verified.

    A plain hash is enough: these are 122 random bits or more, which nobody finds by trying, and they are verified at
    every call. Passwords are another matter; see service.passwords.
    """
    # Whatever a caller may send in its place: it is only wrong, never an error.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _derive(secret_key: bytes, *labels: str) -> bytes:
    # Lengths go in, so that ("a", "bc") and ("ab", "c") are different labels.
    info = b"".join(b"%d:%b" % (len(encoded), encoded) for label in labels if (encoded := label.encode()))
    return hmac.digest(secret_key, b"fotahook " + info, hashlib.sha256)
