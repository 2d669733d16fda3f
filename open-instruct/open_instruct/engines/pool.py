"""`EnginePool`: the policy engines as one, for whoever samples; a dead engine is replaced and nothing is lost.

It lives in the data preparation actor, and everything that reaches an engine after the start goes through it:
samples from there, weights from learner 0 (`PooledEngines`). So it alone decides which engines are up, and
which weights a new one must have before it takes a request.

An engine is lost when its Ray actor dies or its vLLM engine core does (`EngineDied`). What it was asked for is
asked of another, or waits for the new one. A new engine loads the policy from disk, then the flat weights of
the last update, to which the pool holds a reference in Ray's object store. With NCCL there are no such weights
to hold, and an engine cannot join the group of the others: there a loss ends the run (`EngineLost`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from open_instruct.data.types import Sample, SamplingConfig

logger = logging.getLogger(__name__)

#: Seconds that a new engine has to load the policy; waiting for a free place on the cluster counts.
START_PATIENCE_S = 900.0
#: Seconds between an engine's death and its restart, twice as long after each failed start.
FIRST_PAUSE_S = 1.0

NO_RESTART_WITH_NCCL = (
    "weights go out by NCCL, whose group a new engine cannot join; with --weight_sync object_store (slower) engines "
    "are started again"
)


class EngineDied(RuntimeError):
    """Raised by an engine actor whose vLLM engine core is gone."""


class EngineLost(RuntimeError):
    """A policy engine died and is not, or cannot be, started again. The run cannot go on."""


class EngineMaker(Protocol):
    """Starts and ends engine actors; see `open_instruct.engines.engine.EngineMaker`."""

    def make(self, index: int, restart: int) -> Any:
        """An actor for slot `index`, in the slot's place on the cluster; `restart` 0 is the first."""

    def end(self, actor: Any) -> None:
        """Kill it, if it is still there."""


@dataclass(frozen=True)
class EngineSet:
    """Engines that were started, and how to replace one. Pickles. `no_restart`: why a loss is final, if it is.

    `sleep_mode`: they can be put to sleep (`open_instruct.engines.sleep`).
    """

    actors: list[Any]
    maker: EngineMaker
    max_restarts: int = 3
    no_restart: str | None = None
    sleep_mode: bool = False


@dataclass(frozen=True)
class _Weights:
    reference: Any  # of (num_bytes,) uint8 in the object store; holding it keeps it there
    layout: Any
    version: int


@dataclass
class _Slot:
    index: int
    actor: Any
    up: bool = True
    load: int = 0  # samples in flight
    version: int = 0
    restarts: int = 0
    restarting: asyncio.Task[None] | None = field(default=None, repr=False)


