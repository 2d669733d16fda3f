"""What vLLM loads in each process that it starts (entry-point group ``vllm.general_plugins``).

It registers the weight-transfer backend for CPUs, and ties an engine that a run started to the life
of the process that started it. In a vLLM that is none of our business it changes nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import threading

from tqdm import tqdm

from flip_plugin.serving.processes import DIE_WITH_PARENT, die_with_parent


def register() -> None:
    """Called by vLLM, perhaps more than once in a process."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if "shared_memory" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(
            "shared_memory", "open_instruct.engines.weights.receive_cpu", "SharedMemoryWeightTransferEngine"
        )
    parent = multiprocessing.parent_process()
    if os.environ.get(DIE_WITH_PARENT) and parent is not None:
        # tqdm's own lock is a named semaphore in a spawned process, and a killed one leaves it in /dev/shm.
        tqdm.set_lock(threading.RLock())
        die_with_parent()
        if os.getppid() != parent.pid:  # it died before the line above
            os._exit(1)
