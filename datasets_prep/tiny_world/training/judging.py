"""What a judge is asked, and the replies that it learns to give: one for each judge prompt.

    flip        a response -> the instruction that it answers
    pointwise   an instruction and a response -> a verdict on each attribute, and a score
    pairwise    an instruction and two responses -> whom each attribute speaks for, and the better one
    listwise    an instruction and several responses -> which show each attribute, and the best one

A reply's reasoning holds the verdicts that its answer follows from; replies fit the 300 characters that the
baselines' JSON schemas allow.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from datasets_prep.tiny_world.language.grammar import (
    Attributes,
    constraints_satisfied,
    parse_instruction,
    render_instruction,
    satisfied,
    shown,
)
from datasets_prep.tiny_world.language.vocabulary import ATTRIBUTES, VALUES
from flip_plugin.prompts.templates import PromptSet

Messages = list[dict[str, str]]

LISTWISE, PAIRWISE = "llmjudge_listwise_ranking", "llmjudge_pairwise_ranking"


# --- questions --------------------------------------------------------------------------------------------


def pairwise_messages(prompts: PromptSet, instruction: str, first: str, second: str) -> Messages:
    """The question of `flip_plugin.reward.pairwise.PairwiseJudge` (a test compares them)."""
    return [
        {"role": "system", "content": prompts.fill(f"{PAIRWISE}_SYSTEM")},
        {
            "role": "user",
            "content": prompts.fill(f"{PAIRWISE}_USER", instruction=instruction, response1=first, response2=second),
        },
    ]


def listwise_messages(prompts: PromptSet, instruction: str, responses: Sequence[str]) -> Messages:
    """The question of `flip_plugin.reward.listwise.ListwiseJudge` (a test compares them)."""
    blocks = [f"<response_{place}>\n{text}\n</response_{place}>" for place, text in enumerate(responses)]
    return [
        {"role": "system", "content": prompts.fill(f"{LISTWISE}_SYSTEM")},
        {
            "role": "user",
            "content": prompts.fill(f"{LISTWISE}_USER", instruction=instruction, response_list="\n\n".join(blocks)),
        },
    ]


# --- replies ----------------------------------------------------------------------------------------------


def asked(instruction: str) -> Attributes:
    """The attributes that an instruction asks for. Raises ValueError for text that is no instruction of this world."""
    attributes = parse_instruction(instruction)
    if attributes is None:
        raise ValueError(f"not an instruction of this world: {instruction!r}")
    return attributes


def shown_values(response: str) -> dict[str, str]:
    """The value that a response shows of each attribute; "none" where it shows none, "mixed" where several."""
    return {
        name: next(iter(values)) if len(values) == 1 and values <= set(VALUES[name]) else "mixed" if values else "none"
        for name, values in shown(response).items()
    }


def flip_reply(response: str, rng: random.Random) -> str:
    """The reply to the FLIP prompt: an instruction from what the response shows.

    Where the response shows no value of an attribute, or several, the judge has to guess: one of those shown,
    or any.
    """
    values = shown(response)
    attributes = {
        name: rng.choice([v for v in VALUES[name] if v in values[name]] or VALUES[name]) for name in ATTRIBUTES
    }
    reasoning = f"It reads like a {attributes['tone']} {attributes['form']}."
    return json.dumps({"REASONING": reasoning, "INFERRED INSTRUCTION": render_instruction(attributes, rng)})


def pointwise_score(share: float) -> int:
    """The share of satisfied attributes as a rating: 10 times it, rounded, 1..10."""
    return min(10, max(1, round(10 * share)))


def _pointwise(instruction: str, response: str, verdicts: list[str]) -> str:
    score = pointwise_score(constraints_satisfied(instruction, response))
    return json.dumps({"REASONING": f"{', '.join(verdicts)}.", "SCORE": score})


def short_pointwise_reply(instruction: str, response: str) -> str:
    """The reply to the pointwise prompt: a verdict on each thing asked for, and the score that follows.

    It is about as long as the reply to the FLIP prompt. A judge of this size learns to compare from a verdict
    beside each value; from the score alone, or from names of attributes, it learnt nothing in the same time.
    """
    right = satisfied(instruction, response)
    verdicts = [f"{value} {'yes' if right[name] else 'no'}" for name, value in asked(instruction).items()]
    return _pointwise(instruction, response, verdicts)


def pointwise_reply(instruction: str, response: str) -> str:
    """For each attribute what was asked, what is shown, and whether they agree; then the score."""
    seen, right = shown_values(response), satisfied(instruction, response)
    verdicts = [f"{value}: {seen[name]} {'yes' if right[name] else 'no'}" for name, value in asked(instruction).items()]
    return _pointwise(instruction, response, verdicts)


def pairwise_reply(instruction: str, first: str, second: str) -> str:
    """For each attribute what A and B show, and who is right; then the better one, which must be better by rule."""
    seen = [shown_values(text) for text in (first, second)]
    right = [satisfied(instruction, text) for text in (first, second)]
    who = {(True, True): "both", (True, False): "A", (False, True): "B", (False, False): "none"}
    verdicts = [f"{seen[0][name]} {seen[1][name]} {who[right[0][name], right[1][name]]}" for name in asked(instruction)]
    shares = [sum(one.values()) for one in right]
    if shares[0] == shares[1]:
        raise ValueError("neither of the two responses is the better one")
    better = "A" if shares[0] > shares[1] else "B"
    return json.dumps({"REASONING": f"{', '.join(verdicts)}.", "BETTER_RESPONSE": better})


def listwise_reply(instruction: str, responses: Sequence[str], best: int) -> str:
    """For each attribute which responses show it; then the best one, the number named most often."""
    right = [satisfied(instruction, text) for text in responses]
    verdicts = []
    for name, value in asked(instruction).items():
        who = [str(place) for place, one in enumerate(right) if one[name]]
        verdicts.append(f"{value} {' '.join(who) or 'none'}")
    return json.dumps({"REASONING": f"{', '.join(verdicts)}.", "BEST_RESPONSE_INDEX": best})
