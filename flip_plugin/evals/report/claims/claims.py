"""The paper's claims in words, each against our results: holds, does not hold, or not shown.

What counts is written with each claim (`rule`), and every comparison stands in the report with both numbers, so
that a reader can disagree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flip_plugin.evals.lm_eval.benchmarks import benchmark_of
from flip_plugin.evals.records.items import Result
from flip_plugin.evals.report.claims.verdicts import (
    Part,
    Verdict,
    ahead,
    compare,
    difference,
    figure_text,
    over_runs,
    overall,
)
from flip_plugin.evals.report.input import paper
from flip_plugin.evals.report.input.lookup import BOUNDS, candidates, distinct, find, primary
from flip_plugin.evals.report.input.runs import EvalRun, ReportRuns
from flip_plugin.evals.report.input.training import TrainingRun, is_measure
from flip_plugin.evals.stats.paired import JUDGES, PAIRED

JUDGE_METHODS = ("pointwise", "listwise", "pairwise")


@dataclass(frozen=True)
class CheckedClaim:
    """A claim of the paper, what our numbers say of it and by which rule; `sources` are where the paper makes it."""

    id: str
    text: str
    rule: str
    verdict: Verdict
    summary: str
    parts: Sequence[Part]
    sources: str


def check_claims(runs: ReportRuns, sizes: Mapping[str, float]) -> list[CheckedClaim]:
    """All claims, those without data too. `sizes` are the judges' parameters by name."""
    parts: dict[str, list[Part]] = {
        "flip_beats_judges": [part for run in runs.of("rewardbench2") for part in against_methods(run)],
        "judge_size": [part for run in runs.of("rewardbench2") for part in by_size(run, sizes)],
        "length": [part for run in runs.of("length") for part in by_length(run)],
        "robustness": [part for run in runs.of("robustness") for part in under_attack(run)],
        "best_of_n": [part for run in runs.of("best_of_n") for part in best_of_n(run)],
        "grpo": [*(part for run in runs.of("grpo_table") for part in by_checkpoint(run)), *by_run(runs.training)],
    }
    claims = []
    for claim in paper.claims():
        own = parts.get(claim.id, [])
        letters = ", ".join(f"{source.key} ({source.kind})" for source in claim.sources)
        claims.append(CheckedClaim(claim.id, claim.text, RULES[claim.id], overall(own), _summary(own), own, letters))
    return claims


RULES = {
    "flip_beats_judges": "For each judge: FLIP's accuracy against that of each other method, over all subsets, "
    "by the paired difference.",
    "judge_size": "FLIP's accuracy less the mean of the judge methods', for the smallest judge against each larger "
    "one. A judge's gain is FLIP's paired difference to that mean, with its interval.",
    "length": "For each judge: FLIP's accuracy in the longest bucket against that in the shortest.",
    "robustness": "For each judge and attack: how often the attacked bad response beats the good one under FLIP "
    "against every other method (lower is better), by the paired difference; what the attack itself adds stands behind "
    "it. FLIP with echo control is compared too, by the intervals, and does not count.",
    "best_of_n": "For each benchmark and judge: FLIP's pick of the most candidates against that of each other method, "
    "by the paired difference.",
    "grpo": "For each benchmark: the checkpoint trained under FLIP against each one trained under a judge method. For "
    "training runs: the last value of each eval metric that is no reward itself, over the runs of each reward; "
    "a single run has no interval.",
}


def against_methods(run: EvalRun) -> list[Part]:
    """FLIP against each other method, for each judge."""
    metric = "accuracy_macro" if find(run.results, metric="accuracy_macro") else "accuracy"
    parts = []
    for judge in distinct(run.results, lambda result: result.judge):
        own = [
            result for result in run.results if (result.judge, result.group, result.metric) == (judge, "all", metric)
        ]
        flip = find(own, method="flip")
        parts += [
            ahead(f"{judge}: FLIP over {result.method}", difference_over(run, result), flip, result)
            for result in own
            if flip is not None and result.method in JUDGE_METHODS
        ]
    return parts


def difference_over(run: EvalRun, result: Result) -> Result | None:
    """FLIP's paired difference to the method of `result` in the same place, where the run has it."""
    wanted = {
        "judge": result.judge,
        "method": result.method,
        "group": result.group,
        "metric": f"{result.metric}{PAIRED}",
    }
    return find(run.differences, **wanted)


def by_size(run: EvalRun, sizes: Mapping[str, float]) -> list[Part]:
    """FLIP's gain with the smallest judge against its gain with each larger one."""
    metric = "accuracy_macro" if find(run.results, metric="accuracy_macro") else "accuracy"
    gains = []
    judges = sorted(
        (judge for judge in distinct(run.results, lambda c: c.judge) if judge in sizes), key=sizes.__getitem__
    )
    for judge in judges:
        own = [
            result for result in run.results if (result.judge, result.group, result.metric) == (judge, "all", metric)
        ]
        flip, others = find(own, method="flip"), [result for result in own if result.method in JUDGE_METHODS]
        over = JUDGES if len(others) > 1 else others[0].method if others else ""  # of one method the mean is its own
        gain = find(run.differences, judge=judge, method=over, group="all", metric=f"{metric}{PAIRED}")
        if (gain is None or gain.value is None) and flip is not None:
            gain = difference(flip, others)
        if gain is not None and gain.value is not None:
            gains.append((judge, gain))
    if not gains:
        return []
    smallest, first = gains[0]
    return [
        compare(f"gain with {smallest} over gain with {judge}", first, gain)
        for judge, gain in gains[1:]
        if sizes[judge] > sizes[smallest]
    ]


