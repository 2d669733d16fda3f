import json
import time

import pytest

from flip_plugin.cli import main
from flip_plugin.commands import score as score_file
from flip_plugin.reward.result import FlipResult


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "out.jsonl.settings"]
    assert "20 ok, 1 empty_response, mean score 1.0000" in capsys.readouterr().err


def test_goes_on_where_it_was_stopped(score, judge, tmp_path, monkeypatch):
    def stop_at_twelve(body):
        stops = "response 12\n" in body["messages"][1]["content"]
        return (400, "stop here") if stops else '{"INFERRED INSTRUCTION": "guess"}'

    judge.handler = stop_at_twelve
    with monkeypatch.context() as patch:
        patch.setattr(score_file, "HOPELESS", 1)
        assert score("--max_concurrency", "2", given=rows(30)) == 2
    assert not (tmp_path / "out.jsonl").exists()
    with (tmp_path / "out.jsonl.partial").open("a") as file:
        file.write('{"id": 13, "half a li')
    time.sleep(0.5)  # what was cancelled under way may still arrive
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
    monkeypatch.setattr(score_file, "HOPELESS", 1)
    assert score(given=rows(6)) == 2
    assert score("--temperature", "0.9") == 2
    assert "other settings" in capsys.readouterr().err
    assert score(given=[{**row, "prompt": "else"} for row in rows(6)]) == 2
    assert "line 1 is not the input's" in capsys.readouterr().err
    judge.handler = None
    assert score("--overwrite") == 0
    assert len(read(tmp_path / "out.jsonl")) == 6


def test_a_dead_judge_stops_the_run(score, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("flip_plugin.judge.retries.FIRST_PAUSE_S", 0.001)
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
    assert main(["inspect", record, "--sort", "score", "--limit", "9"]) == 0
    assert "error: the response is empty" in capsys.readouterr().out.splitlines()[-2]  # what has no score comes last
    assert main(["inspect", record, "--status", "ok", "--sort=-score", "--limit", "2"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("inferred: “guess”") == 2
    assert "2 of 3 calls" in shown.err
    assert len(judge.requests) == asked
    assert main(["inspect", str(tmp_path / "none")]) == 2


def test_echo_policies_and_the_answer_alone(score, judge, tmp_path, capsys):
    judge.infers("write a poem about the sea")
    record = str(tmp_path / "calls")
    restated = {"prompt": "Write a poem about the sea", "response": "You said: write a poem about the sea. Waves"}
    assert score("--answer_only", "--record_calls_to", record, given=[restated]) == 0
    assert "REASONING" not in str(judge.requests[0])
    assert read(tmp_path / "out.jsonl")[0]["echo"] == 1.0
    assert score("--overwrite", "--flip_echo", "penalise") == 0
    assert (read(tmp_path / "out.jsonl")[0]["score"], read(tmp_path / "out.jsonl")[0]["similarity"]) == (0.0, 1.0)
    assert score("--overwrite", "--flip_echo", "strip") == 0
    assert "poem" not in judge.requests[-1]["messages"][1]["content"]
    again = tmp_path / "again.jsonl"
    assert main(["rescore", "--input", record, "--output", str(again), "--flip_echo", "penalise"]) == 0
    assert (read(again)[0]["score_before"], read(again)[0]["score"]) == (1.0, 0.0)
    assert main(["rescore", "--input", record, "--output", str(tmp_path / "no.jsonl"), "--flip_echo", "strip"]) == 2
    assert "another text" in capsys.readouterr().err
    assert not list(tmp_path.glob("no.jsonl*"))


def test_preset_and_prompt_folder(score, judge, tmp_path):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "FLIP_SYSTEM.prompt").write_text('Go back. {{"INFERRED INSTRUCTION": ""}}')
    (tmp_path / "prompts" / "FLIP_USER.prompt").write_text("[Response]\n{response}\n")
    more = ("--preset", "paper", "--prompts", str(tmp_path / "prompts"), "--max_tokens", "99")
    assert score(*more, given=rows(1)) == 0
    sent = judge.requests[0]
    assert (sent["temperature"], sent["max_tokens"], sent["seed"]) == (1.0, 99, 1)
    assert "response_format" not in sent and "chat_template_kwargs" not in sent
    assert sent["messages"][0]["content"] == 'Go back. {"INFERRED INSTRUCTION": ""}'


def test_settings_that_cannot_be(score, judge, capsys):
    assert score("--similarity", "f2", given=rows(1)) == 2
    assert "unknown similarity 'f2'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        score("--flip_echo", "punish")
    assert judge.requests == []


GREEN, RED, YELLOW = "\x1b[1;32m", "\x1b[31m", "\x1b[33m"


def test_inspect_colours_what_decides_the_score(score, judge, tmp_path, capsys, monkeypatch):
    judge.infers("Write a short poem")
    record = str(tmp_path / "calls")
    row = {"prompt": "Write a poem about rain", "response": "Write a poem about rain, you said. [bold]Drops"}
    assert score("--record_calls_to", record, given=[row]) == 0
    capsys.readouterr()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["inspect", record]) == 0
    shown = capsys.readouterr().out
    assert f"{GREEN}Write\x1b[0m" in shown and f"{RED}short\x1b[0m" in shown and f"{RED}rain\x1b[0m" in shown
    assert YELLOW in shown and "[bold]" in shown  # the response's own markup is text
    monkeypatch.delenv("FORCE_COLOR")
    assert main(["inspect", record, "--full"]) == 0
    plain = capsys.readouterr().out
    assert "\x1b[" not in plain and "inferred: Write a short poem" in plain and "reply: {" in plain


def test_inspect_does_not_let_a_response_steer_the_terminal(score, judge, tmp_path, capsys):
    judge.infers("\x1b[2Jguess \u202edlrow")
    record = str(tmp_path / "calls")
    assert (
        score("--record_calls_to", record, given=[{"prompt": "guess", "response": "a\x1b]0;title\x07 b\r\x9bc"}]) == 0
    )
    capsys.readouterr()
    assert main(["inspect", record, "--full"]) == 0
    shown = capsys.readouterr().out
    assert not set(shown) & set("\x1b\x07\r\x9b\u202e")
    assert "\\u001b[2Jguess" in shown and "a\\u001b]0;title\\u0007 b" in shown


def test_inspect_chooses_and_counts(score, judge, tmp_path, capsys):
    judge.handler = lambda body: (
        "no JSON" if "response 7\n" in str(body["messages"][1]["content"]) else ('{"INFERRED INSTRUCTION": "guess"}')
    )
    record = str(tmp_path / "calls")
    assert score("--record_calls_to", record, given=rows(20)) == 0
    capsys.readouterr()
    assert main(["inspect", record, "--contains", "RESPONSE 12"]) == 0
    assert "1 of 1 calls" in capsys.readouterr().err
    assert main(["inspect", record, "--status", "unparsed"]) == 0
    shown = capsys.readouterr()
    assert "reply: no JSON" in shown.out and "1 of 1 calls" in shown.err
    assert main(["inspect", record, "--summary"]) == 0
    counted = capsys.readouterr().out
    assert "ok       19   95.0%" in counted and "unparsed        1    5.0%" in counted
    assert "flip scores: mean 1.000" in counted and "0.9-1.0       19 █" in counted


@pytest.mark.parametrize("command", ["score", "rescore", "inspect", "serve"])
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"  flip {command} " in capsys.readouterr().out  # an example to copy
