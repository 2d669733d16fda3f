"""What the verifiers have in common whose library checks responses in a worker process (`flip_plugin.answers`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from flip_plugin.answers.worker_pool import Reply, shared_pool
from open_instruct.verifiers.base import BadLabel, MissingLibrary, VerificationResult

# Longer responses are not read: no real one is, and they would only fill pipes and logs.
MAX_CHARACTERS = 1_000_000


class CheckedInWorker:
    """Mixin for a `VerifierFunction`: `request` says what to check, `read` what the worker's answer means.

    Missing scores: status ``unusable_label``, ``response_too_long``, ``timeout`` (the check took too long),
    ``checker_error`` (the library failed on this response), ``missing_library`` or ``missing_data``.
    """

    name: str
    operation: str
    # A label and a right response to it, with which `check` tries the library.
    example: tuple[Any, str]

    def request(self, label: Any, response: str) -> dict[str, Any]:
        """The arguments of the worker's operation. Raises `BadLabel`."""
        raise NotImplementedError

    def read(self, value: Any) -> VerificationResult:
        """The result in the worker's answer."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises `MissingLibrary` where the library is not installed, or does not work."""
        label, response = self.example
        reply = shared_pool().call(self.operation, **self.request(label, response))
        if reply.status != "ok":
            raise MissingLibrary(_message(self.name, reply))

    def check_label(self, label: Any) -> None:
        """Raises `BadLabel` for a ``ground_truth`` that is not usable."""
        self.request(label, "")

    async def async_call(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """Score in a worker, without blocking the loop."""
        arguments = self._arguments(prediction, label)
        if isinstance(arguments, VerificationResult):
            return arguments
        return self._result(await asyncio.wrap_future(shared_pool().submit(self.operation, **arguments)))

    def __call__(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """The same, blocking."""
        arguments = self._arguments(prediction, label)
        if isinstance(arguments, VerificationResult):
            return arguments
        return self._result(shared_pool().call(self.operation, **arguments))

    def _arguments(self, prediction: str, label: Any) -> dict[str, Any] | VerificationResult:
        """What the worker is sent, or the result where there is nothing to send."""
        if len(prediction) > MAX_CHARACTERS:
            error = f"the response has {len(prediction)} characters; at most {MAX_CHARACTERS} are checked"
            return VerificationResult(None, status="response_too_long", details={"error": error})
        try:
            return self.request(label, prediction)
        except BadLabel as error:
            return VerificationResult(None, status="unusable_label", details={"error": f"ground_truth {error}"})

    def _result(self, reply: Reply) -> VerificationResult:
        if reply.status == "ok":
            return self.read(reply.value)
        error = _message(self.name, reply) if reply.status == "missing_library" else reply.error
        return VerificationResult(None, status=reply.status, details={"error": error})


def _message(name: str, reply: Reply) -> str:
    if reply.status == "missing_library":
        return (
            f"verifier {name!r} needs the module {reply.error!r}, which is not installed: "
            "pip install 'open-instruct[verifiers]'"
        )
    return f"verifier {name!r} does not work here: {reply.status}: {reply.error}"
