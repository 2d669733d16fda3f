"""The options of the data side in a real run: active sampling, mini-batches, shaping, pass at k."""

import json

import pytest
from tiny_run import tiny_flags


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_run_with_the_options_of_the_data_side(tmp_path, launch):
    flags = {
        "active_sampling": True,
        "active_sampling_max_batches": 3,
        "no_resampling_pass_rate": 0.99,
        "num_mini_batches": 2,
        "loss_fn": "gspo",
        "loss_denominator": "sequence",
        "advantage_normalization_type": "leave_one_out",
        "non_stop_penalty": True,
        "non_stop_penalty_value": -1.0,
        "overlong_buffer_length": 32,
        "overlong_penalty": 2.0,
        "verifier_weights": "general-flip=0.5",
        "eval_pass_at_k": 2,
        "eval_response_length": 48,
        "local_eval_every": 2,
        "eval_on_step_0": False,
    }
    run = launch(tiny_flags(tmp_path, **flags))
    assert run.process.wait(400) == 0, run.output()
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["training_step"] for line in lines] == [1, 2]
    for line in lines:
        assert line["batch/total_prompts"] == 4
        assert -2.0 <= line["val/overlong_penalty"] <= 0.0
        assert line["val/num_step_tokens_trained"] > 0 and line["loss/policy_avg"] is not None
        assert line["num_steps_off_policy"] <= 1
    assert lines[1]["eval/pass_at_1"] is not None and lines[1]["eval/pass_at_2"] >= lines[1]["eval/pass_at_1"]
    assert lines[1]["eval/sequence_lengths_max"] <= 48
    rollouts = [json.loads(line) for line in (tmp_path / "out" / "rollouts" / "train.jsonl").read_text().splitlines()]
    for rollout in rollouts:
        if rollout["status"] == "not_stopped":
            assert rollout["reward"] == -1.0 and rollout["score"] is None and rollout["finish_reason"] == "length"
        elif rollout["score"] is not None:
            overlong = 2.0 * max(min((64 - 32 - rollout["num_tokens"]) / 32, 0.0), -1.0)
            assert rollout["reward"] == pytest.approx(10 * 0.5 * rollout["score"] + overlong)
