"""The tiny world's language: rendering and parsing, writing and checking, and what cannot be gamed."""

import random

import pytest

from datasets_prep.tiny_world.language.grammar import (
    MAX_RESPONSE_CHARS,
    SPLITS,
    constraints_satisfied,
    corrupt,
    draw_attributes,
    draw_from_split,
    parse_instruction,
    render_instruction,
    satisfied,
    shown,
    shown_attributes,
    split_of,
    write_response,
)
from datasets_prep.tiny_world.language.vocabulary import ATTRIBUTES, SURFACES, VALUES

INSTRUCTION = (
    "Write a gloomy letter about honey bees for old sailors: two sentences, mention the lantern, end with a "
    "solemn promise."
)
RESPONSE = (
    "Dear friend, the swarm danced over clover, all hope seemed gone, I kept the lantern, and grey seafarers "
    "will understand. You have my word."
)


@pytest.fixture
def rng():
    return random.Random(7)


def without(name):
    """All attributes but one, satisfied."""
    return {attribute: attribute != name for attribute in ATTRIBUTES}


def test_there_are_many_instructions():
    combinations = 1
    for values in VALUES.values():
        assert len(set(values)) == len(values)
        combinations *= len(values)
    assert combinations > 1e6


def test_parsing_inverts_rendering(rng):
    texts = set()
    for _ in range(500):
        attributes = draw_attributes(rng)
        text = render_instruction(attributes, rng)
        texts.add(text.split()[0])
        assert parse_instruction(text) == attributes
        assert len(text.split()) <= 25
    assert len(texts) == 5  # every template was used


@pytest.mark.parametrize(
    "text", ["", "Write a poem.", INSTRUCTION + " Please.", INSTRUCTION.replace("gloomy", "glad"), None, 7, ["a"]]
)
def test_other_texts_are_not_instructions(text):
    assert parse_instruction(text) is None
    assert satisfied(text, RESPONSE) == {}
    assert constraints_satisfied(text, RESPONSE) == 0.0


def test_a_written_response_shows_its_attributes(rng):
    for _ in range(500):
        attributes = draw_attributes(rng)
        response = write_response(attributes, rng)
        assert shown_attributes(response) == attributes
        assert constraints_satisfied(render_instruction(attributes, rng), response) == 1.0
        assert len(response.split()) <= 40


def test_a_response_does_not_quote_the_instruction(rng):
    """Only the word to mention is copied: the names of the other values never show up."""
    for _ in range(300):
        attributes = draw_attributes(rng)
        response = write_response(attributes, rng).lower()
        assert attributes["word"] in response
        for name in ("tone", "topic", "audience", "closing"):
            assert attributes[name] not in response


def test_each_corrupted_attribute_is_lost_and_no_other(rng):
    for name in ATTRIBUTES:
        for _ in range(40):
            attributes = draw_attributes(rng)
            wrong = corrupt(attributes, {other: float(other != name) for other in ATTRIBUTES}, rng)
            assert wrong[name] != attributes[name]
            verdicts = satisfied(render_instruction(attributes, rng), write_response(wrong, rng))
            assert verdicts == without(name)


def test_corruption_keeps_the_share_asked_for(rng):
    attributes = draw_attributes(rng)
    kept = [corrupt(attributes, 0.3, rng)[name] == attributes[name] for _ in range(1000) for name in ATTRIBUTES]
    assert sum(kept) / len(kept) == pytest.approx(0.3, abs=0.03)
    assert corrupt(attributes, 1.0, rng) == attributes


def test_a_worked_example():
    assert satisfied(INSTRUCTION, RESPONSE) == dict.fromkeys(ATTRIBUTES, True)
    assert constraints_satisfied(INSTRUCTION, RESPONSE.replace("lantern", "violin")) == pytest.approx(6 / 7)


@pytest.mark.parametrize("name", [name for name in ATTRIBUTES if name != "sentences"])
def test_showing_every_value_satisfies_nothing(name):
    stuffing = ", ".join(surface for surfaces in SURFACES[name].values() for surface in surfaces[:1])
    stuffed = RESPONSE.replace("gone,", f"gone, {stuffing},").replace("?", "").replace("., ", ", ")
    assert len(stuffed) <= MAX_RESPONSE_CHARS
    assert not satisfied(INSTRUCTION, stuffed)[name]


def test_one_wrong_value_beside_the_right_one_is_enough():
    both = RESPONSE.replace("the lantern", "the lantern, I kept the violin")
    assert satisfied(INSTRUCTION, both) == without("word")


def test_the_opening_opens_and_the_closing_closes():
    late = "Listen, " + RESPONSE
    assert satisfied(INSTRUCTION, late) == without("form")
    early = "You have my word, " + RESPONSE.replace("You have my word.", "Goodbye.")
    assert not satisfied(INSTRUCTION, early)["closing"]


def test_a_response_that_breaks_off_has_no_length():
    assert satisfied(INSTRUCTION, RESPONSE.removesuffix(".")) == without("sentences")


@pytest.mark.parametrize(
    "response",
    ["", "   ", None, 3, "...", "?!?!", "\x00\ufffd", "{" * 900, "</response>", "\n" * 500, "é" * 999, "a " * 10**6],
)
def test_garbage_satisfies_nothing(response):
    assert constraints_satisfied(INSTRUCTION, response) == 0.0


def test_repeating_the_instruction_gains_little():
    assert constraints_satisfied(INSTRUCTION, INSTRUCTION) <= 1 / 7 + 1e-9


def test_a_very_long_response_is_not_searched():
    assert constraints_satisfied(INSTRUCTION, RESPONSE + " and so on" * 200) == 0.0


def test_no_surface_holds_another():
    everything = [(name, value, s) for name, t in SURFACES.items() for value, ss in t.items() for s in ss]
    for name, value, surface in everything:
        found = shown(surface)
        hits = {(n, v) for n, vs in found.items() for v in vs if n != "sentences" and not v.startswith("(")}
        assert hits == {(name, value)}


def test_splits_are_disjoint_and_sized(rng):
    counts = dict.fromkeys(SPLITS, 0)
    for _ in range(4000):
        counts[split_of(draw_attributes(rng))] += 1
    assert counts["pretraining"] / 4000 == pytest.approx(0.8, abs=0.03)
    assert counts["train"] / 4000 == pytest.approx(0.1, abs=0.03)
    assert all(split_of(draw_from_split(split, rng)) == split for split in SPLITS for _ in range(20))
    with pytest.raises(ValueError, match="unknown split"):
        draw_from_split("test", rng)
