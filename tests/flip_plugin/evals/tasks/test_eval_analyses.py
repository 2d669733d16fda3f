"""Length, similarity and agreement, over judgements whose figures are worked out by hand; no judge is asked."""

import json
from typing import Any

import pytest
from run_results import load_results

from flip_plugin.cli import main
from flip_plugin.errors import CommandError
from flip_plugin.evals.records.items import EvalItem, Judgement
from flip_plugin.evals.records.saved import judged_items, names_of, read_run
from flip_plugin.evals.tasks.agreement import agreement_results, kendall, same_pick, shared_scores, spearman
from flip_plugin.evals.tasks.length import LENGTHS, bucket_names, counter, length_results, quantile_edges
from flip_plugin.evals.tasks.similarity import rescored, similarity_results
from flip_plugin.text.similarity import get_similarity

RIGHT = [True, False]


def judged(id, *scores, judge="j", method="flip", seed=1, details=None):
    statuses = ["ok" if score is not None else "unparsed" for score in scores]
    return Judgement(id, judge, method, seed, scores, statuses, details or [{} for _ in scores])


def result_of(results, metric, group, **fields):
    (found,) = [
        one
        for one in results
        if (one.metric, one.group) == (metric, group)
        and all(getattr(one, key) == value for key, value in fields.items())
    ]
    return found


# --- length


def test_a_length_that_is_an_edge_opens_its_bucket():
    items = [EvalItem(f"i{size}", "p", ["w " * size] * 2, RIGHT) for size in (1, 3, 4, 9)]
    judgements = [judged("i1", 0.9, 0.1), judged("i3", 0.1, 0.9), judged("i4", 0.9, 0.1), judged("i9", 0.5, 0.5)]
    lengths = {item.id: LENGTHS["mean"](item, counter("words")) for item in items}
    results = length_results(items, judgements, lengths, [4])
    assert bucket_names([4]) == ["0-3", "4+"]
    assert [result_of(results, "accuracy", group).value for group in ("0-3", "4+", "all")] == [0.5, 0.75, 0.625]
    assert [result_of(results, "accuracy", group).n for group in ("0-3", "4+")] == [2, 2]


def test_lengths_of_an_item():
    item = EvalItem("i", "p", ["one two three", "one"], [False, True])
    assert [LENGTHS[name](item, counter("words")) for name in ("mean", "right", "longest")] == [2, 1, 3]
    assert LENGTHS["right"](EvalItem("i", "p", ["one two", ""]), counter("words")) == 1


def test_length_buckets_are_even_and_never_empty():
    assert quantile_edges([10, 20, 30, 40], 2) == [30]
    assert quantile_edges([1.5, 2.5, 3.5, 4.5], 2) == [4]
    assert quantile_edges([5, 5, 5, 5], 4) == []
    assert quantile_edges([5, 5, 5, 9], 4) == [9]
    with pytest.raises(CommandError, match="at least 1"):
        quantile_edges([1], 0)


def test_tokens_are_counted_by_a_local_tokenizer():
    folder = "datasets_prep/tiny_world/models/judge"
    assert counter(folder)("Dear friend, the swarm danced over clover.") > 5
    with pytest.raises(CommandError, match="cannot be loaded"):
        counter("no/such/folder/anywhere")


# --- similarity

TARGET = "Write a poem about bees"
ORDER = "bees about poem write"  # the same words: F1 is 1; in order, one of five or four: rouge_l is 2 x 1 / (4 + 5)


def flip(id, *inferred, echo=0.0, scores=None):
    details = [{"inferred_instruction": text, "target": TARGET, "echo": echo} for text in inferred]
    return judged(id, *(scores or [0.5 for _ in inferred]), details=details)


def test_rescoring_takes_the_recorded_inference():
    one = rescored(flip("i", ORDER, TARGET), get_similarity("f1"))
    assert one.scores == [1.0, 1.0]
    assert rescored(flip("i", ORDER, TARGET), get_similarity("rouge_l")).scores == [pytest.approx(2 / 9), 1.0]


def test_rescoring_keeps_missing_scores_and_stripped_zeros():
    nothing = judged("i", None, 0.0, details=[{}, {"inferred_instruction": "", "target": TARGET}])
    assert rescored(nothing, get_similarity("f1")).scores == [None, 0.0]


def test_rescoring_penalises_as_the_run_did():
    assert rescored(flip("i", TARGET, echo=0.75), get_similarity("f1"), echo="penalise").scores == [0.25]
    assert rescored(flip("i", TARGET, echo=0.75), get_similarity("f1")).scores == [1.0]


