"""The tokenizer, the training's shared prompt, the report's measures, and the models as they are shipped."""

import json
import random
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from datasets_prep.tiny_world.build import DEFAULT_OUTPUT, TRAINED_ON
from datasets_prep.tiny_world.language.grammar import draw_attributes, render_instruction, shown, write_response
from datasets_prep.tiny_world.training import trainer as training
from datasets_prep.tiny_world.training.examples import corpus, flip_examples, pointwise_examples
from datasets_prep.tiny_world.training.generation import sample
from datasets_prep.tiny_world.training.judging import pointwise_score
from datasets_prep.tiny_world.training.model import make_model
from datasets_prep.tiny_world.training.pair_report import correlations, evaluate, ranks, reply_field
from datasets_prep.tiny_world.training.tokenizer import chat_text, train_tokenizer
from datasets_prep.tiny_world.training.trainer import common_prefix, encode, reply_loss, train
from flip_plugin.prompts.templates import PromptSet

QUESTION = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A small new tokenizer, through a folder and back."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(corpus(1, 30, PromptSet.load(), chat_text), 700).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def shipped():
    return {
        name: (
            AutoModelForCausalLM.from_pretrained(DEFAULT_OUTPUT / name, dtype=torch.float32).eval(),
            AutoTokenizer.from_pretrained(DEFAULT_OUTPUT / name),
        )
        for name in ("policy", "judge")
    }


