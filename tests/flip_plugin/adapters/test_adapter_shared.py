"""What the adapters share: targets of rows, one reward a process, options from both sides."""

import asyncio
import logging
import pickle
import subprocess
import sys
import threading
import time

import cloudpickle
import numpy as np
import pytest

from flip_plugin.adapters import openrlhf, shared, verl
from flip_plugin.adapters.openrlhf import flip_reward_func
from flip_plugin.adapters.trl import flip_reward
from flip_plugin.prompts.target import Target
from flip_plugin.reward.result import FlipResult

ASKED = "Write a haiku."
SYSTEM = {"role": "system", "content": "Be terse."}
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": ASKED},
]


@pytest.fixture
def configured(judge, monkeypatch):
    for name, value in {"JUDGE_MODEL": "hosted_vllm/m", "API_BASE": judge.base, "TIMEOUT": "5"}.items():
        monkeypatch.setenv(f"FLIP_{name}", value)
    return judge


@pytest.mark.parametrize(
    ("truth", "messages", "expected"),
    [
        (f" {ASKED}\n", None, Target(ASKED)),
        (ASKED, TURNS, Target(ASKED, TURNS[:2])),
        (ASKED, [SYSTEM, *TURNS], Target(ASKED, TURNS[:2])),
        ("Be terse.", [SYSTEM, *TURNS], Target("Be terse.", TURNS)),
        ("not among them", TURNS, Target("not among them", TURNS[:2])),
        (ASKED, np.array(TURNS, dtype=object), Target(ASKED, TURNS[:2])),
        (ASKED, [{"no": "role"}], Target(ASKED)),
        (ASKED, "user: text, not messages", Target(ASKED)),
        ("", TURNS, TURNS),
        (None, np.array(TURNS, dtype=object), TURNS),
        (np.str_(ASKED), None, Target(ASKED)),
        ({"answer": 4}, None, None),
        (None, [], None),
        (" \n", "text", None),
    ],
)
def test_row_prompt(truth, messages, expected):
    assert shared.row_prompt(truth, messages) == expected


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("plain", "plain"),
        ([{"role": "assistant", "content": "said"}], "said"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "in parts"}]}], "in parts"),
        ([{"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "42"}], ""),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "tool", "content": "42"}, {"role": "assistant", "content": "It is 42."}], "It is 42."),
        ([], ""),
        (None, ""),
    ],
)
def test_response_text(completion, text):
    assert shared.response_text(completion) == text


def test_one_reward_for_each_set_of_options(configured, monkeypatch):
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(shared.configured_reward())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, seen))) == 1
    assert seen[0].client.model == "hosted_vllm/m" and seen[0].client.timeout == 5
    other = shared.configured_reward({"max_tokens": 64})
    assert other is not seen[0] and other.client.max_tokens == 64 and other.client.api_bases == [configured.base]
    monkeypatch.setenv("FLIP_MAX_TOKENS", "64")
    assert shared.configured_reward() is other, "where an option comes from makes no difference"
    assert shared.configured_reward({"max_tokens": 32}).client.max_tokens == 32, "the caller's options go first"


def test_options_of_omegaconf_count_as_lists(configured):
    class Listlike(list):
        pass

    reward = shared.configured_reward({"api_base": Listlike(["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"])})
    assert len(reward.client.api_bases) == 2


def test_what_is_wrong_with_the_options_is_said(monkeypatch):
    with pytest.raises(ValueError, match="FLIP_JUDGE_MODEL"):
        shared.configured_reward()
    with pytest.raises(ValueError, match="options must be text"):
        shared.configured_reward({"judge_model": "m", "client": object()})
    with pytest.raises(TypeError, match="temprature"):
        shared.configured_reward({"judge_model": "m", "temprature": 1})
    with pytest.raises(ValueError, match="missing_score"):
        shared.score_of_missing("nan")
    monkeypatch.setenv("FLIP_MISSING_SCORE", "0.25")
    assert shared.score_of_missing() == 0.25 and shared.score_of_missing(0.5) == 0.5


def test_missing_scores_are_counted_and_not_a_flood(caplog):
    before = sum(shared.missing_counts().values())
    with caplog.at_level(logging.WARNING, logger="flip_plugin.adapters.shared"):
        for _ in range(1000):
            shared.note_missing(FlipResult(status="judge_error", error="refused"), "verl")
    assert sum(shared.missing_counts().values()) == before + 1000
    assert 1 <= len(caplog.records) <= 11
    assert "refused" in caplog.text and "judge_error" in caplog.text


