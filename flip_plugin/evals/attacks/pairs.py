"""Pairs for the robustness evaluation: a good response against a bad one, before and after the bad one is attacked.

Pure functions. What FLIP and the pointwise judge say of a response does not depend on its
neighbour, so for them an attack adds one response; the listwise and the pairwise judge compare, so for
them it adds the pair. The unattacked pair is judged once by each.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flip_plugin.evals.attacks import Attack, instruction_of
from flip_plugin.evals.records.items import EvalItem, Judgement
from flip_plugin.text.echo import strip_echo

ALONE = ("flip", "pointwise")  # these judge a response by itself
# Calls to the judge for a pair: both responses apart, both at once, both orders.
CALLS_A_PAIR = {"flip": 2, "pointwise": 2, "listwise": 1, "pairwise": 2}
CALLS_AN_ATTACK = {"flip": 1, "pointwise": 1, "listwise": 1, "pairwise": 2}

GOOD, BAD = 0, 1  # places in a pair


@dataclass(frozen=True)
class Pairs:
    """The items of a run: pairs of a good and a bad response, before and after the bad one is attacked.

    The attacked ones have ids made of the unattacked pair's id and the attack's. `alone` holds the attacked response by
    itself, `together` the good response and the attacked one; `stripped`, under the pair's or the attacked item's id,
    those that the echo policy ``strip`` would show the judge another text of. It is None when that policy is not
    looked at.
    """

    unattacked: Sequence[EvalItem]
    attacks: Sequence[Attack]
    alone: Sequence[EvalItem]
    together: Sequence[EvalItem]
    stripped: Sequence[EvalItem] | None

    @property
    def items(self) -> list[EvalItem]:
        """All of them: what a run folder keeps."""
        return [*self.unattacked, *self.alone, *self.together, *(self.stripped or ())]

    def calls(self, method: str) -> int:
        """Calls to the judge in one run of `method`, at most; without those of the echo policy ``strip``."""
        return len(self.unattacked) * (CALLS_A_PAIR[method] + len(self.attacks) * CALLS_AN_ATTACK[method])

    def strip_calls(self) -> int:
        """Calls to the judge that the echo policy ``strip`` adds to a run of FLIP, at most."""
        return sum(len(item.responses) for item in self.stripped or ())


def pair_of(item: EvalItem, *, seed: int = 0) -> EvalItem | None:
    """One right and one wrong response of `item`, drawn by `seed` and its id; None where it lacks either.

    Empty responses are not drawn: there is nothing to attack.
    """
    if item.right is None:
        return None
    shown = [number for number, text in enumerate(item.responses) if text and text.strip()]
    right = [number for number in shown if item.right[number]]
    wrong = [number for number in shown if not item.right[number]]
    if not right or not wrong:
        return None
    rng = random.Random(f"{seed} pair {item.id}".encode("utf-8", "surrogatepass"))
    good, bad = rng.choice(right), rng.choice(wrong)
    return replace(
        item,
        responses=[item.responses[good], item.responses[bad]],
        right=[True, False],
        meta={**item.meta, "good": good, "bad": bad},
    )


def alone_id(pair_id: str, attack: str) -> str:
    """The id of an attacked response by itself."""
    return f"{pair_id}|{attack}"


def together_id(pair_id: str, attack: str) -> str:
    """The id of a good response beside an attacked one."""
    return f"{pair_id}|{attack}|pair"


def stripped_id(of: str) -> str:
    """The id of item `of` under the echo policy ``strip``."""
    return f"{of}|strip"


def make_pairs(
    items: Sequence[EvalItem], attacks: Sequence[Attack], *, seed: int = 0, target: str = "auto", strip: bool = True
) -> Pairs:
    """Pairs from items with right and wrong responses; items that lack either are left out.

    `target` as for `FlipReward`: which turn an echo repeats. Without `strip` nothing is prepared for that policy.
    """
    pairs = [pair for item in items if (pair := pair_of(item, seed=seed)) is not None]
    if target != "auto":
        pairs = [replace(pair, meta={**pair.meta, "target": target}) for pair in pairs]
    alone, together = [], []
    for pair in pairs:
        for attack in attacks:
            text = attack(pair, pair.responses[BAD], seed=seed)
            meta = {**pair.meta, "attack": attack.name, "pair": pair.id}
            alone.append(replace(pair, id=alone_id(pair.id, attack.name), responses=[text], right=[False], meta=meta))
            together.append(
                replace(
                    pair,
                    id=together_id(pair.id, attack.name),
                    responses=[pair.responses[GOOD], text],
                    meta=meta,
                )
            )
    stripped = [one for item in [*pairs, *alone] if (one := _stripped(item)) is not None] if strip else None
    return Pairs(pairs, attacks, alone, together, stripped)


def _stripped(item: EvalItem) -> EvalItem | None:
    """`item` to be judged under ``strip``; None where that policy changes none of its responses."""
    instruction = instruction_of(item)
    if all(strip_echo(instruction, response) == response for response in item.responses):
        return None
    return replace(item, id=stripped_id(item.id), meta={**item.meta, "policy": "strip"})


def win(bad: float | None, good: float | None) -> float | None:
    """1.0 where the bad response beats the good one, 0.5 for a tie, 0.0 else; None unless both have a score.

    >>> win(0.5, 0.5)
    0.5
    """
    if bad is None or good is None:
        return None
    return 1.0 if bad > good else 0.5 if bad == good else 0.0


def score_at(judgement: Judgement | None, place: int) -> float | None:
    """The score at `place` of a judgement, if there is one."""
    return judgement.scores[place] if judgement is not None and place < len(judgement.scores) else None
