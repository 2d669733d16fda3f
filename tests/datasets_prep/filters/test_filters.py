"""Each filter, on rows in the sources' schemas, through the command's own loading path."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from prep_cases import LMSYS, TINY_TOKENIZER, WILDCHAT, prompt, read_rows, turns_of, wildchat, write

from datasets_prep.filters.decontaminate import Decontaminator
from datasets_prep.filters.languages import Detector, language_name
from datasets_prep.filters.normalise import normalise, prompt_text, sampling_key
from datasets_prep.filters.registry import LABEL_FILTERS, PROMPT_FILTERS, REASONS
from datasets_prep.filters.turns import Malformed, cut_turns
from datasets_prep.prepare import main
from datasets_prep.reading.sources import SOURCES
from datasets_prep.reading.units import plan_units, read_unit
from flip_plugin.rows.checks import DatasetError


def prepared(tmp_path, file, *options, source="wildchat", **changes):
    """(rows, card) of a run; `changes` are flags with a value."""
    output = tmp_path / "out"
    flags = {"judge_type": "flip", "data": file, "tokenizer": TINY_TOKENIZER, "output": output, "workers": 1} | changes
    argv = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    assert main([*argv, *options], source=source) == 0
    card = json.loads((output / "card.json").read_text())
    return read_rows(output / "train.jsonl"), card


def left_out(card):
    return {step["filter"]: step["left_out"] for step in card["steps"] if step["left_out"]}


def refused(capsys, tmp_path, file, *options, source="wildchat"):
    output = tmp_path / "out"
    argv = ["--judge_type", "flip", "--data", str(file), "--tokenizer", TINY_TOKENIZER, "--output", str(output)]
    assert main([*argv, "--workers", "1", *options], source=source) == 1
    assert not (output / "train.jsonl").exists() and not (output / "card.json").exists()
    return capsys.readouterr().err


ROWS = [
    wildchat(1, "Write a story about the harbour.", "Once."),
    wildchat(2, "Écris une histoire sur le port.", "Bien.", language="French"),
    wildchat(3, "Write a rude story about the harbour.", "No.", toxic=True),
    wildchat(4, "Write to PRESIDIO_ANONYMIZED_PERSON about a refund.", "Dear.", redacted=True),
    wildchat(5, "hm", "Yes?"),
    wildchat(6, "   \n", "You said nothing."),
    wildchat(7, "Explain " + "the long railway timetable " * 40, "Fine."),
    wildchat(8, "  write a  STORY about the harbour. ", "Again."),
    wildchat(
        9, "Write a letter to the museum about a lost basket.", "Dear museum,", "Make it shorter please.", "Dear,"
    ),
    wildchat(10, None, "Hello."),
    wildchat(11, "Write a story about winter.", "Cold.", language=None),
]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".jsonl.gz", ".json"])
def test_the_same_rows_from_every_format(tmp_path, suffix):
    file = tmp_path / f"rows{suffix}"
    if suffix == ".json":
        file.write_text(json.dumps(ROWS))
    elif suffix == ".jsonl.gz":
        file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    else:
        write(file, ROWS, WILDCHAT, **({"row_group_size": 2} if suffix == ".parquet" else {}))
    rows, card = prepared(tmp_path, file, max_tokens=60, num_prompts="all")
    story, letter = "Write a story about the harbour.", "Write a letter to the museum about a lost basket."
    assert {row["ground_truth"] for row in rows} <= {story, letter, "write a  STORY about the harbour."}
    assert len(rows) == 2 and all(set(row) == {"messages", "ground_truth", "dataset"} for row in rows)
    assert {row["dataset"] for row in rows} == {"general-flip"}
    assert left_out(card) == {
        "language": 2,
        "toxic": 1,
        "redacted": 1,
        "empty": 2,
        "too_short": 1,
        "too_long": 1,
        "exact_duplicates": 1,
    }
    assert card["read"] == 11 and card["steps"][-1]["left"] == card["rows"] == 2
    text = (tmp_path / "out" / "card.md").read_text()
    assert "| toxic, by the source's label | 1 | 8 |" in text and str(tmp_path) not in text


def test_labels_can_be_ignored(tmp_path):
    file = write(tmp_path / "rows.jsonl", ROWS)
    _, card = prepared(tmp_path, file, "--keep_toxic", "--keep_redacted", language="any", max_tokens=60)
    assert left_out(card).keys() == {"empty", "too_short", "too_long", "exact_duplicates"}
    _, card = prepared(tmp_path, file, "--overwrite", language="fr")
    assert card["rows"] == 1 and card["settings"]["language"] == "French"
    with pytest.raises(DatasetError, match="'Klingon' is unknown"):
        language_name("Klingon")


def test_full_conversations_and_system_prompts(tmp_path):
    chat = turns_of("Name a river.", "The Nile.", "Name a longer one please.", "None.")
    system = [{"role": "system", "content": "You answer in rhymes only."}, *turns_of("Name a river now.", "Nile.")]
    file = write(tmp_path / "rows.jsonl", [{"messages": chat}, {"messages": system}])
    options = {"source": "messages", "language": "any", "num_prompts": "all"}
    rows, _ = prepared(tmp_path, file, turns="full", **options)
    found = {row["ground_truth"]: row["messages"] for row in rows}
    assert found == {"Name a longer one please.": chat[:3], "You answer in rhymes only.": system[:2]}
    rows, _ = prepared(tmp_path, file, "--overwrite", target="user", **options)
    assert {row["ground_truth"] for row in rows} == {"Name a river.", "Name a river now."}
    _, card = prepared(tmp_path, file, "--overwrite", turns="full", max_prompt_tokens=20, **options)
    assert left_out(card) == {"prompt_too_long": 1}


def test_turns_are_cut_at_a_user_turn():
    greeting = [{"role": "assistant", "content": "Hi!"}, *turns_of("a", "b", "c", "d")]
    assert cut_turns(greeting, first=True) == turns_of("a")
    assert cut_turns(greeting, first=False) == greeting[:4]
    assert cut_turns([{"role": "gpt", "content": "x"}], first=False) == []
    assert cut_turns([{"role": "Human", "content": [{"type": "text", "text": "x"}]}], True) == turns_of("x")
    assert cut_turns("x", True) == turns_of("x")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "not NoneType"),
        ({"role": "user"}, "not dict"),
        (["x"], "turn 1 must be an object"),
        ([{"content": "x"}], "turn 1 has no role"),
        ([{"role": "user"}], r"turn 1 \(user\) has no content"),
        ([{"role": "wizard", "content": "x"}], "'wizard'"),
        ([{"role": "user", "content": 3}], "not int"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "image_url cannot be read"),
    ],
)
def test_malformed_turns_say_what_is_wrong(value, words):
    with pytest.raises(Malformed, match=words):
        cut_turns(value, first=False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"conversation": [', "line 3: not valid JSON"),
        ("[1]", "row 3: a row must be an object, not list"),
        ('"x"', "row 3: a row must be an object, not str"),
        (json.dumps(wildchat(3, toxic="no")), "row 3, toxic: must be true or false, but is 'no'"),
        (json.dumps(wildchat(3, language=7)), "row 3, language: must be text, but is 7"),
        (json.dumps(wildchat(3, conversation={"role": "user"})), "row 3: the prompt must be text or a list"),
        (json.dumps(wildchat(3, conversation=[{"role": "boss", "content": "x"}])), "row 3: turn 1 has a role that"),
    ],
)
@pytest.mark.parametrize("unit_rows", ["1", "25000"])  # one unit, and one that begins in the middle of the file
def test_a_malformed_json_line_is_refused_with_its_number(tmp_path, capsys, line, words, unit_rows):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{text}\n" for text in (json.dumps(ROWS[0]), json.dumps(wildchat(20)), line)))
    error = refused(capsys, tmp_path, file, "--unit_rows", unit_rows)
    assert f"rows.jsonl, {words}" in error
    if "turn 1" in words or "the prompt" in words:
        _, card = prepared(tmp_path, file, "--skip_malformed")
        assert left_out(card) == {"malformed": 1} and words in card["malformed_examples"][0]


def test_wrong_columns_are_refused_before_any_work(tmp_path, capsys):
    plain: list[dict[str, Any]] = [
        {"conversation": [{"role": "user", "content": "x"}], "language": "English", "toxic": False}
    ]
    assert "has no column redacted" in refused(capsys, tmp_path, write(tmp_path / "a.parquet", plain))
    assert "has no column redacted" in refused(capsys, tmp_path, write(tmp_path / "a.jsonl", plain))
    plain[0]["redacted"] = "no"
    assert "column redacted: must be true or false" in refused(capsys, tmp_path, write(tmp_path / "b.parquet", plain))
    plain[0] |= {"redacted": False, "conversation": ["x"]}
    assert "a list of {role, content}" in refused(capsys, tmp_path, write(tmp_path / "c.parquet", plain))
    whole = write(tmp_path / "d.parquet", ROWS[:1], WILDCHAT).read_bytes()
    (tmp_path / "d.parquet").write_bytes(whole[: len(whole) // 2])
    assert "d.parquet is not a whole Parquet file" in refused(capsys, tmp_path, tmp_path / "d.parquet")
    assert "no such file" in refused(capsys, tmp_path, tmp_path / "e.parquet")
    (tmp_path / "f.csv").write_text("x\n")
    assert "only .parquet, .jsonl" in refused(capsys, tmp_path, tmp_path / "f.csv")
    assert "could not be loaded" in refused(
        capsys, tmp_path, write(tmp_path / "g.jsonl", ROWS[:1]), "--tokenizer", str(tmp_path)
    )


def test_bad_settings_and_nothing_left(tmp_path, capsys):
    file = write(tmp_path / "rows.jsonl", ROWS)
    for flags, words in [
        (("--num_prompts", "many"), "must be a number or all"),
        (("--num_prompts", "0"), "at least 1"),
        (("--min_tokens", "9", "--max_tokens", "8"), "no prompt has"),
        (("--near_duplicates", "7"), "0 (off) to 1"),
        (("--overlap", "0"), "above 0"),
        (("--language", "Korean"), "no row is left"),
    ]:
        assert words in refused(capsys, tmp_path, file, *flags)


def test_lmsys_rows(tmp_path):
    def row(number, text, flagged=False, **changes):
        turns = turns_of(text, "Fine.")
        moderation = [{"flagged": False}, {"flagged": flagged}]
        return {
            "conversation_id": f"{number}",
            "conversation": turns,
            "turn": 1,
            "language": "English",
            "openai_moderation": moderation,
            "redacted": False,
        } | changes

    rows = [
        row(1, "Write about a river today."),
        row(2, "Write about a lake today.", flagged=True),
        row(3, "Write about NAME_1 and a lake.", redacted=True),
        row(4, "x", openai_moderation=None),
    ]
    for file in (write(tmp_path / "a.parquet", rows, LMSYS), write(tmp_path / "b.jsonl", rows)):
        found, card = prepared(tmp_path, file, "--keep_id", "--overwrite", source="lmsys")
        assert left_out(card) == {"toxic": 2, "redacted": 1}
        assert [row["id"] for row in found] == ["1"]


def test_ultrafeedback_prompts_have_their_language_detected(tmp_path):
    rows = [
        {"source": "evol_instruct", "instruction": text, "completions": [{"response": "x"}]}
        for text in (
            "Explain how a bill becomes law in a parliament.",
            "Erkläre, wie ein Gesetz im Parlament entsteht.",
            "WHY IS THE SKY BLUE AT NOON?",
            "请解释一下法律是如何制定的。",
        )
    ]
    found, card = prepared(tmp_path, write(tmp_path / "a.jsonl", rows), source="ultrafeedback")
    assert {row["ground_truth"] for row in found} == {rows[0]["instruction"], rows[2]["instruction"]}
    assert left_out(card) == {"language_detected": 2}
    assert "no label for toxic rows" in (tmp_path / "out" / "card.md").read_text()


def test_the_detector_on_short_prompts():
    english = [
        "Write a poem about love",
        "fix this code please",
        "Give me 10 startup ideas",
        "how many calories in an egg",
    ]
    others = [
        "Écris un poème sur l'amour",
        "quiero una receta de paella",
        "Напиши стихотворение",
        "愛についての詩を書いて",
    ]
    assert [Detector("English").accepts(text) for text in english] == [True] * 4
    assert [Detector("English").accepts(text) for text in others] == [False] * 4
    assert [Detector("French").accepts(text) for text in others] == [True, False, False, False]


def test_evaluation_prompts_are_left_out(tmp_path):
    asked = "If a train leaves the station at noon and travels ninety miles an hour, when does it arrive at the coast?"
    texts = [
        f"Hello! {asked.upper()} Answer with a number.",
        "When does the train leave today?",
        "What is two plus two?",
        "What is two plus two? And what is three plus three?",
    ]
    rows = [wildchat(number, text) for number, text in enumerate(texts)]
    evaluation = write(tmp_path / "eval.jsonl", [{"problem": asked}, {"problem": "what is TWO plus two"}])
    file = write(tmp_path / "rows.parquet", rows, WILDCHAT)
    found, card = prepared(tmp_path, file, decontaminate=evaluation)
    assert left_out(card) == {"contaminated": 2}
    assert {row["ground_truth"][:8] for row in found} == {"When doe", "What is "}
    found, _ = prepared(tmp_path, file, "--overwrite", decontaminate=f"{evaluation}#problem", overlap=1.0)
    assert len(found) == 2
    (tmp_path / "eval.txt").write_text("When does the train leave today?\n")
    found, _ = prepared(tmp_path, file, "--overwrite", decontaminate=tmp_path / "eval.txt")
    assert len(found) == 3


def test_half_of_an_evaluation_prompts_ngrams_count():
    known = Decontaminator(["one two three four five six"], n=3, overlap=0.5)  # four 3-grams
    assert known.contaminated("zero one two three four zero")
    assert not known.contaminated("zero one two three zero four five")
    assert not Decontaminator(["one two"], n=3).contaminated("one two three four")


def test_a_short_evaluation_prompt_is_found_as_one_turn(tmp_path):
    rows = [
        {"messages": [{"role": "system", "content": "You answer in rhymes only."}, *turns_of("What is 2 plus two?")]},
        {"messages": turns_of("Name a river of Asia.", "The Lena.", "what is 2 PLUS two", "4", "Thank you very much!")},
        {"messages": turns_of("What is 2 plus two? Answer in a word.")},
        {"messages": [{"role": "system", "content": ""}, *turns_of("Name a lake of Asia.")]},
        {"messages": turns_of("Name a river of Asia.", "Where is the station?", "What is 2", "?", "plus two?")},
    ]
    file = write(tmp_path / "rows.jsonl", rows)
    asked = [turns_of("What is 2 plus two?"), [{"role": "user", "content": [{"type": "text", "text": "?!"}]}]]
    evaluation = write(tmp_path / "eval.jsonl", [{"messages": turns} for turns in asked])
    _, card = prepared(
        tmp_path, file, source="messages", language="any", turns="full", min_tokens=1, decontaminate=evaluation
    )
    assert left_out(card) == {"contaminated": 2} and card["rows"] == 3


def test_evaluation_prompts_of_other_kinds_are_refused(tmp_path, capsys):
    evaluation = write(tmp_path / "eval.jsonl", [{"messages": [{"role": "user", "content": [{"type": "image"}]}]}])
    error = refused(capsys, tmp_path, write(tmp_path / "rows.jsonl", ROWS), "--decontaminate", str(evaluation))
    assert "eval.jsonl, row 1, messages: a content part of type image" in error


def test_a_missing_evaluation_column_is_refused(tmp_path, capsys):
    file = write(tmp_path / "rows.jsonl", ROWS)
    evaluation = write(tmp_path / "eval.jsonl", [{"text": "x"}])
    assert "eval.jsonl, row 1: no prompt in" in refused(capsys, tmp_path, file, "--decontaminate", str(evaluation))


def test_a_named_data_set_is_its_splits_files(tmp_path, monkeypatch, capsys):
    """`datasets` lists a local repository as it lists the hub's; only the given split is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write(tmp_path / "someone" / "chats" / "data" / "train-00000-of-00001.parquet", ROWS, WILDCHAT)
    write(tmp_path / "someone" / "chats" / "data" / "test-00000-of-00001.parquet", [wildchat(50)], WILDCHAT)
    from datasets_prep.reading import files

    found = files.hub_files("someone/chats", "train")
    assert [Path(file).name for file in found] == ["train-00000-of-00001.parquet"]
    with pytest.raises(DatasetError, match="no split 'dev'; it has train, test"):
        files.hub_files("someone/chats", "dev")
    assert "could not be found" in refused(capsys, tmp_path, "nobody/nothing")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".jsonl.gz", ".json"])
