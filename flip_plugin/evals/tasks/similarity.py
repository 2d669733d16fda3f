"""``flip eval similarity``: the ablation over similarities, a run's FLIP judgements scored anew, without a judge.

A judgement keeps the inferred instruction and the target of each response, so any similarity that
`flip_plugin.text.similarity.get_similarity` knows can be put in place of the one that the run had.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flip_plugin.errors import CommandError
from flip_plugin.evals.records.items import EvalItem, Judgement, Result
from flip_plugin.evals.records.runs import load_run, open_run
from flip_plugin.evals.records.saved import check_output, judged_items, names_of, read_run
from flip_plugin.evals.stats.accuracy import accuracy_results
from flip_plugin.evals.stats.results import print_results
from flip_plugin.evals.stats.scoring import RULES as SCORING_RULES
from flip_plugin.text.echo import penalty
from flip_plugin.text.similarity import SIMILARITIES, Similarity, get_similarity

EVALUATION = "similarity"

DESCRIPTION = """\
How much does the similarity matter? Scores the FLIP judgements of finished runs anew, with each similarity, and
counts the right picks. No judge is asked. embedding:MODEL needs flip-plugin[embedding].

  flip eval similarity runs/rewardbench2 --similarities f1 unicode_f1 rouge_l --output runs/similarity
"""

RULES = (
    "A row flip+NAME is FLIP with similarity NAME, from the same replies of the judge.",
    "The echo policy is that of the run: under penalise each new score loses the echoed share, too.",
    *SCORING_RULES,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip eval similarity``."""
    parser.add_argument("run", type=Path, help="folder of a run with FLIP judgements, e.g. of rewardbench2")
    parser.add_argument(
        "--similarities", nargs="+", default=list(SIMILARITIES), help=f"default: {' '.join(SIMILARITIES)}"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="remove what is in the folder, and start anew")


def run(args: argparse.Namespace) -> int:
    """Score anew, print, write. Returns the exit status. Raises `CommandError` for a run without FLIP judgements."""
    check_output(args.output, [args.run])
    config, _ = load_run(args.run)
    items, judgements = read_run(args.run)
    flips = [one for one in judgements if one.method == "flip"]
    if not flips:
        raise CommandError(f"{args.run}: no FLIP judgements to score anew")
    similarities = {name: get_similarity(name) for name in dict.fromkeys(args.similarities)}
    opened = open_run(
        args.output,
        EVALUATION,
        settings={"run": str(args.run), "similarities": list(similarities)},
        rules=RULES,
        overwrite=args.overwrite,
    )
    echo = config.get("settings", config).get("echo", "report")
    results = similarity_results(items, flips, similarities, echo=echo)
    groups = dict.fromkeys(result.group for result in results)
    columns = [*((group, "accuracy") for group in groups), ("all", "accuracy_macro")]
    print_results(results, title="accuracy by similarity", columns=columns, rules=RULES)
    print(f"results: {opened.finish(results, RULES)}", file=sys.stderr)
    return 0


def similarity_results(
    items: Sequence[EvalItem], flips: Sequence[Judgement], similarities: dict[str, Similarity], *, echo: str = "report"
) -> list[Result]:
    """Accuracy results, a row ``flip+NAME`` a similarity, of FLIP's judgements of `items`."""
    from tqdm import tqdm

    judges, _, seeds = names_of(flips)
    shared = judged_items(items, flips)
    results = []
    for name, similarity in similarities.items():
        scored = [
            rescored(one, similarity, echo=echo) for one in tqdm(flips, desc=f"rescored: {name}", unit="item", delay=2)
        ]
        own = accuracy_results(EVALUATION, shared, scored, judges=judges, methods=["flip"], seeds=seeds)
        results += [replace(result, method=f"flip+{name}") for result in own]
    return results


def rescored(judgement: Judgement, similarity: Similarity, *, echo: str = "report") -> Judgement:
    """`judgement` with the scores that `similarity` gives; what had no score keeps none.

    A response that was nothing but its instruction (inferred instruction "", policy ``strip``) keeps its 0.
    """
    scores: list[float | None] = []
    for score, details in zip(judgement.scores, judgement.details, strict=True):
        inferred, target = details.get("inferred_instruction"), details.get("target")
        if score is None or not inferred or target is None:
            scores.append(score)
            continue
        factor = penalty(target, details.get("echo") or 0.0) if echo == "penalise" else 1.0
        scores.append(float(similarity(inferred, target)) * factor)
    return replace(judgement, scores=scores)
