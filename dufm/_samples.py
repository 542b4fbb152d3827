"""Logits, labels and features as a user has them, arrays, tensors, tables or lists, as tensors on the CPU."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._error import DufmError

__all__ = ["dense", "logits_and_labels", "matrix", "whole_as_float"]

NUMBERED = "np.unique(labels, return_inverse=True)[1] numbers the classes"


def logits_and_labels(logits: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Logits ``(N, K)`` and whole labels ``(N,)``; ``DufmError`` for what is neither, as :func:`dufm.diagnose` says."""
    logits, labels = matrix("logits", logits), dense("labels", labels)
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.ndim != 1 or not whole:
        raise DufmError(f"labels must be integers of shape (N,), got {labels.dtype} of shape {tuple(labels.shape)}")
    rows, columns = logits.shape
    if len(labels) not in (rows, columns):
        raise DufmError(f"labels must have one entry a sample: {len(labels)} do not fit logits {rows, columns}")
    if rows == columns and not torch.equal(logits, logits.mT):
        raise DufmError(
            f"logits of shape {rows, columns} read two ways: a sample a row, as PyTorch gives them, or a sample a "
            "column; repeat one sample with its label, so that the numbers of samples and of classes differ"
        )
    logits = logits if len(labels) == rows else logits.mT
    num_classes = logits.shape[1]
    if num_classes < 2:
        raise DufmError(f"logits must have at least 2 classes, got shape {rows, columns}")
    labels = labels.long()
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DufmError(
            f"labels must be from 0 to {num_classes - 1}, got {int(labels.min())} to {int(labels.max())}; {NUMBERED}"
        )
    missing = sorted(set(range(num_classes)) - set(labels.tolist()))
    if missing:
        raise DufmError(f"labels must name every class: there is no sample of {', '.join(map(str, missing[:5]))}")
    if logits.min() >= 0 and ((logits.sum(1) - 1).abs() < 1e-3).all():
        raise DufmError("logits must be those before the softmax, got rows of probabilities")
    return logits, labels


def matrix(name: str, values: Any) -> Tensor:
    """A matrix of finite floating numbers."""
    values = dense(name, values)
    if not values.is_floating_point() or values.ndim != 2 or values.numel() == 0:
        shape = tuple(values.shape)
        raise DufmError(f"{name} must be a matrix of floating numbers, got {values.dtype} of shape {shape}")
    values = values.double()
    if not torch.isfinite(values).all():
        raise DufmError(f"{name} must be finite, but it holds NaN or inf")
    return values


def whole_as_float(values: Tensor) -> Tensor:
    """Whole numbers as floating ones."""
    return values if values.is_floating_point() or values.is_complex() else values.double()


def dense(name: str, values: Any) -> Tensor:
    """A tensor, an array, a table or nested lists as a tensor on the CPU."""
    try:
        if isinstance(values, torch.Tensor):
            return values.detach().to("cpu").to_dense()
        array = np.array(values)
        return torch.as_tensor(array.astype(array.dtype.newbyteorder("=")))
    except (TypeError, ValueError, RuntimeError):
        kind = type(values).__name__
        raise DufmError(f"{name} must be an array or a tensor of numbers, got {kind}{_hint(name, values)}") from None


def _hint(name: str, values: Any) -> str:
    """What to pass instead of what is often passed."""
    if isinstance(values, torch.nn.Module):
        return ": pass its .weight" if name == "classifier" else ": pass what it gives for the training samples"
    if isinstance(values, (list, tuple)) and any(isinstance(part, (torch.Tensor, np.ndarray)) for part in values):
        return " of batches: join them with torch.cat or np.concatenate"
    return f": {NUMBERED}" if name == "labels" else ""
