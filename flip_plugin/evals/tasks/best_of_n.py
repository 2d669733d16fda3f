"""``flip eval best_of_n``: a policy's candidates, a pick by each method, and what the picks are worth on the benchmark.

candidates (M a prompt) -> the metric of every candidate -> judgements -> for N = 1, 2, 4, ...: the metric of the pick.

FLIP and pointwise score a candidate once, for all N. Listwise sees the first N, one call for each N. Pairwise is asked
once a prompt: as a knockout (2 (M - 1) calls) or in full (M (M - 1)), and both give the winner of every block of N
candidates. `flip_plugin.evals.judges.selection` has the arithmetic.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from flip_plugin.errors import CommandError
from flip_plugin.evals.data.benchmarks import BENCHMARKS, load_prompts
from flip_plugin.evals.data.candidate_metrics import Value, score_candidates
from flip_plugin.evals.data.candidates import add_sampling, generate, read_candidates
from flip_plugin.evals.judges.engine import judge_items, report_failures
from flip_plugin.evals.judges.options import EvalOptions, add_common
from flip_plugin.evals.judges.selection import (
    asked_within,
    expected,
    knockout_weights,
    pick_weights,
    shared,
    tournament_weights,
)
from flip_plugin.evals.records.items import EvalItem, Judgement, Result, has_failed
from flip_plugin.evals.records.runs import open_run
from flip_plugin.evals.stats.paired import RULE as PAIRED_RULE
from flip_plugin.evals.stats.paired import paired_results
from flip_plugin.evals.stats.results import MISSING_RULE, mean_result, print_results
from flip_plugin.evals.stats.scoring import invalid_share, picks
from flip_plugin.files.locks import hold
from flip_plugin.reward.ranking import Comparison

EVALUATION = "best_of_n"
SIZES = (1, 2, 4, 8, 16)
ORACLE, RANDOM = "oracle", "random"
# The judge of the two lines that need none.
NO_JUDGE = "-"

RULES = (
    "value: the benchmark's metric of the picked candidate, mean over prompts and runs.",
    "The pick is the candidate with the highest score; where several share it, the mean of theirs counts. A candidate "
    "without a score is picked only where none has one, and then at random.",
    "flip, pointwise, oracle and random: exact expectation over all subsets of N of a prompt's candidates.",
    "listwise: the first N candidates, in one call. No verdict: a random one of them.",
    "pairwise: the mean over all whole blocks of N candidates (0 to N-1, N to 2N-1, ...) of the block's winner; in a "
    "knockout a drawn match is decided by a seeded coin. No verdict: a random one of the block.",
    "A candidate whose metric is missing is left out of the pick's expectation; it is counted in the note. Then the "
    "oracle, which cannot pick it, is no upper bound.",
    "invalid is the share of questions to the judge without a usable answer, for the questions that this N needs.",
)

DESCRIPTION = """\
Best of N: a policy writes N candidates for each prompt, each method picks one with each judge, and the picks are
scored with the benchmark's own metric. Curves over N, beside the best possible pick (oracle) and a random one.

