"""What a run needs of the cluster, where it goes, and what is missing, in words.

Pure arithmetic; nothing here asks Ray or CUDA. The trainer makes the plan from its flags, prints
`describe()`, and compares it with `shortfall(ray.cluster_resources())` before it starts an actor,
since an actor that does not fit waits for ever. Then it reserves the plan's `groups()`
(`open_instruct.config.placement`): the learners' first, as they need whole nodes, then the others, large
bundles before small ones. `assign` says where they go, `describe_nodes` prints it.

On a machine without a GPU, a plan is in Ray's logical CPUs. Those are slots, not cores: the trainer
passes `ray_cpus` to `ray.init(num_cpus=...)`, so a laptop with two cores runs a plan of four, and
the number of cores never blocks a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GPUS_A_NODE = 8
LEARNER, ENGINE, JUDGE = "learner", "policy engine", "judge engine"
# What is left of a shared GPU for the learner must hold weights, gradients and optimiser.
LEAST_LEARNER_SHARE = 0.2


@dataclass(frozen=True)
class Part:
    """`count` actors of one kind; each takes `gpus` GPUs, all of one node, and `cpus` logical CPUs."""

    name: str
    count: int
    gpus: float
    cpus: int
    flag: str
    place: str

    @property
    def each(self) -> str:
        """What one actor takes, in words."""
        if 0 < self.gpus < 1:
            return f"{self.gpus:.0%} of a GPU"
        return _count(int(self.gpus), "GPU") if self.gpus else _count(self.cpus, "CPU slot")


@dataclass(frozen=True)
class Bundle:
    """What must be free together on one node, for `actors` of one part (by number). `unit`: "GPU" or "CPU"."""

    part: Part
    actors: range
    size: int
    unit: str

    @property
    def resources(self) -> dict[str, float]:
        """As Ray's placement groups take it."""
        return {"CPU": len(self.actors) * self.part.cpus} | ({"GPU": self.size} if self.unit == "GPU" else {})


@dataclass(frozen=True)
class Group:
    """A placement group: bundles, Ray's strategy, and the parts whose actors it places."""

    name: str
    bundles: tuple[Bundle, ...]
    strategy: str