def test_a_similarity_is_a_row():
    items = [EvalItem("a", TARGET, ["x", "y"], RIGHT), EvalItem("b", TARGET, ["x", "y"], RIGHT)]
    flips = [flip("a", TARGET, ORDER), flip("b", ORDER, TARGET)]
    similarities = {name: get_similarity(name) for name in ("f1", "rouge_l")}
    results = similarity_results(items, flips, similarities)
    # f1 sees ties (half a credit each), rouge_l one right and one wrong
    assert result_of(results, "accuracy", "all", method="flip+f1").runs == [0.5]
    assert result_of(results, "accuracy", "all", method="flip+f1").low == 0.5
    assert result_of(results, "accuracy", "all", method="flip+rouge_l").value == 0.5
    assert result_of(results, "accuracy", "all", method="flip+rouge_l").low == 0.0


# --- agreement


def test_correlations_with_ties_by_hand():
    # Pairs of [1, 2, 2, 3] and [1, 3, 2, 3]: 4 concordant, 0 discordant, one tie in each: 4 / sqrt(5 x 5)
    assert kendall([1, 2, 2, 3], [1, 3, 2, 3]) == pytest.approx(4 / 5)
    # Ranks 1, 2.5, 2.5, 4 and 1, 3.5, 2, 3.5: covariance 3.75 over variances 4.5
    assert spearman([1, 2, 2, 3], [1, 3, 2, 3]) == pytest.approx(3.75 / 4.5)
    assert kendall([1, 2, 3], [3, 2, 1]) == pytest.approx(-1) and spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    for measure in (kendall, spearman):
        assert measure([1, 1], [1, 2]) is None and measure([1], [2]) is None and measure([], []) is None


def test_the_same_pick_with_ties_drawn():
    assert same_pick(judged("i", 0.9, 0.1), judged("i", 0.7, 0.6)) == 1.0
    assert same_pick(judged("i", 0.9, 0.1), judged("i", 0.1, 0.6)) == 0.0
    assert same_pick(judged("i", 0.5, 0.5, 0.1), judged("i", 0.5, 0.1, 0.5)) == 0.25
    assert same_pick(judged("i", None, None), judged("i", 0.5, 0.1)) is None


def test_only_shared_scores_count():
    assert shared_scores(judged("i", 0.1, None, 0.3), judged("i", None, 0.2, 0.4)) == [(0.3, 0.4)]
    with pytest.raises(ValueError, match="3 responses for j, 2 for j"):
        shared_scores(judged("i", 0.1, 0.1, 0.3), judged("i", 0.2, 0.4))


def test_agreement_between_runs_and_between_judges():
    judgements = [
        judged("a", 0.1, 0.2, 0.3, seed=1),
        judged("b", 0.7, 0.8, 0.9, seed=1),
        judged("a", 0.3, 0.2, 0.1, seed=2),  # turned around
        judged("b", 0.7, 0.8, None, seed=2),  # two alike, one missing
        judged("a", 0.2, 0.4, 0.6, judge="k", seed=1),
        judged("b", 0.5, 0.5, 0.5, judge="k", seed=1),  # constant: nothing to correlate inside
    ]
    results = agreement_results(judgements, resamples=20)
    runs = {"judge": "j", "group": "runs"}
    assert result_of(results, "kendall_within", **runs).value == pytest.approx(0.0)  # -1 and 1
    assert result_of(results, "kendall_within", **runs).n == 2
    assert result_of(results, "spearman_within", **runs).value == pytest.approx(0.0)
    assert result_of(results, "same_pick", **runs).value == 0.0  # third against first, third against second
    # (.1 .2 .3 .7 .8) against (.3 .2 .1 .7 .8): 3 of 10 pairs discordant
    assert result_of(results, "kendall", **runs).value == pytest.approx(0.4)
    assert result_of(results, "spearman", **runs).value == pytest.approx(1 - 6 * 8 / (5 * 24))
    assert result_of(results, "kendall", **runs).invalid == pytest.approx(1 / 12)
    assert result_of(results, "kendall", **runs).low is not None

    both = {"judge": "j~k", "group": "judges"}
    assert result_of(results, "kendall_within", **both).value == pytest.approx(1.0)
    assert result_of(results, "kendall_within", **both).n == 1
    assert result_of(results, "same_pick", **both).value == pytest.approx((1 + 1 / 3) / 2)
    assert not [one for one in results if one.judge == "k"]  # a single run


def test_no_draws_no_interval():
    judgements = [judged("a", 0.1, 0.2, seed=seed) for seed in (1, 2)]
    result = result_of(agreement_results(judgements, resamples=0), "kendall", "runs")
    assert result.value == pytest.approx(1.0) and result.low is None


# --- the commands, over run folders


def run_folder(path, judgements, items):
    (path / "judgements").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"evaluation": "rewardbench2", "settings": {"echo": "report"}}))
    (path / "items.jsonl").write_text("".join(json.dumps(item.to_dict()) + "\n" for item in items))
    for one in judgements:
        with (path / "judgements" / f"{one.judge}.{one.method}.{one.seed}.jsonl").open("a") as file:
            file.write(json.dumps(one.to_dict()) + "\n")
    return path


