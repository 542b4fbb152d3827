"""The diagnosis: collapse metrics from the papers' formulas, ends against the flow's limit, invariances, the door."""

import numpy as np
import pytest
import torch
from tolerances import LINALG, close

import dufm
from dufm import DufmError, codes, diagnose
from dufm.diagnosis import code_distance

F64 = torch.float64
TOL = LINALG[F64]


def samples(Z, counts, noise=0.0, seed=0):
    """Logits ``(N, K)`` whose class means are the columns of ``Z`` when there is no noise, and shuffled labels."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(Z)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=draw)]
    return Z.mT[labels] + noise * torch.randn(len(labels), len(Z), generator=draw, dtype=F64), labels


@pytest.fixture(scope="module")
def ended():
    """Logits of six classes after three layers, nearly at the end of training, and the limit's own verdict."""
    factors = dufm.gaussian_init(3, 16, 6, scale=0.5, batch=6, seed=0)
    found = dufm.limit(dufm.gradient_flow(factors, until_log_loss=-1e3))
    return found.Z, dufm.end(found, 3)


def test_what_the_limit_decides_the_logits_tell_too(ended):
    Z, expected = ended
    assert expected.decided.all() and len(set(expected.name)) > 1
    for own, name, rank, ratio in zip(Z, expected.name, expected.rank, expected.margin_ratio, strict=True):
        found = diagnose(*samples(own, [3, 5, 2, 4, 1, 6]), depth=3)
        assert (found.decided, found.rank, found.name) == (True, int(rank), name)
        assert found.distance < 0.01 and found.margin_ratio == pytest.approx(float(ratio), rel=0.01)
        assert found.certificate.holds()
        plain = diagnose(*samples(own, [1] * 5 + [2]))
        assert (plain.rank, plain.name, plain.certificate) == (int(rank), name, None)


@pytest.mark.parametrize(("K", "name", "rank"), [(5, "polygon", 2), (6, "orthoplex", 3), (10, "Petersen", 4)])
def test_a_named_code_is_found_under_any_numbering_scale_and_shift(K, name, rank):
    draw = torch.Generator().manual_seed(K)
    order = torch.randperm(K, generator=draw)
    shift = torch.randn(K, generator=draw, dtype=F64)
    Z = 7.0 * codes.named(K)[name][order][:, order] + shift
    found = diagnose(*samples(Z, range(1, K + 1)), depth=4)
    assert (found.rank, found.name) == (rank, name) and found.distance < 1e-6
    assert found.code_gap == pytest.approx(0.0, abs=1e-6)
    assert f"rank {rank} of {K - 1}: nearest the {name}, 0% away" in str(found)


def test_collapse_metrics_from_the_formulas_with_classes_of_any_size():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(4), [3, 7, 2, 9]))
    features = 2.0 * rng.standard_normal((4, 6))[labels] + 0.1 * rng.standard_normal((len(labels), 6))
    classifier = rng.standard_normal((4, 6))
    found = diagnose(features @ classifier.T, labels, features=features, classifier=classifier)
    groups = [features[labels == c] for c in range(4)]
    within = sum((g - g.mean(0)).T @ (g - g.mean(0)) / len(g) for g in groups) / 4
    means = np.array([g.mean(0) for g in groups])
    means = means - means.mean(0)
    rank = found.nc["rank"]
    values, vectors = np.linalg.eigh(means.T @ means / 4)
    inverse = vectors[:, -rank:] / values[-rank:] @ vectors[:, -rank:].T
    gram, simplex = means @ means.T, (np.eye(4) - 1 / 4) / 3**0.5
    rows = classifier - classifier.mean(0)
    expected = {
        "nc1": np.trace(within @ inverse) / 4,
        "trace_ratio": np.trace(within) / np.trace(means.T @ means / 4),
        "nc2": np.linalg.norm(gram / np.linalg.norm(gram) - simplex),
        "nc3": np.linalg.norm(rows / np.linalg.norm(rows) - means / np.linalg.norm(means)),
    }
    for name, value in expected.items():
        close(found.nc[name], value, TOL)
    assert found.layer == "features"
    assert np.isnan(diagnose(features @ classifier.T, labels, features=features).nc["nc3"])


