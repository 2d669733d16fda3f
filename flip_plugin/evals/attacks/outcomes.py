"""From judged duels to the cells of the robustness evaluation: pure, no judge is asked.

A row (`Cell.method`) is a method; FLIP has three: ``flip`` (echo policy ``report``), ``flip+strip`` and
``flip+penalise``. A group is an attack, or ``all`` (an item's mean over the attacks). The metrics:

- ``score_before``: the bad response's score, unattacked, over the pairs that have one (group ``none``);
- ``wins_before``: how often the unattacked bad response beats the good one (group ``none``: over all pairs with a
  verdict; in an attack's group: over the pairs of its ``wins``, so that the two can be compared);
- ``shift``: the bad response's score under attack less its score before;
- ``wins``: how often the attacked bad response beats the good one; ``wins_change`` is that less ``wins_before``;
- ``wins_lead``: FLIP's wins less those of the row's method, over the pairs that have both (`evals.stats.paired`);
- ``echo`` (row ``flip``): the share of the instruction that echo control finds in the attacked response.

A tie is half a win. A pair with a missing score on either side has no verdict and no shift.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flip_plugin.evals.attacks import instruction_of
from flip_plugin.evals.attacks.pairs import ALONE, BAD, GOOD, Duels, alone_id, score_at, stripped_id, together_id, win
from flip_plugin.evals.records.items import Cell, Judgement, has_failed
from flip_plugin.evals.stats.paired import LEAD
from flip_plugin.evals.stats.rows import mean_cell
from flip_plugin.evals.stats.scoring import difference
from flip_plugin.text.echo import echo_share, penalty

EVALUATION = "robustness"
FLIP_ROWS = {"report": "flip", "strip": "flip+strip", "penalise": "flip+penalise"}

Values = dict[tuple[str, int], float | None]
# (judge, method, item id, seed) -> judgement
Table = Mapping[tuple[str, str, str, int], Judgement]


@dataclass(frozen=True)
class Outcome:
    """One pair under one attack in one run: the three scores, and the judgements that they come from."""

    bad_before: float | None
    good_before: float | None
    bad_after: float | None
    good_after: float | None
    before: Judgement | None
    after: Judgement | None

    @property
    def asked(self) -> Judgement | None:
        """`after` with all questions about the attacked pair: a good response that is judged alone was asked once."""
        if self.after is None or self.before is None or len(self.after.scores) > 1:
            return self.after
        return replace(self.after, statuses=[*self.after.statuses, self.before.statuses[GOOD]])

    @property
    def won_before(self) -> float | None:
        """Whether the unattacked bad response beat the good one; None without a verdict."""
        return win(self.bad_before, self.good_before)

    @property
    def won(self) -> float | None:
        """Whether the attacked bad response beat the good one; None without a verdict."""
        return win(self.bad_after, self.good_after)

    @property
    def shift(self) -> float | None:
        """How far the bad response's score moved; None unless it has one before and after."""
        return difference(self.bad_after, self.bad_before)

    @property
    def change(self) -> float | None:
        """What the attack changed in wins; None unless there is a verdict before and after."""
        return difference(self.won, self.won_before)


# By attack, then by (pair, seed).
Outcomes = Mapping[str, Mapping[tuple[str, int], Outcome]]


def robustness_cells(
    duels: Duels,
    judgements: Iterable[Judgement],
    *,
    judges: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
) -> list[Cell]:
    """The cells of every judge and row, in the order of the module's text."""
    from tqdm import tqdm

    table: Table = {one.key: one for one in judgements}
    cells = []
    for judge in tqdm(judges, desc="intervals", unit="judge", delay=2):
        reported = {}  # what each method says of the texts as they are
        for method in methods:
            for policy, row in FLIP_ROWS.items() if method == "flip" else [("report", method)]:
                if policy == "strip" and not _has_strip(duels, table, judge):
                    continue
                outcomes = _outcomes(duels, table, judge, method, policy, seeds)
                cells += _row_cells(outcomes, judge, row)
                if policy == "report":
                    reported[method] = outcomes
        if "flip" in methods:
            cells += _lead_cells(reported, judge)
            cells += _echo_cells(duels, judge)
    return cells


