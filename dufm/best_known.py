r"""The best solution known of the margin problem for K classes at depth L: by theorem, closed form, table or search.

The table, best_known.csv beside this file, has a row for each K = 4 … 12 and L = 3 … 12: rank, name and margin over
that of neural collapse, and the logits, row by row, where no named code is as good.  It is written by
``best_known.save(range(4, 13), range(3, 13), path=…)``.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from dufm._checks import check_count
from dufm._door import guard
from dufm._polish import cut
from dufm.certificate import MAX_MARGINS, Certificate, polish
from dufm.codes import name_of, named
from dufm.margin import closed_form_margin, normalized_margin
from dufm.metrics import centred, numerical_rank
from dufm.search import best_rank

__all__ = ["BestKnown", "best", "save"]

_TABLE = Path(__file__).with_name("best_known.csv")
_TIE = 1e-9  # relative, of margins
_MOST = int((1 + (1 + 4 * MAX_MARGINS) ** 0.5) / 2)  # K(K − 1) margins are certified at once


@dataclass(frozen=True)
class BestKnown:
    """What :func:`best` knows for K classes at ``depth``; ``str()`` is a short table.

    ``Z`` ``(K, K)``: centred logits of smallest margin 1, float64; ``rank``; ``name`` (:func:`dufm.codes.name_of`,
    "rank r" where none fits); ``margin`` normalised, ``margin_ratio`` over that of neural collapse; ``certificate``;
    ``source``: "theorem", "closed form", "table" or "search".  Only a theorem excludes anything better.

    Units: none.  Source: this companion, notebooks 24 to 27.

    >>> print(dufm.best(3, 4))
    classes       3, depth 4
    rank          2 of 2
    code          NC
    margin        0.25, 1 of that of neural collapse
    certificate   residual below 1e-10, gap below 1e-10
    source        theorem
    """

    depth: int
    Z: torch.Tensor
    rank: int
    name: str
    margin: float
    margin_ratio: float
    certificate: Certificate
    source: str

    def __str__(self) -> str:
        """The table."""
        rows = {
            "classes": f"{len(self.Z)}, depth {self.depth}",
            "rank": f"{self.rank} of {len(self.Z) - 1}",
            "code": "none of those with a name" if self.name.startswith("rank") else self.name,
            "margin": f"{self.margin:.6g}, {self.margin_ratio:.5g} of that of neural collapse",
            "certificate": str(self.certificate),
            "source": self.source + ("" if self.source == "theorem" else ": something better may exist"),
        }
        return "\n".join(f"{key:12s}  {value}" for key, value in rows.items())


def best(num_classes: int, depth: int) -> BestKnown:
    r"""The best solution known of :math:`\max_Z \min_{j\ne c}(z_{cc} - z_{jc})/\|Z\|_{S_{2/L}}`: :class:`BestKnown`.

    At L = 2, and for K ≤ 3, that is neural collapse, by theorem (notebook 27).  Else the best of the named codes
    (:func:`dufm.codes.named`) and what searches found: from the table where it has the case, else by
    :func:`dufm.search.best_rank`, all ranks in one batch, in seconds up to K = 12.  Whatever it is, it is polished and
    certified anew.

    Shapes: the logits are ``(K, K)``.  Units: none.  Raises: ``DufmError`` for a K outside 2 … 45 (more cannot be
    certified), a depth below 2, or one at which the margins leave the floats.  Source: this companion,
    notebooks 24 to 27.

    >>> [dufm.best(4, depth).name for depth in (2, 3, 4)]
    ['NC', 'NC', 'orthoplex']
    >>> round(dufm.best(4, 6).margin_ratio, 4)
    1.6875
    """
    check_count("num_classes", num_classes, 2, _MOST, f"of more than {_MOST} classes none can be certified")
    closed_form_margin("nc", num_classes, depth)  # refuses a depth at which the margins leave the floats
    codes = [(Z, "closed form") for Z in named(num_classes).values()]
    if depth == 2 or num_classes <= 3:
        return _known(codes[0][0], "theorem", depth)
    kept = _table().get((num_classes, depth))
    if kept is not None:
        return _first([*codes, *((Z, "table") for Z in kept)], depth)
    found = best_rank(num_classes, depth)
    return _first([*codes, *([] if found is None else [(found.Z, "search")])], depth)


def save(classes: Iterable[int], depths: Iterable[int], *, restarts: int = 64, path: Path) -> None:
    """Search every case, at each depth also from what is best at the depth before, and write the table to ``path``.

    The table of the package is that of 4 to 12 classes, depths 3 to 12.
    """
    rows = []
    for num_classes in classes:
        codes = [(Z, "closed form") for Z in named(num_classes).values()]
        before: list[Tensor] = []
        for depth in sorted(depths):
            found = best_rank(num_classes, depth, restarts=restarts, starts=before)
            this = _first([*codes, *([] if found is None else [(found.Z, "search")])], depth)
            entries = this.Z.flatten().tolist() if this.source == "search" else []
            row = [num_classes, depth, this.rank, this.name, f"{this.margin_ratio:.8g}"]
            rows.append([*row, " ".join(f"{x:.8g}" for x in entries)])
            before = [this.Z]
    with open(path, "w", encoding="utf-8", newline="") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        write(["num_classes", "depth", "rank", "name", "margin_ratio", "entries"])
        for row in rows:
            write(row)


def _first(candidates: Sequence[tuple[Tensor, str]], depth: int) -> BestKnown:
    """The first of the candidates of largest margin."""
    margins = torch.stack([normalized_margin(Z, depth) for Z, _ in candidates])
    return _known(*candidates[int((margins > margins.max() * (1.0 - _TIE)).nonzero()[0])], depth)


def _known(Z: Tensor, source: str, depth: int) -> BestKnown:
    solved = polish(Z, depth, numerical_rank(centred(Z), 1e-6))
    margin = float(normalized_margin(solved.Z, depth))
    return BestKnown(
        depth=depth,
        Z=solved.Z,
        rank=int(solved.certificate.rank),
        name=str(name_of(solved.Z)),
        margin=margin,
        margin_ratio=margin / closed_form_margin("nc", len(Z), depth),
        certificate=solved.certificate,
        source=source,
    )


@lru_cache(maxsize=1)
def _table() -> dict[tuple[int, int], Tensor]:
    """By classes and depth: a stack of the kept logits, empty where a named code is as good."""
    with open(_TABLE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = {}
    for row in rows:
        num_classes, entries = int(row["num_classes"]), [float(x) for x in row["entries"].split()]
        shape = (int(bool(entries)), num_classes, num_classes)
        Z = torch.tensor(entries, dtype=torch.float64).reshape(shape)
        # At deep L the ninth digit of a zero singular value would count.
        kept[num_classes, int(row["depth"])] = cut(Z, int(row["rank"]))[0]
    return kept


guard(globals())