def test_addresses_are_read_like_files(tmp_path, suffix):
    local = write(tmp_path / ("rows" + suffix.removesuffix(".gz")), ROWS, WILDCHAT)
    data = gzip.compress(local.read_bytes()) if suffix.endswith("gz") else local.read_bytes()
    address = f"memory://prompts{suffix}"
    with fsspec.open(address, "wb") as file:
        file.write(data)
    units = plan_units([address], SOURCES["wildchat"], unit_rows=2)
    batches = [batch for unit in units for batch in read_unit(unit, SOURCES["wildchat"])]
    assert sum(batch.size for batch in batches) == len(ROWS)
    assert [name for batch in batches for name in batch.id or ()] == [row["conversation_hash"] for row in ROWS]


def test_rows_load_with_datasets_as_the_card_says(tmp_path):
    rows, _ = prepared(tmp_path, write(tmp_path / "rows.jsonl", ROWS))
    out = tmp_path / "out"
    (out / "README.md").write_text((out / "card.md").read_text())
    assert datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache")).to_list() == rows


def test_parquet_output_holds_the_same_rows(tmp_path):
    file = write(tmp_path / "rows.jsonl", [wildchat(number) for number in range(30)])
    rows, _ = prepared(tmp_path, file)
    argv = ["--judge_type", "flip", "--data", str(file), "--tokenizer", TINY_TOKENIZER, "--format", "parquet"]
    assert main([*argv, "--output", str(tmp_path / "two"), "--workers", "1"], source="wildchat") == 0
    assert pa.parquet.read_table(tmp_path / "two" / "train.parquet").to_pylist() == rows


