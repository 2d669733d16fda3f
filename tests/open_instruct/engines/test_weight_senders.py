"""The learner's senders over engines that die: what is left out, and what ends the run at once. Needs Ray."""

import os
import sys
import time

import numpy as np
import pytest
import torch

from open_instruct.engines.errors import EngineLost
from open_instruct.engines.weights.send import ObjectStoreSender, _EnginesClient

pytestmark = pytest.mark.slow


class Engine:
    """Stands where an engine actor does; `dies` names the method that it does not survive."""

    def __init__(self, dies=None):
        self.dies, self.loaded = dies, None

    def load_weights(self, flat, layout, version):
        self._die_in("load_weights")
        self.loaded = (np.asarray(flat).tobytes(), layout, version)

    def receive_weights(self, update_info):
        self._die_in("receive_weights")
        time.sleep(60)  # waits for the others' part of the broadcast

    def load(self):
        return self.loaded

    def _die_in(self, method):
        if self.dies == method:
            os._exit(1)


@pytest.fixture(scope="module")
def ray_here():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    yield ray
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


def engines(ray, dies):
    actor = ray.remote(Engine).options(num_cpus=0)
    return [actor.remote(dies), actor.remote()]


def test_an_engine_that_is_gone_is_left_out(ray_here):
    module = torch.nn.Linear(2, 3)
    dying, other = engines(ray_here, "load_weights")
    weights = ObjectStoreSender(module, torch.float32, rank=0).send([dying, other], 7)
    flat, layout, version = ray_here.get(other.load.remote())
    assert weights.version == version == 7 and weights.layout == layout
    assert flat == ray_here.get(weights.reference).tobytes()
    name, _, shape, offset = layout.tensors[1]
    assert (name, shape) == ("bias", [3])
    assert np.frombuffer(flat, np.float32, 3, offset).tolist() == module.bias.tolist()


def test_other_ranks_send_nothing(ray_here):
    assert ObjectStoreSender(torch.nn.Linear(2, 3), torch.float32, rank=1).send([object()], 1) is None


def test_with_nccl_a_dead_engine_is_named_at_once(ray_here):
    client, start = _EnginesClient(engines(ray_here, "receive_weights")[::-1], 1), time.monotonic()
    with pytest.raises(EngineLost, match=r"Policy engine 1 died, and it is not started again: weights go out by NCCL"):
        client.update_weights({})
    assert time.monotonic() - start < 30, "the other one is not waited for"
