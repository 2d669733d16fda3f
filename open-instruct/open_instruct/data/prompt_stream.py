"""Which prompt comes next: a sequence that depends on the seed and on scores, never on timing.

Prompts are drawn in the order of `PromptOrder`, without those that are excluded (`--no_resampling_pass_rate`).
Draws are numbered from 0. An exclusion that draw n brought about holds from draw n + `horizon` on, where
`horizon` is the most prompts that can be in flight: by then draw n has been scored, however slow it was, so
the same scores give the same prompts. A position and the exclusions are all that a continued run needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


class NoPromptsLeft(RuntimeError):
    """Every prompt is excluded."""


class PromptOrder:
    """The endless sequence of prompts: each epoch a new permutation, a function of the seed alone."""

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows, self._seed = num_rows, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> int:
        """Row number of the prompt at `position`, counted from 0 over all epochs."""
        epoch, offset = divmod(position, self.num_rows)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self.num_rows)
        return int(self._order[offset])


@dataclass(frozen=True)
class Draw:
    """Prompt number `number` of the run: row `row`, at `position` of the order."""

    number: int
    position: int
    row: int


class PromptStream:
    """Draws prompts one after the other; `excluded` maps a row to the draw that its exclusion goes back to.

    `horizon` is counted in prompts, `state` is what `state_after` returned.
    """

    def __init__(self, order: PromptOrder, horizon: int, state: dict[str, Any] | None = None) -> None:
        state = state or {"position": 0, "drawn": 0, "excluded": {}}
        self.order, self.horizon = order, horizon
        self.position, self.drawn = int(state["position"]), int(state["drawn"])
        self.excluded = {int(row): int(draw) for row, draw in state["excluded"].items()}

    def draw(self) -> Draw:
        """The next prompt. Raises `NoPromptsLeft` when an epoch's length goes by without one."""
        for position in range(self.position, self.position + self.order.num_rows):
            row = self.order[position]
            if row in self.excluded and self.excluded[row] + self.horizon <= self.drawn:
                continue
            drawn = Draw(self.drawn, position, row)
            self.position, self.drawn = position + 1, self.drawn + 1
            return drawn
        raise NoPromptsLeft(
            f"all {self.order.num_rows} prompts have reached --no_resampling_pass_rate: there is nothing left to "
            "train on. Add rows, raise the rate, or take the checkpoint as it is."
        )

    def exclude(self, draw: Draw) -> None:
        """Leave this prompt's row out of later draws."""
        self.excluded.setdefault(draw.row, draw.number)

    def state_after(self, draw: Draw) -> dict[str, Any]:
        """JSON-able: what a stream needs to go on after `draw`, whatever has been drawn since."""
        excluded = {str(row): number for row, number in self.excluded.items() if number <= draw.number}
        return {"position": draw.position + 1, "drawn": draw.number + 1, "excluded": excluded}
