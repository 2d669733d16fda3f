"""Log-probabilities in chunks are those of the plain form, in value, gradient and entropy."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Qwen3Config

from open_instruct.learner.grpo import token_logprobs
from open_instruct.learner.logprobs import (
    CHEAP_LOGITS,
    Policy,
    head_is_linear,
    head_logprobs,
    policy_logprobs,
    worthwhile_chunk,
)

N, HIDDEN, VOCABULARY = 13, 6, 31


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def problem(dtype=torch.double, bias=False):
    torch.manual_seed(0)
    head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=bias, dtype=dtype)
    hidden = torch.randn(N, HIDDEN, dtype=dtype, requires_grad=True)
    return head, hidden, torch.randint(VOCABULARY, (N,))


def gradients(head, hidden, loss):
    return torch.autograd.grad(loss, [hidden, *head.parameters()])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [1, 4, 12])
def test_chunks_give_the_plain_forms_values_and_gradients(chunk, temperature, bias):
    head, hidden, tokens = problem(bias=bias)
    plain = torch.log_softmax(head(hidden) / temperature, -1)
    upstream = torch.randn(N, dtype=torch.double)
    chosen = plain.gather(-1, tokens[:, None])[:, 0]
    expected = gradients(head, hidden, (chosen * upstream).sum())

    logprobs, entropy = head_logprobs(head, hidden, tokens, temperature, chunk, with_entropy=True)
    torch.testing.assert_close(logprobs, chosen)
    torch.testing.assert_close(entropy, -(plain.exp() * plain).sum(-1))
    assert not entropy.requires_grad
    for got, wanted in zip(gradients(head, hidden, (logprobs * upstream).sum()), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_gradients_against_finite_differences():
    head, hidden, tokens = problem()
    parameters = (hidden, head.weight)

    def function(states, weight):
        return torch.func.functional_call(Probe(head), {"head.weight": weight}, (states, tokens))

    class Probe(torch.nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head = head

        def forward(self, states, ids):
            return head_logprobs(self.head, states, ids, 0.8, 5, with_entropy=False)[0]

    assert torch.autograd.gradcheck(function, parameters, fast_mode=True)


def test_a_frozen_head_costs_no_gradient_of_its_own():
    head, hidden, tokens = problem()
    head.requires_grad_(False)
    logprobs, _ = head_logprobs(head, hidden, tokens, 1.0, 4, with_entropy=False)
    logprobs.sum().backward()
    assert hidden.grad is not None and head.weight.grad is None


def test_half_precision_heads_sum_their_gradient_in_float32():
    """Many chunks' shares of the head's gradient do not drown in bfloat16's rounding (steps of 1 above 128)."""
    tokens = torch.zeros(300, dtype=torch.long)
    hidden = torch.ones(300, 2, dtype=torch.bfloat16)
    head = torch.nn.Linear(2, 3, bias=False, dtype=torch.bfloat16)
    torch.nn.init.zeros_(head.weight)
    logprobs, _ = head_logprobs(head, hidden, tokens, 1.0, 1, with_entropy=False)
    assert logprobs.dtype == torch.float32
    (grad,) = torch.autograd.grad(logprobs.sum(), head.weight)
    torch.testing.assert_close(grad[0].float(), torch.full((2,), 200.0), rtol=0.01, atol=0)


def test_no_tokens_give_zero_gradients():
    head, hidden, tokens = problem()
    for chunk in (0, 4):
        logprobs, _ = head_logprobs(head, hidden[:0], tokens[:0], 1.0, chunk, with_entropy=True)
        grads = gradients(head, hidden, logprobs.sum())
        assert len(logprobs) == 0 and all(not g.any() for g in grads)


def test_other_heads_are_checkpointed_by_the_chunk():
    head, hidden, tokens = problem()
    wrapped = torch.nn.Sequential(head)  # not a linear layer itself, as a head with an adapter is not
    expected, _ = head_logprobs(wrapped, hidden, tokens, 0.9, 0, with_entropy=False)
    logprobs, entropy = head_logprobs(wrapped, hidden, tokens, 0.9, 4, with_entropy=True)
    torch.testing.assert_close(logprobs, expected)
    assert entropy.shape == (N,)
    for got, wanted in zip(
        gradients(head, hidden, logprobs.sum()), gradients(head, hidden, expected.sum()), strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_chunks_are_as_long_as_is_cheap():
    assert worthwhile_chunk(1024, 151_936) == 1024
    assert worthwhile_chunk(1024, 1000) == CHEAP_LOGITS // 1000
    assert worthwhile_chunk(0, 1000) == 0


SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def tiny(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.double)


def packed_batch():
    torch.manual_seed(1)
    position_ids = torch.tensor([[*range(7), *range(5)], [*range(9), 0, 0, 0]])
    response_mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1], [0] * 3 + [1] * 6 + [0] * 3])
    return {
        "input_ids": torch.randint(64, (2, 12)),
        "position_ids": position_ids,
        "response_mask": response_mask,
    }


def model_gradients(model, logprobs):
    model.zero_grad()
    (logprobs * torch.linspace(-1, 1, len(logprobs), dtype=torch.double)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_model_in_chunks_with_checkpointing(tied):
    model = tiny(Qwen3Config(**SIZES, tie_word_embeddings=tied)).train()
    batch = packed_batch()
    expected, _ = policy_logprobs(model, batch, 0.7)
    wanted = model_gradients(model, expected)
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        got, _ = policy_logprobs(model, batch, 0.7, chunk_size=4)
        torch.testing.assert_close(got, expected)
        for name, gradient in model_gradients(model, got).items():
            torch.testing.assert_close(gradient, wanted[name], msg=name)


def test_models_that_cap_logits_use_their_own_forward():
    model = tiny(Gemma2Config(**SIZES, final_logit_softcapping=0.05, sliding_window=64)).eval()
    assert not head_is_linear(model)
    assert head_is_linear(tiny(Qwen3Config(**SIZES)))
    batch = packed_batch()
    policy = Policy(model, 0.7, chunk_size=4, with_entropy=True)
    with torch.no_grad():
        logprobs, entropy = policy(batch)
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[:, :-1]
    predicted = batch["response_mask"][:, 1:] > 0
    torch.testing.assert_close(logprobs, token_logprobs(logits[predicted], batch["input_ids"][:, 1:][predicted], 0.7))
    assert entropy.shape == logprobs.shape


@pytest.mark.parametrize(("sharded", "calls"), [(False, 4), (True, 1)])
def test_a_sharded_adapted_head_is_called_once_a_rank(sharded, calls):
    """Its weight is gathered by all ranks at each call, and these may have more tokens, or fewer, than this one."""

    class Adapted(torch.nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.calls = base, 0

        def forward(self, states):
            self.calls += 1
            return self.base(states)

    linear, hidden, tokens = problem()
    head = Adapted(linear)
    if sharded:
        linear.weight.ds_id = 0  # as DeepSpeed marks it
    logprobs, _ = head_logprobs(head, hidden, tokens, 1.0, 4, with_entropy=False)
    assert head.calls == calls
    torch.testing.assert_close(logprobs, token_logprobs(linear(hidden), tokens))
