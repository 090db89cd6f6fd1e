"""The callback message that a receiver reads.

Verizon publishes the V1 envelope, incomplete in every readable copy; of V2 it says only that the structure differs and
that every message has the campaign's id (docs/thingspace.md, Messages). Therefore every field is optional; null, an
empty list and an empty object count as absent; unknown names and values of another type are kept in ``extra``; and
``raw`` has the exact bytes. Fields marked *ours* are inferred from V2's other models, not published by Verizon.
"""

import codecs
import gc
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import accumulate
from typing import Any, Final, Literal, TypeVar

import msgspec

MESSAGE_LIMIT: Final = 256 * 1024
"""Bytes in one message; ours, ThingSpace names no limit."""
DEPTH_LIMIT: Final = 100
"""Levels of nested arrays and objects; ours. Any reader can parse that many, whatever the depth of its own stack."""
# The members that a message can be about: V1's published names first, then ours for V2.
_SUBJECTS: Final = ("firmwareList", "upgradeScheduled", "upgradeProgress", "softwareList", "campaign")
_CAMPAIGN_NAMES: Final = ("campaignId", "id", "upgradeId")
CHALLENGE: Final = "fotahookChallenge"
"""The type of the message with which a service asks a new URL whether it wants an account's messages; ours."""
# The statuses of an upgrade, in the order of its life cycle. V1's are those of its upgrades; V2's are on its life-cycle
# page, which spells one `UpgradedFailed`, where device histories have `UpgradeFailed` (docs/thingspace.md, Messages).
SUCCEEDED: Final = frozenset({"UpgradeSuccess", "Finished"})
_FAILED_CAMPAIGNS: Final = ("CampaignAborted", "CampaignCancelled", "CampaignFailed", "CampaignRequestFailed")
FAILED: Final = frozenset({*_FAILED_CAMPAIGNS, "DeviceRejected", "RequestFailed", "UpgradeFailed", "UpgradedFailed"})
"""Statuses that say that an upgrade ended without success: it failed, was refused, or was cancelled."""
FINAL_RANK: Final = 5
"""Ranks from here on are of results, after which nothing more is to come."""
# What the statuses of an upgrade in progress are is published only for V1: an unknown status counts as one of these.
_IN_PROGRESS: Final = 4
_RANKS: Final = {
    **dict.fromkeys(("CampaignRequestPending", "RequestPending", "AddDeviceSucceed", "LicenseAssignSuccess"), 1),
    **dict.fromkeys(("CampaignQueued", "Queued", "CampaignPreScheduled", "Accepted"), 2),
    "CampaignScheduled": 3,
    **dict.fromkeys(FAILED - {"UpgradedFailed"}, FINAL_RANK),
    # A success is not undone: what says that the upgrade failed is older.
    **dict.fromkeys((*SUCCEEDED, "CampaignEnded"), FINAL_RANK + 1),
}
_SPELLINGS: Final = {"UpgradedFailed": "UpgradeFailed", "CampaignRequestQueued": "CampaignQueued"}


def place(status: str) -> tuple[str, int]:
    """A status in the one of its spellings that is compared, and its rank: higher for what comes later."""
    status = _SPELLINGS.get(status, status)
    return status, _RANKS.get(status, _IN_PROGRESS)


class MessageInvalid(ValueError):
    """The bytes are not JSON, or nested too deeply."""


class Element(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, gc=False):
    """A part of a message: known fields are typed, everything else is in ``extra``."""

    extra: Mapping[str, object] = msgspec.field(default_factory=dict, name="fotahook:extra")


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
    """One device's result (*ours*: named as in V2's device models)."""

    device_id: str | None = None
    status: str | None = None
    result_reason: str | None = None
    stale: bool = msgspec.field(default=False, name="fotahook:stale")
    """As of the message, for this device alone."""

    @property
    def succeeded(self) -> bool:
        """Whether the upgrade of this device succeeded. A status that is not known is neither success nor failure."""
        return self.status in SUCCEEDED

    @property
    def failed(self) -> bool:
        """Whether the upgrade of this device failed, was refused, or was cancelled."""
        return self.status in FAILED


class Upgrade(Element, frozen=True, kw_only=True):
    """V1's ``upgradeScheduled`` and ``upgradeProgress``; ``campaign`` and all but the first three fields are *ours*."""

    firmware_name: str | None = None
    upgrade_id: str | None = None
    start_date: str | None = None
    id: str | None = None
    campaign_id: str | None = None
    software_name: str | None = None
    status: str | None = None
    device_list: tuple[Device, ...] = ()

    @property
    def campaign(self) -> str | None:
        """The first of ``campaignId``, ``id`` and ``upgradeId`` that it has."""
        return self.campaign_id or self.id or self.upgrade_id