@pytest.mark.parametrize(
    "text", ["plain words", "h\u00e9llo \u4e16\u754c \U0001f600", " {x}\t\n\n 12 ", "", "\x00<|im", "a" * 3000]
)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_chat_template(tokenizer):
    text = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert chat_text(QUESTION) == tokenizer.apply_chat_template(QUESTION, tokenize=False)
    for thinking in (True, False):
        assert text == tokenizer.apply_chat_template(
            QUESTION, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer("<|im_end|>")["input_ids"] == [tokenizer.eos_token_id]


def test_sharing_the_prompt_changes_no_loss_and_no_gradient(tokenizer):
    """Against the plain way: whole rows, one by one."""
    examples = list(islice(flip_examples(1, PromptSet.load()), 3))
    encoded = [encode(tokenizer, example) for example in examples]
    assert common_prefix([prompt for prompt, _ in encoded]) > 100
    model = make_model(tokenizer, layers=2, hidden=64, seed=0)
    loss = reply_loss(model, encoded, tokenizer.pad_token_id)
    loss.backward()
    shared = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    total, count = torch.tensor(0.0), 0
    for prompt, reply in encoded:
        labels = torch.tensor([[-100] * len(prompt) + reply])
        row = model(input_ids=torch.tensor([prompt + reply]), labels=labels).loss
        total, count = total + row * len(reply), count + len(reply)
    (total / count).backward()
    assert loss.item() == pytest.approx((total / count).item(), abs=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(shared[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_training_lowers_the_loss_and_follows_the_seed(tokenizer):
    def run():
        model = make_model(tokenizer, layers=1, hidden=64, seed=0)
        streams = [flip_examples(1, PromptSet.load()), pointwise_examples(1, PromptSet.load())]
        return train(model, tokenizer, streams, steps=30, batch_size=2, peak_lr=3e-3, label="test")

    losses = run()
    assert losses[-1] < 0.7 * losses[0]
    assert losses == run()


@pytest.mark.parametrize("muon_lr", [None, 0.02])
def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(muon_lr, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 4)

    def run(checkpoint):
        model = make_model(tokenizer, layers=1, hidden=64, seed=0)
        options: dict[str, Any] = {"steps": 6, "batch_size": 2, "peak_lr": 3e-3, "muon_lr": muon_lr, "label": "test"}
        losses = train(model, tokenizer, [flip_examples(1, PromptSet.load())], checkpoint=checkpoint, **options)
        return losses, model.state_dict()

    whole, weights = run(None)
    assert run(tmp_path / "training.pt")[0] == whole  # leaves what it had after step 4
    losses, again = run(tmp_path / "training.pt")
    assert losses == whole and all(torch.equal(weights[name], value) for name, value in again.items())


def test_batched_sampling_equals_one_by_one(tokenizer):
    """Padding in the middle and the shared start change no greedy token."""
    model = make_model(tokenizer, layers=2, hidden=64, seed=3).eval()
    questions = [[{"role": "user", "content": "Same start " + "more " * n}] for n in (0, 3, 9)]
    together = sample(model, tokenizer, questions, max_new_tokens=12, temperature=0.0)
    assert together == [
        sample(model, tokenizer, [question], max_new_tokens=12, temperature=0.0)[0] for question in questions
    ]
    for question, ids in zip(questions, together, strict=True):
        prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
        greedy = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)
        assert greedy[0, len(prompt) :].tolist() == ids


def test_scores_of_shares():
    assert [pointwise_score(k / 7) for k in range(8)] == [1, 1, 3, 4, 6, 7, 9, 10]


def test_correlations_by_hand():
    assert ranks([5, 1, 5]).tolist() == [1.5, 0, 1.5]
    # Each group agrees perfectly inside; the second one's rewards lie lower for a higher truth.
    found = correlations([1.0, 2.0, 0.0, 0.5], [0.0, 0.1, 0.8, 0.9], group_size=2)
    assert found["pearson_in_group"] == found["spearman_in_group"] == 1.0
    assert found["pearson"] < 0
    assert correlations([1.0, None, 3.0, 3.0], [0.1, 0.2, 0.3, 0.4], 2)["pearson_in_group"] is None


@pytest.mark.parametrize(
    ("text", "value"), [('{"SCORE": 3}', 3), ('{"score": 3}', None), ("[3]", None), ("{", None), ("", None)]
)
def test_reading_a_reply(text, value):
    assert reply_field(text, "SCORE") == value


# --- as shipped -------------------------------------------------------------------------------------------


def test_shipped_files_are_complete_and_small():
    for name in ("policy", "judge"):
        files = {file.name for file in (DEFAULT_OUTPUT / name).iterdir()}
        assert files >= {
            "config.json",
            "model.safetensors",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        }
        config = json.loads((DEFAULT_OUTPUT / name / "config.json").read_text())
        assert config["model_type"] == "qwen3"
        assert config["tie_word_embeddings"] is False  # vLLM on a CPU keeps a tied head's old copy
        assert config["dtype"] == "bfloat16"
        assert config["max_position_embeddings"] == 1024
        size = sum(file.stat().st_size for file in (DEFAULT_OUTPUT / name).iterdir())
        assert size < 3_000_000


def test_the_judge_was_trained_on_the_prompts_as_they_are():
    """A changed prompt asks for a rebuilt judge: python -m datasets_prep.tiny_world.build"""
    report = json.loads((DEFAULT_OUTPUT / "build_report.json").read_text())
    assert report["prompts"].keys() >= set(TRAINED_ON)
    now = PromptSet.load().hashes()
    assert report["prompts"] == {name: now[name] for name in report["prompts"]}


def test_shipped_tokenizers_agree_and_know_the_world(shipped):
    (_, policy), (_, judge) = shipped["policy"], shipped["judge"]
    assert policy.get_vocab() == judge.get_vocab()
    rng = random.Random(1)
    attributes = draw_attributes(rng)
    for text in (render_instruction(attributes, rng), write_response(attributes, rng)):
        assert len(policy(text)["input_ids"]) < 1.8 * len(text.split())


def test_shipped_models_do_their_parts(shipped):
    (policy, tokenizer), (judge, _) = shipped["policy"], shipped["judge"]
    found = evaluate(policy, judge, tokenizer, seed=99, num_prompts=12)
    assert 0.4 < found["policy"]["constraints_satisfied"] < 0.6
    assert min(found["policy"]["satisfied_by_attribute"].values()) > 0.2
    assert found["policy"]["ended"] > 0.97
    assert found["flip"]["parsed"] > 0.97
    assert found["flip"]["attribute_recall"]["all"] > 0.8
    assert found["flip"]["spearman_in_group"] > 0.6
    assert found["pointwise"]["parsed"] > 0.97


def test_the_judge_names_what_it_reads(shipped):
    judge, tokenizer = shipped["judge"]
    response = "Once upon a time, the swarm danced over clover, tears fell without end. Do you agree?"
    assert shown(response)["topic"] == {"honey bees"}
    [ids] = sample(judge, tokenizer, [PromptSet.load().flip_messages(response)], max_new_tokens=64, temperature=0.0)
    inferred = reply_field(tokenizer.decode(ids, skip_special_tokens=True), "INFERRED INSTRUCTION")
    assert all(word in inferred for word in ("gloomy", "story", "honey bees", "question"))


@pytest.mark.slow
def test_a_build_end_to_end(tmp_path):
    command = [sys.executable, "-m", "datasets_prep.tiny_world.build", "--output", str(tmp_path / "models")]
    small = ["--policy_steps", "2", "--judge_steps", "2", "--judge_layers", "2", "--report_prompts", "2"]
    subprocess.run([*command, *small], check=True, cwd=Path(__file__).parents[3], timeout=280)
    names = sorted(file.name for file in (tmp_path / "models").iterdir())
    assert names == ["build_report.json", "judge", "policy"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "models" / "judge").config.num_hidden_layers == 2
