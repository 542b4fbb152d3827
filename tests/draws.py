"""What the fuzz draws for an argument, by its type and name as in the door's tables, ends of ranges included."""

import functools
import inspect
from fractions import Fraction

import numpy as np
import tables
import torch
from hypothesis import strategies as st

import dufm
from dufm import _door, agreement, class_sizes, complement, explorer, heads, networks, peers

SIZES = [5e-324, 1e-310, 1e-160, 1e-20, 1e-3, 0.3, 1.0, 7.0, 300.0, 1e10, 1e160, 1.7e308]
#: By ``function.name``, ``room.name`` or name, as in the door's tables.
INTEGERS = {
    "depth": [1, 2, 3, 3, 4, 40, 10_000],
    **dict.fromkeys(("heads.depth", "learned.depth", "networks.depth"), [1, 2, 3]),
    "num_classes": [1, 2, 3, 4, 4, 5, 8],
    **dict.fromkeys(("cube_extra.num_classes", "cube_turn.num_classes"), [4, 8, 8, 12]),
    "random_directions.num_classes": [2, 3, 4],
    "width": [0, 1, 3, 4, 6],
    "seed": [-1, 0, 0, 1, 1, 2**63 - 1],
    "seeds": [0, 0, 1, 2],
    "restarts": [0, 1, 2],
    "steps": [0, 1, 5],
    "max_steps": [1, 12],
    "max_epochs": [0, 1, 2],
    "max_depth": [1, 2, 6],
    "depths": [2, 3, 4],
    "direct_sum_margin.sizes": [1, 2, 3],
    "starts": [0, 1, 3],
    "count": [0, 1, 20],
    "place": [0, 1, 1, 2, 5],
    "networks": [0, 1, 3],
    "m": [1, 2, 3, 5],
    "dim": [1, 2, 3, 5],
    "best.depth": [1, 2, 3, 4],
    "best.num_classes": [1, 2, 4, 46],
}
FLOATS = {
    "until_log_loss": [0.0, -1.0, -5.0, -1e3, -1e300, 1e300],
    "rtol": [1e-13, 1e-6, 1e-3, 0.1, 0.0],
    "sharpness": [1.0, 100.0, 1e4, 1e300],
    "until_growth": [1e-3, 1.0, 50.0],
    "t": [0.0, 1e-300, 1.0, 1e300],
    "log_times": [-5.0, 0.0, 1.0, 2.0],
    "shares.scale": [0.0, 1e-30, 1e-6, 0.1, 1.0, 2.0],
    "noise": [0.0, 5e-324, 1e-6, 0.1, 0.3, 0.7, 1.0],
    "excess": [0.0, 1e-310, 0.3, 1.0, 2.0],
    "decay": [0.0, 1e-310, 1e-3, 0.1, 1.0, 1e10],
    "low": [1e-310, 1e-3, 0.1, 1e10],
    "growths": [1.2, 2.0, 3.0, 0.5, 1e300],
    "loss_scaled_descent.levels": [0.0, -1.0, -3.0, 1e300],
    "epsilon": [5e-3, 0.1, 1.0, 1e300, 5e-324],
    "log_losses": [-1.0, -3.0, -10.0, 1e300],
    "SpectralVertex.depth": [2.0, 2.5, 3.0, 1e4, 1.0],
    "cost.depth": [2.0, 2.5, 3.0, 1e4, 1.0],
    "margin.depth": [2.0, 2.5, 3.0, 1e4, 1.0],
    "precision": [1e-3, 0.1, 1.0],
    "times": [0.0, 1.0, 3.0, 10.0],
    "shallow_path.times": [0.0, 1.0, 3.0],
}
TEXTS = {
    "family": ["balanced", "powers", "shared", "turned", "symmetric", "antisymmetric", "shift", "imbalance", ""],
    "closed_form_margin.kind": ["nc", "polygon", "orthoplex", "hypercube", "ü"],
    "alignment.kind": ["wide", "skewed", "scaled", ""],
    "class_sizes.kind": ["weights", "samples", ""],
    "unbalanced.kind": ["shifted", "stretched", ""],
    "word": ["ss", "sb", "sbb", "bbb", "", "sx"],
    "norm": ["euclidean", "entry", "spectral", ""],
    "method": ["flow", "descent", "momentum", "Adam", "sign", "Muon", ""],
    "stiff.method": ["BDF", "Radau", "LSODA", ""],
    "init": ["gaussian", "orthogonal", "balanced", "twin", "limit", ""],
    "device": ["cpu", "nowhere"],
    "precision": ["float64", "float32", ""],
    "panel": ["loss", "", "ü"],
    "spectra": ["1.0 0.5 0.2", "1.0 1.0 0.0", "1", "", "a b c"],
    "keys": ["depth", "width", "scale", ""],
    "data.name": ["digits", ""],
    "axis": ["batch", "m", ""],
    "names": ["dufm", ""],
    "model": ["a", "b", ""],
    "other": ["a", "b", ""],
}


