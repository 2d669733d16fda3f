"""``flip eval robustness``: what attacks on a bad response do to its score, and how often it then beats a good one.

The data are items with right and wrong responses, as those of RewardBench 2. Of each, one right and one
wrong response are drawn; every attack of the suite rewrites the wrong one (`flip_plugin.evals.attacks`).
The results are explained in `flip_plugin.evals.attacks.outcomes`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace

from flip_plugin.errors import CommandError
from flip_plugin.evals.attacks import DEFAULT_SUITE, Attack, families, get_attacks
from flip_plugin.evals.attacks.forged import forged_with
from flip_plugin.evals.attacks.outcomes import EVALUATION, print_table, robustness_results
from flip_plugin.evals.attacks.pairs import ALONE, Pairs, make_pairs
from flip_plugin.evals.attacks.paraphrase import paraphrase_all, paraphrase_attack
from flip_plugin.evals.judges.engine import judge_items, open_judge, report_failures
from flip_plugin.evals.judges.options import EvalOptions, add_common
from flip_plugin.evals.judges.spec import JudgeSpec
from flip_plugin.evals.records.items import EvalItem, Judgement
from flip_plugin.evals.records.runs import open_run
from flip_plugin.evals.stats.results import MISSING_RULE
from flip_plugin.evals.tasks import rewardbench2
from flip_plugin.files.locks import hold
from flip_plugin.prompts.templates import PromptSet

DESCRIPTION = f"""\
Attack the bad response of a pair and see what each method makes of it: how far its score moves, and how
often it then beats the good response. FLIP has a row for each echo policy: report (the text as it is), strip
(restated runs of the instruction cut out) and penalise (the score less the restated share).

The pairs come from the data of `flip eval rewardbench2`, or local files of its schema: one right and one wrong
response of each item, drawn by --pair_seed. The unattacked pair is judged once. The number of calls
is printed before the first one, and by --plan alone.

Attacks (--attacks takes names, families in quotes, or all; each is in flip_plugin/evals/attacks):
  {", ".join(DEFAULT_SUITE)}   (the default)
Families: {", ".join(families())}

  flip eval robustness --data rows.jsonl --judges small=hosted_vllm/judge@http://127.0.0.1:8000/v1 \\
      --seeds 1 2 3 --output runs/robustness
"""

RULES = (
    "A pair is one right and one wrong response to a prompt; an attack rewrites the wrong one.",
    "shift: the wrong response's score under attack less its score before, over pairs where it has both. "
    "flip and pointwise score in 0..1; a listwise or pairwise score is the share of the pair's comparisons won.",
    "wins: how often the attacked wrong response beats the right one, a tie counting half; wins_before: the same "
    "unattacked, over the same pairs (group none: over all). A pair in which a score is missing is in neither.",
    "wins_lead: the paired difference, FLIP's wins less those of the method, over pairs in which both have a verdict.",
    "flip is FLIP under echo policy report; flip+strip and flip+penalise are the policies of echo control. penalise "
    "is computed from the judgements of report, strip asks anew where it changes the text.",
    "invalid is the share of questions about the attacked pair without a usable answer. It must be read beside the "
    "rest: an attack that makes a response unjudgeable does not win, and has no shift either.",
    "all: each pair's mean over the attacks of the suite.",
    MISSING_RULE,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip eval robustness``."""
    add_common(parser, data=rewardbench2.DATA)
    rewardbench2.add_subsets(parser)
    group = parser.add_argument_group("attacks")
    group.add_argument("--attacks", nargs="+", default=list(DEFAULT_SUITE), help="names or families, or all")
    group.add_argument(
        "--pair_seed", type=int, default=0, help="seed of the pair of each item, and of what attacks draw (default: 0)"
    )
    group.add_argument("--no_strip", action="store_true", help="leave out the row flip+strip, which needs more calls")
    group.add_argument(
        "--paraphrase_model",
        metavar="MODEL[@URL]",
        help="also attack with an echo in this model's words, one call an item; in the form of --judges",
    )
    group.add_argument("--plan", action="store_true", help="print how many calls it takes, and end")


