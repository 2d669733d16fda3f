"""How well a judge of the evaluations does by each of its four methods on held-out instructions, greedy."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from datasets_prep.tiny_world.language.grammar import constraints_satisfied, draw_from_split, render_instruction
from datasets_prep.tiny_world.language.variants import draw_candidates
from datasets_prep.tiny_world.training.generation import sample
from datasets_prep.tiny_world.training.judging import Messages, listwise_messages, pairwise_messages
from datasets_prep.tiny_world.training.pair_report import correlations
from datasets_prep.tiny_world.training.tokenizer import prompt_ids, text_of
from flip_plugin.prompts.templates import PromptSet
from flip_plugin.replies.parsing import parse_best_index, parse_better, parse_flip_reply, parse_score_reply
from flip_plugin.text.similarity import f1_score

MAX_NEW_TOKENS = 112
RESPONSES = 4
# Prompts of one batch; bounds the memory.
BATCH = 64


class Item(NamedTuple):
    """An instruction with `RESPONSES` responses; `best` is the place of the single best one."""

    instruction: str
    responses: list[str]
    best: int


def held_out_items(count: int, seed: int, responses: int = RESPONSES) -> list[Item]:
    """Items of the eval split, by the distribution of the training."""
    rng = random.Random(f"judge-report-{seed}-{responses}")
    items = []
    for _ in range(count):
        attributes = draw_from_split("eval", rng)
        instruction = render_instruction(attributes, rng)
        items.append(Item(instruction, *draw_candidates(instruction, attributes, responses, rng)))
    return items


def _replies(
    judge: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, questions: list[Messages]
) -> tuple[list[str], dict[str, float]]:
    """(greedy replies, mean tokens of prompts and replies)."""
    ids = []
    for start in range(0, len(questions), BATCH):
        part = questions[start : start + BATCH]
        ids += sample(judge, tokenizer, part, max_new_tokens=MAX_NEW_TOKENS, temperature=0.0)
    lengths = [len(prompt_ids(tokenizer, question)) for question in questions]
    tokens = {
        "prompt_tokens": round(float(np.mean(lengths)), 1),
        "reply_tokens": round(float(np.mean([len(one) for one in ids])), 1),
    }
    return [text_of(tokenizer, one) for one in ids], tokens


def picked(scores: list[list[float | None]], items: list[Item]) -> float:
    """How often the best response has the highest score: ties share the credit, no score at all counts as a guess."""
    credits = []
    for row, item in zip(scores, items, strict=True):
        known = [score for score in row if score is not None]
        top = [place for place, score in enumerate(row) if known and score == max(known)]
        credits.append(((item.best in top) / len(top)) if top else 1 / len(row))
    return round(float(np.mean(credits)), 4)


def _single(scores: list[float | None], items: list[Item], tokens: dict[str, float], invalid: float) -> dict[str, Any]:
    """The figures of a method that scores one response at a time; `scores` in the order of items and responses."""
    rows = [scores[start : start + RESPONSES] for start in range(0, len(scores), RESPONSES)]
    truths = [constraints_satisfied(item.instruction, text) for item in items for text in item.responses]
    return {"accuracy": picked(rows, items), "invalid": invalid, **correlations(scores, truths, RESPONSES), **tokens}


def _invalid(values: list[Any]) -> float:
    return round(float(np.mean([value is None for value in values])), 4)


@torch.no_grad()
def evaluate_judge(
    judge: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, *, seed: int, num_items: int
) -> dict[str, Any]:
    """`accuracy` is how often the best of four is picked (chance: 0.25); for pairwise the best against the next
    response in both orders (chance: 0.5). `invalid` is the share of replies that the parsers cannot read.
    """
    prompts = PromptSet.load()
    items = held_out_items(num_items, seed)
    pairs = [(item, text) for item in items for text in item.responses]

    replies, tokens = _replies(judge, tokenizer, [prompts.flip_messages(text) for _, text in pairs])
    guesses = [parse_flip_reply(reply).instruction for reply in replies]
    f1s = [
        None if guess is None else f1_score(guess, item.instruction)["f1"]
        for guess, (item, _) in zip(guesses, pairs, strict=True)
    ]
    found = {"flip": _single(f1s, items, tokens, _invalid(guesses))}

    questions = [prompts.pointwise_messages(item.instruction, text) for item, text in pairs]
    replies, tokens = _replies(judge, tokenizer, questions)
    scores = [parse_score_reply(reply).score for reply in replies]
    found["pointwise"] = _single(scores, items, tokens, _invalid(scores))

    found["listwise"] = _listwise(judge, tokenizer, prompts, items)

    ordered = []
    for item in items:
        best, other = item.responses[item.best], item.responses[(item.best + 1) % RESPONSES]
        ordered += [(item, best, other, 0), (item, other, best, 1)]
    questions = [pairwise_messages(prompts, item.instruction, a, b) for item, a, b, _ in ordered]
    replies, tokens = _replies(judge, tokenizer, questions)
    choices = [parse_better(reply).index for reply in replies]
    right = [0.5 if choice is None else float(choice == one[3]) for choice, one in zip(choices, ordered, strict=True)]
    agree = [a is not None and b is not None and a != b for a, b in zip(choices[::2], choices[1::2], strict=True)]
    found["pairwise"] = {
        "accuracy": round(float(np.mean(right)), 4),
        "invalid": _invalid(choices),
        "same_choice_in_both_orders": round(float(np.mean(agree)), 4),
        **tokens,
    }
    return {"items": num_items, **found}


def _listwise(
    judge: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: PromptSet, items: list[Item]
) -> dict[str, Any]:
    questions = [listwise_messages(prompts, item.instruction, item.responses) for item in items]
    replies, tokens = _replies(judge, tokenizer, questions)
    choices = [parse_best_index(reply, len(item.responses)).index for reply, item in zip(replies, items, strict=True)]
    right = [
        1 / len(item.responses) if choice is None else float(choice == item.best)
        for choice, item in zip(choices, items, strict=True)
    ]
    return {"accuracy": round(float(np.mean(right)), 4), "invalid": _invalid(choices), **tokens}


@torch.no_grad()
def listwise_by_count(
    judge: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, *, seed: int, num_items: int, counts: tuple[int, ...]
) -> dict[str, Any]:
    """Listwise accuracy for each number of responses, beyond those of the training, too."""
    prompts = PromptSet.load()
    return {
        str(count): _listwise(judge, tokenizer, prompts, held_out_items(num_items, seed, count)) for count in counts
    }
