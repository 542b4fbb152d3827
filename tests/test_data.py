"""Data sets: what ships, files placed by hand, the fetch from OpenML (replaced: no test asks the network), refusals."""

import http.client
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
import time
import types
import zipfile
import zlib
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
import torch
from conftest import ROOT, posix

from dufm import DufmError, claims, data

FEATURES = {"mnist": 784, "fashion": 784, "cifar10": 3072}


def arrays(name, samples=40):
    """Arrays of a data set's shape, every class present."""
    rng = np.random.default_rng(0)
    return rng.random((samples, FEATURES[name]), dtype=np.float32), rng.permutation(np.arange(samples) % 10)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)


def test_digits_ship():
    X, y = data.load("digits")
    assert (X.shape, X.dtype, y.dtype) == ((1797, 64), np.float32, np.int64)
    assert (X.min(), X.max()) == (0.0, 1.0)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_file_placed_by_hand_needs_no_network(name, by, tmp_path, monkeypatch):
    X, y = arrays(name)
    np.savez_compressed(tmp_path / f"{name}.npz", X=X, y=y)
    if by == "environment":
        monkeypatch.setenv("DUFM_DATA", str(tmp_path))
    found = data.load(name, tmp_path if by == "argument" else None)
    assert np.array_equal(found[0], X) and np.array_equal(found[1], y)
    assert (found[0].dtype, found[1].dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("name", FEATURES)
def test_a_fetched_data_set_is_scaled_and_kept(name, tmp_path, monkeypatch):
    asked = []

    def openml(title, **options):
        asked.append(title)
        rng = np.random.default_rng(1)
        # As OpenML has them: bytes as floats, labels as texts.
        pixels = rng.integers(0, 256, (30, FEATURES[name])).astype(np.float64)
        pixels[0, :2] = 0, 255
        return types.SimpleNamespace(data=pixels, target=np.array([str(i % 10) for i in range(30)], dtype=object))

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", openml)
    X, y = data.load(name, tmp_path / "new" / "folder")
    assert (X.min(), X.max(), X.dtype) == (0.0, 1.0, np.float32) and y.tolist() == [i % 10 for i in range(30)]
    again = data.load(name, tmp_path / "new" / "folder")
    assert np.array_equal(X, again[0]) and np.array_equal(y, again[1])
    assert asked == [{"mnist": "mnist_784", "fashion": "Fashion-MNIST", "cifar10": "CIFAR_10"}[name]]


def test_a_fetch_of_something_else_is_refused_and_not_kept(tmp_path, monkeypatch):
    wrong = types.SimpleNamespace(data=np.zeros((30, 100)), target=np.arange(30) % 10)
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *args, **options: wrong)
    with pytest.raises(DufmError, match="OpenML's mnist_784: shapes"):
        data.load("mnist", tmp_path)
    assert list(tmp_path.glob("*mnist*npz*")) == []


@pytest.mark.parametrize(
    "error",
    [
        http.client.IncompleteRead(b"half", 100),
        http.client.RemoteDisconnected("closed"),
        ValueError("md5 checksum of local file\ndoes not match"),
        EOFError("Compressed file ended"),
        zlib.error("invalid block type"),
    ],
)
def test_a_dropped_connection_or_rubbish_from_openml_is_one_line(error, tmp_path, monkeypatch):
    def openml(*args, **options):
        raise error

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", openml)
    with pytest.raises(DufmError, match=f"OpenML does not deliver it .{type(error).__name__}") as caught:
        data.load("mnist", tmp_path)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(str(tmp_path / "mnist.npz"))
    assert f"data.load('mnist', '{tmp_path}')" in said
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_labels_from_openml_that_are_no_numbers_are_one_line(tmp_path, monkeypatch):
    wrong = types.SimpleNamespace(data=np.zeros((30, 784)), target=np.array(["shirt"] * 30, dtype=object))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *args, **options: wrong)
    with pytest.raises(DufmError, match="OpenML does not deliver it .ValueError: invalid literal"):
        data.load("fashion", tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DufmError, match="mnist.npz is missing, and its folder cannot be written"):
        data.load("mnist", tmp_path / "file")


