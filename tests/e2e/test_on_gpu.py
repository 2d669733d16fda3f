"""What only a GPU can show: float parity, NCCL's weight sync, one GPU in turns, and a small run on one card."""

import json

import pytest
from sync_cases import connected_pair, sync_args
from tiny_run import tiny_flags

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]

# Shares of one card: the models are tiny, and vLLM's own needs are not.
LEARNER, ENGINE = 0.4, 0.2
# A step of this size moves log-probabilities by far more than bfloat16 rounds them.
STEP = 5e-3
ONE_GPU = {"single_gpu_mode": True, "vllm_gpu_memory_utilization": ENGINE}


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    pytest.importorskip("vllm")
    pytest.importorskip("ray")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU, and torch finds none")
    return torch


@pytest.mark.parametrize(("dtype", "largest", "mean"), [("float32", 0.05, 0.005), ("bfloat16", 0.3, 0.03)])
def test_learner_and_engine_give_the_same_logprobs(torch, dtype, largest, mean):
    args = sync_args(**ONE_GPU, model_dtype=dtype, vllm_enforce_eager=True)
    with connected_pair(args, dtype, gpus=(LEARNER, ENGINE)) as pair:
        differences = pair.differences(pair.sample())
        assert differences.max() < largest and differences.mean() < mean


def test_nccl_brings_the_learners_weights_to_the_engine(torch):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs: NCCL wants a card for each rank, one for the learner and one for the engine")
    with connected_pair(sync_args(learning_rate=STEP), "bfloat16", gpus=(1, 1)) as pair:
        for version in (1, 2):
            assert pair.step()["optim/grad_norm"] > 0
            apart = pair.differences(pair.sample()).mean()
            pair.sync(version)
            sample = pair.sample()
            assert pair.differences(sample).mean() < 0.2 * apart and sample.weights_version == version


def test_a_sleeping_engine_frees_memory_and_wakes_current(torch):
    def free():
        return torch.cuda.mem_get_info(0)[0]

    # Nothing runs ahead, so engine and learner take turns.
    args = sync_args(learning_rate=STEP, **ONE_GPU, async_steps=0)
    with connected_pair(args, "bfloat16", gpus=(LEARNER, ENGINE)) as pair:
        greedy = pair.sample(temperature=0.0).token_ids
        awake, total = torch.cuda.mem_get_info(0)
        pair.ray.get(pair.engine.sleep.remote())
        assert free() - awake > 0.5 * ENGINE * total, "most of the engine's share is its KV cache"
        pair.ray.get(pair.engine.wake_up.remote())
        assert free() - awake < 0.25 * ENGINE * total
        assert pair.sample(temperature=0.0).token_ids == greedy

        pair.ray.get(pair.engine.sleep.remote())
        pair.step()
        pair.sync(1)  # wakes the engine
        sample = pair.sample()
        assert sample.weights_version == 1 and pair.differences(sample).mean() < 0.1


@pytest.mark.parametrize("async_steps", [1, 0], ids=["side by side", "in turns"])
def test_two_steps_on_one_gpu(torch, tmp_path, launch, async_steps):
    flags = {**ONE_GPU, "llm_judge_gpu_memory_utilization": 0.2, "async_steps": async_steps, "deepspeed_stage": 2}
    run = launch(tiny_flags(tmp_path, **flags))
    assert run.process.wait(800) == 0, run.output()
    assert run.left_behind() == []
    metrics = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["training_step"] for line in metrics] == [0, 1, 2]
    for line in metrics[1:]:
        assert 0 < line["objective/general-flip_reward"] <= 1
        assert line["objective/general-flip_invalid_frac"] < 0.5 and line["optim/grad_norm"] > 0
    # Both sampled and trained with the first weights, in bfloat16.
    assert metrics[1]["debug/vllm_vs_local_logprob_diff_mean"] < 0.03
    assert (tmp_path / "out" / "checkpoint" / "config.json").is_file()
