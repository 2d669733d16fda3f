"""A run goes on where it was, whatever ended it; and what it leaves can be served."""

import http.server
import json
import os
import signal
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_run import shared_memory_files, tagged_processes, tiny_flags

from flip_plugin.judge.call_log import read_calls
from flip_plugin.serving.options import ServerOptions
from flip_plugin.serving.server import JudgeServer
from open_instruct.state.checkpoints import step_folders

pytestmark = pytest.mark.slow


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def kill_everything(run) -> None:
    """`kill -9` of the driver and of every process that it started, as when a machine goes down."""
    os.killpg(run.process.pid, signal.SIGKILL)
    run.process.wait(20)
    for line in tagged_processes(run.tag):
        try:
            psutil.Process(int(line.split()[0])).kill()
        except psutil.NoSuchProcess:
            continue
    assert run.left_behind() == []


def kill_when(run, happens, timeout: float = 300) -> None:
    """Kill the run as soon as `happens()`; fails when the run ends before."""
    deadline = time.monotonic() + timeout
    while not happens():
        assert run.process.poll() is None, f"ended before it could be killed:\n{run.output()}"
        assert time.monotonic() < deadline, run.output()
        time.sleep(0.002)
    kill_everything(run)


def weights_of(folder: Path) -> dict:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].tobytes() == second[name].tobytes(), f"{name} differs between {one} and {other}"


def no_leftovers(out: Path) -> bool:
    hidden = [path for path in out.rglob(".*") if path.name != ".lock" and "previous" not in path.parts]
    return hidden == []


@pytest.mark.timeout(900)
def test_a_longer_run_continues_and_its_checkpoint_serves(tmp_path, launch):
    first = launch(tiny_flags(tmp_path))
    assert first.process.wait(400) == 0, first.output()
    second = launch(tiny_flags(tmp_path, total_episodes=64))
    assert second.process.wait(400) == 0, second.output()
    assert "continuing after step 2" in second.output()
    out = tmp_path / "out"
    lines = read(out / "metrics.jsonl")
    assert [line["training_step"] for line in lines] == [0, 1, 2, 3, 4]
    rollouts = read(out / "rollouts" / "train.jsonl")
    assert [r["training_step"] for r in rollouts] == [step for step in (1, 2, 3, 4) for _ in range(16)]
    # The engines must have had the continued weights from the start, not those of the initial policy.
    assert lines[3]["debug/vllm_vs_local_logprob_diff_mean"] < 0.001
    config = json.loads((out / "config.json").read_text())
    assert [entry["after_step"] for entry in config["resumed"]] == [2]
    assert config["resumed"][0]["changed_flags"] == {"total_episodes": [32, 64]}

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


#: What makes a learner's step depend on everything that a state must hold.
HARD = {
    "beta": 0.05,
    "ref_policy_update_freq": 2,
    "lr_scheduler_type": "cosine",
    "num_mini_batches": 2,
    "weight_decay": 0.1,
    "total_episodes": 96,
    "save_freq": 1,
    "checkpoint_state_freq": 2,
    "keep_last_n_checkpoints": -1,
}


