"""One real learner in this process: what a training step does to the policy, the reference and the schedule."""

import json
import random

import numpy as np
import pytest
import torch
from learner_cases import make_args, make_learner, parameters, process_left_as_it_was, step_batches, train

from open_instruct.engines.weights.send import FlatWeights
from open_instruct.learner.optim import deepspeed_config, make_optimizer, make_scheduler, parameter_groups
from open_instruct.state.random_state import random_state, seed_everything, set_random_state


@pytest.fixture(autouse=True, scope="module")
def process():
    with process_left_as_it_was():
        yield
    if torch.distributed.is_initialized():
        import deepspeed

        deepspeed.comm.destroy_process_group()


def changed(before, after) -> list[str]:
    return [name for name in before if not torch.equal(before[name], after[name])]


@pytest.mark.parametrize(("mini_batches", "epochs"), [(1, 1), (3, 1), (1, 2), (2, 2)])
def test_an_optimiser_step_for_each_mini_batch_and_epoch(mini_batches, epochs):
    learner = make_learner(make_args(num_mini_batches=mini_batches, num_epochs=epochs))
    forwards = []
    learner.engine.module.register_forward_hook(lambda *_: forwards.append(torch.is_grad_enabled()))
    batches = step_batches(learner.args, 0)[0]
    (metrics,) = train(learner, 1)
    assert learner.engine.global_steps == mini_batches * epochs
    micros = [-(-len(batch.input_ids) // 2) for batch in batches]
    assert sum(forwards) == sum(micros) * epochs
    # Only what comes after the first update needs a pass of its own for the old policy's log-probabilities.
    assert len(forwards) - sum(forwards) == sum(micros[1:])
    tokens = sum(batch.response_mask[:, 1:].sum() for batch in batches)
    assert metrics["tokens"] == tokens * epochs
    alone = mini_batches * epochs == 1
    assert (metrics["val/ratio_squared_deviation"] == 0.0) is alone, "from the second update on, the policy has moved"


def test_old_logprobs_are_those_before_the_first_update():
    """Two mini-batches in one step, against the same two by hand with the old policy kept aside."""
    args = make_args(num_mini_batches=2, loss_fn="gspo", loss_denominator="sequence")
    learner, untouched = make_learner(args), make_learner(args)
    from open_instruct.learner.objective import micro_batches

    seen = []
    real = learner._update
    learner._update = lambda batch, *a, **k: (seen.extend(batch), real(batch, *a, **k))
    train(learner, 1)
    old = [m.old_logprobs for m in seen if m.old_logprobs is not None]
    expected = []
    for micro in micro_batches(step_batches(args, 0)[0][1], 2, "cpu"):
        with torch.no_grad():
            expected.append(untouched.engine(micro.inputs)[0])
    torch.testing.assert_close(torch.cat(old), torch.cat(expected))


def test_a_step_without_tokens_leaves_everything_as_it_was():
    learner = make_learner(make_args(weight_decay=0.1))
    train(learner, 1)
    before, rate = parameters(learner), learner.engine.global_steps
    metrics = learner.step(step_batches(learner.args, 0, count=0)[0])
    assert not changed(before, parameters(learner)) and learner.engine.global_steps == rate
    assert metrics["tokens"] == 0.0 and metrics["optim/grad_norm"] == 0.0


def test_gradient_checkpointing_and_chunks_change_nothing():
    plain = make_learner(make_args(record_entropy=True))
    saving = make_learner(make_args(record_entropy=True, gradient_checkpointing=True))
    saving.engine.module.chunk_size = 8
    expected, got = train(plain), train(saving)
    for name, value in expected[-1].items():
        if not name.startswith("time/"):
            assert got[-1][name] == pytest.approx(value, rel=1e-4), name
    assert expected[-1]["policy/entropy_avg"] > 0
    for name, value in parameters(plain).items():
        torch.testing.assert_close(dict(saving.model.named_parameters())[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_the_reference_moves_every_so_many_steps():
    learner = make_learner(make_args(beta=0.05, ref_policy_update_freq=2, alpha=0.6))
    reference = dict(learner.reference._copy.model.named_parameters())
    initial = {name: p.clone() for name, p in reference.items()}
    (first,) = train(learner, 1)
    assert first["objective/kl_avg"] == 0.0
    assert not changed(initial, reference) and learner.reference.state() is None
    second = learner.step(step_batches(learner.args, 1)[0])
    assert second["objective/kl_avg"] > 0.0
    for name, value in parameters(learner).items():
        torch.testing.assert_close(reference[name], 0.6 * value + 0.4 * initial[name])
    other = make_learner(learner.args)
    other.reference.load(learner.reference.state())
    assert not changed(reference, dict(other.reference._copy.model.named_parameters()))


def test_without_beta_there_is_no_reference():
    learner = make_learner(make_args(beta=0.0))
    (metrics,) = train(learner, 1)
    assert learner.reference is None and not any("kl" in name for name in metrics)


LORA = {"use_peft": True, "lora_r": 4, "lora_alpha": 8}


def test_lora_trains_adapters_and_sends_merged_weights():
    learner = make_learner(make_args(**LORA, beta=0.05))
    before = parameters(learner)
    flat = FlatWeights(learner.model, torch.float32)
    plain = make_learner(make_args())
    names = [name for name, _ in plain.model.named_parameters()]
    assert [t[0] for t in flat.layout.tensors] == names
    np.testing.assert_array_equal(flat.copy(), FlatWeights(plain.model, torch.float32).copy())

    metrics = train(learner)
    after = parameters(learner)
    moved = changed(before, after)
    assert moved and all("lora_" in name for name in moved)
    assert len(moved) == sum("lora_" in name for name in before)
    assert learner.facts["trainable_parameters"] < learner.facts["parameters"] / 4
    # With the adapters off the policy is its own reference: no divergence before the first update, some after it.
    assert metrics[0]["objective/kl_avg"] == 0.0 and metrics[1]["objective/kl_avg"] > 0.0

    sent = flat.copy()
    assert not changed(after, parameters(learner)), "merging leaves the base and the adapters alone"
    merged = learner.wrapped.merge_and_unload()
    np.testing.assert_array_equal(FlatWeights(merged, torch.float32).copy(), sent)


def test_a_lora_checkpoint_is_the_merged_model_and_the_adapter(tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    learner = make_learner(make_args(**LORA))
    train(learner, 1)
    learner.save_model(str(tmp_path / "checkpoint"))
    ids = torch.tensor([[5, 9, 33, 120, 7]])
    with torch.no_grad():
        expected = learner.model.eval()(input_ids=ids).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype=torch.float32)
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
        base = AutoModelForCausalLM.from_pretrained(learner.args.model_name_or_path, dtype=torch.float32)
        assert not torch.allclose(base(input_ids=ids).logits, expected, atol=1e-3)
        adapted = PeftModel.from_pretrained(base, tmp_path / "checkpoint" / "adapter")
        torch.testing.assert_close(adapted(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]


@pytest.mark.parametrize("flags", [{}, LORA])
def test_states_continue_exactly(tmp_path, flags):
    learner = make_learner(make_args(**flags))
    train(learner, 1)
    learner.save_state(str(tmp_path), 1)
    learner.step(step_batches(learner.args, 1)[0])
    continued = make_learner(learner.args)
    continued.load_state(str(tmp_path), 1)
    continued.step(step_batches(learner.args, 1)[0])
    assert continued.training_step == 2
    assert not changed(parameters(learner), parameters(continued))


def test_adapters_go_where_they_are_asked_to():
    learner = make_learner(make_args(use_peft=True, lora_target_modules=["q_proj", "lm_head"]))
    adapted = {name.split(".lora_")[0].split(".")[-1] for name in parameters(learner) if "lora_" in name}
    assert adapted == {"q_proj", "lm_head"}
    learner.engine.module.chunk_size = 8
    train(learner, 1)
    with pytest.raises(ValueError, match="no_such_module"):
        make_learner(make_args(use_peft=True, lora_target_modules=["no_such_module"]))


def rates(steps: int = 10, **flags) -> list[float]:
    args = make_args(learning_rate=1.0, total_episodes=8 * steps, **flags)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    schedule = make_scheduler(args, optimizer)
    values = []
    for _ in range(steps):
        values.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return values


def test_schedules():
    assert rates(lr_scheduler_type="constant") == [1.0] * 10
    assert rates(lr_scheduler_type="linear") == pytest.approx([1 - i / 10 for i in range(10)])
    assert rates(lr_scheduler_type="cosine")[5] == pytest.approx(0.5)
    assert rates(lr_scheduler_type="polynomial") == pytest.approx([1 - i / 10 for i in range(10)])
    warm = rates(lr_scheduler_type="constant_with_warmup", warmup_ratio=0.4)
    assert warm == pytest.approx([0, 0.25, 0.5, 0.75] + [1.0] * 6)
    assert rates(lr_scheduler_type="constant_with_warmup", warmup_ratio=0.9, warm_up_steps=2)[:3] == [0, 0.5, 1]
    root = rates(lr_scheduler_type="inverse_sqrt", warm_up_steps=1)
    assert root[4] == pytest.approx(0.5)
    # Mini-batches and epochs are optimiser steps, too: 60 of them in 10 training steps.
    assert rates(lr_scheduler_type="linear", num_mini_batches=3, num_epochs=2)[6] == pytest.approx(0.9)


def test_weight_decay_can_leave_out_biases_and_norms():
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    layer[0].weight.requires_grad_(False)
    assert [len(g["params"]) for g in parameter_groups(layer, 0.1, decay_bias_and_norm=False)] == [3]
    layer[0].weight.requires_grad_(True)
    decayed, rest = parameter_groups(layer, 0.1, decay_bias_and_norm=False)
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 3)]
    (everything,) = parameter_groups(layer, 0.1, decay_bias_and_norm=True)
    assert everything["weight_decay"] == 0.1 and len(everything["params"]) == 4
    optimizer = make_optimizer(make_args(fused_optimizer=False), layer)
    assert optimizer.defaults["fused"] is False


def test_deepspeed_is_told_what_the_flags_say():
    offload = {"deepspeed_stage": 3, "deepspeed_offload_optimizer": True, "deepspeed_offload_param": True}
    zero = deepspeed_config(make_args(**offload), dtype="bfloat16")["zero_optimization"]
    assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == "cpu"
    assert "zero_hpz_partition_size" not in zero
    shards = make_args(deepspeed_stage=3, deepspeed_zpg=2, num_learners_per_node=[2])
    assert deepspeed_config(shards, dtype="bfloat16")["zero_optimization"]["zero_hpz_partition_size"] == 2


def test_random_streams_go_on_where_they_were(tmp_path):
    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random(), random.gauss(0, 1)

    seed_everything(3)
    draw()
    torch.save(random_state(), tmp_path / "random.pt")
    expected = draw()
    seed_everything(4)
    set_random_state(torch.load(tmp_path / "random.pt", weights_only=True))
    assert draw() == expected
