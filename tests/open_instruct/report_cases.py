"""Runs on disk and the pages made of them: what the tests of the report share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from open_instruct.report import write_report


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
