"""Responses of the tiny world in many lengths and many degrees of being right: what the evaluations are made of.

`write_response` shows every attribute once. A `write_varied` response may leave some unmentioned (it is short,
and nobody can tell what was asked there) or show one twice, by two surfaces of the same value (it is long).
`with_errors` puts another value in an exact number of places. `draw_candidates` draws several responses to one
instruction of which exactly one is the best by the rule of `constraints_satisfied`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping

from datasets_prep.tiny_world.language.grammar import (
    Attributes,
    constraints_satisfied,
    corrupt,
    draw_attributes,
    join_clauses,
    write_response,
)
from datasets_prep.tiny_world.language.vocabulary import AUDIENCE_FRAMES, SENTENCES, SURFACES, VALUES, WORD_FRAMES

# What a response can leave out, and what it can show twice. Form, closing and number of sentences are always there
# once: they are how it begins, ends and is cut.
OPTIONAL = ("tone", "audience", "word")
REPEATABLE = ("topic", *OPTIONAL)

FRAMES = {"topic": ("{}",), "tone": ("{}",), "audience": AUDIENCE_FRAMES, "word": WORD_FRAMES}


def write_with(
    attributes: Mapping[str, str], rng: random.Random, *, without: Collection[str] = (), twice: Collection[str] = ()
) -> str:
    """A response that leaves out the attributes `without` and shows those in `twice` by two clauses.

    `without` are of `OPTIONAL`, `twice` of `REPEATABLE`. Clauses that the number of sentences needs are kept:
    the first names of `without` then stay in.
    """
    repeats = {name: 0 if name in without else 1 + (name in twice) for name in REPEATABLE}
    for name in OPTIONAL:
        if sum(repeats.values()) >= SENTENCES[attributes["sentences"]] - 1:
            break
        repeats[name] = repeats[name] or 1
    opening = rng.choice(SURFACES["form"][attributes["form"]])
    clauses = []
    for name, times in repeats.items():
        surfaces = SURFACES[name][attributes[name]]
        # A word to mention has one surface: twice means in two frames.
        chosen = rng.sample(surfaces, times) if len(surfaces) >= times else list(surfaces) * times
        frames = rng.sample(FRAMES[name], times) if len(FRAMES[name]) >= times else list(FRAMES[name]) * times
        clauses += [frame.format(surface) for frame, surface in zip(frames, chosen, strict=True)]
    closing = rng.choice(SURFACES["closing"][attributes["closing"]])
    return join_clauses([f"{opening} {clauses[0]}", *clauses[1:]], closing, SENTENCES[attributes["sentences"]], rng)


def write_varied(attributes: Mapping[str, str], rng: random.Random) -> str:
    """A response of the usual length half of the time, otherwise of any: shorter, longer, or both."""
    if rng.random() < 0.5:
        return write_response(attributes, rng)
    without = [name for name in OPTIONAL if rng.random() < 0.3]
    twice = [name for name in REPEATABLE if rng.random() < 0.3]
    return write_with(attributes, rng, without=without, twice=twice)


def with_errors(attributes: Mapping[str, str], names: Collection[str], rng: random.Random) -> Attributes:
    """`attributes` with another value for each of `names`."""
    return {
        name: rng.choice([other for other in VALUES[name] if other != value]) if name in names else value
        for name, value in attributes.items()
    }


def some_errors(attributes: Mapping[str, str], count: int, rng: random.Random) -> Attributes:
    """`attributes` with another value in `count` places."""
    return with_errors(attributes, rng.sample(sorted(attributes), count), rng)


def draw_quality(attributes: Mapping[str, str], rng: random.Random) -> Attributes:
    """What a response to `attributes` shows: half are nearly right, the others anything from all to none."""
    if rng.random() < 0.5:
        return some_errors(attributes, rng.randrange(4), rng)
    return corrupt(attributes, rng.random(), rng)


def draw_candidates(
    instruction: str, attributes: Mapping[str, str], count: int, rng: random.Random
) -> tuple[list[str], int]:
    """(`count` responses in random order, the place of the single best one).

    In half of the draws the others have one to three errors more than the best, in a quarter they answer other
    instructions, in a quarter each is of its own quality.
    """
    while True:
        kind, wrong = rng.random(), rng.choice((0, 0, 1, 2))
        if kind < 0.25:
            shown = [draw_quality(attributes, rng) for _ in range(count)]
        else:
            shown = [some_errors(attributes, wrong, rng)]
            for _ in range(count - 1):
                other = kind < 0.5
                shown.append(draw_attributes(rng) if other else some_errors(attributes, wrong + rng.randint(1, 3), rng))
        rng.shuffle(shown)
        responses = [write_varied(one, rng) for one in shown]
        shares = [constraints_satisfied(instruction, response) for response in responses]
        if shares.count(max(shares)) == 1:
            return responses, shares.index(max(shares))
