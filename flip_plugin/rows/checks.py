"""What a row of a training set must hold; one reading of it, for `datasets_prep.validate` and for the trainer.

A row's columns (names and meanings are Open Instruct's):

- `messages`: a list of `{"role", "content"}`; a closing assistant turn is left out;
- `dataset`: the name of the verifier that scores its responses, or a list of names;
- `ground_truth`: what that verifier wants, or a list with an entry for each name. For
  `general-flip`: the exact text that is to be recovered; for others see docs/verifiers.md.

What is wrong is reported with the row's number, its file, the field, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from flip_plugin.errors import did_you_mean

CONTRACT_COLUMNS = ("messages", "ground_truth", "dataset")
# Where a row came from, for error messages; not "source", which public data sets use themselves.
ORIGIN, ORIGIN_ROW = "origin", "origin_row"

ROLES = ("system", "developer", "user", "assistant", "tool")
_ROLE_HINTS = {"human": "user", "prompter": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
FLIP_VERIFIER = "general-flip"
MAX_REPORTED = 10
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class DatasetError(ValueError):
    """The data cannot be used; the text says where it is wrong and what to do."""


def require_columns(columns: Collection[str], name: str) -> None:
    """Raise `DatasetError` where a column of the contract is not among a data set's `columns`."""
    missing = [column for column in CONTRACT_COLUMNS if column not in columns]
    if missing:
        present = ", ".join(column for column in columns if column not in (ORIGIN, ORIGIN_ROW))
        raise DatasetError(
            f"{name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has {present}. A row needs "
            "messages (role, content), dataset (the verifier's name) and ground_truth (for general-flip the "
            "text to be recovered)."
        )


def labels_by_verifier(dataset: str | Sequence[str], ground_truth: Any) -> list[tuple[str, Any]]:
    """(verifier's name, its label) for each verifier of a row.

    A list in ``ground_truth`` has an entry for each name; but one verifier's list of other than one entry is its
    label, such as the accepted answers of `string_f1`. Raises ValueError where the two do not fit.
    """
    names = [dataset] if isinstance(dataset, str) else list(dataset)
    listed = isinstance(ground_truth, Sequence) and not isinstance(ground_truth, str)
    labels = list(ground_truth) if listed and (len(names) > 1 or len(ground_truth) == 1) else [ground_truth]
    if len(names) != len(labels):
        raise ValueError(f"{len(names)} verifiers in 'dataset', but {len(labels)} in 'ground_truth'")
    return list(zip(names, labels, strict=True))


class _LabelChecker:
    """Asks verifiers whether they can use a label; and each, when it is first needed, whether it works here."""

    def __init__(self, verifiers: Collection[str]) -> None:
        self.names = {name.lower() for name in verifiers}
        given = verifiers.items() if isinstance(verifiers, Mapping) else ()
        # FLIP's rule is below: it has a verifier of this name without our trainer's hooks, too.
        self._verifiers: dict[str, Any] = {name.lower(): one for name, one in given if name.lower() != FLIP_VERIFIER}
        self._tried: set[str] = set()

    def problem(self, name: str, label: Any) -> str | None:
        """What is wrong with `label`. Raises what the verifier's `check` raises."""
        key = name.lower()
        verifier = self._verifiers.get(key)
        if verifier is None:
            # Of a judge's label it is known that it is text; of another verifier's, nothing without that verifier.
            is_text = isinstance(label, str) or (key != FLIP_VERIFIER and isinstance(label, Sequence))
            if is_text or not key.startswith("general-"):
                return None
            return f"for {name} must be text, not {type(label).__name__}"
        if key not in self._tried:
            verifier.check()
            self._tried.add(key)
        try:
            verifier.check_label(label)
        except ValueError as error:
            return str(error)
        return None


