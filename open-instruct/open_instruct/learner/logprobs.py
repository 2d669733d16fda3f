"""Log-probabilities of response tokens, and the policy's entropy, without the logits of all of them at once.

The logits of N tokens over a vocabulary of V take N x V floats, several times over in a backward pass: 2.5 GB
a copy for 4,096 tokens of a 151,000-word vocabulary. Here the output head runs over `chunk_size` tokens at a
time. The forward pass keeps one number a token (log sum exp); the backward pass makes each chunk's logits
again, and from them the gradients of hidden states and head. The results are those of the plain form.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from open_instruct.learner.grpo import token_logprobs

#: Logits that are cheap to hold: 64 MB in float32. Chunks below that cost time and save nothing that matters.
CHEAP_LOGITS = 2**24
#: What transformers' models call a change to the logits after the head, in their configurations.
CHANGES_LOGITS = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "logits_soft_cap",
    "output_logits_soft_cap",
)


def policy_logprobs(
    model: Any,
    batch: dict[str, Any],
    temperature: float,
    *,
    chunk_size: int = 0,
    with_entropy: bool = False,
    linear_head: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Of a packed batch's N response tokens, row by row: log-probabilities (N,) and entropies (N,) or None, in nats.

    `batch` holds `input_ids`, `position_ids` and `response_mask`, each (B, L). Positions start again at 0
    with each sample: transformers reads the packs' borders from that, and builds the mask that the model's
    layers ask for (sliding windows, flash attention); where no row holds two samples, it needs none. The output head
    runs on the positions that predict response tokens alone, `chunk_size` at a time (0: all at once).
    Entropies are those of the distribution at `temperature`, and carry no gradient. Models that do something
    to their logits after the head (`linear_head` False) go through their own forward pass, whole.
    """
    inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "use_cache": False}
    predicted = batch["response_mask"][:, 1:] > 0
    tokens = batch["input_ids"][:, 1:][predicted]
    if not linear_head:
        logits = model(**inputs).logits[:, :-1][predicted]
        return logprobs_of_logits(logits, tokens, temperature, with_entropy)
    hidden = model.get_decoder()(**inputs).last_hidden_state[:, :-1][predicted]
    return head_logprobs(model.get_output_embeddings(), hidden, tokens, temperature, chunk_size, with_entropy)


