"""The engine actor's own bookkeeping, around a stand-in for vLLM's `AsyncLLM`."""

import asyncio
from types import SimpleNamespace

import pytest

from open_instruct.engines import engine as engine_module
from open_instruct.engines.engine import EngineOptions, LLMRayActor
from open_instruct.engines.errors import NO_RESTART_WITH_NCCL, EngineDied, EngineLost
from open_instruct.engines.pool import EnginePool, EngineSet
from open_instruct.engines.weights.send import WeightLayout


class Core:
    """Notes what is called on it."""

    errored = False
    fails_in = None

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        async def call(*args, **kwargs):
            self.calls.append(name)
            if name == self.fails_in:
                raise ValueError("a shape does not fit")

        return call

    def write(self, flat):
        self.calls.append("write")

    def shutdown(self):
        self.errored = True  # as vLLM's engine then is


@pytest.fixture
def actor(monkeypatch):
    monkeypatch.setattr(engine_module, "WATCH_S", 0.001)
    monkeypatch.setattr(LLMRayActor, "__init__", lambda self: None)
    actor = LLMRayActor()  # ty: ignore[missing-argument]
    actor.options, actor.weights_version, actor._asleep = EngineOptions("model"), 0, False
    actor._failed_update = None
    actor._engine = actor._shared = Core()
    actor._shared.path = "/proc/1/fd/1"  # ty: ignore[missing-attribute]
    return actor


async def test_the_watch_ends_with_the_cores_death(actor):
    watch = asyncio.ensure_future(actor.wait_until_dead())
    await asyncio.sleep(0.01)
    assert not watch.done()
    actor._engine.errored = True
    with pytest.raises(EngineDied):
        await watch


async def test_an_engine_that_is_stopped_is_not_dead(actor):
    watch = asyncio.ensure_future(actor.wait_until_dead())
    await asyncio.sleep(0.01)
    await actor.stop()
    await watch


class Handle:
    """The actor by its Ray handle's methods."""

    def __init__(self, actor):
        self._actor = actor

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *args: asyncio.ensure_future(getattr(self._actor, name)(*args)))


@pytest.mark.slow  # imports vLLM
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("step", "of_actor", "argument"),
    [("update_weights", "receive_weights", {}), ("finish_weight_update", "finish_weight_update", 1)],
)
async def test_with_nccl_a_failed_update_ends_the_run(actor, step, of_actor, argument):
    maker = SimpleNamespace(end=lambda actor: None)
    engines = EngineSet([Handle(actor)], maker, no_restart=NO_RESTART_WITH_NCCL)  # ty: ignore[invalid-argument-type]
    watch = asyncio.ensure_future(EnginePool(engines).wait_until_lost())
    actor._engine.fails_in = step
    with pytest.raises(ValueError, match="does not fit"):  # the learner, in its broadcast, does not look at this
        await getattr(actor, of_actor)(argument)
    with pytest.raises(EngineLost, match="a weight update failed: ValueError: a shape does not fit"):
        await asyncio.wait_for(watch, 5)


@pytest.mark.slow  # imports vLLM
async def test_a_sleeping_engine_wakes_up_for_new_weights(actor):
    core = actor._engine
    await actor.sleep()
    await actor.load_weights(b"flat", WeightLayout([], 4), 3)
    await actor.wake_up()
    assert core.calls[:3] == ["sleep", "write", "wake_up"] and core.calls.count("wake_up") == 1
    assert core.calls[3:] == [
        "pause_generation",
        "start_weight_update",
        "update_weights",
        "finish_weight_update",
        "resume_generation",
    ]
    assert await actor.version() == 3
