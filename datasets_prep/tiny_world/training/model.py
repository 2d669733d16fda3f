"""Qwen3-shaped models of about a million parameters: made, and saved as folders that any loader reads."""

from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

MAX_POSITIONS = 1024
HEAD_DIM = 32

# The usual 0.02 suits wide models; at a width of 128 it only delays the start.
INIT_STD = 0.06


def make_model(
    tokenizer: PreTrainedTokenizerBase, layers: int, hidden: int, seed: int, max_positions: int = MAX_POSITIONS
) -> Qwen3ForCausalLM:
    """A new model in float32. Heads are 32 wide, two of them to a key-value head (or all to one where their number
    is odd); the MLP is three times wider.

    The embeddings are not tied: vLLM on a CPU packs the output head once and would not see its updates.
    """
    if hidden % HEAD_DIM:
        raise ValueError(f"hidden size {hidden} is not a multiple of {HEAD_DIM}")
    heads = hidden // HEAD_DIM
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=1 if heads % 2 else heads // 2,
            head_dim=HEAD_DIM,
            max_position_embeddings=max_positions,
            max_window_layers=layers,
            tie_word_embeddings=False,
            initializer_range=INIT_STD,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def num_parameters(model: torch.nn.Module) -> int:
    """How many weights the model has, embeddings included."""
    return sum(parameter.numel() for parameter in model.parameters())


def save_model(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write weights in bfloat16, configuration, generation defaults and tokenizer to `folder`.

    The model itself is rounded to bfloat16, so that what is measured afterwards is what was saved.
    """
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # weights are written for their owner alone
