"""``flip eval rewardbench2``: how often a judge picks the right one of four responses (arXiv 2506.01937).

The data set is ``allenai/reward-bench-2``, split ``test``, 1865 rows: Focus 495, Factuality 475, Safety 450, Math 183,
Precise IF 160, Ties 102. `COLUMNS` is its schema, as on its card. A row of the first five subsets has one
chosen and three rejected responses. Ties has 11 to 38 responses, ids ``ref:N`` and ``tied:N``, and a score of its own
(`evals.stats.ties`). The FLIP paper's 1313 rows are Focus, Factuality, Precise IF and Math, the default here.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.data.sources import RowError, read_rows
from flip_plugin.evals.judges.engine import judge_items, report_failures
from flip_plugin.evals.judges.options import EvalOptions, add_common
from flip_plugin.evals.records.items import TIES, EvalItem, Judgement, Result, has_failed
from flip_plugin.evals.records.runs import open_run
from flip_plugin.evals.stats.accuracy import accuracy_results
from flip_plugin.evals.stats.intervals import bootstrap
from flip_plugin.evals.stats.paired import RULE as PAIRED_RULE
from flip_plugin.evals.stats.results import MISSING_RULE, print_results
from flip_plugin.evals.stats.scoring import RULES, invalid_share
from flip_plugin.evals.stats.ties import TIES_ID, Margins, margins, ties_score

EVALUATION = "rewardbench2"
DATA, SPLIT = "allenai/reward-bench-2", "test"
SUBSETS = ("Focus", "Factuality", "Precise IF", "Math")
KNOWN = (*SUBSETS, "Safety", TIES)
# As on the data set's card; what is in `additional_metadata` depends on the subset.
COLUMNS: dict[str, Any] = {
    "id": str | int,
    "prompt": str,
    "chosen": list[str],
    "rejected": list[str],
    "num_correct": int,
    "num_incorrect": int | None,
    "total_completions": int,
    "models": list[str] | None,
    "subset": str,
    "additional_metadata": dict | None,
}
# Ties asks for a score a response: a listwise judge gives none, and a pairwise one would be asked up to 1406 times.
SCORING = ("flip", "pointwise")
TIES_RULE = (
    "Ties: RewardBench 2's weighted score of accuracy and margins (best 1.01), by flip and pointwise alone; a "
    "response without a score is left out, and an item whose right or wrong ones all lack one is, too. "
    "score_macro is the mean over subsets with Ties, as on RewardBench 2's leaderboard."
)
AVERAGES_RULE = (
    "accuracy_macro is the unweighted mean over subsets without Ties (the paper's average), accuracy of all the mean "
    "over items."
)

DESCRIPTION = f"""\
RewardBench 2: for each prompt the judge compares one right response with three wrong ones, by each
method. Prints and writes the share of right picks (ties share the credit) by subset, each with its 95% interval
and the share of invalid answers.

