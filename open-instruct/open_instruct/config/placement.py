"""Reserving a plan's places on a Ray cluster: placement groups, and a strategy for each actor.

A group is reserved as a whole or not at all, so a run never holds half of what it needs while it waits for the
rest; what a group holds stays with the run when an actor in it is started again. On machines without a GPU the
bundles are of logical CPUs, by the same code.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from open_instruct.config.args import FlagError
from open_instruct.config.resource_plan import ENGINE, JUDGE, LEARNER, Bundle, Group, ResourcePlan

logger = logging.getLogger(__name__)

#: Seconds until a group that does not come free is given up. The plan is known to fit the cluster by then,
#: so another job holds what is missing.
PATIENCE_S = 300.0


@dataclass
class Placement:
    """A scheduling strategy for each actor of a part, by number."""

    learner: list[Any] = field(default_factory=list)
    engine: list[Any] = field(default_factory=list)
    judge: list[Any] = field(default_factory=list)
    groups: list[Any] = field(default_factory=list, repr=False)

    def where(self) -> str:
        """Which node holds what, as Ray placed it: a line for each node."""
        import ray

        held: dict[str, Counter[str]] = {}
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        for name, strategies in ((LEARNER, self.learner), (ENGINE, self.engine), (JUDGE, self.judge)):
            for strategy in strategies:
                table = ray.util.placement_group_table(strategy.placement_group)
                node = table["bundles_to_node_id"][strategy.placement_group_bundle_index]
                held.setdefault(addresses[node], Counter())[name] += 1
        return "\n".join(
            f"  {address}: " + ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in parts.items())
            for address, parts in sorted(held.items())
        )

    def release(self) -> None:
        """Give the places back; to be called when the actors have ended."""
        import ray

        for group in self.groups:
            ray.util.remove_placement_group(group)
        self.groups = []


def reserve(plan: ResourcePlan, patience: float = PATIENCE_S) -> Placement:
    """Reserve all places of `plan`, or none. Raises `FlagError` after `patience` seconds for each group."""
    placement = Placement()
    strategies = {LEARNER: placement.learner, ENGINE: placement.engine, JUDGE: placement.judge}
    try:
        if plan.single_gpu_mode:
            _reserve_one_gpu(plan, placement, strategies, patience)
        for group in plan.groups():
            handle = _placement_group([b.resources for b in group.bundles], group.strategy, placement)
            _await(handle, patience, _sentence(group, patience))
            strategies[group.name] += [
                _strategy(handle, i) for i, bundle in enumerate(group.bundles) for _ in bundle.actors
            ]
    except BaseException:
        placement.release()
        raise
    return placement


def _reserve_one_gpu(
    plan: ResourcePlan, placement: Placement, strategies: dict[str, list[Any]], patience: float
) -> None:
    """One bundle for all, since shares of a GPU in different bundles may be of different GPUs."""
    handle = _placement_group([{"CPU": plan.ray_cpus, "GPU": 1}], "PACK", placement)
    _await(handle, patience, f"No node had a whole GPU and {plan.ray_cpus} CPU slots free after {patience:.0f} s.")
    for name, of_part in strategies.items():
        of_part += [_strategy(handle, 0) for part in plan.parts if part.name == name for _ in range(part.count)]


def _placement_group(bundles: list[dict[str, float]], strategy: str, placement: Placement) -> Any:
    import ray

    handle = ray.util.placement_group(bundles, strategy=strategy)
    placement.groups.append(handle)
    return handle


def _strategy(handle: Any, index: int) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return PlacementGroupSchedulingStrategy(handle, placement_group_bundle_index=index)


def _await(handle: Any, patience: float, sentence: str) -> None:
    import ray

    first = min(5.0, patience)
    if handle.wait(first):
        return
    logger.info("waiting up to %.0f s for places that others hold", patience)
    if not handle.wait(max(patience - first, 0.0)):
        available = ray.available_resources()
        free = ", ".join(f"{available[name]:g} {name}" for name in ("GPU", "CPU") if available.get(name)) or "nothing"
        raise FlagError(f"{sentence} Free on the whole cluster: {free}. `ray status` shows who holds what.")


def _sentence(group: Group, patience: float) -> str:
    sizes = {(bundle.size, bundle.unit) for bundle in group.bundles}
    each = " and ".join(_size(b) for b in {(b.size, b.unit): b for b in group.bundles}.values())
    where = "on different nodes" if group.strategy == "STRICT_SPREAD" else "together on one node, each"
    what = f"{len(group.bundles)} x {each}" if len(sizes) == 1 else each
    part = group.bundles[0].part
    return f"The cluster had no room for the {part.name}s after {patience:.0f} s: {what}, {where} (see {part.flag})."


def _size(bundle: Bundle) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in bundle.resources.items())
