"""Every public function of every room on drawn input: a finite result, or a ``DufmError`` in one line.

What is drawn for an argument goes by its type and name, as at the door, with values at the ends of the ranges that the
door gives (tests/draws.py).  Where a number need not be finite stands in ``NOT_FINITE``, by field and by when.  A
warning is an error here as everywhere in the tests.
"""

import dataclasses
import fnmatch
import math

import draws
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from test_door import FUNCTIONS

from dufm import DufmError

#: Public functions that are not called here, and why.
LEFT_OUT = {
    "best_known.save": "writes the table that ships",
    "cost.compared": "measures times: seconds a call",
    "cost.decided": "measures times: seconds a call",
    "cost.ended": "measures times: seconds a call",
    "cost.followed": "measures times: seconds a call",
    "cost.grown": "measures times: seconds a call",
    "heads.trained": "trains on images: minutes",
    "learned.trained": "trains on images: minutes",
    "peers.kvaerno5": "compiles, with a package that no other room needs",
}
#: Draws of what takes tenths of a second a call or more; others get ``DRAWS``.
SLOW = {
    **dict.fromkeys(("agreement.compare", "agreement.kinds", "alignment.realigned_ends", "basin.code_counts"), 8),
    **dict.fromkeys(("basin.critical_labels", "basin.critical_ratio", "basin.distance_from_end"), 4),
    **dict.fromkeys(("basin.ends_of_four", "best_known.best", "certificate.factor_residual", "cost.flow"), 8),
    **dict.fromkeys(("choice.rung", "choice.which_end", "choice.kind_of", "certificate.polish"), 8),
    **dict.fromkeys(("class_sizes.sized_ends", "class_sizes.sized_limit", "complement.critical_extra"), 4),
    **dict.fromkeys(("complement.extra_growth", "complement.turn_growth", "descent.again", "descent.peaks"), 8),
    **dict.fromkeys(("descent.network_ends", "descent.modified_flow", "descent.spectral_ends"), 6),
    **dict.fromkeys(("diagnosis.diagnose", "ends.end", "ends.limit", "ends.spectral_end", "ends.spectral_limit"), 12),
    **dict.fromkeys(("flow.gradient_flow", "flow.loss_scaled_descent", "flow.gradient_descent"), 20),
    **dict.fromkeys(("linear_network.linear_network_flow", "model.cheapest_factors"), 6),
    **dict.fromkeys(("minibatches.batch_ends", "minibatches.batch_flow", "minibatches.batch_shifts"), 1),
    **dict.fromkeys(("optimizers.method_ends", "perturbation.measured_imbalance"), 4),
    **dict.fromkeys(("perturbation.measured_families", "perturbation.measured_repulsion"), 4),
    **dict.fromkeys(("peers.dopri5", "peers.loss_scaled", "peers.stiff"), 8),
    **dict.fromkeys(("search.along_depth", "search.best_rank", "search.max_margin", "code_search.softmax_code"), 8),
    "minibatches.batch_descent": 6,
    "explorer.beside": 2,
    "perturbation.early_phase": 6,
    "spectral.spectral_flow": 3,
    "rectified.ends": 1,
    **dict.fromkeys(("spectral.compare_with_network", "shares.sampled_share"), 4),
    **dict.fromkeys(("unbalanced.certified_end", "unbalanced.unbalanced_ends", "unbalanced.shallow_path"), 4),
    **dict.fromkeys(("weight_decay.again", "weight_decay.decay_ends", "weight_decay.threshold"), 6),
    **dict.fromkeys(("soft_labels.noisy_flow", "class_sizes.sized_flow", "descent.collapses"), 2),
    **dict.fromkeys(("weight_decay.decayed_flow", "width.ends", "lazy.lazy_path", "explorer.finished"), 4),
}
DRAWS = 40
#: Where few draws may all be refused: what they need together is seldom drawn.
MOSTLY_REFUSED = {
    "basin.critical_labels", "choice.rung", "class_sizes.sized_flow", "class_sizes.sized_residual",
    "complement.critical_extra", "complement.extra_growth", "complement.turn_growth", "descent.collapses",
    "minibatches.batch_ends", "minibatches.batch_flow", "minibatches.batch_shifts", "optimizers.method_ends",
    "peers.stiff", "perturbation.early_phase", "perturbation.measured_repulsion", "rectified.ends",
    "search.max_margin", "shares.sampled_share", "soft_labels.noisy_flow", "unbalanced.shallow_path",
    "weight_decay.threshold", "perturbation.family_growth", "search.stratum_curvature", "basin.critical_ratio",
    "soft_labels.critical_at_rank",
}  # fmt: skip