def run(args: argparse.Namespace) -> int:
    """Attack, judge, print, write. Returns the exit status."""
    options = EvalOptions.from_args(args)
    if options.echo != "report":
        raise CommandError("--echo: robustness has a row for each echo policy; leave it out")
    attacks = [forged_with(attack, PromptSet.load(options.prompts)) for attack in get_attacks(args.attacks)]
    subsets = rewardbench2.subsets_of(args)
    items = rewardbench2.load_items(options.data, subsets, split=options.split, limit=options.limit)
    if args.paraphrase_model:
        spec = JudgeSpec.parse(args.paraphrase_model)
        attacks.append(paraphrase_attack({}) if args.plan else _paraphrased(items, spec, options))
    pairs = make_pairs(items, attacks, seed=args.pair_seed, target=options.target, strip=_strips(args, options))
    if not pairs.unattacked:
        raise CommandError(f"{options.data}: no item has a right and a wrong response")
    cost_lines = cost(pairs, options)
    print("\n".join(cost_lines), file=sys.stderr)
    if args.plan:
        return 0
    opened = open_run(
        options.output,
        EVALUATION,
        items=pairs.items,
        options=options,
        settings={
            "attacks": [attack.name for attack in attacks],
            "subsets": subsets,
            "pair_seed": args.pair_seed,
            "paraphrase_model": args.paraphrase_model,
            "strip": _strips(args, options),
        },
        notes={"cost": cost_lines},
        rules=RULES,
        overwrite=options.overwrite,
    )
    judgements = judge_pairs(pairs, options)
    names = [judge.name for judge in options.judges]
    results = robustness_results(pairs, judgements, judges=names, methods=options.methods, seeds=options.seeds)
    print_table(results)
    print(f"results: {opened.finish(results, RULES)}", file=sys.stderr)
    return report_failures(judgements, options.judges)


def judge_pairs(pairs: Pairs, options: EvalOptions) -> list[Judgement]:
    """All judgements: the unattacked pairs once by each method, then what each method needs of the attacked ones."""

    def applies(item: EvalItem, method: str) -> bool:
        return "attack" not in item.meta or (len(item.responses) == 1) == (method in ALONE)

    items = [*pairs.unattacked, *pairs.alone, *pairs.together]
    judges, seeds = options.judges, options.seeds
    judgements = judge_items(items, judges, options.methods, seeds, options.output, options, applies=applies)
    if "flip" in options.methods and pairs.stripped:
        more = judge_items(pairs.stripped, judges, ["flip"], seeds, options.output, replace(options, echo="strip"))
        judgements += more
        judgements.errors |= more.errors
    return judgements


def cost(pairs: Pairs, options: EvalOptions) -> list[str]:
    """Lines that say how many calls the judges will get, at most: replies on disk are not asked for again."""
    runs = len(options.seeds) * len(options.judges)
    by_method = {method: pairs.calls(method) for method in options.methods}
    if "flip" in by_method and pairs.stripped:
        by_method["flip+strip"] = pairs.strip_calls()
    each = ", ".join(f"{name} {calls:,}" for name, calls in by_method.items())
    total = sum(by_method.values())
    return [
        f"{EVALUATION}: {len(pairs.unattacked):,} pairs, {len(pairs.attacks)} attacks",
        f"calls in one run of one judge: {each}; together {total:,}",
        f"{len(options.judges)} judges x {len(options.seeds)} runs: at most {total * runs:,} calls",
    ]


def _strips(args: argparse.Namespace, options: EvalOptions) -> bool:
    return "flip" in options.methods and not args.no_strip


def _paraphrased(items: Sequence[EvalItem], spec: JudgeSpec, options: EvalOptions) -> Attack:
    """The attack in the words of model `spec`, which is asked here."""
    hold(options.output)
    path = options.output / f"paraphrases.{spec.name}.jsonl"
    if options.overwrite:
        path.unlink(missing_ok=True)
    with open_judge(spec, replace(options, temperature=0.0)) as client_of:
        return paraphrase_attack(asyncio.run(paraphrase_all(items, client_of(0), path)))
