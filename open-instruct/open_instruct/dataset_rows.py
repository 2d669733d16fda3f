"""Reading and checking the rows of a run, before any model is loaded.

A row's columns (names and meanings are Open Instruct's):

- `messages`: a list of `{"role", "content"}`; a closing assistant turn is left out;
- `dataset`: the name of the verifier that scores its responses, or a list of names;
- `ground_truth`: what that verifier wants, or a list with an entry for each name. For
  `general-flip`: the exact text that is to be recovered; for others see docs/verifiers.md.

What is wrong is said with the row's number, its file, the field, and what to do.
"""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # slow to import, and `--help` should not wait for it
    from datasets import Dataset

Row = dict[str, Any]

CONTRACT_COLUMNS = ("messages", "ground_truth", "dataset")
# Where a row came from, for error messages; not "source", which public data sets use themselves.
ORIGIN, ORIGIN_ROW = "origin", "origin_row"

ROLES = ("system", "developer", "user", "assistant", "tool")
_ROLE_HINTS = {"human": "user", "prompter": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
FLIP_VERIFIER = "general-flip"
MAX_REPORTED = 10


class DatasetError(ValueError):
    """The data cannot be used; the text says where it is wrong and what to do."""


# --- reading -------------------------------------------------------------------------------------


def load_dataset_mixer(dataset_mixer_list: Sequence[str], splits: Sequence[str], seed: int) -> Dataset:
    """The rows of several data sets, one after the other, each cut to its share.

    `dataset_mixer_list` holds pairs, as typed: a name, and how much of it. A name is a .jsonl, .json
    or .parquet file, a folder (`save_to_disk` or a hub snapshot), or a Hugging Face id. An amount
    with a point is a share (`1.0`: all), one without a number of rows. `splits` has one split for
    each name, or one for all; files have no splits, and ignore it. The same seed takes the same rows.

    >>> load_dataset_mixer(["rows.jsonl", "1.0", "allenai/some-rows", "512"], ["train"], seed=1)  # doctest: +SKIP
    """
    if not dataset_mixer_list or len(dataset_mixer_list) % 2:
        raise DatasetError(
            f"data sets are given as pairs of name and amount, such as: rows.jsonl 1.0. Got {list(dataset_mixer_list)}"
        )
    names, amounts = dataset_mixer_list[::2], dataset_mixer_list[1::2]
    if len(splits) not in (1, len(names)):
        raise DatasetError(f"{len(names)} data sets, but {len(splits)} splits: give one for each, or one for all")
    parts = []
    for position, (name, amount) in enumerate(zip(names, amounts, strict=True)):
        rows = _read(name, splits[position if len(splits) > 1 else 0])
        _require_columns(rows, name)
        rows = _with_origin(rows, name)
        keep = _choose(len(rows), amount, name, random.Random(seed + position))
        parts.append(rows if len(keep) == len(rows) else rows.select(keep))
    return _concatenate(parts)


def _read(name: str, split: str) -> Dataset:
    import datasets

    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if path.is_file():
        if suffix in (".jsonl", ".json"):
            return _from_rows(list(_read_json(path)), name)
        if suffix == ".parquet":
            return datasets.Dataset.from_parquet(str(path))
        raise DatasetError(f"{name}: only .jsonl, .json and .parquet files can be read, not {suffix or 'no suffix'}")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        saved = datasets.load_from_disk(str(path))
        if isinstance(saved, datasets.Dataset):
            return saved
        if split not in saved:
            raise DatasetError(f"{name} has no split {split!r}; it has {', '.join(map(str, saved))}")
        return saved[split]
    if not path.is_dir() and (suffix in (".jsonl", ".json", ".parquet") or name.startswith(("/", ".", "~"))):
        raise DatasetError(f"{name}: no such file or folder (the working folder is {Path.cwd()})")
    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # the hub's errors have no common base class
        raise DatasetError(
            f"{name}, split {split!r}, could not be loaded: {type(error).__name__}: {error}\n"
            "Check the name and the split, and that this machine can reach the Hugging Face hub or has it cached; "
            "or give a local .jsonl or .parquet file."
        ) from error


def _read_json(path: Path) -> Iterator[tuple[int, Row]]:
    """(row number, row) of a file with one object a line, or with one array of objects."""
    with path.open(encoding="utf-8") as lines:
        if path.suffix.lower() == ".json" and (text := lines.read()).lstrip().startswith("["):
            try:
                found: Iterable[tuple[int, Any]] = list(enumerate(json.loads(text), start=1))
            except json.JSONDecodeError as error:
                raise DatasetError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from error
        else:
            lines.seek(0)
            found = _read_lines(path, lines)
        try:
            for number, row in found:
                if not isinstance(row, dict):
                    raise DatasetError(f"{path}, row {number}: a row must be an object, not {type(row).__name__}")
                yield number, row
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path} is not UTF-8 text: {error}") from error


