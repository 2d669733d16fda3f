"""The command-line options that every evaluation has, and `EvalOptions`, the same as data.

The defaults are the paper's limits (arXiv 2602.13551): judges sample at temperature 0.7 with at most
512 tokens a reply, in five runs with a seed each.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.judges.spec import JudgeSpec, parse_judges
from flip_plugin.evals.records.items import METHODS
from flip_plugin.evals.records.runs import REPLIES
from flip_plugin.text.echo import ECHO_POLICIES
from flip_plugin.text.similarity import SIMILARITIES

RUNS = 5


@dataclass(frozen=True)
class EvalOptions:
    """The common options. `settings` are those that decide a judgement; the others are about how it is obtained.

    `cache` is a folder of replies (SQLite, a file a judge) that several runs may share; None is one in the run's own,
    so that a killed run loses no answer that it had. `limit` is a number of items, from the start.
    """

    output: Path
    judges: Sequence[JudgeSpec]
    data: str = ""
    split: str | None = None
    methods: Sequence[str] = METHODS
    seeds: Sequence[int] = (1, 2, 3, 4, 5)
    temperature: float = 0.7
    max_tokens: int = 512
    thinking: bool = False
    schema: bool = True
    prompts: str | None = None
    similarity: str = "f1"
    echo: str = "report"
    target: str = "auto"
    max_context_length: int | None = None
    pairwise: str = "full"
    limit: int | None = None
    timeout: float = 120.0
    max_concurrency: int = 64
    cache: str | None = None
    overwrite: bool = False

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> EvalOptions:
        """The parsed options of `add_common`. Raises `CommandError` for what the user must change."""
        given = {name: getattr(args, name) for name in cls.__dataclass_fields__ if hasattr(args, name)}
        given["judges"] = parse_judges(args.judges)
        given["schema"] = not args.no_schema
        if args.seeds is None:
            # One greedy run is all there is to see of a judge at temperature 0.
            given["seeds"] = tuple(range(1, RUNS + 1)) if args.temperature else (1,)
        for name in ("seeds", "methods"):
            given[name] = tuple(given[name])
            if len(set(given[name])) != len(given[name]):
                raise CommandError(f"--{name} names one twice: {' '.join(map(str, given[name]))}")
        if args.temperature < 0 or args.max_tokens < 1 or args.max_concurrency < 1 or args.timeout <= 0:
            raise CommandError("--temperature must not be negative; --max_tokens, --max_concurrency, --timeout above 0")
        if args.limit is not None and args.limit < 1:
            raise CommandError("--limit must be at least 1")
        options = cls(**given)
        options.check()
        return options

    def check(self) -> None:
        """Raises ValueError (`PromptError`, ...) for what a method cannot work with: before anything is written."""
        from flip_plugin.evals.judges.methods import make_method
        from flip_plugin.judge.client import JudgeClient

        for name in self.methods:
            make_method(name, JudgeClient("hosted_vllm/none", "http://127.0.0.1:1/v1"), **self.method_options())

    def cache_of(self, spec: JudgeSpec) -> str:
        """The file that keeps the replies of one judge.

        Its name is the judge's, too: a request does not say which server it went to, and two may serve
        other models by the same name.
        """
        model = hashlib.sha256(spec.model.encode()).hexdigest()[:8]
        return str(Path(self.cache or self.output / REPLIES) / f"{spec.name}.{model}.sqlite")

    def settings(self) -> dict[str, Any]:
        """What decides a judgement beside judge, method and seed: a resumed run must have the same."""
        from flip_plugin.prompts.templates import PromptSet

        names = ("temperature", "max_tokens", "thinking", "schema", "similarity", "echo", "target", "pairwise")
        return {
            **{name: getattr(self, name) for name in names},
            "max_context_length": self.max_context_length,
            "prompts": PromptSet.load(self.prompts).hashes(),
        }

    def method_options(self) -> dict[str, Any]:
        """Keywords for `methods.make_method`."""
        names = ("prompts", "schema", "similarity", "echo", "target", "max_context_length", "pairwise")
        return {name: getattr(self, name) for name in names}


def add_common(parser: argparse.ArgumentParser, *, data: str | None = None) -> None:
    """Add --data --split --limit --judges --methods --seeds --output ... ; `data` is the default source, if any."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        default=data,
        required=data is None,
        help="Hugging Face id, or a .parquet/.jsonl/.json file or a folder of them, of the same schema"
        + (f" (default: {data})" if data else ""),
    )
    group.add_argument("--split", help="split of a Hugging Face data set")
    group.add_argument("--limit", type=int, help="number of items to judge, from the start, for a trial (default: all)")

    group = parser.add_argument_group("judges and methods")
    group.add_argument(
        "--judges",
        nargs="+",
        required=True,
        metavar="[NAME=]MODEL[@URL]",
        help="LiteLLM models, such as small=hosted_vllm/Qwen/Qwen3-1.7B@http://127.0.0.1:8000/v1, "
        "or vllm:PATH_OR_ID for a model that this command loads itself",
    )
    group.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="default: all four")
    group.add_argument(
        "--seeds", nargs="+", type=int, help=f"one run a seed (default: 1 to {RUNS}; at temperature 0: 1)"
    )
    group.add_argument("--temperature", type=float, default=0.7, help="of the judge (default: 0.7, the paper's)")
    group.add_argument(
        "--max_tokens", type=int, default=512, help="longest reply, in tokens (default: 512, the paper's)"
    )
    group.add_argument("--thinking", action="store_true", help="let the judge think first; raise --max_tokens, too")
    group.add_argument("--no_schema", action="store_true", help="do not ask for structured output")
    group.add_argument("--prompts", help="folder of *.prompt files to use instead of ours")
    group.add_argument(
        "--max_context_length", type=int, help="the judge's context window in tokens (default: the server's)"
    )
    group.add_argument(
        "--similarity", default="f1", help=f"FLIP's: {', '.join(SIMILARITIES)} or embedding:MODEL (default: f1)"
    )
    group.add_argument("--echo", default="report", choices=ECHO_POLICIES, help="FLIP's echo policy (default: report)")
    group.add_argument(
        "--target",
        default="auto",
        choices=("auto", "user", "system"),
        help="the turn that FLIP recovers (default: auto)",
    )

    group = parser.add_argument_group("run")
    group.add_argument("--output", required=True, type=Path, help="the run's folder; the same command continues it")
    group.add_argument("--overwrite", action="store_true", help="remove what is in the folder, and start anew")
    group.add_argument("--max_concurrency", type=int, default=64, help="calls to a server in flight (default: 64)")
    group.add_argument("--timeout", type=float, default=120.0, help="seconds a call, retries included (default: 120)")
    group.add_argument(
        "--cache", help=f"folder of the judges' replies, which several runs may share (default: OUTPUT/{REPLIES})"
    )
