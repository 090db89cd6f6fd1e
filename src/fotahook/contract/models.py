"""The models of the four calls, by the names of Verizon's published SDKs.

Read open, write closed: a field that a newer service adds is ignored, a field of the wrong type is refused.
"""

import msgspec


class CallbackSummary(msgspec.Struct, frozen=True):
    """The callback registered for an account, as `list_registered_callbacks` answers it.

    `url` comes through as the service sent it: a plain `http://` one, kept from V1, is not refused here.
    """

    url: str | None = None


class FotaV2CallbackRegistrationRequest(msgspec.Struct, frozen=True):
    """What `register_callback` and `update_callback` send: the HTTPS URL that shall receive the messages."""

    url: str


class FotaV2CallbackRegistrationResult(msgspec.Struct, frozen=True):
    """What `register_callback` and `update_callback` answer: the URL that is registered now."""

    url: str | None = None


class FotaV2SuccessResult(msgspec.Struct, frozen=True):
    """What `deregister_callback` answers."""

    success: bool