@st.composite
def matrices(draw, rows, columns, batch=(), dtype=None):
    """``(*batch, rows, columns)`` of some structure, size, layout and dtype."""
    shape = (*batch, rows, columns)
    numbers = np.random.default_rng(draw(st.integers(0, 5))).standard_normal(shape)
    kind = draw(st.sampled_from(["gaussian", "gaussian", "zero", "equal", "identity", "rank one", "integers"]))
    values = {
        "gaussian": numbers,
        "zero": np.zeros(shape),
        "equal": np.ones(shape),
        "identity": np.broadcast_to(np.eye(rows, columns), shape).copy(),
        "rank one": numbers[..., :1] * numbers[..., :1, :] if numbers.size else numbers,
        "integers": np.rint(3 * numbers),
    }[kind]
    dtype = dtype or draw(st.sampled_from([torch.float64, torch.float64, torch.float32]))
    most = float(torch.finfo(dtype).max) / 8
    size = min(draw(st.sampled_from([1.0, 1.0, *SIZES])), most)
    Z = torch.from_numpy(np.clip(values, -6, 6) * size).to(dtype)
    layout = draw(st.sampled_from(["plain", "plain", "turned", "sliced", "requires_grad"]))
    if layout == "turned":
        Z = Z.mT.contiguous().mT
    elif layout == "sliced":
        Z = torch.stack([Z, -Z], -1)[..., 0]
    return Z.requires_grad_() if layout == "requires_grad" else Z


batches = st.sampled_from([(), (), (), (1,), (3,), (0,), (2, 2)])


@st.composite
def logits(draw):
    K = draw(st.sampled_from([4, 4, 4, 3, 2, 5, 1]))
    return draw(matrices(K, draw(st.sampled_from([K, K, K, 2 * K, K + 1])), draw(batches)))


@st.composite
def factors(draw):
    K, depth = draw(st.sampled_from([4, 4, 3, 2])), draw(st.sampled_from([3, 3, 2, 4, 1]))
    widths = [K * draw(st.sampled_from([1, 1, 2])), *draw(st.lists(st.integers(1, 4), min_size=depth - 1)), K]
    batch, dtype = draw(batches), draw(st.sampled_from([torch.float64, torch.float32]))
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return [draw(matrices(rows, columns, batch, dtype)) for columns, rows in pairs]


def spectrum(n, size, dtype, spread):
    return torch.linspace(1, spread, n, dtype=dtype) * min(size, float(torch.finfo(dtype).max) / 8)


spectra = st.builds(
    spectrum, st.sampled_from([3, 3, 3, 3, 1, 2, 7]), st.sampled_from([1.0, 1.0, 0.1, 0.1, *SIZES]),
    st.sampled_from([torch.float64, torch.float64, torch.float32]), st.sampled_from([2, 2, 1, 1, 0, -1]),
)  # fmt: skip
#: Networks that a reader has, small and plain.
plain = st.builds(
    lambda depth, width, seed, batch: dufm.gaussian_init(depth, width, 4, seed=seed, batch=batch),
    st.sampled_from([2, 3, 4]), st.sampled_from([3, 4, 6]), st.integers(0, 2), st.sampled_from([1, 1, 2]),
)  # fmt: skip
single = plain.map(lambda factors: [W[0] for W in factors])
squares = matrices(4, 4, (), torch.float64) | logits()
groups = st.sampled_from([*["hadamard"] * 6, "cyclic", "cyclic", (3,), (5,), (2, 2), [2, 3], (), (1,), "none", 7])
records = st.none() | st.builds(
    lambda kind, levels: {kind: levels},
    st.sampled_from(["log_loss", "log_time"]),
    st.lists(st.sampled_from([-0.5, -1.0, 3.0, 1e300]), max_size=2),
)
labels = st.lists(st.integers(0, 3), min_size=1, max_size=8)


