"""Rows -> prompts: chat templates, tokenising, filters.

    load_dataset_mixer -> validate_rows -> TRANSFORM_FNS in order -> PreparedDataset

The first is in `open_instruct.data.rows`, the second, what a row must hold, in `flip_plugin.rows.checks`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from flip_plugin.rows.checks import ORIGIN, ORIGIN_ROW, DatasetError, content_text, validate_rows
from open_instruct.data.rows import Row, load_dataset_mixer
from open_instruct.data.templates import unknown_name

if TYPE_CHECKING:  # slow to import, and `--help` should not wait for it
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "TRANSFORM_FNS",
    "PreparedDataset",
    "Transform",
    "prepare_dataset",
]

logger = logging.getLogger(__name__)

ROW_COLUMNS = ("index", "messages", "input_ids_prompt", "prompt", "ground_truth", "dataset")
# Below this, starting worker processes costs more than they save.
PARALLEL_ROWS = 10_000


def rlvr_tokenize_v1(row: Row, tokenizer: PreTrainedTokenizerBase, max_prompt_token_length: int) -> Row:
    """Adds `input_ids_prompt` (the chat template's tokens, up to the policy's turn) and `prompt`.

    `prompt` is every turn as `role: content`, a line each: what verifiers get as `query`. It is for
    reading; where a turn ends cannot be seen in it, so nothing is parsed back out of it.
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
            raise DatasetError(f"--dataset_transform_fn {unknown_name(name, TRANSFORM_FNS)}")
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