class EnginePool:
    """Least-loaded sampling over engines that may die. To be used from one event loop."""

    def __init__(self, engines: EngineSet) -> None:
        self._engines = engines
        self._slots = [_Slot(i, actor) for i, actor in enumerate(engines.actors)]
        self._weights: _Weights | None = None
        self._lost: EngineLost | None = None
        self._changed = asyncio.Condition()

    def __len__(self) -> int:
        return len(self._slots)

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingConfig) -> list[Sample]:
        """`sampling.n` samples for one prompt; outlives the engine that was asked first. Raises `EngineLost`."""
        while True:
            slot = await self._least_loaded()
            actor = slot.actor
            slot.load += sampling.n
            try:
                return await actor.generate.remote(list(prompt_ids), sampling)
            except engine_gone() as error:
                self._note_loss(slot, actor, error)
            finally:
                slot.load -= sampling.n

    async def load_weights(self, reference: Any, layout: Any, version: int) -> None:
        """Bring every engine that is up to these weights; one that is being replaced takes them when it is ready.

        `reference` is of (num_bytes,) uint8 in Ray's object store, laid out as `layout` says.
        """
        self._weights = _Weights(reference, layout, version)
        await asyncio.gather(*(self._update(slot, self._weights) for slot in self._slots if slot.up))
        self._raise_if_lost()

    async def call(self, method: str, arguments: Sequence[tuple[Any, ...]] | None = None) -> list[Any]:
        """`method` of all engines at once, with a tuple of arguments for each. A dead one is a loss for good."""
        arguments = arguments or [()] * len(self._slots)
        calls = [self._call(slot, method, args) for slot, args in zip(self._slots, arguments, strict=True)]
        return list(await asyncio.gather(*calls))

    async def of_those_up(self, method: str) -> None:
        """`method` of every engine that is up, without arguments; one that dies of it is replaced."""

        async def ask(slot: _Slot) -> None:
            actor = slot.actor
            try:
                await getattr(actor, method).remote()
            except engine_gone() as error:
                self._note_loss(slot, actor, error)

        await asyncio.gather(*(ask(slot) for slot in self._slots if slot.up))

    async def wait_until_lost(self) -> None:
        """Return never, or raise `EngineLost` when an engine is lost for good."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._lost is not None)
        self._raise_if_lost()

    def stats(self) -> dict[str, float]:
        """Numbers for a metrics line: engines that are up, and restarts of all together."""
        return {
            "engine/up": float(sum(slot.up for slot in self._slots)),
            "engine/restarts": float(sum(slot.restarts for slot in self._slots)),
        }

    async def stop(self, patience: float = 10.0) -> None:
        """End the engine cores; what does not end in `patience` seconds is left to its actor's death."""
        for slot in self._slots:
            if slot.restarting is not None:
                slot.restarting.cancel()
        stopping = [asyncio.ensure_future(slot.actor.stop.remote()) for slot in self._slots if slot.up]
        if stopping:
            await asyncio.wait(stopping, timeout=patience)
        for future in stopping:
            if future.done() and isinstance(error := future.exception(), Exception):
                logger.info("a policy engine did not stop by itself: %s", _first_line(error))

    async def _least_loaded(self) -> _Slot:
        self._raise_if_lost()
        if not any(slot.up for slot in self._slots):
            async with self._changed:
                await self._changed.wait_for(lambda: self._lost or any(slot.up for slot in self._slots))
            self._raise_if_lost()
        return min((slot for slot in self._slots if slot.up), key=lambda slot: slot.load)

    async def _update(self, slot: _Slot, weights: _Weights) -> None:
        actor = slot.actor
        try:
            await actor.load_weights.remote(weights.reference, weights.layout, weights.version)
            slot.version = weights.version
        except engine_gone() as error:
            self._note_loss(slot, actor, error)

    async def _call(self, slot: _Slot, method: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return await getattr(slot.actor, method).remote(*arguments)
        except engine_gone() as error:
            await self._give_up(slot, error)
            raise self._lost from None  # ty: ignore[invalid-raise]

    def _note_loss(self, slot: _Slot, actor: Any, error: Exception) -> None:
        """Every request in flight reports the same death; the first one counts."""
        if slot.actor is not actor or not slot.up:
            return
        slot.up = False
        logger.warning("policy engine %d died: %s", slot.index, _first_line(error))
        slot.restarting = asyncio.get_running_loop().create_task(self._replace(slot, error))

    async def _replace(self, slot: _Slot, error: Exception) -> None:
        """New actors until one is up with the current weights, or there have been enough."""
        pause = FIRST_PAUSE_S
        while True:
            self._engines.maker.end(slot.actor)
            if self._engines.no_restart or slot.restarts >= self._engines.max_restarts:
                await self._give_up(slot, error)
                return
            await asyncio.sleep(pause)
            pause *= 2
            slot.restarts += 1
            logger.warning("policy engine %d: restart %d of %d", slot.index, slot.restarts, self._engines.max_restarts)
            try:
                await self._start(slot)
            except (*engine_gone(), *failed_start()) as failure:
                error = failure
                logger.warning("policy engine %d did not come up: %s", slot.index, _first_line(failure))
                continue
            slot.up = True
            logger.warning("policy engine %d is up again with weights %d", slot.index, slot.version)
            await self._notify()
            return

    async def _start(self, slot: _Slot) -> None:
        slot.actor = self._engines.maker.make(slot.index, slot.restarts)
        slot.version = 0
        await asyncio.wait_for(slot.actor.start.remote(), START_PATIENCE_S)
        # The learner may have sent newer weights while these were on their way.
        while (weights := self._weights) is not None and slot.version != weights.version:
            await slot.actor.load_weights.remote(weights.reference, weights.layout, weights.version)
            slot.version = weights.version

    async def _give_up(self, slot: _Slot, error: Exception) -> None:
        engines = self._engines
        if engines.no_restart:
            why = f"it is not started again: {engines.no_restart}"
        elif engines.max_restarts:
            why = f"it was started again {slot.restarts} times (--max_actor_restarts {engines.max_restarts})"
        else:
            why = "--max_actor_restarts is 0"
        self._lost = self._lost or EngineLost(
            f"Policy engine {slot.index} died, and {why}. It said: {_first_line(error)}"
        )
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise self._lost


class EngineKeeper:
    """Methods that the data preparation actor offers to the learners and the driver; `self.engines` is its pool.

    `self.turns` is there where engines sleep while the learner trains (`open_instruct.engines.sleep`).
    """

    engines: EnginePool
    turns: Any = None

    async def load_weights(self, reference: list[Any], layout: Any, version: int) -> None:
        """See `EnginePool.load_weights`. In a list, so that Ray hands on the reference and not the weights."""
        if self.turns is not None:
            await self.turns.wake()
        await self.engines.load_weights(reference[0], layout, version)

    async def call_engines(self, method: str, arguments: Sequence[tuple[Any, ...]] | None = None) -> None:
        """See `EnginePool.call`."""
        await self.engines.call(method, arguments)

    async def engine_lost(self) -> None:
        """See `EnginePool.wait_until_lost`."""
        await self.engines.wait_until_lost()

    async def stop_engines(self) -> None:
        """See `EnginePool.stop`."""
        await self.engines.stop()


class PooledEngines:
    """The learners' way to the engines: through the actor that keeps the pool. Pickles."""

    def __init__(self, keeper: Any, count: int) -> None:
        self._keeper, self._count = keeper, count

    def __len__(self) -> int:
        return self._count

    def load_weights(self, reference: Any, layout: Any, version: int) -> None:
        """Block until every engine that is up has these weights."""
        import ray

        ray.get(self._keeper.load_weights.remote([reference], layout, version))

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]] | None = None) -> None:
        """`method` of every engine, each with its tuple of arguments; blocks."""
        import ray

        ray.get(self._keeper.call_engines.remote(method, arguments))