def _read_lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(
                f"{path}, line {number}: not valid JSON ({error.msg} at column {error.colno}): {line.strip()[:80]!r}. "
                "Repair or remove the line; a file that was cut off while it was written ends like this."
            ) from error


def _from_rows(numbered: list[tuple[int, Row]], name: str) -> Dataset:
    from datasets import Dataset

    if not numbered:
        raise DatasetError(f"{name} holds no rows")
    # Dataset.from_list would take the columns of the first row alone.
    columns = dict.fromkeys(key for _, row in numbered for key in row)
    values: dict[str, list[Any]] = {column: [row.get(column) for _, row in numbered] for column in columns}
    values[ORIGIN] = [name] * len(numbered)
    values[ORIGIN_ROW] = [number for number, _ in numbered]
    # Content may be text in one row and parts in another, ground_truth text or a list.
    return Dataset.from_dict(values, on_mixed_types="use_json")


def _require_columns(rows: Dataset, name: str) -> None:
    missing = [column for column in CONTRACT_COLUMNS if column not in rows.column_names]
    if missing:
        there = ", ".join(column for column in rows.column_names if column not in (ORIGIN, ORIGIN_ROW))
        raise DatasetError(
            f"{name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has {there}. A row needs "
            "messages (role, content), dataset (the verifier's name) and ground_truth (for general-flip the "
            "text to be recovered)."
        )


def _with_origin(rows: Dataset, name: str) -> Dataset:
    if ORIGIN_ROW in rows.column_names:
        return rows
    rows = rows.remove_columns([column for column in (ORIGIN, "index") if column in rows.column_names])
    rows = rows.add_column(ORIGIN, [name] * len(rows))
    return rows.add_column(ORIGIN_ROW, list(range(1, len(rows) + 1)))


def _choose(total: int, amount: str, name: str, generator: random.Random) -> list[int]:
    """Positions to keep, in their old order."""
    try:
        count = round(float(amount) * total) if "." in amount else int(amount)
    except ValueError:
        raise DatasetError(
            f"{name}: the amount {amount!r} is neither a share (0.5) nor a number of rows (64)"
        ) from None
    if not 0 < count <= total:
        raise DatasetError(f"{name}: {amount} asks for {count} rows of {total}; 1.0 takes all, 64 takes 64")
    return list(range(total)) if count == total else sorted(generator.sample(range(total), count))


def _concatenate(parts: list[Dataset]) -> Dataset:
    if len(parts) == 1:
        return parts[0]
    from datasets import Dataset, concatenate_datasets

    columns = [*CONTRACT_COLUMNS, ORIGIN, ORIGIN_ROW]
    parts = [part.select_columns(columns) for part in parts]
    if all(part.features == parts[0].features for part in parts):
        return concatenate_datasets(parts)
    # Sets differ in details, such as extra keys of a message: go through plain Python.
    values: dict[str, list[Any]] = {column: [value for part in parts for value in part[column]] for column in columns}
    return Dataset.from_dict(values, on_mixed_types="use_json")


# --- checking ------------------------------------------------------------------------------------


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


class _Labels:
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
            if isinstance(label, str) or (key != FLIP_VERIFIER and isinstance(label, Sequence)):
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
    known = _Labels(known_verifiers)
    reported, problems, bad_rows = [], 0, 0
    for number, row in enumerate(rows, start=1):
        found = [*_message_problems(row.get("messages")), *_verifier_problems(row, known)]
        bad_rows += bool(found)
        problems += len(found)
        where = f"row {row.get(ORIGIN_ROW, number)} of {row.get(ORIGIN, 'the data')}"
        reported += [f"  {where}, {field}: {text}" for field, text in found[: MAX_REPORTED - len(reported)]]
    if problems:
        more = f"\n  ... and {problems - len(reported)} more" if problems > len(reported) else ""
        count = f"{problems} problem{'s' * (problems > 1)} in {bad_rows} row{'s' * (bad_rows > 1)}"
        raise DatasetError(f"{count} of the data:\n" + "\n".join(reported) + more)


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


def _verifier_problems(row: Mapping[str, Any], known: _Labels) -> Iterator[tuple[str, str]]:
    names, truth = row.get("dataset"), row.get("ground_truth")
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    names = list(names) if listed else [names]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        yield "dataset", "is missing: write the name of the verifier, such as general-flip"
        return
    for name in names:
        if name.lower() not in known.names:
            close = difflib.get_close_matches(name.lower(), known.names, n=1)
            there = ", ".join(sorted(known.names)) or "none"
            advice = f"did you mean {close[0]!r}?" if close else f"there are {there}"
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
