"""Duplicates, sampling, and that nothing but texts, settings and seed decides what is written."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from filelock import FileLock
from prep_cases import TINY_TOKENIZER, WILDCHAT, WORDS, prompt, read_rows, wildchat, write

from datasets_prep.filters.dedup import KeptPrompts, shingles, signatures
from datasets_prep.filters.normalise import normalise, sampling_key
from datasets_prep.prepare import main
from datasets_prep.writing.sampling import Drawing


def command(data, output, *options):
    argv = ["--judge_type", "flip", "--tokenizer", TINY_TOKENIZER, "--data", *map(str, data), "--output", str(output)]
    return [*argv, *options]


def prepare(data, output, *options):
    assert main(command(data, output, "--workers", "1", *options), source="wildchat") == 0
    return (output / "train.jsonl").read_bytes()


def card_of(output):
    return json.loads((output / "card.json").read_text())


def left_out(output):
    return {step["filter"]: step["left_out"] for step in card_of(output)["steps"] if step["left_out"]}


def jaccard(a, b):
    one, two = set(shingles(normalise(a), 5)), set(shingles(normalise(b), 5))
    return len(one & two) / len(one | two)


LONG = " ".join(random.Random(1).choices(WORDS, k=60))


def test_near_duplicates_are_found_and_others_kept():
    pairs = {
        "a word more": (LONG, LONG + " please", True),
        "another beginning": (LONG, "Now: " + LONG, True),
        "a typo": (LONG, LONG.replace("harbour", "harbor", 1), True),
        "another half": (LONG, LONG[: len(LONG) // 2] + " ".join(random.Random(2).choices(WORDS[:4], k=30)), False),
        "one topic": ("Write a poem about love", "Write a poem about snow", False),
        "nothing": (prompt(1), prompt(2), False),
        "tiny": ("abc", "abd", False),
    }
    for name, (one, two, alike) in pairs.items():
        assert (jaccard(one, two) >= 0.8) == alike, name
        kept = KeptPrompts(0.8)
        first, second = signatures([normalise(one), normalise(two)], 5)
        assert kept.keep_if_new(first), name
        assert kept.keep_if_new(second) != alike, name


def test_the_index_agrees_with_comparing_all_pairs():
    generator = random.Random(5)
    texts = [prompt(number) for number in range(150)]
    texts += [text + generator.choice([" now", " please", "?", " Thanks"]) for text in texts[:100]]
    generator.shuffle(texts)
    kept, index, found = [], KeptPrompts(0.7), []
    for text, signature in zip(texts, signatures([normalise(text) for text in texts], 5), strict=True):
        if index.keep_if_new(signature):
            found.append(text)
        if all(jaccard(text, other) < 0.7 for other in kept):
            kept.append(text)
    # Estimates have an error: where pairs lie near the threshold, a few may differ.
    assert len(set(found) ^ set(kept)) <= 4 and len(kept) < 200


def test_copies_are_counted_over_all_and_one_stays(tmp_path):
    rows = [wildchat(number, text) for number, text in enumerate([prompt(1), prompt(1).upper(), prompt(2), prompt(3)])]
    rows += [wildchat(10, LONG), wildchat(11, LONG + " please"), wildchat(12, "  " + LONG)]
    data = [write(tmp_path / f"{number}.jsonl", rows[number::3]) for number in range(3)]
    prepare(data, tmp_path / "all", "--num_prompts", "all")
    assert left_out(tmp_path / "all") == {"exact_duplicates": 2, "near_duplicates": 1}
    assert card_of(tmp_path / "all")["rows"] == 4
    prepare(data, tmp_path / "off", "--num_prompts", "all", "--near_duplicates", "0")
    assert left_out(tmp_path / "off") == {"exact_duplicates": 2}
    prepare(data, tmp_path / "one", "--num_prompts", "1")
    found = left_out(tmp_path / "one")
    assert found["exact_duplicates"] == 2 and sum(found.values()) == 6


def test_fewer_rows_than_asked_for_is_told(tmp_path, capsys):
    prepare([write(tmp_path / "a.jsonl", [wildchat(1)])], tmp_path / "out", "--num_prompts", "5")
    assert "warning: 5 were asked for" in capsys.readouterr().err
    assert "5 prompts were asked for, and the source had no more" in (tmp_path / "out" / "card.md").read_text()


def test_the_sample_depends_on_seed_and_texts_alone(tmp_path, monkeypatch):
    """Not on the order of rows and files, formats, the size of units and slices; on the number of workers: below."""
    rows = [wildchat(number) for number in range(400)] + [wildchat(900 + n, prompt(n) + " Go.") for n in range(100)]
    one = prepare([write(tmp_path / "one" / "a.jsonl", rows)], tmp_path / "o1", "--num_prompts", "150", "--keep_id")
    random.Random(3).shuffle(rows)
    files = [write(tmp_path / "many" / f"{n}.parquet", rows[n::7], WILDCHAT, row_group_size=9) for n in range(7)]
    options = ("--num_prompts", "150", "--keep_id", "--unit_rows", "20")
    monkeypatch.setattr("datasets_prep.writing.sampling.SLICE_ROWS", 37)
    assert prepare(files[::-1], tmp_path / "o2", *options) == one
    other = prepare(files, tmp_path / "o4", *options, "--seed", "2")
    ids = [{row["id"] for row in map(json.loads, text.splitlines())} for text in (one, other)]
    assert 20 < len(ids[0] & ids[1]) < 90  # by chance about 150 * 150 / 400


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(tmp_path):
    rows = [wildchat(number) for number in range(300)] + [wildchat(900 + n, prompt(n) + " Go.") for n in range(200)]
    data = [write(tmp_path / "a.jsonl", rows)]
    everything = prepare(data, tmp_path / "all", "--num_prompts", "all", "--keep_work")
    assert everything.startswith(prepare(data, tmp_path / "some", "--num_prompts", "100"))
    assert left_out(tmp_path / "all")["near_duplicates"] > 100
    assert [sampling_key(normalise(row["ground_truth"]), 1) for row in read_rows(tmp_path / "all" / "train.jsonl")] == (
        sorted(sampling_key(normalise(row["ground_truth"]), 1) for row in read_rows(tmp_path / "all" / "train.jsonl"))
    )
    assert Drawing(candidates=10, exact_duplicates=2, near_duplicates=1, taken=3).not_drawn == 4


def test_a_finished_set_is_kept_and_never_overwritten(tmp_path, capsys):
    data = [write(tmp_path / "a.jsonl", [wildchat(number) for number in range(20)])]
    first = prepare(data, tmp_path / "out", "--num_prompts", "10")
    capsys.readouterr()
    assert prepare(data, tmp_path / "out", "--num_prompts", "10") == first
    assert "nothing to do" in capsys.readouterr().out
    other = command(data, tmp_path / "out", "--workers", "1", "--num_prompts", "11")
    assert main(other, source="wildchat") == 1
    assert "other settings" in capsys.readouterr().err
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == first
    assert main([*other, "--overwrite"], source="wildchat") == 0
    assert len(read_rows(tmp_path / "out" / "train.jsonl")) == 11


def test_a_failed_overwrite_leaves_the_older_set_as_it_was(tmp_path, capsys):
    data = [write(tmp_path / "a.jsonl", [wildchat(number) for number in range(20)])]
    prepare(data, tmp_path / "out", "--num_prompts", "10")

    def files():
        return {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir() if file.suffix}

    before = files()
    for flags, words in (("--language", "Korean"), "no row is left"), (("--tokenizer", str(tmp_path)), "be loaded"):
        assert main(command(data, tmp_path / "out", "--workers", "1", "--overwrite", *flags), source="wildchat") == 1
        assert words in capsys.readouterr().err
        assert files() == before
    assert main(command(data, tmp_path / "out", "--overwrite", "--format", "parquet"), source="wildchat") == 0
    assert files().keys() == {"train.parquet", "card.json", "card.md"}


def test_finished_units_are_kept_only_for_the_same_filters(tmp_path, capsys):
    data = [write(tmp_path / "a.jsonl", [wildchat(number) for number in range(20)])]
    prepare(data, tmp_path / "out", "--num_prompts", "10", "--keep_work")
    unit = tmp_path / "out" / ".work" / "unit-00000.arrow"
    made = unit.stat().st_mtime_ns
    prepare(data, tmp_path / "out", "--num_prompts", "15", "--keep_work", "--overwrite")  # drawing alone
    assert unit.stat().st_mtime_ns == made
    assert "1 of 1 units were finished before" in capsys.readouterr().err
    prepare(data, tmp_path / "out", "--num_prompts", "15", "--keep_work", "--overwrite", "--min_tokens", "5")
    assert unit.stat().st_mtime_ns > made
    assert "all is read again" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["FOLDER", "FOLDER#question", "FILE", "FILE:test#question"])
def test_changed_evaluation_prompts_are_another_run(tmp_path, capsys, name):
    data = [write(tmp_path / "a.jsonl", [wildchat(number) for number in range(20)])]
    file = write(tmp_path / "evals" / "one.jsonl", [{"question": "Who?"}])
    name = name.replace("FOLDER", str(file.parent)).replace("FILE", str(file))
    options = ("--keep_work", "--decontaminate", name)
    prepare(data, tmp_path / "out", *options)
    prepare(data, tmp_path / "out", *options)
    assert "nothing to do" in capsys.readouterr().out
    assert str(tmp_path) not in (tmp_path / "out" / "card.json").read_text()
    write(file, [{"question": "Who?"}, {"question": prompt(3)}])
    assert main(command(data, tmp_path / "out", *options), source="wildchat") == 1
    assert "of other files" in capsys.readouterr().err
    prepare(data, tmp_path / "out", *options, "--overwrite")
    assert left_out(tmp_path / "out") == {"contaminated": 1}


def test_two_runs_do_not_share_a_folder(tmp_path, capsys):
    data = [write(tmp_path / "a.jsonl", [wildchat(1)])]
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        assert main(command(data, tmp_path / "out"), source="wildchat") == 1
    assert "another run is writing" in capsys.readouterr().err


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path):
    """Killed with two workers, and compared with what one worker makes undisturbed."""
    rows = [wildchat(number, *([prompt(number), "Of course. " * 20] * 2)) for number in range(8500)]
    data = [write(tmp_path / "data" / f"{n}.jsonl", rows[n::3]) for n in range(3)]
    options = ("--num_prompts", "1000", "--unit_rows", "100", "--workers", "2")
    whole = prepare(data, tmp_path / "whole", *options[:4])
    argv = [sys.executable, "-m", "datasets_prep.wildchat", *command(data, tmp_path / "out", *options)]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True)
    work = tmp_path / "out" / ".work"
    deadline = time.monotonic() + 120
    while len(list(work.glob("unit-*.arrow"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()  # the main process alone: its workers end by themselves
    assert process.wait() == -signal.SIGKILL
    _wait_for_group(process.pid, deadline)
    assert not (tmp_path / "out" / "train.jsonl").exists()
    finished = {file.name: file.stat().st_mtime_ns for file in work.glob("unit-*.arrow")}
    assert 3 <= len(finished) < 60
    assert main(command(data, tmp_path / "out", *options, "--keep_work"), source="wildchat") == 0
    assert hashlib.sha256((tmp_path / "out" / "train.jsonl").read_bytes()).digest() == hashlib.sha256(whole).digest()
    assert {name: (work / name).stat().st_mtime_ns for name in finished} == finished
    cards = [card_of(tmp_path / name) for name in ("out", "whole")]
    assert cards[0]["steps"] == cards[1]["steps"]


def _wait_for_group(group, deadline):
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("workers outlive the run that started them")
