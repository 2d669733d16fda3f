"""Where prompts come from: the data sets known by name, and which of their columns hold the prompt and the labels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from flip_plugin.rows.checks import DatasetError


@dataclass(frozen=True)
class Source:
    """A data set's schema; of several names for a column the first that is there is taken.

    `required` are the kinds of column (fields of `Columns`) without which a file is refused;
    the others are used where they are there.
    """

    name: str
    hub: str | None
    prompt: tuple[str, ...]
    split: str = "train"
    id: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    toxic: tuple[str, ...] = ()
    redacted: tuple[str, ...] = ()
    moderation: tuple[str, ...] = ()
    required: tuple[str, ...] = ("prompt",)


@dataclass(frozen=True)
class Columns:
    """The columns of one file that are read. None: the file has no such label.

    prompt      a list of {role, content}, or the text of one user turn
    id          text that names the row in its source
    language    text, such as "English"
    toxic       true or false for the whole row
    redacted    true or false for the whole row
    moderation  a list with an object a turn; a true ``flagged`` makes the row toxic
    """

    prompt: str
    id: str | None = None
    language: str | None = None
    toxic: str | None = None
    redacted: str | None = None
    moderation: str | None = None


_LABELS: Any = {"language": ("language",), "redacted": ("redacted",)}

SOURCES = {
    source.name: source
    for source in (
        Source(
            "wildchat",
            "allenai/WildChat-1M",
            ("conversation",),
            id=("conversation_hash", "conversation_id"),
            toxic=("toxic",),
            required=("prompt", "language", "toxic", "redacted"),
            **_LABELS,
        ),
        Source(
            "lmsys",
            "lmsys/lmsys-chat-1m",
            ("conversation",),
            id=("conversation_id",),
            moderation=("openai_moderation",),
            required=("prompt", "language", "redacted", "moderation"),
            **_LABELS,
        ),
        Source("ultrafeedback", "openbmb/UltraFeedback", ("instruction", "prompt"), id=("prompt_id",)),
        Source(
            "messages",
            None,
            ("messages", "conversation", "prompt"),
            id=("id", "conversation_id", "prompt_id"),
            toxic=("toxic",),
            moderation=("openai_moderation",),
            **_LABELS,
        ),
    )
}


class MissingColumn(DatasetError):
    """A column that the source requires is missing: `reason` says which, `rest` goes on with what there is."""

    def __init__(self, reason: str, rest: str) -> None:
        super().__init__(reason, rest)  # both, so that it unpickles: workers raise it
        self.reason, self.rest = reason, rest

    def __str__(self) -> str:
        return self.reason + self.rest


def choose_columns(source: Source, present: Collection[str], name: str) -> Columns:
    """The columns of `source` among those that are `present` in a file or a row, which messages call `name`.

    Raises `MissingColumn`.
    """
    chosen: dict[str, Any] = {}
    for kind in ("prompt", "id", "language", "toxic", "redacted", "moderation"):
        wanted: tuple[str, ...] = getattr(source, kind)
        chosen[kind] = next((column for column in wanted if column in present), None)
        if chosen[kind] is None and kind in source.required:
            raise MissingColumn(
                f"{name} has no column {' or '.join(wanted)}",
                f"; it has {', '.join(sorted(present))}. "
                f"Is it a file of {source.hub or 'messages'}? --source names other schemas.",
            )
    return Columns(**chosen)