def validate_rows(rows: Iterable[Mapping[str, Any]], known_verifiers: Collection[str]) -> None:
    """Raise `DatasetError` that names the first problems and counts the rest; pass when all is well.

    Where `known_verifiers` maps names to verifiers, their `check` and `check_label` are asked, too.
    """
    known = _LabelChecker(known_verifiers)

    def problems(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from _message_problems(row.get("messages"))
        yield from _verifier_problems(row, known)

    _raise_problems(rows, lambda row: list(_text_problems(row)) or list(problems(row)))


def validate_text(rows: Iterable[Mapping[str, Any]]) -> None:
    """The part of `validate_rows` for rows that are not Arrow's yet: text, in any column, that UTF-8 cannot write."""
    _raise_problems(rows, lambda row: list(_text_problems(row)))


def _raise_problems(
    rows: Iterable[Mapping[str, Any]], problems_of: Callable[[Mapping[str, Any]], list[tuple[str, str]]]
) -> None:
    """Raise `DatasetError` where `problems_of` a row gives any, as pairs of field and text."""
    reported, problems, bad_rows = [], 0, 0
    for number, row in enumerate(rows, start=1):
        of_row = problems_of(row)
        bad_rows += bool(of_row)
        problems += len(of_row)
        where = f"row {row.get(ORIGIN_ROW, number)} of {row.get(ORIGIN, 'the data')}"
        reported += [f"  {where}, {field}: {text}" for field, text in of_row[: MAX_REPORTED - len(reported)]]
    if problems:
        more = f"\n  ... and {problems - len(reported)} more" if problems > len(reported) else ""
        count = f"{problems} problem{'s' * (problems > 1)} in {bad_rows} row{'s' * (bad_rows > 1)}"
        raise DatasetError(f"{count} of the data:\n" + "\n".join(reported) + more)


def _text_problems(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for column, value in row.items():
        to_check = [column, value]  # not by recursion: JSON may be nested more deeply than calls
        while to_check:
            one = to_check.pop()
            if isinstance(one, Mapping):
                to_check += [*one.keys(), *one.values()]
            elif isinstance(one, str):
                if half := _HALF_PAIR.search(one):
                    why = f"{half[0]!r} is half of a surrogate pair, which is no character"
                    yield column, f"{why} and cannot be written as UTF-8: replace it or remove the row"
                    break
            elif isinstance(one, Sequence) and not isinstance(one, (bytes, bytearray)):
                to_check += one


def _message_problems(messages: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)) or not messages:
        what = "empty" if messages in (None, [], "") else f"a {type(messages).__name__}"
        yield "messages", f"must be a list of {{role, content}}, but is {what}"
        return
    last_user = None
    for number, turn in enumerate(messages, start=1):
        role = turn.get("role") if isinstance(turn, Mapping) else None
        if not isinstance(turn, Mapping) or role not in ROLES:
            hint = _ROLE_HINTS.get(str(role).lower())
            advice = f"write {hint!r}" if hint else f"use one of {', '.join(ROLES)}"
            yield "messages", f"turn {number} has the role {role!r}: {advice}"
            return
        try:
            text = content_text(turn.get("content"), allow_none=role == "assistant")
        except TypeError as error:
            yield "messages", f"turn {number} ({role}): {error}"
            return
        if role == "user":
            last_user = (number, text)
    if last_user is None:
        yield "messages", "has no user turn, so there is nothing to answer"
    elif not last_user[1].strip():
        yield "messages", f"the last user turn (turn {last_user[0]}) is an empty prompt: fill it or remove the row"


def _verifier_problems(row: Mapping[str, Any], known: _LabelChecker) -> Iterator[tuple[str, str]]:
    names, truth = row.get("dataset"), row.get("ground_truth")
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    names = list(names) if listed else [names]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        yield "dataset", "is missing: write the name of the verifier, such as general-flip"
        return
    for name in names:
        if name.lower() not in known.names:
            advice = did_you_mean(name.lower(), known.names) or f"there are {', '.join(sorted(known.names)) or 'none'}"
            yield "dataset", f"no verifier is called {name!r}; {advice}"
    try:
        pairs = labels_by_verifier(names, truth)
    except ValueError:
        count = len(truth) if isinstance(truth, Sequence) and not isinstance(truth, str) else 1
        yield "ground_truth", f"{len(names)} verifiers need a list of {len(names)} entries, but there is {count}"
        return
    if not listed and names[0].lower() == FLIP_VERIFIER:
        pairs = [(names[0], truth)]  # FLIP's is never a list
    for name, value in pairs:
        if value is None or (isinstance(value, Collection) and not value) or not str(value).strip():
            what = "the exact text to be recovered" if name.lower() == FLIP_VERIFIER else "what the verifier wants"
            yield "ground_truth", f"is missing or empty: for {name} it must hold {what}"
        elif name.lower() in known.names and (problem := known.problem(name, value)):
            yield "ground_truth", problem


def content_text(content: Any, *, allow_none: bool = False) -> str:
    """A turn's content as text; parts are joined by newlines. TypeError says what cannot be read."""
    if isinstance(content, str):
        return content
    if content is None and allow_none:  # an assistant turn that only calls a tool
        return ""
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise TypeError(f"content must be text or a list of text parts, not {type(content).__name__}")
    pieces = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            kind = part.get("type", "unknown") if isinstance(part, Mapping) else type(part).__name__
            raise TypeError(f"a content part of type {kind} cannot be read: the policy takes text only")
        pieces.append(text)
    return "\n".join(pieces)