def test_importing_the_adapters_loads_no_trainer():
    code = (
        "import sys; from flip_plugin.adapters import openrlhf, trl, verl; "
        "print(sorted({'torch', 'trl', 'verl', 'openrlhf', 'ray', 'vllm', 'litellm'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


# One of each adapter: what a trainer calls, with the call, and the scores in its answer.
def _trl(base):
    reward = flip_reward("hosted_vllm/m", base, timeout=5)
    return reward, lambda f: asyncio.run(f(prompts=[ASKED], completions=["Leaves"], completion_ids=[[1]]))


def _verl(base):
    return verl.compute_score_sync, lambda f: [f("d", "Leaves", ASKED, {})["score"]]


def _openrlhf(base):
    reward = flip_reward_func("hosted_vllm/m", base, timeout=5)
    return reward, lambda f: f(["Q: Leaves"], ["Q: "], [ASKED])["rewards"].tolist()


@pytest.mark.parametrize("make", [_trl, _verl, _openrlhf])
@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_adapters_pickle_before_and_after_use(make, pickler, configured):
    configured.infers(ASKED)
    function, call = make(configured.base)
    assert call(pickle.loads(pickler.dumps(function))) == [1.0]
    assert call(function) == [1.0]
    assert call(pickle.loads(pickler.dumps(function))) == [1.0]


def test_adapters_in_ray_workers(configured):
    """In an async actor, as verl's and OpenRLHF's are; the functions come to it by pickling."""
    ray = pytest.importorskip("ray")
    configured.infers(ASKED)
    variables = {"FLIP_JUDGE_MODEL": "hosted_vllm/m", "FLIP_TIMEOUT": "5", "FLIP_API_BASE": configured.base}
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})
    try:

        @ray.remote(num_cpus=0)
        class Worker:
            async def scores(self, function, call):
                return await asyncio.to_thread(call, function)

        worker = Worker.remote()
        pairs = [make(configured.base) for make in (_trl, _verl, _openrlhf)]
        assert ray.get([worker.scores.remote(*pair) for pair in pairs], timeout=60) == [[1.0]] * 3
    finally:
        ray.shutdown()


async def test_no_adapter_blocks_the_loop(configured):
    """While a judge takes 0.6 s, a ticker on the caller's loop goes on."""
    configured.handler = lambda body: {"text": '{"INFERRED INSTRUCTION": "x"}', "delay": 0.6}
    reward = flip_reward("hosted_vllm/m", configured.base)
    await reward(prompts=["a"], completions=["warm"])  # imports, connections
    gaps, done = [], asyncio.Event()

    async def tick():
        last = time.perf_counter()
        while not done.is_set():
            await asyncio.sleep(0.01)
            gaps.append(time.perf_counter() - last)
            last = time.perf_counter()

    ticker = asyncio.create_task(tick())
    blocking = flip_reward_func("hosted_vllm/m", configured.base)
    calls = [
        reward(prompts=["a"] * 4, completions=["b"] * 4),
        verl.compute_score("d", "b", "a"),
        asyncio.to_thread(blocking, ["Qb"], ["Q"], ["a"]),  # as OpenRLHF calls it
        asyncio.to_thread(verl.compute_score_sync, "d", "b", "a"),  # as verl calls a plain function
    ]
    started = time.perf_counter()
    await asyncio.gather(*calls)
    took = time.perf_counter() - started
    done.set()
    await ticker
    assert 0.6 <= took < 2.5, "side by side, not one after another"
    assert sorted(gaps)[int(0.9 * len(gaps))] < 0.1, "the loop was held up"


async def test_hostile_rows_have_a_status_and_no_exception(configured):
    configured.infers("x")
    hostile = ["", "{" * 1000, "<think>", '{"INFERRED INSTRUCTION": "a"}', "\ud800", "a\x00b", "</think>" * 50]
    scores = await flip_reward("hosted_vllm/m", configured.base)(prompts=["a"] * len(hostile), completions=hostile)
    assert len(scores) == len(hostile)
    assert scores[0] is None and scores[2] is None
    for text in hostile:
        row = await verl.compute_score("d", text, "a", {"messages": text})
        assert row["flip_missing"] == int(row["flip_score"] is None)
    blocking = flip_reward_func("hosted_vllm/m", configured.base)
    out = await asyncio.to_thread(blocking, [f"Q{t}" for t in hostile], ["Q"] * len(hostile), ["a"] * len(hostile))
    assert out["rewards"].shape == (len(hostile),)
    assert openrlhf.END_TOKENS  # ty: ignore[redundant-condition]
