"""The flow against SciPy in log t, against the scalar equation of the NC ray, and against plain descent."""

import math
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import scipy.integrate
import torch
from tolerances import FLOW, LANDED, LINALG, ROUNDING, SOLVER, close, relative

import dufm
from dufm import (
    DufmError,
    balanced_init,
    gaussian_init,
    gradient_descent,
    gradient_flow,
    imbalance_drift,
    limit,
    log_loss,
    orthogonal_init,
    product,
)
from dufm.flow import loss_scaled_descent

TOL = LINALG[torch.float64]


def simplex(num_classes):
    return torch.eye(num_classes, dtype=torch.float64) - 1.0 / num_classes


def alone(factors, index):
    return [factor[index] for factor in factors]


# ---------------------------------------------------------------- against SciPy


def flow_in_log_time(factors, log_times):
    """dW/du = −t ∂ℒ/∂W with u = log t, by DOP853, from t = e^{-18}, where W has moved by 1e-8; list of factors."""
    shapes = [factor.shape for factor in factors]
    sizes = [int(np.prod(shape)) for shape in shapes]
    num_classes, columns = shapes[-1][0], shapes[0][1]
    true = np.arange(columns) // (columns // num_classes)

    def field(u, flat):
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        W = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        Z = np.linalg.multi_dot(W[::-1])
        shifted = Z - Z.max(axis=0)
        pull = -np.exp(shifted) / np.exp(shifted).sum(axis=0)
        pull[true, np.arange(columns)] = 0.0
        pull[true, np.arange(columns)] = -pull.sum(axis=0)
        pull = pull * (np.exp(u) * num_classes / columns)
        slopes = []
        for l in range(len(W)):
            above = np.linalg.multi_dot(W[:l:-1]) if len(W) - l > 2 else (W[-1] if l < len(W) - 1 else np.eye(len(Z)))
            below = np.linalg.multi_dot(W[l - 1 :: -1]) if l > 1 else (W[0] if l == 1 else np.eye(columns))
            slopes.append(above.T @ pull @ below.T)
        return np.concatenate([slope.ravel() for slope in slopes])

    start = np.concatenate([factor.numpy().ravel() for factor in factors])
    # The straight line that the path is before t = e^{-18}; what it leaves out is of size t².
    start = start + field(-18.0, start)
    run = scipy.integrate.solve_ivp(
        field, (-18.0, log_times[-1]), start, method="DOP853", t_eval=log_times, rtol=1e-11, atol=1e-13
    )
    assert run.success
    parts = np.split(run.y.T, np.cumsum(sizes)[:-1], axis=1)
    return [torch.from_numpy(part.reshape(-1, *shape)) for part, shape in zip(parts, shapes, strict=True)]


