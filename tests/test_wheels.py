"""The three wheels: what is in them, and that they work outside the repository, where nothing else is installed."""

import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[1]
INSTRUCTION = "Write a short poem about the sea"
F1 = 8 / 9  # four words of five and of four, without articles
REPLY = '{"REASONING": "A poem.", "INFERRED INSTRUCTION": "Write a poem about the sea"}'


def run(*command, cwd, **environment):
    """What the command prints; a failure shows all that it said."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def uv(*arguments, cwd):
    """uv with pip's settings for mirrors and wheel folders, as scripts/env.sh calls it."""
    program = shutil.which("uv") or ROOT / ".venv-tools" / "uv" / "bin" / "uv"
    names = {
        "PIP_FIND_LINKS": "UV_FIND_LINKS",
        "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
        "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    }
    settings = {theirs: os.environ[pips] for pips, theirs in names.items() if os.environ.get(pips)}
    return run(program, *arguments, cwd=cwd, **(settings | {k: v for k, v in os.environ.items() if k in settings}))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """{name of the distribution: its wheel}, built from a copy, so that no build/ is left in the repository."""
    sources, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheels")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    for name in ("flip_plugin", "open-instruct", "datasets_prep"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
        shutil.copytree(ROOT / name, sources / name, ignore=ignore)
    for folder in (".", "open-instruct", "datasets_prep"):
        options = ("--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", out)
        uv("build", *options, sources / folder, cwd=sources)
    files = {file.name.split("-")[0].replace("_", "-"): file for file in out.glob("*.whl")}
    assert files.keys() == {"flip-plugin", "open-instruct", "datasets-prep"}
    return files


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_librarys_wheel_is_small_and_whole(wheels):
    names = names_in(wheels["flip-plugin"])
    assert wheels["flip-plugin"].stat().st_size < 1_000_000
    assert "flip_plugin/py.typed" in names and not [name for name in names if "test" in Path(name).name]
    for part, suffix in [("prompts", ".prompt"), ("assets", ""), ("task_files", ".yaml"), ("input", ".json")]:
        assert [name for name in names if f"/{part}/" in name and name.endswith(suffix)], part
    assert {name.split("/")[0].split("-")[0] for name in names} == {"flip_plugin"}


def test_the_data_tools_wheel_has_the_models(wheels):
    names = names_in(wheels["datasets-prep"])
    models = {name for name in names if name.endswith("model.safetensors")}
    folder = "datasets_prep/tiny_world/models"
    assert models == {
        f"{folder}/{name}/model.safetensors"
        for name in ("policy", "judge", "judges/small", "judges/medium", "judges/large")
    }
    assert len([name for name in names if name.endswith("tokenizer.json")]) == len(models)
    assert "datasets_prep/tiny_world/lm_eval_task/tiny_world.yaml" in names


@pytest.fixture(scope="module")
def alone(wheels, tmp_path_factory):
    """The `bin` folder of an environment that holds the library with its declared dependencies, and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    uv("venv", "--python", sys.executable, folder / "env", cwd=folder)
    install = ["pip", "install", "--python", folder / "env/bin/python"]
    install += ["--constraint", ROOT / "requirements" / "cpu.txt"]  # versions that uv has in its cache
    try:
        uv(*install, "--offline", wheels["flip-plugin"], cwd=folder)
    except AssertionError:  # this machine was set up in another way: from the index
        uv(*install, wheels["flip-plugin"], cwd=folder)
    return folder / "env" / "bin"


class Judge(BaseHTTPRequestHandler):
    """Answers every chat request with `REPLY`."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": REPLY}
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        body = json.dumps(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": "judge",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": usage,
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def api_base():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_the_library_scores_where_nothing_else_is_installed(alone, api_base, tmp_path):
    code = (
        "import flip_plugin, importlib.util as u; "
        f"print(flip_plugin.f1_score({INSTRUCTION!r}, 'Write a poem about the sea')['f1'], "
        "[n for n in ('torch', 'ray', 'vllm', 'datasets', 'open_instruct', 'datasets_prep') if u.find_spec(n)])"
    )
    f1, foreign = run(alone / "python", "-c", code, cwd=tmp_path).split(maxsplit=1)
    assert float(f1) == pytest.approx(F1) and foreign.strip() == "[]"
    assert "rescore" in run(alone / "flip", "--help", cwd=tmp_path)

    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": INSTRUCTION, "response": "The waves, the waves."}))
    judge = ("--judge_model", "hosted_vllm/judge", "--api_base", api_base, "--record_calls_to", "calls")
    run(alone / "flip", "score", "--input", "rows.jsonl", "--output", "scored.jsonl", *judge, cwd=tmp_path)
    scored = json.loads((tmp_path / "scored.jsonl").read_text())
    assert scored["status"] == "ok" and scored["score"] == pytest.approx(F1)

    run(alone / "flip", "rescore", "--input", "calls", "--output", "again.jsonl", cwd=tmp_path)
    again = json.loads((tmp_path / "again.jsonl").read_text())
    assert pytest.approx(F1) in again.values()


def test_entry_points_of_the_wheels_can_be_imported(wheels, tmp_path):
    folder = tmp_path / "packages"
    uv("pip", "install", "--offline", "--no-deps", "--target", folder, *wheels.values(), cwd=tmp_path)
    code = """
import sys
from importlib.metadata import distribution
from pathlib import Path
from flip_plugin.rows.verifier_names import known_verifiers
import open_instruct.grpo_fast, datasets_prep.prepare
ours = [p for name in ("flip-plugin", "open-instruct", "datasets-prep") for p in distribution(name).entry_points]
for point in ours:
    point.load()
names = "flip_plugin", "open_instruct", "datasets_prep"
files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in names]
print(sorted(p.name for p in ours), [f for f in files if f and not Path(f).is_relative_to(sys.argv[1])])
print(sorted(known_verifiers()))
"""
    out = run(sys.executable, "-c", code, folder, cwd=tmp_path, PYTHONPATH=str(folder)).splitlines()
    points = ["constraints_satisfied", "flip", "flip", "gsm8k", "ifeval", "math", "open_instruct", "string_f1"]
    assert out[-2] == f"{points} []"
    assert "'constraints_satisfied'" in out[-1] and "'general-flip'" in out[-1]
