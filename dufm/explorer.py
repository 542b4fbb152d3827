r"""One run as a reader explores it: from its start along the loss to its certified end, by either of two models.

Both begin with logits whose singular values are about ``scale``: the spectral model at a direction drawn uniformly of
those with mean ``scale``, the network at Gaussian factors of scale :math:`\text{scale}^{1/L}`, for which the root mean
square of the singular values of Z is ``scale`` in expectation.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count
from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import FactorModel
from dufm._scaling import check_in_range
from dufm._stepping import Run, following, recorded, returned
from dufm.certificate import kkt_certificate
from dufm.codes import name_of
from dufm.ends import UNDECIDED, end, limit, spectral_end
from dufm.groups import Characters, characters
from dufm.margin import closed_form_margin, normalized_margin
from dufm.metrics import centred
from dufm.model import chain, check_slope, gaussian_init
from dufm.spectral import spectral_flow, spectral_init

__all__ = [
    "LOG_LOSSES",
    "SETTING",
    "Explored",
    "beside",
    "columns",
    "finished",
    "network",
    "network_at",
    "points",
    "settings",
    "spectral",
    "spectral_start",
    "words",
]

#: Where a run is looked at.
LOG_LOSSES = (2.0, 1.0, 0.5, 0.0, -1.0, -2.0, -4.0, -8.0, -16.0, -32.0, -64.0, -128.0, -256.0)
#: What both panels have in common, the seed being that of the spectral model's start.
SETTING = ["num_classes", "depth", "scale", "seed"]
_CONTROL: dict[str, Any] = {"until_log_loss": LOG_LOSSES[-1], "rtol": 1e-3, "record": {"log_loss": LOG_LOSSES}}
_STEPS = 1000  # where a network rests at a saddle for longer, it is a slow start and says so
_FLOW, _LIMIT = 0.6, 0.95  # shares of the work that are done where the limit begins, and where it ends
_GROWTH, _MOST_GROWTH = 20.0, 300.0


@dataclass(frozen=True)
class Explored:
    """A run: its start, its states at ``LOG_LOSSES``, and its end, in the first dimension.

    ``sharpness`` ``(n,)``: −log ℒ, NaN at the start, inf at the end; a level that the start has passed already shows
    the start.  ``Z`` ``(n, K, K)`` centred logits, the last the certified solution of margin 1, or the limit's where it
    is undecided; ``values`` ``(n, F)``: singular values, in the order of the characters or descending;
    ``margin_ratio`` ``(n,)``: normalised margin over that of neural collapse; ``name``, ``rank``, ``reason`` and
    ``certificate`` of the end, the last in words.
    """

    depth: int
    sharpness: np.ndarray
    Z: torch.Tensor
    values: torch.Tensor
    margin_ratio: torch.Tensor
    name: str
    rank: int
    certificate: str
    reason: str


# Yields shares done.
Running = Generator[float, None, Explored]


def spectral_start(num_classes: int, scale: float, seed: int) -> tuple[Tensor, Characters]:
    """Singular values ``(F,)`` of mean ``scale``, uniform, and their characters: Hadamard at K = 2^m, else cyclic.

    ``DufmError`` for values beyond the floats.
    """
    check_count("num_classes", num_classes, 3)
    chi = characters("cyclic" if num_classes & (num_classes - 1) else "hadamard", num_classes)
    draw = np.random.default_rng(seed).dirichlet(np.ones(chi.num_free))
    start = torch.from_numpy(scale * chi.num_free * draw.clip(1e-6))
    check_in_range("scale: a singular value", start)
    return start, chi


def spectral(num_classes: int, depth: int, scale: float, seed: int) -> Running:
    """The spectral model: a generator of shares done that returns :class:`Explored`; ``DufmError`` for bad numbers."""
    start, chi = spectral_start(num_classes, scale, seed)
    run = spectral_flow(start, depth, chi, **_CONTROL)
    yield _FLOW
    found = spectral_end(run.s, depth, chi, sharpness=-LOG_LOSSES[-1])
    decided = bool(found.decided)
    values = torch.stack([start, *recorded(run.history).s, found.spectrum if decided else run.s])
    reason = str(found.reason)
    return _explored(depth, chi.logits(_from_start(values)), _from_start(values), int(found.rank) * decided, reason)


def network(num_classes: int, depth: int, width: int, scale: float, seed: int) -> Running:
    """A network of the model: a generator of shares done that returns :class:`Explored`.

    The share is that of the work as it usually falls.  ``DufmError`` for numbers out of range.
    """
    check_count("num_classes", num_classes, 3)
    start = gaussian_init(depth, width, num_classes, scale=scale ** (1 / depth), seed=seed)
    return (yield from _followed(start, depth))


def network_at(num_classes: int, depth: int, width: int, scale: float, seed: int) -> Running:
    """The network of the spectral model's start, followed as a product of matrices: as :func:`network`."""
    start, chi = spectral_start(num_classes, scale, seed)
    return (yield from _followed([W.unsqueeze(0) for W in spectral_init(start, depth, chi, width)], depth))


