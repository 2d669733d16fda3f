"""The evaluation report in a real browser: everything is drawn, tables sort, items open, hostile text stays text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_runs import write_runs

from flip_plugin.evals.report import write_report

sys.path.append(str(Path(__file__).parents[3] / "open_instruct"))
from browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    opened = Browser()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_runs(folder)
    return write_report([folder], folder / "report")


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Browser]:
    """A fresh page, without complaints of the browser at the end."""
    browser.console.clear()
    browser.open(report)
    yield browser
    assert browser.console == []


def texts(page: Browser, selector: str) -> list[str]:
    return page.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map((node) => node.textContent)")


def test_every_chart_is_drawn(page):
    titles = texts(page, ".chart h4")
    whole = {"Mean over subsets", "Accuracy over judge size", "Accuracy by similarity", "Benchmarks by checkpoint"}
    single = {"Focus", "Judge small", "Judge small: shift of the score", "flip: same pick", "constraints satisfied"}
    assert whole | single <= set(titles)
    drawn = page.evaluate(
        "[...document.querySelectorAll('.plot')].map((svg) => svg.querySelectorAll('rect, path, circle').length)"
    )
    assert len(drawn) == len(titles) and min(drawn) > 5
    assert "NaN" not in page.evaluate("document.getElementById('sections').innerHTML")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_claims_open_to_their_figures(page):
    assert len(texts(page, ".claim")) == 6
    page.evaluate("document.querySelector('.claim summary').click()")
    assert "small: FLIP over pointwise" in texts(page, ".claim .parts td")


def test_a_table_sorts_ours_and_keeps_the_papers_rows_below(page):
    table = "document.querySelector('table.results')"
    page.evaluate(f"{table}.querySelectorAll('thead button')[2].click()")
    column = page.evaluate(
        f"[...{table}.querySelectorAll('tbody tr')].map((r) => [r.className, r.cells[2].firstChild.textContent])"
    )
    ours = [float(text) for kind, text in column if kind in ("", None)]
    assert len(ours) == 12 and ours == sorted(ours, reverse=True)
    assert [kind for kind, _ in column][-4:] == ["paper"] * 4
    assert page.evaluate(f"{table}.querySelectorAll('thead th')[2].ariaSort") == "descending"


def test_hovering_shows_value_interval_and_invalid_share(page):
    x, y = page.evaluate(
        "(() => { const hit = document.querySelector('.plot .hit'); hit.scrollIntoView({block: 'center'});"
        "const box = hit.getBoundingClientRect(); return [box.x + box.width / 2, box.y + 40]; })()"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    page.wait("!document.querySelector('.chart .tip').hidden")
    assert "[" in texts(page, ".chart .tip")[0] and "% invalid" in texts(page, ".chart .tip")[0]


def test_an_item_opens_and_hostile_text_is_shown_and_never_run(page):
    page.evaluate(
        "{ const field = document.querySelector('#filters [name=text]'); field.value = 'onerror';"
        "field.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    assert texts(page, "#count")[0].startswith("1 of 48 items")
    page.evaluate("document.querySelector('.open-row').click()")
    assert any("</script><script>alert(1)" in text for text in texts(page, "td.detail .body"))
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert page.evaluate("document.querySelectorAll('img, iframe, object').length") == 0
    assert texts(page, "td.detail mark") and len(texts(page, "td.detail .scores tbody tr")) == 12


def test_filters_narrow_the_items_down(page):
    page.evaluate(
        "{ const field = document.querySelector('#filters [name=kind]'); field.value = '=only FLIP right';"
        "field.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    assert set(texts(page, ".open-row .pill")) == {"only FLIP right"}
    page.evaluate("document.querySelector('#filters [type=reset]').click()")
    page.wait("document.querySelectorAll('.open-row').length === 20")
    page.evaluate("document.querySelector('#more button').click()")
    assert len(texts(page, ".open-row")) == 40


def test_the_page_has_a_dark_side_and_fits_a_narrow_window(page):
    found = []
    for on in (True, False):
        page.dark(on)
        found.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert found == ["rgb(19, 22, 25)", "rgb(247, 247, 245)"]
