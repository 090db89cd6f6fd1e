"""The sandbox: a real service for tests of applications."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fotahook.contract.models import FotaV2CallbackRegistrationRequest
from fotahook.store import sqlite_path
from fotahook.store.records import StoreUnavailable
from fotahook.testing import Sandbox

from .receivers import Receiver, receiving

ACCOUNT = "0000123456-00001"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def register(sandbox: Sandbox, account: str, url: str) -> None:
    with sandbox.client() as client:
        body = FotaV2CallbackRegistrationRequest(url)
        client.software_management_callbacks_v2.register_callback(account, body)


def test_a_message_is_delivered_and_recorded(sandbox: Sandbox, receiver: Receiver) -> None:
    register(sandbox, ACCOUNT, receiver.url)
    message_id = sandbox.publish(ACCOUNT, {"type": "upgradeProgress"}, ordering_key="d1")
    sandbox.wait_delivered(message_id)
    (delivered,) = sandbox.deliveries(ACCOUNT)
    assert (delivered.id, delivered.account, delivered.url) == (message_id, ACCOUNT, receiver.url)
    assert (delivered.outcome, delivered.status) == ("delivered", 200)
    assert receiver.bodies == [delivered.body] == [b'{"type":"upgradeProgress"}']


def test_deliveries_are_filtered_by_account(sandbox: Sandbox, receiver: Receiver) -> None:
    for account in ("one", "two"):
        register(sandbox, account, receiver.url)
        sandbox.wait_delivered(sandbox.publish(account, b"{}"))
    assert [one.account for one in sandbox.deliveries("two")] == ["two"]
    assert {one.account for one in sandbox.deliveries()} >= {"one", "two"}


def test_a_timeout_gives_the_state_of_the_message(sandbox: Sandbox) -> None:
    message_id = sandbox.publish("nobody", b"{}")
    with pytest.raises(TimeoutError, match="is a callback registered"):
        sandbox.wait_delivered(message_id, timeout=0)
    with pytest.raises(LookupError, match="no message"):
        sandbox.wait_delivered("absent")


def test_a_failed_attempt_is_recorded_too(sandbox: Sandbox) -> None:
    register(sandbox, "refused", "http://127.0.0.1:1/")
    message_id = sandbox.publish("refused", b"{}")
    while not sandbox.deliveries("refused"):
        time.sleep(0.002)
    with pytest.raises(TimeoutError, match="connection_refused"):
        sandbox.wait_delivered(message_id, timeout=0)
    assert sandbox.deliveries("refused")[0].outcome == "connection_refused"


def test_a_named_store_is_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    with Sandbox(store=url) as first:
        message_id = first.publish(ACCOUNT, b"{}")
    with Sandbox(store=url) as again, pytest.raises(TimeoutError):
        again.wait_delivered(message_id, timeout=0)
    assert Path(sqlite_path(url)).exists()


def test_no_thread_or_socket_is_left() -> None:
    before = set(threading.enumerate())
    with Sandbox() as sandbox:
        port = int(sandbox.base_url.rpartition(":")[2])
    # Others may have ended meanwhile.
    assert set(threading.enumerate()) <= before
    with socket.socket() as attempt:
        assert attempt.connect_ex(("127.0.0.1", port)) != 0


def test_errors_at_the_start_are_raised(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(StoreUnavailable), Sandbox(store=f"sqlite:///{tmp_path / 'no' / 'folder.db'}"):
        pass
    with Sandbox() as first, pytest.raises(OSError, match="in use"):
        Sandbox(port=int(first.base_url.rpartition(":")[2])).__enter__()
    # Others may have ended meanwhile.
    assert set(threading.enumerate()) <= before
