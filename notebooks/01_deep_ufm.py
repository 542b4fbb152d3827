# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The model: a deep linear network in disguise, its conserved quantities, and within-class collapse
#
# **Question.** The deep unconstrained feature model treats the features of every sample as free parameters. Is it a model
# of anything that is trained, what does its flow conserve, and do samples of one class really fall together?
#
# **Answer.** It *is* the deep linear network on orthonormal inputs, along the whole flow. The flow conserves the
# imbalance of neighbouring layers, which tells how good an integrator is. Samples of a class fall together at the last
# layers; at the first one they only do so relative to what grows, and at a low-rank end the usual measure of it,
# NC1, has to be read at the rank of that end.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
num_classes: int = 4  # number of classes K [2, 10]
depth: int = 3  # depth L, features included [2, 8]
width: int = 16  # hidden width d [2, 64]
scale: float = 0.5  # initial scale: entries N(0, scale²/fan-in) [0.05, 1]
inputs: int = 24  # dimension of the linear network's inputs, at least K [2, 200]
n_per_class: int = 5  # samples a class in the second half [2, 20]
low_rank_depth: int = 5  # depth at which runs with rank-2 ends are looked for [3, 8]
networks: int = 32  # networks in each batch [2, 256]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

import dufm
from dufm import claims, figures, notebook

p = notebook.start("01_deep_ufm", globals())
if p.inputs < p.num_classes:
    raise ValueError(f"inputs must be at least num_classes = {p.num_classes} for orthonormal inputs, got {p.inputs}")
device = notebook.device()
K, L = p.num_classes, p.depth
count = {"smoke": min(p.networks, 4), "default": p.networks, "full": 4 * p.networks}[p.budget]
end_loss = -400.0 if p.budget == "smoke" else -2000.0

# %% [markdown]
# ## Within-class collapse, layer by layer
#
# With $n$ samples a class the features $W_1$ have $Kn$ free columns. Along the flow we watch, at the features and at the
# penultimate layer $W_{L-1}\cdots W_1$,
# $$\mathrm{NC1} = \tfrac1K\operatorname{Tr}\bigl(\Sigma_W\Sigma_B^{+}\bigr)\qquad\text{and}\qquad \operatorname{Tr}\Sigma_W/\operatorname{Tr}\Sigma_B ,$$
# where $\Sigma_W$ and $\Sigma_B$ are the covariances within and between classes.

# %%
levels = [0.0, -2.0, -5.0, -10.0, -20.0, -50.0, -100.0, -200.0, -400.0, -800.0, -1400.0, -2000.0]
levels = [level for level in levels if level >= end_loss]


def layers(factors):
    """(features, everything above) at the first and at the penultimate layer."""
    below = factors[0]
    for W in factors[1:-1]:
        below = W @ below
    above = factors[-1]
    for W in reversed(factors[1:-1]):
        above = above @ W
    return {"first": (factors[0], above), "penultimate": (below, factors[-1])}


def collapse(depth, scale):
    """Ends of a batch and the NC metrics recorded on the way, every run read at the rank of its end."""
    start = dufm.gaussian_init(depth, p.width, K, scale=scale, batch=count, seed=p.seed, n_per_class=p.n_per_class)
    run = dufm.gradient_flow([W.to(device) for W in start], until_log_loss=end_loss, record={"log_loss": levels})
    # The rule of notebook 03: the flow's limit, certified. An undecided run has no rank and is shown nowhere.
    end = dufm.end(run, depth)
    rank = end.rank.clamp(min=1).expand(len(levels), -1)
    recorded = {}
    for layer, (features, above) in layers(run.history.factors).items():
        at_rank = dufm.nc_metrics(features, above, rank)
        plain = dufm.nc_metrics(features, above, K - 1)
        recorded[layer] = {
            "nc1": at_rank["nc1"].cpu(),
            "plain": plain["nc1"].cpu(),
            "trace": at_rank["trace_ratio"].cpu(),
        }
    return end, recorded


with notebook.timed("collapse"):
    end, recorded = collapse(L, p.scale)
    low_end, low_recorded = collapse(p.low_rank_depth, p.scale)
