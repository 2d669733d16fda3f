"""Rows -> prompts, under upstream's module name: see `open_instruct.data` and `flip_plugin.rows`."""

from flip_plugin.rows.checks import DatasetError, validate_rows
from open_instruct.data.rows import Row, load_dataset_mixer
from open_instruct.data.templates import CHAT_TEMPLATES, get_tokenizer
from open_instruct.data.transform import (
    ROW_COLUMNS,
    TRANSFORM_FNS,
    PreparedDataset,
    Transform,
    prepare_dataset,
    rlvr_max_length_filter_v1,
    rlvr_tokenize_v1,
)

__all__ = [
    "CHAT_TEMPLATES",
    "ROW_COLUMNS",
    "TRANSFORM_FNS",
    "DatasetError",
    "PreparedDataset",
    "Row",
    "Transform",
    "get_tokenizer",
    "load_dataset_mixer",
    "prepare_dataset",
    "rlvr_max_length_filter_v1",
    "rlvr_tokenize_v1",
    "validate_rows",
]
