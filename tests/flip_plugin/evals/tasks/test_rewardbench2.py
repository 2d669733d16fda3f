import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_results import load_results

from flip_plugin.cli import main
from flip_plugin.errors import CommandError
from flip_plugin.evals.data.sources import RowError
from flip_plugin.evals.tasks.rewardbench2 import load_items, make_results, ties_result

# As on the card of allenai/reward-bench-2.
METADATA = pa.struct(
    [
        ("category", pa.string()),
        ("correct", pa.string()),
        ("index", pa.float64()),
        ("instruction_id_list", pa.list_(pa.string())),
        ("label", pa.string()),
        ("method", pa.string()),
        ("models", pa.list_(pa.string())),
        ("prompt_norm", pa.string()),
        ("subcategory", pa.string()),
        ("valid", pa.float64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("chosen", pa.list_(pa.string())),
        ("rejected", pa.list_(pa.string())),
        ("num_correct", pa.int64()),
        ("num_incorrect", pa.int64()),
        ("total_completions", pa.int64()),
        ("models", pa.list_(pa.string())),
        ("subset", pa.string()),
        ("additional_metadata", METADATA),
    ]
)
FOUR = ("Focus", "Factuality", "Precise IF", "Math")


def row(id, subset, chosen=("good",), rejected=("bad one", "bad two", "bad three"), **more):
    return {
        "id": str(id),
        "prompt": f"Say it well {id}",
        "chosen": [f"{one} {id}" for one in chosen],
        "rejected": [f"{one} {id}" for one in rejected],
        "num_correct": len(chosen),
        "num_incorrect": len(rejected),
        "total_completions": len(chosen) + len(rejected),
        "models": ["m1", "m2"],
        "subset": subset,
        "additional_metadata": None,
        **more,
    }


def benchmark(a_subset=2):
    rows = [row(f"{subset[:2]}{i}", subset) for subset in (*FOUR, "Safety") for i in range(a_subset)]
    return [
        *rows,
        row("ref:1", "Ties", ("good",), ("bad one", "bad two")),
        row("tied:1", "Ties", ("good", "good, too"), ("bad one", "bad two")),
    ]


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    else:
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


@pytest.fixture
def evaluate(tmp_path):
    """The command, over the rows, into one folder."""

    def run(*judges, rows=None, more=(), file="rows.parquet"):
        if rows is not None:
            write(tmp_path / file, rows)
        command = ["eval", "rewardbench2", "--data", str(tmp_path / file), "--output", str(tmp_path / "run")]
        return main([*command, "--judges", *judges, "--timeout", "5", *more])

    return run


@pytest.mark.parametrize("file", ["rows.parquet", "rows.jsonl"])
def test_local_files_of_the_schema_go_through_the_loading_path(tmp_path, file):
    path = write(tmp_path / file, benchmark())
    items = load_items(path)
    assert [item.subset for item in items] == [subset for subset in FOUR for _ in range(2)]
    first = items[0]
    assert first.id == "Focus/Fo0" and first.prompt == "Say it well Fo0"
    assert list(first.responses) == ["good Fo0", "bad one Fo0", "bad two Fo0", "bad three Fo0"]
    assert list(first.right or ()) == [True, False, False, False]
    assert first.meta == {"row_id": "Fo0", "models": ["m1", "m2"]}
    everything = load_items(path, (*FOUR, "Safety", "Ties"))
    assert len(everything) == 12 and list(everything[-1].right or ()) == [True, True, False, False]
    assert [item.subset for item in load_items(path, limit=4)] == list(FOUR)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": "good"}, r"column 'chosen' must be list\[str\], but is str"),
        ({"chosen": []}, "'chosen' has no response"),
        ({"rejected": [], "num_incorrect": 0, "total_completions": 1}, "'rejected' has no response"),
        ({"rejected": ["a", None, "c"]}, r"column 'rejected' must be list\[str\], but its item 2 is null"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": [{"role": "user", "content": "x"}]}, "column 'prompt' must be str, but is list"),
        ({"num_correct": 2}, "num_correct is 2, but there are 1 chosen and 3 rejected responses"),
        ({"total_completions": 5}, "total_completions is 5, but"),
        ({"chosen": ["a", "b"], "num_correct": 2, "total_completions": 5}, "outside of Ties there is one"),
        ({"subset": "Poetry"}, "unknown subset 'Poetry': RewardBench 2 has Focus, "),
        ({"subset": "Ties"}, "the id of a Ties row is ref:N or tied:N, not 'Fo1'"),
    ],
)
def test_a_malformed_row_is_refused_with_row_and_reason(tmp_path, change, reason):
    rows = benchmark()
    rows[1] = {**rows[1], **change}
    with pytest.raises(RowError, match=f"rows.jsonl: row 2: .*{reason}"):
        load_items(write(tmp_path / "rows.jsonl", rows))


