"""The report's files and claims, from run folders of every evaluation; nothing in a text breaks out of them."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sample_runs import HOSTILE, JUDGES, near, write_runs

from flip_plugin.errors import CommandError
from flip_plugin.evals.records.items import Result
from flip_plugin.evals.report import FILES, write_report
from flip_plugin.evals.report.claims.claims import check_claims
from flip_plugin.evals.report.claims.verdicts import Part, difference, higher, over_runs, overall
from flip_plugin.evals.report.input.runs import EvalRun, ReportRuns, read_runs
from flip_plugin.evals.report.input.sizes import in_name, parse_sizes, sizes_of
from flip_plugin.evals.report.output.charts import best_of_n_curves
from flip_plugin.evals.report.output.inspection import KINDS, kind_of
from flip_plugin.evals.report.output.sections import sections


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_runs(folder)
    return folder


@pytest.fixture(scope="module")
def report(runs: Path, tmp_path_factory) -> Path:
    return write_report([runs], tmp_path_factory.mktemp("out") / "report").parent


class Page(HTMLParser):
    """What is in a page: its elements and the data in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.data = ""
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._in_data = ("id", "data") in attrs
        assert not [name for name, value in attrs if name in ("src", "style") or name.startswith("on")]

    def handle_data(self, data):
        if self._in_data:
            self.data, self._in_data = data, False


def test_all_files_are_written_and_every_evaluation_is_in_them(report):
    assert sorted(path.name for path in report.iterdir()) == sorted(FILES)
    text = (report / "report.md").read_text()
    for title in ("RewardBench 2", "Best of N", "Robustness", "Accuracy by length", "Similarity", "Agreement", "GRPO"):
        assert f"## {title}" in text
    assert "flip eval rewardbench2 --data rows.jsonl" in text and "3f2a3f2a" in text and "vllm" in text
    rows = list(csv.DictReader((report / "cells.csv").open()))
    result = next(
        row
        for row in rows
        if (row["evaluation"], row["method"], row["group"], row["metric"], row["judge"])
        == ("rewardbench2", "flip", "all", "accuracy_macro", "small")
    )
    assert result["paper_value"] == "0.345" and result["paper_kind"] == "secondary" and result["low"] < result["value"]
    assert {row["evaluation"] for row in rows} >= {"training", "grpo_table", "agreement"}
    data = json.loads((report / "report.json").read_text())
    assert len(data["runs"]) == 7 and len(data["training"]) == 4 and data["sizes"] == JUDGES


def test_numbers_have_interval_and_invalid_share_beside(report):
    lines = (report / "report.md").read_text().split("## RewardBench 2")[1].splitlines()
    row = next(line for line in lines if line.startswith("| small | flip |"))
    places = [place.strip() for place in row.strip("|").split("|")][2:]
    assert len(places) == 6
    for place in places:
        assert re.fullmatch(r"\d+\.\d \(\\\[\d+\.\d, \d+\.\d\\\], \d+\.\d% invalid\)", place)
    paper = next(line for line in lines if "paper: mean of 13" in line and "flip" in line)
    assert "34.5 (Q, secondary)" in paper and "not found" in paper


