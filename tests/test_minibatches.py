"""Batches: the term by listing all batches, its closed form on spectra, the modified flow against mean epochs."""

import itertools

import pytest
import torch

import dufm
from dufm import descent, minibatches
from dufm.groups import characters


def loss_of(factors, samples, n_per_class):
    """The part of ℒ of some samples, by PyTorch's own cross-entropy."""
    Z = dufm.product(factors)
    labels = torch.arange(Z.shape[-1]) // n_per_class
    return torch.nn.functional.cross_entropy(Z.mT[samples], labels[samples], reduction="sum") / n_per_class


@pytest.mark.parametrize(("n_per_class", "size"), [(1, 1), (1, 2), (1, 3), (2, 2), (2, 6)])
def test_batch_term_by_listing_all_batches(n_per_class, size):
    factors = dufm.gaussian_init(3, 5, 3, seed=0, n_per_class=n_per_class)
    samples, found = 3 * n_per_class, []
    for batch in itertools.combinations(range(samples), size):
        leaves = [W[0].clone().requires_grad_() for W in factors]
        slopes = torch.autograd.grad(loss_of(leaves, list(batch), n_per_class), leaves)
        found.append((samples / size) ** 2 * sum(float(slope.square().sum()) for slope in slopes))
    assert float(minibatches.batch_term(factors, size)) == pytest.approx(sum(found) / len(found), rel=1e-12)


@pytest.mark.parametrize("group", [("hadamard", 4), ("cyclic", 5)])
def test_the_term_at_small_equal_forces_lies_in_its_range(group):
    chi, L = characters(*group), 4
    K = chi.num_classes
    s = 1e-6 * torch.tensor([[1.0, 0.3, 0.1][: chi.num_free], [1.0, 1.0, 1.0][: chi.num_free]]).double()
    factors = dufm.spectral_init(s, L, chi)
    ratio = minibatches.batch_term(factors, 1) / minibatches.batch_term(factors, K)
    assert ((2 * K + L - 3) / L < ratio).all() and (ratio < K - 1 + 1 / L + 1e-5).all()
    assert float(ratio[1]) == pytest.approx(K - 1 + 1 / L, rel=1e-4)


def test_full_batches_follow_the_known_modified_flow():
    s = descent.spectral_starts(range(4), 4, 0.2)
    one = minibatches.batch_flow(s, 3, "hadamard", 0.1, 4)
    other = descent.modified_flow(s, 3, "hadamard", 0.1, until_log_loss=-6.0)
    # The other ends one step beyond the loss: go on to where it is.
    for mine, its in zip(one, other, strict=True):
        late = float(dufm.log_loss(characters("hadamard", 4).logits(its)))
        assert torch.allclose(
            minibatches.batch_flow(mine[None], 3, "hadamard", 0.1, 4, until_log_loss=late), its, rtol=1e-5
        )


@pytest.mark.parametrize("size", [1, 2])
def test_mean_epoch_against_the_modified_flow(size):
    """The mean over all orders of an epoch, less the modified flow's end, falls like η³: found by halving η."""
    chi = characters("hadamard", 4)
    start = dufm.spectral_init(torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64), 3, chi)
    misses = []
    for lr in (0.04, 0.02):
        ends = []
        for order in itertools.permutations(range(4)):
            state = [W.clone() for W in start]
            for batch in torch.tensor(order).split(size):
                mark = torch.zeros(1, 4, dtype=torch.float64).index_fill_(1, batch, lr * 4 / size)
                state = [W + slope for W, slope in zip(state, minibatches._batch_slopes(state, mark)[1], strict=True)]
            ends.append(state)
        mean = [torch.stack(parts).mean(0) for parts in zip(*ends, strict=True)]
        reached = [W.clone().requires_grad_() for W in start]
        for _ in range(400):  # Euler with Richardson would do; short steps of the modified loss by autograd
            each = [
                torch.autograd.grad(loss_of([W[0] for W in reached], [c], 1), reached, create_graph=True)
                for c in range(4)
            ]
            own = sum(part.square().sum() for slopes in each for part in slopes)
            whole = sum(sum(parts).square().sum() for parts in zip(*each, strict=True))
            loss = loss_of([W[0] for W in reached], list(range(4)), 1)
            loss = loss + lr / 4 * minibatches._sizes(own, whole, 4, size)
            slopes = torch.autograd.grad(loss, reached)
            reached = [
                (W - lr * (4 / size) / 400 * g).detach().requires_grad_() for W, g in zip(reached, slopes, strict=True)
            ]
        misses.append(max(float((a - b).detach().abs().max()) for a, b in zip(mean, reached, strict=True)))
    assert misses[1] < misses[0] / 3
