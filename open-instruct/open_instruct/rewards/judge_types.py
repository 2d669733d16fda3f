"""Judge types: what each asks a model about a response, and how the reply becomes a score. Add a type here.

Each type becomes the verifier ``general-<type>`` (`judge_verifier`), except those that have a class of their own
(``flip``: `flip_plugin.verifier`). There are three ways to add one:

- in this project: an entry in `JUDGE_PROMPT_MAP` and in `EXTRACTOR_MAP`, and, for structured output, in
  `RESPONSE_FORMAT_MAP`;
- in code of the same process: the same, before the verifiers are built;
- in an installed package: a `JudgeSpec` under the entry-point group ``open_instruct.judges``.

``quality`` rates a response from 1 to 10. Its question, schema and reading are those of the library's
`PointwiseJudge`; they stand in the maps so that a run can name and replace them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from flip_plugin.prompts.templates import PromptSet
from flip_plugin.reward.pointwise import PointwiseJudge, read_rating

# The judge's reply (None when it sent no text) -> its reasoning, and a score of 0..1 or None.
Extractor = Callable[[str | None], tuple[str | None, float | None]]


class MessagesFunction(Protocol):
    """Keyword arguments: `input` (the whole prompt), `output` (the response), `label` (the ground truth)."""

    def __call__(self, *, input: str, output: str, label: str) -> list[dict[str, str]]:
        """The messages for the judge."""
        ...


class Template(Protocol):
    """Anything with a ``format`` of the same keywords, such as a str: it becomes one user message."""

    def format(self, *, input: str, output: str, label: str) -> str:
        """The text for the judge."""
        ...


@dataclass(frozen=True)
class JudgeSpec:
    """A judge type. `response_format` (OpenAI's form) asks for structured output where given.

    The functions must be importable by name, because verifiers travel between processes.
    """

    name: str
    prompt: MessagesFunction | Template
    extract: Extractor
    response_format: Mapping[str, Any] | None = None

    def messages(self, *, input: str, output: str, label: str) -> list[dict[str, str]]:
        """What the judge is sent."""
        prompt: Any = self.prompt
        if callable(prompt):
            return prompt(input=input, output=output, label=label)
        text = prompt.format(input=input, output=output, label=label)
        return [{"role": "user", "content": text}]


def quality_messages(*, input: str, output: str, label: str) -> list[dict[str, str]]:
    """`PointwiseJudge`'s question, from the library's own prompt folder. `label` is not shown."""
    return _packaged_prompts().pointwise_messages(input, output)


@cache
def _packaged_prompts() -> PromptSet:
    return PromptSet.load()


def extract_quality(content: str | None) -> tuple[str | None, float | None]:
    """Reasoning and a tenth of the rating (0.1 to 1.0), or None without a readable one.

    >>> extract_quality('{"REASONING": "fine", "SCORE": 8}')
    ('fine', 0.8)
    """
    result = read_rating(content)
    return result.reasoning, result.score


JUDGE_PROMPT_MAP: dict[str, MessagesFunction | Template] = {"quality": quality_messages}
EXTRACTOR_MAP: dict[str, Extractor] = {"quality": extract_quality}
RESPONSE_FORMAT_MAP: dict[str, Mapping[str, Any] | None] = {"quality": PointwiseJudge.response_schema}


def judge_specs() -> dict[str, JudgeSpec]:
    """The types of the maps. Raises ValueError for a prompt without an extractor."""
    without = sorted(JUDGE_PROMPT_MAP.keys() - EXTRACTOR_MAP.keys())
    if without:
        raise ValueError(f"judge type {without[0]!r} has a prompt but nothing in EXTRACTOR_MAP")
    return {
        name: JudgeSpec(name, prompt, EXTRACTOR_MAP[name], RESPONSE_FORMAT_MAP.get(name))
        for name, prompt in JUDGE_PROMPT_MAP.items()
    }
