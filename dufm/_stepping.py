r"""Step control and clocks of a batch: explicit and linearly implicit steps, the only integrator of the flows.

Every flow here is :math:`x' = F(x) = -\nabla\log\mathcal L`, followed from each start on its own clock.  A
:class:`Model` says what moves: the factors of a network, or its singular values.

The flow is stiff in few dimensions.  With D the gaps :math:`z_{jc} - z_{cc}` of all M pairs, J = ∂D/∂x and λ the slope
of log ℒ in D, the field is :math:`-J^\top\lambda`, and in units of its growth the eigenvalues of
:math:`-J^\top C J`, :math:`C = \operatorname{Diag}\lambda - \lambda\lambda^\top/\sum\lambda`, reach down to about
:math:`-3.5\,|\log\mathcal L|`, while the rest of F' stays of order one.  A *Rosenbrock–W* method keeps its order for
any matrix in the place of F'.  With that one every solve is M × M,

.. math:: (I + \gamma h J^\top C J)^{-1} v = v - \gamma h\,J^\top B\,(I + \gamma h\,B^\top\Theta B)^{-1}B^\top J v,
          \qquad \Theta = JJ^\top,\quad C = BB^\top .

Explicit steps are cheaper and bounded by stability instead.  **The rule**: a network is stepped explicitly until its
step length times the spectral radius of F' shows that stability holds it back (``_AT_THE_EDGE``), and implicitly from
then on, if the shapes say that an implicit step costs less than ``_DEAREST`` explicit ones.  It goes back
where its implicit steps are not longer than the explicit ones that could be had at their price, and
then waits until the stiffness has doubled.
"""

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import torch

from dufm._checks import DufmError, check_count, check_finite

__all__ = ["Linearised", "Model", "Run", "check_control", "follow", "norm", "spread"]


class Model:
    """What is followed: states are rows ``(batch, n)`` of a floating tensor.

    ``field(x, out)`` writes −∇ log ℒ into ``out`` and returns log ℒ ``(batch,)`` and the pair weights λ ``(batch, M)``;
    ``gaps(x)`` are D and ``gap_rate(x, v)`` is J v, ``(batch, M)``; ``linearise(x)`` a :class:`Linearised`;
    ``saddle_rank(x, slope)`` the rank of a network that no longer moves, −1 for one that does; ``depth`` L, D being
    homogeneous of that degree; ``price`` the cost of an implicit step in explicit ones.  The pairs of ``field``,
    ``gaps`` and ``gap_rate`` may be more than those of ``linearise``, which are the ``live`` ones; the others weigh 0.
    """

    live = slice(None)


@dataclass(frozen=True)
class Linearised:
    """The first term of F' at a state: ``weights`` λ ``(batch, M)``, ``theta`` Θ, products with J and Jᵀ.

    ``push(v)`` is J v, ``pull(pairs, out)`` writes Jᵀ of pairs; ``damping`` α ``(batch,)``: for a field with a further
    term −αx.
    """

    weights: torch.Tensor
    theta: torch.Tensor
    push: object
    pull: object
    damping: torch.Tensor | None = None

    def stiff_part(self):
        """``BᵀΘB`` and B as a function, B = Diag(√λ)(I − uuᵀ) with u = √(λ/Σλ)."""
        root = self.weights.clamp(min=0).sqrt()
        unit = root / norm(root).unsqueeze(-1)
        scaled = root.unsqueeze(-1) * self.theta * root.unsqueeze(-2)
        row = (unit.unsqueeze(-2) @ scaled).squeeze(-2)
        corner = (row * unit).sum(-1, keepdim=True)
        cross = unit.unsqueeze(-1) * (row - 0.5 * corner * unit).unsqueeze(-2)
        return scaled - cross - cross.mT, root, unit


# ---------------------------------------------------------------- the methods


@dataclass(frozen=True)
class _Pair:
    """Explicit first-same-as-last pair: stage rows, error weights, order of the error estimate.

    ``middle``: weights of the state half-way through a step, one order below the pair's own.
    """

    rows: tuple
    error: tuple
    order: int
    middle: tuple | None = None


