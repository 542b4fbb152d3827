"""The log-domain loss against mpmath at 60 digits, against torch's cross-entropy, and against autograd."""

import math

import mpmath
import pytest
import torch
from tolerances import LINALG, ROUNDING, close

from dufm import DufmError, log_loss, log_loss_residual
from dufm.loss import evaluate


def random_logits(*shape, scale, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def exact(Z):
    """log ℒ and −∂ log ℒ/∂Z of one matrix, at 60 digits."""
    num_classes, columns = Z.shape
    n_per_class = columns // num_classes
    with mpmath.workdps(60):
        entries = [[mpmath.mpf(value) for value in row] for row in Z.tolist()]
        loss, residual = mpmath.mpf(0), [[None] * columns for _ in range(num_classes)]
        for i in range(columns):
            c = i // n_per_class
            odds = [mpmath.exp(entries[j][i] - entries[c][i]) for j in range(num_classes)]
            wrong = mpmath.fsum(odds[j] for j in range(num_classes) if j != c)
            loss += mpmath.log1p(wrong) / n_per_class
            for j in range(num_classes):
                residual[j][i] = (wrong if j == c else -odds[j]) / (1 + wrong) / n_per_class
        slope = [[float(value / loss) for value in row] for row in residual]
        return float(mpmath.log(loss)), torch.tensor(slope, dtype=torch.float64)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 30.0, 300.0, 1e4])
@pytest.mark.parametrize(("num_classes", "n_per_class"), [(2, 1), (4, 1), (3, 4)])
def test_log_loss_and_residual_match_mpmath(scale, num_classes, n_per_class):
    for seed in range(3):
        noise = random_logits(num_classes, num_classes * n_per_class, scale=scale, seed=seed)
        truth = torch.eye(num_classes, dtype=torch.float64).repeat_interleave(n_per_class, 1)
        for Z in (noise, noise + 3 * scale * truth, noise - scale * truth):
            value, slope = exact(Z)
            close(log_loss(Z), value, 4 * ROUNDING[torch.float64])
            # A gap of size s is known to s·eps, which is the relative error of its exponential.
            gap_error = (Z.abs().max().item() + 10) * 4 * torch.finfo(torch.float64).eps
            assert ((log_loss_residual(Z) - slope).abs() <= gap_error * slope.abs() + 1e-300).all()


def test_log_loss_of_minus_ten_thousand():
    num_classes, s = 4, 10_000.0
    Z = s * torch.eye(num_classes, dtype=torch.float64)
    close(log_loss(Z), -s + math.log(num_classes * (num_classes - 1)), ROUNDING[torch.float64])
    # Every wrong class has the same weight, the true class minus their sum; ℒ has dropped out.
    wrong = -1.0 / (num_classes * (num_classes - 1))
    expected = torch.full((4, 4), wrong, dtype=torch.float64).fill_diagonal_(1.0 / num_classes)
    close(log_loss_residual(Z), expected, ROUNDING[torch.float64])