for depth, found in ((L, end), (p.low_rank_depth, low_end)):
    names = found.name.tolist()
    print(f"depth {depth}: " + ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names))))

# %%
ended = torch.from_numpy(end.name == "NC")


def spread(values):
    """Median and the 10% and 90% quantiles over networks."""
    return np.quantile(values.numpy(), [0.5, 0.1, 0.9], axis=1)


if not ended.any():
    raise ValueError("no run ended in neural collapse: lower depth, or raise width or networks")
store = {"minus_log_loss": -np.array(levels)}
for layer in ("first", "penultimate"):
    for quantity in ("nc1", "trace"):
        for name, values in zip(("", "_low", "_high"), spread(recorded[layer][quantity][:, ended]), strict=True):
            store[f"{layer}_{quantity}{name}"] = values
store["depth"] = np.full(len(levels), L)
figures.store("01_collapse", store)

# %% tags=["figure"]
from dufm import figures

data = figures.load("01_collapse")
fig, axes = figures.subplots(1, 2, width=7.0, height=2.7)
L, x = int(data["depth"][0]), data["minus_log_loss"]
looks = {"first": ("features $W_1$", "#e69f00", "s"), "penultimate": ("penultimate layer", "#004488", "o")}
for ax, quantity in zip(axes, ("nc1", "trace"), strict=True):
    for layer, (label, color, marker) in looks.items():
        y = data[f"{layer}_{quantity}"]
        ax.fill_between(
            x, data[f"{layer}_{quantity}_low"], data[f"{layer}_{quantity}_high"], color=color, alpha=0.2, linewidth=0
        )
        ax.plot(x, y, marker=marker, color=color)
        at, offset, side = (1, (0, 8), "left") if layer == "first" else (-4, (-8, -14), "right")
        ax.annotate(label, (x[at], y[at]), xytext=offset, textcoords="offset points", ha=side, fontsize=8, color=color)
    ax.set_xscale("symlog", linthresh=2)
    ax.set_xlim(0, x[-1] * 1.2)
    ax.set_yscale("log")
    ax.set_xlabel(r"$-\log\mathcal{L}$")
law = x > 40
y = data["first_trace"]
axes[1].plot(x[law], 1.35 * y[-1] * (x[law] / x[-1]) ** (-2 / L), color="black", linestyle="--", linewidth=0.9)
axes[1].annotate(
    "slope $-2/L$",
    (x[law][1], 1.35 * y[-1] * (x[law][1] / x[-1]) ** (-2 / L)),
    xytext=(4, 4),
    textcoords="offset points",
    fontsize=8,
)
axes[0].set_ylabel(r"NC1 $=\mathrm{Tr}(\Sigma_W\Sigma_B^+)/K$")
axes[1].set_ylabel(r"$\mathrm{Tr}\,\Sigma_W/\mathrm{Tr}\,\Sigma_B$")
figures.save(
    fig,
    "01_collapse",
    alt="Within-class variability against minus log loss for runs ending in neural collapse. Left, NC1 falls over many decades "
    "at both layers, further at the penultimate one. Right, the trace ratio of the features falls only like a power with "
    "slope minus two over L, dashed, while at the penultimate layer it falls far below.",
)

# %% [markdown]
# *Runs that end in neural collapse; median and 10–90% band over networks. NC1 vanishes at both layers. The plain ratio of traces
# shows what NC1 hides at the features: variation that the network above cannot see gets no gradient. It stays what it
# was and is merely outgrown, like $s^{-2/L}$ (dashed).*
#
# **Why.** $-\partial\mathcal L/\partial W_1 = (W_L\cdots W_2)^\top(\cdot)$: columns of the gradient lie in the row space of
# $W_L\cdots W_2$, of dimension at most $K$. The part of $W_1$ orthogonal to that space stays. The between-class part grows like one balanced factor,
# $\sigma^{1/L}$, so the ratio of squares falls like $s^{-2/L}$ with $s\approx-\log\mathcal L$.
#
# ## At a low-rank end, NC1 must be read at that rank
#
# Some deeper runs end at rank 2. There $\Sigma_B$ keeps a third eigenvalue that the flow has frozen and not erased. A plain
# pseudo-inverse divides by it; taken at the rank of the end, NC1 vanishes as it should.

