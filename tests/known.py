"""Known matrices to test on, written down here once more: independent of :mod:`dufm.codes`."""

import math

import torch


def gram(vectors):
    vectors = torch.as_tensor(vectors, dtype=torch.float64)
    return vectors @ vectors.mT


def simplex(num_classes):
    return torch.eye(num_classes, dtype=torch.float64) - 1.0 / num_classes


def polygon(num_classes):
    angles = [2 * math.pi * k / num_classes for k in range(num_classes)]
    return gram([[math.cos(angle), math.sin(angle)] for angle in angles])


def orthoplex(num_classes):
    half = torch.eye(num_classes // 2, dtype=torch.float64)
    return gram(torch.cat([half, -half]))


def hypercube(num_classes):
    bits = num_classes.bit_length() - 1
    return gram([[1.0 - 2.0 * (k >> b & 1) for b in range(bits)] for k in range(num_classes)])


def ladder(num_classes, pairs):
    """P(K, t): t antipodal pairs and K − 2t single classes; from t = 1 a KKT point for every t but 1."""
    axes = torch.eye(num_classes - pairs, dtype=torch.float64)
    return gram(torch.cat([axes[:pairs], -axes[:pairs], axes[pairs:]]))


CODES = {"nc": simplex, "polygon": polygon, "orthoplex": orthoplex, "hypercube": hypercube}
RANK = {
    "nc": lambda num_classes: num_classes - 1,
    "polygon": lambda num_classes: 2,
    "orthoplex": lambda num_classes: num_classes // 2,
    "hypercube": lambda num_classes: num_classes.bit_length() - 1,
}


def rotated(Z, seed=0):
    """The same code with its classes in another order."""
    order = torch.randperm(len(Z), generator=torch.Generator().manual_seed(seed))
    return Z[order][:, order]


def shifted(Z, seed=0):
    """Z and a number added to every column: no margin changes."""
    return Z + dense(1, len(Z), seed)


def dense(num_classes, columns, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(num_classes, columns, generator=generator, dtype=torch.float64)