@pytest.mark.parametrize(
    ("depth", "width", "num_classes", "n_per_class"), [(2, 5, 4, 1), (3, 6, 4, 1), (4, 5, 3, 1), (3, 4, 3, 2)]
)
def test_flow_at_equal_log_time_matches_dop853(depth, width, num_classes, n_per_class):
    log_times = [-4.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    factors = gaussian_init(depth, width, num_classes, scale=0.9, batch=2, seed=1, n_per_class=n_per_class)
    tight = gradient_flow(factors, until_log_loss=-45.0, rtol=1e-9, record={"log_time": log_times})
    loose = gradient_flow(factors, until_log_loss=-45.0, record={"log_time": log_times})
    assert (tight.status == "reached").all() and tight.history.Z.shape[:2] == (9, 2)
    for i in range(2):
        expected = flow_in_log_time(alone(factors, i), log_times)
        for level in range(len(log_times)):
            for flow, tol in ((tight, SOLVER[torch.float64]), (loose, 20 * 1e-4)):
                for factor, reference in zip(flow.history.factors, expected, strict=True):
                    assert relative(factor[level, i], reference[level]) < tol
        close(tight.history.log_loss[:, i], log_loss(product(expected)), SOLVER[torch.float64])


# ---------------------------------------------------------------- against the scalar equation of the NC ray


def log_time_on_the_ray(start, end, num_classes, depth):
    """log ∫ (e^s + K − 1)/(K L s^{2 − 2/L}) ds from start to end, by mpmath, e^end taken out."""
    with mpmath.workdps(30):
        K, L, end = num_classes, depth, mpmath.mpf(end)

        def rate(s):
            return (mpmath.exp(s - end) + (K - 1) * mpmath.exp(-end)) * s ** (mpmath.mpf(2) / L - 2) / (K * L)

        knots = [mpmath.mpf(start)] + [s for s in (1, 4, 16) if start < s < end]
        knots += [end - s for s in (80, 40, 20, 10, 5, 2) if end - s > max(start, 16)] + [end]
        return float(mpmath.log(mpmath.quad(rate, sorted(knots))) + end)


def along_the_ray(num_classes, depth, levels, rtol, start=0.3, width=None):
    C = simplex(num_classes)
    factors = balanced_init(start * C, depth, width)
    flow = gradient_flow(factors, until_log_loss=levels[-1], rtol=rtol, record={"log_loss": levels})
    assert flow.status == "reached"
    Z = flow.history.Z
    s = (Z * C).sum((-2, -1)) / (num_classes - 1)
    # The ray is kept: nothing grows beside it, to the local error.
    assert (torch.linalg.matrix_norm(Z - s[:, None, None] * C) < 100 * rtol * s).all()
    expected = [log_time_on_the_ray(start, value, num_classes, depth) for value in s.tolist()]
    return flow, s, torch.tensor(expected, dtype=torch.float64)


@pytest.mark.parametrize(("num_classes", "depth"), [(4, 2), (4, 3), (3, 4), (5, 6)])
@pytest.mark.parametrize("rtol", sorted(FLOW))
def test_log_time_on_the_nc_ray(num_classes, depth, rtol):
    flow, s, expected = along_the_ray(num_classes, depth, [0.0, -1.0, -3.0, -10.0, -30.0, -100.0, -300.0], rtol)
    assert (flow.history.log_time - expected).abs().max() < FLOW[rtol]
    closed = (num_classes * torch.log1p((num_classes - 1) * torch.exp(-s))).log()
    near = s < 30
    close(flow.history.log_loss[near], closed[near], TOL)


def test_minus_ten_thousand_is_an_ordinary_target():
    levels = [-1.0, -1e2, -1e3, -1e4]
    flow, s, expected = along_the_ray(4, 3, levels, 1e-4)
    assert (flow.history.log_time - expected).abs().max() < FLOW[1e-4]
    close(flow.log_loss, -1e4, LANDED)
    close(s[-1], 1e4 + math.log(12), SOLVER[torch.float64])
    assert all(factor.isfinite().all() for factor in flow.factors)
    # ℒ·t·(log t)^{2 − 2/L} tends to (K − 1)/L, here 1, with a correction of order log log t/log t.
    exact = math.exp(-1e4 + expected[-1] + (4 / 3) * math.log(expected[-1]))
    measured = (flow.log_loss + flow.log_time + (4 / 3) * flow.log_time.log()).exp()
    assert 1e-4 < abs(exact - 1.0) < 5e-3
    close(measured, exact, FLOW[1e-4])


def test_log_time_converges_with_rtol():
    errors = []
    for rtol in (1e-3, 1e-4, 1e-5, 1e-7, 1e-9):
        flow, _, expected = along_the_ray(4, 3, [-1.0, -10.0, -60.0], rtol)
        errors.append((flow.history.log_time - expected).abs().max().item())
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-4 * errors[0]


# ---------------------------------------------------------------- what the flow keeps


@pytest.mark.parametrize("init", [gaussian_init, orthogonal_init])
def test_imbalance_is_conserved(init):
    factors = init(3, 6, 4, scale=0.7, batch=4, seed=2)
    for rtol, tol in ((1e-4, 1e-2), (1e-8, 1e-6)):
        flow = gradient_flow(factors, rtol=rtol)
        assert (imbalance_drift(factors, flow.factors) < tol).all()


def test_log_loss_falls_and_time_rises_along_the_record():
    levels = [-0.5, -1.0, -7.0, -37.0, -150.0]
    flow = gradient_flow(gaussian_init(3, 8, 4, scale=0.5, batch=5, seed=3), record={"log_loss": levels})
    assert (flow.history.log_time.diff(dim=0) > 0).all()
    assert (flow.log_time > flow.history.log_time[-1]).all()
    close(log_loss(flow.Z), flow.log_loss, TOL)
    close(log_loss(flow.history.Z), flow.history.log_loss, TOL)
    assert (flow.steps > 0).all()


# ---------------------------------------------------------------- record


def test_record_lands_on_levels_of_log_loss():
    levels = [-150.0, 0.5, -30.0, -30.000001, -200.0]
    flow = gradient_flow(gaussian_init(3, 8, 4, scale=0.5, batch=5, seed=3), record={"log_loss": levels})
    expected = torch.tensor(sorted(levels, reverse=True), dtype=torch.float64).unsqueeze(-1).expand(5, 5)
    close(flow.history.log_loss, expected, LANDED)
    # The last level is the target itself.
    close(flow.log_loss, expected[-1], LANDED)
    close(flow.history.Z[-1], flow.Z, LANDED)
    close(flow.history.log_time[-1], flow.log_time, LANDED)


def test_record_lands_on_levels_of_log_time():
    levels = [-20.0, -3.0, 0.0, 2.0, 2.5, 50.0, 150.0]
    factors = gaussian_init(4, 8, 3, scale=0.8, batch=4, seed=4)
    for rtol in (1e-4, 1e-8):
        flow = gradient_flow(factors, rtol=rtol, record={"log_time": levels})
        expected = torch.tensor(levels, dtype=torch.float64).unsqueeze(-1).expand(7, 4)
        close(flow.history.log_time, expected, LANDED)
        assert (flow.history.log_loss.diff(dim=0) < 0).all()


def test_levels_do_not_bend_the_path():
    factors = gaussian_init(3, 8, 4, scale=0.5, batch=4, seed=5)
    plain = gradient_flow(factors)
    for record in ({"log_loss": [-1.0, -2.0, -2.5, -100.0]}, {"log_time": [-5.0, 0.0, 1.0, 90.0]}):
        recorded = gradient_flow(factors, record=record)
        close(recorded.Z, plain.Z, TOL)
        close(recorded.log_time, plain.log_time, TOL)
        assert torch.equal(recorded.steps, plain.steps)


def test_levels_never_reached_are_nan():
    factors = gaussian_init(3, 8, 4, scale=0.5, batch=2, seed=6)
    start = log_loss(product(factors)).max().item()
    flow = gradient_flow(factors, until_log_loss=-20.0, record={"log_time": [0.0, 500.0]})
    assert flow.history.Z[0].isfinite().all() and flow.history.Z[1].isnan().all()
    assert flow.history.log_time[1].isnan().all() and flow.history.log_loss[1].isnan().all()
    # A level above the start lies behind it.
    flow = gradient_flow(factors, until_log_loss=-20.0, record={"log_loss": [start + 1.0, -10.0]})
    assert flow.history.log_loss[0].isnan().all() and flow.history.log_loss[1].isfinite().all()
    # Stopped short: the levels beyond stay empty.
    flow = gradient_flow(factors, max_steps=12, record={"log_loss": [0.9, -150.0]})
    assert (flow.status == "max steps").all() and flow.history.log_loss[1].isnan().all()


def test_without_record_there_is_no_history():
    assert gradient_flow(gaussian_init(2, 4, 3, seed=0), until_log_loss=-2.0).history is None


# ---------------------------------------------------------------- shapes, batches, dtypes


@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_a_network_does_not_feel_its_batch(rtol):
    factors = gaussian_init(3, 16, 4, scale=0.5, batch=40, seed=7)
    # A straggler, a network that is there already, and one that never moves.
    factors = [factor.clone() for factor in factors]
    for l, scale in enumerate((0.1, 0.1, 0.1)):
        factors[l][3] *= scale
        factors[l][8] = 0.0
    done = balanced_init(300.0 * simplex(4), 3, 16)
    for l in range(3):
        factors[l][5] = done[l]
    record = {"log_loss": [-1.0, -50.0]}
    together = gradient_flow(factors, rtol=rtol, record=record)
    for i in (0, 3, 5, 8, 17, 39):
        single = gradient_flow(alone(factors, i), rtol=rtol, record=record)
        assert single.status == together.status[i] and single.steps == together.steps[i]
        close(single.Z, together.Z[i], TOL)
        assert torch.equal(single.log_time.isfinite(), together.log_time[i].isfinite())
        close(single.log_time.nan_to_num(neginf=0.0), together.log_time[i].nan_to_num(neginf=0.0), TOL)
        close(single.history.Z.nan_to_num(), together.history.Z[:, i].nan_to_num(), TOL)


def test_any_number_of_leading_dimensions():
    flat = gaussian_init(3, 6, 4, scale=0.6, batch=6, seed=8)
    record = {"log_time": [1.0, 30.0]}
    expected = gradient_flow(flat, until_log_loss=-50.0, record=record)
    nested = gradient_flow([f.reshape(2, 3, *f.shape[1:]) for f in flat], until_log_loss=-50.0, record=record)
    assert nested.Z.shape == (2, 3, 4, 4) and nested.history.Z.shape == (2, 2, 3, 4, 4)
    assert nested.status.shape == nested.log_loss.shape == nested.log_time.shape == nested.steps.shape == (2, 3)
    assert [factor.shape[:2] for factor in nested.factors] == [(2, 3)] * 3
    close(nested.Z.reshape(6, 4, 4), expected.Z, TOL)
    close(nested.history.log_loss.reshape(2, 6), expected.history.log_loss, TOL)
    single = gradient_flow(alone(flat, 4), until_log_loss=-50.0, record=record)
    assert single.Z.shape == (4, 4) and single.log_loss.shape == () and single.status.shape == ()
    assert single.status == "reached" and single.history.Z.shape == (2, 4, 4)
    close(single.Z, expected.Z[4], TOL)


@pytest.mark.parametrize("record", [{"log_loss": [-2.0, -20.0]}, {"log_time": [2.0, 10.0]}])
def test_levels_are_met_in_float32(record):
    start = gaussian_init(3, 6, 4, batch=4, seed=0)
    small, large = (
        gradient_flow([W.to(dtype) for W in start], until_log_loss=-20.0, rtol=1e-3, record=record).history
        for dtype in (torch.float32, torch.float64)
    )
    assert {t.dtype for t in (*small.factors, small.log_loss, small.log_time)} == {torch.float32}
    ((kind, levels),) = record.items()
    met = torch.tensor(levels, dtype=torch.float32).unsqueeze(-1).expand(2, 4)
    close(getattr(small, kind), met, 10 * ROUNDING[torch.float32])
    assert relative(small.Z.double(), large.Z) < SOLVER[torch.float32]


def test_float32():
    factors = gaussian_init(3, 8, 4, scale=0.7, batch=4, seed=9)
    small = gradient_flow([factor.float() for factor in factors], until_log_loss=-60.0)
    large = gradient_flow(factors, until_log_loss=-60.0)
    assert (small.status == "reached").all()
    assert {t.dtype for t in (*small.factors, small.log_loss, small.log_time)} == {torch.float32}
    close(small.log_loss, torch.full((4,), -60.0), 10 * ROUNDING[torch.float32])
    # The two take the same steps; they part by the rounding of a step, grown along the path.
    assert relative(small.Z.double(), large.Z) < SOLVER[torch.float32]
    close(small.log_time, large.log_time, SOLVER[torch.float32])


def test_the_input_is_left_alone_and_parameters_are_accepted():
    factors = [torch.nn.Parameter(factor) for factor in gaussian_init(3, 5, 3, batch=2, seed=10)]
    before = [factor.detach().clone() for factor in factors]
    flow = gradient_flow(factors, until_log_loss=-5.0)
    descent = gradient_descent(factors, lr=0.1, steps=3)
    for factor, copy in zip(factors, before, strict=True):
        assert torch.equal(factor, copy)
    assert not any(factor.requires_grad for factor in (*flow.factors, *descent.factors))


# ---------------------------------------------------------------- how runs end


def test_already_there():
    factors = balanced_init(50.0 * simplex(4), 3)
    reached = log_loss(product(factors)).item()
    for target in (reached, 0.0):
        flow = gradient_flow(factors, until_log_loss=target, record={"log_time": [1.0]})
        assert flow.status == "reached" and flow.steps == 0 and flow.log_time == -math.inf
        close(flow.Z, product(factors), 0.0)
        close(flow.log_loss, reached, TOL)
        assert flow.history.Z.isnan().all()


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_stalled_at_zero(depth):
    factors = [torch.zeros_like(factor) for factor in gaussian_init(depth, 6, 4, batch=2, seed=0)]
    flow = gradient_flow(factors)
    assert (flow.status == "stalled at a saddle of rank 0").all()
    close(flow.log_loss, torch.full((2,), math.log(4 * math.log(4)), dtype=torch.float64), TOL)
    assert (flow.log_time == -math.inf).all() and (flow.steps == 0).all()


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_stalled_at_low_rank(depth, rank):
    # An orthoplex of 2r classes, far out, and one class at zero logits, which rank r cannot help by symmetry.
    num_classes = 2 * rank + 1
    code = torch.zeros(num_classes, rank, dtype=torch.float64)
    code[:rank], code[rank : 2 * rank] = torch.eye(rank), -torch.eye(rank)
    flow = gradient_flow(balanced_init(120.0 * code @ code.mT, depth, width=rank))
    assert flow.status == f"stalled at a saddle of rank {rank}"
    close(flow.log_loss, math.log(math.log(num_classes)), TOL)


@pytest.mark.parametrize(("num_classes", "depth"), [(4, 4), (4, 6), (6, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stalled_at_rank_one_in_either_precision(num_classes, depth, dtype):
    sign = torch.cat([torch.ones(num_classes // 2), -torch.ones(num_classes // 2)]).to(dtype)
    flow = gradient_flow(balanced_init(torch.outer(sign, sign), depth), until_log_loss=-50.0, max_steps=600)
    assert flow.status == "stalled at a saddle of rank 1"


def test_precision_exhausted():
    # A common shift of 1e12 leaves gaps of order one only four digits: log ℒ is noise before the margins grow.
    gaps = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flow = gradient_flow(balanced_init(1e12 + gaps, 2))
    assert flow.status == "precision exhausted"
    assert flow.log_loss > 0 and flow.Z.isfinite().all()
    assert gradient_flow(balanced_init(gaps, 2)).status == "reached"


def test_max_steps():
    factors = gaussian_init(3, 8, 4, batch=3, seed=0)
    flow = gradient_flow(factors, max_steps=7)
    assert (flow.status == "max steps").all() and (flow.steps <= 7).all() and (flow.steps > 0).all()
    assert (flow.log_loss > -200).all() and flow.log_time.isfinite().all()
    close(log_loss(flow.Z), flow.log_loss, TOL)
    # Statuses are one a network.
    mixed = [torch.stack([a[0], b]) for a, b in zip(factors, balanced_init(300 * simplex(4), 3, 8), strict=True)]
    assert gradient_flow(mixed, max_steps=7).status.tolist() == ["max steps", "reached"]


# ---------------------------------------------------------------- descent


def test_descent_follows_the_flow():
    factors = gaussian_init(3, 6, 4, scale=0.8, batch=3, seed=12, n_per_class=2)
    times = [0.5, 2.0, 8.0]
    flow = gradient_flow(factors, until_log_loss=-20.0, rtol=1e-9, record={"log_time": [math.log(t) for t in times]})
    errors = []
    for lr in (2e-3, 1e-3):
        numbers = [round(t / lr) for t in times]
        descent = gradient_descent(factors, lr=lr, steps=numbers[-1], record=numbers)
        assert (descent.status == "max steps").all() and (descent.steps == numbers[-1]).all()
        close(descent.history.log_time, flow.history.log_time, 1e-6)
        close(descent.log_time, torch.full((3,), math.log(8.0), dtype=torch.float64), TOL)
        close(descent.history.log_loss, log_loss(descent.history.Z), TOL)
        close(descent.history.Z[-1], descent.Z, TOL)
        errors.append(relative(descent.history.Z, flow.history.Z))
    # Euler's method: the distance to the flow is proportional to the rate.
    assert errors[1] < 2e-3 and 1.9 < errors[0] / errors[1] < 2.1


def test_descent_matches_torch_sgd():
    factors = gaussian_init(3, 5, 3, scale=0.8, seed=13)
    copies = [factor.clone().requires_grad_() for factor in alone(factors, 0)]
    optimiser = torch.optim.SGD(copies, lr=0.2)
    for _ in range(20):
        optimiser.zero_grad()
        Z = copies[2] @ copies[1] @ copies[0]
        torch.nn.functional.cross_entropy(Z.mT, torch.arange(3), reduction="sum").backward()
        optimiser.step()
    descent = gradient_descent(factors, lr=0.2, steps=20, record=[0, 20])
    for ours, theirs in zip(descent.factors, copies, strict=True):
        close(ours[0], theirs.detach(), TOL)
    close(descent.history.Z[0], product(factors), TOL)
    assert (descent.history.log_time[0] == -math.inf).all()


def test_loss_scaled_descent_tends_to_the_flow_with_its_step():
    factors = alone(gaussian_init(3, 6, 3, scale=0.8, batch=1, seed=3), 0)
    levels = [0.5, -5.0, -60.0]
    runs = [loss_scaled_descent(factors, epsilon, levels) for epsilon in (2e-2, 1e-2)]
    losses = sorted({loss for run in runs for loss in run.log_loss.tolist()}, reverse=True)
    flow = gradient_flow(factors, until_log_loss=losses[-1], rtol=1e-8, record={"log_loss": losses})
    at = {loss: index for index, loss in enumerate(losses)}
    away = []
    for epsilon, run in zip((2e-2, 1e-2), runs, strict=True):
        place = [at[loss] for loss in run.log_loss.tolist()]
        assert ((run.log_time - flow.history.log_time[place]).abs() < 200 * epsilon).all()
        away.append([relative(Z, true) for Z, true in zip(run.Z, flow.history.Z[place], strict=True)])
        assert max(away[-1]) < 1e-2 and (run.log_loss <= torch.tensor(levels)).all()
    assert away[0][-1] / away[1][-1] == pytest.approx(2.0, abs=0.2)


def test_what_a_flow_returns_can_be_trained_on():
    run = gradient_flow(gaussian_init(3, 4, 4, seed=0), record={"log_loss": [0.0]})
    rest = limit(run)
    for factors in (run.factors, run.history.factors, rest.factors):
        leaves = [W.requires_grad_() for W in factors]
        assert all(slope.isfinite().all() for slope in torch.autograd.grad(product(leaves).square().sum(), leaves))
    assert not any(value.is_inference() for value in (run.log_time, run.steps, rest.growth, rest.turning, rest.rates))


def test_descent_diverges():
    descent = gradient_descent([1e200 * factor for factor in gaussian_init(3, 4, 3, seed=0)], lr=1e300, steps=3)
    assert (descent.status == "diverged").all()


# ---------------------------------------------------------------- bad input


def wrong_factors():
    good = gaussian_init(3, 8, 4, seed=0)

    def change(index, function):
        return [function(factor) if l == index else factor for l, factor in enumerate(good)]

    return [
        pytest.param(change(1, lambda W: W * math.nan), "factors: W_2 must be finite", id="nan"),
        pytest.param(change(2, lambda W: W / 0.0), "factors: W_3 must be finite", id="inf"),
        pytest.param(good[:1], "factors: depth must be at least 2 .* got 1", id="depth 1"),
        pytest.param(change(1, lambda W: W[:, :, :5]), "factors: W_2 does not follow W_1; shapes are", id="shapes"),
        pytest.param(change(2, lambda W: W.expand(2, 4, 8)), "factors: W_3 does not follow W_2", id="batch"),
        pytest.param([W[..., :1] if l == 0 else W[..., :1, :] if l == 2 else W for l, W in enumerate(good)],
                     "factors: W_L needs K >= 2 rows", id="one class"),
        pytest.param([W[:0] for W in good], "factors: W_1 must not be empty", id="empty batch"),
        pytest.param([W.long() for W in good], "factors: W_1 must have a floating dtype .* got torch.int64", id="int"),
        pytest.param([W > 0 for W in good], "factors: W_1 must have a floating dtype .* got torch.bool", id="bool"),
        pytest.param(change(0, lambda W: W.float()), "factors: W_2 is torch.float64 on cpu, W_1", id="dtypes"),
        pytest.param(change(0, lambda W: W.tolist()), "factors: W_1 must be a torch tensor, got list", id="list"),
    ]


@pytest.mark.parametrize(
    "function", [gradient_flow, lambda factors: gradient_descent(factors, lr=0.1, steps=1)], ids=["flow", "descent"]
)
@pytest.mark.parametrize(("factors", "says"), wrong_factors())
def test_bad_factors(function, factors, says):
    with pytest.raises(DufmError, match=says):
        function(factors)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"until_log_loss": math.nan}, "until_log_loss must be a finite number, got nan"),
        ({"until_log_loss": -math.inf}, "until_log_loss must be a finite number, got -inf"),
        ({"until_log_loss": "-200"}, "until_log_loss must be a finite number, got '-200'"),
        ({"until_log_loss": True}, "until_log_loss must be a finite number, got True"),
        ({"rtol": 0.0}, "rtol must be a number from 1e-13 to 0.1, got 0.0"),
        ({"rtol": 1.0}, r"rtol must be a number from 1e-13 to 0.1, got 1.0"),
        ({"rtol": math.nan}, r"rtol must be a number from 1e-13 to 0.1, got nan"),
        ({"rtol": None}, r"rtol must be a number from 1e-13 to 0.1, got None"),
        ({"max_steps": 0}, "max_steps must be an integer >= 1, got 0"),
        ({"max_steps": 10.0}, "max_steps must be an integer >= 1, got 10.0"),
        ({"record": [-1.0]}, "record must be"),
        ({"record": {}}, "record must be"),
        ({"record": {"time": [1.0]}}, "record must be"),
        ({"record": {"log_loss": [-1.0], "log_time": [1.0]}}, "record must be"),
        ({"record": {"log_loss": []}}, r"record\['log_loss'\] must hold at least one level"),
        ({"record": {"log_time": [[1.0]]}}, r"record\['log_time'\]\[0\] must be a finite number, got \[1.0\]"),
        ({"record": {"log_time": [math.nan]}}, r"record\['log_time'\]\[0\] must be a finite number"),
        ({"record": {"log_time": ["soon"]}}, r"record\['log_time'\]\[0\] must be a finite number"),
        ({"record": {"log_loss": [-300.0]}}, r"record\['log_loss'\] must stay at or above until_log_loss = -200"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(DufmError, match=says):
        gradient_flow(gaussian_init(3, 4, 3, seed=0), **arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"lr": 0.0}, "lr must be a finite positive number, got 0.0"),
        ({"lr": math.nan}, "lr must be a finite positive number, got nan"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"steps": 2.0}, "steps must be an integer >= 1, got 2.0"),
        ({"record": [11]}, "record must be an integer from 0 to 10, got 11"),
        ({"record": [-1]}, "record must be an integer from 0 to 10, got -1"),
        ({"record": [0.5]}, "record must be an integer from 0 to 10, got 0.5"),
    ],
)
def test_bad_descent_arguments(arguments, says):
    with pytest.raises(DufmError, match=says):
        gradient_descent(gaussian_init(3, 4, 3, seed=0), **({"lr": 0.1, "steps": 10} | arguments))


# ---------------------------------------------------------------- the package


def test_import_loads_nothing_heavy():
    check = "import sys, dufm; print(*sorted({'matplotlib', 'papermill', 'sklearn', 'IPython'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.strip() == ""


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_deviations_within_classes_of_free_features_never_grow(depth):
    """Along the flow at small steps of the record, and at once: d/dt ½‖V_1‖² by automatic differentiation."""
    start = gaussian_init(depth, 6, 3, scale=1.5, batch=8, seed=21, n_per_class=4)

    def within(features):
        grouped = features.unflatten(-1, (3, 4))
        return (grouped - grouped.mean(-1, keepdim=True)).square().sum((-3, -2, -1))

    levels = np.linspace(1.0, -30, 40).tolist()
    run = gradient_flow(start, rtol=1e-8, until_log_loss=-30.0, record={"log_loss": levels})
    size = within(run.history.factors[0])
    later, before = size[1:], size[:-1]
    known = torch.isfinite(later) & torch.isfinite(before)
    assert known.sum() > 200 and (later[known] <= before[known] * (1 + 1e-7)).all()
    features = start[0].clone().requires_grad_()
    labels = torch.arange(3).repeat_interleave(4).expand(8, -1)
    loss = torch.nn.functional.cross_entropy(product([features, *start[1:]]), labels, reduction="sum")
    (slope,) = torch.autograd.grad(loss, features)
    moved = [within(features.detach() - step * slope) for step in (1e-6, -1e-6)]
    assert (moved[0] < moved[1]).all()


def test_records_and_levels_of_descent_that_are_none():
    factors = dufm.gaussian_init(3, 4, 4, seed=0)
    with pytest.raises(DufmError, match="record must be a sequence, got 5"):
        dufm.gradient_descent(factors, lr=0.1, steps=3, record=5)
    with pytest.raises(DufmError, match="levels must descend"):
        loss_scaled_descent([W[0] for W in factors], 5e-3, [-3.0, -1.0])
