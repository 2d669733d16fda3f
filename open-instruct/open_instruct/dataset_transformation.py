"""Rows -> prompts, under upstream's module name: see `open_instruct.data` and `flip_plugin.rows`."""

from flip_plugin.rows.checks import DatasetError, validate_rows
from open_instruct.data.rows import load_dataset_mixer
from open_instruct.data.templates import CHAT_TEMPLATES, get_tokenizer
from open_instruct.data.transform import TRANSFORM_FNS, PreparedDataset, Transform, prepare_dataset

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
