"""`JudgePool`: N replicas of a judge, each a Ray actor that runs vLLM's own OpenAI server.

The server is a child process of the actor, which keeps watch over it (`flip_plugin.serving.server`). Clients
reach it over HTTP, through LiteLLM's ``hosted_vllm/`` route, so a server that somebody started by hand
(``HOSTED_VLLM_API_BASE``) is used in just the same way.

    pool = JudgePool.start("Qwen/Qwen3-4B", num_replicas=2, max_model_len=8192, log_dir="judge_logs")
    FlipReward("hosted_vllm/Qwen/Qwen3-4B", api_base=pool.urls)
    pool.stop()

A replica keeps its URL when its server dies (the actor starts it again) and when its actor dies (Ray starts
that again, on the same machine). Replicas bind loopback by default, and then run where the driver
runs; with a wildcard host, or each on its machine's own address (`NODE_ADDRESS`), Ray spreads them over the
cluster's machines.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flip_plugin.serving.options import NODE_ADDRESS, WILDCARDS, ServerOptions
from flip_plugin.serving.processes import reserve_port
from flip_plugin.serving.server import JudgeServer, JudgeServerError, RestartPolicy, ServerHealth

logger = logging.getLogger(__name__)

#: How often Ray starts a replica's actor again. Each time counts from zero for the actor's own `RestartPolicy`.
ACTOR_RESTARTS = 100
ACTOR_DIED = "its Ray actor died"
_NOT_SCHEDULED = (
    "No judge replica was scheduled within {timeout:.0f} s: the cluster lacks the resources. Replicas that bind "
    "loopback must run on the driver's machine; with host 0.0.0.0 (and an API key) they may run on others."
)


class JudgeReplica(JudgeServer):
    """A `JudgeServer` that knows where and for which time Ray started it. Make it with `JudgePool`."""

    def __init__(self, options: ServerOptions, log_path: str, policy: RestartPolicy) -> None:
        import ray

        here = ray.util.get_node_ip_address()
        restarted = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        anywhere = options.host in WILDCARDS
        if options.host == NODE_ADDRESS:
            options = replace(options, host=here)
            if not restarted and not _is_free(here, options.port):
                options = replace(options, port=0)  # it was free on the driver's machine only
        super().__init__(options, log_path, policy=policy, public_host=here if anywhere else None, restarted=restarted)


class JudgePool:
    """N replicas of one judge, each a Ray actor; `urls` is what a `JudgeClient` takes as `api_base`."""

    def __init__(self, actors: list[Any], log_dir: Path) -> None:
        self.actors = actors
        self.log_dir = log_dir
        self.urls: list[str] = []
        self._port_keepers: list[Any] = []
        self._placement: Any = None
        self._last: list[ServerHealth | None] = [None] * len(actors)
        self._former_restarts = [0] * len(actors)  # by actors that are no more
        self._asked: list[Any] = [None] * len(actors)  # health calls under way, for `poll`

    @classmethod
    def launch(
        cls,
        options: ServerOptions,
        num_replicas: int,
        *,
        log_dir: str | Path,
        num_gpus: float = 0.0,
        policy: RestartPolicy | None = None,
        strategies: Sequence[Any] | None = None,
    ) -> JudgePool:
        """Start the actors and return at once; `wait_ready` blocks until they serve.

        `options.port` is the first replica's; the others take those that follow. `num_gpus` is for each.
        `strategies`: where Ray is to run each, reserved by the caller. Raises `JudgeServerError` where a port is
        in use.
        """
        import ray

        if (options.host in WILDCARDS or options.host == NODE_ADDRESS) and not options.api_key:
            logger.warning("the judge servers bind %s without an API key: anybody can use them", options.host)
        log_dir = Path(log_dir).resolve()  # actors may run in another folder
        ports, keepers = _reserve_ports(options, num_replicas)
        placement = None
        if strategies is None:
            placement, strategies = _placement(options, num_replicas, num_gpus)
        actor_class = ray.remote(JudgeReplica)
        actors = [
            actor_class.options(
                num_cpus=0,
                num_gpus=num_gpus,
                max_restarts=ACTOR_RESTARTS,
                max_concurrency=8,  # `health` and `stop` get through while `wait_ready` waits
                scheduling_strategy=strategies[i],
            ).remote(replace(options, port=ports[i]), str(log_dir / f"judge-{i}.log"), policy or RestartPolicy())
            for i in range(num_replicas)
        ]
        pool = cls(actors, log_dir)
        pool._port_keepers, pool._placement = keepers, placement
        return pool

    @classmethod
    def start(
        cls, model: str, num_replicas: int = 1, *, timeout: float = 600.0, log_dir: str | Path, **options: Any
    ) -> JudgePool:
        """`launch` and `wait_ready` in one call."""
        num_gpus = options.pop("num_gpus", 0.0)
        pool = cls.launch(ServerOptions(model, **options), num_replicas, log_dir=log_dir, num_gpus=num_gpus)
        pool.wait_ready(timeout)
        return pool

    def ready_refs(self, timeout: float) -> list[Any]:
        """Ray references to the URLs, resolved when the replicas serve or have failed."""
        return [a.wait_ready.remote(timeout) for a in self.actors]

    def wait_ready(
        self, timeout: float, *, on_wait: Callable[[float], None] | None = None, every: float = 5.0
    ) -> list[str]:
        """Block until every replica serves; stops all of them and raises when one does not.

        `on_wait` is called every `every` seconds with the seconds passed.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        refs, begun = self.ready_refs(timeout), time.monotonic()
        left = list(refs)
        try:
            while left:
                done, left = ray.wait(left, num_returns=1, timeout=every)
                ray.get(done)  # the first failure is raised at once
                passed = time.monotonic() - begun
                if not done and passed > timeout + 30:
                    raise JudgeServerError(_NOT_SCHEDULED.format(timeout=timeout))
                if not done and on_wait is not None:
                    on_wait(passed)
            self.urls = ray.get(refs)
        except RayTaskError as error:
            self.stop()
            raise (error.cause if isinstance(error.cause, JudgeServerError) else error) from None
        except RayError as error:
            self.stop()
            raise JudgeServerError(f"The Ray actor of a judge replica died or was not placed: {error}") from None
        except BaseException:
            self.stop()
            raise
        return self.urls

    def health(self, timeout: float = 5.0) -> list[ServerHealth]:
        """Each replica's state now. One whose actor is being restarted, or does not answer, is "unreachable"."""
        import ray
        from ray.exceptions import RayActorError

        refs = [a.health.remote() for a in self.actors]
        answered, _ = ray.wait(refs, num_returns=len(refs), timeout=timeout) if refs else ([], [])
        states = []
        for index, ref in enumerate(refs):
            try:
                if ref not in answered:
                    raise TimeoutError
                states.append(self._with_all_restarts(index, ray.get(ref)))
            except (RayActorError, TimeoutError):
                last = self._last[index]
                url = last.url if last else self.urls[index] if self.urls else ""
                restarts = last.restarts if last else 0
                states.append(ServerHealth(url, "unreachable", restarts=restarts, problem=ACTOR_DIED))
        return states

    def stats(self) -> dict[str, float]:
        """Numbers for a metrics line: replicas, how many serve, and restarts of all together."""
        states = self.health()
        return {
            "replicas": len(states),
            "serving": sum(state.state == "serving" for state in states),
            "restarts": sum(state.restarts for state in states),
        }

    def poll(self) -> dict[str, float]:
        """`stats` without waiting, for every step of a loop: of the newest answers that are here. Asks for newer."""
        import ray
        from ray.exceptions import RayActorError

        for index, actor in enumerate(self.actors):
            if self._asked[index] is not None and ray.wait([self._asked[index]], timeout=0)[0]:
                try:
                    self._with_all_restarts(index, ray.get(self._asked[index]))
                except RayActorError:
                    if (last := self._last[index]) is not None:
                        self._last[index] = replace(last, state="unreachable")
                self._asked[index] = None
            if self._asked[index] is None:
                self._asked[index] = actor.health.remote()
        known = [state for state in self._last if state is not None]
        return {
            "replicas": len(self.actors),
            # One that has not been heard of has just come up.
            "serving": len(self.actors) - sum(state.state != "serving" for state in known),
            "restarts": sum(state.restarts for state in known),
        }

    def stop(self, *, graceful: bool = True) -> None:
        """End the servers, then the actors. Not `graceful`: kill the actors, and the kernel their servers."""
        import ray

        if not ray.is_initialized():  # whoever shut it down ended the actors; a call would start it again
            self.actors, self._placement = [], None
        if graceful and self.actors:
            _, left = ray.wait([a.stop.remote() for a in self.actors], num_returns=len(self.actors), timeout=15)
            if left:
                logger.warning("%d judge replicas did not stop by themselves", len(left))
        for actor in self.actors:
            ray.kill(actor)
        if self._placement is not None:
            ray.util.remove_placement_group(self._placement)
        for keeper in self._port_keepers:
            keeper.close()
        self.actors, self._placement, self._port_keepers = [], None, []

    def _with_all_restarts(self, index: int, state: ServerHealth) -> ServerHealth:
        """`state` with the restarts of the replica's former actors, and those by Ray, added."""
        last = self._last[index]
        if last is not None and last.life != state.life:
            self._former_restarts[index] = last.restarts + 1
            state = replace(state, problem=state.problem or ACTOR_DIED)
        state = replace(state, restarts=state.restarts + self._former_restarts[index])
        self._last[index] = state
        return state


