"""Every public function of the package on drawn input: a finite result, or a ``DufmError`` in one line.

What is drawn for an argument goes by its type and name, as at the door, with values at the ends of the ranges that the
door gives.  A warning is an error here as everywhere in the tests.
"""

import dataclasses
import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dufm
from dufm import DufmError, _door

FUNCTIONS = {name: getattr(dufm, name) for name in dufm.__all__ if inspect.isfunction(getattr(dufm, name))}
# Seconds, not milliseconds, a call.
SLOW = {"best", "end", "limit", "max_margin", "softmax_code", "linear_network_flow", "cheapest_factors", "diagnose"}
SLOW |= {"spectral_end", "spectral_limit", "polish", "hadamard_polyhedron", "gradient_flow", "gradient_descent"}
# Where infinity or NaN is the documented answer: at the true class, after the escape, where nothing is defined, for a
# run that diverged or did not get there, or an end that is undecided.
NOT_FINITE = {"margins", "escape_time", "early_singular_values", "nc_metrics", "end", "spectral_end", "imbalance_drift"}
NOT_FINITE |= {"normalized_margin", "gradient_descent"}
NOT_FINITE |= {"diagnose", "limit", "spectral_limit", "kkt_residual", "kkt_certificate", "polish"}

# A run that took no step: the logarithm of its time is that of zero.
CLOCKED = {"gradient_flow", "spectral_flow"}

SIZES = [5e-324, 1e-310, 1e-160, 1e-20, 1e-3, 0.3, 1.0, 7.0, 300.0, 1e10, 1e160, 1.7e308]
INTEGERS = {
    "depth": [1, 2, 3, 5, 40, 10_000],
    "num_classes": [1, 2, 3, 4, 5, 8],
    "seed": [-1, 0, 1, 2**63 - 1],
    "restarts": [0, 1, 2],
    "steps": [0, 1, 5],
    "max_steps": [1, 12],
    "m": [1, 2, 3, 5],
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
}
TEXTS = ["nc", "polygon", "orthoplex", "hypercube", "balanced", "powers", "shared", "turned", "hadamard", "", "ü"]


@st.composite
def matrices(draw, rows, columns, batch=(), dtype=None, square=True):
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
    dtype = dtype or draw(st.sampled_from([torch.float64, torch.float32]))
    most = float(torch.finfo(dtype).max) / 8
    size = min(draw(st.sampled_from([1.0, 1.0, *SIZES])), most)
    Z = torch.from_numpy(np.clip(values, -6, 6) * size).to(dtype)
    layout = draw(st.sampled_from(["plain", "plain", "turned", "sliced", "requires_grad"]))
    if layout == "turned":
        Z = Z.mT.contiguous().mT
    elif layout == "sliced":
        Z = torch.stack([Z, -Z], -1)[..., 0]
    return Z.requires_grad_() if layout == "requires_grad" else Z


batches = st.sampled_from([(), (), (1,), (3,), (0,), (2, 2)])


@st.composite
def logits(draw):
    K = draw(st.integers(1, 5))
    return draw(matrices(K, draw(st.sampled_from([K, K, 2 * K, K + 1])), draw(batches)))


@st.composite
def factors(draw):
    K, depth = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    widths = [K * draw(st.sampled_from([1, 1, 2])), *draw(st.lists(st.integers(1, 4), min_size=depth - 1)), K]
    batch, dtype = draw(batches), draw(st.sampled_from([torch.float64, torch.float32]))
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return [draw(matrices(rows, columns, batch, dtype)) for columns, rows in pairs]