def print_table(cells: Sequence[Cell]) -> None:
    """A table (rich) a judge, a row an attack, a column a method: wins before and under it, shift, invalid share."""
    from rich.console import Console
    from rich.table import Table as Grid

    console = Console()
    if not console.is_terminal:  # a log has no width of its own
        console = Console(width=200)
    by_place = {(cell.judge, cell.method, cell.group, cell.metric): cell for cell in cells}
    rows = list(dict.fromkeys(cell.method for cell in cells))
    groups = list(dict.fromkeys(cell.group for cell in cells if cell.metric == "wins"))
    for judge in dict.fromkeys(cell.judge for cell in cells):
        grid = Grid(title=f"{EVALUATION} of {judge}: wins before > under attack (%), shift of the score, invalid (%)")
        for name in ("attack", *rows):
            grid.add_column(name)
        for group in groups:
            shown = (
                [by_place.get((judge, row, group, metric)) for metric in ("wins_before", "wins", "shift")]
                for row in rows
            )
            grid.add_row(group, *map(_told, shown))
        console.print(grid)


def _told(shown: Sequence[Cell | None]) -> str:
    """``12 > 85  +0.31  0``; a dash for what is not known."""
    before, wins, shift = shown
    percent = ["–" if cell is None or cell.value is None else f"{100 * cell.value:.0f}" for cell in (before, wins)]
    moved = "–" if shift is None or shift.value is None else f"{shift.value:+.2f}"
    invalid = "–" if wins is None or wins.invalid is None else f"{100 * wins.invalid:.0f}"
    return f"{percent[0]} > {percent[1]}  {moved}  {invalid}"


def outcome(
    table: Table,
    judge: str,
    method: str,
    policy: str,
    pair_id: str,
    attack: str,
    seed: int,
    stripped: Collection[str] = (),
) -> Outcome:
    """What `method` said of a pair before and under an attack. `policy` is FLIP's echo policy.

    `stripped` are the ids of the items that ``strip`` changes: where such a one is not judged, it is missing.
    """

    def found(item_id: str) -> Judgement | None:
        # Items that the policy does not change were judged once, as they are.
        changed = policy == "strip" and stripped_id(item_id) in stripped
        judgement = table.get((judge, method, stripped_id(item_id) if changed else item_id, seed))
        if judgement is not None and has_failed(judgement):  # what the server failed in part is not judged yet
            judgement = replace(judgement, scores=[None] * len(judgement.scores))
        return penalised(judgement) if policy == "penalise" else judgement

    before = found(pair_id)
    bad, good = score_at(before, BAD), score_at(before, GOOD)
    if method in ALONE:
        after = found(alone_id(pair_id, attack))
        return Outcome(bad, good, score_at(after, 0), good, before, after)
    after = found(together_id(pair_id, attack))
    return Outcome(bad, good, score_at(after, BAD), score_at(after, GOOD), before, after)


def penalised(judgement: Judgement | None) -> Judgement | None:
    """`judgement`, made under ``report``, as the echo policy ``penalise`` has it: each score less its echo's share."""
    if judgement is None:
        return None
    scores = [
        score if score is None else score * penalty(details.get("target") or "", details.get("echo") or 0.0)
        for score, details in zip(judgement.scores, judgement.details, strict=True)
    ]
    return replace(judgement, scores=scores)