@pytest.mark.timeout(1800)
def test_replayed_samples_give_the_same_parameters(tmp_path, launch):
    """Run A samples, is judged and greedily evaluated. Run B has A's samples, is killed, and becomes A all the same."""
    a, b = tmp_path / "a", tmp_path / "b"
    sampling = {**HARD, "eval_temperature": 0.0, "local_eval_every": 3, "save_token_ids": True}
    recording = launch(tiny_flags(tmp_path, output_dir=a, **sampling))
    assert recording.process.wait(500) == 0, recording.output()

    replaying = {**HARD, "local_eval_every": -1, "eval_on_step_0": False, "replay_rollouts": a / "rollouts"}
    flags = tiny_flags(tmp_path, output_dir=b, **replaying)
    first = launch(flags)
    kill_when(first, lambda: "step 3/6" in first.output())
    assert "policy engine ready" not in first.output(), "nothing is sampled"
    second = launch(flags)
    assert second.process.wait(300) == 0, second.output()
    assert "continuing after step 2" in second.output()

    assert [line["training_step"] for line in read(b / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    for step in range(1, 6):
        assert_same_weights(a / "checkpoints" / f"step_{step}", b / "checkpoints" / f"step_{step}")
    assert_same_weights(a / "checkpoint", b / "checkpoint")
    recorded, replayed = read(a / "metrics.jsonl"), read(b / "metrics.jsonl")
    recorded = [line for line in recorded if line["training_step"] > 0]
    for one, other in zip(recorded, replayed, strict=True):
        for name in ("loss/policy_avg", "objective/kl_avg", "objective/scores", "lr", "optim/grad_norm"):
            assert one[name] == other[name], (one["training_step"], name)


def rollouts_by_step(out: Path, split: str) -> list[int]:
    return [record["training_step"] for record in read(out / "rollouts" / f"{split}.jsonl")]


@pytest.mark.timeout(2700)
def test_kill_9_at_any_point(tmp_path, launch):
    """Killed at its start, in a step, while it writes a checkpoint, a state and the last checkpoint, a run ends as one
    that was left alone does."""
    before = shared_memory_files()
    common = {
        "total_episodes": 96,
        "save_freq": 2,
        "checkpoint_state_freq": 1,
        "keep_last_n_checkpoints": 2,
        "eval_temperature": 0.0,
        "local_eval_every": 6,
        "learning_rate": 1e-4,  # six steps at more would move the evaluation by more than a kill could
    }
    unbroken = launch(tiny_flags(tmp_path, output_dir=tmp_path / "unbroken", **common))
    assert unbroken.process.wait(500) == 0, unbroken.output()

    out = tmp_path / "killed"
    flags = tiny_flags(tmp_path, output_dir=out, **common)

    def newest() -> int:
        return max(step_folders(out / "state"), default=0)

    points = [
        lambda run: lambda: "plan:" in run.output(),
        lambda run: lambda: newest() >= 1 and "step 1/6" in run.output(),
        lambda run: lambda: newest() >= 1 and list((out / "checkpoints").glob(".step_*.partial-*")),
        lambda run: lambda: newest() >= 3 and list((out / "state").glob(".step_*.partial-*")),
        lambda run: lambda: list(out.glob(".checkpoint.partial-*")),
    ]
    reached = []
    for point in points:
        run = launch(flags)
        kill_when(run, point(run))
        reached.append(newest())
    last = launch(flags)
    assert last.process.wait(400) == 0, last.output()
    assert reached == sorted(reached) and reached[-1] == 6, "no work was lost that a state held"
    assert "continuing after step 6" in last.output(), "only the checkpoint was missing"
    assert last.left_behind() == [] and shared_memory_files() <= before
    assert no_leftovers(out) and not (out / "state" / "damaged").exists()

    assert [line["training_step"] for line in read(out / "metrics.jsonl")] == [0, 1, 2, 3, 4, 5, 6]
    assert rollouts_by_step(out, "train") == [step for step in range(1, 7) for _ in range(16)]
    assert rollouts_by_step(out, "eval") == [0] * 8 + [6] * 8
    prompts = [r["prompt_index"] for r in read(out / "rollouts" / "train.jsonl")]
    assert prompts == [r["prompt_index"] for r in read(tmp_path / "unbroken" / "rollouts" / "train.jsonl")]
    calls = [call for path in (out / "judge_calls").glob("*.jsonl") for call in read_calls(path)]
    assert len(calls) == 6 * 16 + 2 * 8
    assert sorted(c["training_step"] for c in calls if c["split"] == "train") == rollouts_by_step(out, "train")
    assert set(step_folders(out / "state")) == {5, 6} and set(step_folders(out / "checkpoints")) == {2, 4}
    config = json.loads((out / "config.json").read_text())
    assert [entry["after_step"] for entry in config["resumed"]] == reached[1:]

    ends = [read(folder / "metrics.jsonl")[-1] for folder in (tmp_path / "unbroken", out)]
    rewards = [end["eval/general-flip_reward"] for end in ends]
    assert abs(rewards[0] - rewards[1]) < 0.15, rewards
    weights_of(out / "checkpoint")


@pytest.fixture
def outside_judge():
    """An OpenAI-compatible server that infers the response's last words, until its `down` is set."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, status: int, body: dict) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self.answer(200, {"data": [{"id": "words", "object": "model"}], "object": "list"})

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if server.down:
                self.answer(500, {"error": {"message": "out of words"}})
                return
            words = request["messages"][-1]["content"].split()[-12:]
            reply = json.dumps({"reasoning": "none", "instruction": " ".join(words)})
            message = {"role": "assistant", "content": reply}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            self.answer(
                200,
                {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 1,
                    "model": "words",
                    "choices": [choice],
                    "usage": usage,
                },
            )

        def log_message(self, format, *args):
            pass

    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.down = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.mark.timeout(900)
def test_a_failing_judge_leaves_state_and_checkpoint(tmp_path, launch, outside_judge):
    flags = tiny_flags(
        tmp_path, llm_judge_model="hosted_vllm/words", llm_judge_timeout=5, total_episodes=16 * 40, local_eval_every=-1
    )
    url = f"http://127.0.0.1:{outside_judge.server_port}/v1"
    run = launch(flags, HOSTED_VLLM_API_BASE=url)
    run.wait_for("step  2/40")
    outside_judge.down = True
    assert run.process.wait(120) == 1, run.output()
    out = tmp_path / "out"
    steps = [line["training_step"] for line in read(out / "metrics.jsonl")]
    assert "out of words" in run.output() and "Traceback" not in run.output()
    assert list(step_folders(out / "state")) == [steps[-1]] and weights_of(out / "checkpoint")
    outside_judge.down = False
    second = launch(flags, HOSTED_VLLM_API_BASE=url)
    second.wait_for(f"step {steps[-1] + 1:>2}/40")
    os.kill(second.process.pid, signal.SIGTERM)
    assert second.process.wait(60) == 143, second.output()
    rollouts = rollouts_by_step(out, "train")
    assert rollouts == sorted(rollouts) and all(rollouts.count(step) == 16 for step in set(rollouts))


@pytest.mark.timeout(900)
def test_a_stopped_run_saves_what_it_has_learnt(tmp_path, launch):
    """SIGTERM, as from Slurm: no state was due for long, and none of the steps is lost."""
    flags = tiny_flags(tmp_path, total_episodes=16 * 300, local_eval_every=-1, eval_on_step_0=False)
    run = launch(flags)
    run.wait_for("step   3/300")
    start = time.monotonic()
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.process.wait(60) == 143, run.output()
    assert time.monotonic() - start < 45
    steps = [line["training_step"] for line in read(tmp_path / "out" / "metrics.jsonl")]
    assert f"The last state is that of step {steps[-1]}" in run.output()
    assert list(step_folders(tmp_path / "out" / "state")) == [steps[-1]]
    second = launch(flags)
    second.wait_for(f"continuing after step {steps[-1]}")
    second.wait_for(f"step {steps[-1] + 1:>3}/300")
    os.killpg(second.process.pid, signal.SIGINT)
    assert second.process.wait(60) == 130, second.output()
    assert "Traceback" not in second.output()


@pytest.mark.timeout(900)
def test_a_killed_learner_ends_the_run_with_a_sentence(tmp_path, launch):
    flags = tiny_flags(
        tmp_path, total_episodes=16 * 300, local_eval_every=-1, eval_on_step_0=False, checkpoint_state_freq=2
    )
    run = launch(flags)
    run.wait_for("step   3/300")
    [learner] = [line.split()[0] for line in tagged_processes(run.tag) if "ray::PolicyTrainer" in line]
    os.kill(int(learner), signal.SIGKILL)
    assert run.process.wait(60) == 1, run.output()
    output, out = run.output(), tmp_path / "out"
    assert "Traceback" not in output
    assert f"error: learner 0 (process {learner} on " in output
    assert f"Its log: {out / 'logs' / 'learner_0.log'}" in output and (out / "logs" / "learner_0.log").exists()
    assert "The last state is that of step 2, in" in output or "The last state is that of step 4, in" in output
    assert "python -m open_instruct.grpo_fast --model_name_or_path" in output
    assert run.left_behind() == []
