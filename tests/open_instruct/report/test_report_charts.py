"""The report's curves and summary: nothing that a run measured is lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from report_cases import page_of, write_run

from open_instruct.report import reading
from open_instruct.report.charts import build_charts

ROWS = [
    {"training_step": 1, "episode": 8, "objective/scores": 0.1, "objective/general-flip_reward": 0.1},
    {
        "training_step": 2,
        "objective/scores": 0.25,
        "objective/general-flip_reward": 0.25,
        "eval/general-flip_reward": 0.5,
        "objective/constraints_satisfied": None,
        "eval/constraints_satisfied": 0.75,
        "val/ratio": float("nan"),
        "mine/new": 3,
        "eval/new": 4,
        "eval/alone": 5,
        "text": "x",
    },
]


def series_of(runs: Sequence[list[dict]]) -> dict[str, dict]:
    return {
        chart["title"]: {(s["run"], s["name"]): (s["eval"], s["values"]) for s in chart["series"]}
        for chart in build_charts(runs)
    }


def test_charts_pair_train_with_eval_and_lose_nothing():
    assert series_of([ROWS]) == {  # and no "Reward", which would repeat the only verifier's
        "Reward by verifier": {
            (0, "general-flip"): (False, [0.1, 0.25]),
            (0, "general-flip, eval"): (True, [None, 0.5]),
        },
        "Constraints satisfied": {(0, "eval"): (True, [None, 0.75])},
        "mine/new": {(0, "train"): (False, [None, 3]), (0, "eval"): (True, [None, 4])},
        "Eval: alone": {(0, "eval"): (True, [None, 5])},
    }


def test_several_runs_share_a_chart_for_each_metric():
    other = [{"training_step": 5, "objective/general-flip_reward": 0.9, "objective/math_reward": 0.2}]
    drawn = series_of([ROWS, other])
    assert drawn["Reward by verifier: general-flip"] == {
        (0, "train"): (False, [0.1, 0.25]),
        (0, "eval"): (True, [None, 0.5]),
        (1, "train"): (False, [0.9]),
    }
    assert drawn["Reward by verifier: math"] == {(1, "train"): (False, [0.2])}


def test_a_stack_shows_what_its_parts_leave_of_the_step():
    rows = [{"training_step": 1, "time/training": 2.0, "time/weight_sync": 0.5, "time/total": 4.0}]
    (chart,) = build_charts([rows])
    assert {s["name"]: s["values"] for s in chart["series"]} == {
        "training": [2.0],
        "weight sync": [0.5],
        "total": [4.0],
        "other": [1.5],
    }
    titles = [chart["title"] for chart in build_charts([rows, rows])]
    assert titles == ["Training", "Weight sync", "Total"], "runs are compared stage by stage"


def test_overall_reward_is_drawn_when_it_adds_something():
    rows = [{"training_step": 1, "objective/scores": 0.5, "objective/a_reward": 0.25, "objective/b_reward": 0.75}]
    assert list(series_of([rows])) == ["Reward", "Reward by verifier"]
    rows = [{"training_step": i, "objective/scores": 10 * s, "objective/a_reward": s} for i, s in ((1, 0.5), (2, 0.0))]
    assert list(series_of([rows])) == ["Reward by verifier"], "the same curve, times verification_reward"
    rows.append({"training_step": 3, "objective/scores": 1.0, "objective/a_reward": 0.5})  # a penalty
    assert list(series_of([rows])) == ["Reward", "Reward by verifier"]


def test_summary_and_evaluations(tmp_path):
    metrics = [
        {"training_step": 0, "eval/general-flip_reward": 0.25, "eval/echo": 0.1},
        {"training_step": 1, "time/total": 1.0},
        {"training_step": 2, "time/total": 5.0},
        {"training_step": 2, "eval/general-flip_reward": 0.5},  # apart from the line above, same step
        {"training_step": 3, "time/total": 3.0, "eval/general-flip_reward": None},
    ]
    _, data = page_of(write_run(tmp_path / "run", metrics=metrics, config={"config": {"exp_name": "mine"}}))
    (run,) = data["runs"]
    assert run["name"] == data["title"] == "mine"
    summary = run["summary"]
    assert (summary["steps"], summary["seconds"], summary["median_seconds"]) == (3, 9.0, 3.0)
    assert run["hours"] == pytest.approx([0.0, 1 / 3600, 6 / 3600, 9 / 3600], rel=1e-4)
    assert run["evals"] == [
        {"name": "general-flip reward", "steps": [0, 2], "values": [0.25, 0.5]},
        {"name": "echo", "steps": [0], "values": [0.1]},
    ]


def test_long_runs_are_thinned_but_keep_evaluations(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_POINTS", 10)
    metrics = [{"training_step": i, "lr": i} | ({"eval/echo": 1.0} if i == 33 else {}) for i in range(100)]
    _, data = page_of(write_run(tmp_path / "run", metrics=metrics))
    assert data["runs"][0]["steps"] == [0, 10, 20, 30, 33, 40, 50, 60, 70, 80, 90, 99]
    assert any("12 of 100 steps" in note for note in data["runs"][0]["notes"])