# %%
is_low = (low_end.decided & (low_end.rank < K - 1)).cpu()
low_store = {"minus_log_loss": -np.array(levels)}
shown = is_low if is_low.any() else torch.ones_like(is_low)
for quantity in ("nc1", "plain"):
    for name, values in zip(
        ("", "_low", "_high"), spread(low_recorded["penultimate"][quantity][:, shown]), strict=True
    ):
        low_store[f"{quantity}{name}"] = values
figures.store("01_low_rank", low_store)

# %% tags=["figure"]
from dufm import figures

data = figures.load("01_low_rank")
fig, ax = figures.subplots(width=3.4, height=2.6)
x = data["minus_log_loss"]
for quantity, label, color, marker in (
    ("plain", "plain pseudo-inverse", "#aa3377", "x"),
    ("nc1", "at the final rank", "#004488", "o"),
):
    ax.fill_between(x, data[f"{quantity}_low"], data[f"{quantity}_high"], color=color, alpha=0.2, linewidth=0)
    ax.plot(x, data[quantity], marker=marker, color=color)
    place = dict(xy=(x[-1], data[quantity][-1]), xytext=(-2, 6), ha="right")
    if quantity == "nc1":
        place = dict(xy=(x[6], data[quantity][6]), xytext=(-6, -10), ha="right")
    ax.annotate(label, textcoords="offset points", fontsize=8, color=color, **place)
ax.set_xscale("symlog", linthresh=2)
ax.set_yscale("log")
ax.set_xlim(0, x[-1] * 1.2)
ax.set_xlabel(r"$-\log\mathcal{L}$")
ax.set_ylabel("NC1, penultimate layer")
figures.save(
    fig,
    "01_low_rank",
    alt="NC1 at the penultimate layer of runs that end at low rank, against minus log loss. With a plain pseudo-inverse it levels off; "
    "with the pseudo-inverse at the final rank it keeps falling.",
)

# %% [markdown]
# *Runs that end below rank $K-1$; median and 10–90% band.*
#
# ## A deep linear network on orthonormal inputs is the deep UFM
#
# **Statement.** *Let $Z = W_L\cdots W_1X$ with $X^\top X = I$. Under gradient flow, $H = W_1X$ together with $W_2,\dots,W_L$ follows the
# flow of the deep unconstrained feature model from the same start.*
#
# **Derivation.** $\dot W_1 = -(\partial\mathcal L/\partial H)X^\top$, so $\dot H = \dot W_1X = -(\partial\mathcal L/\partial H)X^\top X = -\partial\mathcal L/\partial H$. The other factors see $H$ only.
#
# Two codes that share nothing integrate the two models below: the linear network in NumPy with its own loss and
# SciPy's `DOP853`, the model with `dufm.gradient_flow`. They are compared at equal time, that is at equal $\log t$.


