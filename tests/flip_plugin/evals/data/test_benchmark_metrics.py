"""The benchmarks' prompts by their published columns, and the metrics of a response."""

import asyncio
import json

import pytest

from flip_plugin.errors import CommandError
from flip_plugin.evals.data import candidate_metrics as benchmark_metrics
from flip_plugin.evals.data.benchmarks import load_prompts
from flip_plugin.evals.data.candidate_metrics import loose_versions, open_metric, score_candidates
from flip_plugin.evals.records.items import EvalItem
from flip_plugin.text.reasoning import answer_of


def scored(metric, item):
    async def one():
        with open_metric(metric) as opened:
            return await opened.score(item)

    return asyncio.run(one())


IFEVAL_ROW = {
    "key": 1000,
    "prompt": "Write a sentence without commas, in 3 words or more.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{"num_words": None, "relation": None}, {"num_words": 3, "relation": "at least"}],
}


def test_ifeval_by_prompt_and_by_instruction(tmp_path):
    path = tmp_path / "ifeval.jsonl"
    path.write_text(json.dumps(IFEVAL_ROW) + "\n")
    (item,) = load_prompts("ifeval", str(path))
    assert item.id == "1000"
    responses = ["One two three.", "One, two, three.", "One, two.", "", None, "<think>a, b, c</think>Now one two."]
    item = EvalItem(item.id, item.prompt, responses, meta=item.meta)  # ty: ignore[invalid-argument-type]
    assert [value for value, _ in scored("ifeval", item)] == [1, 0, 0, 0, 0, 1]
    assert [value for value, _ in scored("ifeval_inst", item)] == [1, 0.5, 0, 0, 0, 1]


def test_ifeval_loose_forgives_the_first_line(tmp_path):
    meta = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    item = EvalItem("1", "p", ["Sure, here it is:\nno comma here"], meta=meta)
    assert scored("ifeval", item) == [(0.0, None)]
    assert scored("ifeval_loose", item) == [(1.0, None)]
    assert loose_versions("*a*\nb\nc") == ["*a*\nb\nc", "b\nc", "*a*\nb", "b", "a\nb\nc", "a\nb"]


def test_an_unknown_instruction_is_missing_not_zero():
    item = EvalItem("1", "p", ["text"], meta={"instruction_id_list": ["no:such"], "kwargs": [{}]})
    ((value, problem),) = scored("ifeval", item)
    assert value is None and "no:such" in problem


def test_math(tmp_path):
    path = tmp_path / "math.jsonl"
    row = {
        "problem": "What is 1/2?",
        "solution": r"It is $\boxed{\frac{1}{2}}$.",
        "level": "Level 1",
        "type": "Algebra",
    }
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "answer": "7", "unique_id": "test/1"}) + "\n")
    first, second = load_prompts("math", str(path))
    assert (first.id, first.meta["answer"]) == ("1", r"\frac{1}{2}")
    assert (second.id, second.meta["answer"]) == ("test/1", "7")
    item = EvalItem("1", "p", [r"So \boxed{0.5}", "The answer is 1/3.", None], meta=first.meta)  # ty: ignore[invalid-argument-type]
    assert [value for value, _ in scored("math", item)] == [1, 0, 0]


def test_a_check_that_takes_for_ever_is_missing(monkeypatch):
    from flip_plugin.answers import worker_pool as workers

    pool = workers.WorkerPool(1, cpu_seconds=0.3)
    monkeypatch.setattr(workers, "shared_pool", lambda: pool)
    item = EvalItem("1", "p", [r"\boxed{9^{9^{9^{9}}}}", r"\boxed{4}"], meta={"answer": "4"})
    (slow, why), right = scored("math", item)
    assert slow is None and "timeout" in why
    assert right == (1.0, None)
    pool.close()


def test_alpaca_eval_and_human_interest_keep_the_reference(tmp_path):
    alpaca = tmp_path / "alpaca_eval.json"
    alpaca.write_text(json.dumps([{"instruction": "Say hi", "output": "hi", "generator": "g", "dataset": "d"}]))
    (item,) = load_prompts("alpaca_eval", str(alpaca))
    assert (item.prompt, item.meta) == ("Say hi", {"reference": "hi"})
    human = tmp_path / "human_interest.json"
    rows = [{"input": f"q{i}", "output": "a"} for i in range(5)]
    human.write_text(json.dumps({"name": "h", "task_type": "reward_model", "dev": rows[:1], "test": rows}))
    assert [one.prompt for one in load_prompts("human_interest", str(human))] == ["q0", "q1", "q2", "q3", "q4"]
    assert len(load_prompts("human_interest", str(human), split="dev")) == 1


