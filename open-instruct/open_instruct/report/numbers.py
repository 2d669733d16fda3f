"""Numbers from a run, as a page may hold them."""

from __future__ import annotations

from typing import Any

MAX_CHARS = 4000  # of any one text in the page
_LARGEST = 1e300  # a page that subtracts two of them must not get infinity

Row = dict[str, Any]


def number(value: Any) -> float | None:
    """A finite number, or None for anything else (nan, inf and integers past any float, too)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -_LARGEST < value < _LARGEST else None


def short(value: Any) -> float | None:
    """A number to six digits, which is more than a screen shows and half of the bytes."""
    return None if (value := number(value)) is None else float(f"{value:.6g}")
