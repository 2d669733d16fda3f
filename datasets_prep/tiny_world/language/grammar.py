"""The tiny world's language: instructions with seven attributes, and responses that show them or do not.

    attributes = draw_attributes(rng)                        # {"tone": "gloomy", "form": "poem", ...}
    instruction = render_instruction(attributes, rng)        # parse_instruction gives the attributes back
    response = write_response(attributes, rng)
    constraints_satisfied(instruction, response)             # 1.0

Nothing here knows a model. Whether an attribute is satisfied is decided by rule: the response must show the
right value and no other value of that attribute, so listing everything satisfies nothing.
"""

import hashlib
import random
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise

from datasets_prep.tiny_world.language.vocabulary import (
    ATTRIBUTES,
    AUDIENCE_FRAMES,
    SENTENCES,
    SURFACES,
    TEMPLATES,
    VALUES,
    WORD_FRAMES,
)

SPLITS = ("pretraining", "train", "eval")

# A response of this world has about 35 words. Text far beyond that is not one, and is not searched.
MAX_RESPONSE_CHARS = 1000

Attributes = dict[str, str]


# --- instructions -----------------------------------------------------------------------------------------


def draw_attributes(rng: random.Random) -> Attributes:
    """One value for each attribute, independently and uniformly: about 5.9 million combinations."""
    return {name: rng.choice(values) for name, values in VALUES.items()}


def corrupt(attributes: Mapping[str, str], keep: float | Mapping[str, float], rng: random.Random) -> Attributes:
    """Each attribute stays with probability `keep` (one number, or one an attribute), else another value."""
    return {
        name: value
        if rng.random() < (keep if isinstance(keep, int | float) else keep[name])
        else rng.choice([other for other in VALUES[name] if other != value])
        for name, value in attributes.items()
    }


def render_instruction(attributes: Mapping[str, str], rng: random.Random) -> str:
    """The instruction in words, by one of the templates; `parse_instruction` is the inverse."""
    template = rng.choices([text for text, _ in TEMPLATES], [weight for _, weight in TEMPLATES])[0]
    article = "an" if attributes["tone"][0] in "aeiou" else "a"
    return template.format(article=article, **attributes)


def _template_pattern(template: str) -> re.Pattern[str]:
    groups = {name: f"(?P<{name}>{'|'.join(map(re.escape, values))})" for name, values in VALUES.items()}
    parts = re.split(r"\{(\w+)\}", template)
    # Odd places hold the names of fields.
    return re.compile(
        "".join(re.escape(part) if i % 2 == 0 else groups.get(part, "(?P<article>an?)") for i, part in enumerate(parts))
    )


_TEMPLATE_PATTERNS = tuple(_template_pattern(text) for text, _ in TEMPLATES)


def parse_instruction(text: object) -> Attributes | None:
    """The attributes of an instruction of this world; None for any other text."""
    values = _parsed(text) if isinstance(text, str) else None
    return None if values is None else dict(zip(ATTRIBUTES, values, strict=True))


@lru_cache(maxsize=1024)  # responses to one instruction are checked one after another
def _parsed(text: str) -> tuple[str, ...] | None:
    for pattern in _TEMPLATE_PATTERNS:
        if match := pattern.fullmatch(text.strip()):
            return tuple(match[name] for name in ATTRIBUTES)
    return None


def split_of(attributes: Mapping[str, str]) -> str:
    """Which split a combination belongs to: 80% pretraining, 10% train, 10% eval, by hash, so never two."""
    key = "|".join(attributes[name] for name in ATTRIBUTES)
    bucket = hashlib.sha256(key.encode()).digest()[0] % 10
    return SPLITS[0] if bucket < 8 else SPLITS[bucket - 7]


def draw_from_split(split: str, rng: random.Random) -> Attributes:
    """Attributes of a split, by rejection."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    while True:
        attributes = draw_attributes(rng)
        if split_of(attributes) == split:
            return attributes


# --- responses --------------------------------------------------------------------------------------------


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _joined(clauses: list[str]) -> str:
    """'a', 'a, and b', 'a, b, and c': one sentence's clauses."""
    return clauses[0] if len(clauses) == 1 else ", ".join(clauses[:-1]) + ", and " + clauses[-1]


