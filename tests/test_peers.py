"""The flow by other solvers: each on the path of this package's, its meter right, its Jacobian that of its field."""

import functools
import math

import numpy as np
import pytest
import torch

import dufm
from dufm import DufmError, peers

LEVELS = [1.0, 3.0, 10.0, 40.0]
FACTORS = [W[0] for W in dufm.gaussian_init(3, 6, 4, scale=0.5, batch=1, seed=3)]
RUN = dufm.gradient_flow(FACTORS, until_log_loss=-40.0, rtol=1e-7, record={"log_loss": [-m for m in LEVELS]})

FOLLOWERS = {
    "dopri5": (functools.partial(peers.dopri5, rtol=1e-7), 1e-5),
    "BDF": (functools.partial(peers.stiff, method="BDF", rtol=1e-7), 1e-4),
    "Radau": (functools.partial(peers.stiff, method="Radau", rtol=1e-6), 1e-4),
    "LSODA": (functools.partial(peers.stiff, method="LSODA", rtol=1e-7, exact=True), 1e-4),
    "loss-scaled": (functools.partial(peers.loss_scaled, epsilon=1e-3), 0.02),
}


def test_the_jacobian_is_that_of_the_field():
    peer, x, step = peers.ClosedForm(FACTORS), torch.cat([W.flatten() for W in FACTORS]).numpy(), 1e-6
    columns = [(peer.field(0, x + step * e) - peer.field(0, x - step * e)) / (2 * step) for e in np.eye(len(x))]
    exact = peer.jacobian(0, x)
    assert abs(exact - np.array(columns).T).max() < 1e-7 * abs(exact).max()
    with pytest.raises(DufmError, match="three layers, got 2"):
        peers.ClosedForm(FACTORS[:2])


@pytest.mark.parametrize("name", FOLLOWERS)
def test_a_solver_follows_the_path(name):
    follow, within = FOLLOWERS[name]
    Z, meter = follow(FACTORS, LEVELS)
    assert peers.path_error(Z, RUN.history.Z).max() < within
    assert (np.diff(meter.marks, axis=0) >= 0).all() and (meter.marks[:, 0] <= meter.gradients).all()


def test_kvaerno_follows_the_path():
    pytest.importorskip("diffrax")
    Z, meter = peers.kvaerno5(FACTORS, LEVELS, rtol=1e-6)
    assert peers.path_error(Z, RUN.history.Z).max() < 1e-4
    assert np.isnan(meter.marks[:, 0]).all() and meter.marks[-1, 1] > 0


def test_a_log_loss_by_autograd_is_that_of_the_package():
    for growth in (1.0, 5.0):
        factors = [growth * W for W in RUN.factors]
        assert math.isclose(peers.log_loss(factors), dufm.log_loss(dufm.product(factors)), rel_tol=1e-12)


def test_constant_steps_take_the_time_of_the_flow():
    Z, meter = peers.constant_steps(FACTORS, LEVELS, lr=0.02, steps=20_000)
    time = RUN.history.log_time.exp()
    assert meter.level == 2 and meter.gradients == 20_000 and 3.0 < meter.reached < 10.0
    assert np.allclose(0.02 * meter.marks[1, 0], time[1], rtol=0.02)
    assert peers.path_error(Z[:2], RUN.history.Z[:2]).max() < 0.01 and Z[2:].isnan().all()


def test_adam_leaves_the_path():
    Z, meter = peers.adam(FACTORS, LEVELS[:2], steps=3000)
    assert meter.level == 2 and peers.path_error(Z[1], RUN.history.Z[1]) > 0.05


def test_a_meter_notes_the_first_passage():
    meter = peers.Meter([1.0, 2.0, 5.0])
    meter.gradients = 4
    assert meter.passed(0.5) == 0 and meter.passed(3.0) == 2
    meter.gradients = 9
    assert meter.passed(2.5) == 0 and meter.reached == 2.5
    assert meter.marks[:2, 0].tolist() == [4, 4] and np.isnan(meter.marks[2]).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("follow", [peers.constant_steps, peers.adam, peers.loss_scaled])
def test_a_peer_makes_its_own_gradients(mode, follow):
    with mode():
        Z, _ = follow([W.clone() for W in FACTORS], [0.0])
    assert Z.isfinite().all()


@pytest.mark.parametrize("follow", [peers.constant_steps, peers.adam, peers.loss_scaled])
def test_levels_that_fall_are_refused(follow):
    with pytest.raises(DufmError, match="levels must increase"):
        follow(FACTORS, [3.0, 1.0, 10.0])


def test_a_path_error_of_integers():
    Z = np.array([[2, 0], [0, 1]])
    assert peers.path_error(Z, np.eye(2, dtype=int)) == peers.path_error(Z * 1.0, np.eye(2))
