"""Which handlers see a message, how they are called, and what comes of what they do."""

import asyncio
import contextlib
import contextvars
import functools
import logging
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from fotahook.contract.messages import CallbackMessage
from fotahook.delivery import Deadline, Outcome
from fotahook.listener import Context, Listener
from fotahook.listener.handlers import OVERRUNNING, SHARE, THREADS, DaemonThreadPool, Invoker, Router
from fotahook.listener.intake import SMALL_BODY
from fotahook.store.records import Delivery, Lease
from tests.deadlines import DEADLINE
from tests.delivery.conftest import a_delivery, a_lease
from tests.turns import counted_turns

from .conftest import NOW

PROGRESS = (
    b'{"accountName": "a-1", "upgradeProgress":'
    b' {"id": "c", "deviceList": [{"deviceId": "d", "status": "UpgradeSuccess"}]}}'
)
DELIVERED = Outcome(code="delivered")
LEASE: Lease = a_lease()


@pytest.fixture
def router() -> Router:
    return Router()


def on_any(router: Router, handler: Callable[..., object]) -> None:
    router.add(handler, None, None, None)


def delivery(body: bytes = PROGRESS, **facts: object) -> Delivery:
    return a_delivery(body=body, accepted_at=NOW, **facts)


async def deliver(router: Router, body: bytes = PROGRESS, *, timeout: float = DEADLINE, **facts: object) -> Outcome:
    caller = Invoker(router, timeout=timeout)
    try:
        return await caller.deliver(LEASE, delivery(body, **facts))
    finally:
        caller.close()


# Who is called


async def test_a_handler_may_be_plain_or_async_and_take_a_context(router: Router) -> None:
    seen: list[object] = []

    async def async_alone(message: CallbackMessage) -> None:
        seen.append(message.kind)

    async def async_both(message: CallbackMessage, context: Context) -> None:
        seen.append(context)

    def plain_alone(message: CallbackMessage) -> None:
        seen.append(message.kind)

    def plain_both(message: CallbackMessage, context: Context, /) -> None:
        seen.append(context)

    for handler in (async_alone, async_both, plain_alone, plain_both):
        on_any(router, handler)
    assert await deliver(router, message="m-7", attempts=2, strikes=1) == DELIVERED
    context = Context(id="m-7", attempt=4, received_at=NOW)
    assert seen == ["upgradeProgress", context, "upgradeProgress", context]


async def test_handlers_are_called_one_after_the_other_in_the_order_of_their_registration(router: Router) -> None:
    seen: list[int] = []
    for number in range(6):

        def plain(message: CallbackMessage, *, number: int = number) -> None:
            seen.append(number)

        async def asynchronous(message: CallbackMessage, *, number: int = number) -> None:
            await asyncio.sleep(0)
            seen.append(number)

        on_any(router, plain if number % 2 else asynchronous)
    await deliver(router)
    assert seen == list(range(6))


@pytest.mark.parametrize(
    ("wants", "is_shown"),
    [
        ({}, True),
        ({"kind": "upgradeProgress"}, True),
        ({"kind": "firmwareList"}, False),
        ({"status": "UpgradeSuccess"}, True),
        ({"status": "UpgradedFailed"}, False),
        ({"account": "a-1"}, True),
        ({"account": "a-2"}, False),
        ({"kind": "upgradeProgress", "status": "UpgradeSuccess", "account": "a-1"}, True),
        ({"kind": "upgradeProgress", "status": "UpgradeSuccess", "account": "a-2"}, False),
        ({"kind": "upgradeprogress"}, False),
        ({"failed": True}, False),
        ({"failed": False, "account": "a-1"}, True),
    ],
)
async def test_a_handler_gets_messages_that_match_its_filters(wants: dict[str, Any], is_shown: bool) -> None:
    listener, seen = Listener(), []

    @listener.on(**wants)
    def handler(message: CallbackMessage) -> None:
        seen.append(message)

    await deliver(listener._router)
    assert bool(seen) == is_shown