# %%
def linear_network(X, factors, levels, rtol):
    """States (H, W_2, …, W_L) of the linear network with inputs X, flattened, at the given log t."""
    shapes = [W.shape for W in factors]
    cuts = np.cumsum([0] + [rows * columns for rows, columns in shapes])

    def unpack(y):
        return [y[a:b].reshape(shape) for a, b, shape in zip(cuts[:-1], cuts[1:], shapes, strict=True)]

    def field(_, y):
        Ws = unpack(y)
        layer = [X]
        for W in Ws:
            layer.append(W @ layer[-1])
        Z = layer[-1]
        gaps = Z - Z.diagonal()
        np.fill_diagonal(gaps, -np.inf)
        wrong = np.logaddexp.reduce(gaps, axis=0)
        # log of −log softmax: log log(1 + e^w), which is w itself to rounding where e^w underflows beside 1.
        log_sample = np.where(wrong < -36, wrong, np.log(np.logaddexp(0, np.maximum(wrong, -36))))
        log_loss = np.logaddexp.reduce(log_sample)
        back = -np.exp(gaps - np.logaddexp(0, wrong) - log_loss)
        np.fill_diagonal(back, -back.sum(0))
        slopes = []
        for l in range(len(Ws) - 1, -1, -1):
            slopes.insert(0, back @ layer[l].T)
            back = Ws[l].T @ back
        # u = log(1 + t) starts at 0 and never overflows.
        return np.concatenate([*(slope.ravel() for slope in slopes), [np.exp(-log_loss - y[-1])]])

    start = np.concatenate([*(W.ravel() for W in factors), [0.0]])
    target = levels[-1] + 1.0

    def stop(_, y):
        return y[-1] - target

    stop.terminal = True
    run = solve_ivp(field, (0, 1e6), start, method="DOP853", rtol=rtol, atol=1e-14, dense_output=True, events=stop)
    states = []
    for level in levels:
        tau = brentq(
            lambda tau, level=level: run.sol(tau)[-1] - np.logaddexp(0, level), 0, run.t[-1], xtol=1e-15, rtol=1e-15
        )
        Ws = unpack(run.sol(tau)[:-1])
        states.append(np.concatenate([(Ws[0] @ X).ravel(), *(W.ravel() for W in Ws[1:])]))
    return np.array(states)


rng = np.random.default_rng(p.seed)
X = np.linalg.qr(rng.standard_normal((p.inputs, K)))[0]
ufm = [W[0] for W in dufm.gaussian_init(L, p.width, K, scale=p.scale, seed=p.seed)]
# W_1 of the linear network: the features on the inputs, and anything at all beside them.
beside = rng.standard_normal((p.width, p.inputs)) / p.inputs**0.5
first = ufm[0].numpy() @ X.T + beside @ (np.eye(p.inputs) - X @ X.T)
times = [0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 190.0]
tight = 1e-8 if p.budget == "smoke" else 1e-11
with notebook.timed("linear network"):
    linear = linear_network(X, [first, *(W.numpy() for W in ufm[1:])], times, tight)
    run = dufm.gradient_flow(ufm, rtol=tight, until_log_loss=-200.0, record={"log_time": times})
model = np.concatenate([W.reshape(len(times), -1).numpy() for W in run.history.factors], axis=1)
difference = np.linalg.norm(linear - model, axis=1) / np.linalg.norm(model, axis=1)
for time, value in zip(times, difference, strict=True):
    print(f"log t = {time:5.0f}: relative difference {'below 1e-9' if value < 1e-9 else f'{value:.0e}'}")

# %% [markdown]
# ## Balancedness
#
# **Statement.** *$D_l = W_{l+1}^\top W_{l+1} - W_lW_l^\top$ is conserved by the flow.*
#
# **Derivation.** With $G = -\partial\mathcal L/\partial Z$, $\dot W_{l} = W_{>l}^\top G\,W_{<l}^\top$. Both $W_{l+1}^\top\dot W_{l+1}$ and $\dot W_lW_l^\top$ equal
# $W_{>l}^\top G\,(W_l W_{<l})^\top$, and so do their transposes: the derivatives of the two terms of $D_l$ are equal.
#
# A numerical integrator does not know this, so the drift of $D_l$, relative to $\max_l\|W_l\|^2$, measures its error at no extra cost.


# %%
def drift(depth, rtol):
    """Largest relative drift of the imbalance over the run and over the batch."""
    start = dufm.gaussian_init(depth, p.width, K, scale=p.scale, batch=count, seed=p.seed)
    grid = [level for level in np.linspace(0.5, -200, 60).tolist()]
    run = dufm.gradient_flow([W.to(device) for W in start], rtol=rtol, record={"log_loss": grid})
    before = [D.to(device) for D in dufm.imbalance(start)]
    after = dufm.imbalance(run.history.factors)
    change = torch.stack([torch.linalg.matrix_norm(b - a) for a, b in zip(before, after, strict=True)]).amax(0)
    size = torch.stack([torch.linalg.matrix_norm(W).square() for W in run.history.factors]).amax(0)
    return float((change / size).nan_to_num(0.0).max())


