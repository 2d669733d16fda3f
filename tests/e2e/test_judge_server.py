"""A real judge server (vLLM), asked through LiteLLM; and one that cannot come up."""

import json
import shutil
import subprocess
import sys

import psutil
import pytest
from conftest import JUDGE, tiny_flags

from flip_plugin import FlipReward
from flip_plugin.serving import JudgeServer, JudgeServerError, ServerOptions


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("judge") / "judge.log"
    options = ServerOptions(str(JUDGE), on_cpu=True, max_model_len=1024, kv_cache_memory_bytes=2**28)
    server = JudgeServer(options, str(log))
    server.wait_ready(240)
    yield server
    children = psutil.Process(server.pid()).children(recursive=True)
    server.stop()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "the server left its engine behind"


@pytest.mark.timeout(300)
def test_flip_reward_against_a_real_server(server):
    rows = _perfect_responses(12)
    reward = FlipReward(f"hosted_vllm/{JUDGE}", api_base=server.url(), max_tokens=96)
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
def test_flip_score_on_the_command_line(server, tmp_path):
    rows = _perfect_responses(6)
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in rows))
    command = [sys.executable, "-m", "flip_plugin.cli", "score", "--input", source, "--output", tmp_path / "out.jsonl"]
    command += ["--judge_model", f"hosted_vllm/{JUDGE}", "--api_base", server.url()]
    subprocess.run([str(c) for c in command], check=True, timeout=120)
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [s["target"] for s in scored] == [r["messages"][0]["content"] for r in rows]
    assert all((s["score"] is None) == (s["status"] != "ok") for s in scored)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_llm_judge_run_on_an_outside_server(server, tmp_path, launch):
    run = launch(tiny_flags(tmp_path, "quality"), HOSTED_VLLM_API_BASE=server.url())
    assert run.process.wait(400) == 0, run.output()
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["eval/general-quality_reward"] <= 1 for line in lines)
    assert not (tmp_path / "out" / "logs").exists(), "no server of its own was needed"
    calls = (tmp_path / "out" / "judge_calls").glob("*.jsonl")
    bases = {json.loads(line)["api_base"] for path in calls for line in path.read_text().splitlines()}
    assert bases == {server.url()}


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

    from datasets_prep.tiny_world.language import parse_instruction, write_response
    from datasets_prep.tiny_world.rows import make_rows

    rng = random.Random(0)
    rows = make_rows("eval", count, "flip", seed=5)
    return [
        {"messages": r["messages"], "response": write_response(parse_instruction(r["ground_truth"]), rng)} for r in rows
    ]
