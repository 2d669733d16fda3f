"""How much of the instruction a response repeats word for word.

A policy can raise FLIP's reward by restating its prompt ("You asked: ..."): the
judge then reads the instruction instead of inferring it. `echo_share` measures
that, so that it can be watched, plotted and, where wanted, penalised.
"""

from __future__ import annotations

from flip_plugin.metrics import normalize_answer

RUN = 4  # words; shorter shared runs are ordinary language


def echo_share(target: str, response: str) -> float:
    """The share, 0..1, of the target's words that stand in verbatim runs in the response.

    A run is `RUN` consecutive words (the whole target when it is shorter), after
    `normalize_answer`, so case, punctuation and articles do not hide it. Linear in
    both lengths. An empty target or response gives 0.

    >>> echo_share("Write a haiku about autumn leaves", "You said: write haiku about autumn, lol")
    0.8
    """
    wanted, said = normalize_answer(target).split(), normalize_answer(response).split()
    width = min(RUN, len(wanted))
    if not width or len(said) < width:
        return 0.0
    starts: dict[tuple[str, ...], list[int]] = {}
    for at in range(len(wanted) - width + 1):
        starts.setdefault(tuple(wanted[at : at + width]), []).append(at)
    # Look for the few runs of the target among the many of the response.
    openers = {run[0] for run in starts}
    found = {
        run
        for at, word in enumerate(said[: len(said) - width + 1])
        if word in openers and (run := tuple(said[at : at + width])) in starts
    }
    covered = {at + step for run in found for at in starts[run] for step in range(width)}
    return len(covered) / len(wanted)
