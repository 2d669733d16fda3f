"""The fixture that starts real runs; `tiny_run` has their flags, and what the tests look for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tiny_run import Run, start_run, tagged_processes


@pytest.fixture
def launch(tmp_path: Path) -> Iterator:
    """start_run with a clean-up that ends whatever the test's runs left."""
    runs: list[Run] = []

    def start(flags: list[str], **environment: str) -> Run:
        runs.append(start_run(tmp_path, flags, **environment))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
        for line in tagged_processes(run.tag):
            try:
                psutil.Process(int(line.split()[0])).kill()
            except psutil.NoSuchProcess:
                continue
