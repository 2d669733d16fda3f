"""The tokenizer that policy and judge share: byte-level BPE over the world's words and the judge's prompts."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

BOS, EOS, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
MODEL_MAX_LENGTH = 1024

# Qwen's conversation format. It names no `enable_thinking`, so passing that changes nothing.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- endif %}"
)

# Words with the space before them, single digits, runs of punctuation, line ends, other space.
_PIECES = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]|\s+(?!\S)|\s+"


def chat_text(messages: Iterable[dict[str, str]]) -> str:
    """What the chat template makes of a whole conversation, without the special tokens' meaning."""
    return "".join(f"{BOS}{m['role']}\n{m['content']}{EOS}\n" for m in messages)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, model_max_length: int = MODEL_MAX_LENGTH
) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocab_size` tokens; any text can be encoded, since every byte is a token."""
    special = [PAD, BOS, EOS]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The markers would be split into pieces and learnt as words.
    marker = re.compile("|".join(map(re.escape, special)))
    tokenizer.train_from_iterator((part for text in texts for part in marker.split(text)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens=[BOS],
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a saved model."""
    return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(folder))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """The conversation as token ids, up to where the assistant's turn begins: what a server makes of it."""
    ids: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return ids


def text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The ids as text, without special tokens."""
    text: Any = tokenizer.decode(ids, skip_special_tokens=True)
    return text
