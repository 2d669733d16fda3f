"""The arithmetic of best-of-N, against subsets counted by hand and by enumeration."""

import itertools
import random

import pytest

from flip_plugin.evals.judges.selection import (
    asked_within,
    averaged,
    blocks,
    expected,
    knockout_weights,
    num_rounds,
    pick_weights,
    shared,
    tournament_weights,
)
from flip_plugin.reward.ranking import Comparison


def counted(scores, n):
    """The same probabilities by going through every subset."""
    weights = [0.0] * len(scores)
    subsets = list(itertools.combinations(range(len(scores)), n))
    for subset in subsets:
        known = [scores[i] for i in subset if scores[i] is not None]
        picked = [i for i in subset if scores[i] == max(known)] if known else list(subset)
        for i in picked:
            weights[i] += 1 / len(picked) / len(subsets)
    return weights


def test_three_candidates_by_hand():
    # Pairs of a=0.1, b=0.5, c=0.9: ab -> b, ac -> c, bc -> c.
    assert pick_weights([0.1, 0.5, 0.9], 2) == pytest.approx([0, 1 / 3, 2 / 3])
    assert pick_weights([0.1, 0.5, 0.9], 3) == [0, 0, 1]
    assert pick_weights([0.1, 0.5, 0.9], 1) == pytest.approx([1 / 3] * 3)


def test_ties_share_and_the_unscored_come_last():
    # Pairs of a=b=0.9, c=None: ab -> half each, ac -> a, bc -> b.
    assert pick_weights([0.9, 0.9, None], 2) == pytest.approx([0.5, 0.5, 0])
    # a=0.0 is a score, None is none: the pair ac picks a, bc (both without) is a random pick.
    assert pick_weights([0.0, None, None], 2) == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    assert pick_weights([None, None], 2) == [0.5, 0.5]


@pytest.mark.parametrize("seed", range(5))
def test_the_closed_form_is_the_mean_over_all_subsets(seed):
    rng = random.Random(seed)
    scores = [rng.choice([None, 0.0, 0.25, 0.5, 1.0]) for _ in range(7)]
    for n in range(1, 8):
        weights = pick_weights(scores, n)
        assert weights == pytest.approx(counted(scores, n))
        assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize("n", [0, 4])
def test_no_subset_of_that_size(n):
    with pytest.raises(ValueError, match=f"{n} of 3"):
        pick_weights([1, 2, 3], n)


def test_expected_leaves_out_what_is_not_known():
    assert expected([0.25, 0.75], [1.0, 0.0]) == 0.25
    assert expected([0.25, 0.25, 0.5], [1.0, 0.0, None]) == 0.5
    assert expected([0.0, 1.0], [1.0, None]) is None


def test_blocks_and_shares():
    assert blocks(16, 8) == [list(range(8)), list(range(8, 16))]
    assert blocks(3, 2) == [[0, 1]]
    assert shared([], [0, 1], 4) == [0.5, 0.5, 0, 0]
    assert averaged([[1, 0], [0, 1], [0, 1], [0, 1]]) == [0.25, 0.75]


def test_tournament_weights_count_inside_the_block():
    # 0 beats 1 in both orders; 2 and 3 split; 3 beats 0 and 1.
    comparisons = [
        Comparison(0, 1, 0),
        Comparison(1, 0, 0),
        Comparison(2, 3, 2),
        Comparison(3, 2, 3),
        Comparison(0, 3, 3),
        Comparison(3, 1, 3),
    ]
    assert tournament_weights(comparisons, 4, 2) == pytest.approx([0.5, 0, 0.25, 0.25])
    # All four: 0 won 2 of 3, 1 none, 2 one of 2, 3 three of 4.
    assert tournament_weights(comparisons, 4, 4) == [0, 0, 0, 1]
    assert tournament_weights([Comparison(0, 1, None, "unparsed")], 2, 2) == [0.5, 0.5]


def test_intransitive_comparisons_are_a_tie():
    circle = [Comparison(0, 1, 0), Comparison(1, 2, 1), Comparison(2, 0, 2)]
    assert tournament_weights(circle, 3, 3) == pytest.approx([1 / 3] * 3)


def test_knockout_weights_of_every_block():
    # 8 candidates: 1, 2, 5, 6 win round one, 2 and 5 round two, 5 the last.
    scores = [0, 1 / 3, 2 / 3, 0, 0, 1, 1 / 3, 0]
    assert knockout_weights(scores, 1) == [1 / 8] * 8
    assert knockout_weights(scores, 2) == [0, 0.25, 0.25, 0, 0, 0.25, 0.25, 0]
    assert knockout_weights(scores, 4) == [0, 0, 0.5, 0, 0, 0.5, 0, 0]
    assert knockout_weights(scores, 8) == [0, 0, 0, 0, 0, 1, 0, 0]
    assert num_rounds(8) == 3


def test_knockout_without_a_verdict_is_a_random_pick():
    assert knockout_weights([None, None], 2) == [0.5, 0.5]
    assert knockout_weights([None, None], 2, best=[1]) == [0, 1]


def test_questions_of_a_whole_block():
    bracket = [(0, 1, 0), (2, 3, None), (4, 5, 4), (0, 3, 3), (3, 4, 4)]
    assert asked_within(bracket, 6, 2) == [0, 1, 2]
    assert asked_within(bracket, 6, 4) == [0, 1, 3]  # 4 and 5 are no whole block
    assert asked_within(bracket, 6, 6) == [0, 1, 2, 3, 4]
    assert asked_within(bracket, 6, 1) == []
