"""The memory split is arithmetic over config.json: checked against published sizes and real checkpoints."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from open_instruct.config.args import Args
from open_instruct.config.memory_plan import GIB, describe_one_gpu, kv_bytes_per_token, learner_memory, parameter_count

POLICY = Path(__file__).parents[3] / "datasets_prep" / "tiny_world" / "models" / "policy"
# Shapes from the models' own config.json.
QWEN3_1_7B = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
QWEN3_4B = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
QWEN3_30B_A3B = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}


@pytest.mark.parametrize(
    ("config", "billions"), [(QWEN3_1_7B, 1.72), (QWEN3_4B, 4.02), (QWEN3_30B_A3B, 30.5)], ids=["1.7B", "4B", "MoE"]
)
def test_parameters_of_published_models(config, billions):
    assert parameter_count(config) / 1e9 == pytest.approx(billions, rel=0.01)


def test_parameters_of_a_real_checkpoint():
    from safetensors import safe_open

    with safe_open(POLICY / "model.safetensors", "numpy") as weights:
        real = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    config = json.loads((POLICY / "config.json").read_text())
    assert parameter_count(config) == pytest.approx(real, rel=0.005)  # norms


def test_kv_cache_of_a_token():
    assert kv_bytes_per_token(QWEN3_4B) == 144 * 2**10
    assert kv_bytes_per_token({k: v for k, v in QWEN3_4B.items() if k != "head_dim"}) == 90 * 2**10


def learner(**changes):
    options: dict[str, Any] = {
        "zero_stage": 2,
        "world_size": 1,
        "offload_optimizer": False,
        "offload_param": False,
        "reference": False,
        "tokens": 3072,
        "logits_tokens": 1024,
        "gradient_checkpointing": True,
    }
    return learner_memory(QWEN3_1_7B, **(options | changes))


def test_zero_splits_a_learners_16_bytes_a_parameter():
    count = parameter_count(QWEN3_1_7B)
    alone = learner()
    assert alone.weights + alone.gradients + alone.optimizer == 16 * count
    spread = learner(zero_stage=2, world_size=8)
    assert (spread.weights, spread.gradients, spread.optimizer) == (2 * count, 2 * count // 8, 12 * count // 8)
    assert learner(zero_stage=3, world_size=8).weights == 2 * count // 8
    assert learner(offload_optimizer=True).optimizer == 0
    assert learner(reference=True).total - alone.total == 2 * count


def test_logits_and_activations_grow_with_tokens():
    assert learner(logits_tokens=3072).logits == 3 * learner().logits
    assert learner().logits == 10 * 1024 * 151936
    assert learner(gradient_checkpointing=False).activations > 10 * learner().activations
    assert learner(tokens=6144).activations == 2 * learner().activations


def single(**flags):
    return Args(single_gpu_mode=True, vllm_gpu_memory_utilization=0.3, llm_judge_gpu_memory_utilization=0.2, **flags)


def test_the_split_of_one_card_is_said():
    text = describe_one_gpu(single(), QWEN3_1_7B, QWEN3_4B, 80 * GIB)
    assert "Memory on the one GPU (80.0 GiB)" in text
    engine = next(line for line in text.splitlines() if "policy engine" in line)
    assert "24.0 GiB" in engine and "weights 3.2 GiB" in engine and "KV cache 20.8 GiB at 112 KiB a token" in engine
    assert "judge engine" in text and "sleep" not in text.lower()


def test_a_share_that_does_not_hold_the_weights_is_said():
    text = describe_one_gpu(single(), QWEN3_1_7B, QWEN3_30B_A3B, 80 * GIB)
    assert "NO ROOM: raise its share" in text


def test_turns_and_an_outside_judge_are_said():
    text = describe_one_gpu(single(async_steps=0), QWEN3_1_7B, None)
    assert "judge engine" not in text and "sleep while the learner trains" in text and "30%" in text


def test_the_docstring_example_holds():
    import doctest

    from open_instruct.config import memory_plan

    assert doctest.testmod(memory_plan).failed == 0
