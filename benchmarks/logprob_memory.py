"""Memory and time of a learner's step: the plain output head, the chunked one, and gradient checkpointing.

    python benchmarks/logprob_memory.py                                    # CPU: a small model, a big vocabulary
    python benchmarks/logprob_memory.py --shape 4b --tokens 16384          # on a GPU

Trains a random-weight Qwen3-shaped model on one full pack with the real learner (DeepSpeed, AdamW), each form in
a process of its own. Peak memory is that of the step, above what the process held before it (weights and
optimiser states); on a CPU the kernel's high-water mark of resident memory, on a GPU torch's allocator's.
`matmul_share` is 6 x parameters x tokens a second (what is computed twice to save memory does not count, nor
does attention) over the rate of one big matrix product measured in the same process. Prints a table and one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: Qwen3's published shapes, and one for two cores: nearly all of its work and memory is the output head's.
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "num_attention_heads": 2},
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "1.7b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
}
VOCABULARY = 151_936
MODES = ("plain", "chunked", "plain+checkpointing", "chunked+checkpointing")


def main() -> None:
    """Each form in a process of its own, then the table."""
    args = parse()
    if args.mode:
        print(json.dumps(measure(args)))
        return
    results = []
    for mode in args.modes:
        child = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--mode", mode], stdout=subprocess.PIPE, text=True, check=False
        )
        if child.returncode:  # such as the plain form where it does not fit
            results.append({"mode": mode, "failed": child.returncode})
        else:
            results.append({"mode": mode} | json.loads(child.stdout.splitlines()[-1]))
    print(table(results))
    print(json.dumps({"settings": vars(args), "results": results}))


def parse() -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", "--params", choices=SHAPES, default="tiny")
    parser.add_argument("--tokens", type=int, default=2048, help="length of the pack")
    parser.add_argument("--samples", type=int, default=8, help="samples in the pack; an eighth of each is its prompt")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument(
        "--chunk", type=int, default=None, help="logprob_chunk_size; not given: 128 on a CPU, else 1024"
    )
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--steps", type=int, default=2, help="measured steps, after one that is not")
    parser.add_argument("--deepspeed_stage", type=int, default=0)
    parser.add_argument("--attn_implementation", default=None)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--mode", choices=MODES, help="one form, in this process")
    return parser.parse_args()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One form: peak bytes of a step, seconds of the fastest one, and what follows from them."""
    import torch

    on_cpu = not torch.cuda.is_available() if args.device == "auto" else args.device == "cpu"
    os.environ["DS_ACCELERATOR"] = "cpu" if on_cpu else "cuda"
    with tempfile.TemporaryDirectory() as folder:
        learner = make_learner(args, Path(folder), on_cpu=on_cpu)
    batches = pack(args)
    learner.step(batches)
    before, times, cpu_times = memory(on_cpu), [], []
    reset_peak(on_cpu)
    for _ in range(args.steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        learner.step(batches)
        times.append(time.perf_counter() - start)
        cpu_times.append(time.process_time() - cpu_start)
    parameters = sum(p.numel() for p in learner.model.parameters())
    seconds = min(times)
    rate = matmul_rate(learner)
    return {
        "device": "cpu" if on_cpu else torch.cuda.get_device_name(),
        "parameters": parameters,
        "held_gb": before / 1e9,
        "step_peak_gb": (peak(on_cpu) - before) / 1e9,
        "seconds": seconds,
        "cpu_seconds": min(cpu_times),
        "tokens_per_second": args.tokens / seconds,
        "matmul_tflops": rate / 1e12,
        "matmul_share": 6 * parameters * args.tokens / seconds / rate,
    }


def make_learner(args: argparse.Namespace, folder: Path, *, on_cpu: bool) -> Any:
    """The trainer's own learner on weights that are drawn, not loaded."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    from flip_plugin.serving.processes import free_port
    from open_instruct.config.args import Args
    from open_instruct.learner.actor import PolicyTrainerRayProcess

    shape = SHAPES[args.shape]
    model_config = Qwen3Config(
        vocab_size=args.vocabulary,
        num_key_value_heads=shape["num_attention_heads"] // 2,
        head_dim=128 if shape["hidden_size"] > 64 else 32,
        tie_word_embeddings=False,
        max_position_embeddings=args.tokens,
        **shape,
    )

    class RandomWeights(PolicyTrainerRayProcess):
        def _load(self, dtype: str, config: dict[str, Any]) -> Any:
            with torch.device(self.device):
                return AutoModelForCausalLM.from_config(
                    model_config, dtype=getattr(torch, dtype), attn_implementation=args.attn_implementation or "sdpa"
                )

    flags = Args(
        model_name_or_path=str(folder),
        pack_length=args.tokens,
        model_dtype=args.dtype,
        logprob_chunk_size=(args.chunk or (128 if on_cpu else 1024)) if "chunked" in args.mode else 0,
        gradient_checkpointing="checkpointing" in args.mode,
        deepspeed_stage=args.deepspeed_stage,
        beta=0.0,
    )
    learner = RandomWeights(0, 1, on_cpu=on_cpu)
    learner.setup(flags, ("127.0.0.1", free_port("127.0.0.1")), 0)
    return learner


def pack(args: argparse.Namespace) -> Any:
    """One full pack of random tokens."""
    import numpy as np

    from open_instruct.learner.packing import TrainingSample, pack_samples

    rng, length = np.random.default_rng(0), args.tokens // args.samples
    prompt, response = length // 8, length - length // 8
    samples = [
        TrainingSample(
            rng.integers(args.vocabulary, size=prompt).tolist(),
            rng.integers(args.vocabulary, size=response).tolist(),
            [-12.0] * response,
            float(rng.normal()),
        )
        for _ in range(args.samples)
    ]
    return pack_samples(samples, pack_length=args.tokens, num_learners=1, pad_token_id=0)


def memory(on_cpu: bool) -> int:
    """Bytes held now."""
    import psutil
    import torch

    return psutil.Process().memory_info().rss if on_cpu else torch.cuda.memory_allocated()


def reset_peak(on_cpu: bool) -> None:
    """Start the high-water mark from what is held now."""
    import torch

    if on_cpu:
        Path("/proc/self/clear_refs").write_text("5")
    else:
        torch.cuda.reset_peak_memory_stats()


def peak(on_cpu: bool) -> int:
    """Bytes held at most since `reset_peak`."""
    import torch

    if not on_cpu:
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024


def matmul_rate(learner: Any) -> float:
    """FLOP/s of a square matrix product in the model's dtype: the best of five."""
    import torch

    size, dtype = (1024 if learner.on_cpu else 8192), next(learner.model.parameters()).dtype
    a, b = (torch.randn(size, size, device=learner.device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(6):
        if not learner.on_cpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        if not learner.on_cpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times[1:])


def table(results: list[dict[str, Any]]) -> str:
    """One line a form."""
    lines = [
        "| form | peak of a step, GB | held besides, GB | s a step | CPU s | tokens/s | of the matmul rate |",
        "|---|" + "---|" * 6,
    ]
    for r in results:
        if "failed" in r:
            lines.append(f"| {r['mode']} | failed ({r['failed']}) | | | | | |")
        else:
            lines.append(
                f"| {r['mode']} | {r['step_peak_gb']:.2f} | {r['held_gb']:.2f} | {r['seconds']:.2f} "
                f"| {r['cpu_seconds']:.2f} | {r['tokens_per_second']:.0f} | {r['matmul_share']:.2f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