@pytest.mark.parametrize("seed", range(4))
def test_orientation_kind_of_array_order_and_rotation_do_not_matter(seed):
    draw = torch.Generator().manual_seed(seed)
    Z = 9.0 * codes.named(6)["orthoplex"] + 0.2 * torch.randn(6, 6, generator=draw, dtype=F64)
    logits, labels = samples(Z, [4, 2, 3, 5, 2, 6], noise=0.1, seed=seed)
    features = torch.randn(len(labels), 8, generator=draw, dtype=F64) + 3.0 * torch.eye(6, 8, dtype=F64)[labels]
    turn, _ = torch.linalg.qr(torch.randn(8, 8, generator=draw, dtype=F64))
    order, classes = torch.randperm(len(labels), generator=draw), torch.randperm(6, generator=draw)
    plain = diagnose(logits, labels, depth=3, features=features)
    shifted = 5.0 * logits + torch.linspace(0, 1, len(labels), dtype=F64)[:, None]
    same = [
        diagnose(logits.T, labels, depth=3, features=features),
        diagnose(logits.numpy(), labels.numpy(), depth=3, features=features.numpy()),
        diagnose(logits[order], labels[order], depth=3, features=features[order]),
        diagnose(shifted, labels, depth=3, features=features),
        diagnose(logits, labels, depth=3, features=7.0 * features @ turn + 2.0),
        diagnose(logits[:, classes], classes.argsort()[labels], depth=3, features=features),
    ]
    for other in same:
        assert (other.rank, other.name, other.decided) == (plain.rank, plain.name, plain.decided)
        for field in ("distance", "margin_ratio", "effective_rank", "stable_rank"):
            assert getattr(other, field) == pytest.approx(getattr(plain, field), rel=1e-9)
        for name in ("nc1", "trace_ratio", "nc2"):
            close(other.nc[name], plain.nc[name], 1e-9)
    single = diagnose(logits.float(), labels, depth=3, features=features.float())
    assert single.rank == plain.rank and single.distance == pytest.approx(plain.distance, abs=1e-4)


def test_tables_lists_and_every_kind_of_float_and_integer_are_read():
    pandas = pytest.importorskip("pandas")
    logits, labels = samples(20.0 * codes.named(5)["polygon"], [2, 3, 1, 4, 2], noise=0.1)
    plain = diagnose(logits, labels, depth=4)
    same = [
        diagnose(pandas.DataFrame(logits.numpy()), pandas.Series(labels.numpy()), depth=np.int64(4)),
        diagnose(logits.tolist(), labels.tolist(), depth=4),
        diagnose(logits.clone().requires_grad_(), labels.numpy().astype(np.uint8), depth=4),
        diagnose(logits.bfloat16(), labels.numpy().astype(np.uint16), depth=4),
    ]
    assert (plain.rank, plain.name) == (2, "polygon")
    assert {(found.rank, found.name, found.decided) for found in same} == {(2, "polygon", True)}
    assert str(same[0]) == str(same[1]) == str(same[2]) == str(plain)


def test_a_zero_singular_value_is_no_gap_and_what_is_not_separated_has_no_rank():
    """Centred logits are singular always; and a class may be a copy of another, of rank 4 to the last digit."""
    full = 20.0 * codes.named(6)["NC"]
    assert float(torch.linalg.svdvals(full)[-1]) < 1e-12
    assert diagnose(*samples(full, [2] * 6), depth=3).rank == 5
    copied = full.clone()
    copied[:, 1], copied[1] = copied[:, 0], copied[0]
    found = diagnose(*samples(copied, [2] * 6), depth=3)
    assert found.rank is None and found.reason == "not separated: 4 of 12 samples have no positive margin"
    assert float(torch.linalg.svdvals(found.Z)[-2]) < 1e-12