@dataclass(frozen=True)
class ResourcePlan:
    """Actors and where they go. `bundles`: what must be free together on one node, each."""

    parts: tuple[Part, ...]
    use_gpu: bool
    single_gpu_mode: bool
    hosts_judge: bool
    bundles: tuple[Bundle, ...]
    conflicts: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs in all; actors that share one count as one."""
        if not self.use_gpu:
            return 0
        return 1 if self.single_gpu_mode else sum(bundle.size for bundle in self.bundles)

    def groups(self) -> tuple[Group, ...]:
        """Placement groups in the order in which they are to be reserved; none where all share one GPU.

        Learners of different bundles go to different nodes (STRICT_SPREAD), engines and judges are spread
        as well as may be.
        """
        groups = []
        for part in self.parts:
            bundles = tuple(bundle for bundle in self.bundles if bundle.part == part)
            if bundles:
                apart = part.name == LEARNER and len(bundles) > 1
                strategy = "STRICT_SPREAD" if apart else "PACK" if part.name == LEARNER else "SPREAD"
                groups.append(Group(part.name, bundles, strategy))
        return tuple(sorted(groups, key=lambda g: (g.name != LEARNER, -g.bundles[0].size)))

    @property
    def ray_cpus(self) -> int:
        """Ray's logical CPUs in all: hand it to `ray.init(num_cpus=...)` when the run starts Ray itself."""
        return sum(part.count * part.cpus for part in self.parts)

    def part(self, name: str) -> Part:
        """The part of that name; KeyError where the plan has none."""
        return {part.name: part for part in self.parts}[name]

    def describe(self) -> str:
        """The plan as a small table.

        >>> print(make_plan(num_learners_per_node=[1], vllm_num_engines=1, vllm_tensor_parallel_size=1,
        ...     judge_engines=1, judge_tensor_parallel_size=1, use_gpu=False).describe())
        Resource plan: no GPU, 4 CPU slots (slots are Ray's, not cores: two cores are enough)
          what              count  each        where
          learner           1      1 CPU slot  node 1
          policy engine     1      1 CPU slot  any node
          judge engine      1      1 CPU slot  any node
          data preparation  1      1 CPU slot  the driver's node
        """
        if self.use_gpu:
            total = f"{_count(self.gpus, 'GPU')}, {_count(self.ray_cpus, 'CPU slot')}"
        else:
            total = f"no GPU, {_count(self.ray_cpus, 'CPU slot')} (slots are Ray's, not cores: two cores are enough)"
        rows = [("what", "count", "each", "where")]
        rows += [(part.name, str(part.count), part.each, part.place) for part in self.parts]
        if not self.hosts_judge:
            rows.append(("judge", "-", "-", "served outside this run"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join([f"Resource plan: {total}", *(f"  {line}".rstrip() for line in lines)])

    def shortfall(self, available: Mapping[str, Any]) -> list[str]:
        """What is missing, a sentence each, with the flag to lower; empty when the plan fits.

        `available` is `ray.cluster_resources()` ("GPU", "CPU"); with a list of each node's resources
        under "nodes", it is also checked that what must be on one node, or on several, can be.
        """
        missing = list(self.conflicts)
        gpus = int(available.get("GPU", 0))
        if self.use_gpu and gpus < self.gpus:
            missing.append(
                f"{_count(self.gpus, 'GPU')} needed ({self._gpu_sum()}), {gpus or 'none'} available: "
                f"{self._gpu_advice(gpus)}."
            )
        cpus = int(available.get("CPU", self.ray_cpus))
        if cpus < self.ray_cpus:
            missing.append(
                f"{_count(self.ray_cpus, 'CPU slot')} needed, {cpus} available: start Ray with --num-cpus "
                f"{self.ray_cpus} (slots, not cores), or lower --vllm_num_engines."
            )
        if not missing and "nodes" in available:
            unit = "GPU" if self.use_gpu else "CPU"
            missing += self._unplaced([int(node.get(unit, 0)) for node in available["nodes"]])
        return missing

    def _gpu_sum(self) -> str:
        takers = [part for part in self.parts if part.gpus]
        return " + ".join(f"{part.count} x {part.each} for the {part.name}" for part in takers)

    def _gpu_advice(self, gpus: int) -> str:
        if gpus == 0:
            return "run on a machine with GPUs, or with PROFILE=tiny on this one"
        largest = max((part for part in self.parts if part.gpus), key=lambda part: part.count * part.gpus)
        advice = f"lower {largest.flag} (now {largest.count})"
        if self.hosts_judge:
            advice += ", or serve the judge elsewhere and name it in HOSTED_VLLM_API_BASE"
        return advice + (", or share one with --single_gpu_mode True" if gpus == 1 else "")

    def assign(self, nodes: Sequence[int]) -> list[tuple[Bundle, int | None]]:
        """Each bundle with the number of its node, from 0, or None where it finds no room.

        `nodes`: GPUs (CPU slots in a plan without GPUs) of each node. Learners first, each bundle on the first
        roomy node that has no other; the rest on the node with most room, as Ray's SPREAD does.
        """
        free, placed = list(nodes), []
        for group in self.groups():
            taken: set[int] = set()
            for bundle in sorted(group.bundles, key=lambda b: -b.size):
                roomy = [i for i, room in enumerate(free) if room >= bundle.size]
                if group.name == LEARNER:
                    node = next((i for i in roomy if i not in taken), None)
                else:
                    node = max(roomy, key=free.__getitem__, default=None)
                if node is not None:
                    free[node] -= bundle.size
                    taken.add(node)
                placed.append((bundle, node))
        return placed

    def usual_nodes(self, gpus: int = GPUS_A_NODE) -> list[int]:
        """Nodes of so many GPUs, as many as learners and policy engines fill; the judge may be served elsewhere.

        A plan that fits one node of fewer GPUs has that one.
        """
        if self.gpus <= gpus:
            return [self.gpus]
        trained = sum(bundle.size for bundle in self.bundles if bundle.part.name != JUDGE)
        apart = sum(bundle.part.name == LEARNER for bundle in self.bundles)
        return [gpus] * max(-(-trained // gpus), apart)

    def describe_nodes(self, nodes: Sequence[int], names: Sequence[str] = ()) -> str:
        """Which node holds what, for nodes with so many GPUs (or CPU slots); the first is taken for the driver's.

        >>> print(make_plan(num_learners_per_node=[8], vllm_num_engines=16, vllm_tensor_parallel_size=1,
        ...     judge_engines=1, judge_tensor_parallel_size=1, use_gpu=True).describe_nodes([8, 8, 8]))
        Placement on 3 nodes of 8 GPUs:
          node 1   8 GPUs  8 learners, data preparation
          node 2   8 GPUs  8 policy engines
          node 3   8 GPUs  8 policy engines
          no room  1 GPU   1 judge engine: needs one more node, or a server named in HOSTED_VLLM_API_BASE
        """
        unit = "GPU" if self.use_gpu else "CPU slot"
        names = names or [f"node {i}" for i in range(1, len(nodes) + 1)]
        held: list[Counter[str]] = [Counter() for _ in nodes]
        used, homeless = [0] * len(nodes), []
        for bundle, node in self.assign(nodes):
            if node is None:
                homeless.append(bundle)
                continue
            used[node] += bundle.size
            held[node][bundle.part.name] += len(bundle.actors)
        if self.single_gpu_mode:
            held[0] = Counter({part.name: part.count for part in self.parts if part.gpus})
            used[0] = 1
        rows = []
        for i, name in enumerate(names):
            holds = [_count(count, part) for part, count in held[i].items()]
            holds += ["data preparation"] if i == 0 else []
            rows.append((name, _count(used[i], unit), ", ".join(holds) or "nothing"))
        for bundle in homeless:
            outside = ", or a server named in HOSTED_VLLM_API_BASE" if bundle.part.name == JUDGE else ""
            what = _count(len(bundle.actors), bundle.part.name)
            rows.append(("no room", _count(bundle.size, unit), f"{what}: needs one more node{outside}"))
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        sizes = {*nodes}
        each = f" of {_count(sizes.pop(), unit)}" if len(sizes) == 1 else ""
        lines = [f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}" for row in rows]
        return "\n".join([f"Placement on {_count(len(nodes), 'node')}{each}:", *lines])

    def _unplaced(self, nodes: Sequence[int]) -> list[str]:
        """The first bundle without room, in words."""
        for bundle, node in self.assign(nodes):
            if node is None:
                return [self._no_room(bundle, nodes)]
        return []

    def _no_room(self, bundle: Bundle, nodes: Sequence[int]) -> str:
        part, unit = bundle.part, "GPU" if self.use_gpu else "CPU slot"
        bundles = [b for b in self.bundles if b.part == part]
        if part.name == LEARNER and len(bundles) > len(nodes):
            return (
                f"--num_learners_per_node names {len(bundles)} nodes, the cluster has {len(nodes)}: give the learners "
                f"of each node that exists, such as --num_learners_per_node {part.count}, or add nodes."
            )
        flag = part.flag
        if self.use_gpu and part.name != LEARNER and bundle.size > 1:
            flag = flag.replace("num_engines", "tensor_parallel_size")
        return (
            f"no node has {_count(bundle.size, unit)} left for the {part.name} (nodes have "
            f"{', '.join(map(str, nodes))}): lower {flag}."
        )


def make_plan(
    *,
    num_learners_per_node: Sequence[int],
    vllm_num_engines: int,
    vllm_tensor_parallel_size: int,
    judge_engines: int,
    judge_tensor_parallel_size: int,
    use_gpu: bool,
    single_gpu_mode: bool = False,
    vllm_gpu_memory_utilization: float = 0.9,
    judge_gpu_memory_utilization: float = 0.9,
    cpus_per_learner: int = 1,
    cpus_per_engine: int = 1,
    generates: bool = True,
) -> ResourcePlan:
    """The plan for these flags. `judge_engines` is 0 where the judge is served outside the run.

    A run of recorded rollouts alone (`generates=False`) has no policy engines.
    In `single_gpu_mode` the engines take the shares that are given to vLLM, and the learner the rest.
    """
    shared = single_gpu_mode and use_gpu
    judge_share = judge_engines * judge_gpu_memory_utilization
    engines = vllm_num_engines if generates else 0
    learner_share = round(1.0 - engines * vllm_gpu_memory_utilization - judge_share, 4)
    parallel = {"--vllm_tensor_parallel_size": vllm_tensor_parallel_size}
    parallel |= {"--llm_judge_tensor_parallel_size": judge_tensor_parallel_size} if judge_engines else {}

    def gpus(whole: int, share: float) -> float:
        return 0 if not use_gpu else share if shared else whole

    anywhere = "the one GPU" if shared else "any node"
    learners = sum(num_learners_per_node)
    nodes = [f"{count} on node {node}" for node, count in enumerate(num_learners_per_node, start=1) if count]
    learner = Part(
        LEARNER,
        learners,
        gpus(1, max(learner_share, 0.0)),
        cpus_per_learner,
        "--num_learners_per_node",
        "the one GPU" if shared else ", ".join(nodes) if learners > 1 else "node 1",
    )
    engine = Part(
        ENGINE,
        engines,
        gpus(vllm_tensor_parallel_size, vllm_gpu_memory_utilization),
        cpus_per_engine,
        "--vllm_num_engines",
        anywhere,
    )
    judge = Part(
        JUDGE,
        judge_engines,
        gpus(judge_tensor_parallel_size, judge_gpu_memory_utilization),
        cpus_per_engine,
        "--llm_judge_num_engines",
        anywhere,
    )
    preparation = Part("data preparation", 1, 0, 1, "", "the driver's node")
    bundles = () if shared else _bundles(num_learners_per_node, [learner, engine, judge], use_gpu)
    return ResourcePlan(
        parts=(learner, *([engine] if generates else []), *([judge] if judge_engines else []), preparation),
        use_gpu=use_gpu,
        single_gpu_mode=shared,
        hosts_judge=judge_engines > 0,
        bundles=bundles,
        conflicts=tuple(_conflicts(learners, engines if generates else None, parallel, use_gpu, shared, learner_share)),
    )


def _bundles(num_learners_per_node: Sequence[int], parts: Sequence[Part], use_gpu: bool) -> tuple[Bundle, ...]:
    """A bundle for the learners of each node, and one for each engine."""
    unit, bundles, first = "GPU" if use_gpu else "CPU", [], 0
    learner, *engines = parts
    for count in filter(None, num_learners_per_node):
        bundles.append(Bundle(learner, range(first, first + count), count * (1 if use_gpu else learner.cpus), unit))
        first += count
    for part in engines:
        size = int(part.gpus) if use_gpu else part.cpus
        bundles += [Bundle(part, range(i, i + 1), size, unit) for i in range(part.count)]
    return tuple(bundles)


def _conflicts(
    learners: int,
    engines: int | None,
    tensor_parallel: dict[str, int],
    use_gpu: bool,
    shared: bool,
    learner_share: float,
) -> list[str]:
    """Flags that contradict each other, whatever the cluster has."""
    conflicts = []
    if learners < 1:
        conflicts.append("There is no learner: raise --num_learners_per_node to 1 or more.")
    if engines is not None and engines < 1:
        conflicts.append("There is no policy engine: raise --vllm_num_engines to 1 or more.")
    for flag, size in tensor_parallel.items():
        if size > 1 and (shared or not use_gpu):
            conflicts.append(f"{flag} {size} needs {size} GPUs for each engine: set it to 1.")
    if shared and learners > 1:
        conflicts.append(f"--single_gpu_mode has room for one learner, not {learners}: set --num_learners_per_node 1.")
    if shared and learner_share < LEAST_LEARNER_SHARE:
        conflicts.append(
            f"--single_gpu_mode: the engines leave {max(learner_share, 0.0):.0%} of the GPU to the learner; it needs "
            f"{LEAST_LEARNER_SHARE:.0%} or more: lower --vllm_gpu_memory_utilization or "
            "--llm_judge_gpu_memory_utilization."
        )
    return conflicts


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
