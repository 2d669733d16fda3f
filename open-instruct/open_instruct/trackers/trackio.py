"""trackio: a local dashboard over SQLite files, in OUTPUT_DIR/trackio unless TRACKIO_DIR says where.

    TRACKIO_DIR=OUTPUT_DIR/trackio trackio show

Nothing leaves the machine and no server starts: `trackio.init` would ask the Hugging Face hub who is logged in,
would log to a Space or a server that TRACKIO_SPACE_ID or TRACKIO_SERVER_URL names, and would start
watching CPU and GPU. So the run is made without it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_instruct.config.args import FlagError
from open_instruct.trackers.base import TrackedRun

logger = logging.getLogger(__name__)

ID_FILE = "trackio_run_id"


class TrackioTracker:
    """One trackio run. Raises `FlagError` when trackio was set to another folder before."""

    name = "trackio"

    def __init__(self, run: TrackedRun) -> None:
        folder = Path(os.environ.setdefault("TRACKIO_DIR", str(run.output_dir / "trackio"))).absolute()
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        # trackio reads the variable once, when it is imported.
        if Path(trackio.TRACKIO_DIR).absolute() != folder:
            raise FlagError(
                f"--trackio: trackio was loaded for {trackio.TRACKIO_DIR} before, and cannot change to {folder}: "
                "start the run in a process of its own."
            )
        folder.mkdir(parents=True, exist_ok=True)
        id_file = run.output_dir / ID_FILE
        run_id = id_file.read_text().strip() if run.resume_step is not None and id_file.exists() else None
        self._run: Any = _local_run(run, run_id)
        id_file.write_text(self._run.id)
        if run_id is not None and run.resume_step is not None:
            _forget_steps_after(SQLiteStorage.get_project_db_path(run.project), run_id, run.resume_step)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(numbers), step=step)

    def close(self, failed: bool) -> None:
        """See `Tracker`."""
        with contextlib.redirect_stdout(io.StringIO()):  # it says that it uploads, and does not
            self._run.finish()


def _local_run(run: TrackedRun, run_id: str | None) -> Any:
    import trackio

    class LocalRun(trackio.Run):
        def _get_username(self) -> None:  # the hub would be asked for it
            return None

    return LocalRun(
        url=None,
        project=run.project,
        client=None,
        name=run.name,
        run_id=run_id,
        group=run.group,
        config=run.config,
        existing_runs=[],
        initial_last_step=run.resume_step,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )


def _forget_steps_after(database: Path, run_id: str, step: int) -> None:
    """Drop what a continued run logged before for the steps that happen again."""
    if not database.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection, connection:
            connection.execute("DELETE FROM metrics WHERE run_id = ? AND step > ?", (run_id, step))
    except sqlite3.Error as error:  # a later trackio may keep its rows elsewhere
        logger.warning("trackio shows steps after %d twice: %s", step, error)