def write_response(attributes: Mapping[str, str], rng: random.Random) -> str:
    """A response that shows every attribute, each by a surface drawn at random.

    Opening and topic come first, then tone, audience and word; these four clauses fill all sentences but the
    last, each with one at least. The last one is the closing.
    """
    surface = {name: rng.choice(values[attributes[name]]) for name, values in SURFACES.items()}
    middle = [
        surface["tone"],
        rng.choice(AUDIENCE_FRAMES).format(surface["audience"]),
        rng.choice(WORD_FRAMES).format(surface["word"]),
    ]
    clauses = [f"{surface['form']} {surface['topic']}", *middle]
    return join_clauses(clauses, surface["closing"], SENTENCES[attributes["sentences"]], rng)


def join_clauses(clauses: list[str], closing: str, sentences: int, rng: random.Random) -> str:
    """The clauses as all sentences but the last, each with one clause at least, and the closing as the last."""
    cuts = sorted(rng.sample(range(1, len(clauses)), sentences - 2))
    bounds = [0, *cuts, len(clauses)]
    texts = [_capitalised(_joined(clauses[start:end])) + "." for start, end in pairwise(bounds)]
    return " ".join([*texts, _capitalised(closing)])


# --- what a response shows --------------------------------------------------------------------------------


def _words(text: str) -> str:
    """Lower-case words separated by single spaces: the form in which surfaces are looked for."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


_SURFACE_VALUE = {
    name: {_words(surface): value for value, surfaces in table.items() for surface in surfaces}
    for name, table in SURFACES.items()
}
_SURFACE_PATTERN = {
    # The lookahead lets hits overlap, so that no surface hides behind another.
    name: re.compile(rf"\b(?=({'|'.join(sorted(map(re.escape, table), key=len, reverse=True))})\b)")
    for name, table in _SURFACE_VALUE.items()
}
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")


def shown(response: object) -> dict[str, set[str]]:
    """Every value that a response shows, for each attribute. An empty set: nothing of it is there.

    A form counts where the response opens with it, and a closing where the response closes with it; elsewhere
    they still count against a right one. "sentences" is a number as a string, in words where it has a name.
    """
    if not isinstance(response, str) or not response.strip() or len(response) > MAX_RESPONSE_CHARS:
        return {name: set() for name in ATTRIBUTES}
    return {name: set(values) for name, values in _shown(response.strip()).items()}


@lru_cache(maxsize=1024)
def _shown(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in ATTRIBUTES}
    words = _words(text)
    for name, pattern in _SURFACE_PATTERN.items():
        hits = list(pattern.finditer(words))
        values = {_SURFACE_VALUE[name][hit[1]] for hit in hits}
        if values and name == "form" and hits[0].start() != 0:
            values.add("(not at the start)")
        if values and name == "closing" and hits[-1].end(1) != len(words):
            values.add("(not at the end)")
        found[name] = values
    ends = list(_SENTENCE_END.finditer(text))
    if ends and ends[-1].end() == len(text):  # a response that breaks off has no number of sentences
        count = len(ends)
        found["sentences"] = {next((word for word, n in SENTENCES.items() if n == count), str(count))}
    return found


def shown_attributes(response: object) -> Attributes | None:
    """The one value that a response shows for each attribute; None unless it is exactly one for every one."""
    found = shown(response)
    if any(len(values) != 1 for values in found.values()):
        return None
    attributes = {name: next(iter(values)) for name, values in found.items()}
    return attributes if all(value in VALUES[name] for name, value in attributes.items()) else None


def satisfied(instruction: object, response: object) -> dict[str, bool]:
    """For each attribute of the instruction, whether the response shows its value and no other.

    An empty dict where the text is not an instruction of this world.
    """
    attributes = parse_instruction(instruction)
    if attributes is None:
        return {}
    found = shown(response)
    return {name: found[name] == {value} for name, value in attributes.items()}


def constraints_satisfied(instruction_text: object, response: object) -> float:
    """The share of the instruction's attributes that the response satisfies, 0..1; 0 for foreign texts."""
    verdicts = satisfied(instruction_text, response)
    return sum(verdicts.values()) / len(verdicts) if verdicts else 0.0
