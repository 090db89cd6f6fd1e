"""Hands messages to an SQS queue: at least once, and once for a FIFO queue that still knows the id.

    export QUEUE_URL=https://sqs.us-east-1.amazonaws.com/123456789012/upgrades.fifo
    fotahook listen queue_sqs:listener

boto3 finds region and credentials as usual.
"""

import os

import boto3

from fotahook import CallbackMessage, Listener
from fotahook.listener import Context

listener = Listener(os.environ.get("INBOX", "sqlite:///inbox.db"))
queue = boto3.client("sqs")


@listener.on_any
def send(message: CallbackMessage, context: Context) -> None:
    """Send a message as it was received. If SQS refuses it, the listener tries again."""
    queue.send_message(
        QueueUrl=os.environ["QUEUE_URL"],
        MessageBody=message.raw.decode(),
        # Messages of one account stay in order, and a repetition within five minutes is dropped.
        MessageGroupId=message.account_name or "unknown",
        MessageDeduplicationId=context.id,
    )