def test_a_missing_column_of_a_parquet_file_is_refused(tmp_path):
    table = pa.Table.from_pylist(benchmark(), schema=SCHEMA).drop_columns(["rejected"])
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(RowError, match=r"rows.parquet: row 1: column 'rejected' is missing; the row has 'id'"):
        load_items(str(tmp_path / "rows.parquet"))


def test_an_empty_subset_and_a_repeated_tie_are_refused(tmp_path):
    path = write(tmp_path / "rows.jsonl", [row(1, "Focus")])
    with pytest.raises(CommandError, match="no rows of subset Factuality, Precise IF, Math"):
        load_items(path)
    path = write(tmp_path / "twice.jsonl", [benchmark()[-1]] * 2)
    with pytest.raises(RowError, match="row 2: Ties has id 'tied:1' twice"):
        load_items(path, ["Ties"])


def test_the_whole_command(evaluate, knowing, tmp_path, capsys):
    assert evaluate(f"small=hosted_vllm/m@{knowing.base}", rows=benchmark(), more=["--seeds", "1", "2"]) == 0
    finished = load_results(tmp_path / "run")
    results = {(result.method, result.group, result.metric): result for result in finished["cells"]}
    for method in ("flip", "pointwise", "listwise", "pairwise"):
        for group in (*FOUR, "all"):
            result = results[method, group, "accuracy"]
            assert (result.value, result.invalid, list(result.runs)) == (1.0, 0.0, [1.0, 1.0]), (method, group)
        assert results[method, "all", "accuracy_macro"].value == 1
    config = finished["config"]
    assert config["seeds"] == [1, 2] and config["settings"]["subsets"] == list(FOUR)
    assert config["settings"]["temperature"] == 0.7 and config["settings"]["max_tokens"] == 512
    assert any("share the credit" in rule for rule in finished["rules"]) and finished["rules"] == config["rules"]
    out = capsys.readouterr().out
    assert "RewardBench 2, 8 items, 2 runs" in out and "100.0 ± 0.0" in out and "share the credit" in out
    assert "random pick" in out and str(tmp_path / "run") in out
    # 2 runs x 8 items x (4 flip + 4 pointwise + 1 listwise + 12 pairwise)
    assert len(knowing.requests) == 2 * 8 * 21


def test_invalid_replies_stand_beside_the_number(evaluate, knowing, tmp_path):
    good = knowing.handler
    knowing.handler = lambda body: "no" if "Fo0" in str(body) else good(body)
    more = ["--methods", "pointwise", "--temperature", "0"]
    assert evaluate(f"hosted_vllm/m@{knowing.base}", rows=benchmark(), more=more) == 0
    results = {(result.group, result.metric): result for result in load_results(tmp_path / "run")["cells"]}
    assert results["Focus", "accuracy"].value == (0.25 + 1) / 2  # a random pick
    assert results["Focus", "accuracy_skip"].value == 1
    assert results["Focus", "accuracy_wrong"].value == 0.5
    assert results["Focus", "accuracy"].invalid == 0.5 and results["Math", "accuracy"].invalid == 0
    assert len(results["Focus", "accuracy"].runs) == 1  # greedy: one run by default
    assert {body["temperature"] for body in knowing.requests} == {0}


def test_ties_and_safety(evaluate, knowing, tmp_path, capsys):
    more = ["--subsets", "all", "--methods", "flip", "listwise", "--seeds", "1"]
    assert evaluate(f"hosted_vllm/m@{knowing.base}", rows=benchmark(), more=more) == 0
    results = {
        (result.method, result.group, result.metric): result for result in load_results(tmp_path / "run")["cells"]
    }
    # All right ones alike (6/7), all wrong ones 0: accurate, preferred, without a spread.
    ties = results["flip", "Ties", "score"]
    assert ties.value == pytest.approx(1.01) and ties.n == 2 and ties.invalid == 0
    assert results["flip", "all", "score_macro"].value == pytest.approx((5 + 1.01) / 6)
    assert results["flip", "all", "accuracy_macro"].value == 1 and results["flip", "all", "accuracy"].n == 10
    assert results["listwise", "Ties", "score"].value is None
    assert "listwise does not give" in results["listwise", "Ties", "score"].note
    assert results["listwise", "all", "score_macro"].value is None
    assert "Ties: RewardBench 2's weighted score" in capsys.readouterr().out
    listwise = (tmp_path / "run" / "judgements" / "m.listwise.1.jsonl").read_text()
    assert "Ties/" not in listwise


