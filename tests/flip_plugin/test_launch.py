"""`flip_plugin.launch` on a stand-in for upstream's package, in real processes against a judge over real HTTP.

The stand-in has the interfaces of Open Instruct's verifiers, as the published fork and as today's
upstream have them, and nothing else. With OPEN_INSTRUCT_UPSTREAM or OPEN_INSTRUCT_FORK naming a
checkout (the folder that holds `open_instruct`), the real modules take its place in the last test.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import upstream_stand_in

from flip_plugin import launch
from flip_plugin.reward.environment_variables import VARIABLES

ASKED = "Write a haiku\nabout autumn"
OURS = Path(__file__).parents[2] / "open-instruct" / "open_instruct" / "grpo_fast.py"
FLIP = ["flip_plugin.verifier", "FlipVerifier"]


@pytest.fixture(params=["fork", "upstream"])
def variant(request):
    return request.param


one_variant = pytest.mark.parametrize("variant", ["upstream"], indirect=True)


@pytest.fixture
def script(tmp_path, variant):
    return upstream_stand_in.write(tmp_path / "checkout" / "open_instruct", variant)


@pytest.fixture
def rows(tmp_path):
    def write(*rows):
        path = tmp_path / "rows.json"
        whole = {"dataset": "general-flip", "prediction": "Leaves", "label": ASKED, "query": f"user: {ASKED}"}
        path.write_text(json.dumps([{**whole, **row} for row in rows]))
        return ["--rows", str(path)]

    return write


def started(*words, base="", cwd=None, **environment):
    known = {name: value for name, value in os.environ.items() if not name.startswith(("FLIP_", "RAY_", "PYTHONPATH"))}
    return subprocess.run(
        [sys.executable, "-m", "flip_plugin.launch", *map(str, words)],
        env={**known, "HOSTED_VLLM_API_BASE": base, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
    )


def told(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_script_runs_as_it_is_and_has_flip(script, rows, judge, variant, tmp_path):
    judge.infers(ASKED)
    flags = [*rows({}, {"dataset": "general-quality"}), "--remap_verifier", "general-quality=general-flip"]
    flags += ["--flip_echo", "left alone", "--", "--seed=5", "", "-1"]
    relative = script.relative_to(tmp_path)
    words = ["--flip_reasoning", "false", "--flip_max_tokens=55", "--flip_record_calls_to", "calls", relative, *flags]
    done = started(*words, base=judge.base, cwd=tmp_path)
    found = told(done)
    assert found["argv"] == [str(relative), *flags]
    assert found["main"] == "__main__"
    assert found["early"] == []  # the script decides what is imported when
    assert found["verifier"] == FLIP
    assert found["names"] == ["general-flip", "general-quality"]
    assert found["rewards"] == [10.0, 10.0]
    # Our own `open_instruct` is installed here, too.
    assert found["package"] == str(script.parent / "__init__.py")
    assert found["path"] == [str(script.parent), str(script.parents[1])]
    assert found["pythonpath"] == [str(script.parents[1]), str(Path(launch.__file__).parents[1])]
    body = judge.requests[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("m", 55, 1.0, 7)
    assert "REASONING" not in json.dumps(body["response_format"])
    assert len(list((tmp_path / "calls").iterdir())) == 1
    assert "general-flip is flip_plugin.verifier.FlipVerifier" in done.stderr
    assert ("in place of" in done.stderr) == (variant == "fork")
    assert "2 judged, mean score 1.000" in done.stderr or "1 judged, mean score 1.000" in done.stderr


@one_variant
def test_a_judge_that_is_down_gives_the_constant_and_is_counted(script, rows):
    words = ["--flip_missing_score", "-0.25", script, *rows({}, {}, {}), "--llm_judge_timeout", "1"]
    done = started(*words, base="http://127.0.0.1:1/v1")
    assert told(done)["rewards"] == [-2.5, -2.5, -2.5]
    assert "1 scores missing so far, each replaced by -0.25; now judge_error" in done.stderr
    assert "2 scores missing so far" in done.stderr
    assert "3 scores missing so far" not in done.stderr


@one_variant
def test_a_run_without_a_server_ends_before_it_starts(script, rows):
    done = started(script, *rows({}))
    assert done.returncode == 1
    assert "set HOSTED_VLLM_API_BASE" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_in_a_real_ray_actor(script, rows, judge):
    judge.infers(ASKED)
    found = told(started(script, *rows({}, {"prediction": None}), "--with_ray", base=judge.base, cwd=script.parents[1]))
    assert found["rewards"] == [10.0, 0.0]
    assert found["pid"] != found["driver"]
    assert found["package"] == str(script.parent / "__init__.py")


@one_variant
def test_a_script_without_verifiers(script):
    script.write_text("import sys; print(__name__, sys.argv[1:]); sys.exit(3)")
    done = started(script, "--x")
    assert done.returncode == 3
    assert done.stdout == "__main__ ['--x']\n"
    assert "FLIP had no part in this run" in done.stderr


@one_variant
def test_the_scripts_own_error_is_its_own(script):
    script.write_text("import open_instruct.judge_utils\nraise RuntimeError('of the script')")
    done = started(script)
    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: of the script\n")


@one_variant
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "no script to run"),
        (["--flip_echo", "strip"], "no script to run"),
        (["--flip_echo", "SCRIPT", "--seed", "1"], "argument --flip_echo: expected one argument"),
        (["--seed", "1", "SCRIPT"], "unrecognized arguments: --seed 1"),
        (["--flip_ech", "strip", "SCRIPT"], "unrecognized arguments: --flip_ech strip"),
        (["--flip_api_key", "secret", "SCRIPT"], "unrecognized arguments"),
        (["--flip_max_tokens", "many", "SCRIPT"], "FLIP_MAX_TOKENS='many'"),
        (["--flip_missing_score", "nan", "SCRIPT"], "FLIP_MISSING_SCORE='nan' is not a finite number"),
        (["nowhere/grpo_fast.py"], "no script 'nowhere/grpo_fast.py'"),
        ([__file__], "belongs to no checkout of Open Instruct"),
        ([str(OURS)], "this project's own trainer"),
    ],
)
def test_wrong_use(words, problem, script, capsys, monkeypatch):
    monkeypatch.setattr(launch, "set_paths", lambda *_: pytest.fail("it should not have come this far"))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(launch.set_environment, "__defaults__", (os.environ,))
    with pytest.raises(SystemExit) as stopped:
        launch.main([word.replace("SCRIPT", str(script)) for word in words])
    assert stopped.value.code == 2
    assert problem in capsys.readouterr().err


@one_variant
def test_another_open_instruct_on_the_path(script, tmp_path):
    other = tmp_path / "other" / "open_instruct"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    (tmp_path / "other" / "sitecustomize.py").write_text("import open_instruct")
    done = started(script, PYTHONPATH=str(tmp_path / "other"))
    assert done.returncode == 2
    assert f"finds {other} instead of {script.parent}" in done.stderr
    assert "pip uninstall open-instruct" in done.stderr


def test_help_names_every_option_and_the_columns(capsys):
    with pytest.raises(SystemExit):
        launch.main(["--help"])
    text = capsys.readouterr().out
    for option, (variable, _, _) in VARIABLES.items():
        assert (f"--{variable.lower()} " in text) == (option not in launch.NOT_OFFERED)
    for variable in launch.LAUNCHER_VARIABLES:
        assert f"--{variable.lower()} " in text
    for word in ("--remap_verifier general-quality=general-flip", "ground_truth", "messages"):
        assert word in text


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {"FLIP_CACHE": "cache.sqlite"}
    launch.set_environment({"FLIP_PROMPTS": "p", "FLIP_ECHO": "strip", "FLIP_SEED": None}, environment)
    expected = {"FLIP_CACHE": str(tmp_path / "cache.sqlite"), "FLIP_PROMPTS": str(tmp_path / "p"), "FLIP_ECHO": "strip"}
    assert environment == expected


@pytest.mark.parametrize("variable", ["OPEN_INSTRUCT_UPSTREAM", "OPEN_INSTRUCT_FORK"])
def test_the_real_modules(variable, tmp_path, judge):
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no checkout")
    package = Path(os.environ[variable]) / "open_instruct"
    (tmp_path / "open_instruct").symlink_to(package, target_is_directory=True)
    script = tmp_path / "probe.py"
    script.write_text(f"STUBBED = {upstream_stand_in.STUBBED}\n{upstream_stand_in.REAL}")
    judge.infers(ASKED)
    found = told(started("--flip_missing_score", "0.5", script, base=judge.base))
    assert found["verifier"] == FLIP
    assert found["count"] > 20
    assert found["scores"] == [10.0, 10.0, 5.0, 5.0]
    assert found["reward"] == 7.5
    print(found["file"], "stubbed:", found["stubbed"])
