"""Trackers: the real packages on local folders, read back; one that fails is switched off."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flip_plugin.files.jsonl import read_jsonl
from open_instruct.config.args import Args, FlagError
from open_instruct.run.logger import MetricsLogger
from open_instruct.trackers import GuardedTrackers, TrackedRun, check_trackers, open_trackers, tracked_run

# Logs steps 1 to 4; or goes on after step 2. Any address but this machine's own is told.
SCRIPT = """
import socket, sys

def connect(self, address, real=socket.socket.connect):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print("CONNECTS TO", address)
    return real(self, address)

socket.socket.connect = connect
from open_instruct.config.args import Args
from open_instruct.logger_utils import MetricsLogger

flag, folder, resume = sys.argv[1], sys.argv[2], int(sys.argv[3]) if sys.argv[3:] else None
args = Args(output_dir=folder, run_name="mine", wandb_group_name="g", seed=7, **{flag: True})
with MetricsLogger.for_run(args, resume) as logger:
    for step in range((resume or 0) + 1, 5):
        logger.log(step, {"objective/scores": step / 4 + (resume or 0), "bad": float("nan"), "note": "x"})
"""


def track(flag: str, folder: Path, resume: int | None = None) -> None:
    """Log in a process of its own: trackio reads its folder when imported, wandb has threads."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "TRACKIO"))}
    environment |= {
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "HF_TOKEN": "hf_somebody",  # a logged-in user: nobody may be asked who that is
        "TRACKIO_SPACE_ID": "some/space",
    }
    command = [sys.executable, "-c", SCRIPT, flag, str(folder), *([] if resume is None else [str(resume)])]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "CONNECTS TO" not in done.stdout, done.stdout
    assert "hf_somebody" not in done.stdout + done.stderr


def wandb_records(path: Path) -> list:
    """The records of an offline W&B run: a 7-byte header, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    data, at, part, records = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()  # ty: ignore[missing-attribute]
            record.ParseFromString(part)
            records.append(record)
            part = b""
    return records


@pytest.mark.slow
def test_wandb_offline_holds_values_config_and_one_run_id(tmp_path):
    track("with_tracking", tmp_path)
    track("with_tracking", tmp_path, resume=2)
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    first, second = (wandb_records(path) for path in files)
    assert history(first) == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert history(second) == [(3, 2.75), (4, 3.0)]
    runs = [next(r.run for r in records if r.WhichOneof("record_type") == "run") for records in (first, second)]
    assert {run.run_id for run in runs} == {(tmp_path / "wandb_run_id").read_text()}
    assert (runs[0].project, runs[0].run_group, runs[0].display_name) == ("open_instruct", "g", "mine")
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["seed"] == 7 and config["loss_fn"] == "dapo"


def history(records: list) -> list[tuple[int, float]]:
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            assert "bad" not in row and "note" not in row
            rows.append((row["training_step"], row["objective/scores"]))
    return rows


@pytest.mark.slow
def test_trackio_stays_in_the_run_folder_and_resumes_its_run(tmp_path):
    track("trackio", tmp_path)
    track("trackio", tmp_path, resume=2)
    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT run_name, run_id, step, metrics FROM metrics ORDER BY id").fetchall()
        ((config,),) = connection.execute("SELECT config FROM configs").fetchall()
    assert [(row[0], row[2], json.loads(row[3])["objective/scores"]) for row in rows] == [
        ("mine", 1, 0.25),
        ("mine", 2, 0.5),
        ("mine", 3, 2.75),
        ("mine", 4, 3.0),
    ]
    assert len({row[1] for row in rows}) == 1 and all("bad" not in json.loads(row[3]) for row in rows)
    assert json.loads(config)["seed"] == 7


def test_tensorboard_holds_the_curve_and_the_flags(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    args = Args(output_dir=str(tmp_path), tensorboard=True)
    for resume, steps in ((None, (1, 2, 3)), (1, (2,))):
        with MetricsLogger.for_run(args, resume) as metrics:
            for step in steps:
                metrics.log(step, {"objective/scores": step / 4 + (resume or 0), "bad": float("inf")})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("objective/scores")] == [(1, 0.25), (2, 1.5)]
    assert "bad" not in events.Tags()["scalars"]
    (text,) = events.Tensors("config/text_summary")
    assert b'"loss_fn": "dapo"' in text.tensor_proto.string_val[0]


class Broken:
    """A tracker whose server is gone from step 2 on."""

    name = "broken"

    def __init__(self) -> None:
        self.logged: list[int] = []

    def log(self, step, numbers):
        if step > 1:
            raise OSError("no route to host")
        self.logged.append(step)

    def close(self, failed):
        raise AssertionError("closed although switched off")


class Kept(Broken):
    name = "kept"

    def log(self, step, numbers):
        self.logged.append(step)

    def close(self, failed):
        self.failed = failed


def test_a_failing_tracker_is_switched_off_alone(tmp_path, caplog):
    broken, kept = Broken(), Kept()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(KeyError),
        MetricsLogger(tmp_path, trackers=[broken, kept]) as metrics,
    ):
        for step in (1, 2, 3):
            metrics.log(step, {"loss": 0.5})
        raise KeyError("the run's own")
    assert broken.logged == [1] and kept.logged == [1, 2, 3] and kept.failed
    assert [row["training_step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == "broken is switched off from step 2 on (OSError: no route to host); metrics.jsonl goes on"


def test_a_tracker_that_cannot_close_is_told_of(caplog):
    trackers = GuardedTrackers([Broken()])
    with caplog.at_level(logging.WARNING):
        trackers.close()
    assert "broken did not close" in caplog.text and trackers.names == []


@pytest.mark.parametrize(
    ("flag", "package"), [("with_tracking", "wandb"), ("trackio", "trackio"), ("tensorboard", "tensorboard")]
)
def test_a_missing_package_is_told_before_any_record_is_touched(tmp_path, monkeypatch, flag, package):
    with MetricsLogger(tmp_path) as metrics:
        metrics.log(1, {})
    flags: dict[str, Any] = {flag: True}
    args = Args(output_dir=str(tmp_path), **flags)
    monkeypatch.setitem(sys.modules, package, None)
    for fails in (check_trackers, lambda args: MetricsLogger.for_run(args)):
        with pytest.raises(FlagError, match=f"--{flag} needs the package {package}: pip install {package}"):
            fails(args)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert [row["training_step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1]


def test_wandb_without_an_account_says_what_to_do(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    args = Args(output_dir=str(tmp_path), with_tracking=True)
    with pytest.raises(FlagError, match="WANDB_MODE=offline"):
        open_trackers(args, tracked_run(args, None))


def test_the_tracked_configuration_holds_no_login(tmp_path):
    args = Args(output_dir=str(tmp_path), exp_name="e", seed=3, llm_judge_model="http://me:pw@127.0.0.1/v1")
    run = tracked_run(args, 5)
    assert isinstance(run, TrackedRun)
    assert (run.name, run.tags, run.resume_step) == ("e__3", ("e",), 5)
    assert "pw" not in json.dumps(run.config) and run.config["llm_judge_model"].endswith("@127.0.0.1/v1")
