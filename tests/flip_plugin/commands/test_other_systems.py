"""The library imports and scores without what Windows and macOS do not have."""

import json
import os
import subprocess
import sys

# What a third-party package needs of Unix it has taken before the names go.
WITHOUT_UNIX = """
import asyncio, multiprocessing, os, signal, sqlite3, subprocess, sys
import aiohttp, filelock, litellm, rapidfuzz, rich.console, tqdm
from litellm.litellm_core_utils import default_encoding

for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
for module, names in {
    os: ("fork", "forkpty", "killpg", "getpgrp", "getpgid", "setsid", "getuid", "geteuid", "sched_getaffinity"),
    signal: ("SIGKILL", "SIGPROF", "SIGUSR1", "SIGHUP", "SIGCHLD", "SIGALRM", "pthread_sigmask", "sigwait"),
}.items():
    for name in names:
        delattr(module, name)

import flip_plugin
from flip_plugin.cli import main

for command in COMMANDS:
    assert main(command) == 0, command
"""


def test_commands_work_without_modules_of_unix(judge, tmp_path):
    judge.infers("Write a poem")
    rows = [{"prompt": "Write a poem", "response": f"Roses {number}"} for number in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    calls, scored = str(tmp_path / "calls"), str(tmp_path / "scored.jsonl")
    score = ["score", "--input", str(tmp_path / "rows.jsonl"), "--output", scored, "--record_calls_to", calls]
    commands = [
        [*score, "--judge_model", "hosted_vllm/m", "--api_base", judge.base, "--cache", str(tmp_path / "cache")],
        ["rescore", "--input", calls, "--output", str(tmp_path / "again.jsonl"), "--similarity", "rouge_l"],
        ["inspect", calls],
    ]
    script = WITHOUT_UNIX.replace("COMMANDS", repr(commands))
    env = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["score"] for line in (tmp_path / "scored.jsonl").read_text().splitlines()] == [1.0] * 3
    assert len((tmp_path / "again.jsonl").read_text().splitlines()) == 3 and "Roses 2" in done.stdout
