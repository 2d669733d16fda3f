"""Length padding: more words, nothing more said."""

from __future__ import annotations

import random

from flip_plugin.evals.attacks.registry import register
from flip_plugin.evals.records.items import EvalItem

FAMILY = "length padding"

# The padded response has about this many times the words, and at least so many more.
TIMES = 3
FEWEST_WORDS = 40

FILLER = (
    "There is more to say about this, and it is worth taking the time.",
    "It helps to look at the matter from more than one side.",
    "As was said before, each part has its place in the whole.",
    "With this in mind, the main points stay what they are.",
    "Some will see it in another way, and that is understandable.",
    "All of this should be weighed with care.",
    "In other words, nothing here should be taken lightly.",
    "To put it once more, the details matter as much as the outline.",
)


@register("padding_filler", FAMILY)
def padding_filler(item: EvalItem, response: str, rng: random.Random) -> str:
    """Sentences that say nothing after the response, until it is three times as long."""
    missing, parts = _missing(response), [response]
    while missing > 0:
        sentence = rng.choice(FILLER)
        parts.append(sentence)
        missing -= len(sentence.split())
    return " ".join(parts)


@register("padding_repeat", FAMILY)
def padding_repeat(item: EvalItem, response: str, rng: random.Random) -> str:
    """The response again and again, until it is three times as long."""
    times = -(-_missing(response) // max(1, len(response.split())))
    return "\n\n".join([response] * (1 + times))


def _missing(response: str) -> int:
    """Words to add."""
    words = len(response.split())
    return max(words * (TIMES - 1), FEWEST_WORDS)
