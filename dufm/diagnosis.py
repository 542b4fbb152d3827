r"""A user's own classifier: what have its logits become?

The class means of the logits are read as the end of a run (:func:`dufm.end`): centred, cut, polished, certified.  What
is not separated, or not near a certified solution, has no rank, and the reason stands in its place.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from dufm._door import guard
from dufm._error import DufmError
from dufm._samples import dense, logits_and_labels, matrix, whole_as_float
from dufm._scaling import check_in_range, in_range, times_power
from dufm.agreement import selected_code
from dufm.certificate import MAX_MARGINS, Certificate
from dufm.codes import class_code, named, one_vs_rest_margin, pairs_and_singles
from dufm.ends import DECIDED_MOVE, end
from dufm.margin import closed_form_margin, normalized_margin
from dufm.metrics import centred, effective_rank, nc_metrics, numerical_rank

__all__ = ["Diagnosis", "code_distance", "diagnose"]

Matrix = Tensor | np.ndarray | Sequence[Sequence[float]]

_TRIES = 8  # starts of the search for the best numbering of a code's vectors


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found of one network; ``str()`` is a table.

    ``Z`` ``(K, K)``: centred class-mean logits, a class a column; ``samples``, and the least and the largest number of
    them a class has, ``class_sizes``; ``depth``, None where none was given;
    ``margins``: least, median and largest margin of a sample; ``effective_rank`` and ``stable_rank`` ‖Z‖_F²/σ_1² of Z.
    ``rank``: that of the certified solution, None where nothing is ``decided``, and then ``reason`` says why.
    ``name``: the nearest named code, ``distance`` how far Z is from it (:func:`code_distance`).
    ``nc``: :func:`dufm.nc_metrics` as plain numbers with the ``rank`` used, of the ``layer`` named, "features" or
    "logits".  ``certificate`` of the solution, None without a depth or a decision; ``margin_ratio``: normalised margin
    over that of neural collapse at this depth, NaN without one; ``code_gap``: ``1 −`` the one-vs-rest margin of the
    class code of this rank over that of the softmax code, NaN without a rank.

    Units: those of the logits for ``margins``, else none.  Source: this companion, notebook 91.

    >>> found = dufm.diagnose(30 * torch.eye(4)[[0, 1, 2, 3, 0]], [0, 1, 2, 3, 0])
    >>> found.name, found.rank, found.margins
    ('NC', 3, (30.0, 30.0, 30.0))
    """

    Z: torch.Tensor
    samples: int
    class_sizes: tuple[int, int]
    depth: int | None
    margins: tuple[float, float, float]
    effective_rank: float
    stable_rank: float
    rank: int | None
    decided: bool
    reason: str
    name: str
    distance: float
    nc: dict[str, float]
    layer: str
    certificate: Certificate | None
    margin_ratio: float
    code_gap: float

    @property
    def sentence(self) -> str:
        """The finding in one sentence."""
        if not self.decided:
            found = f"{self.reason}; no rank decided"
        elif self.name != "NC" or self.rank != len(self.Z) - 1:
            found = f"rank {self.rank} of {len(self.Z) - 1}: nearest the {self.name}, {self.distance:.0%} away"
        elif self.layer == "features":
            found = f"neural collapse of the logits, NC2 {self.nc['nc2']:.2g} of the features"
        else:
            found = f"neural collapse, NC2 {self.nc['nc2']:.2g}"
        least, most = self.class_sizes
        return found if least == most else f"{found}; {least} to {most} samples a class, read as if equal"

    def __str__(self) -> str:
        """The table."""
        least, median, largest = self.margins
        nc = ", ".join(f"{key.upper()} {self.nc[key]:.2g}" for key in ("nc1", "nc2", "nc3"))
        rows = {
            "classes": f"{len(self.Z)}, {self.samples} samples",
            "margins": f"least {least:.3g}, median {median:.3g}, largest {largest:.3g}",
            "rank": f"{self.rank or 'not decided'} of {len(self.Z) - 1}; "
            f"effective {self.effective_rank:.2f}, stable {self.stable_rank:.2f}",
            "collapse": f"{nc} of the {self.layer}, at rank {self.nc['rank']}",
            "nearest code": f"{self.name}, {self.distance:.1%} away",
        }
        if self.depth:
            rows[f"depth {self.depth}"] = f"margin {self.margin_ratio:.4f} of that of neural collapse"
        if self.certificate:
            rows["certificate"] = f"{self.certificate} of the solution nearby"
        if self.decided:
            rows["softmax code"] = f"of rank {self.rank}: {self.code_gap:.1%} short of its one-vs-rest margin"
        return "\n".join([*(f"{key:12s}  {value}" for key, value in rows.items()), self.sentence])


