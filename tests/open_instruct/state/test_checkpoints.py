"""States on disk: whole or absent, checked before they are used, and the one before where the last is damaged."""

import json
import logging
import multiprocessing
import os
import signal
import time
import zlib

import pytest

from flip_plugin.files.atomic import replace_folder
from open_instruct.state.checkpoints import (
    MANIFEST,
    STEP_FILE,
    StateError,
    begin_state,
    clear_leftovers,
    commit_state,
    is_finished,
    keep_newest,
    mark_newest,
    newest_whole_state,
    step_folders,
)
from open_instruct.state.rank import SummedFile


def write_state(states, step, world_size=2):
    """As the training loop and `world_size` learners do it."""
    partial = begin_state(states, step)
    (partial / "deepspeed").mkdir()
    written = []
    for rank in range(world_size):
        with SummedFile(partial / "deepspeed" / f"shard_{rank}.pt") as file:
            for _ in range(3):
                file.write(bytes([step, rank]) * 1000)
        written.append({f"deepspeed/shard_{rank}.pt": file.sums})
    return commit_state(partial, step, written, {"run_id": "one", "data": {"prompts": {"drawn": 8}}})


def test_a_summed_file_knows_what_it_wrote(tmp_path):
    with SummedFile(tmp_path / "file") as file:
        file.write(b"some ")
        file.write(memoryview(b"bytes"))
    assert (tmp_path / "file").read_bytes() == b"some bytes"
    assert file.sums == {"bytes": 10, "crc32": zlib.crc32(b"some bytes")}


def test_the_newest_state_comes_back_as_it_was_written(tmp_path):
    for step in (2, 10, 4):
        write_state(tmp_path, step)
    state = newest_whole_state(tmp_path)
    assert state is not None and state.step == 10 and state.folder == tmp_path / "step_10"
    assert state.manifest["data"] == {"prompts": {"drawn": 8}} and state.manifest["world_size"] == 2
    assert not list(tmp_path.glob(".*")), "nothing half done is left"


def test_no_state(tmp_path):
    assert newest_whole_state(tmp_path / "missing") is None


def cut(folder):
    os.truncate(folder / "deepspeed" / "shard_1.pt", 5999)


def lose(folder):
    (folder / "deepspeed" / "shard_0.pt").unlink()


def flip_a_bit(folder):
    path = folder / "deepspeed" / "shard_0.pt"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)


def lose_manifest(folder):
    (folder / MANIFEST).unlink()


def cut_manifest(folder):
    os.truncate(folder / MANIFEST, 40)


def empty_manifest(folder):
    (folder / MANIFEST).write_text("[]")


def manifest_of_another_step(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"training_step": 3}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "shard_1.pt has 5999 of 6000 bytes"),
        (lose, "shard_0.pt: No such file"),
        (flip_a_bit, "shard_0.pt has been changed"),
        (lose_manifest, "no manifest.json"),
        (cut_manifest, "manifest.json cannot be read"),
        (empty_manifest, "manifest.json cannot be read"),
        (manifest_of_another_step, "that of step 3"),
    ],
)
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path, caplog, damage, said):
    write_state(tmp_path, 4)
    write_state(tmp_path, 6)
    damage(tmp_path / "step_6")
    with caplog.at_level(logging.WARNING):
        state = newest_whole_state(tmp_path)
    assert state is not None and state.step == 4
    assert "the state of step 6 is damaged" in caplog.text and said in caplog.text
    # Kept for whoever wants to look, and out of the way of the next state of that step.
    assert (tmp_path / "damaged" / "step_6").is_dir() and not (tmp_path / "step_6").exists()


def test_all_damaged(tmp_path):
    for step in (1, 2):
        write_state(tmp_path, step)
        lose(tmp_path / f"step_{step}")
    assert newest_whole_state(tmp_path) is None
    write_state(tmp_path, 2)
    lose(tmp_path / "step_2")
    assert newest_whole_state(tmp_path) is None
    assert {path.name for path in (tmp_path / "damaged").iterdir()} == {"step_1", "step_2", "step_2-2"}