# ---------------------------------------------------------------- where a number need not be finite


def parts(value, path=""):
    """All tensors, arrays and floating numbers of a result, with the path of fields, keys and places to each."""
    if isinstance(value, (torch.Tensor, np.ndarray, float)):
        yield path, value
    elif dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        yield from (part for field in fields for part in parts(getattr(value, field.name), _at(path, field.name)))
    elif hasattr(value, "columns"):
        yield from (part for name in value for part in parts(value[name].to_numpy(), _at(path, name)))
    elif isinstance(value, dict):
        yield from (part for name, item in value.items() for part in parts(item, _at(path, name)))
    elif isinstance(value, (list, tuple)):
        yield from (part for place, item in enumerate(value) for part in parts(item, _at(path, place)))


def _at(path, name):
    return f"{path}.{name}" if path else str(name)


def always(given, result):
    return True


def true_class(given, result):
    K, N = result.shape[-2:]
    return torch.eye(K, dtype=torch.bool).repeat_interleave(N // K, 1).expand(result.shape)


def no_escape(given, result):
    return given["depth"] == 2


def escaped(given, result):
    """Of t ≥ s0^−q/(L − 2), in logarithms."""
    t, s0 = (torch.as_tensor(given[name], dtype=torch.float64).detach() for name in ("t", "s0"))
    depth = given["depth"]
    return t.log() + math.log(max(depth - 2, 1e-300)) + (1 - 2 / depth) * s0.log() > -1e-5


def equal(rows, beside):
    """Whether vectors are equal to rounding, ``K·eps`` of the root mean square; twice that here."""
    K, eps = rows.shape[-1], torch.finfo(rows.dtype).eps
    away = (rows - rows.mean(-1, keepdim=True)).double()
    scale = beside.double().abs().amax((-2, -1), keepdim=True).clamp(min=1e-320)
    return (away / scale).square().sum((-2, -1)).sqrt() <= 2 * K * eps * (beside / scale).square().sum((-2, -1)).sqrt()


def equal_means(given, result):
    X, K = given["features"].detach(), given["classifier"].shape[-2]
    return equal(X.unflatten(-1, (K, -1)).mean(-1), X)


def equal_rows(given, result):
    return equal(given["classifier"].detach().mT, given["classifier"].detach())


def without_a_rank(given, result):
    return equal_means(given, result) | equal_rows(given, result) | (result["rank"] == 0)


def uncertified(given, result):
    return result.rank == 0


def on_no_stratum(given, result):
    """Residual and gap are inf together, and without multipliers: nothing of that rank separates the classes."""
    return result.residual.isinf() & result.gap.isinf() & (result.multipliers == 0).all(-1).all(-1)


def fails(given, result):
    return ~given["certificate"].holds()


def not_polished(given, result):
    return ~result.decided & ((result.moved == torch.inf) | ~result.fallback)


def not_certified(given, result):
    """The end of SLSQP may be of a lower rank than was asked for."""
    return not_polished(given, result) | (result.fallback & on_no_stratum(given, result.certificate))


def short_of_the_sharpness(given, result):
    status = result.status if hasattr(result, "status") else result[2]
    return ~np.isin(status, ["rests", "still turning"])


def without_a_turn(given, result):
    return short_of_the_sharpness(given, result) | ((result.status == "still turning") & (result.growth < 1).numpy())


def without_depth_or_code(given, result):
    return given.get("depth") is None or not result.Z.any()


def without_rank(given, result):
    return result.rank is None


def degenerate(given, result):
    """Class means that are equal, or a rank that nothing has."""
    means = result.Z.square().sum().sqrt()
    return given.get("features") is not None or float(means) == 0 or result.nc["rank"] == 0


def without_classifier(given, result):
    return given.get("classifier") is None or bool(equal(_rows(given["classifier"]).mT, _rows(given["classifier"])))


def _rows(values):
    return torch.as_tensor(values).detach().double()


def diverged(given, result):
    return result.status == "diverged"


def not_started(given, result):
    return result.steps == 0


def unreached(given, result):
    """A level that a network has not come to, or where it was from the start (−inf on the clock)."""
    return (~result.history.log_time.isfinite()) | (torch.as_tensor(np.asarray(result.status) != "reached"))


def zero_logits(given, result):
    return (given["Z"] == 0).all(-1).all(-1)


def not_separated(given, result):
    K = given["Z"].shape[-2]
    rows = torch.arange(K).repeat_interleave(given["Z"].shape[-1] // K)
    Z = given["Z"].detach()
    own = Z[..., rows, torch.arange(len(rows))].unsqueeze(-2)
    return ((Z >= own).sum((-2, -1)) > len(rows)) | torch.zeros(result.shape, dtype=torch.bool)


def not_convex(given, result):
    return not np.isfinite(result)


def ends_of_a_run(given, result):
    sharpness = result["sharpness"] if isinstance(result, dict) else result.sharpness
    return np.isin(np.arange(len(sharpness)), [0, len(sharpness) - 1])


CERTIFICATE = dict.fromkeys(("residual", "gap", "discarded"), on_no_stratum)
LIMIT = dict.fromkeys(("growth", "rates"), short_of_the_sharpness) | {"turning": without_a_turn}
HISTORY = {"log_time": not_started, "history.*": unreached}
#: By function and field, and when.  Each stands in the docstring of the function or of what it returns.
NOT_FINITE = {
    "metrics.margins": {"": true_class},
    "metrics.nc_metrics": {
        "nc1": without_a_rank, "trace_ratio": equal_means, "nc2": equal_means,
        "nc3": lambda given, result: equal_means(given, result) | equal_rows(given, result),
    },
    "laws.escape_time": {"": no_escape},
    "laws.early_singular_values": {"": escaped},
    "margin.normalized_margin": {"": zero_logits},
    "flow.gradient_flow": HISTORY,
    "flow.gradient_descent": {
        "factors.*": diverged, "log_loss": diverged, "history.factors.*": diverged, "history.log_loss": diverged,
        "history.log_time": lambda given, result: torch.tensor(given["record"]) == 0,
    },
    "flow.loss_scaled_descent": {"log_time": lambda given, result: result.log_time == -math.inf},
    "soft_labels.noisy_flow": HISTORY,
    "class_sizes.sized_flow": HISTORY,
    "spectral.spectral_flow": HISTORY,
    "certificate.kkt_certificate": CERTIFICATE,
    "certificate.kkt_residual": {"": lambda given, result: result == torch.inf},
    "certificate.off_range_values": {"": fails},
    "certificate.polish": {
        "Z": not_polished, "moved": not_polished, "certificate.discarded": not_polished,
        "certificate.residual": not_certified, "certificate.gap": not_certified,
    },
    "ends.end": dict.fromkeys(
        ("Z", "margin_ratio", "moved", "beta", "certificate.residual", "certificate.gap"), uncertified
    ),
    "unbalanced.certified_end": dict.fromkeys(
        ("Z", "margin_ratio", "moved", "beta", "certificate.residual", "certificate.gap"), uncertified
    ),
    "ends.distance": {"": not_separated},
    "ends.limit": LIMIT,
    "class_sizes.sized_limit": LIMIT,
    "ends.spectral_limit": {"1": short_of_the_sharpness},
    "ends.spectral_end": {"spectrum": uncertified, "moved": uncertified},
    "diagnosis.diagnose": {
        "margin_ratio": without_depth_or_code, "code_gap": without_rank, "nc.nc1": degenerate,
        "nc.trace_ratio": degenerate, "nc.nc2": degenerate,
        "nc.nc3": lambda given, result: degenerate(given, result) or without_classifier(given, result),
    },
    "search.as_row": {"*": lambda given, result: given["found"] is None},
    "rank_two.corner_gap": {"": not_convex},
    "perturbation.early_phase": {
        "law_*": lambda given, result: torch.as_tensor(result["share"] >= 1),
        "used": lambda given, result: torch.as_tensor(
            (result["share"] >= 1) | (result["share"] < 1e-9) | (float(given["s0"].max()) < 1e-15)
        ),
    },
    "perturbation.measured_repulsion": {"peak": always},
    "basin.least_lag": {"": lambda given, result: len(given["s"]) < 2},
    "shares.fourth_power": {"leading*": lambda given, result: not given["fitted"] or 1e-4 not in given["fitted"]},
    "lazy.lazy_law": {"": lambda given, result: given["depth"] > 3},
    "spectral.compare_with_network": {"*": always},
    "descent.spectral_descent": {"*": lambda given, result: ~result.log_loss.isfinite()},
    "optimizers.alignment": {"": lambda given, result: result.isnan()},
    "optimizers.train_by": {"*": always},
    "width.half_width": {"*": lambda given, result: math.isnan(result.slope)},
    "explorer.columns": {"sharpness": ends_of_a_run},
    "explorer.finished": {"sharpness": ends_of_a_run},
    "explorer.beside": {"apart": lambda given, result: result["network"] == "refused"},
    "lazy.at_start": {
        "condition.*": lambda given, result: given["width"] < given["num_classes"] or given["depth"] > 10,
    },
    "width.by_cell": {"*_rank": lambda given, result: result.decided.to_numpy() < 2},
    "width.power_law": {"*": lambda given, result: len(given["scales"]) < 2},
    "choice.advantage": {"*": lambda given, result: given["table"].empty},
    "choice.which_end": dict.fromkeys(("margin_ratio.*", "beta.*"), lambda given, result: "" not in result["reason"]),
    "learned.joined": {"1": lambda given, result: len(given["known"]) == 0 or len(given["fresh"]) == 0},
    "minibatches.batch_shifts": {"found": lambda given, result: given["lr"] > 1},
    "minibatches.batch_descent": {"*": lambda given, result: ~result[1].isfinite()},
    "optimizers.method_ends": {"*": lambda given, result: given["method"] == "flow"},
    "class_sizes.sized_ends": {"collapse": lambda given, result: torch.tensor(result["name"] != "NC")},
    "rectified.by_place": {
        "*_error": lambda given, result: True, "rank": lambda given, result: result.undecided == result.networks,
        "below": always,
    },
    "rectified.descend": {"1": always},
    "rectified.ends": dict.fromkeys(("residual", "turning"), lambda given, result: result["margin_ratio"] <= 0),
    "peers.adam": {"0": lambda given, result: np.isnan(result[1].marks[:, 0])},
    "peers.constant_steps": {"0": lambda given, result: np.isnan(result[1].marks[:, 0])},
    "peers.path_error": {"": lambda given, result: True},
}  # fmt: skip


def allowed(name, path, given, result):
    """Where the number at a path may be other than finite: a boolean, or one for each entry of its leading shape."""
    for pattern, when in NOT_FINITE.get(name, {}).items():
        if fnmatch.fnmatchcase(path, pattern):
            return when(given, result)
    return False


def stray(name, given, result):
    """Paths at which a number is not finite that should be."""
    for path, value in parts(result):
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value.copy()) if value.dtype.kind in "biuf" else torch.zeros(1)
        finite = torch.isfinite(torch.as_tensor(value, dtype=torch.float64) if isinstance(value, float) else value)
        if not finite.all():
            may = torch.as_tensor(np.asarray(allowed(name, path, given, result)))
            may = may.reshape((*may.shape, *[1] * (finite.ndim - may.ndim)))
            if not (finite | may).all():
                yield path, value


# ---------------------------------------------------------------- the fuzz


def holds(name, given):
    """A result, finite where it is to be, or a refusal in one line; whether it was a result."""
    try:
        result = FUNCTIONS[name](**given)
    except DufmError as error:
        assert "\n" not in str(error) and len(str(error)) <= 1000
        return False
    assert not list(stray(name, given, result))
    return True


def fuzz(name, examples):
    results = []

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(draws.arguments(name, FUNCTIONS[name], quick=name in SLOW))
    def run(given):
        results.append(holds(name, given))

    run()
    return sum(results)


NAMES = [name for name in FUNCTIONS if name not in LEFT_OUT]


def test_what_is_left_out_or_slow_is_there():
    assert set(LEFT_OUT) | set(SLOW) | set(NOT_FINITE) | MOSTLY_REFUSED <= set(FUNCTIONS)
    assert not set(LEFT_OUT) & (set(SLOW) | set(NOT_FINITE))
    assert len(LEFT_OUT) <= 11, "a new function is fuzzed, unless it is said here why it is not"


@pytest.mark.parametrize("name", NAMES)
def test_a_finite_result_or_one_line(name):
    assert fuzz(name, SLOW.get(name, DRAWS)) > 0 or name in MOSTLY_REFUSED, "all that was drawn is refused"


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_a_finite_result_or_one_line_for_long(name):
    assert fuzz(name, 25 * SLOW.get(name, DRAWS)) > 0 or name in MOSTLY_REFUSED
