"""`flip score`: every row once, in order, whatever happens in between."""

import json
import time

import pytest
from row_cases import read, rows, write_rows

from flip_plugin.cli import main
from flip_plugin.commands import score as score_file
from flip_plugin.reward.result import FlipResult


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


def test_a_stopped_run_continues_where_it_was(score, judge, tmp_path, monkeypatch):
    def stop_at_twelve(body):
        stops = "response 12\n" in body["messages"][1]["content"]
        return (400, "stop here") if stops else '{"INFERRED INSTRUCTION": "guess"}'

    judge.handler = stop_at_twelve
    with monkeypatch.context() as patch:
        patch.setattr(score_file, "MAX_FAILURES_IN_A_ROW", 1)
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
    monkeypatch.setattr(score_file, "MAX_FAILURES_IN_A_ROW", 1)
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


def scoring(judge, tmp_path, *more):
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    return main(["score", *files, "--judge_model", "hosted_vllm/m", "--api_base", judge.base, *more])


def test_only_rows_whose_judge_failed_are_judged_again(judge, tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", 12)
    judge.handler = lambda body: (
        (400, "hiccup") if "r5\n" in str(body["messages"][1]["content"]) else ('{"INFERRED INSTRUCTION": "guess"}')
    )
    assert scoring(judge, tmp_path) == 0
    assert "hiccup" in capsys.readouterr().err
    first = (tmp_path / "out.jsonl").read_text().splitlines()
    judge.handler, before = None, len(judge.requests)
    judge.infers("guess")
    assert scoring(judge, tmp_path) == 0
    second = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["score"] for line in second] == [1.0] * 12
    assert second[:5] + second[6:] == first[:5] + first[6:]
    assert len(judge.requests) - before == 1
    assert scoring(judge, tmp_path) == 0
    assert "already has all 12 rows" in capsys.readouterr().err


def test_a_finished_output_is_not_taken_for_another_judges(judge, tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", 2)
    assert scoring(judge, tmp_path) == 0
    assert scoring(judge, tmp_path, "--similarity", "rouge_l") == 2
    assert "other settings" in capsys.readouterr().err
    assert scoring(judge, tmp_path, "--similarity", "rouge_l", "--overwrite") == 0


def test_no_command_writes_over_its_input(judge, tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", 2)
    assert scoring(judge, tmp_path, "--output", str(tmp_path / "in.jsonl"), "--overwrite") == 2
    assert scoring(judge, tmp_path, "--record_calls_to", str(tmp_path / "calls")) == 0
    (record,) = (tmp_path / "calls").iterdir()
    kept = record.read_text()
    for output in (record, tmp_path / "calls" / "more.jsonl"):
        assert main(["rescore", "--input", str(tmp_path / "calls"), "--output", str(output)]) == 2
    assert main(["rescore", "--input", str(record), "--output", str(record)]) == 2
    assert (record.read_text(), list((tmp_path / "calls").iterdir())) == (kept, [record])
    assert len((tmp_path / "in.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "HOSTED_VLLM_API_KEY"), (404, "--judge_model"), (400, "Run the same command")]
)
def test_advice_fits_the_failure(judge, tmp_path, capsys, status, advice):
    write_rows(tmp_path / "in.jsonl", 2)
    judge.answers = [(status, "no")]
    assert scoring(judge, tmp_path) == 2
    assert advice in capsys.readouterr().err
    assert scoring(judge, tmp_path, "--api_base", "127.0.0.1:8000") == 2
    assert "no URL" in capsys.readouterr().err


def test_options_are_read_before_anything_is_overwritten(judge, tmp_path):
    write_rows(tmp_path / "in.jsonl", 2)
    (tmp_path / "out.jsonl").write_text("precious")
    command = ["score", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl"), "--overwrite"]
    assert main([*command, "--judge_model", "hosted_vllm/m", "--api_base", judge.base, "--similarity", "f2"]) == 2
    assert (tmp_path / "out.jsonl").read_text() == "precious"


def test_a_run_without_one_judgement_is_not_finished(judge, tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", 3)
    command = ["score", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    command += ["--judge_model", "hosted_vllm/m", "--api_base", judge.base]
    judge.answers = [(400, "out of order")]
    assert main(command) == 2
    assert "out of order" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
    judge.infers("guess")
    assert main(command) == 0
    assert [json.loads(line)["score"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [1.0] * 3
