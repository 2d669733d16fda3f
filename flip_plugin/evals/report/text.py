"""Numbers and texts as a report shows them: rounding, intervals, hidden characters, marked words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flip_plugin.evals.records.items import Cell
from flip_plugin.evals.stats.paired import LEAD
from flip_plugin.text.shared_words import shared_words

MAX_CHARS = 2500  # of one text of an inspected item
MISSING = "–"

# Control characters but tab and newline, line separators of JavaScript, what turns the direction of
# writing, and halves of characters: they hide what a text holds.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# Metrics that are no share of 1, or need not be: best-of-N's rm:MODEL, judge:MODEL and MODULE:FUNCTION among them.
_PLAIN = re.compile(r"^(shift|score|spearman|kendall|reward|quality$)|(_reward|_score)$|:")


def is_share(metric: str) -> bool:
    """Whether a metric is a share, shown in percent; else a score or correlation, shown as it is."""
    return not _PLAIN.search(metric.removesuffix(LEAD))


def shown(value: float | None, metric: str) -> str:
    """A value in percent or as it is.

    >>> shown(0.4567, "accuracy"), shown(-0.1234, "shift"), shown(None, "accuracy")
    ('45.7', '-0.123', '–')
    """
    if value is None:
        return MISSING
    return f"{100 * value:.1f}" if is_share(metric) else f"{value:.3f}"


def interval(cell: Cell) -> str:
    """The 95% interval of a cell; "" where there is none.

    >>> interval(Cell("rewardbench2", "j", "flip", "all", "accuracy", 0.5, 0.4, 0.6))
    '[40.0, 60.0]'
    """
    if cell.low is None or cell.high is None:
        return ""
    return f"[{shown(cell.low, cell.metric)}, {shown(cell.high, cell.metric)}]"


def invalid(cell: Cell) -> str:
    """The invalid share of a cell in words; "" where nothing was asked."""
    return "" if cell.invalid is None else f"{100 * cell.invalid:.1f}% invalid"


def visible(text: Any) -> str:
    r"""The text with hidden characters shown by their numbers.

    >>> visible("a\x00b\u202ec")
    'a⟨U+0000⟩b⟨U+202E⟩c'
    """
    plain = text if isinstance(text, str) else "" if text is None else str(text)
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", plain.replace("\r\n", "\n"))


def cut(text: Any) -> str:
    """The first MAX_CHARS characters, made visible, and how many more there are."""
    whole = text if isinstance(text, str) else "" if text is None else str(text)
    more = f" … ({len(whole) - MAX_CHARS:,} more characters)" if len(whole) > MAX_CHARS else ""
    return visible(whole[:MAX_CHARS]) + more


def marked(inferred: str, target: str) -> dict[str, list[str]]:
    """Two texts as pieces, by turns not shared and shared (the first may be empty), as F1 counts words.

    >>> marked("a poem of rain", "Write a poem.")["inferred"]
    ['a ', 'poem', ' of rain']
    """
    mine, theirs = shared_words(inferred[:MAX_CHARS], target[:MAX_CHARS])
    return {"inferred": _pieces(mine), "target": _pieces(theirs)}


def _pieces(words: list[tuple[str, bool | None]]) -> list[str]:
    pieces = [""]
    for text, shared in words:
        if bool(shared) == (len(pieces) % 2 == 0):
            pieces[-1] += text
        else:
            pieces.append(text)
    return [visible(piece) for piece in pieces]


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text) pairs, made visible.

    >>> flat({"a": {"b": 1}, "c": [1, 2]})
    [('a.b', '1'), ('c', '1, 2')]
    """
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in flat(item, f"{prefix}{visible(str(key))}.")]
    shown_as = ", ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)
    return [(prefix.rstrip("."), cut(shown_as))]
