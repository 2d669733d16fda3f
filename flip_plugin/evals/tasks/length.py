"""``flip eval length``: accuracy by the length of the responses, from the judgements of a run or of a fresh one.

The paper (arXiv 2602.13551) reports that FLIP does better on longer responses: they hold more evidence.
An item's length is that of its responses: their mean, or the right one's, or the longest one's.
"""

from __future__ import annotations

import argparse
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.records.items import EvalItem, Judgement, Result
from flip_plugin.evals.records.runs import open_run
from flip_plugin.evals.records.saved import check_output, judged_items, names_of, read_run
from flip_plugin.evals.stats.accuracy import accuracy_results
from flip_plugin.evals.stats.results import print_results
from flip_plugin.evals.stats.scoring import RULES as SCORING_RULES
from flip_plugin.evals.tasks import rewardbench2

EVALUATION = "length"
WORDS = "words"

Counter = Callable[[str], int]

DESCRIPTION = """\
Accuracy by response length. With --run, from the judgements of a finished run (of rewardbench2, say): no judge is
asked. Without it, `flip eval rewardbench2` is run first, with all of its options, into OUTPUT/rewardbench2.

  flip eval length --run runs/rewardbench2 --tokenizer Qwen/Qwen3-4B --output runs/length
  flip eval length --run runs/rewardbench2 --edges 64 128 256 512 --output runs/length
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip eval length``."""
    rewardbench2.add_arguments(parser)
    for action in parser._actions:  # not needed with --run; `run` checks that
        if action.dest == "judges":
            action.required = False
    what = parser.add_argument_group("lengths")
    what.add_argument("--run", dest="run_dir", type=Path, help="folder of a finished run")
    what.add_argument(
        "--tokenizer",
        default=WORDS,
        help="folder or Hugging Face id of a tokenizer (default: words, which are counted between blanks)",
    )
    what.add_argument(
        "--length_of", choices=tuple(LENGTHS), default="mean", help="which of an item's responses (default: mean)"
    )
    what.add_argument(
        "--buckets", type=int, default=4, help="number of buckets with about as many items each (default: 4)"
    )
    what.add_argument("--edges", type=int, nargs="+", help="instead: the first length of each bucket but the first")


def run(args: argparse.Namespace) -> int:
    """Judge where there is no run yet, count, print, write. Returns the exit status."""
    run_dir = args.run_dir
    count = counter(args.tokenizer)  # a tokenizer that is not there is an error before any judge is asked
    if run_dir is None:
        if not args.judges:
            raise CommandError("give --run RUN_DIR, or --judges for a fresh run")
        run_dir = Path(args.output) / "rewardbench2"
        status = rewardbench2.run(argparse.Namespace(**{**vars(args), "output": run_dir}))
        if status:
            return status
    check_output(args.output, [run_dir])
    items, judgements = read_run(run_dir)
    shared = judged_items(items, judgements)
    lengths = {item.id: LENGTHS[args.length_of](item, count) for item in shared}
    edges = sorted(set(args.edges)) if args.edges else quantile_edges(list(lengths.values()), args.buckets)
    rules = (
        f"A bucket holds the items by the {args.length_of} length of their responses in {unit(args.tokenizer)}.",
        *SCORING_RULES,
    )
    opened = open_run(
        args.output,
        EVALUATION,
        settings={
            "run": str(run_dir),
            "tokenizer": args.tokenizer,
            "length_of": args.length_of,
            "edges": edges,
        },
        rules=rules,
        overwrite=args.overwrite,
    )
    results = length_results(shared, judgements, lengths, edges)
    print_results(
        results,
        title=f"accuracy by length in {unit(args.tokenizer)}",
        columns=[(group, "accuracy") for group in [*bucket_names(edges), "all"]],
        rules=rules,
    )
    print(f"results: {opened.finish(results, rules)}", file=sys.stderr)
    return 0


def length_results(
    items: Sequence[EvalItem], judgements: Sequence[Judgement], lengths: dict[str, float], edges: Sequence[int]
) -> list[Result]:
    """Accuracy results whose groups are buckets of `lengths` (by item id), the shortest first."""
    judges, methods, seeds = names_of(judgements)
    names = bucket_names(edges)
    return accuracy_results(
        EVALUATION,
        items,
        judgements,
        judges=judges,
        methods=methods,
        seeds=seeds,
        group_of=lambda item: names[bisect_right(edges, lengths[item.id])],
        group_order=names,
    )


def bucket_names(edges: Sequence[int]) -> list[str]:
    """Names of the buckets between `edges`, in order. A length that is an edge belongs to the bucket that it opens.

    >>> bucket_names([64, 128])
    ['0-63', '64-127', '128+']
    """
    starts = [0, *edges]
    ends = [f"-{edge - 1}" for edge in edges]
    return [f"{start}{end}" for start, end in zip(starts, [*ends, "+"], strict=True)]


def quantile_edges(lengths: Sequence[float], buckets: int) -> list[int]:
    """Whole edges that part `lengths` into at most `buckets` of about equal size; fewer where many are alike.

    >>> quantile_edges([1, 2, 3, 4, 5, 6, 7, 8], 4)
    [3, 5, 7]
    """
    if buckets < 1 or not lengths:
        raise CommandError("--buckets must be at least 1, and there must be items")
    ordered = sorted(lengths)
    cuts = (ordered[len(ordered) * number // buckets] for number in range(1, buckets))
    # Rounded up, so that a mean of 3.5 lies below the edge 4, as its name says; nothing lies below the first length.
    return sorted({edge for cut in cuts if (edge := -int(-cut // 1)) > ordered[0]})


def counter(tokenizer: str) -> Counter:
    """A function from text to its length. Raises `CommandError` for a tokenizer that cannot be loaded."""
    if tokenizer == WORDS:
        return lambda text: len(text.split())
    from transformers import AutoTokenizer

    try:
        loaded: Any = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        raise CommandError(f"--tokenizer {tokenizer!r} cannot be loaded: {error}") from error
    return lambda text: len(loaded(text, add_special_tokens=False)["input_ids"])


def unit(tokenizer: str) -> str:
    """What lengths are counted in."""
    return "words" if tokenizer == WORDS else f"tokens of {tokenizer}"


def _mean(item: EvalItem, count: Counter) -> float:
    return fmean(count(response or "") for response in item.responses)


def _right(item: EvalItem, count: Counter) -> float:
    """The mean over right ones: there is one, but for Ties."""
    right = item.right or [False] * len(item.responses)
    chosen = [count(response or "") for response, good in zip(item.responses, right, strict=True) if good]
    return fmean(chosen) if chosen else _mean(item, count)


def _longest(item: EvalItem, count: Counter) -> float:
    return max(count(response or "") for response in item.responses)


LENGTHS: dict[str, Callable[[EvalItem, Counter], float]] = {"mean": _mean, "right": _right, "longest": _longest}
