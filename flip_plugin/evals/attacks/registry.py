"""`Attack`, and the table of them by name.

An attack is a pure function ``(item, response, rng) -> response``: what a policy that wants a
high score, and not to do the work, would write in place of `response`. It may read the whole
item (the policy knows its prompt), never a judge's reply. A response of it always holds some text.

Add one from outside with `register`, or from an installed package in the entry-point group
``flip_plugin.attacks``: the name of the entry point is that of the attack, its object the function.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from flip_plugin import plugins
from flip_plugin.evals.records.items import EvalItem
from flip_plugin.prompts.target import NoTarget, find_target

Apply = Callable[[EvalItem, str, random.Random], str]

ENTRY_POINT_GROUP = "flip_plugin.attacks"


@dataclass(frozen=True)
class Attack:
    """One way to attack. `family` is the kind it belongs to, `summary` a line for tables and help."""

    name: str
    family: str
    summary: str
    apply: Apply

    def __call__(self, item: EvalItem, response: str, *, seed: int = 0) -> str:
        """`response`, attacked. The same seed, item and attack give the same text."""
        rng = random.Random(f"{seed} {self.name} {item.id}".encode("utf-8", "surrogatepass"))
        return self.apply(item, response, rng)


ATTACKS: dict[str, Attack] = {}


def register(name: str, family: str) -> Callable[[Apply], Apply]:
    """Decorator: the function becomes attack `name`; the first line of its docstring its summary.

    Raises ValueError when the name is taken or the docstring is missing.
    """

    def add(apply: Apply) -> Apply:
        if name in ATTACKS:
            raise ValueError(f"there is an attack {name!r} already")
        ATTACKS[name] = Attack(name, family, _summary(name, apply), apply)
        return apply

    return add


def get_attacks(names: Sequence[str]) -> list[Attack]:
    """The attacks of these names, families (all of theirs) or ``all``, each once, in this order.

    Raises ValueError with the known names.
    """
    chosen: dict[str, Attack] = {}
    for name in names:
        if name == "all":
            chosen |= ATTACKS
        elif name in ATTACKS:
            chosen[name] = ATTACKS[name]
        elif family := {key: one for key, one in ATTACKS.items() if one.family == name}:
            chosen |= family
        else:
            chosen[name] = _from_entry_point(name)
    return list(chosen.values())


def families() -> list[str]:
    """The kinds of attack, in the order of the table."""
    return list(dict.fromkeys(attack.family for attack in ATTACKS.values()))


def instruction_of(item: EvalItem) -> str:
    """What FLIP would have the judge recover: the text that an echo repeats. "" where the prompt has no target.

    ``item.meta["target"]`` chooses the turn, as `FlipReward`'s `target` does.
    """
    try:
        return find_target(item.prompt, item.meta.get("target", "auto")).instruction
    except NoTarget:
        return ""


def with_function(attack: Attack, apply: Apply) -> Attack:
    """`attack` with another function: for those that depend on a prompt folder or a model."""
    return replace(attack, apply=apply)


def _from_entry_point(name: str) -> Attack:
    if point := plugins.find(ENTRY_POINT_GROUP, name):
        apply = plugins.load(point)
        if not callable(apply):
            raise ValueError(f"attack {plugins.describe(point)} is no function of (item, response, rng)")
        return Attack(name, "installed", _summary(name, apply), apply)
    known = ", ".join([*ATTACKS, *plugins.names(ENTRY_POINT_GROUP)])
    raise ValueError(f"unknown attack {name!r}; known: {known}; families: {', '.join(families())}; or all")


def _summary(name: str, apply: Apply) -> str:
    lines = (apply.__doc__ or "").strip().splitlines()
    if not lines:
        raise ValueError(f"attack {name!r} has no docstring: its first line is what tables say of it")
    return lines[0]