def test_registering_returns_the_function() -> None:
    listener = Listener()

    def handler(message: CallbackMessage) -> None: ...

    assert listener.on("x")(handler) is handler
    assert listener.on_any(handler) is handler


async def test_a_message_without_a_handler_is_handled_and_a_handler_is_suggested_once(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    for body in (PROGRESS, PROGRESS, b"{}", b'{"type": "it\'s\\n"}', b'{"type": "' + b"x" * 1000 + b'"}'):
        assert await deliver(router, body) == DELIVERED
    suggestions = [record.getMessage().partition("\n\n")[2] for record in caplog.records]
    assert suggestions == [
        "@listener.on('upgradeProgress')\ndef handle(message):\n    ...\n",
        "@listener.on_any\ndef handle(message):\n    ...\n",
        '@listener.on("it\'s\\n")\ndef handle(message):\n    ...\n',
    ]
    assert max(len(record.getMessage()) for record in caplog.records) < 500


async def test_a_message_that_every_filter_excludes_is_logged_with_the_filters(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    def on_failure(message: CallbackMessage) -> None: ...
    def on_account(message: CallbackMessage) -> None: ...

    router.add(on_failure, "upgradeProgress", "UpgradeFailed", None)
    router.add(on_account, None, "Removed", "a-2")
    router.add(on_failure, "firmwareList", None, None)
    assert await deliver(router) == DELIVERED
    assert await deliver(router) == DELIVERED
    (line,) = caplog.messages
    assert line.startswith("no handler's filters match <CallbackMessage kind='upgradeProgress' account='a-1' ")
    filters = line.partition("> with UpgradeSuccess: ")[2].split("; ")
    name = on_failure.__qualname__
    assert filters == [
        f"{name} wants status='UpgradeFailed'",
        f"{on_account.__qualname__} wants status='Removed', account='a-2'",
    ]
    assert "@listener" not in line


@pytest.mark.parametrize("body", [PROGRESS, b"{}", b'{"type": "it\'s\\n"}'])
async def test_the_suggested_handler_can_be_pasted(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    listener = Listener()
    await deliver(listener._router, body)
    exec(caplog.records[0].getMessage().partition("\n\n")[2], {"listener": listener})
    caplog.clear()
    await deliver(listener._router, body)
    assert caplog.records == []


async def test_a_sender_that_invents_kinds_cannot_flood_the_log(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(150):
        await deliver(router, b'{"type": "kind-%d"}' % number)
    assert len(caplog.records) == 100


# What can be a handler


class Callable_:
    def __call__(self, message: CallbackMessage) -> None: ...

    def method(self, message: CallbackMessage, context: Context) -> None: ...


def two(message: object, context: object) -> None: ...
def optional_context(message: object, context: object = None) -> None: ...
def optional_other(message: object, retries: int = 3) -> None: ...
def none() -> None: ...
def three(message: object, context: object, more: object) -> None: ...
def keyword(message: object, *, database: object) -> None: ...
def optional_keyword(message: object, *, database: object = None, **more: object) -> None: ...
def only_rest(*arguments: object) -> None: ...
def generator(message: object) -> Iterator[int]:
    yield 1


async def async_generator(message: object) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("handler", "wants_context"),
    [
        (Callable_(), False),
        (Callable_().method, True),
        (two, True),
        (optional_context, True),
        (optional_other, False),
        (optional_keyword, False),
        (functools.partial(two, context=1), False),
        (functools.partial(two, 1), False),
        ([].append, False),
        (lambda message: None, False),
    ],
)
def test_which_handlers_get_the_context(router: Router, handler: Callable[..., object], wants_context: bool) -> None:
    on_any(router, handler)
    assert [route.wants_context for route in router._routes] == [wants_context]


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (none, r"takes \(message\) or \(message, context\); none does not"),
        (three, "three does not"),
        (keyword, "keyword does not"),
        (only_rest, "only_rest does not"),
        (print, "print does not"),
        (generator, "is a generator"),
        (async_generator, "is a generator"),
        (dict, "the parameters of dict are unknown"),
        ("upgradeProgress", "a handler must be a function, not 'upgradeProgress'"),
        (None, "a handler must be a function"),
    ],
)
def test_a_function_that_cannot_take_a_message_is_refused(router: Router, handler: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        on_any(router, handler)
    assert len(router) == 0


def test_on_without_parentheses_is_refused() -> None:
    with pytest.raises(TypeError, match="parentheses"):
        Listener().on(two)  # type: ignore[arg-type]  # the mistake itself


# However it is wrapped


def retrying(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapper(*arguments: object) -> object:
        return handler(*arguments)

    return wrapper


def asyncio_run(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapper(*arguments: object) -> object:
        return asyncio.run(handler(*arguments))

    return wrapper


def in_the_loop(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    async def wrapper(*arguments: object) -> object:
        await asyncio.sleep(0)
        return handler(*arguments)

    return wrapper


class AsyncCallable:
    def __init__(self, inner: Callable[..., Awaitable[object]]) -> None:
        self.inner = inner

    async def __call__(self, message: CallbackMessage) -> None:
        await self.inner(message)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda plain, asynchronous: retrying(plain),
        lambda plain, asynchronous: retrying(asynchronous),
        lambda plain, asynchronous: asyncio_run(asynchronous),
        lambda plain, asynchronous: in_the_loop(plain),
        lambda plain, asynchronous: functools.partial(asynchronous),
        lambda plain, asynchronous: AsyncCallable(asynchronous),
        lambda plain, asynchronous: functools.partial(AsyncCallable(asynchronous)),
        lambda plain, asynchronous: lambda message: asynchronous(message),
    ],
)
async def test_a_wrapped_handler_runs_to_its_end(router: Router, wrap: Callable[..., Callable[..., object]]) -> None:
    seen: list[str] = []

    def plain(message: CallbackMessage) -> None:
        seen.append("ran")

    async def asynchronous(message: CallbackMessage) -> None:
        await asyncio.sleep(0)
        seen.append("ran")

    on_any(router, wrap(plain, asynchronous))
    assert await deliver(router) == DELIVERED
    assert seen == ["ran"]


async def test_a_plain_handler_runs_in_a_thread_with_the_callers_context(router: Router) -> None:
    request_id = contextvars.ContextVar("request_id", default="")
    request_id.set("r-1")
    seen: list[object] = []

    def handler(message: CallbackMessage) -> None:
        seen.extend((request_id.get(), threading.current_thread() is threading.main_thread()))

    on_any(router, handler)
    await deliver(router)
    assert seen == ["r-1", False]


# What they do wrong


class Odd(BaseException):
    """Neither an Exception nor one of the interpreter's own."""


async def await_what_was_cancelled() -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


ERRORS = [
    ValueError("hunter"),
    TimeoutError("the handler's own"),
    StopIteration(),
    RecursionError(),
    SystemExit(1),
    Odd(),
    asyncio.CancelledError(),
    ValueError("\udc80\x00"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("plain", [True, False])
async def test_any_error_of_a_handler_is_an_outcome(
    router: Router, error: BaseException, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def failing_plain(message: CallbackMessage) -> None:
        raise error

    async def failing_async(message: CallbackMessage) -> None:
        raise error

    on_any(router, failing_plain if plain else failing_async)
    outcome = await deliver(router)
    assert outcome.code == "handler_error"
    assert outcome.fix is not None
    assert type(error).__name__ in outcome.excerpt
    assert "failing_" in outcome.excerpt.partition("\n")[0]
    assert "\0" not in outcome.excerpt
    assert outcome.excerpt.encode()
    assert "failed on message m" in caplog.text


async def test_a_cancellation_that_a_handler_raises_is_its_failure(router: Router) -> None:
    async def handler(message: CallbackMessage) -> None:
        await await_what_was_cancelled()

    on_any(router, handler)
    outcome = await deliver(router)
    assert outcome.code == "handler_error"
    assert "CancelledError" in outcome.excerpt


async def test_keyboard_interrupt_ends_the_program(router: Router) -> None:
    async def handler(message: CallbackMessage) -> None:
        raise KeyboardInterrupt

    on_any(router, handler)
    caller = Invoker(router, timeout=DEADLINE)
    # Not in a task: asyncio would let it end the test's own loop, as it should.
    coroutine = caller.deliver(LEASE, delivery())
    with pytest.raises(KeyboardInterrupt):
        coroutine.send(None)


async def test_cancelling_the_attempt_itself_goes_through(router: Router) -> None:
    begun = asyncio.Event()

    async def handler(message: CallbackMessage) -> None:
        begun.set()
        await asyncio.Event().wait()

    on_any(router, handler)
    attempt = asyncio.create_task(deliver(router))
    await begun.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt


async def test_all_handlers_are_called_even_if_one_failed(router: Router) -> None:
    seen: list[int] = []

    def failing(message: CallbackMessage) -> None:
        raise ValueError("first")

    async def failing_too(message: CallbackMessage) -> None:
        raise ValueError("second")

    for handler in (failing, lambda message: seen.append(1), failing_too, lambda message: seen.append(2)):
        on_any(router, handler)
    outcome = await deliver(router)
    assert seen == [1, 2]
    assert outcome.code == "handler_error"
    assert "first" in outcome.excerpt
    assert "second" in outcome.excerpt


async def test_a_traceback_is_cut_at_its_beginning(router: Router) -> None:
    def failing(message: CallbackMessage) -> None:
        raise ValueError("x" * 10_000 + "the end")

    on_any(router, failing)
    excerpt = (await deliver(router)).excerpt
    assert len(excerpt) < 4200
    assert excerpt.rstrip().endswith("the end")


# Time limits


async def test_an_async_handler_is_cancelled_at_its_timeout(router: Router) -> None:
    ended: list[str] = []

    async def slow(message: CallbackMessage) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("slow")

    async def following(message: CallbackMessage) -> None:
        ended.append("next")

    on_any(router, slow)
    on_any(router, following)
    outcome = await deliver(router, timeout=0.001)
    assert outcome.code == "handler_timeout"
    assert "cancelled after 0.001 s" in outcome.excerpt
    assert ended == ["slow", "next"]


class Gate:
    """A plain handler that stays until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()
        self.error = error

    def __call__(self, message: CallbackMessage) -> None:
        self.calls += 1
        self.begun.release()
        self.open.wait(DEADLINE)
        if self.error is not None:
            raise self.error


@pytest.fixture
def impatient(router: Router) -> Iterator[Invoker]:
    caller = Invoker(router, timeout=0.001)
    yield caller
    caller.close()


def be_patient(caller: Invoker) -> None:
    caller._deadline = Deadline(DEADLINE)


async def test_the_next_attempt_waits_for_a_thread_that_timed_out(router: Router, impatient: Invoker) -> None:
    gate = Gate()
    on_any(router, gate)
    for _ in range(3):
        outcome = await impatient.deliver(LEASE, delivery())
        assert outcome.code == "handler_timeout"
        assert "still running after 0.001 s" in outcome.excerpt
    gate.open.set()
    be_patient(impatient)
    assert await impatient.deliver(LEASE, delivery()) == DELIVERED
    assert gate.calls == 1
    # Only once: to see the message again, as after a redelivery, is another call.
    assert await impatient.deliver(LEASE, delivery()) == DELIVERED
    assert gate.calls == 2


async def test_a_handler_that_timed_out_and_failed_is_called_again(router: Router, impatient: Invoker) -> None:
    gate = Gate(ValueError("late"))
    on_any(router, gate)
    assert (await impatient.deliver(LEASE, delivery())).code == "handler_timeout"
    gate.open.set()
    be_patient(impatient)
    outcome = await impatient.deliver(LEASE, delivery())
    assert (outcome.code, "late" in outcome.excerpt, gate.calls) == ("handler_error", True, 1)
    gate.error = None
    assert await impatient.deliver(LEASE, delivery()) == DELIVERED
    assert gate.calls == 2


async def test_another_message_does_not_wait_for_a_thread_that_timed_out(router: Router, impatient: Invoker) -> None:
    gate = Gate()
    on_any(router, gate)
    for message in ("m-1", "m-2"):
        await impatient.deliver(LEASE, delivery(message=message))
    for _ in range(2):
        assert await asyncio.to_thread(gate.begun.acquire, timeout=DEADLINE)
    gate.open.set()


async def test_waiting_for_a_thread_does_not_count_towards_the_timeout(router: Router, impatient: Invoker) -> None:
    gate = Gate()
    on_any(router, gate)
    overran = [impatient.deliver(LEASE, delivery(message=f"m-{number}")) for number in range(THREADS)]
    assert {outcome.code for outcome in await asyncio.gather(*overran)} == {"handler_timeout"}
    be_patient(impatient)
    late = asyncio.create_task(impatient.deliver(LEASE, delivery(message="late")))
    await asyncio.wait({late}, timeout=0.01)
    assert not late.done()
    gate.open.set()
    assert await late == DELIVERED


def of(account: str) -> Lease:
    return a_lease(account=account)


async def has_begun(gate: Gate, calls: int) -> None:
    """So many calls have begun, and no more."""
    for _ in range(calls):
        assert await asyncio.to_thread(gate.begun.acquire, timeout=DEADLINE)
    assert not gate.begun.acquire(blocking=False)


async def overrun(caller: Invoker, account: str, calls: int) -> None:
    """Calls of an account that do not return in time."""
    attempts = [caller.deliver(of(account), delivery(message=f"{account}-{number}")) for number in range(calls)]
    assert {outcome.code for outcome in await asyncio.gather(*attempts)} == {"handler_timeout"}


async def test_handlers_that_hang_take_no_place_of_another_account(router: Router, impatient: Invoker) -> None:
    gate, seen = Gate(), list[str]()
    router.add(gate, None, None, "a-1")
    router.add(lambda message: seen.append(message.type), None, None, "b-1")
    for account in range(2 * THREADS // SHARE):
        await overrun(impatient, f"hangs-{account}", SHARE)
    be_patient(impatient)
    other = delivery(b'{"accountName": "b-1", "type": "x"}', message="b")
    assert await impatient.deliver(of("b-1"), other) == DELIVERED
    await has_begun(gate, 2 * THREADS)
    assert seen == ["x"]
    gate.open.set()


async def test_an_account_whose_handlers_hang_gets_a_share_of_the_threads(
    router: Router, impatient: Invoker, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    on_any(router, gate)
    for _ in range(2):
        await overrun(impatient, "a", SHARE)
    text = "the account's threads are taken for 0.001 s, 8 of them by handlers that did not return"
    for number in range(2):
        outcome = await impatient.deliver(of("a"), delivery(message=f"more-{number}"))
        assert outcome.code == "handler_timeout"
        assert text in outcome.excerpt
    await has_begun(gate, SHARE)
    assert [text in line for line in caplog.messages if "no thread" in line] == [True]
    # One that returns makes room.
    be_patient(impatient)
    waiting = asyncio.create_task(impatient.deliver(of("a"), delivery(message="later")))
    gate.open.set()
    assert await waiting == DELIVERED


async def test_all_threads_together_are_bounded(router: Router, impatient: Invoker) -> None:
    gate = Gate()
    on_any(router, gate)
    for number in range((OVERRUNNING + THREADS) // SHARE):
        await overrun(impatient, f"a-{number}", SHARE)
    outcome = await impatient.deliver(of("b"), delivery(message="b"))
    assert outcome.code == "handler_timeout"
    assert f"all threads are taken for 0.001 s, {OVERRUNNING + THREADS} of them by handlers" in outcome.excerpt
    await has_begun(gate, OVERRUNNING + THREADS)
    gate.open.set()


async def test_a_free_thread_goes_to_the_account_that_has_the_fewest() -> None:
    threads, gates, order = DaemonThreadPool(), [threading.Event() for _ in range(THREADS)], list[str]()
    running = [await threads.start("a", DEADLINE, gate.wait, DEADLINE) for gate in gates]
    late = [asyncio.create_task(threads.start(name, DEADLINE, order.append, name)) for name in ("a", "a", "b")]
    await asyncio.sleep(0)
    gates[0].set()
    calls = await asyncio.gather(*late)
    await asyncio.gather(*calls)
    assert order == ["b", "a", "a"]
    for gate in gates:
        gate.set()
    await asyncio.gather(*running)
    threads.close()


async def test_an_attempt_that_is_cancelled_while_it_waits_for_a_thread_gives_its_place_up() -> None:
    threads, gate, seen = DaemonThreadPool(), threading.Event(), list[str]()
    running = [await threads.start("a", DEADLINE, gate.wait, DEADLINE) for _ in range(THREADS)]
    cancelled, next_one = (
        asyncio.create_task(threads.start("b", DEADLINE, seen.append, name)) for name in ("cancelled", "next")
    )
    await asyncio.sleep(0)
    cancelled.cancel()
    gate.set()
    await (await next_one)
    assert (seen, cancelled.cancelled()) == (["next"], True)
    await asyncio.gather(*running)
    threads.close()


async def test_a_call_whose_attempt_is_cancelled_leaves_its_place_and_the_next_attempt_takes_its_result(
    router: Router,
) -> None:
    gate, caller = Gate(), Invoker(router, timeout=DEADLINE)
    on_any(router, gate)
    attempts = [asyncio.create_task(caller.deliver(of("a"), delivery(message=f"m-{n}"))) for n in range(THREADS)]
    await has_begun(gate, THREADS)
    for attempt in attempts:
        attempt.cancel()
    await asyncio.wait(attempts)
    other = asyncio.create_task(caller.deliver(of("b"), delivery(message="b")))
    await has_begun(gate, 1)
    gate.open.set()
    assert await other == await caller.deliver(of("a"), delivery(message="m-0")) == DELIVERED
    assert not gate.begun.acquire(blocking=False)
    caller.close()


async def test_long_bodies_are_handled_in_turns_of_the_loop(router: Router) -> None:
    order = list[int]()

    async def handler(message: CallbackMessage) -> None:
        order.append(turns())

    on_any(router, handler)
    caller = Invoker(router, timeout=DEADLINE)
    long = b'{"a":"' + b"x" * SMALL_BODY + b'"}'
    with counted_turns() as turns:
        await asyncio.gather(*(caller.deliver(LEASE, delivery(long, message=f"m-{number}")) for number in range(4)))
    assert len(order) == 4
    assert sorted(set(order)) == order


async def test_threads_are_reused_and_end_when_they_are_closed() -> None:
    threads, names = DaemonThreadPool(), set[str]()
    for _ in range(20):
        call = await threads.start("a", DEADLINE, lambda: threading.current_thread().name)
        name, _ = await call
        names.add(str(name))
    assert len(names) == 1
    thread = next(one for one in threading.enumerate() if one.name in names)
    assert thread.daemon
    threads.close()
    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()


def test_a_thread_that_outlives_its_loop_logs_that() -> None:
    gate, said = threading.Event(), queue.SimpleQueue[str]()

    class Watching(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.put(record.getMessage())

    async def start() -> None:
        await DaemonThreadPool().start("a", DEADLINE, gate.wait, 20)

    log = logging.getLogger("fotahook.listener")
    with contextlib.ExitStack() as stack:
        handler = Watching()
        log.addHandler(handler)
        stack.callback(log.removeHandler, handler)
        asyncio.run(start())
        gate.set()
        assert "ended after the listener had stopped" in said.get(timeout=DEADLINE)
