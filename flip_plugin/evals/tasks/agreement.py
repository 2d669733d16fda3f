"""``flip eval agreement``: how far two runs of a judge, or two judges, order responses alike.

Two columns of scores are compared, the same method in both: two runs (seeds) of one judge, or two judges in
runs of the same seed. The measures, over the responses that have a score in both:

- ``spearman``, ``kendall`` (tau-b: ties are corrected for): rank correlation over all responses;
- ``spearman_within``, ``kendall_within``: the same inside each item, averaged over the items in which it is defined
  (two responses or more, and neither column constant);
- ``same_pick``: the chance that the two name the same best response; ties are drawn, so ``|A & B| / (|A| |B|)``.

The two kinds of correlation answer two questions: over all, scores differ by item, too (a hard instruction
is hard for every response; a judge's wording moves all F1 scores of an item). Best-of-N and GRPO compare within.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.records.items import Judgement, Key, Result, has_failed
from flip_plugin.evals.records.runs import open_run
from flip_plugin.evals.records.saved import check_output, names_of, read_run
from flip_plugin.evals.stats.intervals import bootstrap, estimate
from flip_plugin.evals.stats.results import print_results
from flip_plugin.evals.stats.scoring import invalid_share, mean_of_known, picks

EVALUATION = "agreement"
RUNS, JUDGES = "runs", "judges"  # the groups
# Draws of items for the interval of a correlation over all; each costs two rankings.
RESAMPLES = 200

DESCRIPTION = """\
Rank correlation (Spearman, Kendall's tau-b) between the runs of a judge and between judges, within items and over
all, and how often two pick the same response. Reads finished runs; no judge is asked.

  flip eval agreement runs/rewardbench2 --output runs/agreement
"""

RULES = (
    "Two columns of scores by one method: two seeds of a judge (group runs), or two judges with the same seed "
    "(group judges, named A~B). Only responses with a score in both count.",
    "spearman and kendall (tau-b) are over all responses; _within is inside each item, averaged over the items in "
    "which both columns vary. value is the mean over pairs of columns, runs one value a pair.",
    "same_pick is the chance that both name the same best response, ties drawn, over the items where both name one.",
    "The 95% interval is a bootstrap over items.",
)

# One column: the judgement of each item.
Column = Mapping[str, Judgement]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip eval agreement``."""
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs over the same items")
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    parser.add_argument(
        "--resamples",
        type=int,
        default=RESAMPLES,
        help=f"draws for the intervals over all responses; 0: no intervals (default: {RESAMPLES})",
    )
    parser.add_argument("--overwrite", action="store_true", help="remove what is in the folder, and start anew")


def run(args: argparse.Namespace) -> int:
    """Compare, print, write. Returns the exit status. Raises `CommandError` where there is nothing to compare."""
    check_output(args.output, args.runs)
    judgements = _read(args.runs)
    opened = open_run(
        args.output,
        EVALUATION,
        settings={"runs": [str(path) for path in args.runs]},
        notes={"resamples": args.resamples},
        rules=RULES,
        overwrite=args.overwrite,
    )
    results = agreement_results(judgements, resamples=args.resamples)
    if not results:
        raise CommandError("nothing to compare: one run of one judge")
    for group, title in ((RUNS, "between the runs of a judge"), (JUDGES, "between judges")):
        part = [result for result in results if result.group == group]
        if part:
            columns = [(group, metric) for metric in dict.fromkeys(result.metric for result in part)]
            rules = RULES if part[-1] is results[-1] else ()
            print_results(part, title=f"agreement {title}", columns=columns, rules=rules, percent=False)
    print(f"results: {opened.finish(results, RULES)}", file=sys.stderr)
    return 0


def agreement_results(judgements: Sequence[Judgement], *, resamples: int = RESAMPLES) -> list[Result]:
    """Results of every judge with two runs or more, and of every two judges with a seed in common, by method."""
    from tqdm import tqdm

    judges, methods, seeds = names_of(judgements)
    columns: dict[tuple[str, str, int], dict[str, Judgement]] = {}
    for one in judgements:
        # What the judge's server failed is not judged yet.
        known = replace(one, scores=[None] * len(one.scores), extra={}) if has_failed(one) else one
        columns.setdefault((one.judge, one.method, one.seed), {})[one.id] = known
    jobs: list[tuple[str, str, str, list[tuple[Column, Column]]]] = []
    for method in methods:
        for judge in judges:
            own = [columns[judge, method, seed] for seed in seeds if (judge, method, seed) in columns]
            jobs.append((judge, method, RUNS, list(combinations(own, 2))))
        for one, other in combinations(judges, 2):
            both: list[tuple[Column, Column]] = [
                (columns[one, method, seed], columns[other, method, seed])
                for seed in seeds
                if (one, method, seed) in columns and (other, method, seed) in columns
            ]
            jobs.append((f"{one}~{other}", method, JUDGES, both))
    jobs = [job for job in jobs if job[3]]
    jobs.sort(key=lambda job: job[2] == JUDGES)
    results: list[Result] = []
    for judge, method, group, pairs in tqdm(jobs, desc="compared", unit="pair", delay=2):
        results += _results(judge, method, group, pairs, resamples)
    return results


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Kendall's tau-b of two columns; None for fewer than two rows, or where a column is constant.

    >>> kendall([1, 2, 3], [1, 3, 2])
    0.333...
    """
    from scipy.stats import kendalltau

    return _defined(one, other, lambda: kendalltau(one, other, variant="b").statistic)


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rho of two columns, ties at their mean rank; None as for `kendall`.

    >>> spearman([1, 2, 3], [1, 3, 2])
    0.5
    """
    from scipy.stats import spearmanr

    return _defined(one, other, lambda: spearmanr(one, other).statistic)


def same_pick(one: Judgement, other: Judgement) -> float | None:
    """The chance that both pick the same response, each drawing among its best; None unless both have a pick."""
    mine, theirs = set(picks(one)), set(picks(other))
    return len(mine & theirs) / (len(mine) * len(theirs)) if mine and theirs else None


def shared_scores(one: Judgement | None, other: Judgement | None) -> list[tuple[float, float]]:
    """The two scores of each response that has both. Raises ValueError where they judged other responses."""
    if one is None or other is None:
        return []
    if len(one.scores) != len(other.scores):
        raise ValueError(
            f"item {one.id!r} has {len(one.scores)} responses for {one.judge}, {len(other.scores)} for {other.judge}"
        )
    return [(a, b) for a, b in zip(one.scores, other.scores, strict=True) if a is not None and b is not None]


Correlation = Callable[[Sequence[float], Sequence[float]], float | None]
CORRELATIONS: dict[str, Correlation] = {"spearman": spearman, "kendall": kendall}


def _results(
    judge: str, method: str, group: str, pairs: Sequence[tuple[Column, Column]], resamples: int
) -> list[Result]:
    """The five measures of some pairs of columns."""
    ids = sorted({item for one, other in pairs for item in one.keys() & other.keys()})
    judged = [judgement for pair in pairs for column in pair for judgement in column.values()]
    invalid = invalid_share(list({one.key: one for one in judged}.values()))
    # scores[pair][item]: the shared scores of that item's responses
    scores = [[shared_scores(one.get(item), other.get(item)) for item in ids] for one, other in pairs]

    def result(metric: str, **figures: Any) -> Result:
        return Result(EVALUATION, judge, method, group, metric, invalid=invalid, **figures)

    results = []
    for name, correlation in CORRELATIONS.items():
        runs = [_over_all(rows, range(len(ids)), correlation) for rows in scores]
        low, high = _interval(scores, correlation, resamples)
        covered = sum(any(rows[place] for rows in scores) for place in range(len(ids)))
        results.append(result(name, value=mean_of_known(runs), low=low, high=high, n=covered, runs=runs))
        within = [[correlation(*_columns(row)) if row else None for row in rows] for rows in scores]
        results.append(_estimated(result, f"{name}_within", within))
    same = [
        [same_pick(one[item], other[item]) if item in one and item in other else None for item in ids]
        for one, other in pairs
    ]
    results.append(_estimated(result, "same_pick", same))
    return results


def _estimated(result: Callable[..., Result], metric: str, values: Sequence[Sequence[float | None]]) -> Result:
    mean = estimate(values)
    return result(metric, value=mean.value, low=mean.low, high=mean.high, n=mean.n, runs=mean.runs)


def _interval(
    scores: Sequence[Sequence[Sequence[tuple[float, float]]]], correlation: Correlation, resamples: int
) -> tuple[float | None, float | None]:
    if not resamples:
        return None, None

    def statistic(indices: Iterable[int]) -> float:
        mean = mean_of_known([_over_all(rows, indices, correlation) for rows in scores])
        return float("nan") if mean is None else mean

    return bootstrap(len(scores[0]), statistic, resamples=resamples)


def _over_all(
    rows: Sequence[Sequence[tuple[float, float]]], places: Iterable[int], correlation: Correlation
) -> float | None:
    """The correlation over all responses of the items at `places`."""
    return correlation(*_columns([score for place in places for score in rows[place]]))


def _columns(rows: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [one for one, _ in rows], [other for _, other in rows]


def _defined(one: Sequence[float], other: Sequence[float], statistic: Callable[[], Any]) -> float | None:
    if len(one) < 2 or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about p-values, which are not used
        return float(statistic())


def _read(paths: Sequence[Path]) -> list[Judgement]:
    """The judgements of all runs. Raises `CommandError` where two have one key, or an id means two items."""
    by_key: dict[Key, Judgement] = {}
    prompts: dict[str, Any] = {}
    for path in paths:
        items, judgements = read_run(path)
        for item in items:
            shown = (item.prompt, list(item.responses))
            if prompts.setdefault(item.id, shown) != shown:
                raise CommandError(f"{path}: item {item.id!r} is another one than in the runs before it")
        for one in judgements:
            if one.key in by_key:
                raise CommandError(f"{path}: judge {one.judge!r} with seed {one.seed} is in an earlier run, too")
            by_key[one.key] = one
    return list(by_key.values())
