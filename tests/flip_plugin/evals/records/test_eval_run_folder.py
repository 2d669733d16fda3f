import json

import pytest
from run_results import load_results

from flip_plugin.errors import CommandError
from flip_plugin.evals.judges.spec import JudgeSpec
from flip_plugin.evals.records.items import Result
from flip_plugin.evals.records.runs import load_run, open_run

BASE = "http://127.0.0.1:1/v1"


def test_a_run_folder_is_written_and_read_again(options, items, tmp_path):
    given = items(3)
    run = open_run(tmp_path / "run", "e", items=given, options=options(BASE), settings={"x": 1}, rules=["a rule"])
    config, again = load_run(tmp_path / "run")
    assert [one.to_dict() for one in again] == [{**one.to_dict(), "responses": list(one.responses)} for one in given]
    assert config == run.config
    assert config["judges"] == [{"name": "a", "model": "hosted_vllm/m", "api_base": BASE, "offline": False}]
    assert config["settings"]["temperature"] == 0.7 and config["settings"]["max_tokens"] == 512
    assert config["settings"]["x"] == 1 and "FLIP_SYSTEM" in config["settings"]["prompts"]
    assert config["data"]["items"] == 3 and len(config["data"]["sha256"]) == 64
    assert config["versions"]["python"] and config["date"].endswith("Z")
    result = Result("e", "a", "flip", "all", "accuracy", 0.5, n=3, runs=[0.5])
    run.finish([result])
    finished = load_results(tmp_path / "run")
    assert finished["cells"] == [result] and finished["rules"] == ["a rule"] and finished["config"] == config
    written = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert written == [".lock", "config.json", "items.jsonl", "results.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature was 0.7, now 0.0"),
        ({"max_tokens": 64}, "max_tokens was 512, now 64"),
        ({"similarity": "rouge_l"}, 'similarity was "f1", now "rouge_l"'),
        ({"schema": False}, "schema was true, now false"),
        ({"methods": ("flip",)}, "it has methods pairwise, too"),
        ({"seeds": (2,)}, "it has seeds 1, too"),
        ({"judges": [JudgeSpec("a", "hosted_vllm/other", BASE)]}, "judge a was hosted_vllm/m, now hosted_vllm/other"),
        ({"judges": [JudgeSpec("b", "hosted_vllm/m", BASE)]}, "it has judge a, too"),
    ],
)
def test_a_changed_option_is_refused_with_what_differs(options, items, tmp_path, change, message):
    from dataclasses import replace

    first = options(BASE, methods=("flip", "pairwise"))
    open_run(tmp_path / "run", "e", items=items(2), options=first)
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(CommandError) as caught:
        open_run(tmp_path / "run", "e", items=items(2), options=replace(first, **change))
    assert message in str(caught.value) and "--overwrite" in str(caught.value)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_a_folder_of_another_command_is_refused(options, items, tmp_path):
    from shutil import copytree

    from flip_plugin.prompts.templates import DEFAULT_FOLDER

    open_run(tmp_path / "run", "e", items=items(2), options=options(BASE), settings={"subsets": ["A"]})
    with pytest.raises(CommandError, match="its items differ"):
        open_run(tmp_path / "run", "e", items=items(3), options=options(BASE), settings={"subsets": ["A"]})
    with pytest.raises(CommandError, match="it holds e, not f"):
        open_run(tmp_path / "run", "f", items=items(2), options=options(BASE))
    with pytest.raises(CommandError, match=r'subsets was \["A"\], now \["B"\]'):
        open_run(tmp_path / "run", "e", items=items(2), options=options(BASE), settings={"subsets": ["B"]})
    copytree(DEFAULT_FOLDER, tmp_path / "prompts")
    with (tmp_path / "prompts" / "FLIP_USER.prompt").open("a") as file:
        file.write("more\n")
    changed = options(BASE, prompts=str(tmp_path / "prompts"))
    with pytest.raises(CommandError, match=r"prompts differ \(FLIP_USER\)"):
        open_run(tmp_path / "run", "e", items=items(2), options=changed, settings={"subsets": ["A"]})


def test_what_may_change_does(options, items, tmp_path):
    """A server that moved, more judges, methods and seeds, more patience."""
    first = open_run(tmp_path / "run", "e", items=items(2), options=options(BASE, methods=("flip",)))
    more = options("http://127.0.0.1:2/v1", BASE, methods=("flip", "listwise"), seeds=(1, 2), timeout=9.0, cache="c")
    again = open_run(tmp_path / "run", "e", items=items(2), options=more)
    assert again.config["seeds"] == [1, 2] and len(again.config["judges"]) == 2
    assert again.config["date"] == first.config["date"]


def test_overwrite_removes_ours_and_nothing_else(options, items, tmp_path):
    run = open_run(tmp_path / "run", "e", items=items(2), options=options(BASE))
    run.finish([])
    (run.path / "judgements").mkdir()
    (run.path / "judgements" / "a.flip.1.jsonl").write_text("old")
    (run.path / "notes.txt").write_text("mine")
    open_run(tmp_path / "run", "e", items=items(3), options=options(BASE), overwrite=True)
    assert sorted(path.name for path in run.path.iterdir()) == [".lock", "config.json", "items.jsonl", "notes.txt"]
    assert len(load_run(run.path)[1]) == 3


def test_a_run_without_judges(tmp_path):
    run = open_run(tmp_path / "run", "table", settings={"tasks": ["ifeval"]}, notes={"device": "cpu"})
    assert run.config["judges"] == [] and run.config["settings"] == {"tasks": ["ifeval"]}
    with pytest.raises(CommandError, match="tasks was"):
        open_run(tmp_path / "run", "table", settings={"tasks": ["bbh"]})
    open_run(tmp_path / "run", "table", settings={"tasks": ["ifeval"]}, notes={"device": "gpu"})


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(CommandError, match="is no run of"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CommandError, match="not JSON"):
        load_run(tmp_path)


def test_lone_surrogates_of_a_data_set_are_written(options, tmp_path):
    from flip_plugin.evals.records.items import EvalItem

    odd = [EvalItem("1", "a \ud800 b", ["x", "y"])]
    open_run(tmp_path / "run", "e", items=odd, options=options(BASE))
    (line,) = (tmp_path / "run" / "items.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["prompt"] == "a \ud800 b"
    open_run(tmp_path / "run", "e", items=odd, options=options(BASE))