def finished(run: Running) -> Explored:
    """What a generator of shares returns, all of it done at once."""
    return returned(run)


def settings(draws: int, seed: int) -> list[dict[str, Any]]:
    """Values of ``SETTING`` drawn over the ranges of the sliders, the scale uniform in its logarithm."""
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(draws):
        num_classes, depth, start = (int(rng.integers(*span)) for span in ((3, 9), (2, 9), (0, 1000)))
        drawn.append(dict(zip(SETTING, (num_classes, depth, round(10 ** rng.uniform(-3, 0), 4), start), strict=True)))
    return drawn


def beside(num_classes: int, depth: int, scale: float, seed: int) -> dict[str, Any]:
    """Both panels at one start: the spectral model, and a network of width K there.

    Returns the setting, the names ``spectral`` and ``network`` of the ends ("refused": a network too slow for the
    panel), ``same``: both are decided, with one rank and margins equal to 1e-6, and ``apart``: the largest distance of
    their logits, scaled to norm 1, up to sharpness 256, NaN without a network.  ``DufmError`` for bad numbers.
    """
    setting = dict(zip(SETTING, (num_classes, depth, scale, seed), strict=True))
    few = finished(spectral(num_classes, depth, scale, seed))
    try:
        whole = finished(network_at(num_classes, depth, num_classes, scale, seed))
    except DufmError:
        return {**setting, "spectral": few.name, "network": "refused", "same": False, "apart": float("nan")}
    away = abs(float(whole.margin_ratio[-1] / few.margin_ratio[-1]) - 1)
    same = not few.reason and not whole.reason and few.rank == whole.rank and away < 1e-6
    one, other = (run.Z[:-1] / run.Z[:-1].norm(dim=(1, 2), keepdim=True) for run in (few, whole))
    apart = float((one - other).norm(dim=(1, 2)).max())
    return {**setting, "spectral": few.name, "network": whole.name, "same": same, "apart": round(apart, 4)}


def _followed(factors: Sequence[Tensor], depth: int) -> Running:
    model, Z = FactorModel(factors), chain(factors)
    check_slope(factors, model.evaluate(Z)[1])
    steps = following(model, model.flatten(factors), max_steps=_STEPS, **_CONTROL)
    while True:
        try:
            log_loss = float(next(steps))
        except StopIteration as stop:
            run: Run = stop.value
            break
        yield _FLOW * sum(level >= log_loss for level in LOG_LOSSES) / len(LOG_LOSSES)
    if run.status[0] != "reached":
        where = f"at log loss {float(run.log_loss):.3g}"
        raise DufmError(f"no end, but {run.status[0]} {where}; take a larger scale or width")
    factors, states = model.split(run.state), [Z, *chain(model.split(run.kept[0]))]
    growth, done = 0.0, False
    while not done:
        rest = limit(factors, sharpness=-LOG_LOSSES[-1], until_growth=_GROWTH)
        factors, growth = rest.factors, growth + float(rest.growth.nan_to_num(_MOST_GROWTH))
        done = str(rest.status[0]) != "still turning" or growth >= _MOST_GROWTH
        yield _LIMIT - (_LIMIT - _FLOW) * 0.5 ** (growth / _GROWTH)
    found = end(rest, depth)
    states.append(found.Z if found.decided.all() else rest.Z)
    Z = _from_start(centred(torch.cat(states)))
    values = torch.linalg.svdvals(Z)[:, :-1]
    return _explored(depth, Z, values, int(found.rank) * bool(found.decided), str(found.reason[0]))


