"""What a checkpoint's files hold, in a few reads: `contents_of` tells one that was trained again into its folder.

Times are not looked at, so that a copy is the same. Small files are read whole; of a large one (weights) its size and
blocks spread evenly over it, from the first to the last. A change that is smaller than the gap between two blocks, in
a file above `WHOLE` bytes, can be missed; training changes nearly every weight.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

WHOLE, BLOCK, BLOCKS = 2**24, 2**16, 64  # bytes, bytes, blocks a file: 4 MiB of a shard of weights are read
# Beside a model, and nothing of it.
IGNORED = (".md", ".log", ".tmp", ".html", ".lock")


def contents_of(checkpoint: str | Path) -> str | None:
    """SHA-256 over names, sizes and contents of the files right in the folder `checkpoint`; None for a hub's id.

    Hidden files, and those of `IGNORED` endings, do not count.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.suffix in IGNORED or not file.is_file():
            continue
        digest.update(f"{file.name}\n{file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
        with file.open("rb") as opened:
            _read(opened, file.stat().st_size, digest)
    return digest.hexdigest()


def _read(file: IO[bytes], size: int, digest: hashlib._Hash) -> None:
    if size <= WHOLE:
        digest.update(file.read())
        return
    for number in range(BLOCKS):
        file.seek(number * (size - BLOCK) // (BLOCKS - 1))
        digest.update(file.read(BLOCK))
