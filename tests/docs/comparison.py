"""Compares printed output with a page: the only place that says what may differ.

White space, the length of rules, ids, times, tokens, keys and durations may differ. ``…`` in a page matches anything.
An id, token or key of the page stands, in later blocks, for the one that was really printed in its place.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

# The first match is used. Later blocks may refer to those of the first group.
_REMEMBERED: Final = {
    "ID": r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    "KEY": r"\bwh(?:sec|pk)_[A-Za-z0-9+/]{24,}={0,2}",
    "TOKEN": r"(?<![\w/+-])(?=[\w-]*[A-Z])(?=[\w-]*[a-z])(?=[\w-]*[0-9])[\w-]{43}(?![\w/+-])",
    "KEY-ID": r"\b(?=[0-9a-f]*[a-f])[0-9a-f]{16}\b",
}
_FORGOTTEN: Final = {
    "TIME": r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d| UTC)?",
    "DURATION": r"\b\d+(?:\.\d+)? (?:ms|s ago)\b",
    "PHASE": r"(?<=dns )\d+|(?<=connect )\d+|(?<=tls )\d+|(?<=firstByte )\d+",
}
_ANY: Final = re.compile(
    "|".join(f"(?P<{name.replace('-', '_')}>{one})" for name, one in (_REMEMBERED | _FORGOTTEN).items())
)
_MEASURED: Final = frozenset({"expires_in", "ageSeconds", "dns", "connect", "tls", "firstByte", "total"})
"""Members of JSON whose numbers differ in every run."""


def difference(expected: str, printed: str) -> tuple[str, str] | None:
    """Both texts without what may differ, if they still differ; None if they match."""
    one, other = _normalized(expected), _normalized(printed)
    pattern = ".*?".join(re.escape(part) for part in one.split("…"))
    return None if re.fullmatch(pattern, other) else (one, other)


def replacements(expected: str, printed: str) -> Mapping[str, str]:
    """The printed value for each id, token and key of the page; both texts must match."""
    return dict(zip(_remembered(expected), _remembered(printed), strict=False))


def _remembered(text: str) -> Iterator[str]:
    names = [name.replace("-", "_") for name in _REMEMBERED]
    return (match[0] for match in _ANY.finditer(text) if match.lastgroup in names)


def _normalized(text: str) -> str:
    lines = (re.sub(r"\s+", " ", re.sub(r"[─━┄]+", "─", line)).strip() for line in _formatted(text).splitlines())
    return "\n".join(_ANY.sub(lambda match: f"<{match.lastgroup}>", line) for line in lines if line)


def _formatted(text: str) -> str:
    """JSON values in a canonical format; any other text unchanged."""
    decoder, values, rest = json.JSONDecoder(), [], text.strip()
    try:
        while rest:
            value, end = decoder.raw_decode(rest)
            values.append(value)
            rest = rest[end:].lstrip()
    except ValueError:
        return text
    return "\n".join(json.dumps(_unmeasured(value), indent=1, sort_keys=True, ensure_ascii=False) for value in values)


def _unmeasured(value: object) -> object:
    if isinstance(value, dict):
        return {
            name: 0 if name in _MEASURED and isinstance(inner, int | float) else _unmeasured(inner)
            for name, inner in value.items()
        }
    return [_unmeasured(inner) for inner in value] if isinstance(value, list) else value
