"""What networks have learned from images: the sweep's task against steps by hand, class codes, chance."""

import math

import numpy as np
import pandas
import pytest
import torch
from tolerances import LINALG, close

import dufm
from dufm import DufmError, codes, data, learned, networks

F64 = torch.float64
SMALL = {"dataset": "digits", "digest": data.fingerprint("digits"), "depth": 3, "width": 16, "n_per_class": 5}


def test_the_task_reports_what_training_by_hand_finds():
    found = learned.trained([3, 4], **SMALL, log_loss_end=-5.0)
    assert found["status"].tolist() == ["reached"] * 2
    X, y, held, held_y = data.split("digits", 5)
    weights = learned.initial_weights(4, 3, 16, 64)
    run = networks.train(weights, X, y, until_log_loss=-5.0)
    W = [weight[0] for weight in run.weights]
    hidden = torch.relu(W[1] @ torch.relu(W[0] @ X))
    logits = W[2] @ hidden
    means = torch.stack([logits[:, y == k].mean(1) for k in range(10)], 1)
    means = means - means.mean(1, keepdim=True)
    sigma = torch.linalg.svdvals(means)
    share = sigma / sigma.sum()
    rank = float(torch.exp(-(share * share.clamp(min=1e-300).log()).sum()))
    assert float(found["rank"][1]) == pytest.approx(rank, rel=1e-6)
    assert float(found["layer_3"][1]) == pytest.approx(rank, rel=1e-6)
    guess = (W[2] @ torch.relu(W[1] @ torch.relu(W[0] @ held))).argmax(0)
    assert float(found["accuracy"][1]) == pytest.approx(float((guess == held_y).double().mean()), abs=1e-12)
    nc = dufm.nc_metrics(hidden, W[2], rank=9)
    for name in ("nc1", "trace_ratio", "nc2", "nc3"):
        assert float(found[name][1]) == pytest.approx(float(nc[name]), rel=1e-6)
    # The class code from the Gram matrix: rows of U√Σ have the Gram matrix (MMᵀ)^½, at full rank.
    values, vectors = torch.linalg.eigh(means @ means.T)
    gram = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    unit = gram.diagonal().sqrt()
    close(codes.class_code(means, 9) @ learned.class_code(means, 9).T, gram / unit / unit[:, None], 1e-6)
    margin = dufm.one_vs_rest_margin(codes.class_code(means, 9))
    assert float(found["margin_9"][1]) == pytest.approx(float(margin), rel=1e-6)


@pytest.mark.parametrize("training", ["flow", "minibatch"])
def test_a_network_depends_on_its_own_seed_alone(training):
    options = SMALL | {"training": training, "batch_size": 20, "log_loss_end": -3.0}
    both = learned.trained([7, 3], **options)
    alone = learned.trained([3], **options)
    for name in ("start_rank", "rank", "layer_1", "margin_5"):
        assert float(both[name][1]) == pytest.approx(float(alone[name][0]), rel=1e-6)
    assert abs(float(both["rank"][0] - both["rank"][1])) > 1e-3


def test_single_precision_ends_where_double_does():
    """By minibatches, whose steps are the same; the flow's own lengths follow the last digits."""
    options = SMALL | {"training": "minibatch", "batch_size": 10, "log_loss_end": -5.0}
    single, double = learned.trained([1, 2], **options, precision="float32"), learned.trained([1, 2], **options)
    gaps = (single["rank"] - double["rank"]).abs()
    assert 0 < float(gaps.max()) < 1e-3 < float((double["rank"][0] - double["rank"][1]).abs())


def test_the_end_is_diagnosed_from_its_logits():
    found = learned.trained([5], **SMALL)
    X, y, _, _ = data.split("digits", 5)
    run = networks.train(learned.initial_weights(5, 3, 16, 64), X, y)
    seen = dufm.diagnose(networks.forward(run.weights, X)[-1][0].mT.float(), y, depth=3)
    assert found["code"][0] == seen.name and float(found["certified"][0]) == (seen.rank or 0)
    assert float(found["distance"][0]) == pytest.approx(seen.distance, abs=1e-4)


def test_starts_differ_by_seed_depth_and_width_and_only_in_size_by_scale():
    usual = learned.initial_weights(0, 3, 8, 6)[0]
    assert torch.allclose(usual, 2**0.5 / 0.3 * learned.initial_weights(0, 3, 8, 6, 0.3)[0], rtol=1e-14)
    others = [
        learned.initial_weights(1, 3, 8, 6)[0],
        learned.initial_weights(0, 4, 8, 6)[0],
        learned.initial_weights(0, 3, 9, 6)[0][:, :8],
    ]
    assert all(float((usual - other).abs().min()) > 0 for other in others)


