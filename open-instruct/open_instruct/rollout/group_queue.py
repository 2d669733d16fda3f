"""`GroupQueue`: prompts in flight, and the groups that come of them, handed out a step at a time.

Groups are taken in the order in which their prompts were drawn, however fast each was. With `active_sampling` a
group that teaches nothing does not count, and the next in the stream takes its place, so a step may take groups
that were drawn for the one after it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from open_instruct.config.args import Args
from open_instruct.data.prompt_stream import Draw, NoPromptsLeft, PromptStream
from open_instruct.data.types import Group
from open_instruct.rewards.missing import check_invalid_share
from open_instruct.rollout.group_filter import has_loss, pass_rate


class GroupQueue:
    """Keeps as many prompts in flight as may be generated now; `rollout` makes the group of a drawn prompt."""

    def __init__(
        self,
        args: Args,
        stream: PromptStream,
        rollout: Callable[[Draw], Coroutine[Any, Any, Group]],
        first_step: int,
    ) -> None:
        self._args, self._stream, self._rollout = args, stream, rollout
        self._prompts = args.num_unique_prompts_rollout
        self._most = self._prompts * (args.active_sampling_max_batches if args.active_sampling else 1)
        self._in_flight: deque[tuple[Draw, asyncio.Task[Group]]] = deque()
        self._exhausted: NoPromptsLeft | None = None
        self._one_at_a_time = asyncio.Lock()
        self._allowed = first_step  # steps before this one may be generated
        # The step that takes groups now, how many it has, and how many of them count.
        self._step, self._taken, self._counted = first_step, 0, 0

    def allow(self, steps: int) -> None:
        """Let the first `steps` steps of the run be generated: start what is missing for them."""
        self._allowed = steps
        self._fill()

    async def take_step(self) -> tuple[list[Group], Draw]:
        """The next step's groups, and the last prompt that was drawn for it.

        A step ends with its `num_unique_prompts_rollout`-th group that counts. It ends with fewer when
        `active_sampling_max_batches` times as many were taken, or when every prompt is excluded.

        Raises `NoPromptsLeft` when there is not even one group, and `JudgeFailure` when too many rewards are missing.
        """
        async with self._one_at_a_time:
            groups: list[Group] = []
            last: Draw | None = None
            while self._counted < self._prompts and self._taken < self._most:
                self._fill()
                if not self._in_flight:
                    break  # every prompt is excluded
                last, group = await self._next_group()
                groups.append(group)
                self._taken += 1
                self._counted += self._counts(group)
                if self._is_solved(group):
                    self._stream.exclude(last)
                if len(groups) % self._prompts == 0:  # a judge that is down must not be asked ten times as often
                    self._check_judge(groups)
            if last is None:
                assert self._exhausted is not None, "a prompt can be drawn, but none was"
                raise self._exhausted
            self._check_judge(groups)
            self._step, self._taken, self._counted = self._step + 1, 0, 0
            return groups, last

    async def _next_group(self) -> tuple[Draw, Group]:
        """The oldest prompt in flight and its group; it stays in flight until the group is there."""
        draw, task = self._in_flight[0]
        group = await task
        self._in_flight.popleft()
        return draw, group

    def _fill(self) -> None:
        """Draw prompts until those in flight are enough for all steps that may be generated now."""
        while self._exhausted is None and len(self._in_flight) < self._wanted_in_flight():
            try:
                draw = self._stream.draw()
            except NoPromptsLeft as error:
                self._exhausted = error  # what is in flight is still good
            else:
                self._in_flight.append((draw, asyncio.create_task(self._rollout(draw))))

    def _wanted_in_flight(self) -> int:
        """What the step that takes groups still needs, and a full step for each that may follow it.

        Never more than the step may take: its last draws, made with old weights, would be left to the next one.
        """
        this_step = min(self._prompts - self._counted, self._most - self._taken)
        return this_step + (self._allowed - self._step - 1) * self._prompts

    def _counts(self, group: Group) -> bool:
        return not self._args.active_sampling or has_loss(group, self._args)

    def _is_solved(self, group: Group) -> bool:
        limit = self._args.no_resampling_pass_rate
        return limit is not None and pass_rate(group) >= limit

    def _check_judge(self, groups: list[Group]) -> None:
        check_invalid_share(groups, self._args.llm_judge_max_invalid_frac, f"step {self._step + 1}")