spectra = st.builds(
    lambda n, size, dtype: torch.linspace(1, 2, n, dtype=dtype) * min(size, float(torch.finfo(dtype).max) / 8),
    st.integers(1, 4), st.sampled_from([1.0, 0.1, *SIZES]), st.sampled_from([torch.float64, torch.float32]),
)  # fmt: skip
groups = st.sampled_from(["hadamard", "cyclic", (3,), (5,), (2, 2), [2, 3], (), (1,), "none", 7])
records = st.none() | st.builds(
    lambda kind, levels: {kind: levels},
    st.sampled_from(["log_loss", "log_time"]),
    st.lists(st.sampled_from([-0.5, -1.0, 3.0, 1e300]), max_size=2),
)
# By function and name, else by name, where the type says too little.
DRAWN = {
    "Z": logits(),
    "factors": factors(),
    "before": factors(),
    "after": factors(),
    "weights": factors(),
    "run": factors() | logits(),
    "s": spectra,
    "s0": spectra,
    "group": groups,
    "record": records,
    "gradient_descent.record": st.none() | st.lists(st.integers(0, 3), max_size=2),
    "starts": st.none() | logits() | st.lists(logits(), max_size=2),
    "certificate": st.builds(lambda Z: dufm.kkt_certificate(Z, 3), matrices(4, 4, (), torch.float64)),
    "logits": logits(),
    "labels": st.lists(st.integers(0, 3), min_size=1, max_size=6),
    "rng": st.builds(np.random.default_rng, st.integers(0, 3)),
}


def drawn(function, parameter):
    """A strategy for one argument."""
    name = parameter.name
    for key in (f"{function.__name__}.{name}", name):
        if key in DRAWN and not (key in ("s", "s0") and "float" in _door.alternatives(parameter.annotation)):
            return DRAWN[key]
    found = []
    for kind in _door.alternatives(parameter.annotation):
        kind = kind.partition("[")[2].strip("]") or kind
        if kind == "int":
            ends = INTEGERS.get(name, [0, 1, 2, 3, 5])
            found.append(st.sampled_from(INTEGERS.get(f"{function.__name__}.{name}", ends)))
        elif kind == "float":
            found.append(st.sampled_from(FLOATS.get(name, SIZES)))
        elif kind == "bool":
            found.append(st.booleans())
        elif kind == "str":
            found.append(st.sampled_from(TEXTS))
        else:
            found.append(spectra if name in ("s", "s0", "t") else logits())
        if "[" in str(parameter.annotation) and kind in ("int", "float"):
            found[-1] = st.lists(found[-1], max_size=3)
    if parameter.default is None:
        found.append(st.none())
    return st.one_of(found)


def arguments(function):
    parameters = inspect.signature(function).parameters.values()
    needed = {p.name: drawn(function, p) for p in parameters if p.default is p.empty or p.name in INTEGERS}
    free = {p.name: drawn(function, p) for p in parameters if p.name not in needed}
    return st.fixed_dictionaries(needed, optional=free)


def numbers(value):
    """All tensors, arrays and floating numbers of a result."""
    if isinstance(value, (torch.Tensor, np.ndarray, float)):
        yield value
    elif dataclasses.is_dataclass(value):
        yield from (part for field in dataclasses.fields(value) for part in numbers(getattr(value, field.name)))
    elif isinstance(value, dict):
        yield from (part for item in value.values() for part in numbers(item))
    elif isinstance(value, (list, tuple)):
        yield from (part for item in value for part in numbers(item))


def holds(name, given):
    """A result, finite where it is to be, or a refusal in one line."""
    try:
        result = FUNCTIONS[name](**given)
    except DufmError as error:
        assert "\n" not in str(error) and len(str(error)) <= 1000
        return
    for part in numbers(result):
        if name in CLOCKED and isinstance(part, torch.Tensor):
            part = torch.where(part == -torch.inf, 0.0, part)
        if isinstance(part, np.ndarray):
            part = torch.from_numpy(part) if part.dtype.kind in "iuf" else torch.zeros(1)
        finite = torch.isfinite(part).all() if isinstance(part, torch.Tensor) else math.isfinite(part)
        assert finite or name in NOT_FINITE, part


def fuzz(name, examples):
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(arguments(FUNCTIONS[name]))
    def run(given):
        holds(name, given)

    run()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_finite_result_or_one_line(name):
    fuzz(name, 1 if name == "cheapest_factors" else 6 if name in SLOW else 60)


@pytest.mark.soak
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_finite_result_or_one_line_for_long(name):
    fuzz(name, 200 if name in SLOW else 3000)
