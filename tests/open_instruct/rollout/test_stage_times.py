"""Stage times: interval arithmetic against counted instants, and what a step in a real actor comes to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_instruct.config.args import Args
from open_instruct.data.types import Group, Sample, ScoredSample
from open_instruct.rollout.judge_counters import JudgeCounters
from open_instruct.rollout.prep_actor import DataPreparationActor
from open_instruct.rollout.stage_times import StageClock, busy, hidden_fraction, overlap, union
from open_instruct.verifiers.base import VerificationResult

INTERVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda ends: (min(ends), max(ends))))


def instants(intervals) -> set[int]:
    """Whole-numbered intervals as the seconds that they cover."""
    return {second for start, end in intervals for second in range(start, end)}


@settings(max_examples=100, deadline=None)
@given(INTERVALS, INTERVALS)
def test_interval_arithmetic_agrees_with_counting(some, others):
    assert instants(union(some)) == instants(some)
    assert all(a[1] < b[0] for a, b in zip(union(some), union(some)[1:], strict=False))
    assert busy(some) == len(instants(some))
    assert overlap(some, others) == overlap(others, some) == len(instants(some) & instants(others))
    hidden = hidden_fraction(some, others)
    if instants(some):
        assert hidden == pytest.approx(len(instants(some) & instants(others)) / len(instants(some)))
    else:
        assert hidden is None


def group(generation, judgings) -> Group:
    samples = [
        ScoredSample(
            Sample([1], [0.0], "stop", 0), "x", 1.0, 1.0, "ok", {}, {}, judge_seconds=end - start, judge_start=start
        )
        for start, end in judgings
    ]
    return Group({}, samples, generation[1] - generation[0], 0.0, generation[0])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_step_worked_out_by_hand():
    """Two groups, a learner that works from 10 to 16 and asks at 16; another group is being generated from 19 on.

    Judging: 8..14 and 13..20, so 12 s. Learner at work 10..16, generation 0..9 and from 19: hidden are
    8..9, 10..16, 19..20 = 8 s.
    """
    now = Clock()
    clock = StageClock(now)
    with clock.waiting():
        now.now = 10.0
    groups = [group((0.0, 8.0), [(8.0, 14.0)]), group((2.0, 9.0), [(13.0, 20.0), (13.0, 15.0)])]
    clock._work += [(0.0, 8.0), (2.0, 9.0)]  # as `generating` would have noted
    now.now = 16.0
    with clock.waiting():
        now.now = 19.0
        generating = clock.generating()
        generating.__enter__()
        now.now = 20.0
    metrics = clock.metrics(groups)
    assert metrics == {
        "time/trainer_waiting_for_data": 4.0,
        "time/generation_waiting_for_trainer": 0.0,
        "time/generation": 9.0,
        "time/generation_sum": 15.0,
        "time/group_generation_mean": 7.5,
        "time/group_generation_max": 8.0,
        "time/group_generation_min": 7.0,
        "time/judging": 12.0,
        "time/judging_sum": 15.0,
        "time/judging_mean": 5.0,
        "time/judge_hidden_frac": pytest.approx(8 / 12),
        "time/judge_exposed": pytest.approx(4.0),
    }
    generating.__exit__(None, None, None)


def test_a_batch_that_lay_ready_waited_for_the_trainer():
    now = Clock()
    clock = StageClock(now)
    now.now = 30.0
    with clock.waiting():
        pass
    metrics = clock.metrics([group((0.0, 5.0), [])])
    assert metrics["time/generation_waiting_for_trainer"] == 25.0
    assert metrics["time/trainer_waiting_for_data"] == 0.0
    assert metrics["time/judge_hidden_frac"] is None and metrics["time/judge_exposed"] is None
    assert metrics["time/judging_mean"] is None and metrics["time/judging"] == 0.0


def test_an_evaluations_generation_hides_nothing():
    now = Clock()
    clock = StageClock(now)
    for counts, expected in ((False, 0.0), (True, 1.0)):
        with clock.generating(counts=counts):
            now.now += 5.0
        assert clock.metrics([group((0.0, 0.0), [(now.now - 5.0, now.now)])])["time/judge_hidden_frac"] == expected


class SlowJudge:
    """A scorer whose judgements take a known time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def warm_up(self) -> None: ...

    def verifiers(self):
        return []

    async def score(self, row, samples, max_tokens):
        import time

        start = time.perf_counter()
        await asyncio.sleep(self.seconds)
        seconds = time.perf_counter() - start
        result = {"general-flip": VerificationResult(1.0, details={"seconds": seconds})}
        return [
            ScoredSample(s, "x", float(i), 1.0, "ok", result, {}, judge_seconds=seconds, judge_start=start)
            for i, s in enumerate(samples)
        ]