def once(make):
    """What is costly to make, made once and only where it is drawn."""
    made = functools.cache(make)
    return st.builds(lambda: made())  # Hypothesis cannot describe the cache itself, where a test fails


codes = (
    st.sampled_from([dufm.polygon(5), dufm.orthoplex(4), dufm.orthoplex(6), dufm.simplex_etf(4)])
    | st.builds(lambda n, seed: torch.from_numpy(np.random.default_rng(seed).standard_normal((n, 2))),
                st.integers(2, 5), st.integers(0, 3))
    | logits()
)  # fmt: skip
runs = once(lambda: dufm.gradient_flow(dufm.gaussian_init(3, 4, 4, seed=0, batch=2)))
limits = once(lambda: dufm.limit(dufm.gaussian_init(3, 4, 4, seed=0, batch=2)))
explored = once(lambda: explorer.finished(explorer.spectral(4, 3, 0.3, 0)))
fractions = st.sampled_from([Fraction(0), Fraction(1), Fraction(2), Fraction(1, 2), Fraction(2, 3), Fraction(-1)])
listed = st.lists(st.sampled_from([0.0, 1.0, 2.0, 0.5, float("nan"), 1e300]), min_size=2, max_size=7)
arrays = spectra | listed | listed.map(lambda row: [row, row]) | logits()
parts = once(lambda: complement.orthoplex_extra(4)[0]) | once(lambda: complement.orthoplex_extra(4)[1]) | squares
certificates = matrices(4, 4, (), torch.float64).map(lambda Z: dufm.kkt_certificate(Z, 3))
SELF = {
    "Certificate": certificates,
    "Characters": st.sampled_from([dufm.characters("hadamard", 4), dufm.characters((3,)), dufm.characters((2, 3))]),
    "ClosedForm": once(lambda: peers.ClosedForm([W[0] for W in dufm.gaussian_init(3, 4, 4, seed=0)])),
    "Comparison": once(lambda: agreement.compare(4, 2, [3], restarts=2)[0]),
    "HadamardPolyhedron": once(lambda: dufm.hadamard_polyhedron(2)),
    "Meter": st.builds(peers.Meter, st.sampled_from([[], [1.0], [1.0, 3.0]])),
    "SpectralVertex": once(lambda: dufm.hadamard_polyhedron(2).orbits[0]),
}
levels = st.sampled_from([[1.0, 3.0, 10.0], [3.0, 10.0], [3.0], [-1e300, 3.0], [3.0, 1.0], [3.0, 3.0], []])
#: By ``function.name``, ``room.name`` or name, where the type says too little.
DRAWN = {
    "Z": logits() | parts,
    "shallow_path.Z": squares,
    "factors": factors() | plain,
    "before": factors() | plain,
    "after": factors() | plain,
    "balanced": once(lambda: dufm.balanced_init(torch.eye(4).double().expand(2, 4, 4) + 1, 3)) | factors(),
    "weights": factors() | plain,
    "head": single,
    "peers.factors": single | factors(),
    "peers.levels": levels,
    "cost.levels": levels,
    "cost.flow.factors": single,
    "weight_decay.factors": single | factors(),
    "sharpness.factors": single | factors(),
    "run": factors() | logits() | plain | runs,
    "explorer.run": explored,
    "finished.run": st.builds(explorer.spectral, st.just(4), st.just(3), st.just(0.3), st.integers(0, 1)),
    "sized_limit.run": once(
        lambda: class_sizes.sized_flow(dufm.gaussian_init(3, 4, 4, seed=0), torch.ones(4).double(), "weights")
    ),
    "ends.columns.run": st.none() | limits,
    "ends.columns.found": once(lambda: dufm.end(dufm.gaussian_init(3, 4, 4, seed=0, batch=2), 3)),
    "kinds.end": once(lambda: dufm.end(dufm.gaussian_init(3, 4, 4, seed=0, batch=2), 3)),
    "as_row.found": st.none() | once(lambda: dufm.max_margin(4, 3, 2, restarts=2)),
    "s": spectra,
    "s0": spectra,
    "imbalance_path.s": st.sampled_from([[0.1, 1.0, 3.0], [0.5, 2.0], [1.0], [2.0, 1.0], [1.0, 1e300], [0.0, 1.0]]),
    "imbalance_path.x": st.lists(st.sampled_from([0.1, 1.0, 3.0, 1e300]), min_size=2, max_size=2),
    "imbalance_path.b": st.lists(st.sampled_from([0.1, 1.0, 3.0, 1e300]), min_size=2, max_size=2),
    "group": groups,
    "record": records,
    "gradient_descent.record": st.none() | st.lists(st.integers(0, 3), max_size=2),
    "search.starts": st.none() | logits() | st.lists(logits(), max_size=2),
    "basin.starts": spectra | matrices(2, 3, (), torch.float64),
    "code_counts.starts": st.sampled_from([0, 1, 3]),
    "certificate": certificates,
    "logits": logits(),
    "labels": st.lists(st.integers(0, 3), min_size=1, max_size=6),
    "y": labels | labels.map(np.array) | labels.map(torch.tensor),
    "rng": st.builds(np.random.default_rng, st.integers(0, 3)),
    "W": codes,
    "rank_two.W": codes.map(lambda W: W.detach().numpy()),
    "rank_two.Y": codes.map(lambda W: W.detach().numpy()),
    "pull": once(lambda: dufm.log_loss_residual(dufm.polygon(4) @ dufm.polygon(4).mT)) | squares,
    "P": parts,
    "E": parts,
    "M": squares,
    "B": squares,
    "log_norm": once(lambda: torch.tensor([1.0, 1.5]).double()) | spectra,
    "sizes": spectra | st.builds(class_sizes.class_sizes, st.just(4), st.sampled_from(SIZES)),
    "critical_ratio.sizes": st.lists(st.sampled_from([0.1, 1.0, 1e300]), max_size=1),
    "direct_sum_margin.sizes": st.lists(st.integers(0, 3), max_size=3),
    "spectrum": st.lists(fractions, max_size=3),
    "spectra": arrays,
    "spectral_numbers.spectra": st.lists(st.sampled_from(TEXTS["spectra"]), max_size=3),
    "sigma": arrays,
    "earlier": arrays,
    "later": arrays,
    "orbits": st.sampled_from([0, 1, [0, 1], [-1]]),
    "decided": st.none() | st.booleans() | st.lists(st.booleans(), max_size=3),
    "sized_residual.Z": matrices(4, 4, (2,), torch.float64),
    "alignment.seeds": st.sampled_from([[0, 1], [0], [3, 4]]),
    "batch_descent.seeds": st.sampled_from([[0], [0, 1]]),
    "residual.factors": once(lambda: [W.clone() for W in dufm.balanced_init(torch.eye(4).double(), 3)]) | single,
    "alignment.factors": plain,
    "coefficients": st.sampled_from([{"law 0.5": np.zeros(2)}, {"two": np.ones(3)}, {"a": np.ones(3)}, {}]),
    "expected_ranks.coefficients": st.sampled_from([np.zeros(2), np.ones(3)]),
    "numbers": st.sampled_from([np.zeros((5, 1, 2)), np.ones((3, 2, 3)), np.ones(3)]),
    "late_ratio.ratio": st.sampled_from([torch.tensor([0.1, 0.5]), torch.tensor([[1e-30, 1.0]]), -torch.ones(2)]),
    "value": st.sampled_from([5e-324, 0.1, 1.0, -1.0, 1e300, np.array([0.1, 1.0]), np.array([0.0, 1.0])]),
    "force": st.sampled_from([5e-324, 0.1, 1.0, 0.0, 1e300, np.array([0.1, 1.0]), np.ones(3)]),
    "half_width.widths": st.sampled_from([[4.0, 8.0, 16.0], [4.0, 8.0], [8.0, 4.0], []]),
    "half_width.collapse": st.sampled_from([[2.0, 10.0, 19.0], [20.0, 20.0, 20.0], [0.0, 20.0], []]),
    "half_width.networks": st.sampled_from([[20.0, 20.0, 20.0], [20.0, 20.0], [1.0, 1.0, 1.0]]),
    "x": once(lambda: np.linspace(-1.0, 1.0, 48)),
    "columns": matrices(4, 3, (), torch.float64) | logits(),
    "path": st.none(),
    "root": st.none(),
    "stages": st.sampled_from([((100.0, 1.0),), ((1e3, 0.1), (1e300, 1.0)), (), ((1.0,),), ((0.0, 1.0),)]),
    "lags": st.sampled_from([[True, False, False], [False, False, True], [True, True, True], []]),
    "ratios": st.lists(st.sampled_from([0.1, 0.5, 1.0]), max_size=2),
    "shape": st.just(1),
    "found": st.none(),
}


