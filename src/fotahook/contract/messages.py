"""The callback message as a receiver reads it.

Verizon publishes the V1 envelope, its last part cut in every readable copy; of V2 it says only that the structure
differs and that the campaign's id is in every message (docs/thingspace.md, Messages). So every field here is
optional; a null, an empty list and an empty object count as absent; what has an unknown name or another type than its
field is kept in ``extra`` instead of refused; and the exact bytes stay in ``raw``. Fields marked *ours* are inferred
from V2's other models, not published by Verizon.
"""

import codecs
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import GenericAlias
from typing import Any, Final, TypeVar

import msgspec

MESSAGE_LIMIT: Final = 256 * 1024
"""Bytes in one message; ours, ThingSpace names no limit."""

DEPTH_LIMIT: Final = 100
"""Arrays and objects within each other; ours. Any reader can follow that far, from any depth of its own stack."""

# The members that say what a message is about: V1's published names first, then ours for V2.
_SUBJECTS: Final = ("firmwareList", "upgradeScheduled", "upgradeProgress", "softwareList", "campaign")
_CAMPAIGN_NAMES: Final = ("campaignId", "id", "upgradeId")
_SHOWN_LIMIT: Final = 100


class MessageInvalid(ValueError):
    """The bytes are not JSON, or nested too deeply."""


