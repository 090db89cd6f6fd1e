"""The secret key that is made once and kept beside a store's file, and the mark of it that the store keeps."""

import contextlib
import hmac
import os
import tempfile
from pathlib import Path

from fotahook.contract.keys import generate_secret_key, key_mark, parse_secret_key

from .base import Store
from .records import AuditEntry, Credential


def key_file(store_file: str) -> Path:
    return Path(f"{store_file}.key")


def read_or_make_key(store_file: str) -> bytes:
    """The key beside a store's file, made if there is none; ValueError says what is wrong with it, never what it is."""
    path = key_file(store_file)
    if not path.exists():
        # Whoever comes first wins, and nobody ever sees half of a key.
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 from the start
        try:
            with os.fdopen(handle, "w") as file:
                file.write(generate_secret_key() + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            os.unlink(draft)
    try:
        return parse_secret_key(path.read_text(encoding="ascii", errors="replace"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def readable_by_others(store_file: str) -> list[Path]:
    """The store's file and its key, if they exist and users besides the owner may read them."""
    paths = (Path(store_file), key_file(store_file))
    return [path for path in paths if path.exists() and path.stat().st_mode & 0o077]


async def check_key_exists(store: Store, store_file: str) -> None:
    """ValueError if the key file is missing although the store was used: a new key would break what the old one did."""
    path = key_file(store_file)
    if not path.exists() and (await store.credential("secret_key", "") or await store.accounts(limit=1)):
        raise ValueError(
            f"{path} is missing, the secret key that the store was used with: restore it from the backup, or set "
            "FOTAHOOK_SECRET_KEY to its content. If it is lost, fotahook admin reset-key makes a new one; then all "
            "signing keys and tokens change"
        )


async def check_key(store: Store, key: bytes, previous: bytes | None = None) -> None:
    """ValueError unless the store was used with this key, the previous one, or none; from then on it knows this one."""
    known = await store.credential("secret_key", "")
    if known is None:
        await mark_key(store, key)
    elif previous is not None and hmac.compare_digest(known.secret_hash, key_mark(previous)):
        await mark_key(store.audited(AuditEntry(actor="serve", address="", action="secret_key.change")), key)
    elif not hmac.compare_digest(known.secret_hash, key_mark(key)):
        raise ValueError(
            "the secret key is not the one that the store was used with: give that one. To change it, set "
            "FOTAHOOK_PREVIOUS_SECRET_KEY to that one; if it is lost, fotahook admin reset-key accepts another"
        )


async def mark_key(store: Store, key: bytes) -> None:
    """Let the store know the key that it is used with."""
    await store.save_credential(Credential(kind="secret_key", id="", secret_hash=key_mark(key)))
