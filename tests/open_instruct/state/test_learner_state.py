"""A learner that takes up a state goes on bit for bit as the one that wrote it; nothing is read with plain pickle."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flip_plugin.serving.processes import free_port
from open_instruct.config.args import Args
from open_instruct.learner.packing import TrainingSample, pack_mini_batches
from open_instruct.state.checkpoints import begin_state, commit_state, newest_whole_state

POLICY = Path(__file__).parents[3] / "datasets_prep" / "tiny_world" / "models" / "policy"


def settings(**overrides) -> Args:
    flags: dict[str, Any] = {
        "model_name_or_path": str(POLICY),
        "learner_threads": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.1,
        "total_episodes": 64 * 10,
        "num_mini_batches": 2,
        "beta": 0.05,
        "ref_policy_update_freq": 2,
    }
    return Args(**flags | overrides)


def make_learner(args: Args, address, rank: int = 0):
    os.environ["DS_ACCELERATOR"] = "cpu"
    from open_instruct.learner.actor import PolicyTrainerRayProcess

    learner = PolicyTrainerRayProcess(rank, args.world_size, on_cpu=True)
    learner.setup(args, address, 0)
    return learner


def batches_of(step: int, args: Args):
    """Made-up samples, the same for the same step."""
    rng = np.random.default_rng(step)

    def tokens(count):
        return rng.integers(5, 90, count).tolist()

    samples = [TrainingSample(tokens(10), tokens(20), [-2.0] * 20, float(rng.normal())) for _ in range(8)]
    return pack_mini_batches(
        samples,
        num_mini_batches=args.num_mini_batches,
        seed=1,
        step=step,
        pack_length=128,
        num_learners=args.world_size,
        pad_token_id=0,
    )


def weights_of(learner) -> bytes:
    import torch

    from open_instruct.engines.weights.send import FlatWeights

    flat = FlatWeights(learner.model, torch.float32).copy()
    assert flat is not None
    return flat.tobytes()


def draw() -> tuple[float, float, float]:
    import torch

    return random.random(), float(np.random.random()), float(torch.rand(()))


def train_and_continue(args: Args, folder: str, address, rank: int = 0) -> None:
    """Two learners' lives in one process: five steps; then back to the state after three, and two steps again."""
    learner = make_learner(args, address, rank)
    for step in range(3):
        learner.step(batches_of(step, args)[rank])
    partial = Path(folder) / ".step_3.partial-test"
    partial.mkdir(exist_ok=True)
    written = learner.save_state(str(partial), 3)
    saved = weights_of(learner)
    after_saving = draw()
    unbroken = [learner.step(batches_of(step, args)[rank]) for step in (3, 4)]
    at_the_end, stream_at_the_end = weights_of(learner), draw()
    assert at_the_end != saved, "the steps do something"
    everywhere = _gathered(args, written)
    if rank == 0:
        commit_state(partial, 3, everywhere, {})
    _gathered(args, None)
    learner.load_state(str(Path(folder) / "step_3"), 3)
    assert weights_of(learner) == saved
    assert draw() == after_saving
    again = [learner.step(batches_of(step, args)[rank]) for step in (3, 4)]
    assert weights_of(learner) == at_the_end
    assert draw() == stream_at_the_end
    for one, other in zip(unbroken, again, strict=True):
        assert {k: v for k, v in one.items() if "time/" not in k} == {
            k: v for k, v in other.items() if "time/" not in k
        }
    if rank == 0:
        state = newest_whole_state(Path(folder))
        assert state is not None and state.step == 3
    with pytest.raises(RuntimeError, match=f"learner {rank} has made 5 steps"):
        learner.save_state(folder, 4)


def _gathered(args: Args, value):
    """Every rank's value on every rank; also a barrier."""
    import torch

    values = [None] * args.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def in_processes(args: Args, folder: Path) -> None:
    """`train_and_continue` in a process for each rank: DeepSpeed leaves settings behind in its process."""
    context = multiprocessing.get_context("spawn")
    address = ("127.0.0.1", free_port())
    ranks = [
        context.Process(target=train_and_continue, args=(args, str(folder), address, rank))
        for rank in range(args.world_size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(280)
        assert process.exitcode == 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_continued_learner_is_the_same_bit_for_bit(tmp_path, stage):
    in_processes(settings(deepspeed_stage=stage), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_two_continued_learners_are_the_same_bit_for_bit(tmp_path, stage):
    in_processes(settings(deepspeed_stage=stage, num_learners_per_node=[2]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_adapters_are_continued_without_the_weights_below_them(tmp_path, stage):
    lora = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.1, "ref_policy_update_freq": None}
    in_processes(settings(deepspeed_stage=stage, **lora), tmp_path)
    size = sum(path.stat().st_size for path in (tmp_path / "step_3").rglob("*.pt"))
    assert size < (POLICY / "model.safetensors").stat().st_size


class Malicious:
    def __reduce__(self):
        return os.system, ("touch somewhere",)


@pytest.mark.slow  # for the import of DeepSpeed
def test_pickled_code_is_refused(tmp_path):
    """The reader of a state builds tensors and plain data, and runs nothing that a file names."""
    import torch

    from open_instruct.state.rank import load_checked

    for content in ({"module": Malicious()}, {"module": pytest.raises}):
        torch.save(content, tmp_path / "state.pt")
        with pytest.raises(pickle.UnpicklingError):
            load_checked(tmp_path / "state.pt", "cpu")
    torch.save({"module": torch.ones(2)}, tmp_path / "state.pt")
    assert load_checked(tmp_path / "state.pt", "cpu")["module"].sum() == 2


def test_a_state_that_this_machine_does_not_see(tmp_path):
    from types import SimpleNamespace

    from open_instruct.state.rank import load_rank

    begin_state(tmp_path, 1)
    with pytest.raises(FileNotFoundError, match=r"learner 1: .*--checkpoint_state_dir"):
        load_rank(SimpleNamespace(rank=1), str(tmp_path))
