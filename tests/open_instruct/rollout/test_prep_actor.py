"""The data side as a whole, in process: a scripted engine, the real scorer, verifier, packing and writer.

The engine answers each prompt with the responses that the test wrote for its row, after a delay that the test
chooses, so groups arrive in any order. Rewards come from `constraints_satisfied`, a real verifier.
"""

import asyncio
import json
import random
import re
from typing import Any

import pytest

from datasets_prep.tiny_world.rows import make_rows
from datasets_prep.tiny_world.verifier import constraints_satisfied
from open_instruct.config.args import Args
from open_instruct.data.prompt_stream import NoPromptsLeft, PromptOrder, PromptStream
from open_instruct.data.templates import get_tokenizer
from open_instruct.data.types import Sample
from open_instruct.engines.pool import EngineSet
from open_instruct.engines.sleep import Turns
from open_instruct.rewards.missing import JudgeFailure
from open_instruct.rewards.row_reward import RewardConfig
from open_instruct.rewards.scorer import RowScorer
from open_instruct.rollout.prep_actor import DataPreparationActor, initial_state
from open_instruct.verifiers.base import FunctionVerifier, VerificationResult

TOKENIZER = "datasets_prep/tiny_world/models/policy"
PROMPTS, GROUP = 4, 2
#: What the engine writes for a row, G responses: with a spread of scores, all alike, and all alike but good.
TEACHES, DULL, SOLVED = "teaches", "dull", "solved"


@pytest.fixture(scope="module")
def tokenizer():
    return get_tokenizer(TOKENIZER)


class Engine:
    """Stands in for a policy engine's handle: `generate.remote` answers from `rows`, `version` is the test's to set."""

    def __init__(self, rows, tokenizer, seed):
        self.by_prompt = {tuple(row["input_ids_prompt"]): row for row in rows}
        self.tokenizer, self.random, self.version = tokenizer, random.Random(seed), 0
        self.asked, self.in_flight, self.most_in_flight = [], 0, 0
        self.generate = self  # so that .generate.remote(...) is the coroutine below

    async def remote(self, prompt_ids, sampling):
        row = self.by_prompt[tuple(prompt_ids)]
        self.asked.append((row["index"], sampling))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        for _ in range(self.random.choice([0, 2, 10, 80])):
            await asyncio.sleep(0)
        self.in_flight -= 1
        texts = [row["texts"][i % len(row["texts"])] for i in range(sampling.n)]
        return [Sample(ids := self.tokenizer.encode(t), [-1.0] * len(ids), "stop", self.version) for t in texts]


def make(kinds, tokenizer):
    """A row of the tiny world for each kind, in the form that the trainer gives its rows."""
    rows = []
    for index, (row, kind) in enumerate(zip(make_rows("train", len(kinds), "flip", seed=1), kinds, strict=True)):
        keyword = re.search(r"mentions? the (\w+)", row["ground_truth"], re.IGNORECASE)[1]
        good, bad = f"Here is the {keyword}.", "Nothing to say."
        rows.append(
            {
                "input_ids_prompt": tokenizer.encode(row["ground_truth"]),
                "messages": row["messages"],
                "prompt": "user: " + row["ground_truth"],
                "ground_truth": [row["ground_truth"]],
                "dataset": ["constraints_satisfied"],
                "index": index,
                "texts": {TEACHES: [good, bad], DULL: [bad], SOLVED: [good]}[kind],
            }
        )
    return rows


