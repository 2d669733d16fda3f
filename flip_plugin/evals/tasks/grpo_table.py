"""``flip eval grpo_table``: what training under each reward did to the policy (the paper's GRPO table).

Each (checkpoint, task) pair is evaluated once by lm-eval (`flip_plugin.evals.lm_eval.worker`, a process a checkpoint);
its results stand in ``pairs/<checkpoint>/<task>.json``. A pair whose file is there is not run again: it must be of the
same path, with the same `contents`, and made with the same settings. A result has the checkpoint as `judge`, the reward
that it was trained with as `method` ("" for none), the task as `group` and lm-eval's name of the metric as `metric`;
`low` and `high` are the value plus and minus 1.96 standard errors.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.lm_eval.benchmarks import (
    BENCHMARKS,
    TASK_FOLDER,
    benchmark_of,
    check_installed,
    metrics_of,
    size_of,
)
from flip_plugin.evals.lm_eval.contents import contents_of
from flip_plugin.evals.records.items import Result
from flip_plugin.evals.records.runs import open_run
from flip_plugin.files.locks import hold

NORMAL_95 = 1.96
#: What a pair must have been made with, to stand beside the others.
SAME = ("backend", "model_args", "gen_kwargs", "limit", "seed")
REWARDS = ("flip", "pointwise", "listwise", "pairwise", "rlvr", "none")

DESCRIPTION = f"""\
Evaluate checkpoints with lm-eval, on vLLM, and put them into one table with standard errors.

  flip eval grpo_table --output table \\
      --checkpoints base=allenai/Olmo-3-7B-Think-DPO flip=out/flip/checkpoint llmjudge=out/llmjudge/checkpoint \\
      --model_args max_model_len=18432 think_end_token='</think>' --gen_kwargs max_gen_toks=16384

Tasks: {", ".join(BENCHMARKS)}, or any task or group of lm-eval, also from --include_path.
A pair that is done is not run again; checkpoints and tasks can be added by the same command with more of them.
GPQA is a gated data set: accept its terms on the hub and log in first. IFBench needs its own package, which
comes from its repository; the error without it says how.
The reward that a checkpoint was trained with is read off its name (flip..., ...judge..., base...) or by --rewards.
"""

RULES = (
    "A value is lm-eval's own, a share of 1; its interval is 1.96 standard errors either way, as lm-eval gives them.",
    "A response in which the task's filter finds no answer counts as wrong: that is the benchmarks' own rule.",
    "The paper's task configurations are not public. These are the public tasks that come closest, so differences "
    "between checkpoints can be compared with the paper's, and levels cannot.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip eval grpo_table``."""
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        required=True,
        metavar="NAME=PATH",
        help="path or hub id of each checkpoint, by the name in the table",
    )
    parser.add_argument("--tasks", nargs="+", default=list(BENCHMARKS), help=f"default: {' '.join(BENCHMARKS)}")
    parser.add_argument("--output", type=Path, required=True, help="the run's folder")
    parser.add_argument("--rewards", nargs="+", default=[], metavar="NAME=REWARD", help=f"one of {', '.join(REWARDS)}")
    parser.add_argument("--include_path", nargs="+", default=[], type=Path, help="folders with tasks of your own")
    parser.add_argument("--backend", choices=("vllm", "hf"), default="vllm", help="lm-eval's model (default: vllm)")
    parser.add_argument(
        "--model_args", nargs="+", default=[], metavar="KEY=VALUE", help="for lm-eval's model: max_model_len=16384 ..."
    )
    parser.add_argument(
        "--gen_kwargs",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="instead of the tasks' own settings: max_gen_toks=16384 ...",
    )
    parser.add_argument("--limit", type=int, help="documents a task, for a trial")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--no_chat_template", action="store_true", help="give the prompts as they are, whatever the tokenizer has"
    )
    parser.add_argument("--overwrite", action="store_true", help="remove what is in the folder, and start anew")


