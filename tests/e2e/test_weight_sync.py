"""After a real DeepSpeed step and a real weight sync, engine and learner give the same log-probabilities."""

import os
import sys

import numpy as np
import pytest
from tiny_run import POLICY, TAG

from open_instruct.config.args import Args
from open_instruct.data.types import SamplingConfig
from open_instruct.engines.engine import EngineOptions, create_vllm_engines
from open_instruct.learner.actor import PolicyTrainerRayProcess
from open_instruct.learner.packing import TrainingSample, pack_samples

PROMPT = list(range(10, 30))


class Learner(PolicyTrainerRayProcess):
    """The learner, and what its policy thinks of given tokens."""

    def logprobs_of(self, token_ids):
        """Log-probability of each token but the first at temperature 1."""
        import torch

        from open_instruct.learner.logprobs import policy_logprobs

        ids = torch.tensor([token_ids])
        batch = {
            "input_ids": ids,
            "position_ids": torch.arange(ids.shape[1])[None],
            "response_mask": torch.ones_like(ids),
        }
        with torch.no_grad():
            return policy_logprobs(self.model, batch, 1.0)[0].tolist()


@pytest.fixture(scope="module")
def actors():
    os.environ["RAY_enable_worker_prestart"] = "0"  # noqa: SIM112  (Ray's own spelling)
    os.environ.pop(TAG, None)
    ray = pytest.importorskip("ray")
    args = Args(
        model_name_or_path=str(POLICY),
        learning_rate=5e-2,
        beta=0.0,
        total_episodes=1000,
        num_unique_prompts_rollout=2,
        num_samples_per_prompt_rollout=2,
        per_device_train_batch_size=4,
    )
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    options = EngineOptions(
        str(POLICY),
        dtype="float32",
        on_cpu=True,
        weight_backend="shared_memory",
        max_num_seqs=16,
        kv_cache_memory_bytes=2**27,
        max_model_len=512,
    )
    engines = create_vllm_engines(options, 1)
    started = engines[0].start.remote()
    on_cpu = {"runtime_env": {"env_vars": {"DS_ACCELERATOR": "cpu"}}, "num_cpus": 0}
    learner = ray.remote(Learner).options(**on_cpu).remote(0, 1, on_cpu=True)
    address = ray.get(learner.address.remote())
    ray.get(learner.setup.remote(args, address, 0))
    ray.get(started)
    ray.get(learner.connect.remote(engines, address, "float32"))
    yield ray, engines[0], learner
    ray.get(engines[0].stop.remote())
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


def gap(ray, engine, learner):
    """The largest difference over 40 tokens that the engine samples; and the sample."""
    [sample] = ray.get(engine.generate.remote(PROMPT, SamplingConfig(max_tokens=40)))
    ours = ray.get(learner.logprobs_of.remote(PROMPT + sample.token_ids))[-len(sample.token_ids) :]
    return float(np.abs(np.array(ours) - np.array(sample.logprobs)).max()), sample


@pytest.mark.timeout(300)
def test_engine_agrees_with_the_learner_after_a_step(actors):
    ray, engine, learner = actors
    rng = np.random.default_rng(0)
    assert gap(ray, engine, learner)[0] < 0.05, "they differ before anything was trained"

    ids = rng.integers(5, 500, (4, 30)).tolist()
    samples = [TrainingSample(i[:10], i[10:], [-5.0] * 20, a) for i, a in zip(ids, (1, -1, 1, -1), strict=True)]
    [batch] = pack_samples(samples, pack_length=128, num_learners=1, pad_token_id=0)
    for version in (1, 2):
        metrics = ray.get(learner.step.remote([batch]))
        assert metrics["optim/grad_norm"] > 0
        # Guards the test itself: without a sync the two must be far apart.
        assert gap(ray, engine, learner)[0] > 0.05
        weights = ray.get(learner.sync_weights.remote(version, [engine]))
        difference, sample = gap(ray, engine, learner)
        assert difference < 0.05
        assert weights.version == sample.weights_version == ray.get(engine.version.remote()) == version
