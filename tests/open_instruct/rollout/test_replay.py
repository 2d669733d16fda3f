"""Recorded rollouts come back as the groups that they were, and what does not fit the run is refused."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from open_instruct.config.args import Args, FlagError
from open_instruct.config.rules import check
from open_instruct.data.rollout_log import RolloutWriter
from open_instruct.data.types import Group, Sample, ScoredSample
from open_instruct.engines.pool import EngineSet
from open_instruct.rollout.group_filter import training_samples
from open_instruct.rollout.prep_actor import DataPreparationActor
from open_instruct.rollout.replay import ReplayError, RolloutReplay
from open_instruct.verifiers.base import VerificationResult

ROWS = [
    {
        "index": i,
        "messages": [{"role": "user", "content": f"Question {i}"}],
        "input_ids_prompt": [10 + i, 3],
        "ground_truth": f"Question {i}",
        "dataset": ["general-flip"],
        "prompt": f"user: Question {i}",
    }
    for i in range(3)
]
ARGS = Args(num_unique_prompts_rollout=2, num_samples_per_prompt_rollout=2, save_token_ids=True, total_episodes=12)


def group_of(row, step):
    samples = []
    for i, score in enumerate((None, 0.1 + 0.2 * step)):
        sample = Sample([5 + i, 7, 1], [-0.1, -1 / 3, -1e-7 * step], "stop" if i else "length", step - 1)
        result = VerificationResult(
            score, status="ok" if i else "unparsed", details={"echo": 0.25, "error": "ä \ud800"}
        )
        samples.append(
            ScoredSample(
                sample,
                f"Response\n{i}",
                reward=None if score is None else 10 * score,
                score=score,
                status=result.status,
                per_verifier={"general-flip": result},
                reported={"constraints_satisfied": None if i else 1.0},
                judge_seconds=0.5,
                format_reward=0.0 if i else None,
                overlong=-0.5,
            )
        )
    return Group(row, samples, 1.0, 2.0)


def groups_of(step):
    """Two groups of one step; in step 3 both are of the same prompt, as in a small data set."""
    return [group_of(ROWS[0], step), group_of(ROWS[0 if step == 3 else 2], step)]


@pytest.fixture
def recorded(tmp_path):
    """The flags of a run that replays three recorded steps."""
    writer = RolloutWriter(tmp_path / "rollouts", token_ids=True)
    for step in (1, 2, 3):
        writer.write(groups_of(step), training_step=step, split="train")
    return replace(ARGS, replay_rollouts=str(tmp_path / "rollouts"), output_dir=str(tmp_path / "out"))


def edit(args, change):
    """Rewrite the recorded lines."""
    path = RolloutReplay(args, ROWS).path
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in change(records)))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_groups_come_back_exactly(recorded, step):
    replayed = RolloutReplay(recorded, ROWS).groups(step)
    for group, original in zip(replayed, groups_of(step), strict=True):
        assert group.row == original.row
        for one, other in zip(group.samples, original.samples, strict=True):
            assert one.per_verifier["general-flip"].details["error"] is not None
            for result in (one, other):
                result.per_verifier["general-flip"].details["error"] = None
            assert one == other


async def test_replayed_batches_are_those_of_the_recorded_run(recorded):
    """What the learners get is made of the recorded samples, bit for bit, without an engine or a judge."""
    engines = EngineSet(actors=[], maker=None)  # ty: ignore[invalid-argument-type]
    data_side = DataPreparationActor(recorded, engines, ROWS, [], SimpleNamespace(verifiers=list), 0)  # ty: ignore[invalid-argument-type]
    for version in range(3):
        await data_side.weights_synced(version)
        data = await data_side.get_step(version)
        training, counts = training_samples(groups_of(version + 1), recorded)
        packed = data_side._pack(training, version)
        for one, other in zip(data.batches[0], packed[0], strict=True):
            for name in vars(one):
                assert (getattr(one, name) == getattr(other, name)).all(), name
        assert data.metrics["objective/samples_trained_on"] == counts["objective/samples_trained_on"]
        assert (await data_side.state())["training_step"] == version + 1


async def test_what_is_replayed_can_be_recorded_again(recorded):
    again = replace(recorded, output_dir=str(recorded.output_dir))
    engines = EngineSet(actors=[], maker=None)  # ty: ignore[invalid-argument-type]
    data_side = DataPreparationActor(again, engines, ROWS, [], SimpleNamespace(verifiers=list), 0)  # ty: ignore[invalid-argument-type]
    await data_side.weights_synced(0)
    await data_side.get_step(0)
    copy = replace(again, replay_rollouts=f"{again.output_dir}/rollouts")
    assert [g.samples for g in RolloutReplay(copy, ROWS).groups(1)] == [
        g.samples for g in RolloutReplay(again, ROWS).groups(1)
    ]


def test_missing_steps_are_named_before_anything_is_loaded(recorded):
    replay = RolloutReplay(recorded, ROWS)
    replay.check_steps(2, 3)
    with pytest.raises(FlagError, match=r"train\.jsonl holds steps 1 to 3, but not step 4\. Lower --total_episodes"):
        replay.check_steps(1, 5)
    with pytest.raises(ReplayError, match="no step 9"):
        replay.groups(9)


def test_a_folder_without_rollouts(tmp_path):
    with pytest.raises(FlagError, match=r"--replay_rollouts .*no train\.jsonl"):
        RolloutReplay(replace(ARGS, replay_rollouts=str(tmp_path)), ROWS)


def test_rollouts_without_token_ids(recorded):
    edit(recorded, lambda records: [{k: v for k, v in r.items() if k != "token_ids"} for r in records])
    with pytest.raises(ReplayError, match="--save_token_ids"):
        RolloutReplay(recorded, ROWS).groups(1)


def test_other_prompts(recorded):
    other = [ROWS[0] | {"messages": [{"role": "user", "content": "Another"}]}, *ROWS[1:]]
    with pytest.raises(ReplayError, match=r"step 1: prompt 0 .*--dataset_mixer_list"):
        RolloutReplay(recorded, other).groups(1)
    with pytest.raises(ReplayError, match="prompt 2"):
        RolloutReplay(recorded, ROWS[:2]).groups(1)
    with pytest.raises(ReplayError, match="tokenizer"):
        RolloutReplay(recorded, [row | {"input_ids_prompt": [1]} for row in ROWS]).groups(1)


def test_another_size_of_group(recorded):
    with pytest.raises(ReplayError, match="2 samples of a prompt, where --num_samples_per_prompt_rollout is 4"):
        RolloutReplay(replace(recorded, num_samples_per_prompt_rollout=4), ROWS).groups(1)


def test_a_recording_that_was_killed_in_a_step(recorded):
    edit(recorded, lambda records: records[:-2])
    with pytest.raises(ReplayError, match=r"step 3: 1 prompts.*killed while it recorded"):
        RolloutReplay(recorded, ROWS).groups(3)
    path = RolloutReplay(recorded, ROWS).path
    path.write_bytes(path.read_bytes()[:-30])
    RolloutReplay(recorded, ROWS).groups(2)


def test_a_file_that_holds_something_else(recorded):
    edit(recorded, lambda records: [*records, {"id": 1}])
    with pytest.raises(ReplayError, match="line 13: not a rollout"):
        RolloutReplay(recorded, ROWS)


def test_the_run_does_not_replay_its_own_rollouts(recorded):
    args = replace(
        recorded,
        model_name_or_path="m",
        dataset_mixer_list=["d", "1.0"],
        replay_rollouts=f"{recorded.output_dir}/rollouts",
    )
    with pytest.raises(FlagError, match="is where this run writes its own rollouts"):
        check(args)


def test_engines_are_needed_for_evaluations_alone(recorded):
    assert not recorded.generates
    assert replace(recorded, dataset_mixer_eval_list=["d", "1.0"]).generates
    assert replace(recorded, replay_rollouts=None).generates
