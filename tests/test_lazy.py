"""The lazy range: rates against autograd, laws against their own small systems, the flow of wide networks."""

import math

import numpy as np
import pytest
import sympy
import torch
from scipy.integrate import solve_ivp
from tolerances import close

from dufm import DufmError, gaussian_init, lazy, product


@pytest.mark.parametrize("depth", [2, 4])
def test_logit_rate_is_that_of_a_gradient_step(depth):
    factors = [W.requires_grad_() for W in gaussian_init(depth, 5, 3, batch=2, seed=4)]
    logits = product(factors)
    loss = -torch.log_softmax(logits, -2).diagonal(dim1=-2, dim2=-1).sum()
    slopes, step = torch.autograd.grad(loss, factors), 1e-6
    ahead, behind = (product([W - sign * step * G for W, G in zip(factors, slopes, strict=True)]) for sign in (1, -1))
    velocity = ((ahead - behind) / (2 * step)).detach()
    force = (torch.eye(3, dtype=torch.float64) - torch.softmax(logits, -2)).detach()
    expected = (velocity * force).sum((-2, -1)) / force.square().sum((-2, -1))
    close(lazy.logit_rate([W.detach() for W in factors]), expected, 1e-8)
    A, B = lazy.layer_products([W.detach() for W in factors])
    close(sum(a @ force @ b for a, b in zip(A, B, strict=True)), velocity, 1e-8)


def test_products_are_nearly_multiples_of_the_identity_in_wide_networks():
    narrow, wide = (np.median(list(lazy.at_start(range(8), 4, 4, d, 0.8).values()), 1) for d in (64, 1024))
    # left, right: 1/√d, so a quarter
    assert (np.abs(np.log2(narrow[:2] / wide[:2]) / 4 - 0.5) < 0.15).all()
    assert 1 < wide[2] < narrow[2] and abs(wide[3] - 1) < 0.1


@pytest.mark.parametrize(("depth", "ratios"), [(2, [0.3, 2.0]), (3, [0.1, 1.5])])
def test_lazy_law_is_that_of_one_direction(depth, ratios):
    """One row u of the classifier, at right angles to what it meets at the start; the features move at L = 2 only."""
    scale, num_classes, hidden = 0.6, 4, 10**6
    length = scale * math.sqrt(hidden / num_classes)
    metric = 1.0 if depth == 2 else length**2

    def law(_, state):
        u, h = state.reshape(2, 2)
        return np.concatenate([h, metric * u])

    u, h = np.array([scale, 0.0]), np.array([0.0, length * (1.0 if depth == 2 else scale)])
    start, unit = np.concatenate([u, h]), lazy.lazy_size(depth, hidden, num_classes, scale)
    # κ is ds over the common factor of the loss, which the clock of `law` has taken out.
    rate = lambda state: state[2:] @ state[2:] + metric * state[:2] @ state[:2]  # noqa: E731
    size = lambda state: state[:2] @ state[2:]  # noqa: E731
    sizes = np.array(ratios) * (unit if depth == 3 else lazy.lazy_rate(2, hidden, num_classes, scale))
    events = [lambda t, state, s=s: size(state) - s for s in sizes]
    run = solve_ivp(law, (0, 20 / math.sqrt(metric)), start, events=events, rtol=1e-10, atol=1e-12)
    seen = [rate(states[0]) / rate(start) for states in run.y_events]
    assert seen == pytest.approx([lazy.lazy_law(s, depth, hidden, num_classes, scale) for s in sizes], rel=1e-4)


def test_lazy_law_is_given_at_two_depths_only():
    assert math.isnan(lazy.lazy_law(1.0, 4, 64, 4, 1.0))


def test_the_flow_of_a_wide_network_follows_the_lazy_law():
    path = lazy.lazy_path([0, 1], 4, 3, 256, 0.3, levels=[0.125, 0.5, 1.0])
    law = lazy.lazy_law(path["ratio"] * lazy.lazy_size(3, 256, 4, 0.3), 3, 256, 4, 0.3)
    assert np.abs(path["growth"] / law - 1).max() < 256**-0.5
    assert (path["beside"] < 0.3).all() and path["ratio"] == pytest.approx([0.125, 0.5, 1.0], rel=0.05)


def test_a_network_that_starts_below_a_mark_is_left_out_there():
    passed, other, both = (lazy.lazy_path(seeds, 4, 2, 16, 0.5, levels=[1 / 16, 1.0]) for seeds in ([4], [0], [0, 4]))
    for key in both:
        assert np.isnan(passed[key][0]) and both[key][0] == other[key][0]
        assert both[key][1] == pytest.approx((passed[key][1] + other[key][1]) / 2)


def test_lazy_path_stops_where_losses_end():
    assert len(lazy.lazy_path([0], 4, 2, 64, 1.0, levels=[0.1, 1e3])["ratio"]) == 1
    with pytest.raises(DufmError, match="levels"):
        lazy.lazy_path([0], 4, 2, 64, 1.0, levels=[1e3])


def test_numbers_beyond_the_floats_are_refused_and_a_singular_product_has_no_condition():
    with pytest.raises(DufmError, match="size must be a number from 0 to 1e"):
        lazy.lazy_law(1e150, 2, 4, 4, 1.0)
    with pytest.raises(DufmError, match="factors: the rate leaves the range"):
        first, middle, last = (W.float() for W in gaussian_init(3, 4, 3, seed=0))
        lazy.logit_rate([1e15 * first, middle, 1e15 * last])
    assert lazy.at_start([0], 4, 10_000, 4)["condition"] == [math.inf]  # products that have shrunk to 0
    assert lazy.at_start([0], 4, 3, 2)["condition"][0] > 1e15


def test_the_lazy_law_at_three_layers_in_symbols():
    """Notebook 62: a = |u|², b = |h|², c = u·h of a hyperbolic rotation keep a − b and (a + b)² − 4c²."""
    a, b, c, pull, sigma, x, s = sympy.symbols("a b c pull sigma x s", positive=True)
    rates = {a: 2 * pull * c, b: 2 * pull * c, c: pull * (a + b)}
    for constant in (a - b, (a + b) ** 2 - 4 * c**2):
        assert sympy.simplify(sum(sympy.diff(constant, part) * rate for part, rate in rates.items())) == 0
    rate = x**2 * sympy.sqrt(4 * sigma**4 + 4 * (s / x) ** 2)  # κ = |x|²(a + b), c = s/|x|
    values = {sigma: 0.8, s: 1.7, x: 0.8 * math.sqrt(512 / 4)}
    ratio = float((rate / rate.subs(s, 0)).subs(values))
    assert ratio == pytest.approx(float(lazy.lazy_law(1.7, 3, 512, 4, 0.8)), rel=1e-12)
