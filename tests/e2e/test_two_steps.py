"""The main job in small: two GRPO steps through Ray, vLLM, DeepSpeed and LiteLLM, and what they leave."""

import json
from typing import Any

import pytest
from tiny_run import POLICY, shared_memory_files, tiny_flags

from flip_plugin import f1_score
from flip_plugin.judge.call_log import read_calls


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.timeout(420)
def test_two_steps_end_to_end(tmp_path, launch):
    before = shared_memory_files()
    run = launch(tiny_flags(tmp_path))
    assert run.process.wait(400) == 0, run.output()
    assert run.left_behind() == []
    assert shared_memory_files() <= before
    out = tmp_path / "out"

    metrics = read(out / "metrics.jsonl")
    assert [m["training_step"] for m in metrics] == [0, 1, 2]
    for line in metrics:
        assert 0 < line["eval/general-flip_reward"] <= 1
        assert 0 < line["eval/constraints_satisfied"] <= 1
    for line in metrics[1:]:
        assert 0 < line["objective/general-flip_reward"] <= 1
        assert line["objective/general-flip_invalid_frac"] < 0.5
        # verification_reward is 10: scores are rewards, the verifier's own metric is not
        assert line["objective/scores"] > line["objective/general-flip_reward"]
        assert line["optim/grad_norm"] > 0
        assert line["time/total"] > 0

    # Step 2 was sampled an update earlier (async_steps 1), so only step 1 shows how well the two agree.
    assert metrics[1]["debug/vllm_vs_local_logprob_diff_mean"] < 0.001

    rollouts = read(out / "rollouts" / "train.jsonl")
    assert len(rollouts) == 32
    assert {r["weights_version"] for r in rollouts if r["training_step"] == 1} == {0}
    for r in rollouts:
        if r["score"] is None:
            assert r["status"] != "ok" and r["advantage"] is None
        else:
            expected = f1_score(r["inferred_instruction"], r["messages"][-1]["content"])["f1"]
            assert r["score"] == pytest.approx(expected)
            assert r["reward"] == pytest.approx(10 * expected)

    calls = [call for path in (out / "judge_calls").glob("*.jsonl") for call in read_calls(path)]
    assert len(calls) == 32 + 3 * 8
    assert "error" in calls[0] and calls[0]["messages"][0]["role"] == "system"

    config = json.loads((out / "config.json").read_text())
    assert config["flags"]["seed"] == 1 and config["versions"]["ray"] and config["prompt_sha256"]
    assert (out / "report.html").stat().st_size > 10_000
    assert json.loads((out / "state" / "training_step.json").read_text())["training_step"] == 2

    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained = AutoModelForCausalLM.from_pretrained(out / "checkpoint").state_dict()
    initial = AutoModelForCausalLM.from_pretrained(POLICY, dtype="float32").state_dict()
    assert trained.keys() == initial.keys()
    assert any((trained[k].float() != initial[k]).any() for k in trained), "nothing was learnt"
    tokenizer: Any = AutoTokenizer.from_pretrained(out / "checkpoint")
    assert tokenizer.chat_template
