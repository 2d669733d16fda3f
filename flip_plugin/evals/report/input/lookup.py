"""Finding result rows of finished runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from flip_plugin.evals.records.items import Result

#: What no judge picked: best-of-N's limits.
BOUNDS = ("oracle", "random")


def find(results: Iterable[Result], **wanted: str) -> Result | None:
    """The first result whose fields are as wanted."""
    return next(
        (result for result in results if all(getattr(result, name) == value for name, value in wanted.items())), None
    )


def distinct(results: Iterable[Result], of: Callable[[Result], str]) -> list[str]:
    """What `of` says of the results, each once, in their order."""
    return list(dict.fromkeys(of(result) for result in results))


def primary(results: Iterable[Result]) -> list[Result]:
    """Of the GRPO table's results those of each benchmark's own metric."""
    return [result for result in results if result.note.startswith("primary")]


_CANDIDATES = re.compile(r"(?:(?P<of>.*\S)\W+)?N\s*=\s*(?P<n>\d+)$")


def candidates(result: Result) -> tuple[str, int] | None:
    """Of a best-of-N result what it is of ("" for one benchmark alone) and N; None for other results.

    >>> [candidates(Result("best_of_n", "j", "flip", group, "m", 0.5)) for group in ("N=8", "ifeval: N=4", "all")]
    [('', 8), ('ifeval', 4), None]
    """
    match = _CANDIDATES.fullmatch(result.group)
    return ((match["of"] or "").strip(" :/,"), int(match["n"])) if match else None
