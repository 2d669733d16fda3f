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
from typing import TYPE_CHECKING, Any

if __name__ == "__main__" and not __package__:
    # Run by its path: Python has put this folder first, and its `data`, `config` or `run` would shadow others' modules.
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parent), *(place for place in sys.path if Path(place).resolve() != here)]

from open_instruct.config.args import Args, FlagError
from open_instruct.config.command_line import parse_args
from open_instruct.run.dry_run import print_dry_run
from open_instruct.run.logger import MetricsLogger, setup_logging
from open_instruct.run.loop import TrainingLoop
from open_instruct.state.run_folder import RunFolder, open_run_folder
from open_instruct.trackers import check_trackers

if TYPE_CHECKING:
    from open_instruct.config.resource_plan import ResourcePlan
    from open_instruct.run.cluster import Cluster

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

    from flip_plugin.answers.worker_pool import close_shared_pool
    from flip_plugin.plugins import PluginError
    from open_instruct.data.templates import get_tokenizer
    from open_instruct.data.transform import prepare_dataset
    from open_instruct.rewards.registry import build_all_verifiers, weigh_verifiers
    from open_instruct.run.judge import check_local_model
    from open_instruct.verifiers.base import UnknownVerifier

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
    tokenizer_name = args.tokenizer_name_or_path or args.model_name_or_path
    try:
        tokenizer = get_tokenizer(
            tokenizer_name, chat_template_name=args.chat_template_name, revision=args.tokenizer_revision
        )
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
    for reported in args.report_verifiers:
        verifiers[reported.lower()].check()
    close_shared_pool()
    rows, eval_rows = list(train), list(evaluation)
    used = {name.lower() for name in args.report_verifiers}
    if args.apply_verifiable_reward:
        used |= {name.lower() for row in rows + eval_rows for name in row["dataset"]}
    judged = any(getattr(verifiers[name], "uses_judge", name.startswith("general-")) for name in used)
    if judged and args.judge_model_id:
        check_local_model(args.judge_model_id, "--llm_judge_model hosted_vllm/")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return Prepared(rows, eval_rows, verifiers, tokenizer_name, int(pad or 0), tokenizer.eos_token_id, judged)


def resource_plan(args: Args, *, on_cpu: bool, own_judge: bool) -> Any:
    """What the run needs of the cluster (pure; see `open_instruct.config.resource_plan`)."""
    from open_instruct.config.resource_plan import make_plan

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
        generates=args.generates,
    )


def run(args: Args) -> None:
    """The whole run."""
    import ray

    from open_instruct.config.memory_plan import one_gpu_report
    from open_instruct.run.cluster import Cluster, start_ray
    from open_instruct.run.judge import OUTSIDE_PATIENCE, check_external, external_urls, hosts_own_judge

    started = time.perf_counter()
    make_paths_absolute(args)
    if args.dry_run:
        print_dry_run(args, plan_for=resource_plan, on_cpu=not gpu_available())
        return
    check_trackers(args)
    prepared = prepare(args)
    on_cpu = not gpu_available()
    own_judge = hosts_own_judge(args, prepared.judged and args.generates)
    plan = resource_plan(args, on_cpu=on_cpu, own_judge=own_judge)
    if prepared.judged and args.generates and args.judge_model_id and not own_judge:
        check_external(args.judge_model_id, external_urls(), min(args.llm_judge_startup_timeout, OUTSIDE_PATIENCE))
    folder = open_run_folder(args, prepared.verifiers, prepared.rows, prepared.eval_rows)
    check_replay(args, prepared, folder)
    logger.info("%d prompts, %d for evaluation", len(prepared.rows), len(prepared.eval_rows))
    logger.info("plan:\n%s", plan.describe())
    if plan.single_gpu_mode:
        logger.info(one_gpu_report(args, own_judge=own_judge, gpu_bytes=gpu_bytes(), download=True))
    # Before anything is loaded: an account may be missing.
    metrics_logger = MetricsLogger.for_run(args, folder.resume_step)
    start_ray(args, logical_cpus=plan.ray_cpus)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)  # Ray has put its own in its place
    cluster = Cluster()
    try:
        with metrics_logger:
            cluster = start_cluster(args, plan, prepared, folder, on_cpu=on_cpu, own_judge=own_judge)
            logger.info("ready after %.0f s", time.perf_counter() - started)
            TrainingLoop(args, cluster, metrics_logger, folder.facts).run(folder.state)
    finally:
        with shielded_from_signals():
            cluster.stop()
            if ray.is_initialized():
                ray.shutdown()
            finish_report(args)
            folder.lock.release()


