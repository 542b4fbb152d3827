"""Tolerances of the numerical tests, in one place, by dtype.

``rounding``: a few roundings of one elementary formula.  ``linalg``: a factorisation or a product of small
matrices.  ``solver``: where a test compares with another solver, whose own accuracy is the limit.
"""

import torch

ROUNDING = {torch.float64: 2e-15, torch.float32: 2e-6}
LINALG = {torch.float64: 1e-12, torch.float32: 1e-4}
SOLVER = {torch.float64: 1e-6, torch.float32: 1e-3}
# What the certificates promise.
CERTIFIED = 1e-8
# Error of log t against an independent integration, by rtol of the flow.
FLOW = {1e-4: 5e-3, 1e-9: 1e-7}
# How nearly a recorded state lies on its level.
LANDED = 1e-9


def close(actual, expected, tol):
    """Largest deviation within ``tol`` of the expected size (at least 1 for numbers near zero)."""
    actual = torch.as_tensor(actual, dtype=torch.float64)
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert actual.shape == expected.shape, f"shapes {tuple(actual.shape)} and {tuple(expected.shape)}"
    assert torch.isfinite(actual).all(), f"not finite: {actual}"
    deviation = ((actual - expected).abs() / expected.abs().clamp(min=1.0)).max().item()
    assert deviation <= tol, f"deviation {deviation:.3g} above {tol:.3g}"


def relative(actual, expected):
    """‖actual − expected‖/‖expected‖ over all entries."""
    return (torch.linalg.vector_norm(actual - expected) / torch.linalg.vector_norm(expected)).item()