def test_the_table_has_a_line_for_everything():
    found = diagnose(*samples(20.0 * codes.named(6)["orthoplex"], [2, 3, 1, 4, 2, 5]), depth=3)
    lines = [line[:12].strip() for line in str(found).splitlines()]
    assert lines[:-1] == [
        "classes", "margins", "rank", "collapse", "nearest code", "depth 3", "certificate", "softmax code"
    ]  # fmt: skip
    assert str(found).splitlines()[-1] == found.sentence
    assert f"margin {found.margin_ratio:.4f} of that of neural collapse" in str(found)
    assert "certificate   residual below 1e-10, gap below 1e-10 of the solution nearby" in str(found)
    assert found.margin_ratio == pytest.approx(1.0758, abs=1e-4)


def test_what_is_not_decided_says_why():
    far = 6.0 * torch.eye(6, dtype=F64) + torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    logits, labels = samples(far, [2] * 6)
    found = diagnose(logits, labels, depth=4)
    assert (found.rank, found.decided) == (None, False) and np.isnan(found.code_gap)
    near = f"within 10% at a least margin of {found.margins[0]:.3g}"
    assert found.sentence == f"no certified solution {near}; no rank decided"
    assert diagnose(logits, labels).reason == f"no named code {near}"
    wrong = labels.clone()
    wrong[labels == 0], wrong[labels == 1] = 1, 0
    assert diagnose(logits, wrong, depth=4).reason == "not separated: 4 of 12 samples have no positive margin"
    flat = diagnose(torch.zeros(12, 6), labels, depth=3)
    assert (flat.rank, flat.effective_rank, flat.stable_rank, flat.distance) == (None, 0.0, 0.0, 1.0)
    assert np.isnan(flat.margin_ratio) and "no rank decided" in str(flat)


@pytest.mark.parametrize("K", [3, 4, 6, 8])
def test_every_named_code_decides_without_a_depth_if_and_only_if_it_is_critical(K):
    for name, Z in codes.named(K).items():
        critical = all(float(dufm.kkt_residual(Z, depth)) < 1e-8 for depth in (2, 3, 6))
        found = diagnose(*samples(20.0 * Z, range(1, K + 1)))
        assert (found.name, found.decided) == (name, critical)
        sizes = f"1 to {K} samples a class, read as if equal"
        assert critical or found.sentence == f"{name} is critical at no depth; no rank decided; {sizes}"


def test_neural_collapse_in_one_sentence():
    logits, labels = samples(30.0 * codes.named(4)["NC"], [5, 5, 5, 5], noise=0.1)
    found = diagnose(logits, labels, depth=2)
    assert found.sentence == f"neural collapse, NC2 {found.nc['nc2']:.2g}" and found.rank == 3
    assert found.code_gap == pytest.approx(0.0, abs=0.01)
    other = diagnose(logits, labels, depth=2, features=torch.randn(20, 6, generator=torch.Generator().manual_seed(0)))
    assert other.nc["nc2"] > 0.1
    assert other.sentence == f"neural collapse of the logits, NC2 {other.nc['nc2']:.2g} of the features"


def test_unequal_sizes_and_another_order_are_named_in_the_sentence():
    logits, labels = samples(30.0 * codes.named(4)["NC"], [1, 2, 3, 9])
    found = diagnose(logits, labels)
    assert found.class_sizes == (1, 9)
    assert found.sentence == f"neural collapse, NC2 {found.nc['nc2']:.2g}; 1 to 9 samples a class, read as if equal"
    shuffled = diagnose(logits, labels.roll(4))
    assert "samples have no positive margin, are logits and labels in one order?" in shuffled.sentence


def test_an_array_of_another_byte_order_is_read():
    logits, labels = samples(30.0 * codes.named(4)["NC"], [2, 2, 2, 2], noise=1.0)
    swapped = diagnose(logits.numpy().astype(">f8"), labels.numpy().astype(">i4"))
    assert torch.equal(swapped.Z, diagnose(logits, labels).Z)


@pytest.mark.parametrize("depth", [None, 3])
def test_many_classes_are_compared_with_collapse_alone_and_at_once(depth):
    near, far = (diagnose(*samples(20.0 * codes.named(60)["NC"], [2] * 60, noise), depth=depth) for noise in (0.1, 9.0))
    assert near.name == far.name == "NC" and near.distance < 0.05 < 0.1 < far.distance
    assert near.decided == (depth is None) and not far.decided
    centre = far.Z - far.Z.trace() / 59 * (torch.eye(60, dtype=F64) - 1 / 60)
    assert far.distance == pytest.approx(float(centre.norm() / far.Z.norm()), rel=1e-9)


