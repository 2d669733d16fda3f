"""The report: one safe file from whatever a run left on disk."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_cases import Page, page_of, rollout, write_run

from flip_plugin.pages.text import visible
from open_instruct.report import write_comparison
from open_instruct.report.__main__ import main
from open_instruct.report.numbers import MAX_CHARS

HOSTILE = [
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>",
    "<!--<script>",
    "]]> &lt; &amp; {{DATA}} {{TITLE}} \\u003c \\1",
    "nul \x00 escape \x1b[31m turn \u202e lone \ud800 lines \u2028 \x85",
]


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


def test_runs_of_one_name_have_their_folders_behind(tmp_path):
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
