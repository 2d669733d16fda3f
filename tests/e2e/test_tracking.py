"""A real run with every tracker: the same values everywhere, documented names, a report that shows them."""

import json
import re
import sqlite3
from pathlib import Path

import pytest
from tiny_run import tiny_flags

DOCS = Path(__file__).parents[2] / "docs" / "tracking.md"


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def documented(name):
    names = re.findall(r"`([^`\n]+)`", DOCS.read_text().partition("## Names")[2])
    return any(re.fullmatch(re.sub(r"<\w+>", r"[\\w.-]+", known), name) for known in names)


def check_records(out):
    """What a run with all trackers left in `out`."""
    metrics = read(out / "metrics.jsonl")
    found = {name for line in metrics for name in line}
    assert [name for name in sorted(found) if not documented(name)] == []

    steps = [line for line in metrics if "time/total" in line]
    for line in steps:
        assert 0 <= line["time/judge_hidden_frac"] <= 1
        assert line["time/judging"] <= line["time/judging_sum"] and line["time/generation"] > 0
        assert line["time/training"] + line["time/trainer_waiting_for_data"] <= line["time/total"]
        assert line["judge/latency_p50"] <= line["judge/latency_p99"]
    samples, evaluated = len(read(out / "rollouts" / "train.jsonl")), len(read(out / "rollouts" / "eval.jsonl"))
    assert samples <= sum(line["judge/calls"] for line in steps) <= samples + evaluated

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    expected = [(line["training_step"], line["objective/scores"]) for line in steps]
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("objective/scores")] == expected
    (database,) = (out / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    stored = [(step, json.loads(text).get("objective/scores")) for step, text in rows]
    assert [row for row in stored if row[1] is not None] == expected
    assert len(list(out.glob("wandb/offline-run-*/*.wandb"))) == 1

    page = (out / "report.html").read_text()
    for title in ("Judging hidden", "Judge latency", "Step time", "Reward by verifier"):
        assert title in page


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_with_every_tracker(tmp_path, launch):
    flags = tiny_flags(tmp_path, tensorboard=True, with_tracking=True, trackio=True, beta=0.01)
    run = launch(flags, WANDB_MODE="offline", WANDB_ERROR_REPORTING="false")
    assert run.process.wait(560) == 0, run.output()
    assert run.left_behind() == []
    assert "step 1/2" in run.output() and "1 left, " in run.output()
    check_records(tmp_path / "out")
