"""Lengths of prompts in tokens of a given tokenizer, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flip_plugin.rows.checks import DatasetError


class TokenCounter:
    """Counts tokens without special ones. Takes the model's fast tokenizer alone, so no model library is loaded."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._longest_token = max(map(len, tokenizer.get_vocab(with_added_tokens=True)))

    @classmethod
    def load(cls, name: str) -> TokenCounter:
        """From a folder with tokenizer.json, such a file, or a model's hub id. DatasetError says what is wrong."""
        from tokenizers import Tokenizer

        path = Path(name).expanduser()
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            return cls(Tokenizer.from_file(str(file)) if file.is_file() else Tokenizer.from_pretrained(name))
        except Exception as error:  # the Rust library raises bare Exceptions
            raise DatasetError(
                f"--tokenizer {name} could not be loaded: {error}\n"
                "Give a model's hub id (needs the network or a cache) or a folder that holds tokenizer.json."
            ) from error

    def count(self, texts: Sequence[str], limit: int) -> list[int]:
        """Tokens of each text; ``limit + 1`` for one that has more than `limit` tokens, whatever its exact number."""
        # No token is longer than the longest: beyond that, a text need not be encoded to be too long.
        sure = limit * self._longest_token
        short = [text for text in texts if len(text) <= sure]
        encoded = iter(self._tokenizer.encode_batch_fast(short, add_special_tokens=False))
        return [min(limit + 1, len(next(encoded))) if len(text) <= sure else limit + 1 for text in texts]
