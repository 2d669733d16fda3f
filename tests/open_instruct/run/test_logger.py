"""Records and metrics on disk, and the line a step: what a killed or resumed run may meet."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch

from flip_plugin.files.jsonl import read_jsonl
from open_instruct.run.logger import MetricsLogger, setup_logging
from open_instruct.run.progress import Progress, progress_line


def steps_in(output_dir: Path) -> list[int]:
    return [row["training_step"] for row in read_jsonl(output_dir / "metrics.jsonl")]


def test_resuming_replaces_the_steps_that_happen_again(tmp_path):
    with MetricsLogger(tmp_path) as metrics:
        for step in (1, 2, 3, 4):
            metrics.log(step, {"objective/scores": float("nan") if step == 2 else 0.1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"training_step": 5, "obj')
    with MetricsLogger(tmp_path, resume_step=2) as metrics:
        metrics.log(3, {"objective/scores": torch.tensor(0.5)})
    assert steps_in(tmp_path) == [1, 2, 3]
    rows = list(read_jsonl(tmp_path / "metrics.jsonl"))
    assert rows[1]["objective/scores"] is None and rows[2]["objective/scores"] == 0.5


def test_a_new_run_keeps_the_older_record_apart(tmp_path):
    for step in (7, 8, 9):
        with MetricsLogger(tmp_path) as metrics:
            metrics.log(step, {})
    assert steps_in(tmp_path) == [9]
    older = [json.loads((tmp_path / f"metrics.{n}.jsonl").read_text()) for n in (1, 2)]
    assert older == [{"training_step": 7}, {"training_step": 8}]


def test_progress_line_shows_what_is_there():
    metrics = {
        "objective/scores": np.float32(0.62),
        "objective/general-flip_reward": 0.621,
        "objective/constraints_satisfied": 0.55,
        "objective/general-flip_invalid_frac": 0.0,
        "val/sequence_lengths": 38.2,
        "time/total": 1.74,
        "time/generation": 0.9,
        "time/judging": 0.5,
        "time/training": 0.8,
        "time/weight_sync": 0.03,
        "eval/general-flip_reward": 0.64,
        "eval/constraints_satisfied": 0.58,
        "policy/unknown": None,
    }
    assert progress_line(12, 80, metrics) == (
        "step 12/80  reward 0.62  general-flip 0.62  constraints 0.55  invalid 0%  len 38  "
        "1.74 s (gen 0.9 judge 0.5 train 0.8 sync 0.03)  eval: flip 0.64 constraints 0.58"
    )
    assert progress_line(3, 200, {"objective/scores": None, "time/total": 128.4}) == "step   3/200  128 s"
    assert progress_line(3, None, {"objective/scores": float("nan")}) == "step 3"
    worst = {"objective/a_invalid_frac": 0.1, "objective/b_invalid_frac": 0.4, "eval/a_invalid_frac": 1.0}
    assert progress_line(1, 2, worst) == "step 1/2  invalid 40%"


def test_progress_tells_the_time_left_from_the_last_steps():
    clock = iter([0.0, 7.0, 10.0, *range(12, 150, 2)])
    progress = Progress(100, now=lambda: next(clock))
    assert progress.line(0, {}) == "step   0/100"  # an evaluation
    assert progress.line(1, {}) == "step   1/100  99 left, 5.0 min"  # 3 s since step 0
    assert progress.line(2, {}) == "step   2/100  98 left, 4.1 min"
    for step in range(3, 30):
        line = progress.line(step, {})
    assert line == "step  29/100  71 left, 2.4 min"  # 2 s each; the slow start is forgotten
    assert progress.line(100, {}) == "step 100/100"


def test_progress_of_a_continued_run_starts_with_its_first_step():
    clock = iter([100.0, 104.0, 106.0])
    progress = Progress(1000, now=lambda: next(clock))
    assert progress.line(501, {}).endswith("499 left, 33 min")
    assert progress.line(502, {}).endswith("498 left, 17 min")


def test_setup_logging_adds_one_handler_and_silences_others():
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        setup_logging()
        setup_logging()
        assert len(root.handlers) <= len(before) + 1
        assert logging.getLogger("open_instruct.report").isEnabledFor(logging.INFO)
        assert not logging.getLogger("some.library").isEnabledFor(logging.INFO)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
