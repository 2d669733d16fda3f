"""When a run is continued, when it is not, and that nothing of an earlier run is lost."""

import json
import logging
from pathlib import Path

import pytest

from open_instruct.config import Args
from open_instruct.run_folder import STEP_FILE, keep_newest, resumable_step, set_aside_earlier_run, write_config


@pytest.fixture
def unfinished(tmp_path) -> Args:
    """The folder of a run of 10 steps that was stopped after its state of step 4."""
    args = Args(output_dir=str(tmp_path), total_episodes=Args().samples_per_step * 10)
    write_config(args, {}, {})
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / STEP_FILE).write_text(json.dumps({"training_step": 4}))
    return args


def test_an_unfinished_run_is_continued(unfinished):
    assert resumable_step(unfinished) == 4


def test_a_longer_run_continues_a_finished_one(unfinished):
    unfinished.total_episodes = unfinished.samples_per_step * 4
    assert resumable_step(unfinished) is None, "all four steps are done"
    unfinished.total_episodes = unfinished.samples_per_step * 20
    assert resumable_step(unfinished) == 4


def test_other_flags_are_another_run(unfinished, caplog):
    unfinished.learning_rate = 0.5
    with caplog.at_level(logging.WARNING):
        assert resumable_step(unfinished) is None
    assert "--learning_rate was 1e-06, is 0.5" in caplog.text


def test_no_state_no_continuation(tmp_path):
    assert resumable_step(Args(output_dir=str(tmp_path))) is None


def test_an_earlier_run_is_moved_whole(unfinished):
    folder = Path(unfinished.output_dir)
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "data").mkdir()  # not a run's own
    assert set_aside_earlier_run(folder) == folder / "previous" / "1"
    assert (folder / "previous" / "1" / "metrics.jsonl").exists()
    assert (folder / "previous" / "1" / "state" / STEP_FILE).exists()
    assert (folder / "data").exists() and not (folder / "state").exists()
    assert set_aside_earlier_run(folder) is None


def test_the_newest_are_kept_by_number_not_by_name(tmp_path):
    for step in (20, 100, 40):
        (tmp_path / f"step_{step}").mkdir()
    keep_newest(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"step_40", "step_100"}
    keep_newest(tmp_path, -1)
    assert len(list(tmp_path.iterdir())) == 2
