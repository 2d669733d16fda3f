"""GRPO with a judge's reward: ``python -m open_instruct.grpo_fast --help``.

From top to bottom: flags, rows and verifiers (everything that can be wrong is found before a model is
loaded), the resource plan, the actors, the loop, the checkpoint and the report.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_instruct.config import Args, FlagError, parse_args
from open_instruct.dry_run import print_dry_run
from open_instruct.logger_utils import MetricsLogger, progress_line, setup_logging
from open_instruct.run_folder import STEP_FILE, keep_newest, resumable_step, set_aside_earlier_run, write_config

logger = logging.getLogger(__name__)


TIED_ON_CPU = (
    "--model_name_or_path {model}: the output head is tied to the embeddings, and vLLM on a CPU keeps an old copy of "
    "a tied head when its weights are replaced. Save the model with tie_word_embeddings false and an lm_head.weight."
)


@dataclass
class Prepared:
    """What is known before anything is started."""

    rows: list[dict[str, Any]]
    eval_rows: list[dict[str, Any]]
    verifiers: dict[str, Any]
    tokenizer_name: str
    pad_token_id: int
    eos_token_id: int | None
    judged: bool


def prepare(args: Args) -> Prepared:
    """Verifiers, tokenizer and rows. Raises an error that names flag or row when something is wrong."""
    from transformers import AutoConfig

    from open_instruct.dataset_transformation import get_tokenizer, prepare_dataset
    from open_instruct.ground_truth_utils import PluginError, UnknownVerifier, build_all_verifiers
    from open_instruct.judge_pool import check_local_model
    from open_instruct.reward_shaping import weigh_verifiers
    from open_instruct.verifiers.workers import close_shared_pool

    check_local_model(args.model_name_or_path, "--model_name_or_path")
    try:
        verifiers = weigh_verifiers(build_all_verifiers(args), args.verifier_weights)
    except (PluginError, UnknownVerifier, FlagError):
        raise
    except (ValueError, ImportError) as error:
        raise FlagError(f"--flip_* or --llm_judge_*: {error}") from None
    unknown = [name for name in args.report_verifiers if name.lower() not in verifiers]
    if unknown:
        raise FlagError(f"--report_verifiers {' '.join(unknown)}: not among {', '.join(sorted(verifiers))}.")
    name = args.tokenizer_name_or_path or args.model_name_or_path
    try:
        tokenizer = get_tokenizer(name, chat_template_name=args.chat_template_name)
        model_config = AutoConfig.from_pretrained(args.model_name_or_path, revision=args.model_revision)
    except OSError as error:
        raise FlagError(f"--model_name_or_path {args.model_name_or_path}: {error}") from None
    if getattr(model_config, "tie_word_embeddings", False) and not gpu_available():
        raise FlagError(TIED_ON_CPU.format(model=args.model_name_or_path))
    options = {
        "max_prompt_token_length": args.max_prompt_token_length,
        "known_verifiers": verifiers,
        "seed": args.seed,
        "transform_fns": tuple(args.dataset_transform_fn),
    }
    train = prepare_dataset(args.dataset_mixer_list, args.dataset_mixer_list_splits, tokenizer, **options)
    evaluation: Any = []
    if args.dataset_mixer_eval_list:
        evaluation = prepare_dataset(
            args.dataset_mixer_eval_list, args.dataset_mixer_eval_list_splits, tokenizer, **options
        )
    for name in args.report_verifiers:
        verifiers[name.lower()].check()
    close_shared_pool()
    rows, eval_rows = list(train), list(evaluation)
    used = {name.lower() for name in args.report_verifiers}
    if args.apply_verifiable_reward:
        used |= {name.lower() for row in rows + eval_rows for name in row["dataset"]}
    judged = any(getattr(verifiers[name], "uses_judge", name.startswith("general-")) for name in used)
    if judged and args.judge_model_id:
        check_local_model(args.judge_model_id, "--llm_judge_model hosted_vllm/")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return Prepared(rows, eval_rows, verifiers, name, int(pad or 0), tokenizer.eos_token_id, judged)


def resource_plan(args: Args, *, on_cpu: bool, own_judge: bool) -> Any:
    """What the run needs of the cluster (pure; see `open_instruct.resource_plan`)."""
    from open_instruct.resource_plan import make_plan

    return make_plan(
        num_learners_per_node=args.num_learners_per_node,
        vllm_num_engines=args.vllm_num_engines,
        vllm_tensor_parallel_size=args.vllm_tensor_parallel_size,
        judge_engines=args.llm_judge_num_engines if own_judge else 0,
        judge_tensor_parallel_size=args.llm_judge_tensor_parallel_size,
        use_gpu=not on_cpu,
        single_gpu_mode=args.single_gpu_mode,
        vllm_gpu_memory_utilization=args.vllm_gpu_memory_utilization,
        judge_gpu_memory_utilization=args.llm_judge_gpu_memory_utilization,
    )


def run(args: Args) -> None:
    """The whole run."""
    import ray

    from open_instruct.actors import Cluster, prep_starter, start_all, start_ray
    from open_instruct.judge_pool import OUTSIDE_PATIENCE, check_external, external_urls, hosts_own_judge
    from open_instruct.rewards import RowScorer

    started = time.perf_counter()
    args.output_dir = str(Path(args.output_dir).absolute())  # actors have working folders of their own
    if args.dry_run:
        print_dry_run(args, plan_for=resource_plan, on_cpu=not gpu_available())
        return
    prepared = prepare(args)
    on_cpu = not gpu_available()
    own_judge = hosts_own_judge(args, prepared.judged)
    plan = resource_plan(args, on_cpu=on_cpu, own_judge=own_judge)
    if prepared.judged and args.judge_model_id and not own_judge:
        check_external(args.judge_model_id, external_urls(), min(args.llm_judge_startup_timeout, OUTSIDE_PATIENCE))
    resume = resumable_step(args)
    if resume is None and (earlier := set_aside_earlier_run(args.output_dir)):
        logger.info("what an earlier run left in %s is now in %s", args.output_dir, earlier)
    write_config(args, prepared.verifiers, {"rows": len(prepared.rows), "eval_rows": len(prepared.eval_rows)})
    logger.info("%d prompts, %d for evaluation", len(prepared.rows), len(prepared.eval_rows))
    logger.info("plan:\n%s", plan.describe())

    start_ray(args, logical_cpus=plan.ray_cpus)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)  # Ray has put its own in its place
    cluster = Cluster()
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        missing = plan.shortfall({**ray.cluster_resources(), "nodes": nodes})
        if missing:
            raise FlagError("The cluster lacks what the run needs:\n" + "\n".join(missing))
        scorer = make_scorer(args, prepared, RowScorer)
        cluster = start_all(
            args,
            plan,
            on_cpu=on_cpu,
            own_judge=own_judge,
            tokenizer=prepared.tokenizer_name,
            pad_token_id=prepared.pad_token_id,
            eos_token_id=prepared.eos_token_id,
            start_prep=prep_starter(args, prepared.rows, prepared.eval_rows, scorer, prepared.pad_token_id, resume),
        )
        logger.info("ready after %.0f s", time.perf_counter() - started)
        with MetricsLogger(
            args.output_dir,
            with_tracking=args.with_tracking,
            tensorboard=args.tensorboard,
            wandb_project=args.wandb_project_name,
            run_name=args.run_name or f"{args.exp_name}__{args.seed}",
            resume_step=resume,
        ) as metrics_logger:
            TrainingLoop(args, cluster, metrics_logger).run(resume or 0)
    finally:
        with shielded_from_signals():
            cluster.stop()
            if ray.is_initialized():
                ray.shutdown()
            finish_report(args)


def make_scorer(args: Args, prepared: Prepared, scorer_class: Any) -> Any:
    """The rewarded verifiers and the reported ones, as the data preparation actor takes them."""
    from open_instruct.ground_truth_utils import RewardConfig
    from open_instruct.reward_shaping import RewardShaping

    reward_config = RewardConfig(verifier_functions=prepared.verifiers, verification_reward=args.verification_reward)
    reported = {name.lower(): prepared.verifiers[name.lower()] for name in args.report_verifiers}
    return scorer_class(prepared.tokenizer_name, reward_config, reported, RewardShaping.from_args(args))


class TrainingLoop:
    """Step, sync, evaluate, log. Evaluation runs beside the next step's training, before its weights go out."""

    def __init__(self, args: Args, cluster: Any, metrics_logger: MetricsLogger) -> None:
        self.args, self.cluster, self.logger = args, cluster, metrics_logger
        self._unlogged: tuple[int, dict[str, Any], Any] | None = None
        self._step_started = time.perf_counter()
        self.updates = 0

    def run(self, first_step: int) -> None:
        """Train from `first_step` to the end, then write checkpoint and state."""
        import ray
        from ray.exceptions import RayTaskError

        from open_instruct.prompt_stream import NoPromptsLeft
        from open_instruct.rewards import JudgeFailure

        args, cluster = self.args, self.cluster
        if first_step:
            ray.get([learner.load_state.remote(self._state_dir(), first_step) for learner in cluster.learners])
            ray.get([learner.sync_weights.remote(first_step) for learner in cluster.learners])
            logger.info("continuing after step %d", first_step)
        self.updates = first_step
        try:
            ray.get(cluster.prep.weights_synced.remote(first_step))
            if args.eval_on_step_0 and not first_step:
                self._evaluate(0, {})
            for step in range(first_step, args.num_training_steps):
                self._step(step)
            self._flush()
        except RayTaskError as error:
            if not isinstance(error.cause, (JudgeFailure, NoPromptsLeft)):
                raise
            self._save(self.updates)
            raise error.cause from None
        finally:
            if self._unlogged is not None:  # its evaluation never ended; its training did
                number, metrics, _ = self._unlogged
                self._log(number, metrics)
        self._save(args.num_training_steps)

    def _step(self, step: int) -> None:
        """Train on step `step` (from 0); its line in the log carries number `step` + 1."""
        import ray

        from open_instruct.learner import mean_over_tokens

        args, cluster, number = self.args, self.cluster, step + 1
        self._step_started = time.perf_counter()
        data = ray.get(cluster.prep.get_step.remote(step))
        for warning in data.warnings:
            logger.warning(warning)
        results = ray.get([w.step.remote(batch) for w, batch in zip(cluster.learners, data.batches, strict=True)])
        self.updates = number
        self._flush()  # an evaluation must be over before the engines change
        sync = ray.get([w.sync_weights.remote(number) for w in cluster.learners])
        ray.get(cluster.prep.weights_synced.remote(number))
        metrics = {
            "episode": number * args.samples_per_step,
            **data.metrics,
            **mean_over_tokens(results),
            "time/weight_sync": max(sync),
            "time/total": time.perf_counter() - self._step_started,
        }
        due = args.local_eval_every > 0 and number % args.local_eval_every == 0
        if due or number == args.num_training_steps:
            self._evaluate(number, metrics)
        else:
            self._log(number, metrics)
        if args.checkpoint_state_freq > 0 and number % args.checkpoint_state_freq == 0:
            self._flush()  # a continued run starts after this step: its line must be there
            self._save_state(number)
        if args.save_freq > 0 and number % args.save_freq == 0 and number < args.num_training_steps:
            self._save_model(f"checkpoints/step_{number}")
            keep_newest(Path(args.output_dir) / "checkpoints", args.keep_last_n_checkpoints)

    def _evaluate(self, number: int, metrics: dict[str, Any]) -> None:
        """Start an evaluation of the present weights; `_flush` waits for it and writes its line."""
        self._flush()
        pending = self.cluster.prep.evaluate.remote(number) if self._has_evaluation() else None
        self._unlogged = (number, metrics, pending)

    def _has_evaluation(self) -> bool:
        return bool(self.args.dataset_mixer_eval_list) and self.args.local_eval_every > 0

    def _flush(self) -> None:
        import ray

        if self._unlogged is None:
            return
        number, metrics, pending = self._unlogged
        evaluated = ray.get(pending) if pending is not None else {}
        self._unlogged = None
        self._log(number, metrics | evaluated)

    def _log(self, number: int, metrics: dict[str, Any]) -> None:
        self.logger.log(number, metrics)
        print(progress_line(number, self.args.num_training_steps, metrics), flush=True)

    def _state_dir(self) -> str:
        return str(Path(self.args.output_dir).absolute() / "state")

    def _save(self, step: int) -> None:
        """Checkpoint and state after `step` steps."""
        self._save_state(step)
        self._save_model("checkpoint")
        logger.info("checkpoint in %s", Path(self.args.output_dir) / "checkpoint")

    def _save_model(self, name: str) -> None:
        import ray

        folder = str(Path(self.args.output_dir).absolute() / name)
        ray.get([w.save_model.remote(folder) for w in self.cluster.learners])

    def _save_state(self, step: int) -> None:
        import ray

        from open_instruct.records_io import write_json_atomic

        ray.get([w.save_state.remote(self._state_dir(), step) for w in self.cluster.learners])
        # Last, so that a state cut short is never taken for a whole one.
        write_json_atomic(Path(self._state_dir()) / STEP_FILE, {"training_step": step})
        keep_newest(Path(self._state_dir()), 2)


