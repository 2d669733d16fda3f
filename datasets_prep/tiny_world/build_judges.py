"""Builds the tiny judges of the evaluations: one recipe, several sizes, all four judge prompts.

    python -m datasets_prep.tiny_world.build_judges --seed 1 --output DIR

writes DIR/{small,medium,large} (Hugging Face folders, bfloat16), each with its report, and DIR/build_report.json.
Sizes are built one after another, with one thread each; `--sizes small` builds one and leaves the others as they are.
A build that was stopped is continued by the same command.

An update sees as many examples of each of the four prompts (FLIP, pointwise, pairwise, listwise), in one loss.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from datasets_prep.tiny_world.build import VOCAB_SIZE
from datasets_prep.tiny_world.training.examples import corpus_of, judge_streams
from datasets_prep.tiny_world.training.judge_report import evaluate_judge, listwise_by_count
from datasets_prep.tiny_world.training.judging import LISTWISE, PAIRWISE
from datasets_prep.tiny_world.training.model import make_model, num_parameters, save_model
from datasets_prep.tiny_world.training.tokenizer import chat_text, train_tokenizer
from datasets_prep.tiny_world.training.trainer import train
from flip_plugin.files.atomic import replace_folder, write_text
from flip_plugin.prompts.templates import FLIP_SYSTEM, FLIP_USER, POINTWISE_SYSTEM, POINTWISE_USER, PromptSet

DEFAULT_OUTPUT = Path(__file__).parent / "models" / "judges"
# The prompts whose exact text the judges learn.
TRAINED_ON = (
    FLIP_SYSTEM,
    FLIP_USER,
    POINTWISE_SYSTEM,
    POINTWISE_USER,
    f"{PAIRWISE}_SYSTEM",
    f"{PAIRWISE}_USER",
    f"{LISTWISE}_SYSTEM",
    f"{LISTWISE}_USER",
)


class Size(NamedTuple):
    """What differs between the judges."""

    layers: int
    hidden: int


SIZES = {"small": Size(1, 64), "medium": Size(2, 96), "large": Size(3, 128)}
CORPUS_TEXTS = 600
# Sixteen responses to rank take about 1000 tokens, and the reply some more.
MAX_POSITIONS = 2048
BATCH = 8
STEPS = 1000
PEAK_LR = 3e-3
MUON_LR = 0.02


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of weights and examples (%(default)s)")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR", help="default: beside this file")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="which to build (all)")
    parser.add_argument("--steps", type=int, default=STEPS, help="updates of each judge (%(default)s)")
    parser.add_argument("--batch", type=int, default=BATCH, help="examples of each prompt in an update (%(default)s)")
    parser.add_argument(
        "--muon_lr", type=float, default=MUON_LR, help="Muon for the layers; 0: AdamW alone (%(default)s)"
    )
    parser.add_argument("--report_items", type=int, default=128, help="held-out items in the report (%(default)s)")
    return parser.parse_args(argv)


def build_judge(
    name: str, tokenizer: PreTrainedTokenizerBase, args: argparse.Namespace, workspace: Path
) -> dict[str, Any]:
    """Train the judge called `name`, save it under `workspace`, and return its report."""
    prompts = PromptSet.load()
    layers, hidden = SIZES[name]
    judge = make_model(tokenizer, layers, hidden, args.seed, max_positions=MAX_POSITIONS)
    losses = train(
        judge,
        tokenizer,
        judge_streams(args.seed, prompts, args.batch),
        steps=args.steps,
        batch_size=args.batch,
        peak_lr=PEAK_LR,
        label=name,
        muon_lr=args.muon_lr or None,
        checkpoint=workspace / "training.pt",
    )
    save_model(judge, tokenizer, workspace / name)
    # Measured in float32, with the weights as they were rounded for saving.
    judge = AutoModelForCausalLM.from_pretrained(workspace / name, dtype=torch.float32).eval()
    report = evaluate_judge(judge, tokenizer, seed=args.seed, num_items=args.report_items)
    by_count = listwise_by_count(
        judge, tokenizer, seed=args.seed, num_items=args.report_items // 2, counts=(2, 4, 8, 16)
    )
    last = losses[-20:]
    return {
        "layers": layers,
        "hidden": hidden,
        "parameters": num_parameters(judge),
        "seed": args.seed,
        "steps": args.steps,
        "examples_of_each_prompt": args.steps * args.batch,
        "muon_lr": args.muon_lr,
        "final_loss": round(sum(last) / len(last), 4),
        "prompts": {prompt: prompts.hashes()[prompt] for prompt in TRAINED_ON},
        "report": {**report, "listwise_by_number_of_responses": by_count},
    }


def main(argv: list[str] | None = None) -> None:
    """Build the sizes asked for; each takes the place of its folder when it is done."""
    args = parse_arguments(argv)
    torch.set_num_threads(1)  # two threads on a busy machine are slower than one
    args.output.mkdir(parents=True, exist_ok=True)
    texts = corpus_of(judge_streams(args.seed, PromptSet.load()), CORPUS_TEXTS, chat_text)
    tokenizer = train_tokenizer(texts, VOCAB_SIZE, model_max_length=MAX_POSITIONS)
    for name in args.sizes:
        # Named by what decides the training: a stopped one is continued by the same command, not by another.
        workspace = args.output / f".build-{name}-{args.seed}-{args.steps}-{args.batch}-{args.muon_lr:g}"
        workspace.mkdir(exist_ok=True)
        started = time.process_time()
        report = build_judge(name, tokenizer, args, workspace)
        text = json.dumps(report, indent=2)
        (workspace / name / "build_report.json").write_text(text + "\n")
        replace_folder(workspace / name, args.output / name)
        shutil.rmtree(workspace)
        print(f"{name}: {text}\n{(time.process_time() - started) / 60:.1f} CPU minutes", flush=True)
    reports = {
        name: json.loads(file.read_text())
        for name in SIZES
        if (file := args.output / name / "build_report.json").is_file()
    }
    write_text(args.output / "build_report.json", json.dumps(reports, indent=2) + "\n")


if __name__ == "__main__":
    main()
