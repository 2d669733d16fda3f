"""``flip eval best_of_n`` from candidates to results, with a judge by rule; what is asked, what it comes to."""

import importlib
import json
import re
import sys
import zlib

import pytest
from run_results import load_results

from flip_plugin.cli import main
from flip_plugin.evals.records.items import Judgement
from flip_plugin.evals.stats.paired import PAIRED
from flip_plugin.evals.tasks.best_of_n import calls, weights_of

QUALITY = {"poor": 1, "fair": 4, "good": 7, "superb": 10}


def worth(prompt, response):
    """The metric: by the word in it."""
    return next((rank / 10 for word, rank in QUALITY.items() if word in response), None)


def answer(body):
    """A judge that always knows: it reads the words of `QUALITY`."""
    system = body["messages"][0]["content"]
    text = body["messages"][-1]["content"]
    found = [QUALITY[word] for word in re.findall("|".join(QUALITY), text)]
    if "BEST_RESPONSE_INDEX" in system + text:
        return json.dumps({"REASONING": "r", "BEST_RESPONSE_INDEX": found.index(max(found))})
    if "BETTER_RESPONSE" in system + text:
        return json.dumps({"REASONING": "r", "BETTER_RESPONSE": "A" if found[0] > found[1] else "B"})
    if "SCORE" in system + text:
        return json.dumps({"REASONING": "r", "SCORE": found[0]})
    words = ["write", "one", "tale", "about", "cats"]
    return json.dumps({"REASONING": "r", "INFERRED INSTRUCTION": " ".join(words[: 1 + found[0] // 3])})


@pytest.fixture
def candidates(tmp_path):
    path = tmp_path / "candidates.jsonl"
    rows = [
        {
            "id": "1",
            "prompt": "write one tale about cats",
            "responses": ["a poor one", "a good one", "a fair one", "superb!"],
        },
        {
            "id": "2",
            "prompt": "write one tale about cats",
            # Other words than above: of two questions that are the same, one may be answered by the cache.
            "responses": ["superb, two!", "a fair two", "a poor two", "a good two"],
        },
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(candidates, judge, tmp_path, *more):
    return [
        *("eval", "best_of_n", "--candidates", str(candidates), "--metric", "test_best_of_n:worth"),
        *("--judges", f"small=hosted_vllm/m@{judge.base}", "--seeds", "1", "--output", str(tmp_path / "run"), *more),
    ]


def cells_of(tmp_path):
    results = load_results(tmp_path / "run")["cells"]
    return {(result.method, result.group): result for result in results if not result.metric.endswith(PAIRED)}


def test_a_judge_that_knows_is_the_oracle(judge, candidates, tmp_path, capsys):
    judge.handler = answer
    assert main(command(candidates, judge, tmp_path)) == 0
    results = cells_of(tmp_path)
    # Mean over all pairs of the better one's metric, of 0.1, 0.4, 0.7, 1.0: (0.4 + 0.7 + 1 + 0.7 + 1 + 1) / 6.
    assert results["oracle", "N=2"].value == pytest.approx(0.8)
    assert results["oracle", "N=4"].value == 1.0
    for n in (1, 2, 4):
        assert results["random", f"N={n}"].value == pytest.approx(0.55)
        assert results["flip", f"N={n}"].value == pytest.approx(results["oracle", f"N={n}"].value)
        assert results["pointwise", f"N={n}"].value == pytest.approx(results["oracle", f"N={n}"].value)
    differences = [result for result in load_results(tmp_path / "run")["cells"] if result.metric.endswith(PAIRED)]
    assert {result.group for result in differences} == {"N=2", "N=4"}
    for ahead in differences:
        if ahead.method != "judges":
            behind = results["flip", ahead.group].value - results[ahead.method, ahead.group].value
            assert ahead.value == pytest.approx(behind)
    # Prefixes of two: (poor, good) and (superb, fair).
    assert results["listwise", "N=2"].value == pytest.approx((0.7 + 1.0) / 2)
    # Blocks of two: good, superb; superb, good.
    assert results["pairwise", "N=2"].value == pytest.approx(0.85)
    assert results["pairwise", "N=4"].value == results["listwise", "N=4"].value == 1.0
    assert all(result.invalid in (0, None) for result in results.values())
    # 2 prompts x (4 flip + 4 pointwise + 2 listwise + 6 knockout), and that was said before.
    assert len(judge.requests) == 32
    assert "judge calls: 32 = 2 prompts x 16 (flip 4, pointwise 4, listwise 2, pairwise 6)" in capsys.readouterr().err


def test_a_finished_run_asks_nothing_again(judge, candidates, tmp_path):
    judge.handler = answer
    main(command(candidates, judge, tmp_path))
    before, asked = cells_of(tmp_path), len(judge.requests)
    assert main(command(candidates, judge, tmp_path)) == 0
    assert len(judge.requests) == asked
    assert cells_of(tmp_path) == before


def test_all_against_all(judge, candidates, tmp_path):
    judge.handler = answer
    assert main(command(candidates, judge, tmp_path, "--methods", "pairwise", "--pairwise", "full")) == 0
    results = cells_of(tmp_path)
    assert len(judge.requests) == 2 * 12
    assert results["pairwise", "N=2"].value == pytest.approx(0.85)
    assert results["pairwise", "N=4"].value == 1.0


def test_a_judge_without_answers_is_a_random_pick(judge, candidates, tmp_path):
    judge.handler = lambda body: "no idea"
    assert main(command(candidates, judge, tmp_path, "--no_schema")) == 0
    results = cells_of(tmp_path)
    assert results["flip", "N=4"].value == results["pointwise", "N=4"].value == pytest.approx(0.55)
    assert results["pairwise", "N=4"].value == pytest.approx(0.55)
    assert results["listwise", "N=2"].value == pytest.approx((0.1 + 0.7 + 1.0 + 0.4) / 4)
    assert all(results[method, "N=4"].invalid == 1 for method in ("flip", "pointwise", "listwise", "pairwise"))


@pytest.mark.parametrize(("pairwise", "asked_at_4"), [("knockout", 6), ("full", 12)])
def test_pairwise_counts_the_questions_of_its_n_alone(judge, candidates, tmp_path, pairwise, asked_at_4):
    """The judge has no answer where the good one meets superb: a match of N=4, of no block of two."""

    def lost(body):
        text = body["messages"][-1]["content"]
        return "no idea" if "a good one" in text and "superb!" in text else answer(body)

    rows = [json.loads(line) for line in candidates.read_text().splitlines()][:1]
    candidates.write_text(json.dumps(rows[0]) + "\n")  # (poor, good), (fair, superb)
    judge.handler = lost
    more = ("--methods", "pairwise", "--pairwise", pairwise, "--no_schema")
    assert main(command(candidates, judge, tmp_path, *more)) == 0
    results = cells_of(tmp_path)
    assert results["pairwise", "N=2"].invalid == 0
    assert results["pairwise", "N=4"].invalid == pytest.approx(2 / asked_at_4)


def test_a_server_that_fails_is_missing_not_random(judge, candidates, tmp_path):
    judge.handler = lambda body: (400, "broken")
    assert main(command(candidates, judge, tmp_path, "--methods", "flip")) == 1
    result = cells_of(tmp_path)["flip", "N=4"]
    assert result.value is None
    assert "2 of 2 judgements failed" in result.note


def test_a_candidate_without_metric_is_counted_not_zero(judge, candidates, tmp_path):
    judge.handler = answer
    rows = [json.loads(line) for line in candidates.read_text().splitlines()]
    rows[0]["responses"][0] = "nothing known"
    candidates.write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(command(candidates, judge, tmp_path, "--methods", "listwise", "--sizes", "1", "4"))
    result = cells_of(tmp_path)["random", "N=1"]
    assert result.value == pytest.approx(((0.7 + 0.4 + 1.0) / 3 + 0.55) / 2)
    assert "1 of 8 candidates have no worth" in result.note


def test_a_failing_metric_judge_ends_the_run_for_now(judge, candidates, tmp_path, capsys):
    """Kept as missing, its values would stay missing: a finished metric is not computed again."""
    judge.handler = lambda body: (400, "broken") if "superb!" in body["messages"][-1]["content"] else answer(body)
    metric = ("--metric", f"judge:hosted_vllm/m@{judge.base}", "--methods", "flip")
    assert main(command(candidates, judge, tmp_path, *metric)) == 2
    assert "the metric's judge failed" in capsys.readouterr().err
    assert not (tmp_path / "run" / "results.json").exists() and not (tmp_path / "run" / "judgements").exists()
    judge.handler = answer
    assert main(command(candidates, judge, tmp_path, *metric)) == 0
    result = cells_of(tmp_path)["oracle", "N=4"]
    assert result.value == 1.0 and result.n == 2 and not result.note


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sizes", "3"], "a knockout gives the best of 2, 4, 8, ... candidates, not of 3"),
        (["--sizes", "8"], "--sizes must be from 1 to the 4 candidates"),
        (["--metric", "nothing"], "unknown metric 'nothing'"),
        (["--metric", "test_best_of_n:nothing"], "has no function 'nothing'"),
        (["--metric", "ifeval"], "has no IFEval instructions"),
    ],
)
def test_wrong_options_are_errors_before_the_judge_is_asked(judge, candidates, tmp_path, capsys, more, message):
    assert main(command(candidates, judge, tmp_path, *more)) == 2
    assert message in capsys.readouterr().err
    assert not judge.requests


def test_overwrite_works_the_metric_out_again(judge, candidates, tmp_path, monkeypatch):
    """Nothing says that a function of the same name is another one now: --overwrite starts anew."""
    judge.handler = answer
    (tmp_path / "my_metric.py").write_text("def worth(prompt, response):\n    return 0.25\n")
    monkeypatch.syspath_prepend(tmp_path)
    more = ("--metric", "my_metric:worth")
    assert main(command(candidates, judge, tmp_path, *more)) == 0
    sys.modules.pop("my_metric")
    (tmp_path / "my_metric.py").write_text("def worth(prompt, response):\n    return 0.5 + 0.25\n")
    importlib.invalidate_caches()
    assert main(command(candidates, judge, tmp_path, *more, "--overwrite")) == 0
    assert cells_of(tmp_path)["random", "N=1"].value == 0.75


def test_cost_only(judge, candidates, tmp_path, capsys):
    assert main(command(candidates, judge, tmp_path, "--cost_only", "--pairwise", "full")) == 0
    assert "pairwise 12) x 1 judges x 1 runs (pairwise: full)" in capsys.readouterr().out
    assert not (tmp_path / "run").exists() and not judge.requests


def test_calls_of_the_paper_s_sixteen():
    sizes = (1, 2, 4, 8, 16)
    assert calls("pairwise", sizes, 16, "knockout") == 30
    assert calls("pairwise", sizes, 16, "full") == 240
    assert calls("listwise", sizes, 16, "full") == 4
    assert calls("flip", sizes, 16, "full") == 16


def test_listwise_out_of_range_is_no_verdict():
    judged = Judgement("1#first2", "j", "listwise", 1, [None, None], ["unparsed"])
    assert weights_of(judged, 2, 4) == [0.5, 0.5, 0, 0]


# --- the policy's candidates ------------------------------------------------------------------------------------


def policy(body):
    """A policy whose sample follows from seed and prompt, as a real one's does."""
    words = list(QUALITY)
    number = zlib.crc32(f"{body['seed']} {body['messages'][-1]['content']}".encode())
    return f"a {words[number % 4]} one, {number}"


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"write tale {i}"}) + "\n" for i in range(6)))
    return path


