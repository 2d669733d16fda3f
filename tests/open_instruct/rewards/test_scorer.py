"""What verifiers are told of a sample, and with which tokenizer it is read."""

import pytest
import transformers

from open_instruct.config.args import Args
from open_instruct.data.templates import get_tokenizer
from open_instruct.data.types import Sample
from open_instruct.grpo_fast import Prepared, make_scorer
from open_instruct.rewards.row_reward import RewardConfig
from open_instruct.rewards.scorer import RowScorer
from open_instruct.verifiers.base import VerificationResult

TOKENIZER = "datasets_prep/tiny_world/models/policy"


@pytest.mark.parametrize(
    ("ending", "opens"), [("<think>", True), ("<think>\n", True), ("</think>", False), ("", False)]
)
async def test_verifiers_know_when_the_prompt_opens_the_thinking(ending, opens):
    states = []

    class Remembers:  # no subclass: the registry would find it in other tests
        name, weight = "remembers", 1.0

        async def async_call(self, *args, rollout_state=None):
            states.append(rollout_state)
            return VerificationResult(1.0)

    tokenizer = get_tokenizer(TOKENIZER)
    row = {"messages": [], "ground_truth": ["x"], "dataset": ["remembers"], "prompt": "user: x"}
    row["input_ids_prompt"] = tokenizer.encode("Write about rain. " + ending)
    scorer = RowScorer(TOKENIZER, RewardConfig({"remembers": Remembers()}), {})  # ty: ignore[invalid-argument-type]
    await scorer.score(row, [Sample(tokenizer.encode("rain"), [-1.0], "length", 0)], max_tokens=8)
    assert states[0]["prompt_opens_think"] is opens
    assert states[0]["finish_reason"] == "length"


@pytest.fixture
def bare(tmp_path):
    """A base model's tokenizer: without a chat template."""
    get_tokenizer(TOKENIZER).save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    return str(tmp_path / "bare")


@pytest.mark.parametrize(("own", "revision"), [(None, "step_100"), ("bare", None)])
def test_responses_are_read_by_the_prompts_tokenizer(monkeypatch, bare, own, revision):
    args = Args(chat_template_name="olmo_thinker", model_revision="step_100", tokenizer_name_or_path=own and bare)
    load, revisions = transformers.AutoTokenizer.from_pretrained, []

    def noted(name, **options):
        revisions.append(options["revision"])
        return load(name, **options)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", noted)
    prepared = Prepared([], [], {}, tokenizer_name=bare, pad_token_id=0, eos_token_id=0, judged=False)
    make_scorer(args, prepared, RowScorer).warm_up()
    assert revisions == [revision]
