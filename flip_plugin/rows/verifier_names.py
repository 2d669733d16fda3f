"""The names that a row's `dataset` column may hold: the trainer's own, and those of installed packages.

What an installed package offers under `VERIFIER_GROUP` is a class of verifiers, or a plain function of
(response, label), which is known by its entry point's name; under `JUDGE_GROUP` it is a judge type, whose verifier
is ``general-NAME``.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from flip_plugin import plugins
from flip_plugin.plugins import JUDGE_GROUP, VERIFIER_GROUP
from flip_plugin.rows.checks import DatasetError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: The `dataset` column of each judge type; other judge types are general-NAME.
JUDGE_TYPES = {"flip": "general-flip", "quality": "general-quality"}
#: Names that the trainer knows, whether it is installed here or not.
BUILT_IN = (*JUDGE_TYPES.values(), "gsm8k", "math", "ifeval", "string_f1")


def dataset_of(judge_type: str) -> str:
    """The `dataset` column of a judge type, given as ``flip`` or as ``general-flip``."""
    name = judge_type.strip().lower()
    if not name:
        raise DatasetError("--judge_type is empty: flip, quality, or the name of another judge type")
    return name if name.startswith("general-") else JUDGE_TYPES.get(name, f"general-{name}")


def known_verifiers() -> dict[str, Any]:
    """Every name that a row may hold, in lower case, with its verifier, or None where labels cannot be asked about.

    Those of the trainer itself are there without it. Raises `DatasetError` for an entry point that cannot be used.
    """
    known: dict[str, Any] = dict.fromkeys(BUILT_IN)
    try:
        for point in plugins.entry_points(VERIFIER_GROUP):
            known |= _verifier_of(point)
        for point in plugins.entry_points(JUDGE_GROUP):
            known[f"general-{_judge_type_of(point)}".lower()] = None
    except plugins.PluginError as error:
        raise DatasetError(f"{error}, or name the known verifiers yourself (--verifiers)") from error
    return known


def _verifier_of(point: EntryPoint) -> dict[str, Any]:
    """Name and verifier of an entry point; nothing where it needs a trainer that is not installed."""
    offered = _load(point)
    if offered is None:
        return {}
    if not inspect.isclass(offered):
        plugins.find(VERIFIER_GROUP, point.name)  # two packages may have chosen one name
        return {point.name.lower(): None}
    if not hasattr(offered, "get_config_class"):
        what = "is neither a subclass of VerifierFunction nor a function"
        raise plugins.PluginError(f"{plugins.describe(point)} {what}. Repair or uninstall that package")
    verifier = offered(offered.get_config_class().from_args())
    return {verifier.name.lower(): verifier}


def _judge_type_of(point: EntryPoint) -> str:
    spec = _load(point)
    if spec is not None and not hasattr(spec, "name"):
        what = f"is a {type(spec).__name__}, not a JudgeSpec"
        raise plugins.PluginError(f"{plugins.describe(point)} {what}. Repair or uninstall that package")
    return point.name if spec is None else spec.name


def _load(point: EntryPoint) -> Any:
    """What the entry point names; None where it needs a trainer that is not installed."""
    try:
        return plugins.load(point)
    except plugins.PluginError as error:
        if getattr(error.__cause__, "name", None) == "open_instruct":
            return None
        raise
