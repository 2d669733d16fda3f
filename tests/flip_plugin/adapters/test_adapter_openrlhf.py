"""OpenRLHF: the documented call, and its own executor and batches where it is installed."""

import asyncio
import importlib.util
from types import SimpleNamespace

import pytest
import torch

from flip_plugin.adapters import openrlhf as adapter
from flip_plugin.adapters.openrlhf import flip_reward_func, split_response

ASKED = "Write a haiku\nabout user: root"
PROMPT = f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def environment(judge, monkeypatch):
    judge.infers(ASKED)
    values = {"JUDGE_MODEL": "hosted_vllm/m", "API_BASE": judge.base, "TIMEOUT": "5", "MAX_ATTEMPTS": "1"}
    for name, value in values.items():
        monkeypatch.setenv(f"FLIP_{name}", value)
    return judge


def load_as_openrlhf():
    spec = importlib.util.spec_from_file_location("reward_func", adapter.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reward_func


def shown(judge):
    return judge.requests[-1]["messages"][-1]["content"]


def test_loaded_by_path_and_called_from_a_thread(environment):
    async def call():
        arguments = ([f"{PROMPT}Leaves fall<|im_end|>"], [PROMPT], [ASKED])
        return await asyncio.to_thread(load_as_openrlhf(), *arguments)

    out = asyncio.run(call())
    for name in ("rewards", "scores"):
        assert out[name].dtype == torch.float32 and out[name].tolist() == [1.0]
    assert {name: value.tolist() for name, value in out["extra_logs"].items()} == {
        "flip_missing": [0.0],
        "flip_echo": [0.0],
    }
    assert "Leaves fall" in shown(environment)
    assert ASKED not in shown(environment) and "<|im_" not in shown(environment)


def test_loading_without_a_judge_model_stops_the_run(monkeypatch):
    monkeypatch.delenv("FLIP_JUDGE_MODEL", raising=False)
    with pytest.raises(ValueError, match="FLIP_JUDGE_MODEL"):
        load_as_openrlhf()
    monkeypatch.setenv("FLIP_JUDGE_MODEL", "hosted_vllm/m")
    monkeypatch.setenv("FLIP_MISSING_SCORE", "nan")
    with pytest.raises(ValueError, match="FLIP_MISSING_SCORE"):
        load_as_openrlhf()


def test_messages_as_the_label_give_context(environment):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    label = [*turns, {"role": "user", "content": ASKED}]
    out = adapter.reward_func([f"{PROMPT}Leaves"], [PROMPT], [label])
    assert out["rewards"].tolist() == [1.0]
    assert "user: Hi\n\nassistant: Yes?" in shown(environment)


def test_rows_without_a_score_are_a_constant_and_counted(environment):
    environment.handler = lambda body: (500, "down") if "Broken" in str(body) else environment.answers[0]
    texts = [f"{PROMPT}Leaves", f"{PROMPT}Broken", PROMPT, f"{PROMPT}Leaves", "something else entirely"]
    labels = [ASKED, ASKED, ASKED, "", ASKED]
    reward = flip_reward_func("hosted_vllm/m", environment.base, missing_score=0.25, max_attempts=1)
    out = reward(texts, [PROMPT] * 5, labels)
    assert out["rewards"].tolist() == [1.0, 0.25, 0.25, 0.25, 0.25]
    assert out["extra_logs"]["flip_missing"].tolist() == [0, 1, 1, 1, 1]
    assert len(environment.requests) == 2, "what cannot be judged is not asked"


def test_a_thought_that_the_prompt_opened_is_no_response(environment):
    prompt = f"{PROMPT}<think>\n"
    out = adapter.reward_func([f"{prompt}Hm, hm", f"{prompt}Hm</think>Leaves"], [prompt] * 2, [ASKED] * 2)
    assert out["extra_logs"]["flip_missing"].tolist() == [1, 0]
    assert "Hm" not in shown(environment)


LONG = "A system prompt that is far too long for the window. " * 20 + PROMPT


@pytest.mark.parametrize(
    ("query", "prompt", "response"),
    [
        (f"{PROMPT}Leaves", PROMPT, "Leaves"),
        (PROMPT, PROMPT, ""),
        (f"<s> [INST] {ASKED} [/INST] Leaves", f"<s>[INST] {ASKED}[/INST]", " Leaves"),
        (f"{LONG[-120:]}Leaves", LONG, "Leaves"),
        (f"\ufffd{LONG[-120:]}Leaves", LONG, "Leaves"),
        (f"{LONG[-120:]}{LONG[-120:]}Leaves", LONG, f"{LONG[-120:]}Leaves"),
        ("quite another text", PROMPT, None),
        ("", PROMPT, None),
        ("assistant\nshort overlaps prove nothing", "user\nassistant\n", None),
    ],
)
def test_split_response(query, prompt, response):
    assert split_response(query, prompt) == response


def test_splitting_a_million_characters_is_quick():
    import time

    started = time.perf_counter()
    assert split_response("ab" * 500_000, "a" * 500_000) is None
    assert time.perf_counter() - started < 5


class _Tokenizer:
    """One token a character; decodes with special tokens, as OpenRLHF asks."""

    def __call__(self, text, add_special_tokens, return_tensors):
        return {"input_ids": torch.tensor([[ord(c) for c in text]])}

    def decode(self, ids, skip_special_tokens):
        assert not skip_special_tokens
        return "".join(map(chr, ids))


class _Engine:
    def __init__(self, text):
        self.text = text

    async def generate(self, ids, params, multi_modal_data=None):
        output = SimpleNamespace(token_ids=[ord(c) for c in self.text], finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])


@pytest.mark.parametrize("fails", [False, True])
def test_openrlhfs_executor_and_batches(environment, fails):
    """OpenRLHF 0.11.2: the executor that loads the file, and its rollout records joined to a batch."""
    agent = pytest.importorskip("openrlhf.utils.agent")
    generator = pytest.importorskip("openrlhf.trainer.ppo_utils.samples_generator")
    from openrlhf.trainer.ppo_utils.experience import Experience  # ty: ignore[import-not-found]

    if fails:
        environment.answers = [(500, "down")]
    executor = agent.SingleTurnAgentExecutor(adapter.__file__)
    params = SimpleNamespace(max_tokens=20, logprobs=None)

    async def roll_out():
        tokenizer, engine = _Tokenizer(), _Engine("Leaves fall<|im_end|>")
        return await executor.execute(PROMPT, ASKED, params, 500, tokenizer, engine)

    outputs = [asyncio.run(roll_out()) for _ in range(2)]
    convert = generator.SamplesGenerator._process_response_into_experience
    batch = Experience.concat_experiences([convert(None, output, max_len=500) for output in outputs], 0)
    expected = [0.0, 0.0] if fails else [1.0, 1.0]
    assert batch.rewards.tolist() == batch.scores.tolist() == batch.info["reward"].tolist() == expected
    assert batch.info["flip_missing"].tolist() == [float(fails)] * 2
    assert batch.info["flip_echo"].shape == (2,)
