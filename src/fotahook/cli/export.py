"""`fotahook export` and `import`: the messages of an account as a file, one JSON object per line."""

import contextlib
import hashlib
import os
import secrets
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Final

import msgspec

from fotahook.contract.errors import ApiException
from fotahook.contract.operator import BatchMessage, MessageState

from .messages import ALL, Filter
from .publish import STDIO, FileArgument, publish_lines
from .shared.arguments import Account, OptionalAccount
from .shared.errors import Failure, UsageError
from .shared.output import counting, note, on_terminal, print_facts, printable_json
from .shared.remote import DEFAULTS, SERVICE, Messages, Remote, Source, warn_if_unused

_BODIES: Final = 64
"""Bodies that are fetched together."""
_THREADS: Final = 8
_GONE: Final = 410

FetchBodies = Callable[[Iterable[str]], Iterable[bytes | None]]


class Exported(msgspec.Struct, frozen=True, rename="camel"):
    """One line: the message's bytes as text in `body`, exact however a tool rewrites the JSON around it."""

    id: str
    account: str
    body: str
    sha256: str
    type: str | None = None
    ordering_key: str | None = None
    accepted_at: datetime | None = None


_decode: Final = msgspec.json.Decoder(Exported).decode


def export(
    account: Account,
    file: FileArgument = Path(STDIO),
    /,
    *,
    force: bool = False,
    which: Filter = ALL,
    source: Source = SERVICE,
) -> None:
    """Write the messages of an account to a file, oldest first: one JSON object per line, with the exact bytes in body.

    If it fails, the file stays as it was. Messages whose bytes retention has removed are left out, and counted.

    Example: fotahook export 0000123456-00001 messages.jsonl --state dead --local

    Args:
        file: Where to write them; - writes to stdout.
        force: Overwrite an existing file.
    """
    name = str(file)
    with ExitStack() as stack:
        stored = stack.enter_context(source.open())
        messages = which.read(stored, account)
        # Before the first request: a file that cannot be written is reported at once.
        target = stack.enter_context(open_output(name, overwrite=force))
        fetch: FetchBodies = partial(map, partial(_body, stored))
        if source.inbox is None:
            # A service answers several requests at once.
            pool = ThreadPoolExecutor(_THREADS)
            stack.callback(pool.shutdown, cancel_futures=True)
            fetch = partial(pool.map, partial(_body, stored))
        exported, left_out = _write(messages, fetch, target, shown=name != STDIO or not on_terminal())
        if not exported + left_out:
            warn_if_unused(stored, account)
    if name != STDIO:
        facts = {"account": account, "file": name, "exported": exported, "leftOut": left_out}
        print_facts(facts, as_json=source.as_json)
    elif left_out:
        note(f"left out {left_out} whose bytes retention has removed")


def import_(file: FileArgument = Path(STDIO), /, *, account: OptionalAccount = None, remote: Remote = DEFAULTS) -> int:
    """Publish the messages of an export, byte for byte and in order; running it again imports nothing twice.

    Each message gets a new id and is delivered, whatever its state was in the export. Exit code 1 if a line is refused.

    Example: fotahook import messages.jsonl --local

    Args:
        file: What fotahook export wrote; - reads it from stdin.
        account: Publish them to this account instead of their own.
    """
    return publish_lines(str(file), lambda line: to_message(line, account), remote)


def to_message(line: bytes, account: str | None) -> BatchMessage:
    """The message of a line, for its own account or another; ValueError says what is wrong with it.

    Its idempotency key is made from its id, so it is imported only once.
    """
    exported = _decode(line)
    body = exported.body.encode()
    if hashlib.sha256(body).hexdigest() != exported.sha256:
        raise ValueError("sha256 does not match body: one of them was changed")
    return BatchMessage(
        account=exported.account if account is None else account,
        message=body,
        ordering_key=exported.ordering_key,
        idempotency_key=f"import:{exported.id}",
    )


def _body(stored: Messages, message_id: str) -> bytes | None:
    """A message's bytes; None if retention has removed them."""
    try:
        return stored.message_body(message_id)
    except ApiException as error:
        if error.status_code == _GONE:
            return None
        raise


def _write(messages: Iterable[MessageState], fetch: FetchBodies, target: IO[bytes], *, shown: bool) -> tuple[int, int]:
    """The numbers of written lines and of messages without bytes."""
    exported = left_out = 0
    # In a temporary file: they are listed newest first, and may not fit in memory even without bodies.
    with contextlib.closing(sqlite3.connect("")) as spool:
        spool.execute("create table listed (line blob)")
        with counting(None, "listed", shown=shown) as advance:
            for total, found in enumerate(messages, 1):
                spool.execute("insert into listed values (?)", [msgspec.json.encode(_without_body(found))])
                advance(total)
        (total,) = spool.execute("select count(*) from listed").fetchone()
        oldest_first = (_decode(line) for (line,) in spool.execute("select line from listed order by rowid desc"))
        with counting(total, "exported", shown=shown) as advance:
            while lines := list(islice(oldest_first, _BODIES)):
                for line, body in zip(lines, fetch([line.id for line in lines]), strict=True):
                    if body is None:
                        left_out += 1
                    else:
                        exported += 1
                        text = msgspec.json.encode(msgspec.structs.replace(line, body=body.decode())).decode()
                        target.write(f"{printable_json(text)}\n".encode())
                advance(exported + left_out)
    return exported, left_out


def _without_body(found: MessageState) -> Exported:
    return Exported(found.id, found.account, "", found.sha256, found.type, found.ordering_key, found.accepted_at)


@contextlib.contextmanager
def open_output(name: str, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """A new file, or stdout for -. If the block raises, the file stays as it was.

    Only its owner can read the file. Devices and pipes are written to directly. UsageError for an existing file unless
    `overwrite`.
    """
    if name == STDIO:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    path = Path(name).resolve()
    if path.exists() and not path.is_file():
        with path.open("wb") as opened:
            yield opened
        return
    if path.exists() and not overwrite:
        raise UsageError(f"{name} exists; give --force to overwrite it, or another name")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(path)
    except OSError as error:
        # The name that was given, not that of the temporary file.
        raise Failure(f"{name}: {error.strerror or error}; nothing of it was written") from error
    finally:
        temporary.unlink(missing_ok=True)
