"""What decides which rows a data set gets: one plain object, that goes to workers, card and resuming."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from datasets_prep.reading.files import evaluation_files
from flip_plugin.rows.checks import DatasetError

Turns = Literal["first", "full"]
TargetChoice = Literal["auto", "user", "system"]
# Version of the filters: raised when the same settings come to leave out other rows, or to count them otherwise.
RULES = 3


@dataclass(frozen=True)
class Settings:
    """Filters and sampling.

    language        label of the language to keep (`languages.LANGUAGES`), None for any
    turns           first: up to the first user turn; full: up to the last one
    target          what is to be recovered (`flip_plugin.prompts.target.find_target`)
    min_tokens, max_tokens    bounds of the text to be recovered
    max_prompt_tokens         bound of all turns together
    near_duplicates           similarity (Jaccard, of `shingle` bytes) from which two prompts are one; 0 keeps all
    """

    source: str
    files: tuple[str, ...]
    tokenizer: str
    seed: int = 1
    num_prompts: int | None = 12_000
    language: str | None = "English"
    keep_toxic: bool = False
    keep_redacted: bool = False
    turns: Turns = "first"
    target: TargetChoice = "auto"
    min_tokens: int = 4
    max_tokens: int = 1024
    max_prompt_tokens: int = 2048
    near_duplicates: float = 0.8
    shingle: int = 5
    decontaminate: tuple[str, ...] = ()
    ngram: int = 8
    overlap: float = 0.5
    skip_malformed: bool = False
    unit_rows: int = 25_000

    def check(self) -> None:
        """Raise `DatasetError` for settings that make no sense."""
        wanted = 1 if self.num_prompts is None else self.num_prompts
        bounds = {
            "num_prompts": wanted,
            "min_tokens": self.min_tokens,
            "shingle": self.shingle,
            "ngram": self.ngram,
            "unit_rows": self.unit_rows,
        }
        for name, value in bounds.items():
            if value < 1:
                raise DatasetError(f"--{name} must be at least 1, not {value}")
        if self.max_tokens < self.min_tokens or self.max_prompt_tokens < self.min_tokens:
            raise DatasetError(
                f"no prompt has at least {self.min_tokens} tokens (--min_tokens), at most {self.max_tokens} "
                f"(--max_tokens) and at most {self.max_prompt_tokens} in all (--max_prompt_tokens)"
            )
        if not 0 <= self.near_duplicates <= 1:
            raise DatasetError(f"--near_duplicates is a similarity of 0 (off) to 1, not {self.near_duplicates}")
        if not 0 < self.overlap <= 1:
            raise DatasetError(f"--overlap is a share above 0, of at most 1, not {self.overlap}")

    def of_filters(self) -> dict[str, Any]:
        """What the filtered files depend on: a continued run takes those over only where all of this is the same.

        DatasetError where evaluation prompts are not there.
        """
        drawing = ("num_prompts", "near_duplicates", "shingle")
        values = {name: value for name, value in asdict(self).items() if name not in drawing}
        asked = [file for name in self.decontaminate for file in evaluation_files(name)]
        return values | {
            "rules": RULES,
            "stamps": [_stamp(file) for file in (*self.files, self.tokenizer)],
            "evaluation_stamps": [_stamp(file) for file in asked],
        }


def fingerprint(values: Any) -> str:
    """A short hash of JSON-ready values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _stamp(name: str) -> list[Any]:
    """Size and time of a local file; of an address nothing, since the hub's hold their revision."""
    path = Path(name).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        return [name]
    found = path.stat()
    return [name, found.st_size, found.st_mtime_ns]
