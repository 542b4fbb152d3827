"""Label noise: the loss against PyTorch's, its minimum, the square in symbols, and the law of escape against SciPy."""

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import sympy
import torch
from tolerances import LINALG, SOLVER, close

from dufm import DufmError, balanced_init, gaussian_init
from dufm.metrics import centred
from dufm.soft_labels import (
    NoisyModel,
    collapse_size,
    critical_at_rank,
    noisy_flow,
    noisy_labels,
    square,
    square_force,
    time_to_escape,
)

TOL = LINALG[torch.float64]


def test_field_against_autograd():
    factors = [W[0].requires_grad_() for W in gaussian_init(3, 5, 4, batch=1, seed=0)]
    Y = noisy_labels(4, 0.1)
    Z = torch.linalg.multi_dot([*reversed(factors)])
    loss = torch.nn.functional.cross_entropy(Z.T, Y.T, reduction="sum") - torch.special.entr(Y).sum()
    slopes = torch.autograd.grad(loss.log(), factors)
    model = NoisyModel([W.detach()[None] for W in factors], 0.1)
    state = model.flatten([W.detach()[None] for W in factors])
    field = torch.empty_like(state)
    log_loss, _ = model.field(state, field)
    close(log_loss, loss.log().detach()[None], TOL)
    close(-field, model.flatten([slope[None] for slope in slopes]), TOL)


def test_minimum_is_collapse_of_the_size_of_the_noise():
    Z = collapse_size(5, 0.2) * centred(torch.eye(5, dtype=torch.float64))
    close(Z.softmax(-2), noisy_labels(5, 0.2), TOL)
    run = noisy_flow(gaussian_init(3, 6, 5, batch=2, seed=1), 0.2)
    close(centred(run.Z), Z.expand_as(run.Z), 1e-3)


def test_square_in_symbols():
    """Two bits: the stated logits give their probabilities, and Y − P leaves m(1 − m) at the product alone."""
    m = sympy.symbols("m", positive=True)
    right, wrong = (1 + m) / 2, (1 - m) / 2
    P = sympy.kronecker_product(*[sympy.Matrix([[right, wrong], [wrong, right]])] * 2)
    noise = sympy.Rational(3, 4) * (1 - m)
    Y = sympy.eye(4) * (1 - noise * sympy.Rational(4, 3)) + sympy.ones(4, 4) * noise / 3
    u = sympy.Matrix([1, -1, -1, 1]) / 2
    assert (Y - P - m * (1 - m) * u * u.T).applyfunc(sympy.expand) == sympy.zeros(4, 4)


@pytest.mark.parametrize("noise", [0.5, 0.1, 0.003])
def test_square_is_critical_of_rank_two(noise):
    Z = square(noise)
    left = noisy_labels(4, noise) - Z.softmax(-2)
    values = torch.linalg.svdvals(left)
    close(values[0], square_force(noise), TOL)
    assert values[1] < TOL and torch.linalg.matrix_norm(left @ Z) < TOL
    assert torch.linalg.svdvals(Z)[2] < TOL


def test_critical_at_rank_is_stationary_and_of_that_rank():
    start = noisy_flow(gaussian_init(3, 2, 5, batch=1, seed=0), 0.1, max_steps=100).Z[0]
    Z = critical_at_rank(start, 0.1, 2)
    left = noisy_labels(5, 0.1) - Z.softmax(-2)
    U, sigma, Vh = torch.linalg.svd(Z)
    assert sigma[2] < TOL and torch.linalg.matrix_norm(left) > 0.05
    close(U[:, :2].T @ left, torch.zeros(2, 5), 1e-9)
    close(left @ Vh[:2].T, torch.zeros(5, 2), 1e-9)
    with pytest.raises(DufmError, match="rank"):
        critical_at_rank(start, 0.1, 5)


