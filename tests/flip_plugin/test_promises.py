"""Promises that are easily broken: found by using the package in ways that its other tests do not."""

import asyncio
import json
import multiprocessing
import socket
import sqlite3
import threading

import pytest

from flip_plugin.cli import main
from flip_plugin.judge.cache import ReplyCache
from flip_plugin.prompts.target import Target
from flip_plugin.prompts.templates import DEFAULT_FOLDER, PromptSet
from flip_plugin.replies.parsing import parse_flip_reply
from flip_plugin.reward.flip import FlipReward
from flip_plugin.text.echo import echo_share, penalty, strip_echo

ASKED = "Write a haiku about autumn leaves in Kyoto"


def flip(judge, **options):
    return FlipReward("hosted_vllm/m", judge.base, **{"timeout": 5, "max_attempts": 1, **options})


def open_at_once(path, barrier, problems):
    barrier.wait()
    try:
        ReplyCache(path).put({"n": 1}, {"text": "x"})
    except (ValueError, sqlite3.Error) as error:
        problems.put(str(error))


def test_many_processes_open_a_fresh_cache_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    for number in range(5):
        barrier, problems = context.Barrier(8), context.Queue()
        path = str(tmp_path / f"{number}.sqlite")
        workers = [context.Process(target=open_at_once, args=(path, barrier, problems)) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert problems.empty(), problems.get()


def test_paths_of_no_use_are_errors_at_the_start(judge, tmp_path):
    (tmp_path / "notes").write_text("no database " * 100)
    with pytest.raises(ValueError, match="notes cannot be used as a cache"):
        flip(judge, cache_path=tmp_path / "notes")
    with pytest.raises(ValueError, match="judge calls cannot be kept in"):
        flip(judge, record=tmp_path / "notes" / "calls")


async def test_a_cache_that_goes_away_costs_no_reward(judge, tmp_path):
    reward = flip(judge, cache_path=tmp_path / "c.sqlite")
    reward.client._open_cache()._db.close()
    assert (await reward.score("guess", "x")).score == 1.0
    assert reward.client.stats()["cache_errors"] == 2


async def test_an_empty_reply_is_not_kept(judge, tmp_path):
    judge.answers = [None, '{"INFERRED INSTRUCTION": "guess"}']
    reward = flip(judge, cache_path=tmp_path / "c.sqlite")
    assert [(await reward.score("guess", "x")).status for _ in range(3)] == ["unparsed", "ok", "ok"]
    assert len(judge.requests) == 2


@pytest.mark.parametrize("answer", ["...", "<the instruction>", "<instruction>", "[...your answer...]", "…"])
def test_a_judge_that_repeats_the_format_gave_no_answer(answer):
    reply = f"Use this form: {json.dumps({'REASONING': '...', 'INFERRED INSTRUCTION': answer})}"
    assert "placeholder" in (parse_flip_reply(reply).problem or "")
    both = f'{{"INFERRED INSTRUCTION": "Write a poem"}}\nThe form was {reply}'
    assert parse_flip_reply(both).instruction == "Write a poem"


def test_the_key_as_asked_for_goes_before_a_looser_one():
    reply = '{"INFERRED INSTRUCTION": "Write a poem"}\n{"instruction": "draft"}'
    assert parse_flip_reply(reply).instruction == "Write a poem"
    assert parse_flip_reply(reply.partition("\n")[2]).instruction == "draft"


def test_a_replica_that_hangs_is_left_out(judge):
    """It accepts and never answers: the calls of the first batch cannot know."""
    judge.answers = [{"text": '{"INFERRED INSTRUCTION": "guess"}', "delay": 0.02}]
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(100)
        bases = [judge.base, f"http://127.0.0.1:{mute.getsockname()[1]}/v1"]
        reward = FlipReward("hosted_vllm/m", bases, timeout=2, max_concurrency=8)
        lost = []
        for batch in range(3):
            results = reward.score_batch(["guess"] * 60, [f"{batch} {i}" for i in range(60)])
            assert all(result.score in (1.0, None) for result in results)
            lost.append(sum(result.score is None for result in results))
    assert lost[0] <= 8
    assert lost[1:] == [0, 0]


@pytest.mark.parametrize("provider", ["hosted_vllm", "openai"])
def test_connections_are_used_again(judge, provider):
    reward = FlipReward(f"{provider}/m", judge.base, api_key="none", timeout=10, max_concurrency=2)
    for i in range(20):
        assert reward.score_batch(["guess"], [str(i)])[0].score == 1.0
    assert len(judge.ports) == 20
    assert len(set(judge.ports)) <= 2


async def test_token_counts_are_bounded_like_calls(judge):
    judge.tokens = 5_000
    reward = flip(judge, max_context_length=700, max_tokens=64, max_concurrency=3)
    results = await asyncio.gather(*(reward.score("guess", "word " * 2_000) for _ in range(20)))
    assert {result.status for result in results} <= {"ok", "context_overflow"}
    assert judge.counted and judge.most_counting <= 3


def test_a_similarity_that_fails_costs_its_own_row_alone(judge):
    judge.handler = lambda body: json.dumps({"INFERRED INSTRUCTION": "bad" if "row 3" in str(body) else "guess"})

    def similarity(prediction, reference):
        return 1 / (prediction != "bad")

    results = flip(judge, similarity=similarity).score_batch(["guess"] * 6, [f"row {i}" for i in range(6)])
    assert [result.score for result in results] == [1.0, 1.0, 1.0, None, 1.0, 1.0]
    assert "ZeroDivisionError" in (results[3].error or "")


async def test_an_empty_target_is_none(judge):
    assert (await flip(judge).score(Target("  "), "x")).status == "no_target"
    assert judge.requests == []


def test_a_restatement_nested_in_itself_is_stripped():
    nested = "write haiku about write haiku about autumn autumn leaves leaves in Kyoto in Kyoto"
    assert echo_share(ASKED, strip_echo(ASKED, nested)) == 0.0
    assert strip_echo(ASKED, nested) == "leaves in Kyoto in Kyoto"


def test_echo_without_spaces():
    target = "请写一首关于秋天落叶的俳句"
    said = f"你说：{target}。好的，红叶"
    assert (echo_share(target, said), penalty(target, 1.0)) == (1.0, 0.0)
    assert strip_echo(target, said) == "你说：。好的，红叶"
    assert echo_share(target, "秋天的落叶很美") == 0.0
    assert penalty("写一首诗", 1.0) == 1.0  # two words


def test_the_same_prompts_from_another_folder_are_equal(tmp_path):
    for file in DEFAULT_FOLDER.glob("*.prompt"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert PromptSet.load(tmp_path) == PromptSet.load()


def write_rows(path, count):
    path.write_text("".join(json.dumps({"prompt": "guess", "response": f"r{i}"}) + "\n" for i in range(count)))


def scoring(judge, tmp_path, *more):
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    return main(["score", *files, "--judge_model", "hosted_vllm/m", "--api_base", judge.base, *more])


def test_rows_whose_judge_failed_are_asked_again_and_no_others(judge, tmp_path, capsys):
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


def test_an_address_from_the_environment_must_be_a_url_too(monkeypatch):
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", "http://127.0.0.1:8000/v1,127.0.0.1:8001")
    with pytest.raises(ValueError, match=r"'127\.0\.0\.1:8001' is no URL"):
        FlipReward("hosted_vllm/m")


def test_a_server_that_is_started_again_is_waited_for(judge):
    reward = flip(judge, timeout=20, max_attempts=2)
    assert reward.score_batch(["guess"], ["x"])[0].score == 1.0
    judge.die()
    revival = threading.Timer(4, judge.revive)
    revival.start()
    try:
        assert [result.score for result in reward.score_batch(["guess"] * 5, ["x"] * 5)] == [1.0] * 5
    finally:
        revival.join()


async def test_without_a_window_the_servers_own_is_used(judge):
    """The stub says 4096 with each count, and refuses more; it counts a token a character."""

    def tokens(body):
        return sum(len(turn["content"]) for turn in body["messages"])

    judge.tokens = tokens
    judge.handler = lambda body: (
        '{"INFERRED INSTRUCTION": "guess"}'
        if tokens(body) <= 4096 - 64
        else ((400, "This model's maximum context length is 4096 tokens"))
    )
    result = await flip(judge, max_tokens=64).score("guess", "START " + "word " * 40_000 + "END")
    assert (result.score, len(judge.requests)) == (1.0, 2)
    assert 4096 - 64 - 200 < tokens(judge.requests[1]) <= 4096 - 64


async def test_without_a_count_halves_are_tried_until_one_fits(judge):
    judge.handler = lambda body: (
        '{"INFERRED INSTRUCTION": "guess"}'
        if len(str(body)) < 5_000
        else ((400, "This model's maximum context length is 4096 tokens"))
    )
    assert (await flip(judge).score("guess", "START " + "word " * 30_000 + "END")).score == 1.0


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


@pytest.mark.parametrize("command", ["inspect FILE", "rescore --input FILE --output OUT"])
def test_files_that_are_no_records_are_named(command, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    write_rows(file, 1)
    assert main([word.replace("FILE", str(file)).replace("OUT", str(tmp_path / "o")) for word in command.split()]) == 2
    assert "rows.jsonl:1: not a judge call" in capsys.readouterr().err
    assert not list(tmp_path.glob("o*"))
