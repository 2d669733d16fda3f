"""Best of N: which of N candidates a method picks, as probabilities, and what the pick is worth. Pure functions.

M candidates are there for a prompt, and curves are over N <= M. A method that scores each candidate alone (FLIP,
pointwise, the oracle) is given its exact expectation over all subsets of N of the M candidates: `pick_weights`. A
method that must see its candidates together is given blocks of N of them (`blocks`): the first is the prefix of N.

Rules: the highest score is picked, ties share; a candidate without a score is picked only where none of the
N has one, and then all share.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from flip_plugin.reward.ranking import Comparison, best_of, win_shares


def pick_weights(scores: Sequence[float | None], n: int) -> list[float]:
    """The probability of each of M candidates to be picked from `n` of them, drawn without replacement; sums to 1.

    The best of the drawn ones belongs to the candidates of score s when one of these is drawn and none above. With
    `below` candidates under s, and t of score s, that are C(below + t, n) - C(below, n) of the C(M, n) subsets, and
    the t share them.

    >>> pick_weights([0.5, 0.25, 0.75], 2)  # of the pairs, two have the third and one has not
    [0.3333333333333333, 0.0, 0.6666666666666666]
    >>> pick_weights([1.0, 1.0, None], 1)
    [0.3333333333333333, 0.3333333333333333, 0.3333333333333333]

    Raises ValueError for an `n` that is not in 1..M.
    """
    m = len(scores)
    if not 1 <= n <= m:
        raise ValueError(f"{n} of {m} candidates cannot be drawn")
    tied: dict[float, list[int]] = defaultdict(list)
    for index, score in enumerate(scores):
        tied[-math.inf if score is None else score].append(index)
    weights, below, subsets = [0.0] * m, 0, math.comb(m, n)
    for score in sorted(tied):
        group = tied[score]
        share = (math.comb(below + len(group), n) - math.comb(below, n)) / subsets / len(group)
        for index in group:
            weights[index] = share
        below += len(group)
    return weights


def expected(weights: Sequence[float], values: Sequence[float | None]) -> float | None:
    """What a pick is worth: the mean of `values` under `weights`, over candidates whose value is known.

    None where no candidate that may be picked has a value.

    >>> expected([0.5, 0.25, 0.25], [1.0, 0.0, None])
    0.6666666666666666
    """
    known = [(weight, value) for weight, value in zip(weights, values, strict=True) if value is not None and weight]
    mass = sum(weight for weight, _ in known)
    return sum(weight * value for weight, value in known) / mass if mass else None


def shared(picked: Sequence[int], among: Sequence[int], m: int) -> list[float]:
    """Equal weights for `picked`, or where nothing was picked for all of `among`: a random pick.

    >>> shared([2], [0, 1, 2], 4), shared([], [0, 1], 3)
    ([0.0, 0.0, 1.0, 0.0], [0.5, 0.5, 0.0])
    """
    chosen = set(picked or among)
    return [1 / len(chosen) if index in chosen else 0.0 for index in range(m)]


def averaged(rows: Sequence[Sequence[float]]) -> list[float]:
    """The mean of several weights over the same candidates."""
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def blocks(m: int, n: int) -> list[list[int]]:
    """Candidates 0..n-1, n..2n-1, ...: as many whole blocks as there are; the rest is left out.

    >>> blocks(5, 2)
    [[0, 1], [2, 3]]
    """
    return [list(range(start, start + n)) for start in range(0, m - n + 1, n)]


def asked_within(comparisons: Iterable[Sequence[int | None]], m: int, n: int) -> list[int]:
    """Which questions the pairwise line at `n` rests on: the indices of those between two candidates of one block.

    `comparisons` are rows that begin with the two candidates. In a knockout these are the matches of the first rounds.

    >>> asked_within([(0, 1), (2, 3), (0, 3)], 4, 2)
    [0, 1]
    """
    block_of = {candidate: number for number, block in enumerate(blocks(m, n)) for candidate in block}
    return [
        at
        for at, (first, second, *_) in enumerate(comparisons)
        if first in block_of and block_of[first] == block_of.get(second)
    ]


def tournament_weights(
    comparisons: Iterable[Comparison],
    m: int,
    n: int,
    best: Sequence[int] = (),
    scores: Sequence[float | None] = (),
) -> list[float]:
    """All against all: in each block of `n` the one that won the largest share of its comparisons there.

    A block without a judged comparison is a random pick, of those with one of `scores` where some have; `best` is the
    pick where there was nothing to compare.
    """
    comparisons = list(comparisons)
    rows = []
    for block in blocks(m, n):
        inside = [one for one in comparisons if one.first in block and one.second in block]
        picked = best_of(win_shares(m, inside)) or [one for one in best if one in block]
        picked = picked or [one for one in block if scores and scores[one] is not None]
        rows.append(shared(picked, block, m))
    return averaged(rows)


def knockout_weights(scores: Sequence[float | None], n: int, best: Sequence[int] = ()) -> list[float]:
    """In each block of `n` the one that won its matches there; a block without one is a random pick.

    `scores` are those of `evals.judges.knockout.KnockoutJudge`, the share of rounds survived; `best` is the pick
    where there was nothing to compare. `n` must be a power of two, or all of them.

    >>> knockout_weights([0.0, 0.5, 1.0, 0.0], 2), knockout_weights([0.0, 0.5, 1.0, 0.0], 4)
    ([0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0])
    """
    m, needed = len(scores), num_rounds(n)
    survived = [-1 if score is None else round(score * num_rounds(m)) for score in scores]
    rows = []
    for block in blocks(m, n):
        picked = [index for index in block if survived[index] >= needed] or [one for one in best if one in block]
        rows.append(shared(picked, block, m))
    return averaged(rows)


def num_rounds(n: int) -> int:
    """Rounds of a knockout of `n`.

    >>> [num_rounds(n) for n in (1, 2, 3, 4, 16)]
    [0, 1, 2, 2, 4]
    """
    return (n - 1).bit_length()
