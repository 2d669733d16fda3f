"""Measures of a built tiny world on held-out instructions: how the policy starts, and how well the judge sees."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from datasets_prep.tiny_world.language.grammar import (
    constraints_satisfied,
    draw_from_split,
    parse_instruction,
    render_instruction,
    satisfied,
    shown_attributes,
)
from datasets_prep.tiny_world.language.vocabulary import ATTRIBUTES
from datasets_prep.tiny_world.training.generation import sample
from datasets_prep.tiny_world.training.judging import Messages
from datasets_prep.tiny_world.training.tokenizer import prompt_ids, text_of
from flip_plugin.prompts.templates import PromptSet
from flip_plugin.text.similarity import f1_score

MAX_NEW_TOKENS = 64
GROUP_SIZE = 8


def reply_field(text: str, key: str) -> Any:
    """A field of a judge's JSON reply; None where the reply is not JSON or lacks it."""
    try:
        reply = json.loads(text)
    except json.JSONDecodeError:
        return None
    return reply.get(key) if isinstance(reply, dict) else None


def ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 0, ties sharing the mean of theirs: ranks([5, 1, 5]) = [1.5, 0, 1.5]."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Correlation; None where one side does not vary."""
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 1e-12 else None


def correlations(rewards: Sequence[float | None], truths: Sequence[float], group_size: int) -> dict[str, Any]:
    """How well a reward follows the truth, over all samples and inside groups of one prompt's samples.

    Samples without a reward are left out. The groups' figures are means over the groups where both vary.
    """
    groups = []
    for start in range(0, len(rewards), group_size):
        pairs = zip(rewards[start : start + group_size], truths[start : start + group_size], strict=True)
        groups.append([(reward, truth) for reward, truth in pairs if reward is not None])
    everything = [pair for group in groups for pair in group]

    def inside(measure: Callable) -> float | None:
        found = [measure(*zip(*group, strict=True)) for group in groups if len(group) > 1]
        known = [value for value in found if value is not None]
        return round(float(np.mean(known)), 4) if known else None

    def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
        return pearson(ranks(x).tolist(), ranks(y).tolist())

    def overall(measure: Callable) -> float | None:
        value = measure(*zip(*everything, strict=True)) if len(everything) > 1 else None
        return None if value is None else round(value, 4)

    return {
        "pearson": overall(pearson),
        "spearman": overall(spearman),
        "pearson_in_group": inside(pearson),
        "spearman_in_group": inside(spearman),
    }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if len(values) else 0.0


def evaluate(
    policy: Qwen3ForCausalLM,
    judge: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    num_prompts: int = 48,
) -> dict[str, Any]:
    """Sample the policy on instructions of the eval split, judge each sample both ways, and compare with the rule."""
    rng = random.Random(f"report-{seed}")
    generator = torch.Generator().manual_seed(seed)
    prompts = PromptSet.load()
    instructions = [
        instruction
        for _ in range(num_prompts)
        for instruction in [render_instruction(draw_from_split("eval", rng), rng)] * GROUP_SIZE
    ]
    questions: list[Messages] = [[{"role": "user", "content": instruction}] for instruction in instructions]
    sampled = sample(policy, tokenizer, questions, max_new_tokens=MAX_NEW_TOKENS, generator=generator)
    responses = [text_of(tokenizer, ids) for ids in sampled]
    truths = [constraints_satisfied(i, r) for i, r in zip(instructions, responses, strict=True)]
    verdicts = [satisfied(i, r) for i, r in zip(instructions, responses, strict=True)]

    flip_prompts = [prompts.flip_messages(response) for response in responses]
    point_prompts = [prompts.pointwise_messages(i, r) for i, r in zip(instructions, responses, strict=True)]
    flip_ids = sample(judge, tokenizer, flip_prompts, max_new_tokens=MAX_NEW_TOKENS, temperature=0.0)
    point_ids = sample(judge, tokenizer, point_prompts, max_new_tokens=MAX_NEW_TOKENS, temperature=0.0)
    inferred = [reply_field(text_of(tokenizer, ids), "INFERRED INSTRUCTION") for ids in flip_ids]
    scores = [reply_field(text_of(tokenizer, ids), "SCORE") for ids in point_ids]
    f1s = [
        f1_score(guess, instruction)["f1"] if isinstance(guess, str) else None
        for guess, instruction in zip(inferred, instructions, strict=True)
    ]
    points = [float(score) if isinstance(score, int) else None for score in scores]
    errors = [abs(score - 10 * truth) for score, truth in zip(points, truths, strict=True) if score is not None]

    def prompt_tokens(conversations: list[Messages]) -> float:
        return _mean([len(prompt_ids(tokenizer, conversation)) for conversation in conversations])

    return {
        "samples": len(responses),
        "policy": {
            "constraints_satisfied": _mean(truths),
            "satisfied_by_attribute": {a: _mean([v[a] for v in verdicts]) for a in ATTRIBUTES},
            "ended": _mean([ids[-1] == tokenizer.eos_token_id for ids in sampled]),
            "well_formed": _mean([shown_attributes(response) is not None for response in responses]),
            "prompt_tokens": prompt_tokens(questions),
            "response_tokens": _mean([len(ids) for ids in sampled]),
        },
        "flip": {
            "parsed": _mean([f1 is not None for f1 in f1s]),
            "mean_f1": _mean([f1 for f1 in f1s if f1 is not None]),
            "attribute_recall": _attribute_recall(responses, inferred),
            **correlations(f1s, truths, GROUP_SIZE),
            "prompt_tokens": prompt_tokens(flip_prompts),
            "reply_tokens": _mean([len(ids) for ids in flip_ids]),
        },
        "pointwise": {
            "parsed": _mean([point is not None for point in points]),
            "mean_score": _mean([point for point in points if point is not None]),
            "mean_abs_error": _mean(errors),
            **correlations(points, truths, GROUP_SIZE),
            "prompt_tokens": prompt_tokens(point_prompts),
            "reply_tokens": _mean([len(ids) for ids in point_ids]),
        },
        "example": {
            "instruction": instructions[0],
            "response": responses[0],
            "inferred_instruction": inferred[0],
            "score": scores[0],
            "constraints_satisfied": round(truths[0], 4),
        },
    }


def _attribute_recall(responses: list[str], inferred: list[Any]) -> dict[str, float]:
    """Share of the attributes that well-formed responses show which the inferred instruction names rightly."""
    hits: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    for response, guess in zip(responses, inferred, strict=True):
        if (shown := shown_attributes(response)) is not None:
            named = parse_instruction(guess) or {}
            for name, value in shown.items():
                hits[name].append(named.get(name) == value)
    by_attribute = {name: _mean(values) for name, values in hits.items()}
    return {"all": _mean([hit for values in hits.values() for hit in values]), **by_attribute}
