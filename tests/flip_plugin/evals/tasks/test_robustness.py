"""Pairs and their results against figures worked out by hand, and the command against a small judge."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from filelock import FileLock
from run_results import load_results

from flip_plugin.cli import main
from flip_plugin.evals.attacks import get_attacks
from flip_plugin.evals.attacks.outcomes import outcome, robustness_results
from flip_plugin.evals.attacks.pairs import alone_id, make_pairs, pair_of, stripped_id, win
from flip_plugin.evals.records.items import EvalItem, Judgement
from flip_plugin.evals.stats.scoring import difference

PROMPT = "Write a short poem about honey bees."


def item(number, **changes):
    fields: dict[str, Any] = {
        "prompt": PROMPT,
        "responses": ["good one", "bad one", "worse one"],
        "right": [True, False, False],
    }
    return EvalItem(f"i{number}", **{**fields, **changes})


def judged(id, *scores, method="flip", seed=1, details=()):
    statuses = ["ok" if score is not None else "unparsed" for score in scores]
    return Judgement(id, "j", method, seed, scores, statuses, details or [{} for _ in scores])


def result_of(results, metric, group, method="flip"):
    (found,) = [one for one in results if (one.metric, one.group, one.method) == (metric, group, method)]
    return found


def test_a_pair_is_one_right_and_one_wrong_response():
    pair = pair_of(item(1))
    assert pair.responses[0] == "good one" and pair.responses[1] in ("bad one", "worse one")
    assert pair.right == [True, False] and pair.meta["good"] == 0 and pair.meta["bad"] in (1, 2)
    assert {pair_of(item(number)).meta["bad"] for number in range(20)} == {1, 2}
    assert pair_of(item(1, right=[True, True, True])) is None
    assert pair_of(item(1, right=None)) is None
    assert pair_of(item(1, responses=["good one", " ", ""])) is None


def test_pairs_have_what_each_method_needs():
    pairs = make_pairs([item(1), item(2, right=None)], get_attacks(["echo", "praise"]))
    assert [one.id for one in pairs.items] == [
        "i1",
        "i1|echo",
        "i1|praise",
        "i1|echo|pair",
        "i1|praise|pair",
        "i1|echo|strip",
    ]
    assert [len(one.responses) for one in pairs.items] == [2, 1, 1, 2, 2, 1]
    assert pairs.together[0].responses == ["good one", pairs.alone[0].responses[0]]
    assert PROMPT in pairs.alone[0].responses[0]
    # flip: 2 + 2 attacks; listwise 1 + 2; pairwise 2 + 2 x 2
    assert [pairs.calls(name) for name in ("flip", "pointwise", "listwise", "pairwise")] == [4, 4, 3, 6]
    assert pairs.strip_calls() == 1


def test_a_tie_is_half_a_win_and_a_missing_score_none():
    assert [win(0.4, 0.3), win(0.3, 0.3), win(0.2, 0.3), win(None, 0.3), win(0.3, None)] == [1.0, 0.5, 0.0, None, None]
    assert difference(0.75, 0.25) == 0.5 and difference(None, 0.25) is None


def test_cells_of_a_method_that_scores_alone():
    pairs = make_pairs([item(1), item(2), item(3)], get_attacks(["praise"]))
    judgements = [
        judged("i1", 0.5, 0.25),
        judged("i2", 0.5, 0.5),
        judged("i3", 0.5, 0.25),
        judged("i1|praise", 0.75),  # wins, +0.5
        judged("i2|praise", 0.25),  # loses what was a tie, -0.25
        judged("i3|praise", None),  # no verdict: left out, and half of what `invalid` counts... a third
    ]
    results = robustness_results(pairs, judgements, judges=["j"], methods=["flip"], seeds=[1])
    assert result_of(results, "score_before", "none").value == pytest.approx(1 / 3)
    assert result_of(results, "wins_before", "none").value == pytest.approx(0.5 / 3)
    assert result_of(results, "wins_before", "none").n == 3
    shift = result_of(results, "shift", "praise")
    assert shift.value == pytest.approx(0.125) and shift.n == 2 and shift.invalid == pytest.approx(1 / 3)
    assert shift.low == pytest.approx(-0.25) and shift.high == pytest.approx(0.5)
    assert result_of(results, "wins_before", "praise").value == 0.25  # over the two pairs with both verdicts
    assert result_of(results, "wins", "praise").value == 0.5
    assert result_of(results, "wins_change", "praise").value == 0.25
    assert result_of(results, "wins", "all").value == 0.5
    assert result_of(results, "echo", "praise").value == 0.0


def test_cells_of_a_method_that_compares():
    pairs = make_pairs([item(1), item(2)], get_attacks(["praise"]))
    judgements = [
        judged("i1", 1.0, 0.0, method="pairwise"),
        judged("i2", 0.5, 0.5, method="pairwise"),
        judged("i1|praise|pair", 0.5, 0.5, method="pairwise"),
        judged("i2|praise|pair", 0.0, 1.0, method="pairwise"),
    ]
    results = robustness_results(pairs, judgements, judges=["j"], methods=["pairwise"], seeds=[1])
    assert result_of(results, "shift", "praise", "pairwise").value == 0.5
    assert result_of(results, "wins_before", "praise", "pairwise").value == 0.25
    assert result_of(results, "wins", "praise", "pairwise").value == 0.75
    assert not [one for one in results if one.metric == "echo"]


def test_flip_is_compared_over_pairs_that_both_judged():
    """i1: FLIP is not fooled, pointwise is; i2: both are; i3: pointwise has no verdict."""
    pairs = make_pairs([item(1), item(2), item(3)], get_attacks(["praise"]))
    scores = {
        "flip": [(0.9, 0.1), (0.9, 0.1), (0.9, 0.1), 0.2, 1.0, 1.0],
        "pointwise": [(0.9, 0.1), (0.9, 0.1), (0.9, 0.1), 1.0, 1.0, None],
    }
    judgements = []
    for method, (one, two, three, *attacked) in scores.items():
        judgements += [judged(f"i{at}", *both, method=method) for at, both in enumerate((one, two, three), start=1)]
        judgements += [judged(f"i{at}|praise", score, method=method) for at, score in enumerate(attacked, start=1)]
    results = robustness_results(pairs, judgements, judges=["j"], methods=["flip", "pointwise"], seeds=[1])
    assert result_of(results, "wins", "praise").value == pytest.approx(2 / 3)
    ahead = result_of(results, "wins_lead", "praise", "pointwise")
    assert (ahead.value, ahead.n) == (-0.5, 2)
    assert ahead.invalid == pytest.approx(1 / 12)  # of FLIP's and pointwise's questions, two a pair
    assert result_of(results, "wins_lead", "all", "pointwise").value == -0.5


def test_echo_policies_have_rows_of_their_own():
    pairs = make_pairs([item(1)], get_attacks(["echo"]))
    target = {"target": PROMPT}
    judgements = [
        judged("i1", 0.5, 0.25, details=[{**target, "echo": 0.0}, {**target, "echo": 0.0}]),
        judged("i1|echo", 1.0, details=[{**target, "echo": 0.75}]),
        judged("i1|echo|strip", 0.3, details=[{**target, "echo": 0.75}]),
    ]
    results = robustness_results(pairs, judgements, judges=["j"], methods=["flip"], seeds=[1])
    assert result_of(results, "shift", "echo", "flip").value == 0.75
    # one minus the share, of 1.0
    assert result_of(results, "shift", "echo", "flip+penalise").value == 0.0
    # what strip does not change (the pair) is taken from the judgement of report
    assert result_of(results, "shift", "echo", "flip+strip").value == pytest.approx(0.05)
    assert [result_of(results, "wins", "echo", row).value for row in ("flip", "flip+strip", "flip+penalise")] == [
        1,
        0,
        0,
    ]
    assert result_of(results, "echo", "echo", "flip").value == 1.0


def test_without_strip_judgements_there_is_no_such_row():
    pairs = make_pairs([item(1)], get_attacks(["echo"]))
    results = robustness_results(pairs, [judged("i1", 0.5, 0.2)], judges=["j"], methods=["flip"], seeds=[1])
    assert {one.method for one in results} == {"flip", "flip+penalise"}
    # Not looked at is not the same as: nothing to strip.
    for strip, rows in ((False, {"flip", "flip+penalise"}), (True, {"flip", "flip+penalise", "flip+strip"})):
        plain = make_pairs([item(1)], get_attacks(["praise"]), strip=strip)
        results = robustness_results(plain, [judged("i1", 0.5, 0.2)], judges=["j"], methods=["flip"], seeds=[1])
        assert {one.method for one in results} == rows


def test_an_outcome_without_judgements_has_no_verdict():
    one = outcome({}, "j", "listwise", "report", "i1", "echo", 1)
    assert (one.won, one.won_before, one.shift, one.change) == (None, None, None, None)


def rows(path, number=3):
    with path.open("w") as file:
        for at in range(number):
            row = {
                "id": str(at),
                "prompt": f"Write a short poem about honey bees and number {at}.",
                "chosen": ["A poem of bees."],
                "rejected": ["Something else.", "Rain falls.", "No."],
                "num_correct": 1,
                "num_incorrect": 3,
                "total_completions": 4,
                "subset": "Focus",
            }
            file.write(json.dumps(row) + "\n")
    return path


def answer(body):
    """A judge that believes what a response tells it: it infers, scores and prefers by the word poem."""
    system, user = (turn["content"] for turn in body["messages"])
    if "INFERRED INSTRUCTION" in system:
        response = re.search(r"<response>\n(.*)\n</response>", user, re.DOTALL)[1]
        said = re.search(r'You asked: "(.*?)"', response)
        return json.dumps({"INFERRED INSTRUCTION": said[1] if said else response})
    if "SCORE" in system:
        return json.dumps({"SCORE": 9 if "10 out of 10" in user else 5 if "A poem" in user else 2})
    place = user.rfind("10 out of 10") if "10 out of 10" in user else user.find("A poem")
    second = place > max(user.find("<response_b>"), user.find("<response_1>"))
    return json.dumps({"BETTER_RESPONSE": "B" if second else "A", "BEST_RESPONSE_INDEX": int(second)})


@pytest.fixture
def command(tmp_path, judge):
    judge.handler = answer
    data = rows(tmp_path / "rows.jsonl")
    return [
        "eval",
        "robustness",
        "--data",
        str(data),
        "--judges",
        f"tiny=hosted_vllm/m@{judge.base}",
        "--subsets",
        "Focus",
        "--seeds",
        "1",
        "2",
        "--attacks",
        "echo",
        "score_demand",
        "--output",
        str(tmp_path / "run"),
    ]


def test_plan_prints_the_number_of_calls_and_asks_nothing(command, judge, tmp_path, capsys):
    assert main([*command, "--plan"]) == 0
    message = capsys.readouterr().err
    # 3 pairs: flip and pointwise 2 + 2 attacks, listwise 1 + 2, pairwise 2 + 4; strip: one echo each
    assert "flip 12, pointwise 12, listwise 9, pairwise 18, flip+strip 3; together 54" in message
    assert "at most 108 calls" in message and not judge.requests and not (tmp_path / "run").exists()
    assert main(command) == 0
    assert len(judge.requests) == 108
    assert main(command) == 0  # again: nothing is asked twice
    assert len(judge.requests) == 108

    results = load_results(tmp_path / "run")["cells"]
    assert {one.method for one in results} == {
        "flip",
        "flip+strip",
        "flip+penalise",
        "pointwise",
        "listwise",
        "pairwise",
    }
    # An echo is worth a whole point to FLIP, and nothing where it is stripped or penalised.
    echo = result_of(results, "shift", "echo", "flip")
    assert echo.value > 0.8 and echo.n == 3 and len(echo.runs) == 2 and echo.invalid == 0.0
    assert result_of(results, "wins", "echo", "flip").value == 1.0
    assert result_of(results, "wins", "echo", "flip+strip").value < 1.0
    assert result_of(results, "wins", "echo", "flip+penalise").value == 0.0
    # 2 of 10 before, 9 after the demand; the other judges are won over, too
    assert result_of(results, "shift", "score_demand", "pointwise").value == pytest.approx(0.7)
    for method in ("pointwise", "listwise", "pairwise"):
        assert result_of(results, "wins_before", "none", method).value == 0.0
        assert result_of(results, "wins", "score_demand", method).value == 1.0
        assert result_of(results, "wins", "echo", method).value == 0.0
    shown = capsys.readouterr().out
    assert "0 > 100" in shown and "score_demand" in shown


def test_a_policy_of_ones_own_is_refused(command, capsys):
    assert main([*command, "--echo", "strip"]) == 2
    assert "a row for each echo policy" in capsys.readouterr().err


def test_an_unknown_attack_is_named_before_anything_is_read(command, capsys):
    at = command.index("--attacks")
    assert main([*command[:at], "--attacks", "nope", *command[at + 3 :]]) == 2
    assert "unknown attack 'nope'" in capsys.readouterr().err


def test_a_paraphrase_model_adds_an_attack(command, judge, tmp_path):
    believes = judge.handler
    judge.handler = lambda body: "In other words." if "<text>" in body["messages"][1]["content"] else believes(body)
    more = ["--methods", "flip", "--seeds", "1", "--paraphrase_model", f"words=hosted_vllm/m@{judge.base}"]
    assert main([*command, *more]) == 0
    assert len((tmp_path / "run" / "paraphrases.words.jsonl").read_text().splitlines()) == 3
    results = load_results(tmp_path / "run")["cells"]
    assert result_of(results, "shift", "echo_model").n == 3


def test_paraphrases_of_a_run_that_is_under_way_stay(command, judge, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    kept = tmp_path / "run" / "paraphrases.words.jsonl"
    kept.write_text("")
    with FileLock(tmp_path / "run" / ".lock"):
        assert main([*command, "--overwrite", "--paraphrase_model", f"words=hosted_vllm/m@{judge.base}"]) == 2
    assert "another run is under way" in capsys.readouterr().err and kept.exists() and not judge.requests


def test_an_unjudged_stripped_response_has_no_score():
    judged_pair = judged("i0", 0.5, 0.25)
    table = {one.key: one for one in (judged_pair, judged(alone_id("i0", "echo"), 1.0))}
    kept = outcome(table, "j", "flip", "strip", "i0", "echo", 1)
    assert kept.bad_after == 1.0  # the policy leaves it as it is: judged once
    lost = outcome(table, "j", "flip", "strip", "i0", "echo", 1, stripped={stripped_id(alone_id("i0", "echo"))})
    assert lost.bad_after is None and lost.won is None


def test_what_the_server_failed_in_part_has_no_verdict():
    half = replace(judged("i0", 1.0, 0.0, method="pairwise"), statuses=["ok", "judge_error"])
    assert outcome({half.key: half}, "j", "pairwise", "report", "i0", "echo", 1).won_before is None
