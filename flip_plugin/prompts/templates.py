"""Judge prompts as data: a folder of ``NAME.prompt`` files, filled in one pass.

A file is UTF-8 text (its final newline is dropped). Only declared placeholders
(`PLACEHOLDERS`) are filled; every other brace is text, so a template may show JSON. A
template in which all other braces are doubled was written for ``str.format``, as the
published ones are: there ``{{`` means ``{``. Filling is one regular expression over
the template, so what a response holds is never scanned again.

Names: ``FLIP_SYSTEM`` and ``FLIP_USER`` (required), ``FLIP_CONTEXT_USER`` (used when
there is earlier conversation; a folder without it, such as the published one, uses
``FLIP_USER`` and the context is not shown), ``FLIP_ANSWER_SYSTEM`` (asks for the answer
alone), and ``llmjudge_{pointwise_rating,listwise_ranking,pairwise_ranking}_SYSTEM`` /
``_USER`` for the judges that FLIP is compared with.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

FLIP_SYSTEM = "FLIP_SYSTEM"
FLIP_USER = "FLIP_USER"
FLIP_CONTEXT_USER = "FLIP_CONTEXT_USER"
FLIP_ANSWER_SYSTEM = "FLIP_ANSWER_SYSTEM"
POINTWISE_SYSTEM = "llmjudge_pointwise_rating_SYSTEM"
POINTWISE_USER = "llmjudge_pointwise_rating_USER"

REQUIRED = (FLIP_SYSTEM, FLIP_USER)
# What a template must mention, or the judge would be asked about nothing.
MUST_HOLD = {
    FLIP_USER: ("response",),
    FLIP_CONTEXT_USER: ("response", "context"),
    POINTWISE_USER: ("response", "instruction"),
}
PLACEHOLDERS = ("response", "context", "instruction", "response_list", "response1", "response2")
SAME_AS = {"prompt": "instruction"}  # the published folder's name for it
DEFAULT_FOLDER = Path(__file__).parent

_NAMES = "|".join((*PLACEHOLDERS, *SAME_AS))
_PLACEHOLDER = re.compile(rf"\{{({_NAMES})\}}")
_FORMAT_STYLE = re.compile(rf"\{{\{{|\}}\}}|\{{({_NAMES})\}}")
_CLOSING_TAG = re.compile(r"</([A-Za-z]\w*)>")
_HEADER = re.compile(r"^(\[[^\[\]{}\n]{2,60}\]|#{1,6} [^{}\n]{2,60})[ \t]*$", re.MULTILINE)


class PromptError(ValueError):
    """A prompt folder or template cannot be used; the text says which and why."""


@dataclass(frozen=True)
class PromptSet:
    """The templates of one folder. Pickles; equal when the texts are equal."""

    templates: Mapping[str, str]
    folder: str = field(default="", compare=False)

    @classmethod
    def load(cls, folder: str | Path | None = None) -> PromptSet:
        """Read every ``*.prompt`` file of `folder` (default: the package's own).

        Raises `PromptError` when the folder or a required file is missing, or a
        template lacks the placeholder that gives it its meaning.
        """
        path = Path(folder) if folder is not None else DEFAULT_FOLDER
        if not path.is_dir():
            raise PromptError(f"prompt folder {str(path)!r} does not exist")
        templates = {
            file.name.removesuffix(".prompt"): file.read_text(encoding="utf-8").removesuffix("\n")
            for file in sorted(path.glob("*.prompt"))
        }
        for name in REQUIRED:
            if name not in templates:
                raise PromptError(f"prompt folder {str(path)!r} has no {name}.prompt")
        for name, needed in MUST_HOLD.items():
            held = {SAME_AS.get(key, key) for key in _PLACEHOLDER.findall(templates.get(name, ""))}
            missing = [key for key in needed if name in templates and key not in held]
            if missing:
                raise PromptError(f"{path / name}.prompt lacks the placeholder {{{missing[0]}}}")
        return cls(templates=templates, folder=str(path))

    def flip_messages(
        self, response: str, context: str | Sequence[Mapping] | None = None, *, reasoning: bool = True
    ) -> list[dict[str, str]]:
        """The two messages that ask a judge which instruction led to `response`.

        `context` is the conversation before the instruction, as text or as
        messages; empty means none. Without `reasoning` the answer alone is asked for.
        """
        if context is not None and not isinstance(context, str):
            from flip_plugin.prompts.target import render_context

            context = render_context(context) if context else ""
        if context and FLIP_CONTEXT_USER in self.templates:
            user = self.fill(FLIP_CONTEXT_USER, response=response, context=context)
        else:
            user = self.fill(FLIP_USER, response=response, context=context or "")
        return _messages(self.fill(FLIP_SYSTEM if reasoning else FLIP_ANSWER_SYSTEM), user)

    def pointwise_messages(self, instruction: str, response: str) -> list[dict[str, str]]:
        """The two messages that ask a judge to rate `response` from 1 to 10."""
        user = self.fill(POINTWISE_USER, instruction=instruction, response=response)
        return _messages(self.fill(POINTWISE_SYSTEM), user)

    def fill(self, name: str, **values: str) -> str:
        """Template `name` with its placeholders replaced by `values`, escaped.

        Raises `PromptError` for an unknown name or a placeholder without a value.
        """
        if name not in self.templates:
            raise PromptError(f"no {name}.prompt in {self.folder!r}; it has {', '.join(self.templates)}")

        def value_of(match: re.Match[str]) -> str:
            key = match.group(1)
            if key is None:
                return match.group()[0]
            key = SAME_AS.get(key, key)
            if key not in values:
                raise PromptError(f"{name}.prompt asks for {{{key}}}, which this call does not have")
            return self.escape(values[key])

        return (_FORMAT_STYLE if name in self._format_style else _PLACEHOLDER).sub(value_of, self.templates[name])

    def escape(self, text: str) -> str:
        r"""`text` with what could pose as the templates' own structure made harmless.

        ``</response>`` inside a response would end the quoted block early and let what
        follows pose as part of the prompt; so would a line that begins with a section
        header of the templates, such as ``[Your Inferred Instruction]``. They get a
        backslash: readable, no longer the delimiter. Other text is returned unchanged.
        """
        if self._forged_tag and "<" in text:
            text = self._forged_tag.sub(r"<\\/\1", text)
        if self._forged_header:
            text = self._forged_header.sub(r"\1\\\2", text)
        return text

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each template's text, in hex: what a run writes down."""
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in self.templates.items()}

    @cached_property
    def _format_style(self) -> frozenset[str]:
        """The templates whose braces are doubled, as ``str.format`` wants them."""
        names = set()
        for name, text in self.templates.items():
            rest = _PLACEHOLDER.sub("", text)
            bare = rest.replace("{{", "").replace("}}", "")
            if bare != rest and "{" not in bare and "}" not in bare:
                names.add(name)
        return frozenset(names)

    @cached_property
    def _forged_tag(self) -> re.Pattern[str] | None:
        tags = {tag.lower() for template in self.templates.values() for tag in _CLOSING_TAG.findall(template)}
        return re.compile(rf"<\s*/(\s*(?:{'|'.join(sorted(tags))})\s*>)", re.IGNORECASE) if tags else None

    @cached_property
    def _forged_header(self) -> re.Pattern[str] | None:
        headers = {header.strip() for template in self.templates.values() for header in _HEADER.findall(template)}
        spaced = sorted(r"[ \t]+".join([re.escape(word) for word in header.split()]) for header in headers)
        # Only after line breaks that str.splitlines knows: a model may take any of them for one.
        line_start = r"((?:^|[\n\r\v\f\x85\u2028\u2029])[ \t]*)"
        return re.compile(rf"{line_start}({'|'.join(spaced)})", re.IGNORECASE) if spaced else None


def _messages(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]
