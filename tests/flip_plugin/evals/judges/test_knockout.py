"""`KnockoutJudge`: who meets whom, what a draw, a gap and a broken judge come to."""

import asyncio
import json
import re

import pytest

from flip_plugin.evals.judges.knockout import KnockoutJudge
from flip_plugin.evals.judges.methods import make_method
from flip_plugin.evals.records.items import EvalItem
from flip_plugin.judge.client import JudgeClient


def prefers_larger(body):
    text = body["messages"][-1]["content"]
    first, second = (int(number) for number in re.findall(r"number (\d+)", text))
    return json.dumps({"REASONING": "r", "BETTER_RESPONSE": "A" if first > second else "B"})


def ranked(judge, responses, **options):
    knockout = KnockoutJudge("hosted_vllm/m", api_base=judge.base, **options)
    return asyncio.run(knockout.rank("say a number", responses))


def test_winners_meet_winners(judge):
    judge.handler = prefers_larger
    result = ranked(judge, [f"number {n}" for n in (3, 1, 4, 8, 5, 9, 2, 6)])
    assert result.scores == pytest.approx([1 / 3, 0, 0, 2 / 3, 0, 1, 0, 1 / 3])
    assert result.best == [5]
    assert len(judge.requests) == len(result.statuses) == 14
    # Both orders of each match.
    assert {(one.first, one.second) for one in result.comparisons} >= {(0, 1), (1, 0), (3, 5), (5, 3)}
    assert result.position_consistency == 1


def test_an_odd_one_out_goes_on(judge):
    judge.handler = prefers_larger
    result = ranked(judge, ["number 1", "number 2", "number 3"])
    assert result.best == [2]
    assert result.scores == [0, 0.5, 1]


def test_what_cannot_be_shown_loses_without_a_question(judge):
    judge.handler = prefers_larger
    result = ranked(judge, ["number 1", "", "number 3", None])
    assert result.scores == [0.5, None, 1, None]
    assert len(judge.requests) == 2


def test_a_judge_that_takes_the_first_is_a_seeded_coin(judge):
    judge.handler = lambda body: json.dumps({"REASONING": "r", "BETTER_RESPONSE": "A"})
    responses = [f"number {n}" for n in range(8)]
    winners = [ranked(judge, responses, coin=coin).best for coin in range(6)]
    assert winners == [ranked(judge, responses, coin=coin).best for coin in range(6)]
    assert len({tuple(one) for one in winners}) > 1
    assert ranked(judge, responses).position_consistency == 0


def test_without_any_answer_there_is_no_winner(judge):
    judge.answers = ["no idea"]
    result = ranked(judge, ["number 1", "number 2", "number 3", "number 4"], schema=False)
    assert result.scores == [None] * 4
    assert (result.best, result.status, result.missing) == ([], "unparsed", 6)


def test_as_a_method_with_its_comparisons(judge):
    judge.handler = prefers_larger
    client = JudgeClient("hosted_vllm/m", judge.base)
    method = make_method("pairwise", client, judge="j", seed=3, pairwise="knockout")
    judged = asyncio.run(method.judge(EvalItem("1", "say a number", ["number 1", "number 2"])))
    assert judged.scores == [0, 1]
    assert judged.extra["comparisons"] == [[0, 1, 1], [1, 0, 1]]
    assert (judged.method, judged.seed) == ("pairwise", 3)
