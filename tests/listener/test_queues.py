"""The examples that hand messages to queues, against PostgreSQL, moto's SQS server and librdkafka's mock brokers."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka import Consumer, Producer

from fotahook import Listener
from fotahook.listener import Context
from tests.deadlines import DEADLINE
from tests.postgres import Server, a_schema

from .conftest import Seen, request

EXAMPLES = Path(__file__).parents[2] / "examples"
ACCOUNT = "0000123456-00001"
DEVICES = '{"deviceList": [{"deviceId": "99001390783557%d", "status": "UpgradeSuccess"}]}'
MESSAGE = '{"accountName": "%s", "type": "upgradeProgress", "upgradeProgress": %s}'
BODIES = [(MESSAGE % (ACCOUNT, DEVICES % number)).encode() for number in range(3)]


def example(name: str, seen: Seen) -> Listener:
    """An example's listener, with a handler behind its own: the message is handed over once this one runs."""
    listener: Listener = runpy.run_path(str(EXAMPLES / f"{name}.py"))["listener"]

    @listener.on_any
    def handed_over(message: object, context: Context) -> None:
        seen.add(context.id)

    return listener


async def test_postgresql_gets_each_message_once(
    postgres_server: Server, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    async with a_schema(postgres_server) as url:
        db = await asyncpg.connect(url)
        await db.execute(
            "create table upgrades (imei text primary key, status text, message text); create table jobs (body bytea)"
        )
        monkeypatch.setenv("INBOX", url)
        listener = example("queue_postgres", seen)
        async with listener.running():
            for body in (*BODIES, BODIES[0]):
                await request(listener, body)
            ids = await seen.wait(3)
        written = await db.fetch("select imei, status, message from upgrades order by imei")
        assert [tuple(row) for row in written] == [
            (f"99001390783557{number}", "UpgradeSuccess", message_id) for number, message_id in enumerate(ids)
        ]
        assert [row["body"] for row in await db.fetch("select body from jobs")] == BODIES
        await db.close()


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The endpoint of SQS, as boto3 reads it from the environment."""
    # Imported here, as boto3 below: they are large, and every worker collects this module.
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (settings | {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}).items():
        monkeypatch.setenv(name, value)
    yield settings["AWS_ENDPOINT_URL"]
    server.stop()


async def test_sqs_gets_each_message_in_order(
    sqs: str, inbox: str, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    import boto3

    client = boto3.client("sqs")
    queue = client.create_queue(QueueName="upgrades.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    monkeypatch.setenv("QUEUE_URL", queue)
    monkeypatch.setenv("INBOX", inbox)
    listener = example("queue_sqs", seen)
    async with listener.running():
        for number, body in enumerate(BODIES, 1):
            await request(listener, body)
            await seen.wait(number)
        # As if an attempt had failed after SQS took the message.
        client.send_message(
            QueueUrl=queue, MessageBody=BODIES[0].decode(), MessageGroupId=ACCOUNT, MessageDeduplicationId=seen.items[0]
        )
    received = client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert [message["Body"].encode() for message in received] == BODIES


async def test_kafka_gets_each_message_with_its_id(inbox: str, monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    # librdkafka starts brokers in this process; others reach them over TCP.
    brokers = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "replaced"})
    (broker,) = brokers.list_topics(timeout=DEADLINE).brokers.values()
    monkeypatch.setenv("KAFKA", f"{broker.host}:{broker.port}")
    monkeypatch.setenv("INBOX", inbox)
    listener = example("queue_kafka", seen)
    async with listener.running():
        for number, body in enumerate(BODIES, 1):
            await request(listener, body)
            await seen.wait(number)
    consumer = Consumer(
        {"bootstrap.servers": f"{broker.host}:{broker.port}", "group.id": "g", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["upgrades"])
    records = consumer.consume(len(BODIES), timeout=DEADLINE)
    consumer.close()
    assert [(record.key(), record.value(), record.headers()) for record in records] == [
        (ACCOUNT.encode(), body, [("fotahook-id", message_id.encode())])
        for body, message_id in zip(BODIES, seen.items, strict=True)
    ]
