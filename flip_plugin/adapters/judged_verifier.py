"""What a verifier of Open Instruct that asks a judge needs, whichever `open_instruct` it is a verifier of."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from flip_plugin.judge.event_loop import run_sync
from flip_plugin.reward.base import JudgedReward


class JudgedVerifier:
    """Mixin before a `VerifierFunction`: `make_reward` makes this process's client, `async_call` uses `reward`.

    Pickles without its client, which holds sockets and a loop.
    """

    _reward: JudgedReward | None = None

    def make_reward(self) -> Any:
        """A `JudgedReward`; called at the first use in each process."""
        raise NotImplementedError

    @property
    def reward(self) -> Any:
        """This process's `JudgedReward`."""
        if self._reward is None:
            self._reward = self.make_reward()
        return self._reward

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_reward"}

    def stats(self) -> dict[str, Any]:
        """Counters and latencies of this process's judge client (`JudgeClient.stats`); {} before its first call."""
        return self._reward.client.stats() if self._reward else {}

    def async_call(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """The verifier's own."""
        raise NotImplementedError

    def __call__(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Any = None,
    ) -> Any:
        """The same as `async_call`, blocking; works inside a running event loop, too."""
        return run_sync(self.async_call(tokenized_prediction, prediction, label, query, rollout_state))