def test_flow_beside_the_square_against_scipy():
    """Three singular values in characters, integrated by SciPy in time, against the factors' flow."""
    noise, depth = 0.05, 3
    m = 1 - 4 * noise / 3
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)

    def rate(_, s):
        f = signs @ s / 4
        p = np.exp(f) / np.exp(f).sum()
        return depth * s ** (2 - 2 / depth) * (m - p @ signs)

    first = np.array([5.0, 5.0, 0.02])
    times = [10.0, 40.0, 60.0]
    solved = scipy.integrate.solve_ivp(rate, (0, 60), first, t_eval=times, rtol=1e-10, atol=1e-12, method="Radau").y.T
    characters = torch.from_numpy(signs) / 2
    start = balanced_init((characters * torch.from_numpy(first)) @ characters.T, depth)
    run = noisy_flow([W[None] for W in start], noise, rtol=1e-8, record={"log_time": np.log(times)})
    found = torch.stack([torch.stack([v @ Z @ v for v in characters.T]) for Z in run.history.Z[:, 0]])
    close(found, torch.from_numpy(solved), SOLVER[torch.float64])


@pytest.mark.parametrize("noise", [0.001, 0.3, 0.7])
def test_the_target_is_reached_as_far_as_the_loss_has_digits(noise):
    """A loss of e^-20 is a difference of numbers of order 1: its first seven digits are right."""
    run = noisy_flow(gaussian_init(3, 4, 4, scale=0.5, batch=4, seed=0), noise, max_steps=2000)
    assert (run.status == "reached").all()
    assert ((run.log_loss + 20).abs() < 64 * torch.finfo(torch.float64).eps * np.exp(20)).all()


def test_deviations_from_collapse_on_its_ray():
    """The stated rate against finite differences of the three equations, and its zero before that without noise."""
    noise, depth, h = 0.02, 4, 1e-6
    m, q = 1 - 4 * noise / 3, 1 - 2 / depth
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)

    def rate(s):
        p = np.exp(signs @ s / 4)
        return depth * s ** (2 - 2 / depth) * (m - p @ signs / p.sum())

    def law(s):
        p1 = 1 / (np.exp(s) + 3)
        return q / s - p1 / (4 * (p1 - noise / 3))

    for s in (0.5, 1.5, 3.0):
        one = rate(np.array([s + h, s, s])) - rate(np.array([s - h, s, s]))
        measured = (one[0] - one[1]) / (2 * h) / rate(np.full(3, s))[0] - 1 / s
        close(torch.tensor(measured), law(s), SOLVER[torch.float64])
    turn = torch.tensor(scipy.optimize.brentq(law, 0.1, 4.0, xtol=1e-14, rtol=1e-14), dtype=torch.float64)
    close(turn, 4 * q * (1 - noise / 3 * (turn.exp() + 3)), TOL)
    assert turn < 4 * q


def test_time_to_escape_solves_its_equation():
    for depth in (3, 5):
        found = scipy.integrate.solve_ivp(
            lambda _, x, depth=depth: depth * 0.1 * x ** (2 - 2 / depth),
            (0, time_to_escape(0.01, depth, 0.1) - time_to_escape(1.0, depth, 0.1)),
            [0.01],
            rtol=1e-10,
            atol=1e-14,
        )
        close(torch.tensor(found.y[0, -1]), 1.0, SOLVER[torch.float64])


def test_a_target_without_digits_is_refused():
    factors = gaussian_init(3, 4, 4, seed=0)
    with pytest.raises(DufmError, match=r"until_log_loss must be at least -31\.88 in torch\.float64, got -36"):
        noisy_flow(factors, 0.1, until_log_loss=-36.0)
    with pytest.raises(DufmError, match=r"until_log_loss must be at least -11\.78 in torch\.float32, got -20"):
        noisy_flow([W.float() for W in factors], 0.1)


@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_critical_at_rank_finds_the_square_beside_a_common_shift(factor):
    Z = critical_at_rank(factor * square(0.1) + torch.tensor([1.0, -2.0, 0.5, 3.0]), 0.1, 2)
    close(Z, square(0.1), 1e-7)


@pytest.mark.parametrize("factor", [0.0, 1e-20, 0.3, 3.0])
def test_critical_at_rank_refuses_a_far_end(factor):
    with pytest.raises(DufmError, match="Z must be near a critical point of rank 2"):
        critical_at_rank(factor * square(0.1), 0.1, 2)


def test_bad_input():
    with pytest.raises(DufmError, match="noise"):
        square_force(0.9)
    with pytest.raises(DufmError, match="noise"):
        noisy_labels(4, 0.75)
    with pytest.raises(DufmError, match="one feature"):
        noisy_flow(gaussian_init(2, 4, 4, seed=0, n_per_class=2), 0.1)
    with pytest.raises(DufmError, match="depth"):
        time_to_escape(0.1, 2, 0.1)
