"""The measured defects C and E of the published pipeline, and B's and D's that show only in a run.

A to D, as far as one reply or one response shows them, are in test_reference_defects.py. Each test
names what the published code (or upstream, where it is the same) was measured to do.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flip_plugin.judge.client import JudgeClient
from flip_plugin.reward.flip import FlipReward
from flip_plugin.text.similarity import f1_score, get_similarity
from flip_plugin.verifier import FlipVerifier
from open_instruct.config.args import Args
from open_instruct.data.types import Group, Sample, ScoredSample
from open_instruct.rewards.judge_verifier import LMJudgeVerifierConfig
from open_instruct.rewards.missing import JudgeFailure, check_invalid_share
from open_instruct.rewards.registry import check_verifier_names
from open_instruct.rewards.row_reward import RewardConfig
from open_instruct.rollout.group_filter import training_samples
from open_instruct.rollout.step_metrics import group_metrics
from open_instruct.verifiers.base import UnknownVerifier

ROOT = Path(__file__).parents[2]
TRUTH = "Write a haiku about autumn leaves"
ROW = {
    "input_ids_prompt": [1],
    "messages": [{"role": "user", "content": TRUTH}],
    "prompt": f"user: {TRUTH}",
    "ground_truth": TRUTH,
    "dataset": ["general-flip"],
    "index": 0,
}


async def scored_group(judge, responses):
    """A group as the trainer makes it: real verifier, real client, the stub's replies."""
    config = LMJudgeVerifierConfig("hosted_vllm/m", llm_judge_api_base=judge.base, llm_judge_timeout=2)
    rewards = RewardConfig({"general-flip": FlipVerifier(config)})
    samples = []
    for response in responses:
        result = await rewards.score_sample(response, [1, 2], TRUTH, "general-flip", ROW["prompt"], ROW)  # ty: ignore[invalid-argument-type]
        score = None if result.reward is None else result.reward / 10
        sample = Sample([1, 2], [-1.0, -1.0], "stop", 0)
        samples.append(ScoredSample(sample, response, result.reward, score, result.status, result.per_verifier, {}))
    return Group(ROW, samples, 0.1, 0.1)


async def test_c1_one_failed_judgement_does_not_punish_its_sample(judge):
    """Reference: 0.0, and so advantages of +0.38 for seven samples and -2.65 for the unlucky one."""
    judge.handler = lambda body: (
        (400, "no")
        if "unlucky" in str(body["messages"][1])
        else (json.dumps({"INFERRED INSTRUCTION": "Write a haiku"}))
    )
    group = await scored_group(judge, ["Leaves"] * 7 + ["unlucky"])
    samples, counts = training_samples([group], Args(filter_zero_std_samples=False))
    assert [sample.advantage for sample in samples] == [0.0] * 7
    assert counts["objective/groups_dropped"] == 0
    assert group_metrics([group], prefix="objective")["objective/general-flip_invalid_frac"] == 1 / 8


async def test_c2_a_judge_that_is_down_stops_the_run_in_its_own_words(judge):
    """Reference: all zeros, all groups filtered; today's upstream samples on for ever, with warnings alone."""
    judge.answers = [(400, "out of order")]
    group = await scored_group(judge, ["Leaves fall", "Red and gold"])
    with pytest.raises(JudgeFailure, match="2 of 2 rewards of step 7 are missing") as failure:
        check_invalid_share([group], 0.5, "step 7")
    assert "out of order" in str(failure.value)


def test_c3_an_unknown_verifier_stops_before_anything_is_loaded():
    """Reference: a warning, and reward 0 for every sample."""
    with pytest.raises(UnknownVerifier, match=r"row 2: .*'general-flipp'; did you mean 'general-flip'"):
        check_verifier_names(["general-flip", "general-flipp"], {"general-flip": FlipVerifier()})


async def test_c4_what_the_judge_said_is_kept(judge):
    """Reference: reasoning and cost dropped, the inferred instruction nowhere."""
    judge.infers("Write a haiku")
    (sample,) = (await scored_group(judge, ["Leaves fall"])).samples
    result = sample.per_verifier["general-flip"]
    assert (result.reasoning, result.details["inferred_instruction"]) == ("r", "Write a haiku")
    assert result.details["usage"]["completion_tokens"] == 3
    assert result.details["echo"] == 0.0


async def test_c5_metrics_are_means_and_shares_of_what_was_judged(judge):
    """Reference: a "correct rate" of about 1.0 whatever happens, judge failures counted among lengths "unsolved"."""
    judge.answers = [json.dumps({"INFERRED INSTRUCTION": TRUTH}), json.dumps({"INFERRED INSTRUCTION": "x"}), "?"]
    metrics = group_metrics([await scored_group(judge, ["a", "b", "c"])], prefix="objective")
    assert metrics["objective/general-flip_reward"] == 0.5
    assert metrics["objective/general-flip_invalid_frac"] == pytest.approx(1 / 3)
    assert not [name for name in metrics if "correct" in name or "solved" in name]