@pytest.fixture
def finished(tmp_path):
    items = [
        EvalItem("a", TARGET, ["one two", "one"], RIGHT, "Focus"),
        EvalItem("b", TARGET, ["w " * 9, "v " * 9], RIGHT, "Math"),
    ]
    flips = [flip("a", TARGET, "no"), flip("b", ORDER, "no", scores=[0.5, 0.6])]
    again: list[dict[str, Any]] = [one.to_dict() | {"seed": 2} for one in flips]
    more = [Judgement(**fields) for fields in again]
    return run_folder(tmp_path / "done", [*flips, *more], items)


def test_length_reads_a_finished_run(finished, tmp_path, capsys):
    out = tmp_path / "length"
    assert main(["eval", "length", "--run", str(finished), "--edges", "5", "--output", str(out)]) == 0
    results = load_results(out)["cells"]
    assert [result_of(results, "accuracy", group).value for group in ("0-4", "5+", "all")] == [0.5, 0.0, 0.25]
    assert "words" in capsys.readouterr().out


def test_judges_and_methods_keep_the_run_s_order(tmp_path):
    items = [EvalItem("a", TARGET, ["one two", "one"], RIGHT, "Focus")]
    given = [
        judged("a", 1, 0, judge=judge, method=method) for judge in "ab" for method in ("listwise", "flip", "pointwise")
    ]
    run = run_folder(tmp_path / "run", given, items)
    config = {"evaluation": "rewardbench2", "judges": [{"name": "b"}], "methods": ["pointwise", "flip"]}
    (run / "config.json").write_text(json.dumps(config))
    judges, methods, _ = names_of(read_run(run)[1])
    # What the configuration does not name comes last.
    assert (judges, methods) == (["b", "a"], ["pointwise", "flip", "listwise"])


def test_length_wants_a_run_or_judges(tmp_path, capsys):
    assert main(["eval", "length", "--output", str(tmp_path / "x")]) == 2
    assert "--run RUN_DIR, or --judges" in capsys.readouterr().err


def test_similarity_scores_a_finished_run_anew(finished, tmp_path):
    out = tmp_path / "similarity"
    assert main(["eval", "similarity", str(finished), "--output", str(out)]) == 0
    results = load_results(out)["cells"]
    assert {one.method for one in results} == {"flip+f1", "flip+unicode_f1", "flip+rouge_l"}
    assert result_of(results, "accuracy", "Math", method="flip+f1").value == 1.0  # the run's own score had it wrong


def test_similarity_wants_flip_judgements(tmp_path, capsys):
    run = run_folder(
        tmp_path / "done", [judged("a", 1.0, 0.0, method="listwise")], [EvalItem("a", "p", ["x", "y"], RIGHT)]
    )
    assert main(["eval", "similarity", str(run), "--output", str(tmp_path / "x")]) == 2
    assert "no FLIP judgements" in capsys.readouterr().err


def test_agreement_reads_finished_runs(finished, tmp_path, capsys):
    out = tmp_path / "agreement"
    assert main(["eval", "agreement", str(finished), "--output", str(out), "--resamples", "5"]) == 0
    # item a is a tie in both runs: drawn, they agree half the time
    assert result_of(load_results(out)["cells"], "same_pick", "runs").value == 0.75
    assert main(["eval", "agreement", str(finished), str(finished), "--output", str(tmp_path / "y")]) == 2
    assert "in an earlier run, too" in capsys.readouterr().err


def test_runs_over_other_items_are_not_compared(finished, tmp_path, capsys):
    items = [EvalItem("a", TARGET, ["another", "one"], RIGHT)]
    other = run_folder(tmp_path / "other", [judged("a", 0.1, 0.2, judge="k")], items)
    assert main(["eval", "agreement", str(finished), str(other), "--output", str(tmp_path / "z")]) == 2
    assert "is another one than in the runs before it" in capsys.readouterr().err


def test_one_run_of_one_judge_is_nothing_to_compare(tmp_path, capsys):
    run = run_folder(tmp_path / "done", [judged("a", 1.0, 0.0)], [EvalItem("a", "p", ["x", "y"], RIGHT)])
    assert main(["eval", "agreement", str(run), "--output", str(tmp_path / "x")]) == 2
    assert "nothing to compare" in capsys.readouterr().err


def test_ties_and_items_without_an_answer_are_left_out():
    both, right = ["x", "y"], [True, False]
    items = [EvalItem("a", "p", both, right, "Ties"), EvalItem("b", "p", both), EvalItem("c", "p", both, right)]
    items += [EvalItem("d", "p", ["x"], [False]), EvalItem("e", "p", both, right, meta={"attack": "echo"})]
    assert [one.id for one in judged_items(items, [judged(name, 0.5) for name in "abcde"])] == ["c"]
    with pytest.raises(CommandError, match="no judged item"):
        judged_items(items[:2], [judged("b", 0.5)])
