"""The callback message as a receiver reads it.

Verizon publishes the V1 envelope, its last part cut in every readable copy; of V2 it says only that the structure
differs and that the campaign's id is in every message (docs/thingspace.md, Messages). So every field here is
optional, what does not fit is kept in ``extra`` instead of refused, and the exact bytes stay in ``raw``. Fields marked
*ours* are inferred from V2's other models, not published by Verizon.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

MESSAGE_LIMIT: Final = 256 * 1024
"""Bytes in one message; ours, ThingSpace names no limit."""

# The members that say what a message is about: V1's published names first, then ours for V2.
_SUBJECTS: Final = ("firmwareList", "upgradeScheduled", "upgradeProgress", "softwareList", "campaign")
_CAMPAIGN_NAMES: Final = ("campaignId", "id", "upgradeId")


class MessageInvalid(ValueError):
    """The bytes are not JSON."""


class Element(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of a message: what is known of it in typed fields, everything else in ``extra``."""

    extra: Mapping[str, object] = {}


class Firmware(Element, frozen=True, kw_only=True):
    """One entry of V1's ``firmwareList``: firmware that became available."""

    firmware_name: str | None = None
    participant_name: str | None = None
    launch_date: str | None = None
    release_note: str | None = None
    model: str | None = None
    make: str | None = None
    from_version: str | None = None
    to_version: str | None = None


class Device(Element, frozen=True, kw_only=True):
    """One device's result (*ours*: spelled like V2's device models)."""

    device_id: str | None = None
    status: str | None = None
    result_reason: str | None = None


class Upgrade(Element, frozen=True, kw_only=True):
    """V1's ``upgradeScheduled`` and ``upgradeProgress``; the first three fields are published, the rest is *ours*."""

    firmware_name: str | None = None
    upgrade_id: str | None = None
    start_date: str | None = None
    id: str | None = None
    campaign_id: str | None = None
    software_name: str | None = None
    status: str | None = None
    device_list: tuple[Device, ...] = ()


class CallbackMessage(Element, frozen=True, kw_only=True):
    """One message as ThingSpace or fotahook sent it. Nothing in it is required to be there."""

    account_name: str | None = None
    participant_name: str | None = None
    type: str | None = None
    username: str | None = None
    password: str | None = None
    firmware_list: tuple[Firmware, ...] = ()
    upgrade_scheduled: Upgrade | None = None
    upgrade_progress: Upgrade | None = None
    raw: bytes = b""

    @property
    def kind(self) -> str | None:
        """``type`` where the message has one, else the name of the one non-empty member; None if that is not clear."""
        if self.type:
            return self.type
        named = {
            "firmwareList": self.firmware_list,
            "upgradeScheduled": self.upgrade_scheduled,
            "upgradeProgress": self.upgrade_progress,
        }
        present = [name for name in _SUBJECTS if named.get(name) or self.extra.get(name)]
        return present[0] if len(present) == 1 else None

    @property
    def campaign_id(self) -> str | None:
        """The first of ``campaignId``, ``id`` and ``upgradeId`` found in a member, then in the message itself."""
        for part in (self.upgrade_progress, self.upgrade_scheduled):
            if part is not None and (found := part.campaign_id or part.id or part.upgrade_id):
                return found
        campaign = self.extra.get("campaign")
        for place in (campaign if isinstance(campaign, Mapping) else {}, self.extra):
            for name in _CAMPAIGN_NAMES:
                named = place.get(name)
                if isinstance(named, str) and named:
                    return named
        return None

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices whose results the message reports."""
        return tuple(
            device
            for part in (self.upgrade_progress, self.upgrade_scheduled)
            if part is not None
            for device in part.device_list
        )

    @property
    def statuses(self) -> frozenset[str]:
        """Every status the message names, of its members and of their devices."""
        parts = [part for part in (self.upgrade_progress, self.upgrade_scheduled) if part is not None]
        return frozenset(status for status in (*(p.status for p in parts), *(d.status for d in self.devices)) if status)

    def __repr__(self) -> str:
        # The body may echo a password, so neither it nor `raw` is shown.
        return (
            f"<CallbackMessage {self.kind or 'of unknown kind'} account={self.account_name!r} "
            f"campaign={self.campaign_id!r} devices={len(self.devices)} bytes={len(self.raw)}>"
        )


ElementT = TypeVar("ElementT", bound=Element)


def parse_message(raw: bytes) -> CallbackMessage:
    """The typed message in these bytes. Any JSON is accepted, whatever its shape; MessageInvalid if it is not JSON."""
    content = parse_json(raw)
    if not isinstance(content, dict):
        return CallbackMessage(raw=raw)
    return msgspec.structs.replace(_element(CallbackMessage, content), raw=raw)


def parse_json(raw: bytes) -> object:
    """The JSON value in these bytes; MessageInvalid says where it breaks."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MessageInvalid(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise MessageInvalid("the body is nested too deeply") from error


def _element(kind: type[ElementT], content: Mapping[str, object]) -> ElementT:
    """Known names with fitting values become fields; all the rest is kept as it came."""
    fields: dict[str, object] = {}
    extra = dict(content)
    for field in msgspec.structs.fields(kind):
        if field.name in ("extra", "raw") or field.encode_name not in content:
            continue
        fitted = _fit(field.name, content[field.encode_name])
        if fitted is not None:
            fields[field.name] = fitted
            del extra[field.encode_name]
    return kind(extra=extra, **fields)


_LISTS: Final[Mapping[str, type[Element]]] = {"firmware_list": Firmware, "device_list": Device}
_OBJECTS: Final[Mapping[str, type[Element]]] = {"upgrade_scheduled": Upgrade, "upgrade_progress": Upgrade}


def _fit(name: str, value: object) -> object | None:
    """A value as its field wants it; None where it has another type, or is null or an empty object."""
    if (element := _LISTS.get(name)) is not None:
        fits = isinstance(value, list) and all(isinstance(item, dict) for item in value)
        return tuple(_element(element, item) for item in value) if fits else None  # type: ignore[attr-defined]
    if (element := _OBJECTS.get(name)) is not None:
        return _element(element, value) if isinstance(value, dict) and value else None
    return value if isinstance(value, str) else None
