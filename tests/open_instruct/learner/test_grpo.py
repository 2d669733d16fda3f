"""The arithmetic of GRPO against values worked out by hand, finite differences, and invariants."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from open_instruct.learner.grpo import (
    ADVANTAGE_TYPES,
    group_advantages,
    kl_penalty,
    number_segments,
    policy_loss,
    rho_correction,
    segment_mean,
    token_logprobs,
    token_weights,
)

CLIP = {"clip_lower": 0.2, "clip_higher": 0.272}
NO_BOUNDS: dict[str, Any] = {"clamp_lower": 0.0, "clamp_upper": 0.0, "mask_lower": 0.0, "mask_upper": 0.0}
REWARDS = arrays(float, st.integers(2, 9), elements=st.floats(-10, 10, width=32))


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.double)


def one_response(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.int64)


# advantages


def test_standard_advantages_by_hand():
    # mean 2, population deviation sqrt(2/3)
    expected = np.array([-1.0, 0.0, 1.0]) / np.sqrt(2 / 3)
    np.testing.assert_allclose(group_advantages(np.array([1.0, 2.0, 3.0]), "standard"), expected, rtol=1e-6)


def test_centered_advantages_by_hand():
    np.testing.assert_allclose(group_advantages(np.array([1.0, 2.0, 6.0]), "centered"), [-2.0, -1.0, 3.0])


def test_leave_one_out_advantages_by_hand():
    # 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2
    advantages = group_advantages(np.array([1.0, 2.0, np.nan, 6.0]), "leave_one_out")
    np.testing.assert_allclose(advantages, [-3.0, -1.5, np.nan, 4.5])


@pytest.mark.parametrize("normalization", ADVANTAGE_TYPES)
@given(rewards=REWARDS, data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_missing_reward_moves_none_of_its_siblings(normalization, rewards, data):
    whole = group_advantages(rewards, normalization)
    hole = data.draw(st.integers(0, len(rewards)))
    with_hole = group_advantages(np.insert(rewards, hole, np.nan), normalization)
    np.testing.assert_array_equal(np.delete(with_hole, hole), whole)
    assert np.isnan(with_hole[hole])


@pytest.mark.parametrize("normalization", ADVANTAGE_TYPES)
@given(rewards=REWARDS, shift=st.floats(-5, 5), data=st.data())
@settings(deadline=None, max_examples=40)
def test_advantages_sum_to_zero_and_ignore_order_and_shift(normalization, rewards, shift, data):
    advantages = group_advantages(rewards, normalization)
    if normalization != "standard":  # which may divide rounding errors by 1e-8
        assert abs(advantages.sum()) < 1e-9
        np.testing.assert_allclose(group_advantages(rewards + shift, normalization), advantages, atol=1e-9)
    order = data.draw(st.permutations(range(len(rewards))))
    np.testing.assert_allclose(group_advantages(rewards[order], normalization), advantages[order], rtol=1e-5, atol=1e-6)


def test_the_reference_defect_of_a_failed_judgement_is_gone():
    # Published code: [0.4] * 7 + [failed = 0.0] gives +0.38 to seven samples and -2.65 to the unlucky one.
    advantages = group_advantages(np.array([0.4] * 7 + [np.nan]), "standard")
    np.testing.assert_allclose(advantages[:7], 0.0, atol=1e-6)


@pytest.mark.parametrize("normalization", ADVANTAGE_TYPES)
@pytest.mark.parametrize("rewards", [[np.nan, np.nan], [0.5, np.nan], []])
def test_fewer_than_two_rewards_give_no_advantage(rewards, normalization):
    assert np.isnan(group_advantages(np.array(rewards, dtype=float), normalization)).all()


def test_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="median"):
        group_advantages(np.array([1.0, 2.0]), "median")


# log-probabilities and KL


def test_token_logprobs_are_log_softmax_at_a_temperature():
    logits, tokens = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    expected = torch.log_softmax(logits / 0.7, -1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(token_logprobs(logits, tokens, 0.7), expected)


@pytest.mark.parametrize(("estimator", "expected"), [(0, 0.5), (1, 0.125), (2, np.exp(-0.5) - 1 + 0.5), (3, 0.6)])
def test_kl_estimators_by_hand(estimator, expected):
    value = kl_penalty(torch.tensor([-1.0]), torch.tensor([-1.5]), estimator, torch.tensor([1.2]))
    assert value.item() == pytest.approx(expected, rel=1e-5)


def exact_kl_and_estimate(estimator: int, *, reverse: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a policy over 6 tokens; KL(policy || reference), and the estimator's mean over the policy's tokens.

    `reverse` gives KL(reference || policy) instead.
    """
    torch.manual_seed(0)
    logits = torch.randn(6, dtype=torch.double, requires_grad=True)
    p, q = torch.log_softmax(logits, 0), torch.log_softmax(torch.randn(6, dtype=torch.double), 0)
    drawn = p.detach().exp()  # the sampling distribution is not differentiated, as in training
    estimate = (drawn * kl_penalty(p, q, estimator, torch.exp(p - p.detach()))).sum()
    return logits, (q.exp() * (q - p)).sum() if reverse else (p.exp() * (p - q)).sum(), estimate


