"""The data side without engines: prompt order, who has a loss, when a step is given up, what is written."""

import json

import pytest

from open_instruct.config import Args
from open_instruct.data_loader import DataPreparationActor, PromptOrder, training_samples
from open_instruct.data_types import Group, Sample, ScoredSample
from open_instruct.ground_truth_utils import VerificationResult
from open_instruct.learner import mean_over_tokens
from open_instruct.rewards import JudgeFailure, check_invalid_share
from open_instruct.rollout_metrics import group_metrics
from open_instruct.rollouts import RolloutWriter


def scored(reward, *, finish_reason="stop", status="ok", error=None, tokens=(5, 6)):
    score = None if reward is None else reward / 10
    result = VerificationResult(score, status=status, details={"error": error, "echo": 0.0})
    sample = Sample(list(tokens), [-1.0] * len(tokens), finish_reason, 0)
    return ScoredSample(sample, "text", reward, score, status, {"general-flip": result}, {"checker": 0.5})


def group(*samples):
    row = {
        "input_ids_prompt": [1, 2, 3], "messages": [{"role": "user", "content": "x"}], "prompt": "user: x",
        "ground_truth": "x", "dataset": ["general-flip"], "index": 7,
    }  # fmt: skip
    return Group(row, list(samples), 0.1, 0.1)


def test_each_epoch_holds_every_row_once_and_depends_on_the_seed_alone():
    order = PromptOrder(10, seed=3)
    first = [order[i] for i in range(10)]
    second = [order[i] for i in range(10, 20)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert [PromptOrder(10, seed=3)[i] for i in range(20)] == first + second
    assert [PromptOrder(10, seed=4)[i] for i in range(10)] != first


def test_missing_rewards_have_no_loss_and_move_nobody():
    args = Args(advantage_normalization_type="centered")
    samples, counts = training_samples([group(scored(2.0), scored(None, status="judge_error"), scored(4.0))], args)
    assert [s.advantage for s in samples] == [-1.0, 1.0]
    assert counts["objective/groups_dropped"] == 0


def test_groups_that_teach_nothing_are_left_out_and_counted():
    groups = [
        group(scored(2.0), scored(None)),  # one reward is no group
        group(scored(3.0), scored(3.0)),
        group(scored(1.0), scored(3.0)),
    ]
    samples, counts = training_samples(groups, Args())
    assert len(samples) == 2
    assert counts["objective/groups_dropped"] == 1
    assert counts["objective/groups_zero_std"] == 1
    assert len(training_samples(groups, Args(filter_zero_std_samples=False))[0]) == 4


def test_masking_a_truncated_response_does_not_move_its_siblings():
    groups = [group(scored(1.0), scored(3.0), scored(8.0, finish_reason="length"))]
    plain, _ = training_samples(groups, Args())
    masked, _ = training_samples(groups, Args(mask_truncated_completions=True))
    assert [s.advantage for s in masked] == [s.advantage for s in plain[:2]]


def test_a_step_with_too_many_missing_rewards_is_given_up_in_the_judges_words():
    groups = [group(scored(1.0), scored(None, status="judge_error", error="connection refused"), scored(None))]
    check_invalid_share(groups, 0.7, "step 1")
    with pytest.raises(JudgeFailure, match="2 of 3 rewards of step 1") as failure:
        check_invalid_share(groups, 0.5, "step 1")
    assert "1 x connection refused" in str(failure.value)


def test_what_the_policy_wrote_is_no_judge_failure():
    groups = [group(scored(1.0), scored(None, status="truncated"), scored(None, status="empty_response"))]
    check_invalid_share(groups, 0.1, "step 1")


def test_learners_metrics_are_means_over_all_their_tokens():
    plain = {"lr": 0.1, "optim/grad_norm": 1.0, "time/training": 2.0}
    results = [{"val/ratio": 30.0, "tokens": 30.0, **plain}, {"val/ratio": 0.0, "tokens": 0.0, **plain}]
    assert mean_over_tokens(results)["val/ratio"] == 1.0, "a learner with padding alone has no say"
    assert mean_over_tokens([{"val/ratio": 0.0, "tokens": 0.0, **plain}])["val/ratio"] is None
    assert mean_over_tokens(results)["lr"] == 0.1


def test_metrics_leave_missing_scores_out_and_count_them():
    metrics = group_metrics([group(scored(2.0), scored(None), scored(6.0), scored(None))], prefix="objective")
    assert metrics["objective/scores"] == 4.0
    assert metrics["objective/general-flip_reward"] == pytest.approx(0.4)
    assert metrics["objective/general-flip_invalid_frac"] == 0.5
    assert metrics["objective/checker"] == 0.5
    nothing = group_metrics([group(scored(None))], prefix="eval")
    assert nothing["eval/general-flip_reward"] is None, "no score is not a score of zero"


def test_rollouts_are_written_with_what_the_judge_said(tmp_path):
    writer = RolloutWriter(str(tmp_path))
    writer.write([group(scored(2.0), scored(None, status="unparsed"))], training_step=1, split="train")
    lines = [json.loads(line) for line in (tmp_path / "rollouts" / "train.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["ok", "unparsed"]
    assert lines[1]["score"] is None and lines[0]["score"] == pytest.approx(0.2)
    assert lines[0]["prompt_index"] == 7 and lines[1]["sample_index"] == 1


def test_a_continued_run_drops_the_rollouts_of_steps_that_will_happen_again(tmp_path):
    writer = RolloutWriter(str(tmp_path))
    for step in (1, 2, 3):
        writer.write([group(scored(2.0))], training_step=step, split="train")
    RolloutWriter(str(tmp_path), resume_step=2)
    lines = (tmp_path / "rollouts" / "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["training_step"] for line in lines] == [1, 2]


@pytest.mark.parametrize(("async_steps", "expected"), [(0, [0]), (1, [0, 1]), (3, [0, 1, 2, 3])])
async def test_no_step_is_started_further_ahead_than_async_steps(async_steps, expected):
    args = Args(async_steps=async_steps, num_unique_prompts_rollout=2, total_episodes=800, save_traces=False)
    actor = DataPreparationActor(args, [], [{}] * 4, [], scorer=None, pad_token_id=0)  # ty: ignore
    started = []
    actor._start_step = lambda step: started.append(step) or []
    await actor.weights_synced(0)
    assert started == expected
    await actor.weights_synced(1)
    assert started == [*expected, async_steps + 1]


async def test_no_step_beyond_the_last_is_started():
    args = Args(async_steps=5, total_episodes=Args().samples_per_step * 2, save_traces=False)
    actor = DataPreparationActor(args, [], [{}] * 4, [], scorer=None, pad_token_id=0)  # ty: ignore
    started = []
    actor._start_step = lambda step: started.append(step) or []
    await actor.weights_synced(0)
    assert started == [0, 1]
