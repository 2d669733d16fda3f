"""A learner that dies or fails is named, with its log; an engine that is gone is not its fault. Needs Ray."""

import os
import sys
import time
from pathlib import Path

import pytest

from open_instruct.learner.group import LearnerFailure, Learners, whereabouts

pytestmark = pytest.mark.slow


class Learner:
    """Stands where a learner does; what it does is all that is asked of one here."""

    def __init__(self, rank):
        self.rank = rank

    def whereabouts(self):
        return whereabouts()

    def add(self, one, other=0):
        return self.rank + one + other

    def work(self, failing, how):
        print("at work", flush=True)
        os.write(2, b"last words\n")
        if self.rank == failing and how == "die":
            os._exit(1)
        if self.rank == failing and how == "raise":
            raise ValueError("loss is nan\nand more")
        if how == "torn":
            time.sleep(0.0 if self.rank == 0 else 0.5)
            if self.rank == failing:
                os._exit(1)
            raise ConnectionError("connection closed by peer")
        time.sleep(60)  # waits for the others

    def lose_engine(self):
        from open_instruct.engines.errors import EngineLost

        raise EngineLost("policy engine 0 is gone")


class Keeper:
    def engine_lost(self):
        from open_instruct.engines.errors import EngineLost

        time.sleep(1)
        raise EngineLost("policy engine 1 is gone")


@pytest.fixture(scope="module")
def ray_here():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    yield ray
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


@pytest.fixture
def learners(ray_here, tmp_path):
    actor = ray_here.remote(Learner)
    actors = [actor.options(num_cpus=0).remote(rank) for rank in range(2)]
    yield Learners(actors, tmp_path / "logs")
    for one in actors:
        ray_here.kill(one)


def test_results_by_rank(learners):
    assert learners.call("add", 5, each=[10, 20]) == [15, 26]
    assert learners.call("add", 7) == [7, 8]


@pytest.mark.parametrize("how", ["die", "torn"])
def test_the_one_that_died_is_named_not_who_noticed(learners, tmp_path, how):
    start = time.monotonic()
    with pytest.raises(LearnerFailure) as failed:
        learners.call("work", 1, how)
    assert time.monotonic() - start < 30, "the others are not waited for"
    text = str(failed.value)
    assert text.startswith("learner 1 (process ") and "died in work" in text
    log = tmp_path / "logs" / "learner_1.log"
    assert f"Its log: {log}" in text and "last words" in log.read_text()


def test_the_one_that_raised_is_named_with_its_reason(learners):
    with pytest.raises(LearnerFailure, match=r"learner 0 .* raised ValueError in work: loss is nan\n"):
        learners.call("work", 0, "raise")


def test_an_engine_is_not_the_learners_fault(learners):
    from ray.exceptions import RayTaskError

    from open_instruct.engines.errors import EngineLost
    from open_instruct.run.loop import _cause

    with pytest.raises(RayTaskError) as failed:
        learners.call("lose_engine")
    assert isinstance(_cause(failed.value), EngineLost)


def test_an_engine_that_is_lost_ends_the_wait_of_the_learners(ray_here, learners):
    from ray.exceptions import RayTaskError

    from open_instruct.engines.errors import EngineLost
    from open_instruct.run.loop import _cause

    keeper = ray_here.remote(Keeper).options(num_cpus=0).remote()
    start = time.monotonic()
    with pytest.raises(RayTaskError) as failed:
        learners.call("work", 5, "wait", lost=keeper.engine_lost.remote())
    assert isinstance(_cause(failed.value), EngineLost) and time.monotonic() - start < 30


def test_the_log_is_a_file(learners):
    assert all(where.log and Path(where.log).is_file() for where in learners._where)
