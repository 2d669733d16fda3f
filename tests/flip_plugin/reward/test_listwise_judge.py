"""The listwise judge against cases computed by hand, over real HTTP and LiteLLM."""

import asyncio
import json

import pytest
from ranking_cases import ASKED, OVERFLOW, best_place, blocks, listwise, names, pairwise, user


async def test_listwise_in_one_call(judge):
    judge.answers = [names(1)]
    result = await listwise(judge, shuffle=None).rank(ASKED, ["red", "blue", "one"])
    assert (result.scores, result.best, result.order) == ([0.0, 1.0, 0.0], [1], [0, 1, 2])
    assert (result.status, result.statuses, result.response_statuses) == ("ok", ["ok"], ["ok"] * 3)
    assert (result.reasoning, result.usage, result.missing) == ("r", {"prompt_tokens": 7, "completion_tokens": 3}, 0)
    assert result.seconds > 0 and result.error is None
    (body,) = judge.requests
    assert blocks(user(body)) == {"response_0": "red", "response_1": "blue", "response_2": "one"}
    assert f"<instruction>\n{ASKED}\n</instruction>" in user(body)
    schema = body["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["REASONING", "BEST_RESPONSE_INDEX"]
    assert schema["properties"]["BEST_RESPONSE_INDEX"] == {"type": "integer", "minimum": 0, "maximum": 2}
    assert json.loads(json.dumps(result.to_dict()))["missing"] == 0


async def test_listwise_shuffles_what_is_shown_and_maps_it_back(judge):
    judge.handler = lambda body: names(best_place(body, "right"))
    rank = listwise(judge).rank
    responses = ["right", "b", "c", "d", "e"]
    results = [await rank(f"Question {number}", responses) for number in range(8)]
    assert all(result.scores == [1.0, 0.0, 0.0, 0.0, 0.0] and result.best == [0] for result in results)
    assert len({tuple(result.order) for result in results}) > 4
    for result, body in zip(results, judge.requests, strict=True):
        assert list(blocks(user(body)).values()) == [responses[index] for index in result.order]
    again = await rank("Question 0", responses)
    other = await listwise(judge, shuffle=1).rank("Question 0", responses)
    assert again.order == results[0].order != other.order


async def test_a_judge_of_places_cannot_look_right(judge):
    judge.answers = [names(0)]
    prompts = [f"Question {number}" for number in range(60)]
    results = await asyncio.to_thread(listwise(judge).rank_batch, prompts, [["right", "b", "c", "d"]] * 60)
    assert 4 <= sum(result.best == [0] for result in results) <= 26  # about 15, not 60


@pytest.mark.parametrize("index", ["2", 2.0, "Response 2", "[2]", "#2", "response_2"])
async def test_listwise_spellings(judge, index):
    judge.answers = [names(index)]
    assert (await listwise(judge, shuffle=None).rank(ASKED, ["a", "b", "c"])).best == [2]


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (names(3), "unparsed", "3, not 0..2"),
        (names(-1), "unparsed", "-1, not 0..2"),
        (names("none of them"), "unparsed", "not an index"),
        (names(True), "unparsed", "not an index"),
        ("The second.", "unparsed", "no JSON"),
        ({"text": names(1), "finish_reason": "length"}, "unparsed", "cut off"),
        ((500, "down"), "judge_error", "down"),
        (OVERFLOW, "context_overflow", "context"),
    ],
)
async def test_listwise_failures_have_no_scores(judge, answer, status, error):
    judge.answers = [answer]
    result = await listwise(judge).rank(ASKED, ["a", "b", "c"])
    assert (result.scores, result.best, result.status, result.statuses) == ([None] * 3, [], status, [status])
    assert error in (result.error or "")
    assert result.missing == 1


async def test_what_cannot_be_shown_is_left_out(judge):
    judge.handler = lambda body: names(best_place(body, "good"))
    responses = ["", "bad", None, "<think>cut", "<think>x</think>good", "long"]
    reasons = [None] * 5 + ["length"]
    result = await listwise(judge, skip_truncated=True).rank(ASKED, responses, finish_reasons=reasons)
    assert result.scores == [None, 0.0, None, None, 1.0, None]
    assert (result.status, result.best, sorted(result.order)) == ("ok", [4], [1, 4])
    assert result.response_statuses == ["empty_response", "ok", "empty_response", "truncated", "ok", "truncated"]
    properties = judge.requests[0]["response_format"]["json_schema"]["schema"]["properties"]
    assert properties["BEST_RESPONSE_INDEX"]["maximum"] == 1
    pairs = await pairwise(judge, skip_truncated=True).rank(ASKED, responses, finish_reasons=reasons)
    assert {(one.first, one.second) for one in pairs.comparisons} == {(1, 4), (4, 1)}
