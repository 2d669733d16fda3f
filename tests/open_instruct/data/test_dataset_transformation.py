"""From files on disk to tokenised prompts, and what is said about rows that cannot be used."""

import json
from typing import Any

import pytest

from flip_plugin.rows.checks import DatasetError, validate_rows
from open_instruct.data import transform as dataset_transformation
from open_instruct.data.rows import load_dataset_mixer
from open_instruct.data.templates import CHAT_TEMPLATES, get_tokenizer
from open_instruct.data.transform import prepare_dataset

VERIFIERS = {"general-flip", "general-quality", "gsm8k"}


def row(text="Write a haiku.", **changes):
    return {
        "messages": [{"role": "user", "content": text}],
        "ground_truth": text,
        "dataset": "general-flip",
    } | changes


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


@pytest.fixture(scope="module")
def tokenizer():
    """One token a character, so lengths can be counted by eye."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {chr(c): c - 31 for c in range(32, 127)} | {"<unk>": 0, "\n": 96, "<eos>": 97}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>")
    fast.chat_template = CHAT_TEMPLATES["simple_chat"]
    return fast


def prepare(rows_or_mixer, tokenizer, tmp_path, **changes):
    mixer = rows_or_mixer
    if rows_or_mixer and isinstance(rows_or_mixer[0], dict):
        mixer = [write_jsonl(tmp_path / "rows.jsonl", rows_or_mixer), "1.0"]
    options: dict[str, Any] = {"max_prompt_token_length": 500, "known_verifiers": VERIFIERS, "seed": 1} | changes
    return prepare_dataset(mixer, ["train"], tokenizer, **options)


# --- reading


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "folder", "split folder"])
def test_every_local_form_gives_the_same_rows(kind, tmp_path):
    from datasets import Dataset, DatasetDict

    rows = [row(f"prompt {i}") for i in range(5)]
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        write_jsonl(path, rows)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        Dataset.from_list(rows).to_parquet(str(path))
    elif kind == "folder":
        Dataset.from_list(rows).save_to_disk(str(path))
    else:
        DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(str(path))
    loaded = load_dataset_mixer([str(path), "1.0"], ["train"], 1)
    assert [{k: r[k] for k in rows[0]} for r in loaded] == rows


def test_amounts_are_shares_or_counts_and_the_seed_chooses(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [row(str(i)) for i in range(100)])

    def chosen(amount, seed=1):
        return load_dataset_mixer([path, amount], ["train"], seed)["ground_truth"][:]

    assert chosen("1.0") == [str(i) for i in range(100)]
    assert len(chosen("0.25")) == 25
    assert len(chosen("64")) == 64
    assert chosen("64") == chosen("64") == sorted(chosen("64"), key=int)
    assert chosen("64") != chosen("64", seed=2)


@pytest.mark.parametrize("amount", ["101", "0", "1.5", "0.0", "many"])
def test_impossible_amounts_are_refused(amount, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [row(str(i)) for i in range(100)])
    with pytest.raises(DatasetError, match=amount):
        load_dataset_mixer([path, amount], ["train"], 1)


def test_sets_that_differ_in_details_are_joined(tmp_path):
    first = write_jsonl(tmp_path / "a.jsonl", [row("one", country="NL")])
    chatty = [{"role": "user", "content": "two", "timestamp": 3}]
    second = write_jsonl(tmp_path / "b.jsonl", [row("two", messages=chatty, dataset=["general-flip"])])
    joined = load_dataset_mixer([first, "1.0", second, "1.0"], ["train"], 1)
    assert [r["messages"][0]["content"] for r in joined] == ["one", "two"]
    assert joined["origin"][:] == [first, second]
    validate_rows(joined, VERIFIERS)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_a_folders_row_is_named_by_file_and_number(suffix, tmp_path):
    from datasets import Dataset

    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "card.json").write_text("{}")  # no rows: of a split are the files that have its name
    for name, rows in (("a", [row("1"), row("2")]), ("b", [row("3"), row(ground_truth=" ")])):
        path = folder / f"train-{name}.{suffix}"
        if suffix == "parquet":
            Dataset.from_list(rows).to_parquet(str(path))
        elif suffix == "json":
            path.write_text(json.dumps(rows))
        else:
            write_jsonl(path, rows)
    loaded = load_dataset_mixer([str(folder), "1.0"], ["train"], 1)
    assert loaded["ground_truth"][:] == ["1", "2", "3", " "]
    with pytest.raises(DatasetError, match=f"row 2 of {folder}/train-b.{suffix}, ground_truth: is missing or empty"):
        validate_rows(loaded, VERIFIERS)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_files_of_a_folder_without_rows_are_passed_over(suffix, tmp_path):
    from datasets import Dataset

    paths = [tmp_path / f"train-{name}.{suffix}" for name in "abc"]

    def put(path, rows):
        write_jsonl(path, rows) if suffix == "jsonl" else Dataset.from_list(rows).to_parquet(str(path))

    for path in paths:
        put(path, [])
    with pytest.raises(DatasetError, match=f"{tmp_path} holds no rows"):
        load_dataset_mixer([str(tmp_path), "1.0"], ["train"], 1)
    with pytest.raises(DatasetError, match=f"{paths[0]} holds no rows"):
        load_dataset_mixer([str(paths[0]), "1.0"], ["train"], 1)
    put(paths[1], [row("one")])
    loaded = load_dataset_mixer([str(tmp_path), "1.0"], ["train"], 1)
    assert loaded["ground_truth"][:] == ["one"] and loaded["origin"][:] == [str(paths[1])]


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("folder", [True, False])
def test_a_damaged_parquet_file_is_named(folder, cut, tmp_path):
    from datasets import Dataset

    path = tmp_path / "train.parquet"
    Dataset.from_list([row("one")]).to_parquet(str(path))
    path.write_bytes(path.read_bytes()[:-20] if cut else b"PAR1" + b"\xff" * 100 + path.read_bytes()[104:])
    with pytest.raises(DatasetError, match=f"{path}(:| is not a whole) "):
        load_dataset_mixer([str(tmp_path if folder else path), "1.0"], ["train"], 1)


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row()) + "\n\n" + '{"messages": [\n')
    with pytest.raises(DatasetError, match=r"rows\.jsonl, line 3: not valid JSON"):
        load_dataset_mixer([str(path), "1.0"], ["train"], 1)


@pytest.mark.parametrize(
    ("mixer", "splits", "words"),
    [
        (["rows.jsonl"], ["train"], "pairs"),
        (["rows.jsonl", "1.0"], ["train", "test"], "2 splits"),
        (["no/such/rows.jsonl", "1.0"], ["train"], "no such file"),
        (["./nowhere", "1.0"], ["train"], "no such file"),
    ],
)
def test_a_mixer_that_cannot_be_read_is_refused(mixer, splits, words):
    with pytest.raises(DatasetError, match=words):
        load_dataset_mixer(mixer, splits, 1)


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "hello", "dataset": "gsm8k"}])
    with pytest.raises(DatasetError, match=r"lacks the columns messages, ground_truth; it has prompt, dataset"):
        load_dataset_mixer([path, "1.0"], ["train"], 1)


def test_the_hub_is_asked_for_other_names(monkeypatch):
    from datasets import Dataset

    asked = []

    def fake(name, split):
        asked.append((name, split))
        if split == "dev":
            raise ValueError("Unknown split")
        return Dataset.from_list([row()])

    monkeypatch.setattr("datasets.load_dataset", fake)
    assert len(load_dataset_mixer(["someone/rows", "1.0"], ["test"], 1)) == 1
    with pytest.raises(DatasetError, match=r"someone/rows, split 'dev'.*Unknown split"):
        load_dataset_mixer(["someone/rows", "1.0"], ["dev"], 1)
    assert asked == [("someone/rows", "test"), ("someone/rows", "dev")]


# --- checking


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"messages": None}, "messages: must be a list"),
        ({"messages": []}, "is empty"),
        ({"messages": "Write"}, "is a str"),
        ({"messages": [{"role": "human", "content": "x"}]}, "write 'user'"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "'wizard'.*use one of"),
        ({"messages": [{"role": "user", "content": 3}]}, "not int"),
        ({"messages": [{"role": "user", "content": None}]}, "not NoneType"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url cannot be read"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "empty prompt"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": ""}]}, "turn 2.*empty prompt"),
        ({"messages": [{"role": "system", "content": "x"}]}, "no user turn"),
        ({"dataset": None}, "dataset: is missing"),
        ({"dataset": []}, "dataset: is missing"),
        ({"dataset": "general-flop"}, "did you mean 'general-flip'"),
        ({"dataset": "zzz"}, "there are general-flip, general-quality, gsm8k"),
        ({"ground_truth": None}, "ground_truth: is missing"),
        ({"ground_truth": "  "}, "exact text to be recovered"),
        ({"ground_truth": ["a"]}, "must be text, not list"),
        ({"ground_truth": 42, "dataset": "general-quality"}, "must be text, not int"),
        ({"dataset": ["general-flip", "gsm8k"]}, "2 verifiers need a list of 2"),
        ({"dataset": ["general-flip", "gsm8k"], "ground_truth": ["a", ""]}, "for gsm8k"),
    ],
)
def test_each_fault_is_named_with_its_row_and_field(changes, words):
    with pytest.raises(DatasetError, match=words) as caught:
        validate_rows([row(), row(**changes)], VERIFIERS)
    assert "row 2 of the data" in str(caught.value)
    assert "1 problem in 1 row" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "General-FLIP"},
        {"dataset": ["general-flip"]},
        {"dataset": ["general-flip", "gsm8k"], "ground_truth": ["a", "3"]},
        {"dataset": "gsm8k", "ground_truth": ["3", "three"]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}]},
    ],
)
def test_good_rows_pass(changes):
    validate_rows([row(**changes)], VERIFIERS)


def test_many_faults_are_counted_and_the_first_ten_shown():
    with pytest.raises(DatasetError) as caught:
        validate_rows([row(dataset="nope", ground_truth="") for _ in range(20)], VERIFIERS)
    text = str(caught.value)
    assert "40 problems in 20 rows" in text and "and 30 more" in text
    assert text.count("\n  row ") == 10


def test_faults_carry_the_line_of_their_file(tokenizer, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row()) + "\n\n" + json.dumps(row(ground_truth="")) + "\n")
    with pytest.raises(DatasetError, match=r"row 3 of .*rows\.jsonl, ground_truth: is missing"):
        prepare([str(path), "1.0"], tokenizer, tmp_path)


# --- prompts


def test_a_row_becomes_a_prompt(tokenizer, tmp_path):
    messages = [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": [{"type": "text", "text": "Say\nhi"}]},
        {"role": "assistant", "content": "old answer"},
    ]
    [prompt] = prepare([row(messages=messages, dataset="General-Flip")], tokenizer, tmp_path)
    assert prompt["messages"] == [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Say\nhi"}]
    assert prompt["prompt"] == "system: Be terse.\nuser: Say\nhi"
    assert tokenizer.decode(prompt["input_ids_prompt"]) == "System: Be terse.\n\nUser: Say\nhi\n\nAssistant:"
    assert prompt["dataset"] == ["general-flip"]
    assert prompt["ground_truth"] == "Write a haiku." and prompt["index"] == 0
    assert set(prompt) == set(dataset_transformation.ROW_COLUMNS)


def test_long_prompts_are_dropped_and_counted(tokenizer, tmp_path):
    extra = len("User: \n\nAssistant:")
    rows = [row("x" * 10), row("y" * 11), row("z" * 10)]
    prompts = prepare(rows, tokenizer, tmp_path, max_prompt_token_length=10 + extra)
    assert [p["index"] for p in prompts] == [0, 2]
    assert prompts.dropped == {"rlvr_max_length_filter_v1": 1}
    with pytest.raises(DatasetError, match=f"shortest prompt has {10 + extra} tokens"):
        prepare(rows, tokenizer, tmp_path, max_prompt_token_length=5)


def test_the_parallel_path_gives_the_same_rows(tokenizer, tmp_path, monkeypatch):
    rows = [row(f"prompt {'x' * (i % 7)}") for i in range(40)]
    plain = prepare(rows, tokenizer, tmp_path, max_prompt_token_length=30)
    monkeypatch.setattr(dataset_transformation, "PARALLEL_ROWS", 1)
    parallel = prepare(rows, tokenizer, tmp_path, max_prompt_token_length=30)
    assert 0 < len(plain) < 40
    assert list(parallel) == list(plain) and parallel.dropped == plain.dropped


def test_verifiers_and_targets_may_mix_text_and_lists(tokenizer, tmp_path):
    rows = [row(), row(dataset=["general-flip", "gsm8k"], ground_truth=["a", "3"])]
    prompts = prepare(rows, tokenizer, tmp_path)
    assert [p["ground_truth"] for p in prompts] == ["Write a haiku.", ["a", "3"]]
    assert [p["dataset"] for p in prompts] == [["general-flip"], ["general-flip", "gsm8k"]]


def test_unknown_transforms_and_templates_are_refused(tokenizer, tmp_path):
    with pytest.raises(DatasetError, match="did you mean 'rlvr_tokenize_v1'"):
        prepare([row()], tokenizer, tmp_path, transform_fns=["rlvr_tokenise_v1"])
    with pytest.raises(DatasetError, match="did you mean 'olmo_thinker'"):
        get_tokenizer("anything", "olmo_thinking")
    with pytest.raises(DatasetError, match="makes no input_ids_prompt, prompt"):
        prepare([row()], tokenizer, tmp_path, transform_fns=[])


def test_get_tokenizer_reads_a_folder_and_sets_the_template(tokenizer, tmp_path):
    bare = tmp_path / "bare"
    tokenizer.save_pretrained(bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(DatasetError, match="has no chat template"):
        get_tokenizer(str(bare))
    loaded: Any = get_tokenizer(str(bare), "olmo_thinker")
    text = loaded.apply_chat_template(row()["messages"], add_generation_prompt=True, tokenize=False)
    assert text.startswith("<|im_start|>system\nYou are OLMo,")
    assert text.endswith("<|im_start|>user\nWrite a haiku.<|im_end|>\n<|im_start|>assistant\n<think>")
    assert loaded.pad_token_id == loaded.eos_token_id


def test_a_template_that_refuses_a_row_is_reported_with_the_row(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DatasetError, match=r"row 1 of .*roles must alternate"):
        prepare([row()], tokenizer, tmp_path)