def test_who_waits_for_a_fetch_does_not_fetch_again(tmp_path, monkeypatch):
    """Four at once: one fetches, the others wait for its file."""
    asked, found = [], []
    X, y = arrays("mnist")

    def openml(title, **options):
        asked.append(title)
        time.sleep(0.5)
        return types.SimpleNamespace(data=np.round(X * 255), target=y.astype(str))

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", openml)
    callers = [threading.Thread(target=lambda: found.append(data.load("mnist", tmp_path))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert asked == ["mnist_784"] and len(found) == 4
    assert all(np.array_equal(found[0][0], mine[0]) and mine[1].tolist() == y.tolist() for mine in found)


@pytest.mark.parametrize("name", FEATURES)
def test_offline_without_the_file_is_one_line_with_file_and_command(name, tmp_path):
    with pytest.raises(DufmError) as caught:
        data.load(name, tmp_path)
    said = str(caught.value)
    assert "\n" not in said and str(tmp_path / f"{name}.npz") in said
    assert f"python -c \"from dufm import data; data.load('{name}', '{tmp_path}')\"" in said
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_unknown_name():
    with pytest.raises(DufmError, match="name must be one of digits, mnist, fashion, cifar10, got 'imagenet'"):
        data.load("imagenet")


def changed(X, y, how):
    if how == "NaN":
        X[3, 5] = np.nan
    if how == "bytes":
        X = X * 255
    if how == "negative":
        X[0, 0] = -0.5
    if how == "features":
        X = X[:, :-1]
    if how == "images":
        X = X.reshape(-1, 28, 28)
    if how == "fewer labels":
        y = y[:-1]
    if how == "one-hot":
        y = np.eye(10, dtype=np.int64)[y]
    if how == "no samples":
        X, y = X[:0], y[:0]
    if how == "a class missing":
        y = y % 9
    if how == "labels from 1":
        y = y + 1
    if how == "double":
        X = X.astype(np.float64)
    if how == "float labels":
        y = y.astype(np.float32)
    return X, y


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("NaN", "must be finite"),
        ("bytes", r"must lie in \[0, 1\]"),
        ("negative", r"must lie in \[0, 1\]"),
        ("features", "shapes must be"),
        ("images", "shapes must be"),
        ("fewer labels", "shapes must be"),
        ("one-hot", "shapes must be"),
        ("no samples", "shapes must be"),
        ("a class missing", "labels 0 to 9"),
        ("labels from 1", "labels 0 to 9"),
        ("double", "float64"),
        ("float labels", "float32 and float32"),
    ],
)
def test_bad_arrays_in_a_file_are_refused(how, said, tmp_path):
    X, y = changed(*arrays("mnist"), how)
    np.savez_compressed(tmp_path / "mnist.npz", X=X, y=y)
    with pytest.raises(DufmError, match=said) as caught:
        data.load("mnist", tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "mnist.npz"))


@pytest.mark.parametrize("kind", ["text", "cut", "damaged", "empty", "bare array", "other names", "objects"])
def test_a_file_that_is_no_npz_with_X_and_y_is_refused(kind, tmp_path):
    path = tmp_path / "fashion.npz"
    X, y = arrays("fashion")
    np.savez_compressed(path, X=X, y=y)
    whole = path.read_bytes()
    if kind == "text":
        path.write_text("not here")
    if kind == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    if kind == "damaged":
        path.write_bytes(whole[:3000] + bytes(2000) + whole[5000:])
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "bare array":
        with open(path, "wb") as file:
            np.save(file, X)
    if kind == "other names":
        np.savez_compressed(path, images=X, labels=y)
    if kind == "objects":
        np.savez_compressed(path, X=X.astype(object)[:2, :2], y=y)
    with pytest.raises(DufmError, match="fashion.npz: not an .npz file with arrays X and y"):
        data.load("fashion", tmp_path)


