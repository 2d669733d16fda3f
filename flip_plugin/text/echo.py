"""How much of the instruction a response repeats word for word, and what to do about it.

A policy can raise FLIP's reward by restating its prompt ("You asked: ..."): the judge
then reads the instruction instead of inferring it. `echo_share` measures that for every
reward. Three policies, by name:

- ``report``: measured, nothing else (as published, where it was not even measured);
- ``strip``: the restated runs are cut out before the judge reads the response;
- ``penalise``: the score is multiplied by one minus the share.

Tasks that must quote their instruction (translate this, fix this file) have a high share
for good reason: look at the share before choosing another policy than ``report``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from flip_plugin.text.similarity import UNSPACED, normalize_answer

EchoPolicy = Literal["report", "strip", "penalise"]
ECHO_POLICIES: tuple[str, ...] = get_args(EchoPolicy)

# Cuts and looks again; a target can be nested in itself as often as somebody likes.
MOST_ROUNDS = 8
RUN = 4  # words; shorter shared runs are ordinary language
# A target of one or two words ("Hi", "Explain photosynthesis") is ordinary language as a whole.
FEWEST_WORDS = 3
# Where words are not spaced, each character counts as one; so many of them are about a word.
CHARACTERS_A_WORD = 2

_UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
# Characters that are not seen (Unicode's Default_Ignorable_Code_Point): put into words, they would hide a run.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_CHUNK = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


def echo_share(target: str, response: str) -> float:
    """The share, 0..1, of the target's words that stand in verbatim runs in the response.

    A run is `RUN` consecutive words (the whole target when it is shorter), after
    `normalize_answer`, so case, punctuation and articles do not hide it; where words are
    not spaced (Chinese, Thai), it is `RUN` * `CHARACTERS_A_WORD` characters. Linear in both
    lengths. An empty target or response gives 0.

    >>> echo_share("Write a haiku about autumn leaves", "You said: write haiku about autumn, lol")
    0.8
    """
    target_words, response_words = _words(target), _words(response)
    width = _width(target_words)
    starts = _runs(target_words, width)
    shared = {tuple(response_words[at : at + width]) for at in _matches(starts, width, response_words)}
    covered = {at + step for run in shared for at in starts[run] for step in range(width)}
    return len(covered) / len(target_words) if target_words else 0.0


def strip_echo(target: str, response: str) -> str:
    """`response` without the runs of the target's words that `echo_share` counts.

    Also without those that come about by the cut. Everything else stays as it was. Targets of
    fewer than `FEWEST_WORDS` words are left alone.

    >>> strip_echo("Write a haiku about autumn leaves", 'You asked: "Write a haiku about autumn leaves." Red drifts')
    'You asked: Red drifts'
    """
    if _is_short(target):
        return response
    # What is left may close up to another run: "a b [a b c d] c d".
    for _ in range(MOST_ROUNDS):
        spans = echo_spans(target, response)
        if not spans:
            break
        response = _without(response, spans)
    return response


def _without(response: str, spans: list[tuple[int, int]]) -> str:
    """`response` without `spans`, which are in order and apart."""
    kept, at = [], 0
    for start, end in spans:
        kept.append(response[at:start])
        at = end
        # One of the two blanks around the gap is enough.
        while kept[-1][-1:] in ("", " ") and response[at : at + 1] == " ":
            at += 1
    return "".join([*kept, response[at:]])


def echo_spans(target: str, response: str) -> list[tuple[int, int]]:
    """Where in `response` the runs stand that `echo_share` counts: (start, end) in characters, in order."""
    target_words = _words(target)
    # Normalisation goes word by word, so a word of the response can be traced to its characters.
    chunks = [
        (match.span(), normalize_answer(_without_unseen(match.group())).split()) for match in _CHUNK.finditer(response)
    ]
    owner = [number for number, (_, words) in enumerate(chunks) for _ in words]
    response_words = [word for _, words in chunks for word in words]
    width = _width(target_words)
    covered = {at + step for at in _matches(_runs(target_words, width), width, response_words) for step in range(width)}
    stretches = _stretches(sorted({owner[number] for number in covered}), chunks)
    return [(chunks[first][0][0], chunks[last][0][1]) for first, last in stretches]


def penalty(target: str, echo: float) -> float:
    """What a score is multiplied by under ``penalise``, 0..1; 1 for targets of fewer than `FEWEST_WORDS` words."""
    return 1.0 if _is_short(target) else 1.0 - echo


def check_echo_policy(name: str) -> None:
    """Raises ValueError for a name that is none of `ECHO_POLICIES`."""
    if name not in ECHO_POLICIES:
        raise ValueError(f"unknown echo policy {name!r}: it must be {', '.join(ECHO_POLICIES)}")


def _words(text: str) -> list[str]:
    """Words as F1 has them, but characters of scripts without spaces are words of their own."""
    if not text.isascii():
        text = _UNSPACED_CHARACTER.sub(r" \g<0> ", _without_unseen(text))
    return normalize_answer(text).split()


def _without_unseen(text: str) -> str:
    return text if text.isascii() else _UNSEEN.sub("", text)


def _is_unspaced(words: Sequence[str]) -> bool:
    return 2 * sum(_UNSPACED_CHARACTER.match(word) is not None for word in words) > len(words)


def _width(target_words: Sequence[str]) -> int:
    """Length of a run in the target's words."""
    return min(RUN * CHARACTERS_A_WORD if _is_unspaced(target_words) else RUN, len(target_words))


def _is_short(target: str) -> bool:
    words = _words(target)
    return len(words) < FEWEST_WORDS * (CHARACTERS_A_WORD if _is_unspaced(words) else 1)


def _runs(target_words: Sequence[str], width: int) -> dict[tuple[str, ...], list[int]]:
    """Where each run of the target begins."""
    starts: dict[tuple[str, ...], list[int]] = {}
    for at in range(len(target_words) - width + 1 if width else 0):
        starts.setdefault(tuple(target_words[at : at + width]), []).append(at)
    return starts


def _matches(starts: dict[tuple[str, ...], list[int]], width: int, response_words: Sequence[str]) -> list[int]:
    """Where in the response a run of the target begins. Few words begin one, so they are looked up first."""
    if not width:
        return []
    openers = {run[0] for run in starts}
    words, ends = response_words, len(response_words) - width + 1
    return [at for at in range(ends) if words[at] in openers and tuple(words[at : at + width]) in starts]


def _stretches(numbers: list[int], chunks: list[tuple[tuple[int, int], list[str]]]) -> list[tuple[int, int]]:
    """Neighbouring chunks as (first, last); articles and punctuation between two of them go along."""
    stretches: list[tuple[int, int]] = []
    for number in numbers:
        if stretches and not any(words for _, words in chunks[stretches[-1][1] + 1 : number]):
            stretches[-1] = (stretches[-1][0], number)
        else:
            stretches.append((number, number))
    return stretches