with notebook.timed("drift"):
    rtols = [1e-4, 1e-6, 1e-8]
    drifts = [drift(L, rtol) for rtol in rtols]
for rtol, value in zip(rtols, drifts, strict=True):
    print(f"rtol {rtol:.0e}: imbalance drift {value:.1e}")

# %% [markdown]
# **Balanced factors are the cheapest.** *$\min\sum_l\|W_l\|_F^2$ over all factorisations of $Z$ is $L\sum_i\sigma_i^{2/L}$, reached exactly by balanced factors.* For two factors this
# is the nuclear norm's variational form; apply it repeatedly, or Weyl's inequality $\sum\sigma_i(AB)^{q}\le\sum\sigma_i(A)^q\sigma_i(B)^q$ with $q = 2/L$ and Hölder's. This is why depth turns the norm of the weights into
# the Schatten-$2/L$ quasi-norm of the logits.

# %%
Z = dufm.product(dufm.gaussian_init(2, K, K, batch=64, seed=p.seed + 1))


def cost(factors):
    """Total squared norm."""
    return sum(W.square().sum((-2, -1)) for W in factors)


balanced = dufm.balanced_init(Z, L, p.width if p.width >= K else None)
formula = L * dufm.schatten(Z, 2 / L) ** (2 / L)
balanced_error = float((cost(balanced) / formula - 1).abs().max())
mix = torch.linalg.matrix_exp(
    0.1 * torch.from_numpy(np.random.default_rng(p.seed).standard_normal(balanced[0].shape[-2:-1] * 2))
)
skewed = [mix @ balanced[0], balanced[1] @ torch.linalg.inv(mix), *balanced[2:]]
print(f"the same Z from skewed factors costs {float((cost(skewed) / formula).min()):.3f} times as much or more")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
at_200 = levels.index(-200.0)
claims.check("01-linear-network", float(difference.max()))
claims.check("01-imbalance-drift", drifts[-1])
claims.check("01-balanced-cheapest", balanced_error)
penultimate = recorded["penultimate"]["nc1"][at_200, ended]
print(
    f"NC1 below 1e-3 at log ℒ = -200: {int((penultimate < 1e-3).sum())} of {len(penultimate)} ends, the largest {penultimate.max():.1e}"
)
claims.check("01-nc1-penultimate", float(penultimate.median()))
trace = recorded["first"]["trace"][:, ended].median(1).values.numpy()
slope = np.log(trace[-1] / trace[-3]) / np.log(levels[-1] / levels[-3])
claims.check("01-outgrown", float(slope * L / 2))
claims.check(
    "01-nc1-low-rank", float(low_recorded["penultimate"]["nc1"][-1, is_low].median()) if is_low.any() else float("nan")
)
claims.check(
    "01-nc1-plain", float(low_recorded["penultimate"]["plain"][-1, is_low].median()) if is_low.any() else float("nan")
)

# %% [markdown]
# ## Where it breaks
#
# *Inputs that are not orthonormal.* Stretch one input by two and the linear network leaves the model: $X^\top X$ now weighs
# the gradient of each sample.

# %%
stretched = X * np.array([2.0] + [1.0] * (K - 1))
wrong_first = ufm[0].numpy() @ np.linalg.pinv(stretched) + beside @ (np.eye(p.inputs) - X @ X.T)
off = linear_network(stretched, [wrong_first, *(W.numpy() for W in ufm[1:])], times[:4], 1e-8)
gap = np.linalg.norm(off - model[:4], axis=1) / np.linalg.norm(model[:4], axis=1)
print("stretched input, relative difference at log t = 0, 1, 3, 10:", " ".join(f"{value:.3f}" for value in gap))

# %% [markdown]
# ## Try it
#
# 1. `n_per_class = 1` is refused here; why is NC1 then zero from the start?
# 2. `scale = 0.1`: the trace ratio starts lower. Does it keep its slope?
# 3. `low_rank_depth = 3`: how many runs end at rank 2 now, and what do the last two claims print?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
