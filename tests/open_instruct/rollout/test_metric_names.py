"""docs/tracking.md names every metric, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from open_instruct.data.types import Group, Sample, ScoredSample
from open_instruct.rollout.judge_counters import COUNTERS, latencies
from open_instruct.rollout.stage_times import StageClock
from open_instruct.rollout.step_metrics import group_metrics, pass_at_k_metrics, step_metrics
from open_instruct.verifiers.base import VerificationResult

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "open-instruct" / "open_instruct"


def documented() -> list[str]:
    """Names in docs/tracking.md from "## Names" on: the tables' first cells, and the list of the evaluation's."""
    text = (ROOT / "docs" / "tracking.md").read_text().partition("## Names")[2]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    names = re.findall(r"`([^`]+)`", " ".join(cells)) + re.findall(r"`(eval/[^`]+)`", text)
    assert len(names) > 90
    return names


def undocumented(metrics: list[str]) -> list[str]:
    """Those of `metrics` that the page does not have."""
    patterns = [re.compile(re.sub(r"<\w+>", r"[\\w.-]+", re.escape(name).replace(r"\<", "<"))) for name in documented()]
    return [name for name in metrics if not any(pattern.fullmatch(name) for pattern in patterns)]


def some_group() -> Group:
    result = VerificationResult(1.0, details={"echo": 0.0, "seconds": 1.0})
    samples = [
        ScoredSample(
            Sample([1], [0.0], "stop", 0), "x", float(i), float(i), "ok", {"general-flip": result}, {"math": 1.0}
        )
        for i in range(2)
    ]
    for sample in samples:
        sample.format_reward = sample.overlong = 0.0
    return Group({"input_ids_prompt": [1]}, samples, 1.0, 1.0, 0.0)


def test_what_the_data_side_measures_is_documented():
    groups = [some_group()]
    measured = {
        *group_metrics(groups, prefix="objective"),
        *group_metrics(groups, prefix="eval"),
        *pass_at_k_metrics(groups, 2),
        *step_metrics(groups, [], [], step=0, samples_wanted=2),
        *StageClock().metrics(groups),
        *COUNTERS,
        *latencies(groups),
    }
    assert undocumented(sorted(measured)) == []
    assert undocumented(["time/nothing", "objective/a/b"]) == ["time/nothing", "objective/a/b"]


def test_nothing_is_documented_that_is_gone():
    source = "".join(path.read_text() for path in SOURCES.rglob("*.py"))
    ends = {name.rpartition("/")[2] for name in documented() if "<" not in name}
    assembled = {"kl0_avg", "kl1_avg", "kl2_avg", "kl3_avg"} | {
        end for end in ends if re.search(r"_(min|max|mean|solved|unsolved)$", end)
    }
    assert [end for end in sorted(ends - assembled) if end not in source] == []
