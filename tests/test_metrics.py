"""Ranks, margins and the neural-collapse metrics on matrices whose values are known by hand."""

import math

import pytest
import torch
from tolerances import LINALG, close

from dufm import (
    DufmError,
    effective_rank,
    final_rank,
    margins,
    nc_metrics,
    numerical_rank,
    rank_ratio,
)
from dufm.metrics import centred

TOL = LINALG[torch.float64]


def rotation(size, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]


def with_singular_values(sigma, columns=None, seed=0):
    """A dense K × N matrix of given singular values."""
    columns = len(sigma) if columns is None else columns
    middle = torch.zeros(len(sigma), columns, dtype=torch.float64)
    middle.diagonal().copy_(torch.tensor(sigma, dtype=torch.float64))
    return rotation(len(sigma), seed) @ middle @ rotation(columns, seed + 1)


def with_centred_singular_values(sigma, columns=None, seed=0):
    """A dense K × N matrix, K one more than the given singular values, all of whose columns sum to 0."""
    num_classes = len(sigma) + 1
    frame = torch.linalg.eigh(simplex(num_classes))[1][:, 1:] @ rotation(len(sigma), seed)
    columns = num_classes if columns is None else columns
    return frame * torch.tensor(sigma, dtype=torch.float64) @ rotation(columns, seed + 1)[: len(sigma)]


@pytest.mark.parametrize(
    ("sigma", "effective"),
    [
        ((3.0, 0.0, 0.0, 0.0), 1.0),
        ((2.0, 2.0, 2.0, 0.0), 3.0),
        ((1.0, 1.0, 1.0, 1.0), 4.0),
        # exp(½ log 2 + 2 · ¼ log 4) = 2^{3/2}.
        ((2.0, 1.0, 1.0, 0.0), 2.0**1.5),
        # p = 3/4, 1/4.
        ((3.0, 1.0, 0.0, 0.0), 4.0 / 3.0**0.75),
    ],
)
@pytest.mark.parametrize("columns", [4, 8])
def test_soft_ranks(sigma, effective, columns):
    Z = with_singular_values(sigma, columns)
    # Singular values of rounding size enter the entropy as eps·log(1/eps).
    close(effective_rank(Z), effective, TOL)
    for scale in (1e-200, 1e200):
        close(effective_rank(scale * Z), effective, TOL)
        assert numerical_rank(scale * Z).item() == sum(value > 0 for value in sigma)
    for scale in (1e-20, 1e20):
        close(effective_rank(scale * Z.float()), effective, LINALG[torch.float32])
    assert numerical_rank(Z).item() == sum(value > 0 for value in sigma)


def test_numerical_rank_threshold():
    Z = with_singular_values((1.0, 1e-3, 1e-9, 0.0))
    assert numerical_rank(Z).item() == 3
    assert numerical_rank(Z, 1e-6).item() == 2
    assert numerical_rank(Z, 1e-2).item() == 1


def test_centred():
    Z = torch.tensor([[[3.0, 1.0], [1.0, -1.0]], [[0.0, 5.0], [4.0, 5.0]]])
    assert centred(Z).tolist() == [[[1.0, 1.0], [-1.0, -1.0]], [[-2.0, 0.0], [2.0, 0.0]]]


@pytest.mark.parametrize(
    ("sigma", "rank", "ratio"),
    [
        ((100.0, 90.0, 1.0, 0.5), 2, 1.0 / 90.0),
        ((100.0, 90.0, 80.0, 0.5), 3, 0.5 / 80.0),
        ((100.0, 9.0, 8.0, 7.0), 1, 0.09),
        # Collapse, and falls that are no gap: nothing is discarded but the zero that every centred matrix has.
        ((1.0, 1.0, 1.0, 1.0), 4, 0.0),
        ((4.0, 2.0, 1.0, 0.9), 4, 0.0),
        ((1.0, 0.34, 0.34, 0.34), 4, 0.0),
        ((1.0, 0.33, 0.33, 0.33), 1, 0.33),
        # Two pairs and two single classes of six: a KKT point of rank 4, before and at its limit.
        ((2.0, 2.0, 1.0, 0.667**0.5, 0.02), 4, 0.02 / 0.667**0.5),
        ((2.0, 2.0, 1.0, 0.667**0.5, 0.0), 4, 0.0),
        # The first gap counts, however wide those among the frozen values are.
        ((1.0, 0.98, 0.06, 1e-6), 2, 0.06 / 0.98),
        # A narrow network: zeros from its width on, and ranks below it where there is a gap.
        ((1.0, 1.0, 0.0, 0.0), 2, 0.0),
        ((1.0, 0.9, 1e-3, 0.0), 2, 1e-3 / 0.9),
        ((1.0, 1e-3, 1e-5, 0.0), 1, 1e-3),
        ((1.0, 1.0, 1e-18, 1e-19), 2, 0.0),
        # Two classes have no cut.
        ((5.0,), 1, 0.0),
    ],
)
@pytest.mark.parametrize("samples", [1, 3])
def test_final_rank(sigma, rank, ratio, samples):
    Z = with_centred_singular_values(sigma, samples * (len(sigma) + 1))
    for scale in (1.0, 1e150, 1e-150):
        assert final_rank(scale * Z).item() == rank
        close(rank_ratio(scale * Z), ratio, TOL)


