"""TRL: the call with its keywords, and GRPOTrainer's own way of making it (where TRL is installed)."""

import math
import pickle
import warnings
from pathlib import Path

import pytest

from flip_plugin.adapters.trl import flip_reward
from flip_plugin.judge.call_log import read_calls

POLICY = Path(__file__).parents[3] / "datasets_prep" / "tiny_world" / "models" / "policy"
ASKED = "Write a haiku\nabout user: root"


def user(text):
    return [{"role": "user", "content": text}]


def said(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def reward(judge):
    judge.infers(ASKED)
    return flip_reward("hosted_vllm/m", judge.base, timeout=5, max_attempts=1)


async def test_conversations_and_plain_texts(reward, judge):
    turns = [*user("Hi"), *said("Yes?"), *user(ASKED)]
    assert await reward(prompts=[turns, user("other")], completions=[said("Leaves"), said("Leaves")]) == [1.0, 0.0]
    assert any("user: Hi\n\nassistant: Yes?" in str(r["messages"][1]["content"]) for r in judge.requests)
    assert await reward([ASKED], ["Leaves"], [[1, 2]]) == [1.0]


async def test_the_ground_truth_column(reward, judge):
    prompts, completions = [user("a template around it")] * 2, [said("Leaves")] * 2
    assert await reward(prompts=prompts, completions=completions, ground_truth=[ASKED, None]) == [1.0, 0.0]
    other = flip_reward("hosted_vllm/m", judge.base, ground_truth_column="wanted")
    assert await other(prompts, completions, wanted=[ASKED] * 2, ground_truth=["answer 4"] * 2) == [1.0, 1.0]
    none = flip_reward("hosted_vllm/m", judge.base, ground_truth_column=None)
    assert await none([user(ASKED)], completions[:1], ground_truth=["answer 4"]) == [1.0]


async def test_what_could_not_be_judged_is_none_and_logged(reward, judge):
    judge.handler = lambda body: (500, "down") if "Broken" in str(body) else judge.answers[0]
    columns, metrics = {}, {}
    scores = await reward(
        prompts=[user(ASKED)] * 5,
        completions=[said("Leaves"), said("Broken"), said(""), said("<think>hm"), said(ASKED)],
        log_extra=columns.__setitem__,
        log_metric=metrics.__setitem__,
        trainer_state=object(),
    )
    assert scores == [1.0, None, None, None, 1.0]
    assert columns["flip_status"] == ["ok", "judge_error", "empty_response", "truncated", "ok"]
    assert columns["flip_inferred_instruction"] == [ASKED, "", "", "", ASKED]
    assert columns["flip_echo"][0] == 0.0 and columns["flip_echo"][4] == 1.0
    assert metrics["flip/invalid_frac"] == pytest.approx(0.6) and 0 < metrics["flip/echo"] <= 1


async def test_truncation_is_known_from_the_tokens(judge):
    judge.infers(ASKED)
    reward = flip_reward("hosted_vllm/m", judge.base, eos_token_ids=2, skip_truncated=True)
    ids = [[5, 2], [5, 6], [], [5, 6, 2]]
    assert await reward([ASKED] * 4, ["a", "b", "c", "d"], ids) == [1.0, None, 1.0, 1.0]
    with pytest.raises(ValueError, match="eos_token_ids"):
        flip_reward("hosted_vllm/m", judge.base, skip_truncated=True)
    assert pickle.loads(pickle.dumps(reward)).eos_token_ids == {2}


async def test_a_batch_is_bounded_by_the_client(judge):
    judge.handler = lambda body: {"text": "{}", "delay": 0.02}
    reward = flip_reward("hosted_vllm/m", judge.base, max_concurrency=4)
    await reward([ASKED] * 40, ["a"] * 40)
    assert judge.most_open == 4


def test_calls_are_recorded(judge, tmp_path):
    import asyncio

    reward = flip_reward("hosted_vllm/m", judge.base, record=tmp_path)
    asyncio.run(reward([user(ASKED)] * 3, [said("a")] * 3))
    assert len(list(read_calls(tmp_path))) == 3


def make_trainer(reward, folder, **options):
    """A GRPOTrainer on CPU with the tiny policy; 4 prompts with 4 completions each a step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trl = pytest.importorskip("trl")
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from datasets_prep.tiny_world.rows import make_rows

        model = AutoModelForCausalLM.from_pretrained(POLICY, dtype="float32")
        rows = make_rows("train", 16, "flip", seed=1)
        data = Dataset.from_list([{"prompt": r["messages"], "ground_truth": r["ground_truth"]} for r in rows])
        flags = {
            "output_dir": str(folder),
            "per_device_train_batch_size": 16,
            "num_generations": 4,
            "max_completion_length": 64,
            "max_steps": 3,
            "logging_steps": 1,
            "learning_rate": 1e-3,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "disable_tqdm": True,
            "seed": 1,
            **options,
        }
        return trl.GRPOTrainer(
            model,
            reward_funcs=reward,
            args=trl.GRPOConfig(**flags),
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(POLICY),
        )


def test_grpo_trainers_own_call(reward, judge, tmp_path):
    """TRL gathers the async function's list on its own loop and turns None into NaN."""
    trainer = make_trainer(reward, tmp_path)
    judge.handler = lambda body: (500, "down") if "Broken" in str(body) else judge.answers[0]
    assert trainer.reward_func_names == ["flip"]
    inputs = [{"prompt": user(ASKED), "ground_truth": ASKED}] * 3
    completions = [said("Leaves"), said("Broken"), said("Leaves")]
    prompts = [row["prompt"] for row in inputs]
    rewards = trainer._calculate_rewards(inputs, prompts, completions, [[5, 2]] * 3)[:, 0].tolist()
    assert rewards[0] == rewards[2] == 1.0 and math.isnan(rewards[1])
    assert trainer._pending_extra_logs["flip_status"] == ["ok", "judge_error", "ok"]
    assert trainer._pending_metrics["flip/invalid_frac"] == [pytest.approx(1 / 3)]
