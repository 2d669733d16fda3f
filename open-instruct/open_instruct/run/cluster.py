"""Starting Ray and everything that a run needs on it, and ending it again without leaving a trace."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flip_plugin.serving.server import JudgeServerError
from open_instruct.config.args import Args
from open_instruct.config.memory_plan import takes_turns
from open_instruct.config.placement import Placement, reserve
from open_instruct.config.resource_plan import ENGINE, JUDGE, LEARNER, ResourcePlan
from open_instruct.engines.engine import EngineMaker, EngineOptions
from open_instruct.engines.errors import NO_RESTART_WITH_NCCL
from open_instruct.engines.pool import EngineSet
from open_instruct.engines.weights.send import weight_backend
from open_instruct.learner.hf_io import resolve_dtype
from open_instruct.run.judge import CPU_KV_CACHE_BYTES, JUDGE_KEY, judge_key, launch_judge

logger = logging.getLogger(__name__)


#: A continued run's engines draw from other streams than those that the run began with.
SEED_STRIDE = 1009
#: Takes the policy engines, returns the data preparation actor.
PrepStarter = Callable[[EngineSet], Any]


@dataclass
class Cluster:
    """The actors of a run. `stop` ends them in the order in which they depend on each other."""

    judge: Any = None
    engines: list[Any] = field(default_factory=list)
    learners: list[Any] = field(default_factory=list)
    prep: Any = None
    placement: Placement = field(default_factory=Placement)
    engine_lost: Any = None  # a reference that fails when an engine is lost for good
    restarts: dict[str, float] = field(default_factory=dict)  # by metric, as last reported

    def get(self, references: list[Any]) -> list[Any]:
        """`ray.get` that raises as soon as one fails, or an engine is lost that the others would wait for."""
        import ray

        left = list(references)
        while left:
            done, _ = ray.wait([*left, self.engine_lost] if self.engine_lost is not None else left, num_returns=1)
            ray.get(done)
            left = [reference for reference in left if reference not in done]
        return ray.get(references)

    def metrics(self, of_engines: dict[str, float | None]) -> dict[str, float]:
        """How the judge's replicas are, for a step's line in the log; does not wait.

        Warns when one of them was started again, or, by the step's own metrics (`of_engines`), a policy engine.
        """
        stats = {} if self.judge is None else self.judge.poll()
        metrics = {"judge/replicas_up": stats["serving"], "judge/restarts": stats["restarts"]} if stats else {}
        for name in ("engine/restarts", "judge/restarts"):
            now = (of_engines | metrics).get(name) or 0.0
            if now > self.restarts.get(name, 0.0):
                what = "policy engines" if name.startswith("engine") else "judge servers"
                logger.warning("%s: started again %d times so far", what, now)
            self.restarts[name] = now
        return metrics

    def stop(self, *, graceful: bool = True) -> None:
        """End engines, judge servers and Ray; whatever does not go by itself is killed.

        Not `graceful`: engines that may still be loading, and would not answer, are killed at once. What they
        started is ended by their guards (`flip_plugin.serving.processes`).
        """
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        if not ray.is_initialized():
            return
        if self.prep is not None:
            if graceful:
                with contextlib.suppress(RayError, GetTimeoutError):
                    ray.get(self.prep.stop_engines.remote(), timeout=15)
            # Before the judge: it would ask one that is on its way out. Engines that it started go with it.
            ray.kill(self.prep)
        if self.judge is not None:
            self.judge.stop(graceful=graceful)
        for actor in [*self.learners, *self.engines]:
            ray.kill(actor)
        self.placement.release()
        ray.shutdown()


class GpuShares(NamedTuple):
    """GPUs that Ray sets aside for each actor of a kind."""

    learner: float
    engine: float
    judge: float


def gpu_shares(plan: ResourcePlan) -> GpuShares:
    """The plan's GPUs for each actor; 0 for what it does not hold."""
    gpus = {part.name: part.gpus for part in plan.parts}
    return GpuShares(gpus.get(LEARNER, 0.0), gpus.get(ENGINE, 0.0), gpus.get(JUDGE, 0.0))


