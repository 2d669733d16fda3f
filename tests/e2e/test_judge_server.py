"""Two real replicas of a judge (vLLM) on Ray, asked through LiteLLM, and killed; and one that cannot come up."""

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
from tiny_run import JUDGE, tiny_flags

from flip_plugin import FlipReward
from flip_plugin.serving.options import ServerOptions
from flip_plugin.serving.pool import JudgePool
from flip_plugin.serving.server import JudgeServer, JudgeServerError


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_enable_worker_prestart", "0")
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    options = ServerOptions(str(JUDGE), on_cpu=True, max_model_len=1024, kv_cache_memory_bytes=2**28)
    pool = JudgePool.launch(options, 2, log_dir=tmp_path_factory.mktemp("judge"))
    try:
        pool.wait_ready(280)
        yield pool
        servers = [psutil.Process(state.pid) for state in pool.health() if state.pid]
        children = [child for server in servers for child in server.children(recursive=True)]
    finally:
        pool.stop()
        ray.shutdown()
    _, alive = psutil.wait_procs(servers + children, timeout=10)
    assert not alive, "a server or its engine was left behind"


@pytest.mark.timeout(300)
def test_flip_reward_against_real_servers(pool):
    rows = _perfect_responses(12)
    reward = FlipReward(f"hosted_vllm/{JUDGE}", api_base=pool.urls, max_tokens=96)
    right = reward.score_batch([r["messages"] for r in rows], [r["response"] for r in rows])
    # Everyone gets somebody else's response.
    moved = rows[1:] + rows[:1]
    wrong = reward.score_batch([r["messages"] for r in rows], [r["response"] for r in moved])
    scored = [r.score for r in right if r.score is not None]
    mixed = [r.score for r in wrong if r.score is not None]
    assert len(scored) >= 10 and len(mixed) >= 10
    assert sum(scored) / len(scored) > sum(mixed) / len(mixed) + 0.2
    assert all(r.usage and r.usage["completion_tokens"] > 0 for r in right if r.status == "ok")


@pytest.mark.timeout(300)
def test_flip_score_on_the_command_line(pool, tmp_path):
    rows = _perfect_responses(6)
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in rows))
    command = [sys.executable, "-m", "flip_plugin.cli", "score", "--input", source, "--output", tmp_path / "out.jsonl"]
    command += ["--judge_model", f"hosted_vllm/{JUDGE}", "--api_base", ",".join(pool.urls)]
    subprocess.run([str(c) for c in command], check=True, timeout=120)
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [s["target"] for s in scored] == [r["messages"][0]["content"] for r in rows]
    assert all((s["score"] is None) == (s["status"] != "ok") for s in scored)


@pytest.mark.timeout(300)
def test_killing_one_of_two_replicas_loses_no_reward(pool, tmp_path):
    rows = _perfect_responses(300)
    undisturbed = _score_all(pool, rows)
    pid = _all_serve(pool)[0].pid
    disturbed = _score_all(pool, rows, in_mid_run=lambda: os.killpg(pid, signal.SIGKILL), record=tmp_path)
    assert pool.health()[0].state != "serving"
    assert Counter(r.status for r in disturbed) == {"ok": len(rows)}, Counter(r.error for r in disturbed)
    assert [r.score for r in disturbed] == [r.score for r in undisturbed]
    assert set(_calls_by_url(tmp_path)) == set(pool.urls), "the killed replica had answered some before"


def _end_engine(server: psutil.Process) -> None:
    [engine] = [child for child in server.children() if "EngineCore" in child.name()]
    engine.kill()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "end",
    [psutil.Process.kill, _end_engine, lambda server: server.parent().kill()],
    ids=["server", "engine core", "Ray actor"],
)
def test_a_killed_replica_comes_back_on_its_url(pool, tmp_path, end):
    rows = _perfect_responses(200)
    undisturbed = _score_all(pool, rows)
    before = _all_serve(pool)
    server = psutil.Process(before[1].pid)
    disturbed = _score_all(pool, rows, in_mid_run=lambda: end(server))
    assert [r.score for r in disturbed] == [r.score for r in undisturbed]
    after = _all_serve(pool)
    assert [state.url for state in after] == pool.urls
    assert after[1].pid != before[1].pid and after[1].restarts == before[1].restarts + 1
    assert after[0].pid == before[0].pid and after[0].restarts == before[0].restarts
    _score_all(pool, rows, record=tmp_path)
    assert min(_calls_by_url(tmp_path)[url] for url in pool.urls) > 50


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_llm_judge_run_on_an_outside_server(pool, tmp_path, launch):
    _all_serve(pool)
    run = launch(tiny_flags(tmp_path, "quality"), HOSTED_VLLM_API_BASE=",".join(pool.urls))
    assert run.process.wait(400) == 0, run.output()
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["eval/general-quality_reward"] <= 1 for line in lines)
    assert not (tmp_path / "out" / "logs").exists(), "no server of its own was needed"
    calls = (tmp_path / "out" / "judge_calls").glob("*.jsonl")
    bases = {json.loads(line)["api_base"] for path in calls for line in path.read_text().splitlines()}
    assert bases == set(pool.urls)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_server_that_cannot_load_its_model_says_why(tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(JUDGE, broken, ignore=shutil.ignore_patterns("*.safetensors"))
    server = JudgeServer(ServerOptions(str(broken), on_cpu=True, max_model_len=512), str(tmp_path / "judge.log"))
    with pytest.raises(JudgeServerError, match="ended with code") as error:
        server.wait_ready(100)
    assert str(broken) in str(error.value) and "judge.log" in str(error.value)
    assert not server.alive()


@pytest.mark.timeout(60)
def test_a_server_that_is_too_slow_is_given_up_and_ended(tmp_path):
    server = JudgeServer(ServerOptions(str(JUDGE), on_cpu=True), str(tmp_path / "judge.log"))
    with pytest.raises(JudgeServerError, match="not ready after 1 s"):
        server.wait_ready(1)
    assert not server.alive()


def _perfect_responses(count):
    """Rows with a response that does all that its instruction asks for."""
    import random

    from datasets_prep.tiny_world.language.grammar import parse_instruction, write_response
    from datasets_prep.tiny_world.rows import make_rows

    rng = random.Random(0)
    rows = make_rows("eval", count, "flip", seed=5)
    asked = [parse_instruction(row["ground_truth"]) or {} for row in rows]
    return [
        {"messages": row["messages"], "response": write_response(attributes, rng)}
        for row, attributes in zip(rows, asked, strict=True)
    ]


def _score_all(pool, rows, in_mid_run=None, **options):
    """All rewards at once; `in_mid_run` is called when a fifth of them is there."""

    async def score():
        reward = FlipReward(f"hosted_vllm/{JUDGE}", api_base=pool.urls, max_tokens=96, **options)
        tasks = [asyncio.create_task(reward.score(r["messages"], r["response"])) for r in rows]
        if in_mid_run is not None:
            while sum(task.done() for task in tasks) < len(rows) / 5:
                await asyncio.sleep(0.01)
            in_mid_run()
            assert sum(task.done() for task in tasks) < len(rows) / 2, "it was to be in mid-run"
        return await asyncio.gather(*tasks)

    return asyncio.run(score())


def _all_serve(pool):
    """Wait until every replica serves; their health."""
    deadline = time.monotonic() + 240
    while not all(state.state == "serving" for state in pool.health()):
        assert time.monotonic() < deadline, pool.health()
        time.sleep(0.2)
    return pool.health()


def _calls_by_url(folder):
    calls = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return Counter(call["api_base"] for call in calls)
