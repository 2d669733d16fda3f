"""The watch over a judge server, with a stub in vLLM's place: what is tested is a server that misbehaves."""

import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass

import pytest
from process_cases import gone, session_of, stat_fields, until

from flip_plugin.serving.options import ServerOptions
from flip_plugin.serving.processes import reserve_port
from flip_plugin.serving.server import JudgeServer, JudgeServerError, RestartPolicy

# Does at its n-th start what the n-th word of the file `plan` says, the last word from then on.
STUB = """
import http.server, os, pathlib, subprocess, sys
port, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
starts = len(list(folder.glob("start-*")))
(folder / f"start-{starts}").touch()
plan = (folder / "plan").read_text().split()
print("this is start", starts, flush=True)
if plan[min(starts, len(plan) - 1)] == "die":
    sys.exit("SomeError: the weights are missing")
engine = subprocess.Popen(["sleep", "600"])
(folder / "engine").write_text(str(engine.pid))
key = os.environ.get("VLLM_API_KEY")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        locked = self.path.startswith("/v1") and key and self.headers["Authorization"] != f"Bearer {key}"
        self.send_response(401 if locked else 200)
        self.end_headers()
        self.wfile.write(b'{"data": [{"id": "m"}]}')
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


QUICK = RestartPolicy(limit=3, first_pause=0.05, steady=600, unresponsive=0.6, startup=5, probe=0.2)


@dataclass(frozen=True)
class StubOptions(ServerOptions):
    folder: str = ""

    def command(self, port):
        return [sys.executable, "-S", "-c", STUB, str(port), self.folder]


@pytest.fixture
def start(tmp_path):
    servers = []

    def begin(plan="serve", policy=QUICK, **options):
        (tmp_path / "plan").write_text(plan)
        servers.append(JudgeServer(StubOptions("m", folder=str(tmp_path), **options), tmp_path / "log", policy=policy))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


def starts(folder):
    return len(list(folder.glob("start-*")))


def test_a_killed_server_comes_back_and_keeps_its_log(start, tmp_path, caplog):
    server = start()
    url, pid = server.wait_ready(10), server.pid()
    engine = int((tmp_path / "engine").read_text())
    with caplog.at_level(logging.WARNING):
        os.kill(pid, signal.SIGKILL)
        until(lambda: server.health().restarts == 1 and server.health().state == "serving")
    assert gone(engine), "what the dead server left in its group would keep the GPU's memory"
    health = server.health()
    assert server.wait_ready(1) == health.url == url
    assert server.pid() == health.pid != pid
    assert health.alive and 0 < health.uptime < 20
    assert "SIGKILL" in health.problem
    log = (tmp_path / "log").read_text()
    assert log.index("this is start 0") < log.index("restart 1 in 0.05 s") < log.index("this is start 1")
    [record] = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert url in record.getMessage() and "SIGKILL" in record.getMessage()


def test_pauses_grow_to_a_limit():
    policy = RestartPolicy(first_pause=1, longest_pause=5)
    assert [policy.pause(n) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]


def test_a_server_that_keeps_dying_is_given_up(start, tmp_path):
    server = start("serve die")
    server.wait_ready(10)
    os.kill(server.pid(), signal.SIGKILL)
    until(lambda: server.health().state == "failed")
    assert starts(tmp_path) == 1 + QUICK.limit
    health = server.health()
    assert not health.alive and health.restarts == QUICK.limit
    with pytest.raises(JudgeServerError) as error:
        server.wait_ready(10)
    for text in (str(error.value), health.problem):
        assert "failed 4 times in a row" in text and "the weights are missing" in text
    time.sleep(0.5)
    assert starts(tmp_path) == 1 + QUICK.limit


def test_a_server_that_never_served_is_not_tried_again(start, tmp_path):
    server = start("die")
    with pytest.raises(JudgeServerError, match="ended with code 1") as error:
        server.wait_ready(10)
    assert "the weights are missing" in str(error.value) and str(tmp_path / "log") in str(error.value)
    assert starts(tmp_path) == 1


def test_a_server_that_takes_over_is_tried_again(tmp_path):
    (tmp_path / "plan").write_text("die die serve")
    options = StubOptions("m", folder=str(tmp_path))
    server = JudgeServer(options, tmp_path / "log", policy=QUICK, restarted=True)
    try:
        server.wait_ready(10)
        assert starts(tmp_path) == 3
    finally:
        server.stop()


def test_steady_service_resets_the_restart_count(start):
    server = start(policy=RestartPolicy(limit=1, first_pause=0.05, steady=0.0, probe=0.2))
    for death in range(3):
        server.wait_ready(10)
        os.kill(server.pid(), signal.SIGKILL)
        until(lambda death=death: server.health().restarts == death + 1 and server.health().state == "serving")


def test_a_server_that_hangs_is_ended_and_started_again(start):
    server = start()
    server.wait_ready(10)
    pid = server.pid()
    os.kill(pid, signal.SIGSTOP)
    until(lambda: server.health().restarts == 1 and server.health().state == "serving")
    assert gone(pid)
    assert "did not answer for 1 s" in server.health().problem


def test_the_port_is_kept_while_the_server_is_down(start):
    server = start(policy=RestartPolicy(first_pause=3, probe=0.2))
    server.wait_ready(10)
    os.kill(server.pid(), signal.SIGKILL)
    until(lambda: server.health().state == "restarting")
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", server.port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_a_port_that_was_taken_is_waited_for(start):
    server = start(policy=RestartPolicy(limit=8, first_pause=0.2, longest_pause=0.5, probe=0.2))
    url = server.wait_ready(10)
    os.kill(server.pid(), signal.SIGKILL)
    until(lambda: server.health().state == "restarting")
    thief = reserve_port("127.0.0.1", server.port)
    thief.listen()
    until(lambda: server.health().restarts >= 2)
    assert "Address already in use" in server.health().problem
    thief.close()
    assert server.wait_ready(10) == url


def test_a_busy_port_is_an_error_at_once(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = start(port=port)
        with pytest.raises(JudgeServerError, match=f"port {port}.*choose another"):
            server.wait_ready(10)
    assert starts(tmp_path) == 0


def test_stop_ends_server_and_engine_and_frees_the_port(start, tmp_path):
    server = start()
    server.wait_ready(10)
    pid, engine = server.pid(), int((tmp_path / "engine").read_text())
    server.stop()
    server.stop()
    assert gone(pid) and gone(engine) and not server.alive()
    assert server.health().state == "stopped"
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server.port))
        other.listen()
    with pytest.raises(JudgeServerError, match="stopped"):
        server.wait_ready(1)


def test_a_stop_during_the_pause_starts_nothing(start, tmp_path):
    server = start(policy=RestartPolicy(first_pause=60, probe=0.2))
    server.wait_ready(10)
    os.kill(server.pid(), signal.SIGKILL)
    until(lambda: server.health().state == "restarting")
    server.stop()
    assert starts(tmp_path) == 1 and server.health().state == "stopped"


def test_the_key_goes_by_the_environment_alone(start, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "of-somebody-else")
    options = ServerOptions("m", api_key="s3cret")
    assert "s3cret" not in " ".join(options.command(1)) + repr(options)
    assert options.environment()["VLLM_API_KEY"] == "s3cret"
    assert "VLLM_API_KEY" not in ServerOptions("m").environment()
    server = start(api_key="s3cret")  # the stub lists its models to those who have it
    server.wait_ready(10)
    assert "s3cret" not in (tmp_path / "log").read_text() + repr(server.health())


def test_a_proxy_is_not_asked_about_a_server_of_ours(start, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    start().wait_ready(10)


@pytest.fixture(scope="module")
def stub_pool(tmp_path_factory):
    """Two replicas on a real Ray, stubs in place of vLLM."""
    import ray
    import ray.cloudpickle

    from flip_plugin.serving.pool import JudgePool

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    folder = tmp_path_factory.mktemp("pool")
    (folder / "plan").write_text("serve")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_enable_worker_prestart", "0")
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        pool = JudgePool.launch(StubOptions("m", folder=str(folder)), 2, log_dir=folder / "logs", policy=QUICK)
        pool.wait_ready(60)
        yield pool
        pool.stop()
        ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_ray_restarts_a_killed_actor_and_the_url_stays(stub_pool):
    first, other = stub_pool.health()
    assert len({first.url, other.url}) == 2 and first.state == other.state == "serving"
    actor = int(stat_fields(first.pid)[1])  # the server's parent
    os.kill(actor, signal.SIGKILL)
    until(lambda: stub_pool.health()[0].state == "unreachable")
    until(lambda: gone(first.pid), 5)
    # A session for each server: nobody may be left in it, as vLLM's engine would be.
    until(lambda: session_of(first.pid) == [], 5)
    until(lambda: stub_pool.health()[0].state == "serving", 60)
    again = stub_pool.health()[0]
    assert again.url == first.url and again.pid != first.pid and again.restarts == first.restarts + 1
    os.kill(again.pid, signal.SIGKILL)
    until(lambda: stub_pool.health()[0].restarts == first.restarts + 2)
    assert stub_pool.health()[1].pid == other.pid
    assert stub_pool.stats()["replicas"] == 2


def test_a_port_in_use_is_named_before_a_replica_is_started(stub_pool, tmp_path):
    from flip_plugin.serving.pool import JudgePool

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(JudgeServerError, match=f"Port {port} .*Choose another"):
            JudgePool.launch(ServerOptions("m", port=port), 1, log_dir=tmp_path)


def test_ports_on_node_addresses_survive_a_restart():
    from flip_plugin.serving.options import NODE_ADDRESS
    from flip_plugin.serving.pool import _is_free, _reserve_ports

    ports, keepers = _reserve_ports(ServerOptions("m", host=NODE_ADDRESS), 2)
    try:
        assert len(set(ports)) == 2 and all(_is_free("127.0.0.1", port) for port in ports)
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            assert not _is_free("127.0.0.1", other.getsockname()[1])
    finally:
        for keeper in keepers:
            keeper.close()


def test_sleep_mode_is_off_unless_asked_for():
    awake, sleeper = ServerOptions("m"), ServerOptions("m", sleep_mode=True)
    assert "--enable-sleep-mode" not in awake.command(1) and "VLLM_SERVER_DEV_MODE" not in awake.environment()
    assert "--enable-sleep-mode" in sleeper.command(1) and sleeper.environment()["VLLM_SERVER_DEV_MODE"] == "1"
