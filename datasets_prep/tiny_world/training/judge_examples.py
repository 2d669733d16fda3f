"""What the judges of the evaluations learn from: four endless streams, one for each judge prompt.

    flip        a response -> the instruction that it answers
    pointwise   an instruction and a response -> a verdict on each attribute, and a score
    pairwise    an instruction and two responses -> whom each attribute speaks for, and the better one
    listwise    an instruction and 2 to 8 responses -> which show each attribute, and the best one

All streams draw their responses from the same distribution (`variants.py`). A reply's reasoning holds the
verdicts that its answer follows from; replies fit the 300 characters that the baselines' JSON schemas allow.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence

from datasets_prep.tiny_world.language.grammar import constraints_satisfied, satisfied, shown
from datasets_prep.tiny_world.language.variants import draw_candidates, draw_quality, write_varied
from datasets_prep.tiny_world.language.vocabulary import VALUES
from datasets_prep.tiny_world.training.examples import (
    Example,
    Messages,
    asked,
    draw_question,
    flip_examples,
    maybe_damaged,
    pointwise_score,
)
from flip_plugin.prompts.templates import PromptSet

LISTWISE, PAIRWISE = "llmjudge_listwise_ranking", "llmjudge_pairwise_ranking"
MOST_RESPONSES = 8


def pairwise_messages(prompts: PromptSet, instruction: str, first: str, second: str) -> Messages:
    """The question of `flip_plugin.reward.llm_judges.PairwiseJudge` (a test compares them)."""
    return [
        {"role": "system", "content": prompts.fill(f"{PAIRWISE}_SYSTEM")},
        {
            "role": "user",
            "content": prompts.fill(f"{PAIRWISE}_USER", instruction=instruction, response1=first, response2=second),
        },
    ]


def listwise_messages(prompts: PromptSet, instruction: str, responses: Sequence[str]) -> Messages:
    """The question of `flip_plugin.reward.llm_judges.ListwiseJudge` (a test compares them)."""
    blocks = [f"<response_{place}>\n{text}\n</response_{place}>" for place, text in enumerate(responses)]
    return [
        {"role": "system", "content": prompts.fill(f"{LISTWISE}_SYSTEM")},
        {
            "role": "user",
            "content": prompts.fill(f"{LISTWISE}_USER", instruction=instruction, response_list="\n\n".join(blocks)),
        },
    ]


# --- replies ----------------------------------------------------------------------------------------------


def shown_values(response: str) -> dict[str, str]:
    """The value that a response shows of each attribute; "none" where it shows none, "mixed" where several."""
    return {
        name: next(iter(values)) if len(values) == 1 and values <= set(VALUES[name]) else "mixed" if values else "none"
        for name, values in shown(response).items()
    }


def pointwise_reply(instruction: str, response: str) -> str:
    """For each attribute what was asked, what is shown, and whether they agree; then the score."""
    seen, right = shown_values(response), satisfied(instruction, response)
    verdicts = [f"{value}: {seen[name]} {'yes' if right[name] else 'no'}" for name, value in asked(instruction).items()]
    score = pointwise_score(constraints_satisfied(instruction, response))
    return json.dumps({"REASONING": f"{', '.join(verdicts)}.", "SCORE": score})


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


# --- streams ----------------------------------------------------------------------------------------------


def flip_stream(seed: int, prompts: PromptSet) -> Iterator[Example]:
    """FLIP prompt -> inferred instruction."""
    return flip_examples(seed, prompts, write_varied, "judges-flip")


def pointwise_stream(seed: int, prompts: PromptSet) -> Iterator[Example]:
    """Pointwise prompt -> score."""
    rng = random.Random(f"judges-pointwise-{seed}")
    while True:
        instruction, attributes = draw_question(rng)
        response = maybe_damaged(write_varied(draw_quality(attributes, rng), rng), rng)
        yield Example(prompts.pointwise_messages(instruction, response), pointwise_reply(instruction, response))


def pairwise_stream(seed: int, prompts: PromptSet) -> Iterator[Example]:
    """Pairwise prompt -> the better one."""
    rng = random.Random(f"judges-pairwise-{seed}")
    while True:
        instruction, attributes = draw_question(rng)
        (first, second), _ = draw_candidates(instruction, attributes, 2, rng)
        yield Example(
            pairwise_messages(prompts, instruction, first, second), pairwise_reply(instruction, first, second)
        )


def listwise_stream(seed: int, prompts: PromptSet, block: int = 1) -> Iterator[Example]:
    """Listwise prompt -> the best one, for 4 responses in half of the examples, else for 2 to `MOST_RESPONSES`.

    `block` examples in a row have the same number of responses, so that a batch of them holds little padding.
    """
    rng = random.Random(f"judges-listwise-{seed}")
    while True:
        count = 4 if rng.random() < 0.5 else rng.randint(2, MOST_RESPONSES)
        for _ in range(block):
            instruction, attributes = draw_question(rng)
            responses, best = draw_candidates(instruction, attributes, count, rng)
            yield Example(
                listwise_messages(prompts, instruction, responses), listwise_reply(instruction, responses, best)
            )


def judge_corpus(seed: int, num_texts: int, prompts: PromptSet, template: Callable[[Messages], str]) -> Iterator[str]:
    """Texts for the judges' tokenizer: conversations of all four kinds, in the chat template's form."""
    streams = [stream(seed, prompts) for stream in (flip_stream, pointwise_stream, pairwise_stream, listwise_stream)]
    for _ in range(num_texts):
        for stream in streams:
            yield template(next(stream).conversation())
