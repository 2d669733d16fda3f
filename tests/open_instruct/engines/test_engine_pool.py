"""The pool over engines that die when told to: stand-ins for actor handles, since no vLLM is needed to die."""

import asyncio
from dataclasses import dataclass, field

import pytest
from ray.exceptions import ActorDiedError, ActorUnschedulableError

from open_instruct.data.types import SamplingConfig
from open_instruct.engines import pool as engine_pool
from open_instruct.engines.errors import NO_RESTART_WITH_NCCL, EngineDied, EngineLost
from open_instruct.engines.pool import EnginePool, EngineSet
from open_instruct.engines.sleep import Turns
from open_instruct.engines.weights.send import Weights

pytestmark = pytest.mark.timeout(20)
FOUR = SamplingConfig(n=4)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(engine_pool, "FIRST_PAUSE_S", 0.0)


class Engine:
    """Has the methods of an engine actor's handle; `die()` makes every call fail, those under way included."""

    def __init__(self, name, start_fails=None):
        self.name, self.start_fails = name, start_fails
        self.dead = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()
        self.loaded, self.asked, self.ended = [], [], False

    def die(self):
        self.dead.set()

    def __getattr__(self, method):
        return Remote(lambda *args: self._call(method, *args))

    async def _call(self, method, *args):
        async def work():
            await self.release.wait()
            if method == "start" and self.start_fails:
                raise self.start_fails
            if method == "load_weights":
                self.loaded.append(args[2])
            if method == "version":
                return self.loaded[-1] if self.loaded else 0
            if method == "wait_until_dead":
                await asyncio.Event().wait()
            if method == "generate":
                self.asked.append(args[0])
            return self.name

        working, dying = asyncio.ensure_future(work()), asyncio.ensure_future(self.dead.wait())
        await asyncio.wait([working, dying], return_when=asyncio.FIRST_COMPLETED)
        if self.dead.is_set():
            working.cancel()
            raise ActorDiedError()
        dying.cancel()
        return await working


@dataclass
class Remote:
    function: object

    def remote(self, *args):
        return asyncio.ensure_future(self.function(*args))  # ty: ignore[not-callable]


@dataclass
class Maker:
    made: list = field(default_factory=list)
    fail_first: int = 0
    hold: bool = False
    failure: Exception = field(default_factory=lambda: EngineDied("no memory"))
    refusals: list = field(default_factory=list)  # what `make` raises, one a call, before it makes an engine

    def make(self, index, restart):
        if self.refusals:
            raise self.refusals.pop(0)
        fails = self.failure if len(self.made) < self.fail_first else None
        self.made.append(Engine(f"{index}.{restart}", start_fails=fails))
        if self.hold:
            self.made[-1].release.clear()
        return self.made[-1]

    def end(self, actor):
        actor.ended = True


def pool_of(count, maker=None, **options):
    engines = [Engine(f"{i}.0") for i in range(count)]
    maker = maker or Maker()
    return EnginePool(EngineSet(engines, maker, **options)), engines, maker  # ty: ignore[invalid-argument-type]


def weights(version):
    return Weights("flat", "layout", version)  # ty: ignore[invalid-argument-type]


async def send(pool, version):
    """What learner and driver do after a step; the learner leaves out engines that are gone."""
    sending = [actor.load_weights.remote("flat", "layout", version) for actor in pool.up()]
    await asyncio.gather(*sending, return_exceptions=True)
    await pool.keep_weights(weights(version))


async def settle(pool):
    while any(slot.restarting and not slot.restarting.done() for slot in pool._slots):
        await asyncio.sleep(0.001)


async def test_requests_go_to_the_engine_with_least_in_flight():
    pool, engines, _ = pool_of(2)
    for engine in engines:
        engine.release.clear()
    asked = [asyncio.ensure_future(pool.generate([i], FOUR)) for i in range(4)]
    await asyncio.sleep(0.01)
    for engine in engines:
        engine.release.set()
    assert sorted(await asyncio.gather(*asked)) == ["0.0", "0.0", "1.0", "1.0"]


async def test_a_dead_engines_requests_go_to_another():
    pool, engines, maker = pool_of(2)
    engines[0].release.clear()
    asked = [asyncio.ensure_future(pool.generate([i], FOUR)) for i in range(3)]
    await asyncio.sleep(0.01)
    engines[0].die()
    assert await asyncio.gather(*asked) == ["1.0", "1.0", "1.0"]
    await settle(pool)
    assert engines[0].ended and len(maker.made) == 1, "two requests saw the one death"
    assert pool.stats() == {"engine/up": 2.0, "engine/restarts": 1.0}


async def test_a_new_engine_has_the_newest_weights_first():
    pool, engines, maker = pool_of(1)
    await send(pool, 7)
    assert engines[0].loaded == [7]
    engines[0].die()
    assert await pool.generate([1], FOUR) == "0.1"
    assert maker.made[0].loaded == [7]


async def test_weights_sent_during_a_restart_precede_requests():
    pool, engines, maker = pool_of(1, Maker(hold=True))
    await send(pool, 1)
    engines[0].die()
    asked = asyncio.ensure_future(pool.generate([1], FOUR))
    while not maker.made:
        await asyncio.sleep(0.001)
    new = maker.made[0]
    await send(pool, 2)  # does not wait for the engine that is loading
    assert pool.stats()["engine/up"] == 0
    new.release.set()
    assert await asked == "0.1"
    assert new.loaded[-1] == 2


