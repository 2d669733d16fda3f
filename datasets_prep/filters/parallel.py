"""The filters over all units of work, in several processes, into one file of candidates a unit.

A finished unit is a file `unit-NNNNN.arrow` (written beside and renamed), sorted by sampling key,
with the unit's counts in its metadata; a continued run leaves it alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets_prep.filters.decontaminate import Decontaminator
from datasets_prep.filters.languages import Detector
from datasets_prep.filters.lengths import TokenCounter
from datasets_prep.filters.registry import Candidate, RowFilter, Tools
from datasets_prep.reading.batches import Unit
from datasets_prep.reading.sources import SOURCES
from datasets_prep.reading.units import read_unit
from datasets_prep.settings import Settings
from flip_plugin.files.atomic import replaced_path
from flip_plugin.rows.checks import DatasetError

# Rows a compressed block: `sampling.py` holds one block of every unit in memory.
BLOCK_ROWS = 512
EVALUATION_PROMPTS = "evaluation_prompts.json"

_tools: Tools | None = None


def make_tools(settings: Settings, work: Path) -> Tools:
    """What the filters need: tokenizer, detector, and the evaluation prompts that the main process has gathered."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    prompts = work / EVALUATION_PROMPTS
    return Tools(
        TokenCounter.load(settings.tokenizer),
        Detector(settings.language) if settings.language else None,
        Decontaminator(json.loads(prompts.read_text()), settings.ngram, settings.overlap) if prompts.exists() else None,
    )


def unit_file(work: Path, number: int) -> Path:
    """Where the candidates of a unit are."""
    return work / f"unit-{number:05d}.arrow"


def filter_unit(unit: Unit, settings: Settings, tools: Tools, path: Path) -> dict[str, Any]:
    """Filter one unit into `path`. Returns its report, as `read_counts` would."""
    row_filter = RowFilter(settings, tools, unit.file)
    candidates: list[Candidate] = []
    for batch in read_unit(unit, SOURCES[settings.source]):
        candidates += row_filter(batch)
    report = {
        "file": unit.file,
        "counts": dict(row_filter.counts),
        "unlabelled": dict(row_filter.unlabelled),
        "examples": row_filter.examples,
    }
    _write(candidates, report, path)
    return report


def _write(candidates: list[Candidate], report: dict[str, Any], path: Path) -> None:
    import pyarrow as pa

    # Copies of one text meet in the order of their turns and ids, whichever files they were in.
    candidates.sort(key=lambda row: (row.key, row.messages, row.id))
    schema = pa.schema(
        [("key", pa.uint64()), ("id", pa.large_string()), ("messages", pa.large_string()), ("tokens", pa.int32())],
        metadata={"told": json.dumps(report)},
    )
    columns = {field.name: [getattr(row, field.name) for row in candidates] for field in schema}
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        replaced_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema, options=options) as writer,
    ):
        writer.write_table(pa.table(columns, schema=schema), max_chunksize=BLOCK_ROWS)


def read_counts(path: Path) -> dict[str, Any]:
    """The report of a finished unit: ``file``, ``counts``, ``unlabelled``, and ``examples`` of malformed rows."""
    import pyarrow as pa

    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
        return json.loads(reader.schema.metadata[b"told"])


def filter_units(units: Sequence[Unit], settings: Settings, work: Path, workers: int) -> None:
    """Filter all units that are not finished yet. DatasetError of any unit stops all."""
    waiting = [(number, unit) for number, unit in enumerate(units) if not unit_file(work, number).exists()]
    rows = [unit.rows for unit in units]
    total = None if None in rows else sum(row or 0 for row in rows)
    with tqdm(total=total, desc="filtering", unit="row", unit_scale=True, mininterval=1) as progress:
        if len(waiting) < len(units):
            done = [read_counts(unit_file(work, n)) for n in range(len(units)) if unit_file(work, n).exists()]
            progress.initial = sum(report["counts"].get("read", 0) for report in done)
            progress.update(progress.initial)
            message = f"{len(done)} of {len(units)} units were finished before and are not read again"
            progress.write(message, file=sys.stderr)
        for report in _run(waiting, settings, work, min(workers, len(waiting))):
            progress.update(report["counts"].get("read", 0))


def _run(waiting: list[tuple[int, Unit]], settings: Settings, work: Path, workers: int) -> Iterator[dict[str, Any]]:
    if workers <= 1:
        tools = make_tools(settings, work) if waiting else None
        for number, unit in waiting:
            assert tools is not None
            yield filter_unit(unit, settings, tools, unit_file(work, number))
        return
    with process_pool(workers, _start, settings, work) as pool:
        # Few at a time: a failure then leaves little to wait for.
        tasks = iter(waiting)
        running: set[Future[dict[str, Any]]] = set()
        while True:
            for number, unit in tasks:
                running.add(pool.submit(_filter, asdict(unit), settings, unit_file(work, number)))
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def _start(settings: Settings, work: Path) -> None:
    global _tools
    _tools = make_tools(settings, work)


def _filter(unit: dict[str, Any], settings: Settings, path: Path) -> dict[str, Any]:
    assert _tools is not None
    return filter_unit(Unit(**unit), settings, _tools, path)


@contextmanager
def process_pool(workers: int, start: Any = None, *arguments: Any) -> Generator[ProcessPoolExecutor, None, None]:
    """Fresh processes that end with this one, even when it is killed. One that dies is a `DatasetError`."""
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(os.getpid(), start, arguments)
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise DatasetError(
            "a worker process has died, most likely for want of memory: run the same command again with fewer "
            "--workers; what is finished is not done again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(parent: int, start: Any, arguments: tuple[Any, ...]) -> None:
    """Start of a worker process: it ends when `parent` has ended, and calls `start` before its first task."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if start is not None:
        start(*arguments)