@pytest.mark.parametrize(
    "gap", [-36.9, -36.9999999, -37.0, -37.0000001, -50.0, -744.0, -745.2, -760.0, 39.9, 40.1, 800.0]
)
def test_branches_join(gap):
    Z = torch.tensor([[0.0, 0.5 * gap], [gap, 0.0]], dtype=torch.float64)
    value, slope = exact(Z)
    close(log_loss(Z), value, ROUNDING[torch.float64])
    close(log_loss_residual(Z), slope, 1e3 * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("n_per_class", [1, 3])
def test_matches_cross_entropy_and_autograd(n_per_class):
    num_classes = 5
    Z = random_logits(6, num_classes, num_classes * n_per_class, scale=2.0).requires_grad_()
    labels = torch.arange(num_classes).repeat_interleave(n_per_class).expand(6, -1)
    loss = torch.nn.functional.cross_entropy(Z, labels, reduction="none").sum(-1) / n_per_class
    (gradient,) = torch.autograd.grad(loss.log().sum(), Z)
    Z = Z.detach()
    close(log_loss(Z), loss.log().detach(), LINALG[torch.float64])
    close(log_loss_residual(Z), -gradient, LINALG[torch.float64])


def test_true_class_is_minus_the_sum_of_the_others():
    Z = random_logits(50, 4, 8, scale=100.0)
    residual = log_loss_residual(Z)
    assert residual.isfinite().all()
    assert (residual.sum(-2).abs() <= ROUNDING[torch.float64] * residual.abs().amax(-2)).all()
    true = residual[:, torch.arange(8) // 2, torch.arange(8)]
    # 1 − p_c and the p_j underflow together, not one before the other.
    others = residual.clamp(max=0.0).sum(-2)
    assert (true >= 0).all() and ((true + others).abs() <= ROUNDING[torch.float64] * true).all()


def test_leading_dimensions_are_independent():
    Z = random_logits(2, 3, 4, 8, scale=5.0)
    value, residual = log_loss(Z), log_loss_residual(Z)
    assert value.shape == (2, 3) and residual.shape == Z.shape
    for i in range(2):
        for j in range(3):
            close(value[i, j], log_loss(Z[i, j]), ROUNDING[torch.float64])
            close(residual[i, j], log_loss_residual(Z[i, j]), ROUNDING[torch.float64])


def test_columns_may_be_any_view():
    Z = random_logits(4, 8, 3, scale=5.0).permute(2, 0, 1)
    assert not Z.is_contiguous()
    before = Z.clone()
    close(log_loss(Z), log_loss(Z.contiguous()), 0.0)
    assert torch.equal(Z, before)


def test_float32():
    Z = random_logits(10, 4, 4, scale=50.0, dtype=torch.float32)
    assert log_loss(Z).dtype == log_loss_residual(Z).dtype == torch.float32
    close(log_loss(Z), log_loss(Z.double()), ROUNDING[torch.float32])
    close(log_loss_residual(Z), log_loss_residual(Z.double()), LINALG[torch.float32])
    deep = 5_000.0 * torch.eye(4, dtype=torch.float32)
    close(log_loss(deep), -5_000.0 + math.log(12), ROUNDING[torch.float32])


def test_parameters_are_accepted_but_not_tracked():
    Z = torch.nn.Parameter(random_logits(4, 4, scale=3.0))
    assert not log_loss(Z).requires_grad and not log_loss_residual(Z).requires_grad
    close(log_loss(Z), log_loss(Z.detach()), 0.0)


GOOD = torch.eye(3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("Z", "says"),
    [
        (GOOD * math.nan, "Z must be finite"),
        (GOOD / 0.0, "Z must be finite"),
        (torch.eye(3, dtype=torch.int64), "Z must have a floating dtype .* torch.int64"),
        (torch.eye(3, dtype=torch.bool), "Z must have a floating dtype .* torch.bool"),
        (torch.ones(1, 4, dtype=torch.float64), r"Z needs at least 2 classes .* \(1, 4\)"),
        (torch.ones(3, 4, dtype=torch.float64), r"Z must have shape .* \(3, 4\)"),
        (torch.ones(3, dtype=torch.float64), "Z must have at least 2 dimensions"),
        (torch.ones(0, 3, 3, dtype=torch.float64), r"Z must not be empty, got shape \(0, 3, 3\)"),
        ([[1.0, 0.0], [0.0, 1.0]], "Z must be a torch tensor, got list"),
    ],
)
@pytest.mark.parametrize("function", [log_loss, log_loss_residual])
def test_bad_logits(function, Z, says):
    with pytest.raises(DufmError, match=says):
        function(Z)
    assert issubclass(DufmError, ValueError)


def test_what_inference_mode_leaves_behind_serves_a_later_gradient():
    with torch.inference_mode():
        log_loss(torch.zeros(7, 21))
    assert evaluate(torch.zeros(7, 21, requires_grad=True))[0].requires_grad