def sampling(judge, prompts, output, *more):
    return [
        *("eval", "candidates", "--benchmark", "prompts", "--data", str(prompts), "--output", str(output)),
        *("--policy", f"hosted_vllm/p@{judge.base}", "--num_candidates", "3", "--num_prompts", "4", *more),
    ]


def test_candidates_are_seeded_and_all_different(judge, prompts, tmp_path):
    judge.handler = policy
    assert main(sampling(judge, prompts, tmp_path / "a.jsonl")) == 0
    assert main(sampling(judge, prompts, tmp_path / "b.jsonl")) == 0
    text = (tmp_path / "a.jsonl").read_text()
    assert text == (tmp_path / "b.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [len(row["responses"]) for row in rows] == [3, 3, 3, 3]
    assert len({response for row in rows for response in row["responses"]}) == 12
    assert {body["temperature"] for body in judge.requests} == {1.0}
    assert rows[0]["finish_reasons"] == ["stop"] * 3


def test_a_stopped_sampling_goes_on(judge, prompts, tmp_path, capsys):

    judge.handler = policy
    main(sampling(judge, prompts, tmp_path / "whole.jsonl", "--num_prompts", "6"))
    judge.requests.clear()
    output = tmp_path / "a.jsonl"
    judge.handler = lambda body: (500, "down") if "tale 3" in body["messages"][-1]["content"] else policy(body)
    assert main(sampling(judge, prompts, output, "--num_prompts", "6", "--timeout", "0.5")) == 2
    assert "the policy failed for 1 of 6 prompts" in capsys.readouterr().err
    assert not output.exists()
    partial = output.with_name("a.jsonl.partial")
    partial.write_text(partial.read_text() + '{"id": "4", "pro')  # a kill in the middle of a line
    judge.requests.clear()
    judge.handler = policy
    assert main(sampling(judge, prompts, output, "--num_prompts", "6")) == 0
    assert len(judge.requests) == 3
    assert output.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert not partial.exists()


def test_other_settings_want_another_file(judge, prompts, tmp_path, capsys):
    judge.handler = policy
    main(sampling(judge, prompts, tmp_path / "a.jsonl"))
    assert main(sampling(judge, prompts, tmp_path / "a.jsonl", "--policy_temperature", "0.5")) == 2
    assert "temperature was 1.0, now 0.5" in capsys.readouterr().err


def test_other_prompts_want_another_file(judge, prompts, tmp_path, capsys):
    judge.handler = policy
    main(sampling(judge, prompts, tmp_path / "a.jsonl"))
    prompts.write_text(prompts.read_text().replace("tale", "saga"))
    assert main(sampling(judge, prompts, tmp_path / "a.jsonl")) == 2
    assert "has another prompt with the id" in capsys.readouterr().err


def test_candidates_of_other_prompts_are_not_lost(judge, prompts, tmp_path, capsys):
    judge.handler = policy
    path = tmp_path / "a.jsonl"
    main(sampling(judge, prompts, path))
    before = path.read_text()
    others = tmp_path / "others.jsonl"
    others.write_text("".join(json.dumps({"id": f"o{i}", "prompt": f"saga {i}"}) + "\n" for i in range(6)))
    assert main(sampling(judge, others, path, "--num_prompts", "2")) == 2
    assert "was made otherwise (prompts was" in capsys.readouterr().err
    # A file from elsewhere comes without its settings.
    settings = path.with_name("a.jsonl.settings")
    settings.unlink()
    assert main(sampling(judge, others, path, "--num_prompts", "2")) == 2
    assert "a.jsonl has the prompt" in capsys.readouterr().err
    assert path.read_text() == before and not settings.exists()
    assert main(sampling(judge, others, path, "--num_prompts", "2", "--overwrite")) == 0
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "text", ['{"mine": "a file of something else"}', '{"id": "9", "prompt": "p", "responses": ["r"]}']
)
def test_a_file_of_something_else_stays_whole(judge, prompts, tmp_path, text):
    """Also where its last line does not end: only the .partial file can have half a line."""
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    assert main(sampling(judge, prompts, path)) == 2
    assert path.read_text() == text and judge.requests == []


