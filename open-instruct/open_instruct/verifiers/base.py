"""What a verifier is: a response -> a score, or None where it could not tell."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from flip_plugin.plugins import PluginError


class UnknownVerifier(ValueError):
    """A row names a verifier that does not exist; the text says which row and what is known."""


class BadLabel(ValueError):
    """A ``ground_truth`` that cannot be checked against; the text says why and what is wanted."""


class MissingLibrary(PluginError):
    """A verifier's library is not installed, or does not work here; the text says which and what to do."""


@dataclass
class VerificationResult:
    """`score` in the verifier's own 0..1, or None with a `status` other than "ok".

    `cost` in US dollars; `details` is for logs (a judge's error stands under ``"error"``).
    """

    score: float | None
    cost: float = 0.0
    reasoning: str | None = None
    status: str = "ok"
    details: dict[str, Any] | None = None


@dataclass
class VerifierConfig:
    """Options of a verifier: a field takes the argument of the same name."""

    @classmethod
    def from_args(cls, *sources: Any) -> Self:
        """Copy by name from the first source that has the name. Raises ValueError for what nobody gives."""
        values = {}
        for option in fields(cls):
            holder = next((one for one in sources if one is not None and hasattr(one, option.name)), None)
            if holder is not None:
                values[option.name] = getattr(holder, option.name)
            elif option.default is MISSING and option.default_factory is MISSING:
                raise ValueError(f"{cls.__name__} needs {option.name!r}, which is no argument of this run")
        return cls(**values)


class VerifierFunction(ABC):
    """Base of all verifiers. Instances are pickled into other processes: open nothing in `__init__`."""

    def __init__(self, name: str, weight: float = 1.0, verifier_config: VerifierConfig | None = None) -> None:
        self.name = name
        self.weight = weight
        self.verifier_config = verifier_config

    @classmethod
    def get_config_class(cls) -> type[VerifierConfig]:
        """The class of `verifier_config`, which the run fills from its flags."""
        return VerifierConfig

    def check(self) -> None:  # noqa: B027 - most need nothing
        """Called once before a run whose rows use it. Raises `MissingLibrary` where something is not installed."""

    def check_label(self, label: Any) -> None:
        """Called for each row before a run. Raises ValueError: what is wrong with its ``ground_truth``."""
        if not isinstance(label, (str, Sequence)):
            raise ValueError(f"for {self.name} must be text, not {type(label).__name__}")

    @abstractmethod
    def __call__(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """Score `prediction` against `label`, the row's ``ground_truth``.

        `query` is the prompt as ``role: content`` lines; `rollout_state` holds ``messages`` (the
        prompt's turns), ``finish_reason``, and ``prompt_opens_think``: the rendered prompt ends with ``<think>``.
        """

    async def async_call(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """The same without blocking the loop; by default `__call__` in a thread."""
        return await asyncio.to_thread(self, tokenized_prediction, prediction, label, query, rollout_state)


#: Seconds that a plain function may take on the event loop.
QUICK_S = 0.001


class FunctionVerifier(VerifierFunction):
    """A plain function of (response, label) as a verifier: for packages that should not need this one.

    The function returns a score from 0 to 1, or None where it cannot tell. What it raises, and whatever else it
    returns, makes the score missing, with the status ``verifier_error``: it sees whatever a policy writes, and one
    bad response must not end a run. A label may be of any type.

    A function that has taken longer than `QUICK_S` is called in a thread from then on: a thread a call costs more
    than most functions do, and a slow one must not hold up the loop that the judge's replies come in on.
    """

    def __init__(self, name: str, function: Callable[[str, Any], float | None]) -> None:
        super().__init__(name)
        self.function = function
        self._is_quick = True

    def check_label(self, label: Any) -> None:
        """Nothing is known of what the function can use."""

    def __call__(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """What the function says of `prediction`."""
        try:
            score = self.function(prediction, label)
            # Numbers of numpy and torch count, too.
            is_score = hasattr(score, "__float__") and bool(0 <= score <= 1)
        except Exception as error:  # noqa: BLE001 - somebody's function, on whatever a policy writes
            return self._missing("verifier_error", f"{type(error).__name__}: {error}")
        if score is None:
            return self._missing("no_score", f"{self.name} gave no score")
        if not is_score:
            return self._missing("verifier_error", f"{self.name} gave {score!r:.200}, which is no number from 0 to 1")
        return VerificationResult(float(score))

    async def async_call(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """The same, at once or in a thread."""
        if not self._is_quick:
            return await super().async_call(tokenized_prediction, prediction, label, query, rollout_state)
        start = time.perf_counter()
        result = self(tokenized_prediction, prediction, label, query, rollout_state)
        self._is_quick = time.perf_counter() - start <= QUICK_S
        return result

    def _missing(self, status: str, error: str) -> VerificationResult:
        return VerificationResult(None, status=status, details={"error": error})
