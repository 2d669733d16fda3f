"""A run goes on where it was, and what it leaves can be served."""

import json
import urllib.request

import pytest
from conftest import tiny_flags

from flip_plugin.serving import JudgeServer, ServerOptions


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_longer_run_continues_and_its_checkpoint_serves(tmp_path, launch):
    first = launch(tiny_flags(tmp_path))
    assert first.process.wait(400) == 0, first.output()
    second = launch(tiny_flags(tmp_path, total_episodes=64))
    assert second.process.wait(400) == 0, second.output()
    assert "continuing after step 2" in second.output()
    out = tmp_path / "out"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["training_step"] for line in lines] == [0, 1, 2, 3, 4]
    rollouts = [json.loads(line) for line in (out / "rollouts" / "train.jsonl").read_text().splitlines()]
    assert [r["training_step"] for r in rollouts] == [step for step in (1, 2, 3, 4) for _ in range(16)]
    # The engines must have had the continued weights from the start, not those of the initial policy.
    assert lines[3]["debug/vllm_vs_local_logprob_diff_mean"] < 0.001

    server = JudgeServer(
        ServerOptions(str(out / "checkpoint"), on_cpu=True, max_model_len=256, kv_cache_memory_bytes=2**27),
        str(tmp_path / "serve.log"),
    )
    try:
        url = server.wait_ready(240)
        body = {
            "model": str(out / "checkpoint"),
            "messages": [{"role": "user", "content": rollouts[0]["ground_truth"]}],
            "max_tokens": 64,
        }
        request = urllib.request.Request(
            f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            choice = json.load(answer)["choices"][0]
        assert choice["finish_reason"] == "stop"
        assert len(choice["message"]["content"].split()) > 5
    finally:
        server.stop()
