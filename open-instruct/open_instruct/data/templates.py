"""Chat templates, and a tokenizer with one."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from flip_plugin.errors import did_you_mean
from flip_plugin.rows.checks import DatasetError

if TYPE_CHECKING:  # slow to import, and `--help` should not wait for it
    from transformers import PreTrainedTokenizerBase


# Jinja over `messages`. A generation prompt is the start of the turn that the policy writes.
CHAT_TEMPLATES = {
    # For base models: plain "Role: text" paragraphs.
    "simple_chat": (
        "{% for m in messages %}{{ m.role.capitalize() + ': ' + m.content + '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    ),
    # ChatML that answers at once: for Qwen3, the same text as its own with thinking switched off.
    "chatml_no_think": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}"
    ),
    # What Olmo 3 Think models were trained with: a default system prompt, a note that there are no
    # functions, and thinking that has already begun, so responses hold only the closing tag.
    "olmo_thinker": (
        "{% set note = ' You do not currently have access to any functions. <functions></functions>' %}"
        "{% if messages[0].role != 'system' %}"
        "{{ '<|im_start|>system\nYou are OLMo, a helpful function-calling AI assistant built by Ai2. Your date cutoff "
        "is November 2024, and your model weights are available at https://huggingface.co/allenai.' "
        "+ note + '<|im_end|>\n' }}{% endif %}"
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
        "{% if m.role == 'system' %}{{ note }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>' }}{% endif %}"
    ),
}


def get_tokenizer(
    name: str, chat_template_name: str | None = None, *, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """A model's tokenizer, with a built-in chat template instead of its own where one is named."""
    if chat_template_name is not None and chat_template_name not in CHAT_TEMPLATES:
        raise DatasetError(f"--chat_template_name {unknown_name(chat_template_name, CHAT_TEMPLATES)}")
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(name, revision=revision)
    if chat_template_name is not None:
        tokenizer.chat_template = CHAT_TEMPLATES[chat_template_name]
    elif not tokenizer.chat_template:
        raise DatasetError(
            f"{name} has no chat template: choose one with --chat_template_name ({', '.join(CHAT_TEMPLATES)})"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def unknown_name(name: str, known: Collection[str]) -> str:
    """That `name` is none of the `known` ones, in words, with the nearest of them."""
    return f"{name!r} is unknown; {did_you_mean(name, known) or 'there are ' + ', '.join(known)}"
