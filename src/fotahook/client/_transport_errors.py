"""Maps the exceptions of the HTTP libraries to fotahook's own, for both transports."""

import ssl

from ..contract.errors import ConnectionFailed, FotahookError, ResponseError, TimedOut, TlsError, one_line
from ..contract.exchange import Request

# OpenSSL's verification errors (X509_V_ERR_…, openssl/x509_vfy.h).
_CERTIFICATE_FAULTS = {
    9: "is not valid yet",
    10: "has expired",
    **dict.fromkeys((18, 19, 20, 21), "is not from a trusted authority"),
    **dict.fromkeys((62, 64), "is for another host"),
}

# By name, because the libraries that define them may not be installed.
_CONNECTION_LOST = {
    "ClientHttpProxyError",
    "InvalidURL",
    "RemoteDisconnected",
    "IncompleteRead",
    "ServerDisconnectedError",
    "ClientPayloadError",
}
_NOT_HTTP = {
    "BadStatusLine",
    "ClientResponseError",
    "HTTPException",
    "HttpProcessingError",
    "InvalidHeader",
    "LineTooLong",
    "UnknownProtocol",
}


def transport_error(error: BaseException, request: Request, *, late: bool) -> FotahookError:
    """The fotahook error for an exception of a transport; `late` if the deadline has passed."""
    causes = without_frames(error)
    prefix = f"{request.method} {request.url}"
    for cause in causes:
        # aiohttp's error of this class lacks OpenSSL's fields; its cause has them.
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_code"):
            fault = _CERTIFICATE_FAULTS.get(cause.verify_code, "cannot be verified")
            why = cause.verify_message or "certificate verify failed"
            return TlsError(one_line(f"{prefix}: the server's certificate {fault} ({why})"), request=request)
    # Only a timeout of the operating system's has an errno; the others are the deadline.
    if late or any(isinstance(cause, TimeoutError) and cause.errno is None for cause in causes):
        return timed_out(request)
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return TlsError(one_line(f"{prefix}: TLS failed: {cause.reason or cause}"), request=request)
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    root = causes[-1]
    text = one_line(f"{prefix}: {type(root).__name__}: {root}", 400)
    if names & _CONNECTION_LOST or not (names & _NOT_HTTP or isinstance(root, ValueError | ArithmeticError)):
        return ConnectionFailed(text, request=request)
    return ResponseError(text, request=request)


def timed_out(request: Request | None) -> TimedOut:
    """The error for a deadline that passed during a request, or while waiting for a token if there is none."""
    if request is None:
        return TimedOut("the deadline passed while another call was fetching the token")
    return TimedOut(f"{request.method} {request.url}: no complete response before the deadline", request=request)


def without_frames(error: BaseException) -> list[BaseException]:
    """An error and everything behind it: causes, contexts, and exceptions wrapped in its arguments.

    Their tracebacks are cut: the local variables of the libraries' frames hold headers with tokens, and error trackers
    send local variables away.
    """
    seen: list[BaseException] = [error]
    for current in seen:
        current.__traceback__ = None
        inner = (current.__cause__, current.__context__, getattr(current, "reason", None), *current.args)
        seen += [cause for cause in inner if isinstance(cause, BaseException) and cause not in seen]
    return seen
