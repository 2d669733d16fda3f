"""`FlipResult`: one judged response, with a score or the reason why there is none."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Status = Literal["ok", "unparsed", "judge_error", "empty_response", "truncated", "no_target", "context_overflow"]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class FlipResult:
    """One judged response. `score` is in 0..1, and None unless `status` is "ok".

    `echo` is the share of the target repeated word for word in the response (0..1), and
    `similarity` the score before the penalty that the echo policy ``penalise`` puts on it;
    `usage` is in tokens, `seconds` from the first request to the judge to its end;
    `error` says what went wrong when `status` is not "ok".
    """

    score: float | None = None
    status: Status = "ok"
    inferred_instruction: str | None = None
    target: str | None = None
    reasoning: str | None = None
    echo: float | None = None
    usage: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    similarity: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)

    def details(self) -> dict[str, Any]:
        """What a trainer's logs keep next to score, status and reasoning."""
        kept = ("inferred_instruction", "echo", "similarity", "usage", "seconds", "error", "target")
        return {name: getattr(self, name) for name in kept}
