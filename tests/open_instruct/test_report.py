"""The report: one safe file from whatever a run left on disk."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from flip_plugin.metrics import f1_score, normalize_answer
from open_instruct.report import reading, rollouts, write_comparison, write_report
from open_instruct.report.__main__ import main
from open_instruct.report.charts import build_charts
from open_instruct.report.rollouts import Place, choose_evenly, choose_groups
from open_instruct.report.text import MAX_CHARS, mark_echo, mark_shared, visible

HOSTILE = [
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>",
    "<!--<script>",
    "]]> &lt; &amp; {{DATA}} {{TITLE}} \\u003c \\1",
    "nul \x00 escape \x1b[31m turn \u202e lone \ud800 lines \u2028 \x85",
]


class Page(HTMLParser):
    """The elements of a page as a browser would find them, and the text of each script and style."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag in ("script", "style", "title"):
            self.raw.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style", "title"):
            tag, text = self.raw[-1]
            self.raw[-1] = (tag, text + data)

    def only(self, tag: str) -> list[str]:
        return [text for name, text in self.raw if name == tag]


def rollout(**fields: Any) -> dict[str, Any]:
    return {
        "training_step": 1,
        "split": "train",
        "prompt_index": 0,
        "sample_index": 0,
        "messages": [{"role": "user", "content": "Name a red fruit."}],
        "response": "Cherry.",
        "ground_truth": "Name a red fruit.",
        "dataset": ["general-flip"],
        "score": 0.8,
        "status": "ok",
        "inferred_instruction": "Name the fruit",
        "reasoning": "It is one.",
        "echo": 0.1,
        "reported": {"constraints_satisfied": 0.5},
        **fields,
    }


def write_run(folder: Path, *, metrics: Sequence[dict] = (), rollouts: Sequence[dict] = (), config: Any = None) -> Path:
    (folder / "rollouts").mkdir(parents=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    (folder / "rollouts" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rollouts))
    return folder


def page_of(folder: Path) -> tuple[Page, dict[str, Any]]:
    """The written page, and the data in it."""
    page = Page(write_report(folder).read_bytes().decode("utf-8"))
    return page, json.loads(page.only("script")[0])