def member(header, data=b""):
    """An array as NumPy writes it, with any text for its header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def declared(*shape):
    return member(str({"descr": "<f4", "fortran_order": False, "shape": shape}), bytes(64))


MEMBERS = {
    "10**12 samples": declared(10**12, 784),
    "10**30 samples": declared(10**30, 784),
    "less than none": declared(-1, 784),
    "more than there are": declared(1000, 784),
    "unclosed": member("{'descr': ("),
    "deep": member("(" * 5000),
    "long": member("[" * 60_000),
    "NUL": member("\0"),
    "no such type": member("{'descr': 'zz', 'fortran_order': False, 'shape': (1,)}"),
    "objects": member("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([1])),
    "later version": b"\x93NUMPY\x09\x00",
    "no array": b"text",
}


def packed(folder, X, how=zipfile.ZIP_DEFLATED):
    path = folder / "mnist.npz"
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("X.npy", X)
        archive.writestr("y.npy", declared(10))
    return path


def refused(folder):
    """What is said of ``mnist.npz`` in this folder: one line that names it."""
    with pytest.raises(DufmError) as caught:
        data.load("mnist", folder)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(str(folder / "mnist.npz")) and len(said) < 400
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return said


@pytest.mark.parametrize("how", MEMBERS)
def test_a_broken_header_is_one_line(how, tmp_path):
    packed(tmp_path, MEMBERS[how])
    assert "not an .npz file with arrays X and y" in refused(tmp_path)


@pytest.mark.parametrize("how", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_packings_are_refused_before_they_are_unpacked(how, tmp_path):
    packed(tmp_path, declared(1), how)
    assert "packed otherwise than numpy.savez does" in refused(tmp_path)


def test_an_encrypted_archive_is_one_line(tmp_path):
    path = packed(tmp_path, declared(1))
    body = bytearray(path.read_bytes())
    for head, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        body[body.index(head) + flags] |= 1
    path.write_bytes(body)
    assert "encrypted" in refused(tmp_path)


def test_what_unpacks_to_more_than_a_gibibyte_is_refused_before(tmp_path, monkeypatch):
    """The archive's directory says so; nothing of it is read."""
    path = packed(tmp_path, declared(1))
    body = bytearray(path.read_bytes())
    struct.pack_into("<I", body, body.index(b"PK\x01\x02") + 24, 2**30)
    path.write_bytes(body)
    monkeypatch.setattr(np, "load", None)
    assert re.search(rf"10737\d{{5}} bytes unpacked, more than {2**30}", refused(tmp_path))


@posix
@pytest.mark.parametrize("what", ["folder", "fifo", "link"])
def test_what_is_no_file_is_not_waited_for_nor_fetched_over(what, tmp_path):
    path = tmp_path / "mnist.npz"
    {"folder": path.mkdir, "fifo": lambda: os.mkfifo(path), "link": lambda: path.symlink_to("nowhere")}[what]()
    assert "something else is in its place" in refused(tmp_path)


@pytest.mark.parametrize("root", [5, True, b"x", [], "~nouser/x", "a\0b"])
def test_a_root_that_is_no_folder_is_one_line(root):
    with pytest.raises(DufmError, match="root must be (a folder|of type)|folder cannot be written"):
        data.load("mnist", root)


def test_a_full_disk_keeps_no_half_file(tmp_path, monkeypatch):
    X, y = arrays("mnist")

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    bunch = types.SimpleNamespace(data=np.round(X * 255), target=y.astype(str))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *args, **options: bunch)
    monkeypatch.setattr(np, "savez_compressed", full)
    assert "cannot be written" in refused(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if "lock" not in path.name] == []


def test_balanced_takes_the_first_of_every_class():
    X, y = np.arange(20, dtype=np.float32).reshape(10, 2), np.array([1, 0, 0, 1, 2, 2, 0, 2, 1, 0])
    columns, labels = data.balanced(X, y, 2)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and labels.dtype == torch.int64
    assert columns.dtype == torch.float64 and columns.T.tolist() == X[[1, 2, 0, 3, 4, 5]].tolist()
    with pytest.raises(DufmError, match="n_per_class must be an integer from 1 to 3, got 4"):
        data.balanced(X, y, 4)


def test_balanced_takes_tensors_and_lists():
    X, y = torch.arange(8.0).reshape(4, 2), torch.tensor([1, 0, 1, 0])
    columns, labels = data.balanced(X, y, 2)
    assert columns.T.tolist() == X[[1, 3, 0, 2]].tolist() and labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(data.balanced(X.tolist(), y.tolist(), 2)[0], columns)