def gpu_available() -> bool:
    """True where torch sees a CUDA GPU."""
    import torch

    return torch.cuda.is_available()


def finish_report(args: Args) -> None:
    """Write report.html from what is on disk, also after a run that was stopped."""
    from open_instruct.logger_utils import METRICS_FILE
    from open_instruct.report import write_report

    if (Path(args.output_dir) / METRICS_FILE).exists():
        print(f"report: {write_report(args.output_dir)}", flush=True)


class shielded_from_signals:
    """Inside, a second Ctrl-C does not cut the clean-up short."""

    def __enter__(self) -> None:
        self._old = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


def _terminated(signum: int, frame: Any) -> None:
    raise SystemExit(128 + signum)


def main() -> None:
    """Entry point: errors that a user can mend end with a sentence, not with a traceback."""
    args = parse_args()
    setup_logging()
    from flip_plugin.serving import JudgeServerError
    from open_instruct.dataset_transformation import DatasetError
    from open_instruct.ground_truth_utils import PluginError, UnknownVerifier
    from open_instruct.prompt_stream import NoPromptsLeft
    from open_instruct.rewards import JudgeFailure

    signal.signal(signal.SIGTERM, _terminated)
    try:
        run(args)
    except (
        FlagError, DatasetError, UnknownVerifier, PluginError, JudgeServerError, JudgeFailure, NoPromptsLeft,
    ) as error:  # fmt: skip
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr, flush=True)
        raise SystemExit(130) from None


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
