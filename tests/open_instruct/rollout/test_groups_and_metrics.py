"""The data side without engines: prompt order, who has a loss, when a step is given up, what is written."""

import json
from itertools import combinations

import pytest

from open_instruct.config.args import Args
from open_instruct.data.prompt_stream import PromptOrder
from open_instruct.data.rollout_log import RolloutWriter
from open_instruct.data.types import Group, Sample, ScoredSample
from open_instruct.learner.actor import mean_over_tokens
from open_instruct.learner.packing import pack_mini_batches
from open_instruct.rewards.missing import JudgeFailure, check_invalid_share
from open_instruct.rollout.group_filter import training_samples
from open_instruct.rollout.step_metrics import group_metrics, pass_at_k, pass_at_k_metrics, step_metrics
from open_instruct.verifiers.base import VerificationResult


def scored(reward, *, finish_reason="stop", status="ok", error=None, tokens=(5, 6)):
    score = None if reward is None else reward / 10
    result = VerificationResult(score, status=status, details={"error": error, "echo": 0.0})
    sample = Sample(list(tokens), [-1.0] * len(tokens), finish_reason, 0)
    return ScoredSample(sample, "text", reward, score, status, {"general-flip": result}, {"checker": 0.5})


def group(*samples):
    row = {
        "input_ids_prompt": [1, 2, 3],
        "messages": [{"role": "user", "content": "x"}],
        "prompt": "user: x",
        "ground_truth": "x",
        "dataset": ["general-flip"],
        "index": 7,
    }
    return Group(row, list(samples), 0.1, 0.1)


def test_an_epoch_holds_every_row_once_by_the_seed():
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


def test_masking_a_truncated_response_moves_no_sibling():
    groups = [group(scored(1.0), scored(3.0), scored(8.0, finish_reason="length"))]
    plain, _ = training_samples(groups, Args())
    masked, _ = training_samples(groups, Args(mask_truncated_completions=True))
    assert [s.advantage for s in masked] == [s.advantage for s in plain[:2]]


def test_masking_truncated_responses_never_mixes_groups():
    """Upstream since #1660 masks before it cuts the scores into groups of G: with 8 of 16 truncated, every group of
    8 with equal rewards, it gave advantages of -3 and +5 where all should be 0; with 3 of 16 it crashed."""
    first = [scored(2.0, finish_reason="length") for _ in range(3)] + [scored(2.0) for _ in range(5)]
    second = [scored(10.0, finish_reason="length") for _ in range(5)] + [scored(10.0) for _ in range(3)]
    args = Args(mask_truncated_completions=True, filter_zero_std_samples=False)
    samples, _ = training_samples([group(*first), group(*second)], args)
    assert [s.advantage for s in samples] == [0.0] * 8
    third = [scored(float(i), finish_reason="length" if i < 3 else "stop") for i in range(8)]
    samples, _ = training_samples([group(*third), group(*second)], args)
    assert [s.advantage for s in samples] == [-0.5, 0.5, 1.5, 2.5, 3.5, 0.0, 0.0, 0.0]


def test_a_group_whose_responses_are_all_truncated_has_no_loss():
    groups = [group(scored(1.0, finish_reason="length"), scored(3.0, finish_reason="length"))]
    assert training_samples(groups, Args(mask_truncated_completions=True))[0] == []


def test_too_many_missing_rewards_stop_in_the_judges_words():
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
    writer = RolloutWriter(tmp_path / "rollouts")
    writer.write([group(scored(2.0), scored(None, status="unparsed"))], training_step=1, split="train")
    lines = [json.loads(line) for line in (tmp_path / "rollouts" / "train.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["ok", "unparsed"]
    assert lines[1]["score"] is None and lines[0]["score"] == pytest.approx(0.2)
    assert lines[0]["prompt_index"] == 7 and lines[1]["sample_index"] == 1


def test_metrics_of_a_step_by_hand():
    groups = [
        group(scored(0.0, tokens=(5,) * 4), scored(10.0, tokens=(5,) * 6)),
        group(scored(0.0), scored(0.0)),
        group(scored(10.0), scored(10.0)),
        group(scored(3.0), scored(3.0)),
        group(scored(None), scored(4.0)),
    ]
    groups[0].samples[0].sample = Sample([5] * 4, [-1.0] * 4, "length", 2)
    groups[0].generation_seconds = 4.0
    training, _ = training_samples(groups, Args())
    options = {"num_mini_batches": 2, "seed": 0, "step": 3, "pack_length": 16, "num_learners": 1, "pad_token_id": 0}
    metrics = step_metrics(groups, training, pack_mini_batches(training, **options), step=3, samples_wanted=10)
    assert metrics["val/advantages_mean"] == 0.0
    assert (metrics["val/advantages_min"], metrics["val/advantages_max"]) == (-5.0, 5.0)
    assert metrics["val/num_step_tokens"] == 5 * 3 + 10 + 4 * 4
    assert metrics["val/num_step_tokens_trained"] == 10
    assert metrics["val/actor_tokens_per_second"] == 41 / 4.0
    assert metrics["batch/total_prompts"] == 1
    assert metrics["batch/percent_solved_mean"] == 0.5
    assert metrics["batch/filtered_prompts"] == 3 and metrics["batch/filtered_prompts_pct"] == 3 / 5
    names = ("zero", "solved", "nonzero")
    assert [metrics[f"batch/filtered_prompts_{name}"] for name in names] == [1, 1, 1]
    assert metrics["real_batch_size_ratio"] == 0.2 and metrics["packed_ratio"] == 1.0
    assert (metrics["model_step_min"], metrics["model_step_max"], metrics["model_step_mean"]) == (0, 2, 0.2)
    assert metrics["num_steps_off_policy"] == pytest.approx(2.8)


def test_shortest_and_longest_response():
    metrics = group_metrics([group(scored(0.0, tokens=(5,) * 4), scored(10.0), scored(None))], prefix="objective")
    assert (metrics["val/sequence_lengths_min"], metrics["val/sequence_lengths_max"]) == (2, 4)
    assert group_metrics([group(scored(0.0))], prefix="eval")["eval/sequence_lengths_max"] == 2


def test_pass_at_k_is_the_share_of_all_subsets_with_a_pass():
    for n, correct, k in ((4, 1, 2), (5, 2, 3), (3, 3, 1), (6, 0, 4), (4, 2, 4)):
        subsets = list(combinations(range(n), k))
        passing = sum(any(i < correct for i in subset) for subset in subsets)
        assert pass_at_k(n, correct, k) == pytest.approx(passing / len(subsets))


def test_pass_at_k_leaves_out_failures_of_the_judge_alone():
    groups = [
        group(scored(10.0), scored(9.9), scored(None, status="truncated"), scored(None, status="not_stopped")),
        group(scored(0.0), scored(0.0), scored(0.0), scored(None, status="judge_error")),
    ]
    metrics = pass_at_k_metrics(groups, 4)
    assert metrics == {"eval/pass_at_1": 0.125, "eval/pass_at_2": 0.25, "eval/pass_at_4": 1.0}
    assert list(pass_at_k_metrics(groups, 3)) == ["eval/pass_at_1", "eval/pass_at_2", "eval/pass_at_3"]
    nothing = pass_at_k_metrics([group(scored(None, status="judge_error"))], 1)
    assert nothing == {"eval/pass_at_1": None}
