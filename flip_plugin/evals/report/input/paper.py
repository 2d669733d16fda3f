"""The paper's numbers (arXiv 2602.13551), each with where it was found, to stand beside ours.

`paper.json` holds them as data. Primary sources are the abstract and the published code; secondary ones are
readings of the PDF by others, and every table marks them. A figure that was not found has no value
and stays empty: none is guessed, read off a plot or computed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

Kind = Literal["primary", "secondary"]


@dataclass(frozen=True)
class Source:
    """Where numbers were found; `key` is the letter that stands behind them."""

    key: str
    what: str
    kind: Kind


@dataclass(frozen=True)
class Figure:
    """One of the paper's numbers, found or not. The first five fields are those of a `Result`.

    `unit` is share (0..1), relative (0.796 is 79.6% more) or absolute (a difference of shares).
    """

    evaluation: str
    group: str
    metric: str
    method: str
    judge: str
    value: float | None
    unit: str
    sources: Sequence[Source]
    what: str
    note: str = ""

    @property
    def kind(self) -> Kind | None:
        """primary where one source is; None where the number was not found."""
        if self.value is None:
            return None
        return "primary" if any(source.kind == "primary" for source in self.sources) else "secondary"

    def label(self) -> str:
        """The number as a reader wants it, with its sources: ``34.5 (Q, secondary)``; "" where there is none.

        >>> figures("rewardbench2", metric="accuracy_macro", method="flip")[0].label()
        '34.5 (Q, secondary)'
        """
        if self.value is None:
            return ""
        letters = ", ".join(source.key for source in self.sources)
        shown = f"{100 * self.value:.1f}" if self.unit == "share" else f"{100 * self.value:+.1f}"
        percent = "%" if self.unit == "relative" else ""
        return f"{shown}{percent} ({letters}{', secondary' if self.kind == 'secondary' else ''})"


@dataclass(frozen=True)
class Claim:
    """A claim that the paper makes in words."""

    id: str
    text: str
    sources: Sequence[Source]


@cache
def _data() -> dict[str, Any]:
    return json.loads(
        resources.files("flip_plugin.evals.report.input").joinpath("paper.json").read_text(encoding="utf-8")
    )


@cache
def sources() -> dict[str, Source]:
    """All sources by their letter."""
    return {key: Source(key, **fields) for key, fields in _data()["sources"].items()}


def _sources_of(letters: Sequence[str]) -> tuple[Source, ...]:
    return tuple(sources()[letter] for letter in letters)


@cache
def all_figures() -> tuple[Figure, ...]:
    """Every number of the paper that this project knows of, found or not."""
    rows: list[dict[str, Any]] = _data()["figures"]
    return tuple(Figure(sources=_sources_of(row.pop("sources")), **row) for row in map(dict, rows))


def figures(evaluation: str, **wanted: str) -> list[Figure]:
    """The paper's numbers of an evaluation, where fields are as wanted: ``group="Focus", method="flip"``."""
    return [
        figure
        for figure in all_figures()
        if figure.evaluation == evaluation and all(getattr(figure, name) == value for name, value in wanted.items())
    ]


def claims() -> list[Claim]:
    """The paper's claims in words."""
    return [Claim(row["id"], row["text"], _sources_of(row["sources"])) for row in _data()["claims"]]


def setup() -> list[tuple[str, str, str]]:
    """How the paper measured: (what, how, letters of the sources)."""
    return [(row["item"], row["value"], ", ".join(row["sources"])) for row in _data()["setup"]]
