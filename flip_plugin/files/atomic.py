"""Files and folders that are whole or absent: a reader, or a kill, never sees half of one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO

from flip_plugin.files.jsonable import to_jsonable


def write_json(path: Path, value: Any) -> Path:
    """`value` as indented JSON, atomically; the path."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> Path:
    """`text` under a temporary name first: a reader, or a kill, never sees half of it. The path."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, path)
    return path


StrPath = str | os.PathLike[str]


def sync_file(path: StrPath) -> None:
    """Have what any process wrote to `path` on disk, and not only with the system; nothing where it is missing."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def replaced_file(path: StrPath) -> Generator[BinaryIO]:
    """A file to write, put in the place of `path` at the end; when anything is raised inside, the old one stays."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its 0600 would stay on the file, and others may have to read a report.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: StrPath, text: str) -> None:
    """Write a whole UTF-8 file or leave the old one: a reader never sees half of it.

    Lone surrogates, which UTF-8 cannot hold, become `?`.
    """
    with replaced_file(path) as file:
        file.write(text.encode("utf-8", errors="replace"))


def write_json_atomic(path: StrPath, obj: Any) -> None:
    """`obj` as indented JSON, written as `write_text_atomic` does."""
    text = json.dumps(to_jsonable(obj), ensure_ascii=True, allow_nan=False, indent=2)
    write_text_atomic(path, text + "\n")


def replace_folder(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`, for good; a reader sees the old one or the new one, never a mixture.

    Between the two renames neither has the name; `clear_leftovers` puts the old one back after a kill there.
    """
    old = folder.with_name(f".{folder.name}.old-{uuid.uuid4().hex[:8]}")
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Have the folder's entries on disk, where the system can (a power cut, not only a kill)."""
    with contextlib.suppress(OSError):  # some file systems cannot open a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_tree(folder: Path) -> None:
    """Have every file under `folder` on disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for path in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        sync_folder(path)
