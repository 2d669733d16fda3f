"""TRL's side of `grpo_vs_trl.py`: GRPOTrainer on the tiny world, set by one JSON object on the command line.

Prints ``step N/M`` after every optimiser step and writes the seconds of each stage to `output`:
a line a step with ``generation``, ``reward``, ``training`` and ``total``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: How TRL may sample the policy; see docs/benchmarks.md for what runs on a CPU.
GENERATIONS = ("transformers", "continuous_batching", "vllm_colocate")


@dataclass(frozen=True)
class Settings:
    """What `grpo_vs_trl.py` asks for; the algorithm's numbers are those of its flags for our trainer."""

    policy: str
    rows: str
    output: str
    steps: int
    prompts: int = 16
    samples: int = 8
    response_length: int = 64
    learning_rate: float = 5e-4
    judge_model: str | None = None
    api_base: str | None = None
    generation: str = "transformers"
    threads: int = 2
    seed: int = 1


def rule_reward(prompts: list[Any], completions: list[Any], ground_truth: list[str], **_: Any) -> list[float | None]:
    """The reward without a judge: the share of the instruction's constraints that the response satisfies."""
    from datasets_prep.tiny_world.language.grammar import constraints_satisfied

    texts = (completion[-1]["content"] for completion in completions)
    return [constraints_satisfied(truth, text) for truth, text in zip(ground_truth, texts, strict=True)]


def judge_reward(settings: Settings) -> Any:
    """The FLIP reward with the judge options of the tiny profile; async, as TRL's documentation advises."""
    from flip_plugin.adapters.trl import flip_reward

    assert settings.judge_model
    return flip_reward(
        settings.judge_model,
        settings.api_base,
        schema=False,
        temperature=0.0,
        max_tokens=96,
        max_context_length=1024,
        max_concurrency=256,
        seed=settings.seed,
    )


def config(settings: Settings) -> Any:
    """GRPOConfig for speed on a CPU: one forward pass a step, nothing recomputed, nothing logged or saved."""
    from trl import GRPOConfig

    vllm: dict[str, Any] = {}
    if settings.generation == "vllm_colocate":
        vllm = {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": 0.05,
            "vllm_max_model_length": 64 + settings.response_length,
            "vllm_importance_sampling_mode": "token_truncate",
            "vllm_importance_sampling_clip_max": 2.0,
        }
    return GRPOConfig(
        output_dir=str(Path(settings.output).parent / "trl"),
        per_device_train_batch_size=settings.prompts * settings.samples,
        gradient_accumulation_steps=1,
        num_generations=settings.samples,
        max_completion_length=settings.response_length,
        temperature=1.0,
        max_steps=settings.steps,
        num_iterations=1,
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.272,
        loss_type="dapo",
        scale_rewards="group",
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        model_init_kwargs={"dtype": "float32"},
        gradient_checkpointing=False,
        use_transformers_continuous_batching=settings.generation == "continuous_batching",
        bf16=False,
        use_cpu=True,
        seed=settings.seed,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **vllm,
    )


class StageTimes:
    """Seconds that the trainer's own methods take in each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._now: dict[str, float] = {}
        self._began = time.perf_counter()

    def watch(self, trainer: Any, method: str, stage: str) -> None:
        """Count what `trainer.method` takes under `stage`."""
        inner: Callable[..., Any] = getattr(trainer, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._timing(stage):
                return inner(*args, **kwargs)

        setattr(trainer, method, timed)

    @contextmanager
    def _timing(self, stage: str) -> Generator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._now[stage] = self._now.get(stage, 0.0) + time.perf_counter() - began

    def end_step(self) -> None:
        """Close a step's line."""
        now = time.perf_counter()
        self.steps.append({**self._now, "total": now - self._began})
        self._now, self._began = {}, now


def make_trainer(settings: Settings, times: StageTimes) -> Any:
    """GRPOTrainer with its stages timed."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    class Progress(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            times.end_step()
            print(f"step {state.global_step}/{settings.steps}", flush=True)

    lines = Path(settings.rows).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    trainer = GRPOTrainer(
        model=settings.policy,
        reward_funcs=judge_reward(settings) if settings.judge_model else rule_reward,
        args=config(settings),
        train_dataset=Dataset.from_list(
            [{"prompt": row["messages"], "ground_truth": row["ground_truth"]} for row in rows]
        ),
        callbacks=[Progress()],
    )
    times.watch(trainer, "_generate", "generation")
    times.watch(trainer, "_calculate_rewards", "reward")
    times.watch(trainer, "compute_loss", "forward")
    return trainer


def main() -> None:
    """Train, with the settings of the command line's JSON object."""
    settings = Settings(**json.loads(sys.argv[1]))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(settings.threads)
    times = StageTimes()
    trainer = make_trainer(settings, times)
    trainer.train()
    Path(settings.output).write_text("".join(json.dumps(step) + "\n" for step in times.steps), encoding="utf-8")


if __name__ == "__main__":
    main()