def damaged(draw, table):
    """A table as it should be, or with a column, or rows, gone, or twice."""
    kind = draw(st.sampled_from(["whole", "whole", "a column", "rows", "twice", "none"]))
    if kind == "a column" and not isinstance(table, tables.Bare):
        names = list(table) if hasattr(table, "keys") else list(getattr(table, "_fields", None) or vars(table))
        return tables.without(table, draw(st.sampled_from(names)))
    if not isinstance(table, tables.pandas.DataFrame) or kind == "whole":
        return table
    other = {"rows": table.iloc[:1], "twice": tables.pandas.concat([table, table]), "none": table.iloc[:0]}
    return other.get(kind, table)


@st.composite
def in_table(draw, key):
    return damaged(draw, tables.TABLES[key])


@st.composite
def training(draw):
    """Networks, data and labels that fit."""
    rng = np.random.default_rng(draw(st.integers(0, 3)))
    size = draw(st.sampled_from([1.0, 1.0, *SIZES[:-1]]))
    n = draw(st.sampled_from([4, 8]))
    return {
        "weights": networks.he_init(draw(st.sampled_from([2, 3])), 6, 3, 4, seed=0, batch=draw(st.integers(1, 2))),
        "X": torch.from_numpy(size * rng.standard_normal((3, n))),
        "y": torch.arange(4).repeat(n // 4),
        "outputs": torch.from_numpy(size * rng.standard_normal((2, 3, n))),
    }


@st.composite
def seen(draw):
    """Images, weights and labels that fit."""
    X = draw(matrices(4, 4, (10, 1), torch.float64))
    return {"weights": heads.initial(0, draw(st.sampled_from([1, 2])), X), "X": X, "y": torch.arange(10)}


@st.composite
def inputs(draw):
    """A linear network on inputs."""
    rng = np.random.default_rng(draw(st.integers(0, 3)))
    X, H = draw(st.sampled_from([torch.eye(5, 4).double(), torch.zeros(5, 4)])), draw(matrices(3, 4))
    first, last = (torch.from_numpy(rng.standard_normal(shape)) for shape in ((3, 5), (4, 3)))
    return {"X": X, "H": H, "beside": first, "weights": [first, last]}


@st.composite
def classified(draw):
    """Logits, features, a classifier and labels that fit."""
    rows = [*range(4), *draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))]
    code = draw(matrices(4, 4, (), torch.float64))
    return {"logits": code[rows], "labels": rows, "features": code[rows][:, :3], "classifier": code[:, :3]}


