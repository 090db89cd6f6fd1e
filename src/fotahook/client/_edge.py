"""The edge to the transports: their errors become ours here, and here alone; TLS settings become a context."""

import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..contract.error_answers import one_line
from ..contract.errors import ConnectionFailed, FotahookError, ResponseError, TimedOut, TlsError
from ..contract.exchange import Reply, Request

if TYPE_CHECKING:
    from ._settings import Connecting

MAX_BODY = 1024 * 1024

# OpenSSL's numbers for what is wrong with a certificate (X509_V_ERR_…, openssl/x509_vfy.h).
_EXPIRED, _NOT_YET_VALID = 10, 9
_WRONG_HOST = (62, 64)
_UNTRUSTED = (18, 19, 20, 21)

# Told by name, for what raises them is a library that may not be there.
_NO_ANSWER = {
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


def context_for(connecting: "Connecting") -> ssl.SSLContext:
    """What a TLS connection trusts: the system's authorities, or those of `ca_file` alone."""
    if connecting.ca_file == "":
        raise FileNotFoundError("ca_file has no name")
    context = ssl.create_default_context(cafile=connecting.ca_file)
    match connecting.client_cert:
        case None:
            pass
        case str(both):
            context.load_cert_chain(both)
        case (certificate, key):
            context.load_cert_chain(certificate, key)
    return context


def too_large(request: Request, reply: Reply) -> ResponseError:
    """The error for a body over the limit; it keeps the body's beginning."""
    told = f"{reply.status} for {request.method} {request.url}: a body of more than {MAX_BODY} bytes"
    kept = Reply(reply.status, reply.reason, reply.headers, reply.body[:MAX_BODY])
    return ResponseError(told, request=request, reply=kept)


def translated(error: BaseException, request: Request, *, late: bool) -> FotahookError:
    """Our error for one of a transport's; `late` says that the deadline has passed."""
    causes = list(_causes(error))
    about = f"{request.method} {request.url}"
    for cause in causes:
        # aiohttp's own error of this class lacks what OpenSSL said; that one is among its causes.
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_code"):
            return TlsError(one_line(f"{about}: {_certificate_fault(cause)}"), request=request)
    # A socket's own timeout is what was left until the deadline; one of the system's has a number.
    if late or any(isinstance(cause, TimeoutError) and cause.errno is None for cause in causes):
        return TimedOut(f"{about}: no whole answer before the deadline", request=request)
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return TlsError(one_line(f"{about}: TLS failed: {cause.reason or cause}"), request=request)
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    innermost = causes[-1]
    told = one_line(f"{about}: {type(innermost).__name__}: {innermost}", 400)
    if names & _NO_ANSWER or not (names & _NOT_HTTP or isinstance(innermost, ValueError | ArithmeticError)):
        return ConnectionFailed(told, request=request)
    return ResponseError(told, request=request)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all those it was made of: given as its cause, met on the way, or wrapped in its arguments."""
    seen: list[BaseException] = [error]
    for current in seen:
        yield current
        inner = (current.__cause__, current.__context__, getattr(current, "reason", None), *current.args)
        seen += [cause for cause in inner if isinstance(cause, BaseException) and cause not in seen]


def _certificate_fault(error: ssl.SSLCertVerificationError) -> str:
    told = error.verify_message or "certificate verify failed"
    if error.verify_code == _EXPIRED:
        return f"the server's certificate has expired ({told})"
    if error.verify_code == _NOT_YET_VALID:
        return f"the server's certificate is not valid yet ({told})"
    if error.verify_code in _WRONG_HOST:
        return f"the server's certificate is for another host ({told})"
    if error.verify_code in _UNTRUSTED:
        return f"the server's certificate is not from a trusted authority ({told})"
    return f"the server's certificate cannot be verified ({told})"
