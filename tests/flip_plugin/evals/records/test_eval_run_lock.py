"""One process at a time in a run's folder: a second one is refused before it writes or removes anything."""

import argparse
import contextlib
import json
import subprocess
import sys

import pytest
from filelock import FileLock, Timeout

from flip_plugin.cli import main
from flip_plugin.errors import CommandError
from flip_plugin.evals.records.runs import open_run
from flip_plugin.evals.tasks import grpo_table

HOLDER = "import sys; from flip_plugin.files.locks import hold; hold(sys.argv[1]); print('held', flush=True); input()"
REFUSAL = "another run is under way there (process 4711 on far: flip eval x). Wait for it, end it, or name another"


@contextlib.contextmanager
def taken(file):
    """`file` locked, as another process would: a lock is one of an open file, not of a process."""
    with FileLock(file).acquire(blocking=False):
        file.write_text(json.dumps({"pid": 4711, "host": "far", "command": "flip eval x"}))
        yield


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_is_locked_until_its_process_is_killed(options, items, tmp_path, overwrite):
    run = open_run(tmp_path / "run", "e", items=items(2), options=options("http://127.0.0.1:1/v1"))
    (run.path / "judgements").mkdir()
    (run.path / "judgements" / "a.flip.1.jsonl").write_text("kept")
    run.finish([])
    before = (run.path / "config.json").read_bytes()
    command = [sys.executable, "-c", HOLDER, str(run.path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CommandError, match=rf"another run is under way there \(process {holder.pid} on .*: -c "):
            open_run(run.path, "e", items=items(2), options=options("http://127.0.0.1:1/v1"), overwrite=overwrite)
        assert (run.path / "judgements" / "a.flip.1.jsonl").exists()
        assert (run.path / "config.json").read_bytes() == before
    finally:
        holder.kill()
        holder.communicate()
    open_run(run.path, "e", items=items(2), options=options("http://127.0.0.1:1/v1"), overwrite=overwrite).finish([])


def test_a_folder_is_held_from_its_opening_to_its_results(tmp_path):
    run = open_run(tmp_path / "run", "table")
    open_run(tmp_path / "run", "table")  # this process is no other
    with pytest.raises(Timeout), taken(run.path / ".lock"):
        pass
    run.finish([])
    with taken(run.path / ".lock"):
        pass


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_candidates_are_one_process_s(judge, tmp_path, capsys, more):
    (tmp_path / "p.jsonl").write_text('{"prompt": "write"}\n')
    (tmp_path / "c.jsonl.partial").write_text("")
    sampling = ["--benchmark", "prompts", "--data", str(tmp_path / "p.jsonl"), "--num_candidates", "2", *more]
    sampling += ["--policy", f"hosted_vllm/p@{judge.base}"]
    with taken(tmp_path / ".c.jsonl.lock"):
        assert main(["eval", "candidates", *sampling, "--output", str(tmp_path / "c.jsonl")]) == 2
    assert REFUSAL in capsys.readouterr().err and (tmp_path / "c.jsonl.partial").exists()
    # Best-of-N samples into its folder before it opens it.
    sampling += ["--judges", f"a=hosted_vllm/m@{judge.base}", "--metric", "math:sqrt"]
    with taken(tmp_path / "run" / ".lock"):
        assert main(["eval", "best_of_n", *sampling, "--output", str(tmp_path / "run")]) == 2
    assert REFUSAL in capsys.readouterr().err and not judge.requests
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_pairs_of_a_table_that_is_being_made_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(grpo_table, "check_installed", lambda tasks: None)
    pair = grpo_table.pair_file(tmp_path, "base", "t")
    pair.parent.mkdir(parents=True)
    pair.write_text("{}")
    parser = argparse.ArgumentParser()
    grpo_table.add_arguments(parser)
    given = ["--checkpoints", "base=x", "--tasks", "t", "--overwrite", "--output", str(tmp_path)]
    with taken(tmp_path / ".lock"), pytest.raises(CommandError, match="process 4711"):
        grpo_table.run(parser.parse_args(given))
    assert pair.exists()