@pytest.mark.parametrize("estimator", [0, 2, 3])
def test_k1_k3_and_the_weighted_k1_average_to_the_kl_divergence(estimator):
    _, exact, estimate = exact_kl_and_estimate(estimator)
    torch.testing.assert_close(estimate, exact)


@pytest.mark.parametrize(("estimator", "reverse"), [(1, False), (2, True), (3, False)])
def test_what_the_kl_estimators_minimise_on_average(estimator, reverse):
    """As losses, k2 and the weighted k1 have the gradient of KL(policy || reference), k3 that of the reverse."""
    logits, exact, estimate = exact_kl_and_estimate(estimator, reverse=reverse)
    [expected] = torch.autograd.grad(exact, logits, retain_graph=True)
    [gradient] = torch.autograd.grad(estimate, logits)
    torch.testing.assert_close(gradient, expected)


def test_k1_as_a_loss_teaches_nothing_on_average():
    logits, _, estimate = exact_kl_and_estimate(0)
    [gradient] = torch.autograd.grad(estimate, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_kl_differences_are_clamped():
    far = kl_penalty(double(0.0), double(-1000.0), 0, double(1.0))
    assert far.item() == 40.0


@pytest.mark.parametrize("estimator", [0, 1, 2, 3])
def test_kl_gradients_against_finite_differences(estimator):
    torch.manual_seed(1)
    old, reference = torch.randn(5, dtype=torch.double), torch.randn(5, dtype=torch.double)
    now = (old + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: kl_penalty(x, reference, estimator, torch.exp(x - old)), (now,))


def test_unknown_kl_estimator_is_refused():
    with pytest.raises(ValueError, match="0, 1, 2 or 3"):
        kl_penalty(torch.zeros(1), torch.zeros(1), 4, torch.ones(1))


# policy loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.5, 1.0, -1.272, True),  # gain is cut at 1 + clip_higher
        (1.5, -1.0, 1.5, False),  # loss is not
        (0.5, 1.0, -0.5, False),
        (0.5, -1.0, 0.8, True),  # cut at 1 - clip_lower
        (1.0, 2.0, -2.0, False),
    ],
)
@pytest.mark.parametrize("loss_fn", ["dapo", "gspo"])
def test_clipped_loss_by_hand(loss_fn, ratio, advantage, loss, clipped):
    old = torch.tensor([-1.0])
    now, advantages = old + np.log(ratio), torch.tensor([advantage])
    value, binding = policy_loss(now, old, advantages, one_response(1), loss_fn=loss_fn, **CLIP)
    assert value.item() == pytest.approx(loss, rel=1e-5)
    assert binding.item() is clipped


def test_gspos_ratio_is_a_responses_geometric_mean():
    old = torch.zeros(5)
    now = torch.log(torch.tensor([2.0, 0.5, 1.1, 2.0, 0.9]))  # responses: (2, 1.1), (0.5, 2), (0.9)
    segments = torch.tensor([0, 1, 0, 1, 2])
    value, binding = policy_loss(now, old, torch.tensor([1.0, 1, 1, 1, 3]), segments, loss_fn="gspo", **CLIP)
    # sqrt(2.2) = 1.483 is cut at 1.272; sqrt(1) = 1
    torch.testing.assert_close(value, torch.tensor([-1.272, -1.0, -1.272, -1.0, -2.7]))
    assert binding.tolist() == [True, False, True, False, False]


