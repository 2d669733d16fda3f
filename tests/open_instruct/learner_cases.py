"""Learners without Ray, in this process or in several: what the tests of the learner share."""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from open_instruct.config.args import Args
from open_instruct.config.rules import check
from open_instruct.learner.packing import TrainingSample, pack_mini_batches

POLICY = str(Path(__file__).parents[2] / "datasets_prep/tiny_world/models/policy")
PACK_LENGTH = 48


def make_args(**flags) -> Args:
    """Four prompts of two samples a step, ten steps; a learning rate that shows in two."""
    settings: dict[str, Any] = {
        "model_name_or_path": POLICY,
        "dataset_mixer_list": ["unused", "1.0"],
        "num_unique_prompts_rollout": 4,
        "num_samples_per_prompt_rollout": 2,
        "total_episodes": 80,
        "max_prompt_token_length": 16,
        "response_length": 16,
        "pack_length": PACK_LENGTH,
        "per_device_train_batch_size": 2,
        "learner_threads": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "beta": 0.0,
    }
    args = Args(**(settings | flags))
    check(args)
    return args


def make_samples(seed: int, count: int = 8) -> list[TrainingSample]:
    """Random tokens, with the log-probabilities of a sampler that is not quite the policy."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        prompt, response = (rng.integers(3, 1700, rng.integers(3, 16)).tolist() for _ in range(2))
        logprobs = (-10.0 - 2.0 * rng.random(len(response))).tolist()
        samples.append(TrainingSample(prompt, response, logprobs, float(rng.normal())))
    return samples


def step_batches(args: Args, step: int, count: int = 8) -> list:
    """For each learner, a step's mini-batches."""
    return pack_mini_batches(
        make_samples(step, count),
        num_mini_batches=args.num_mini_batches,
        seed=args.seed,
        step=step,
        pack_length=args.pack_length,
        num_learners=args.world_size,
        pad_token_id=0,
    )


@contextmanager
def process_left_as_it_was():
    """Environment and threads of this process, as they were before a learner was set up in it."""
    environment, threads = dict(os.environ), torch.get_num_threads()
    try:
        os.environ["DS_ACCELERATOR"] = "cpu"
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)


def make_learner(args: Args, rank: int = 0, port: int | None = None):
    """A learner, set up; torch's process group is made by the first one of a process."""
    from deepspeed.utils import groups

    from flip_plugin.serving.processes import free_port
    from open_instruct.learner.actor import PolicyTrainerRayProcess

    # DeepSpeed makes the groups of --deepspeed_zpg once for a process, and a run has one policy in each.
    groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None

    learner = PolicyTrainerRayProcess(rank, args.world_size, on_cpu=True)
    learner.facts = learner.setup(args, ("127.0.0.1", port or free_port("127.0.0.1")), 0)  # ty: ignore[missing-attribute]
    return learner


def parameters(learner) -> dict[str, torch.Tensor]:
    """A copy of everything that the policy holds, adapters under their own names."""
    return {name: p.detach().clone() for name, p in learner.model.named_parameters()}


def train(learner, steps: int = 2, count: int = 8) -> list[dict[str, float]]:
    """Steps on `step_batches`; returns what each reported."""
    return [learner.step(step_batches(learner.args, step, count)[learner.rank]) for step in range(steps)]
