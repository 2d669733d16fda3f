"""``flip serve`` as a user runs it: what it prints, who may ask, and that nothing is left when it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import psutil
import pytest
from tiny_run import JUDGE, TAG, Run, shared_memory_files, tagged_processes

from datasets_prep.tiny_world.rows import make_rows

SMALL = ["--vllm_args", "--kv-cache-memory-bytes", "256M"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def serve(tmp_path):
    """Start ``flip serve`` with a Ray session folder of its own, and end what it may leave."""
    session = tempfile.mkdtemp(dir="/tmp")  # short: Ray puts sockets into it
    runs = []

    def begin(*flags, **environment):
        tag, log = uuid.uuid4().hex, tmp_path / "serve.out"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "HOSTED_VLLM"))}
        command = [sys.executable, "-m", "flip_plugin.cli", "serve", "--model", str(JUDGE), "--served_name", "tiny"]
        process = subprocess.Popen(
            [*command, "--max_model_len", "1024", *flags],
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=tmp_path,
            start_new_session=True,
            env=env | {TAG: tag, "RAY_TMPDIR": session} | environment,
        )
        runs.append(Run(process, log, tag))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        for line in tagged_processes(run.tag):
            psutil.Process(int(line.split()[0])).kill()
    shutil.rmtree(session, ignore_errors=True)


def exported(run):
    lines = [line.split(" ", 1)[1] for line in run.output().splitlines() if line.startswith("export ")]
    return dict(line.split("=", 1) for line in lines)


def servers(run):
    """Process ids of the vLLM servers; each leads a session, in which its engine is, too."""
    pids = [int(line.split()[0]) for line in tagged_processes(run.tag) if "vllm.entrypoints" in line]
    return [pid for pid in pids if os.getsid(pid) == pid]


def left_in(sessions):
    """What runs in these sessions. An engine's title hides its environment, so that no tag would find it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        left = [p.info for p in psutil.process_iter(["pid", "name", "status"]) if _session(p.pid) in sessions]
        if not any(each["status"] != psutil.STATUS_ZOMBIE for each in left):
            return []
        time.sleep(0.2)
    return left


def _session(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def status_of(url, key=None):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/models", headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_two_replicas_score_restart_and_ctrl_c(serve, tmp_path):
    before = shared_memory_files()
    run = serve("--num_replicas", "2", *SMALL)
    run.wait_for("Ctrl-C stops")
    assert "loading," in run.output()
    rows = [{"messages": r["messages"], "response": "Tea is warm."} for r in make_rows("eval", 20, "flip", seed=5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "flip_plugin.cli", "score", "--judge_model", "hosted_vllm/tiny"]
    command += ["--input", "rows.jsonl", "--output", "scored.jsonl", "--max_tokens", "96"]
    subprocess.run(command, check=True, timeout=120, cwd=tmp_path, env=os.environ | exported(run))
    assert len((tmp_path / "scored.jsonl").read_text().splitlines()) == 20

    urls = exported(run)["HOSTED_VLLM_API_BASE"].split(",")
    os.kill(servers(run)[0], signal.SIGKILL)
    run.wait_for("it is started again on the same URL")
    run.wait_for("serves again (restarts so far: 1)")
    assert [status_of(url) for url in urls] == [200, 200]
    sessions = servers(run)
    assert len(sessions) == 2
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
    assert run.process.wait(60) == 130, run.output()
    assert "Traceback" not in run.output()
    assert run.left_behind() == [] and left_in(sessions) == []
    assert shared_memory_files() <= before


def test_a_wide_host_asks_for_the_key_that_is_shown_once(serve, tmp_path):
    run = serve("--host", "0.0.0.0", *SMALL)
    run.wait_for("Ctrl-C stops")
    key, url = exported(run)["HOSTED_VLLM_API_KEY"], exported(run)["HOSTED_VLLM_API_BASE"]
    assert "127.0.0.1" not in url and "0.0.0.0" not in url
    assert status_of(url) == status_of(url, "wrong") == 401
    assert status_of(url, key) == 200
    port = url.rsplit(":", 1)[1]
    assert status_of(f"http://127.0.0.1:{port}", key) == 200
    assert run.output().count(key) == 1
    session = next(p.environ()["RAY_TMPDIR"] for p in [psutil.Process(run.process.pid)])
    for folder in (tmp_path / "judge_logs", Path(session)):
        found = subprocess.run(["grep", "-rlF", "--devices=skip", "--", key, folder], capture_output=True, text=True)
        assert found.stdout == "", "keys never reach a log"
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not any(key in line for line in lines)
    sessions = servers(run)
    assert sessions
    run.process.terminate()
    assert run.process.wait(60) == 0, run.output()
    assert run.left_behind() == [] and left_in(sessions) == []


def test_an_unknown_vllm_argument_is_named(serve):
    run = serve("--vllm_args", "--no-such-thing", "1")
    assert run.process.wait(150) == 2
    assert "--no-such-thing" in run.output() and "Traceback" not in run.output()
    assert run.left_behind() == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stop_while_loading_leaves_nothing(serve, sent, code):
    before = shared_memory_files()
    run = serve(*SMALL)
    run.wait_for("loading,")
    while not any("spawn_main" in line for line in tagged_processes(run.tag)):  # the engine imports vLLM
        time.sleep(0.2)
    sessions = servers(run)
    assert sessions
    run.process.send_signal(sent)
    assert run.process.wait(60) == code, run.output()
    assert run.left_behind() == [] and left_in(sessions) == []
    assert shared_memory_files() <= before
    assert "Traceback" not in run.output()


def test_kill_9_while_serving_leaves_nothing(serve):
    before = shared_memory_files()
    run = serve(*SMALL)
    run.wait_for("Ctrl-C stops")
    sessions = servers(run)
    assert sessions
    run.process.kill()
    run.process.wait(10)
    assert run.left_behind() == [] and left_in(sessions) == []
    assert shared_memory_files() <= before


def test_a_missing_gpu_is_named(serve):
    run = serve("--device", "gpu", "--num_replicas", "64")
    assert run.process.wait(100) == 2
    assert "64 replicas of 1 GPU each need 64 GPUs" in run.output()
    assert run.left_behind() == []
