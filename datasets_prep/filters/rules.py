"""Rows of a source -> candidates: what a single row is kept or left out for, cheap questions first.

Each row is counted once, at the first filter that leaves it out. What needs other rows
(duplicates, sampling) comes later: `sampling.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from datasets_prep.filters.decontaminate import Decontaminator
from datasets_prep.filters.languages import LANGUAGES, Detector
from datasets_prep.filters.lengths import TokenCounter
from datasets_prep.filters.text import normalise, prompt_text, sampling_key
from datasets_prep.reading.batches import Batch, writable
from datasets_prep.settings import Settings
from flip_plugin.prompts.target import NoTarget, find_target
from flip_plugin.rows.checks import ROLES, DatasetError, content_text
from flip_plugin.rows.json_files import Defect

# In the order of asking; card.md has a line each.
FILTERS = (
    "language",
    "toxic",
    "redacted",
    "malformed",
    "empty",
    "language_detected",
    "too_short",
    "too_long",
    "prompt_too_long",
    "contaminated",
)
# What a row may say of itself, and what is None in its batch if it does not.
LABELS = ("language", "toxic", "redacted")
_ROLE_NAMES = {"human": "user", "prompter": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
MAX_EXAMPLES = 5


class Malformed(ValueError):
    """A row's prompt cannot be read; the text says why. Its end is `quote`: what the row holds."""

    def __init__(self, reason: str, quote: str = "") -> None:
        super().__init__(reason + quote)
        self.reason, self.quote = reason, quote


@dataclass(frozen=True)
class Candidate:
    """A row that passed: its place in the order of sampling, its id in the source, its turns as JSON, its length."""

    key: int
    id: str
    messages: str
    tokens: int


@dataclass
class Tools:
    """What a worker loads once. Without a detector, rows without a label pass as if it had said yes."""

    counter: TokenCounter
    detector: Detector | None = None
    decontaminator: Decontaminator | None = None


@dataclass
class _Prompt:
    place: int
    messages: list[dict[str, str]]
    target: str


