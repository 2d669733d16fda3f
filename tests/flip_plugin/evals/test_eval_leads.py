"""Leads: paired differences by hand, what is missing, and what the report makes of them."""

import json

import pytest

from flip_plugin.evals.items import Cell, EvalItem, Judgement
from flip_plugin.evals.leads import accuracy_leads, lead_cells
from flip_plugin.evals.report.claims import check_claims
from flip_plugin.evals.report.reading import read_runs

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


def test_the_report_goes_by_the_lead(tmp_path):
    """The two intervals overlap; the lead's does not hold 0."""

    def cell(method, metric, value, low, high):
        return Cell("rewardbench2", "small", method, "all", metric, value, low, high, 40).to_dict()

    run = tmp_path / "rewardbench2"
    run.mkdir()
    cells = [cell("flip", "accuracy_macro", 0.5, 0.4, 0.6), cell("pointwise", "accuracy_macro", 0.4, 0.3, 0.5)]
    verdicts = []
    for leads in ([], [cell("pointwise", "accuracy_macro_lead", 0.1, 0.02, 0.18)],
                  [cell("pointwise", "accuracy_macro_lead", -0.1, -0.18, -0.02)]):  # fmt: skip
        results = {"cells": cells + leads, "rules": [], "config": {"evaluation": "rewardbench2"}}
        (run / "results.json").write_text(json.dumps(results))
        found = read_runs([run])
        assert len(found.evals[0].cells) == 2  # tables and charts do not see leads
        verdicts.append(check_claims(found, {})[0].verdict)
    assert verdicts == ["not shown", "holds", "does not hold"]
