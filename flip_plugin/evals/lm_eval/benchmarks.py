"""The benchmarks of the GRPO table: which task of lm-eval stands for a name, and which of its metrics is the number.

The paper's own configurations are in a private repository, so these are the public tasks that come closest
(zero-shot with reasoning, where there is a choice). Any other name is handed to lm-eval as it is.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flip_plugin.errors import CommandError

#: Our own tasks.
TASK_FOLDER = Path(__file__).with_name("task_files")

INSTALL = "pip install 'flip-plugin[benchmarks]'"
IFBENCH_MISSING = (
    "ifbench needs the benchmark's own package, which is not installed: "
    "pip install 'ifbench @ git+https://github.com/allenai/IFBench', or leave ifbench out of --tasks"
)


class Benchmark(NamedTuple):
    """`task` is lm-eval's name, `metric` its key without and with a filter (``exact_match,flexible-extract``)."""

    title: str
    task: str
    metric: str
    note: str = ""


BENCHMARKS = {
    "ifeval": Benchmark("IFEval", "ifeval", "prompt_level_loose_acc,none", "loose accuracy over prompts, greedy"),
    "ifbench": Benchmark("IFBench", "ifbench", "prompt_level_loose_acc,none", "loose accuracy over prompts, greedy"),
    "bbh": Benchmark(
        "BBH", "bbh_cot_zeroshot", "exact_match,flexible-extract", "27 tasks weighted by size, zero-shot with reasoning"
    ),
    "gpqa": Benchmark(
        "GPQA", "gpqa_main_cot_zeroshot", "exact_match,flexible-extract", "main set, zero-shot with reasoning"
    ),
    "minerva_math": Benchmark(
        "Minerva Math", "minerva_math", "math_verify,none", "7 subjects weighted by size, 4 examples"
    ),
}


def benchmark_of(name: str) -> Benchmark:
    """The benchmark of a name given to ``--tasks``; for others lm-eval's task of that name, by its first metric."""
    return BENCHMARKS.get(name, Benchmark(name, name, ""))


def check_installed(names: Sequence[str]) -> None:
    """Raises `CommandError`, with what to install, where a task needs a package that is not there."""
    for package, needed, advice in (
        ("lm_eval", True, "the GRPO table needs lm-eval: " + INSTALL),
        ("ifbench", "ifbench" in names, IFBENCH_MISSING),
        ("math_verify", "minerva_math" in names, "minerva_math needs math-verify: " + INSTALL),
    ):
        if needed and importlib.util.find_spec(package) is None:
            raise CommandError(advice)


def metrics_of(results: Mapping[str, Any], task: str) -> dict[str, tuple[float, float | None]]:
    """Each metric of lm-eval's results for a task (or group), with its standard error where lm-eval gives one.

    Keys are ``name,filter`` as lm-eval has them. Raises `CommandError` where the task has no number at all.

    >>> metrics_of({"results": {"t": {"acc,none": 0.5, "acc_stderr,none": 0.1, "alias": "t"}}}, "t")
    {'acc,none': (0.5, 0.1)}
    """
    values = {**results.get("groups", {}), **results.get("results", {})}.get(task, {})
    metrics: dict[str, tuple[float, float | None]] = {}
    for key, value in values.items():
        name, _, filter_name = key.partition(",")
        if not filter_name or name.endswith("_stderr") or not _is_number(value):
            continue
        error = values.get(f"{name}_stderr,{filter_name}")
        # An error of 0 is lm-eval's where all documents have one value: no interval that a comparison may rest on.
        metrics[key] = float(value), float(error) if _is_number(error) and error > 0 else None
    if not metrics:
        raise CommandError(f"lm-eval gave no number for {task}: {dict(values)}")
    return metrics


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def size_of(results: Mapping[str, Any], task: str) -> int:
    """How many documents were scored: of a group, those of its tasks together."""
    counts = results.get("n-samples", {})
    if task in counts:
        return int(counts[task]["effective"])
    members = results.get("group_subtasks", {}).get(task, [])
    return sum(size_of(results, member) for member in members)
