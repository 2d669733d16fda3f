"""The side-by-side benchmark's own arithmetic and bookkeeping; its runs are for the command itself."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import grpo_vs_trl

    yield grpo_vs_trl
    for name in [name for name in sys.modules if name in ("grpo_vs_trl", "trl_run") or name.startswith("helpers")]:
        del sys.modules[name]


def run_of(compare, system, number, rate):
    shown = dict.fromkeys(compare.SHOWN, 1.0)
    return {"system": system, "reward": "judge", "round": number, **shown, "samples_a_second": rate}


def test_rounds_become_medians_ranges_and_ratios(compare):
    rates = {"ours": (90.0, 60.0, 80.0), "trl": (45.0, 50.0, 50.0)}
    runs = [run_of(compare, s, n, rate) for s, of in rates.items() for n, rate in enumerate(of, start=1)]
    found = compare.summarise([*runs, run_of(compare, "ours", 4, 1000.0)])  # a round that TRL has not had yet
    assert found["trl"]["samples_a_second"] == {"median": 50.0, "range": [45.0, 50.0]}
    assert found["ratio"] == {"median": 1.6, "range": [1.2, 2.0]}
    assert compare.spread(found["ratio"], 2) == "1.60 (1.20-2.00)"
    assert compare.summarise([]) == {}


def test_a_stopped_benchmark_goes_on_with_its_settings(compare, tmp_path):
    args = compare.parse(["--output", str(tmp_path)])
    compare.results_of(args).add(run_of(compare, "ours", 1, 70.0))
    again = compare.results_of(args)
    assert again.find(round=1, system="ours") and not again.find(round=1, system="trl")
    with pytest.raises(SystemExit, match="other settings"):
        compare.results_of(compare.parse(["--output", str(tmp_path), "--steps", "5"]))
    assert not compare.results_of(compare.parse(["--output", str(tmp_path), "--fresh"])).data["runs"]
    assert json.loads((tmp_path / "results.json").read_text())["machine"]["cores"]


def test_a_run_is_read_between_steps_a_failure_says_why(compare, tmp_path):
    from helpers import watched_run

    work = """
import time
for n in range(1, 5):
    began = time.process_time()
    while time.process_time() - began < 0.1:
        pass
    print(f"step {n}/4", flush=True)
time.sleep(0.5)
"""
    options: dict[str, Any] = {"env": {}, "log": tmp_path / "log", "judge_pid": None}
    read = watched_run.watch([sys.executable, "-c", work], first=1, last=3, **options)
    assert len(read.step_seconds) == 2 and read.seconds >= 0.1
    assert 0.03 < sum(read.cpu_by_role.values()) < 0.3
    with pytest.raises(watched_run.RunFailed, match=r"after 0 of 3 steps(?s:.)*no such thing"):
        watched_run.watch([sys.executable, "-c", "raise SystemExit('no such thing')"], first=1, last=3, **options)
