"""The challenge that a URL must answer before it receives an account's messages: a signed message, echoed in part."""

import secrets
import time
from collections.abc import Sequence

import msgspec

from fotahook.contract.messages import CHALLENGE

from .sender import Sender, SenderSettings


async def challenge_receiver(
    url: str, account: str, key_ids: Sequence[str] = (), *, sender: SenderSettings
) -> str | None:
    """Why a receiver did not show that it wants the account's messages; None if it did.

    `key_ids`: the account's signing keys, which sign the challenge besides the account's ed25519 key.
    """
    value, message_id = secrets.token_urlsafe(24), f"challenge-{secrets.token_hex(8)}"
    body = msgspec.json.encode({"type": CHALLENGE, "accountName": account, "challenge": value})
    async with Sender(sender, clock=time.time, monotonic=time.monotonic) as challenger:
        outcome = await challenger.send_signed(url, account, tuple(key_ids), message_id, body)
    if outcome.code != "delivered":
        return f"it answered {outcome.status}" if outcome.status else f"the request failed: {outcome.code}"
    return None if value in outcome.excerpt else "its answer does not contain the challenge"
