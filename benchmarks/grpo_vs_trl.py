"""Our trainer and TRL's GRPOTrainer side by side: the same policy, prompts, sampling, judge server and reward.

    python benchmarks/grpo_vs_trl.py            # under ten minutes on two quiet cores
    python benchmarks/grpo_vs_trl.py --quick    # one short round: does it work?

One vLLM judge server is started and serves both. Rounds alternate (ours, TRL, ours, TRL, ...), each a
training run of its own whose first steps are not counted. Every finished run is in
OUTPUT/results.json at once; the same command goes on where a stopped one was. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from helpers.tiny_runs import ROOT, WORLD, Results, judge_server, make_rows
from helpers.watched_run import RunFailed, Watched, profile, watch
from trl_run import GENERATIONS, Settings

JUDGE_MODEL = f"hosted_vllm/{WORLD / 'judge'}"
PROMPTS, SAMPLES = 16, 8
#: Steps that our trainer runs past the measured ones: its last ones have no generation beside them.
TAIL = 3
# Reward -> what the rows' column `dataset` says.
REWARDS = {"judge": "general-flip", "rule": "constraints_satisfied"}
SYSTEMS = ("ours", "trl")
SHOWN = (
    "samples_a_second",
    "seconds_a_step",
    "median_step",
    "system_cpu",
    "judge_cpu",
    "busy_cores",
    "foreign_cores",
)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="of each system with the judge (default: %(default)s)")
    parser.add_argument(
        "--rule_rounds", type=int, default=1, help="of each system with a rule for a reward, no judge (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=24, help="measured steps a round (default: %(default)s)")
    parser.add_argument("--skip", type=int, default=6, help="steps before these (default: %(default)s)")
    parser.add_argument("--trl_generation", choices=GENERATIONS, default="transformers", help="how TRL samples")
    parser.add_argument("--trl_threads", type=int, default=os.cpu_count(), help="torch's threads in TRL")
    parser.add_argument("--only", choices=SYSTEMS, help="one of the two")
    parser.add_argument("--quick", action="store_true", help="one round of 4 steps with the judge")
    parser.add_argument("--profile", action="store_true", help="py-spy samples of every process, into OUTPUT/profile")
    parser.add_argument("--fresh", action="store_true", help="measure again what OUTPUT already holds")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "grpo_vs_trl", help="folder for all of it")
    parser.add_argument("ours", nargs="*", metavar="FLAG", help="after --: further flags of open_instruct.grpo_fast")
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds, args.rule_rounds, args.steps, args.skip = 1, 0, 4, 4
    return args


def main(argv: list[str] | None = None) -> None:
    """Measure what is missing, and print the tables."""
    args = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    results = results_of(args)
    rows = {reward: make_rows(args.output / f"{reward}_rows.jsonl", 2048, REWARDS[reward]) for reward in REWARDS}
    plan = [
        (reward, number, system)
        for reward, rounds in (("judge", args.rounds), ("rule", args.rule_rounds))
        for number in range(1, rounds + 1)
        for system in SYSTEMS
        if args.only in (None, system) and not results.find(reward=reward, round=number, system=system)
    ]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(judge_server(args.output)) if any(r == "judge" for r, *_ in plan) else None
        for reward, number, system in plan:
            print(f"{system}, {reward}, round {number}", file=sys.stderr, flush=True)
            began = time.perf_counter()
            result = measure(args, system, reward, number, rows[reward], server if reward == "judge" else None)
            results.add({**result, "seconds_in_all": time.perf_counter() - began})
    report(results)


def measure(
    args: argparse.Namespace, system: str, reward: str, number: int, rows: Path, server: Any | None
) -> dict[str, Any]:
    """One run of one system; a run that fails is tried once more."""
    name = f"{system}_{reward}_{number}"
    folder = args.output / name
    command, env = (ours if system == "ours" else trl)(args, folder, rows, server)
    options: dict[str, Any] = {"first": args.skip, "last": args.skip + args.steps}
    if args.profile:
        options["at_first"] = partial(profile, args.output / "profile" / name)
    judge_pid = server.pid() if server else None
    for left in (1, 0):
        try:
            log = args.output / "logs" / f"{name}.log"
            watched = watch(command, env=env, log=log, judge_pid=judge_pid, **options)
            break
        except RunFailed as error:
            if not left:
                sys.exit(str(error))
            print(f"{error}\nonce more", file=sys.stderr)
    stages = our_stages(folder, args) if system == "ours" else trl_stages(folder, args)
    return {
        "system": system,
        "reward": reward,
        "round": number,
        **asdict(watched),
        **numbers(watched),
        "stages": stages,
    }


def ours(args: argparse.Namespace, folder: Path, rows: Path, server: Any | None) -> tuple[list[str], dict[str, str]]:
    """The tiny profile, with this benchmark's rows, and neither evaluations nor states on disk."""
    flags = [
        *("--total_episodes", str((args.skip + args.steps + TAIL) * PROMPTS * SAMPLES)),
        *("--local_eval_every", "-1", "--eval_on_step_0", "False", "--checkpoint_state_freq", "-1"),
        *args.ours,
    ]
    env = {"PROFILE": "tiny", "OUTPUT_DIR": str(folder), "DATASETS": f"{rows} 1.0", "JUDGE_MODEL": JUDGE_MODEL}
    if server:
        env["HOSTED_VLLM_API_BASE"] = server.url()
    return ["bash", str(ROOT / "scripts" / "train" / "grpo_flip.sh"), *flags], env


