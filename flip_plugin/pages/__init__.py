"""Data and assets into one HTML file that needs no network, and is safe whatever the data holds.

A report has a package with a folder `assets/`: `body.html`, `style.css` and scripts. They go into this package's
`page.html`, behind what all reports share: `base.css` (palette, cards, tables, forms), `base.js` (`data`, `make`,
texts, filters), `numbers.js` (numbers as people read them) and `plot.js` (scales, grid, lines, legend, tip). `text`
has the Python side: texts made visible, cut, and marked where they share words.

The page's content security policy names its own script and style by their hashes, so nothing that a model
or a data set wrote can run in it; texts enter it as text nodes alone.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

#: In the order in which they run, before those of a report.
SHARED_SCRIPTS = ("base.js", "numbers.js", "plot.js")


def render_page(package: str, scripts: Sequence[str], *, title: str, data: Any) -> str:
    """The page of a report: `package` is the report's, `scripts` are its assets' names in the order in which they run.

    `data` is plain (JSON's types, finite numbers). Raises ValueError for nan or inf in it.
    """
    script = "".join([_asset(__name__, name) for name in SHARED_SCRIPTS] + [_asset(package, name) for name in scripts])
    style = _asset(__name__, "base.css") + _asset(package, "style.css")
    filling = {
        "TITLE": html.escape(title),
        "BODY": _asset(package, "body.html"),
        "DATA": embed_json(data),
        "SCRIPT": script,
        "STYLE": style,
        "SCRIPT_HASH": _sha256(script),
        "STYLE_HASH": _sha256(style),
    }
    # One pass, so that a placeholder inside a text stays what it is.
    return re.sub(r"\{\{([A-Z_]+)\}\}", lambda match: filling[match[1]], _asset(__name__, "page.html"))


def embed_json(value: Any) -> str:
    r"""JSON that is safe inside a script element: ASCII, without `<`, `>` and `&`, which occur in strings alone.

    >>> embed_json({"a": "</script>"})
    '{"a":"\\u003c/script\\u003e"}'
    """
    source = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return source.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(package: str, name: str) -> str:
    return resources.files(package).joinpath("assets", name).read_text(encoding="utf-8")


def _sha256(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
