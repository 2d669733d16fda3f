import json

import pytest

from flip_plugin import cli
from flip_plugin.cli import main
from flip_plugin.reward import FlipResult


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(count):
    return [{"id": i, "prompt": "guess", "response": f"response {i}"} for i in range(count)]


@pytest.fixture
def score(judge, tmp_path):
    def run(*more, given=None):
        if given is not None:
            write(tmp_path / "in.jsonl", given)
        command = ["score", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
        options = ["--judge_model", "hosted_vllm/m", "--api_base", judge.base, "--timeout", "5"]
        return main([*command, *options, *more])

    return run


def test_every_row_once_in_order(score, judge, tmp_path, capsys):
    def answer(body):
        number = int(body["messages"][1]["content"].split("response ")[-1].split()[0])
        return {"text": '{"INFERRED INSTRUCTION": "guess"}', "delay": 0.05 * (number % 3)}

    judge.handler = answer
    given = [*rows(20), {"messages": [{"role": "user", "content": "guess"}], "response": None, "id": 20}]
    assert score(given=given) == 0
    out = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in out] == list(range(21))
    assert [row["score"] for row in out] == [1.0] * 20 + [None]
    assert out[20]["status"] == "empty_response"
    assert out[0].keys() >= set(FlipResult().to_dict()) | {"prompt", "response"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    assert "20 ok, 1 empty_response, mean score 1.0000" in capsys.readouterr().err


def test_goes_on_where_it_was_stopped(score, judge, tmp_path, monkeypatch):
    def stop_at_twelve(body):
        stops = "response 12\n" in body["messages"][1]["content"]
        return (400, "stop here") if stops else '{"INFERRED INSTRUCTION": "guess"}'

    judge.handler = stop_at_twelve
    with monkeypatch.context() as patch:
        patch.setattr(cli, "HOPELESS", 1)
        assert score("--max_concurrency", "2", given=rows(30)) == 2
    assert not (tmp_path / "out.jsonl").exists()
    with (tmp_path / "out.jsonl.partial").open("a") as file:
        file.write('{"id": 13, "half a li')
    judge.handler, before = None, len(judge.requests)
    judge.infers("guess")
    assert score() == 0
    out = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in out] == list(range(30))
    assert {row["status"] for row in out} == {"ok"}  # the failed row was judged again
    assert len(judge.requests) - before == 18
    # And a third time there is nothing to do.
    assert score() == 0
    assert len(judge.requests) - before == 18


def test_results_of_other_input_or_judge_are_not_mixed(score, judge, tmp_path, monkeypatch, capsys):
    judge.handler = lambda body: (400, "no") if "response 3\n" in str(body["messages"][1]["content"]) else "{}"
    monkeypatch.setattr(cli, "HOPELESS", 1)
    assert score(given=rows(6)) == 2
    assert score("--temperature", "0.9") == 2
    assert "other settings" in capsys.readouterr().err
    assert score(given=[{**row, "prompt": "else"} for row in rows(6)]) == 2
    assert "line 1 is not the input's" in capsys.readouterr().err
    judge.handler = None
    assert score("--overwrite") == 0
    assert len(read(tmp_path / "out.jsonl")) == 6


def test_a_dead_judge_stops_the_run(score, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("flip_plugin.judge.FIRST_PAUSE_S", 0.001)
    assert score("--api_base", "http://127.0.0.1:9/v1", given=rows(200)) == 2
    assert "failed 32 times in a row" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "not JSON"),
        ("[1]", "must be an object"),
        ('{"response": "x"}', "neither 'messages' nor 'prompt'"),
        ('{"prompt": "x"}', "no 'response'"),
        ('{"prompt": "x", "response": 3}', "must be text"),
        ('{"prompt": 4, "response": "x"}', "'prompt' text"),
        ('{"messages": [{"content": "x"}], "response": "x"}', "message 1 has no role"),
    ],
)
def test_bad_rows_are_named_before_anything_is_judged(score, judge, tmp_path, capsys, line, words):
    (tmp_path / "in.jsonl").write_text(f"{json.dumps(rows(1)[0])}\n\n{line}\n")
    assert score() == 2
    error = capsys.readouterr().err
    assert "in.jsonl:3: " in error and words in error
    assert judge.requests == []


def test_pointwise_options_and_records(score, judge, tmp_path):
    judge.rates(4)
    record = tmp_path / "calls"
    more = ("--judge_type", "quality", "--no_schema", "--seed", "3", "--record_calls_to", str(record))
    assert score(*more, given=rows(2)) == 0
    assert [row["score"] for row in read(tmp_path / "out.jsonl")] == [0.4, 0.4]
    assert judge.requests[0]["seed"] == 3
    assert "response_format" not in judge.requests[0]
    assert main(["rescore", "--input", str(record), "--output", str(tmp_path / "again.jsonl")]) == 0
    assert read(tmp_path / "again.jsonl") == []


def test_rescore_and_inspect(score, judge, tmp_path, capsys):
    judge.infers("“guess”")
    record = str(tmp_path / "calls")
    assert score("--record_calls_to", record, given=[*rows(3), {"prompt": "guess", "response": ""}]) == 0
    asked = len(judge.requests)
    again = tmp_path / "again.jsonl"
    assert main(["rescore", "--input", record, "--output", str(again), "--similarity", "unicode_f1"]) == 0
    by_status = {row["status"]: row for row in read(again)}
    assert (by_status["ok"]["score_before"], by_status["ok"]["score"]) == (0.0, 1.0)
    assert by_status["empty_response"]["score"] is None
    assert "unicode_f1: mean 1.0000 over 3 scores" in capsys.readouterr().out
    assert main(["inspect", record, "--status", "ok", "--sort=-score", "--limit", "2"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("inferred: “guess”") == 2
    assert "2 of 3 calls" in shown.err
    assert len(judge.requests) == asked
    assert main(["inspect", str(tmp_path / "none")]) == 2


def test_serve_hands_over(monkeypatch, capsys):
    from flip_plugin import serving

    seen = {}
    monkeypatch.setattr(serving, "serve_forever", lambda model, num, **o: seen.update(model=model, num=num, **o))
    assert main(["serve", "--model", "M", "--num_replicas", "2", "--max_model_len", "512"]) == 0
    assert seen == {"model": "M", "num": 2, "log_dir": "judge_logs", "port": 0, "max_model_len": 512}
    assert main(["serve", "--model", "M", "--num_replicas", "2", "--port", "8000"]) == 2

    def fails(*args, **options):
        raise serving.JudgeServerError("no such model")

    monkeypatch.setattr(serving, "serve_forever", fails)
    assert main(["serve", "--model", "M"]) == 2
    assert "no such model" in capsys.readouterr().err