class World:
    """An actor with all that it needs. `steps` drives it as the training loop does."""

    def __init__(self, rows, tokenizer, tmp_path, *, delays=0, verifier=None, resume=None, state=None, **flags):
        values: dict[str, Any] = {
            "num_unique_prompts_rollout": PROMPTS,
            "num_samples_per_prompt_rollout": GROUP,
            "seed": 5,
            "total_episodes": PROMPTS * GROUP * 8,
            "output_dir": str(tmp_path),
            **flags,
        }
        self.args = Args(**values)
        verifier = verifier or FunctionVerifier("constraints_satisfied", constraints_satisfied)
        scorer = RowScorer(TOKENIZER, RewardConfig({"constraints_satisfied": verifier}), {})
        scorer._tokenizer = tokenizer  # spares the import of the judge's client
        self.engine = Engine(rows, tokenizer, delays)
        eval_rows = rows if self.args.dataset_mixer_eval_list else []
        engines = EngineSet([self.engine], None)  # ty: ignore[invalid-argument-type]
        self.actor = DataPreparationActor(self.args, engines, rows, eval_rows, scorer, 0, resume, state)
        self.folder = tmp_path

    async def steps(self, first, last):
        """Steps `first` to `last` - 1; their `StepData`."""
        found = []
        await self.actor.weights_synced(first)
        for step in range(first, last):
            found.append(await self.actor.get_step(step))
            for _ in range(self.engine.random.randrange(40)):  # the trainer's time: further steps are made or not
                await asyncio.sleep(0)
            self.engine.version = step + 1
            await self.actor.weights_synced(step + 1)
        return found

    def prompts(self):
        """{step, from 0: the rows of its groups, in order} as the rollouts on disk have them."""
        found = {}
        for line in (self.folder / "rollouts" / "train.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["sample_index"] == 0:
                found.setdefault(record["training_step"] - 1, []).append(record["prompt_index"])
        return found


@pytest.mark.parametrize("async_steps", [0, 1, 3])
async def test_steps_keep_prompt_order_and_staleness_limit(async_steps, tokenizer, tmp_path):
    world = World(make([TEACHES] * 10, tokenizer), tokenizer, tmp_path, async_steps=async_steps)
    steps = await world.steps(0, 8)
    order = PromptOrder(10, seed=5)
    assert world.prompts() == {s: [order[s * PROMPTS + i] for i in range(PROMPTS)] for s in range(8)}
    assert [data.step for data in steps] == list(range(8))
    assert len(world.engine.asked) == 8 * PROMPTS, "no prompt beyond the last step"
    assert world.engine.most_in_flight <= (async_steps + 1) * PROMPTS
    for data in steps:
        assert 0 <= data.metrics["num_steps_off_policy"] <= async_steps
        assert data.step - data.metrics["model_step_min"] <= async_steps
        assert data.metrics["objective/samples_trained_on"] == PROMPTS * GROUP
        assert data.metrics["real_batch_size_ratio"] == 1.0
    if async_steps == 0:
        assert all(data.metrics["num_steps_off_policy"] == 0 for data in steps)


KINDS = [TEACHES, DULL, SOLVED, TEACHES, DULL, TEACHES, SOLVED, TEACHES, TEACHES, DULL, TEACHES, SOLVED, TEACHES]
BUSY = {"active_sampling": True, "no_resampling_pass_rate": 0.1, "num_mini_batches": 2}


@pytest.mark.parametrize("async_steps", [0, 2])
async def test_active_sampling_fills_steps_with_groups_that_teach(async_steps, tokenizer, tmp_path):
    rows = make(KINDS, tokenizer)
    world = World(rows, tokenizer, tmp_path, async_steps=async_steps, active_sampling=True)
    steps = await world.steps(0, 6)
    drawn = [index for step in range(6) for index in world.prompts()[step]]
    order = PromptOrder(len(rows), seed=5)
    assert drawn == [order[i] for i in range(len(drawn))], "in order, none left out, none twice"
    for data in steps:
        kinds = [KINDS[index] for index in world.prompts()[data.step]]
        assert kinds.count(TEACHES) == PROMPTS and kinds[-1] == TEACHES
        assert data.metrics["batch/total_prompts"] == PROMPTS
        assert data.metrics["batch/filtered_prompts"] == len(kinds) - PROMPTS
        assert data.metrics["batch/filtered_prompts_zero"] == kinds.count(DULL)
        assert data.metrics["batch/filtered_prompts_nonzero"] == kinds.count(SOLVED)
        assert data.metrics["objective/samples_trained_on"] == PROMPTS * GROUP
        assert data.warnings == []


@pytest.mark.parametrize("active", [True, False])
async def test_a_steps_prompts_do_not_depend_on_timing(active, tokenizer, tmp_path):
    found = []
    rows = make(
        [TEACHES, SOLVED] * 4, tokenizer
    )  # fewer than are in flight: epochs end while their scores are not yet known
    for delays in range(8):
        folder = tmp_path / str(delays)
        world = World(rows, tokenizer, folder, delays=delays, async_steps=2, **(BUSY | {"active_sampling": active}))
        steps = await world.steps(0, 8)
        packed = [[batch.input_ids.tolist() for batch in data.batches[0]] for data in steps]
        found.append((world.prompts(), await world.actor.state(), packed))
    assert all(other == found[0] for other in found[1:])


@pytest.mark.parametrize("flags", [{}, BUSY], ids=["plain", "busy"])
async def test_a_continued_run_sees_the_prompts_it_would_have(flags, tokenizer, tmp_path):
    rows = make(KINDS, tokenizer)
    whole = World(rows, tokenizer, tmp_path / "whole", async_steps=2, **flags)
    await whole.steps(0, 3)
    state = json.loads(json.dumps(await whole.actor.state()))
    assert state["training_step"] == 3
    await whole.steps(3, 8)
    continued = World(rows, tokenizer, tmp_path / "continued", delays=9, async_steps=2, resume=3, state=state, **flags)
    assert await continued.actor.state() == state, "a run that is stopped at once can be continued again"
    await continued.steps(3, 8)
    assert continued.prompts() == {step: rows for step, rows in whole.prompts().items() if step >= 3}
    assert await continued.actor.state() == await whole.actor.state()


def test_without_a_state_the_step_gives_the_position():
    args = Args(num_unique_prompts_rollout=4)
    assert initial_state(args, 3, None)["prompts"] == {"position": 12, "drawn": 12, "excluded": {}}
    settings: list[dict[str, Any]] = [{"active_sampling": True}, {"no_resampling_pass_rate": 0.9}]
    for flags in settings:
        assert initial_state(Args(**flags), None, None)["prompts"]["position"] == 0
        with pytest.raises(ValueError, match="without the data's state"):
            initial_state(Args(**flags), 3, None)
    with pytest.raises(ValueError, match="after step 2, not after step 3"):
        initial_state(args, 3, {"training_step": 2, "prompts": {}})


@pytest.mark.parametrize("async_steps", [0, 1])
async def test_active_sampling_goes_on_with_what_it_has_and_says_so(async_steps, tokenizer, tmp_path):
    kinds = [DULL] * 11 + [TEACHES]
    flags = {"active_sampling": True, "active_sampling_max_batches": 3, "total_episodes": PROMPTS * GROUP * 3}
    world = World(make(kinds, tokenizer), tokenizer, tmp_path, async_steps=async_steps, **flags)
    for data in await world.steps(0, 3):
        assert len(world.prompts()[data.step]) == 12
        assert data.metrics["objective/samples_trained_on"] == GROUP
        assert data.warnings and "1 of 12 prompts teach something, of 4 that were wanted" in data.warnings[0]
        assert data.step - data.metrics["model_step_min"] <= async_steps
    assert len(world.engine.asked) == 3 * 12, "no prompt beyond the last step"


@pytest.mark.parametrize("flags", [{}, {"active_sampling": True}])
async def test_a_step_that_teaches_nothing_is_empty_but_a_step(flags, tokenizer, tmp_path):
    world = World(make([DULL] * 8, tokenizer), tokenizer, tmp_path, active_sampling_max_batches=2, **flags)
    [data] = await world.steps(0, 1)
    assert all(batch.response_mask.sum() == 0 for batch in data.batches[0])
    assert data.metrics["val/advantages_mean"] is None and data.metrics["packed_ratio"] is None
    assert data.metrics["batch/filtered_prompts_pct"] == 1.0


class Outage:
    name, weight = "constraints_satisfied", 1.0

    async def async_call(self, *args, rollout_state=None):
        return VerificationResult(None, status="judge_error", details={"error": "connection refused"})


async def test_a_judge_that_is_down_is_not_asked_for_ever(tokenizer, tmp_path):
    rows = make([TEACHES] * 8, tokenizer)
    world = World(rows, tokenizer, tmp_path, verifier=Outage(), active_sampling=True, async_steps=1)
    with pytest.raises(JudgeFailure, match="8 of 8 rewards of step 1 are missing") as failure:
        await world.steps(0, 1)
    assert "connection refused" in str(failure.value)
    assert len(world.engine.asked) <= 4 * PROMPTS


async def test_a_solved_prompt_is_not_drawn_in_later_epochs(tokenizer, tmp_path):
    rows = make(KINDS, tokenizer)
    world = World(rows, tokenizer, tmp_path, no_resampling_pass_rate=0.1, async_steps=0)
    steps = await world.steps(0, 8)
    drawn = [index for step in range(8) for index in world.prompts()[step]]
    solved = {index for index, kind in enumerate(KINDS) if kind == SOLVED}
    assert sorted(drawn[: len(rows)]) == list(range(len(rows))), "the first epoch holds all"
    assert solved.isdisjoint(drawn[len(rows) :])
    assert steps[-1].metrics["batch/no_resampled_prompts"] == len(solved)
    assert set((await world.actor.state())["prompts"]["excluded"]) == {str(index) for index in solved}


async def test_a_missing_score_never_excludes_a_prompt(tokenizer, tmp_path):
    class Halves:
        name, weight, asked = "constraints_satisfied", 1.0, 0

        async def async_call(self, *args, rollout_state=None):
            self.asked += 1
            return VerificationResult(1.0) if self.asked % 2 else VerificationResult(None, status="truncated")

    world = World(make([TEACHES] * 4, tokenizer), tokenizer, tmp_path, verifier=Halves(), no_resampling_pass_rate=0.5)
    [data] = await world.steps(0, 1)
    assert data.metrics["batch/no_resampled_prompts"] == 0


async def test_a_run_whose_prompts_are_all_solved_ends(tokenizer, tmp_path):
    rows = make([SOLVED] * 6, tokenizer)
    world = World(rows, tokenizer, tmp_path, no_resampling_pass_rate=0.1, async_steps=0)
    with pytest.raises(NoPromptsLeft, match="all 6 prompts have reached --no_resampling_pass_rate"):
        await world.steps(0, 8)
    # Steps of 4: at the start of the third, what draws 0 to 4 solved counts, so one of the six rows is left.
    assert [len(prompts) for prompts in world.prompts().values()] == [4, 4, 1]


def test_the_state_after_a_draw_knows_nothing_of_later_ones():
    stream = PromptStream(PromptOrder(5, seed=0), horizon=4)
    draws = [stream.draw() for _ in range(4)]
    for draw in draws:
        stream.exclude(draw)
    state = json.loads(json.dumps(stream.state_after(draws[1])))
    assert state == {"position": 2, "drawn": 2, "excluded": {str(draws[0].row): 0, str(draws[1].row): 1}}
    assert PromptStream(PromptOrder(5, seed=0), 4, state).draw() == draws[2]


async def test_an_exclusion_holds_only_once_it_must_be_known():
    stream = PromptStream(PromptOrder(2, seed=0), horizon=4)
    first = stream.draw()
    stream.exclude(first)
    rows = [first.row, *(stream.draw().row for _ in range(5))]
    assert rows[2:4].count(first.row) == 1, "draw 2 or 3 comes before draw 0 + 4"
    assert first.row not in rows[4:]


async def test_rewards_of_evaluations_use_their_own_sampling(tokenizer, tmp_path):
    flags = {
        "dataset_mixer_eval_list": ["rows", "1.0"],
        "eval_pass_at_k": 3,
        "eval_top_p": 0.5,
        "eval_temperature": 0.7,
        "eval_response_length": 32,
        "response_length": 64,
    }
    world = World(make([TEACHES, DULL], tokenizer), tokenizer, tmp_path, **flags)
    metrics = await world.actor.evaluate(0)
    assert len(world.engine.asked) == 2
    for _, sampling in world.engine.asked:
        assert (sampling.n, sampling.top_p, sampling.temperature, sampling.max_tokens) == (3, 0.5, 0.7, 32)
    assert metrics["eval/pass_at_1"] == metrics["eval/pass_at_3"] == 0.0, "no response is perfect"
    assert metrics["eval/constraints_satisfied_reward"] == pytest.approx(2 / 3 / 7 / 2)
    world = World(make([TEACHES], tokenizer), tokenizer, tmp_path, dataset_mixer_eval_list=["rows", "1.0"])
    assert not [name for name in await world.actor.evaluate(0) if "pass_at" in name]
    assert world.engine.asked[0][1].n == 1 and world.engine.asked[0][1].max_tokens == world.args.response_length


async def test_time_spent_waiting_is_measured_on_both_sides(tokenizer, tmp_path):
    world = World(make([TEACHES] * 8, tokenizer), tokenizer, tmp_path, async_steps=1)
    await world.actor.weights_synced(0)
    first = await world.actor.get_step(0)
    await asyncio.sleep(0.05)  # a trainer that is busy while the next step lies ready
    second = await world.actor.get_step(1)
    assert first.metrics["time/trainer_waiting_for_data"] > 0
    waited = second.metrics["time/generation_waiting_for_trainer"]
    assert waited > 0.02 and second.metrics["time/trainer_waiting_for_data"] < waited


async def test_engines_do_not_sleep_during_an_evaluation(tokenizer, tmp_path):
    flags = {"dataset_mixer_eval_list": ["rows", "1.0"]}
    world, events = World(make([TEACHES] * 4, tokenizer), tokenizer, tmp_path, **flags), []

    class Sleeper:
        async def sleep(self):
            events.append(("sleep", len(world.engine.asked), world.engine.in_flight))

    world.actor.turns = Turns(Sleeper())  # ty: ignore[invalid-argument-type]
    evaluation = asyncio.ensure_future(world.actor.evaluate(0))
    await asyncio.sleep(0)  # begun, but nothing is asked yet
    await world.actor.turns.rest()
    await evaluation
    assert events == [("sleep", 4, 0)]
