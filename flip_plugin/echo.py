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

from flip_plugin.metrics import normalize_answer

EchoPolicy = Literal["report", "strip", "penalise"]
ECHO_POLICIES: tuple[str, ...] = get_args(EchoPolicy)

RUN = 4  # words; shorter shared runs are ordinary language
# A target of one or two words ("Hi", "Explain photosynthesis") is ordinary language as a whole.
FEWEST_WORDS = 3

_CHUNK = re.compile(r"\S+")


def echo_share(target: str, response: str) -> float:
    """The share, 0..1, of the target's words that stand in verbatim runs in the response.

    A run is `RUN` consecutive words (the whole target when it is shorter), after
    `normalize_answer`, so case, punctuation and articles do not hide it. Linear in
    both lengths. An empty target or response gives 0.

    >>> echo_share("Write a haiku about autumn leaves", "You said: write haiku about autumn, lol")
    0.8
    """
    wanted, said = normalize_answer(target).split(), normalize_answer(response).split()
    starts = _runs(wanted)
    width = min(RUN, len(wanted))
    found = {tuple(said[at : at + width]) for at in _matches(starts, width, said)}
    covered = {at + step for run in found for at in starts[run] for step in range(width)}
    return len(covered) / len(wanted) if wanted else 0.0


def strip_echo(target: str, response: str) -> str:
    """`response` without the runs of the target's words that `echo_share` counts.

    Everything else stays as it was. Targets of fewer than `FEWEST_WORDS` words are left alone.

    >>> strip_echo("Write a haiku about autumn leaves", 'You asked: "Write a haiku about autumn leaves." Red drifts')
    'You asked: Red drifts'
    """
    if len(normalize_answer(target).split()) < FEWEST_WORDS:
        return response
    kept, at = [], 0
    for start, end in echo_spans(target, response):
        kept.append(response[at:start])
        at = end
        # One of the two blanks around the gap is enough.
        while kept[-1][-1:] in ("", " ") and response[at : at + 1] == " ":
            at += 1
    return "".join([*kept, response[at:]]) if kept else response


def echo_spans(target: str, response: str) -> list[tuple[int, int]]:
    """Where in `response` the runs stand that `echo_share` counts: (start, end) in characters, in order."""
    wanted = normalize_answer(target).split()
    # Normalisation goes word by word, so a word of the response can be traced to its characters.
    chunks = [(match.span(), normalize_answer(match.group()).split()) for match in _CHUNK.finditer(response)]
    owner = [number for number, (_, words) in enumerate(chunks) for _ in words]
    said = [word for _, words in chunks for word in words]
    width = min(RUN, len(wanted))
    covered = {at + step for at in _matches(_runs(wanted), width, said) for step in range(width)}
    stretches = _stretches(sorted({owner[number] for number in covered}), chunks)
    return [(chunks[first][0][0], chunks[last][0][1]) for first, last in stretches]


def penalty(target: str, echo: float) -> float:
    """What a score is multiplied by under ``penalise``, 0..1; 1 for targets of fewer than `FEWEST_WORDS` words."""
    return 1.0 - echo if len(normalize_answer(target).split()) >= FEWEST_WORDS else 1.0


def check_echo_policy(name: str) -> None:
    """Raises ValueError for a name that is none of `ECHO_POLICIES`."""
    if name not in ECHO_POLICIES:
        raise ValueError(f"unknown echo policy {name!r}: it must be {', '.join(ECHO_POLICIES)}")


def _runs(wanted: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """Where each run of the target begins."""
    width = min(RUN, len(wanted))
    starts: dict[tuple[str, ...], list[int]] = {}
    for at in range(len(wanted) - width + 1 if width else 0):
        starts.setdefault(tuple(wanted[at : at + width]), []).append(at)
    return starts


def _matches(starts: dict[tuple[str, ...], list[int]], width: int, said: Sequence[str]) -> list[int]:
    """Where in the response a run of the target begins: the few of the target looked for among the many."""
    if not width:
        return []
    openers = {run[0] for run in starts}
    ends = len(said) - width + 1
    return [at for at in range(ends) if said[at] in openers and tuple(said[at : at + width]) in starts]


def _stretches(numbers: list[int], chunks: list[tuple[tuple[int, int], list[str]]]) -> list[tuple[int, int]]:
    """Neighbouring chunks as (first, last); articles and punctuation between two of them go along."""
    stretches: list[tuple[int, int]] = []
    for number in numbers:
        if stretches and not any(words for _, words in chunks[stretches[-1][1] + 1 : number]):
            stretches[-1] = (stretches[-1][0], number)
        else:
            stretches.append((number, number))
    return stretches