ONE = {"flow.loss_scaled_descent.factors"}
#: In the place of the above for what takes seconds, not milliseconds, a call.
QUICK = {
    "depth": [2, 3, 3],
    "num_classes": [3, 4, 4],
    "width": [3, 4, 4],
    "starts": [1, 3],
    "restarts": [1, 2],
    "seed": [0, 1],
    "place": [0, 1, 1, 2],
    "max_steps": [1, 12, 200],
    "steps": [0, 5, 50],
    "scale": [0.3, 1.0, 1.0, 1e160],
    "weight_decay.scale": [0.3, 1.0],
    "margin": [0.1, 1.0],
    "complement.size": [0.1, 0.01],
    "s0": [5e-324, 0.1, 0.5, 1e160],
    "size": [1e-6, 1e-3, 1e160],
    "sharpness": [1.0, 100.0, 1e3],
    "until_log_loss": [0.0, -1.0, -5.0, -100.0, 1e300],
    "handover": [-6.0, -1.0, 1e300],
    "unbalanced.handover": [0.1, 1.0, 1e300],
    "lr": [0.1, 1.0, 1e300],
    "rtol": [1e-6, 1e-3, 0.1, 0.0],
    "levels": [0.3, 1.0, 3.0],
    "measured_repulsion.levels": [11, 12],
    "measured_families.levels": [1, 3],
    "off": [0.01, 0.5],
    "decay": [0.0, 1e-3, 0.1, 1e10],
    "critical_labels.scales": [1.0, 0.1, 1e300],
    "rounds": [1],
    "log_times": [0.0, 1.0],
    "early_phase.shares": [0.1, 0.5, 2.0],
    "count": [1, 20],
    "networks": [1, 3],
    "runs": [1, 2],
    "measured_families.s0": [0.1, 0.5],
    "measured_families.size": [1e-6, 1e-3],
    "compare_with_network.rtol": [1e-6, 1e-3],
}

