"""Numbers and settings as the report of evaluations shows them: rounding, intervals, dotted names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flip_plugin.evals.records.items import Result
from flip_plugin.evals.stats.paired import PAIRED
from flip_plugin.pages.text import clip, visible

MAX_CHARS = 2500  # of one text of an inspected item
MISSING = "–"

# Metrics that are no share of 1, or need not be: best-of-N's rm:MODEL, judge:MODEL and MODULE:FUNCTION among them.
_PLAIN = re.compile(r"^(shift|score|spearman|kendall|reward|quality$)|(_reward|_score)$|:")


def is_share(metric: str) -> bool:
    """Whether a metric is a share, shown in percent; else a score or correlation, shown as it is."""
    return not _PLAIN.search(metric.removesuffix(PAIRED))


def shown(value: float | None, metric: str) -> str:
    """A value in percent or as it is.

    >>> shown(0.4567, "accuracy"), shown(-0.1234, "shift"), shown(None, "accuracy")
    ('45.7', '-0.123', '–')
    """
    if value is None:
        return MISSING
    return f"{100 * value:.1f}" if is_share(metric) else f"{value:.3f}"


def interval(result: Result) -> str:
    """The 95% interval of a result; "" where there is none.

    >>> interval(Result("rewardbench2", "j", "flip", "all", "accuracy", 0.5, 0.4, 0.6))
    '[40.0, 60.0]'
    """
    if result.low is None or result.high is None:
        return ""
    return f"[{shown(result.low, result.metric)}, {shown(result.high, result.metric)}]"


def invalid(result: Result) -> str:
    """The invalid share of a result in words; "" where nothing was asked."""
    return "" if result.invalid is None else f"{100 * result.invalid:.1f}% invalid"


def cut(text: Any) -> str:
    """The first MAX_CHARS characters, made visible, and how many more there are."""
    part = clip(text, MAX_CHARS)
    more = part.get("left_out")
    return part["text"] + (f" … ({more:,} more characters)" if more else "")


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text) pairs, made visible.

    >>> flat({"a": {"b": 1}, "c": [1, 2]})
    [('a.b', '1'), ('c', '1, 2')]
    """
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in flat(item, f"{prefix}{visible(str(key))}.")]
    shown_as = ", ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)
    return [(prefix.rstrip("."), cut(shown_as))]
