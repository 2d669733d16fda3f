"""`report.html`: one page, in one file, to look at a run, or at several side by side.

    python -m open_instruct.report OUTPUT_DIR                   writes OUTPUT_DIR/report.html
    python -m open_instruct.report RUN RUN ... -o compared.html

Made from what a run leaves on disk (`config.json`, `metrics.jsonl`, `rollouts/*.jsonl`), so it can be made
while the run goes on and after it was killed: what is missing is left out, what cannot be read is counted in
a note. The page needs no network and may not use one: its content security policy names its own script and style
by their hashes, so that nothing that a model wrote can run in it, either.

In the order of the page: `reading` (files), `numbers`, `summary`, `charts`, `settings`,
`rollouts`, and `page`; `flip_plugin.pages` puts data and `assets/` together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flip_plugin.files.atomic import write_text
from open_instruct.report.page import collect, render
from open_instruct.report.reading import read_run

__all__ = ["write_comparison", "write_report"]


def write_report(output_dir: str | Path) -> Path:
    """Write `report.html` into a run's output directory, from whatever is there, and return its path.

    Raises FileNotFoundError where there is no such directory.
    """
    return write_comparison([output_dir], Path(output_dir) / "report.html")


def write_comparison(output_dirs: Sequence[str | Path], path: str | Path) -> Path:
    """Write one page over several runs to `path`, and return it. Runs of one name have their folders behind it.

    Raises FileNotFoundError for a directory that is not there, ValueError for no run at all.
    """
    if not output_dirs:
        raise ValueError("no run to report on")
    runs = [read_run(Path(output_dir)) for output_dir in output_dirs]
    write_text(path, render(collect(runs)))
    return Path(path)
