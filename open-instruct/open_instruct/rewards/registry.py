"""The verifiers of a run, by the name in a row's `dataset` column: collected, renamed, weighed, and looked up.

A verifier is a direct subclass of `VerifierFunction`, or a plain function of (response, label), which has its entry
point's name. `build_all_verifiers` makes one of each that is imported or that an installed package offers
(entry-point groups ``open_instruct.verifiers`` and, for judge types, ``open_instruct.judges``). Those without a
judge (`gsm8k`, `math`, `ifeval`, `string_f1`) are in `open_instruct.verifiers`; what a row's verifiers come to is in
`open_instruct.rewards.row_reward`.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import open_instruct.verifiers  # noqa: F401 - its classes are found as subclasses
from flip_plugin import plugins
from flip_plugin.errors import did_you_mean
from flip_plugin.plugins import JUDGE_GROUP, VERIFIER_GROUP, PluginError
from open_instruct.config.args import FlagError
from open_instruct.rewards.judge_types import JudgeSpec, judge_specs
from open_instruct.rewards.judge_verifier import LMJudgeVerifier, LMJudgeVerifierConfig
from open_instruct.verifiers.base import FunctionVerifier, UnknownVerifier, VerifierFunction

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def build_all_verifiers(args: Any, streaming_config: Any = None) -> dict[str, VerifierFunction]:
    """One instance of every verifier, by lower-case name.

    Classes first (imported direct subclasses, then installed packages'), then plain functions, then a
    `LMJudgeVerifier` for each judge type that no class has taken; ``remap_verifier`` ("old=new") last.
    Raises ValueError when two verifiers share a name, and `PluginError` for an entry point that cannot be used.
    """
    verifiers: dict[str, VerifierFunction] = {}
    offered = [(point, plugins.load(point)) for point in plugins.entry_points(VERIFIER_GROUP)]
    for cls in _verifier_classes(offered):
        config = cls.get_config_class().from_args(args, streaming_config)
        _add(verifiers, cls(config))  # ty: ignore[invalid-argument-type]
    for point, function in offered:
        if not inspect.isclass(function):
            plugins.find(VERIFIER_GROUP, point.name)  # two packages may have chosen one name
            _add(verifiers, FunctionVerifier(point.name, function))
    config = LMJudgeVerifierConfig.from_args(args, streaming_config)
    for name, spec in _judge_types().items():
        if f"general-{name}".lower() not in verifiers:
            _add(verifiers, LMJudgeVerifier(spec, config))
    _remap(verifiers, getattr(args, "remap_verifier", None) or getattr(streaming_config, "remap_verifier", None))
    return verifiers


def _verifier_classes(offered: Sequence[tuple[EntryPoint, Any]]) -> list[type[VerifierFunction]]:
    """The verifiers' classes, those that are imported and those that packages offer."""
    # By full name: a module that is loaded twice must not count twice.
    classes = {(cls.__module__, cls.__qualname__): cls for cls in VerifierFunction.__subclasses__()}
    for point, cls in offered:
        if inspect.isclass(cls) and issubclass(cls, VerifierFunction):
            classes[cls.__module__, cls.__qualname__] = cls
        elif not _is_plain_function(cls):
            raise PluginError(f"{plugins.describe(point)} is neither a subclass of VerifierFunction nor a function")
    ours = (LMJudgeVerifier, FunctionVerifier)  # made for a judge type, or for a function
    return [cls for cls in classes.values() if cls not in ours and not inspect.isabstract(cls)]


def _is_plain_function(offered: Any) -> bool:
    """Whether an entry point's object can be called as (response, label) for a score, at once and not by `await`."""
    if inspect.isclass(offered) or isinstance(offered, VerifierFunction) or not callable(offered):
        return False
    return not (inspect.iscoroutinefunction(offered) or inspect.iscoroutinefunction(type(offered).__call__))


def _judge_types() -> dict[str, JudgeSpec]:
    """The judge types of the maps, and those that packages offer."""
    specs = judge_specs()
    for point in plugins.entry_points(JUDGE_GROUP):
        spec = plugins.load(point)
        if not isinstance(spec, JudgeSpec):
            raise PluginError(f"{plugins.describe(point)} is a {type(spec).__name__}, not a JudgeSpec")
        if spec.name in specs:
            raise PluginError(f"{plugins.describe(point)}: judge type {spec.name!r} exists already")
        specs[spec.name] = spec
    return specs


def _add(verifiers: dict[str, VerifierFunction], verifier: VerifierFunction) -> None:
    key = verifier.name.lower()
    if key in verifiers:
        one, other = type(verifiers[key]), type(verifier)
        raise ValueError(
            f"two verifiers are called {key!r}: {one.__module__}.{one.__qualname__} "
            f"and {other.__module__}.{other.__qualname__}"
        )
    verifiers[key] = verifier


def _remap(verifiers: dict[str, VerifierFunction], remap: str | None) -> None:
    if not remap:
        return
    old, equals, new = (part.strip().lower() for part in remap.partition("="))
    if not (old and equals and new):
        raise ValueError(f"--remap_verifier {remap!r} is not of the form old=new")
    if new not in verifiers:
        raise UnknownVerifier(f"--remap_verifier {remap!r}: {_unknown(new, verifiers)}")
    verifiers[old] = verifiers[new]


def weigh_verifiers(verifiers: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """`verifiers` with the weights of ``--verifier_weights NAME=WEIGHT ...``; the others keep their own.

    Raises `FlagError` for words of another form, names that are no verifier's, and names given twice.
    """
    weighed = dict(verifiers)
    given = set()
    for word in words:
        name, equals, number = word.rpartition("=")
        name = name.strip().lower()
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not (name and equals and math.isfinite(weight)):
            raise FlagError(f"--verifier_weights {word}: write NAME=WEIGHT, such as general-flip=0.5.")
        if name not in verifiers:
            raise FlagError(f"--verifier_weights {word}: not among {', '.join(sorted(verifiers))}.")
        if name in given:
            raise FlagError(f"--verifier_weights names {name} twice.")
        given.add(name)
        weighed[name] = copy.copy(verifiers[name])  # a remapped name shares its verifier with another
        weighed[name].weight = weight
    return weighed


def check_verifier_names(
    names_by_row: Iterable[str | Sequence[str]], verifiers: Mapping[str, VerifierFunction]
) -> None:
    """Raise `UnknownVerifier` unless every name in a `dataset` column is a verifier's.

    Names are compared in lower case; rows are counted from 1.
    """
    bad: dict[str, list[int]] = {}
    for number, names in enumerate(names_by_row, start=1):
        for name in [names] if isinstance(names, str) else names or [""]:
            if str(name).lower() not in verifiers:
                bad.setdefault(str(name), []).append(number)
    if bad:
        lines = []
        for name, rows in bad.items():
            more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
            lines.append(f"row {rows[0]}{more}: {_unknown(name, verifiers)}")
        known = ", ".join(sorted(verifiers))
        raise UnknownVerifier("\n".join(lines) + f"\nThe column 'dataset' must name one of: {known}")


def _unknown(name: str, verifiers: Mapping[str, VerifierFunction]) -> str:
    advice = did_you_mean(name.lower(), verifiers)
    return f"no verifier is called {name!r}" + (f"; {advice}" if advice else "")
