"""For mkdocstrings: examples in docstrings become code blocks.

Docstrings are read as Markdown, where a line that begins with ``>>>`` would be a quotation, and where the ``::`` before
indented code means nothing.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?P=indent)\S.*)*", re.M)


def fenced(text: str) -> str:
    """`text` with each run of ``>>>`` lines and their output between fences; ``::`` at a line's end becomes ``:``."""
    text = re.sub(r"(?m)^ *::$", "", text)
    text = re.sub(r"(?m)(?<=\S)::$", ":", text)
    return _EXAMPLE.sub(lambda found: f"```pycon\n{found.group()}\n```", text)


class DoctestFences(Extension):
    """Changes the docstring of every object that is loaded."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Called by griffe for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
