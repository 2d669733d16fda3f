"""Evaluation sets of the tiny world in the schemas of the real ones, so that they go through the real loading path.

    python -m datasets_prep.tiny_world.eval_sets --output DIR

writes, from held-out instructions (split "eval", which no judge was trained on):

    DIR/rewardbench2.parquet, .jsonl   columns and types of allenai/reward-bench-2
    DIR/wildchat.parquet               columns and types of allenai/WildChat-1M (see `wildchat_sample.py`)
    DIR/best_of_n.jsonl                prompts; a response to one is scored by `constraints_satisfied`

What RewardBench 2's subsets mean here, one right response and three wrong ones an item:

    Focus        the wrong ones answer another instruction, which differs in three to six attributes
    Factuality   they speak of another topic, to another audience, or both
    Precise IF   they lack the word to mention, end in another way, or have another number of sentences
    Math         they have another number of sentences, nothing else: counting stands in for mathematics
    Ties         several right ones of different wording, as "ref:K" (one of them) and "tied:K" (all of them)

There is no Safety: nothing in this world is harmful, and nothing stands in for a refusal.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from datasets_prep.tiny_world.language.grammar import draw_from_split, render_instruction, satisfied
from datasets_prep.tiny_world.language.variants import OPTIONAL, REPEATABLE, with_errors, write_with
from datasets_prep.tiny_world.language.vocabulary import ATTRIBUTES
from datasets_prep.tiny_world.wildchat_sample import wildchat_features, wildchat_rows
from datasets_prep.writing.files import write_rows
from flip_plugin.files.atomic import replaced_path

if TYPE_CHECKING:
    from datasets import Features

REJECTED = 3
LENGTHS = ("short", "plain", "long")
MODEL = "tiny_world"
# The real set's fields about where a row comes from; here two of them are used.
METADATA = {
    "category": "string",
    "correct": "string",
    "index": "float64",
    "instruction_id_list": "list of string",
    "label": "string",
    "method": "string",
    "models": "list of string",
    "prompt_norm": "string",
    "subcategory": "string",
    "valid": "float64",
}


def rewardbench2_features() -> Features:
    """The features of allenai/reward-bench-2, as its card declares them."""
    from datasets import Features, List, Value

    string, integer = Value("string"), Value("int64")
    return Features(
        {
            "id": string,
            "prompt": string,
            "chosen": List(string),
            "rejected": List(string),
            "num_correct": integer,
            "num_incorrect": integer,
            "total_completions": integer,
            "models": List(string),
            "subset": string,
            "additional_metadata": {
                name: List(Value(kind.removeprefix("list of "))) if "list" in kind else Value(kind)
                for name, kind in METADATA.items()
            },
        }
    )


# --- RewardBench 2 ----------------------------------------------------------------------------------------


def _focus(rng: random.Random) -> list[str]:
    return rng.sample(ATTRIBUTES, rng.randint(3, 6))


def _factuality(rng: random.Random) -> list[str]:
    return rng.choice((["topic"], ["audience"], ["topic", "audience"]))


def _precise(rng: random.Random) -> list[str]:
    names = ("word", "closing", "sentences")
    return rng.sample(names, rng.randint(1, 2))


def _math(rng: random.Random) -> list[str]:
    return ["sentences"]


# Subset -> which attributes a wrong response gets wrong, and which of them a response must not leave out.
SUBSETS: dict[str, tuple[Callable[[random.Random], list[str]], tuple[str, ...]]] = {
    "Focus": (_focus, ()),
    "Factuality": (_factuality, ("audience",)),
    "Precise IF": (_precise, ("word",)),
    "Math": (_math, ()),
}
TIES = "Ties"
COUNTS = {"Focus": 60, "Factuality": 60, "Precise IF": 60, "Math": 60, TIES: 20}


class Item(NamedTuple):
    """Responses to one instruction: every chosen one is better by rule than every rejected one."""

    prompt: str
    chosen: list[str]
    rejected: list[str]
    length: str


def draw_item(
    errors: Callable[[random.Random], list[str]],
    tested: Sequence[str],
    rng: random.Random,
    chosen: int = 1,
    rejected: int = REJECTED,
) -> Item:
    """An item whose rejected responses have `errors`. All its responses are about as long as each other.

    A "short" one leaves out the same attributes in each response, a "long" one repeats some in each: length says
    nothing about who is right.
    """
    while True:
        attributes = draw_from_split("eval", rng)
        prompt, length = render_instruction(attributes, rng), rng.choice(LENGTHS)
        left_out = [name for name in OPTIONAL if name not in tested]
        without = rng.sample(left_out, rng.randint(1, len(left_out))) if length == "short" else ()

        def write(shown: Mapping[str, str], length: str = length, without: Sequence[str] = without) -> str:
            twice = rng.sample(REPEATABLE, rng.randint(2, len(REPEATABLE))) if length == "long" else ()
            return write_with(shown, rng, without=without, twice=twice)

        right = dict.fromkeys(write(attributes) for _ in range(4 * chosen))
        wrong = {
            write(with_errors(attributes, names, rng)): names for names in (errors(rng) for _ in range(4 * rejected))
        }
        item = Item(prompt, list(right)[:chosen], list(wrong)[:rejected], length)
        if len(item.chosen) == chosen and len(item.rejected) == rejected and _differs_in(item, wrong):
            return item


def _differs_in(item: Item, wrong: Mapping[str, Sequence[str]]) -> bool:
    """Whether right and wrong responses differ in the errors alone.

    Short ones of different numbers of sentences may not: four sentences have room for an attribute that two leave out.
    """
    right = [satisfied(item.prompt, text) for text in item.chosen]
    for text in item.rejected:
        found = satisfied(item.prompt, text)
        for best in right:
            differing = {name for name in best if best[name] != found[name]}
            if not differing or not differing <= set(wrong[text]) or any(found[name] for name in differing):
                return False
    return True


def _row(number: str, subset: str, item: Item, tested: Sequence[str]) -> dict[str, Any]:
    total = len(item.chosen) + len(item.rejected)
    metadata = dict.fromkeys(METADATA) | {"subcategory": item.length, "instruction_id_list": list(tested)}
    return {
        "id": number,
        "prompt": item.prompt,
        "chosen": item.chosen,
        "rejected": item.rejected,
        "num_correct": len(item.chosen),
        "num_incorrect": len(item.rejected),
        "total_completions": total,
        "models": [MODEL] * total,
        "subset": subset,
        "additional_metadata": metadata,
    }


def rewardbench2_rows(seed: int, counts: Mapping[str, int] = COUNTS) -> list[dict[str, Any]]:
    """Rows of every subset in `counts`; a tie counts as one and gives two rows."""
    rng = random.Random(f"rewardbench2-{seed}")
    rows = []
    for subset, count in counts.items():
        for number in tqdm(range(count), desc=subset, unit="item", delay=2):
            if subset == TIES:
                item = draw_item(_focus, (), rng, chosen=rng.randint(2, 5), rejected=rng.randint(3, 6))
                rows.append(_row(f"ref:{number}", subset, item._replace(chosen=item.chosen[:1]), ()))
                rows.append(_row(f"tied:{number}", subset, item, ()))
            else:
                errors, tested = SUBSETS[subset]
                rows.append(_row(str(len(rows)), subset, draw_item(errors, tested, rng), tested))
    return rows


# --- best of N --------------------------------------------------------------------------------------------


def best_of_n_rows(seed: int, count: int) -> list[dict[str, Any]]:
    """Distinct held-out prompts; `ground_truth` is what `constraints_satisfied` checks a response against."""
    rng = random.Random(f"best-of-n-{seed}")
    prompts: dict[str, None] = {}
    while len(prompts) < count:
        prompts[render_instruction(draw_from_split("eval", rng), rng)] = None
    return [
        {
            "id": f"tiny-{number}",
            "prompt": prompt,
            "messages": [{"role": "user", "content": prompt}],
            "ground_truth": prompt,
            "dataset": "constraints_satisfied",
        }
        for number, prompt in enumerate(prompts)
    ]


# --- files ------------------------------------------------------------------------------------------------


def write_parquet(rows: list[dict[str, Any]], features: Features, path: Path) -> None:
    """The rows with exactly these features, as `datasets` writes them; whole or not at all."""
    from datasets import Dataset

    with replaced_path(path) as temporary:
        Dataset.from_list(rows, features=features).to_parquet(temporary)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the sets")
    parser.add_argument("--seed", type=int, default=1, help="another seed draws other items (%(default)s)")
    parser.add_argument("--num_items", type=int, help="of each subset (default: 60, and 20 of Ties)")
    parser.add_argument("--num_conversations", type=int, default=400, help="of WildChat (%(default)s)")
    parser.add_argument("--num_prompts", type=int, default=64, help="for best of N (%(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write all sets and say how many rows each has."""
    args = parse_arguments(argv)
    counts = COUNTS if args.num_items is None else dict.fromkeys(COUNTS, args.num_items)
    rewards = rewardbench2_rows(args.seed, counts)
    write_parquet(rewards, rewardbench2_features(), args.output / "rewardbench2.parquet")
    write_rows(rewards, args.output / "rewardbench2.jsonl")
    conversations = wildchat_rows(args.seed, args.num_conversations)
    write_parquet(conversations, wildchat_features(), args.output / "wildchat.parquet")
    prompts = best_of_n_rows(args.seed, args.num_prompts)
    write_rows(prompts, args.output / "best_of_n.jsonl")
    sizes = {"rewardbench2": len(rewards), "wildchat": len(conversations), "best_of_n": len(prompts)}
    print(json.dumps({"output": str(args.output), "rows": sizes}))


if __name__ == "__main__":
    main()
