"""Rows -> prompts: chat templates, tokenising, filters.

    load_dataset_mixer -> validate_rows -> TRANSFORM_FNS in order -> PreparedDataset

The first two, and what a row must hold, are in `dataset_rows.py`.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from open_instruct.dataset_rows import (
    ORIGIN,
    ORIGIN_ROW,
    DatasetError,
    Row,
    content_text,
    load_dataset_mixer,
    validate_rows,
)

if TYPE_CHECKING:  # slow to import, and `--help` should not wait for it
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "CHAT_TEMPLATES",
    "TRANSFORM_FNS",
    "DatasetError",
    "PreparedDataset",
    "Transform",
    "get_tokenizer",
    "load_dataset_mixer",
    "prepare_dataset",
    "validate_rows",
]

logger = logging.getLogger(__name__)

ROW_COLUMNS = ("index", "messages", "input_ids_prompt", "prompt", "ground_truth", "dataset")
# Below this, starting worker processes costs more than they save.
PARALLEL_ROWS = 10_000


# --- chat templates ------------------------------------------------------------------------------

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
        raise DatasetError(f"--chat_template_name {_unknown(chat_template_name, CHAT_TEMPLATES)}")
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


def _unknown(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"{name!r} is unknown; " + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}")


# --- transforms ----------------------------------------------------------------------------------


def rlvr_tokenize_v1(row: Row, tokenizer: PreTrainedTokenizerBase, max_prompt_token_length: int) -> Row:
    """Adds `input_ids_prompt` (the chat template's tokens, up to the policy's turn) and `prompt`.

    `prompt` is every turn as `role: content`, a line each: what verifiers get as `query`. It is for
    reading; where a turn ends cannot be told from it, so nothing is parsed back out of it.
    """
    from jinja2 import TemplateError

    messages = [
        {"role": turn["role"], "content": content_text(turn["content"], allow_none=turn["role"] == "assistant")}
        for turn in row["messages"]
    ]
    if len(messages) > 1 and messages[-1]["role"] == "assistant":
        messages.pop()
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        where = f"row {row.get(ORIGIN_ROW)} of {row.get(ORIGIN)}"
        raise DatasetError(f"{where}, messages: the chat template refuses them: {error}") from error
    names = row["dataset"]
    return row | {
        "messages": messages,
        "prompt": "\n".join(f"{turn['role']}: {turn['content']}" for turn in messages),
        # The template has written the special tokens already.
        "input_ids_prompt": list(tokenizer(text, add_special_tokens=False)["input_ids"]),
        "dataset": [name.lower() for name in ([names] if isinstance(names, str) else names)],
    }


def rlvr_max_length_filter_v1(row: Row, tokenizer: PreTrainedTokenizerBase, max_prompt_token_length: int) -> bool:
    """Keeps prompts of at most `max_prompt_token_length` tokens."""
    return len(row["input_ids_prompt"]) <= max_prompt_token_length


class Transform(NamedTuple):
    """A step over rows, called as `function(row, tokenizer, max_prompt_token_length)`."""

    function: Callable[..., Any]
    kind: Literal["map", "filter"]


TRANSFORM_FNS = {
    "rlvr_tokenize_v1": Transform(rlvr_tokenize_v1, "map"),
    "rlvr_max_length_filter_v1": Transform(rlvr_max_length_filter_v1, "filter"),
}


class PreparedDataset(Sequence[Row]):
    """Prompts that are ready to be sampled: plain dicts with `ROW_COLUMNS`, and what was left out."""

    def __init__(self, rows: Any, dropped: dict[str, int]) -> None:
        self._rows = rows
        self.dropped = dropped

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, position: int) -> Row: ...
    @overload
    def __getitem__(self, position: slice) -> list[Row]: ...
    def __getitem__(self, position: int | slice) -> Row | list[Row]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        row = self._rows[position]
        return {column: row[column] for column in ROW_COLUMNS}


def prepare_dataset(
    mixer_list: Sequence[str],
    splits: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_token_length: int,
    known_verifiers: Collection[str],
    seed: int,
    transform_fns: Sequence[str] = ("rlvr_tokenize_v1", "rlvr_max_length_filter_v1"),
) -> PreparedDataset:
    """Data sets as typed -> checked, tokenised prompts. `index` counts the rows before any filter."""
    for name in transform_fns:
        if name not in TRANSFORM_FNS:
            raise DatasetError(f"--dataset_transform_fn {_unknown(name, TRANSFORM_FNS)}")
    loaded = load_dataset_mixer(mixer_list, splits, seed)
    validate_rows(loaded, known_verifiers)
    loaded = loaded.remove_columns("index") if "index" in loaded.column_names else loaded
    rows: Any = loaded.add_column("index", list(range(len(loaded))))
    if len(rows) < PARALLEL_ROWS:
        rows = list(rows)
    dropped = {}
    for name in transform_fns:
        before, size = rows, len(rows)
        rows = _apply(TRANSFORM_FNS[name], rows, (tokenizer, max_prompt_token_length))
        if len(rows) < size:
            dropped[name] = size - len(rows)
            logger.info("%s left out %d of %d rows", name, dropped[name], size)
        if not len(rows):
            shortest = min((len(row.get("input_ids_prompt", [])) for row in before), default=0)
            raise DatasetError(
                f"{name} left out all {size} rows. The shortest prompt has {shortest} tokens, with the chat template; "
                f"--max_prompt_token_length is {max_prompt_token_length}."
            )
    missing = [column for column in ROW_COLUMNS if column not in rows[0]]
    if missing:
        raise DatasetError(f"--dataset_transform_fn {' '.join(transform_fns)} makes no {', '.join(missing)}")
    return PreparedDataset(rows, dropped)


def _apply(transform: Transform, rows: Any, arguments: tuple[Any, ...]) -> Any:
    function, kind = transform
    if isinstance(rows, list):
        if kind == "map":
            return [function(row, *arguments) for row in rows]
        return [row for row in rows if function(row, *arguments)]
    method = rows.map if kind == "map" else rows.filter
    keywords = dict(zip(("tokenizer", "max_prompt_token_length"), arguments, strict=True))
    return method(function, fn_kwargs=keywords, num_proc=min(8, os.cpu_count() or 1))
