"""The whole loss of a micro-batch: by hand with numpy, and its gradient against finite differences."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import make_args, make_samples
from transformers import AutoModelForCausalLM, GPT2Config

from open_instruct.learner.actor import mean_over_tokens
from open_instruct.learner.grpo import kl_penalty, token_weights
from open_instruct.learner.logprobs import Policy
from open_instruct.learner.objective import MicroBatch, TokenStatistics, micro_batch_loss, micro_batches
from open_instruct.learner.packing import TrainingSample, pack_samples


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


PLAIN = {"lr": 0.1, "optim/grad_norm": 1.0, "time/training": 2.0}


def by_hand(**changes) -> MicroBatch:
    """Two responses, of three tokens and of one."""
    values: dict[str, Any] = {
        "inputs": {},
        "advantages": torch.tensor([1.0, 1.0, 1.0, -2.0]),
        "sampler_logprobs": torch.tensor([-1.0, -1.0, -1.0, -1.0]),
        "segments": torch.tensor([0, 0, 0, 1]),
        "num_responses": 2,
        "old_logprobs": torch.tensor([-1.0, -1.5, -0.2, -1.1]),
        "ref_logprobs": torch.tensor([-1.2, -1.4, -0.9, -1.0]),
    }
    return MicroBatch(**(values | changes))


LOGPROBS = [-0.9, -1.0, -0.6, -1.3]


def loss_of(micro, counts=(4, 2), entropy=None, **flags):
    logprobs = torch.tensor(LOGPROBS, requires_grad=True)
    args = make_args(**({"beta": 0.1} | flags))
    return micro_batch_loss(args, micro, logprobs, entropy, num_tokens=counts[0], num_responses=counts[1])


def test_the_whole_loss_by_hand():
    """A sum over tokens of (1/8) (min(rho, 2) max(-A r, -A clip(r)) + 0.1 k3), written out in numpy."""
    now, old = np.array(LOGPROBS), np.array([-1.0, -1.5, -0.2, -1.1])
    advantages, reference = np.array([1.0, 1.0, 1.0, -2.0]), np.array([-1.2, -1.4, -0.9, -1.0])
    ratio = np.exp(now - old)
    policy = np.maximum(-advantages * ratio, -advantages * np.clip(ratio, 0.8, 1.272))
    rho = np.minimum(np.exp(old - (-1.0)), 2.0)
    kl = np.exp(reference - now) - 1 - (reference - now)
    loss, observed = loss_of(by_hand(), counts=(8, 4))
    assert loss.item() == pytest.approx(((rho * policy + 0.1 * kl) / 8).sum(), rel=1e-5)
    expected = {
        "loss/policy_avg": rho * policy,
        "loss/kl_avg": 0.1 * kl,
        "loss/total_avg": rho * policy + 0.1 * kl,
        "objective/kl_avg": kl,
        "objective/kl0_avg": now - reference,
        "objective/kl1_avg": (now - reference) ** 2 / 2,
        "objective/kl2_avg": kl,
        "objective/kl3_avg": ratio * (now - reference),
        "policy/clipfrac_avg": [False, True, False, False],
        "val/ratio": ratio,
        "val/rho_weight": rho,
        "val/rho_clipfrac": [False, False, True, False],
        "val/rho_drop_frac": [False] * 4,
        "debug/vllm_vs_local_logprob_diff_mean": np.abs(old + 1.0),
        "policy/neg_logprob_avg": -now,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(observed[name].numpy(), values, rtol=2e-4, atol=1e-6, err_msg=name)
        assert not observed[name].requires_grad


@pytest.mark.parametrize(
    ("denominator", "weights"),
    [("token", [1 / 8] * 4), ("sequence", [1 / 12, 1 / 12, 1 / 12, 1 / 4]), ("16", [1 / 64] * 4)],
)
def test_denominators_by_hand(denominator, weights):
    """Eight tokens and four responses over all learners, of which this one has four and two."""
    micro = by_hand(old_logprobs=None, ref_logprobs=None)
    loss, _ = loss_of(micro, counts=(8, 4), loss_denominator=denominator, use_rho_correction=False)
    assert loss.item() == pytest.approx(-float(np.dot(weights, [1, 1, 1, -2])), rel=1e-6)


def test_dropped_tokens_have_no_loss_and_are_not_clipped():
    _, observed = loss_of(by_hand(), rho_mask_lower_bound=0.7, rho_mask_upper_bound=2.0)
    # rho is 1, 0.61, 2.23, 0.90
    assert observed["val/rho_drop_low_frac"].tolist() == [False, True, False, False]
    assert observed["val/rho_drop_high_frac"].tolist() == [False, False, True, False]
    assert observed["val/rho_drop_frac"].sum() == 2
    assert observed["loss/policy_avg"][1:3].tolist() == [0.0, 0.0]
    assert not observed["policy/clipfrac_avg"].any()
    assert (observed["loss/total_avg"][1:3] > 0).all(), "the KL term stays"


def test_the_sampler_as_old_policy():
    _, observed = loss_of(by_hand(), use_vllm_logprobs=True, use_rho_correction=False)
    np.testing.assert_allclose(observed["val/ratio"].numpy(), np.exp(np.array(LOGPROBS) + 1.0), rtol=1e-5)
    assert "val/rho_weight" not in observed


def test_before_an_update_the_ratio_is_1_with_a_gradient():
    loss, observed = loss_of(by_hand(old_logprobs=None))
    assert observed["val/ratio"].tolist() == [1.0] * 4
    assert loss.requires_grad


def test_entropy_is_logged_where_it_is_recorded():
    _, observed = loss_of(by_hand(), entropy=torch.arange(4.0))
    assert observed["policy/entropy_avg"].tolist() == [0, 1, 2, 3]


def tiny_policy() -> Policy:
    """GPT-2's layers compute in double precision throughout; most newer models' norms are float32 inside."""
    config = GPT2Config(
        vocab_size=24,
        n_positions=16,
        n_embd=8,
        n_layer=2,
        n_head=2,
        initializer_range=0.5,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    torch.manual_seed(3)
    policy = Policy(AutoModelForCausalLM.from_config(config, dtype=torch.double), 0.8)
    policy.chunk_size = 3
    return policy


def packed() -> MicroBatch:
    """Three responses in two rows; the old policy, the sampler and the reference differ from the present one."""
    rng = np.random.default_rng(0)
    samples = [
        TrainingSample(rng.integers(24, size=3).tolist(), rng.integers(24, size=n).tolist(), [-3.0] * n, advantage)
        for n, advantage in [(4, 1.0), (2, -0.7), (5, 0.4)]
    ]
    (batch,) = pack_samples(samples, pack_length=13, num_learners=1, pad_token_id=0)
    (micro,) = micro_batches(batch, 4, "cpu")
    return micro


RHO = {
    "off": {"use_rho_correction": False},
    "sampler": {"use_rho_correction": False, "use_vllm_logprobs": True},
    "clamp": {"rho_clamp_lower_bound": 0.9, "truncated_importance_sampling_ratio_cap": 1.1},
    "sequence": {"rho_mask_sequence_level": True, "rho_mask_lower_bound": 0.8, "rho_mask_upper_bound": 1.3},
    "divergence": {"rho_mask_tv_divergence": True, "rho_mask_upper_bound": 1.001},
}


@pytest.mark.parametrize(
    ("loss_fn", "denominator", "rho"),
    list(itertools.product(["dapo", "cispo", "gspo"], ["token", "sequence", "10"], RHO)),
)
def test_gradients_of_the_whole_loss_against_finite_differences(loss_fn, denominator, rho):
    """Through packing, decoder, chunked head, temperature, loss and KL: along a random direction of all weights."""
    policy, micro = tiny_policy(), packed()
    estimator = ["token", "sequence", "10"].index(denominator)
    args = make_args(loss_fn=loss_fn, loss_denominator=denominator, beta=0.1, kl_estimator=estimator, **RHO[rho])
    with torch.no_grad():
        start = policy(micro.inputs)[0]
    noise = torch.randn(3, len(start), dtype=torch.double, generator=torch.Generator().manual_seed(1)) * 0.1
    micro.old_logprobs, micro.sampler_logprobs, micro.ref_logprobs = (start + n for n in noise)
    loss, observed = micro_batch_loss(args, micro, policy(micro.inputs)[0], None, num_tokens=20, num_responses=5)

    def value() -> float:
        logprobs = policy(micro.inputs)[0]
        if loss_fn == "cispo":  # its ratio has no gradient: the same value with the ratio held where it is
            old = micro.sampler_logprobs if args.use_vllm_logprobs else micro.old_logprobs
            held = -micro.advantages * (start - old).exp().clamp(max=1.272) * logprobs
            kl = kl_penalty(logprobs, micro.ref_logprobs, estimator, (logprobs - old).exp())  # ty: ignore[invalid-argument-type]
            weights = token_weights(micro.segments, denominator, num_tokens=20, num_responses=5)
            return (weights * (observed.get("val/rho_weight", 1.0) * held + 0.1 * kl)).sum().item()
        return micro_batch_loss(args, micro, logprobs, None, num_tokens=20, num_responses=5)[0].item()

    weights = list(policy.parameters())
    direction = [torch.randn_like(w) for w in weights]
    gradients = torch.autograd.grad(loss, weights)
    analytic = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)).item()
    assert value() == pytest.approx(loss.item()) and abs(analytic) > 1e-3
    values = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for weight, d in zip(weights, direction, strict=True):
                weight.add_(d, alpha=step)
            values.append(value())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(analytic, rel=1e-5)


def test_micro_batches_number_responses_with_tokens():
    (batch,) = pack_samples(make_samples(0), pack_length=48, num_learners=1, pad_token_id=0)
    cut = list(micro_batches(batch, 2, "cpu"))
    assert sum(m.num_responses for m in cut) == 8
    assert sum(m.num_tokens for m in cut) == batch.response_mask[:, 1:].sum()
    for micro in cut:
        assert sorted(set(micro.segments.tolist())) == list(range(micro.num_responses))
    (empty,) = pack_samples([], pack_length=48, num_learners=1, pad_token_id=0)
    (micro,) = micro_batches(empty, 2, "cpu")
    assert (micro.num_tokens, micro.num_responses) == (0, 0)


def test_statistics_are_means_over_all_tokens_of_all_learners():
    first, second = TokenStatistics(), TokenStatistics()
    for values in ([1.0, 1.2], [0.8]):
        first.add(measured(values))
    second.add(measured([1.4]))
    second.add(measured([]))  # a pack of padding
    results = [first.result() | PLAIN, second.result() | PLAIN, TokenStatistics().result() | PLAIN]
    means = mean_over_tokens(results)
    assert means["val/ratio"] == pytest.approx(1.1)
    assert means["val/ratio_var"] == pytest.approx(np.var([1.0, 1.2, 0.8, 1.4]))
    assert means["debug/vllm_vs_local_logprob_diff_max"] == pytest.approx(1.4)
    assert means["lr"] == pytest.approx(0.1)
    assert "tokens" not in means and "val/ratio_squared_deviation" not in means


def measured(ratios: list[float]) -> dict[str, torch.Tensor]:
    ratio = torch.tensor(ratios)
    return {
        "val/ratio": ratio,
        "val/ratio_squared_deviation": (ratio - 1.0) ** 2,
        "debug/vllm_vs_local_logprob_diff_max": ratio,
    }
