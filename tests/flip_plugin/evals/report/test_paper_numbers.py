"""The paper's numbers: none without a source, none guessed, and the few that are known are what was found."""

from __future__ import annotations

from statistics import fmean

from flip_plugin.evals.report.input import paper


def test_a_number_has_a_source_and_a_missing_one_has_none():
    for figure in paper.all_figures():
        assert (figure.value is None) == (not figure.sources), figure.what
        assert figure.kind in ((None,) if figure.value is None else ("primary", "secondary"))
        assert figure.label() == "" or figure.value is not None
        assert figure.unit in ("share", "relative", "absolute")
        assert figure.value is None or figure.unit != "share" or 0 <= figure.value <= 1


def test_averages_of_rewardbench2_fit_the_gain_in_the_abstract():
    average = {f.method: f.value for f in paper.figures("rewardbench2", group="all", metric="accuracy_macro")}
    gains = [average["flip"] / average[name] - 1 for name in ("pointwise", "listwise", "pairwise")]
    gain = paper.figures("rewardbench2", group="all", metric="gain")[0]
    assert round(fmean(gains), 3) == gain.value == 0.796
    assert gain.kind == "primary" and gain.label() == "+79.6% (A, Q)"
    assert round(gains[0], 3) == paper.figures("rewardbench2", metric="gain_over_pointwise")[0].value


def test_secondary_numbers_are_marked_unknown_ones_empty():
    assert paper.figures("grpo_table", group="ifeval", method="flip")[0].label() == "81.3 (Q, secondary)"
    assert paper.figures("grpo_table", group="ifbench", method="flip")[0].label() == ""
    assert all(figure.value is None for figure in paper.figures("best_of_n"))


def test_claims_and_setup_name_their_sources():
    assert {claim.id for claim in paper.claims()} >= {"flip_beats_judges", "judge_size", "length", "robustness"}
    assert all(claim.sources for claim in paper.claims())
    assert all(letters for _, _, letters in paper.setup())
