"""The loop of a run: step, sync, evaluate, log, save; and what is saved when it ends early.

Evaluation runs beside the next step's training, before its weights go out. The state after a step is written
when the step's line is in `metrics.jsonl`, so a continued run has a line for every step behind it.
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from flip_plugin.files.atomic import sync_file
from open_instruct.config.args import Args
from open_instruct.learner.group import BUSY_S, LearnerFailure, Learners
from open_instruct.run.logger import METRICS_FILE, MetricsLogger
from open_instruct.run.progress import Progress
from open_instruct.run.stopping import StopSignals
from open_instruct.state.checkpoints import State, StateError, begin_state, commit_state, keep_newest, mark_newest
from open_instruct.state.run_folder import rollouts_folder, states_folder

logger = logging.getLogger(__name__)


class Unlogged(NamedTuple):
    """A step's line that is not in the log yet: `pending` is the evaluation that belongs to it."""

    number: int
    metrics: dict[str, Any]
    pending: Any


class TrainingLoop:
    """Train from one step to the last. `facts` go into every state's manifest (`open_instruct.state.checkpoints`)."""

    def __init__(self, args: Args, cluster: Any, metrics_logger: MetricsLogger, facts: dict[str, Any]) -> None:
        self.args, self.cluster, self.logger, self._facts = args, cluster, metrics_logger, facts
        self.learners = Learners(cluster.learners, Path(args.output_dir) / "logs")
        self.updates = 0
        self._progress = Progress(args.num_training_steps)
        self._states = states_folder(args)
        self._saved: int | None = None  # the step of the newest state
        self._data_state: Any = None  # of the data side, after step `updates`
        self._unlogged: list[Unlogged] = []
        self._step_started = time.perf_counter()
        self._stop = StopSignals(args.stop_patience)

    def run(self, state: State | None = None) -> None:
        """Go on from `state`, or start; at the end write state and checkpoint.

        Raises `JudgeFailure` and what else ends the data side with a state and a checkpoint behind it,
        `LearnerFailure` with the last state's place, and `KeyboardInterrupt` or `SystemExit` after a signal.
        """
        with self._stop:
            try:
                self._check_folders()
                self._start_from(state)
                for step in range(self.updates, self.args.num_training_steps):
                    self._step(step)
                self._flush()
                self._save_all(finished=True)
            except LearnerFailure as error:
                raise LearnerFailure(f"{error}\n{self._how_to_continue()}") from None
            except (KeyboardInterrupt, SystemExit):
                logger.warning("stopped. %s", self._how_to_continue())
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is: save, then raise it again
                self._rescue(error)
                raise _cause(error) from None
            finally:
                self._log_rest()

    def _start_from(self, state: State | None) -> None:
        import ray

        if state is not None:
            self.learners.call("load_state", str(state.folder), state.step)
            self.updates = self._saved = state.step
            self._data_state = state.manifest.get("data")
            logger.info("continuing after step %d, from %s", state.step, state.folder)
            self._sync_weights()
        else:
            ray.get(self.cluster.prep.weights_synced.remote(0))
        if self.args.evaluates and self.args.eval_on_step_0 and state is None:
            self._unlogged.append(Unlogged(0, {}, self.cluster.prep.evaluate.remote(0)))

    def _step(self, step: int) -> None:
        """Train on step `step` (from 0); its line in the log carries number `step` + 1."""
        import ray

        from open_instruct.learner.actor import mean_over_tokens

        args, cluster, number = self.args, self.cluster, step + 1
        self._step_started = time.perf_counter()
        data = self._wait_for_batch(step)
        data_state = ray.get(cluster.prep.state.remote())
        for warning in data.warnings:
            logger.warning(warning)
        results = self.learners.call("step", each=data.batches)
        metrics = {
            "episode": number * args.samples_per_step,
            **data.metrics,
            **mean_over_tokens(results),
            **cluster.metrics(data.metrics),
        }
        self.updates, self._data_state = number, data_state
        self._unlogged.append(Unlogged(number, metrics, None))
        while len(self._unlogged) > 1:
            self._flush_first()  # an evaluation must be over before the engines change
        metrics |= {"time/weight_sync": self._sync_weights(), "time/total": time.perf_counter() - self._step_started}
        due = args.local_eval_every > 0 and number % args.local_eval_every == 0
        if args.evaluates and (due or number == args.num_training_steps):
            # Beside the next step's training; its result belongs to this line.
            self._unlogged[-1] = Unlogged(number, metrics, cluster.prep.evaluate.remote(number))
        else:
            self._flush()
        self._save_if_due(number)

    def _sync_weights(self) -> float:
        """Bring the engines to the learners' weights (`open_instruct.engines.weights.send`); seconds that it took."""
        import ray

        prep, started = self.cluster.prep, time.perf_counter()
        engines = ray.get(prep.engines_up.remote())
        sent = self.learners.call("sync_weights", self.updates, engines, lost=self.cluster.engine_lost)
        ray.get(prep.weights_synced.remote(self.updates, sent[0]))
        return time.perf_counter() - started

    def _wait_for_batch(self, step: int) -> Any:
        """The step's data. The learners are idle meanwhile: a run that is to stop does so here."""
        import ray

        batch = self.cluster.prep.get_step.remote(step)
        while not ray.wait([batch], timeout=0.5)[0]:
            self._stop_if_asked()
        self._stop_if_asked()
        return ray.get(batch)

    def _stop_if_asked(self) -> None:
        if not self._stop.requested:
            return
        self._flush(timeout=self.args.stop_patience / 3)
        if self._saved != self.updates and self.updates:
            self._save_state()
        raise self._stop.error()

    # log

    def _flush(self, timeout: float | None = None) -> None:
        """Write all lines; an evaluation that takes longer than `timeout` seconds is given up."""
        while self._unlogged:
            self._flush_first(timeout)

    def _flush_first(self, timeout: float | None = None) -> None:
        import ray
        from ray.exceptions import GetTimeoutError

        number, metrics, pending = self._unlogged[0]
        evaluated: dict[str, Any] = {}
        if pending is not None:
            try:
                evaluated = ray.get(pending, timeout=timeout)
            except GetTimeoutError:
                logger.warning("the evaluation after step %d was not waited for", number)
        self._log(number, metrics | evaluated)
        del self._unlogged[0]

    def _log_rest(self) -> None:
        """The lines of the steps behind an early end, with their evaluation where it is over by now."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        for number, metrics, pending in self._unlogged:
            evaluated: dict[str, Any] = {}
            try:
                evaluated = {} if pending is None else ray.get(pending, timeout=0.1)
            except (GetTimeoutError, RayError):
                logger.warning("the evaluation after step %d did not come to its end", number)
            self._log(number, metrics | evaluated)
        self._unlogged.clear()

    def _log(self, number: int, metrics: dict[str, Any]) -> None:
        self.logger.log(number, metrics)
        print(self._progress.line(number, metrics), flush=True)

    # states and checkpoints

    def _save_if_due(self, number: int) -> None:
        """The checkpoint first: what is due with a step must be there when a run continues after it."""
        args = self.args
        if number == args.num_training_steps:
            return  # `_save_all` follows
        if args.save_freq > 0 and number % args.save_freq == 0:
            self._save_model(f"checkpoints/step_{number}")
            keep_newest(Path(args.output_dir) / "checkpoints", args.keep_last_n_checkpoints)
        if args.checkpoint_state_freq > 0 and number % args.checkpoint_state_freq == 0:
            self._flush()
            self._save_state()

    def _save_all(self, *, finished: bool) -> None:
        """State, then checkpoint; a run that is killed between the two continues with the checkpoint alone."""
        if self._saved != self.updates:
            self._save_state()
        self._save_model("checkpoint")
        mark_newest(self._states, self.updates, finished=finished)
        logger.info("checkpoint in %s", Path(self.args.output_dir) / "checkpoint")

    def _save_model(self, name: str) -> None:
        self.learners.call("save_model", str(Path(self.args.output_dir).absolute() / name))

    def _save_state(self) -> None:
        """The state after the steps so far; their lines must be written."""
        args, step = self.args, self.updates
        started = time.perf_counter()
        sync_file(Path(args.output_dir) / METRICS_FILE)
        for split in ("train", "eval"):
            sync_file(rollouts_folder(args) / f"{split}.jsonl")
        partial = begin_state(self._states, step)
        written = self.learners.call("save_state", str(partial), step)
        facts = {**self._facts, "data": self._data_state, "saved": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        commit_state(partial, step, written, facts, self.learners.nodes)
        mark_newest(self._states, step, finished=False)
        self._saved = step
        keep_newest(self._states, args.keep_last_n_checkpoints)
        logger.info("state after step %d in %.1f s", step, time.perf_counter() - started)

    def _check_folders(self) -> None:
        """Find out now, and not at the first state or checkpoint, that a learner's machine does not see a folder."""
        for flag, folder in (
            ("checkpoint_state_dir", self._states),
            ("output_dir", Path(self.args.output_dir).absolute()),
        ):
            probe = begin_state(folder, self.updates)
            try:
                seen = self.learners.call("sees", str(probe))
            finally:
                probe.rmdir()
            for rank, (found, node) in enumerate(zip(seen, self.learners.nodes, strict=True)):
                if not found:
                    raise LearnerFailure(
                        f"learner {rank} on {node} does not see {folder}: --{flag} must lie on a file system that "
                        "the machines of all learners share"
                    )

    # early ends

    def _rescue(self, error: Exception) -> None:
        """Something other than a learner failed: save what has been learnt, as far as that still goes."""
        from ray.exceptions import RayError

        self._log_rest()
        if not self.updates:
            return
        if not self.learners.answer(BUSY_S):
            logger.error("a learner does not answer: no state is written. %s", self._how_to_continue())
            return
        try:
            if _cause(error) is not error:
                self._save_all(finished=False)
            elif self._saved != self.updates:
                self._save_state()
        except (LearnerFailure, StateError, RayError, OSError):
            logger.exception("the state after step %d could not be written", self.updates)
        logger.warning(self._how_to_continue())

    def _how_to_continue(self) -> str:
        command = shlex.join(["python", "-m", "open_instruct.grpo_fast", *sys.argv[1:]])
        if self._saved is None:
            return f"There is no state to go on from yet (--checkpoint_state_freq). To start again:\n  {command}"
        return f"The last state is that of step {self._saved}, in {self._states}. To go on from there:\n  {command}"


def _cause(error: BaseException) -> BaseException:
    """An end of the data side that was raised in another process, as it was raised there; other errors as they are."""
    from ray.exceptions import RayTaskError

    from open_instruct.data.prompt_stream import NoPromptsLeft
    from open_instruct.engines.errors import EngineLost
    from open_instruct.rewards.missing import JudgeFailure
    from open_instruct.rollout.replay import ReplayError

    cause: BaseException | None = error
    while isinstance(cause, RayTaskError):  # raised by one actor in answer to another
        cause = cause.cause
    return cause if isinstance(cause, (EngineLost, JudgeFailure, NoPromptsLeft, ReplayError)) else error
