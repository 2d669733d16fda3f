"""How flags are shown: `--help`, and the tables of docs/flags.md.

python -m open_instruct.config.help flags       the table of docs/flags.md
python -m open_instruct.config.help groups      its table of groups
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import MISSING, Field, fields
from typing import Any

from open_instruct.config.flags import GROUPS


class FlagHelp(argparse.ArgumentDefaultsHelpFormatter):
    """One name a flag, with underscores, its other names in brackets; values as a plain word."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=40)

    @staticmethod
    def hide_negations(parser: argparse.ArgumentParser) -> None:
        """``--no_x`` is the same as ``--x False``, and would double the list."""
        for action in parser._actions:
            if isinstance(action, argparse._StoreFalseAction):
                action.help = argparse.SUPPRESS

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # "(default: None)" says nothing.
        return action.help if action.default in (None, "", []) else super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or not action.option_strings[0].startswith("--"):
            return super()._format_action_invocation(action)
        name = action.option_strings[0]
        hyphens = name.replace("_", "-").replace("--", "", 1).lstrip("-")
        others = [o for o in action.option_strings[1:] if o.lstrip("-") != hyphens]
        return " ".join([name, self._value(action), *(f"(or {o})" for o in others)]).strip()

    def _value(self, action: argparse.Action) -> str:
        if action.nargs == 0:
            return ""
        if action.choices is not None:
            return "|".join(map(str, action.choices))
        if action.nargs == "?":
            return "True|False"
        return "VALUE ..." if action.nargs == "+" else "VALUE"


def default_text(one: Field[Any]) -> str:
    """A flag's default as it would be typed; "-" where nothing is given."""
    value = one.default if one.default_factory is MISSING else one.default_factory()
    if value in (None, "", []):
        return "-"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def names(one: Field[Any]) -> str:
    """All names of a flag, its own first."""
    return ", ".join(f"`--{name.removeprefix('--')}`" for name in [one.name, *one.metadata.get("aliases", [])])


def flags_table() -> str:
    """Markdown: a section for each group, a row for each flag with default and meaning."""
    lines: list[str] = []
    for group in GROUPS:
        lines += [f"## {group._argument_group_name}", "", "| flag | default | |", "|---|---|---|"]
        for one in fields(group):
            text = str(one.metadata["help"]).replace("|", "\\|")
            lines.append(f"| {names(one)} | `{default_text(one)}` | {text} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def groups_table() -> str:
    """Markdown: a row for each group with its flags' names."""
    lines = ["| group | flags |", "|---|---|"]
    for group in GROUPS:
        flags = " ".join(f"`{one.name}`" for one in fields(group))
        lines.append(f"| {group._argument_group_name} | {flags} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    tables = {"flags": flags_table, "groups": groups_table}
    if len(sys.argv) != 2 or sys.argv[1] not in tables:
        sys.exit("usage: python -m open_instruct.config.help flags|groups")
    print(tables[sys.argv[1]](), end="")
