"""The GRPO table: which pairs are run, what lm-eval's results become, and, slowly, the tiny policy for real."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from datasets_prep.tiny_world.rows import make_rows
from flip_plugin.errors import CommandError
from flip_plugin.evals.lm_eval import contents
from flip_plugin.evals.lm_eval import worker as grpo_worker
from flip_plugin.evals.lm_eval.benchmarks import BENCHMARKS, TASK_FOLDER, check_installed, metrics_of, size_of
from flip_plugin.evals.lm_eval.task_files.ifbench.task import readings
from flip_plugin.evals.lm_eval.worker import write_results
from flip_plugin.evals.tasks import grpo_table

WORLD = Path(__file__).parents[4] / "datasets_prep" / "tiny_world"
ASKED = {"backend": "vllm", "model_args": {}, "gen_kwargs": {}, "limit": 8, "seed": 1, "apply_chat_template": None}


def lm_eval_results(task: str, value: float, error: float | None = 0.02, **more) -> dict:
    """What a worker leaves for a pair."""
    metrics = {"acc,none": value, "acc_stderr,none": "N/A" if error is None else error, "alias": task}
    made = {"task": task, "checkpoint": "p", "results": {task: metrics}, "n-samples": {task: {"effective": 8}}}
    return {**made, **{key: ASKED[key] for key in grpo_table.SAME}, **more}


@pytest.fixture
def worked(monkeypatch) -> list[dict]:
    """Jobs that would have been run; each writes its files."""
    jobs: list[dict] = []

    def run(job):
        jobs.append(dict(job))
        for one in job["tasks"]:
            of = {name: job[name] for name in ("checkpoint", "contents")}
            write_results(Path(one["file"]), lm_eval_results(one["task"], 0.5, **of))
        return 0

    monkeypatch.setattr(grpo_table, "_run_worker", run)
    return jobs


def test_a_finished_pair_is_not_run_again(tmp_path, worked):
    pair = grpo_table.pair_file(tmp_path, "flip", "a")
    write_results(pair, lm_eval_results("a", 0.6, checkpoint="two"))
    failed = grpo_table.evaluate_pairs(tmp_path, {"base": "one", "flip": "two"}, ["a", "b"], ASKED, [])
    asked = [(job["checkpoint"], [one["task"] for one in job["tasks"]]) for job in worked]
    assert failed == [] and asked == [("one", ["a", "b"]), ("two", ["b"])]
    grpo_table.evaluate_pairs(tmp_path, {"base": "one", "flip": "two"}, ["a", "b"], ASKED, [])
    assert len(worked) == 2


def test_a_pair_of_another_checkpoint_or_limit_is_refused(tmp_path, worked):
    write_results(grpo_table.pair_file(tmp_path, "base", "a"), lm_eval_results("a", 0.6, checkpoint="other"))
    with pytest.raises(CommandError, match="made with checkpoint 'other', not 'one'"):
        grpo_table.evaluate_pairs(tmp_path, {"base": "one"}, ["a"], ASKED, [])
    with pytest.raises(CommandError, match="model_args"):
        grpo_table.evaluate_pairs(tmp_path, {"base": "other"}, ["a"], {**ASKED, "model_args": {"dtype": "x"}}, [])
    with pytest.raises(CommandError, match="limit 8, not None"):
        grpo_table.evaluate_pairs(tmp_path, {"base": "other"}, ["a"], {**ASKED, "limit": None}, [])
    assert worked == []


def test_a_checkpoint_that_was_trained_again_is_noticed(tmp_path, worked):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "model.safetensors").write_bytes(b"a" * 100)
    output, given = tmp_path / "table", {"flip": str(checkpoint)}
    grpo_table.evaluate_pairs(output, given, ["a"], ASKED, [])
    # Written again as it was, as by a copy; and what says nothing of the model.
    (checkpoint / "model.safetensors").write_bytes(b"a" * 100)
    os.utime(checkpoint / "model.safetensors", (1, 1))
    (checkpoint / "README.md").write_text("notes")
    grpo_table.evaluate_pairs(output, given, ["a"], ASKED, [])
    (checkpoint / "model.safetensors").write_bytes(b"a" * 99 + b"b")
    with pytest.raises(CommandError, match=r"has changed since .*a\.json was made: give the new one another name, or"):
        grpo_table.evaluate_pairs(output, given, ["a", "b"], ASKED, [])
    assert len(worked) == 1
    shutil.rmtree(grpo_table.pair_file(output, "flip", "a").parent)  # as the error says
    assert grpo_table.evaluate_pairs(output, given, ["a"], ASKED, []) == [] and len(worked) == 2
    shutil.rmtree(checkpoint)  # to save space: its results stay
    assert grpo_table.evaluate_pairs(output, given, ["a"], ASKED, []) == [] and len(worked) == 2


def test_a_pair_of_an_older_version_is_taken(tmp_path, worked):
    write_results(grpo_table.pair_file(tmp_path, "base", "a"), lm_eval_results("a", 0.6, checkpoint=str(tmp_path)))
    assert grpo_table.evaluate_pairs(tmp_path, {"base": str(tmp_path)}, ["a"], ASKED, []) == [] and worked == []


def test_large_files_are_looked_at_all_over(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "WHOLE", 1000)
    monkeypatch.setattr(contents, "BLOCK", 10)
    monkeypatch.setattr(contents, "BLOCKS", 5)
    weights, original = tmp_path / "model.bin", bytes(range(250)) * 8
    weights.write_bytes(original)
    found = contents.contents_of(tmp_path)
    for place in (0, 500, 1000, 1495, 1999):
        weights.write_bytes(original[:place] + b"!" + original[place + 1 :])
        assert contents.contents_of(tmp_path) != found, place
    weights.write_bytes(original + b"!")
    assert contents.contents_of(tmp_path) != found
    weights.write_bytes(original)
    assert contents.contents_of(tmp_path) == found
    assert contents.contents_of("org/model-on-the-hub") is None


def test_a_task_that_fails_lets_the_others_run_and_is_named(tmp_path, monkeypatch, capsys):
    """lm-eval's own part is a stand-in: the worker's loop over tasks is not."""

    def simple_evaluate(*, tasks, **settings):
        if tasks == ["gated"]:
            raise OSError("a data set behind a gate")
        return {"results": {tasks[0]: {"acc,none": 0.5}}, "n-samples": {tasks[0]: {"effective": 8}}}

    stand_in = {
        "lm_eval": {},
        "lm_eval.evaluator": {"simple_evaluate": simple_evaluate},
        "lm_eval.tasks": {"TaskManager": lambda **folders: SimpleNamespace(all_tasks=[])},
    }
    for name, members in stand_in.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)

    def run_worker(job):  # in this process; an exception is what makes the real one's exit status
        try:
            grpo_worker.evaluate(job, object())
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        return 0

    monkeypatch.setattr(grpo_table, "_run_worker", run_worker)
    monkeypatch.setattr(grpo_table, "check_installed", lambda tasks: None)
    parser = argparse.ArgumentParser()
    grpo_table.add_arguments(parser)
    given = ["--checkpoints", "base=x", "--tasks", "before", "gated", "after", "--output", str(tmp_path)]
    assert grpo_table.run(parser.parse_args(given)) == 1
    shown = capsys.readouterr()
    assert "lm-eval failed on gated (above); the other tasks are done" in shown.err
    assert "failed: base (gated); the same command again runs what is missing" in shown.err
    assert "| base | 50.0 | – | 50.0 |" in shown.out
    assert sorted(path.name for path in (tmp_path / "pairs" / "base").iterdir()) == ["after.json", "before.json"]


def test_a_worker_that_fails_keeps_what_is_done_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(grpo_table, "_run_worker", lambda job: 1)
    assert grpo_table.evaluate_pairs(tmp_path, {"base": "one"}, ["a"], ASKED, []) == ["base"]
    assert grpo_table.table_results(tmp_path, ["base"], ["a"], {}) == []


def test_cells_carry_standard_errors_as_intervals(tmp_path):
    write_results(grpo_table.pair_file(tmp_path, "flip", "t"), lm_eval_results("t", 0.5))
    write_results(grpo_table.pair_file(tmp_path, "base", "t"), lm_eval_results("t", 0.25, None))
    results = grpo_table.table_results(tmp_path, ["base", "flip"], ["t", "missing"], {"flip": "flip"})
    assert [(one.judge, one.method, one.group, one.metric, one.n) for one in results] == [
        ("base", "", "t", "acc", 8),
        ("flip", "flip", "t", "acc", 8),
    ]
    assert results[0].low is None
    assert results[1].low == pytest.approx(0.5 - 1.96 * 0.02) and results[1].high == pytest.approx(0.5 + 1.96 * 0.02)
    table = grpo_table.table_text(results, ["base", "flip"], ["t", "missing"])
    assert table.splitlines()[2:] == ["| base | 25.0 | – |", "| flip | 50.0 ± 2.0 | – |"]


def test_a_benchmark_s_own_metric_comes_first(tmp_path):
    found = {
        "results": {
            "ifeval": {
                "inst_level_loose_acc,none": 0.9,
                "prompt_level_loose_acc,none": 0.8,
                "prompt_level_loose_acc_stderr,none": 0.01,
            }
        },
        "n-samples": {"ifeval": {"effective": 541}},
    }
    write_results(grpo_table.pair_file(tmp_path, "base", "ifeval"), found)
    results = grpo_table.table_results(tmp_path, ["base"], ["ifeval"], {})
    assert [(one.metric, one.note.startswith("primary")) for one in results] == [
        ("prompt_level_loose_acc", True),
        ("inst_level_loose_acc", False),
    ]


def test_a_group_counts_the_documents_of_its_tasks():
    found = {
        "groups": {"g": {"acc,none": 0.5}},
        "results": {"a": {"acc,none": 1.0}, "b": {"acc,none": 0.0}},
        "n-samples": {"a": {"effective": 3}, "b": {"effective": 4}},
        "group_subtasks": {"g": ["a", "b"]},
    }
    assert metrics_of(found, "g") == {"acc,none": (0.5, None)} and size_of(found, "g") == 7
    with pytest.raises(CommandError, match="no number for c"):
        metrics_of(found, "c")


def test_ifbench_without_its_package_says_how_to_get_it(monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ifbench" else found(name))
    check_installed(["ifeval"])
    with pytest.raises(CommandError, match="pip install 'ifbench @ git"):
        check_installed(["ifeval", "ifbench"])


def test_a_loose_reading_drops_end_lines_and_asterisks():
    found = readings("First\n*a* b\nlast")
    assert len(found) == 8
    assert {"First\n*a* b\nlast", "First\na b\nlast", "a b\nlast", "First\na b", "a b"} <= set(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoints", "base"], "takes NAME=VALUE, not 'base'"),
        (["--checkpoints", "a=x", "a=y"], "two are called 'a'"),
        (["--checkpoints", "a=x", "--rewards", "b=flip"], "no such checkpoint"),
        (["--checkpoints", "a=x", "--rewards", "a=good"], "must be one of"),
        (["--checkpoints", "a=x", "--tasks", "t", "--include_path", "/nowhere"], "no such folder"),
    ],
)
def test_wrong_use_is_an_error_before_anything_is_loaded(tmp_path, arguments, message):
    parser = argparse.ArgumentParser()
    grpo_table.add_arguments(parser)
    with pytest.raises(CommandError, match=message):
        grpo_table.run(parser.parse_args([*arguments, "--output", str(tmp_path)]))


def test_the_task_of_the_tiny_world_scores_by_its_rule():
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=[str(WORLD / "lm_eval_task"), str(TASK_FOLDER)], include_defaults=False)
    assert {"tiny_world", "ifbench"} <= set(manager.all_tasks)
    task = manager.load(["tiny_world"])["tasks"]["tiny_world"]
    docs = list(task.test_docs())
    assert [doc["prompt"] for doc in docs] == [row["ground_truth"] for row in make_rows("eval", 200, "flip", 1)]
    scored = task.process_results(docs[0], ["Nothing of it."])
    assert scored["all_satisfied"] == 0 and 0 <= scored["constraints_satisfied"] < 1


def test_every_benchmark_is_a_task_that_exists():
    import lm_eval

    texts = [
        path.read_text()
        for folder in (Path(lm_eval.__file__).parent / "tasks", TASK_FOLDER)
        for name in ("ifeval", "bbh/cot_zeroshot", "gpqa/cot_zeroshot", "benchmarks", "ifbench")
        for path in (folder / name).glob("*.yaml")
    ]
    for benchmark in BENCHMARKS.values():
        assert any(f"{kind}: {benchmark.task}\n" in text for text in texts for kind in ("task", "group")), benchmark


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["vllm", "hf"])
def test_the_tiny_policy_is_evaluated_for_real_and_continued(tmp_path, capsys, backend):
    """The policy satisfies about half of what is asked (its build report); a second checkpoint alone is run later."""
    parser = argparse.ArgumentParser()
    grpo_table.add_arguments(parser)
    policy = WORLD / "models" / "policy"
    given = ["--tasks", "tiny_world", "--include_path", str(WORLD / "lm_eval_task"), "--limit", "40"]
    given += ["--backend", backend, "--output", str(tmp_path)]
    given += ["--model_args", "max_model_len=256"] if backend == "vllm" else ["--model_args", "dtype=float32"]
    assert grpo_table.run(parser.parse_args(["--checkpoints", f"base={policy}", *given])) == 0
    pair = grpo_table.pair_file(tmp_path, "base", "tiny_world")
    written = pair.stat().st_mtime_ns
    assert grpo_table.run(parser.parse_args(["--checkpoints", f"base={policy}", f"flip={policy}", *given])) == 0
    assert pair.stat().st_mtime_ns == written
    results = json.loads((tmp_path / "results.json").read_text())["cells"]
    base, flip = (next(one for one in results if one["judge"] == name) for name in ("base", "flip"))
    assert base["metric"] == "constraints_satisfied" and 0.4 < base["value"] < 0.7 and base["n"] == 40
    assert base["value"] == pytest.approx(flip["value"], abs=0.05) and base["low"] < base["value"] < base["high"]
    assert "| base |" in capsys.readouterr().out