def diagnose(
    logits: Matrix,
    labels: Tensor | np.ndarray | Sequence[int],
    *,
    depth: int | None = None,
    features: Matrix | None = None,
    classifier: Matrix | None = None,
) -> Diagnosis:
    r"""What a trained classifier has become, from its logits on the training samples: :class:`Diagnosis`.

    ``logits``: ``(N, K)`` as PyTorch gives them, or ``(K, N)``: ``labels`` ``(N,)``, integers 0 … K − 1, tell which;
    unsorted and unbalanced as they come: each class counts by its mean, and unequal sizes, whose own margin problem is
    another (notebook 85), are named in the sentence.  NumPy or torch, float32 or float64, on any device; the work is in
    float64.  Column c of ``Z`` is the mean of the logits of class c less its mean over the classes.  The rank is that
    of the certified solution within 10% of Z at ``depth`` (weight matrices of the linear part, features included);
    without a depth only the named codes that are critical at every depth count: all but one pair among singles.  Beyond
    45 classes only collapse is compared and nothing is certified; 45 take some ten seconds.  ``features`` ``(N, d)``
    and ``classifier`` ``(K, d)``, rows as PyTorch has them, give the collapse metrics of that layer (NC3 is NaN without
    the classifier); else they are those of the logits.  Every class counts alike: Σ_W is the mean over the classes of
    their own covariances.

    Units: none.  Raises: ``DufmError`` for lengths that do not fit, a square matrix that reads differently both ways, a
    class without a sample, labels that are no class, probabilities in the place of logits, logits that are no finite
    floating numbers or whose margins are beyond the floats, and a depth below 2.  Source: Papyan, Han & Donoho (2020)
    for the metrics; this companion, notebook 91.

    >>> labels = 2 * [0, 1, 2, 3]
    >>> square = dufm.polygon(4) @ dufm.polygon(4).mT
    >>> dufm.diagnose(20 * square[labels], labels, depth=4).sentence
    'rank 2 of 3: nearest the orthoplex, 0% away'
    """
    logits, labels = logits_and_labels(logits, labels)
    sizes = torch.bincount(labels)
    logits, e = in_range(logits)
    samples, num_classes = logits.shape
    own = logits.gather(1, labels[:, None])
    gaps = times_power((own - logits).scatter(1, labels[:, None], torch.inf).amin(1), e[0])
    check_in_range("logits: a margin", gaps)
    means = centred(_means(logits, labels, num_classes).mT)
    # All but the margins is blind to scale.
    Z = in_range(means)[0]
    sigma = torch.linalg.svdvals(Z)
    few = num_classes * (num_classes - 1) <= MAX_MARGINS
    codes = named(num_classes) if few else {"NC": pairs_and_singles(num_classes, 0)}
    name, distance = _nearest(Z, codes)
    rank, certificate, reason = _decide(Z, depth, gaps, name, codes[name], distance, few)
    nc, layer = _collapse(logits, labels, features, classifier, rank or num_classes - 1)
    return Diagnosis(
        Z=times_power(means, e),
        samples=samples,
        class_sizes=(int(sizes.min()), int(sizes.max())),
        depth=depth,
        margins=(float(gaps.min()), float(np.median(gaps.cpu().numpy())), float(gaps.max())),
        effective_rank=float(effective_rank(Z)),
        stable_rank=float((sigma / sigma[0]).square().sum()) if sigma[0] > 0 else 0.0,
        rank=rank,
        decided=rank is not None,
        reason=reason,
        name=name,
        distance=distance,
        nc=nc,
        layer=layer,
        certificate=certificate,
        margin_ratio=_margin_ratio(Z, depth),
        code_gap=math.nan if rank is None else _code_gap(Z, rank),
    )


def code_distance(Z: Matrix, code: Matrix) -> float:
    r"""Distance of logits ``Z`` ``(K, K)`` from those of a ``code`` ``(K, K)``, whatever its scale and numbering.

    :math:`\min_{\pi, c}\|Z - c\,\Pi Z_0\Pi^\top\|_F/\|Z\|_F` over the permutations of the classes and c ≥ 0, both
    centred.  The permutation is searched (FAQ, then exchanges of two; Vogelstein et al. 2015), from eight random
    starts: an upper bound.  None is needed for neural collapse.  1 where nothing is alike, and for Z = 0.
    """
    Z, code = (matrix(name, whole_as_float(dense(name, part))) for name, part in (("Z", Z), ("code", code)))
    if not Z.shape == code.shape == Z.mT.shape:
        raise DufmError(f"Z and code must have one shape (K, K), got {tuple(Z.shape)} and {tuple(code.shape)}")
    Z, code = (centred(in_range(part)[0]).numpy() for part in (Z, code))
    size = np.linalg.norm(Z) * np.linalg.norm(code)
    if size == 0:
        return 1.0
    rng, best = np.random.default_rng(0), max(0.0, float((Z * code).sum() / size))
    for _ in range(0 if _is_collapse(code) else _TRIES):
        options = {"maximize": True, "rng": rng, "P0": "randomized"}
        rough = scipy.optimize.quadratic_assignment(Z, code, options=options)
        guess = np.column_stack([np.arange(len(Z)), rough.col_ind])
        found = scipy.optimize.quadratic_assignment(
            Z, code, method="2opt", options={"maximize": True, "rng": rng, "partial_guess": guess}
        )
        best = max(best, found.fun / size)
    return math.sqrt(max(0.0, 1.0 - min(best, 1.0) ** 2))