The data is {DATA}, or local files of its schema (columns id, prompt, chosen, rejected,
num_correct, num_incorrect, total_completions, subset). The defaults are the FLIP paper's: subsets
{", ".join(SUBSETS)}; 512 tokens, temperature 0.7, five seeds.

  flip eval rewardbench2 --judges small=hosted_vllm/Qwen/Qwen3-1.7B@http://127.0.0.1:8000/v1 \\
      --output runs/rewardbench2
  flip eval rewardbench2 --data rows.parquet --judges vllm:Qwen/Qwen3-0.6B --methods flip listwise \\
      --temperature 0 --output runs/greedy
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip eval rewardbench2``."""
    add_common(parser, data=DATA)
    add_subsets(parser)


def add_subsets(parser: argparse.ArgumentParser) -> None:
    """Add --subsets, for every evaluation over the rows of RewardBench 2."""
    parser.add_argument(
        "--subsets",
        nargs="+",
        default=list(SUBSETS),
        metavar="SUBSET",
        help=f"of {', '.join(KNOWN)}, or all (default: the paper's, {', '.join(SUBSETS)})",
    )


def subsets_of(args: argparse.Namespace) -> list[str]:
    """The subsets that --subsets names, each once."""
    return list(KNOWN) if args.subsets == ["all"] else list(dict.fromkeys(args.subsets))


def run(args: argparse.Namespace) -> int:
    """Judge, score, print, write. The exit status: 1 when a judge failed on something."""
    options = EvalOptions.from_args(args)
    subsets = subsets_of(args)
    items = load_items(options.data, subsets, split=options.split, limit=options.limit)
    rules = [*RULES, MISSING_RULE, AVERAGES_RULE, PAIRED_RULE, *([TIES_RULE] if TIES in subsets else [])]
    folder = open_run(
        options.output, EVALUATION, items=items, options=options, settings={"subsets": subsets}, rules=rules
    )
    judgements = judge_items(
        items,
        options.judges,
        options.methods,
        options.seeds,
        folder.path,
        options,
        applies=lambda item, method: item.subset != TIES or method in SCORING,
    )
    results = make_results(items, judgements, options, subsets)
    written = folder.finish(results)
    columns = [(one, "score" if one == TIES else "accuracy") for one in subsets if any(i.subset == one for i in items)]
    columns += [("all", "accuracy"), ("all", "accuracy_macro")]
    columns += [("all", "score_macro")] if TIES in subsets else []
    title = f"RewardBench 2, {len(items)} items, {len(options.seeds)} runs"
    print_results(results, title=title, columns=columns, rules=rules)
    print(f"judgements and figures: {written.parent} ({written.name})")
    return report_failures(judgements, options.judges)


def load_items(
    source: str, subsets: Sequence[str] = SUBSETS, *, split: str | None = None, limit: int | None = None
) -> list[EvalItem]:
    """The rows of `subsets`, right responses first; `limit` is a number of items, spread evenly over the subsets.

    Raises `RowError` for the first row that is malformed, whatever its subset; `CommandError` when
    a subset has no rows.
    """
    items: list[EvalItem] = []
    seen: Counter[str] = Counter()
    held: Counter[str] = Counter()
    most = None if limit is None else -(-limit // len(subsets))
    for number, row in read_rows(source, split=split or SPLIT, schema=COLUMNS):
        problem = row_problem(row, subsets)
        if problem:
            raise RowError(source, number, problem)
        if row["subset"] not in subsets or held[row["subset"]] == most:
            continue
        held[row["subset"]] += 1
        name = f"{row['subset']}/{row['id']}"
        seen[name] += 1
        if seen[name] > 1 and row["subset"] == TIES:
            raise RowError(source, number, f"Ties has id {row['id']!r} twice")
        items.append(_item(name if seen[name] == 1 else f"{name}#{seen[name]}", row))
    missing = [one for one in subsets if not held[one]]
    if missing:
        raise CommandError(f"{source} has no rows of subset {', '.join(missing)}: choose others with --subsets")
    return items


def row_problem(row: Mapping[str, Any], subsets: Sequence[str] = SUBSETS) -> str | None:
    """What is wrong with a row of the right columns and types, or None."""
    if row["subset"] not in (*KNOWN, *subsets):
        return f"unknown subset {row['subset']!r}: RewardBench 2 has {', '.join(KNOWN)}"
    if not row["prompt"].strip():
        return "the prompt is empty"
    empty = [name for name in ("chosen", "rejected") if not row[name]]
    if empty:
        return f"{empty[0]!r} has no response"
    return _count_problem(row) or _ties_problem(row)


def _count_problem(row: Mapping[str, Any]) -> str | None:
    """Where the row's own counts do not fit its responses."""
    chosen, rejected = row["chosen"], row["rejected"]
    counts = {
        "num_correct": len(chosen),
        "num_incorrect": len(rejected),
        "num_rejected": len(rejected),
        "total_completions": len(chosen) + len(rejected),
    }
    for name, count in counts.items():
        if row.get(name) is not None and row[name] != count:
            return f"{name} is {row[name]}, but there are {len(chosen)} chosen and {len(rejected)} rejected responses"
    return None


def _ties_problem(row: Mapping[str, Any]) -> str | None:
    """Several right responses, and ids that say which question it is, are for Ties alone."""
    if row["subset"] != TIES and len(row["chosen"]) != 1:
        return f"{len(row['chosen'])} chosen responses: outside of Ties there is one"
    if row["subset"] == TIES and not TIES_ID.fullmatch(str(row["id"])):
        return f"the id of a Ties row is ref:N or tied:N, not {row['id']!r}"
    return None


def make_results(
    items: Sequence[EvalItem], judgements: Sequence[Judgement], options: EvalOptions, subsets: Sequence[str]
) -> list[Result]:
    """Accuracies by subset; with Ties its score, and the mean over all subsets."""
    names = [spec.name for spec in options.judges]
    rest = [item for item in items if item.subset != TIES]
    ids = {item.id for item in rest}
    results = accuracy_results(
        EVALUATION,
        rest,
        [one for one in judgements if one.id in ids],
        judges=names,
        methods=options.methods,
        seeds=options.seeds,
        group_order=subsets,
        differences=True,
    )
    ties = [item for item in items if item.subset == TIES]
    if not ties:
        return results
    for judge in names:
        for method in options.methods:
            mine = [one for one in judgements if (one.judge, one.method) == (judge, method)]
            result = ties_result(ties, [one for one in mine if one.id not in ids], judge, method, options.seeds)
            results += [result, _leaderboard(results, result, mine)]
    return results