def run(args: argparse.Namespace) -> int:
    """Evaluate the pairs that are missing, then write and print the table. The exit status is 1 where some failed."""
    checkpoints = named(args.checkpoints, "--checkpoints")
    rewards = {name: reward_of(name) for name in checkpoints} | _rewards(args.rewards, checkpoints)
    check_installed(args.tasks)
    for folder in args.include_path:
        if not folder.is_dir():
            raise CommandError(f"--include_path {folder}: no such folder")
    asked = {
        "backend": args.backend,
        "model_args": {key: _literal(value) for key, value in named(args.model_args, "--model_args").items()},
        "gen_kwargs": {key: _literal(value) for key, value in named(args.gen_kwargs, "--gen_kwargs").items()},
        "limit": args.limit,
        "seed": args.seed,
        "apply_chat_template": False if args.no_chat_template else None,
    }
    if args.overwrite:
        hold(args.output)
        for file in (args.output / "pairs").glob("*/*.json"):
            file.unlink()
    opened = open_run(
        args.output,
        "grpo_table",
        settings=asked,
        notes={
            "checkpoints": checkpoints,
            "rewards": rewards,
            "tasks": list(args.tasks),
            "benchmarks": {name: benchmark_of(name)._asdict() for name in args.tasks},
        },
        rules=RULES,
        overwrite=args.overwrite,
    )
    include = [TASK_FOLDER, *args.include_path]
    failed = evaluate_pairs(args.output, checkpoints, args.tasks, asked, include)
    results = table_results(args.output, checkpoints, args.tasks, rewards)
    path = opened.finish(results, RULES)
    print(table_text(results, list(checkpoints), list(args.tasks)))
    print(path, file=sys.stderr)
    for name in failed:
        missing = [task for task in args.tasks if not pair_file(args.output, name, task).exists()]
        message = f"failed: {name} ({', '.join(missing)})" if missing else f"failed: {name}"
        print(f"{message}; the same command again runs what is missing", file=sys.stderr)
    return 1 if failed else 0