def head_logprobs(
    head: Any, hidden: torch.Tensor, tokens: torch.Tensor, temperature: float, chunk_size: int, with_entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Hidden states (N, H) and the tokens (N,) that they predict -> log-probabilities (N,), entropies (N,) or None."""
    adapted = type(head) is not torch.nn.Linear  # such as a head with a LoRA adapter
    # Each call of a sharded head is a collective, and the ranks have different numbers of tokens.
    if not 0 < chunk_size < len(tokens) or (adapted and _is_sharded(head)):
        return logprobs_of_logits(head(hidden), tokens, temperature, with_entropy)
    if adapted:
        return _checkpointed(head, hidden, tokens, temperature, chunk_size, with_entropy)

    def chunked(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _ChunkedHead.apply(states, head.weight, head.bias, tokens, temperature, chunk_size, with_entropy)

    # Through the head's own call, and not beside it: under ZeRO-3 its hooks fetch the weight, forward and backward.
    with _forward_is(head, chunked):
        logprobs, entropy = head(hidden)
    return logprobs, entropy if with_entropy else None


def logprobs_of_logits(
    logits: torch.Tensor, tokens: torch.Tensor, temperature: float, with_entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The plain form: logits (N, V) and tokens (N,) -> log-probabilities (N,), entropies (N,) or None."""
    logprobs = token_logprobs(logits, tokens, temperature)
    if not with_entropy:
        return logprobs, None
    with torch.no_grad():
        all_logprobs = torch.log_softmax(_upcast(logits) / temperature, dim=-1)
        return logprobs, -(all_logprobs.exp() * all_logprobs).sum(-1)


def worthwhile_chunk(chunk_size: int, vocabulary: int) -> int:
    """`chunk_size`, or as many positions as have `CHEAP_LOGITS` logits where that is more; 0 stays 0 (no chunks)."""
    return max(chunk_size, CHEAP_LOGITS // vocabulary) if chunk_size > 0 else 0


def head_is_linear(model: Any) -> bool:
    """Whether the logits are head(decoder(x)), and not scaled or capped after it: tried on two tokens.

    A model that ZeRO-3 has sharded cannot be tried without its engine; its configuration has to tell.
    """
    if _is_sharded(model):
        return not any(getattr(model.config.get_text_config(), name, None) for name in CHANGES_LOGITS)
    ids = torch.tensor([[0, 1]], device=next(model.parameters()).device)
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        apart = model.get_output_embeddings()(model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
    return whole.shape == apart.shape and torch.allclose(whole.float(), apart.float(), rtol=1e-2, atol=1e-2)


def _is_sharded(module: Any) -> bool:
    """Whether ZeRO-3 keeps the module's weights in parts."""
    return any(hasattr(p, "ds_id") for p in module.parameters())


def _upcast(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


@contextmanager
def _forward_is(module: Any, function: Callable[..., Any]) -> Generator[None]:
    """Within the block `module(...)` runs its hooks around `function` in the place of its forward."""
    module.forward = function
    try:
        yield
    finally:
        del module.forward


def _checkpointed(
    head: Any, hidden: torch.Tensor, tokens: torch.Tensor, temperature: float, chunk_size: int, with_entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Any head: torch runs each chunk again in the backward pass."""

    def one(states: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return logprobs_of_logits(head(states), ids, temperature, with_entropy)

    pieces = zip(hidden.split(chunk_size), tokens.split(chunk_size), strict=True)
    parts = [checkpoint(one, states, ids, use_reentrant=False) for states, ids in pieces]
    logprobs = torch.cat([part[0] for part in parts])
    return logprobs, torch.cat([part[1] for part in parts]) if with_entropy else None


class _ChunkedHead(torch.autograd.Function):
    """Linear head and log softmax over chunks of positions: (N, H) -> (N,) log-probabilities, (N,) entropies.

    With z = (h W^T + b) / T: log p(token) = z[token] - log sum exp z, whose gradient with respect to z is
    onehot(token) - softmax(z). Gradients of a half-precision head are summed over the chunks in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        tokens: torch.Tensor,
        temperature: float,
        chunk_size: int,
        with_entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kept = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        logprobs, log_sums = (torch.empty(len(tokens), dtype=kept, device=hidden.device) for _ in range(2))
        entropy = torch.zeros(len(tokens) if with_entropy else 0, dtype=kept, device=hidden.device)
        for part in _slices(len(tokens), chunk_size):
            scaled = _scaled_logits(hidden[part], weight, bias, temperature)
            log_sums[part] = torch.logsumexp(scaled, dim=-1)
            logprobs[part] = scaled.gather(-1, tokens[part, None])[:, 0] - log_sums[part]
            if with_entropy:
                scaled -= log_sums[part, None]
                entropy[part] = -(scaled.exp() * scaled).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, tokens, log_sums)
        ctx.temperature, ctx.chunk_size = temperature, chunk_size
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, tokens, log_sums = ctx.saved_tensors
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        summed = torch.float64 if weight.dtype == torch.float64 else torch.float32
        grad_hidden = torch.empty_like(hidden) if to_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=summed) if to_weight else None
        grad_bias = torch.zeros_like(bias, dtype=summed) if to_bias else None
        scale = gradients[0] / ctx.temperature
        for part in _slices(len(tokens), ctx.chunk_size):
            # The logits' memory becomes that of softmax, and then that of the gradient.
            grad = _scaled_logits(hidden[part], weight, bias, ctx.temperature)
            grad.sub_(log_sums[part, None]).exp_().mul_(-scale[part, None])
            grad.scatter_add_(-1, tokens[part, None], scale[part, None])
            grad = grad.to(weight.dtype)
            if grad_hidden is not None:
                torch.mm(grad, weight, out=grad_hidden[part])
            if grad_weight is not None:
                if summed == weight.dtype:
                    grad_weight.addmm_(grad.T, hidden[part])
                else:
                    grad_weight += grad.T @ hidden[part]
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(weight.dtype),
            None,
            None,
            None,
            None,
        )


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]


def _scaled_logits(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, temperature: float
) -> torch.Tensor:
    """Fresh memory, at least float32: (C, H) -> (C, V)."""
    logits = _upcast(torch.nn.functional.linear(hidden, weight, bias))
    return logits if temperature == 1.0 else logits.div_(temperature)


class Policy(torch.nn.Module):
    """A model as the learner calls it, and as DeepSpeed wraps it: a micro-batch's inputs -> `policy_logprobs`."""

    def __init__(self, model: Any, temperature: float, *, chunk_size: int = 0, with_entropy: bool = False) -> None:
        super().__init__()
        self.model = model
        self.temperature, self.with_entropy = temperature, with_entropy
        self.chunk_size = worthwhile_chunk(chunk_size, model.config.get_text_config().vocab_size)
        self.linear_head = head_is_linear(model)

    def forward(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probabilities of the N response tokens, (N,), and their entropies where they are asked for."""
        return policy_logprobs(
            self.model,
            inputs,
            self.temperature,
            chunk_size=self.chunk_size,
            with_entropy=self.with_entropy,
            linear_head=self.linear_head,
        )
