"""Packing keeps every token, in its sample, with its own positions; learners get equal shares."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from open_instruct.learner.logprobs import policy_logprobs
from open_instruct.learner.packing import TrainingSample, first_fit_decreasing, pack_mini_batches, pack_samples


def sample(start: int, prompt: int, response: int) -> TrainingSample:
    ids = list(range(start, start + prompt + response))
    return TrainingSample(ids[:prompt], ids[prompt:], [-float(i) for i in range(response)], advantage=float(start))


def unpack(batches):
    """{first token: (ids, response ids, logprobs, advantage)} of all samples in all packs."""
    found = {}
    for batch in batches:
        for row in range(len(batch.input_ids)):
            for segment in range(1, batch.segment_ids[row].max() + 1):
                here = batch.segment_ids[row] == segment
                ids, mask = batch.input_ids[row][here], batch.response_mask[row][here] == 1
                np.testing.assert_array_equal(batch.position_ids[row][here], np.arange(here.sum()))
                advantages = set(batch.advantages[row][here][mask].tolist())
                found[int(ids[0])] = (
                    ids.tolist(),
                    ids[mask].tolist(),
                    batch.sampler_logprobs[row][here][mask].tolist(),
                    advantages,
                )
    return found


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=12), st.integers(1, 3))
def test_every_sample_is_packed_once_and_whole(lengths, num_learners):
    samples = [sample(100 * (i + 1), p, r) for i, (p, r) in enumerate(lengths)]
    batches = pack_samples(samples, pack_length=20, num_learners=num_learners, pad_token_id=0)
    assert len(batches) == num_learners
    assert len({b.input_ids.shape for b in batches}) == 1, "learners step together: same number of packs"
    found = unpack(batches)
    assert sorted(found) == [s.prompt_ids[0] for s in samples]
    for s in samples:
        ids, response, logprobs, advantages = found[s.prompt_ids[0]]
        assert ids == [*s.prompt_ids, *s.response_ids]
        assert response == list(s.response_ids)
        assert logprobs == list(s.sampler_logprobs)
        assert advantages == {s.advantage}


def mini_batches(count, *, num, learners=2, seed=1, step=0):
    samples = [sample(100 * (i + 1), 1 + i % 4, 1 + i % 3) for i in range(count)]
    return pack_mini_batches(
        samples,
        num_mini_batches=num,
        seed=seed,
        step=step,
        pack_length=20,
        num_learners=learners,
        pad_token_id=0,
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 12), st.integers(1, 5), st.integers(1, 3))
def test_mini_batches_are_even_and_learners_agree(count, num, learners):
    batches = mini_batches(count, num=num, learners=learners)
    assert len(batches) == learners and all(len(of_rank) == num for of_rank in batches)
    found = [unpack([of_rank[i] for of_rank in batches]) for i in range(num)]
    sizes = [len(samples) for samples in found]
    assert sorted(first for samples in found for first in samples) == [100 * (i + 1) for i in range(count)]
    assert max(sizes) - min(sizes) <= 1
    for i in range(num):
        assert len({of_rank[i].input_ids.shape for of_rank in batches}) == 1
        if not sizes[i]:
            assert all(of_rank[i].response_mask.sum() == 0 for of_rank in batches)


def test_the_shuffle_depends_on_seed_and_step_alone():
    def firsts(**options):
        return [sorted(unpack([batch])) for batch in mini_batches(12, num=3, learners=1, **options)[0]]

    assert firsts() == firsts()
    assert firsts() != firsts(step=1) and firsts() != firsts(seed=2)
    assert firsts() != [[100 * (4 * i + j + 1) for j in range(4)] for i in range(3)], "groups must mix"


def test_rows_are_cut_to_the_longest_pack():
    [batch] = pack_samples([sample(100, 3, 2)], pack_length=1000, num_learners=1, pad_token_id=0)
    assert batch.input_ids.shape == (1, 5)


def test_no_samples_still_give_a_batch_without_loss():
    [batch] = pack_samples([], pack_length=16, num_learners=1, pad_token_id=7)
    assert batch.response_mask.sum() == 0
    assert (batch.input_ids == 7).all()


def test_a_sample_longer_than_a_pack_is_refused_with_the_flag():
    with pytest.raises(ValueError, match="pack_length"):
        first_fit_decreasing([17], capacity=16)


TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_packed_logprobs_are_those_of_each_sample_alone(family, attention):
    """Also for a model with a sliding window (the paper's policy has one), and beside padding."""
    from transformers import Olmo3Config, Olmo3ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    if family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**TINY | {"head_dim": 16, "attn_implementation": attention}))  # ty: ignore[invalid-argument-type]
    else:
        model = Olmo3ForCausalLM(Olmo3Config(**TINY | {"sliding_window": 8, "attn_implementation": attention}))  # ty: ignore[invalid-argument-type]
    model.eval()
    rng = np.random.default_rng(0)
    samples = []
    for prompt, response in ((5, 20), (3, 4), (10, 11), (2, 2)):
        ids = rng.integers(1, 64, prompt + response).tolist()
        samples.append(TrainingSample(ids[:prompt], ids[prompt:], [0.0] * response, 1.0))
    [batch] = pack_samples(samples, pack_length=30, num_learners=1, pad_token_id=0)
    assert len(batch.input_ids) == 2 and (batch.segment_ids == 0).any() and batch.segment_ids.max() > 1
    names = ("input_ids", "position_ids", "response_mask")
    with torch.no_grad():
        packed, _ = policy_logprobs(model, {n: torch.from_numpy(getattr(batch, n)) for n in names}, 0.7)
        alone = {}
        for s in samples:
            ids = torch.tensor([[*s.prompt_ids, *s.response_ids]])
            logits = model(ids).logits[0, len(s.prompt_ids) - 1 : -1] / 0.7
            chosen = torch.log_softmax(logits.float(), -1).gather(1, torch.tensor(s.response_ids)[:, None])
            alone[s.prompt_ids[0], s.prompt_ids[1]] = chosen[:, 0]
    expected = []
    for row in range(len(batch.input_ids)):
        for segment in range(1, batch.segment_ids[row].max() + 1):
            ids = batch.input_ids[row][batch.segment_ids[row] == segment]
            expected.append(alone[int(ids[0]), int(ids[1])])
    torch.testing.assert_close(packed, torch.cat(expected), atol=1e-5, rtol=0)


def test_micro_batches_are_as_wide_as_their_longest_row():
    from open_instruct.learner.objective import micro_batches

    samples = [sample(100 * (i + 1), 2, length) for i, length in enumerate((9, 3, 8, 2))]
    [batch] = pack_samples(samples, pack_length=12, num_learners=1, pad_token_id=0)
    micros = list(micro_batches(batch, 2, "cpu"))
    assert [micro.inputs["input_ids"].shape for micro in micros] == [(2, 11), (1, 9)]
    assert sum(micro.num_tokens for micro in micros) == 9 + 3 + 8 + 2
    assert [micro.num_responses for micro in micros] == [2, 2]
    # Rows with a single sample count on through their padding, so that no mask is made for them.
    for row in micros[0].inputs["position_ids"]:
        assert row.tolist() == list(range(11))
    [empty] = micro_batches(pack_samples([], pack_length=12, num_learners=1, pad_token_id=0)[0], 4, "cpu")
    assert (empty.num_tokens, empty.num_responses, empty.inputs["input_ids"].shape) == (0, 0, (1, 1))
