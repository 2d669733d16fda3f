"""What installed packages add to this project, by entry points: similarities, attacks, verifiers, judge types.

`importlib.metadata` is imported where it is used, as it takes longer than the rest of this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


#: Classes of verifiers, or plain functions of (response, label), each a verifier under its entry point's name.
VERIFIER_GROUP = "open_instruct.verifiers"
#: Judge types: what a judge is asked, and how its reply is read.
JUDGE_GROUP = "open_instruct.judges"


class PluginError(ValueError):
    """What an installed package adds cannot be used; the text names the package."""


def entry_points(group: str) -> list[EntryPoint]:
    """All that installed packages offer under `group`."""
    from importlib import metadata

    return list(metadata.entry_points(group=group))


def names(group: str) -> list[str]:
    """The names under `group`, each once, sorted."""
    return sorted({point.name for point in entry_points(group)})


def find(group: str, name: str) -> EntryPoint | None:
    """The one entry point called `name`; None where no package has it. Raises `PluginError` where several do."""
    points = [point for point in entry_points(group) if point.name == name]
    if len(points) > 1:
        offers = "; ".join(map(describe, points))
        raise PluginError(f"{name!r} is ambiguous, uninstall one of these packages: {offers}")
    return points[0] if points else None


def load(point: EntryPoint) -> Any:
    """The object that an entry point names. Raises `PluginError` where it cannot be imported."""
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{describe(point)} cannot be imported: {error}. Repair or uninstall that package") from error


def describe(point: EntryPoint) -> str:
    """An entry point in words, with the package that offers it."""
    package = f" of package {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"entry point {point.name!r} = {point.value!r} ({point.group}){package}"
