"""`--dry_run`: the recipe in force, how it differs from the published one, and what would run where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from open_instruct.config.args import Args, FlagError
from open_instruct.config.memory_plan import one_gpu_report
from open_instruct.run.judge import external_urls


def print_dry_run(args: Args, *, plan_for: Callable[..., Any], on_cpu: bool) -> None:
    """Print it all; raises `FlagError` when the plan cannot work on any cluster.

    `plan_for(args, on_cpu=, own_judge=)` is the resource plan. A recipe for GPUs is planned for GPUs, whatever
    this machine has; only a local policy on a machine without one is planned for CPUs.
    """
    defaults = Args()
    print(f"{args.num_training_steps} steps of {args.samples_per_step} samples. Flags that differ from their defaults:")
    for name, value in vars(args).items():
        if value != getattr(defaults, name):
            print(f"  --{name} {' '.join(map(str, value)) if isinstance(value, list) else value}")
    if args.compare_with_published:
        from open_instruct.config.published import describe

        print(describe(args))
    local = args.model_name_or_path.startswith(("/", "./", "datasets_prep"))
    own_judge = args.judge_model_id is not None and not external_urls()
    plan = plan_for(args, on_cpu=on_cpu and local, own_judge=own_judge)
    print(plan.describe())
    if plan.use_gpu:
        print(plan.describe_nodes(plan.usual_nodes()))
    if plan.single_gpu_mode:
        print(one_gpu_report(args, own_judge=own_judge, gpu_bytes=None, download=False))
    if plan.conflicts:
        raise FlagError("This plan cannot work:\n" + "\n".join(plan.conflicts))
    if args.dry_run_nodes:
        print(plan.describe_nodes(args.dry_run_nodes))
