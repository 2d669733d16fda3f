"""What an evaluation is made of: an `EvalItem` goes to a judge, a `Judgement` comes back, a `Result` is a number.

All three are plain data, a JSON object each, so that a stopped evaluation continues from its
files and a report is written without the code that made them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

Method = Literal["flip", "pointwise", "listwise", "pairwise"]
METHODS: tuple[Method, ...] = ("flip", "pointwise", "listwise", "pairwise")


@dataclass(frozen=True)
class EvalItem:
    """One prompt and the responses that a judge compares.

    `id` is unique in an evaluation. `right` says which responses are good ones, in the order
    of `responses`; None where the data does not know (best-of-N scores its picks afterwards).
    `meta` holds what the evaluation needs later: the row's own id, reference, lengths.
    """

    id: str
    prompt: str | Sequence[Mapping[str, Any]]
    responses: Sequence[str]
    right: Sequence[bool] | None = None
    subset: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)


class Key(NamedTuple):
    """What makes two judgements the same: `item` is the item's id."""

    judge: str
    method: str
    item: str
    seed: int


@dataclass(frozen=True)
class Judgement:
    """One judge's reply about one item by one method in one run; a line of ``judgements/*.jsonl``.

    `scores` has a place for each response, None where there is no score. `statuses` are the
    statuses of all that was asked (`flip_plugin.reward.result.Status`): one a response for flip and
    pointwise, one for listwise, one an ordered pair for pairwise. `details` has an object a
    response (flip: ``inferred_instruction``, ``target``, ``echo``) or is empty; `extra` is about the
    whole item (``order`` of a listwise judge, ``position_consistency`` and ``circles`` of a pairwise one).
    """

    id: str
    judge: str
    method: str
    seed: int
    scores: Sequence[float | None]
    statuses: Sequence[str]
    details: Sequence[Mapping[str, Any]] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    @property
    def key(self) -> Key:
        """What makes two judgements the same."""
        return Key(self.judge, self.method, self.id, self.seed)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """A number with everything that has to stand beside it.

    `group` is the row's or curve's place (a subset, an attack, a length bucket, ``N=8``), ``all``
    for the whole. `value` is the mean over runs, `runs` one value a seed, `low` and `high` the
    95% interval, `n` the items, `invalid` the share (0..1) of questions without an answer.
    `value` is None where there is nothing to average. Shares are 0..1, never percent.
    """

    evaluation: str
    judge: str
    method: str
    group: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    invalid: float | None = None
    runs: Sequence[float | None] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)


def has_failed(judgement: Judgement) -> bool:
    """True when the judge's server failed at least one of the questions: not judged yet, whatever else is known."""
    return "judge_error" in judgement.statuses


TIES = "Ties"

# (value or None, why there is none)
Value = tuple[float | None, str | None]
