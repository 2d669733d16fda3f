"""Records and metrics on disk, and the line a step: what a killed or resumed run may meet."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from flip_plugin.files.atomic import write_json, write_text
from flip_plugin.files.jsonable import to_jsonable
from flip_plugin.files.jsonl import JsonlWriter, drop_steps_after, read_jsonl
from open_instruct.run.logger import MetricsLogger, setup_logging
from open_instruct.run.progress import Progress, progress_line


@dataclass
class Point:
    x: int
    where: Path


def test_to_jsonable_handles_what_a_trainer_logs():
    value = {
        "nan": float("nan"),
        "np": np.float32("inf"),
        "np64": np.float64(0.5),
        "int": np.int64(3),
        "flag": np.bool_(True),
        "bf16": torch.tensor(0.5, dtype=torch.bfloat16),
        "tensor": torch.tensor([1.0, float("nan")]),
        4: Point(1, Path("a") / "b"),
    }
    assert to_jsonable(value) == {
        "nan": None,
        "np": None,
        "np64": 0.5,
        "int": 3,
        "flag": True,
        "bf16": 0.5,
        "tensor": [1.0, None],
        "4": {"x": 1, "where": "a/b"},
    }
    with pytest.raises(TypeError, match="object as JSON"):
        to_jsonable({"x": object()})


def test_writer_is_readable_at_once_and_keeps_any_text(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    text = "line\nbreak \u2028 \x00 \ud800 é {}"
    writer = JsonlWriter(path)
    writer.write({"text": text, "loss": float("-inf")})
    assert list(read_jsonl(path)) == [{"text": text, "loss": None}]  # before close
    writer.close()
    assert path.read_bytes().isascii() and path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        (b'{"a": 1}\n{"a": 2, "te', [1]),  # cut: gone
        (b'{"a": 1}\n{"a": 2}', [1, 2]),  # whole, but for its newline: kept
        (b'{"a": 1, "text": "' + b"x" * 200_000, []),  # longer than one block, and nothing before
        (b"", []),
    ],
)
def test_writer_does_not_glue_to_a_cut_line(tmp_path, tail, kept):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(tail)
    with JsonlWriter(path) as writer:
        writer.write({"a": 9})
    assert [row["a"] for row in read_jsonl(path)] == [*kept, 9]


def test_reader_passes_over_a_cut_end_but_not_over_damage(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": "\xc3')
    assert list(read_jsonl(path)) == [{"a": 1}]

    path.write_bytes(b'{"a": 1}\n{"a": \n[3]\n{"a": 4}\n')
    with pytest.raises(ValueError, match="line 2"):
        list(read_jsonl(path))
    bad_lines: list[int] = []
    assert list(read_jsonl(path, bad_lines=bad_lines)) == [{"a": 1}, {"a": 4}]
    assert bad_lines == [2, 3]


def test_atomic_write_leaves_the_old_file_and_no_litter_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_text(path, "old \ud800")
    assert path.read_text() == "old \\ud800"

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old \\ud800"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_write_json_is_strict_json(tmp_path):
    write_json(tmp_path / "config.json", {"lr": np.float32(0.5), "nan": float("nan")})
    assert json.loads((tmp_path / "config.json").read_text()) == {"lr": 0.5, "nan": None}


def test_drop_steps_after(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert drop_steps_after(path, 3) == 0 and not path.exists()
    path.write_text('{"training_step": 3}\n{"training_step": 4}\n{"other": 1}\n{"training_step": 5}\n{"tr')
    assert drop_steps_after(path, 3) == 2
    assert path.read_text() == '{"training_step": 3}\n{"other": 1}\n'


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
