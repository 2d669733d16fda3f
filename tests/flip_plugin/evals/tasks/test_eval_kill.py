"""A real ``kill -9`` in the middle of an evaluation, and the same command again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from run_results import load_results

from flip_plugin.evals.stats.paired import PAIRED

WIDTH = 3


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_without_asking_twice(knowing, tmp_path):
    good = knowing.handler
    knowing.handler = lambda body: {"text": good(body), "delay": 0.02}
    rows = [
        {
            "id": str(i),
            "prompt": f"Say it well {i}",
            "chosen": [f"good {i}"],
            "rejected": [f"bad {n} of {i}" for n in range(3)],
            "num_correct": 1,
            "num_incorrect": 3,
            "total_completions": 4,
            "subset": subset,
        }
        for i in range(10)
        for subset in [("Focus", "Math")[i % 2]]
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "flip_plugin.cli", "eval", "rewardbench2", "--data", str(tmp_path / "rows.jsonl")]
    command += ["--subsets", "Focus", "Math", "--seeds", "1", "2", "--max_concurrency", str(WIDTH)]
    command += ["--judges", f"a=hosted_vllm/m@{knowing.base}", "--output", str(tmp_path / "run")]
    questions = 2 * 10 * (4 + 4 + 1 + 12)

    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(knowing.requests) < questions // 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (tmp_path / "run" / "results.json").exists()
    time.sleep(0.2)  # what was under way

    assert subprocess.run(command, timeout=120).returncode == 0
    asked = Counter(json.dumps(body, sort_keys=True) for body in knowing.requests)
    assert len(asked) == questions
    # At most what the killed process had in flight was asked again: those replies never arrived.
    assert len(knowing.requests) - questions <= WIDTH
    results = load_results(tmp_path / "run")["cells"]
    differences = [result for result in results if result.metric.endswith(PAIRED)]
    assert differences and {result.value for result in differences} == {0.0}
    assert {result.value for result in results if result not in differences} == {1.0} and {
        result.invalid for result in results
    } == {0.0}
