"""`flip serve`: what it refuses, the key that it makes, and what it reports."""

import pytest

from flip_plugin.cli import main
from flip_plugin.commands import serve
from flip_plugin.serving.server import ServerHealth


def key_of(*flags):
    return serve._api_key(serve_arguments("--model", "m", *flags))


def serve_arguments(*flags):
    import argparse

    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "./nothing/here"], "does not exist"),
        (["--model", "m", "--port", "65535", "--num_replicas", "2"], "each replica needs one"),
        (["--model", "m", "--vllm_args", "--api-key", "x"], "--api_key_file"),
        (["--model", "m", "--vllm_args", "--seed", "1", "--port=80"], "--port of this command"),
        (["--model", "m", "--gpu_memory_utilization", "90"], "share"),
        (["--model", "m", "--api_key_file", "/none/there"], "/none/there"),
        (["--model", "m", "--address", "ray://h:1"], "--address auto"),
    ],
)
def test_flip_serve_refuses_what_cannot_work(flags, said, capsys):
    assert main(["serve", *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_key_is_made_for_a_wide_host_only(monkeypatch, tmp_path):
    monkeypatch.delenv("HOSTED_VLLM_API_KEY", raising=False)
    assert key_of() == key_of("--host", "127.0.0.5") == key_of("--host", "::1") == (None, False)
    key, made = key_of("--host", "0.0.0.0")
    assert made and len(key) > 30 and key_of("--host", "0.0.0.0")[0] != key
    assert key_of("--host", "0.0.0.0", "--no_api_key") == (None, False)
    (tmp_path / "key").write_text("from-file\n")
    assert key_of("--api_key_file", str(tmp_path / "key")) == ("from-file", False)
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "from-environment")
    assert key_of("--host", "0.0.0.0") == ("from-environment", False)


def test_vllm_args_go_through():
    assert serve_arguments("--model", "m", "--vllm_args", "--seed", "1", "-O0").vllm_args == ["--seed", "1", "-O0"]


def test_a_change_of_a_replica_is_reported_once():
    up = ServerHealth("u", "serving", alive=True, uptime=3)
    again = ServerHealth("u", "serving", alive=True, restarts=1, problem="ended with code 1")
    down = ServerHealth("u", "restarting", restarts=1, problem="ended with code 1")
    lost = ServerHealth("u", "failed", restarts=5, problem="why")
    assert serve._news(up, up) == serve._news(down, down) == serve._news(lost, lost) == []
    assert serve._news(up, down) == ["u went down (ended with code 1); it is started again on the same URL"]
    assert serve._news(down, again) == ["u serves again (restarts so far: 1)"]
    assert len(serve._news(up, again)) == 2, "a restart between two looks is told, too"
    assert serve._news(down, lost) == ["given up. why"]