# Bogacki & Shampine (1989), order 3(2).
_BS32 = _Pair(
    rows=((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    order=2,
)
# Dormand & Prince (1980), order 5(4); the middle is Shampine's (1986).
_DP54 = _Pair(
    rows=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    error=(71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    order=4,
    middle=(
        6025192743 / 60171106304,
        0,
        51252292925 / 130801643196,
        -2691868925 / 90256659456,
        187940372067 / 3189068634112,
        -1776094331 / 39487288512,
        11237099 / 470086768,
    ),
)
# Loose runs are limited by stability, tight ones by accuracy: per evaluation 3(2) reaches 1.5 times further
# on the negative real axis, where the Hessian of a gradient flow has its stiff part.
_TIGHT = 2e-6


@dataclass(frozen=True)
class _RosenbrockW:
    """Coefficients in the variables ``u_i = h Σ_j γ_ij k_j``, in which no product with the matrix remains."""

    gamma: float
    stage: np.ndarray
    couple: np.ndarray
    end: np.ndarray
    error: np.ndarray


def _rosenbrock_w(alpha, gamma, weights, embedded):
    inverse = np.linalg.inv(gamma)
    couple = np.diag(1 / np.diag(gamma)) - inverse
    return _RosenbrockW(gamma[0, 0], alpha @ inverse, couple, weights @ inverse, (weights - embedded) @ inverse)


_G = 4.3586652150845900e-01
# ROS34PW2, order 3(2), stiffly accurate (Rang & Angermann, BIT 45, 2005).
_ROS34PW2 = _rosenbrock_w(
    alpha=np.array(
        [
            [0, 0, 0, 0],
            [8.7173304301691801e-01, 0, 0, 0],
            [8.4457060015369423e-01, -1.1299064236484185e-01, 0, 0],
            [0, 0, 1, 0],
        ]
    ),
    gamma=np.array(
        [
            [_G, 0, 0, 0],
            [-8.7173304301691801e-01, _G, 0, 0],
            [-9.0338057013044082e-01, 5.4180672388095326e-02, _G, 0],
            [2.4212380706095346e-01, -1.2232505839045147e00, 5.4526025533510214e-01, _G],
        ]
    ),
    weights=np.array([2.4212380706095346e-01, -1.2232505839045147e00, 1.5452602553351020e00, _G]),
    embedded=np.array([3.7810903145819369e-01, -9.6042292212423178e-02, 0.5, 2.1793326075422950e-01]),
)

_SAFETY, _SHRINK, _GROW = 0.95, 0.1, 5.0
# Proportional-integral control (Gustafsson 1991): it halves the rejections at the edge of stability.
_PROPORTIONAL, _INTEGRAL = 0.7, 0.4
_STALL_EVERY, _TICKS = 16, 32
_HELD = 0.1
_DEAREST = 200.0
# A relative error of 1e-4 in the state is several units of margin at −log ℒ = 10⁴ and throws a run off its slow
# manifold for ever: the error's spread over the nearly active margins is bounded as well, absolutely.
_SPREAD, _SPREAD_PER_RTOL, _NEAR = 0.1, 100.0, 6.0
_LANDED, _LANDINGS = 1e-11, 12


def norm(v):
    """Euclidean norm along the last dimension, also where the squares underflow."""
    size = torch.linalg.vector_norm(v, dim=-1)
    if bool((size < 1e-150).any()) and size.dtype == torch.float64:
        top = v.abs().amax(-1)
        size = torch.linalg.vector_norm(v / torch.where(top > 0, top, 1.0).unsqueeze(-1), dim=-1) * top
    return size


def spread(rate, weights, new_weights):
    """Spread of the changes ``rate`` of the gaps ``(batch, M)`` over the pairs that are nearly active at either end.

    The weighted mean is taken out: a common growth of all margins is no error of the path.  Pairs count fully up to a
    margin of 6 above the least, then by the factor e a unit less, since λ falls so.  Both ends count, for a margin
    may join the active ones within the step.
    """
    active = torch.maximum(*(w / w.amax(-1, keepdim=True) for w in (weights, new_weights)))
    mean = (rate * active).sum(-1, keepdim=True) / active.sum(-1, keepdim=True)
    return ((rate - mean).abs() * (active * math.exp(_NEAR)).clamp(max=1.0)).amax(-1)


# ---------------------------------------------------------------- the clock

_NODES, _WEIGHTS = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(10))
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_BEND = (-0.9, 4.0)


class Clock:
    r"""Time along one step: :math:`d\tau = -d\ell/\|F\|^2` and :math:`dt = e^{-\ell}d\tau`, ℓ = log ℒ.

    ``φ = 1/‖F‖²`` is smooth in ℓ: a power law through both ends in ``w = 1 + max(ℓ_0, 0) − ℓ``, bent by a parabola in
    log w so that its integral is the step length h.  The exponential is integrated exactly against it, so that
    a step may be long.
    """

    def __init__(self, start, end, speed, new_speed, h):
        self.start, self.end, self.speed, self.new_speed, self.h = start, end, speed, new_speed, h
        # w at the start; by log1p, for a short step has few digits of a difference.
        self.first = 1 + start.clamp(min=0) - start
        # Rounding may leave ℓ where it was: then any profile does.
        self.range = torch.log1p((start - end) / self.first).clamp(min=1e-300)
        self.bend = torch.zeros_like(h)
        plain, bump = self._mass(torch.ones_like(h))
        self.bend = ((h * new_speed * new_speed - plain) / bump.clamp(min=1e-300)).clamp(*_BEND)
        self.bend = torch.where((start - end).abs() > 1e-10 * (1 + start.abs()), self.bend, 0.0)

    def _profile(self, theta):
        """φ over its value at the end."""
        return ((1 - theta) * 2 * (self.new_speed / self.speed).log()).exp() * (
            1 + 4 * self.bend * theta * (1 - theta)
        )

    def _mass(self, theta):
        """``∫φ dℓ`` up to ``theta`` (share of log w), over φ at the end; and what the unit bend adds to it."""
        nodes, weights = (array.to(self.h).view(-1, *[1] * theta.ndim) for array in (_NODES, _WEIGHTS))
        at = theta * nodes
        w = self.first * (at * self.range).exp()
        value = self._profile(at) * w
        scale = self.range * theta
        return (weights * value).sum(0) * scale, (weights * value * 4 * at * (1 - at)).sum(0) * scale

    def theta(self, ell):
        """Share of log w at ``ell``."""
        return torch.log1p((self.start - ell) / self.first) / self.range

    def length(self, ell):
        """Part of h up to log ℒ = ``ell``."""
        return self.h * self._mass(self.theta(ell).clamp(0, 1))[0] / self._mass(torch.ones_like(self.h))[0]

    def length_at(self, goal, log_time):
        """Part of h up to log t = ``goal``, from log t at the start."""
        # Where log ℒ hardly moves it tells no time, and t is linear in τ.
        flat = self.start - self.end <= 1e-6 * (1 + self.start.abs())
        begun = torch.exp(log_time - self.log_time(log_time))
        linear = (torch.exp(goal - self.log_time(log_time)) - begun) / (1 - begun)
        return torch.where(flat, self.h * linear.nan_to_num().clamp(0, 1), self.length(self.locate(goal, log_time)))

    def log_time(self, log_time, ell=None):
        """Log t where log ℒ is ``ell`` (default: the end), from log t at the start."""
        ell = self.end if ell is None else ell
        fall = (self.start - ell).clamp(min=0)
        share = -torch.expm1(-fall)
        nodes, weights = (array.to(self.h).view(-1, *[1] * fall.ndim) for array in (_NODES, _WEIGHTS))
        back = -torch.log1p(-nodes * share)
        inner = (weights * self._profile(self.theta(ell + back).clamp(0, 1))).sum(0)
        # Short steps know their own length better than the profile does.
        short = self.start - self.end < 1
        whole = self._mass(torch.ones_like(self.h))[0]
        known = torch.where(short, self.h.log() - whole.log(), -2 * self.new_speed.log())
        log_share = torch.where(share > 0, share, 1.0).log()
        added = torch.where(share > 0, known + log_share + inner.log() - ell, -torch.inf)
        still = (self.start - self.end <= 1e-10 * (1 + self.start.abs())) & (fall == self.start - self.end)
        added = torch.where(still, self.h.log() - ell, added)
        return torch.logaddexp(log_time, added)

    def locate(self, goal, log_time):
        """Log ℒ at which log t rises to ``goal``, to 1e-9 of the step."""
        low, width = torch.zeros_like(self.h), 1.0
        ticks = torch.arange(1, _TICKS, device=low.device, dtype=low.dtype).unsqueeze(-1) / _TICKS
        for _ in range(6):
            part = low + width * ticks
            before = self.log_time(log_time, self.start + (self.end - self.start) * part) < goal
            low = low + before.long().cumprod(0).sum(0) * (width / _TICKS)
            width /= _TICKS
        return self.start + (self.end - self.start) * (low + width)


# ---------------------------------------------------------------- one step


@dataclass
class Step:
    """One step of some rows: where it ends, its error over the tolerance, the stiffness it felt, knots of the path.

    State and slope lie in memory that the next step overwrites; indexing copies them.
    """

    state: torch.Tensor
    log_loss: torch.Tensor
    slope: torch.Tensor
    speed: torch.Tensor
    error: torch.Tensor
    edge: torch.Tensor
    knots: list

    def __getitem__(self, rows):
        values = [getattr(self, item.name)[rows] for item in fields(self)[:-1]]
        return Step(*values, [tuple(value[rows] for value in knot) for knot in self.knots])

    @cached_property
    def clocks(self):
        """Clocks between the knots, which are log ℒ, speed and τ."""
        return [Clock(a[0], b[0], a[1], b[1], b[2] - a[2]) for a, b in zip(self.knots, self.knots[1:], strict=False)]

    def log_time(self, log_time):
        """Log t at the end, from log t at the start."""
        for clock in self.clocks:
            log_time = clock.log_time(log_time)
        return log_time

    @property
    def length(self):
        """Length h."""
        return self.knots[-1][2]

    def part(self, kind, goal, log_time):
        """Length up to where log ℒ falls, or log t rises, to ``goal``, by the clocks: a first guess."""
        length = torch.zeros_like(goal)
        for clock in self.clocks:
            if kind == "log_loss":
                length += clock.length(goal)
            else:
                length += clock.length_at(goal, log_time)
                log_time = clock.log_time(log_time)
        return length


def _mixed(slopes, weights, out):
    """``Σ weights·slopes`` over the leading dimension, into ``out``."""
    torch.mv(slopes[: len(weights)].flatten(1).mT, weights, out=out.view(-1))
    return out


def _explicit_step(model, control, state, log_loss, slope, speed, h):
    pair, column = control.pair, h.unsqueeze(-1)
    rows = [state.new_tensor(row) for row in pair.rows]
    slopes = control.scratch("slopes", (len(rows) + 1, *state.shape), state)
    mixed, new = control.scratch("mixed", state.shape, state), control.scratch("new", state.shape, state)
    slopes[0] = slope
    for stage, row in enumerate(rows, start=1):
        torch.addcmul(state, _mixed(slopes, row, mixed), column, out=new)
        new_log_loss, weights = model.field(new, slopes[stage])
    new_speed = norm(slopes[-1])
    # Lipschitz constant between the last two stages: near the stability limit the stiffest direction fills both.
    apart = rows[-1].clone()
    apart[: len(rows[-2])] -= rows[-2]
    edge = 1 / (h * norm(_mixed(slopes, apart, mixed))).clamp(min=1e-300)
    edge = norm(torch.sub(slopes[-1], slopes[-2], out=mixed)) * edge
    error = _mixed(slopes, state.new_tensor(pair.error), mixed).mul_(column)
    error = control.error(error, new, spread(model.gap_rate(new, error), weights, weights))
    knots = [(log_loss, speed, torch.zeros_like(h)), (new_log_loss, new_speed, h)]
    if pair.middle is not None:
        centre = torch.addcmul(state, _mixed(slopes, state.new_tensor(pair.middle), mixed), column)
        middle, _ = model.field(centre, slopes[0])
        knots.insert(1, (middle, norm(slopes[0]), h / 2))
    return Step(new, new_log_loss, slopes[-1], new_speed, error, edge, knots)


def _implicit_step(model, control, state, log_loss, slope, speed, h):
    method, column = _ROS34PW2, h.unsqueeze(-1)
    at = model.linearise(state)
    stiff, root, unit = at.stiff_part()
    scale = method.gamma * column
    if at.damping is not None:
        shrink = 1 / (1 + scale * at.damping.unsqueeze(-1))
        scale = scale * shrink
    matrix = scale.unsqueeze(-1) * stiff
    matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
    lower, failed = torch.linalg.cholesky_ex(matrix)
    lower = torch.where((failed == 0)[:, None, None], lower, torch.eye(lower.shape[-1]).to(lower))
    inverse = torch.cholesky_inverse(lower)

    def solve(rate):
        """``γh P J v`` from ``J v``, P = B(I + γhBᵀΘB)⁻¹Bᵀ."""
        narrow = rate * root
        narrow.sub_((narrow * unit).sum(-1, keepdim=True) * unit)
        inner = (inverse @ narrow.unsqueeze(-1)).squeeze(-1)
        return (inner - (inner * unit).sum(-1, keepdim=True) * unit) * root * scale

    moves = control.scratch("moves", (4, *state.shape), state)
    new, field = (control.scratch(name, state.shape, state) for name in ("new", "field"))
    stages, couple = state.new_tensor(method.stage), state.new_tensor(method.couple * method.gamma)
    rates = []
    for stage, move in enumerate(moves):
        if stage:
            torch.add(_mixed(moves, stages[stage, :stage], new), state, out=new)
            model.field(new, field)
            torch.addcmul(_mixed(moves, couple[stage, :stage], move), field, method.gamma * column, out=move)
        else:
            torch.mul(slope, method.gamma * column, out=move)
        if at.damping is not None:
            move.mul_(shrink)
        rate = at.push(move)
        correction = solve(rate)
        at.pull(correction, field)
        move.sub_(field)
        rates.append(rate - (at.theta @ correction.unsqueeze(-1)).squeeze(-1))
    torch.add(_mixed(moves, state.new_tensor(method.end), new), state, out=new)
    error_weights = state.new_tensor(method.error)
    error = _mixed(moves, error_weights, control.scratch("mixed", state.shape, state))
    new_slope = field
    new_log_loss, new_weights = model.field(new, new_slope)
    new_speed = norm(new_slope)
    rate = sum(weight * rate for weight, rate in zip(error_weights, rates, strict=True))
    apart = spread(rate, at.weights, new_weights[:, model.live])
    error = torch.where(failed == 0, control.error(error, new, apart), torch.inf)
    knots = [(log_loss, speed, torch.zeros_like(h)), (new_log_loss, new_speed, h)]
    return Step(new, new_log_loss, new_slope, new_speed, error, torch.linalg.matrix_norm(stiff), knots)


# ---------------------------------------------------------------- the control


@dataclass
class Control:
    """Tolerances, the explicit pair they ask for, and memory that the stages share."""

    rtol: float
    pair: _Pair
    memory: dict

    @property
    def share(self):
        """Share of its state's norm by which a typical implicit step moves it."""
        return 2 * self.rtol ** (1 / 3)

    def scratch(self, name, shape, like):
        """Memory of a name, as large as asked for: large arrays cost more to allocate than to fill."""
        size = math.prod(shape)
        if name not in self.memory or self.memory[name].numel() < size:
            self.memory[name] = like.new_empty(size)
        return self.memory[name][:size].view(shape)

    def error(self, error, new, spread):
        """Size of an error over what is allowed; inf where it is not finite."""
        allowed = min(_SPREAD, _SPREAD_PER_RTOL * self.rtol)
        ratio = torch.maximum(norm(error) / (self.rtol * norm(new)), spread / allowed)
        return torch.where(ratio.isfinite(), ratio, torch.inf)


def check_control(rtol, max_steps, state):
    """A :class:`Control`, and ``max_steps`` as an integer; ``DufmError`` for values out of range."""
    if not isinstance(rtol, (int, float)) or not 1e-13 <= rtol <= 1e-1:
        raise DufmError(f"rtol must lie in [1e-13, 0.1], got {rtol!r}")
    return Control(rtol, _BS32 if rtol >= _TIGHT else _DP54, {}), check_count("max_steps", max_steps, 1)


@dataclass
class Batch:
    """The networks that still run, a row each."""

    id: torch.Tensor
    state: torch.Tensor
    log_loss: torch.Tensor
    slope: torch.Tensor
    speed: torch.Tensor
    log_time: torch.Tensor
    h: torch.Tensor
    last_error: torch.Tensor
    steps: torch.Tensor
    level: torch.Tensor
    code: torch.Tensor
    implicit: torch.Tensor
    reach: torch.Tensor
    patience: torch.Tensor

    def __getitem__(self, rows):
        return Batch(*(getattr(self, item.name)[rows] for item in fields(self)))

    def __len__(self):
        return len(self.id)

    def put(self, rows, **values):
        """Write values into rows."""
        for name, value in values.items():
            getattr(self, name)[rows] = value

    def step(self, model, control, rows, h=None):
        """One step of ``rows``, which must be of one kind, of the lengths ``h`` (default: their own)."""
        method = _implicit_step if bool(self.implicit[rows[0]]) else _explicit_step
        h = self.h[rows] if h is None else h
        state, slope = self.state, self.slope
        if len(rows) < len(self.id):
            shape = len(rows), state.shape[1]
            state = torch.index_select(state, 0, rows, out=control.scratch("rows", shape, state))
            slope = torch.index_select(slope, 0, rows, out=control.scratch("slopes of rows", shape, slope))
        return method(model, control, state, self.log_loss[rows], slope, self.speed[rows], h)

    def kinds(self, mask):
        """Rows of ``mask`` that step explicitly, and those that step implicitly; empty ones left out."""
        split = (mask & ~self.implicit, mask & self.implicit)
        return [rows for rows in (part.nonzero().squeeze(-1) for part in split) if len(rows)]

    def factor(self, rows, error, accepted, order):
        """What the step lengths change by: proportional-integral control."""
        error = error.clamp(min=1e-8)
        grown = _SAFETY * error ** (-_PROPORTIONAL / order) * self.last_error[rows] ** (_INTEGRAL / order)
        retry = (_SAFETY * error ** (-1 / order)).clamp(_SHRINK, 0.9)
        self.last_error[rows] = torch.where(accepted, error.clamp(min=1e-4), self.last_error[rows])
        return torch.where(accepted, grown.clamp(0.2, _GROW), retry)

    def adapt(self, rows, error, edge, accepted, model, control):
        """Next step lengths, and the next kind of step by the rule of the module."""
        implicit = self.implicit[rows]
        order = torch.where(implicit, 3.0, control.pair.order + 1.0).to(error)
        factor = self.factor(rows, error, accepted, order)
        reach = self.h[rows] * edge
        growth = self.speed[rows] / norm(self.state[rows])
        stiffness = edge / growth
        # An explicit step that is as long as its error lets it be, and short beside an implicit one at its price.
        held = ~implicit & accepted & (error > _HELD) & (model.price <= _DEAREST)
        to_implicit = held & (self.h[rows] * growth * model.price < control.share) & (stiffness > self.patience[rows])
        # Judged by the next step: the first implicit one is still as short as the last explicit one.
        to_explicit = implicit & accepted & (reach * factor < model.price * self.reach[rows])
        h = self.h[rows] * factor
        h = torch.where(to_implicit, torch.maximum(h, control.share / 2 / growth), h)
        self.put(
            rows,
            h=torch.where(to_explicit & (reach > self.reach[rows]), h * self.reach[rows] / reach, h),
            reach=torch.where(to_implicit, reach, self.reach[rows]),
            patience=torch.where(to_explicit, 2 * stiffness, self.patience[rows]),
            implicit=(implicit | to_implicit) & ~to_explicit,
        )


def begin(model, state, control):
    """A batch at its start."""
    slope = torch.empty_like(state)
    log_loss, _ = model.field(state, slope)
    speed = norm(slope)
    none = torch.zeros_like(log_loss)
    return Batch(
        id=torch.arange(len(state), device=state.device),
        state=state.clone(),
        log_loss=log_loss,
        slope=slope,
        speed=speed,
        log_time=torch.full_like(log_loss, -torch.inf),
        h=control.share / 2 * norm(state) / torch.where(speed > 0, speed, 1.0),
        last_error=torch.ones_like(log_loss),
        steps=none.long(),
        level=none.long(),
        code=none.long(),
        implicit=none.bool(),
        reach=none.clone(),
        patience=none.clone(),
    )


def rounding(log_loss):
    """What log ℒ may rise by rounding alone."""
    return 64 * torch.finfo(log_loss.dtype).eps * log_loss.abs().clamp(min=1.0)


def exhausted(batch, rows, accepted):
    """Rows whose refused step is below the last digits of their state."""
    moved = batch.h[rows] * batch.speed[rows]
    return ~accepted & (moved <= 4 * torch.finfo(moved.dtype).eps * norm(batch.state[rows]))


# ---------------------------------------------------------------- to a loss


RUNNING, LAST, REACHED, EXHAUSTED, SADDLE = 0, 1, 2, 3, 4
_NEVER = {"log_loss": -math.inf, "log_time": math.inf}


@dataclass(frozen=True)
class Run:
    """End of :func:`follow`, a row a start; ``kept``: states, log ℒ, log t at the recorded levels, or None."""

    state: torch.Tensor
    log_loss: torch.Tensor
    log_time: torch.Tensor
    status: np.ndarray
    steps: torch.Tensor
    kept: tuple | None


@torch.no_grad()
def follow(model, state, *, until_log_loss, rtol, max_steps, record):
    """Follow ``model`` from ``state`` ``(batch, n)`` to a target of log ℒ; the others as in ``gradient_flow``."""
    check_finite("until_log_loss", until_log_loss)
    control, max_steps = check_control(rtol, max_steps, state)
    kind, levels = _levels(record, until_log_loss, state)
    batch = begin(model, state, control)
    batch.code[batch.log_loss <= until_log_loss + rounding(batch.log_loss)] = REACHED
    if kind == "log_loss":
        # A level that the start has passed already is not on the path.
        batch.level = (levels > batch.log_loss.unsqueeze(-1)).sum(-1)
    kept = None
    if kind is not None:
        shape = (len(levels), len(state))
        kept = tuple(state.new_full(size, torch.nan) for size in ((*shape, state.shape[1]), shape, shape))

    def land(rows, kind, goal, length, longest):
        """Steps of ``rows`` ending where log ℒ or log t equals ``goal``, and log t there; ``length`` a first guess."""
        log_time = batch.log_time[rows]
        for _ in range(_LANDINGS):
            step = batch.step(model, control, rows, length)
            reached = step.log_time(log_time)
            if kind == "log_loss":
                miss, rate = step.log_loss - goal, -length * step.speed * step.speed
            else:
                miss, rate = reached - goal, length * torch.exp(-step.log_loss - reached)
            away = miss.abs() > _LANDED * goal.abs().clamp(min=1.0)
            if not away.any():
                break
            closer = torch.minimum(length * (1 - miss / rate).nan_to_num(1.0).clamp(0.5, 1.5), longest)
            length = torch.where(away, closer, length)
        return step, reached

    def keep(rows, step, reached, final=False):
        """Store the states at the levels that the steps of ``rows`` pass."""
        while kind is not None and len(rows):
            goal = torch.cat([levels, levels.new_full((1,), _NEVER[kind])])[batch.level[rows]]
            value = step.log_loss if kind == "log_loss" else reached
            slack = 1e-9 * goal.abs().clamp(max=1e300) + 1e-12
            passed = value <= goal + slack if kind == "log_loss" else value >= goal - slack
            if final and kind == "log_loss":
                passed |= goal >= until_log_loss
            passed &= batch.level[rows] < len(levels)
            rows, step, reached = rows[passed], step[passed], reached[passed]
            if len(rows):
                where = batch.level[rows], batch.id[rows]
                length = step.part(kind, goal[passed], batch.log_time[rows])
                landed, landed_log_time = land(rows, kind, goal[passed], length, step.length)
                for store, value in zip(kept, (landed.state, landed.log_loss, landed_log_time), strict=True):
                    store[where] = value
                batch.level[rows] += 1

    for count in range(max_steps):
        if count % _STALL_EVERY == 0:
            rank = model.saddle_rank(batch.state, batch.slope)
            stalled = (batch.code == RUNNING) & (rank >= 0)
            batch.code = torch.where(stalled, SADDLE + rank, batch.code)
        running = batch.code == RUNNING
        if not running.any():
            break
        for rows in batch.kinds(running):
            step = batch.step(model, control, rows)
            accepted = (step.error <= 1) & (step.log_loss <= batch.log_loss[rows] + rounding(batch.log_loss[rows]))
            batch.code[rows[exhausted(batch, rows, accepted)]] = EXHAUSTED
            batch.steps[rows] += accepted
            last = accepted & (step.log_loss <= until_log_loss)
            if last.any():
                # The step that passes the target is taken again, to it, when all others have got there.
                passing = step[last]
                target = torch.full_like(passing.log_loss, until_log_loss)
                batch.put(rows[last], h=passing.part("log_loss", target, batch.log_time[rows[last]]), code=LAST)
                accepted &= ~last
            reached = step.log_time(batch.log_time[rows])
            moved, there, reached = rows[accepted], step[accepted], reached[accepted]
            if kind is not None:
                keep(moved, there, reached)
            batch.put(
                moved,
                state=there.state,
                log_loss=there.log_loss,
                slope=there.slope,
                speed=there.speed,
                log_time=reached,
            )
            onward = ~last
            batch.adapt(rows[onward], step.error[onward], step.edge[onward], accepted[onward], model, control)
    for rows in batch.kinds(batch.code == LAST):
        goal = torch.full_like(batch.h[rows], until_log_loss)
        step, reached = land(rows, "log_loss", goal, batch.h[rows], 1.5 * batch.h[rows])
        step = step[torch.ones_like(rows, dtype=torch.bool)]
        keep(rows, step, reached, final=True)
        batch.put(rows, state=step.state, log_loss=step.log_loss, log_time=reached, code=REACHED)
    names = {RUNNING: "max steps", REACHED: "reached", EXHAUSTED: "precision exhausted"}
    status = np.array([names.get(code, f"stalled at a saddle of rank {code - SADDLE}") for code in batch.code.tolist()])
    return Run(batch.state, batch.log_loss, batch.log_time, status, batch.steps, kept)


# ---------------------------------------------------------------- to rest

_RESTING = 1e-8
# Longest step in units of 1/α: what is not stiff is stepped explicitly, with eigenvalues of a few α.
_LONGEST = 0.3
_DRIFT = 0.03
RESTS, TURNS, LOST = "rests", "still turning", "precision exhausted"


@dataclass(frozen=True)
class Rest:
    """End of :func:`rest`: states at the given sharpness, growth u, change of the direction a unit of u, statuses."""

    state: torch.Tensor
    growth: torch.Tensor
    turning: torch.Tensor
    status: np.ndarray
    steps: torch.Tensor


class Steady(Model):
    """A model held at constant log ℒ: the field less αx, α = ‖F‖²/⟨F, x⟩; its zeros are where the direction rests."""

    def __init__(self, model):
        self.model, self.live = model, model.live

    def field(self, x, out):
        """Write F − αx into ``out``; log ℒ and λ."""
        log_loss, weights = self.model.field(x, out)
        out.addcmul_(x, self._growth(x, out).unsqueeze(-1), value=-1)
        return log_loss, weights

    def linearise(self, x):
        """The first term of F', and −α."""
        slope = torch.empty_like(x)
        self.model.field(x, slope)
        return replace(self.model.linearise(x), damping=self._growth(x, slope))

    def _growth(self, x, slope):
        return (slope * slope).sum(-1) / (slope * x).sum(-1)


@torch.no_grad()
def rest(model, state, *, sharpness, until_growth, rtol, max_steps):
    """Continue ``model`` at constant log ℒ = −``sharpness`` until the direction of its gaps rests.

    A row rests when its gaps, scaled to norm 1, turn by less than 1e-8 while the logarithm u of the margin that
    the flow would have reached grows by 1.
    """
    control, max_steps = check_control(rtol, max_steps, state)
    steady = Steady(model)
    batch = begin(steady, _at_sharpness(model, state, sharpness), control)
    batch.implicit[:] = True
    rate = steady.linearise(batch.state).damping
    batch.h = control.share / 2 / rate
    growth = torch.zeros_like(batch.log_loss)
    turning = torch.full_like(growth, torch.inf)
    anchor, begun = _direction(model, batch.state), growth.clone()
    for _ in range(max_steps):
        rows = (batch.code == RUNNING).nonzero().squeeze(-1)
        if not len(rows):
            break
        step = batch.step(steady, control, rows)
        # Where margins join the active ones a step can fail whole and both its orders agree: log ℒ, which the field
        # keeps, then rises by a share of what the flow would have gained.
        gained = model.depth * rate[rows] * batch.h[rows] * sharpness
        accepted = (step.error <= 1) & (step.log_loss + sharpness <= _SPREAD + _DRIFT * gained)
        lost = ~accepted & (batch.h[rows] * rate[rows] <= 4 * torch.finfo(rate.dtype).eps)
        batch.code[rows[lost]] = EXHAUSTED
        batch.steps[rows] += accepted
        h = batch.h[rows]
        batch.h[rows] = h * batch.factor(rows, step.error, accepted, 3)
        rows, h, there = rows[accepted], h[accepted], _at_sharpness(model, step.state[accepted], sharpness)
        if not len(rows):
            continue
        slope = torch.empty_like(there)
        log_loss, _ = steady.field(there, slope)
        batch.put(rows, state=there, log_loss=log_loss, slope=slope, speed=norm(slope))
        growth[rows] += model.depth * rate[rows] * h
        rate[rows] = steady.linearise(there).damping
        batch.h[rows] = torch.minimum(batch.h[rows], _LONGEST / rate[rows])
        rows = rows[growth[rows] - begun[rows] >= 1]
        now = _direction(model, batch.state[rows])
        turning[rows] = norm(now - anchor[rows]) / (growth[rows] - begun[rows])
        anchor[rows], begun[rows] = now, growth[rows]
        batch.code[rows[turning[rows] < _RESTING]] = REACHED
        batch.code[(batch.code == RUNNING) & (growth >= until_growth)] = LAST
    names = {REACHED: RESTS, EXHAUSTED: LOST}
    status = np.array([names.get(code, TURNS) for code in batch.code.tolist()])
    return Rest(batch.state, growth, turning, status, batch.steps)


def _at_sharpness(model, state, sharpness):
    """States scaled so that log ℒ = −sharpness, to a relative error of 1/sharpness²; log ℒ is all but homogeneous."""
    scratch = torch.empty_like(state)
    for _ in range(2):
        log_loss, _ = model.field(state, scratch)
        state = state * (-sharpness / log_loss).pow(1 / model.depth).unsqueeze(-1)
    return state


def _direction(model, state):
    gaps = model.gaps(state)
    return gaps / norm(gaps).unsqueeze(-1)


def _levels(record, until_log_loss, state):
    """Kind and levels of ``record`` in the order in which the path meets them."""
    if record is None:
        return None, None
    if not isinstance(record, dict) or len(record) != 1 or next(iter(record)) not in _NEVER:
        raise DufmError(f'record must be {{"log_loss": levels}} or {{"log_time": levels}}, got {record!r}')
    ((kind, levels),) = record.items()
    try:
        levels = torch.as_tensor(levels, dtype=state.dtype, device=state.device)
    except (TypeError, ValueError) as error:
        raise DufmError(f"record[{kind!r}] must be a 1-D sequence of finite levels, got {levels!r}") from error
    if levels.ndim != 1 or not len(levels) or not levels.isfinite().all():
        raise DufmError(f"record[{kind!r}] must be a 1-D sequence of finite levels, at least one, got {levels}")
    if kind == "log_loss" and levels.min() < until_log_loss:
        raise DufmError(
            f"record['log_loss'] must stay at or above until_log_loss = {until_log_loss}, got {levels.min():g}"
        )
    return kind, levels.sort(descending=kind == "log_loss").values