def named(texts: Iterable[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` texts by name. Raises `CommandError` for what is none, and for a name that comes twice."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise CommandError(f"{option} takes NAME=VALUE, not {text!r}")
        if name in values:
            raise CommandError(f"{option}: two are called {name!r}")
        values[name] = value
    return values


def reward_of(name: str) -> str:
    """The reward that a checkpoint's or run's name holds; "" where it holds none.

    >>> [reward_of(name) for name in ("tiny_flip", "llmjudge-seed2", "base")]
    ['flip', 'pointwise', '']
    """
    lowered = name.lower()
    for pattern, reward in (
        (r"listwise", "listwise"),
        (r"pairwise", "pairwise"),
        (r"judge|quality|pointwise", "pointwise"),
        (r"flip", "flip"),
        (r"rlvr|verifi", "rlvr"),
    ):
        if re.search(pattern, lowered):
            return reward
    return ""


def evaluate_pairs(
    output: Path,
    checkpoints: Mapping[str, str],
    tasks: Sequence[str],
    asked: Mapping[str, Any],
    include: Sequence[Path],
) -> list[str]:
    """Run what has no file yet, a process a checkpoint; the names of checkpoints whose process failed.

    Raises `CommandError` where a file is of another checkpoint, of one that was changed since, or was made with other
    settings.
    """
    from tqdm import tqdm

    of = {name: {"checkpoint": path, "contents": contents_of(path)} for name, path in checkpoints.items()}
    waiting = {
        name: [task for task in tasks if not _done(pair_file(output, name, task), {**asked, **of[name]})]
        for name in checkpoints
    }
    failed = []
    total = len(checkpoints) * len(tasks)
    with tqdm(total=total, initial=total - sum(map(len, waiting.values())), unit="task", desc="lm-eval") as bar:
        for name, missing in waiting.items():
            if not missing:
                continue
            jobs = [{"task": benchmark_of(task).task, "file": str(pair_file(output, name, task))} for task in missing]
            job = {
                **asked,
                **of[name],
                "tasks": jobs,
                "include_path": [str(one) for one in include],
            }
            if _run_worker(job) != 0:
                failed.append(name)
            bar.update(sum(pair_file(output, name, task).exists() for task in missing))
    return failed


def pair_file(output: Path, checkpoint: str, task: str) -> Path:
    """Where the results of a pair stand."""
    return output / "pairs" / _file_name(checkpoint) / f"{_file_name(task)}.json"


def table_results(
    output: Path, checkpoints: Iterable[str], tasks: Iterable[str], rewards: Mapping[str, str]
) -> list[Result]:
    """The numbers of each finished pair, a metric each; the benchmark's own comes first, marked in its `note`."""
    results = []
    for name in checkpoints:
        for task in tasks:
            path = pair_file(output, name, task)
            if path.exists():
                results += _pair_results(
                    json.loads(path.read_text(encoding="utf-8")), name, task, rewards.get(name, "")
                )
    return results


def table_text(results: Sequence[Result], checkpoints: Sequence[str], tasks: Sequence[str]) -> str:
    """The table in Markdown: value ± standard error in percent, by each benchmark's own metric."""
    own = {(result.judge, result.group): result for result in results if result.note.startswith("primary")}
    lines = ["| checkpoint | " + " | ".join(benchmark_of(task).title for task in tasks) + " |"]
    lines.append("|---" * (len(tasks) + 1) + "|")
    for name in checkpoints:
        lines.append(f"| {name} | " + " | ".join(_shown(own.get((name, task))) for task in tasks) + " |")
    return "\n".join(lines)


def _shown(result: Result | None) -> str:
    if result is None or result.value is None:
        return "–"
    if result.high is None or result.low is None:
        return f"{100 * result.value:.1f}"
    return f"{100 * result.value:.1f} ± {100 * (result.high - result.low) / 2 / NORMAL_95:.1f}"


def _pair_results(saved: Mapping[str, Any], checkpoint: str, task: str, reward: str) -> list[Result]:
    benchmark = benchmark_of(task)
    metrics = metrics_of(saved, benchmark.task)
    primary = benchmark.metric if benchmark.metric in metrics else next(iter(metrics))
    results = []
    for key in sorted(metrics, key=lambda key: key != primary):
        value, error = metrics[key]
        results.append(
            Result(
                evaluation="grpo_table",
                judge=checkpoint,
                method=reward,
                group=task,
                metric=key.removesuffix(",none"),
                value=value,
                low=None if error is None else value - NORMAL_95 * error,
                high=None if error is None else value + NORMAL_95 * error,
                n=size_of(saved, benchmark.task),
                note=("primary" if key == primary else "") + (f": {benchmark.note}" if benchmark.note else ""),
            )
        )
    return results


def _done(file: Path, wanted: Mapping[str, Any]) -> bool:
    if not file.exists():
        return False
    saved = json.loads(file.read_text(encoding="utf-8"))
    for what in ("checkpoint", *SAME):
        if saved.get(what) != wanted[what]:
            raise CommandError(
                f"{file} was made with {what} {saved.get(what)!r}, not {wanted[what]!r}: "
                "choose another --output or another name, or use --overwrite"
            )
    # A pair of an older version does not know, a hub's id has none, and what was deleted since stays in the table.
    if None not in (saved.get("contents"), wanted["contents"]) and saved["contents"] != wanted["contents"]:
        raise CommandError(
            f"{wanted['checkpoint']} has changed since {file} was made: give the new one another name, "
            f"or remove {file.parent}, and it is evaluated again"
        )
    return True


def _run_worker(job: Mapping[str, Any]) -> int:
    with tempfile.TemporaryDirectory(prefix="flip-eval-") as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        return subprocess.run(
            [sys.executable, "-m", "flip_plugin.evals.lm_eval.worker", str(file)], check=False
        ).returncode


def _rewards(texts: Iterable[str], checkpoints: Mapping[str, str]) -> dict[str, str]:
    rewards = named(texts, "--rewards")
    for name, reward in rewards.items():
        if name not in checkpoints:
            raise CommandError(f"--rewards {name}: no such checkpoint, only {', '.join(checkpoints)}")
        if reward not in REWARDS:
            raise CommandError(f"--rewards {name}={reward}: must be one of {', '.join(REWARDS)}")
    return {name: "" if reward == "none" else reward for name, reward in rewards.items()}


def _literal(text: str) -> Any:
    """``true``, ``3`` and ``0.5`` as what they look like; other text as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