async def test_a_death_during_the_update_does_not_stop_the_others():
    pool, engines, maker = pool_of(2)
    engines[1].release.clear()
    update = asyncio.ensure_future(send(pool, 3))
    await asyncio.sleep(0.01)
    engines[1].die()
    await update
    await settle(pool)
    assert engines[0].loaded == [3] and maker.made[0].loaded == [3]


@pytest.mark.parametrize("failure", [EngineDied("no memory"), ActorUnschedulableError("no node has its GPU now")])
async def test_a_restart_that_fails_is_tried_again_and_counted(failure):
    pool, engines, maker = pool_of(1, Maker(fail_first=2, failure=failure), max_restarts=3)
    engines[0].die()
    assert await pool.generate([1], FOUR) == "0.3"
    assert pool.stats()["engine/restarts"] == 3 and maker.made[0].ended and maker.made[1].ended


async def test_an_error_of_ray_in_making_an_engine_is_retried():
    pool, engines, _ = pool_of(1, Maker(refusals=[ActorUnschedulableError("no node now")]))
    engines[0].die()
    assert await asyncio.wait_for(pool.generate([1], FOUR), 5) == "0.2"
    assert pool.stats() == {"engine/up": 1.0, "engine/restarts": 2.0}


@pytest.mark.parametrize("where", ["make", "start"])
async def test_any_other_error_of_a_restart_ends_the_run(where):
    error = ValueError("no such strategy")
    pool, engines, _ = pool_of(1, Maker(refusals=[error]) if where == "make" else Maker(fail_first=1, failure=error))
    watch = asyncio.ensure_future(pool.wait_until_lost())
    engines[0].die()
    with pytest.raises(EngineLost, match=r"starting it again failed\. The error: no such strategy"):
        await asyncio.wait_for(pool.generate([1], FOUR), 5)
    with pytest.raises(EngineLost):
        await watch


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_restarts": 2}, "started again 2 times (--max_actor_restarts 2)"),
        ({"max_restarts": 0}, "--max_actor_restarts is 0"),
        ({"no_restart": NO_RESTART_WITH_NCCL}, "--weight_sync object_store"),
    ],
)
async def test_an_engine_that_is_lost_for_good_ends_all_waiting(options, words):
    pool, engines, _ = pool_of(2, Maker(fail_first=99), **options)
    engines[1].release.clear()  # the other is alive, and busy
    watch = asyncio.ensure_future(pool.wait_until_lost())
    engines[0].die()
    with pytest.raises(EngineLost, match="Policy engine 0 died") as lost:
        await watch
    assert words in str(lost.value)
    with pytest.raises(EngineLost):
        await pool.generate([1], FOUR)
    with pytest.raises(EngineLost):
        engines[1].release.set()
        await pool.keep_weights(weights(2))


async def test_an_engine_that_came_up_during_an_update_gets_it():
    pool, engines, maker = pool_of(2)
    engines[0].die()
    await pool.generate([1], FOUR)
    being_sent_to = pool.up()  # the other one alone
    await settle(pool)
    assert [len(being_sent_to), len(pool.up())] == [1, 2]
    await engines[1].load_weights.remote("flat", "layout", 4)
    await pool.keep_weights(weights(4))
    assert engines[1].loaded == [4] and maker.made[0].loaded == [4], "each of them once"


async def test_a_death_is_noticed_without_a_request():
    pool, _, maker = pool_of(1)
    watch = asyncio.ensure_future(pool.wait_until_lost())
    for life in range(2):
        await asyncio.sleep(0.01)
        pool.up()[0].die()
        while len(maker.made) == life:
            await asyncio.sleep(0.001)
        await settle(pool)
    assert pool.stats() == {"engine/up": 1.0, "engine/restarts": 2.0}
    await pool.stop()
    watch.cancel()


async def test_an_engine_that_dies_asleep_is_replaced_at_waking():
    pool, engines, maker = pool_of(2)
    turns, watch = Turns(pool), asyncio.ensure_future(pool.wait_until_lost())
    await turns.rest()
    engines[0].die()
    while pool.stats()["engine/up"] == 2:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    assert engines[0].ended and maker.made == [], "the learner trains on the GPU"
    await send(pool, 5)  # as after a step: the learner sends to the others, then all wake up
    assert maker.made == []
    await turns.wake()
    await settle(pool)
    assert pool.stats() == {"engine/up": 2.0, "engine/restarts": 1.0} and maker.made[0].loaded == [5]
    watch.cancel()


async def test_a_final_loss_asleep_ends_the_run_at_once():
    pool, engines, _ = pool_of(1, max_restarts=0)
    watch = asyncio.ensure_future(pool.wait_until_lost())
    await Turns(pool).rest()
    engines[0].die()
    with pytest.raises(EngineLost, match="--max_actor_restarts is 0"):
        await watch


async def test_with_nccl_a_death_ends_the_run_at_once():
    pool, engines, _ = pool_of(2, no_restart=NO_RESTART_WITH_NCCL)
    watch = asyncio.ensure_future(pool.wait_until_lost())
    await asyncio.sleep(0.01)
    engines[1].die()  # the learner and the other engine wait for it in a broadcast
    with pytest.raises(EngineLost, match="NCCL"):
        await watch


async def test_an_error_of_the_request_itself_is_not_a_death():
    pool, engines, maker = pool_of(1)

    async def refuse(*_):
        raise ValueError("prompt too long")

    engines[0]._call = refuse
    with pytest.raises(ValueError, match="too long"):
        await pool.generate([1], FOUR)
    assert maker.made == [] and pool.stats()["engine/up"] == 1