def test_gspo_with_sequence_denominator_is_the_papers():
    """mean over responses of min(s A, clip(s) A), and its gradient A s / tokens for each token."""
    now = double(0.1, -0.3, 0.05, 0.2, 0.1).requires_grad_()
    segments = torch.tensor([0, 0, 0, 1, 1])
    advantages = double(2.0, 2.0, 2.0, -1.0, -1.0)
    loss, _ = policy_loss(now, torch.zeros(5, dtype=torch.double), advantages, segments, loss_fn="gspo", **CLIP)
    objective = -(loss * token_weights(segments, "sequence", num_tokens=5, num_responses=2)).sum()
    s = [np.exp(-0.15 / 3), np.exp(0.15)]
    assert objective.item() == pytest.approx((2.0 * s[0] - 1.0 * s[1]) / 2)
    objective.backward()
    expected = double(*[2.0 * s[0] / 3 / 2] * 3, *[-1.0 * s[1] / 2 / 2] * 2)
    torch.testing.assert_close(now.grad, expected)


def test_cispo_by_hand_keeps_a_gradient_where_dapo_has_none():
    now = torch.log(torch.tensor([1.5, 0.1, 1.0])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 2.0])
    value, clipped = policy_loss(now, torch.zeros(3), advantages, one_response(3), loss_fn="cispo", **CLIP)
    assert clipped.tolist() == [True, False, False]
    torch.testing.assert_close(value, torch.tensor([-1.272 * np.log(1.5), 0.1 * np.log(0.1), 0.0]).float())
    value.sum().backward()
    torch.testing.assert_close(now.grad, torch.tensor([-1.272, 0.1, -2.0]))  # -A min(r, 1.272)


@pytest.mark.parametrize("loss_fn", ["dapo", "gspo"])
def test_loss_gradients_against_finite_differences(loss_fn):
    torch.manual_seed(0)
    old, advantages = torch.randn(8, dtype=torch.double), torch.randn(8, dtype=torch.double)
    segments = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    if loss_fn == "gspo":
        advantages = segment_mean(advantages, segments)
    now = (old + 0.3 * torch.randn(8, dtype=torch.double)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: policy_loss(x, old, advantages, segments, loss_fn=loss_fn, **CLIP)[0], (now,)
    )


@pytest.mark.parametrize("loss_fn", ["dapo", "cispo", "gspo"])
def test_on_policy_every_loss_has_the_gradient_of_reinforce(loss_fn):
    now, advantages = double(-0.5, -1.0, -2.0).requires_grad_(), double(1.5, 1.5, 1.5)
    loss, _ = policy_loss(now, now.detach(), advantages, one_response(3), loss_fn=loss_fn, **CLIP)
    loss.sum().backward()
    torch.testing.assert_close(now.grad, -advantages)


def test_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="ppo"):
        policy_loss(torch.zeros(1), torch.zeros(1), torch.ones(1), one_response(1), loss_fn="ppo", **CLIP)


# denominators


def test_denominators_by_hand():
    segments = torch.tensor([0, 0, 0, 1])
    counts = {"num_tokens": 10.0, "num_responses": 4.0}
    torch.testing.assert_close(token_weights(segments, "token", **counts), torch.full((4,), 0.1))
    sequence = token_weights(segments, "sequence", **counts)
    torch.testing.assert_close(sequence, torch.tensor([1 / 12, 1 / 12, 1 / 12, 1 / 4]))
    torch.testing.assert_close(token_weights(segments, "16", **counts), torch.full((4,), 1 / 64))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
@settings(deadline=None, max_examples=30)
def test_weights_of_all_tokens_sum_to_one(lengths):
    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    for denominator in ("token", "sequence"):
        weights = token_weights(segments, denominator, num_tokens=sum(lengths), num_responses=len(lengths))
        assert weights.sum().item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("denominator", ["tokens", "0", "-3", "nan", "inf", ""])
def test_other_denominators_are_refused(denominator):
    with pytest.raises(ValueError, match="loss_denominator"):
        token_weights(one_response(1), denominator, num_tokens=1, num_responses=1)


