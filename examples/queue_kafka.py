"""Hands messages to a Kafka topic: at least once, with the message's id in a header, so that consumers can tell.

export KAFKA=broker-1:9092,broker-2:9092
fotahook listen queue_kafka:listener
"""

import os

from confluent_kafka import KafkaError, Message, Producer

from fotahook import CallbackMessage, Listener
from fotahook.listener import Context

listener = Listener(os.environ.get("INBOX", "sqlite:///inbox.db"))
# With idempotence, the producer's own retries write nothing twice, and it waits for all replicas.
producer = Producer({"bootstrap.servers": os.environ["KAFKA"], "enable.idempotence": True})


@listener.on_any
def produce(message: CallbackMessage, context: Context) -> None:
    """Write a message as it was received, and wait for the brokers; the listener tries again unless they confirm it."""
    results: list[KafkaError | None] = []

    def delivered(error: KafkaError | None, record: Message) -> None:
        results.append(error)

    producer.produce(
        "upgrades",
        key=message.account_name,
        value=message.raw,
        headers={"fotahook-id": context.id},
        on_delivery=delivered,
    )
    producer.flush(20)
    if results != [None]:
        raise RuntimeError(f"Kafka did not confirm message {context.id}: {results or 'no response'}")
