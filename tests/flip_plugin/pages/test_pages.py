"""The shared part of the HTML reports: what is filled in stays text, and every file is in the wheels."""

import doctest
import tomllib
from pathlib import Path

import pytest

from flip_plugin import pages
from flip_plugin.pages import embed_json, render_page, text

ROOT = Path(__file__).parents[3]


def test_what_is_filled_in_is_not_filled_again():
    hostile = "{{SCRIPT}} </script><b>"
    page = render_page("flip_plugin.evals.report.output", ["main.js"], title=hostile, data={"text": hostile})
    assert "<title>{{SCRIPT}} &lt;/script&gt;&lt;b&gt;</title>" in page
    assert page.count(embed_json(hostile)) == 1 and "</script><b>" not in page
    assert page.count("{{") == 2  # the title's and the data's


def test_numbers_without_a_place_in_json_are_refused():
    with pytest.raises(ValueError):
        embed_json({"a": float("nan")})


@pytest.mark.parametrize(
    ("folder", "package"),
    [(ROOT, "flip_plugin"), (ROOT / "datasets_prep", "."), (ROOT / "open-instruct", "open_instruct")],
)
def test_a_wheel_has_every_file_of_the_package(folder, package):
    settings = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"][(folder / package).resolve().name]
    named = {path for pattern in patterns for path in (folder / package).glob(pattern)}
    files = {path for path in (folder / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    left_out = {path.relative_to(folder).as_posix() for path in files - named if path.suffix != ".py"}
    assert not {name for name in left_out if not name.endswith((".md", "pyproject.toml")) and ".egg-info/" not in name}


def test_examples():
    assert doctest.testmod(pages).failed == doctest.testmod(text).failed == 0