def by_length(run: EvalRun) -> list[Part]:
    """FLIP in the longest bucket against the shortest."""
    buckets = [group for group in distinct(run.results, lambda result: result.group) if group != "all"]
    if len(buckets) < 2:
        return []
    parts = []
    for judge in distinct(run.results, lambda result: result.judge):
        ends = [find(run.results, judge=judge, method="flip", group=one, metric="accuracy") for one in buckets]
        if any(ends):
            parts.append(compare(f"{judge}: {buckets[-1]} over {buckets[0]}", ends[-1], ends[0]))
    return parts


def under_attack(run: EvalRun) -> list[Part]:
    """The attacked bad response's wins: under FLIP, with and without echo control, against the other methods."""
    wins = [result for result in run.results if result.metric == "wins"]
    parts = []
    for judge in distinct(wins, lambda result: result.judge):
        for group in distinct(wins, lambda result: result.group):
            own = [result for result in wins if (result.judge, result.group) == (judge, group)]
            others = [result for result in own if result.method in JUDGE_METHODS]
            name = "all attacks" if group == "all" else group
            for flip in own if others else []:
                if flip.method.startswith("flip"):
                    parts.append(_less_often(run, f"{judge}, {name}: {flip.method} is fooled less often", flip, others))
    return parts


def _less_often(run: EvalRun, label: str, flip: Result, others: Sequence[Result]) -> Part:
    is_plain = flip.method == "flip"
    each = [
        ahead("", difference_over(run, result) if is_plain else None, flip, result, is_higher=False)
        for result in others
    ]

    def with_change(result: Result) -> str:
        change = find(run.results, judge=result.judge, method=result.method, group=result.group, metric="wins_change")
        paired = difference_over(run, result) if is_plain and result is not flip else None
        more = [f"by the attack {figure_text(change)}"] if change is not None and change.value is not None else []
        more += [f"paired difference {figure_text(paired)}"] if paired is not None and paired.value is not None else []
        return f"{figure_text(result)} ({', '.join(more)})" if more else figure_text(result)

    against = ", ".join(f"{result.method} {with_change(result)}" for result in others)
    return Part(label, overall(each), f"{with_change(flip)} against {against}", is_plain)


def best_of_n(run: EvalRun) -> list[Part]:
    """FLIP's pick of the largest N against the other methods', for each benchmark, metric and judge."""
    by_place: dict[tuple[str, str, str], list[tuple[int, Result]]] = defaultdict(list)
    for result in run.results:
        where = candidates(result)
        if where and result.method not in BOUNDS:
            by_place[where[0] or run.name, result.metric, result.judge].append((where[1], result))
    parts = []
    for (of, metric, judge), placed in by_place.items():
        most = max(n for n, _ in placed)
        own = [result for n, result in placed if n == most]
        flip = find(own, method="flip")
        parts += [
            ahead(
                f"{of}, {metric}, {judge}, N={most}: FLIP over {result.method}",
                difference_over(run, result),
                flip,
                result,
            )
            for result in own
            if flip is not None and result.method in JUDGE_METHODS
        ]
    return parts


def by_checkpoint(run: EvalRun) -> list[Part]:
    """Checkpoints trained under FLIP against those trained under a judge method, by benchmark."""
    own = primary(run.results)
    return [
        compare(f"{benchmark_of(task).title}: {flip.judge} over {other.judge}", flip, other)
        for task in distinct(own, lambda result: result.group)
        for flip in own
        if (flip.group, flip.method) == (task, "flip")
        for other in own
        if other.group == task and other.method in JUDGE_METHODS
    ]


def by_run(runs: Sequence[TrainingRun]) -> list[Part]:
    """The last values of training runs under FLIP against those under each judge method."""
    rewards = list(dict.fromkeys(run.reward for run in runs))
    parts = []
    for metric in dict.fromkeys(metric for run in runs for metric in run.curves if is_measure(metric)):
        results = {}
        for reward in rewards:
            last = [value for run in runs if run.reward == reward and (value := run.last(metric)) is not None]
            if last:
                results[reward] = over_runs(last, reward, f"{metric.partition('/')[2]}_score")
        for other in JUDGE_METHODS:
            if "flip" in results and other in results:
                counts = "/".join(str(len(results[one].runs)) for one in ("flip", other))
                label = f"{metric}: runs under FLIP over runs under {other} ({counts} runs)"
                parts.append(compare(label, results["flip"], results[other]))
    return parts


def _summary(parts: Sequence[Part]) -> str:
    """How many comparisons came out how."""
    verdicts = [part.verdict for part in parts if part.counts]
    if not verdicts:
        return "no run of this report measured it"
    words: tuple[Verdict, ...] = ("holds", "in part", "does not hold", "not shown", "no data")
    counted = ", ".join(f"{verdicts.count(word)} {word}" for word in words if word in verdicts)
    more = len(parts) - len(verdicts)
    return f"{_times(len(verdicts))}: {counted}" + (f"; {more} more with echo control" if more else "")


def _times(count: int) -> str:
    return f"{count} comparison{'' if count == 1 else 's'}"