def test_a_push_without_a_login_is_refused_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    file = write(tmp_path / "rows.jsonl", ROWS)
    assert "hf auth login" in refused(capsys, tmp_path, file, "--push_to_hub", "me/rows")
    assert "is not a data set's id" in refused(capsys, tmp_path, file, "--push_to_hub", "a/b/c")


def test_texts_are_compared_without_case_and_space():
    assert normalise(" Ｗrite\u00a0a\tPOEM\n") == "write a poem" == normalise("Write a poem")
    assert prompt_text(turns_of("A  b")) == "a b"
    assert prompt_text(turns_of("A", "b", "c")) == "user: a\nassistant: b\nuser: c"
    assert sampling_key("a", 1) == sampling_key("a", 1) != sampling_key("a", 2)
    assert prompt(1) != prompt(2)


def test_a_blank_turn_after_a_system_prompt_is_an_empty_row(tmp_path):
    blank = [{"role": "system", "content": "You are a poet who writes short verse."}, {"role": "user", "content": " "}]
    file = write(tmp_path / "rows.jsonl", [{"messages": blank}, {"messages": turns_of("Name a river of Asia.")}])
    rows, card = prepared(tmp_path, file, source="messages", language="any", num_prompts="all")
    assert [row["ground_truth"] for row in rows] == ["Name a river of Asia."]
    assert left_out(card) == {"empty": 1}


