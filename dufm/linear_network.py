r"""A deep linear network ``Z = W_L ⋯ W_1 X`` on given inputs, integrated by SciPy: the second route to the flow.

Nothing here is shared with :mod:`dufm.flow`: one network, NumPy, its own loss, backpropagation from the inputs on, and
the eighth-order pair of Dormand & Prince in ``scipy.integrate``.  On orthonormal inputs, ``XᵀX = I``, the features
``H = W_1 X`` move as if they were free: ``dH/dt = −(∂ℒ/∂H) XᵀX``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from dufm._checks import check_factors
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range
from dufm.model import chain

__all__ = ["first_layer", "linear_network_flow"]

# From here on log softplus(x) = x to the last bit of a float64.
_LINEAR_BELOW = -36
_LOWEST = -700  # e^700 is in the floats


def first_layer(H: Tensor, X: Tensor, beside: Tensor) -> Tensor:
    r"""First layer with given features on the inputs: ``W_1 = H X⁺ + B (I − X X⁺)``, so that ``W_1 X = H``.

    ``H`` ``(d, N)``; ``X`` ``(m, N)`` of rank N; ``beside`` B ``(d, m)``: what it does to all that no input sees.

    Units: none.  Raises: ``DufmError`` for shapes or dtypes that do not fit; a X of lower rank is not refused.  Source:
    this companion, notebook 11.

    >>> X = torch.eye(3, 2)
    >>> dufm.first_layer(torch.eye(2), X, torch.full((2, 3), 5.0)) @ X
    tensor([[1., 0.],
            [0., 1.]])
    """
    _check_first(X, beside, "beside")
    if H.shape != (beside.shape[0], X.shape[1]) or H.dtype != X.dtype:
        raise DufmError(f"H must have shape {(len(beside), X.shape[1])} and {X.dtype}, got {tuple(H.shape)}, {H.dtype}")
    inverse = torch.linalg.pinv(X)
    first = H @ inverse + beside - (beside @ X) @ inverse
    check_in_range("X: the layer", first)
    return first


def _check_first(X: Tensor, first: Tensor, name: str) -> None:
    """Refuse inputs ``X`` that are no matrix, and what does not act on them."""
    if X.ndim != 2 or first.shape[1:] != X.shape[:1] or first.dtype != X.dtype:
        raise DufmError(
            f"{name} must have shape (d, m) and X (m, N), of one dtype, got {tuple(first.shape)} {first.dtype} and "
            f"{tuple(X.shape)} {X.dtype}"
        )


def linear_network_flow(
    X: Tensor, weights: Sequence[Tensor], log_times: Sequence[float], *, rtol: float = 1e-11
) -> list[Tensor]:
    r"""Weights of the network under ``dW_l/dt = −∂ℒ/∂W_l`` at increasing values of log t.

    ``X`` ``(m, K)``, one input a class; ``weights`` ``[W_1, …, W_L]`` of shapes ``(d, m), (d, d), …, (K, d)``; ``rtol``
    the local error of a step.  Returns ``[W_1, …, W_L]`` with the levels as leading dimension, float64.  The path is
    stepped in τ, ``dt = dτ/ℒ``, and ``log(1 + t)`` is a state beside the weights.

    Units: time is that of dW/dt = −∇ℒ.  Raises: ``DufmError`` for shapes that do not fit, NaN, levels that do not
    increase, a level that is not reached, or a start with a product beyond the floats or a log ℒ below −700.  Source:
    Dormand & Prince's pair, by SciPy; this companion, notebook 11.

    >>> weights = [torch.eye(2).double() / 2] * 2
    >>> dufm.linear_network_flow(torch.eye(2).double(), weights, [0.0, 2.0])[1][:, 0].round(decimals=4)
    tensor([[ 0.7618, -0.2618],
            [ 1.2997, -0.7997]], dtype=torch.float64)
    """
    _check_first(X, weights[0], "weights: W_1")
    X, weights = X.detach(), [W.detach() for W in weights]
    factors = [weights[0] @ X, *weights[1:]]
    _, each, batch = check_factors(factors, "weights")
    if each != 1 or batch:
        raise DufmError(f"X must have shape (m, K), one input a class, and weights no batch, got {tuple(X.shape)}")
    Z = chain([W.double() for W in factors])
    check_in_range("weights: the product", Z)
    begin = float(_loss(Z.cpu().numpy())[0])
    if begin < _LOWEST:
        raise DufmError(f"weights must have log ℒ of at least {_LOWEST} on X, or time has no scale, got {begin:g}")
    if sorted(set(log_times)) != list(log_times):
        raise DufmError(f"log_times must increase, got {log_times}")
    shapes = [tuple(W.shape) for W in weights]
    cuts = np.cumsum([rows * columns for rows, columns in shapes])
    inputs = X.double().cpu().numpy()

    def unpack(state: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(shape) for part, shape in zip(np.split(state, cuts)[:-1], shapes, strict=True)]

    def field(_: Any, state: np.ndarray) -> np.ndarray:
        W = unpack(state)
        outputs = [inputs]
        for matrix in W:
            outputs.append(matrix @ outputs[-1])
        log_loss, back = _loss(outputs[-1])
        slopes: list[np.ndarray] = []
        for matrix, output in zip(reversed(W), reversed(outputs[:-1]), strict=True):
            slopes.insert(0, (back @ output.T).ravel())
            back = matrix.T @ back
        # Of log(1 + t), which starts at 0 and does not overflow.
        return np.concatenate([*slopes, [np.exp(-log_loss - state[-1])]])

    def beyond(_: Any, state: np.ndarray) -> float:
        return state[-1] - np.logaddexp(0, log_times[-1] + 1)

    beyond.terminal = True  # type: ignore[attr-defined]
    start = np.concatenate([*(W.double().cpu().numpy().ravel() for W in weights), [0.0]])
    run = scipy.integrate.solve_ivp(
        field, (0, 1e6), start, method="DOP853", rtol=rtol, atol=1e-14, dense_output=True, events=beyond
    )
    if not len(run.t_events[0]):
        raise DufmError(f"log t = {log_times[-1]} was not reached: {run.message}")

    def miss(tau: float, level: float) -> float:
        return run.sol(tau)[-1] - np.logaddexp(0, level)

    taus = [scipy.optimize.brentq(miss, 0, run.t[-1], args=(level,), xtol=1e-15, rtol=1e-15) for level in log_times]
    states = [unpack(run.sol(tau)) for tau in taus]
    return [torch.from_numpy(np.stack(level)).to(X.device) for level in zip(*states, strict=True)]


def _loss(Z: np.ndarray) -> tuple[float, np.ndarray]:
    """Log ℒ of square logits and ``−∂ log ℒ/∂Z``, by log-sums of the gaps ``z_jc − z_cc``."""
    gaps = Z - Z.diagonal()
    np.fill_diagonal(gaps, -np.inf)
    wrong = np.logaddexp.reduce(gaps, axis=0)
    log_sample = np.where(wrong < _LINEAR_BELOW, wrong, np.log(np.logaddexp(0, np.maximum(wrong, _LINEAR_BELOW))))
    log_loss = np.logaddexp.reduce(log_sample)
    slope = -np.exp(gaps - np.logaddexp(0, wrong) - log_loss)
    np.fill_diagonal(slope, -slope.sum(0))
    return log_loss, slope


guard(globals())
