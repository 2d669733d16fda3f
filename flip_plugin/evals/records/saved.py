"""What analyses of finished runs share: a run folder's items and judgements, and the names in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flip_plugin.errors import CommandError
from flip_plugin.evals.records.items import TIES, EvalItem, Judgement
from flip_plugin.evals.records.journal import read_judgements
from flip_plugin.evals.records.runs import load_run


def read_run(path: str | Path) -> tuple[list[EvalItem], list[Judgement]]:
    """Items and judgements of a run folder, in the order in which the run was given its judges and methods.

    Judgements of other items are left out. Raises `CommandError` when it is no run folder, or nothing is judged yet.
    """
    config, items = load_run(path)
    known = {item.id for item in items}
    judgements = [one for one in read_judgements(path) if one.id in known]
    if not judgements:
        raise CommandError(f"{path}: nothing is judged there yet")
    judges = [judge["name"] for judge in config.get("judges") or ()]
    methods = list(config.get("methods") or ())
    judgements.sort(key=lambda one: (_place(judges, one.judge), _place(methods, one.method)))
    return items, judgements


def _place(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def names_of(judgements: Sequence[Judgement]) -> tuple[list[str], list[str], list[int]]:
    """Judges, methods and seeds, in the order in which they first appear (seeds by number)."""
    judges = list(dict.fromkeys(one.judge for one in judgements))
    methods = list(dict.fromkeys(one.method for one in judgements))
    return judges, methods, sorted({one.seed for one in judgements})


def check_output(output: str | Path, runs: Sequence[str | Path]) -> None:
    """Raises `CommandError` when the results would go into a run that is read: ``--overwrite`` would remove it."""
    if Path(output).resolve() in {Path(run).resolve() for run in runs}:
        raise CommandError(f"{output} is the run that is read: name another --output")


def judged_items(items: Sequence[EvalItem], judgements: Sequence[Judgement]) -> list[EvalItem]:
    """The judged items whose right responses are known: those that accuracy can be counted over.

    Without RewardBench 2's Ties, whose score is no share of right picks. Raises `CommandError` when there are none.
    """
    judged = {one.id for one in judgements}
    judgeable = [
        item
        for item in items
        if item.id in judged and item.right is not None and any(item.right) and not all(item.right)
        if item.subset != TIES and not {"attack", "policy"} & item.meta.keys()
    ]
    if not judgeable:
        raise CommandError("no judged item has right and wrong responses to choose from (best_of_n runs have none)")
    return judgeable
