r"""Rows of the tiny world for a GRPO run, tagged with the judge type that is to score them.

    python -m datasets_prep.tiny_world.rows --judge_type flip --split train --num_prompts 2000 --seed 1 \
        --output train.jsonl

One seed gives one set of prompts: the flip and the quality file differ in the `dataset` column alone.
"""

import argparse
import random
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets_prep.tiny_world.language.grammar import draw_from_split, render_instruction
from datasets_prep.writing.files import write_rows
from flip_plugin.rows.verifier_names import JUDGE_TYPES

ROW_SPLITS = ("train", "eval")


def make_rows(split: str, num_rows: int, judge_type: str, seed: int) -> list[dict[str, Any]]:
    """`num_rows` distinct rows of a split. Neither the models' training nor the other split has seen them."""
    if split not in ROW_SPLITS:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(ROW_SPLITS)}")
    if judge_type not in JUDGE_TYPES:
        raise ValueError(f"unknown judge type {judge_type!r}: one of {', '.join(JUDGE_TYPES)}")
    if num_rows < 1:
        raise ValueError(f"the number of rows must be at least 1, not {num_rows}")
    rng = random.Random(f"rows-{split}-{seed}")
    instructions: dict[str, None] = {}  # a dict keeps the order that a set would lose
    with tqdm(total=num_rows, desc=f"{split} rows", unit="row", delay=2) as progress:
        while len(instructions) < num_rows:
            instructions[render_instruction(draw_from_split(split, rng), rng)] = None
            progress.update(len(instructions) - progress.n)
    return [
        {
            "messages": [{"role": "user", "content": instruction}],
            "ground_truth": instruction,
            "dataset": JUDGE_TYPES[judge_type],
        }
        for instruction in instructions
    ]


def main(argv: list[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge_type", choices=sorted(JUDGE_TYPES), required=True, help="who scores responses")
    parser.add_argument("--split", choices=ROW_SPLITS, default="train", help="which instructions (%(default)s)")
    parser.add_argument("--num_prompts", type=int, default=2000, help="rows to draw (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed draws other rows (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="a JSON Lines file")
    args = parser.parse_args(argv)
    rows = make_rows(args.split, args.num_prompts, args.judge_type, args.seed)
    write_rows(rows, args.output)
    print(f"{args.output}: {len(rows)} rows, dataset {rows[0]['dataset']}")


if __name__ == "__main__":
    main()
