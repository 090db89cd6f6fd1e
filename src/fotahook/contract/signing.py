"""Standard Webhooks signatures: ``v1`` (HMAC-SHA256 with a shared secret) and ``v1a`` (ed25519, no secret shared).

They sign ``id.timestamp.body``, the body byte for byte (Standard Webhooks specification, "Signature scheme").
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final

SECRET_PREFIX: Final = "whsec_"
PUBLIC_PREFIX: Final = "whpk_"
TOLERANCE: Final = 300.0
"""Seconds by which a timestamp may differ from the clock; beyond that a message counts as replayed."""
HEADER_LIMIT: Final = 4096
"""Characters of the signature header that are read; ten signatures take about 900."""
ED25519_LIMIT: Final = 4
"""ed25519 signatures that a message may have: checking one hashes the whole body, for each key."""
_ED25519_BYTES: Final = 64
_SIGNATURE_BYTES: Final = {"v1": hashlib.sha256().digest_size, "v1a": _ED25519_BYTES}
Keys = Iterable[bytes]
Sign = Callable[[str, int, bytes], str]
"""Makes the signatures of a message from its id, the timestamp and its body."""


class SignatureRefused(Exception):
    """The signature headers do not prove that the holder of a known key just sent these bytes."""


def parse_secret(text: str) -> bytes:
    """The key bytes of a ``whsec_…`` secret; ValueError if it is not one of 24 to 64 bytes."""
    return _decode(text, SECRET_PREFIX, range(24, 65), "a signing secret has 24 to 64 bytes")


def parse_public_key(text: str) -> bytes:
    """The 32 bytes of a ``whpk_…`` public key; ValueError if it is not one."""
    return _decode(text, PUBLIC_PREFIX, range(32, 33), "an ed25519 public key has 32 bytes")


def format_secret(key: bytes) -> str:
    return SECRET_PREFIX + _base64(key)


def format_public_key(seed: bytes) -> str:
    return PUBLIC_PREFIX + _base64(_key_pair(seed)[0])


def signer(*, seeds: Keys = (), secrets: Keys = ()) -> Sign:
    """Makes the `webhook-signature` of messages: by ed25519 keys (their seeds), then by shared secrets.

    Deriving an ed25519 key takes as long as signing with it: keep what signs for one account.
    """
    private, shared = [_key_pair(seed)[1] for seed in seeds], tuple(secrets)
    if private:
        from nacl.bindings import crypto_sign

    def sign(message_id: str, timestamp: int, body: bytes) -> str:
        content = _signed(message_id, timestamp, body)
        signatures = [f"v1a,{_base64(crypto_sign(content, key)[:_ED25519_BYTES])}" for key in private]
        signatures += [f"v1,{_base64(hmac.digest(key, content, 'sha256'))}" for key in shared]
        return " ".join(signatures)

    return sign


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


@lru_cache(maxsize=4096)
def _key_pair(seed: bytes) -> tuple[bytes, bytes]:
    from nacl.bindings import crypto_sign_seed_keypair

    return crypto_sign_seed_keypair(seed)


def headers(message_id: str, timestamp: int, signatures: Iterable[str]) -> dict[str, str]:
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": " ".join(signatures)}


def check_headers(given: Mapping[str, str], *, now: float) -> list[tuple[str, bytes]]:
    """The signatures that the headers offer, with their versions; SignatureRefused if a header is wrong, or late."""
    message_id, sent, text = (given.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (message_id and sent and text):
        raise SignatureRefused("webhook-id, webhook-timestamp or webhook-signature is missing")
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 12):
        raise SignatureRefused("webhook-timestamp is not a number of seconds")
    if not message_id.isascii():
        raise SignatureRefused("webhook-id is not ASCII")
    skew = now - int(sent)
    if abs(skew) > TOLERANCE:
        direction = "old" if skew > 0 else "ahead of this clock"
        raise SignatureRefused(f"the message is {abs(skew):.0f} s {direction}, more than {TOLERANCE:.0f} s")
    offered = list(filter(None, map(_parse_signature, text[:HEADER_LIMIT].split(" "))))
    if sum(version == "v1a" for version, _ in offered) > ED25519_LIMIT:
        raise SignatureRefused(f"webhook-signature has more than {ED25519_LIMIT} signatures of version v1a")
    return offered


def verify(given: Mapping[str, str], body: bytes, *, secrets: Keys = (), public_keys: Keys = (), now: float) -> None:
    """Return if a known key signed these bytes within TOLERANCE of `now`; `given` has lower-case names."""
    offered = check_headers(given, now=now)
    # The header's own text was signed, leading zeros included.
    signed = _signed(given["webhook-id"], given["webhook-timestamp"], body)
    expected = [hmac.digest(key, signed, hashlib.sha256) for key in secrets]
    if any(version == "v1" and hmac.compare_digest(text, digest) for version, text in offered for digest in expected):
        return
    keys = tuple(public_keys)
    if any(version == "v1a" and _ed25519_matches(key, text, signed) for version, text in offered for key in keys):
        return
    raise SignatureRefused(
        "no signature matches a known key; if the key is right, the body was changed on its way "
        "(re-serialised JSON differs in spaces or key order)"
    )


def _parse_signature(text: str) -> tuple[str, bytes] | None:
    version, _, encoded = text.partition(",")
    try:
        signature = base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
    return (version, signature) if _SIGNATURE_BYTES.get(version) == len(signature) else None


def _ed25519_matches(public_key: bytes, signature: bytes, signed: bytes) -> bool:
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    try:
        crypto_sign_open(signature + signed, public_key)
    except BadSignatureError:
        return False
    return True


def _signed(message_id: str, timestamp: int | str, body: bytes) -> bytes:
    return f"{message_id}.{timestamp}.".encode("ascii") + body


def _decode(text: str, prefix: str, sizes: range, rule: str) -> bytes:
    encoded = text.strip().removeprefix(prefix).rstrip("=")
    try:
        # Secrets are copied by hand, often without their padding.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError as error:
        raise ValueError(f"not {prefix}… followed by base64") from error
    if len(key) not in sizes:
        raise ValueError(rule)
    return key
