import doctest

import pytest

from flip_plugin.evals.records.items import EvalItem, Judgement
from flip_plugin.evals.stats import scoring, ties
from flip_plugin.evals.stats.accuracy import ACCURACIES, accuracy_results, pick_credits
from flip_plugin.evals.stats.results import mean_result
from flip_plugin.evals.stats.scoring import chance, credit_of, invalid_share, picks
from flip_plugin.evals.stats.ties import Margins, margins, ties_score

ONE_OF_FOUR = [True, False, False, False]


def judged(scores, statuses=None, *, id="1", method="flip", seed=1, judge="j", **more):
    statuses = statuses or ["ok" if score is not None else "unparsed" for score in scores]
    return Judgement(id, judge, method, seed, scores, statuses, **more)


@pytest.mark.parametrize(
    ("scores", "right", "worth"),
    [
        ([0.9, 0.1, 0.2, 0.3], ONE_OF_FOUR, 1),
        ([0.1, 0.9, 0.2, 0.3], ONE_OF_FOUR, 0),
        ([0.5, 0.5, 0.2, 0.3], ONE_OF_FOUR, 1 / 2),
        ([0.5, 0.5, 0.5, 0.3], ONE_OF_FOUR, 1 / 3),
        ([0, 0, 0, 0], ONE_OF_FOUR, 1 / 4),  # a judge that says nothing of use has a random judge's accuracy
        ([0.1, 0.5, 0.5, 0.3], ONE_OF_FOUR, 0),  # tied at the top, the right one below
        ([0, None, None, None], ONE_OF_FOUR, 1),  # a score of zero is a score
        ([None, 0, None, None], ONE_OF_FOUR, 0),
        ([None, 0.5, 0.5, None], ONE_OF_FOUR, 0),
        ([0.7, 0.7, 0.7, 0.1], [True, True, False, False], 2 / 3),
        ([None] * 4, ONE_OF_FOUR, None),
    ],
)
def test_credit_is_shared_among_ties(scores, right, worth):
    assert credit_of(judged(scores), right) == (None if worth is None else pytest.approx(worth))


def test_credit_wants_a_score_a_response():
    with pytest.raises(ValueError, match="3 scores for 4 responses"):
        credit_of(judged([1, 0, 0]), ONE_OF_FOUR)


def test_a_response_that_alone_could_be_shown_is_the_pick():
    alone = judged([None] * 4, ["ok"], method="listwise", extra={"best": [2]})
    assert picks(alone) == [2]
    assert credit_of(alone, [False, False, True, False]) == 1


def test_invalid_share_is_of_questions():
    listwise = judged([None] * 4, ["unparsed"], method="listwise")
    pairwise = judged([0.5, 0.5], ["ok", "unparsed"], method="pairwise")
    assert invalid_share([listwise, pairwise]) == pytest.approx(2 / 3)
    assert invalid_share([]) is None


def test_an_item_without_a_verdict_by_three_rules():
    right = {"1": ONE_OF_FOUR, "2": ONE_OF_FOUR}
    both = [judged([1, 0, 0, 0], id="1"), judged([None] * 4, id="2")]
    worth = {name: pick_credits(both, right, without)["2", 1] for name, without in ACCURACIES.items()}
    assert worth == {"accuracy": 0.25, "accuracy_skip": None, "accuracy_wrong": 0.0}
    assert pick_credits(both, right)["1", 1] == 1


def test_a_server_that_failed_is_no_verdict_by_any_rule():
    right = {"1": ONE_OF_FOUR}
    for scores, statuses in (([None] * 4, ["judge_error"] * 4), ([1, 0, 0, None], ["ok", "ok", "ok", "judge_error"])):
        for without in ACCURACIES.values():
            assert pick_credits([judged(scores, statuses)], right, without) == {("1", 1): None}


def test_cells_by_hand():
    """Two subsets of unequal size, two runs: the mean of subsets and the mean of items differ."""
    items = [EvalItem(str(i), "p", ["a"] * 4, ONE_OF_FOUR, subset) for i, subset in enumerate("AAAB")]
    runs = {
        1: [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [None] * 4],  # 1 1 0 | .25
        2: [[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]],  # .5 1 1 | 1
    }
    judgements = [judged(scores, id=str(i), seed=seed) for seed, rows in runs.items() for i, scores in enumerate(rows)]
    results = accuracy_results("e", items, judgements, judges=["j"], methods=["flip"], seeds=[1, 2], group_order=["B"])
    found = {(result.group, result.metric): result for result in results}
    assert [result.group for result in results[:2]] == ["B", "A"]
    assert list(found["A", "accuracy"].runs) == pytest.approx([2 / 3, 2.5 / 3])
    assert found["A", "accuracy"].value == pytest.approx(4.5 / 6)
    assert list(found["B", "accuracy"].runs) == [0.25, 1]
    assert list(found["B", "accuracy_skip"].runs) == [None, 1]
    assert found["B", "accuracy_skip"].value == 1
    assert list(found["B", "accuracy_wrong"].runs) == [0, 1]
    assert found["B", "accuracy"].invalid == 0.5 and found["A", "accuracy"].invalid == 0
    assert list(found["all", "accuracy"].runs) == pytest.approx([2.25 / 4, 3.5 / 4])
    assert list(found["all", "accuracy_macro"].runs) == pytest.approx([(2 / 3 + 0.25) / 2, (2.5 / 3 + 1) / 2])
    assert found["all", "accuracy"].n == 4 and found["all", "accuracy"].invalid == 4 / 32
    low, high = found["all", "accuracy"].low, found["all", "accuracy"].high
    assert low < found["all", "accuracy"].value < high