def spectra(num_classes, columns, batch, seed):
    """Random matrices whose singular values fall over some decades, so that every rank is met."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(batch, num_classes, num_classes, generator=generator, dtype=torch.float64)
    right = torch.randn(batch, num_classes, columns, generator=generator, dtype=torch.float64)
    falls = 10.0 ** -torch.rand(batch, 1, num_classes, generator=generator, dtype=torch.float64).cumsum(-1)
    return left * falls @ right, generator


@pytest.mark.parametrize(("num_classes", "columns"), [(2, 2), (3, 6), (6, 6), (8, 16)])
def test_final_rank_is_invariant(num_classes, columns):
    Z, generator = spectra(num_classes, columns, 200, seed=num_classes)
    ranks, ratios = final_rank(Z), rank_ratio(Z)
    assert set(ranks.tolist()) == set(range(1, num_classes))
    shift = torch.randn(200, 1, columns, generator=generator, dtype=torch.float64)
    scale = 10.0 ** (300.0 * torch.rand(200, 1, 1, generator=generator, dtype=torch.float64) - 150.0)
    for moved in (Z + shift, scale * Z, scale * (Z + shift), 1e200 * Z, 1e-200 * Z):
        assert torch.equal(final_rank(moved), ranks)
        close(rank_ratio(moved), ratios, TOL)
    # A shift of 1e3 leaves three digits fewer of what it is added to.
    assert torch.equal(final_rank(Z + 1e3 * shift), ranks)
    close(rank_ratio(Z + 1e3 * shift), ratios, 1e3 * TOL)
    single = Z.float()
    for moved in (single + shift.float(), 1e20 * single, 1e-20 * single):
        assert torch.equal(final_rank(moved), final_rank(single))
        close(rank_ratio(moved), rank_ratio(single), LINALG[torch.float32])


def test_final_rank_is_the_first_gap():
    for num_classes in (2, 3, 6):
        Z, _ = spectra(num_classes, num_classes, 200, seed=1)
        for sigma, rank in zip(torch.linalg.svdvals(centred(Z)).tolist(), final_rank(Z).tolist(), strict=True):
            gaps = [r for r in range(1, num_classes - 1) if sigma[r] < sigma[r - 1] / 3.0]
            assert rank == (gaps[0] if gaps else num_classes - 1)


def test_a_common_shift_is_no_rank():
    # Collapse and the orthoplex, with one number added to the logits of each sample.
    shift = torch.tensor([[7.0, -1.0, 0.5, 3.0, 0.0, -20.0]], dtype=torch.float64)
    half = torch.eye(3, dtype=torch.float64)
    vectors = torch.cat([half, -half])
    assert final_rank(simplex(6) + shift).item() == 5
    assert final_rank(vectors @ vectors.mT + shift).item() == 3
    # The shift alone: nothing but rounding is left.
    for dtype in (torch.float64, torch.float32):
        alone = (0.1 * shift).to(dtype).expand(6, 6)
        assert final_rank(alone).item() == 0 and rank_ratio(alone).item() == 0


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_narrow_network_has_at_most_the_rank_of_its_width(width):
    generator = torch.Generator().manual_seed(width)
    W_2 = torch.randn(100, 6, width, generator=generator, dtype=torch.float64)
    W_1 = torch.randn(100, width, 6, generator=generator, dtype=torch.float64)
    assert final_rank(W_2 @ W_1).max() == width
    # Orthonormal centred columns times an orthonormal frame: no gap before the width.
    even = torch.linalg.qr(centred(W_2))[0] @ torch.linalg.qr(W_1.mT)[0].mT
    assert (final_rank(even) == width).all() and (rank_ratio(even) == 0).all()


def test_ranks_of_zero_and_of_a_batch():
    pair = [torch.zeros(4, 8, dtype=torch.float64), with_centred_singular_values((1.0, 0.5, 1e-4), 8)]
    Z = torch.stack(pair).expand(5, 2, 4, 8)
    assert final_rank(Z).tolist() == [[0, 2]] * 5
    assert final_rank(Z).dtype == torch.int64
    close(rank_ratio(Z), torch.tensor([[0.0, 2e-4]] * 5, dtype=torch.float64), TOL)
    assert numerical_rank(Z).tolist() == [[0, 3]] * 5
    assert effective_rank(Z)[0, 0] == 0
    assert effective_rank(Z).shape == (5, 2)


def test_margins():
    Z = torch.tensor(
        [[3.0, 1.0, 0.0, 2.0], [1.0, 0.5, 4.0, 7.0]], dtype=torch.float64
    )  # K = 2, two samples a class
    expected = torch.tensor([[math.inf, math.inf, 4.0, 5.0], [2.0, 0.5, math.inf, math.inf]], dtype=torch.float64)
    assert torch.equal(margins(Z), expected)
    before = Z.clone()
    batch = margins(torch.stack([Z, -Z]).unsqueeze(0))
    assert torch.equal(batch[0, 0], expected)
    assert torch.equal(batch[0, 1].nan_to_num(posinf=0), -expected.nan_to_num(posinf=0))
    assert torch.equal(Z, before)


# ---------------------------------------------------------------- neural collapse


def simplex(num_classes):
    return torch.eye(num_classes, dtype=torch.float64) - 1.0 / num_classes


def collapsed(num_classes, n_per_class, width, seed=0):
    """Features and classifier in exact neural collapse, in a random frame and off the origin."""
    frame = rotation(width, seed)[:, :num_classes]
    means = frame @ simplex(num_classes)
    offset = rotation(width, seed + 1)[:, :1]
    return (means + offset).repeat_interleave(n_per_class, 1), 3.0 * means.mT + 0.5


@pytest.mark.parametrize(("num_classes", "n_per_class"), [(3, 4), (5, 2), (4, 1)])
def test_exact_collapse(num_classes, n_per_class):
    metrics = nc_metrics(*collapsed(num_classes, n_per_class, 9), rank=num_classes - 1)
    for name in ("nc1", "trace_ratio", "nc2", "nc3"):
        close(metrics[name], 0.0, TOL)
    assert metrics["rank"].item() == num_classes - 1


def test_nc1_by_hand():
    # Two classes in the plane: means ±a on the first axis, so Σ_B = diag(a², 0); within-class variance v1, v2
    # on the axes.  Tr(Σ_W Σ_B⁺)/K = v1/(2a²), Tr Σ_W/Tr Σ_B = (v1 + v2)/a².
    a, d1, d2 = 2.0, 0.3, 0.7
    offsets = torch.tensor([[d1, -d1, 0.0, 0.0], [0.0, 0.0, d2, -d2]], dtype=torch.float64)
    plus, minus = torch.tensor([[a], [0.0]], dtype=torch.float64), torch.tensor([[-a], [0.0]], dtype=torch.float64)
    features = torch.cat([plus + offsets, minus + offsets], 1)
    classifier = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    v1, v2 = d1**2 / 2, d2**2 / 2
    metrics = nc_metrics(features, classifier)
    close(metrics["nc1"], v1 / (2 * a**2), TOL)
    close(metrics["trace_ratio"], (v1 + v2) / a**2, TOL)
    close(metrics["nc2"], 0.0, TOL)
    close(metrics["nc3"], 0.0, TOL)


def test_nc1_against_the_covariances():
    num_classes, n_per_class, width = 4, 6, 5
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, width, num_classes * n_per_class, generator=generator, dtype=torch.float64)
    classifier = torch.randn(3, num_classes, width, generator=generator, dtype=torch.float64)
    metrics = nc_metrics(features, classifier, rank=num_classes - 1)
    for i in range(3):
        groups = features[i].split(n_per_class, 1)
        means = torch.stack([group.mean(1) for group in groups], 1)
        within = sum((g - g.mean(1, keepdim=True)) @ (g - g.mean(1, keepdim=True)).T for g in groups)
        within = within / (num_classes * n_per_class)
        centred = means - means.mean(1, keepdim=True)
        between = centred @ centred.T / num_classes
        nc1 = torch.trace(within @ torch.linalg.pinv(between, rcond=1e-10)) / num_classes
        close(metrics["nc1"][i], nc1, TOL)
        close(metrics["trace_ratio"][i], torch.trace(within) / torch.trace(between), TOL)
        gram = centred.T @ centred
        ideal = simplex(num_classes) / (num_classes - 1) ** 0.5
        close(metrics["nc2"][i], torch.linalg.norm(gram / torch.linalg.norm(gram) - ideal), TOL)
        rows = classifier[i] - classifier[i].mean(0, keepdim=True)
        nc3 = torch.linalg.norm(rows / torch.linalg.norm(rows) - centred.T / torch.linalg.norm(centred))
        close(metrics["nc3"][i], nc3, TOL)


def test_rank_of_the_pseudo_inverse_decides_nc1():
    # Rank-2 means with a small frozen third direction, in which the noise is as large as the means.
    small = 1e-3
    frame, classes = rotation(4, 0), torch.linalg.eigh(simplex(4))[1]
    # Columns of classes: the common mode, then an orthonormal basis of the centred vectors.
    means = frame @ torch.diag(torch.tensor([small, small, 1.0, 1.0], dtype=torch.float64)) @ classes.mT
    noise = small * frame[:, 1:2]
    features = torch.stack([means + noise, means - noise], -1).flatten(-2)
    classifier = means.mT
    at_two = nc_metrics(features, classifier, rank=2)["nc1"].item()
    plain = nc_metrics(features, classifier, rank=3)["nc1"].item()
    # Σ_B has the eigenvalues 1, 1, small² over K, and Σ_W = small² on the third: their quotient is K, over K.
    assert at_two < LINALG[torch.float64]
    close(plain, 1.0, 1e-8)
    # By default the rank is final_rank of the logits, here 2.
    default = nc_metrics(features, classifier)
    assert default["rank"].item() == 2
    close(default["nc1"], at_two, TOL)


def test_rank_may_differ_within_a_batch():
    features, classifier = collapsed(4, 3, 6)
    noisy = features + 0.1 * torch.randn(features.shape, generator=torch.Generator().manual_seed(2)).double()
    batch = torch.stack([noisy, noisy])
    metrics = nc_metrics(batch, torch.stack([classifier, classifier]), rank=torch.tensor([2, 3]))
    for i, rank in enumerate((2, 3)):
        alone = nc_metrics(noisy, classifier, rank=rank)
        for name in ("nc1", "trace_ratio", "nc2", "nc3"):
            close(metrics[name][i], alone[name], TOL)
    assert metrics["nc1"][0] < metrics["nc1"][1]


METRICS = ("nc1", "trace_ratio", "nc2", "nc3")


def noisy(num_classes, n_per_class, width, seed=3, batch=()):
    features, classifier = collapsed(num_classes, n_per_class, width)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(*batch, *features.shape, generator=generator, dtype=torch.float64)
    tilt = torch.randn(*batch, *classifier.shape, generator=generator, dtype=torch.float64)
    return features + 0.1 * noise, classifier + 0.1 * tilt


def test_collapse_metrics_have_no_scale_and_no_shift():
    features, classifier = noisy(4, 3, 6, batch=(2,))
    expected = nc_metrics(features, classifier)
    shift = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)
    for a, b in ((1e200, 1e200), (1e-200, 1e-200), (1e200, 1e-200), (1e-200, 1e200)):
        metrics = nc_metrics(a * features, b * (classifier + shift))
        assert torch.equal(metrics["rank"], expected["rank"])
        for name in METRICS:
            close(metrics[name], expected[name], TOL)
    for a, b in ((1e20, 1e20), (1e-20, 1e-20), (1e20, 1e-20)):
        metrics = nc_metrics(a * features.float(), b * classifier.float())
        for name in METRICS:
            assert metrics[name].dtype == torch.float32
            close(metrics[name], expected[name], LINALG[torch.float32])


def test_two_classes_of_one_mean():
    # Means 1, 1, −2 on the first axis: Σ_B = 2 there and 0 elsewhere; within-class variance d1²/2 there.
    d1, d2 = 0.3, 0.7
    offsets = torch.tensor([[d1, -d1, 0.0, 0.0], [0.0, 0.0, d2, -d2], [0.0] * 4], dtype=torch.float64)
    axis = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    features = rotation(3, 4) @ torch.cat([axis + offsets, axis + offsets.flip(1), -2.0 * axis + offsets], 1)
    classifier = torch.randn(3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for rank in (1, 2):
        metrics = nc_metrics(features, classifier, rank=rank)
        close(metrics["nc1"], d1**2 / 12.0, TOL)
        close(metrics["trace_ratio"], (d1**2 + d2**2) / 4.0, TOL)
    # The same in single precision, far from the origin.
    single = nc_metrics((features + 5.0).float(), classifier.float(), rank=2)
    close(single["nc1"], d1**2 / 12.0, LINALG[torch.float32])


def defined(metrics):
    return {name for name in METRICS if not metrics[name].isnan().any()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_degenerate_layers_have_no_metrics(dtype):
    features, classifier = (part.to(dtype) for part in noisy(4, 3, 6))
    # No row of the classifier differs from another: logits of rank 0.
    for dull in (torch.zeros_like(classifier), classifier[:1].expand(4, 6)):
        metrics = nc_metrics(features, dull)
        assert metrics["rank"].item() == 0 and defined(metrics) == {"trace_ratio", "nc2"}
        metrics = nc_metrics(features, dull, rank=3)
        assert defined(metrics) == {"nc1", "trace_ratio", "nc2"}
        close(metrics["nc1"], nc_metrics(features, classifier, rank=3)["nc1"], LINALG[dtype])
    # No class mean differs from another: constant features, none, and the same samples in every class.
    constant = features[:, :1].expand(6, 12)
    shuffled = torch.cat([features[:, :3].roll(k, 1) for k in range(4)], 1)
    for flat in (constant, torch.zeros_like(features), shuffled, 1e3 + shuffled):
        for rank in (None, 3):
            assert defined(nc_metrics(flat, classifier, rank=rank)) == set()
    # One such member leaves the others alone.
    members = torch.stack([features, constant, features]), torch.stack([classifier, classifier, 0.0 * classifier])
    batch = nc_metrics(*members)
    alone = nc_metrics(features, classifier)
    for name in METRICS:
        close(batch[name][0], alone[name], LINALG[dtype])
        assert batch[name][1].isnan()
        assert batch[name][2].isnan() == (name in ("nc1", "nc3"))


# ---------------------------------------------------------------- bad input

EYE = torch.eye(4, dtype=torch.float64)


@pytest.mark.parametrize(
    "function", [effective_rank, numerical_rank, final_rank, rank_ratio, margins]
)
@pytest.mark.parametrize(
    ("Z", "says"),
    [
        (EYE * math.nan, "Z must be finite"),
        (EYE.long(), "Z must have a floating dtype"),
        (EYE > 0, "Z must have a floating dtype"),
        (EYE.half(), "Z must have a floating dtype .float32 or float64; .* got torch.float16"),
        (EYE.bfloat16(), "Z must have a floating dtype .float32 or float64; .* got torch.bfloat16"),
        (EYE[:1], "Z needs at least 2 classes"),
        (EYE[:3], "Z must have shape"),
        (EYE.new_empty(0, 4, 4), "Z must not be empty"),
    ],
)
def test_bad_logits(function, Z, says):
    with pytest.raises(DufmError, match=says):
        function(Z)


def test_bad_rank():
    features, classifier = collapsed(4, 2, 6)
    for rank in (0, 4, True, 1.5):
        with pytest.raises(DufmError, match=f"rank must be an integer from 1 to 3, got {rank}"):
            nc_metrics(features, classifier, rank=rank)
    for rank in (torch.tensor([2, 2]), torch.tensor(4), torch.tensor(0), torch.tensor(2.0)):
        with pytest.raises(DufmError, match="rank must be"):
            nc_metrics(features, classifier, rank=rank)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f, c: (f * math.nan, c), "features must be finite"),
        (lambda f, c: (f, c / 0.0), "classifier must be finite"),
        (lambda f, c: (f.long(), c), "features must have a floating dtype"),
        (lambda f, c: (f.half(), c.half()), "features must have .*float32 or float64; .* got torch.float16"),
        (lambda f, c: (f, c.bfloat16()), "classifier must have .*float32 or float64; .* got torch.bfloat16"),
        (lambda f, c: (f, c[:, :3]), r"classifier and features must have shapes .* got \(4, 3\)"),
        (lambda f, c: (f.float(), c), "classifier and features .* one dtype"),
        (lambda f, c: (f[:, :7], c), "classifier @ features must have shape"),
        (lambda f, c: (f[None], c[None].expand(2, 4, 6)), "classifier and features must have shapes"),
        (lambda f, c: (f, c[:1]), "classifier @ features needs at least 2 classes"),
    ],
)
def test_bad_layers(change, says):
    with pytest.raises(DufmError, match=says):
        nc_metrics(*change(*collapsed(4, 2, 6)))
