"""A mixed data set from its file to its rewards, and rows whose labels no verifier can use."""

import json

import pytest

from datasets_prep.tiny_world.build import DEFAULT_OUTPUT
from flip_plugin.answers.worker_pool import WorkerPool, close_shared_pool
from flip_plugin.rows.checks import DatasetError, labels_by_verifier, validate_rows
from open_instruct.data.rows import load_dataset_mixer
from open_instruct.data.templates import get_tokenizer
from open_instruct.data.transform import prepare_dataset
from open_instruct.rewards.registry import build_all_verifiers
from open_instruct.rewards.row_reward import RewardConfig
from open_instruct.verifiers.base import MissingLibrary

# dataset, ground_truth, a right response
MIXED = [
    ("gsm8k", 18, "#### 18"),
    ("gsm8k", "1,000", "That is $1000."),
    (["math"], [r"\frac{1}{2}"], r"\boxed{0.5}"),
    ("ifeval", {"instruction_id": ["punctuation:no_comma"], "kwargs": [{}]}, "None."),
    ("ifeval", '[{"instruction_id": ["startend:quotation"], "kwargs": [null]}]', '"So."'),
    ("IFEval", {"func_name": "validate_no_commas", "N": None}, "None."),
    ("string_f1", ["Paris", "the capital"], "<think>Rome?</think>The capital"),
    (["gsm8k", "string_f1"], ["0", ["nothing", "0"]], "0"),
]


@pytest.fixture(autouse=True, scope="module")
def no_workers_left():
    yield
    close_shared_pool()


def write(path, rows):
    """One row a line, from (dataset, ground_truth) pairs."""
    messages = [{"role": "user", "content": "Answer."}]
    lines = [json.dumps({"messages": messages, "dataset": name, "ground_truth": truth}) for name, truth in rows]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


async def test_a_mixed_file_is_read_checked_and_scored(tmp_path):
    path = write(tmp_path / "rows.jsonl", [row[:2] for row in MIXED])
    verifiers = build_all_verifiers(None)
    tokenizer = get_tokenizer(str(DEFAULT_OUTPUT / "policy"))
    prompts = prepare_dataset(
        [path, "1.0"], ["train"], tokenizer, max_prompt_token_length=100, known_verifiers=verifiers, seed=1
    )
    rewards = RewardConfig(verifiers, verification_reward=1.0)
    for prompt, (_, _, response) in zip(prompts, MIXED, strict=True):
        result = await rewards.score_sample(response, [], prompt["ground_truth"], prompt["dataset"])
        assert result.reward == len(prompt["dataset"]), (prompt, result)


@pytest.mark.parametrize(
    ("name", "truth", "words"),
    [
        ("gsm8k", "eighteen", "ground_truth: 'eighteen' is not a number; gsm8k wants one"),
        ("gsm8k", None, "ground_truth: is missing or empty: for gsm8k"),
        ("math", r"\frac{1}{2", "ground_truth: .*unbalanced braces"),
        ("string_f1", {"a": 1}, "ground_truth: must be the reference answer"),
        ("ifeval", {"instruction_id": ["no:such"], "kwargs": [{}]}, "ground_truth: names the instruction 'no:such'"),
        ("ifeval", "be brief", "ground_truth: 'be brief' is neither JSON"),
        (["gsm8k", "math"], ["18", "{"], "ground_truth: .*unbalanced braces"),
        (["gsm8k", "math"], 18, "ground_truth: 2 verifiers need a list of 2 entries, but there is 1"),
        (["gsm8k", "math"], {"a": 1, "b": 2}, "ground_truth: 2 verifiers need a list of 2 entries, but there is 1"),
    ],
)
def test_a_label_that_no_verifier_can_use_stops_the_run(tmp_path, name, truth, words):
    path = write(tmp_path / "rows.jsonl", [("gsm8k", "18"), (name, truth)])
    rows = load_dataset_mixer([path, "1.0"], ["train"], 1)
    with pytest.raises(DatasetError, match=rf"row 2 of .*rows\.jsonl, {words}"):
        validate_rows(rows, build_all_verifiers(None))


def test_a_missing_library_stops_the_run_where_rows_need_it(tmp_path, monkeypatch):
    pool = WorkerPool(1)
    monkeypatch.setattr("open_instruct.verifiers.checked.shared_pool", lambda: pool)
    (tmp_path / "math_verify.py").write_text("raise ModuleNotFoundError('gone', name='math_verify')")
    monkeypatch.syspath_prepend(tmp_path)
    row = {"messages": [{"role": "user", "content": "Answer."}], "ground_truth": "18"}
    validate_rows([row | {"dataset": "string_f1"}], build_all_verifiers(None))
    with pytest.raises(MissingLibrary, match="'math_verify'"):
        validate_rows([row | {"dataset": "gsm8k"}], build_all_verifiers(None))
    pool.close()


def test_labels_of_a_row():
    assert labels_by_verifier("a", "x") == [("a", "x")]
    assert labels_by_verifier(["a"], ["x"]) == [("a", "x")]
    assert labels_by_verifier(["a"], ["x", "y"]) == [("a", ["x", "y"])]
    assert labels_by_verifier(["a", "b"], ["x", ["y"]]) == [("a", "x"), ("b", ["y"])]
    for names, truth in ((["a", "b"], "xy"), (["a", "b"], ["x"]), (["a", "b"], 3)):
        with pytest.raises(ValueError, match="2 verifiers"):
            labels_by_verifier(names, truth)
