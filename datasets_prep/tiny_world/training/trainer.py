"""Supervised training on endless examples: the loss is on the reply, and the shared prompt is read once."""

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedTokenizerBase, Qwen3ForCausalLM

from datasets_prep.tiny_world.training.examples import Example
from datasets_prep.tiny_world.training.tokenizer import prompt_ids

IGNORED = -100
CHECKPOINT_EVERY = 20


def encode(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[list[int], list[int]]:
    """(prompt ids, reply ids with the end marker), exactly as a server makes them from the messages."""
    return prompt_ids(tokenizer, example.messages), [*tokenizer(example.reply)["input_ids"], tokenizer.eos_token_id]


def share_cache(cache: DynamicCache, rows: int) -> DynamicCache:
    """The keys and values of a batch of one as those of `rows` rows; gradients flow back through them."""
    shared = DynamicCache()
    for i, layer in enumerate(cast(list[Any], cache.layers)):
        shared.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), i)
    return shared


def common_prefix(sequences: list[list[int]]) -> int:
    """How many leading tokens all the sequences share."""
    length = 0
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        length += 1
    return length


def reply_loss(model: Qwen3ForCausalLM, encoded: list[tuple[list[int], list[int]]], pad: int) -> torch.Tensor:
    """Mean cross-entropy per reply token of a batch.

    The judge's prompts begin with the same long text. It is run once, as a batch of one, and its keys and
    values are shared by all rows, with gradients: the same loss as row by row, at about a third of the cost.
    """
    prompts = [prompt for prompt, _ in encoded]
    # At least one prompt token stays in the rows, since it predicts the reply's first.
    shared = min(common_prefix(prompts), min(map(len, prompts)) - 1)
    rows = [prompt[shared:] + reply for prompt, reply in encoded]
    width = max(map(len, rows))
    inputs = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    labels = torch.tensor(
        [
            [IGNORED] * (len(prompt) - shared) + reply + [IGNORED] * (width - len(prompt) + shared - len(reply))
            for prompt, reply in encoded
        ]
    )
    real = torch.tensor([[1] * (shared + len(row)) + [0] * (width - len(row)) for row in rows])
    cache = None
    if shared:
        prefix = model.model(input_ids=torch.tensor([prompts[0][:shared]]), use_cache=True).past_key_values
        cache = share_cache(prefix, len(rows))
    hidden = model.model(input_ids=inputs, attention_mask=real, past_key_values=cache).last_hidden_state
    targets = labels[:, 1:]
    kept = targets != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][kept]), targets[kept])


def train(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    streams: list[Iterator[Example]],
    *,
    steps: int,
    batch_size: int,
    peak_lr: float,
    label: str,
    line: int = 0,
    muon_lr: float | None = None,
    checkpoint: Path | None = None,
) -> list[float]:
    """Train `model` in place on batches of one stream after another, one update for a batch of each.

    `batch_size` counts the examples of one stream in an update, so streams get equal numbers. AdamW, 20 steps
    of warm-up, cosine to a twentieth; with `muon_lr`, Muon for the layers' matrices.
    The progress bar takes screen line `line`. Returns the steps' losses.
    With `checkpoint`, a file, a training that was stopped goes on where it was at most `CHECKPOINT_EVERY` steps
    before; the streams must be new ones of the same seed, and the other arguments the same.
    """
    optimizers = _optimizers(model, peak_lr, muon_lr)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(1.0, (step + 1) / 20) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2),
        )
        for optimizer in optimizers
    ]
    state = {"model": model, **{f"part {i}": part for i, part in enumerate([*optimizers, *schedules])}}
    model.train()
    losses: list[float] = []
    if checkpoint is not None and checkpoint.is_file():
        losses = _restore(checkpoint, state)
        for stream in streams:  # what was learnt from is not drawn again
            for _ in islice(stream, len(losses) * batch_size):
                pass
    first = len(losses)
    progress = tqdm(
        range(first, steps), desc=label, unit="step", mininterval=1.0, position=line, initial=first, total=steps
    )
    for step in progress:
        total = 0.0
        for stream in streams:
            encoded = [encode(tokenizer, example) for example in islice(stream, batch_size)]
            loss = reply_loss(model, encoded, tokenizer.pad_token_id) / len(streams)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in (*optimizers, *schedules):
            part.step()
        model.zero_grad()
        losses.append(total)
        progress.set_postfix(loss=f"{total:.3f}")
        if checkpoint is not None and (step + 1) % CHECKPOINT_EVERY == 0:
            _keep(checkpoint, state, losses)
    model.eval()
    return losses


def _optimizers(model: Qwen3ForCausalLM, peak_lr: float, muon_lr: float | None) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2] if muon_lr is not None else []
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=peak_lr, betas=(0.9, 0.98), weight_decay=0.01)
    ]
    if muon_lr is not None:
        optimizers.append(torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.01))
    return optimizers


def _keep(file: Path, state: Mapping[str, Any], losses: list[float]) -> None:
    """Write all that the training needs to go on to `file`, whole or not at all."""
    temporary = file.with_name(f".{file.name}")
    torch.save({name: part.state_dict() for name, part in state.items()} | {"losses": losses}, temporary)
    temporary.replace(file)


def _restore(file: Path, state: Mapping[str, Any]) -> list[float]:
    """Put back what `_keep` wrote; returns the losses of the steps done."""
    found = torch.load(file, weights_only=True)
    for name, part in state.items():
        part.load_state_dict(found[name])
    return found["losses"]
