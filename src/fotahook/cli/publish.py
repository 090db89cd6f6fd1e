"""`fotahook publish`, `export` and `import`: one message from a file or from stdin, or a message per line."""

import contextlib
import hashlib
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Final, TypeAlias

import msgspec
from cyclopts import Parameter

from fotahook.client import OperatorClient
from fotahook.contract.calls import batch_line
from fotahook.contract.errors import ApiException
from fotahook.contract.messages import MESSAGE_LIMIT, parse_json
from fotahook.contract.operator import BatchMessage, Published, Refused

from .operate import Filter
from .shared.arguments import Account, OptionalAccount
from .shared.errors import Failure, UsageError, flag_named
from .shared.output import counting, note, print_facts, print_json, printable_json
from .shared.sources import Messages, Remote, Source, warn_if_unknown


def _refuse_option(_: object, file: Path) -> None:
    # Since - is allowed, cyclopts takes all that begin like it for files.
    if str(file).startswith("-") and file != STDIO:
        raise ValueError("Unknown option")


STDIO: Final = Path("-")
File: TypeAlias = Annotated[Path, Parameter(allow_leading_hyphen=True, validator=_refuse_option)]
LINE_LIMIT: Final = 8 * 1024 * 1024
"""Bytes in one line: a message, in any spelling of its JSON."""
BATCH_MESSAGES: Final = 1000
BATCH_BYTES: Final = 4 * 1024 * 1024

Parse = Callable[[bytes], BatchMessage]


class Line(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A line of --batch, as in `POST /v1/messages`, but the account may be left out."""

    message: msgspec.Raw
    account: str | None = None
    ordering_key: str | None = None
    idempotency_key: str | None = None


class Exported(msgspec.Struct, frozen=True, rename="camel"):
    """A line of an export: the message's bytes as text in `body`, exact however a tool rewrites the JSON around it."""

    id: str
    account: str
    body: str
    sha256: str
    type: str | None = None
    ordering_key: str | None = None
    accepted_at: datetime | None = None


def publish(
    account: Account,
    file: File = STDIO,
    /,
    *,
    ordering_key: str | None = None,
    idempotency_key: str | None = None,
    batch: bool = False,
    remote: Remote = Remote(),
) -> int:
    """Publish a message byte for byte; prints its id once the service has it on disk.

    Args:
        file: The message, a JSON object; - reads it from stdin. With --batch, one message per line.
        ordering_key: Messages with the same key are delivered in the order in which they were published.
        idempotency_key: A message is accepted once per key, however often it is published.
        batch: Each line is {"message": {…}, "orderingKey"?, "idempotencyKey"?, "account"?}; exit code 1 if one fails.
    """
    if batch:
        if ordering_key is not None or idempotency_key is not None:
            raise UsageError("with --batch each line has its own keys: leave out --ordering-key and --idempotency-key")

        def parse(line: bytes) -> BatchMessage:
            it = msgspec.json.decode(line, type=Line)
            return BatchMessage(it.account or account, bytes(it.message), it.ordering_key, it.idempotency_key)

        return _publish_lines(file, parse, remote)
    name = "stdin" if file == STDIO else str(file)
    with _open_input(file) as content:
        message = content.read(MESSAGE_LIMIT + 1)
    if len(message) > MESSAGE_LIMIT:
        raise UsageError(f"{name}: a message has at most {MESSAGE_LIMIT} bytes")
    with flag_named(name):
        parse_json(message)
    with remote.operator() as client:
        published = client.publish(account, message, ordering_key=ordering_key, idempotency_key=idempotency_key)
    print_facts({"id": published.id, "duplicate": published.duplicate}, as_json=remote.as_json)
    return 0


def import_(file: File = STDIO, /, *, account: OptionalAccount = None, remote: Remote = Remote()) -> int:
    """Publish the messages of an export, byte for byte and in order; running it again imports nothing twice.

    Each message gets a new id and is delivered, whatever its state was in the export. Exit code 1 if a line is refused.

    Args:
        file: What fotahook export wrote; - reads it from stdin.
        account: Publish them to this account instead of their own.
    """

    def parse(line: bytes) -> BatchMessage:
        it = msgspec.json.decode(line, type=Exported)
        body = it.body.encode()
        if hashlib.sha256(body).hexdigest() != it.sha256:
            raise ValueError("sha256 does not match body: one of them was changed")
        # The key is made from its id, so that it is imported only once.
        return BatchMessage(it.account if account is None else account, body, it.ordering_key, f"import:{it.id}")

    return _publish_lines(file, parse, remote)


def _publish_lines(file: Path, parse: Parse, remote: Remote) -> int:
    """Publish the message of each line, in order; prints each result with --json, else refusals and counts."""
    counts = {"published": 0, "duplicates": 0, "refused": 0}

    def report(line: int, result: Published | Refused) -> None:
        counts["refused" if isinstance(result, Refused) else "duplicates" if result.duplicate else "published"] += 1
        if remote.as_json:
            print_json({"line": line, **msgspec.to_builtins(result)})
        elif isinstance(result, Refused):
            note(f"{'stdin' if file == STDIO else file}, line {line}: {result.error_code}: {result.error_message}")

    with _open_input(file) as content, remote.operator() as client:
        try:
            total = os.fstat(content.fileno()).st_size if content.seekable() else None
            with counting(total, "published", in_bytes=True) as advance:
                for batch in _batches(content, parse, report, advance):
                    for line, result in zip(batch, _publish(client, list(batch.values())), strict=True):
                        report(line, result)
        finally:
            # Also if it was cut short: what the service has, it has.
            if not remote.as_json:
                print_facts(counts, as_json=False)
    return 1 if counts["refused"] else 0


def _batches(
    file: IO[bytes], parse: Parse, refuse: Callable[[int, Refused], None], advance: Callable[[int], None]
) -> Iterator[dict[int, BatchMessage]]:
    """The messages of a file in batches, by their lines. A message with a line feed is alone in its batch."""
    batch: dict[int, BatchMessage] = {}
    size = done = 0
    for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT + 1), b""), 1):
        if len(line) > LINE_LIMIT:
            raise Failure(f"line {number} has more than {LINE_LIMIT} bytes; a line is one message")
        done += len(line)
        advance(done)
        if not line.strip():
            continue
        try:
            message = parse(line.removesuffix(b"\n").removesuffix(b"\r"))
            length = BATCH_BYTES if _is_alone(message) else len(batch_line(message, lambda: "k"))
        except ValueError as error:
            refuse(number, Refused("INVALID_LINE", str(error)))
            continue
        if batch and (size + length > BATCH_BYTES or len(batch) == BATCH_MESSAGES):
            yield batch
            batch, size = {}, 0
        batch[number], size = message, size + length
    if batch:
        yield batch


