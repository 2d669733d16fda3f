"""One learner and one policy engine as Ray actors, and how far their log-probabilities are apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tiny_run import POLICY, TAG

from open_instruct.config.args import Args
from open_instruct.config.placement import Placement
from open_instruct.data.types import Sample, SamplingConfig
from open_instruct.engines.weights.send import Weights
from open_instruct.learner.actor import PolicyTrainerRayProcess
from open_instruct.learner.packing import TrainingSample, pack_samples
from open_instruct.run.cluster import engine_maker

PROMPT = list(range(10, 30))


class Learner(PolicyTrainerRayProcess):
    """The learner, and what its policy thinks of given tokens."""

    def logprobs_of(self, token_ids: list[int]) -> list[float]:
        """Log-probability of each token but the first at temperature 1."""
        import torch

        from open_instruct.learner.logprobs import policy_logprobs

        ids = torch.tensor([token_ids], device=self.device)
        batch = {
            "input_ids": ids,
            "position_ids": torch.arange(ids.shape[1], device=self.device)[None],
            "response_mask": torch.ones_like(ids),
        }
        with torch.no_grad():
            return policy_logprobs(self.model, batch, 1.0)[0].tolist()


@dataclass
class Pair:
    """A learner and an engine that are connected."""

    ray: Any
    learner: Any
    engine: Any

    def sample(self, **options: Any) -> Sample:
        """40 tokens of the engine's."""
        [sample] = self.ray.get(self.engine.generate.remote(PROMPT, SamplingConfig(max_tokens=40, **options)))
        return sample

    def differences(self, sample: Sample) -> np.ndarray:
        """How far the learner's log-probabilities of a sample's tokens are from the engine's, (tokens,)."""
        ours = self.ray.get(self.learner.logprobs_of.remote(PROMPT + sample.token_ids))[-len(sample.token_ids) :]
        return np.abs(np.array(ours) - np.array(sample.logprobs))

    def step(self) -> dict[str, float]:
        """One optimiser step on made-up samples, which moves the policy far."""
        ids = np.random.default_rng(0).integers(5, 500, (4, 30)).tolist()
        samples = [TrainingSample(i[:10], i[10:], [-5.0] * 20, a) for i, a in zip(ids, (1, -1, 1, -1), strict=True)]
        [batch] = pack_samples(samples, pack_length=128, num_learners=1, pad_token_id=0)
        return self.ray.get(self.learner.step.remote([batch]))

    def sync(self, version: int) -> Weights | None:
        """Bring the learner's weights to the engine as a run does it, and return what that returns."""
        return self.ray.get(self.learner.sync_weights.remote(version, [self.engine]))


def sync_args(learning_rate: float = 5e-2, **flags: Any) -> Args:
    """Flags of a run of the tiny policy, whose one step moves it far."""
    return Args(
        model_name_or_path=str(POLICY),
        learning_rate=learning_rate,
        beta=0.0,
        total_episodes=1000,
        num_unique_prompts_rollout=2,
        num_samples_per_prompt_rollout=2,
        per_device_train_batch_size=4,
        max_prompt_token_length=256,
        response_length=256,
        **flags,
    )


@contextmanager
def connected_pair(args: Args, dtype: str, *, gpus: tuple[float, float] | None = None) -> Generator[Pair]:
    """Both of them, connected; `dtype` is what `args.model_dtype` comes to.

    `gpus`: the shares of a GPU that learner and engine take; None: none.
    """
    import ray
    import ray.cloudpickle

    os.environ["RAY_enable_worker_prestart"] = "0"  # noqa: SIM112  (Ray's own spelling)
    os.environ.pop(TAG, None)
    on_cpu = gpus is None
    of_learner, of_engine = gpus or (0, 0)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    anywhere = Placement(engine=["DEFAULT"])
    maker = engine_maker(
        args, anywhere, on_cpu=on_cpu, gpus_per_engine=of_engine, tokenizer=str(POLICY), eos_token_id=None
    )
    engine = maker.make(0)
    try:
        # The engine first: vLLM takes what others allocate on its card while it measures for its own.
        ray.get(engine.start.remote())
        environment = {"env_vars": {"DS_ACCELERATOR": "cpu"}} if on_cpu else {}
        options = {"runtime_env": environment, "num_cpus": 0, "num_gpus": of_learner}
        learner: Any = ray.remote(Learner).options(**options).remote(0, 1, on_cpu=on_cpu)
        address = ray.get(learner.address.remote())
        ray.get(learner.setup.remote(args, address, 0))
        ray.get(learner.connect.remote([engine], address, dtype))
        yield Pair(ray, learner, engine)
        ray.get(engine.stop.remote())
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()
