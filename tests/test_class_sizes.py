"""Classes of unequal size: the flow against autograd and against copies of samples, and the signs of its proof."""

import pytest
import sympy
import torch
from tolerances import LINALG, close

from dufm import DufmError, balanced_init, end, gaussian_init, gradient_flow, kkt_residual, limit
from dufm.class_sizes import SizedModel, class_sizes, sized_ends, sized_flow, sized_limit, sized_residual
from dufm.metrics import centred
from dufm.width import random_start

TOL = LINALG[torch.float64]
SIMPLEX = centred(torch.eye(4, dtype=torch.float64))


def start(depth, count=2, seed=0):
    return random_start("gaussian", depth, 8, 4, scale=0.7, seeds=range(seed, seed + count))


def sample_loss(factors, counts):
    """Sum over all samples of their losses, class c's feature standing ``counts[c]`` times; by PyTorch alone."""
    labels = torch.repeat_interleave(torch.arange(4), counts)
    Z = torch.linalg.multi_dot([*reversed(factors[1:]), factors[0]])
    return torch.nn.functional.cross_entropy(Z.T, labels, reduction="sum")


def test_weights_are_copies_of_samples():
    """The field of the weighted loss is that of a data set in which samples stand several times."""
    counts, factors = torch.tensor([3, 1, 2, 2]), [W[0].requires_grad_() for W in start(3)]
    repeated = torch.repeat_interleave(torch.eye(4, dtype=torch.float64), counts, 1)
    slopes = torch.autograd.grad(sample_loss([factors[0] @ repeated, *factors[1:]], counts), factors)
    model = SizedModel([W.detach()[None] for W in factors], counts, "weights")
    state = model.flatten([W.detach()[None] for W in factors])
    field = torch.empty_like(state)
    log_loss, _ = model.field(state, field)
    close(-field * log_loss.exp(), model.flatten([slope[None] for slope in slopes]), TOL)


def test_samples_of_their_own_stay_equal_and_flow_as_one_column():
    """The field of √n_c h_c is √n_c times that of one of n_c equal features, and the other layers' the same."""
    counts, factors = torch.tensor([3, 1, 2, 2]), [W[0] for W in start(3)]
    features = torch.repeat_interleave(factors[0], counts, 1).requires_grad_()
    rest = [W.clone().requires_grad_() for W in factors[1:]]
    slopes = torch.autograd.grad(sample_loss([features, *rest], counts), [features, *rest])
    first = torch.cumsum(counts, 0) - counts
    expected = [slopes[0][:, first] * counts.double().sqrt(), *slopes[1:]]
    scaled = [(factors[0] * counts.double().sqrt())[None], *(W[None] for W in factors[1:])]
    model = SizedModel(scaled, counts, "samples")
    state = model.flatten(scaled)
    field = torch.empty_like(state)
    log_loss, _ = model.field(state, field)
    close(-field * log_loss.exp(), model.flatten([slope[None] for slope in expected]), TOL)


@pytest.mark.parametrize("kind", ["weights", "samples"])
def test_linearised_gaps_are_those_of_the_logits(kind):
    factors = start(3)
    model = SizedModel(factors, class_sizes(4, 10.0), kind)
    state = model.flatten(factors)
    at, change = model.linearise(state), torch.randn(state.shape, dtype=state.dtype, generator=torch.manual_seed(0))
    h = 1e-6
    slope = (model.gaps(state + h * change) - model.gaps(state - h * change)) / (2 * h)
    close(at.push(change), slope[:, model.live], 1e-7)
    close(at.push(change), model.gap_rate(state, change)[:, model.live], TOL)
    pairs = torch.randn(at.weights.shape, dtype=state.dtype, generator=torch.manual_seed(1))
    back = torch.empty_like(state)
    at.pull(pairs, back)
    close((back * change).sum(-1), (pairs * at.push(change)).sum(-1), TOL)
    close(at.push(back), (at.theta @ pairs.unsqueeze(-1)).squeeze(-1), TOL)
    field = torch.empty_like(state)
    _, weights = model.field(state, field)
    at.pull(-at.weights, back)
    close(back, field, TOL)
    close(weights[:, model.live], at.weights, TOL)


def test_equal_sizes_are_the_flow_of_the_package():
    factors, even = start(3, 4), torch.ones(4)
    for kind in ("weights", "samples"):
        run = sized_flow(factors, even, kind, until_log_loss=-100.0)
        close(run.Z, gradient_flow(factors, until_log_loss=-100.0, rtol=1e-3).Z, 1e-6)
    mine = end(sized_limit(sized_flow(factors, even, "weights"), even, "weights"), 3)
    theirs = end(limit(gradient_flow(factors, until_log_loss=-1e3, rtol=1e-3), sharpness=1e3), 3)
    assert list(mine.name) == list(theirs.name)


