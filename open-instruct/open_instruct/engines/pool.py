"""`EnginePool`: samples from several policy engines, and replaces one that dies so that nothing is lost.

An engine is lost when its Ray actor dies or its vLLM engine core does (`EngineDied`). The requests that it had
go to another engine, or wait for the new one. A new engine loads the policy from disk, then the newest weights
that the learner has sent; until then it takes no request. With NCCL a new engine cannot join the group of the
others: there a loss ends the run (`EngineLost`). While the engines sleep, the GPU is the learner's: an engine that
dies meanwhile is replaced when the others wake up.

The learner sends its weights to the engines itself (`open_instruct.engines.weights.send`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from open_instruct.data.types import Sample, SamplingConfig
from open_instruct.engines.engine import EngineMaker
from open_instruct.engines.errors import EngineLost, engine_gone, failed_start, lost_for_good, summary
from open_instruct.engines.weights.send import Weights

logger = logging.getLogger(__name__)

#: Seconds that a new engine has to load the policy; waiting for a free place on the cluster counts.
START_PATIENCE_S = 900.0
#: Seconds between an engine's death and its restart, twice as long after each failed start.
FIRST_PAUSE_S = 1.0


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


@dataclass
class _Slot:
    """The place of one engine: `actor` is who holds it now."""

    index: int
    actor: Any
    up: bool = True
    load: int = 0  # samples in flight
    restarts: int = 0
    restarting: asyncio.Task[None] | None = field(default=None, repr=False)
    watching: asyncio.Task[None] | None = field(default=None, repr=False)


class EnginePool:
    """Least-loaded sampling over engines that may die. To be used from one event loop."""

    def __init__(self, engines: EngineSet) -> None:
        self._engines = engines
        self._slots = [_Slot(i, actor) for i, actor in enumerate(engines.actors)]
        self._weights: Weights | None = None
        self._lost: EngineLost | None = None
        self._changed = asyncio.Condition()
        self._awake = asyncio.Event()
        self._awake.set()

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

    def up(self) -> list[Any]:
        """Handles of the engines that are up, in their order."""
        return [slot.actor for slot in self._slots if slot.up]

    async def keep_weights(self, weights: Weights) -> None:
        """Keep `weights`, which the learner has sent to the engines that were up, for those that come up later.

        An engine that came up while they were sent has missed them, and gets them now. Raises `EngineLost`.
        """
        self._weights = weights
        await self._of_each_up(self._load_newest)
        self._raise_if_lost()

    async def sleep(self) -> None:
        """Put every engine that is up to sleep. Until `wake_up` no new engine is started."""
        self._awake.clear()
        await self._of_each_up(lambda actor: actor.sleep.remote())

    async def wake_up(self) -> None:
        """Undo `sleep`; an engine that died meanwhile is now replaced."""
        self._awake.set()
        await self._of_each_up(lambda actor: actor.wake_up.remote())

    async def wait_until_lost(self) -> None:
        """Watch the engines; return never, or raise `EngineLost` when one is lost for good."""
        for slot in self._slots:
            self._watch(slot)
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
            for task in (slot.restarting, slot.watching):
                if task is not None:
                    task.cancel()
        stopping = [asyncio.ensure_future(actor.stop.remote()) for actor in self.up()]
        if stopping:
            await asyncio.wait(stopping, timeout=patience)
        for future in stopping:
            if future.done() and isinstance(error := future.exception(), Exception):
                logger.info("a policy engine did not stop by itself: %s", summary(error))

    async def _least_loaded(self) -> _Slot:
        self._raise_if_lost()
        if not any(slot.up for slot in self._slots):
            async with self._changed:
                await self._changed.wait_for(lambda: self._lost or any(slot.up for slot in self._slots))
            self._raise_if_lost()
        return min((slot for slot in self._slots if slot.up), key=lambda slot: slot.load)

    async def _of_each_up(self, work: Callable[[Any], Awaitable[object]]) -> None:
        """`work` on the handle of every engine that is up, at once; one that dies of it is replaced."""

        async def guarded(slot: _Slot) -> None:
            actor = slot.actor
            try:
                await work(actor)
            except engine_gone() as error:
                self._note_loss(slot, actor, error)

        await asyncio.gather(*(guarded(slot) for slot in self._slots if slot.up))

    async def _load_newest(self, actor: Any) -> int:
        """Bring an engine to the newest weights, also where newer ones come meanwhile; returns their version."""
        version = await actor.version.remote()
        while (weights := self._weights) is not None and version != weights.version:
            await actor.load_weights.remote(weights.reference, weights.layout, weights.version)
            version = weights.version
        return version

    # An engine's death and its replacement.

    def _watch(self, slot: _Slot) -> None:
        """Find out when the engine dies, also while nobody waits for an answer of it."""

        async def watch(actor: Any) -> None:
            try:
                await actor.wait_until_dead.remote()
            except engine_gone() as error:
                self._note_loss(slot, actor, error)

        slot.watching = asyncio.get_running_loop().create_task(watch(slot.actor))

    def _note_loss(self, slot: _Slot, actor: Any, error: Exception) -> None:
        """Every request in flight reports the same death; the first one counts."""
        if slot.actor is not actor or not slot.up:
            return
        slot.up = False
        logger.warning("policy engine %d died: %s", slot.index, summary(error))
        slot.restarting = asyncio.get_running_loop().create_task(self._replace(slot, error))

    async def _replace(self, slot: _Slot, error: Exception) -> None:
        """`_restart`; whatever it raises ends the run, since nobody awaits this task."""
        try:
            await self._restart(slot, error)
        except Exception as failure:  # a fault of ours or of Ray's: without this all requests would wait for ever
            logger.exception("policy engine %d could not be started again", slot.index)
            await self._give_up(slot, "starting it again failed", failure)

    async def _restart(self, slot: _Slot, error: Exception) -> None:
        """New actors until one is up with the newest weights, or there have been enough."""
        engines, pause = self._engines, FIRST_PAUSE_S
        while True:
            engines.maker.end(slot.actor)
            if engines.no_restart or slot.restarts >= engines.max_restarts:
                await self._give_up(slot, self._why_final(slot), error)
                return
            await asyncio.sleep(pause)
            await self._awake.wait()
            pause *= 2
            slot.restarts += 1
            logger.warning("policy engine %d: restart %d of %d", slot.index, slot.restarts, engines.max_restarts)
            try:
                slot.actor = engines.maker.make(slot.index, slot.restarts)
                await asyncio.wait_for(slot.actor.start.remote(), START_PATIENCE_S)
                version = await self._load_newest(slot.actor)
            except (*engine_gone(), *failed_start()) as failure:
                error = failure
                logger.warning("policy engine %d did not come up: %s", slot.index, summary(failure))
                continue
            slot.up = True
            logger.warning("policy engine %d is up again with weights %d", slot.index, version)
            self._watch(slot)
            await self._notify()
            return

    def _why_final(self, slot: _Slot) -> str:
        engines = self._engines
        if engines.no_restart:
            return f"it is not started again: {engines.no_restart}"
        if engines.max_restarts:
            return f"it was started again {slot.restarts} times (--max_actor_restarts {engines.max_restarts})"
        return "--max_actor_restarts is 0"

    async def _give_up(self, slot: _Slot, why: str, error: Exception) -> None:
        self._lost = self._lost or lost_for_good(slot.index, why, error)
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise self._lost