class DirectEngines:
    """The same over bare actors, without restarts."""

    def __init__(self, actors: list[Any]) -> None:
        self._actors = actors

    def __len__(self) -> int:
        return len(self._actors)

    def load_weights(self, reference: Any, layout: Any, version: int) -> None:
        """See `PooledEngines`."""
        self.call("load_weights", [(reference, layout, version)] * len(self._actors))

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]] | None = None) -> None:
        """See `PooledEngines`."""
        import ray

        arguments = arguments or [()] * len(self._actors)
        ray.get([getattr(a, method).remote(*args) for a, args in zip(self._actors, arguments, strict=True)])


def engine_gone() -> tuple[type[Exception], ...]:
    """What a call of an engine raises when there is no engine any more, or no way to it."""
    from ray import exceptions

    # An answer that lay on a lost node is lost with it.
    return (
        EngineDied,
        exceptions.RayActorError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
    )


def failed_start() -> tuple[type[Exception], ...]:
    """What `start` raises on top of that: its own error, one of Ray's about placing it, or none in time."""
    from ray.exceptions import RayError

    return (RayError, TimeoutError)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Of a task's error the last line is the exception; of an actor's death the first is the summary.
    from ray.exceptions import RayTaskError

    return (lines or [type(error).__name__])[-1 if isinstance(error, RayTaskError) else 0]
