"""Closed laws: plain numbers and tensors, and each formula against the equation it solves."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import dufm
from dufm import laws
from dufm.spectral import spectral_flow

LAWS = [
    lambda s: laws.escape_time(s, 3),
    lambda s: laws.early_singular_values(0.3, s, 4),
    lambda s: laws.early_singular_values(0.3, s, 2),
    lambda s: laws.nc_log_loss(s, 5),
    lambda s: laws.nc_perturbation_growth(s, 0.01, 5, 6),
    lambda s: laws.nc_perturbation_growth(0.01, s, 5, 6),
]


@pytest.mark.parametrize("law", LAWS)
def test_plain_numbers_give_floats_and_tensors_tensors(law):
    values = [0.1, 0.25, 1]
    found = [law(value) for value in values]
    assert all(type(value) is float for value in found)
    for dtype, tol in ((torch.float64, 1e-14), (torch.float32, 1e-5)):
        tensor = law(torch.tensor(values, dtype=dtype))
        assert tensor.dtype == dtype and torch.allclose(tensor, torch.tensor(found, dtype=dtype), rtol=tol)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_early_values_solve_their_equation(depth):
    t = 0.6 * dufm.escape_time(0.1, depth) if depth > 2 else 1.5
    run = solve_ivp(lambda _, s: depth * s ** (2 - 2 / depth), (0, t), [0.1], "DOP853", rtol=1e-11, atol=1e-14)
    assert math.isclose(dufm.early_singular_values(t, 0.1, depth), run.y[0, -1], rel_tol=1e-8)
    if depth > 2:
        assert math.isinf(dufm.early_singular_values(1e9, 0.1, depth))


def test_turning_point_is_where_the_growth_is_largest():
    for K, L in ((4, 3), (8, 6)):
        star = dufm.turning_point(K, L)
        growth = [dufm.nc_perturbation_growth(star * x, 0.1, K, L) for x in (0.99, 1.0, 1.01)]
        assert growth[1] > max(growth[0], growth[2])
    assert dufm.turning_point(4, 3) == pytest.approx(4 / 3) and dufm.turning_point(8, 2) == 0.0


def test_loss_on_the_ray_is_the_loss_of_the_logits():
    s = torch.tensor([1e-3, 1.0, 30.0, 2000.0], dtype=torch.float64)
    for K in (2, 3, 8):
        C = torch.eye(K, dtype=torch.float64) - 1 / K
        assert torch.allclose(dufm.nc_log_loss(s, K), dufm.log_loss(s[:, None, None] * C), rtol=1e-13)


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_time_on_the_ray_is_that_of_the_flow(depth):
    losses = [0.0, -1.0, -30.0, -1000.0]
    start = torch.full((3,), 0.1, dtype=torch.float64)
    run = spectral_flow(start, depth, "hadamard", rtol=1e-9, until_log_loss=-1000.0, record={"log_loss": losses})
    law = [laws.collapse_log_time(loss, 0.1, 4, depth) for loss in losses]
    assert law == pytest.approx(run.history.log_time.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: laws.escape_time(0.0, 3), "s0 must be"),
        (lambda: laws.escape_time(torch.tensor([1, 2]), 3), "s0 must have a floating"),
        (lambda: laws.escape_time("a", 3), "s0 must be"),
        (lambda: laws.early_singular_values(-1, 0.1, 3), "t must be"),
        (lambda: laws.nc_log_loss(math.inf, 3), "s must be"),
        (lambda: laws.nc_log_loss(1.0, 1), "num_classes must be"),
        (lambda: laws.nc_perturbation_growth(1.0, -1.0, 4, 3), "s0 must be"),
        (lambda: laws.turning_point(4, 1), "depth must be"),
        (lambda: laws.collapse_log_time(5.0, 0.1, 4, 3), "log_loss must be below that at s0"),
        (lambda: laws.collapse_log_time(-5.0, -0.1, 4, 3), "s0 must be"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_numpys_numbers_are_refused_like_pythons():
    for beta in (1e-300, np.float64(1e-300)):
        with pytest.raises(dufm.DufmError, match="leaves the floats"):
            laws.late_separatrix(3, beta)