def test_who_does_not_get_there_is_not_measured():
    found = learned.trained([0, 1], **(SMALL | {"n_per_class": 2}), max_steps=1)
    assert found["status"].tolist() == ["max steps"] * 2
    assert found["rank"].isfinite().all() and set(found) == {"status", "log_loss", "start_rank", "rank"}


def test_some_get_there():
    """With a mark between what four networks reach in four steps, the two below it are measured, as if alone."""
    options = SMALL | {"max_steps": 4}
    reach = learned.trained(range(4), **options)["log_loss"]
    mark = float(reach.sort().values[1:3].mean())
    found = learned.trained(range(4), **options, log_loss_end=mark)
    done = (reach < mark).numpy()
    assert done.sum() == 2 and ((found["status"] == "reached") == done).all()
    for name in ("accuracy", "layer_3", "nc2", "margin_4"):
        assert (found[name].isfinite().numpy() == done).all()
    last = int(np.flatnonzero(done)[-1])
    alone = learned.trained([last], **options, log_loss_end=mark)
    assert float(found["layer_1"][last]) == pytest.approx(float(alone["layer_1"][0]), rel=1e-8)


def test_other_images_are_refused():
    with pytest.raises(DufmError, match="dataset 'digits' is not the one of digest 'abc'"):
        learned.trained([0], **(SMALL | {"digest": "abc"}))
    with pytest.raises(DufmError, match="training must be 'flow' or 'minibatch', got 'sgd'"):
        learned.trained([0], **SMALL, training="sgd")
    with pytest.raises(DufmError, match="precision must be 'float32' or 'float64', got 'half'"):
        learned.trained([0], **SMALL, precision="half")


def rows(*networks, **cell):
    """A table of networks (training, depth, width, seed, rank) on the same images."""
    cell = {"dataset": "digits", "digest": "a", "n_per_class": 60, "batch_size": 50} | cell
    names = ("training", "depth", "width", "seed", "rank")
    return pandas.DataFrame([cell | dict(zip(names, row, strict=True)) for row in networks])


def test_joined_tables_take_what_is_fresh_and_keep_what_is_not():
    known = rows(("flow", 2, 32, 0, 8.0), ("flow", 2, 32, 1, 7.0), ("flow", 8, 32, 0, 5.0))
    fresh = rows(("flow", 2, 32, 1, 7.25), ("minibatch", 2, 32, 1, 6.0))
    table, difference = learned.joined(known, fresh)
    assert table[["training", "depth", "seed", "rank"]].to_numpy().tolist() == [
        ["flow", 2, 0, 8.0],
        ["flow", 2, 1, 7.25],
        ["flow", 8, 0, 5.0],
        ["minibatch", 2, 1, 6.0],
    ]
    assert difference == 0.25


@pytest.mark.parametrize("other", [{"digest": "b"}, {"n_per_class": 10}, {"batch_size": 20}, {"dataset": "mnist"}])
def test_networks_of_other_images_are_not_joined(other):
    fresh = rows(("flow", 2, 32, 0, 8.0), **other)
    table, difference = learned.joined(rows(("flow", 2, 32, 0, 7.0), ("flow", 3, 32, 0, 7.0)), fresh)
    assert table["rank"].tolist() == [8.0] and math.isnan(difference)


def test_the_class_code_of_a_known_code_is_that_code():
    """Logits WWᵀ of the regular polygon: the code of rank 2 is the polygon, turned."""
    W = dufm.polygon(10)
    code = codes.class_code(3.0 * W @ W.T, 2)
    close(code @ code.T, W @ W.T, LINALG[F64])
    assert float(dufm.one_vs_rest_margin(code)) == pytest.approx(1 - math.cos(2 * math.pi / 10), rel=1e-12)


def test_class_codes_refuse_what_gives_no_code():
    with pytest.raises(DufmError, match="rank must be an integer from 1 to 9, got 10"):
        codes.class_code(torch.eye(10, dtype=F64), 10)
    with pytest.raises(DufmError, match="every class a vector at rank 2"):
        codes.class_code(torch.zeros(4, 4, dtype=F64), 2)


def test_random_margins_of_three_on_a_circle():
    """The hull of two others is a segment: the distance from it by projecting, and by many of its points."""
    margins = learned.random_margins(3, 2, 20, seed=5)
    W = np.random.default_rng([5, 2]).standard_normal((20, 3, 2))
    W /= np.linalg.norm(W, axis=-1, keepdims=True)
    along = np.linspace(0.0, 1.0, 20001)[:, None]
    for margin, rows in zip(margins.tolist(), W, strict=True):
        to_segment = [np.linalg.norm(along * a + (1 - along) * b - c, axis=1).min() for a, b, c in _each(rows)]
        assert margin == pytest.approx(min(to_segment), abs=1e-4)
    assert not torch.equal(margins, learned.random_margins(3, 2, 20, seed=6))


def _each(rows):
    return [np.roll(rows, turn, axis=0) for turn in range(3)]
