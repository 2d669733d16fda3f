"""The report in a real browser: what it draws, how it is worked by hand, and that hostile text stays text."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

from open_instruct.report import write_comparison, write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    "<!-- {{DATA}} {braces} \\u003c ${1} \ud800 \u202e <svg onload=alert(3)> javascript:alert(4)"
)


def make_run(folder: Path, *, seed: int = 1, name: str = "tiny") -> Path:
    """30 steps of 2 groups of 3 samples, an evaluation each 10; one judgement missing, one hostile response."""
    draw = random.Random(seed)
    (folder / "rollouts").mkdir(parents=True)
    metrics, rollouts = [], []
    for step in range(1, 31):
        scores = []
        for group in range(2):
            target = f"Write poem number {step * 2 + group} about the old lighthouse keeper."
            for index in range(3):
                missing = step == 12 and group == 1 and index == 2
                score = None if missing else round(draw.random(), 3)
                response = f"A lamp turned. {step}/{group}/{index}"
                if step == 30 and group == 0:
                    response = (HOSTILE, f"You said: {target} Well.", "Plain.")[index]
                scores += [] if missing else [score]
                rollouts.append(
                    {
                        "training_step": step,
                        "split": "train",
                        "prompt_index": step * 2 + group,
                        "sample_index": index,
                        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": target}],
                        "response": response,
                        "ground_truth": target,
                        "dataset": ["general-flip"],
                        "score": score,
                        "status": "unparsed" if missing else "ok",
                        "reward": None if missing else 10 * score,
                        "advantage": None if missing else score - 0.5,
                        "finish_reason": "stop",
                        "num_tokens": 10 + index,
                        "inferred_instruction": None if missing else "Write a poem about a lighthouse",
                        "reasoning": "It rhymes.",
                        "echo": 0.0,
                        "judge_seconds": 0.25 * (index + 1),
                    }
                )
        row = {
            "training_step": step,
            "objective/scores": 10 * sum(scores) / len(scores),
            "objective/general-flip_reward": sum(scores) / len(scores),
            "objective/kl_avg": 900.0 if step == 7 else 0.01 * step + draw.random() / 100,
            "time/training": 1.0,
            "time/trainer_waiting_for_data": 0.5,
            "time/total": 2.0,
            "judge/latency_p50": 0.5,
            "judge/latency_p99": 1.5,
            "time/judge_hidden_frac": 0.8,
        }
        metrics.append(row | ({"eval/general-flip_reward": step / 30} if step % 10 == 0 else {}))
    write = lambda rows: "".join(json.dumps(row) + "\n" for row in rows)  # noqa: E731
    (folder / "metrics.jsonl").write_text(write(metrics))
    (folder / "rollouts" / "train.jsonl").write_text(write(rollouts))
    (folder / "config.json").write_text(
        json.dumps({"flags": {"run_name": name, "seed": seed, "beta": 0.05}, "rows": 9})
    )
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    opened = Browser()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("report") / "run"))


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Browser]:
    """A fresh page of one run, without complaints at the end."""
    browser.console.clear()
    browser.open(report)
    yield browser
    assert browser.console == []


def texts(page: Browser, selector: str) -> list[str]:
    return page.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map((node) => node.textContent)")


def click(page: Browser, selector: str, place: int = 0) -> None:
    page.evaluate(f"document.querySelectorAll({json.dumps(selector)})[{place}].click()")


def enter(page: Browser, field: str, value: str) -> None:
    """Fill a field of the filters, and wait until the table follows."""
    page.evaluate(
        f"{{ const field = document.querySelector('#filters [name={field}]'); field.value = {json.dumps(value)};"
        "field.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    page.evaluate("new Promise((done) => setTimeout(done, 200))")


def matched(page: Browser) -> str:
    return texts(page, "#count")[0].split(" · ")[0]


def test_every_chart_is_drawn_and_the_summary_is_there(page):
    titles = texts(page, ".chart h4")
    assert {"Reward by verifier", "KL from the reference", "Step time", "Judge latency", "Judging hidden"} <= set(
        titles
    )
    drawn = page.evaluate("[...document.querySelectorAll('.plot')].map((svg) => svg.querySelectorAll('path').length)")
    assert len(drawn) == len(titles) and min(drawn) > 0
    assert "NaN" not in page.evaluate("document.getElementById('charts').innerHTML")
    assert "80%" in " ".join(texts(page, ".facts dd"))
    assert texts(page, ".tile .value")[0] == "0.33 → 1.00"


def test_hostile_text_is_shown_and_never_run(page):
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert page.evaluate("document.querySelectorAll('img, iframe, object').length") == 0
    enter(page, "text", "onerror")
    assert matched(page).startswith("1 match")
    click(page, ".open-row")
    shown = next(text for text in texts(page, "td.detail .body") if "onerror" in text)
    assert shown == HOSTILE.replace("\ud800", "⟨U+D800⟩").replace("\u202e", "⟨U+202E⟩")
    assert page.evaluate("document.querySelectorAll('td.detail img, td.detail script, td.detail svg').length") == 0


def test_the_spike_is_cut_off_until_it_is_asked_for(page):
    def labels() -> list[str]:
        place = texts(page, ".chart h4").index("KL from the reference")
        return page.evaluate(
            f"[...document.querySelectorAll('.plot')[{place}].querySelectorAll('text')].map((t) => t.textContent)"
        )

    assert "↑ up to 900" in labels()
    click(page, "[name=cut]")
    assert "↑ up to 900" not in labels() and "1000" in labels()


def set_tool(page: Browser, name: str, value: object) -> None:
    page.evaluate(
        f"{{ const form = document.getElementById('toolbar'); form.elements.{name}.value = {json.dumps(value)};"
        "form.dispatchEvent(new Event('input')); }"
    )


def test_hovering_reads_a_step_and_tools_redraw(page):
    x, y, width, height = page.evaluate(
        "(({ x, y, width, height }) => [x, y, width, height])(document.querySelector('.plot').getBoundingClientRect())"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x + width - 12, y=y + height / 2)
    page.wait("!document.querySelector('.chart .tip').hidden")
    tip = texts(page, ".chart .tip")[0]
    assert tip.startswith("step 30") and "general-flip, eval1.00" in tip
    cursors = page.evaluate("[...document.querySelectorAll('.cursor')].map((c) => c.getAttribute('visibility'))")
    assert set(cursors) == {"visible"}, "every chart shows the same step"
    before = page.evaluate("document.querySelector('.plot').innerHTML")
    set_tool(page, "smooth", 0)
    assert page.evaluate("document.querySelector('.plot').innerHTML") != before
    assert texts(page, "#smooth-note") == ["none"]
    set_tool(page, "axis", "hours")
    assert any(text.endswith(" min") for text in texts(page, ".plot text"))
    click(page, ".grow-chart")
    page.wait("document.querySelector('.plot').clientHeight > 300")


def test_filters_narrow_down_and_say_what_is_left(page):
    assert matched(page).startswith("180 match") and matched(page).endswith("1 without a score")
    enter(page, "status", "=unparsed")
    assert matched(page) == "1 match, 1 without a score"
    enter(page, "status", "")
    enter(page, "from", "29")
    enter(page, "to", "29")
    assert matched(page).startswith("6 match")
    enter(page, "low", "0.5")
    shown = [float(text) for text in texts(page, "#rows tr.row td:nth-child(4)")]
    assert shown and min(shown) >= 0.5
    enter(page, "verifier", "=general-flip")
    enter(page, "text", "NO SUCH WORD")
    assert matched(page).startswith("0 match") and not page.evaluate("document.getElementById('empty').hidden")
    click(page, "#filters [type=reset]")
    page.wait("document.querySelectorAll('#rows tr.row').length === 50")
    click(page, "#more button")
    assert page.evaluate("document.querySelectorAll('#rows tr.row').length") == 100


def test_sorting_puts_missing_scores_last_either_way(page):
    enter(page, "from", "12")
    enter(page, "to", "12")
    for direction in ("descending", "ascending"):
        click(page, "[data-sort=score]")
        cells = texts(page, "#rows tr.row td:nth-child(4)")
        scores = [float(cell) for cell in cells[:-1]]
        assert cells[-1] == "unparsed" and scores == sorted(scores, reverse=direction == "descending")
        assert page.evaluate("document.querySelector('[data-sort=score]').closest('th').ariaSort") == direction


def test_a_row_opens_to_everything_that_is_known_of_it(page):
    enter(page, "text", "you said")
    click(page, ".open-row")
    meta = dict(zip(texts(page, "td.detail dt"), texts(page, "td.detail dd"), strict=True))
    assert meta["finish reason"] == "stop" and meta["tokens"] == "11" and meta["judge time"] == "0.5 s"
    assert float(meta["advantage"]) == pytest.approx(float(meta["score"]) - 0.5, abs=1e-3)
    body = texts(page, "td.detail .body")
    assert body[0].startswith("systemBe brief.userWrite poem number 60")
    assert texts(page, "td.detail mark.echo") == ["Write poem number 60 about the old lighthouse keeper."]
    shared = texts(page, "td.detail mark:not(.echo)")
    assert shared == ["Write poem", "about", "lighthouse", "Write", "poem about", "lighthouse"]
    assert "It rhymes." in body
    click(page, ".open-row")
    assert page.evaluate("document.querySelectorAll('td.detail').length") == 0


def test_siblings_stand_side_by_side_with_their_advantages(page):
    enter(page, "text", "12/1/0")
    click(page, ".open-row")
    click(page, ".actions button")
    cards = texts(page, ".sibling header")
    assert len(cards) == 3 and cards[-1].startswith("#2unparsed") and "no loss" in cards[-1]
    assert all("advantage" in card for card in cards[:-1])
    assert texts(page, ".sibling.current .body")[0] == "A lamp turned. 12/1/0"


def test_groups_are_listed_and_opened(page):
    enter(page, "view", "groups")
    assert matched(page).startswith("60 groups with 180 match")
    enter(page, "status", "=unparsed")
    click(page, ".open-row")
    assert len(texts(page, ".sibling")) == 3


def test_the_table_is_worked_by_keys(page):
    page.evaluate("document.body.focus()")
    page.press("/")
    page.wait("document.activeElement.name === 'text'")
    page.evaluate("document.querySelector('.open-row').focus()")
    page.press("ArrowDown")
    assert page.evaluate("document.activeElement === document.querySelectorAll('.open-row')[1]")
    page.press("Enter")
    page.wait("document.querySelectorAll('td.detail').length === 1")
    page.press("Escape")
    assert page.evaluate("document.querySelectorAll('td.detail').length") == 0
    assert page.evaluate("document.activeElement === document.querySelectorAll('.open-row')[1]")
    page.press("ArrowUp")
    assert page.evaluate("document.activeElement === document.querySelector('.open-row')")


def test_flags_that_differ_from_the_default_come_first(page):
    assert texts(page, "#config > details > summary") == ["Differs from the default (2)"]
    assert page.evaluate("document.querySelector('#config details').open")
    assert sorted(texts(page, "#config > details dt")) == ["run_name", "seed"]
    assert "loss and optimiser (1)" in texts(page, ".folds summary")


def test_several_runs_are_overlaid_and_can_be_hidden(browser, tmp_path):
    folders = [make_run(tmp_path / name, seed=seed, name=name) for name, seed in (("one", 1), ("two", 2), ("three", 3))]
    browser.console.clear()
    browser.open(write_comparison(folders, tmp_path / "all.html"))
    assert texts(browser, "h1") == ["3 runs compared"]
    assert [row.split()[0] for row in texts(browser, "table.runs tbody th")] == ["one", "two", "three"]
    lines = "document.querySelector('.plot').querySelectorAll('.s2').length"
    assert browser.evaluate(lines) > 0
    click(browser, "[name=shown]", 2)
    assert browser.evaluate(lines) == 0
    assert texts(browser, "#config > details > summary")[0] == "Differs between the runs (2)"
    enter(browser, "run", "=1")
    assert matched(browser).startswith("180 match")
    click(browser, ".open-row")
    click(browser, ".actions button", 1)
    assert "Only this prompt" in texts(browser, "#count")[0]
    assert browser.console == []


def test_the_page_has_a_dark_side(page):
    found = []
    for on in (True, False):
        page.dark(on)
        found.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert found == ["rgb(19, 22, 25)", "rgb(247, 247, 245)"]


def test_a_run_without_rollouts_can_be_resized(browser, tmp_path):
    run = make_run(tmp_path / "run")
    for file in (run / "rollouts").iterdir():
        file.unlink()
    browser.open(write_report(run))
    assert browser.evaluate("document.getElementById('columns')") is None
    browser.evaluate("window.dispatchEvent(new Event('resize'))")
    assert browser.console == []