@pytest.mark.parametrize(
    ("X", "y", "said"),
    [
        (np.zeros((6, 3)), [1, 2, 3, 1, 2, 3], "labels 0 to K − 1 of K ≥ 2 classes, each at least once, got 1, 2, 3"),
        (np.zeros((6, 3)), [0, 2, 0, 2, 0, 2], "got 0, 2$"),
        (np.zeros((6, 3)), [-1, 0, 1, 0, 1, 0], "got -1, 0, 1$"),
        (np.zeros((6, 3)), [0] * 6, "got 0$"),
        (np.zeros((20, 3)), list(range(1, 21)), "8, 9, 10, 11, 12, …$"),
        (np.zeros((6, 3)), ["a", "b"] * 3, "integers of shape .n,., got <U1"),
        (np.zeros((6, 3)), [0.0, 1.0] * 3, "got float64"),
        (np.zeros((6, 3)), np.eye(6, 2, dtype=int), r"got int64 of shape \(6, 2\)"),
        (np.zeros((0, 3)), [], r"of shape \(0,\)"),
        (np.zeros((5, 3)), [0, 1] * 3, r"a row for each of the 6 labels, got float64 of shape \(5, 3\)"),
        (np.full((6, 3), np.nan), [0, 1] * 3, "finite numbers"),
        (np.zeros((6, 3), dtype=object), [0, 1] * 3, "got object"),
        (np.zeros((8, 3)), [0, 1] * 3, r"a row for each of the 6 labels, got float64 of shape \(8, 3\)"),
        (np.zeros((6, 0)), [0, 1] * 3, r"got float64 of shape \(6, 0\)"),
        (np.full((6, 3), 1e300, dtype=np.longdouble), [0, 1] * 3, "finite numbers"),
        ([[1.0], [1.0, 2.0]], [0, 1], "that NumPy can hold"),
        (torch.zeros(6, 3, dtype=torch.bfloat16), [0, 1] * 3, "that NumPy can hold"),
        (torch.zeros(6, 3).to_sparse(), [0, 1] * 3, "that NumPy can hold"),
        (torch.zeros(6, 3, device="meta"), [0, 1] * 3, "that NumPy can hold"),
    ],
)
def test_balanced_refuses_in_words(X, y, said):
    with pytest.raises(DufmError, match=said) as caught:
        data.balanced(X, y, 1)
    assert "\n" not in str(caught.value)


def test_split_holds_out_what_is_not_trained_on():
    images, labels = data.load("digits")
    X, y, held, held_y = data.split("digits", 60, held=900)
    assert X.shape == (64, 600) and y.bincount().tolist() == [60] * 10 and held.shape == (64, 900)
    assert float(X.mean(1).abs().max()) < 1e-12
    mean = images[np.concatenate([np.flatnonzero(labels == k)[:60] for k in range(10)])].mean(0)
    seen = {tuple(row) for row in np.round(16 * (X.T.numpy() + mean)).astype(int)}
    other = np.round(16 * (held.T.numpy() + mean)).astype(int)
    assert len({tuple(row) for row in other}) == 900 and not seen & {tuple(row) for row in other}
    known = {tuple(row): int(label) for row, label in zip(np.round(16 * images).astype(int), labels, strict=True)}
    assert [known[tuple(row)] for row in other] == held_y.tolist()


def test_split_may_keep_the_mean_and_leaves_all_others():
    X, y, held, held_y = data.split("digits", 170, centred=False, held=1797)
    plain, labels = data.balanced(*data.load("digits"), 170)
    assert torch.equal(X, plain) and torch.equal(y, labels) and len(held_y) == held.shape[1] == 97
    assert all(torch.equal(a, b) for a, b in zip(data.split("digits", 20), data.split("digits", 20), strict=True))


def test_the_digest_changes_with_an_image_and_with_a_label(tmp_path, monkeypatch):
    monkeypatch.setenv("DUFM_DATA", str(tmp_path))
    X, y = arrays("mnist")
    found = []
    for pixel, label in ((0, 0), (1, 0), (0, 1)):
        X[0, 0], y[0] = pixel, label
        np.savez_compressed(tmp_path / "mnist.npz", X=X, y=y)
        found.append(data.fingerprint("mnist"))
    assert len(set(found)) == 3 and all(len(text) == 12 for text in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_notebook_71_runs_on_a_file(name, tmp_path):
    rng = np.random.default_rng(2)
    y = np.arange(150) % 10
    X = (0.5 * rng.random((10, FEATURES[name]))[y] + 0.5 * rng.random((150, FEATURES[name]))).astype(np.float32)
    np.savez_compressed(tmp_path / f"{name}.npz", X=X, y=y)
    command = [sys.executable, "-m", "dufm", "reproduce", "71", "--budget", "smoke", "-p", f"dataset={name}"]
    command += ["--jobs", "1", "--out", str(tmp_path / "out")]
    settings = {"DUFM_DATA": str(tmp_path), "DUFM_ROOT": str(ROOT), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    recorded = claims.recorded(tmp_path / "out" / "notebooks")
    assert set(recorded) >= {f"71-{name}-{word}" for word in ("reached", "depth", "width")}
    assert all(record.verdict == "not applicable" for record in recorded.values())