@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_the_nearest_code_is_the_least_of_all_distances(noise):
    Z, labels = samples(5.0 * next(iter(codes.named(8).values())), [2] * 8, noise)
    found = diagnose(Z, labels)
    away = {name: code_distance(found.Z, code) for name, code in codes.named(8).items()}
    assert (found.name, found.distance) == (min(away, key=away.__getitem__), min(away.values()))


def test_distance_is_that_of_the_best_numbering_by_trying_all():
    import itertools

    rng = np.random.default_rng(1)
    Z, code = rng.standard_normal((2, 5, 5))
    Z, code = (part - part.mean(0) for part in (Z, code))
    best = max((Z * code[np.ix_(order, order)]).sum() for order in map(list, itertools.permutations(range(5))))
    expected = (1 - (best / np.linalg.norm(Z) / np.linalg.norm(code)) ** 2) ** 0.5
    assert code_distance(torch.from_numpy(Z), torch.from_numpy(code)) == pytest.approx(expected)


LOGITS, LABELS = samples(5.0 * codes.named(4)["NC"], [2, 3, 1, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LOGITS, LABELS[:-1]), "one entry a sample"),
        ((LOGITS.long(), LABELS), "floating numbers"),
        ((LOGITS[0], LABELS), "a matrix of floating numbers"),
        ((LOGITS, LABELS.double()), "labels must be integers"),
        ((LOGITS, LABELS + 1), "from 0 to 3, got 1 to 4; np.unique.* numbers the classes"),
        ((LOGITS[LABELS != 2], LABELS[LABELS != 2]), "there is no sample of 2"),
        ((LOGITS[:, :1], 0 * LABELS), "at least 2 classes"),
        ((LOGITS.softmax(1).float(), LABELS), "logits must be those before the softmax"),
        ((LOGITS * float("nan"), LABELS), "NaN or inf"),
        ((torch.randn(4, 4, dtype=F64), torch.arange(4)), "a sample a row, .* or a sample a column"),
        ((LOGITS, None), "labels must be an array or a tensor of numbers, got NoneType"),
        ((LOGITS, list("abcdefgh")), "labels must be an array or a tensor of numbers, got list: np.unique"),
        (([[1.0, 2.0], [3.0]], [0, 1]), "logits must be an array or a tensor of numbers, got list"),
        ((LOGITS.split(3), LABELS), "got tuple of batches: join them with torch.cat"),
        ((torch.nn.Linear(3, 3), LABELS), "logits must be .* got Linear: pass what it gives for the training samples"),
        ((LOGITS.to("meta"), LABELS), "logits must be an array or a tensor of numbers, got Tensor"),
    ],
)
def test_refuses_in_one_line(arguments, message):
    with pytest.raises(DufmError, match=message) as caught:
        diagnose(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"features": LOGITS[:-1]}, r"features must have shape \(N, d\), N = 8, got \(7, 4\)"),
        ({"features": LOGITS.T}, "features must have shape"),
        ({"features": LOGITS, "classifier": torch.eye(4, 5).T}, r"\(K, d\) = \(4, 4\), .*got \(5, 4\)"),
        ({"features": LOGITS.long()}, "features must be a matrix of floating numbers"),
        ({"classifier": torch.eye(4, dtype=F64)}, "needs the features"),
        ({"features": LOGITS, "classifier": torch.nn.Linear(4, 4)}, "got Linear: pass its .weight"),
        ({"depth": 1}, "depth"),
    ],
)
def test_refuses_layers_that_do_not_fit(extra, message):
    with pytest.raises(DufmError, match=message):
        diagnose(LOGITS, LABELS, **extra)


def test_the_median_margin_of_an_even_number_is_between_two():
    logits = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 3], [3, 0, 0], [0, 3, 0], [0, 0, 1]]).double()
    assert diagnose(logits, torch.tensor([0, 1, 2, 0, 1, 2])).margins == (1.0, 2.0, 3.0)
