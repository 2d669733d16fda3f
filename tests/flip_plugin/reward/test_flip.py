import json
import pickle
import subprocess
import sys
import threading

import pytest

from flip_plugin.judge.cache import ReplyCache
from flip_plugin.judge.call_log import FIELDS, JudgeCallWriter, read_calls
from flip_plugin.judge.client import JudgeClient
from flip_plugin.prompts.target import Target, whole_prompt
from flip_plugin.reward.flip import FlipReward
from flip_plugin.reward.pointwise import PointwiseJudge
from flip_plugin.reward.rescore import rescore
from flip_plugin.reward.result import FlipResult
from flip_plugin.text.shorten import estimate_tokens
from flip_plugin.text.similarity import get_similarity

ASKED = "Write a poem about the sea"


def flip(judge, **options):
    return FlipReward("hosted_vllm/m", judge.base, timeout=5, max_attempts=1, **options)


async def test_score_is_the_f1_of_the_inferred_instruction(judge):
    judge.infers("Write a short poem about the sea")
    result = await flip(judge).score(ASKED, "Waves and foam")
    assert result.score == pytest.approx(8 / 9)
    assert (result.status, result.target, result.reasoning) == ("ok", ASKED, "r")
    assert result.inferred_instruction == "Write a short poem about the sea"
    assert (result.usage["completion_tokens"], result.echo, result.error) == (3, 0.0, None)
    schema = judge.requests[0]["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == schema["required"] == ["REASONING", "INFERRED INSTRUCTION"]
    assert [one.get("maxLength") for one in schema["properties"].values()] == [300, None]
    assert schema["additionalProperties"] is False


async def test_the_judge_sees_earlier_turns_but_never_the_target(judge):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    await flip(judge).score([*turns, {"role": "user", "content": ASKED}], "Waves")
    shown = "".join(turn["content"] for turn in judge.requests[0]["messages"])
    assert "user: Hi\n\nassistant: Yes?" in shown
    assert ASKED not in shown


async def test_target_choice_and_ready_targets(judge):
    judge.infers("Be terse.")
    turns = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": ASKED}]
    assert (await flip(judge).score(turns, "x")).score == 1.0
    assert (await flip(judge, target="user").score(turns, "x")).target == ASKED
    assert (await flip(judge).score(Target("Be terse."), "x")).score == 1.0


async def test_the_answer_alone(judge):
    judge.answers = ['{"INFERRED INSTRUCTION": "Write a poem about the sea"}']
    assert (await flip(judge, reasoning=False).score(ASKED, "Waves")).score == 1.0
    asked = judge.requests[0]
    assert list(asked["response_format"]["json_schema"]["schema"]["properties"]) == ["INFERRED INSTRUCTION"]
    assert "REASONING" not in asked["messages"][0]["content"]


async def test_the_paper_preset_and_what_overrides_it(judge):
    await FlipReward("hosted_vllm/m", judge.base, preset="paper", max_attempts=1).score(ASKED, "Waves")
    sent = judge.requests[0]
    assert (sent["temperature"], sent["max_tokens"], sent["seed"]) == (1.0, 2048, 1)
    assert not {"response_format", "chat_template_kwargs"} & sent.keys()
    reward = FlipReward("hosted_vllm/m", judge.base, preset="paper", temperature=0.0, schema=True)
    assert (reward.client.temperature, reward.schema, reward.max_context_length) == (0.0, True, 25_000)
    with pytest.raises(ValueError, match="unknown preset 'papr'"):
        FlipReward("hosted_vllm/m", judge.base, preset="papr")


RESTATED = f"You asked: '{ASKED}'. Waves and foam"


async def test_echo_is_reported_by_default(judge):
    judge.infers(ASKED)
    result = await flip(judge).score(ASKED, RESTATED)
    assert (result.score, result.similarity, result.echo) == (1.0, 1.0, 1.0)
    assert ASKED in judge.requests[0]["messages"][1]["content"]


async def test_echo_stripped_before_the_judge_reads(judge):
    judge.infers(ASKED)
    result = await flip(judge, echo="strip").score(ASKED, RESTATED)
    assert (result.score, result.echo) == (1.0, 1.0)
    assert "<response>\nYou asked: Waves and foam\n</response>" in judge.requests[0]["messages"][1]["content"]
    nothing = await flip(judge, echo="strip").score(ASKED, f"**{ASKED}!**")
    assert (nothing.score, nothing.status, nothing.echo) == (0.0, "ok", 1.0)
    assert len(judge.requests) == 1


async def test_echo_penalised(judge):
    judge.infers(ASKED)
    result = await flip(judge, echo="penalise").score(ASKED, "Write a poem about rain? About the sea: waves")
    assert (result.similarity, result.echo) == (1.0, 0.0)
    assert result.score == 1.0
    full = await flip(judge, echo="penalise").score(ASKED, RESTATED)
    assert (full.score, full.similarity, full.status) == (0.0, 1.0, "ok")
    judge.infers("Say hi")
    assert (await flip(judge, echo="penalise").score("Say hi", "You said: say hi. Hi!")).score == 1.0  # too short
    with pytest.raises(ValueError, match="report, strip, penalise"):
        flip(judge, echo="punish")


async def test_rescoring_under_another_echo_policy(judge, tmp_path):
    judge.infers(ASKED)
    await flip(judge, record=tmp_path / "a").score(ASKED, RESTATED)
    await flip(judge, record=tmp_path / "b", echo="strip").score(ASKED, ASKED)
    (told,), (stripped,) = read_calls(tmp_path / "a"), read_calls(tmp_path / "b")
    same = get_similarity("f1")
    assert (rescore(told, same)["score"], rescore(told, same, "penalise")["score"]) == (1.0, 0.0)
    assert rescore(stripped, same)["score"] == 0.0
    with pytest.raises(ValueError, match="another text"):
        rescore(told, same, "strip")
    with pytest.raises(ValueError, match="'strip'"):
        rescore(stripped, same, "report")


async def test_slow_similarities_leave_the_loop_alone(judge):
    def similarity(prediction, reference):
        assert threading.current_thread().name.startswith("flip-worker")
        return 0.25

    similarity.slow = True  # ty: ignore[missing-attribute]
    assert (await flip(judge, similarity=similarity).score(ASKED, "Waves")).score == 0.25


async def test_no_schema_and_other_similarity(judge):
    judge.infers("whatever")
    reward = flip(judge, schema=False, similarity=lambda prediction, reference: 0.125)
    assert (await reward.score(ASKED, "x")).score == 0.125
    assert "response_format" not in judge.requests[0]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"text": '{"INFERRED INSTRUCTION": "cut', "finish_reason": "length"}, "unparsed"),
        ("no idea", "unparsed"),
        ((500, "down"), "judge_error"),
        ((400, "maximum context length is 10 tokens"), "context_overflow"),
    ],
)
async def test_failures_have_no_score(judge, answer, status):
    judge.answers = [answer]
    result = await flip(judge).score(ASKED, "Waves")
    assert (result.score, result.status) == (None, status)
    assert result.error