def test_residual_is_that_of_the_margin_problem_at_equal_sizes():
    Z = centred(torch.diag(torch.tensor([2.0, 2.0, 3.0, 4.0], dtype=torch.float64)))[None]
    close(sized_residual(Z.clone().requires_grad_(), torch.ones(4), 3, 3), kkt_residual(Z, 3, 3), TOL)
    assert kkt_residual(Z, 3, 3) > 0.1


def test_square_is_critical_for_equal_classes_only():
    square = torch.block_diag(*[torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)] * 2)[None]
    found, tiny = (sized_residual(square * scale, torch.ones(4), 3, 2) for scale in (1.0, 2.0**-960))
    assert found < TOL and torch.equal(found, tiny)
    assert sized_residual(square, class_sizes(4, 10.0), 3, 2) > 0.1


def test_pseudo_inverse_is_a_laplacian():
    """(C N C)⁺ = N⁻¹ − N⁻¹11ᵀN⁻¹/τ for symbols n: the four Penrose equations, and its entries off the diagonal."""
    n = sympy.symbols("n1:5", positive=True)
    N, one = sympy.diag(*n), sympy.ones(4, 1)
    C = sympy.eye(4) - one * one.T / 4
    tau = sum(1 / x for x in n)
    inverse = N.inv() - N.inv() * one * one.T * N.inv() / tau
    S = C * N * C
    zero = sympy.zeros(4, 4)
    assert (S * inverse - C).applyfunc(sympy.simplify) == zero
    assert (inverse * S - C).applyfunc(sympy.simplify) == zero
    assert (inverse * C - inverse).applyfunc(sympy.simplify) == zero
    assert sympy.simplify(inverse[0, 1] + 1 / (n[0] * n[1] * tau)) == 0


@pytest.mark.parametrize("depth", [2, 3, 7])
def test_fractional_powers_of_a_laplacian_are_negative_off_the_diagonal(depth):
    """The sign in the proof, from an eigendecomposition; the multipliers it gives solve the KKT equations."""
    n = 1000 ** torch.rand(6, dtype=torch.float64, generator=torch.manual_seed(depth))
    C = centred(torch.eye(6, dtype=torch.float64))
    values, vectors = torch.linalg.eigh(torch.linalg.pinv(C * n @ C, hermitian=True))
    power = vectors * values.clamp(min=0) ** (1 - 1 / depth) @ vectors.T
    assert (power - torch.diag(power.diagonal())).max() <= 0
    U, sigma, Vh = torch.linalg.svd(C * n.sqrt())
    U, sigma, Vh = U[:, :5], sigma[:5], Vh[:5]
    close(power * n / n.sqrt() @ Vh.T, U * sigma ** (2 / depth - 1), 1e-9)


def test_collapse_attracts_with_a_rare_class():
    rare = class_sizes(4, 0.01)
    factors = [W.expand(4, *W.shape) for W in balanced_init(200 * SIMPLEX * rare.sqrt(), 3, 8)]
    generator = torch.manual_seed(0)
    noise = [torch.randn(W.shape, dtype=W.dtype, generator=generator) for W in factors]
    size = [0.05 * torch.linalg.matrix_norm(W, keepdim=True) / N[0].norm() for W, N in zip(factors, noise, strict=True)]
    moved = [W + s * N for W, s, N in zip(factors, size, noise, strict=True)]
    rest = sized_limit(sized_flow(moved, rare, "samples"), rare, "samples")
    logits = centred(rest.Z / rare.sqrt())
    close(logits / logits[:, :1, :1] * 0.75, SIMPLEX.expand_as(logits), 0.02)


def test_ends_of_both_kinds():
    for kind in ("weights", "samples"):
        columns = sized_ends([0, 1, 2], 4, 2, 8, 0.7, 0.1, kind)
        assert columns["name"] == ["NC"] * 3 and columns["rank"].tolist() == [3] * 3


def test_bad_input():
    with pytest.raises(DufmError, match="ratio"):
        class_sizes(4, -1.0)
    with pytest.raises(DufmError, match="kind"):
        sized_flow(start(2), torch.ones(4), "classes")
    with pytest.raises(DufmError, match="sizes"):
        sized_flow(start(2), torch.ones(3), "weights")


def test_a_residual_in_single_precision():
    assert sized_residual(torch.eye(3)[None], torch.ones(3), 3, 2).dtype == torch.float32


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_limits_of_any_batch_shape(shape):
    factors = [W[:4].reshape(*shape, *W.shape[1:]) for W in gaussian_init(3, 4, 4, seed=0, batch=4 if shape else 1)]
    sizes = torch.ones(4, dtype=torch.float64)
    found = sized_limit(sized_flow(factors, sizes, "samples"), sizes, "samples")
    assert found.status.shape == shape and found.Z.shape == (*shape, 4, 4)