def test_segments_are_numbered_over_all_rows():
    ids = torch.tensor([[1, 1, 2, 2, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    predicted = torch.tensor([[False, True, False, True, False], [False, True, True, False, False], [False] * 5])
    assert number_segments(ids, predicted).tolist() == [0, 1, 2, 2]
    assert number_segments(ids, torch.zeros_like(predicted)).tolist() == []


# ratio correction


def rho(old, sampler, advantages=None, segments=None, **options):
    old, sampler = torch.tensor(old), torch.tensor(sampler)
    advantages = torch.ones_like(old) if advantages is None else torch.tensor(advantages)
    segments = one_response(len(old)) if segments is None else torch.tensor(segments)
    return rho_correction(old, sampler, advantages, segments, **(NO_BOUNDS | options))


def test_rho_is_clamped_on_both_sides_without_gradient():
    now = torch.tensor([-1.0, -1.0, -1.0], requires_grad=True)
    bounds: dict[str, Any] = NO_BOUNDS | {"clamp_lower": 0.5, "clamp_upper": 2.0}
    found = rho_correction(now, torch.tensor([-3.0, -0.5, 1.0]), torch.ones(3), one_response(3), **bounds)
    torch.testing.assert_close(found.weights, torch.tensor([2.0, np.exp(-0.5), 0.5]).float())
    assert found.clamped.tolist() == [True, False, True]
    assert not found.weights.requires_grad
    assert not (found.dropped_low | found.dropped_high).any()


def test_without_bounds_the_weight_is_rho_within_e_to_the_ten():
    found = rho([0.0, 0.0, 0.0], [-0.5, -50.0, 50.0])
    torch.testing.assert_close(found.weights, torch.tensor([np.exp(0.5), np.exp(10.0), np.exp(-10.0)]).float())
    assert not found.clamped.any()


def test_icepop_masks_outside_its_band_and_clamps_the_rest():
    options = {"mask_lower": 0.5, "mask_upper": 5.0, "clamp_upper": 2.0}
    found = rho(np.log([0.4, 0.6, 3.0, 6.0]).tolist(), [0.0] * 4, **options)
    torch.testing.assert_close(found.weights, torch.tensor([0.0, 0.6, 2.0, 0.0]))
    assert found.dropped_low.tolist() == [True, False, False, False]
    assert found.dropped_high.tolist() == [False, False, False, True]


def test_rho_of_a_sequence_is_a_geometric_mean():
    old = np.log([4.0, 1.0, 9.0, 9.0, 0.3]).tolist()  # means: 2, 9, 0.3
    options = {"sequence_level": True, "clamp_upper": 1.5, "mask_upper": 5.0, "mask_lower": 0.5}
    found = rho(old, [0.0] * 5, segments=[0, 0, 1, 1, 2], **options)
    torch.testing.assert_close(found.weights, torch.tensor([1.5, 1.5, 0.0, 0.0, 0.0]))
    assert found.dropped_high.tolist() == [False, False, True, True, False]
    assert found.dropped_low.tolist() == [False, False, False, False, True]


def test_the_divergence_mask_spares_tokens_that_would_lower_it():
    # Response 0: mean |rho - 1| = (1 + 0.5) / 2 = 0.75, above 0.6; response 1: 0.1.
    old = np.log([2.0, 0.5, 2.0, 0.5, 1.1]).tolist()
    segments = [0, 0, 1, 1, 2]
    options = {"tv_divergence": True, "mask_upper": 0.6, "clamp_upper": 1.5}
    found = rho(old, [0.0] * 5, [1.0, 1.0, -1.0, -1.0, 1.0], segments, **options)
    # sign(log rho) x advantage: +, -, -, +, +; the last response is within the bound.
    assert found.dropped_high.tolist() == [True, False, False, True, False]
    torch.testing.assert_close(found.weights, torch.tensor([0.0, 0.5, 1.5, 0.0, 1.1]))


def test_divergence_mask_uses_tokens_with_rho_of_sequences():
    # The geometric mean is 1, but the tokens differ: the mask must see it.
    options = {"tv_divergence": True, "sequence_level": True, "mask_upper": 0.6}
    found = rho(np.log([2.0, 0.5]).tolist(), [0.0, 0.0], **options)
    torch.testing.assert_close(found.weights, torch.tensor([0.0, 1.0]))


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8), st.data())
@settings(deadline=None, max_examples=30)
def test_order_of_tokens_does_not_matter_to_the_correction(logs, data):
    segments = data.draw(st.lists(st.integers(0, 2), min_size=len(logs), max_size=len(logs)))
    order = data.draw(st.permutations(range(len(logs))))
    options = {"sequence_level": True, "clamp_upper": 2.0, "mask_upper": 4.0, "mask_lower": 0.2}
    plain = rho(logs, [0.0] * len(logs), segments=segments, **options).weights
    moved = rho([logs[i] for i in order], [0.0] * len(logs), segments=[segments[i] for i in order], **options).weights
    torch.testing.assert_close(moved, plain[list(order)])


def test_an_empty_micro_batch_has_no_loss_and_no_error():
    none, segments = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    for loss_fn in ("dapo", "cispo", "gspo"):
        assert policy_loss(none, none, none, segments, loss_fn=loss_fn, **CLIP)[0].sum() == 0
    assert rho_correction(none, none, none, segments, sequence_level=True, **NO_BOUNDS).weights.numel() == 0
    assert token_weights(segments, "sequence", num_tokens=1, num_responses=1).numel() == 0