async def test_prompts_without_target(judge):
    result = await flip(judge).score([{"role": "assistant", "content": "x"}], "Waves")
    assert (result.score, result.status) == (None, "no_target")
    assert judge.requests == []


async def test_cut_off_responses_are_judged_by_default(judge):
    assert (await flip(judge).score(ASKED, "x", finish_reason="length")).status == "ok"
    assert (await flip(judge, skip_truncated=True).score(ASKED, "x", finish_reason="length")).status == "truncated"
    assert (await flip(judge, skip_truncated=True).score(ASKED, "x", finish_reason="stop")).status == "ok"


async def test_long_responses_lose_their_middle_and_nothing_else(judge):
    reward = flip(judge, max_context_length=900, max_tokens=100)
    response = "START " + "filler words " * 5_000 + " END"
    assert (await reward.score(ASKED, response)).status == "ok"
    system, user = (turn["content"] for turn in judge.requests[0]["messages"])
    assert "START" in user and " END\n</response>" in user and "characters left out" in user
    assert system == reward.prompts.fill("FLIP_SYSTEM")
    assert user.endswith("Answer in JSON.")
    assert estimate_tokens(system) + estimate_tokens(user) <= 800


@pytest.mark.parametrize("window", [400, 700, 5_000])
async def test_the_server_counts_where_it_can(judge, window):
    """The estimate is 3 characters a token; this server counts 8, so more of the response is kept."""
    reward = flip(judge, max_context_length=window, max_tokens=100)

    async def count(messages):
        return 10 + sum(len(turn["content"]) for turn in messages) // 8

    reward.client.count_tokens = count
    response = "START " + "filler words " * 1_000 + " END"
    assert (await reward.score(ASKED, response)).status == "ok"
    sent = judge.requests[0]["messages"]
    tokens = await count(sent)
    if window == 5_000:
        assert response in sent[1]["content"]
    else:
        assert window - 100 - 60 < tokens <= window - 100
        assert "START" in sent[1]["content"] and " END\n</response>" in sent[1]["content"]
    assert (await flip(judge, max_context_length=250, max_tokens=100).score(ASKED, response)).status != "ok"