def _is_alone(message: BatchMessage) -> bool:
    return isinstance(message.message, bytes) and b"\n" in message.message


def _publish(client: OperatorClient, batch: list[BatchMessage]) -> Sequence[Published | Refused]:
    one = batch[0]
    if not _is_alone(one):
        return client.publish_batch(batch)
    try:
        order, once = one.ordering_key, one.idempotency_key
        return [client.publish(one.account, one.message, ordering_key=order, idempotency_key=once)]
    except ApiException as error:
        # Any other status refuses all messages.
        if error.status_code not in (400, 409, 413):
            raise
        return [Refused(error.error_code or "", error.error_message or str(error))]


def _open_input(file: Path) -> contextlib.AbstractContextManager[IO[bytes]]:
    return contextlib.nullcontext(sys.stdin.buffer) if file == STDIO else file.open("rb")


def export(
    account: Account, file: File = STDIO, /, *, force: bool = False, which: Filter = Filter(), source: Source = Source()
) -> None:
    """Write the messages of an account to a file, oldest first: one JSON object per line, with the exact bytes in body.

    If it fails, the file stays as it was. Messages whose bytes retention has removed are left out, and counted.

    Args:
        file: Where to write them; - writes to stdout.
        force: Overwrite an existing file.
    """
    import sqlite3  # other commands of this module do without it

    with contextlib.ExitStack() as stack:
        stored = stack.enter_context(source.open())
        # Before the first request: a file that cannot be written is reported at once.
        target = stack.enter_context(_open_output(file, overwrite=force))
        in_turn: Callable[..., Iterable[bytes | None]] = map
        if source.inbox is None:
            # A service answers several requests at once.
            pool = ThreadPoolExecutor(8)
            stack.callback(pool.shutdown, cancel_futures=True)
            in_turn = pool.map
        shown = file != STDIO or not sys.stdout.isatty()
        exported = left_out = total = 0
        # In a temporary file: they are listed newest first, and may not fit in memory even without bodies.
        spool = stack.enter_context(contextlib.closing(sqlite3.connect("")))
        spool.execute("create table listed (line blob)")
        with counting(None, "listed", shown=shown) as advance:
            for total, it in enumerate(which.read(stored, account), 1):
                line = Exported(it.id, it.account, "", it.sha256, it.type, it.ordering_key, it.accepted_at)
                spool.execute("insert into listed values (?)", [msgspec.json.encode(line)])
                advance(total)
        listed = spool.execute("select line from listed order by rowid desc")
        oldest_first = (msgspec.json.decode(line, type=Exported) for (line,) in listed)
        with counting(total, "exported", shown=shown) as advance:
            while lines := list(islice(oldest_first, 64)):
                bodies = in_turn(partial(_body, stored), [line.id for line in lines])
                for line, body in zip(lines, bodies, strict=True):
                    if body is None:
                        left_out += 1
                    else:
                        exported += 1
                        text = msgspec.json.encode(msgspec.structs.replace(line, body=body.decode())).decode()
                        target.write(f"{printable_json(text)}\n".encode())
                advance(exported + left_out)
        if not total:
            warn_if_unknown(stored, account)
    if file != STDIO:
        facts = {"account": account, "file": str(file), "exported": exported, "leftOut": left_out}
        print_facts(facts, as_json=source.as_json)
    elif left_out:
        note(f"left out {left_out} whose bytes retention has removed")


def _body(stored: Messages, message_id: str) -> bytes | None:
    try:
        return stored.message_body(message_id)
    except ApiException as error:
        if error.status_code == 410:
            return None
        raise


@contextlib.contextmanager
def _open_output(file: Path, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """A new file that only its owner can read, or stdout for -. If the block raises, the file stays as it was."""
    path = file.resolve()
    if file == STDIO:
        sys.stdout.flush()
        yield sys.stdout.buffer
    elif path.exists() and not path.is_file():
        # A device or a pipe.
        with path.open("wb") as opened:
            yield opened
    elif path.exists() and not overwrite:
        raise UsageError(f"{file} exists; give --force to overwrite it, or another name")
    else:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            with open(temporary, "xb", opener=partial(os.open, mode=0o600)) as opened:
                yield opened
                opened.flush()
                os.fsync(opened.fileno())
            temporary.replace(path)
        except OSError as error:
            # The name that was given, not that of the temporary file.
            raise Failure(f"{file}: {error.strerror or error}; nothing of it was written") from error
        finally:
            temporary.unlink(missing_ok=True)
