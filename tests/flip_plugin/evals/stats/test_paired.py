"""Paired differences worked out by hand, what is missing, and what the report makes of them."""

import json
from typing import Any

import pytest

from flip_plugin.evals.records.items import EvalItem, Judgement, Result
from flip_plugin.evals.report.claims.claims import check_claims
from flip_plugin.evals.report.input.runs import read_runs
from flip_plugin.evals.stats.accuracy import accuracy_results
from flip_plugin.evals.stats.paired import paired_results

PLACE: dict[str, Any] = {"evaluation": "e", "judge": "j", "group": "all"}


def by_item(*values, seed=1):
    return {(str(number), seed): value for number, value in enumerate(values)}


def test_a_difference_is_the_mean_of_the_items_own():
    values = {"flip": by_item(1, 0.5, 1, None), "pointwise": by_item(0, 0.5, None, 1)}
    (result,) = paired_results(values, {}, metric="accuracy", **PLACE)
    assert (result.method, result.metric, result.value, result.n) == ("pointwise", "accuracy_lead", 0.5, 2)


def test_items_that_are_hard_for_both_do_not_widen_the_interval():
    """Half of the items are right by neither method; FLIP is 0.1 better on every one."""
    hard = [float(number % 2) for number in range(40)]
    values = {"flip": by_item(*(one + 0.1 for one in hard)), "pointwise": by_item(*hard)}
    (result,) = paired_results(values, {}, metric="score", **PLACE)
    assert result.low == pytest.approx(0.1) and result.high == pytest.approx(0.1)


def test_an_item_a_subset_leaves_no_interval():
    values = {"flip": by_item(1, 1, 1), "pointwise": by_item(0, 0, 1)}
    groups = {"0": "A", "1": "B", "2": "C"}
    (result,) = paired_results(values, {}, metric="accuracy", groups=groups, **PLACE)
    assert (result.value, result.low, result.high) == (pytest.approx(2 / 3), None, None)


def test_the_mean_of_the_others_needs_all_of_them():
    values = {"flip": by_item(1, 1), "pointwise": by_item(0, 0.5), "listwise": by_item(1, None)}
    results = {result.method: result for result in paired_results(values, {}, metric="accuracy", **PLACE)}
    assert list(results) == ["pointwise", "listwise", "judges"]
    assert results["pointwise"].value == 0.75
    assert (results["judges"].value, results["judges"].n) == (0.5, 1)


def test_without_flip_or_another_method_there_is_none():
    assert paired_results({"pointwise": by_item(1)}, {}, metric="accuracy", **PLACE) == []
    assert paired_results({"flip": by_item(1)}, {}, metric="accuracy", **PLACE) == []


def test_accuracy_is_compared_subset_by_subset_and_run_by_run():
    """Subset A: FLIP right 2 of 2, pointwise 1 of 2; B: right, and half of a tie. (0.5 + 0.5) / 2, in both runs."""
    items = [EvalItem(str(number), "p", ["x", "y"], [True, False], subset) for number, subset in enumerate("AAB")]
    scores = {"flip": [[1, 0], [1, 0], [1, 0]], "pointwise": [[1, 0], [0, 1], [0.5, 0.5]]}
    judgements = [
        Judgement(str(number), "j", method, seed, pair, ["ok", "unparsed"])
        for method, rows in scores.items()
        for number, pair in enumerate(rows)
        for seed in (1, 2)
    ]
    where: dict[str, Any] = {"judges": ["j"], "methods": list(scores), "seeds": [1, 2]}
    plain = accuracy_results("e", items, judgements, **where)
    *others, result = accuracy_results("e", items, judgements, differences=True, **where)
    assert others == plain
    assert (result.metric, result.value, list(result.runs), result.invalid) == (
        "accuracy_macro_lead",
        0.5,
        [0.5, 0.5],
        0.5,
    )


def result(judge, method, metric, value, half=0.1, n=40):
    low, high = (None, None) if value is None else (value - half, value + half)
    return Result("rewardbench2", judge, method, "all", metric, value, low, high, n).to_dict()