def test_hostile_text_stays_text_in_the_page(report):
    text = (report / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("script") == 2 and "img" not in page.tags
    assert text.count("</script>") == 2 and "\u2028" not in text and "{{" not in text.replace(page.data, "")
    items = json.loads(page.data)["items"]["rows"]
    shown = [response for item in items for response in item["responses"] if "onerror" in response]
    expected = HOSTILE
    for hidden in "\u2028\u2029\ud800\u202e":
        expected = expected.replace(hidden, f"⟨U+{ord(hidden):04X}⟩")
    assert shown and shown[0] == expected


def test_the_page_runs_its_own_script_alone(report):
    text = (report / "report.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy and "default-src 'none'" in policy[1] and "unsafe" not in policy[1]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text.split('id="data"')[0] + text.split("</script>")[1])


def test_hostile_names_stay_text_in_markdown_and_csv(tmp_path):
    name = "x | </td><script>\n# head `=1+1"
    result = near(
        __import__("random").Random(0), 0.5, evaluation="odd", judge="=cmd()", method=name, group="g|h", metric="m"
    )
    folder = tmp_path / "odd"
    folder.mkdir()
    config = {"evaluation": "odd", "command": "flip ```\n# x", "judges": []}
    (folder / "results.json").write_text(json.dumps({"cells": [result.to_dict()], "rules": [], "config": config}))
    out = write_report([folder], tmp_path / "out").parent
    text = (out / "report.md").read_text()
    assert "<script>" not in text and "\n# x" not in text and "\n# head" not in text and "| x \\| \\<" in text
    row = next(csv.DictReader((out / "cells.csv").open()))
    assert row["judge"] == "'=cmd()" and row["method"] == name


def test_logins_in_addresses_are_hidden_everywhere(report):
    for name in FILES:
        text = (report / name).read_text()
        assert "me:pw" not in text, name
    assert "(hidden)@127.0.0.1" in (report / "report.json").read_text()


def test_folders_are_found_below_and_unfinished_ones_are_named(runs, tmp_path):
    (tmp_path / "later" / "judgements").mkdir(parents=True)
    (tmp_path / "later" / "config.json").write_text("{}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.json").write_text("{")
    found = read_runs([runs, tmp_path])
    assert len(found.evals) == 7 and len(found.training) == 4
    assert len(found.notes) == 2 and "later: no results.json yet" in found.notes[1] + found.notes[0]
    with pytest.raises(CommandError, match="no such folder"):
        read_runs([tmp_path / "nothing"])
    with pytest.raises(CommandError, match="no finished run"):
        read_runs([tmp_path / "later"])


def test_two_runs_of_one_name_have_their_folders_behind(runs, tmp_path):
    write_runs(tmp_path / "again", seed=2, items=8)
    found = read_runs([runs / "length", tmp_path / "again" / "length"])
    assert [run.name.split("/")[-1] for run in found.evals] == ["length", "length"]
    assert len({run.name for run in found.evals}) == 2
    titles = [section.title for section in sections(found, {})]
    assert len(set(titles)) == 2


def test_verdicts_follow_the_intervals(runs):
    found = read_runs([runs])
    claims = {claim.id: claim for claim in check_claims(found, JUDGES)}
    beats = {part.label: part.verdict for part in claims["flip_beats_judges"].parts}
    assert beats["small: FLIP over pointwise"] == "holds" and beats["large: FLIP over pairwise"] == "not shown"
    assert claims["flip_beats_judges"].verdict == "in part"
    assert claims["length"].verdict == "holds" and len(claims["length"].parts) == 3
    robust = {part.label: part for part in claims["robustness"].parts}
    assert robust["small, verbatim_echo: flip is fooled less often"].verdict == "does not hold"
    padding = robust["small, padding: flip is fooled less often"]
    assert padding.verdict == "holds" and "(by the attack " in padding.figures
    assert not robust["small, padding: flip+strip is fooled less often"].counts
    assert claims["best_of_n"].parts[0].label.startswith("best_of_n, prompt_level_strict_acc, small, N=16: FLIP over")
    assert claims["grpo"].verdict == "holds" and "2/2 runs" in claims["grpo"].parts[-1].label
    assert claims["judge_size"].verdict == "in part"
    assert [claim.verdict for claim in check_claims(ReportRuns(), {})] == ["no data"] * 6


def result(value: float | None, half: float | None = 0.05) -> Result:
    if value is None or half is None:
        return Result("e", "j", "m", "all", "accuracy", value)
    return Result("e", "j", "m", "all", "accuracy", value, value - half, value + half)


def test_nothing_is_shown_without_interval_or_value():
    assert higher(result(0.9, None), result(0.1)) == "not shown"
    assert higher(result(None), result(0.1)) == "no data" and higher(None, result(0.1)) == "no data"
    assert higher(result(0.5), result(0.39)) == "holds" and higher(result(0.5), result(0.41)) == "not shown"


def test_the_word_for_several_parts():
    def word(*verdicts):
        return overall([Part("", verdict, "") for verdict in verdicts])

    assert word("holds", "holds", "no data") == "holds"
    assert word("holds", "does not hold") == "in part"
    assert word("not shown", "does not hold") == "does not hold"
    assert word("not shown") == "not shown" and word("no data") == word() == "no data"
    assert overall([Part("", "holds", ""), Part("", "does not hold", "", counts=False)]) == "holds"


def test_a_difference_adds_the_squares_of_the_half_widths():
    found = difference(result(0.6, 0.03), [result(0.2, 0.08), result(0.4, 0.0)])
    assert found is not None and found.value == pytest.approx(0.3)
    assert found.high - found.value == pytest.approx(0.05)  # sqrt(0.03**2 + (0.08 / 2)**2)
    assert difference(result(0.6), [result(None)]) is None
    assert difference(result(0.6), [result(0.2, None)]).low is None


def test_runs_give_an_interval_from_two_on():
    assert over_runs([0.5], "flip", "x").low is None
    two = over_runs([0.5, 0.6], "flip", "x")
    assert two.value == pytest.approx(0.55) and two.high - two.value == pytest.approx(12.7062047 * 0.05)


def test_best_of_n_curves_have_oracle_and_random(runs):
    run = next(run for run in read_runs([runs]).evals if run.evaluation == "best_of_n")
    made = best_of_n_curves(run)
    assert len(made) == 6  # two metrics, three judges
    for one in made:
        names = {series["name"]: series for series in one["series"]}
        assert set(names) == {"flip", "pointwise", "listwise", "pairwise", "oracle", "random"}
        assert names["oracle"]["dashed"] and [p["x"] for p in names["flip"]["points"]] == [1, 2, 4, 8, 16]


def test_items_are_sorted_by_what_happened():
    item = {"id": "1", "responses": ["a", "b"], "right": [True, False]}

    def judged(method, scores):
        return {"id": "1", "judge": "j", "method": method, "seed": 1, "scores": scores}

    assert kind_of(item, [judged("flip", [0.9, 0.1]), judged("pointwise", [0.1, 0.9])]) == "only FLIP right"
    assert kind_of(item, [judged("flip", [0.1, 0.9]), judged("pointwise", [0.9, 0.1])]) == "only judges right"
    assert kind_of(item, [judged("flip", [0.9, 0.1]), judged("pointwise", [None, None])]) == "no verdict"
    assert kind_of(item, [judged("flip", [0.9, 0.1]), judged("pointwise", [0.9, 0.1])]) == "all right"
    assert kind_of(item | {"right": None}, [judged("flip", [1, 0])]) == "no right answer known"
    assert len(set(KINDS)) == len(KINDS)


def test_the_number_of_items_in_the_page_is_bounded(runs, tmp_path):
    page = write_report([runs], tmp_path, max_items=5)
    assert len(json.loads(Page(page.read_text()).data)["items"]["rows"]) == 5
    long = [text for item in json.loads(Page(page.read_text()).data)["items"]["rows"] for text in item["responses"]]
    assert max(map(len, long)) < 3000


def test_sizes_come_from_the_user_then_from_names(runs):
    run = EvalRun("r", runs, "x", [], [], {"judges": [{"name": "a", "model": "hosted_vllm/Qwen/Qwen3-1.7B"}]})
    assert sizes_of([run], {}) == {"a": 1.7e9} and sizes_of([run], {"a": 2.0}) == {"a": 2.0}
    assert in_name("gemma-3-270m-it") == 270e6 and in_name("Olmo-3-7B-Think") == 7e9
    with pytest.raises(CommandError, match="--sizes"):
        parse_sizes(["small"])


def test_sizes_of_local_models_are_counted_from_their_files():
    models = Path(__file__).parents[4] / "datasets_prep" / "tiny_world" / "models"
    run = EvalRun(
        "r", models, "x", [], [], {"judges": [{"name": "j", "model": str(models / "judge"), "offline": True}]}
    )
    assert sizes_of([run], {})["j"] == pytest.approx(1.05e6, rel=0.02)


def test_a_run_that_is_not_known_here_gets_a_table_a_metric(tmp_path):
    results = [result(0.5), Result("new", "j", "flip", "g", "latency_score", 2.5)]
    made = sections(ReportRuns(evals=[EvalRun("new", tmp_path, "new", results)]), {})
    assert [table.title for table in made[0].tables] == ["Accuracy", "Latency score"]