Benchmarks: ifeval and math are checked by rule; alpaca_eval and human_interest need a reward model or a judge
(--metric rm:HF_ID or judge:MODEL[@URL]); prompts is any file, with any --metric MODULE:FUNCTION.
The number of calls to the judges is printed before the first one; --cost_only ends there.

  flip eval best_of_n --benchmark ifeval --policy vllm:allenai/Llama-3.1-Tulu-3-8B \\
      --judges vllm:Qwen/Qwen3-1.7B vllm:Qwen/Qwen3-4B --output runs/bon_ifeval
  flip eval best_of_n --candidates candidates.jsonl --metric rm:Skywork/Skywork-Reward-Llama-3.1-8B-v0.2 \\
      --judges hosted_vllm/Qwen/Qwen3-4B@http://127.0.0.1:8000/v1 --output runs/bon_alpaca
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip eval best_of_n``."""
    add_common(parser, data="")
    add_sampling(parser)
    group = parser.add_argument_group("best of N")
    group.add_argument("--candidates", type=Path, help="file of `flip eval candidates`, instead of --policy")
    group.add_argument(
        "--metric",
        help="ifeval, ifeval_loose, ifeval_inst, ifeval_inst_loose, math, rm:HF_ID, "
        "judge:MODEL[@URL] or MODULE:FUNCTION (default: the benchmark's own)",
    )
    group.add_argument(
        "--sizes", nargs="+", type=int, metavar="N", help=f"N of the curves (default: {' '.join(map(str, SIZES))})"
    )
    group.add_argument(
        "--pairwise",
        choices=("knockout", "full"),
        default="knockout",
        help="of 16 candidates: 30 calls a prompt, or 240 (default: knockout)",
    )
    group.add_argument("--cost_only", action="store_true", help="print how many judge calls it takes, and end")


def run(args: argparse.Namespace) -> int:
    """Sample, score, judge, print, write. The exit status: 1 when a judge failed on something."""
    options = EvalOptions.from_args(args)
    metric = args.metric or (BENCHMARKS[args.benchmark].metric if args.benchmark else None)
    if metric is None:
        raise CommandError("--metric is required: this benchmark has no rule that checks a response (see --help)")
    if args.cost_only and not args.candidates:
        prompts = min(args.num_prompts, options.limit or args.num_prompts)
        print(cost_text(checked_sizes(args, args.num_candidates), args.num_candidates, options, prompts, args.pairwise))
        return 0
    candidates = _candidates(args, options)
    m = len(candidates[0].responses)
    sizes = checked_sizes(args, m)
    cost = cost_text(sizes, m, options, len(candidates), args.pairwise)
    print(cost, file=sys.stdout if args.cost_only else sys.stderr)
    if args.cost_only:
        return 0
    folder = open_run(
        options.output,
        EVALUATION,
        items=candidates,
        options=options,
        settings={"sizes": list(sizes), "metric": metric, "candidates": m},
        notes={"cost": cost, "policy": args.policy or str(args.candidates)},
        rules=[*RULES, MISSING_RULE, PAIRED_RULE],
    )
    if options.overwrite:
        (folder.path / "metric.jsonl").unlink(missing_ok=True)
    values = score_candidates(metric, candidates, folder.path / "metric.jsonl", timeout=options.timeout)
    judgements = judge_items(
        prefixes(candidates, sizes if "listwise" in options.methods else ()),
        options.judges,
        options.methods,
        options.seeds,
        folder.path,
        options,
        applies=lambda item, method: applies(item, method, sizes, m),
    )
    label = metric_label(metric)
    table = Table(candidates, values, sizes, label, options.pairwise)
    results = make_results(table, judgements, options)
    written = folder.finish(results)
    print_results(
        results,
        title=f"best of N, {len(candidates)} prompts, {m} candidates, {label}",
        columns=[(f"N={n}", label) for n in sizes],
        rules=folder.config["rules"],
        percent=_is_share(values),
    )
    print(f"judgements and figures: {written.parent} ({written.name})")
    return report_failures(judgements, options.judges)


@dataclass(frozen=True)
class Table:
    """What every result is made of: prompts with their M candidates, and the metric of each."""

    items: Sequence[EvalItem]
    values: Mapping[str, Sequence[Value]]
    sizes: Sequence[int]
    metric: str
    pairwise: str = "knockout"

    def metric_of(self, item: str) -> list[float | None]:
        """By candidate."""
        return [value for value, _ in self.values[item]]

    @property
    def note(self) -> str:
        """How many candidates have no value, and why."""
        problems = [why for row in self.values.values() for value, why in row if value is None]
        total = sum(map(len, self.values.values()))
        return f"{len(problems)} of {total} candidates have no {self.metric} ({problems[0]})" if problems else ""


def prefixes(items: Sequence[EvalItem], sizes: Sequence[int]) -> list[EvalItem]:
    """The items, and for each N of `sizes` between 1 and M one of its first N candidates, for the listwise judge."""
    prefixed = list(items)
    for item in items:
        for n in sizes:
            if 1 < n < len(item.responses):
                prefixed.append(_first(item, n, _prefix_id(item.id, n)))
    return prefixed


def applies(item: EvalItem, method: str, sizes: Sequence[int], m: int) -> bool:
    """Whether `method` judges `item`, one of `prefixes`: all candidates, or for listwise the first N."""
    if len(item.responses) < m:
        return method == "listwise"
    return m > 1 and (method != "listwise" or m in sizes)


def make_results(table: Table, judgements: Sequence[Judgement], options: EvalOptions) -> list[Result]:
    """By judge, method and N; then FLIP's paired differences at each N; then the oracle's and the random line."""
    by_place: dict[tuple[str, str], list[Judgement]] = defaultdict(list)
    for one in judgements:
        by_place[one.judge, one.method].append(one)
    results, differences = [], []
    for spec in options.judges:
        picks_of = {
            n: {
                method: _picks_of_n(table, by_place[spec.name, method], method, n, options.seeds)
                for method in options.methods
            }
            for n in table.sizes
        }
        place: dict[str, Any] = {
            "evaluation": EVALUATION,
            "judge": spec.name,
            "metric": table.metric,
            "seeds": options.seeds,
        }
        place["ids"] = [item.id for item in table.items]
        for method in options.methods:
            results += [_result(picks_of[n][method], table, method, n, place) for n in table.sizes]
        for n in table.sizes:
            if n > 1:  # of one candidate there is nothing to pick
                differences += _differences(picks_of[n], n, place)
    return results + differences + _bounds(table)


class Picks(NamedTuple):
    """What one judge's and method's picks of N are worth, by (item id, seed), and the judgements that they rest on.

    `used` are the same judgements with the statuses of those questions alone that matter at this N.
    """

    worth: dict[tuple[str, int], float | None]
    judged: list[Judgement]
    used: list[Judgement]


def _picks_of_n(table: Table, judgements: Sequence[Judgement], method: str, n: int, seeds: Sequence[int]) -> Picks:
    made = Picks({}, [], [])
    if n == 1:  # nothing to choose from: the same for all
        for item in table.items:
            value = expected(pick_weights([0.0] * len(item.responses), 1), table.metric_of(item.id))
            made.worth.update({(item.id, seed): value for seed in seeds})
        return made
    needed = {one_id(item, method, n): item for item in table.items}
    for one in judgements:
        if item := needed.get(one.id):
            m = len(item.responses)
            weights = weights_of(one, n, m, table.pairwise)
            made.worth[item.id, one.seed] = None if has_failed(one) else expected(weights, table.metric_of(item.id))
            made.judged.append(one)
            made.used.append(replace(one, statuses=statuses_of(one, n, m)))
    return made


def _result(made: Picks, table: Table, method: str, n: int, place: Mapping[str, Any]) -> Result:
    """What a method's picks of N are worth, with the invalid share of the questions that this N needs."""
    note = "" if any(map(has_failed, made.judged)) else table.note
    result = mean_result(made.worth, judgements=made.judged, method=method, group=f"N={n}", note=note, **place)
    return replace(result, invalid=invalid_share(made.used))