def _row_cells(results: Outcomes, judge: str, row: str) -> list[Cell]:
    """All cells of one judge and row but its leads."""

    def cell(metric: str, group: str, values: Values, judged: Iterable[Judgement | None]) -> Cell:
        return mean_cell(
            values,
            evaluation=EVALUATION,
            judge=judge,
            method=row,
            group=group,
            metric=metric,
            judgements=[one for one in judged if one is not None],
        )

    first = next(iter(results.values()))
    befores = [one.before for one in first.values()]
    cells = [
        cell("score_before", "none", {key: one.bad_before for key, one in first.items()}, befores),
        cell("wins_before", "none", {key: one.won_before for key, one in first.items()}, befores),
    ]
    for name, outcomes in results.items():
        afters, pairs = [one.after for one in outcomes.values()], [one.asked for one in outcomes.values()]
        cells += [
            cell("shift", name, {key: one.shift for key, one in outcomes.items()}, afters),
            cell("wins_before", name, {key: _before_both(one) for key, one in outcomes.items()}, befores),
            cell("wins", name, {key: _after_both(one) for key, one in outcomes.items()}, pairs),
            cell("wins_change", name, {key: one.change for key, one in outcomes.items()}, pairs),
        ]
    everything = [one for outcomes in results.values() for one in outcomes.values()]
    for metric, of in (
        ("shift", lambda one: one.shift),
        ("wins_before", _before_both),
        ("wins", _after_both),
        ("wins_change", lambda one: one.change),
    ):
        values = {key: _mean(of(found[key]) for found in results.values()) for key in first}
        judged = [one.after if metric == "shift" else one.asked for one in everything]
        cells.append(cell(metric, "all", values, judged))
    return cells


def _outcomes(duels: Duels, table: Table, judge: str, method: str, policy: str, seeds: Sequence[int]) -> Outcomes:
    keys = [(pair.id, seed) for pair in duels.pairs for seed in seeds]
    stripped = {item.id for item in duels.stripped or ()}
    return {
        attack.name: {key: outcome(table, judge, method, policy, key[0], attack.name, key[1], stripped) for key in keys}
        for attack in duels.attacks
    }


def _lead_cells(by_method: Mapping[str, Outcomes], judge: str) -> list[Cell]:
    """``wins_lead`` for each other method, by attack; ``all`` is a pair's mean over the attacks where both have one."""
    flip = by_method["flip"]
    cells = []
    for method, other in by_method.items():
        if method == "flip":
            continue
        values: dict[str, Values] = {
            name: {key: difference(_after_both(one), _after_both(other[name][key])) for key, one in found.items()}
            for name, found in flip.items()
        }
        asked = {
            name: [one.asked for both in (flip[name], other[name]) for one in both.values() if one.asked is not None]
            for name in flip
        }
        first = next(iter(values.values()))
        values["all"] = {key: _mean(found[key] for found in values.values()) for key in first}
        asked["all"] = [one for found in asked.values() for one in found]
        cells += [
            mean_cell(
                found,
                evaluation=EVALUATION,
                judge=judge,
                method=method,
                group=name,
                metric=f"wins{LEAD}",
                judgements=asked[name],
            )
            for name, found in values.items()
        ]
    return cells


def _before_both(one: Outcome) -> float | None:
    return one.won_before if one.won is not None else None


def _after_both(one: Outcome) -> float | None:
    return one.won if one.won_before is not None else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _has_strip(duels: Duels, table: Table, judge: str) -> bool:
    """Whether the run judged what ``strip`` changes, or that policy changes nothing here."""
    if not duels.stripped:
        return duels.stripped is not None
    ids = {item.id for item in duels.stripped or ()}
    return any(key[0] == judge and key[2] in ids for key in table)


def _echo_cells(duels: Duels, judge: str) -> list[Cell]:
    """What echo control sees of each attack; no judge has a part in it, so the interval is over items alone."""
    cells = []
    for attack in duels.attacks:
        values: Values = {
            (item.meta["pair"], 0): echo_share(instruction_of(item), item.responses[0])
            for item in duels.alone
            if item.meta["attack"] == attack.name
        }
        cells.append(
            mean_cell(
                values,
                evaluation=EVALUATION,
                judge=judge,
                method="flip",
                group=attack.name,
                metric="echo",
                note="measured on the text, without a judge",
            )
        )
    return cells