def trl(args: argparse.Namespace, folder: Path, rows: Path, server: Any | None) -> tuple[list[str], dict[str, str]]:
    """TRL's trainer in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        policy=str(WORLD / "policy"),
        rows=str(rows),
        output=str(folder / "stages.jsonl"),
        steps=args.skip + args.steps,
        judge_model=JUDGE_MODEL if server else None,
        api_base=server.url() if server else None,
        generation=args.trl_generation,
        threads=args.trl_threads,
    )
    env = {"OMP_NUM_THREADS": str(args.trl_threads), "PYTHONPATH": str(ROOT)}
    return [sys.executable, str(ROOT / "benchmarks" / "trl_run.py"), json.dumps(asdict(settings))], env


def our_stages(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Median seconds of each stage of our measured steps, by the trainer's own metrics. They overlap."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if args.skip < line["training_step"] <= args.skip + args.steps]
    names = sorted(name for name in steps[0] if name.startswith("time/"))
    return {name: statistics.median(step[name] for step in steps if step.get(name) is not None) for name in names}


def trl_stages(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Median seconds of each stage of TRL's measured steps. They come one after the other."""
    steps = [json.loads(line) for line in (folder / "stages.jsonl").read_text().splitlines()][args.skip :]
    return {f"time/{name}": statistics.median(step[name] for step in steps) for name in steps[0]}


def numbers(watched: Watched) -> dict[str, float]:
    """What the table shows of a run."""
    system_cpu = sum(watched.cpu_by_role.values())
    return {
        "seconds_a_step": watched.seconds,
        "median_step": statistics.median(watched.step_seconds),
        "samples_a_second": PROMPTS * SAMPLES / watched.seconds,
        "system_cpu": system_cpu,
        "busy_cores": (system_cpu + watched.judge_cpu) / watched.seconds,
        "foreign_cores": watched.foreign_cpu / watched.seconds,
    }


def results_of(args: argparse.Namespace) -> Results:
    """OUTPUT/results.json: settings, machine and every finished run. Exits where it holds runs of other settings."""
    settings = {name: getattr(args, name) for name in ("steps", "skip", "trl_generation", "trl_threads", "ours")}
    return Results(args.output / "results.json", settings, fresh=args.fresh)


def report(results: Results) -> None:
    """The tables, and the summary in the file."""
    summary = {reward: summarise(results.find(reward=reward)) for reward in ("judge", "rule")}
    results.data["summary"] = summary
    results.save()
    for reward, found in summary.items():
        print_table(reward, found)
    print(f"all of it: {results.path}")


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds with their range, for each system, and the ratio of each round."""
    found: dict[str, Any] = {}
    for system in SYSTEMS:
        mine = [run for run in runs if run["system"] == system]
        if mine:
            found[system] = {
                name: {
                    "median": statistics.median(run[name] for run in mine),
                    "range": [min(run[name] for run in mine), max(run[name] for run in mine)],
                }
                for name in SHOWN
            }
            found[system]["rounds"] = len(mine)
    by_round = {(run["system"], run["round"]): run["samples_a_second"] for run in runs}
    ratios = [by_round["ours", n] / by_round["trl", n] for s, n in by_round if s == "ours" and ("trl", n) in by_round]
    if ratios:
        found["ratio"] = {"median": statistics.median(ratios), "range": [min(ratios), max(ratios)]}
    return found


def print_table(reward: str, found: dict[str, Any]) -> None:
    """One line a system."""
    if not any(system in found for system in SYSTEMS):
        return
    print(f"\n{'with the judge' if reward == 'judge' else 'without a judge: a rule for a reward'}")
    heads = (("samples/s", 22), ("s a step", 20), ("CPU s a step", 14), ("judge server", 14), ("busy cores", 12))
    print(" " * 6 + "".join(f"{head:>{width}}" for head, width in (*heads, ("of others", 11))))
    for system in SYSTEMS:
        if system in found:
            row = found[system]
            rate, step = row["samples_a_second"], row["seconds_a_step"]
            print(
                f"{system:6}{spread(rate, 1):>22}{spread(step, 2):>20}{row['system_cpu']['median']:>14.2f}"
                f"{row['judge_cpu']['median']:>14.2f}{row['busy_cores']['median']:>12.2f}{row['foreign_cores']['median']:>11.2f}"
            )
    if "ratio" in found:
        print(f"ours / TRL, round by round: {spread(found['ratio'], 2)}")


def spread(values: dict[str, Any], digits: int) -> str:
    """Median with range."""
    low, high = values["range"]
    return f"{values['median']:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


if __name__ == "__main__":
    main()
