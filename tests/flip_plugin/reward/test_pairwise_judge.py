"""The pairwise judge and its arithmetic against cases computed by hand, over real HTTP and LiteLLM."""

import pytest
from ranking_cases import ASKED, both, pairwise, prefers

from flip_plugin.reward.ranking import Comparison, best_of, count_circles, first_wins, position_consistency, win_shares


async def test_pairwise_asks_every_pair_in_both_orders(judge):
    quality = {"best": 3, "middling": 2, "poor": 1}
    judge.handler = lambda body: prefers("A" if quality[both(body)[0]] > quality[both(body)[1]] else "B")
    result = await pairwise(judge).rank(ASKED, ["poor", "best", "middling"])
    asked = [both(body) for body in judge.requests]
    assert sorted(asked) == sorted((a, b) for a in quality for b in quality if a != b)
    assert (result.scores, result.best, result.status) == ([0.0, 1.0, 0.5], [1], "ok")
    assert (result.position_consistency, result.first_wins, result.intransitive) == (1.0, 0.5, 0)
    assert (result.missing, result.statuses) == (0, ["ok"] * 6)
    assert result.usage == {"prompt_tokens": 42, "completion_tokens": 18}
    schema = judge.requests[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["BETTER_RESPONSE"] == {"type": "string", "enum": ["A", "B"]}


async def test_a_judge_that_always_takes_the_first(judge):
    judge.answers = [prefers("A")]
    result = await pairwise(judge).rank(ASKED, ["a", "b", "c"])
    assert (result.scores, result.best) == ([0.5, 0.5, 0.5], [0, 1, 2])
    assert (result.position_consistency, result.first_wins, result.intransitive) == (0.0, 1.0, 0)


async def test_a_failed_comparison_counts_for_neither(judge):
    # b against c fails in both orders; a beats both.
    judge.handler = lambda body: (500, "down") if "a" not in both(body) else prefers("AB"[both(body).index("a")])
    result = await pairwise(judge).rank(ASKED, ["a", "b", "c"])
    assert (result.scores, result.best, result.status) == ([1.0, 0.0, 0.0], [0], "ok")
    assert (result.missing, sorted(result.statuses)) == (2, ["judge_error"] * 2 + ["ok"] * 4)
    assert "down" in (result.error or "")
    assert [(one.first, one.second) for one in result.comparisons if one.winner is None] == [(1, 2), (2, 1)]
    assert result.position_consistency == 1.0


async def test_one_order_that_failed_leaves_the_other(judge):
    judge.handler = lambda body: prefers("tie" if both(body) == ("b", "a") else "B")
    result = await pairwise(judge).rank(ASKED, ["a", "b"])
    assert (result.scores, result.statuses, result.best) == ([0.0, 1.0], ["ok", "unparsed"], [1])
    assert (result.position_consistency, result.first_wins, result.missing) == (None, 0.0, 1)
    assert "neither A nor B" in (result.error or "")


async def test_nobody_judged(judge):
    judge.answers = ["Both are fine."]
    result = await pairwise(judge).rank(ASKED, ["a", "b", "c"])
    assert (result.scores, result.best, result.status, result.missing) == ([None] * 3, [], "unparsed", 6)
    assert (result.position_consistency, result.first_wins, result.intransitive) == (None, None, None)


async def test_a_circle(judge):
    wins = {("a", "b"), ("b", "c"), ("c", "a")}
    judge.handler = lambda body: prefers("A" if both(body) in wins else "B")
    result = await pairwise(judge).rank(ASKED, ["a", "b", "c"])
    assert (result.scores, result.best, result.intransitive) == ([0.5] * 3, [0, 1, 2], 1)
    assert result.position_consistency == 1.0


@pytest.mark.parametrize("answer", ["A", " a ", "[[A]]", "Response A", "response_a", "**A**", "A."])
async def test_pairwise_spellings(judge, answer):
    judge.answers = [prefers(answer)]
    assert (await pairwise(judge).rank(ASKED, ["a", "b"])).first_wins == 1.0


# The arithmetic.
def test_tournament_arithmetic():
    games = [Comparison(0, 1, 0), Comparison(1, 0, 0), Comparison(1, 2, 1), Comparison(2, 1, 2), Comparison(0, 2)]
    assert win_shares(4, games) == [1.0, 0.25, 0.5, None]
    assert position_consistency(games) == 0.5
    assert first_wins(games) == 0.75
    assert count_circles(4, games) == 0
    assert best_of([None, None]) == [] and best_of([0.2, 0.2, None]) == [0, 1]


def test_circles_are_counted_as_by_hand():
    # Five in a ring, each beats the next two: of 10 triples, 5 are circles.
    ring = [Comparison(a, (a + step) % 5, a) for a in range(5) for step in (1, 2)]
    assert count_circles(5, ring) == 5
    tied = [*ring, Comparison(1, 0, 1)]  # 0 and 1 have beaten each other once: every circle through both is gone
    assert count_circles(5, tied) == 5 - sum(
        {0, 1} <= set(t) for t in [(0, 1, 3), (1, 2, 4), (2, 3, 0), (3, 4, 1), (4, 0, 2)]
    )
