import random

import pytest

from flip_plugin.evals.stats.intervals import bootstrap, estimate, t95


def test_mean_over_runs_and_missing_values():
    found = estimate([[1, 0, None, 1], [None, None, None, 1]])
    assert found.value == pytest.approx((2 / 3 + 1) / 2)
    assert list(found.runs) == [pytest.approx(2 / 3), 1]
    assert found.n == 3


def test_groups_are_averaged_unweighted():
    found = estimate([[1, 1, 1, 0, 0]], ["a", "a", "a", "b", "b"])
    assert found.value == 0.5
    assert (found.low, found.high) == (0.5, 0.5)  # drawn within their groups, which do not vary
    alone = estimate([[1, 1, 0, 0]], ["a", "a", "a", "b"])  # how b varies is not known
    assert (alone.value, alone.low, alone.high) == (pytest.approx(1 / 3), None, None)


def test_nothing_is_none_and_a_single_item_has_no_interval():
    assert estimate([]).value is None
    assert estimate([[None, None]]) == estimate([[None, None]], ["a", "b"])
    assert estimate([[None, None]]).value is None
    one = estimate([[0.5], [1.0]])
    assert (one.value, one.low, one.high, one.n) == (0.75, None, None, 1)
    # A group without a value in a run: that run has no mean over groups.
    assert list(estimate([[1, None], [1, 0]], ["a", "b"]).runs) == [None, 0.5]


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length"):
        estimate([[1, 2], [1]])


def test_the_interval_is_seeded_and_covers():
    rng = random.Random(0)
    values = [[float(rng.random() < 0.3) for _ in range(400)]]
    found, again = estimate(values), estimate(values)
    assert found == again
    assert found != estimate(values, seed=1)
    # The normal approximation: 1.96 sqrt(p (1 - p) / n) = 0.045
    assert (found.high - found.low) / 2 == pytest.approx(0.045, abs=0.006)


def test_items_are_drawn_with_all_their_runs():
    """Five equal runs of the same items tell no more than one of them."""
    rng = random.Random(1)
    run = [float(rng.random() < 0.5) for _ in range(100)]
    assert estimate([run] * 5).low == estimate([run]).low


def test_bootstrap_of_any_statistic():
    values = [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    low, high = bootstrap(8, lambda drawn: sum(values[i] for i in drawn) / len(drawn), seed=3)
    assert 0.2 < low < 0.625 < high <= 1
    assert bootstrap(1, lambda drawn: 1.0) == (None, None)
    assert bootstrap(4, lambda drawn: float("nan")) == (None, None)


def test_student_s_t_is_that_of_the_tables():
    table = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    assert [round(t95(freedom), 3) for freedom in range(1, 11)] == list(table)
    assert t95(100_000) == pytest.approx(1.96, abs=1e-3)