def test_a_learner_without_the_shared_folder_is_named(tmp_path):
    partial = begin_state(tmp_path, 3)
    with SummedFile(partial / "a.pt") as file:
        file.write(b"x")
    elsewhere = {"b.pt": {"bytes": 5, "crc32": 1}}
    with pytest.raises(StateError, match=r"learner 1 on 10\.0\.0\.2 wrote .*b\.pt.*--checkpoint_state_dir"):
        commit_state(partial, 3, [{"a.pt": file.sums}, elsewhere], {}, ["10.0.0.1", "10.0.0.2"], patience=0.1)
    assert step_folders(tmp_path) == {}


def test_a_state_of_the_same_step_is_replaced(tmp_path):
    write_state(tmp_path, 3, world_size=2)
    write_state(tmp_path, 3, world_size=1)
    state = newest_whole_state(tmp_path)
    assert state is not None and state.manifest["world_size"] == 1
    assert [path.name for path in (tmp_path / "step_3" / "deepspeed").iterdir()] == ["shard_0.pt"]


def test_the_newest_are_kept_by_number_not_by_name(tmp_path):
    for step in (20, 100, 40):
        (tmp_path / f"step_{step}").mkdir()
    (tmp_path / "step_notes").mkdir()  # not ours
    keep_newest(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"step_40", "step_100", "step_notes"}
    keep_newest(tmp_path, -1)
    keep_newest(tmp_path, 5)
    assert set(step_folders(tmp_path)) == {40, 100}
    keep_newest(tmp_path, 1)
    assert set(step_folders(tmp_path)) == {100}


def test_finished_is_said_of_the_newest_state_alone(tmp_path):
    assert not is_finished(tmp_path, 4)
    mark_newest(tmp_path, 4, finished=True)
    assert is_finished(tmp_path, 4) and not is_finished(tmp_path, 2)
    mark_newest(tmp_path, 4, finished=False)
    assert not is_finished(tmp_path, 4)
    (tmp_path / STEP_FILE).write_text("{")
    assert not is_finished(tmp_path, 4)


def test_leftovers_of_a_killed_run_go(tmp_path):
    write_state(tmp_path, 4)
    begin_state(tmp_path, 6)
    (tmp_path / ".checkpoint.partial-123").mkdir()
    (tmp_path / ".metrics.jsonl.12.34.tmp").write_text("half")
    (tmp_path / ".step_4.old-1f").mkdir()  # replaced already
    (tmp_path / ".hidden").write_text("somebody's")
    clear_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"step_4", ".hidden"}
    clear_leftovers(tmp_path / "missing")


def test_a_kill_between_two_renames_loses_nothing(tmp_path, monkeypatch):
    for name in ("checkpoint", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    renames = []

    def killed_at_the_second(old, new):
        if renames:
            raise KeyboardInterrupt
        renames.append(new)
        os.rename(old, new)

    monkeypatch.setattr("flip_plugin.files.atomic.os.replace", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(tmp_path / "new", tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()
    clear_leftovers(tmp_path)
    assert (tmp_path / "checkpoint" / "checkpoint").exists()


def write_for_ever(states):
    for step in range(1, 10**6):
        write_state(states, step)
        keep_newest(states, 2)


def test_kill_9_at_any_moment_leaves_whole_states(tmp_path):
    """A process that does nothing but write states is killed many times; what it leaves is always usable."""
    context = multiprocessing.get_context("fork")
    reached = 0
    for round_ in range(12):
        writer = context.Process(target=write_for_ever, args=(tmp_path,))
        writer.start()
        while not step_folders(tmp_path):
            time.sleep(0.001)
        time.sleep(0.005 + 0.0037 * round_)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        left = sorted(path.name for path in tmp_path.iterdir())
        clear_leftovers(tmp_path)
        state = newest_whole_state(tmp_path)
        assert state is not None and not (tmp_path / "damaged").exists(), left
        reached += state.step
        for folder in step_folders(tmp_path).values():
            keep_newest(tmp_path, 0)
            assert not folder.exists()
    assert reached > 12, "the writer got somewhere"
