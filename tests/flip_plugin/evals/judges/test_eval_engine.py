import json
import threading

import pytest
from judge_answers import answers

from flip_plugin.errors import CommandError
from flip_plugin.evals.judges import engine
from flip_plugin.evals.judges.engine import judge_items, report_failures
from flip_plugin.evals.records.items import METHODS
from flip_plugin.evals.records.journal import Journal, read_judgements
from flip_plugin.evals.stats.accuracy import accuracy_results


@pytest.fixture
def ask(options):
    """`judge_items` into one folder, as an evaluation calls it."""

    def run(items, *bases, methods=("flip",), seeds=(1,), **more):
        chosen = options(*bases, methods=methods, seeds=seeds, **more)
        return judge_items(items, chosen.judges, methods, seeds, chosen.output, chosen)

    return run


def test_judges_by_methods_by_seeds(ask, two_judges, items, tmp_path):
    for one in two_judges:
        one.handler = answers
    given = items(2)
    found = ask(given, *(one.base for one in two_judges), methods=METHODS, seeds=(1, 2))
    assert len(found) == 2 * 2 * 4 * 2
    order = [(j, m, i, s) for j in "ab" for s in (1, 2) for m in METHODS for i in "01"]
    assert [one.key for one in found] == order
    names = sorted(path.name for path in (tmp_path / "run" / "judgements").glob("*.jsonl"))
    assert names == sorted(f"{j}.{m}.{s}.jsonl" for j in "ab" for m in METHODS for s in (1, 2))
    # 3 responses: 3 flip, 3 pointwise, 1 listwise, 6 pairwise questions an item and run.
    for one in two_judges:
        assert len(one.requests) == 2 * 2 * (3 + 3 + 1 + 6)
        assert {body["seed"] for body in one.requests} == {1, 2}
        assert {body["temperature"] for body in one.requests} == {0.7}
    by_method = {one.method: one for one in found}
    assert by_method["flip"].scores == [6 / 7, 0.0, 0.0] and by_method["flip"].details[0]["target"] == "Say it well 1"
    assert by_method["pointwise"].scores == [0.9, 0.2, 0.2]
    assert by_method["listwise"].scores == [1.0, 0.0, 0.0] and len(by_method["listwise"].statuses) == 1
    assert by_method["pairwise"].scores == [1.0, 0.25, 0.25] and len(by_method["pairwise"].statuses) == 6
    assert by_method["pairwise"].extra["circles"] == 0


def test_what_is_on_disk_is_not_asked_again(ask, knowing, items):
    first = ask(items(4), knowing.base, methods=METHODS)
    asked = len(knowing.requests)
    assert ask(items(4), knowing.base, methods=METHODS) == first
    assert len(knowing.requests) == asked
    # A seed more asks for that one alone.
    assert len(ask(items(4), knowing.base, methods=METHODS, seeds=(1, 2))) == 2 * len(first)
    assert {body["seed"] for body in knowing.requests[asked:]} == {2}