def test_page_is_self_contained_and_its_policy_fits(tmp_path):
    page, _ = page_of(write_run(tmp_path / "run", rollouts=[rollout()]))
    assert [attrs.get("type") for tag, attrs in page.elements if tag == "script"] == ["application/json", None]
    for _, attrs in page.elements:
        assert not {"src", "srcset", "style", "action"} & attrs.keys()
        assert (attrs.get("href") or "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attrs)
    (policy,) = [attrs["content"] for _, attrs in page.elements if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy and policy.startswith("default-src 'none';")
    for text in (page.only("script")[1], page.only("style")[0]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "@import" not in page.only("style")[0] and "url(" not in page.only("style")[0]


def test_hostile_text_stays_text_everywhere(tmp_path):
    rows = [
        rollout(
            messages=[{"role": text, "content": text}],
            response=text,
            ground_truth=text,
            inferred_instruction=text,
            reasoning=text,
            error=text,
            status=text,
            split=text,
            dataset=[text],
            finish_reason=text,
            reported={text: 1},
            sample_index=i,
        )
        for i, text in enumerate(HOSTILE)
    ]
    metrics = [{"training_step": 1, text: 1.0, f"objective/{text}_reward": 1.0} for text in HOSTILE]
    config = {"run_name": HOSTILE[0] + HOSTILE[3], HOSTILE[0]: HOSTILE}
    page, data = page_of(write_run(tmp_path / "run", rollouts=rows, metrics=metrics, config=config))
    assert sum(tag == "script" for tag, _ in page.elements) == 2
    assert not any(tag == "img" for tag, _ in page.elements)
    assert not re.search("[<>&]", page.only("script")[0])
    assert page.only("title") == [f"{visible(HOSTILE[0] + HOSTILE[3])} · run report"]
    samples = data["rollouts"]["samples"]
    assert ["".join(s["response"]["pieces"]) for s in samples] == [visible(text) for text in HOSTILE]
    assert "".join(samples[2]["response"]["pieces"]) == HOSTILE[2]  # a placeholder in it is not filled
    everything = json.dumps(data, ensure_ascii=False)
    assert not re.search("[\x00-\x08\x0e-\x1f\u202e\ud800-\udfff]|\\\\u00[01]", everything)


def test_long_text_is_cut_and_says_by_how_much(tmp_path):
    million = "word " * 200_000
    row = rollout(response="text " * 200_000, reasoning=million, inferred_instruction=million, ground_truth="a word")
    folder = write_run(tmp_path / "run", rollouts=[row])
    _, data = page_of(folder)
    (sample,) = data["rollouts"]["samples"]
    assert sample["response"] == {"pieces": [("text " * MAX_CHARS)[:MAX_CHARS]], "left_out": 1_000_000 - MAX_CHARS}
    assert sample["overlap"]["inferred"]["left_out"] == 1_000_000 - MAX_CHARS
    assert sample["overlap"]["counts"] == [1, 1, 200_000]  # counted over all of it
    assert (folder / "report.html").stat().st_size < 200_000


def test_rollouts_are_limited_evenly_in_whole_groups_and_prompts_held_once(tmp_path, monkeypatch):
    monkeypatch.setattr(rollouts, "MAX_SAMPLES", 24)
    rows = [
        rollout(training_step=1 + i // 32, prompt_index=i // 4, sample_index=i % 4, score=None if i == 13 else 0.5)
        for i in range(96)
    ]
    _, data = page_of(write_run(tmp_path / "run", rollouts=rows))
    samples = data["rollouts"]["samples"]
    assert [sum(s["step"] == step for s in samples) for step in (1, 2, 3)] == [8, 8, 8]
    assert 13 // 4 in {s["group"] for s in samples}, "a group with a missing score is always there"
    for place in {s["place"] for s in samples}:
        assert [s["sample"] for s in samples if s["place"] == place] == [0, 1, 2, 3]
    assert data["rollouts"]["total"] == 96 and len(data["rollouts"]["prompts"]) == 1
    summary = data["runs"][0]["summary"]
    assert (summary["samples"], summary["missing"]) == (96, 1)


def test_the_same_prompt_drawn_twice_in_a_step_is_two_groups(tmp_path):
    rows = [rollout(sample_index=i) for i in (0, 1, 0, 1)]
    _, data = page_of(write_run(tmp_path / "run", rollouts=rows))
    assert [s["place"] for s in data["rollouts"]["samples"]] == [0, 0, 1, 1]


@pytest.mark.parametrize("limit", [10, 100, 999, 5000])
def test_choose_groups_takes_whole_groups_near_the_limit(limit):
    places, group = [], 0
    for step in range(30):
        for split, size, count in (("train", 8, 4), ("eval", 1, 10 * (step % 10 == 0))):
            for _ in range(count):
                places += [Place((step, split), group, group == 77)] * size
                group += 1
    chosen = choose_groups(places, limit)
    assert len(chosen) == len(places) if limit >= len(places) else len(chosen) <= limit + 8
    assert len(chosen) >= min(limit, len(places)) - 16
    for number in {places[i].group for i in chosen}:
        assert all(i in chosen for i, place in enumerate(places) if place.group == number)
    if limit >= 40:  # a fifth of the page holds the failed group
        assert any(places[i].missing for i in chosen)


@pytest.mark.parametrize("limit", [1, 5, 10, 37, 1000])
def test_choose_evenly_fills_the_limit_and_shares_it(limit):
    sizes = {"a": 3, "b": 50, "c": 20, "d": 1}
    keys = [key for key, size in sizes.items() for _ in range(size)]
    chosen = choose_evenly(keys, limit)
    assert len(chosen) == min(limit, len(keys))
    counts = {key: sum(keys[i] == key for i in chosen) for key in sizes}
    short = [key for key in sizes if counts[key] < sizes[key]]
    # Whoever did not get all gets as many as the best served, but for one.
    assert all(counts[key] >= max(counts.values()) - 1 for key in short)


@pytest.mark.parametrize(
    ("real", "inferred"),
    [
        ("Write a short poem about the sea.", "write the poem, about a SEA"),
        ("the the cat cat", "cat the dog"),
        ("“the sea” — a's-b don't", "sea “” dont as b"),
        ("  two\n\nlines\tand\u00a0more ", "lines two\x1cmore"),
        ("", "anything"),
        ("İstanbul ΣΑΣ", "i̇stanbul σας"),
        ("!!! ??? the", "... a"),
    ],
)
def test_marks_are_the_words_that_the_reward_counts(real, inferred):
    marked = mark_shared(real, inferred)
    shared, n_real, n_inferred = marked["counts"]
    expected = f1_score(inferred, real)
    assert (shared / n_inferred if n_inferred else 0) == pytest.approx(expected["precision"])
    assert (shared / n_real if n_real else 0) == pytest.approx(expected["recall"])
    for side, text in (("real", real), ("inferred", inferred)):
        pieces = marked[side]["pieces"]
        assert "".join(pieces) == visible(text)
        words = " ".join(pieces[1::2]).replace(visible("\x1c"), " ")
        assert len(normalize_answer(words).split()) == shared
        assert all(piece == piece.strip() for piece in pieces[1::2])


def test_what_a_response_repeats_is_marked():
    target = "Write a short poem about the old sea."
    marked = mark_echo(target, 'You asked: "Write a short poem about the old sea." Waves write a short tale.')
    assert marked["pieces"][1::2] == ['"Write a short poem about the old sea."']
    assert mark_echo("", "anything at all")["pieces"] == ["anything at all"]


ROWS = [
    {"training_step": 1, "episode": 8, "objective/scores": 0.1, "objective/general-flip_reward": 0.1},
    {
        "training_step": 2,
        "objective/scores": 0.25,
        "objective/general-flip_reward": 0.25,
        "eval/general-flip_reward": 0.5,
        "objective/constraints_satisfied": None,
        "eval/constraints_satisfied": 0.75,
        "val/ratio": float("nan"),
        "mine/new": 3,
        "eval/new": 4,
        "eval/alone": 5,
        "text": "x",
    },
]


def series_of(runs: Sequence[list[dict]]) -> dict[str, dict]:
    return {
        chart["title"]: {(s["run"], s["name"]): (s["eval"], s["values"]) for s in chart["series"]}
        for chart in build_charts(runs)
    }


def test_charts_pair_train_with_eval_and_lose_nothing():
    assert series_of([ROWS]) == {  # and no "Reward", which would repeat the only verifier's
        "Reward by verifier": {
            (0, "general-flip"): (False, [0.1, 0.25]),
            (0, "general-flip, eval"): (True, [None, 0.5]),
        },
        "Constraints satisfied": {(0, "eval"): (True, [None, 0.75])},
        "mine/new": {(0, "train"): (False, [None, 3]), (0, "eval"): (True, [None, 4])},
        "Eval: alone": {(0, "eval"): (True, [None, 5])},
    }


def test_several_runs_share_a_chart_for_each_metric():
    other = [{"training_step": 5, "objective/general-flip_reward": 0.9, "objective/math_reward": 0.2}]
    drawn = series_of([ROWS, other])
    assert drawn["Reward by verifier: general-flip"] == {
        (0, "train"): (False, [0.1, 0.25]),
        (0, "eval"): (True, [None, 0.5]),
        (1, "train"): (False, [0.9]),
    }
    assert drawn["Reward by verifier: math"] == {(1, "train"): (False, [0.2])}


def test_a_stack_says_what_its_parts_leave_of_the_step():
    rows = [{"training_step": 1, "time/training": 2.0, "time/weight_sync": 0.5, "time/total": 4.0}]
    (chart,) = build_charts([rows])
    assert {s["name"]: s["values"] for s in chart["series"]} == {
        "training": [2.0], "weight sync": [0.5], "total": [4.0], "other": [1.5],
    }  # fmt: skip
    titles = [chart["title"] for chart in build_charts([rows, rows])]
    assert titles == ["Training", "Weight sync", "Total"], "runs are compared stage by stage"


def test_overall_reward_is_drawn_when_it_says_more_than_the_verifiers():
    rows = [{"training_step": 1, "objective/scores": 0.5, "objective/a_reward": 0.25, "objective/b_reward": 0.75}]
    assert list(series_of([rows])) == ["Reward", "Reward by verifier"]
    rows = [{"training_step": i, "objective/scores": 10 * s, "objective/a_reward": s} for i, s in ((1, 0.5), (2, 0.0))]
    assert list(series_of([rows])) == ["Reward by verifier"], "the same curve, times verification_reward"
    rows.append({"training_step": 3, "objective/scores": 1.0, "objective/a_reward": 0.5})  # a penalty
    assert list(series_of([rows])) == ["Reward", "Reward by verifier"]


def test_summary_and_evaluations(tmp_path):
    metrics = [
        {"training_step": 0, "eval/general-flip_reward": 0.25, "eval/echo": 0.1},
        {"training_step": 1, "time/total": 1.0},
        {"training_step": 2, "time/total": 5.0},
        {"training_step": 2, "eval/general-flip_reward": 0.5},  # apart from the line above, same step
        {"training_step": 3, "time/total": 3.0, "eval/general-flip_reward": None},
    ]
    _, data = page_of(write_run(tmp_path / "run", metrics=metrics, config={"config": {"exp_name": "mine"}}))
    (run,) = data["runs"]
    assert run["name"] == data["title"] == "mine"
    summary = run["summary"]
    assert (summary["steps"], summary["seconds"], summary["median_seconds"]) == (3, 9.0, 3.0)
    assert run["hours"] == pytest.approx([0.0, 1 / 3600, 6 / 3600, 9 / 3600], rel=1e-4)
    assert run["evals"] == [
        {"name": "general-flip reward", "steps": [0, 2], "values": [0.25, 0.5]},
        {"name": "echo", "steps": [0], "values": [0.1]},
    ]


def test_long_runs_are_thinned_but_keep_evaluations(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_POINTS", 10)
    metrics = [{"training_step": i, "lr": i} | ({"eval/echo": 1.0} if i == 33 else {}) for i in range(100)]
    _, data = page_of(write_run(tmp_path / "run", metrics=metrics))
    assert data["runs"][0]["steps"] == [0, 10, 20, 30, 33, 40, 50, 60, 70, 80, 90, 99]
    assert any("12 of 100 steps" in note for note in data["runs"][0]["notes"])


def test_a_killed_run_and_an_empty_one(tmp_path):
    (tmp_path / "empty").mkdir()
    _, data = page_of(tmp_path / "empty")
    assert data["title"] == "empty" and len(data["runs"][0]["notes"]) == 3

    killed = write_run(tmp_path / "killed", metrics=[{"training_step": 1, "lr": 1}], rollouts=[rollout()])
    (killed / "config.json").write_text('{"run_na')
    for path in (killed / "metrics.jsonl", killed / "rollouts" / "train.jsonl"):
        with path.open("ab") as file:
            file.write(b'{"training_step": 2, "response": "\xe2\x82')
    (killed / "rollouts" / "eval.jsonl").write_bytes(b"")
    _, data = page_of(killed)
    assert data["runs"][0]["steps"] == [1] and len(data["rollouts"]["samples"]) == 1
    assert [note.split(":")[0] for note in data["runs"][0]["notes"]] == [
        "config.json cannot be read",
        "metrics.jsonl",
        "train.jsonl",
    ]


@pytest.mark.parametrize(
    "value", [None, 3, 10**400, -1e308, "text", True, [], ["x", None], {}, {"a": {"b": [1]}}, [[{}]]]
)
def test_any_field_may_hold_anything(tmp_path, value):
    row = {name: value for name in rollout(error="", reward=0, advantage=0, num_tokens=0, finish_reason="")}
    metrics = [{"training_step": 1, "objective/scores": value, "time/total": value, "eval/scores": value}]
    _, data = page_of(write_run(tmp_path / "run", metrics=metrics, rollouts=[row, {}], config=value))
    assert len(data["rollouts"]["samples"]) == 2


def test_with_several_verifiers_the_flip_target_is_compared(tmp_path):
    row = rollout(dataset=["math", "general-flip"], ground_truth=["42", "Name a red fruit."])
    _, data = page_of(write_run(tmp_path / "run", rollouts=[row]))
    assert "".join(data["rollouts"]["samples"][0]["overlap"]["real"]["pieces"]) == "Name a red fruit."


def test_secrets_in_the_configuration_are_not_passed_on(tmp_path):
    config = {"env": {"OPENAI_API_KEY": "sk-1", "hf_token": "hf-2"}, "max_tokens": 5, "pad_token": "<pad>"}
    folder = write_run(tmp_path / "run", config=config)
    _, data = page_of(folder)
    assert data["config"]["facts"] == [
        {"env": {"OPENAI_API_KEY": "(hidden)", "hf_token": "(hidden)"}, "max_tokens": 5, "pad_token": "<pad>"}
    ]
    assert "sk-1" not in (folder / "report.html").read_text()


def test_flags_come_with_their_group_default_and_help(tmp_path):
    flags = {"seed": 7, "beta": 0.05, "gone_since": [1]}
    _, data = page_of(write_run(tmp_path / "run", config={"flags": flags, "rows": 3}))
    groups = {group["title"]: group["flags"] for group in data["config"]["groups"]}
    assert list(groups) == ["loss and optimiser", "run", "other flags"]
    (seed,) = groups["run"]
    assert (seed["name"], seed["values"], seed["default"]) == ("seed", [7], 42) and "data order" in seed["help"]
    assert groups["other flags"] == [{"name": "gone_since", "values": [[1]]}]
    assert data["config"]["facts"] == [{"rows": 3}]


def test_runs_of_one_name_are_told_apart_and_prompts_shared(tmp_path):
    folders = [
        write_run(
            tmp_path / name,
            rollouts=[rollout(training_step=step)],
            metrics=[{"training_step": step, "lr": 0.1}],
            config={"flags": {"run_name": "same", "seed": step}},
        )
        for name, step in (("one", 1), ("two", 2))
    ]
    page = Page(write_comparison(folders, tmp_path / "both.html").read_text())
    data = json.loads(page.only("script")[0])
    assert [run["name"] for run in data["runs"]] == ["same (one)", "same (two)"]
    assert [(s["run"], s["prompt"]) for s in data["rollouts"]["samples"]] == [(0, 0), (1, 0)]
    seed = next(f for group in data["config"]["groups"] for f in group["flags"] if f["name"] == "seed")
    assert seed["values"] == [1, 2]
    with pytest.raises(ValueError, match="no run"):
        write_comparison([], tmp_path / "none.html")


def test_command_line(tmp_path, capsys, monkeypatch):
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two")
    monkeypatch.chdir(tmp_path)
    for arguments, written in (
        ([one], one / "report.html"),
        ([one, two], Path("comparison.html")),
        ([one, two, "-o", tmp_path / "x.html"], tmp_path / "x.html"),
        ([one, "--output", tmp_path / "y.html"], tmp_path / "y.html"),
    ):
        main([str(argument) for argument in arguments])
        assert capsys.readouterr().out.strip() == str(written) and written.exists()
    with pytest.raises(SystemExit):
        main([str(one), str(tmp_path / "nowhere")])
    assert "no such output directory" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("node"), reason="node checks the syntax of the page's script")
def test_script_parses(tmp_path):
    page, _ = page_of(write_run(tmp_path / "run"))
    script = tmp_path / "page.js"
    script.write_text(page.only("script")[1])
    subprocess.run(["node", "--check", str(script)], check=True)