def start_cluster(
    args: Args, plan: ResourcePlan, prepared: Prepared, folder: RunFolder, *, on_cpu: bool, own_judge: bool
) -> Cluster:
    """All actors of the run, ready. Raises `FlagError` where the cluster lacks what `plan` needs."""
    import ray

    from open_instruct.rewards.scorer import RowScorer
    from open_instruct.run.cluster import live_nodes, prep_starter, start_all

    nodes = [node["Resources"] for node in live_nodes()]
    missing = plan.shortfall({**ray.cluster_resources(), "nodes": nodes})
    if missing:
        raise FlagError("The cluster lacks what the run needs:\n" + "\n".join(missing))
    scorer = make_scorer(args, prepared, RowScorer)
    data_state = folder.state.manifest.get("data") if folder.state else None
    return start_all(
        args,
        plan,
        on_cpu=on_cpu,
        own_judge=own_judge,
        tokenizer=prepared.tokenizer_name,
        pad_token_id=prepared.pad_token_id,
        eos_token_id=prepared.eos_token_id,
        start_prep=prep_starter(
            args, prepared.rows, prepared.eval_rows, scorer, prepared.pad_token_id, folder.resume_step, data_state
        ),
        first_step=folder.resume_step or 0,
    )


def make_paths_absolute(args: Args) -> None:
    """Actors have working folders of their own: those of the Ray that they run on. Ids of the hub stay as they are."""
    from open_instruct.run.judge import external_urls

    for name in ("output_dir", "checkpoint_state_dir", "rollouts_save_path", "replay_rollouts", "llm_judge_prompts"):
        if place := getattr(args, name):
            setattr(args, name, str(Path(place).absolute()))
    for name in ("model_name_or_path", "tokenizer_name_or_path"):
        if (model := getattr(args, name)) and Path(model).is_dir():
            setattr(args, name, str(Path(model).absolute()))
    # An outside server goes by the name that it was given.
    if (judge := args.judge_model_id) and Path(judge).is_dir() and not external_urls():
        args.llm_judge_model = f"hosted_vllm/{Path(judge).absolute()}"


def check_replay(args: Args, prepared: Prepared, folder: RunFolder) -> None:
    """With --replay_rollouts: that the steps to come are there, and the first of them fits this run's rows."""
    from open_instruct.rollout.replay import RolloutReplay

    first = (folder.resume_step or 0) + 1
    if args.replay_rollouts and first <= args.num_training_steps:
        replay = RolloutReplay(args, prepared.rows)
        replay.check_steps(first, args.num_training_steps)
        replay.groups(first)


def make_scorer(args: Args, prepared: Prepared, scorer_class: Any) -> Any:
    """The rewarded verifiers and the reported ones, as the data preparation actor takes them."""
    from open_instruct.rewards.row_reward import RewardConfig
    from open_instruct.rewards.shaping import RewardShaping

    reward_config = RewardConfig(verifier_functions=prepared.verifiers, verification_reward=args.verification_reward)
    reported = {name.lower(): prepared.verifiers[name.lower()] for name in args.report_verifiers}
    return scorer_class(
        prepared.tokenizer_name,
        reward_config,
        reported,
        RewardShaping.from_args(args),
        chat_template_name=args.chat_template_name,
        tokenizer_revision=args.tokenizer_revision,
    )


def gpu_available() -> bool:
    """True where torch sees a CUDA GPU."""
    import torch

    return torch.cuda.is_available()


def gpu_bytes() -> int:
    """Memory of the first GPU."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory


def finish_report(args: Args) -> None:
    """Write report.html from what is on disk, also after a run that was stopped."""
    from open_instruct.report import write_report
    from open_instruct.run.logger import METRICS_FILE

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
    """Entry point: errors that a user can correct end with a sentence, not with a traceback."""
    args = parse_args()
    setup_logging()
    from ray.exceptions import RayActorError

    from flip_plugin.plugins import PluginError
    from flip_plugin.rows.checks import DatasetError
    from flip_plugin.serving.server import JudgeServerError
    from open_instruct.data.prompt_stream import NoPromptsLeft
    from open_instruct.engines.errors import EngineLost
    from open_instruct.learner.group import LearnerFailure
    from open_instruct.rewards.missing import JudgeFailure
    from open_instruct.rollout.replay import ReplayError
    from open_instruct.state.checkpoints import StateError
    from open_instruct.verifiers.base import UnknownVerifier

    signal.signal(signal.SIGTERM, _terminated)
    try:
        run(args)
    except (
        FlagError,
        DatasetError,
        UnknownVerifier,
        PluginError,
        JudgeServerError,
        JudgeFailure,
        NoPromptsLeft,
        EngineLost,
        LearnerFailure,
        ReplayError,
        StateError,
    ) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except RayActorError as error:  # one that nothing can replace, such as the data preparation
        print(f"error: a process of the run is gone: {error}", file=sys.stderr)
        print(
            "Ray's logs say more (/tmp/ray/session_latest/logs); the same command continues from the last state.",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr, flush=True)
        raise SystemExit(130) from None


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
