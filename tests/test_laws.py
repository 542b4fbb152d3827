"""Closed laws: plain numbers and tensors, and the time on the ray of collapse against the flow."""

import math

import pytest
import torch

from dufm import laws
from dufm.spectral import spectral_flow

NUMBERS = [
    (lambda s: laws.escape_time(s, 3), 0.1),
    (lambda s: laws.early_singular_values(2 * s, s, 4), 0.1),
    (lambda s: laws.nc_perturbation_growth(3 * s, s, 4, 5), 0.5),
]


@pytest.mark.parametrize(("law", "s"), NUMBERS)
def test_a_plain_number_gives_a_plain_number(law, s):
    value = law(s)
    assert isinstance(value, float)
    assert value == law(torch.tensor([s], dtype=torch.float64)).item()


def test_a_number_follows_the_tensor_beside_it():
    law = laws.nc_perturbation_growth(torch.ones(2, dtype=torch.float32), 0.5, 4, 3)
    assert law.dtype == torch.float32 and law.shape == (2,)


def test_early_values_of_a_number_escape():
    assert laws.early_singular_values(1.01 * laws.escape_time(0.1, 3), 0.1, 3) == math.inf
    assert laws.early_singular_values(0, 0.1, 3) == pytest.approx(0.1)


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
        (lambda: laws.escape_time(0.0, 3), "s0 must be finite and positive"),
        (lambda: laws.escape_time("one", 3), "s0 must be a number or a tensor"),
        (lambda: laws.escape_time(True, 3), "s0 must be a number or a tensor"),
        (lambda: laws.nc_perturbation_growth(1.0, math.nan, 4, 3), "s0 must be finite"),
        (lambda: laws.early_singular_values(-1.0, 1.0, 3), "t must be finite and at least 0"),
        (lambda: laws.collapse_log_time(5.0, 0.1, 4, 3), "log_loss must be below that at s0"),
        (lambda: laws.collapse_log_time(-5.0, -0.1, 4, 3), "s0 must be"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
