"""Real runs whose engines and judge servers are killed in mid-run and go on; and what must end one, cleanly."""

import json
import os
import signal

import psutil
import pytest
from tiny_run import TAG, shared_memory_files, tiny_flags

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
STEPS = 6
READY_S = 600  # on a busy machine
NO_EVALUATION = {"local_eval_every": -1, "eval_on_step_0": False}


def processes_of(run):
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG) == run.tag:
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def find(run, sign, parent=""):
    """The run's one process whose title holds `sign`, and its parent's `parent`."""
    found = []
    for process in processes_of(run):
        try:
            if sign in " ".join(process.cmdline()) and parent in " ".join(process.parent().cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, AttributeError):
            continue
    assert len(found) == 1, found
    return found[0]


def engine_core(run):
    return find(run, "EngineCore", parent="ray::LLMRayActor")


def engine_actor(run):
    return find(run, "ray::LLMRayActor")


def judge_server(run):
    return find(run, "python -m vllm.entrypoints.openai.api_server", parent="ray::Judge")


@pytest.mark.parametrize(
    ("victim", "metric"),
    [(engine_core, "engine/restarts"), (engine_actor, "engine/restarts"), (judge_server, "judge/restarts")],
    ids=["engine core", "engine actor", "judge server"],
)
def test_a_run_outlives_a_killed(victim, metric, tmp_path, launch):
    before = shared_memory_files()
    flags = {"total_episodes": 16 * STEPS, "local_eval_every": STEPS, "eval_on_step_0": False, "llm_judge_timeout": 280}
    run = launch(tiny_flags(tmp_path, **flags))
    run.wait_for(f"step 1/{STEPS}", READY_S)
    victim(run).kill()
    assert run.process.wait(READY_S) == 0, run.output()
    assert run.left_behind() == []
    assert shared_memory_files() <= before
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["training_step"] for line in lines] == list(range(1, STEPS + 1))
    assert lines[0][metric] == 0 and lines[-1][metric] == 1, run.output()
    assert lines[-1]["engine/up"] == lines[-1]["judge/replicas_up"] == 1
    assert all(line["objective/general-flip_invalid_frac"] < 0.5 for line in lines)
    # Step s is started with weights s - 2 or newer (async_steps 1): a new engine has those of its time, not the disk's.
    rollouts = [json.loads(line) for line in (tmp_path / "out" / "rollouts" / "train.jsonl").read_text().splitlines()]
    assert len(rollouts) == 16 * STEPS
    assert all(r["weights_version"] >= r["training_step"] - 2 for r in rollouts)
    assert lines[-1]["debug/vllm_vs_local_logprob_diff_mean"] < 0.2


def test_no_restart_left_ends_the_run_with_a_sentence(tmp_path, launch):
    run = launch(tiny_flags(tmp_path, total_episodes=16 * 500, max_actor_restarts=0, **NO_EVALUATION))
    run.wait_for("step   1/500", READY_S)
    engine_core(run).kill()
    assert run.process.wait(180) == 1, run.output()
    assert run.left_behind() == []
    assert "Policy engine 0 died" in run.output() and "--max_actor_restarts is 0" in run.output()


def test_a_killed_learner_ends_the_run_and_leaves_nothing(tmp_path, launch):
    before = shared_memory_files()
    flags = {"num_learners_per_node": 2, "deepspeed_stage": 2, "learner_threads": 1, **NO_EVALUATION}
    run = launch(tiny_flags(tmp_path, total_episodes=16 * 500, **flags))
    run.wait_for("step   1/500", READY_S)
    learners = [p for p in processes_of(run) if "ray::PolicyTrainer" in " ".join(p.cmdline())]
    assert len(learners) == 2
    learners[1].kill()
    assert run.process.wait(180) not in (0, None), run.output()
    assert run.left_behind() == []
    assert shared_memory_files() <= before


def test_kill_9_of_the_driver_while_the_engine_is_loading(tmp_path, launch):
    before = shared_memory_files()
    run = launch(tiny_flags(tmp_path))
    run.wait_for("plan:")
    run.wait_for("learner ready", READY_S)  # vLLM's own processes are up, and still import
    os.kill(run.process.pid, signal.SIGKILL)
    assert run.process.wait(60) == -signal.SIGKILL
    assert run.left_behind() == []
    assert shared_memory_files() <= before