def ties_result(
    items: Sequence[EvalItem], judgements: Sequence[Judgement], judge: str, method: str, seeds: Sequence[int]
) -> Result:
    """RewardBench 2's Ties score, a run at a time; the interval draws questions, each with its ref and tied item."""
    place: dict[str, Any] = {
        "evaluation": EVALUATION,
        "judge": judge,
        "method": method,
        "group": TIES,
        "metric": "score",
    }
    if method not in SCORING:
        return Result(**place, value=None, note=f"Ties needs a score for each response, which {method} does not give")
    keys = {item.id: _ties_key(item) for item in items}
    right = {item.id: list(item.right or ()) for item in items}
    by_run: dict[int, dict[tuple[str, int], Margins | None]] = {seed: {} for seed in seeds}
    for one in judgements:
        by_run[one.seed][keys[one.id]] = None if has_failed(one) else margins(one.scores, right[one.id])
    questions = sorted({number for _, number in keys.values()})

    def drawn(run: Mapping[tuple[str, int], Margins | None], indices: Sequence[int]) -> float | None:
        # A question that is drawn twice is two questions.
        pairs = [(kind, place, questions[at]) for place, at in enumerate(indices) for kind in ("ref", "tied")]
        return ties_score({(kind, place): run.get((kind, number)) for kind, place, number in pairs})

    runs = [ties_score(run) for run in by_run.values()]

    def mean(indices: Sequence[int]) -> float:
        values = [value for run in by_run.values() if (value := drawn(run, indices)) is not None]
        return sum(values) / len(values) if values else float("nan")

    known = [value for value in runs if value is not None]
    low, high = bootstrap(len(questions), mean, resamples=500) if known else (None, None)
    counted = {key for run in by_run.values() for key, value in run.items() if value is not None}
    failed = [one for one in judgements if has_failed(one)]
    return Result(
        **place,
        value=sum(known) / len(known) if known else None,
        low=low,
        high=high,
        n=len(counted),
        invalid=invalid_share(judgements),
        runs=runs,
        note=f"{len(failed)} of {len(judgements)} judgements failed: {failed[-1].error}" if failed else "",
    )


def _leaderboard(results: Sequence[Result], ties: Result, judgements: Sequence[Judgement]) -> Result:
    """The unweighted mean over subsets with Ties, a run at a time. Its interval: independent subsets."""
    parts = [
        result
        for result in results
        if (result.judge, result.method, result.metric) == (ties.judge, ties.method, "accuracy")
        and result.group != "all"
    ]
    runs = [list(run) for run in zip(*(result.runs for result in (*parts, ties)), strict=False)]
    means = [None if any(one is None for one in run) else sum(run) / len(run) for run in runs]
    known = [one for one in means if one is not None]
    halves = [
        (result.high - result.low) / 2
        for result in (*parts, ties)
        if result.low is not None and result.high is not None
    ]
    value = sum(known) / len(known) if known else None
    half = sum(one**2 for one in halves) ** 0.5 / len(halves) if len(halves) == len(parts) + 1 else None
    return Result(
        evaluation=EVALUATION,
        judge=ties.judge,
        method=ties.method,
        group="all",
        metric="score_macro",
        value=value,
        low=None if value is None or half is None else value - half,
        high=None if value is None or half is None else value + half,
        n=sum(result.n for result in (*parts, ties)),
        invalid=invalid_share(judgements),
        runs=means,
        note=ties.note,
    )


def _item(name: str, row: Mapping[str, Any]) -> EvalItem:
    responses = [*row["chosen"], *row["rejected"]]
    right = [True] * len(row["chosen"]) + [False] * len(row["rejected"])
    return EvalItem(
        id=name,
        prompt=row["prompt"],
        responses=responses,
        right=right,
        subset=row["subset"],
        meta={"row_id": row["id"], "models": list(row.get("models") or ())},
    )


def _ties_key(item: EvalItem) -> tuple[str, int]:
    match = TIES_ID.fullmatch(str(item.meta["row_id"]))
    assert match is not None  # load_items has checked it
    return match[1], int(match[2])