def test_prompts_are_drawn_by_seed_in_the_data_s_order(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{i:02}"}) + "\n" for i in range(50)))
    drawn = [item.prompt for item in load_prompts("prompts", str(path), count=10, seed=3)]
    assert drawn == sorted(drawn) and len(set(drawn)) == 10  # ty: ignore[invalid-argument-type]
    assert drawn == [item.prompt for item in load_prompts("prompts", str(path), count=10, seed=3)]
    assert drawn != [item.prompt for item in load_prompts("prompts", str(path), count=10, seed=4)]


def test_messages_end_before_the_answer(tmp_path):
    path = tmp_path / "p.jsonl"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    path.write_text(json.dumps({"messages": turns, "ground_truth": "hi"}) + "\n")
    (item,) = load_prompts("prompts", str(path))
    assert item.prompt == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("ifeval", [IFEVAL_ROW, {**IFEVAL_ROW, "key": 2, "kwargs": [{}]}], "row 2: 2 instructions, but kwargs"),
        ("ifeval", [IFEVAL_ROW, IFEVAL_ROW], "row 2: the id '1000' was there before"),
        ("ifeval", [{"key": 1, "prompt": "p"}], "row 1: column 'instruction_id_list' is missing"),
        ("math", [{"problem": "p", "solution": "no box"}], "row 1: there is no answer"),
        ("prompts", [{"prompt": "p"}, {"other": 1}], "row 2: column 'prompt or messages' is empty"),
        ("alpaca_eval", [{"instruction": " "}], "row 1: column 'instruction' is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path, name, rows, message):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(CommandError, match=r"rows\.jsonl") as error:
        load_prompts(name, str(path))
    assert message in str(error.value)


def test_human_interest_says_where_it_is():
    with pytest.raises(CommandError, match="model_collaboration"):
        load_prompts("human_interest")


def half(prompt, response):
    return 0.5 if response else None


def test_metrics_are_kept_and_computed_once(tmp_path, monkeypatch):
    path = tmp_path / "metric.jsonl"
    items = [EvalItem(str(i), "p", ["a", ""]) for i in range(3)]
    first = score_candidates("test_benchmark_metrics:half", items, path)
    assert first["0"] == [(0.5, None), (None, "test_benchmark_metrics:half gave no value")]
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + '{"metric": "te')  # killed in the third line
    opened = []
    real = benchmark_metrics.FunctionMetric.score

    async def counted(self, item):
        opened.append(item.id)
        return await real(self, item)

    monkeypatch.setattr(benchmark_metrics.FunctionMetric, "score", counted)
    assert score_candidates("test_benchmark_metrics:half", items, path) == first
    assert len(opened) == 1
    assert len(path.read_text().splitlines()) == 3
    changed = [EvalItem("0", "p", ["", "a"]), *items[1:]]
    assert score_candidates("test_benchmark_metrics:half", changed, path)["0"][1] == (0.5, None)
    assert opened[1:] == ["0"]


def test_no_value_at_all_is_an_error(tmp_path):
    with pytest.raises(CommandError, match="no candidate has a value"):
        score_candidates("test_benchmark_metrics:half", [EvalItem("1", "p", [""])], tmp_path / "metric.jsonl")


def test_a_judge_as_metric(judge):
    judge.rates(7)
    item = EvalItem("1", "p", ["a", "b", None])  # ty: ignore[invalid-argument-type]
    values = scored(f"judge:hosted_vllm/m@{judge.base}", item)
    assert values[:2] == [(0.7, None), (0.7, None)]
    assert values[2][0] is None and values[2][1]
    assert {body["temperature"] for body in judge.requests} == {0.0}


def test_what_is_seen_of_a_response():
    assert answer_of("<think>plan</think> text ") == "text"
    assert answer_of("<think>never ends") == "" == answer_of(None)
