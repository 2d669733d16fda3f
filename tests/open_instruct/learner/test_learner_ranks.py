"""Two learners over gloo, in two processes: with every ZeRO stage and offload they learn what one learner does.

Each also writes a checkpoint and a state, and a second learner goes on from that state exactly.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from learner_cases import make_args, make_learner, process_left_as_it_was, step_batches, train

from flip_plugin.serving.processes import free_port
from open_instruct.engines.weights.gather import whole_state
from open_instruct.engines.weights.send import FlatWeights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LORA = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.0}
OFFLOAD = {"deepspeed_offload_optimizer": True}
#: Cases that must all end with the same weights: flags of the learner that should not matter.
SAME = {
    "zero-0": {"deepspeed_stage": 0},
    "zero-1": {"deepspeed_stage": 1},
    "zero-2": {"deepspeed_stage": 2},
    "zero-3": {"deepspeed_stage": 3},
    "zero-3 with a second shard": {"deepspeed_stage": 3, "deepspeed_zpg": 2},
    "zero-3 with checkpointing": {"deepspeed_stage": 3, "gradient_checkpointing": True},
    "zero-2, optimiser offloaded": {"deepspeed_stage": 2, **OFFLOAD},
    "zero-3, optimiser offloaded": {"deepspeed_stage": 3, **OFFLOAD},
    "zero-3, all offloaded": {"deepspeed_stage": 3, **OFFLOAD, "deepspeed_offload_param": True},
}
#: What is trained: the loss over two mini-batches and epochs, with a reference that moves; and adapters.
COMMON = {
    "whole": {"num_mini_batches": 2, "num_epochs": 2, "beta": 0.05, "ref_policy_update_freq": 1},
    "adapters": {"beta": 0.05, **LORA},
}
HALF = ("zero-0", "zero-1", "zero-2", "zero-3", "zero-2, optimiser offloaded")
CASES = {
    **{f"{what}, {how}": common | flags for what, common in COMMON.items() for how, flags in SAME.items()},
    **{f"bfloat16, {how}": SAME[how] | {"model_dtype": "bfloat16"} for how in HALF},
    "bfloat16 adapters": {"model_dtype": "bfloat16", "deepspeed_stage": 0, "beta": 0.05, **LORA},
}


def learn(rank: int, world_size: int, port: int, cases: dict, folder: str) -> None:
    """One rank: each case in turn, two steps; rank 0 writes what came of it."""
    torch.set_num_threads(1)
    os.environ["DS_ACCELERATOR"] = "cpu"
    for name, flags in cases.items():
        learner = make_learner(make_args(num_learners_per_node=[world_size], seed=1, **flags), rank, port)
        learner.engine.module.chunk_size = 8
        metrics = train(learner, 2, count=9)
        sent = FlatWeights(learner.model, torch.float32).copy(keep=rank == 0)
        checkpoint = f"{folder}/{name} {world_size} checkpoint"
        learner.save_model(checkpoint)
        found = {"state": whole_state(learner.model, keep=rank == 0), "metrics": metrics}
        state = Path(folder, f"{name} {world_size} state")
        state.mkdir(exist_ok=True)
        learner.save_state(str(state), 2)
        learner.step(step_batches(learner.args, 3)[rank])
        third = whole_state(learner.model, keep=rank == 0)
        continued = make_learner(learner.args, rank, port)
        continued.engine.module.chunk_size = 8
        torch.distributed.barrier()
        continued.load_state(str(state), 2)
        continued.step(step_batches(learner.args, 3)[rank])
        found["continued"], found["third"] = whole_state(continued.model, keep=rank == 0), third
        if rank == 0:
            torch.save(found | {"sent": torch.from_numpy(sent)}, f"{folder}/{name} {world_size}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("learners"))
    alone: dict[str, Any] = {f"{what}, zero-0": COMMON[what] | SAME["zero-0"] for what in COMMON}
    alone["bfloat16, zero-0"] = CASES["bfloat16, zero-0"]
    with process_left_as_it_was():
        for world_size, cases in ((1, alone), (2, CASES)):
            mp.start_processes(
                learn, args=(world_size, free_port("127.0.0.1"), cases, folder), nprocs=world_size, start_method="spawn"
            )
    return lambda name, world_size: torch.load(f"{folder}/{name} {world_size}.pt"), folder


def assert_close(found, expected, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].float(), value.float(), rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("what", COMMON)
@pytest.mark.parametrize("how", SAME)
def test_two_learners_learn_what_one_does(results, what, how):
    load, folder = results
    one, two = load(f"{what}, zero-0", 1), load(f"{what}, {how}", 2)
    assert_close(two["state"], one["state"], 2e-5)  # Adam's first steps are of 1e-3 each, whatever the gradient
    assert two["metrics"][1]["optim/grad_norm"] == pytest.approx(one["metrics"][1]["optim/grad_norm"], rel=1e-3)
    torch.testing.assert_close(two["sent"].view(torch.float32), one["sent"].view(torch.float32), rtol=0, atol=2e-5)
    from transformers import AutoModelForCausalLM

    saved = AutoModelForCausalLM.from_pretrained(f"{folder}/{what}, {how} 2 checkpoint", dtype=torch.float32)
    assert_close(dict(saved.state_dict()), two["state"], 0.0)
    assert_close(two["continued"], two["third"], 0.0)


@pytest.mark.parametrize("how", HALF)
def test_bfloat16_with_float32_masters_and_gradient_sums(results, how):
    load, _ = results
    one, two = load("bfloat16, zero-0", 1), load(f"bfloat16, {how}", 2)
    assert all(value.dtype == torch.bfloat16 for value in two["state"].values())
    assert two["metrics"][1]["optim/grad_norm"] == pytest.approx(one["metrics"][1]["optim/grad_norm"], rel=0.02)
    apart = [float((two["state"][n].float() - one["state"][n].float()).abs().mean()) for n in one["state"]]
    assert sum(apart) / len(apart) < 1e-4, "two steps of 1e-3 each"
    assert_close(two["continued"], two["third"], 0.0)


def test_adapters_in_bfloat16(results):
    load, _ = results
    two = load("bfloat16 adapters", 2)
    assert two["metrics"][0]["objective/kl_avg"] == 0.0 < two["metrics"][1]["objective/kl_avg"]
    assert_close(two["continued"], two["third"], 0.0)
