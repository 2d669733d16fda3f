"""Which instruction is to be recovered, and which turns the judge may see.

From structured messages (OpenAI's ``{"role", "content"}``, content a string or a
list of parts), as in arXiv 2602.13551:

- one user turn: that turn, whole, however many lines;
- several: the last user turn, with the turns before it as context;
- a system prompt and a user turn: the system prompt, with the conversation as
  context (``target="system"``); ``target="user"`` recovers the turn instead, and
  then the system prompt is not shown.

A closing assistant turn is the response and is left out. Nothing is guessed from
lines of text: an instruction may itself hold ``user:`` or look like a chat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

TargetChoice = Literal["auto", "user", "system"]

_ROLES = {"human": "user", "developer": "system", "gpt": "assistant", "model": "assistant"}


class NoTarget(ValueError):
    """There is no instruction to recover; the text says what is wrong and where."""


@dataclass(frozen=True)
class Target:
    """The instruction to recover, and the turns that come before it (maybe none)."""

    instruction: str
    context: list[dict[str, str]] = field(default_factory=list)


def find_target(messages_or_prompt: str | Sequence[Mapping[str, Any]], target: TargetChoice = "auto") -> Target:
    r"""The instruction in a prompt (one user turn) or in a list of messages.

    Raises `NoTarget` for an empty or malformed prompt, and when the turn that
    `target` asks for is not there; ValueError for another `target`.

    >>> find_target("Write a haiku.\nNo rhymes.").instruction
    'Write a haiku.\nNo rhymes.'
    """
    if target not in ("auto", "user", "system"):
        raise ValueError(f"target must be 'auto', 'user' or 'system', not {target!r}")
    if isinstance(messages_or_prompt, str):
        turns = [{"role": "user", "content": messages_or_prompt}]
    else:
        turns = normalize_messages(messages_or_prompt)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system").strip()
    talk = [turn for turn in turns if turn["role"] != "system"]
    if target == "system" or (target == "auto" and system):
        if not system:
            raise NoTarget("target='system', but the messages hold no system prompt")
        return Target(system, talk)
    last = max((i for i, turn in enumerate(talk) if turn["role"] == "user"), default=None)
    if last is None:
        raise NoTarget(f"no user turn among {len(turns)} messages (roles: {_roles(turns)})")
    instruction = talk[last]["content"].strip()
    if not instruction:
        raise NoTarget(f"the last user turn is empty (turn {last + 1} of {len(talk)})")
    return Target(instruction, talk[:last])


def target_of_row(ground_truth: Any, messages: Sequence[Mapping[str, Any]], target: TargetChoice = "auto") -> Target:
    """The target of a row that has both: `ground_truth`, with what came before it in `messages` as context.

    The turn that `ground_truth` is (system prompt or last user turn) decides what came before
    it; where it is neither, the context is the past of the last user turn. Without a
    `ground_truth`, `find_target` decides. Raises `NoTarget` only then.
    """
    if not isinstance(ground_truth, str) or not ground_truth.strip():
        return find_target(messages, target)
    instruction = ground_truth.strip()
    context: list[dict[str, str]] = []
    choices: tuple[TargetChoice, ...] = ("system", "user")
    for choice in choices:
        try:
            candidate = find_target(messages, choice)
        except NoTarget:
            continue
        context = candidate.context
        if candidate.instruction == instruction:
            break
    return Target(instruction, context)


def target_from_query(query: str | None, label: str | None) -> Target:
    """The target for a trainer that has only text: upstream's `query` and `label`.

    `label` (the ``ground_truth`` column) is the instruction. `query` is all turns
    as ``role: content`` joined by newlines, so its lines do not show
    where a turn begins; what precedes the last verbatim occurrence of the label is the
    context, as one block. A label that is the opening system prompt has what
    follows as context. A label that does not occur has none.

    Raises `NoTarget` when the label is missing or empty.
    """
    if not isinstance(label, str) or not label.strip():
        raise NoTarget("ground_truth is empty: for general-flip it must hold the exact instruction to be recovered")
    instruction = label.strip()
    query = query or ""
    opening, _, rest = query.partition(instruction)
    if opening.strip() == "system:":
        return Target(instruction, _block(rest))
    at = query.rfind(instruction)
    # The last tag before the label is that of the label's own turn.
    return Target(instruction, _block(query[: max(at, 0)].rstrip().removesuffix("user:")))


def _block(text: str) -> list[dict[str, str]]:
    return [{"role": "conversation", "content": text.strip()}] if text.strip() else []


def render_context(context: Sequence[Mapping[str, Any]]) -> str:
    """Turns as text for a judge: ``role: content``, an empty line between turns; "" for none."""
    if not context:
        return ""
    return "\n\n".join(
        turn["content"] if turn["role"] == "conversation" else f"{turn['role']}: {turn['content']}"
        for turn in normalize_messages(context)
    )


def normalize_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Messages with known role names and plain text. Raises `NoTarget` with the turn's number.

    Parts of a content list that are not text (an image) are named in brackets.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise NoTarget(f"messages must be a list of role and content, not {type(messages).__name__}")
    if not messages:
        raise NoTarget("the list of messages is empty")
    turns = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise NoTarget(f"message {number} has no role: {str(message)[:80]!r}")
        role = message["role"].strip().lower()
        turns.append({"role": _ROLES.get(role, role), "content": _text(message.get("content"), number)})
    return turns


def _text(content: Any, number: int) -> str:
    if content is None:  # an assistant turn that only calls a tool
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise NoTarget(f"message {number} has content of type {type(content).__name__}, not text")
    pieces = []
    for part in content:
        if isinstance(part, str):
            pieces.append(part)
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            pieces.append(part["text"])
        elif isinstance(part, Mapping):
            pieces.append(f"[{part.get('type', 'part')}]")
        else:
            raise NoTarget(f"message {number} has a content part of type {type(part).__name__}")
    return "\n".join(pieces)


def _roles(turns: list[dict[str, str]]) -> str:
    return ", ".join(turn["role"] for turn in turns) or "none"


#: A prompt as callers have it: text, messages, or a target that is found already.
Prompt = str | Sequence[Mapping[str, Any]] | Target


def whole_prompt(prompt: Prompt) -> Target:
    """All that was asked, as one instruction without context: what a rating judge must see.

    One turn is its text; several are rendered with their roles. A closing assistant
    turn (the response) is left out. Raises `NoTarget` when nothing remains.
    """
    if isinstance(prompt, Target):
        turns = [*prompt.context, {"role": "user", "content": prompt.instruction}]
    elif isinstance(prompt, str):
        turns = [{"role": "user", "content": prompt}]
    else:
        turns = normalize_messages(prompt)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    text = turns[0]["content"] if len(turns) == 1 else render_context(turns)
    if not text.strip():
        raise NoTarget("the prompt is empty")
    return Target(text.strip())
