"""Several Ray nodes on one machine, for tests and measurements of what runs across nodes.

    with SimulatedCluster([3, 2, 2]) as cluster:
        subprocess.run([sys.executable, "-m", "open_instruct.grpo_fast", ...], env=os.environ | cluster.environment)

Each node is a raylet of its own with so many CPU slots (not cores) and a loopback address of its own (127.0.0.2,
127.0.0.3, ...; Ray takes 127.0.0.1 for the machine's outer address), so that servers and rendezvous that name a
wrong node's address fail here as on a real cluster.
What it cannot show: a network's speed, or files that only one machine has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

MIB = 2**20


class SimulatedCluster:
    """`len(slots)` Ray nodes; the first is the head, and the driver's. Linux (all of 127.0.0.0/8 is loopback there).

    `environment`: what a driver needs to attach. `extra` is put into the environment of every process of the nodes.
    """

    def __init__(
        self, slots: Sequence[int], *, object_store_bytes: int = 100 * MIB, extra: Mapping[str, str] | None = None
    ) -> None:
        assert sys.platform.startswith("linux"), "other systems have one loopback address"
        self.slots, self.object_store_bytes = list(slots), object_store_bytes
        self._extra = dict(extra or {})
        self._cluster: Any = None
        self._folder = ""
        self._nodes: list[Any] = []

    def __enter__(self) -> SimulatedCluster:
        # A folder of its own: Ray's default one names the cluster that any other driver here would attach to.
        # Short, since sockets lie in it.
        self._folder = tempfile.mkdtemp(prefix="sim", dir="/tmp")
        Path(self._folder, "ray").mkdir()
        settings = {"RAY_TMPDIR": self._folder, "RAY_enable_worker_prestart": "0", **self._extra}
        with _environment(settings):
            from ray.cluster_utils import Cluster

            self._cluster = Cluster(shutdown_at_exit=True)
            for number, slots in enumerate(self.slots, start=1):
                options: dict[str, Any] = {"num_cpus": slots, "object_store_memory": self.object_store_bytes}
                if number == 1:
                    options["include_dashboard"] = False
                self._nodes.append(self._cluster.add_node(node_ip_address=f"127.0.0.{number + 1}", **options))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """The head's, for `RAY_ADDRESS`."""
        return self._cluster.address

    @property
    def environment(self) -> dict[str, str]:
        """For a driver on the first node."""
        return {"RAY_ADDRESS": self.address, "RAY_TMPDIR": self._folder}

    def node_of(self, process: psutil.Process) -> int | None:
        """Number of the node, from 0, whose raylet started `process` or an ancestor of it."""
        raylets = {node.all_processes["raylet"][0].process.pid: i for i, node in enumerate(self._nodes)}
        for ancestor in process.parents():
            if ancestor.pid in raylets:
                return raylets[ancestor.pid]
        return None

    def workers(self, title: str) -> list[tuple[psutil.Process, int]]:
        """Processes of the nodes whose command line holds `title` (`ray::LLMRayActor`), each with its node."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if title in " ".join(process.cmdline()) and (node := self.node_of(process)) is not None:
                    found.append((process, node))
        return found

    def kill_node(self, number: int) -> None:
        """End a node, not the first, with everything on it, as a power cut would."""
        self._cluster.remove_node(self._nodes[number], allow_graceful=False)


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Any:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
