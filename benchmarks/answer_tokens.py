"""What a judge's reasoning costs and buys: tokens, and agreement with the truth, against the answer alone.

    python benchmarks/answer_tokens.py                       # the tiny judge, served here on a free port
    python benchmarks/answer_tokens.py --judge_model hosted_vllm/NAME --api_base http://127.0.0.1:8000/v1

Both ways judge the same responses of the tiny world, good and bad ones, at temperature 0, alternating in batches.
`pearson` and `pearson_in_group` compare the rewards with the share of constraints that a rule finds satisfied.
The tiny judge was trained on replies with the reasoning first, and on no others.
The prompts' own lengths are also counted with cl100k_base, the vocabulary that LiteLLM carries.
Prints a table and one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from helpers.tiny_runs import WORLD, judge_server

from datasets_prep.tiny_world.language.grammar import (
    constraints_satisfied,
    corrupt,
    draw_from_split,
    render_instruction,
    write_response,
)
from datasets_prep.tiny_world.training.pair_report import correlations
from flip_plugin.prompts.templates import PromptSet
from flip_plugin.reward.flip import FlipReward
from flip_plugin.reward.result import FlipResult

WAYS = {"reasoning first": True, "answer alone": False}


def rows(seed: int, prompts: int, group: int) -> list[tuple[str, str, float]]:
    """(instruction, response, share of its constraints satisfied), `group` responses an instruction."""
    rng, found = random.Random(seed), []
    for _ in range(prompts):
        attributes = draw_from_split("eval", rng)
        instruction = render_instruction(attributes, rng)
        for _ in range(group):
            response = write_response(corrupt(attributes, rng.random(), rng), rng)
            found.append((instruction, response, constraints_satisfied(instruction, response)))
    return found


def measure(rewards: dict[str, FlipReward], given: list[tuple[str, str, float]], group: int) -> dict[str, Any]:
    """Judge all rows in both ways, a batch of each in turn."""
    results: dict[str, list[FlipResult]] = {way: [] for way in rewards}
    seconds = dict.fromkeys(rewards, 0.0)
    for start in range(0, len(given), 16 * group):
        batch = given[start : start + 16 * group]
        for way, reward in rewards.items():
            began = time.perf_counter()
            results[way] += reward.score_batch([row[0] for row in batch], [row[1] for row in batch])
            seconds[way] += time.perf_counter() - began
    return {way: summary(results[way], [row[2] for row in given], group, seconds[way]) for way in rewards}


def summary(results: list[FlipResult], truths: list[float], group: int, seconds: float) -> dict[str, Any]:
    """Costs and agreement of one way: `results` and `truths` in the order of the rows, `group` rows a prompt."""
    scores = [result.score for result in results]
    known = [score for score in scores if score is not None]
    agreement = correlations(scores, truths, group)
    return {
        "prompt_tokens": mean([r.usage.get("prompt_tokens", 0) for r in results]),
        "completion_tokens": mean([r.usage.get("completion_tokens", 0) for r in results]),
        "rewards_per_s": len(results) / seconds,
        "invalid_share": 1 - len(known) / len(results),
        "mean_score": mean(known),
        "pearson": agreement["pearson"],
        "pearson_in_group": agreement["pearson_in_group"],
    }


def mean(values: list[Any]) -> float:
    """The arithmetic mean; NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")


def prompt_lengths() -> dict[str, int]:
    """Tokens (cl100k_base) of the messages around an empty response, and of the JSON around an empty answer."""
    from flip_plugin.judge.litellm_setup import import_litellm

    litellm = import_litellm()
    prompts = PromptSet.load()
    replies = {
        "reasoning first": '{"REASONING": "", "INFERRED INSTRUCTION": ""}',
        "answer alone": '{"INFERRED INSTRUCTION": ""}',
    }
    counted = {}
    for way, reasoning in WAYS.items():
        text = "\n".join(turn["content"] for turn in prompts.flip_messages("", reasoning=reasoning))
        counted[f"prompt, {way}"] = litellm.token_counter(model="gpt-4", text=text)
        counted[f"empty reply, {way}"] = litellm.token_counter(model="gpt-4", text=replies[way])
    return counted


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge_model", default=f"hosted_vllm/{WORLD / 'judge'}")
    parser.add_argument("--api_base", help="a judge that is up already")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with ExitStack() as stack:
        base = args.api_base
        if not base:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            base = stack.enter_context(judge_server(Path(folder))).url()
        rewards = {
            way: FlipReward(args.judge_model, base, reasoning=reasoning, max_tokens=128)
            for way, reasoning in WAYS.items()
        }
        measured = measure(rewards, rows(args.seed, args.prompts, args.group), args.group)
    for name in next(iter(measured.values())):
        print(f"{name:>18} " + " ".join(f"{way}: {values[name]:8.3f}  " for way, values in measured.items()))
    print(json.dumps({"rows": args.prompts * args.group, "ways": measured, "cl100k_base": prompt_lengths()}))


if __name__ == "__main__":
    main()