class CallbackMessage(Element, frozen=True, kw_only=True):
    """One message as ThingSpace or fotahook sent it. All fields are optional."""

    account_name: str | None = None
    participant_name: str | None = None
    type: str | None = None
    username: str | None = None
    password: str | None = None
    firmware_list: tuple[Firmware, ...] = ()
    upgrade_scheduled: Upgrade | None = None
    upgrade_progress: Upgrade | None = None
    campaign: Upgrade | None = None
    raw: bytes = msgspec.field(default=b"", name="fotahook:raw")
    source: Literal["callback", "report"] = msgspec.field(default="callback", name="fotahook:source")
    """``report`` if it never came, and the listener made it from ThingSpace's report."""
    stale: bool = msgspec.field(default=False, name="fotahook:stale")
    """Whether the listener already had a later status, or this result, of everything that the message reports."""

    @property
    def parts(self) -> tuple[Upgrade, ...]:
        return tuple([part for part in (self.upgrade_progress, self.upgrade_scheduled, self.campaign) if part])

    @property
    def kind(self) -> str | None:
        """``type`` if present, else the name of the only non-empty member; None if there is none, or several."""
        if self.type:
            return self.type
        fields = _field_names(CallbackMessage)
        present = [name for name in _SUBJECTS if getattr(self, fields.get(name, ""), None) or self.extra.get(name)]
        return present[0] if len(present) == 1 else None

    @property
    def campaign_id(self) -> str | None:
        """The first of ``campaignId``, ``id`` and ``upgradeId`` found in a member, then in the message itself."""
        names = (*(part.campaign for part in self.parts), *(self.extra.get(name) for name in _CAMPAIGN_NAMES))
        return next((name for name in names if isinstance(name, str) and name), None)

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices whose results the message reports."""
        return tuple([device for part in self.parts for device in part.device_list])

    @property
    def statuses(self) -> frozenset[str]:
        """All statuses in the message, of its members and of their devices."""
        named: tuple[Upgrade | Device, ...] = (*self.parts, *self.devices)
        return frozenset(one.status for one in named if one.status)

    @property
    def succeeded(self) -> bool:
        """Whether it reports a success and no failure."""
        return not self.failed and not SUCCEEDED.isdisjoint(self.statuses)

    @property
    def failed(self) -> bool:
        """Whether it reports a failure, of at least one device or of the campaign."""
        return not FAILED.isdisjoint(self.statuses)

    @property
    def content(self) -> object:
        """The whole JSON value, decoded again from ``raw``."""
        return parse_json(self.raw.removeprefix(codecs.BOM_UTF8))

    def __repr__(self) -> str:
        # The body may contain a password, so neither it nor `raw` is shown.
        named = f"kind={self.kind!r:.100} account={self.account_name!r:.100} campaign={self.campaign_id!r:.100}"
        return f"<CallbackMessage {named} devices={len(self.devices)} bytes={len(self.raw)}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("kind", self.kind), ("bytes", len(self.raw))]


ElementT = TypeVar("ElementT", bound=Element)


def parse_message(raw: bytes) -> CallbackMessage:
    """The typed message in these bytes. Any JSON is accepted, whatever its shape; MessageInvalid if it is not JSON."""
    return parse_with_content(raw)[0]


def parse_with_content(raw: bytes) -> tuple[CallbackMessage, object]:
    """The typed message, and the JSON value: the bytes if not every reader takes it, UNSET if nothing needed it."""
    if (message := _decode_typed(raw)) is not None:
        return message, msgspec.UNSET
    content, is_strict = _parse(raw.removeprefix(codecs.BOM_UTF8))
    message = _element(CallbackMessage, content if isinstance(content, dict) else {}, raw=raw)
    return message, content if is_strict else raw


_DECODER: Final = msgspec.json.Decoder(CallbackMessage)
_EMPTY: Final = Upgrade()


def _decode_typed(raw: bytes) -> CallbackMessage | None:
    """The message if all its names are known and all values have the right type, as in most; otherwise None."""
    # A sender's own names, perhaps spelled with escapes, must not be taken for the fields that are not JSON's.
    if b"\\" in raw or b'"fotahook:' in raw:
        return None
    try:
        message = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    # This one may have been an empty object, which counts as absent.
    if _EMPTY in (message.upgrade_scheduled, message.upgrade_progress, message.campaign):
        return None
    # Nobody else has it yet. A copy would cost as much as all else here.
    msgspec.structs.force_setattr(message, "raw", raw)
    return message


def parse_json(raw: bytes) -> object:
    """The JSON value in these bytes; MessageInvalid says what is wrong.

    Accepts all that RFC 8259 allows, down to ``DEPTH_LIMIT``. Numbers out of range become infinite, as in JavaScript,
    and unpaired surrogates U+FFFD, so that every text can be stored and forwarded.
    """
    return _parse(raw)[0]


def _parse(raw: bytes) -> tuple[object, bool]:
    """The JSON value, and whether it needed none of the exceptions that ``parse_json`` makes."""
    may_be_deep = raw.count(b"[") + raw.count(b"{") > DEPTH_LIMIT
    # While many lists are made, the garbage collector would look through all of them again and again.
    if was_collecting := may_be_deep and gc.isenabled():
        gc.disable()
    try:
        content = _decode(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        raise MessageInvalid(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise MessageInvalid(_TOO_DEEP) from error
    finally:
        if was_collecting:
            gc.enable()
    if not may_be_deep:
        return content
    # Steps up and down outside of strings; a sum of them takes no recursion. Without escapes, quotes come in pairs.
    plain = raw.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in raw else raw
    # An empty pair may be two strings' ends, which then become one.
    steps = b"".join(plain.translate(_STEPS, _NO_STEPS).replace(b'""', b"").split(b'"')[::2])
    # Most are innermost pairs, which are removed faster than summed up: one level less.
    if 1 + max(accumulate(memoryview(steps.replace(b"\1\xff", b"")).cast("b")), default=0) > DEPTH_LIMIT:
        raise MessageInvalid(_TOO_DEEP)
    return content


def parse_claims(raw: bytes) -> tuple[CallbackMessage, set[str]]:
    """The typed message in these bytes, and the accounts that readers may find in its `accountName`.

    Readers differ about which of two members of one name counts, and some ignore the case of names.
    """
    message = _decode_typed(raw)
    if message is not None and raw.count(b'"accountName"') <= 1:
        return message, set() if message.account_name is None else {message.account_name}
    content = parse_json(raw)
    if not isinstance(content, dict):
        raise MessageInvalid("The message must be one JSON object")
    pairs: Iterable[tuple[str, object]] = content.items()
    # A backslash is found faster than what begins with it.
    if (b"\\" in raw and b"\\u00" in raw) or raw.lower().count(b'"accountname"') > 1:
        pairs = json.loads(raw, object_pairs_hook=list, parse_int=float)
    claimed = {value for name, value in pairs if name.lower() == "accountname" and isinstance(value, str)}
    return _element(CallbackMessage, content, raw=raw), claimed


_TOO_DEEP: Final = f"the body is nested more than {DEPTH_LIMIT} levels deep"
_STEPS: Final = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")
_NO_STEPS: Final = bytes(set(range(256)).difference(b'[]{}"'))
_UNPAIRED: Final = re.compile(
    rb"\\u(?i:d[89ab][0-9a-f]{2})(?!\\u(?i:d[c-f]))|(?<!\\u(?i:d[89ab][0-9a-f]{2}))\\u(?i:d[c-f][0-9a-f]{2})"
)
_LENIENT: Final = msgspec.json.Decoder(float_hook=float)


def _decode(raw: bytes) -> tuple[object, bool]:
    try:
        return msgspec.json.decode(raw), True
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # msgspec refuses some valid JSON: unpaired surrogates, and numbers out of range.
        if b"\\" in raw:
            # After this, each backslash begins an escape.
            raw = _UNPAIRED.sub(rb"\\ufffd", raw.replace(rb"\\", rb"\u005c"))
    try:
        return _LENIENT.decode(raw), False
    except msgspec.ValidationError:
        # An integer of thousands of digits. Others become floats with it: a function for each would take too long.
        # `int` refuses what is no JSON, such as NaN.
        return json.loads(raw.decode(), parse_int=float, parse_constant=int), False


def _element(kind: type[ElementT], content: Mapping[str, object], **fields: object) -> ElementT:
    """An element from JSON: known names with values of the right type become fields, all else goes to `extra`."""
    extra: dict[str, object] = {}
    names = _field_names(kind)
    for name, value in content.items():
        if (field := names.get(name)) is None:
            extra[name] = value
        elif (converted := _converted(field, value)) is not None:
            fields[field] = converted
        elif value not in (None, [], {}):
            extra[name] = value
    return kind(extra=extra, **fields)


@cache
def _field_names(kind: type[Element]) -> Mapping[str, str]:
    own = (field for field in msgspec.structs.fields(kind) if not field.encode_name.startswith("fotahook:"))
    return {field.encode_name: field.name for field in own}


_LISTS: Final[Mapping[str, type[Element]]] = {"firmware_list": Firmware, "device_list": Device}
_UPGRADES: Final = ("upgrade_scheduled", "upgrade_progress", "campaign")


def _converted(field: str, value: object) -> object | None:
    """A JSON value as the type of its field; None if it is absent or has another type."""
    if field in _UPGRADES:
        return _element(Upgrade, value) if isinstance(value, dict) and value else None
    if field not in _LISTS:
        return value if isinstance(value, str) else None
    if not isinstance(value, list) or not set(map(type, value)) <= {dict}:
        return None
    empty = _LISTS[field]()
    return tuple([_element(_LISTS[field], item) if item else empty for item in value])