def _differences(by_method: Mapping[str, Picks], n: int, place: Mapping[str, Any]) -> list[Result]:
    """FLIP's paired differences to the other methods at N."""
    worth = {method: made.worth for method, made in by_method.items()}
    judged = {method: made.judged for method, made in by_method.items()}
    used = {method: made.used for method, made in by_method.items()}
    return paired_results(worth, judged, asked=used, group=f"N={n}", **place)


def _bounds(table: Table) -> list[Result]:
    """The best possible pick (oracle) and a random one, which need no judge."""
    results = []
    for method in (ORACLE, RANDOM):
        for n in table.sizes:
            worth: dict[tuple[str, int], float | None] = {}
            for item in table.items:
                metric = table.metric_of(item.id)
                weights = pick_weights(metric if method == ORACLE else [0.0] * len(metric), n)
                worth[item.id, 0] = expected(weights, metric)
            place: dict[str, Any] = {
                "evaluation": EVALUATION,
                "judge": NO_JUDGE,
                "group": f"N={n}",
                "metric": table.metric,
            }
            results.append(mean_result(worth, method=method, note=table.note, **place))
    return results


def statuses_of(judgement: Judgement, n: int, m: int) -> Sequence[str]:
    """The statuses of the questions that the line at `n` of `m` candidates rests on.

    Pairwise was asked once for every N, and its small blocks need a part of that; what could not be asked at all
    has the one status that stands for it.
    """
    comparisons = judgement.extra.get("comparisons", ())
    if judgement.method != "pairwise" or not comparisons:
        return judgement.statuses
    return [judgement.statuses[at] for at in asked_within(comparisons, m, n)]


def weights_of(judgement: Judgement, n: int, m: int, pairwise: str = "knockout") -> list[float]:
    """How often each of the M candidates is picked from N of them, by the rules in `RULES`."""
    if judgement.method == "listwise":
        return shared(picks(judgement), range(n), m)
    if judgement.method != "pairwise":
        return pick_weights(judgement.scores, n)
    best = judgement.extra.get("best", ())
    if pairwise == "knockout":
        return knockout_weights(judgement.scores, n, best)
    comparisons = [Comparison(*one) for one in judgement.extra.get("comparisons", ())]
    return tournament_weights(comparisons, m, n, best, judgement.scores)