async def generate(prompt_ids, sampling):
    """An engine that takes 10 ms for a group."""
    await asyncio.sleep(0.01)
    return [Sample([1, 2], [-1.0, -1.0], "stop", 0) for _ in range(sampling.n)]


@pytest.mark.parametrize(("async_steps", "learner_works", "hidden"), [(1, 0.2, True), (0, 0.2, False), (1, 0.0, False)])
async def test_judging_is_hidden_when_the_learner_works_meanwhile(async_steps, learner_works, hidden):
    """Judgements of 0.1 s: with a step in advance they end while the learner works for 0.2 s; else it waits."""
    args = Args(
        async_steps=async_steps,
        num_unique_prompts_rollout=2,
        num_samples_per_prompt_rollout=2,
        total_episodes=12,
        save_traces=False,
    )
    rows = [{"index": i, "input_ids_prompt": [1], "dataset": ["general-flip"]} for i in range(4)]
    actor = DataPreparationActor(
        args,
        SimpleNamespace(actors=[], sleep_mode=False),  # ty: ignore[invalid-argument-type]
        rows,
        [],
        SlowJudge(0.1),  # ty: ignore[invalid-argument-type]
        pad_token_id=0,
    )
    actor.engines.generate = generate
    await actor.weights_synced(0)
    metrics = {}
    for step in range(3):
        metrics = (await actor.get_step(step)).metrics
        await asyncio.sleep(learner_works)
        await actor.weights_synced(step + 1)
    share = metrics["time/judge_hidden_frac"]
    assert share is not None
    assert share > 0.9 if hidden else share < 0.5
    waited = metrics["time/trainer_waiting_for_data"]
    assert waited is not None and (waited < 0.05 if hidden else waited > 0.05)
    assert metrics["time/judging"] == pytest.approx(0.1, abs=0.08)


def judged(score, seconds) -> ScoredSample:
    result = VerificationResult(score, details={"seconds": seconds})
    return ScoredSample(Sample([1], [0.0], "stop", 0), "x", score, score, "ok", {"general-flip": result}, {})


def test_judge_counters_count_each_verifier_once():
    one, two = ({"calls": 0, "retries": 0, "cached": 0, "prompt_tokens": 0, "completion_tokens": 0} for _ in range(2))
    verifiers = [SimpleNamespace(stats=lambda: one), SimpleNamespace(stats=lambda: two), SimpleNamespace()]
    counters = JudgeCounters([*verifiers, verifiers[0]])
    assert counters.metrics([]) == {}
    one.update(calls=10, retries=2, prompt_tokens=500, error_timeout=1, error_auth=1, seconds_p50=1.5)  # ty: ignore[invalid-argument-type]
    two.update(calls=5, cached=4)
    groups = [Group({}, [judged(0.5, 1.0), judged(0.5, 3.0), judged(None, 60.0), judged(0.5, 0.0)], 0.0, 0.0)]
    assert counters.metrics(groups) == {
        "judge/calls": 15.0,
        "judge/cached": 4.0,
        "judge/retries": 2.0,
        "judge/prompt_tokens": 500.0,
        "judge/completion_tokens": 0.0,
        "judge/errors": 2.0,
        "judge/latency_p50": 2.0,
        "judge/latency_p99": pytest.approx(2.98),
    }
    one.update(calls=13)
    assert counters.metrics([])["judge/calls"] == 3.0
    assert counters.metrics([])["judge/latency_p50"] is None
