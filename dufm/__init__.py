"""Companion to "The Implicit Bias of Depth": the deep unconstrained feature model, its flow and its certificates.

The rooms, ground floor first; each imports only from those before it::

    loss, model, metrics          loss in the log domain; factors and their starts; ranks, margins, NC metrics
    groups, hadamard              finite abelian groups; the exact polyhedron of Hadamard spectra and its linear codes
    laws                          closed laws of singular values and of time
    flow, spectral                gradient flow and descent of factors; the flow of singular values
    linear_network, propagation   the linear network by SciPy; how products of matrices propagate norm
    networks, data                bias-free networks and their training; images
    margin, codes, code_search    norms and closed margins; named codes; the search for softmax codes
    certificate, ends, search     KKT certificate and polish; from a run to its certified end; multi-start search
    best_known                    the best solution known for K classes at depth L
    rank_two                      least product of two singular values, depth from which rank 2 is best
    agreement                     depth's best solution beside the softmax code of the same rank
    diagnosis                     a user's own logits: what have they become?
    perturbation                  small deviations from collapse: four families and their laws
    basin, shares                 which starts collapse, and what share of all directions they are
    complement                    what a KKT point leaves out: extra values beside it, and turns into their block
    width, lazy                   where random networks end, by depth and width; how long wide ones stay lazy
    alignment                     starts of the same logits and other factors
    choice                        which critical point a random network reaches
    descent                       descent with finite steps, and where it ends
    minibatches                   descent with batches of the samples, and where it ends
    optimizers                    methods that descend in other norms, and the margin problem where each ends
    weight_decay                  the flow with weight decay: where it rests, and which ends it unmakes
    unbalanced                    starts with small and big layers, and the depth that they have at first
    class_sizes, soft_labels      classes of unequal size; labels of which a share is wrong
    rectified                     one ReLU between the factors
    learned                       networks trained on images
    heads                         a convolutional body with a deep linear head
    explorer                      one run as a reader explores it, from its start along the loss to its certified end
    peers, cost                   the same flow by other solvers; what a decided end costs beside them, and how it grows

What the notebooks share is in ``dufm.companion``; ``dufm.figures``, ``dufm.sweep`` and the others are short for it.
Examples in docstrings follow ``import dufm, torch`` and ``import numpy as np``.
"""

import importlib.util
from typing import TYPE_CHECKING, Any

from dufm._error import needs

if TYPE_CHECKING:
    from dufm._public import *  # noqa: F403
    from dufm._public import __all__ as __all__

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Public names, loaded with torch when the first is used; other rooms; what notebooks share: ``dufm.figures``."""
    for module in (f"dufm.{name}", f"dufm.companion.{name}"):
        if not name.startswith("_") and importlib.util.find_spec(module):
            try:
                return importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise needs(f"dufm.{name}", error) from None
    public = vars(importlib.import_module("dufm._public"))
    if name != "__all__" and name not in public["__all__"]:
        raise AttributeError(f"module 'dufm' has no attribute {name!r}")
    globals().update({known: public[known] for known in ("__all__", *public["__all__"])})
    return public[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
