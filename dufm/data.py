r"""Images to train on: handwritten digits, MNIST, Fashion-MNIST, CIFAR-10.

Imported by name (``from dufm import data``).  scikit-learn is loaded by the calls, not by the import.
"""

import contextlib
import hashlib
import http.client
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from dufm._checks import check_count
from dufm._door import guard
from dufm._error import DufmError

__all__ = ["NAMES", "balanced", "fingerprint", "load", "split"]

# Name at OpenML and number of features of each data set that is kept in a file.
_OPENML = {"mnist": ("mnist_784", 784), "fashion": ("Fashion-MNIST", 784), "cifar10": ("CIFAR_10", 3072)}
_NUM_CLASSES = 10
# Bytes that the arrays of a file may take, unpacked: CIFAR-10 takes 0.74e9.
_LARGEST = 2**30
#: Data sets that :func:`load` knows.
NAMES = ("digits", *_OPENML)


def load(name: str, root: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels: ``X`` float32 ``(n, features)`` in [0, 1], ``y`` int64 ``(n,)``, classes 0 … 9.

    ``"digits"``: 1797 images of 8 × 8, which scikit-learn ships.  ``"mnist"``, ``"fashion"`` (28 × 28) and
    ``"cifar10"`` (3 × 32 × 32) are read from ``root/NAME.npz``; where that file is missing it is fetched from OpenML,
    once, however many processes ask.  ``root``: folder, by default the environment variable ``DUFM_DATA``, else
    ``~/.cache/dufm``.  A file made by hand, ``numpy.savez_compressed("mnist.npz", X=X, y=y)``, serves as well and
    needs no network.

    ``DufmError``: an unknown name; no file, and no network or a folder that cannot be written; a file whose arrays
    are not as above, or take more than 1 GiB, which is known before they are unpacked.  Nothing is unpickled.
    Sources: LeCun et al. (1998), Xiao et al. (2017), Krizhevsky (2009), Alpaydin & Kaynak (1998) for the digits.
    """
    if not isinstance(name, str) or name not in NAMES:
        raise DufmError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    if name == "digits":
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        return (X / 16.0).astype(np.float32), y.astype(np.int64)
    path = _folder(root) / f"{name}.npz"
    if not os.path.isfile(path):
        _keep(name, path)
    X, y = _read(path)
    _check(X, y, _OPENML[name][1], path)
    return X, y


def balanced(X: np.ndarray | Tensor, y: np.ndarray | Tensor, n_per_class: int) -> tuple[Tensor, Tensor]:
    """The first ``n_per_class`` samples of every class, class by class: ``(features, K·n_per_class)`` and labels.

    Columns are samples, float64, as the rest of the package wants them.  ``X`` and ``y`` as from :func:`load`: NumPy
    arrays or tensors, a sample a row, labels 0 … K − 1.
    ``DufmError`` for labels that are not these, a class without a sample or with fewer than are asked for, and an ``X``
    that is no matrix of finite numbers with a row a label.
    """
    X, y = _samples(X, y)
    least = int(np.bincount(y).min())
    n_per_class = check_count("n_per_class", n_per_class, 1, least, why="the smallest class has no more samples")
    chosen = np.concatenate([np.flatnonzero(y == k)[:n_per_class] for k in range(y.max() + 1)])
    return torch.from_numpy(X[chosen].T.astype(np.float64)), torch.from_numpy(y[chosen].astype(np.int64))


def _samples(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of :func:`balanced`, or its refusal."""
    try:
        X, y = (np.asarray(part.detach().cpu() if isinstance(part, torch.Tensor) else part) for part in (X, y))
    except (TypeError, ValueError, RuntimeError) as error:  # ragged; sparse, bfloat16, on no device
        said = " ".join(str(error).split())
        raise DufmError(f"X and y must be arrays or tensors that NumPy can hold: {said}") from None
    if y.ndim != 1 or y.dtype.kind not in "iu" or not len(y):
        raise DufmError(f"y must hold the labels, integers of shape (n,), got {y.dtype} of shape {y.shape}")
    plain = X.ndim == 2 and len(X) == len(y) and X.size and X.dtype.kind in "iuf" and X.dtype.itemsize <= 8
    if not plain or not np.isfinite(X).all():
        raise DufmError(
            f"X must hold finite numbers, a row for each of the {len(y)} labels, got {X.dtype} of shape {X.shape}"
        )
    found = np.unique(y)
    if len(found) < 2 or not np.array_equal(found, np.arange(len(found))):
        shown = ", ".join(map(str, found[:12])) + (", …" if len(found) > 12 else "")
        raise DufmError(f"y must hold the labels 0 to K − 1 of K ≥ 2 classes, each at least once, got {shown}")
    return X, y


def split(
    name: str, n_per_class: int, *, centred: bool = True, held: int = 1000
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a network is trained on, and what it never sees: columns ``(features, n)`` and labels of both, float64.

    Trained on: the first ``n_per_class`` images of every class (:func:`balanced`).  Of the others up to ``held``, drawn
    without replacement, the same in every call.  ``centred``: the mean of the training images is taken off both.
    Returns ``X, y, held_X, held_y``; errors as :func:`load` and :func:`balanced`.
    """
    images, labels = load(name)
    X, y = balanced(images, labels, n_per_class)
    left = np.concatenate([np.flatnonzero(labels == k)[n_per_class:] for k in range(_NUM_CLASSES)])
    left = np.random.default_rng(0).permutation(left)[: held]
    mean = X.mean(1, keepdim=True) if centred else 0.0
    return X - mean, y, torch.from_numpy(images[left].T.astype(np.float64)) - mean, torch.from_numpy(labels[left])


def fingerprint(name: str) -> str:
    """Twelve letters that change with the data, so that a result of other images is not taken for one of these."""
    images, labels = load(name)
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:12]


def _folder(root: str | Path | None) -> Path:
    folder = root if root is not None else os.environ.get("DUFM_DATA") or "~/.cache/dufm"
    try:
        return Path(folder).expanduser()
    except (TypeError, RuntimeError) as error:  # no path; a home that nobody has
        raise DufmError(f"root must be a folder, got {folder!r}: {error}") from None


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of a file that anybody may have made."""
    try:
        with open(path, "rb") as handle, zipfile.ZipFile(handle) as archive:
            members = archive.infolist()
            # zipfile unpacks these two by the piece, up to the size that is declared, and the others at one go.
            if {member.compress_type for member in members} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError("packed otherwise than numpy.savez does")
            if (size := sum(member.file_size for member in members)) > _LARGEST:
                raise ValueError(f"{size} bytes unpacked, more than {_LARGEST}")
            handle.seek(0)
            with np.load(handle, allow_pickle=False) as file:
                X, y = file["X"], file["y"]
            if not isinstance(X, np.ndarray) or not isinstance(y, np.ndarray):
                raise ValueError("X or y is no array")
            return X, y
    # Its parsers raise a dozen kinds of errors, MemoryError and TokenError among them: each says the same of the file.
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DufmError(f"{path}: not an .npz file with arrays X and y ({said})") from None


def _keep(name: str, path: Path) -> None:
    """Fetch a data set into its file, unless another process has done so meanwhile."""
    if os.path.lexists(path):
        raise DufmError(f"{path} must be a file; something else is in its place")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path.parent / f".{name}.lock").acquire()
    except (OSError, ValueError) as error:
        raise DufmError(f"{path} is missing, and its folder cannot be written ({error})") from None
    with held:
        if path.is_file():
            return
        X, y = _fetch(name, path)
        _check(X, y, _OPENML[name][1], f"OpenML's {_OPENML[name][0]}")
        partial = path.with_name(f".{name}.part")  # a killed fetch leaves no half file under the name that is read
        try:
            with open(partial, "wb") as file:
                np.savez_compressed(file, X=X, y=y)
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise DufmError(f"{path} cannot be written ({error})") from None


def _fetch(name: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import fetch_openml

    try:
        bunch = fetch_openml(_OPENML[name][0], version=1, as_frame=False, cache=False)
        return (np.asarray(bunch.data) / 255.0).astype(np.float32), np.asarray(bunch.target).astype(np.int64)
    # URLError and HTTPError are OSErrors; a connection that drops is an HTTPException, what cannot be parsed the rest.
    except (OSError, http.client.HTTPException, ValueError, EOFError, zlib.error) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise DufmError(
            f"{path} is missing and OpenML does not deliver it ({said}); with a network, fetch it by "
            f"python -c \"from dufm import data; data.load('{name}', '{path.parent}')\", or put arrays X and y there "
            "by hand"
        ) from None


def _check(X: np.ndarray, y: np.ndarray, features: int, where: str | Path) -> None:
    """Refuse arrays that are not as :func:`load` promises; ``where`` names the file."""
    wanted = f"X float32 (n, {features}) in [0, 1] and y int64 (n,)"
    if X.ndim != 2 or X.shape[1] != features or y.shape != X.shape[:1] or not len(X):
        raise DufmError(f"{where}: shapes must be those of {wanted}, got {X.shape} and {y.shape}")
    if X.dtype != np.float32 or y.dtype != np.int64:
        raise DufmError(f"{where}: must hold {wanted}, got {X.dtype} and {y.dtype}")
    if not np.isfinite(X).all():
        raise DufmError(f"{where}: X must be finite, but it holds NaN or inf")
    if X.min() < 0.0 or X.max() > 1.0:
        raise DufmError(f"{where}: X must lie in [0, 1], got [{X.min():.3g}, {X.max():.3g}]")
    found = np.unique(y)
    if not np.array_equal(found, np.arange(_NUM_CLASSES)):
        wanted = f"the labels 0 to {_NUM_CLASSES - 1}, each at least once"
        raise DufmError(f"{where}: y must hold {wanted}, got {found[:20]}")


guard(globals())
