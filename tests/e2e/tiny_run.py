"""Real runs in these tests: Ray, vLLM, DeepSpeed and LiteLLM, with the embedded tiny world."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil

from datasets_prep.tiny_world.rows import make_rows

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "datasets_prep" / "tiny_world" / "models"
POLICY, JUDGE = MODELS / "policy", MODELS / "judge"
#: In the environment of everything that a run starts, so that what is left can be found.
TAG = "FLIP_TEST_TAG"


def write_rows(path: Path, split: str, count: int, judge_type: str = "flip") -> Path:
    rows = make_rows(split, count, judge_type, seed=1)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tiny_flags(folder: Path, judge_type: str = "flip", /, **overrides: object) -> list[str]:
    """Flags of a small run: 4 prompts x 4 samples a step, two steps unless overridden."""
    flags: dict[str, object] = {
        "model_name_or_path": POLICY,
        "llm_judge_model": f"hosted_vllm/{JUDGE}",
        "dataset_mixer_list": f"{write_rows(folder / 'train.jsonl', 'train', 32, judge_type)} 1.0",
        "dataset_mixer_eval_list": f"{write_rows(folder / 'eval.jsonl', 'eval', 8, judge_type)} 1.0",
        "dataset_mixer_eval_list_splits": "train",
        "report_verifiers": "constraints_satisfied",
        "num_unique_prompts_rollout": 4,
        "num_samples_per_prompt_rollout": 4,
        "total_episodes": 32,
        "max_prompt_token_length": 64,
        "response_length": 64,
        "pack_length": 256,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "beta": 0.0,
        "llm_judge_max_tokens": 96,
        "llm_judge_max_context_length": 1024,
        "llm_judge_startup_timeout": 240,
        "local_eval_every": 1,
        "eval_on_step_0": int(str(overrides.get("local_eval_every", 1))) > 0,
        "seed": 1,
        "output_dir": folder / "out",
        **overrides,
    }
    return [word for name, value in flags.items() for word in (f"--{name}", *str(value).split())]


@dataclass
class Run:
    """A run as a child process with its output so far."""

    process: subprocess.Popen[str]
    log: Path
    tag: str

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, timeout: float = 480) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.output():
            assert self.process.poll() is None, f"ended early:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {text!r} after {timeout} s:\n{self.output()}"
            time.sleep(0.2)

    def left_behind(self, patience: float = 20) -> list[str]:
        """Command lines of processes that the run started and that are still there after `patience` s."""
        deadline = time.monotonic() + patience
        while (left := tagged_processes(self.tag)) and time.monotonic() < deadline:
            time.sleep(0.5)
        return left


def tagged_processes(tag: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG) == tag and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())[:150]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _heed_ctrl_c() -> None:
    """A shell's background jobs ignore SIGINT, and so would every process that the tests start from there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_run(folder: Path, flags: list[str], **environment: str) -> Run:
    tag, log = uuid.uuid4().hex, folder / "run.log"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "HOSTED_VLLM"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "open_instruct.grpo_fast", *flags],
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it
        preexec_fn=_heed_ctrl_c,
        env=env | {TAG: tag} | environment,
    )
    return Run(process, log, tag)


def shared_memory_files() -> set[str]:
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
