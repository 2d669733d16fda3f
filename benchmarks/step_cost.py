"""What one training step costs as group size, response length and model grow.

    python benchmarks/step_cost.py                  # one axis at a time, and all three together: 7 cells, 2 rounds
    python benchmarks/step_cost.py --grid full      # all 18 cells
    python benchmarks/step_cost.py --only 8,64,1    # one cell

Each cell is a real training run (Ray, vLLM, DeepSpeed, FLIP with a judge server) of a few steps, of which the
first two are not counted. The second round goes through the cells backwards, so that a machine that slows down
does not bend a curve. Finished runs are kept in OUTPUT/results.json, and a stopped benchmark goes on.
Prints a Markdown table. CPU seconds are little disturbed by what else the machine does; wall seconds are.
"""

from __future__ import annotations

import argparse
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

GROUPS, LENGTHS, SCALES = (4, 8, 16), (32, 64, 128), (1, 4)
BASE = (8, 64, 1)
PROMPTS = 8
SKIP = 2

Cell = tuple[int, int, int]  # group size, response length, times the tiny policy


def cells(grid: str) -> list[Cell]:
    """Of "axes": the base, each axis varied alone, and the largest of all three."""
    if grid == "full":
        return [(g, n, s) for s in SCALES for n in LENGTHS for g in GROUPS]
    found = [(g, BASE[1], BASE[2]) for g in GROUPS] + [(BASE[0], n, BASE[2]) for n in LENGTHS]
    found += [(BASE[0], BASE[1], s) for s in SCALES] + [(GROUPS[-1], LENGTHS[-1], SCALES[-1])]
    return list(dict.fromkeys(found))


def measure(args: argparse.Namespace, cell: Cell, folder: Path, rows: Path, server: Any) -> dict[str, Any]:
    """One run of a cell. Raises `RunFailed`."""
    group, length, scale = cell
    last = SKIP + args.steps
    command = [
        sys.executable,
        "-m",
        "open_instruct.grpo_fast",
        *flags(
            args.output / f"policy_x{scale}",
            rows,
            folder,
            prompts=PROMPTS,
            group=group,
            length=length,
            steps=last + TAIL,
        ),
    ]
    log = args.output / "logs" / f"{folder.name}.log"
    environment = {"HOSTED_VLLM_API_BASE": server.url()}
    watched = watch(command, env=environment, log=log, first=SKIP, last=last, judge_pid=server.pid())
    logged = stages(folder, SKIP, last)
    cpu = sum(watched.cpu_by_role.values()) + watched.judge_cpu
    return {
        "seconds": watched.seconds,
        "cpu_seconds": cpu,
        "cpu_by_role": {**watched.cpu_by_role, "judge": watched.judge_cpu},
        "foreign_cpu": watched.foreign_cpu,
        "samples": PROMPTS * group,
        "tokens": logged["val/num_step_tokens_trained"],
        "stages": logged,
    }


def run_all(args: argparse.Namespace, results: Results, wanted: list[Cell]) -> None:
    """Every run that is not on disk yet."""
    todo = [
        (number, cell)
        for number in range(1, args.rounds + 1)
        for cell in (wanted if number % 2 else wanted[::-1])
        if not results.find(round=number, cell=list(cell))
    ]
    if not todo:
        return
    args.output.mkdir(parents=True, exist_ok=True)
    sizes = {scale: make_policy(args.output / f"policy_x{scale}", scale) for scale in {cell[2] for _, cell in todo}}
    rows = make_rows(args.output / "rows.jsonl")
    with judge_server(args.output) as server:
        for number, cell in todo:
            name = "g{}_n{}_x{}".format(*cell) + f"_round{number}"
            print(name, file=sys.stderr, flush=True)
            began = time.perf_counter()
            try:
                found = measure(args, cell, args.output / name, rows, server)
            except RunFailed as error:
                print(f"{name} is left out; the same command tries it again.\n{error}", file=sys.stderr)
                continue
            whole = time.perf_counter() - began
            results.add({"round": number, "cell": list(cell), "parameters": sizes[cell[2]], "whole": whole, **found})


def table(results: Results, wanted: list[Cell]) -> str:
    """A row a cell, means over its rounds."""
    lines = [
        "| G | response tokens | policy | samples | tokens | s a step | CPU s a step | of it: engine, judge, learner "
        "| samples/s | tokens/s | CPU ms a sample | CPU ms a token |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in wanted:
        runs = results.find(cell=list(cell))
        if not runs:
            continue
        seconds, cpu = mean([run["seconds"] for run in runs]), mean([run["cpu_seconds"] for run in runs])
        samples, tokens = runs[0]["samples"], mean([run["tokens"] for run in runs])
        parts = [mean([_part(run, role) for run in runs]) for role in ("engine", "judge", "learner")]
        size = f"{runs[0]['parameters'] / 1e6:.1f} M"
        lines.append(
            f"| {cell[0]} | {cell[1]} | {size} | {samples} | {tokens:,.0f} | {seconds:.2f} "
            f"| {cpu:.2f} | {', '.join(f'{part:.2f}' for part in parts)} | {samples / seconds:.0f} "
            f"| {tokens / seconds:,.0f} | {1000 * cpu / samples:.1f} | {1000 * cpu / tokens:.2f} |"
        )
    return "\n".join(lines)


def _part(run: dict[str, Any], role: str) -> float:
    return sum(seconds for name, seconds in run["cpu_by_role"].items() if role in name.partition("(")[0])


def main(argv: list[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", choices=("axes", "full"), default="axes")
    parser.add_argument("--only", help="one cell: group,length,scale")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each cell (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="measured steps of a run (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="measure again what OUTPUT already holds")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "step_cost")
    args = parser.parse_args(argv)
    wanted = cells(args.grid)
    if args.only:
        group, length, scale = map(int, args.only.split(","))
        wanted = [(group, length, scale)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    results = Results(args.output / "results.json", {"steps": args.steps, "prompts": PROMPTS}, fresh=args.fresh)
    run_all(args, results, wanted)
    print(f"{table(results, wanted)}\n\n{disturbance(results.runs)}")


if __name__ == "__main__":
    main()
