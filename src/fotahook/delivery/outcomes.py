"""The outcomes of attempts: error codes, how to fix each, and whether the endpoint or the message fails."""

import asyncio
from collections.abc import Callable, Generator, Mapping
from typing import Final, Literal

from fotahook.store.records import Record

DELIVERED: Final = "delivered"
EXPIRED: Final = "expired"
OUT_OF_FILES: Final = "out_of_files"

Failure = Literal["none", "endpoint", "message", "gone"]

FIXES: Final[Mapping[str, str]] = {
    "dns_error": "The host name does not resolve: check its spelling and its DNS records.",
    "connection_refused": "Nothing listens on that port: start the receiver, or correct the port in the URL.",
    "connection_failed": "The receiver cannot be reached: check its network, routes and firewall.",
    OUT_OF_FILES: "fotahook itself has no file descriptors left, the receiver is not at fault: raise LimitNOFILE=.",
    "connection_lost": "The receiver closed the connection before it answered: see its log for a crash or a limit.",
    "tls_untrusted": "The certificate is not signed by a trusted authority: install a public one with its chain, or "
    "give its authority with --ca-file.",
    "tls_expired": "The certificate has expired: renew it.",
    "tls_wrong_host": "The certificate is for another host name: use that name, or install the right certificate.",
    "tls_failed": "No TLS connection could be agreed on: check protocol versions and whether the port speaks TLS.",
    "tls_client_certificate": "The receiver demands a client certificate: give one that it trusts with --client-cert.",
    "proxy_refused": "The egress proxy refused the connection: see its log, and check --egress-proxy.",
    "timeout_connect": "The receiver did not accept the connection in time: check firewall and load.",
    "timeout_response": "The receiver did not answer in time: store the message first, work on it after the answer.",
    "response_too_slow": "The receiver's answer did not end in time: answer with a short body or none.",
    "response_invalid": "The receiver's answer is not HTTP: check what listens on that port.",
    "response_cut_off": "The receiver's answer broke off: see its log for a crash.",
    "blocked_address": "The address may not be delivered to: use a public one, or open it with --allow-network.",
    "url_invalid": "The URL cannot be used: write it in plain notation.",
    "redirect": "Redirects are not followed: use the URL that it leads to.",
    "http_401": "The receiver asks for credentials: let it verify the signature, or put a token into the URL.",
    "http_403": "The receiver or its gateway refuses the sender: allow this service's addresses.",
    "http_404": "The receiver has nothing at this path: correct the path of the URL, or the receiver's routes.",
    "http_405": "The receiver takes no POST at this path: correct the path of the URL, or the receiver's routes.",
    "http_408": "The receiver timed out while it read the request: check its load.",
    "http_410": "The receiver says that it is gone for good: register a new URL, then resume the account.",
    "http_429": "The receiver limits its request rate: deliveries slow down; raise its limit if this continues.",
    "http_502": "A gateway before the receiver cannot reach it: check that it is up.",
    "http_503": "The receiver is overloaded or down for maintenance: check it.",
    "http_504": "A gateway before the receiver waited too long for it: check its load.",
    "http_4xx": "The receiver refuses this message: see its log, then redeliver.",
    "http_5xx": "The receiver failed on this message: see its log, then redeliver.",
    EXPIRED: "The message was not accepted within its time to live: repair the receiver, then redeliver.",
    "handler_error": "A handler raised an exception: see the traceback, fix it, then redeliver.",
    "handler_timeout": "A handler did not return in time: make it faster or raise its time limit.",
    "forward_gone": "The receiver says that it is gone for good: it is retried with backoff; change the forward's URL.",
    "forward_missing": "The listener no longer has this forward: add it again; earlier attempts show its URL.",
    "internal_error": "fotahook itself failed on this message: see its log and report it.",
}

_ENDPOINT_STATUSES: Final = frozenset({408, 429, 502, 503, 504, *range(520, 531)})
"""520 to 530 are how edge networks report an origin that they cannot reach."""
_MESSAGE_CODES: Final = frozenset({"handler_error", "handler_timeout", "internal_error"})


class Outcome(Record, frozen=True, kw_only=True):
    """The outcome of one attempt. `code` is ``delivered`` or an error code; phases are in milliseconds. `resent`: a
    reused connection closed without a response, so the request was sent again at once on a new one."""

    code: str
    status: int | None = None
    url: str | None = None
    retry_after: float | None = None
    phases: Mapping[str, float] = {}
    excerpt: str = ""
    resent: bool = False

    @property
    def fix(self) -> str | None:
        """How to fix it; None after a success."""
        family = f"http_{self.status // 100}xx" if self.status is not None else ""
        return FIXES.get(self.code) or FIXES.get(family)


def code_of_status(status: int) -> str:
    """The code of a complete response with this status."""
    if 200 <= status < 300:
        return DELIVERED
    return "redirect" if 300 <= status < 400 and status != 304 else f"http_{status}"


def failure_of(outcome: Outcome) -> Failure:
    """What fails: nothing, the endpoint, the message; or the endpoint is gone for good."""
    if outcome.code == DELIVERED:
        return "none"
    if outcome.code == "http_410":
        return "gone"
    is_refused = outcome.code.startswith("http_") and outcome.status not in _ENDPOINT_STATUSES
    return "message" if is_refused or outcome.code in _MESSAGE_CODES else "endpoint"


class Attempt:
    """An attempt under way. Like a future of its outcome, but it calls back at once, not at the loop's next turn."""

    outcome: Outcome | None = None
    ended = False

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Attempt], object]] = []

    def add_done_callback(self, callback: Callable[["Attempt"], object]) -> None:
        self._callbacks.append(callback)

    def end(self, outcome: Outcome | None) -> None:
        self.outcome, self.ended = outcome, True
        for callback in self._callbacks:
            callback(self)

    def cancel(self) -> None:
        if not self.ended:
            self.end(None)

    def __await__(self) -> Generator[object, None, Outcome]:
        if not self.ended:
            ended = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: None if ended.done() else ended.set_result(None))
            try:
                yield from ended
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self.outcome is None:
            raise asyncio.CancelledError
        return self.outcome
