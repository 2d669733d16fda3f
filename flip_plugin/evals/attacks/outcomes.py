"""From judged pairs to the results of the robustness evaluation: pure, no judge is asked.

A row (`Result.method`) is a method; FLIP has three: ``flip`` (echo policy ``report``), ``flip+strip`` and
``flip+penalise``. A group is an attack, or ``all`` (an item's mean over the attacks). The metrics:

- ``score_before``: the bad response's score, unattacked, over the pairs that have one (group ``none``);
- ``wins_before``: how often the unattacked bad response beats the good one (group ``none``: over all pairs with a
  verdict; in an attack's group: over the pairs of its ``wins``, so that the two can be compared);
- ``shift``: the bad response's score under attack less its score before;
- ``wins``: how often the attacked bad response beats the good one; ``wins_change`` is that less ``wins_before``;
- ``wins_lead``: the paired difference, FLIP's wins less those of the row's method, over the pairs that have both
  (`flip_plugin.evals.stats.paired`);
- ``echo`` (row ``flip``): the share of the instruction that echo control finds in the attacked response.

A tie is half a win. A pair with a missing score on either side has no verdict and no shift.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flip_plugin.evals.attacks import instruction_of
from flip_plugin.evals.attacks.pairs import ALONE, BAD, GOOD, Pairs, alone_id, score_at, stripped_id, together_id, win
from flip_plugin.evals.records.items import Judgement, Key, Result, has_failed
from flip_plugin.evals.stats.paired import PAIRED
from flip_plugin.evals.stats.results import mean_result, wide_console
from flip_plugin.evals.stats.scoring import difference, mean_of_known
from flip_plugin.text.echo import echo_share, penalty

EVALUATION = "robustness"
FLIP_ROWS = {"report": "flip", "strip": "flip+strip", "penalise": "flip+penalise"}

Values = dict[tuple[str, int], float | None]
# By what makes two judgements the same.
Table = Mapping[Key, Judgement]


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


def robustness_results(
    pairs: Pairs,
    judgements: Iterable[Judgement],
    *,
    judges: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
) -> list[Result]:
    """The results of every judge and row, in the order of the module's text."""
    from tqdm import tqdm

    table: Table = {one.key: one for one in judgements}
    results = []
    for judge in tqdm(judges, desc="intervals", unit="judge", delay=2):
        reported = {}  # by method, the outcomes of the texts as they are
        for method in methods:
            for policy, row in FLIP_ROWS.items() if method == "flip" else [("report", method)]:
                if policy == "strip" and not _has_strip(pairs, table, judge):
                    continue
                outcomes = _outcomes(pairs, table, judge, method, policy, seeds)
                results += _row_results(outcomes, judge, row)
                if policy == "report":
                    reported[method] = outcomes
        if "flip" in methods:
            results += _paired_results(reported, judge)
            results += _echo_results(pairs, judge)
    return results


def print_table(results: Sequence[Result]) -> None:
    """A table (rich) a judge, a row an attack, a column a method: wins before and under it, shift, invalid share."""
    from rich.table import Table as Grid

    console = wide_console(200)
    by_place = {(result.judge, result.method, result.group, result.metric): result for result in results}
    rows = list(dict.fromkeys(result.method for result in results))
    groups = list(dict.fromkeys(result.group for result in results if result.metric == "wins"))
    for judge in dict.fromkeys(result.judge for result in results):
        grid = Grid(title=f"{EVALUATION} of {judge}: wins before > under attack (%), shift of the score, invalid (%)")
        for name in ("attack", *rows):
            grid.add_column(name)
        for group in groups:
            shown = (
                [by_place.get((judge, row, group, metric)) for metric in ("wins_before", "wins", "shift")]
                for row in rows
            )
            grid.add_row(group, *map(_table_text, shown))
        console.print(grid)


def _table_text(shown: Sequence[Result | None]) -> str:
    """``12 > 85  +0.31  0``; a dash for what is not known."""
    before, wins, shift = shown
    percent = [
        "–" if result is None or result.value is None else f"{100 * result.value:.0f}" for result in (before, wins)
    ]
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

    def judgement_of(item_id: str) -> Judgement | None:
        # Items that the policy does not change were judged once, as they are.
        changed = policy == "strip" and stripped_id(item_id) in stripped
        judgement = table.get(Key(judge, method, stripped_id(item_id) if changed else item_id, seed))
        if judgement is not None and has_failed(judgement):  # what the server failed in part is not judged yet
            judgement = replace(judgement, scores=[None] * len(judgement.scores))
        return penalised(judgement) if policy == "penalise" else judgement

    before = judgement_of(pair_id)
    bad, good = score_at(before, BAD), score_at(before, GOOD)
    if method in ALONE:
        after = judgement_of(alone_id(pair_id, attack))
        return Outcome(bad, good, score_at(after, 0), good, before, after)
    after = judgement_of(together_id(pair_id, attack))
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