def one_id(item: EvalItem, method: str, n: int) -> str:
    """The id of the item that `method` judges for N: all candidates, but for listwise the first N."""
    return item.id if method != "listwise" or n == len(item.responses) else _prefix_id(item.id, n)


def _prefix_id(name: str, n: int) -> str:
    return f"{name}#first{n}"


def calls(method: str, sizes: Sequence[int], m: int, pairwise: str) -> int:
    """Judge calls a prompt, judge and run.

    >>> [calls(one, (1, 2, 4, 8, 16), 16, "knockout") for one in ("flip", "pointwise", "listwise", "pairwise")]
    [16, 16, 4, 30]
    >>> calls("pairwise", (16,), 16, "full")
    240
    """
    if m == 1:
        return 0
    if method == "listwise":
        return sum(1 < n <= m for n in sizes)
    if method == "pairwise":
        return 2 * (m - 1) if pairwise == "knockout" else m * (m - 1)
    return m


def cost_text(sizes: Sequence[int], m: int, options: EvalOptions, prompts: int, pairwise: str) -> str:
    """The judge calls of a whole run, in words."""
    each = {method: calls(method, sizes, m, pairwise) for method in options.methods}
    runs = len(options.judges) * len(options.seeds)
    parts = ", ".join(f"{method} {count}" for method, count in each.items())
    total = sum(each.values()) * prompts * runs
    kind = f" (pairwise: {pairwise})" if "pairwise" in each else ""
    return (
        f"judge calls: {total:,} = {prompts} prompts x {sum(each.values())} ({parts}) x {len(options.judges)} judges "
        f"x {len(options.seeds)} runs{kind}"
    )


def checked_sizes(args: argparse.Namespace, m: int) -> list[int]:
    """N's of the curves, for M candidates. Raises `CommandError` for one that the methods have no pick for."""
    sizes = sorted(set(args.sizes or [n for n in SIZES if n <= m]))
    if sizes[0] < 1 or sizes[-1] > m:
        raise CommandError(f"--sizes must be from 1 to the {m} candidates of a prompt, not {' '.join(map(str, sizes))}")
    odd = [n for n in sizes if n & (n - 1)]
    if odd and "pairwise" in args.methods and args.pairwise == "knockout":
        raise CommandError(
            f"a knockout gives the best of 2, 4, 8, ... candidates, not of {odd[0]}: choose other --sizes, or "
            "--pairwise full"
        )
    return sizes


def _candidates(args: argparse.Namespace, options: EvalOptions) -> list[EvalItem]:
    """All prompts with the same number of candidates: as many as the one with the fewest has."""
    if args.candidates:
        items = read_candidates(args.candidates)[: options.limit]
    elif args.benchmark and args.policy:
        checked_sizes(args, args.num_candidates)  # before anything is sampled
        count = min(args.num_prompts, options.limit or args.num_prompts)
        prompts = load_prompts(
            args.benchmark, options.data or None, split=options.split, count=count, seed=args.data_seed
        )
        hold(options.output)
        path = Path(options.output) / "candidates.jsonl"
        items = generate(prompts, args, path, max_concurrency=options.max_concurrency)
    else:
        raise CommandError("--candidates FILE is required, or --benchmark and --policy to sample them")
    fewest = min(len(item.responses) for item in items)
    return [item if len(item.responses) == fewest else _first(item, fewest, item.id) for item in items]


def _first(item: EvalItem, n: int, name: str) -> EvalItem:
    """`item` with its first `n` candidates, called `name`."""
    reasons = item.meta.get("finish_reasons")
    meta = {**item.meta, "finish_reasons": reasons[:n]} if reasons else item.meta
    return replace(item, id=name, responses=item.responses[:n], meta=meta)


def metric_label(metric: str) -> str:
    """What tables call a metric: a function by its name alone.

    >>> metric_label("package.module:satisfied"), metric_label("rm:org/model")
    ('satisfied', 'rm:org/model')
    """
    return metric if metric.startswith(("rm:", "judge:")) else metric.rpartition(":")[2]


def _is_share(values: Mapping[str, Sequence[Value]]) -> bool:
    known = [value for row in values.values() for value, _ in row if value is not None]
    return all(0 <= value <= 1 for value in known)
