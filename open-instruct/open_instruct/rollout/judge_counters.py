"""What the judges did since the last step: `judge/...`, from the counters of their clients and a step's samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from open_instruct.data.types import Group

#: Metric -> the counter in `JudgeClient.stats`.
COUNTERS = {
    "judge/calls": "calls",
    "judge/cached": "cached",
    "judge/retries": "retries",
    "judge/prompt_tokens": "prompt_tokens",
    "judge/completion_tokens": "completion_tokens",
}


class JudgeCounters:
    """Differences of the counters of all verifiers that have a judge (a method `stats`), as metrics of a step.

    The counters are the process's, so those of an evaluation fall to the step after it, and a call that
    ends while a step is handed over falls to the next.
    """

    def __init__(self, verifiers: Iterable[Any]) -> None:
        self._verifiers = list({id(v): v for v in verifiers if hasattr(v, "stats")}.values())
        self._before: Counter[str] = Counter()

    def metrics(self, groups: list[Group]) -> dict[str, float | None]:
        """`judge/...` since the last call, and the latencies of the judgements in `groups`; {} without a judge."""
        totals = self._totals()
        if not totals["calls"]:
            return {}
        since = Counter({name: totals[name] - self._before[name] for name in totals})
        self._before = totals
        metrics: dict[str, float | None] = {metric: float(since[name]) for metric, name in COUNTERS.items()}
        metrics["judge/errors"] = float(sum(n for name, n in since.items() if name.startswith("error_")))
        return metrics | latencies(groups)

    def _totals(self) -> Counter[str]:
        totals: Counter[str] = Counter()
        for verifier in self._verifiers:
            totals.update({name: value for name, value in verifier.stats().items() if isinstance(value, int)})
        return totals


def latencies(groups: list[Group]) -> dict[str, float | None]:
    """Seconds from a judgement's first request to its last reply: median and 99th percentile over the samples.

    Only judgements that went well count, and none that came out of the cache.
    """
    details = [
        r.details or {} for g in groups for s in g.samples for r in s.per_verifier.values() if r.score is not None
    ]
    seconds = [d["seconds"] for d in details if d.get("seconds")]
    p50, p99 = np.percentile(seconds, [50, 99]).tolist() if seconds else (None, None)
    return {"judge/latency_p50": p50, "judge/latency_p99": p99}
