"""A message as a line of an export."""

import hashlib
from datetime import datetime

import msgspec

from fotahook.contract.operator import BatchMessage


class Exported(msgspec.Struct, frozen=True, rename="camel"):
    """One line: the message's bytes as text in `body`, exact whatever a tool does to the JSON around it."""

    id: str
    account: str
    body: str
    sha256: str
    type: str | None = None
    ordering_key: str | None = None
    accepted_at: datetime | None = None


_decode = msgspec.json.Decoder(Exported).decode


def to_message(line: bytes, account: str | None) -> BatchMessage:
    """The message that a line stands for, for its own account or another; ValueError says what is wrong with it.

    Its idempotency key is made from its id: however often it is imported, it is taken once.
    """
    exported = _decode(line)
    body = exported.body.encode()
    if hashlib.sha256(body).hexdigest() != exported.sha256:
        raise ValueError("sha256 is not that of body: one of them was changed")
    return BatchMessage(
        account=exported.account if account is None else account,
        message=body,
        ordering_key=exported.ordering_key,
        idempotency_key=f"import:{exported.id}",
    )
