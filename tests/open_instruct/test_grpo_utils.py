"""The arithmetic of GRPO against values worked out by hand and finite differences."""

import numpy as np
import pytest
import torch

from open_instruct.grpo_utils import (
    clipped_policy_loss,
    group_advantages,
    kl_penalty,
    token_logprobs,
    truncated_importance_weights,
)


def test_standard_advantages_by_hand():
    # mean 2, population deviation sqrt(2/3)
    expected = np.array([-1.0, 0.0, 1.0]) / np.sqrt(2 / 3)
    np.testing.assert_allclose(group_advantages(np.array([1.0, 2.0, 3.0]), "standard"), expected, rtol=1e-6)


def test_centered_advantages_by_hand():
    np.testing.assert_allclose(group_advantages(np.array([1.0, 2.0, 6.0]), "centered"), [-2.0, -1.0, 3.0])


@pytest.mark.parametrize("normalization", ["standard", "centered"])
def test_a_missing_reward_moves_none_of_its_siblings(normalization):
    whole = group_advantages(np.array([0.4, 0.6, 0.8]), normalization)
    with_hole = group_advantages(np.array([0.4, np.nan, 0.6, 0.8]), normalization)
    np.testing.assert_allclose(with_hole[[0, 2, 3]], whole)
    assert np.isnan(with_hole[1])


def test_the_reference_defect_of_a_failed_judgement_is_gone():
    # Published code: [0.4] * 7 + [failed = 0.0] gives +0.38 to seven samples and -2.65 to the unlucky one.
    advantages = group_advantages(np.array([0.4] * 7 + [np.nan]), "standard")
    np.testing.assert_allclose(advantages[:7], 0.0, atol=1e-6)


@pytest.mark.parametrize("rewards", [[np.nan, np.nan], [0.5, np.nan], []])
def test_fewer_than_two_rewards_give_no_advantage(rewards):
    assert np.isnan(group_advantages(np.array(rewards, dtype=float), "standard")).all()


def test_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="median"):
        group_advantages(np.array([1.0, 2.0]), "median")


def test_token_logprobs_are_log_softmax_at_a_temperature():
    logits, tokens = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    expected = torch.log_softmax(logits / 0.7, -1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(token_logprobs(logits, tokens, 0.7), expected)


@pytest.mark.parametrize(("estimator", "expected"), [(0, 0.5), (1, 0.125), (2, np.exp(-0.5) - 1 + 0.5), (3, 0.5)])
def test_kl_estimators_by_hand(estimator, expected):
    value = kl_penalty(torch.tensor([-1.0]), torch.tensor([-1.5]), estimator)
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("estimator", [2])
def test_k3_averages_to_the_kl_divergence(estimator):
    torch.manual_seed(0)
    p, q = torch.log_softmax(torch.randn(6), 0), torch.log_softmax(torch.randn(6), 0)
    exact = (p.exp() * (p - q)).sum()
    averaged = (p.exp() * kl_penalty(p, q, estimator)).sum()
    torch.testing.assert_close(averaged, exact)


def test_unknown_kl_estimator_is_refused():
    with pytest.raises(ValueError, match="0, 1, 2 or 3"):
        kl_penalty(torch.zeros(1), torch.zeros(1), 4)


def test_importance_weights_are_capped_and_carry_no_gradient():
    now = torch.tensor([-1.0, -1.0], requires_grad=True)
    weights = truncated_importance_weights(now, torch.tensor([-3.0, -0.5]), cap=2.0)
    np.testing.assert_allclose(weights.numpy(), [2.0, np.exp(-0.5)], rtol=1e-6)
    assert not weights.requires_grad
    assert truncated_importance_weights(now, torch.zeros(2), cap=0.0).tolist() == [1.0, 1.0]


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
def test_clipped_loss_by_hand(ratio, advantage, loss, clipped):
    old = torch.tensor([-1.0])
    value, binding = clipped_policy_loss(
        old + np.log(ratio), old, torch.tensor([advantage]), clip_lower=0.2, clip_higher=0.272
    )
    assert value.item() == pytest.approx(loss, rel=1e-5)
    assert binding.item() is clipped


def test_gradient_of_the_clipped_loss_against_finite_differences():
    torch.manual_seed(0)
    old, advantages = torch.randn(8, dtype=torch.double), torch.randn(8, dtype=torch.double)
    now = (old + 0.1 * torch.randn(8, dtype=torch.double)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: clipped_policy_loss(x, old, advantages, clip_lower=0.2, clip_higher=0.272)[0], (now,)
    )
