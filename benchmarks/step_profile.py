"""Where the time of a training step goes: CPU seconds a step for each process of a run.

    python benchmarks/step_profile.py --first 5 --last 25 -- bash scripts/train/grpo_flip.sh --total_episodes 3840

Starts the command, watches its output for the progress lines, and reads the CPU time of every process
that it started (children, Ray's workers and their children) when step `--first` and step `--last` are
printed. CPU seconds are little disturbed by what else the machine does; wall seconds are.
Prints a table and one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import uuid

from helpers.run_processes import TAG, processes


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=5)
    parser.add_argument("--last", type=int, default=25)
    parser.add_argument("command", nargs="+", help="after --: the run to watch")
    args = parser.parse_args()
    tag = uuid.uuid4().hex
    child = subprocess.Popen(args.command, stdout=subprocess.PIPE, text=True, env=os.environ | {TAG: tag})
    assert child.stdout
    marks = {}
    for line in child.stdout:
        print(line, end="", file=sys.stderr)
        step = re.match(r"step\s+(\d+)/", line)
        if step and int(step[1]) in (args.first, args.last):
            marks[int(step[1])] = (time.perf_counter(), processes(tag))
    if child.wait() or len(marks) < 2:
        sys.exit(f"the run ended with code {child.returncode} after {len(marks)} of 2 readings")
    (t0, before), (t1, after) = marks[args.first], marks[args.last]
    steps = args.last - args.first
    by_role: dict[str, float] = {}
    for pid, (role, seconds) in after.items():
        by_role[role] = by_role.get(role, 0.0) + (seconds - before.get(pid, ("", 0.0))[1]) / steps
    wall = (t1 - t0) / steps
    for role, seconds in sorted(by_role.items(), key=lambda item: -item[1]):
        print(f"{seconds:8.3f} CPU s a step  {role}")
    print(f"{sum(by_role.values()):8.3f} CPU s a step  all;  {wall:.3f} s wall on {os.cpu_count()} cores")
    print(json.dumps({"wall_s_per_step": wall, "cpu_s_per_step": by_role, "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()
