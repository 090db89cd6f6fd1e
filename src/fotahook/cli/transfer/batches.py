"""Publishing very many messages, in order and in batches, with an answer for each."""

from collections.abc import Callable
from typing import Final

from fotahook.client import OperatorClient
from fotahook.contract.errors import ApiException
from fotahook.contract.operator import BatchMessage, Published, Refused
from fotahook.contract.operator_calls import batch_line

MOST: Final = 1000
MOST_BYTES: Final = 4 * 1024 * 1024
"""What goes into one batch: enough to make little of each request, and little enough to see it move."""

# What one message alone is refused for; any other refusal is one of all of them.
_OF_A_MESSAGE: Final = (400, 409, 413)

Answer = Callable[[int, Published | Refused], None]
"""Told what became of the message of a line."""


class Batches:
    """Takes messages one by one, and hands them over many at a time."""

    def __init__(self, client: OperatorClient, answer: Answer) -> None:
        self._client = client
        self._answer = answer
        self._lines: list[int] = []
        self._messages: list[BatchMessage] = []
        self._bytes = 0

    def add(self, line: int, message: BatchMessage) -> None:
        """One more message, of this line; ValueError for what can be no message."""
        assert isinstance(message.message, bytes)  # as both of the commands have them
        if b"\n" in message.message:
            self.flush()
            self._answer(line, self._publish(message))
            return
        size = len(batch_line(message, lambda: "k"))
        if self._bytes + size > MOST_BYTES or len(self._lines) == MOST:
            self.flush()
        self._lines.append(line)
        self._messages.append(message)
        self._bytes += size

    def flush(self) -> None:
        """Hand over what is in hand."""
        lines, messages = self._lines, self._messages
        self._lines, self._messages, self._bytes = [], [], 0
        if messages:
            for line, answer in zip(lines, self._client.publish_batch(messages), strict=True):
                self._answer(line, answer)

    def _publish(self, message: BatchMessage) -> Published | Refused:
        """One that has line feeds in it, which no batch can have."""
        try:
            return self._client.publish(
                message.account,
                message.message,
                ordering_key=message.ordering_key,
                idempotency_key=message.idempotency_key,
            )
        except ApiException as error:
            if error.status_code not in _OF_A_MESSAGE:
                raise
            return Refused(error.error_code or "", error.error_message or str(error))
