"""`fotahook export`: the messages of an account as a file, a line for each."""

import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Final

import msgspec
from cyclopts import Parameter

from fotahook.contract.errors import ApiException
from fotahook.contract.operator import MessageState

from ..messages import ALL, Filter
from ..shared.errors import UsageError
from ..shared.inbox import SERVICE, Messages, Refused, Source
from ..shared.progress import counting
from ..shared.tables import on_terminal, print_facts
from .atomic_files import STDOUT, whole_file
from .line_files import read_backwards
from .records import Exported

_AT_ONCE: Final = 64
"""Bodies that are asked for together."""
_THREADS: Final = 8
_GONE: Final = 410

Listed = Iterable[Sequence[MessageState]]
Bodies = Callable[[Iterable[str]], Iterable[bytes | None]]


def export(
    account: str,
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)] = Path(STDOUT),
    /,
    *,
    which: Filter = ALL,
    source: Source = SERVICE,
) -> None:
    """Write the messages of an account to a file, oldest first: a JSON object a line, with the exact bytes in body.

    The file is whole or as it was before. Messages whose bytes retention has removed are left out, and counted.

    Example: fotahook export 0000123456-00001 messages.jsonl --state dead --dev

    Parameters
    ----------
    account
        Whose messages.
    file
        Where to write them; - writes to stdout.
    """
    name = str(file)
    if name.startswith("-") and name != STDOUT:
        # For the sake of - alone cyclopts lets everything through that begins like an option.
        raise UsageError(f"Unknown option: {name}; see fotahook export --help")
    with ExitStack() as stack:
        stored = stack.enter_context(source.stored())
        pages = which.pages(stored, account)
        # Before anything is asked for: that the file cannot be written is known at once.
        target = stack.enter_context(whole_file(name))
        bodies: Bodies = partial(map, partial(_body, stored))
        if source.inbox is None:
            # A service answers several at once.
            pool = ThreadPoolExecutor(_THREADS)
            stack.callback(pool.shutdown, cancel_futures=True)
            bodies = partial(pool.map, partial(_body, stored))
        exported, left_out = _write(pages, bodies, target, shown=name != STDOUT or not on_terminal())
    if name != STDOUT:
        facts: dict[str, str | int | None] = {
            "account": account,
            "file": name,
            "exported": exported,
            "leftOut": left_out,
        }
        print_facts(facts, as_json=source.as_json)
    elif left_out:
        print(f"fotahook: left out {left_out} whose bytes retention has removed", file=sys.stderr)


def _body(stored: Messages, message_id: str) -> bytes | None:
    """A message's bytes; None where retention has removed them."""
    try:
        return stored.message_body(message_id)
    except Refused:
        return None
    except ApiException as error:
        if error.status_code == _GONE:
            return None
        raise


def _write(pages: Listed, bodies: Bodies, target: IO[bytes], *, shown: bool) -> tuple[int, int]:
    """How many lines were written, and how many messages have no bytes any more."""
    exported = left_out = 0
    with tempfile.TemporaryFile() as spool:
        total = _spool(pages, spool, shown=shown)
        newest_last = map(_decode, read_backwards(spool))
        with counting(total, "exported", shown=shown) as advance:
            while some := list(islice(newest_last, _AT_ONCE)):
                for one, body in zip(some, bodies([one.id for one in some]), strict=True):
                    if body is None:
                        left_out += 1
                    else:
                        exported += 1
                        whole = msgspec.structs.replace(one, body=body.decode())
                        target.write(msgspec.json.encode(whole) + b"\n")
                advance(exported + left_out)
    return exported, left_out


def _spool(pages: Listed, spool: IO[bytes], *, shown: bool) -> int:
    """Note the messages, of which the newest is listed first, on disk: there may be more than fit into memory."""
    count = 0
    with counting(None, "listed", shown=shown) as advance:
        for page in pages:
            spool.writelines(msgspec.json.encode(_unwritten(one)) + b"\n" for one in page)
            count += len(page)
            advance(count)
    return count


def _unwritten(one: MessageState) -> Exported:
    """All of a line but the bytes."""
    return Exported(one.id, one.account, "", one.sha256, one.type, one.ordering_key, one.accepted_at)


_decode: Final = msgspec.json.Decoder(Exported).decode
