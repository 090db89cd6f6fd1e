"""The models of the four calls, named as in Verizon's published SDKs.

Unknown fields in a response are ignored, as a newer service may add some; a field of the wrong type is an error.
"""

import msgspec


class CallbackSummary(msgspec.Struct, frozen=True):
    """The callback registered for an account, as `list_registered_callbacks` returns it.

    `url` is unchanged: it may be an `http://` URL that was registered with V1.
    """

    url: str | None = None


class FotaV2CallbackRegistrationRequest(msgspec.Struct, frozen=True):
    """The body of `register_callback` and `update_callback`: the HTTPS URL that receives the messages."""

    url: str


class FotaV2CallbackRegistrationResult(msgspec.Struct, frozen=True):
    """The response to `register_callback` and `update_callback`: the registered URL."""

    url: str | None = None


class FotaV2SuccessResult(msgspec.Struct, frozen=True):
    """The response to `deregister_callback`."""

    success: bool
