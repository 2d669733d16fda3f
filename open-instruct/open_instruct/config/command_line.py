"""From the words of the command line to `Args`; what cannot be understood or honoured ends the program."""

from __future__ import annotations

import difflib
import sys
from dataclasses import fields
from typing import Any

from open_instruct.config.args import Args, FlagError
from open_instruct.config.flags import GROUPS
from open_instruct.config.help import FlagHelp
from open_instruct.config.refused import split_refused
from open_instruct.config.rules import check


def parse_args(argv: list[str] | None = None) -> Args:
    """Command line -> `Args`; an unknown flag, or a bad value, ends the program with a message."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser(
        GROUPS,  # ty: ignore[invalid-argument-type]
        prog="python -m open_instruct.grpo_fast",
        usage="%(prog)s --model_name_or_path MODEL --dataset_mixer_list ROWS 1.0 [flags]",
        description="GRPO with a judge's reward: Ray, vLLM, DeepSpeed. Later flags win; a switch alone is True.",
        epilog="The recipes in scripts/train set most of these; docs/flags.md has them as a table.",
        formatter_class=FlagHelp,
        allow_abbrev=False,
    )
    FlagHelp.hide_negations(parser)
    words, refused = split_refused(list(sys.argv[1:] if argv is None else argv))
    if refused:
        parser.error("\n".join(refused))
    *parts, unknown = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
    if unknown:
        parser.error(_unknown_flags(list(unknown)))  # ty: ignore[invalid-argument-type]
    values: dict[str, Any] = {}
    for part in parts:
        values |= vars(part)
    args = Args(**values)
    try:
        check(args)
    except FlagError as error:
        parser.error(str(error))
    return args


def _unknown_flags(words: list[str]) -> str:
    known = [f"--{f.name}" for f in fields(Args)]
    sentences = []
    for word in (w for w in words if w.startswith("--")):
        close = difflib.get_close_matches(word, known, n=1)
        sentences.append(f"no flag is called {word}" + (f"; did you mean {close[0]}?" if close else ""))
    return "\n".join(sentences) or f"not understood: {' '.join(words)}"
