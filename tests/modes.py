"""File modes that bind root too, for tests of what a store may not write to."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Final

import pytest

_VERSION: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3 of capget(2)
_OVERRIDE: Final = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@contextlib.contextmanager
def modes_bind() -> Iterator[None]:
    """What this thread does, and threads that it starts meanwhile, is bound by the modes of files."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    # Effective, permitted and inheritable ones, twice 32 of each. What stays permitted can be taken back.
    held = (ctypes.c_uint32 * 6)()
    libc.capget(header, held)
    less = (ctypes.c_uint32 * 6)(held[0] & ~_OVERRIDE, *held[1:])
    if libc.capset(header, less) != 0:
        pytest.skip(f"modes cannot be made to bind root: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        libc.capset(header, held)