async def test_no_room_for_any_response(judge):
    result = await flip(judge, max_context_length=350, max_tokens=300).score(ASKED, "Waves " * 100)
    assert (result.score, result.status) == (None, "context_overflow")
    assert judge.requests == []


async def test_the_servers_own_count_is_believed(judge):
    judge.answers = [(400, "maximum context length is 10 tokens"), '{"INFERRED INSTRUCTION": "x"}']
    assert (await flip(judge).score(ASKED, "word " * 2_000)).status == "ok"
    first, second = (len(body["messages"][1]["content"]) for body in judge.requests)
    assert second < 0.6 * first


def test_batch_blocks_and_keeps_the_order(judge):
    judge.handler = lambda body: {
        "text": '{"INFERRED INSTRUCTION": "guess"}',
        "delay": 0.1 if "slow" in body["messages"][1]["content"] else 0,
    }
    reward = flip(judge)
    results = reward.score_batch(["guess", "guess", "other"], ["slow one", "", "quick"])
    assert [result.score for result in results] == [1.0, None, 0.0]
    with pytest.raises(ValueError, match="1 prompts, but 2 responses"):
        reward.score_batch(["x"], ["a", "b"])


async def test_batch_inside_a_running_loop(judge):
    assert flip(judge).score_batch(["guess"], ["x"])[0].score == 1.0


async def test_rewards_pickle_after_use(judge, tmp_path):
    reward = flip(judge, record=tmp_path)
    await reward.score(ASKED, "x")
    copy = pickle.loads(pickle.dumps(reward))
    assert (await copy.score(ASKED, "x")).status == "ok"
    assert len(list(read_calls(tmp_path))) == 2


def test_a_client_decides_alone():
    with pytest.raises(ValueError, match="max_tokens"):
        FlipReward("openai/m", client=JudgeClient("openai/m"), max_tokens=3)


async def test_pointwise(judge):
    rate = PointwiseJudge("hosted_vllm/m", judge.base, timeout=5)
    judge.rates(7)
    result = await rate.score(ASKED, "Waves")
    assert (result.score, result.status, result.inferred_instruction) == (0.7, "ok", None)
    assert judge.requests[0]["messages"] == rate.prompts.pointwise_messages(ASKED, "Waves")
    schema = judge.requests[0]["response_format"]["json_schema"]["schema"]["properties"]
    assert schema["SCORE"] == {"type": "integer", "minimum": 1, "maximum": 10}
    judge.rates(11)
    assert (await rate.score(ASKED, "Waves")).status == "unparsed"
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert whole_prompt([*turns, {"role": "assistant", "content": "A"}]).instruction == "system: S\n\nuser: U"
    assert (await rate.score([], "Waves")).status == "no_target"


async def test_records_hold_the_whole_call(judge, tmp_path):
    judge.infers(ASKED)
    reward = flip(judge, record=tmp_path / "judge_calls", seed=4)
    await reward.score(ASKED, "Waves")
    await reward.score(ASKED, "")
    (file,) = (tmp_path / "judge_calls").glob("000-*.jsonl")
    call, empty = read_calls(file)
    assert tuple(call) == FIELDS
    assert (call["judge_type"], call["model"], call["api_base"]) == ("flip", "hosted_vllm/m", judge.base)
    assert call["messages"] == judge.requests[0]["messages"]
    assert (call["sampling"]["seed"], call["reply"], call["score"]) == (4, judge.answers[0], 1.0)
    assert (empty["status"], empty["messages"], empty["score"]) == ("empty_response", [], None)
    assert rescore(call, lambda prediction, reference: 0.5) == {
        **{"score": 0.5, "similarity": 0.5, "status": "ok", "inferred_instruction": ASKED, "error": None}
    }
    assert rescore(empty, lambda prediction, reference: 0.5)["score"] is None


