"""After a real DeepSpeed step and a real weight sync, engine and learner give the same log-probabilities."""

import os

import numpy as np
import pytest
from tiny_run import POLICY, TAG

from open_instruct.config.args import Args
from open_instruct.learner.packing import TrainingSample, pack_samples


@pytest.fixture(scope="module")
def actors():
    os.environ["RAY_enable_worker_prestart"] = "0"  # noqa: SIM112  (Ray's own spelling)
    os.environ.pop(TAG, None)
    ray = pytest.importorskip("ray")
    from open_instruct.engines.engine import EngineOptions, create_vllm_engines
    from open_instruct.engines.pool import DirectEngines
    from open_instruct.learner.actor import create_learners

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
    [learner] = create_learners(args, on_cpu=True, gpus_per_learner=0)
    address = ray.get(learner.address.remote())
    ray.get(learner.setup.remote(args, address, 0))
    ray.get(started)
    ray.get(learner.connect.remote(DirectEngines(engines), address, "float32"))
    yield ray, engines[0], learner
    ray.get(engines[0].stop.remote())
    ray.shutdown()


def gap(ray, engine, learner, tokens):
    ours, theirs = ray.get([learner.logprobs_of.remote(tokens), engine.prompt_logprobs.remote(tokens)])
    return float(np.abs(np.array(ours) - np.array(theirs)).max())


@pytest.mark.timeout(300)
def test_engine_agrees_with_the_learner_after_a_step(actors):
    ray, engine, learner = actors
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 500, 60).tolist()
    assert gap(ray, engine, learner, tokens) < 0.05, "they differ before anything was trained"

    ids = rng.integers(5, 500, (4, 30)).tolist()
    samples = [TrainingSample(i[:10], i[10:], [-5.0] * 20, a) for i, a in zip(ids, (1, -1, 1, -1), strict=True)]
    [batch] = pack_samples(samples, pack_length=128, num_learners=1, pad_token_id=0)
    for version in (1, 2):
        metrics = ray.get(learner.step.remote([batch]))
        assert metrics["optim/grad_norm"] > 0
        # Guards the test itself: without a sync the two must be far apart.
        assert gap(ray, engine, learner, tokens) > 0.05
        ray.get(learner.sync_weights.remote(version))
        assert gap(ray, engine, learner, tokens) < 0.05


@pytest.mark.timeout(120)
def test_sampled_logprobs_are_those_of_the_synced_weights(actors):
    from open_instruct.data.types import SamplingConfig

    ray, engine, learner = actors
    prompt = list(range(10, 30))
    [sample, _] = ray.get(engine.generate.remote(prompt, SamplingConfig(n=2, max_tokens=12)))
    ours = ray.get(learner.logprobs_of.remote(prompt + sample.token_ids))[-len(sample.token_ids) :]
    np.testing.assert_allclose(sample.logprobs, ours, atol=0.05)
    assert sample.weights_version == 2
