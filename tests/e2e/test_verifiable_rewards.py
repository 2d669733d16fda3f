"""A real run on a mixed data set without a judge: gsm8k, math, ifeval and string_f1, alone and together."""

import json

import pytest
from tiny_run import tiny_flags

from datasets_prep.tiny_world.rows import make_rows

# The first holds for every text of the tiny policy, the second for none: half of the score.
HALF = {
    "instruction_id": ["keywords:forbidden_words", "startend:quotation"],
    "kwargs": [{"forbidden_words": ["quasar"]}, {}],
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_on_rows_that_need_no_judge(tmp_path, launch):
    rows = make_rows("train", 32, "flip", seed=1)
    labels = [
        ("gsm8k", lambda row: 18),
        ("math", lambda row: r"\frac{1}{2}"),
        ("ifeval", lambda row: HALF),
        (["string_f1", "ifeval"], lambda row: [row["ground_truth"], json.dumps(HALF)]),
    ]
    tagged = []
    for number, row in enumerate(rows):
        names, label = labels[number % 4]
        tagged.append(row | {"dataset": names, "ground_truth": label(row)})
    flags = tiny_flags(tmp_path, filter_zero_std_samples=False, report_verifiers="string_f1", local_eval_every=-1)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tagged))
    run = launch(flags)
    assert run.process.wait(400) == 0, run.output()
    assert run.left_behind() == []
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["training_step"] for line in lines] == [1, 2]
    names = {name for line in lines for name, value in line.items() if value is not None}
    assert {f"objective/{name}_reward" for name in ("gsm8k", "math", "ifeval", "string_f1")} <= names
    assert all(line["objective/invalid_frac"] == 0.0 for line in lines)
    seen = [line["objective/ifeval_reward"] for line in lines if line.get("objective/ifeval_reward") is not None]
    assert seen and all(0.4 < reward <= 0.5 for reward in seen), seen
    assert not (tmp_path / "out" / "judge_calls").exists() or not any((tmp_path / "out" / "judge_calls").iterdir())
