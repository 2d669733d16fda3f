"""Weak scaling: 1, 2 and 3 Ray nodes, with a learner, a policy engine and the same number of prompts for each.

    python benchmarks/weak_scaling.py

The nodes are simulated on this machine by Ray's own cluster utility, each with a raylet, a store and workers of its
own; the trainer attaches to them by RAY_ADDRESS, as it would to machines. They share this machine's cores, so time
cannot stay flat. What can is the work: CPU seconds a sample, and samples a CPU second, show what each further node
costs in all-reduce, weight sync, packing for more ranks and Ray itself. One judge server outside serves all cells.
Finished runs are kept in OUTPUT/results.json. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from helpers.tiny_runs import (
    ROOT,
    TAIL,
    Results,
    disturbance,
    flags,
    judge_server,
    make_policy,
    make_rows,
    mean,
    stages,
)
from helpers.watched_run import RunFailed, watch

PROMPTS, GROUP, LENGTH = 8, 8, 64  # of each node
SKIP = 2
#: Logical CPUs of a simulated node: learner, engine, data preparation, and one to spare.
NODE_CPUS = 4
STORE_BYTES = 200 * 2**20


def train_on_nodes(nodes: int, words: list[str]) -> None:
    """In a process of its own: start `nodes` simulated nodes, train on them with the flags `words`, end them."""
    os.environ.setdefault("RAY_enable_worker_prestart", "0")
    from ray.cluster_utils import Cluster

    from open_instruct import grpo_fast

    node: dict[str, Any] = {"num_cpus": NODE_CPUS, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        os.environ["RAY_ADDRESS"] = cluster.address
        sys.argv[1:] = words
        grpo_fast.main()
    finally:
        cluster.shutdown()


def measure(args: argparse.Namespace, nodes: int, folder: Path, rows: Path, server: Any) -> dict[str, Any]:
    """One run on `nodes` nodes. Raises `RunFailed`."""
    last = SKIP + args.steps
    words = flags(
        args.output / "policy", rows, folder, prompts=PROMPTS * nodes, group=GROUP, length=LENGTH, steps=last + TAIL
    )
    words += ["--num_learners_per_node", *["1"] * nodes, "--vllm_num_engines", str(nodes), "--deepspeed_stage", "2"]
    command = [sys.executable, str(Path(__file__)), "--nodes_of_this_run", str(nodes), "--", *words]
    environment = {"HOSTED_VLLM_API_BASE": server.url()}
    log = args.output / "logs" / f"{folder.name}.log"
    options: dict[str, Any] = {"first": SKIP, "last": last, "judge_pid": server.pid(), "silence": 240.0 * nodes}
    watched = watch(command, env=environment, log=log, **options)
    logged = stages(folder, SKIP, last)
    return {
        "seconds": watched.seconds,
        "cpu_seconds": sum(watched.cpu_by_role.values()) + watched.judge_cpu,
        "cpu_by_role": {**watched.cpu_by_role, "judge": watched.judge_cpu},
        "foreign_cpu": watched.foreign_cpu,
        "samples": PROMPTS * nodes * GROUP,
        "tokens": logged["val/num_step_tokens_trained"],
        "stages": logged,
    }


def run_all(args: argparse.Namespace, results: Results) -> None:
    """Every run that is not on disk yet; odd rounds from few nodes to many, even rounds back."""
    todo = [
        (number, nodes)
        for number in range(1, args.rounds + 1)
        for nodes in (args.nodes if number % 2 else args.nodes[::-1])
        if not results.find(round=number, nodes=nodes)
    ]
    if not todo:
        return
    make_policy(args.output / "policy", 1)
    rows = make_rows(args.output / "rows.jsonl")
    with judge_server(args.output) as server:
        for number, nodes in todo:
            name = f"nodes{nodes}_round{number}"
            print(name, file=sys.stderr, flush=True)
            began = time.perf_counter()
            try:
                found = measure(args, nodes, args.output / name, rows, server)
            except RunFailed as error:
                print(f"{name} is left out; the same command tries it again.\n{error}", file=sys.stderr)
                continue
            results.add({"round": number, "nodes": nodes, "whole": time.perf_counter() - began, **found})


def table(results: Results, all_nodes: list[int]) -> str:
    """A row for each number of nodes, means over the rounds; efficiency is against the first row."""
    lines = [
        "| nodes | learners x engines | samples a step | s a step | samples/s | CPU s a step | CPU ms a sample "
        "| samples a CPU second | efficiency |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    first = None
    for nodes in all_nodes:
        runs = results.find(nodes=nodes)
        if not runs:
            continue
        seconds, cpu = mean([run["seconds"] for run in runs]), mean([run["cpu_seconds"] for run in runs])
        samples = runs[0]["samples"]
        first = first or samples / cpu
        lines.append(
            f"| {nodes} | {nodes} x {nodes} | {samples} | {seconds:.2f} | {samples / seconds:.0f} | {cpu:.2f} "
            f"| {1000 * cpu / samples:.1f} | {samples / cpu:.1f} | {samples / cpu / first:.0%} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 3], help="numbers of nodes (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="measured steps of a run (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="measure again what OUTPUT already holds")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "weak_scaling")
    parser.add_argument("--nodes_of_this_run", type=int, help=argparse.SUPPRESS)
    parser.add_argument("flags", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.nodes_of_this_run:
        train_on_nodes(args.nodes_of_this_run, args.flags)
        return
    settings = {"steps": args.steps, "prompts": PROMPTS, "group": GROUP, "length": LENGTH}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    results = Results(args.output / "results.json", settings, fresh=args.fresh)
    run_all(args, results)
    print(f"{table(results, args.nodes)}\n\n{disturbance(results.runs)}")


if __name__ == "__main__":
    main()