def _from_start(states: Tensor) -> Tensor:
    """Levels that were never met, because the start had passed them, show the start."""
    missing = states.flatten(1).isnan().any(1)
    return torch.where(missing.reshape(-1, *[1] * (states.ndim - 1)), states[0], states)


def _explored(depth: int, Z: Tensor, values: Tensor, rank: int, reason: str) -> Explored:
    words, name = "", UNDECIDED
    if not reason:
        words, name = str(kkt_certificate(Z[-1], depth, rank)), str(name_of(Z[-1:])[0])
    ratio = normalized_margin(Z, depth) / closed_form_margin("nc", Z.shape[-1], depth)
    sharpness = np.array([np.nan, *(-level for level in LOG_LOSSES), np.inf])
    return Explored(depth, sharpness, Z, values, ratio, name, rank, words, reason)


def points(run: Explored) -> Tensor:
    r"""Places ``(n, K, 3)`` of the classes, of mean length 1: the features of balanced factors, in one frame.

    Those of logits :math:`U\Sigma V^\top` are, up to rotation, the columns of :math:`(Z^\top Z)^{1/4}`; they are
    seen in the three leading right singular vectors of the last recorded state: a picture turns only as they do.
    """
    frame = torch.linalg.svd(run.Z[-2]).Vh[:3].mT
    _, sigma, Vh = torch.linalg.svd(run.Z)
    places = Vh.mT @ (sigma.sqrt().unsqueeze(-1) * (Vh @ frame))
    return places / places.norm(dim=-1).mean(-1)[:, None, None]


def words(run: Explored, shown: int) -> str:
    """What a reader asks of a run: where the state in view stands, which end it goes to, and the certificate."""
    level = run.sharpness[check_count("shown", shown, 0, len(run.sharpness) - 1)]
    where = "at the start" if np.isnan(level) else "at the end" if np.isinf(level) else f"at sharpness {level:g}"
    ratio = f"{where} {float(run.margin_ratio[shown]):.3f} of the margin of neural collapse"
    if run.reason:
        return f"{ratio}; end undecided: {run.reason}"
    rank = f"rank {run.rank}"
    name = rank if run.name == rank else f"{run.name}, {rank}"
    return f"{ratio}; end: {name}, {float(run.margin_ratio[-1]):.4f} of it; {run.certificate}"


def columns(panel: str, run: Explored, shown: int, turn: float) -> dict[str, np.ndarray]:
    """Columns for a table, a row a state of :class:`Explored`: what a picture of the run needs.

    ``panel``: its name; ``shown``: the index of the state in view; ``turn``: degrees.  A dict of NumPy arrays.
    """
    places, n = points(run).numpy(), len(run.Z)
    share = (run.values / run.values.sum(-1, keepdim=True)).numpy()
    table = {
        "panel": np.full(n, panel),
        "depth": np.full(n, run.depth),
        "sharpness": run.sharpness,
        "shown": np.arange(n) == shown,
        "turn": np.full(n, turn),
        "margin_ratio": run.margin_ratio.numpy(),
        "name": np.full(n, run.name),
        "rank": np.full(n, run.rank),
        "certificate": np.full(n, run.certificate or "none"),
        "reason": np.full(n, run.reason or "decided"),
    }
    table |= {f"share_{i}": column for i, column in enumerate(share.T, 1)}
    return table | {f"{axis}_{c}": places[:, c, i] for c in range(places.shape[1]) for i, axis in enumerate("xyz")}


guard(globals())
