"""Linearly implicit steps against explicit ones, autograd, quadrature of the path, and the closed law of the NC ray."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import torch
from scipy.interpolate import CubicSpline
from test_flow import log_time_on_the_ray, simplex
from tolerances import LINALG, close, relative

from dufm import _stepping, _steps, balanced_init, gaussian_init, gradient_flow, spectral_flow
from dufm._factors import FactorModel
from dufm._linearised import Linearised
from dufm.class_sizes import KINDS, SizedModel
from dufm.groups import characters
from dufm.peers import path_error
from dufm.spectral import SpectralModel

TOL = LINALG[torch.float64]


def started(depth, width, num_classes, batch=3, log_loss=-8.0, **options):
    """A model of random networks and their flat states at some loss."""
    factors = gaussian_init(depth, width, num_classes, batch=batch, seed=0, **options)
    model = FactorModel(factors)
    return model, model.flatten(gradient_flow(factors, until_log_loss=log_loss).factors)


def spectra(depth, log_loss=-8.0):
    chi = characters((3, 3))
    s = torch.rand(3, chi.num_free, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    model = SpectralModel(chi, depth, s)
    return model, model.flatten(spectral_flow(s, depth, chi, until_log_loss=log_loss).s)


MODELS = {
    "networks": lambda log_loss: started(3, 6, 4, log_loss=log_loss),
    "deep": lambda log_loss: started(5, 5, 3, log_loss=log_loss),
    "samples": lambda log_loss: started(3, 5, 3, n_per_class=2, log_loss=log_loss),
    "alone": lambda log_loss: started(4, 5, 4, batch=1, log_loss=log_loss),
    "spectra": lambda log_loss: spectra(4, log_loss),
}


# ---------------------------------------------------------------- the matrix against autograd


@pytest.mark.parametrize("name", MODELS)
def test_the_linearisation_is_autograds(name):
    model, x = MODELS[name](-60.0)
    at = model.linearise(x)
    for i in range(len(x)):
        J = lifted(model, x[i])
        close(at.theta[i], J @ J.mT, TOL)
        v = torch.linspace(-1, 1, x.shape[1], dtype=torch.float64)
        out = torch.empty_like(x)
        close(at.push(v.expand_as(x))[i], J @ v, TOL)
        at.pull(at.weights, out)
        close(out[i], J.mT @ at.weights[i], TOL)
        # The field is −Jᵀλ, and so minus the gradient of a log ℒ that autograd knows nothing about.
        model.field(x, out)
        close(-out[i], J.mT @ at.weights[i], TOL)
        # C is the Hessian of log Σ e^D, which log ℒ is to e^ℒ where the loss is small; JᵀCJ has the values of BᵀΘB.
        gaps = model.gaps(x)[i, model.live]
        counted = at.weights[i].log() - gaps
        hessian = torch.autograd.functional.hessian(lambda D, c=counted: torch.logsumexp(D + c, 0), gaps)
        stiff, _, _ = at.stiff
        expected = torch.linalg.eigvalsh(J.mT @ hessian @ J).flip(0)
        ours = torch.linalg.eigvalsh(stiff[i]).flip(0)
        shared = min(len(expected), len(ours))
        close(ours[:shared] / ours[0], expected[:shared] / ours[0], 1e-9)


def lifted(model, x):
    """J ``(M, n)`` of one state, by autograd."""
    return torch.autograd.functional.jacobian(lambda row: model.gaps(row.unsqueeze(0))[0, model.live], x)


def bent(model, x, weights):
    """S ``(n, n)`` of one state, by autograd: the derivative of −Jᵀλ at a fixed λ."""
    return -torch.autograd.functional.hessian(
        lambda row: (model.gaps(row.unsqueeze(0))[0, model.live] * weights).sum(), x
    )


def sized(kind, batch=3):
    """A model of classes of unequal sizes, and its states."""
    factors = gaussian_init(4, 5, 4, batch=batch, seed=0)
    return SizedModel(factors, torch.tensor([1.6, 0.8, 0.8, 0.8]), kind), FactorModel(factors).flatten(factors)


def narrow(num_classes, depth, width, scale, seed):
    return gaussian_init(depth, width, num_classes, scale=scale ** (1 / depth), seed=seed)


CURVED = {name: MODELS[name] for name in ("networks", "deep", "samples", "alone")} | {
    f"{kind}, {batch}": lambda _, kind=kind, batch=batch: sized(kind, batch) for kind in KINDS for batch in (1, 3)
}


@pytest.mark.parametrize("name", CURVED)
def test_the_curvature_is_autograds(name):
    model, x = CURVED[name](-1.0)
    at, rows = model.linearise(x), torch.arange(len(x)).roll(1)
    for i, curvature in zip(rows, at.curvature(rows), strict=True):
        J = lifted(model, x[i])
        close(curvature, J @ bent(model, x[i], at.weights[i]) @ J.mT, TOL)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_small_network_alone_is_linearised_as_in_a_batch(kind):
    model, x = started(4, 5, 4, batch=1) if kind is None else sized(kind, 1)
    alone, batch = model.linearise(x), model.linearise(x.expand(2, -1))
    change, pairs = torch.linspace(-1, 1, x.shape[1]).to(x).unsqueeze(0), torch.cos(alone.weights)
    out, pair_out = torch.empty_like(x), torch.empty(2, x.shape[1]).to(x)
    alone.pull(pairs, out)
    batch.pull(pairs.expand(2, -1), pair_out)
    for one, two in [
        (alone.weights, batch.weights),
        (alone.theta, batch.theta),
        (alone.push(change), batch.push(change.expand(2, -1))),
        (out, pair_out),
    ]:
        assert one.shape == (1, *two.shape[1:])
        close(one[0], two[1], TOL)


def test_a_wide_network_alone_is_not_followed_by_a_dense_matrix(monkeypatch):
    """Twelve pairs and four layers: of width 200 the matrix would hold a million numbers, of width 8 it holds 2,300."""
    made = []
    dense = FactorModel._dense
    monkeypatch.setattr(FactorModel, "_dense", lambda model, flat: made.append(flat) or dense(model, flat))
    for width, count in ((200, 0), (8, 1)):
        factors = gaussian_init(4, width, 4, seed=0)
        FactorModel(factors).linearise(FactorModel(factors).flatten(factors))
        assert len(made) == count


MOVE = torch.sin(torch.arange(315, dtype=torch.float64)).view(3, 105)


def first_term(J, weights):
    return -J.mT @ (torch.diag(weights) - torch.outer(weights, weights) / weights.sum()) @ J


def near_saddles(model, x, at, i):
    """A on the range of Jᵀ, by an orthonormal basis of it: its values, and the directions ``(n, M)``."""
    J, weights = lifted(model, x[i]), at.weights[i]
    basis = torch.linalg.svd(J, full_matrices=False).Vh
    values, Q = torch.linalg.eigh(basis @ (first_term(J, weights) + bent(model, x[i], weights)) @ basis.mT)
    return values, basis.mT @ Q


@pytest.mark.parametrize("damping", [None, 0.7])
def test_the_inverse_is_that_of_the_dense_matrix(damping):
    model, x = MODELS["deep"](-1.0)
    rates = None if damping is None else torch.full((3,), damping, dtype=torch.float64)
    at = dataclasses.replace(model.linearise(x), damping=rates)
    scale = torch.tensor([[0.3], [0.5], [0.2]], dtype=torch.float64)
    apply, found = at.inverse(scale, None)
    result = MOVE.clone()
    rate = apply(result, torch.empty_like(x))
    assert found.all()
    for i in range(3):
        J, eye = lifted(model, x[i]), torch.eye(x.shape[1], dtype=torch.float64)
        matrix = (1 + scale[i] * (damping or 0)) * eye - scale[i] * first_term(J, at.weights[i])
        expected = torch.linalg.solve(matrix, MOVE[i])
        close(result[i], expected, 1e-6)
        close(rate[i], J @ expected, 1e-6)


@pytest.mark.parametrize("rows", [[0, 2], [0, 1, 2]], ids=["some", "all"])
def test_near_a_saddle_what_shrinks_is_damped_and_what_is_stiff_held_and_settled(rows):
    """Against the dense matrices; a row that is near none moves by its first term, and is neither held nor settled."""
    model, x = MODELS["deep"](-1.0)
    at = model.linearise(x)
    scale = torch.tensor([[30.0], [50.0], [200.0]], dtype=torch.float64)
    saddles = at.saddles(scale, torch.tensor(rows))
    apply, found = at.inverse(scale, saddles)
    result = MOVE.clone()
    rate = apply(result, torch.empty_like(x))
    held, settled = (
        at.pulled(saddles, matrix, at.push(MOVE), torch.empty_like(x)) for matrix in (saddles.held, saddles.settled)
    )
    assert found.all()
    for i in range(3):
        J = lifted(model, x[i])
        if i not in rows:
            eye = torch.eye(x.shape[1], dtype=torch.float64)
            close(result[i], torch.linalg.solve(eye - scale[i] * first_term(J, at.weights[i]), MOVE[i]), 1e-6)
            assert not held[i].any() and not settled[i].any()
            continue
        values, E = near_saddles(model, x, at, i)
        shares = -scale[i] * values.clamp(max=0)
        assert values.max() > 1e-3 and shares.max() > 200 and ((1e-3 < shares) & (shares < 100)).any()
        along = E.mT @ MOVE[i]
        expected = MOVE[i] - E @ (shares / (1 + shares) * along)
        close(result[i], expected, 1e-6)
        close(rate[i], J @ expected, 1e-6)
        stiff = shares**4 / (shares**4 + 100**4)
        close(held[i], E @ (stiff * along), 1e-6)
        close(settled[i], E @ (shares**3 / (shares**4 + 100**4) * along), 1e-6)


@pytest.mark.parametrize("rows", [[0, 2], [0, 1, 2]], ids=["some", "all"])
def test_a_row_near_a_saddle_whose_matrices_are_not_found_has_no_inverse(rows):
    model, x = MODELS["deep"](-1.0)
    at, scale = model.linearise(x), torch.ones(3, 1, dtype=torch.float64)
    saddles = at.saddles(scale, torch.tensor(rows))
    lost = dataclasses.replace(saddles, found=saddles.rows != 2)
    assert at.inverse(scale, lost)[1].tolist() == [True, True, False]


def test_nothing_is_near_a_saddle_where_the_field_has_no_curvature():
    model, x = MODELS["deep"](-1.0)
    at, scale = model.linearise(x), torch.ones(3, 1, dtype=torch.float64)
    assert at.saddles(scale, torch.tensor([], dtype=torch.int64)) is None
    assert dataclasses.replace(at, curvature=None).saddles(scale, torch.tensor([0])) is None


def test_gap_rate_is_the_derivative_of_the_gaps():
    for name in MODELS:
        model, x = MODELS[name](-8.0)
        v = torch.sin(torch.arange(x.numel(), dtype=torch.float64)).view_as(x)
        rate = torch.autograd.functional.jvp(model.gaps, x, v)[1]
        close(model.gap_rate(x, v), rate, TOL)


# ---------------------------------------------------------------- order and agreement


class Wrong(FactorModel):
    """A linearisation that has nothing to do with the field."""

    def linearise(self, flat):
        at = super().linearise(flat)
        count = at.theta.shape[-1]
        ramp = torch.linspace(0.3, 2.0, count, dtype=torch.float64)
        theta = torch.diag(ramp).expand_as(at.theta)
        mix = torch.sin(torch.arange(count * flat.shape[1], dtype=torch.float64)).view(count, -1) / 10

        def pull(pairs, out):
            out.copy_(pairs @ mix)

        # Θ must still be JJᵀ of the J that is used: that is what makes the solve a solve.
        return Linearised(at.weights, (mix @ mix.mT).expand_as(theta), lambda v: v @ mix.mT, pull)


@pytest.mark.parametrize(
    ("kind", "saddle"),
    [(FactorModel, math.inf), (FactorModel, 0.0), (Wrong, math.inf)],
    ids=["its matrix", "with the second term", "a wrong matrix"],
)
def test_implicit_steps_are_of_third_order_for_any_matrix(monkeypatch, kind, saddle):
    monkeypatch.setattr(_steps, "_SADDLE", saddle)
    factors = gaussian_init(3, 6, 4, scale=0.8, batch=2, seed=3)
    model = kind(factors)
    start = model.flatten(factors)
    control = _steps.control_of(1e-3)
    length = 0.4

    def along(steps, implicit):
        batch = _stepping.begin(model, start, control)
        batch.implicit[:] = implicit
        rows = torch.arange(2)
        for _ in range(steps):
            step = batch.step(model, control, rows, torch.full((2,), length / steps, dtype=torch.float64))
            batch.put(rows, state=step.state, log_loss=step.log_loss, slope=step.slope, speed=step.speed)
        return batch.state

    reference = along(3000, implicit=False)
    errors = [relative(along(steps, implicit=True), reference) for steps in (20, 40, 80)]
    assert errors[-1] < 1e-4
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert 6.5 < coarse / fine < 9.5


def forced(monkeypatch, price):
    """Flows whose implicit steps have another price: 0 takes them from the first limited step on, inf never."""
    monkeypatch.setattr("dufm._factors._price", lambda shapes, pairs: price)


def test_implicit_and_explicit_paths_agree(monkeypatch):
    factors = gaussian_init(3, 8, 4, scale=0.6, batch=6, seed=5)
    levels = [0.0, -2.0, -10.0, -50.0, -300.0]
    runs = {}
    for price in (1e-9, math.inf):
        forced(monkeypatch, price)
        for rtol in (1e-5, 1e-6):
            runs[price, rtol] = gradient_flow(factors, until_log_loss=-300.0, rtol=rtol, record={"log_loss": levels})
    tight = runs[math.inf, 1e-6].history
    for rtol, tol in ((1e-5, 3e-4), (1e-6, 5e-5)):
        implicit = runs[1e-9, rtol].history
        off = torch.linalg.matrix_norm(implicit.Z - tight.Z) / torch.linalg.matrix_norm(tight.Z)
        assert off.max() < tol
        assert (implicit.log_time - tight.log_time).abs().max() < tol
    assert (runs[1e-9, 1e-6].steps != runs[math.inf, 1e-6].steps).all()


# ---------------------------------------------------------------- how many steps


@pytest.mark.parametrize(
    ("num_classes", "target", "bound"), [(4, -200.0, 20), (4, -1e4, 30), (4, -1e6, 45), (4, -1e8, 60), (6, -1e6, 120)]
)
def test_tens_of_steps_to_any_loss(num_classes, target, bound):
    factors = gaussian_init(3, 16, num_classes, scale=0.5, batch=256 if num_classes == 4 else 64, seed=0)
    run = gradient_flow(factors, until_log_loss=target, rtol=1e-3)
    assert (run.status == "reached").all() and run.steps.double().mean() <= bound


def count_kinds(monkeypatch):
    """Steps tried of each kind while the test runs."""
    count = Counter()

    def counting(name, function):
        def counted(*arguments):
            count[name] += 1
            return function(*arguments)

        monkeypatch.setattr(_stepping, name, counted)

    counting("implicit_step", _stepping.implicit_step)
    counting("explicit_step", _stepping.explicit_step)
    return count


@pytest.mark.parametrize(
    ("depth", "width", "num_classes", "target", "rtol", "implicit"),
    [
        (3, 8, 4, -1e4, 1e-4, True),  # stiff, and the solve is small
        (3, 8, 4, 0.5, 1e-4, False),  # early: nothing is stiff yet
        (3, 8, 4, -5.0, 1e-10, False),  # tight: order five beats order three
        (2, 4, 24, -5.0, 1e-4, False),  # the solve costs more than the steps it saves
    ],
)
def test_the_kind_of_step_follows_its_price(monkeypatch, depth, width, num_classes, target, rtol, implicit):
    count = count_kinds(monkeypatch)
    run = gradient_flow(gaussian_init(depth, width, num_classes, seed=1), until_log_loss=target, rtol=rtol)
    assert (run.status == "reached").all()
    assert (count["implicit_step"] > 0) == implicit
    # Never more than a few tries beyond the other kind's share: a network does not flicker between the two.
    assert sum(count.values()) < 2 * run.steps.max() + 40


def test_the_bench_tells_explicit_steps_from_all(monkeypatch, bench):
    bench_flow, count = bench("bench_flow"), count_kinds(monkeypatch)
    with bench_flow.explicit_only():
        steps, fields = bench_flow.mean_steps(bench_flow.starts(4, 2), 200.0, 1e-3)
    assert count["implicit_step"] == 0
    # Three stages a step; trials that are refused, and the other network's landings, are fields too.
    assert 3 * steps < fields < 6 * steps
    bench_flow.mean_steps(bench_flow.starts(4, 2), 200.0, 1e-3)
    assert count["implicit_step"] > 0


@pytest.mark.parametrize(
    ("num_classes", "depth", "scale", "seed"),
    [(8, 6, 0.8334, 799), (8, 4, 0.0022, 912), (4, 8, 0.1, 7), (8, 6, 0.0199, 94)],
)
def test_a_network_that_once_went_back_to_explicit_steps_tries_others_again(num_classes, depth, scale, seed):
    """Behind a saddle of a narrow network, where it is less stiff, or beside it: each took a thousand trials."""
    run = gradient_flow(narrow(num_classes, depth, 2, scale, seed), until_log_loss=-256.0, rtol=1e-3, max_steps=500)
    assert run.status.item() == "reached"


def test_a_step_that_the_loss_alone_refuses_is_halved(monkeypatch):
    """Beside two saddles of this network the loss rises for every step from 5 down to 0.004, and no error is large."""
    tried = []
    step = _steps.implicit_step
    monkeypatch.setattr(_stepping, "implicit_step", lambda *given: tried.append(given[-1]) or step(*given))
    run = gradient_flow(narrow(5, 8, 2, 0.0236, 3), until_log_loss=-256.0, rtol=1e-3)
    assert run.status.item() == "reached"
    assert len(tried) < 1.5 * run.steps  # 1.9 by steps a tenth shorter each time


@pytest.mark.parametrize("setting", [(5, 8, 3, 0.0562, 65), (6, 8, 4, 0.0485, 275)])
def test_saddles_of_narrow_networks_are_passed_on_the_same_path_in_fewer_steps(monkeypatch, setting):
    start = narrow(*setting)
    levels = [1.0, 0.5, 0.0, -2.0, -8.0, -32.0]

    def followed(rtol):
        return gradient_flow(start, until_log_loss=-32.0, rtol=rtol, record={"log_loss": levels})

    ours = followed(1e-4)
    monkeypatch.setattr(_steps, "_SADDLE", math.inf)
    known, without = followed(1e-5), followed(1e-4)
    assert path_error(ours.history.Z[:, 0], known.history.Z[:, 0]).max() < 1e-3
    assert ours.steps < 0.6 * without.steps


RANK_ONE = {"three classes": (3, 8, 2, 0.0097, 38), "four classes": (4, 8, 2, 0.8216, 629)}


@pytest.mark.parametrize("setting", RANK_ONE.values(), ids=RANK_ONE)
def test_where_rank_one_logits_grow_to_100000_steps_hold_the_margins(monkeypatch, setting):
    """Against the matrix of the first term alone, which takes seven times the steps to leave at the same time."""
    start = narrow(*setting)

    def followed(rtol):
        return gradient_flow(start, until_log_loss=-2.0, rtol=rtol, max_steps=3000)

    left = {rtol: followed(rtol) for rtol in (1e-3, 1e-5)}
    monkeypatch.setattr(_steps, "_HELD", 0)
    loose = followed(1e-3)  # may not arrive
    monkeypatch.setattr(_steps, "_SADDLE", math.inf)
    known = followed(1e-5)
    for run in (*left.values(), known):
        assert run.status.item() == "reached" and torch.linalg.svdvals(run.Z)[0, 0] > 1e5
    assert (left[1e-5].log_time - known.log_time).abs() < 5e-3
    assert left[1e-5].steps < known.steps / 5
    assert (left[1e-3].log_time - known.log_time).abs() < 0.15  # the loosest tolerance, and a time of exp(8)
    assert left[1e-3].steps < loose.steps / 2


@pytest.mark.parametrize("setting", [(7, 8, 2, 0.0034, 116), (5, 8, 2, 0.0015, 455)])
def test_networks_whose_rank_one_logits_grow_to_ten_millions_arrive(setting):
    """Without held margins they took 800 steps, and twice as many trials, to get nowhere."""
    run = gradient_flow(narrow(*setting), until_log_loss=-256.0, rtol=1e-3, max_steps=1000)
    assert run.status.item() == "reached"


@pytest.mark.parametrize("setting", [(8, 8, 3, 0.0021, 692), (6, 8, 2, 0.0496, 976)])
def test_levels_that_the_rounding_of_large_logits_hides_are_met_in_few_steps(monkeypatch, setting):
    """Logits of 10⁶ hide log ℒ by 10⁻⁹, and what a step there makes of them by more: up to forty steps a level."""
    taken, step, levels = [], _stepping.Batch.step, [1.5, 1.0, 0.5, 0.0, -1.0, -2.0, -4.0]
    monkeypatch.setattr(_stepping.Batch, "step", lambda *given: taken.append(len(given)) or step(*given))
    run = gradient_flow(narrow(*setting), until_log_loss=-4.0, rtol=1e-3, record={"log_loss": levels})
    assert torch.linalg.svdvals(run.history.Z)[..., 0].max() > 1e6
    landings = taken.count(5)  # only those are told how long to be
    assert len(levels) < landings < 8 * len(levels)  # by rounding 32 to 53 there; they were 108 and more
    assert (run.history.log_loss.squeeze(-1) - torch.tensor(levels)).abs().max() < 1e-5


def test_a_step_near_a_saddle_is_the_same_alone_and_beside_one_that_is_near_none(monkeypatch):
    start, control = narrow(5, 8, 4, 0.5, 1), _steps.control_of(1e-3)
    at_saddle = gradient_flow(narrow(5, 8, 4, 0.0022, 937), until_log_loss=1.0, rtol=1e-3).factors
    both = [torch.cat(pair) for pair in zip(at_saddle, start, strict=True)]
    model = FactorModel(both)
    x = model.flatten(both)
    length = torch.tensor([1e-2, 1e-2], dtype=torch.float64)
    near = []
    seen = _steps.near_saddle
    monkeypatch.setattr(_steps, "near_saddle", lambda *given: near.append(seen(*given)) or near[-1])

    def stepped(state, length):
        log_loss, slope = _stepping.slope_at(model, state)
        return _steps.implicit_step(model, control, state, log_loss, slope, _steps.norm(slope), length).state.clone()

    together = stepped(x, length)
    assert near[0].tolist() == [True, False]
    for i in range(2):
        close(stepped(x[i : i + 1], length[i : i + 1])[0], together[i], 1e-9)


# ---------------------------------------------------------------- log t


def test_log_time_is_the_quadrature_of_the_recorded_path():
    factors = gaussian_init(3, 8, 4, scale=0.6, batch=3, seed=6)
    levels = np.concatenate([np.linspace(1.2, -30, 400), np.linspace(-31, -400, 500)])
    run = gradient_flow(factors, until_log_loss=-400.0, record={"log_loss": levels.tolist()})
    model = FactorModel(factors)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    for i in range(3):
        flat = model.flatten([factor[:, i] for factor in run.history.factors])
        slope = torch.empty_like(flat)
        model.field(flat, slope)
        ell = run.history.log_loss[:, i].numpy()
        log_rate = CubicSpline(-ell, -2 * np.log(slope.norm(dim=1).numpy()))
        log_time = np.full(len(ell), run.history.log_time[0, i].item())
        for k in range(1, len(ell)):
            width = ell[k - 1] - ell[k]
            at = ell[k - 1] - width * (nodes + 1) / 2
            added = np.log(np.sum(weights * width / 2 * np.exp(log_rate(-at) - (at - ell[k])))) - ell[k]
            log_time[k] = np.logaddexp(log_time[k - 1], added)
        assert np.abs(log_time - run.history.log_time[:, i].numpy()).max() < 1e-3


@pytest.mark.parametrize("kind", ["log_loss", "log_time"])
def test_a_level_is_met_in_few_trials_where_a_steps_end_is_off_the_path(monkeypatch, kind):
    """A narrow deep network at its saddles, where the end of a step moves with its length otherwise than the path."""
    start = narrow(5, 8, 4, 0.0156, 630)
    losses = [1.6, 1.4, 1.0, 0.5, 0.0, -1.0, -2.0, -4.0]
    path = gradient_flow(start, until_log_loss=-5.0, rtol=1e-3, record={"log_loss": losses})
    levels = getattr(path.history, kind)[:, 0]
    trials = 0

    def counted(step):
        def count(*arguments):
            nonlocal trials
            trials += 1
            return step(*arguments)

        return count

    for name in ("explicit_step", "implicit_step"):
        monkeypatch.setattr(_stepping, name, counted(getattr(_stepping, name)))
    gradient_flow(start, until_log_loss=-5.0, rtol=1e-3)
    without, trials = trials, 0
    run = gradient_flow(start, until_log_loss=-5.0, rtol=1e-3, record={kind: levels})
    assert float((getattr(run.history, kind)[:, 0] - levels).abs().max()) < 2e-11 * float(levels.abs().max())
    assert trials - without <= 6 * len(levels)


@pytest.mark.parametrize(("num_classes", "depth"), [(4, 3), (5, 6)])
def test_log_time_where_one_step_falls_by_a_million(num_classes, depth):
    levels = [-1e2, -1e4, -1e6, -1e8]
    flow = gradient_flow(
        balanced_init(0.3 * simplex(num_classes), depth), until_log_loss=-1e8, record={"log_loss": levels}
    )
    # On the ray nothing turns, and steps grow without bound: a handful for four powers of ten.
    assert flow.status == "reached" and flow.steps < 100
    s = (flow.history.Z * simplex(num_classes)).sum((-2, -1)) / (num_classes - 1)
    expected = [log_time_on_the_ray(0.3, value, num_classes, depth) for value in s.tolist()]
    expected = torch.tensor(expected, dtype=torch.float64)
    assert (flow.history.log_time - expected).abs().max() < 1e-3


# ---------------------------------------------------------------- saddles and small numbers


@pytest.mark.parametrize(("depth", "width"), [(16, 64), (16, 128), (12, 256), (20, 64), (24, 16), (32, 8)])
def test_deep_starts_are_no_saddles(depth, width):
    run = gradient_flow(gaussian_init(depth, width, 4, seed=0), until_log_loss=-20.0)
    assert (run.status == "reached").all()


def test_a_start_whose_squares_underflow_moves():
    # Slopes of 1e-168: their squares are zero, and log ℒ stays where it is for many steps.
    run = gradient_flow(gaussian_init(3, 6, 4, scale=1e-84, seed=0), max_steps=20)
    assert (run.status == "max steps").all() and (run.steps > 0).all()
    # Time is that of a field that hardly changes: each step adds h/ℒ.
    assert run.log_time.isfinite().all() and (run.log_time > 150).all()


def three_layers_by_scipy(factors, log_losses):
    """Logits of ``[A, B, C]`` at falling log ℒ, by DOP853 in the clock ‖W‖ dt, in which small starts grow like e^s."""
    shapes = [W.shape for W in factors]
    start = np.concatenate([W.numpy().ravel() for W in factors])
    cuts = np.cumsum([W.numel() for W in factors])[:-1]

    def logits(state):
        A, B, C = (part.reshape(shape) for part, shape in zip(np.split(state, cuts), shapes, strict=True))
        return C @ B @ A, (A, B, C)

    def field(_, state):
        Z, (A, B, C) = logits(state)
        pull = np.eye(len(Z)) - scipy.special.softmax(Z, 0)
        slopes = (C @ B).T @ pull, C.T @ pull @ A.T, pull @ (B @ A).T
        return np.concatenate([slope.ravel() for slope in slopes]) / np.linalg.norm(state)

    def passes(level):
        def event(_, state):
            Z = logits(state)[0]
            return math.log(-scipy.special.log_softmax(Z, 0).trace()) - level

        event.terminal = level == min(log_losses)
        return event

    events = [passes(level) for level in log_losses]
    tight = {"method": "DOP853", "rtol": 1e-11, "atol": 1e-12 * start.std()}
    run = scipy.integrate.solve_ivp(field, (0, 1e6), start, events=events, **tight)
    return np.stack([logits(states[0])[0] for states in run.y_events])


@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-8])
def test_small_scales_pass_their_saddles(scale):
    """They arrive, and the path that leaves the first saddle is the flow's."""
    start, levels = gaussian_init(3, 8, 4, scale=scale, seed=0), [1.7, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6]
    assert (gradient_flow(start, until_log_loss=-50.0).status == "reached").all()
    known = three_layers_by_scipy([W[0] for W in start], levels)
    for rtol, most in ((1e-4, 1e-3), (1e-6, 1e-5)):
        run = gradient_flow(start, until_log_loss=0.6, rtol=rtol, record={"log_loss": levels})
        assert path_error(run.history.Z[:, 0], known).max() < most
