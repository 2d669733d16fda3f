"""When a run is continued, when it is not, and that nothing of an earlier run is lost."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from test_checkpoints import lose, write_state

from open_instruct.config.args import Args, FlagError
from open_instruct.state.checkpoints import begin_state, commit_state, keep_newest, mark_newest
from open_instruct.state.run_folder import (
    changed_flags,
    open_run_folder,
    resumable_state,
    rows_fingerprint,
    run_id_of,
    set_aside_earlier_run,
)

ROWS = [
    {"input_ids_prompt": [1, 2], "ground_truth": "a", "dataset": ["general-flip"]},
    {"input_ids_prompt": [3], "ground_truth": "b", "dataset": ["general-flip"]},
]


def start(args, rows=ROWS):
    """What a run does with its folder at its start; the lock is let go, as by a run that ends."""
    folder = open_run_folder(args, {}, rows, [])
    folder.lock.release()
    return folder


def save(args, step, data=None, **facts):
    """A state, as the training loop writes it."""
    states = Path(args.checkpoint_state_dir or f"{args.output_dir}/state")
    folder = {"run_id": run_id_of(args.output_dir), "rows_sha256": rows_fingerprint(ROWS), "flags": vars(args)}
    state = commit_state(begin_state(states, step), step, [{}], folder | {"data": data} | facts)
    mark_newest(states, step, finished=False)
    return state


def lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def unfinished(tmp_path) -> Args:
    """The folder of a run of 10 steps that was stopped after its state of step 4."""
    args = Args(output_dir=str(tmp_path / "out"), total_episodes=Args().samples_per_step * 10)
    start(args)
    save(args, 2)
    save(args, 4)
    return args


def test_an_unfinished_run_is_continued(unfinished):
    assert start(unfinished).resume_step == 4
    assert not (Path(unfinished.output_dir) / "previous").exists()


def test_a_longer_run_continues_a_finished_one(unfinished):
    unfinished.total_episodes = unfinished.samples_per_step * 4
    mark_newest(Path(unfinished.output_dir) / "state", 4, finished=True)
    assert start(replace(unfinished, total_episodes=unfinished.samples_per_step * 20)).resume_step == 4
    mark_newest(Path(unfinished.output_dir) / "state", 4, finished=True)
    assert start(unfinished).resume_step is None, "all four steps are done"
    assert (Path(unfinished.output_dir) / "previous" / "1" / "state" / "step_4").is_dir()


def test_a_run_killed_before_its_checkpoint_is_continued(unfinished):
    unfinished.total_episodes = unfinished.samples_per_step * 4
    assert start(unfinished).resume_step == 4


def test_other_flags_are_another_run(unfinished, caplog):
    unfinished.learning_rate = 0.5
    with caplog.at_level(logging.WARNING):
        assert start(unfinished).state is None
    assert "--learning_rate was 1e-06, is 0.5" in caplog.text
    assert (Path(unfinished.output_dir) / "previous" / "1" / "state" / "step_4").is_dir()


def test_other_rows_are_another_run(unfinished, caplog):
    with caplog.at_level(logging.WARNING):
        assert start(unfinished, ROWS[:1]).state is None
    assert "rows of --dataset_mixer_list are others" in caplog.text


def test_flags_that_touch_nothing_learnt_may_change(unfinished):
    unfinished.save_freq, unfinished.vllm_num_engines = 7, 3
    assert start(unfinished).resume_step == 4


def test_a_flag_newer_than_the_state_had_its_default():
    args = Args(learning_rate=0.5)
    assert changed_flags({}, args) == {"learning_rate": (1e-6, 0.5)}


def test_a_damaged_last_state_falls_back(unfinished, caplog):
    write_state(Path(unfinished.output_dir) / "state", 6)
    lose(Path(unfinished.output_dir) / "state" / "step_6")
    with caplog.at_level(logging.WARNING):
        assert start(unfinished).resume_step == 4
    assert "the state of step 6 is damaged" in caplog.text


def test_no_whole_state_starts_again_and_keeps_the_rest(unfinished):
    for folder in (Path(unfinished.output_dir) / "state").glob("step_*"):
        (folder / "manifest.json").unlink()
    assert start(unfinished).state is None
    assert (Path(unfinished.output_dir) / "previous" / "1" / "state" / "damaged" / "step_4").is_dir()


def test_no_state_no_continuation(tmp_path):
    assert resumable_state(Args(output_dir=str(tmp_path)), "") is None


def test_records_after_the_state_are_cut(unfinished):
    """Rollouts by their step; judge calls of training by the draw, as a step may be unknown when it is judged."""
    save(unfinished, 4, data={"training_step": 4, "prompts": {"position": 64, "drawn": 64, "excluded": {}}})
    out = Path(unfinished.output_dir)
    lines(out / "rollouts" / "train.jsonl", [{"training_step": step} for step in (3, 4, 4, 5)])
    lines(out / "rollouts" / "eval.jsonl", [{"training_step": step} for step in (4, 5)])
    calls = [
        {"split": "train", "draw": 63, "training_step": 4},
        {"split": "train", "draw": 64, "training_step": None},  # was in flight
        {"split": "eval", "draw": None, "training_step": 4},
        {"split": "eval", "draw": None, "training_step": 5},
        {"split": None, "draw": None, "training_step": None},
    ]
    lines(out / "judge_calls" / "000-1.jsonl", calls)
    lines(out / "judge_calls" / "000-2.jsonl", calls[1:2])
    start(unfinished)
    assert [r["training_step"] for r in read(out / "rollouts" / "train.jsonl")] == [3, 4, 4]
    assert [r["training_step"] for r in read(out / "rollouts" / "eval.jsonl")] == [4]
    assert read(out / "judge_calls" / "000-1.jsonl") == [calls[0], calls[2], calls[4]]
    assert not (out / "judge_calls" / "000-2.jsonl").exists(), "nothing was left of it"


def test_checkpoints_after_the_state_make_room(unfinished):
    folder = Path(unfinished.output_dir) / "checkpoints"
    for step in (3, 4, 5, 6):
        (folder / f"step_{step}").mkdir(parents=True)
    start(unfinished)
    (folder / "step_5").mkdir()  # as the run goes on and writes its own
    keep_newest(folder, 2)
    assert sorted(path.name for path in folder.iterdir()) == ["step_4", "step_5"]


def test_an_earlier_run_is_moved_whole(unfinished):
    folder = Path(unfinished.output_dir)
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "data").mkdir()  # not a run's own
    (folder / "judge_calls").mkdir()  # empty: of the run that is about to begin
    assert set_aside_earlier_run(unfinished) == [folder / "previous" / "1"]
    assert (folder / "previous" / "1" / "metrics.jsonl").exists()
    assert (folder / "previous" / "1" / "state" / "step_4").is_dir()
    assert (folder / "data").exists() and not (folder / "state").exists()
    assert (folder / "judge_calls").exists()
    assert set_aside_earlier_run(unfinished) == []
    (folder / "judge_calls").mkdir(exist_ok=True)  # what a verifier makes before the run has begun
    assert set_aside_earlier_run(unfinished) == []


def test_states_and_rollouts_elsewhere_are_moved_there(tmp_path):
    args = Args(
        output_dir=str(tmp_path / "out"),
        checkpoint_state_dir=str(tmp_path / "states"),
        rollouts_save_path=str(tmp_path / "rollouts"),
    )
    start(args)
    save(args, 3)
    lines(tmp_path / "rollouts" / "train.jsonl", [{"training_step": 1}])
    (tmp_path / "states" / "notes.txt").touch()
    assert start(replace(args, seed=7)).state is None
    assert (tmp_path / "states" / "previous" / "1" / "step_3").is_dir()
    assert (tmp_path / "rollouts" / "previous" / "1" / "train.jsonl").exists()
    assert (tmp_path / "out" / "previous" / "1" / "config.json").exists()
    assert (tmp_path / "states" / "notes.txt").exists()


def test_states_alone_are_enough_to_continue(tmp_path):
    args = Args(output_dir=str(tmp_path / "out"), checkpoint_state_dir=str(tmp_path / "states"))
    run_id = start(args).facts["run_id"]
    save(args, 3)
    elsewhere = replace(args, output_dir=str(tmp_path / "new"))
    assert start(elsewhere).resume_step == 3
    assert run_id_of(elsewhere.output_dir) == run_id


def test_a_state_does_not_continue_anothers_records(tmp_path):
    states = str(tmp_path / "states")
    one = Args(output_dir=str(tmp_path / "one"), checkpoint_state_dir=states)
    start(one)
    save(one, 3)
    other = Args(output_dir=str(tmp_path / "other"))
    start(other)
    lines(tmp_path / "other" / "metrics.jsonl", [{"training_step": 1}])
    assert start(replace(one, output_dir=other.output_dir)).resume_step == 3
    assert read(tmp_path / "other" / "previous" / "1" / "metrics.jsonl") == [{"training_step": 1}]
    assert not (tmp_path / "other" / "metrics.jsonl").exists()


def test_the_configuration_keeps_the_history(unfinished):
    path = Path(unfinished.output_dir) / "config.json"
    before = json.loads(path.read_text())
    start(replace(unfinished, save_freq=7))
    save(unfinished, 6)
    start(replace(unfinished, save_freq=7))
    config = json.loads(path.read_text())
    assert config["run_id"] == before["run_id"] and config["started"] == before["started"]
    assert [entry["after_step"] for entry in config["resumed"]] == [4, 6]
    assert config["resumed"][0]["changed_flags"] == {"save_freq": [200, 7]}
    assert config["resumed"][1]["changed_flags"] == {} and config["flags"]["save_freq"] == 7
    assert config["resumed"][0]["changed_versions"] == {}


def test_two_runs_in_one_folder_are_refused(unfinished):
    under_way = open_run_folder(unfinished, {}, ROWS, [])
    with pytest.raises(FlagError, match=r"--output_dir .*another run is under way there \(process \d+ on .*: "):
        open_run_folder(unfinished, {}, ROWS, [])
    under_way.lock.release()
    start(unfinished)


def test_two_runs_with_one_folder_of_states_are_refused(tmp_path):
    args = Args(output_dir=str(tmp_path / "one"), checkpoint_state_dir=str(tmp_path / "states"))
    under_way = open_run_folder(args, {}, ROWS, [])
    with pytest.raises(FlagError, match=r"--checkpoint_state_dir .*another run is under way"):
        open_run_folder(replace(args, output_dir=str(tmp_path / "two")), {}, ROWS, [])
    under_way.lock.release()
    start(args)


def test_two_runs_with_one_folder_of_rollouts_are_refused(tmp_path):
    args = Args(output_dir=str(tmp_path / "one"), rollouts_save_path=str(tmp_path / "rollouts"))
    under_way = open_run_folder(args, {}, ROWS, [])
    with pytest.raises(FlagError, match=r"--rollouts_save_path .*another run is under way"):
        open_run_folder(replace(args, output_dir=str(tmp_path / "two")), {}, ROWS, [])
    under_way.lock.release()
    start(args)


def test_one_folder_for_everything_does_not_lock_itself_out(tmp_path):
    start(Args(output_dir=str(tmp_path), checkpoint_state_dir=str(tmp_path), rollouts_save_path=str(tmp_path / ".")))


def test_states_of_a_newer_version_are_refused_and_left_alone(unfinished):
    newest = Path(unfinished.output_dir) / "state" / "step_4"
    manifest = json.loads((newest / "manifest.json").read_text())
    (newest / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(FlagError, match=r"step_4 was written by a newer version \(format 99, not 1\).*another folder"):
        start(unfinished)
    assert newest.is_dir()
