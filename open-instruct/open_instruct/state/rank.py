"""One learner's part of a resumable state: what DeepSpeed keeps, the random streams, a reference that moved.

Every file is written through `SummedFile`, so a learner can tell the driver size and checksum of what it
wrote without reading it again (`open_instruct.state.checkpoints` makes the manifest of it). Nothing is read with
plain pickle: files are loaded with torch's `weights_only`, which builds tensors, plain containers and the
three DeepSpeed classes named below, and refuses everything else.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any, Self

#: Sizes in bytes and CRC-32 checksums by path relative to the state's folder.
FileSums = dict[str, dict[str, int]]

_DEEPSPEED_TAG = "deepspeed"


class SummedFile:
    """A binary file, written from start to end, that knows its size and CRC-32; on disk once it is closed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.size, self.crc32 = 0, 0
        self._file = Path(path).open("wb")  # noqa: SIM115 - closed by __exit__

    def write(self, data: Any) -> int:
        """Append bytes; returns how many."""
        self.crc32 = zlib.crc32(data, self.crc32)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Hand on what is buffered."""
        self._file.flush()

    @property
    def sums(self) -> dict[str, int]:
        """Size and checksum of what was written so far."""
        return {"bytes": self.size, "crc32": self.crc32}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())


def save_rank(learner: Any, folder: str) -> FileSums:
    """Write this rank's files into `folder`; every rank must call it. Returns what was written.

    Takes a learner's `engine` (DeepSpeed's), `rank`, `args` and `reference`.
    """
    from open_instruct.state.random_state import random_state

    files = _summed_deepspeed_files(learner.engine, folder)
    learner.engine.save_checkpoint(
        folder, tag=_DEEPSPEED_TAG, save_latest=False, exclude_frozen_parameters=learner.args.use_peft
    )
    own: dict[str, Any] = {"random": random_state(), "reference": None}
    if _keeps_reference(learner) and learner.reference is not None:
        own["reference"] = learner.reference.state()
    files.save(own, _own_file(folder, learner.rank))
    return files.sums


def load_rank(learner: Any, folder: str) -> None:
    """Take up what `save_rank` wrote; every rank must call it, with the world size and ZeRO stage of then.

    Raises FileNotFoundError where this rank's machine does not see the files.
    """
    from open_instruct.state.random_state import set_random_state

    if not Path(own := _own_file(folder, learner.rank)).exists():
        raise FileNotFoundError(
            f"{own} is not there for learner {learner.rank}: states must lie on a file system that the machines of "
            "all learners share (--checkpoint_state_dir)"
        )
    _summed_deepspeed_files(learner.engine, folder)
    # Below adapters the weights are the initial policy's, and in no state.
    path, _ = learner.engine.load_checkpoint(folder, tag=_DEEPSPEED_TAG, load_module_strict=not learner.args.use_peft)
    if path is None:
        raise FileNotFoundError(f"{folder} holds no state that DeepSpeed can load")
    kept = load_checked(own, "cpu")
    reference = kept if _keeps_reference(learner) else load_checked(_own_file(folder, 0), "cpu")
    if reference["reference"] is not None:
        learner.reference.load(reference["reference"])
    set_random_state(kept["random"])


def load_checked(path: str | os.PathLike[str], map_location: Any) -> Any:
    """A file of a state. Raises `pickle.UnpicklingError` for anything but tensors, plain data and DeepSpeed's own."""
    import torch
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
        return torch.load(path, map_location=map_location, weights_only=True)


def _own_file(folder: str, rank: int) -> str:
    return f"{folder}/rank_{rank}.pt"


def _keeps_reference(learner: Any) -> bool:
    """Under ZeRO-3 each rank has a part of the reference; else all have the same, and the first keeps it."""
    return learner.rank == 0 or learner.args.deepspeed_stage == 3


def _summed_deepspeed_files(engine: Any, folder: str) -> Any:
    """Make DeepSpeed write summed files and read without pickle; returns what does both."""
    import torch
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    class StateFiles(TorchCheckpointEngine):
        def __init__(self) -> None:
            super().__init__()
            self.sums: FileSums = {}

        def save(self, state_dict: Any, path: str) -> None:
            with SummedFile(path) as file:
                torch.save(state_dict, file)  # ty: ignore[invalid-argument-type]
            self.sums[os.path.relpath(path, folder)] = file.sums

        def load(self, path: str, map_location: Any = None) -> Any:
            return load_checked(path, map_location)

    files = StateFiles()
    engine.checkpoint_engine = files
    return files