def test_replies_of_a_half_judged_item_are_not_asked_again(ask, knowing, items, tmp_path):
    """As a kill leaves it: the replies are in the cache, the judgement is not on disk."""
    ask(items(2), knowing.base, methods=("pairwise",))
    file = tmp_path / "run" / "judgements" / "a.pairwise.1.jsonl"
    whole = file.read_bytes()
    first, second = whole.splitlines(keepends=True)
    file.write_bytes(first + second[: len(second) // 2])
    asked = len(knowing.requests)
    found = ask(items(2), knowing.base, methods=("pairwise",))
    assert len(knowing.requests) == asked
    assert [one.scores for one in found] == [[1.0, 0.25, 0.25]] * 2
    assert [json.loads(line)["id"] for line in file.read_bytes().splitlines()] == [
        json.loads(first)["id"],
        json.loads(second)["id"],
    ]


def test_a_line_that_is_no_judgement_is_named(ask, knowing, items, tmp_path):
    ask(items(2), knowing.base)
    file = tmp_path / "run" / "judgements" / "a.flip.1.jsonl"
    file.write_bytes(b'{"id": 1}\n' + file.read_bytes())
    with pytest.raises(CommandError, match=r"a.flip.1.jsonl: line 1 is no judgement"):
        ask(items(2), knowing.base)


def test_only_failed_judgements_are_asked_again(ask, knowing, items, capsys):
    good = knowing.handler
    knowing.handler = lambda body: (400, "the disk is full") if "bad one 1" in str(body) else good(body)
    found = ask(items(3), knowing.base)
    assert [one.statuses for one in found] == [["ok"] * 3, ["ok", "judge_error", "ok"], ["ok"] * 3]
    assert found[1].scores == [6 / 7, None, 0.0]
    assert report_failures(found, [judge_spec(found)]) == 1
    message = capsys.readouterr().err
    assert (
        "judge a: 1 judgements failed" in message and "the disk is full" in message and "same command again" in message
    )
    knowing.handler, asked = good, len(knowing.requests)
    again = ask(items(3), knowing.base)
    assert [one.statuses for one in again] == [["ok"] * 3] * 3
    assert len(knowing.requests) == asked + 1
    assert report_failures(again, [judge_spec(again)]) == 0


def judge_spec(found):
    from flip_plugin.evals.judges.spec import JudgeSpec

    return JudgeSpec(found[0].judge, "hosted_vllm/m")


def test_a_judge_that_is_away_is_given_up_alone(ask, two_judges, items, capsys):
    away, there = two_judges
    there.handler = answers
    away.handler = lambda body: (401, "no such key")
    given = items(40)
    found = ask(given, away.base, there.base)
    lost = [one for one in found if one.judge == "a"]
    assert engine.MAX_FAILURES_IN_A_ROW <= len(lost) < 40  # stopped early: what was under way may be on disk, too
    assert all(one.scores == [None] * 3 for one in lost)
    assert "no such key" in found.errors["a"]
    assert len([one for one in found if one.judge == "b"]) == 40
    assert "judge a is given up" in capsys.readouterr().err
    results = accuracy_results("e", given, found, judges=["a", "b"], methods=["flip"], seeds=[1])
    by_judge = {result.judge: result for result in results if (result.group, result.metric) == ("all", "accuracy")}
    assert by_judge["a"].value is None and by_judge["a"].invalid == 1 and "no such key" in by_judge["a"].note
    assert by_judge["b"].value == 1 and by_judge["b"].invalid == 0


def test_invalid_replies_are_scores_that_are_missing(ask, judge, items):
    judge.handler = lambda body: "I would rather not"
    # More than `MAX_FAILURES_IN_A_ROW`: an answer, though of no use.
    found = ask(items(22, responses=("good", "bad")), judge.base, methods=("pointwise", "listwise"))
    assert len(found) == 44
    assert {status for one in found for status in one.statuses} == {"unparsed"}
    assert all(score is None for one in found for score in one.scores)
    assert not found.errors


def test_a_listwise_choice_out_of_range_is_no_verdict(ask, judge, items):
    judge.handler = lambda body: '{"REASONING": "r", "BEST_RESPONSE_INDEX": 3}'
    (found,) = ask(items(1), judge.base, methods=("listwise",))
    assert found.scores == [None] * 3 and found.statuses == ["unparsed"]


def test_a_pairwise_circle_is_a_tie(ask, judge, items):
    """a beats b, b beats c, c beats a, in both orders: all won half, and the credit is a third."""
    beats = {"ab": "a", "ba": "a", "bc": "b", "cb": "b", "ca": "c", "ac": "c"}

    def answer(body):
        shown = [word[0] for word in body["messages"][1]["content"].split() if word in ("a-1", "b-2", "c-3")]
        return json.dumps({"REASONING": "r", "BETTER_RESPONSE": "AB"[shown.index(beats["".join(shown)])]})

    judge.handler = answer
    given = items(1, responses=("a-1", "b-2", "c-3"))
    (found,) = ask(given, judge.base, methods=("pairwise",))
    assert found.scores == [0.5] * 3
    assert found.extra["circles"] == 1 and found.extra["position_consistency"] == 1
    from flip_plugin.evals.stats.scoring import credit_of

    assert credit_of(found, [True, False, False]) == pytest.approx(1 / 3)


def test_calls_in_flight_are_bounded(ask, knowing, items):
    good = knowing.handler
    knowing.handler = lambda body: {"text": good(body), "delay": 0.01}
    ask(items(12), knowing.base, methods=("pairwise", "flip"), max_concurrency=3)
    assert knowing.most_open <= 3


def test_a_cache_is_shared_between_runs_and_keeps_seeds_apart(ask, knowing, items, tmp_path):
    shared = str(tmp_path / "shared")
    ask(items(2), knowing.base, cache=shared, seeds=(1, 2))
    assert len(knowing.requests) == 2 * 2 * 3
    for file in (tmp_path / "run" / "judgements").iterdir():
        file.unlink()
    ask(items(2), knowing.base, cache=shared, seeds=(1, 2))
    assert len(knowing.requests) == 2 * 2 * 3
    assert not (tmp_path / "run" / "replies").exists()


def test_one_writer_a_folder(ask, knowing, items, tmp_path):
    with Journal(tmp_path / "run"), pytest.raises(CommandError, match="another process is judging"):
        ask(items(1), knowing.base)
    assert len(ask(items(1), knowing.base)) == 1


def test_two_items_of_one_id_are_refused(ask, knowing, items):
    with pytest.raises(CommandError, match="2 items have 1 ids"):
        ask([*items(1), *items(1)], knowing.base)


def test_stopped_by_hand_it_goes_on(ask, knowing, items, tmp_path, monkeypatch):
    """Ctrl-C in the middle of calls: what is answered is kept, and nothing is asked twice."""
    good, seen = knowing.handler, threading.Event()

    def answer(body):
        if len(knowing.requests) > 10:
            seen.set()
        return {"text": good(body), "delay": 0.02}

    knowing.handler = answer
    keep = engine._Session.keep

    def stopping(self, judgement):
        keep(self, judgement)
        if seen.is_set():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine._Session, "keep", stopping)
        with pytest.raises(KeyboardInterrupt):
            ask(items(12), knowing.base, max_concurrency=2)
    kept = {one.id for one in read_judgements(tmp_path / "run")}
    assert 0 < len(kept) < 12
    before = len(knowing.requests)
    assert len(ask(items(12), knowing.base)) == 12
    asked_again = [str(body["messages"]) for body in knowing.requests[before:]]
    assert not any(f"good {i}\n" in one for i in kept for one in asked_again)
    assert len(read_judgements(tmp_path / "run")) == 12