def test_a_cell_with_nothing_to_average_says_why():
    failed = judged([None] * 4, ["judge_error"] * 4, error="ConnectionError: refused")
    result = mean_result(
        {("1", 1): None}, evaluation="e", judge="j", method="flip", group="all", metric="m", judgements=[failed]
    )
    assert (result.value, result.n, result.invalid) == (None, 0, 1)
    assert result.note == "1 of 1 judgements failed: ConnectionError: refused"
    assert mean_result({}, evaluation="e", judge="j", method="flip", group="all", metric="m").note == "not judged"


def test_chance():
    assert chance([True, True, False, False]) == 0.5


# --- Ties -------------------------------------------------------------------------------------------------


def test_margins_of_an_item():
    found = margins([0.9, 0.7, 0.6, 0.2], [True, True, False, False])
    assert found.margin == pytest.approx(0.1) and found.spread == pytest.approx(0.2) and found.accurate
    assert not margins([0.5, 0.5], [True, False]).accurate  # a tie of right and wrong is not accurate
    assert margins([0.5, None], [True, False]) is None
    assert margins([None, 0.5], [True, False]) is None
    assert margins([0.5, None, 0.25], [True, True, False]) == Margins(0.25, 0.0)


def test_ties_score_by_hand():
    found = {
        ("tied", 1): Margins(margin=0.4, spread=0.2),  # accurate, preferred: 0.4 > 0.2
        ("ref", 1): Margins(margin=0.1, spread=0.0),  # accurate; the smaller margin 0.1 is not above 0.2
        ("tied", 2): Margins(margin=0.3, spread=0.1),  # accurate, preferred
        ("ref", 2): Margins(margin=0.6, spread=0.0),  # accurate; 0.3 > 0.1
        ("tied", 3): Margins(margin=-0.2, spread=0.3),  # not accurate, not preferred
        ("ref", 3): Margins(margin=0.0, spread=0.0),  # not accurate
        ("tied", 4): Margins(margin=0.5, spread=0.0),  # accurate, preferred
        ("ref", 4): Margins(margin=0.5, spread=0.0),  # accurate; 0.5 > 0
    }
    # tanh(0.1/0.2 - 1), tanh(0.3/0.1 - 1), tanh(-0.2/0.3 - 1), 1 without a spread
    closeness = (-0.46211716 + 0.96402758 - 0.93110961 + 1) / 4
    by_hand = 0.3 * 3 / 4 + 0.3 * 3 / 4 + 0.2 * 3 / 4 + 0.2 * 2 / 4 + 0.01 * closeness
    assert ties_score(found) == pytest.approx(by_hand)


def test_ties_best_worst_and_all_alike():
    best = {("tied", 1): Margins(1.0, 0.0), ("ref", 1): Margins(1.0, 0.0)}
    assert ties_score(best) == pytest.approx(1.01)
    worst = {("tied", 1): Margins(-1.0, 0.0), ("ref", 1): Margins(-1.0, 0.0)}
    assert ties_score(worst) == pytest.approx(-0.01)
    assert ties_score({("tied", 1): Margins(0.0, 0.0), ("ref", 1): Margins(0.0, 0.0)}) == 0


def test_ties_leave_out_what_has_no_verdict():
    one = {("tied", 1): Margins(0.4, 0.2), ("ref", 1): Margins(0.3, 0.0)}
    more = {**one, ("tied", 2): None, ("ref", 2): None}
    assert ties_score(more) == ties_score(one)
    assert ties_score({("tied", 1): Margins(0.4, 0.2), ("ref", 2): Margins(0.3, 0.0)}) is None
    # An item whose partner has no verdict still counts for accuracy.
    half = ties_score({**one, ("tied", 2): Margins(-0.1, 0.0), ("ref", 2): None})
    assert half == pytest.approx(ties_score(one) - 0.3 / 2)


@pytest.mark.parametrize("module", [scoring, ties])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
