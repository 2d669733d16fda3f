"""A file that cannot be read as a whole is refused by its name, by whatever reads it, rows skipped or not."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prep_cases import TINY_TOKENIZER, prompt, turns_of, write

from datasets_prep import tag, validate
from datasets_prep.filters.decontaminate import evaluation_prompts
from datasets_prep.prepare import main
from flip_plugin.rows.checks import DatasetError
from flip_plugin.rows.reading import numbered_rows
from open_instruct.data.rows import load_dataset_mixer

ROWS = [
    {"messages": turns_of(prompt(number)), "ground_truth": prompt(number), "dataset": "general-flip"}
    for number in range(3000)
]
PACKED = gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode())
GOOD = json.dumps(ROWS[0])


def damaged_parquet(path):
    """The end, which says where the rows are, is whole; the second batch's pages are not."""
    write(path, ROWS, row_group_size=1024, compression="none", use_dictionary=False)
    data = path.read_bytes()
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    path.write_bytes(data[:start] + b"\xff" * 4000 + data[start + 4000 :])


DAMAGES = {
    "cut.jsonl.gz": PACKED[: len(PACKED) // 2],
    "none.jsonl.gz": b"hello",
    "damaged.jsonl.gz": PACKED[:5000] + bytes(200) + PACKED[5200:],
    "digits.json": f'[{GOOD}, {{"n": {"1" * 5000}}}]'.encode(),
    "deep.json": b"[" * 200_000,
    "none.parquet": b"hello",
    "cut.parquet": b"PAR1" + bytes(500),
    "damaged.parquet": damaged_parquet,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_refused_by_its_name(tmp_path, capsys, name):
    file, damage = tmp_path / name, DAMAGES[name]
    damage(file) if callable(damage) else file.write_bytes(damage)
    out = tmp_path / "out"
    options = ["--data", str(file), "--output", str(out), "--workers", "1", "--skip_malformed", "--language", "any"]
    assert main(["--judge_type", "flip", "--tokenizer", TINY_TOKENIZER, *options], source="messages") == 1
    assert str(file) in (error := capsys.readouterr().err) and error.count("\n") < 5
    assert validate.main([str(file)]) == 1
    assert str(file) in capsys.readouterr().err
    with pytest.raises(DatasetError, match=str(file)):
        tag.tag(str(file), out, "general-quality")
    with pytest.raises(DatasetError, match=str(file)):
        list(evaluation_prompts([str(file)]))


def test_parquet_text_that_is_no_utf8_is_refused_by_row(tmp_path, capsys):
    texts = {"ground_truth": [b"fine", b"fine", b"\xff"], "dataset": [b"general-flip", b"general-flip", b"\xfe"]}
    columns = {name: pa.array(values, pa.binary()).view(pa.string()) for name, values in texts.items()}
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"messages": [turns_of("Hi.")] * 3} | columns), file)
    assert validate.main([str(file)]) == 1
    printed = capsys.readouterr().err
    assert f"{file}, row 3: holds text that cannot be read" in printed
    for name in (file, tmp_path):  # the trainer, in the same words
        with pytest.raises(DatasetError) as caught:
            load_dataset_mixer([str(name), "1.0"], ["train"], 1)
        assert f"error: {caught.value}\n" == printed
    with pytest.raises(DatasetError, match="row 3: holds text that cannot be read"):
        tag.tag(str(file), tmp_path / "out", "general-quality")
    with pytest.raises(DatasetError, match="row 3: holds text that cannot be read"):
        list(numbered_rows(str(file)))


def test_evaluation_prompts_that_are_no_utf8_are_refused(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("Où est le café ?\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=f"{file} is not UTF-8 text"):
        list(evaluation_prompts([str(file)]))