class RowFilter:
    """Filters batches of one file and counts. `unlabelled` counts rows without a label of the file or row."""

    def __init__(self, settings: Settings, tools: Tools, file: str) -> None:
        self.settings, self.tools, self.file = settings, tools, file
        self.counts: Counter[str] = Counter()
        self.unlabelled: Counter[str] = Counter()
        self._malformed: list[Defect] = []

    @property
    def examples(self) -> list[dict[str, Any]]:
        """The first malformed rows, as fields of `Defect`, without what they hold."""
        return [asdict(replace(defect, quote="")) for defect in self._malformed]

    def __call__(self, batch: Batch) -> list[Candidate]:
        """The candidates of a batch. Raises `DatasetError` for a malformed row unless those are to be skipped."""
        self.counts["read"] += batch.size + len(batch.defects)
        for defect in batch.defects:
            self._leave_out(defect)
        for name in LABELS:
            if getattr(batch, name) is None:
                self.unlabelled[name] += batch.size
        prompts = self._prompts(batch, self._labels(batch))
        if batch.language is None and self.settings.language and self.tools.detector:
            kept = self.tools.detector.are([prompt.target for prompt in prompts])
            prompts = self._keep("language_detected", prompts, kept)
        return self._candidates(batch, self._lengths(prompts))

    def _keep(self, name: str, items: list[Any], kept: Sequence[bool]) -> list[Any]:
        found = [item for item, keep in zip(items, kept, strict=True) if keep]
        self.counts[name] += len(items) - len(found)
        return found

    def _labels(self, batch: Batch) -> list[int]:
        """Places whose labels are right. A row without a label that its file has is left out: it is not known."""
        places = list(range(batch.size))
        if batch.language is not None and (wanted := self.settings.language):
            # Labels are words or codes; both mean the same.
            names = {wanted.lower(), *(code for code, name in LANGUAGES.items() if name == wanted)}
            labels = batch.language
            places = self._keep("language", places, [(labels[p] or "").lower() in names for p in places])
        if batch.toxic is not None and not self.settings.keep_toxic:
            toxic = batch.toxic
            places = self._keep("toxic", places, [toxic[p] is False for p in places])
        if batch.redacted is not None and not self.settings.keep_redacted:
            redacted = batch.redacted
            places = self._keep("redacted", places, [redacted[p] is False for p in places])
        return places

    def _prompts(self, batch: Batch, places: list[int]) -> list[_Prompt]:
        prompts = []
        first = self.settings.turns == "first"
        for place, value in zip(places, batch.prompts(places, first), strict=True):
            try:
                messages = cut_turns(value, first)
                # The texts' reading is flip_plugin's: what a reward will ask for is what is written down.
                target = find_target(messages, self.settings.target).instruction if messages else ""
            except NoTarget:
                target = ""
            except Malformed as error:
                self._leave_out(Defect(self.file, batch.number(place), error.reason, quote=error.quote))
                continue
            # With a system prompt to recover, the turn that it is about may still be blank.
            if not target or not messages[-1]["content"].strip():
                self.counts["empty"] += 1
                continue
            prompts.append(_Prompt(place, messages, target))
        return prompts

    def _leave_out(self, defect: Defect) -> None:
        if not self.settings.skip_malformed:
            text = str(defect)
            advice = " Or" if text.endswith(".") else ". Repair or remove the row, or"
            raise DatasetError(f"{text}{advice} count and leave out such rows: --skip_malformed")
        self.counts["malformed"] += 1
        # Rows of other columns come in other batches: not in the file's order.
        self._malformed = sorted([*self._malformed, defect], key=lambda found: found.number)[:MAX_EXAMPLES]

    def _lengths(self, prompts: list[_Prompt]) -> list[tuple[_Prompt, int]]:
        s = self.settings
        tokens = self.tools.counter.count([prompt.target for prompt in prompts], s.max_tokens)
        pairs = self._keep("too_short", list(zip(prompts, tokens, strict=True)), [n >= s.min_tokens for n in tokens])
        pairs = self._keep("too_long", pairs, [n <= s.max_tokens for _, n in pairs])
        # A lone turn has been counted already.
        several = [place for place, (prompt, _) in enumerate(pairs) if len(prompt.messages) > 1]
        texts = ["\n".join(turn["content"] for turn in pairs[place][0].messages) for place in several]
        sizes = [n for _, n in pairs]
        for place, size in zip(several, self.tools.counter.count(texts, s.max_prompt_tokens), strict=True):
            sizes[place] = size
        return self._keep("prompt_too_long", pairs, [size <= s.max_prompt_tokens for size in sizes])

    def _candidates(self, batch: Batch, prompts: list[tuple[_Prompt, int]]) -> list[Candidate]:
        found = []
        for prompt, tokens in prompts:
            turns = (normalise(turn["content"]) for turn in prompt.messages)
            if self.tools.decontaminator and self.tools.decontaminator.contaminated(*turns):
                self.counts["contaminated"] += 1
                continue
            key = sampling_key(prompt_text(prompt.messages), self.settings.seed)
            name = (batch.id[prompt.place] if batch.id else None) or ""
            found.append(Candidate(key, name, json.dumps(prompt.messages, ensure_ascii=False), tokens))
        self.counts["candidates"] += len(found)
        return found


def cut_turns(value: Any, first: bool) -> list[dict[str, str]]:
    """A prompt column's value -> turns up to the first (or the last) user turn, with a trainer's role names.

    Text is one user turn. Before the first user turn, system prompts stay and greetings go. [] where
    no user speaks. Raises `Malformed`.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise Malformed(f"the prompt must be text or a list of turns, not {type(value).__name__}")
    turns: list[dict[str, str]] = []
    last = 0
    for number, turn in enumerate(value, start=1):
        turns.append(_turn(turn, number))
        if turns[-1]["role"] == "user":
            last = number
            if first:
                break
    turns = turns[:last]
    return [turn for turn in turns if turn["role"] != "assistant"] if first else turns


def _turn(turn: Any, number: int) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise Malformed(f"turn {number} must be an object with role and content, not {type(turn).__name__}")
    role = turn.get("role")
    if not isinstance(role, str):
        raise Malformed(f"turn {number} has no role")
    role = role.strip().lower()
    role = _ROLE_NAMES.get(role, role)
    if role not in ROLES:
        raise Malformed(f"turn {number} has a role that is none of {', '.join(ROLES)}", f": {role!r:.60}")
    content = turn.get("content")
    if "content" not in turn:
        raise Malformed(f"turn {number} ({role}) has no content")
    try:
        text = "" if content is None else content_text(content)
    except TypeError as error:
        raise Malformed(f"turn {number} ({role}) has content that cannot be read", f": {error}") from error
    return {"role": role, "content": writable(text)}
