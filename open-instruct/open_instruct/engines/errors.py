"""How a policy engine's death shows, and when it ends a run."""

from __future__ import annotations

NO_RESTART_WITH_NCCL = (
    "weights go out by NCCL, whose group a new engine cannot join; with --weight_sync object_store (slower) engines "
    "are started again"
)


class EngineDied(RuntimeError):
    """Raised by an engine actor whose vLLM engine core is gone."""


class EngineLost(RuntimeError):
    """A policy engine died and is not, or cannot be, started again. The run cannot go on."""


def lost_for_good(index: int, why: str, error: BaseException) -> EngineLost:
    """The error for engine `index`, which died of `error` and is not started again; `why` is a clause."""
    return EngineLost(f"Policy engine {index} died, and {why}. The error: {summary(error)}")


def engine_gone() -> tuple[type[Exception], ...]:
    """What a call of an engine raises when there is no engine any more, or no way to it."""
    from ray import exceptions

    # An answer that lay on a lost node is lost with it.
    return (
        EngineDied,
        exceptions.RayActorError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
    )


def failed_start() -> tuple[type[Exception], ...]:
    """What `start` raises on top of that: its own error, one of Ray's about placing it, or none in time."""
    from ray.exceptions import RayError

    return (RayError, TimeoutError)


def summary(error: BaseException) -> str:
    """The line of an error's text that says what happened, at most 300 characters."""
    from ray.exceptions import RayTaskError

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Of a task's error the last line is the exception; of an actor's death the first is the summary.
    return (lines or [type(error).__name__])[-1 if isinstance(error, RayTaskError) else 0][:300]
