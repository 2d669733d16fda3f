"""The learners as one: a method is called on every rank, and a rank that dies or fails is named.

Learners step together, so one that is gone takes the others with it: they wait for it in a collective, or
fail there. `LearnerFailure` is about the first cause.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_instruct.engines.errors import EngineLost, summary

logger = logging.getLogger(__name__)

#: Seconds that learners have to end what they are at when a run ends early.
BUSY_S = 120.0
#: Seconds that the other learners' answers are waited for after a first failure, to find out who died.
SETTLE_S = 5.0


class LearnerFailure(RuntimeError):
    """A learner died or raised; the text says which, why, and where its log is."""


@dataclass(frozen=True)
class Whereabouts:
    """Where an actor runs; `log` is the file that its stderr goes to, where the system can tell."""

    node: str
    pid: int
    log: str | None


def whereabouts() -> Whereabouts:
    """Those of this process, which is a Ray worker."""
    import ray

    try:
        log = str(Path("/proc/self/fd/2").readlink())
    except OSError:  # no /proc on this system
        log = None
    return Whereabouts(ray.util.get_node_ip_address(), os.getpid(), log)


class Learners:
    """All learner actors. `log_dir`: a copy of a failed learner's log goes there, as Ray keeps it under /tmp."""

    def __init__(self, actors: Sequence[Any], log_dir: Path) -> None:
        import ray

        self.actors, self._log_dir = list(actors), log_dir
        self._where: list[Whereabouts] = ray.get([actor.whereabouts.remote() for actor in self.actors])

    @property
    def nodes(self) -> list[str]:
        """Each learner's machine."""
        return [where.node for where in self._where]

    def call(self, method: str, *args: Any, each: Sequence[Any] | None = None, lost: Any = None) -> list[Any]:
        """`method(*args)` on every rank, results by rank; `each` holds a first argument for every rank.

        `lost` is a reference that fails when the learners would wait in vain, for an engine. Raises
        `LearnerFailure`; what `lost`, or a learner because of an engine, raises is raised as it is.
        """
        import ray

        first = [()] * len(self.actors) if each is None else [(one,) for one in each]
        calls = [getattr(actor, method).remote(*own, *args) for actor, own in zip(self.actors, first, strict=True)]
        waiting = list(calls)
        while waiting:
            [done], _ = ray.wait([*waiting, lost] if lost is not None else waiting, num_returns=1)
            if done == lost:
                ray.get(lost)
            waiting.remove(done)
            if _error_of(done) is not None:
                self._fail(method, calls)
        return ray.get(calls)

    def answer(self, patience: float) -> bool:
        """False where one is stuck, as in a broadcast to an engine that is gone; what was called then never ends."""
        import ray

        answers = [actor.whereabouts.remote() for actor in self.actors]
        return len(ray.wait(answers, num_returns=len(answers), timeout=patience)[0]) == len(answers)

    def _fail(self, method: str, calls: list[Any]) -> None:
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        settled, _ = ray.wait(calls, num_returns=len(calls), timeout=SETTLE_S)
        errors = {calls.index(call): error for call in settled if (error := _error_of(call)) is not None}
        # One that died explains those that raised, which is what a torn connection looks like from the other end.
        died = {rank: error for rank, error in errors.items() if isinstance(error, RayActorError)}
        rank, error = min((died or errors).items())
        if isinstance(error, RayTaskError):
            if isinstance(error.cause, EngineLost):  # the learner was sending weights to it
                raise error
            logger.error("learner %d raised in %s:\n%s", rank, method, error)
            reason = f"raised {type(error.cause).__name__} in {method}: {summary(error.cause)}"
        else:
            reason = f"died in {method}: {summary(error)}"
        where = self._where[rank]
        raise LearnerFailure(f"learner {rank} (process {where.pid} on {where.node}) {reason}\n{self._log_of(rank)}")

    def _log_of(self, rank: int) -> str:
        where = self._where[rank]
        if where.log is None:
            return "Its log is in Ray's session folder."
        if not Path(where.log).is_file():
            return f"Its log: {where.log} on {where.node}"
        kept = self._log_dir / f"learner_{rank}.log"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(where.log, kept)
        return f"Its log: {kept}"


def _error_of(call: Any) -> Exception | None:
    import ray
    from ray.exceptions import RayError

    try:
        ray.get(call)
    except RayError as error:
        return error
    return None
