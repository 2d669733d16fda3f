"""Candidates of all units -> the sample, in an order that depends on texts and seed alone.

Every candidate has a key, random by seed and text. In ascending order of keys, a prompt is taken
unless it is a copy of the one before it (copies share their key) or resembles one that was taken,
until there are enough. So the sample is the beginning of what a run without a limit would write,
whatever the order of files, units and workers; and only as many prompts are compared as are needed.

Memory: eight bytes a candidate (its key), one block of every unit, a few slices of keys in
flight, and the signatures of the prompts taken (`dedup.py`).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_prep.filters.dedup import KeptPrompts, signatures
from datasets_prep.filters.normalise import prompt_text
from datasets_prep.filters.parallel import process_pool
from datasets_prep.settings import Settings

# Candidates in a slice of keys: work for one process.
SLICE_ROWS = 4096
KEYS = 2**64


@dataclass
class Drawing:
    """Counts of what happened to the candidates; they add up to `candidates`."""

    candidates: int = 0
    exact_duplicates: int = 0
    near_duplicates: int = 0
    taken: int = 0
    # Distinct prompts that were looked at before the sample was full.
    compared: int = 0
    tokens: list[int] = field(default_factory=list)

    @property
    def not_drawn(self) -> int:
        """Distinct prompts that were not needed."""
        return self.candidates - self.exact_duplicates - self.near_duplicates - self.taken


@dataclass(frozen=True)
class Taken:
    """A prompt of the sample."""

    id: str
    messages: list[dict[str, str]]


def draw(files: Sequence[Path], settings: Settings, counts: Drawing, workers: int) -> Iterator[Taken]:
    """The sample, one prompt after the other; `counts` is complete when it ends."""
    kept = KeptPrompts(settings.near_duplicates) if settings.near_duplicates else None
    wanted = settings.num_prompts
    for table, hashes in _slices(files, settings, counts, workers if kept else 1):
        columns = (table.column(name).to_pylist() for name in ("id", "messages", "tokens"))
        for number, (name, messages, tokens) in enumerate(zip(*columns, strict=True)):
            counts.compared += 1
            if kept is not None and not kept.keep_if_new(hashes[number]):
                counts.near_duplicates += 1
                continue
            counts.taken += 1
            counts.tokens.append(tokens)
            yield Taken(name, json.loads(messages))
            if counts.taken == wanted:
                return


def _slices(
    files: Sequence[Path], settings: Settings, counts: Drawing, workers: int
) -> Iterator[tuple[Any, list[Any]]]:
    """(distinct candidates of a slice of keys, their signatures), slices in ascending order."""
    with ExitStack() as stack:
        units = [stack.enter_context(_Unit(file)) for file in files]
        counts.candidates = sum(len(unit.keys) for unit in units)
        number = max(1, counts.candidates // SLICE_ROWS)
        bounds = [KEYS * (place + 1) // number for place in range(number)]
        counts.exact_duplicates = _copies(units, bounds)
        tables = (_distinct([unit.up_to(bound) for unit in units]) for bound in bounds)
        if not settings.near_duplicates:
            yield from ((table, []) for table in tables)
        elif workers == 1 or number == 1:
            yield from ((table, _signatures(_messages(table), settings.shingle)) for table in tables)
        else:
            pool = stack.enter_context(process_pool(workers))
            ahead: deque[tuple[Any, Future[list[Any]]]] = deque()
            for table in tables:
                ahead.append((table, pool.submit(_signatures, _messages(table), settings.shingle)))
                if len(ahead) > 2 * workers:
                    oldest, result = ahead.popleft()
                    yield oldest, result.result()
            for table, future in ahead:
                yield table, future.result()


def _messages(table: Any) -> list[str]:
    return table.column("messages").to_pylist()


def _signatures(messages: list[str], size: int) -> list[Any]:
    return signatures([prompt_text(json.loads(turns)) for turns in messages], size)


class _Unit:
    """A unit's candidates, read from the first to the last; `keys` are all of its keys."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> _Unit:
        import pyarrow as pa

        self._handle = pa.OSFile(str(self._file))
        options = pa.ipc.IpcReadOptions(included_fields=[0])
        self.keys = pa.ipc.open_file(self._handle, options=options).read_all().column("key").to_numpy()
        self._reader = pa.ipc.open_file(self._handle)
        self._next = 0
        self._block = None
        self._done = 0  # rows of the block that were handed out
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._handle.close()

    def up_to(self, bound: int) -> Any:
        """A table of the further candidates whose keys are below `bound`."""
        import numpy as np
        import pyarrow as pa

        parts = []
        while True:
            if self._block is None or self._done == self._block.num_rows:
                if self._next == self._reader.num_record_batches:
                    break
                self._block, self._done = self._reader.get_batch(self._next), 0
                self._next += 1
            keys = self._block.column(0).to_numpy()
            end = len(keys) if bound >= KEYS else int(np.searchsorted(keys, np.uint64(bound)))
            if end > self._done:
                parts.append(self._block.slice(self._done, end - self._done))
                self._done = end
            if end < len(keys):
                break
        return pa.Table.from_batches(parts, schema=self._reader.schema).replace_schema_metadata(None)


def _copies(units: Sequence[_Unit], bounds: Sequence[int]) -> int:
    import numpy as np

    places = [[*np.searchsorted(unit.keys, np.array(bounds[:-1], dtype=np.uint64)), len(unit.keys)] for unit in units]
    begins = [0] * len(units)
    copies = 0
    for number in range(len(bounds)):
        keys = [unit.keys[begin : ends[number]] for unit, begin, ends in zip(units, begins, places, strict=True)]
        together = np.concatenate(keys)
        copies += len(together) - len(np.unique(together))
        begins = [int(ends[number]) for ends in places]
    return copies


def _distinct(tables: Sequence[Any]) -> Any:
    import numpy as np
    import pyarrow as pa

    table = pa.concat_tables(tables).combine_chunks()
    table = table.sort_by([(name, "ascending") for name in ("key", "messages", "id")])
    keys = table.column("key").to_numpy()
    first = np.ones(len(keys), dtype=bool)
    first[1:] = keys[1:] != keys[:-1]
    return table.filter(pa.array(first))