class Element(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
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
    """V1's ``upgradeScheduled`` and ``upgradeProgress``, and ``campaign``, which is *ours*.

    The first three fields are published, the rest is *ours*.
    """

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
    campaign: Upgrade | None = None
    raw: bytes = b""

    @property
    def parts(self) -> tuple[Upgrade, ...]:
        """The members about an upgrade that the message has."""
        return tuple([part for part in (self.upgrade_progress, self.upgrade_scheduled, self.campaign) if part])

    @property
    def kind(self) -> str | None:
        """``type`` where the message has one, else the name of the one non-empty member; None if that is not clear."""
        if self.type:
            return self.type
        named = {
            "firmwareList": self.firmware_list,
            "upgradeScheduled": self.upgrade_scheduled,
            "upgradeProgress": self.upgrade_progress,
            "campaign": self.campaign,
        }
        present = [name for name in _SUBJECTS if named.get(name) or self.extra.get(name)]
        return present[0] if len(present) == 1 else None

    @property
    def campaign_id(self) -> str | None:
        """The first of ``campaignId``, ``id`` and ``upgradeId`` found in a member, then in the message itself."""
        own = (self.extra.get(name) for name in _CAMPAIGN_NAMES)
        for part in self.parts:
            if found := part.campaign_id or part.id or part.upgrade_id:
                return found
        return next((named for named in own if isinstance(named, str) and named), None)

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices whose results the message reports."""
        return tuple([device for part in self.parts for device in part.device_list])

    @property
    def statuses(self) -> frozenset[str]:
        """Every status the message names, of its members and of their devices."""
        of_parts = {part.status for part in self.parts}
        of_devices = {device.status for device in self.devices}
        return frozenset(status for status in of_parts | of_devices if status)

    @property
    def content(self) -> object:
        """The whole JSON value, decoded anew from ``raw``: for what the typed fields do not know."""
        return _parse(self.raw)

    def __repr__(self) -> str:
        # The body may echo a password, so neither it nor `raw` is shown.
        return (
            f"<CallbackMessage kind={_shown(self.kind)} account={_shown(self.account_name)} "
            f"campaign={_shown(self.campaign_id)} devices={len(self.devices)} bytes={len(self.raw)}>"
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """As little for rich, which would show every field otherwise."""
        return [("kind", self.kind), ("bytes", len(self.raw))]


ElementT = TypeVar("ElementT", bound=Element)


def parse_message(raw: bytes) -> CallbackMessage:
    """The typed message in these bytes. Any JSON is accepted, whatever its shape; MessageInvalid if it is not JSON.

    A byte order mark is passed over: some senders write one, and a message refused may never come again.
    """
    if (message := _read_at_once(raw)) is not None:
        return message
    content = _parse(raw)
    if not isinstance(content, dict):
        return CallbackMessage(raw=raw)
    return _element(CallbackMessage, content, raw=raw)


def _read_at_once(raw: bytes) -> CallbackMessage | None:
    """The message, if it has known names with fitting values only, as most have; None if it must be gone through."""
    try:
        plain: CallbackMessage = _PLAIN_MESSAGE.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    # Such a one may have been an empty object, which counts as absent.
    if _PLAIN_NOTHING in (plain.upgrade_scheduled, plain.upgrade_progress, plain.campaign):
        return None
    return CallbackMessage(
        account_name=plain.account_name,
        participant_name=plain.participant_name,
        type=plain.type,
        username=plain.username,
        password=plain.password,
        firmware_list=tuple([Firmware(**msgspec.structs.asdict(one)) for one in plain.firmware_list]),
        upgrade_scheduled=plain.upgrade_scheduled and _read_plain(plain.upgrade_scheduled),
        upgrade_progress=plain.upgrade_progress and _read_plain(plain.upgrade_progress),
        campaign=plain.campaign and _read_plain(plain.campaign),
        raw=raw,
    )


def _read_plain(plain: Upgrade) -> Upgrade:
    return Upgrade(
        firmware_name=plain.firmware_name,
        upgrade_id=plain.upgrade_id,
        start_date=plain.start_date,
        id=plain.id,
        campaign_id=plain.campaign_id,
        software_name=plain.software_name,
        status=plain.status,
        device_list=tuple(
            [
                Device(device_id=device.device_id, status=device.status, result_reason=device.result_reason)
                for device in plain.device_list
            ]
        ),
    )


def _plain(kind: type[Element], **parts: object) -> type[msgspec.Struct]:
    """The fields of a part of a message, by the same names, and nothing else: whatever else stands there is refused."""
    fields = [
        (field.name, parts.get(field.name, field.type), field.default)
        for field in msgspec.structs.fields(kind)
        if field.name not in ("extra", "raw")
    ]
    return msgspec.defstruct(kind.__name__, fields, rename="camel", forbid_unknown_fields=True, frozen=True, gc=False)


_PLAIN_UPGRADE: Final = _plain(Upgrade, device_list=GenericAlias(tuple, (_plain(Device), ...)))
_PLAIN_NOTHING: Final = _PLAIN_UPGRADE()
_PLAIN_MESSAGE: Final = msgspec.json.Decoder[Any](
    _plain(
        CallbackMessage,
        firmware_list=GenericAlias(tuple, (_plain(Firmware), ...)),
        upgrade_scheduled=_PLAIN_UPGRADE | None,
        upgrade_progress=_PLAIN_UPGRADE | None,
        campaign=_PLAIN_UPGRADE | None,
    )
)


def _parse(raw: bytes) -> object:
    return parse_json(raw.removeprefix(codecs.BOM_UTF8))


def parse_json(raw: bytes) -> object:
    """The JSON value in these bytes; MessageInvalid says where it breaks.

    All that JSON's grammar allows is taken (RFC 8259), down to ``DEPTH_LIMIT``. Numbers out of range become infinite,
    as in JavaScript, and halves of surrogate pairs U+FFFD, so that every text can be stored and sent on.
    """
    try:
        content = _decode(raw)
    except (msgspec.MsgspecError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MessageInvalid(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise MessageInvalid(_TOO_DEEP) from error
    # Most messages cannot be deep: they have not as many brackets.
    if raw.count(b"[") + raw.count(b"{") > DEPTH_LIMIT and _is_deep(content):
        raise MessageInvalid(_TOO_DEEP)
    return content


_TOO_DEEP: Final = f"the body is nested more than {DEPTH_LIMIT} levels deep"
_LONGEST_INTEGER: Final = 1000


def _decode(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # The quick decoder refuses some of what the grammar allows; the thorough one has the last word.
        content = json.loads(raw.decode(), parse_int=_integer, parse_constant=_refuse_constant)
        return _mended(content)


def _integer(text: str) -> int | float:
    # Python itself refuses integers of more than some thousand digits.
    return int(text) if len(text) <= _LONGEST_INTEGER else float(text)


def _refuse_constant(name: str) -> object:
    raise MessageInvalid(f"the body is not JSON: {name} is no JSON value")


def _mended(value: object) -> object:
    """The value with U+FFFD for each half of a surrogate pair."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_mended(item) for item in value]
        case dict():
            return {_mended(name): _mended(member) for name, member in value.items()}
        case _:
            return value


def _is_deep(content: object) -> bool:
    level = [content]
    for _ in range(DEPTH_LIMIT):
        level = [inner for value in level for inner in _members(value) if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _members(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _shown(text: str | None) -> str:
    """A text for logs: quoted, and cut where a sender made it long."""
    return repr(text if text is None or len(text) <= _SHOWN_LIMIT else f"{text[:_SHOWN_LIMIT]}…")


def _element(kind: type[ElementT], content: Mapping[str, object], **fields: object) -> ElementT:
    """Known names with fitting values become fields; unknown names and values of other types are kept as they came."""
    extra: dict[str, object] = {}
    readers = _readers(kind)
    for name, value in content.items():
        if (reader := readers.get(name)) is None:
            extra[name] = value
            continue
        field, fit = reader
        fitted = fit(value)
        if fitted is not None:
            fields[field] = fitted
        elif value not in (None, [], {}):
            extra[name] = value
    return kind(extra=extra, **fields)


Fit = Callable[[object], object | None]
"""A value as its field wants it; None where it is absent or has another type."""


@cache
def _readers(kind: type[Element]) -> Mapping[str, tuple[str, Fit]]:
    """The field for each name on the wire, and how its values are read."""
    fields = msgspec.structs.fields(kind)
    return {
        field.encode_name: (field.name, _FITS.get(field.name, _text))
        for field in fields
        if field.name not in ("extra", "raw")
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _upgrade(value: object) -> Upgrade | None:
    return _element(Upgrade, value) if isinstance(value, dict) and value else None


def _firmware_list(value: object) -> tuple[Firmware, ...] | None:
    return _elements(Firmware, value)


def _device_list(value: object) -> tuple[Device, ...] | None:
    return _elements(Device, value)


_FITS: Final[Mapping[str, Fit]] = {
    "firmware_list": _firmware_list,
    "device_list": _device_list,
    "upgrade_scheduled": _upgrade,
    "upgrade_progress": _upgrade,
    "campaign": _upgrade,
}


def _elements(element: type[ElementT], value: object) -> tuple[ElementT, ...] | None:
    if not isinstance(value, list):
        return None
    items = [item for item in value if isinstance(item, dict)]
    return tuple(_element(element, item) for item in items) if len(items) == len(value) else None