#: Arguments that hang together, by room or ``room.function``.
TOGETHER = {
    "networks": training(),
    "heads": seen(),
    "linear_network": inputs(),
    "diagnosis.diagnose": classified(),
    "data.balanced": training().map(lambda found: {"X": found["X"].mT, "y": found["y"]}),
}


def drawn(name, function, parameter, quick):
    """A strategy for one argument of the function of a ``room.name``."""
    room, at = name.partition(".")[0], parameter.name
    keys = [f"{name}.{at}", f"{name.partition('.')[2]}.{at}", f"{function.__name__}.{at}", f"{room}.{at}", at]

    def known(table, *other):
        ordinary = table is INTEGERS or table is FLOATS
        looked = [QUICK, table] if quick and ordinary else [table]
        return next((found[key] for found in looked for key in keys if key in found), *other)

    if at == "self":
        return SELF[name.split(".")[1]]
    if f"{name}.{at}" in tables.TABLES:
        return in_table(f"{name}.{at}")
    several = _door.alternatives(parameter.annotation)
    if quick and at in ("factors", "run") and "Tensor" in str(parameter.annotation):
        one_network = f"{name}.{at}" in ONE or room in ("peers", "cost")
        return single if one_network else plain
    if (found := known(DRAWN, None)) is not None and not (at in ("s", "s0") and "float" in several):
        return found
    found = []
    for kind in several:
        outer, _, inner = kind.partition("[")
        one = item(inner.strip("]") or outer, at, known)
        if outer in ("Sequence", "Iterable", "list", "tuple") and "Sequence[" not in inner and "Tensor" not in inner:
            one = st.lists(one, min_size=int(quick), max_size=2 if quick else 3)
        elif "Tensor" in inner:
            one = factors() | plain
        found.append(one)
    if parameter.default is None:
        found.append(st.none())
    return st.one_of(found)


def item(kind, name, known):
    if kind == "int":
        return st.sampled_from(known(INTEGERS, [0, 1, 2, 3, 5]))
    if kind == "float":
        return st.sampled_from(known(FLOATS, SIZES))
    if kind == "bool":
        return st.booleans()
    if kind == "str":
        return st.sampled_from(known(TEXTS, ["", "ü"]))
    if kind == "ndarray":
        return logits().map(lambda Z: Z.detach().numpy())
    return spectra if name in ("s", "s0", "t") else logits()


def arguments(name, function, quick=False):
    """A strategy for all arguments by name; those without a default, and those that bound the work, always."""
    parameters = inspect.signature(function).parameters.values()
    strategies = {p.name: drawn(name, function, p, quick) for p in parameters}
    needed = {p.name: strategies[p.name] for p in parameters if p.default is p.empty or p.name in INTEGERS}
    free = {at: strategy for at, strategy in strategies.items() if at not in needed}
    plain = st.fixed_dictionaries(needed, optional=free)
    together = TOGETHER.get(name, TOGETHER.get(name.partition(".")[0]))
    if together is None:
        return plain
    names = needed.keys() | free.keys()
    fitting = st.builds(lambda given, fit: given | {k: v for k, v in fit.items() if k in names}, plain, together)
    return fitting | plain | fitting
