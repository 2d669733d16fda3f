"""Files and folders that are whole or absent: a reader, a kill or a power cut never leaves half of one."""

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

StrPath = str | os.PathLike[str]


@contextlib.contextmanager
def replaced_path(path: StrPath, suffix: str = ".tmp") -> Generator[Path]:
    """A path beside `path` to write to, which takes its place at the end; when anything is raised, the old file stays.

    `suffix` is for writers that look at the end of a file's name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its 0600 would stay on the file, and others may have to read it.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}{suffix}")
    temporary.unlink(missing_ok=True)  # what a killed process of the same number left
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_file(path: StrPath) -> Generator[BinaryIO]:
    """A file to write, which takes the place of `path` at the end; when anything is raised, the old one stays."""
    with replaced_path(path) as temporary, temporary.open("wb") as file:
        yield file


def write_text(path: StrPath, text: str) -> Path:
    r"""A whole UTF-8 file, or the old one; returns the path.

    Lone surrogates, which UTF-8 cannot hold, are written as escapes (``\ud800``): JSON reads them back.
    """
    with replaced_file(path) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))
    return Path(path)


def write_json(path: StrPath, value: Any) -> Path:
    """`value` (see `to_jsonable`) as indented strict JSON, written as `write_text` does."""
    return write_text(path, json.dumps(to_jsonable(value), ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def replace_folder(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`, for good; a reader sees the old one or the new one, never a mixture.

    Between the two renames neither has the name: who has to survive a kill there looks for ``.<name>.old-*``, as
    the trainer's `clear_leftovers` does.
    """
    old = folder.with_name(f".{folder.name}.old-{uuid.uuid4().hex[:8]}")
    if folder.exists():
        folder.replace(old)
    new.replace(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_file(path: StrPath) -> None:
    """Have what any process wrote to `path` on disk, and not only with the system; nothing where it is missing."""
    # Windows can only flush what is open for writing; elsewhere a read-only file must pass, too.
    with contextlib.suppress(FileNotFoundError), Path(path).open("rb+" if os.name == "nt" else "rb") as file:
        os.fsync(file.fileno())


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
    entries = sorted(folder.rglob("*"))
    for path in entries:
        if path.is_file():
            sync_file(path)
    for path in [folder, *(entry for entry in entries if entry.is_dir())]:
        sync_folder(path)
