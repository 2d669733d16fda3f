"""``flip eval NAME``: the table of evaluations. Each is a module with DESCRIPTION, add_arguments(parser), run(args).

A module is imported when its command is used, so that ``flip --help`` stays quick.
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

# name -> (module, what it does in a line)
EVALUATIONS: dict[str, tuple[str, str]] = {
    "rewardbench2": (
        "flip_plugin.evals.tasks.rewardbench2",
        "RewardBench 2: does the judge pick the right one of four?",
    ),
    "best_of_n": ("flip_plugin.evals.tasks.best_of_n", "what the pick of N candidates is worth on its benchmark"),
    "candidates": ("flip_plugin.evals.data.candidates", "N candidates a prompt from a policy, to a file for best_of_n"),
    "robustness": ("flip_plugin.evals.tasks.robustness", "what attacks on a bad response gain it, by method"),
    "length": ("flip_plugin.evals.tasks.length", "accuracy by the length of the responses"),
    "similarity": (
        "flip_plugin.evals.tasks.similarity",
        "a run's FLIP judgements by other similarities, no judge asked",
    ),
    "agreement": (
        "flip_plugin.evals.tasks.agreement",
        "rank correlation between runs and between judges, no judge asked",
    ),
    "grpo_table": ("flip_plugin.evals.tasks.grpo_table", "checkpoints by benchmarks, through lm-eval"),
    "report": ("flip_plugin.evals.report", "finished runs beside each other and the paper: HTML, Markdown, JSON, CSV"),
}

DESCRIPTION = """\
Evaluate judge models, by each of four methods, as rewards. Each evaluation writes a folder
(config.json, items.jsonl, judgements/, results.json); the same command continues a stopped one
and asks nothing twice.

  flip eval rewardbench2 --judges small=hosted_vllm/Qwen/Qwen3-1.7B@http://127.0.0.1:8000/v1 \\
      --output runs/rewardbench2
"""


class _LateParser(argparse.ArgumentParser):
    """A parser that gets its description and options from a module when it is first used."""

    module = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.module:
            module, self.module = importlib.import_module(self.module), ""
            self.description = module.DESCRIPTION
            module.add_arguments(self)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand an evaluation; its own options are added when it is chosen."""
    names = parser.add_subparsers(dest="evaluation", required=True, metavar="NAME", parser_class=_LateParser)
    for name, (module, summary) in EVALUATIONS.items():
        names.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter).module = module


def run(args: argparse.Namespace) -> int:
    """Run the evaluation that was chosen; the exit status."""
    return importlib.import_module(EVALUATIONS[args.evaluation][0]).run(args)