def _reserve_ports(options: ServerOptions, count: int) -> tuple[list[int], list[Any]]:
    """Distinct ports, kept by this process, so that they outlive an actor. Raises `JudgeServerError`."""
    ports, keepers = [], []
    wanted = [options.port + i for i in range(count)] if options.port else [0] * count
    everywhere = options.host in WILDCARDS or options.host == NODE_ADDRESS
    if options.port and everywhere:
        return wanted, []  # whether they are free is for the machines to say where the replicas will run
    for port in wanted:
        try:
            # A replica binds its machine's own address; that the port is free on all of ours is as near as we get.
            host = "0.0.0.0" if options.host == NODE_ADDRESS else options.host  # noqa: S104 - bound, never served
            keepers.append(reserve_port(host, port))
        except OSError as error:
            for keeper in keepers:
                keeper.close()
            if isinstance(error, socket.gaierror):
                raise JudgeServerError(f"--host {options.host} is no address of this machine.") from None
            raise JudgeServerError(
                f"Port {port} on {options.host} cannot be used ({error.strerror or error}). "
                f"Choose another; {count} replicas need as many ports, one after the other. 0: any free ones."
            ) from None
        ports.append(keepers[-1].getsockname()[1])
    return ports, keepers


def _is_free(host: str, port: int) -> bool:
    try:
        reserve_port(host, port).close()
    except OSError:
        return False
    return True


def _placement(options: ServerOptions, count: int, num_gpus: float) -> tuple[Any, list[Any]]:
    """Where Ray may run the replicas: (a placement group to remove in the end, a strategy for each).

    What decides is that a restarted actor must come back to the machine that its URL names.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

    if options.host not in WILDCARDS and options.host != NODE_ADDRESS:
        here = ray.get_runtime_context().get_node_id()
        return None, [NodeAffinitySchedulingStrategy(here, soft=False)] * count
    # A bundle stays on its machine for as long as that lives. It must hold something: a token share of a CPU.
    bundle = {"CPU": 0.01} | ({"GPU": num_gpus} if num_gpus else {})
    group = ray.util.placement_group([bundle] * count, strategy="SPREAD")
    return group, [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i) for i in range(count)]
