"""What runs were started with: flags in their groups, with defaults and meanings, and the rest of `config.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

from flip_plugin.files.redaction import without_secrets
from flip_plugin.pages.text import all_visible
from open_instruct.config.flags import GROUPS
from open_instruct.report.numbers import MAX_CHARS, Row


def settings(configs: Sequence[Row]) -> Row:
    """`groups` of flags, each with a value a run, its default and help; `facts`, a run each: all that is no flag.

    A flag that this version does not know is in the group "other flags".
    """
    shown = [all_visible(without_secrets(config), MAX_CHARS) for config in configs]
    given: list[Row] = [config["flags"] if isinstance(config.get("flags"), dict) else {} for config in shown]
    named: set[str] = set()
    groups: list[Row] = []
    for group in GROUPS:
        flags = [
            _flag(one.name, given, all_visible(_default(one), MAX_CHARS), one.metadata["help"]) for one in fields(group)
        ]
        named |= {one.name for one in fields(group)}
        flags = [flag for flag in flags if flag is not None]
        if flags:
            groups.append({"title": getattr(group, "_argument_group_name", group.__name__), "flags": flags})
    unknown = [name for flags in given for name in flags if name not in named]
    if unknown:
        flags = [{"name": name, "values": [f.get(name) for f in given]} for name in dict.fromkeys(unknown)]
        groups.append({"title": "other flags", "flags": flags})
    facts = [
        {name: value for name, value in config.items() if name != "flags" or not given[i]}
        for i, config in enumerate(shown)
    ]
    return {"groups": groups, "facts": facts}


def _flag(name: str, given: Sequence[Row], default: Any, help_text: str) -> Row | None:
    if not any(name in flags for flags in given):
        return None
    return {"name": name, "values": [flags.get(name) for flags in given], "default": default, "help": help_text}


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