def test_blank_candidate_lines_pass_and_wrong_types_fail(judge, prompts, tmp_path, capsys):
    judge.handler = policy
    path = tmp_path / "a.jsonl"
    main(sampling(judge, prompts, path))
    judge.requests.clear()
    path.write_text(path.read_text().replace("\n", "\n\n", 1))
    assert main(sampling(judge, prompts, path)) == 0 and judge.requests == []
    path.write_text('{"id": "0", "prompt": "p", "responses": "abc"}\n')
    assert main(sampling(judge, prompts, path)) == 2
    assert "row 1: not a line of candidates (column 'responses' must be" in capsys.readouterr().err


def test_a_prompt_that_the_policy_cannot_read_has_no_candidates(judge, prompts, tmp_path):
    judge.handler = lambda body: (400, "maximum context length is 10 tokens")
    assert main(sampling(judge, prompts, tmp_path / "a.jsonl")) == 0
    row = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert row["responses"] == [None, None, None]
    assert "maximum context length" in row["meta"]["errors"][0]


def test_sampled_and_judged_in_one_command(judge, prompts, tmp_path):
    judge.handler = lambda body: policy(body) if "tale" in body["messages"][0]["content"] else answer(body)
    assert (
        main(
            [
                *("eval", "best_of_n", "--benchmark", "prompts", "--data", str(prompts), "--num_candidates", "4"),
                *("--policy", f"hosted_vllm/p@{judge.base}", "--metric", "test_best_of_n:worth", "--seeds", "1", "2"),
                *("--judges", f"small=hosted_vllm/m@{judge.base}", "--output", str(tmp_path / "run"), "--limit", "2"),
            ]
        )
        == 0
    )
    results = cells_of(tmp_path)
    assert results["pointwise", "N=4"].value == results["oracle", "N=4"].value
    assert len(results["pointwise", "N=4"].runs) == 2
    assert (tmp_path / "run" / "candidates.jsonl").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "2", "prompt": "p", "responses": []}, "row 2: there is no response"),
        ({"id": "1", "prompt": "p", "responses": ["a"]}, "row 2: the id '1' was there before"),
        ({"id": "2", "prompt": "p", "responses": [3]}, "row 2: column 'responses' must be"),
        ({"id": "2", "prompt": "p", "responses": ["a"], "finish_reasons": ["stop", "stop"]}, "2 finish reasons"),
    ],
)
def test_bad_candidates_are_named(judge, tmp_path, capsys, row, message):
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in ({"id": "1", "prompt": "p", "responses": ["a"]}, row)))
    assert main(command(path, judge, tmp_path)) == 2
    assert message in capsys.readouterr().err