def test_a_changed_command_is_refused_and_a_judge_may_be_added(evaluate, knowing, tmp_path, capsys):
    more = ["--methods", "flip", "--seeds", "1"]
    first = f"a=hosted_vllm/m@{knowing.base}"
    assert evaluate(first, rows=benchmark(), more=more) == 0
    asked = len(knowing.requests)
    assert evaluate(first, more=[*more, "--max_tokens", "64"]) == 2
    assert "max_tokens was 512, now 64" in capsys.readouterr().err
    assert evaluate(first, rows=benchmark(3), more=more) == 2
    assert "its items differ" in capsys.readouterr().err
    assert evaluate(first, rows=benchmark(), more=more) == 0
    assert len(knowing.requests) == asked
    assert evaluate(first, f"b=hosted_vllm/m@{knowing.base}", more=more) == 0
    assert len(knowing.requests) == 2 * asked  # of another name, another judge
    assert {result.judge for result in load_results(tmp_path / "run")["cells"]} == {"a", "b"}


def test_a_server_that_is_away_gives_missing_values(evaluate, judge, tmp_path, capsys):
    judge.handler = lambda body: (401, "no such key")
    assert evaluate(f"a=hosted_vllm/m@{judge.base}", rows=benchmark(), more=["--methods", "flip", "--seeds", "1"]) == 1
    results = load_results(tmp_path / "run")["cells"]
    assert all(result.value is None and "no such key" in result.note for result in results)
    message = capsys.readouterr()
    assert "no such key" in message.err and "same command again" in message.err and "–" in message.out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--subsets", "Poetry"], "no rows of subset Poetry"),
        (["--seeds", "1", "1"], "--seeds names one twice"),
        (["--temperature", "-1"], "--temperature must not be negative"),
        (["--prompts", "nowhere"], "'nowhere' does not exist"),
        (["--similarity", "telepathy"], "telepathy"),
    ],
)
def test_wrong_options_are_errors_before_anything_is_asked(evaluate, knowing, tmp_path, capsys, more, message):
    assert evaluate(f"hosted_vllm/m@{knowing.base}", rows=benchmark(), more=more) == 2
    assert message in capsys.readouterr().err
    assert not knowing.requests and not (tmp_path / "run").exists()


def test_ties_cell_draws_questions_with_both_items(tmp_path):
    from flip_plugin.evals.records.items import Judgement

    rows = [
        row(f"{kind}:{n}", "Ties", ("good",) * k, ("bad",)) for n in range(4) for kind, k in (("ref", 1), ("tied", 2))
    ]
    items = load_items(write(tmp_path / "rows.jsonl", rows), ["Ties"])
    scores = {"ref": [1.0, 0.0], "tied": [1.0, 0.5, 0.0]}
    judgements = [Judgement(one.id, "j", "flip", 1, scores[one.meta["row_id"].split(":")[0]], ["ok"]) for one in items]
    result = ties_result(items, judgements, "j", "flip", [1])
    # Accurate everywhere; the margin 0.5 is not above the spread 0.5; tanh(0.5 / 0.5 - 1) = 0.
    assert result.value == pytest.approx(0.6) and result.low == pytest.approx(0.6) and result.high == pytest.approx(0.6)
    assert result.n == 8


def test_evaluations_are_listed_and_imported_late():
    import subprocess
    import sys

    code = (
        "import sys; from flip_plugin.cli import main\n"
        "try: main(['eval', '--help'])\n"
        "except SystemExit: pass\n"
        "late = ('flip_plugin.evals.tasks.rewardbench2', 'litellm', 'datasets', 'numpy', 'torch', 'pyarrow')\n"
        "print([name for name in late if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "rewardbench2" in done.stdout and done.stdout.rstrip().endswith("[]")


def test_help_of_an_evaluation(capsys):
    with pytest.raises(SystemExit):
        main(["eval", "rewardbench2", "--help"])
    out = capsys.readouterr().out
    for option in ("--judges", "--subsets", "--cache", "--overwrite", "allenai/reward-bench-2", "--seeds"):
        assert option in out


def test_make_cells_without_ties_has_no_score(options, tmp_path):
    items = load_items(write(tmp_path / "rows.jsonl", benchmark()))
    results = make_results(items, [], options("http://127.0.0.1:1/v1"), FOUR)
    metrics = {"accuracy", "accuracy_skip", "accuracy_wrong", "accuracy_macro", "accuracy_macro_lead"}
    assert {result.metric for result in results} == metrics
    assert all(result.value is None and result.note == "not judged" for result in results)