@pytest.fixture
def claims(tmp_path):
    """Claims of a run with these results, by id."""

    def check(results, sizes=()):
        run = tmp_path / "rewardbench2"
        run.mkdir(exist_ok=True)
        content = {"cells": results, "rules": [], "config": {"evaluation": "rewardbench2"}}
        (run / "results.json").write_text(json.dumps(content))
        found = read_runs([run])
        # Tables and charts do not see them.
        assert not any(result.metric == "accuracy_macro_lead" for result in found.evals[0].results)
        return {claim.id: claim for claim in check_claims(found, dict(sizes))}

    return check


@pytest.mark.parametrize(
    ("ahead", "half", "n", "verdict"),
    [
        (None, 0, 40, "not shown"),
        (0.1, 0.08, 40, "holds"),
        (-0.1, 0.08, 40, "does not hold"),
        (0.1, 0.2, 40, "not shown"),
        (0.1, 0.0, 6, "holds"),
        (0.1, 0.0, 5, "not shown"),
        (0.0, 0.0, 40, "not shown"),
    ],
)
def test_the_report_goes_by_the_difference(claims, ahead, half, n, verdict):
    """The two intervals overlap. A difference without width needs six items: by chance in 2 of 64 cases."""
    results = [result("j", "flip", "accuracy_macro", 0.5), result("j", "pointwise", "accuracy_macro", 0.4)]
    results += [result("j", "pointwise", "accuracy_macro_lead", ahead, half, n)] if ahead is not None else []
    assert claims(results)["flip_beats_judges"].verdict == verdict


@pytest.mark.parametrize(("ahead", "verdict"), [(-0.1, "holds"), (0.1, "does not hold"), (0.0, "not shown")])
def test_under_attack_less_is_better(tmp_path, ahead, verdict):
    def wins(method, metric, value, half=0.3):
        return {**result("j", method, metric, value, half), "evaluation": "robustness", "group": "praise"}

    results = [wins("flip", "wins", 0.3), wins("pointwise", "wins", 0.4), wins("pointwise", "wins_lead", ahead, 0.05)]
    content = {"cells": results, "rules": [], "config": {"evaluation": "robustness"}}
    (tmp_path / "results.json").write_text(json.dumps(content))
    claims = {claim.id: claim for claim in check_claims(read_runs([tmp_path]), {})}
    assert claims["robustness"].verdict == verdict and "paired difference " in claims["robustness"].parts[0].figures


def test_the_gain_over_one_method_is_its_difference(claims):
    results = []
    for judge, other, ahead in (("small", 0.4, 0.2), ("big", 0.5, 0.1)):
        results += [result(judge, "flip", "accuracy_macro", 0.6), result(judge, "pointwise", "accuracy_macro", other)]
        results += [result(judge, "pointwise", "accuracy_macro_lead", ahead, 0.02)]
    sizes = {"small": 1, "big": 2}.items()
    assert claims(results, sizes)["judge_size"].verdict == "holds"
    # The same from too few items, all alike.
    alike = [{**one, "low": one["value"], "high": one["value"], "n": 3} for one in results]
    assert claims(alike, sizes)["judge_size"].verdict == "not shown"


def test_a_judge_without_figures_is_left_out_of_the_sizes(claims):
    results = []
    for judge, ahead in (("lost", None), ("small", 0.2), ("big", 0.1)):
        for method in ("flip", "pointwise", "listwise"):
            results.append(result(judge, method, "accuracy_macro", 0.5 if ahead else None))
        results.append(result(judge, "judges", "accuracy_macro_lead", ahead, 0.02))
    claim = claims(results, {"lost": 1, "small": 2, "big": 3}.items())["judge_size"]
    assert claim.verdict == "holds" and len(claim.parts) == 1


def test_a_metric_of_the_user_s_may_have_that_ending(tmp_path):
    content = {"cells": [result("j", "flip", "word_lead", 0.5)], "rules": [], "config": {"evaluation": "best_of_n"}}
    (tmp_path / "results.json").write_text(json.dumps(content))
    (run,) = read_runs([tmp_path]).evals
    assert len(run.results) == 1 and not run.differences