def start_ray(args: Args, logical_cpus: int) -> None:
    """Attach to the cluster of RAY_ADDRESS, or start Ray on this machine."""
    # Idle workers started in advance would take the cores that the engines need for their imports.
    os.environ.setdefault("RAY_enable_worker_prestart", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import ray

    local: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        # Without the address, Ray would attach to whatever else was started on this machine.
        local["address"] = "local"
        # Actors here ask for no logical CPUs, so a laptop's two cores never block a placement.
        local |= {"num_cpus": max(logical_cpus, os.cpu_count() or 1), "include_dashboard": False}
        if not _gpus():
            local["object_store_memory"] = 512 * 2**20
    ray.init(
        log_to_driver=args.verbose,
        logging_level=logging.INFO if args.verbose else logging.ERROR,
        runtime_env={"env_vars": _forwarded()},
        **local,
    )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _forwarded() -> dict[str, str]:
    """Settings for workers on other nodes. Never a key: Ray writes a job's environment into its logs.

    A Ray that is started here inherits the environment, so nothing is forwarded to it.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return {}
    prefixes = ("HF_", "HOSTED_VLLM_", "LITELLM_", "VLLM_", "NCCL_", "TOKENIZERS_")
    return {k: v for k, v in os.environ.items() if k.startswith(prefixes) and not k.endswith(("_KEY", "_TOKEN"))}


def engine_maker(
    args: Args,
    placement: Placement,
    *,
    on_cpu: bool,
    gpus_per_engine: float,
    tokenizer: str,
    eos_token_id: int | None,
    first_step: int = 0,
) -> EngineMaker:
    """How this run's policy engines are made; `first_step` is the number of steps that lie behind the run."""
    options = EngineOptions(
        model=args.model_name_or_path,
        revision=args.model_revision,
        tokenizer=tokenizer if args.stop_strings else None,
        eos_token_id=eos_token_id,
        dtype=resolve_dtype(args.model_dtype, on_cpu=on_cpu),
        seed=args.seed + SEED_STRIDE * first_step,
        max_model_len=args.max_prompt_token_length + args.response_length,
        max_num_seqs=max(args.samples_per_step // args.vllm_num_engines, 1) if on_cpu else 256,
        tensor_parallel_size=args.vllm_tensor_parallel_size,
        gpu_memory_utilization=args.vllm_gpu_memory_utilization,
        kv_cache_memory_bytes=CPU_KV_CACHE_BYTES if on_cpu else None,
        enforce_eager=args.vllm_enforce_eager,
        enable_prefix_caching=args.vllm_enable_prefix_caching,
        attention_backend=args.vllm_attention_backend,
        inflight_updates=args.inflight_updates,
        weight_backend=weight_backend(args, on_cpu=on_cpu),
        sleep_mode=takes_turns(args, on_cpu=on_cpu),
        on_cpu=on_cpu,
        omp_threads=args.engine_threads,
    )
    return EngineMaker(options, gpus_per_engine, placement.engine)


def start_all(
    args: Args,
    plan: ResourcePlan,
    *,
    on_cpu: bool,
    own_judge: bool,
    tokenizer: str,
    pad_token_id: int,
    eos_token_id: int | None,
    start_prep: PrepStarter,
    first_step: int = 0,
) -> Cluster:
    """Reserve places, start judge, engines, learners and the data side by side and wait until all are ready.

    Raises `JudgeServerError` when the judge does not come up, `FlagError` when the cluster has no room; other
    failures as Ray hands them on.
    """
    import ray

    from open_instruct.learner.actor import create_learners

    shares = gpu_shares(plan)
    cluster = Cluster()
    key = judge_key(len(live_nodes()))
    try:
        places = cluster.placement = reserve(plan)
        if key:
            logger.info("placed:\n%s", places.where())
        if own_judge:
            cluster.judge = launch_judge(
                args, on_cpu=on_cpu, gpus_per_replica=shares.judge, strategies=places.judge, key=key
            )
        maker = engine_maker(
            args,
            places,
            on_cpu=on_cpu,
            gpus_per_engine=shares.engine,
            tokenizer=tokenizer,
            eos_token_id=eos_token_id,
            first_step=first_step,
        )
        cluster.engines = [maker.make(i) for i in range(args.vllm_num_engines if args.generates else 0)]
        if args.single_gpu_mode and not on_cpu and cluster.judge is not None:
            # One after the other: vLLM takes what others allocate while it measures for its own.
            _wait_for({"judge": cluster.judge.ready_refs(args.llm_judge_startup_timeout)})
        loading = [e.start.remote() for e in cluster.engines]
        cluster.learners = create_learners(
            args, on_cpu=on_cpu, gpus_per_learner=shares.learner, strategies=places.learner
        )
        if args.single_gpu_mode and not on_cpu:
            _wait_for({"policy engine": loading})
        address = ray.get(cluster.learners[0].address.remote())
        setups = [learner.setup.remote(args, address, pad_token_id) for learner in cluster.learners]
        cluster.prep = start_prep(engine_set(args, cluster.engines, maker))
        judging = cluster.judge.ready_refs(args.llm_judge_startup_timeout) if cluster.judge is not None else []
        preparing = [cluster.prep.ready.remote()]
        _wait_for({"judge": judging, "learner": setups, "policy engine": loading, "data preparation": preparing})
        _name_judge(cluster, ray.get(judging), key)
        facts = ray.get(setups)[0]
        logger.info("policy of %.1fM parameters, learner in %s", facts["parameters"] / 1e6, facts["dtype"])
        _connect(cluster, resolve_dtype(args.model_dtype, on_cpu=on_cpu))
    except BaseException:
        cluster.stop(graceful=False)
        raise
    return cluster


def engine_set(args: Args, engines: list[Any], maker: EngineMaker) -> EngineSet:
    """What the data side keeps its pool of: the engines, and whether and how often one is replaced."""
    no_restart = NO_RESTART_WITH_NCCL if maker.options.weight_backend == "nccl" else None
    return EngineSet(engines, maker, args.max_actor_restarts, no_restart, maker.options.sleep_mode)


def live_nodes() -> list[dict[str, Any]]:
    """Ray's description of each node that is up, the driver's first."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here)


def _connect(cluster: Cluster, dtype: str) -> None:
    """Have the learners meet the engines, which hold weights in `dtype`. Raises `EngineLost` as soon as one is."""
    import ray

    cluster.engine_lost = cluster.prep.engine_lost.remote()
    address = ray.get(cluster.learners[0].address.remote())
    cluster.get([learner.connect.remote(cluster.engines, address, dtype) for learner in cluster.learners])


def _name_judge(cluster: Cluster, urls: list[str], key: str | None) -> None:
    """Tell the data side where the judge is, and the keys that it may need."""
    import ray

    keys = {name: value for name, value in os.environ.items() if name.endswith("_API_KEY")}
    if cluster.judge is not None:
        cluster.judge.urls = urls
        keys |= {JUDGE_KEY: key} if key else {}
    ray.get(cluster.prep.use_judge.remote(urls, keys))


def _wait_for(starting: dict[str, list[Any]]) -> None:
    """Wait until all have started, in whatever order; the first failure is raised at once."""
    import ray
    from ray.exceptions import RayTaskError

    names = {reference: name for name, references in starting.items() for reference in references}
    left = list(names)
    while left:
        [done], left = ray.wait(left, num_returns=1)
        try:
            ray.get(done)
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, JudgeServerError) else error) from None
        if not any(names[reference] == names[done] for reference in left):
            logger.info("%s ready", names[done])


def prep_starter(args: Args, *prep_args: Any) -> PrepStarter:
    """What `start_all` calls with the engines to start the data preparation actor."""

    def start(engines: EngineSet) -> Any:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from open_instruct.rollout.prep_actor import DataPreparationActor

        environment = {"TOKENIZERS_PARALLELISM": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(DataPreparationActor).options(
            num_cpus=0,
            max_concurrency=64,
            runtime_env={"env_vars": environment},
            scheduling_strategy=here,  # it writes the rollouts next to the driver's files
        )
        return actor.remote(args, engines, *prep_args)

    return start
