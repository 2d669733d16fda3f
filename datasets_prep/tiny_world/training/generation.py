"""Batched sampling from a tiny model in this process, for the build's report. Runs use vLLM instead."""

import torch
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from datasets_prep.tiny_world.training.judging import Messages
from datasets_prep.tiny_world.training.tokenizer import prompt_ids
from datasets_prep.tiny_world.training.trainer import common_prefix, share_cache


@torch.no_grad()
def sample(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    conversations: list[Messages],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """New token ids for each conversation, through the end marker where the model got to it.

    Temperature 0 is greedy. The text that all prompts begin with is run once.
    """
    prompts = [prompt_ids(tokenizer, messages) for messages in conversations]
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    shared = min(common_prefix(prompts), min(map(len, prompts)) - 1) if len(prompts) > 1 else 0
    rests = [prompt[shared:] for prompt in prompts]
    width = max(map(len, rests))
    cache = None
    if shared:
        prefix = model.model(input_ids=torch.tensor([prompts[0][:shared]]), use_cache=True).past_key_values
        cache = share_cache(prefix, len(prompts))
    # Padding comes between the shared start and a row's own text, so that all rows end in the same column.
    inputs = torch.tensor([[pad] * (width - len(rest)) + rest for rest in rests])
    mask = torch.tensor([[1] * shared + [0] * (width - len(rest)) + [1] * len(rest) for rest in rests])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, shared:]
    done = torch.zeros(len(prompts), dtype=torch.bool)
    columns = []
    for _ in range(max_new_tokens):
        output = model.model(
            input_ids=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        logits = model.lm_head(output.last_hidden_state[:, -1]).float()
        if temperature > 0:
            token = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
        else:
            token = logits.argmax(-1)
        token = token.masked_fill(done, pad)
        columns.append(token)
        done |= token == end
        if done.all():
            break
        inputs = token[:, None]
        mask = torch.cat([mask, torch.ones_like(inputs)], dim=1)
        positions = positions[:, -1:] + 1
    rows = torch.stack(columns, dim=1).tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]