def _is_collapse(code: np.ndarray) -> bool:
    """Whether every numbering of the classes gives the same centred logits."""
    collapse = np.eye(len(code)) - 1 / len(code)
    return bool(np.abs(code - np.trace(code) / (len(code) - 1) * collapse).max() <= 1e-12 * np.abs(code).max())


# ---------------------------------------------------------------- what is found


def _means(rows: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Means of the rows of each class, ``(K, d)``."""
    sums = rows.new_zeros(num_classes, rows.shape[1]).index_add(0, labels, rows)
    return sums / torch.bincount(labels, minlength=num_classes)[:, None]


def _nearest(Z: Tensor, codes: dict[str, Tensor]) -> tuple[str, float]:
    """The nearest code and its distance; none is compared whose least distance, by von Neumann's inequality, is more.

    ⟨Z, ΠZ_0Πᵀ⟩ ≤ Σσ_i(Z)σ_i(Z_0) in every numbering, so that codes of another spectrum need no search.
    """
    sigma = torch.linalg.svdvals(Z)
    reach = {}
    for name, code in codes.items():
        other = torch.linalg.svdvals(centred(code))
        reach[name] = float(sigma @ other / (sigma.norm() * other.norm()).clamp(min=1e-300))
    found, distance = "", math.inf
    for name in sorted(reach, key=lambda name: -reach[name]):
        if math.sqrt(max(0.0, 1.0 - reach[name] ** 2)) >= distance:
            break
        here = code_distance(Z, codes[name])
        if here < distance:
            found, distance = name, here
    return found, distance


def _decide(
    Z: Tensor, depth: int | None, gaps: Tensor, name: str, code: Tensor, distance: float, few: bool
) -> tuple[int | None, Certificate | None, str]:
    """Rank, certificate and reason; without a depth by the nearest named ``code``, which has no certificate."""
    wrong = int((gaps <= 0).sum())
    if wrong:
        order = ", are logits and labels in one order?" if 2 * wrong > len(gaps) else ""
        return None, None, f"not separated: {wrong} of {len(gaps)} samples have no positive margin{order}"
    near = f"within {DECIDED_MOVE:.0%} at a least margin of {float(gaps.min()):.3g}"
    if depth is None:
        if distance > DECIDED_MOVE:
            return None, None, f"no {'named code' if few else 'collapse'} {near}"
        if name.startswith("1 pair,"):  # notebook 25
            return None, None, f"{name} is critical at no depth"
        return int(numerical_rank(code, 1e-6)), None, ""
    if not few:
        return None, None, f"{len(Z)} classes are too many to certify"
    found = end(Z, depth)
    return (int(found.rank), found.certificate, "") if found.decided else (None, None, f"no certified solution {near}")


def _margin_ratio(Z: Tensor, depth: int | None) -> float:
    if depth is None or not Z.any():
        return math.nan
    return float(normalized_margin(Z, depth)) / closed_form_margin("nc", len(Z), depth)


def _code_gap(Z: Tensor, rank: int) -> float:
    if rank == 1:
        return 0.0
    best = one_vs_rest_margin(selected_code(len(Z), rank))
    return float(1.0 - one_vs_rest_margin(class_code(Z, rank)) / best)


def _collapse(
    logits: Tensor, labels: Tensor, features: Any, classifier: Any, rank: int
) -> tuple[dict[str, float], str]:
    num_classes = logits.shape[1]
    if features is None:
        if classifier is not None:
            raise DufmError("classifier needs the features that it reads: pass features of shape (N, d) too")
        layer, features, classifier = "logits", logits, torch.eye(num_classes, dtype=logits.dtype)
    else:
        layer, features = "features", in_range(matrix("features", features))[0]
        if len(features) != len(labels):
            raise DufmError(f"features must have shape (N, d), N = {len(labels)}, got {tuple(features.shape)}")
        wanted = num_classes, features.shape[1]
        classifier = matrix("classifier", features.new_zeros(wanted) if classifier is None else classifier)
        if classifier.shape != wanted:
            raise DufmError(
                f"classifier must have shape (K, d) = {wanted}, rows as PyTorch has them, got {tuple(classifier.shape)}"
            )
    found = nc_metrics(_balanced(features, labels, num_classes), classifier, rank=rank)
    return {key: int(value) if key == "rank" else float(value) for key, value in found.items()}, layer


def _balanced(rows: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Columns ``(d, Kn)``, n a class, with the class means of ``rows`` and the covariance of every class.

    n is twice the largest class: a deviation stands with both signs, scaled, and the rest of a class is its mean.
    """
    means, counts = _means(rows, labels, num_classes), torch.bincount(labels, minlength=num_classes)
    most = int(counts.max())
    place = torch.cat([torch.arange(int(count)) for count in counts])
    order = labels.argsort(stable=True)
    spread = rows.new_zeros(num_classes, most, rows.shape[1])
    scale = (most / counts.to(rows)).sqrt()[labels[order], None]
    spread[labels[order], place] = scale * (rows[order] - means[labels[order]])
    both = torch.cat([spread, -spread], 1) + means[:, None]
    return both.flatten(0, 1).mT


guard(globals())
