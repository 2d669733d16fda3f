"""Where the run's judge is: a server that is already up, one that the run starts, or a provider's API."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from flip_plugin.serving.options import NODE_ADDRESS, ServerOptions
from flip_plugin.serving.pool import JudgePool
from flip_plugin.serving.server import JudgeServerError
from open_instruct.config.args import Args, FlagError
from open_instruct.config.memory_plan import takes_turns

logger = logging.getLogger(__name__)

#: Seconds that a server which somebody else runs has to answer: it is meant to be up.
OUTSIDE_PATIENCE = 60.0


#: Where LiteLLM looks for the key of ``hosted_vllm/`` servers.
JUDGE_KEY = "HOSTED_VLLM_API_KEY"


def external_urls() -> list[str]:
    """Servers named by HOSTED_VLLM_API_BASE (several may be separated by commas)."""
    return [u.strip().rstrip("/") for u in os.environ.get("HOSTED_VLLM_API_BASE", "").split(",") if u.strip()]


def hosts_own_judge(args: Args, judged: bool) -> bool:
    """True when the run has to start judge servers itself."""
    return judged and args.judge_model_id is not None and not external_urls()


def check_local_model(model: str, flag: str) -> None:
    """Refuse a path that holds no model, before anything is started. Ids of the hub pass."""
    path = Path(model).expanduser()
    looks_local = model.startswith(("/", "./", "../", "~")) or path.exists()
    if looks_local and not (path / "config.json").is_file():
        what = "does not exist" if not path.exists() else "holds no config.json"
        raise FlagError(f"{flag} {model}: this folder {what}. Give a Hugging Face id or a folder with a saved model.")


def judge_key(num_nodes: int) -> str | None:
    """An API key for this run's judge servers where they are to be reached from other nodes; else None.

    It travels in actors' arguments alone, never in a job's environment, which Ray writes into its logs.
    """
    return secrets.token_urlsafe(32) if num_nodes > 1 else None


def launch_judge(
    args: Args, *, on_cpu: bool, gpus_per_replica: float, strategies: list[Any] | None = None, key: str | None = None
) -> JudgePool:
    """Start the run's own judge replicas; `wait_ready` on the result blocks until they serve.

    Without a key they bind loopback, and must run on the driver's node; with one, their node's own address.
    Raises `FlagError` for servers that are to sleep there: that call, and others of the same mode, ask for no key.
    """
    assert args.judge_model_id
    sleeps = takes_turns(args, on_cpu=on_cpu)
    if sleeps and key:
        raise FlagError(
            "--single_gpu_mode True with --async_steps 0 has the judge sleep by calls that ask for no key, so its "
            "server must not be reached from other nodes: use a Ray of one node, or set --async_steps 1."
        )
    options = ServerOptions(
        args.judge_model_id,
        host=NODE_ADDRESS if key else "127.0.0.1",
        api_key=key,
        max_model_len=args.llm_judge_max_context_length,
        tensor_parallel_size=args.llm_judge_tensor_parallel_size,
        gpu_memory_utilization=args.llm_judge_gpu_memory_utilization,
        kv_cache_memory_bytes=CPU_KV_CACHE_BYTES if on_cpu else None,
        dtype="auto",
        on_cpu=on_cpu,
        omp_threads=args.engine_threads,
        sleep_mode=sleeps,
    )
    return JudgePool.launch(
        options,
        args.llm_judge_num_engines,
        log_dir=Path(args.output_dir) / "logs",
        num_gpus=gpus_per_replica,
        strategies=strategies,
    )


#: Keys and values of the tiny models need little; the default would take a large share of main memory.
CPU_KV_CACHE_BYTES = 256 * 2**20


def check_external(model: str, urls: list[str], timeout: float) -> None:
    """Wait until each outside server answers, and refuse one that does not serve `model`."""
    deadline = time.monotonic() + timeout
    for url in urls:
        served = _served_models(url, deadline, timeout)
        if model not in served:
            raise JudgeServerError(
                f"The judge server at {url} (from HOSTED_VLLM_API_BASE) serves {', '.join(served) or 'nothing'}, "
                f"not {model!r}. Change --llm_judge_model to hosted_vllm/NAME with one of these names."
            )


def _served_models(url: str, deadline: float, timeout: float) -> list[str]:
    key = os.environ.get(JUDGE_KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    announced = False
    while True:
        try:
            request = urllib.request.Request(f"{url}/models", headers=headers)  # noqa: S310 - the user's own address
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
                listing: dict[str, Any] = json.load(answer)
                return [m["id"] for m in listing.get("data", [])]
        except urllib.error.HTTPError as error:
            raise JudgeServerError(
                f"The judge server at {url} (from HOSTED_VLLM_API_BASE) answered {error.code} to /models. "
                "The address must end in /v1; a key goes into HOSTED_VLLM_API_KEY."
            ) from None
        except (urllib.error.URLError, ConnectionError, TimeoutError, json.JSONDecodeError) as error:
            if time.monotonic() > deadline:
                raise JudgeServerError(
                    f"No judge server answers at {url} (from HOSTED_VLLM_API_BASE) after {timeout:.0f} s: {error}. "
                    "Start it, correct the address, or unset the variable to let the run start its own."
                ) from None
            if not announced:
                logger.info("waiting up to %.0f s for the judge at %s (%s)", timeout, url, error)
                announced = True
            time.sleep(1.0)
