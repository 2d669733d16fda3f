"""Leaves out prompts that are, or contain, prompts of an evaluation.

A prompt is contaminated when at least `overlap` of the distinct word n-grams of one evaluation
prompt occur in its turns (the manner of Tulu 3, arXiv 2411.15124: 8-grams, half). An evaluation prompt of
fewer than n words counts only where a turn has the same words and no more, since its few would occur anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets_prep.filters.normalise import normalise, words_of
from datasets_prep.reading.files import evaluation_files, split_name
from flip_plugin.rows.checks import DatasetError, content_text
from flip_plugin.rows.reading import numbered_rows

PROMPT_COLUMNS = ("prompt", "question", "instruction", "problem", "input", "messages", "conversation")


class Decontaminator:
    """Knows the n-grams of evaluation prompts. Memory grows with their number of words."""

    def __init__(self, prompts: Iterable[str], n: int = 8, overlap: float = 0.5) -> None:
        self.n, self.overlap = n, overlap
        self._short: set[tuple[str, ...]] = set()
        self._prompts_of: dict[str, list[int]] = {}
        self._sizes: list[int] = []
        for prompt in prompts:
            words = words_of(normalise(prompt))
            if len(words) < n:
                if words:  # signs alone would be found in every turn of signs, and in every empty one
                    self._short.add(tuple(words))
                continue
            grams = set(self._grams(words))
            for gram in grams:
                self._prompts_of.setdefault(gram, []).append(len(self._sizes))
            self._sizes.append(len(grams))

    def __len__(self) -> int:
        return len(self._sizes) + len(self._short)

    def _grams(self, words: Sequence[str]) -> list[str]:
        return [" ".join(words[start : start + self.n]) for start in range(len(words) - self.n + 1)]

    def contaminated(self, *turns: str) -> bool:
        """Whether the turns of a prompt, normalised, hold an evaluation prompt, or one of them is a short one."""
        grams: set[str] = set()
        for turn in turns:
            words = words_of(turn)
            if len(words) < self.n and tuple(words) in self._short:
                return True
            grams.update(self._grams(words))
        hits: Counter[int] = Counter()
        for gram in grams & self._prompts_of.keys():
            hits.update(self._prompts_of[gram])
        return any(count >= self.overlap * self._sizes[prompt] for prompt, count in hits.items())


def evaluation_prompts(names: Sequence[str]) -> Iterator[str]:
    """Prompts of evaluations: ``FILE_OR_HUB_ID[:SPLIT][#COLUMN]`` each; .txt has one a line.

    Without a column, the first of `PROMPT_COLUMNS` that the file has. Of messages, every user turn is a prompt.
    """
    for name in names:
        column = split_name(name)[2]
        count = 0
        for file in evaluation_files(name):
            if file.endswith(".txt"):
                try:
                    lines = [line for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
                except UnicodeDecodeError as error:
                    raise DatasetError(f"{file} is not UTF-8 text: {error}. Write it anew as UTF-8.") from error
                count += len(lines)
                yield from lines
                continue
            for number, row in numbered_rows(file):
                for text in _texts(row, column, f"{file}, row {number}"):
                    count += 1
                    yield text
        if not count:
            raise DatasetError(f"{name} holds no evaluation prompt")


def _texts(row: dict[str, Any], column: str, where: str) -> Iterator[str]:
    column = column or next((name for name in PROMPT_COLUMNS if row.get(name)), "")
    value = row.get(column)
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
        try:
            yield from (
                content_text(turn.get("content"), allow_none=True) for turn in value if turn.get("role") == "user"
            )
        except TypeError as error:
            raise DatasetError(f"{where}, {column}: {error}") from error
    else:
        raise DatasetError(
            f"{where}: no prompt in {column or ', '.join(PROMPT_COLUMNS)}; it has {', '.join(row)}. "
            "Name the column: FILE#COLUMN"
        )