def test_numeric_ids_language_codes_and_hidden_leftovers(tmp_path):
    rows = [
        {"id": number, "language": code, "messages": turns_of(f"Name river number {number} of Asia.")[:1]}
        for number, code in enumerate(["en", "EN", "de"])
    ]
    folder = tmp_path / "data"
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("language", pa.string()),
            ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ]
    )
    write(folder / "rows.parquet", rows, schema)
    (folder / ".train.jsonl.x.jsonl").write_text('{"messages": [{"role": "us')
    found, card = prepared(
        tmp_path, folder, "--keep_id", source="messages", language="English", num_prompts="all", near_duplicates=0
    )
    assert sorted(row["id"] for row in found) == ["0", "1"]
    assert left_out(card) == {"language": 1}


def test_every_filter_has_its_line_on_the_card(tmp_path):
    _, card = prepared(tmp_path, write(tmp_path / "rows.jsonl", ROWS))
    filters = [*LABEL_FILTERS, *PROMPT_FILTERS]
    names = [step["filter"] for step in card["steps"]]
    assert names == [*REASONS, "exact_duplicates", "near_duplicates", "not_drawn"]
    text = (tmp_path / "out" / "card.md").read_text()
    assert {one.name for one in filters} <= set(names) and all(f"| {one.reason} |" in text for one in filters)
