"""`flip rescore` and `flip inspect`: recorded calls, read again."""

import pytest
from row_cases import read, rows, write_rows

from flip_plugin.cli import main

GREEN, RED, YELLOW = "\x1b[1;32m", "\x1b[31m", "\x1b[33m"


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


def test_inspect_shows_control_characters_harmlessly(score, judge, tmp_path, capsys):
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


@pytest.mark.parametrize("command", ["inspect FILE", "rescore --input FILE --output OUT"])
def test_files_that_are_no_records_are_named(command, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    write_rows(file, 1)
    assert main([word.replace("FILE", str(file)).replace("OUT", str(tmp_path / "o")) for word in command.split()]) == 2
    assert "rows.jsonl:1: not a judge call" in capsys.readouterr().err
    assert not list(tmp_path.glob("o*"))