@pytest.mark.parametrize(
    ("prediction", "truth", "published", "similarity", "ours"),
    [
        ("What is 2+2?", "What is 22?", 1.0, "unicode_f1", 4 / 7),
        ("C++ vs C", "C vs C#", 1.0, "unicode_f1", 1.0),
        ("dog bites man", "man bites dog", 1.0, "rouge_l", 1 / 3),
        ("state-of-the-art", "state of the art", 0.0, "unicode_f1", 1.0),
        ("Écris un poème", "Ecris un poeme", 1 / 3, "unicode_f1", 1.0),
    ],
)
def test_d5_the_published_f1_is_kept_and_others_have_names(prediction, truth, published, similarity, ours):
    assert f1_score(prediction, truth)["f1"] == pytest.approx(published)
    assert get_similarity(similarity)(prediction, truth) == pytest.approx(ours)


async def test_e1_too_long_a_prompt_cuts_the_responses_middle(judge):
    """Reference: the end of the prompt is cut off, and the judge is asked for a SCORE; obeying gives 0."""
    judge.infers(TRUTH)
    reward = FlipReward("hosted_vllm/m", judge.base, max_context_length=600, max_tokens=64)
    assert (await reward.score(TRUTH, "leaves " * 5_000)).score == 1.0
    system, user = (turn["content"] for turn in judge.requests[0]["messages"])
    assert system == reward.prompts.templates["FLIP_SYSTEM"]
    assert "SCORE" not in user and user.endswith("Which instruction led to this response? Answer in JSON.")
    assert "characters left out" in user


def test_e2_no_tokenizer_is_loaded_for_a_reward(judge):
    """Reference: one AutoTokenizer.from_pretrained a call, on the loop; 8 calls, 8 loads; a stall of 3.2 s for 64."""
    code = (
        "import sys; from flip_plugin import FlipReward;"
        f"reward = FlipReward('hosted_vllm/m', {judge.base!r}, max_context_length=4096);"
        "print([r.status for r in reward.score_batch(['guess'] * 8, ['x'] * 8)]);"
        "print('transformers' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.splitlines() == [str(["ok"] * 8), "False"]


async def test_e3_calls_in_flight_are_bounded(judge):
    """Reference: all at once."""
    judge.answers = [{"text": '{"INFERRED INSTRUCTION": "x"}', "delay": 0.02}]
    reward = FlipReward("hosted_vllm/m", judge.base, max_concurrency=3)
    results = await asyncio.gather(*(reward.score(TRUTH, f"leaf {i}") for i in range(12)))
    assert {result.status for result in results} == {"ok"}
    assert judge.most_open == 3


async def test_e4_temperature_0_and_one_deadline_for_all_attempts(judge):
    """Reference: temperature 1.0, and 3 attempts of up to 3,600 s each."""
    judge.answers = [{"text": "late", "delay": 30}]
    reward = FlipReward("hosted_vllm/m", judge.base, timeout=0.5)
    result = await asyncio.wait_for(reward.score(TRUTH, "Leaves"), timeout=10)
    assert (result.score, result.status) == (None, "judge_error")
    assert judge.requests[0]["temperature"] == 0.0


async def test_e5_the_judge_does_not_think_and_keeps_a_schema(judge):
    """Reference: neither; a stock Qwen3 judge thinks until its budget ends, and its thoughts were scored (B8)."""
    await FlipReward("hosted_vllm/m", judge.base).score(TRUTH, "Leaves")
    assert judge.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert judge.requests[0]["response_format"]["type"] == "json_schema"


async def test_e6_a_blocking_call_inside_a_running_loop(judge):
    """Reference: RuntimeError, and a coroutine that nobody awaits."""
    judge.infers(TRUTH)
    config = LMJudgeVerifierConfig("hosted_vllm/m", llm_judge_api_base=judge.base, llm_judge_timeout=5)
    assert FlipVerifier(config)([1], "Leaves", TRUTH, f"user: {TRUTH}").score == 1.0


def test_e7_nothing_changes_the_environment():
    """Reference: the constructor sets AZURE_API_VERSION."""
    before = dict(os.environ)
    FlipVerifier(LMJudgeVerifierConfig("azure/gpt-4o-mini"))
    FlipReward("azure/gpt-4o-mini", client=JudgeClient("azure/gpt-4o-mini"))
    assert dict(os.environ) == before


@pytest.mark.parametrize("script", ["grpo_flip.sh", "grpo_llmjudge.sh"])
def test_e8_the_recipes_name_nobodys_private_services(script):
    """Reference: beaker, mason.py, cluster names and a private host."""
    folder = ROOT / "scripts" / "train"
    text = "".join(path.read_text() for path in (folder / script, folder / "grpo.sh"))
    assert not [word for word in ("beaker", "mason", "weka", "ai2/", "gantry") if word in text.lower()]
