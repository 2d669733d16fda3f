"""Builds the tiny world's tokenizer, policy and judge from a seed.

    python -m datasets_prep.tiny_world.build --seed 1 --output DIR

writes DIR/policy, DIR/judge (Hugging Face folders, bfloat16) and DIR/build_report.json. A few minutes on two
cores. `--judge_layers` and `--judge_hidden` build another size of judge by the same recipe.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from datasets_prep.tiny_world.training.examples import corpus, flip_examples, pointwise_examples, policy_examples
from datasets_prep.tiny_world.training.model import make_model, num_parameters, save_model
from datasets_prep.tiny_world.training.pair_report import evaluate
from datasets_prep.tiny_world.training.tokenizer import chat_text, load_tokenizer, train_tokenizer
from datasets_prep.tiny_world.training.trainer import train
from flip_plugin.files.atomic import replace_folder
from flip_plugin.prompts.templates import FLIP_SYSTEM, FLIP_USER, POINTWISE_SYSTEM, POINTWISE_USER, PromptSet

DEFAULT_OUTPUT = Path(__file__).parent / "models"
# The prompts whose exact text the judge learns.
TRAINED_ON = (FLIP_SYSTEM, FLIP_USER, POINTWISE_SYSTEM, POINTWISE_USER)
VOCAB_SIZE = 1792
CORPUS_TEXTS = 1500

# How often the policy's training responses get an attribute right. Sampled, it lands lower, at about half,
# since it has not learnt every surface.
POLICY_KEEP = 0.6
# The share of its updates that come before, with everything right.
POLICY_FAITHFUL = 0.7

POLICY_BATCH = 32
JUDGE_BATCH = 16
PEAK_LR = 3e-3


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of weights and examples (%(default)s)")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR", help="default: beside this file")
    parser.add_argument("--policy_layers", type=int, default=2, help="the policy's depth (%(default)s)")
    parser.add_argument("--policy_hidden", type=int, default=128, help="its width (%(default)s)")
    parser.add_argument("--policy_steps", type=int, default=480, help="its updates (%(default)s)")
    parser.add_argument("--judge_layers", type=int, default=3, help="the judge's depth (%(default)s)")
    parser.add_argument("--judge_hidden", type=int, default=128, help="its width (%(default)s)")
    parser.add_argument("--judge_steps", type=int, default=480, help="its updates (%(default)s)")
    parser.add_argument("--report_prompts", type=int, default=48, help="held-out prompts in the report")
    return parser.parse_args(argv)


def train_policy(args: argparse.Namespace, workspace: Path) -> float:
    """Train the policy with the tokenizer in `workspace` and save it there; returns the last loss."""
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(workspace / "tokenizer")
    policy = make_model(tokenizer, args.policy_layers, args.policy_hidden, args.seed)
    losses = train(
        policy,
        tokenizer,
        [policy_examples(args.seed, POLICY_KEEP, round(POLICY_FAITHFUL * args.policy_steps) * POLICY_BATCH)],
        steps=args.policy_steps,
        batch_size=POLICY_BATCH,
        peak_lr=PEAK_LR,
        label="policy",
    )
    save_model(policy, tokenizer, workspace / "policy")
    return losses[-1]


def train_judge(args: argparse.Namespace, workspace: Path) -> float:
    """Train the judge likewise, with as many examples of the one prompt as of the other."""
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(workspace / "tokenizer")
    prompts = PromptSet.load()
    judge = make_model(tokenizer, args.judge_layers, args.judge_hidden, args.seed + 1)
    losses = train(
        judge,
        tokenizer,
        [flip_examples(args.seed, prompts), pointwise_examples(args.seed, prompts)],
        steps=args.judge_steps,
        batch_size=JUDGE_BATCH,
        peak_lr=PEAK_LR,
        label="judge",
        line=1,
    )
    save_model(judge, tokenizer, workspace / "judge")
    return losses[-1]


def build(args: argparse.Namespace, workspace: Path) -> dict[str, Any]:
    """Make everything in `workspace` and return the report."""
    started = time.monotonic()
    prompts = PromptSet.load()
    tokenizer = train_tokenizer(corpus(args.seed, CORPUS_TEXTS, prompts, chat_text), VOCAB_SIZE)
    tokenizer.save_pretrained(workspace / "tokenizer")
    # One thread and one process for each model. Two threads would wait for each other at every product, which
    # gains a third on an idle machine and costs ten times the time on a busy one.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {
            "judge": pool.submit(train_judge, args, workspace),
            "policy": pool.submit(train_policy, args, workspace),
        }
        losses = {name: future.result() for name, future in futures.items()}
    # Measured in float32, with the weights as they were rounded for saving.
    torch.set_num_threads(1)
    policy, judge = (
        AutoModelForCausalLM.from_pretrained(workspace / name, dtype=torch.float32).eval()
        for name in ("policy", "judge")
    )
    report = evaluate(policy, judge, tokenizer, seed=args.seed, num_prompts=args.report_prompts)
    return {
        "seed": args.seed,
        "minutes": round((time.monotonic() - started) / 60, 2),
        "vocabulary": len(tokenizer),
        "parameters": {"policy": num_parameters(policy), "judge": num_parameters(judge)},
        "final_loss": {name: round(loss, 4) for name, loss in losses.items()},
        "settings": {name: value for name, value in vars(args).items() if name not in ("output", "seed")},
        "prompts": {name: prompts.hashes()[name] for name in TRAINED_ON},
        "report": report,
    }


def main(argv: list[str] | None = None) -> None:
    """Build, print the report, and put the results in place together."""
    args = parse_arguments(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output, prefix=".build-") as name:
        workspace = Path(name)
        result = build(args, workspace)
        text = json.dumps(result, indent=2)
        (workspace / "build_report.json").write_text(text + "\n")
        for folder in ("policy", "judge"):
            replace_folder(workspace / folder, args.output / folder)
        (workspace / "build_report.json").replace(args.output / "build_report.json")
    print(text)


if __name__ == "__main__":
    main()