def test_writers_never_share_a_file(tmp_path):
    one = JudgeCallWriter(tmp_path)
    one.write({"status": "ok", "reply": "\ud800 é"})
    copy = pickle.loads(pickle.dumps(one))
    copy.write({"status": "unparsed"})
    one.write({"status": "ok"})
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    calls = list(read_calls(tmp_path))
    assert [call["status"] for call in calls] == ["ok", "ok", "unparsed"]
    assert calls[0]["reply"] == "\ud800 é"
    assert len({call["id"] for call in calls}) == 3
    with pytest.raises(ValueError, match="stauts"):
        one.write({"stauts": "ok"})


def test_reply_cache_of_several_processes(tmp_path):
    code = (
        "import sys; from flip_plugin.judge.cache import ReplyCache; cache = ReplyCache(sys.argv[1]);"
        "[cache.put({'n': n}, {'text': str(n)}) for n in range(int(sys.argv[2]), 200)]"
    )
    path = str(tmp_path / "cache.sqlite")
    writers = [subprocess.Popen([sys.executable, "-c", code, path, str(start)]) for start in (0, 50, 100)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert [ReplyCache(path).get({"n": n}) for n in (0, 75, 199, 200)] == [
        *({"text": "0"}, {"text": "75"}, {"text": "199"}),
        None,
    ]


def test_reading_damaged_records(tmp_path):
    one, two = (json.dumps({"id": number, "judge_type": "flip", "status": "ok"}) for number in (1, 2))
    (tmp_path / "a.jsonl").write_text(f'{one}\n{two}\n{{"id"')
    assert [call["id"] for call in read_calls(tmp_path)] == [1, 2]
    (tmp_path / "a.jsonl").write_text(f"{one}\nnonsense\n{two}\n")
    with pytest.raises(ValueError, match=r"a\.jsonl:2"):
        list(read_calls(tmp_path))
    with pytest.raises(FileNotFoundError):
        list(read_calls(tmp_path / "none"))


def test_results_are_plain_data():
    assert FlipResult(score=0.5).to_dict()["status"] == "ok"
    with pytest.raises(AttributeError):
        FlipResult().score = 1.0  # ty: ignore[invalid-assignment]


def test_import_is_quick_and_light():
    code = (
        "import sys, time; start = time.process_time(); import flip_plugin;"
        "print(time.process_time() - start);"  # not wall time: other tests may share the cores
        "print([name for name in ('torch', 'ray', 'vllm', 'litellm', 'transformers') if name in sys.modules])"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    outputs = [run.stdout.split("\n") for run in runs]
    assert {lines[1] for lines in outputs} == {"[]"}
    assert min(float(lines[0]) for lines in outputs) < 0.3


def test_paths_of_no_use_are_errors_at_the_start(judge, tmp_path):
    (tmp_path / "notes").write_text("no database " * 100)
    with pytest.raises(ValueError, match="notes cannot be used as a cache"):
        flip(judge, cache_path=tmp_path / "notes")
    with pytest.raises(ValueError, match="judge calls cannot be kept in"):
        flip(judge, record=tmp_path / "notes" / "calls")


def test_a_failing_similarity_costs_its_own_row_alone(judge):
    judge.handler = lambda body: json.dumps({"INFERRED INSTRUCTION": "bad" if "row 3" in str(body) else "guess"})

    def similarity(prediction, reference):
        return 1 / (prediction != "bad")

    results = flip(judge, similarity=similarity).score_batch(["guess"] * 6, [f"row {i}" for i in range(6)])
    assert [result.score for result in results] == [1.0, 1.0, 1.0, None, 1.0, 1.0]
    assert "ZeroDivisionError" in (results[3].error or "")


async def test_an_empty_target_is_none(judge):
    assert (await flip(judge).score(Target("  "), "x")).status == "no_target"
    assert judge.requests == []