def _row_results(by_attack: Outcomes, judge: str, row: str) -> list[Result]:
    """All results of one judge and row but the paired differences."""

    def result(metric: str, group: str, values: Values, judged: Iterable[Judgement | None]) -> Result:
        return mean_result(
            values,
            evaluation=EVALUATION,
            judge=judge,
            method=row,
            group=group,
            metric=metric,
            judgements=[one for one in judged if one is not None],
        )

    first = next(iter(by_attack.values()))
    befores = [one.before for one in first.values()]
    results = [
        result("score_before", "none", {key: one.bad_before for key, one in first.items()}, befores),
        result("wins_before", "none", {key: one.won_before for key, one in first.items()}, befores),
    ]
    for name, outcomes in by_attack.items():
        afters, pairs = [one.after for one in outcomes.values()], [one.asked for one in outcomes.values()]
        results += [
            result("shift", name, {key: one.shift for key, one in outcomes.items()}, afters),
            result("wins_before", name, {key: _before_both(one) for key, one in outcomes.items()}, befores),
            result("wins", name, {key: _after_both(one) for key, one in outcomes.items()}, pairs),
            result("wins_change", name, {key: one.change for key, one in outcomes.items()}, pairs),
        ]
    everything = [one for outcomes in by_attack.values() for one in outcomes.values()]
    for metric, of in (
        ("shift", lambda one: one.shift),
        ("wins_before", _before_both),
        ("wins", _after_both),
        ("wins_change", lambda one: one.change),
    ):
        values = {key: mean_of_known(of(outcomes[key]) for outcomes in by_attack.values()) for key in first}
        judged = [one.after if metric == "shift" else one.asked for one in everything]
        results.append(result(metric, "all", values, judged))
    return results


def _outcomes(pairs: Pairs, table: Table, judge: str, method: str, policy: str, seeds: Sequence[int]) -> Outcomes:
    keys = [(pair.id, seed) for pair in pairs.unattacked for seed in seeds]
    stripped = {item.id for item in pairs.stripped or ()}
    return {
        attack.name: {key: outcome(table, judge, method, policy, key[0], attack.name, key[1], stripped) for key in keys}
        for attack in pairs.attacks
    }


def _paired_results(by_method: Mapping[str, Outcomes], judge: str) -> list[Result]:
    """``wins_lead`` for each other method, by attack; ``all`` is a pair's mean over the attacks where both have one."""
    flip = by_method["flip"]
    results = []
    for method, other in by_method.items():
        if method == "flip":
            continue
        values: dict[str, Values] = {
            name: {key: difference(_after_both(one), _after_both(other[name][key])) for key, one in own.items()}
            for name, own in flip.items()
        }
        asked = {
            name: [one.asked for both in (flip[name], other[name]) for one in both.values() if one.asked is not None]
            for name in flip
        }
        first = next(iter(values.values()))
        values["all"] = {key: mean_of_known(own[key] for own in values.values()) for key in first}
        asked["all"] = [one for own in asked.values() for one in own]
        results += [
            mean_result(
                own,
                evaluation=EVALUATION,
                judge=judge,
                method=method,
                group=name,
                metric=f"wins{PAIRED}",
                judgements=asked[name],
            )
            for name, own in values.items()
        ]
    return results


def _before_both(one: Outcome) -> float | None:
    return one.won_before if one.won is not None else None


def _after_both(one: Outcome) -> float | None:
    return one.won if one.won_before is not None else None


def _has_strip(pairs: Pairs, table: Table, judge: str) -> bool:
    """Whether the run judged what ``strip`` changes, or that policy changes nothing here."""
    if not pairs.stripped:
        return pairs.stripped is not None
    ids = {item.id for item in pairs.stripped or ()}
    return any(key.judge == judge and key.item in ids for key in table)


def _echo_results(pairs: Pairs, judge: str) -> list[Result]:
    """What echo control sees of each attack; no judge has a part in it, so the interval is over items alone."""
    results = []
    for attack in pairs.attacks:
        values: Values = {
            (item.meta["pair"], 0): echo_share(instruction_of(item), item.responses[0])
            for item in pairs.alone
            if item.meta["attack"] == attack.name
        }
        results.append(
            mean_result(
                values,
                evaluation=EVALUATION,
                judge=judge,
                method="flip",
                group=attack.name,
                metric="echo",
                note="measured on the text, without a judge",
            )
        )
    return results
