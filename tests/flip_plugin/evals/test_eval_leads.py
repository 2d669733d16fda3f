"""Leads: paired differences by hand, what is missing, and what the report makes of them."""

import json

import pytest

from flip_plugin.evals.records.items import Cell, EvalItem, Judgement
from flip_plugin.evals.report.claims.claims import check_claims
from flip_plugin.evals.report.input.runs import read_runs
from flip_plugin.evals.stats.paired import accuracy_leads, lead_cells

PLACE = {"evaluation": "e", "judge": "j", "group": "all"}


def by_item(*values, seed=1):
    return {(str(number), seed): value for number, value in enumerate(values)}


def test_a_lead_is_the_mean_of_the_items_own_differences():
    values = {"flip": by_item(1, 0.5, 1, None), "pointwise": by_item(0, 0.5, None, 1)}
    (cell,) = lead_cells(values, {}, metric="accuracy", **PLACE)
    assert (cell.method, cell.metric, cell.value, cell.n) == ("pointwise", "accuracy_lead", 0.5, 2)


def test_items_that_are_hard_for_both_do_not_widen_the_interval():
    """Half of the items are right by neither method; FLIP is 0.1 better on every one."""
    hard = [float(number % 2) for number in range(40)]
    values = {"flip": by_item(*(one + 0.1 for one in hard)), "pointwise": by_item(*hard)}
    (cell,) = lead_cells(values, {}, metric="score", **PLACE)
    assert cell.low == pytest.approx(0.1) and cell.high == pytest.approx(0.1)


def test_an_item_a_subset_leaves_no_interval():
    values = {"flip": by_item(1, 1, 1), "pointwise": by_item(0, 0, 1)}
    groups = {"0": "A", "1": "B", "2": "C"}
    (cell,) = lead_cells(values, {}, metric="accuracy", groups=groups, **PLACE)
    assert (cell.value, cell.low, cell.high) == (pytest.approx(2 / 3), None, None)


def test_the_mean_of_the_others_needs_all_of_them():
    values = {"flip": by_item(1, 1), "pointwise": by_item(0, 0.5), "listwise": by_item(1, None)}
    cells = {cell.method: cell for cell in lead_cells(values, {}, metric="accuracy", **PLACE)}
    assert list(cells) == ["pointwise", "listwise", "judges"]
    assert cells["pointwise"].value == 0.75
    assert (cells["judges"].value, cells["judges"].n) == (0.5, 1)


def test_without_flip_or_without_another_there_is_no_lead():
    assert lead_cells({"pointwise": by_item(1)}, {}, metric="accuracy", **PLACE) == []
    assert lead_cells({"flip": by_item(1)}, {}, metric="accuracy", **PLACE) == []


def test_accuracy_leads_are_means_of_subsets_over_runs_of_equal_seed():
    """Subset A: FLIP right 2 of 2, pointwise 1 of 2; B: right, and half of a tie. (0.5 + 0.5) / 2, in both runs."""
    items = [EvalItem(str(number), "p", ["x", "y"], [True, False], subset) for number, subset in enumerate("AAB")]
    scores = {"flip": [[1, 0], [1, 0], [1, 0]], "pointwise": [[1, 0], [0, 1], [0.5, 0.5]]}
    judgements = [
        Judgement(str(number), "j", method, seed, pair, ["ok", "unparsed"])
        for method, rows in scores.items()
        for number, pair in enumerate(rows)
        for seed in (1, 2)
    ]
    (cell,) = accuracy_leads("e", items, judgements, judges=["j"], methods=list(scores), seeds=[1, 2])
    assert (cell.metric, cell.value, list(cell.runs), cell.invalid) == ("accuracy_macro_lead", 0.5, [0.5, 0.5], 0.5)


def cell(judge, method, metric, value, half=0.1, n=40):
    low, high = (None, None) if value is None else (value - half, value + half)
    return Cell("rewardbench2", judge, method, "all", metric, value, low, high, n).to_dict()


@pytest.fixture
def claims(tmp_path):
    """Claims of a run with these cells, by id."""

    def check(cells, sizes=()):
        run = tmp_path / "rewardbench2"
        run.mkdir(exist_ok=True)
        results = {"cells": cells, "rules": [], "config": {"evaluation": "rewardbench2"}}
        (run / "results.json").write_text(json.dumps(results))
        found = read_runs([run])
        # Tables and charts do not see leads.
        assert not any(cell.metric == "accuracy_macro_lead" for cell in found.evals[0].cells)
        return {claim.id: claim for claim in check_claims(found, dict(sizes))}

    return check


@pytest.mark.parametrize(
    ("lead", "half", "n", "verdict"),
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
def test_the_report_goes_by_the_lead(claims, lead, half, n, verdict):
    """The two intervals overlap. A lead without width needs six items: by chance in 2 of 64 cases."""
    cells = [cell("j", "flip", "accuracy_macro", 0.5), cell("j", "pointwise", "accuracy_macro", 0.4)]
    cells += [cell("j", "pointwise", "accuracy_macro_lead", lead, half, n)] if lead is not None else []
    assert claims(cells)["flip_beats_judges"].verdict == verdict


@pytest.mark.parametrize(("lead", "verdict"), [(-0.1, "holds"), (0.1, "does not hold"), (0.0, "not shown")])
def test_under_attack_less_is_better(tmp_path, lead, verdict):
    def wins(method, metric, value, half=0.3):
        return {**cell("j", method, metric, value, half), "evaluation": "robustness", "group": "praise"}

    cells = [wins("flip", "wins", 0.3), wins("pointwise", "wins", 0.4), wins("pointwise", "wins_lead", lead, 0.05)]
    results = {"cells": cells, "rules": [], "config": {"evaluation": "robustness"}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    claims = {claim.id: claim for claim in check_claims(read_runs([tmp_path]), {})}
    assert claims["robustness"].verdict == verdict and "a lead of " in claims["robustness"].parts[0].figures


def test_the_gain_over_one_method_is_its_lead(claims):
    cells = []
    for judge, other, lead in (("small", 0.4, 0.2), ("big", 0.5, 0.1)):
        cells += [cell(judge, "flip", "accuracy_macro", 0.6), cell(judge, "pointwise", "accuracy_macro", other)]
        cells += [cell(judge, "pointwise", "accuracy_macro_lead", lead, 0.02)]
    sizes = {"small": 1, "big": 2}.items()
    assert claims(cells, sizes)["judge_size"].verdict == "holds"
    # The same from too few items, all alike.
    alike = [{**one, "low": one["value"], "high": one["value"], "n": 3} for one in cells]
    assert claims(alike, sizes)["judge_size"].verdict == "not shown"


def test_a_judge_without_figures_is_left_out_of_the_sizes(claims):
    cells = []
    for judge, lead in (("lost", None), ("small", 0.2), ("big", 0.1)):
        for method in ("flip", "pointwise", "listwise"):
            cells.append(cell(judge, method, "accuracy_macro", 0.5 if lead else None))
        cells.append(cell(judge, "judges", "accuracy_macro_lead", lead, 0.02))
    claim = claims(cells, {"lost": 1, "small": 2, "big": 3}.items())["judge_size"]
    assert claim.verdict == "holds" and len(claim.parts) == 1


def test_a_metric_of_the_user_s_may_be_called_a_lead(tmp_path):
    results = {"cells": [cell("j", "flip", "word_lead", 0.5)], "rules": [], "config": {"evaluation": "best_of_n"}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (run,) = read_runs([tmp_path]).evals
    assert len(run.cells) == 1 and not run.leads
