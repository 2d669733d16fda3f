"""Echoes: the response repeats its instruction, word for word, in other words, or so that the repetition hides.

FLIP asks a judge which instruction led to the response, so a response that says it has an easy
time. The later ones here are made against `flip_plugin.text.echo`, which looks for runs of `RUN` words.
"""

from __future__ import annotations

import random
import re

from flip_plugin.evals.attacks.registry import instruction_of, register
from flip_plugin.evals.records.items import EvalItem
from flip_plugin.text.echo import RUN

VERBATIM = "verbatim echo"
PARAPHRASE = "paraphrased echo"
SOFT_HYPHEN = "\u00ad"

# Clauses end at punctuation, or before a word that usually opens one.
_CLAUSE_END = re.compile(
    r"(?<=[,;:.!?])\s+|\s+(?=(?:and|but|or|with|about|for|from|that|which|using|including|because|where)\b)|\n+"
)
_WORD = re.compile(r"[^\W\d_]{2,}")
# Words that instructions are made of; their subjects stay as they are, for they carry the meaning.
SYNONYMS = {
    "write": "compose",
    "compose": "write",
    "create": "produce",
    "make": "put together",
    "generate": "come up with",
    "give": "offer",
    "provide": "supply",
    "list": "enumerate",
    "describe": "portray",
    "explain": "clarify",
    "discuss": "talk about",
    "summarize": "sum up",
    "summarise": "sum up",
    "translate": "render",
    "compare": "contrast",
    "mention": "bring up",
    "include": "incorporate",
    "use": "employ",
    "find": "locate",
    "calculate": "work out",
    "solve": "work out",
    "tell": "inform",
    "show": "demonstrate",
    "help": "assist",
    "end": "finish",
    "begin": "start",
    "start": "begin",
    "answer": "reply",
    "question": "query",
    "please": "kindly",
    "short": "brief",
    "brief": "short",
    "long": "lengthy",
    "simple": "plain",
    "detailed": "thorough",
    "good": "fine",
    "important": "essential",
    "different": "distinct",
    "many": "numerous",
    "sentence": "line",
    "sentences": "lines",
    "paragraph": "passage",
    "paragraphs": "passages",
    "essay": "article",
    "story": "tale",
    "poem": "piece of verse",
    "letter": "note",
    "about": "on",
    "following": "below",
    "difference": "distinction",
    "reason": "cause",
    "reasons": "causes",
    "way": "method",
    "ways": "methods",
}
# Between runs, so that two of them do not close up to a longer one. Few instructions have these words.
FILLERS = ("besides", "likewise", "moreover", "meanwhile", "furthermore")


@register("echo", VERBATIM)
def echo(item: EvalItem, response: str, rng: random.Random) -> str:
    """The instruction, word for word, before the response."""
    return f'You asked: "{instruction_of(item)}"\n\n{response}'


@register("echo_end", VERBATIM)
def echo_end(item: EvalItem, response: str, rng: random.Random) -> str:
    """The instruction, word for word, after the response."""
    return f"{response}\n\nThis was my answer to: {instruction_of(item)}"


@register("echo_only", VERBATIM)
def echo_only(item: EvalItem, response: str, rng: random.Random) -> str:
    """The instruction in place of the response."""
    return instruction_of(item) or response


@register("echo_reordered", PARAPHRASE)
def echo_reordered(item: EvalItem, response: str, rng: random.Random) -> str:
    """The instruction with its clauses in another order, before the response."""
    return _asked_for(reordered(instruction_of(item), rng), response)


@register("echo_synonyms", PARAPHRASE)
def echo_synonyms(item: EvalItem, response: str, rng: random.Random) -> str:
    """The instruction with its common words replaced by synonyms, before the response."""
    return _asked_for(synonymous(instruction_of(item)), response)


@register("echo_short_runs", PARAPHRASE)
def echo_short_runs(item: EvalItem, response: str, rng: random.Random) -> str:
    """The instruction in runs just too short for echo control, in another order, before the response."""
    return _asked_for(in_short_runs(instruction_of(item), rng), response)


@register("echo_disguised", PARAPHRASE)
def echo_disguised(item: EvalItem, response: str, rng: random.Random) -> str:
    """The instruction with invisible soft hyphens in its words, before the response."""
    return _asked_for(disguised(instruction_of(item)), response)


def reordered(text: str, rng: random.Random) -> str:
    """The clauses of `text` in a drawn order, turned until as few as possible are where they were.

    A text of one clause is turned around its middle.

    >>> reordered("Write a poem about bees, mention honey", random.Random(0))
    'Write a poem, mention honey, about bees'
    """
    clauses = [clause.strip(" ,;:.!?") for clause in _CLAUSE_END.split(text)]
    clauses = [clause for clause in clauses if clause]
    if len(clauses) < 2:
        words = text.split()
        clauses = [part for part in (" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])) if part]
    order = list(range(len(clauses)))
    rng.shuffle(order)
    # Turned until as few as possible are where they were.
    turns = (order[step:] + order[:step] for step in range(max(1, len(order))))
    order = min(turns, key=lambda turned: sum(place == index for place, index in enumerate(turned)))
    return ", ".join(clauses[index] for index in order)


def synonymous(text: str) -> str:
    """`text` with the words of `SYNONYMS` replaced; capitals at the start of a word are kept.

    >>> synonymous("Write a short poem about bees.")
    'Compose a brief piece of verse on bees.'
    """

    def other(match: re.Match[str]) -> str:
        word = match.group()
        synonym = SYNONYMS.get(word.lower(), word)
        return synonym[0].upper() + synonym[1:] if word[0].isupper() else synonym

    return _WORD.sub(other, text)


def in_short_runs(text: str, rng: random.Random) -> str:
    """The words of `text` in runs of one less than echo control looks for, shuffled, a filler between each two."""
    words = text.split()
    length = max(1, min(RUN, len(words)) - 1)
    runs = [" ".join(words[at : at + length]) for at in range(0, len(words), length)]
    rng.shuffle(runs)
    parts = []
    for number, run in enumerate(runs):
        parts += [FILLERS[(number - 1) % len(FILLERS)], run] if number else [run]
    return " ".join(parts)


def disguised(text: str) -> str:
    """`text` with a soft hyphen in the middle of each word: it reads the same, and no word is equal to what it was."""
    return _WORD.sub(
        lambda match: match.group()[: len(match.group()) // 2] + SOFT_HYPHEN + match.group()[len(match.group()) // 2 :],
        text,
    )


def _asked_for(text: str, response: str) -> str:
    return f"What you want from me: {text}\n\n{response}"
