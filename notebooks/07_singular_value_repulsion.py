# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Depth makes singular values repel each other, up to s = K(1 − 2/L), and only then attract
#
# **Question.** Start near neural collapse: all singular values of $Z$ nearly equal. Does training make them more equal, or less?
#
# **Answer.** At $L = 2$ more equal, always. From $L = 3$ on *less* equal first: deviations grow like $s^{1-2/L}$ until the mean
# singular value reaches $s^* = K(1 - 2/L)$, and shrink like $e^{-s/K}$ afterwards. The law is exact to first order, and it is one of four: of
# all $K^2$ ways to deviate from neural collapse, depth amplifies some and never the others.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
log2_classes: list[int] = [2, 3, 4]  # Hadamard groups, log2 of the number of classes K [2, 5]
depths: list[int] = [2, 3, 4, 6, 10]  # depths L, the features included [2, 20]
network_classes: list[int] = [3, 4, 5, 7]  # numbers of classes of the full networks [3, 10]
network_depths: list[int] = [2, 3, 6]  # depths of the full networks [2, 10]
early_scale: float = 1e-4  # largest initial singular value in the early phase [1e-8, 1e-3]
scale: float = 0.1  # initial mean singular value elsewhere [0.01, 1]
spread: float = 0.06  # relative spread of the singular values that are drawn over training [0.001, 0.4]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import math

import numpy as np
import torch
from scipy.integrate import solve_ivp

import dufm
from dufm import claims, figures, notebook

p = notebook.start("07_singular_value_repulsion", globals())
smoke = p.budget == "smoke"
levels_wanted = {"smoke": 20, "default": 60, "full": 200}[p.budget]
depths = sorted(set(p.depths))[: 3 if smoke else None]
rng = np.random.default_rng(p.seed)


def level(s, K):
    """Log ℒ on the ray of neural collapse, Z = s(I − J/K)."""
    return math.log(K) + math.log(np.logaddexp(0.0, math.log(K - 1) - s)) if s < 600 else math.log(K * (K - 1)) - s


# %% [markdown]
# ## The picture
#
# One start, $K = 8$ and seven singular values spread by 6% about their mean, trained at five depths: each $s_i$ over the mean
# $\bar s$, against $\bar s$, which grows along the path.

# %%
start = torch.from_numpy(p.scale * (1 + p.spread * rng.uniform(-1, 1, 7)))
marks = [level(s, 8) for s in np.geomspace(1.05 * p.scale, 190.0, 2 * levels_wanted)]
paths = {name: [] for name in ("depth", "mean", *(f"s{i}" for i in range(1, 8)))}
for L in depths:
    run = dufm.spectral_flow(start, L, "hadamard", rtol=1e-5, record={"log_loss": marks})
    for s in run.history.s.numpy():
        paths["depth"].append(L)
        paths["mean"].append(s.mean())
        for i in range(7):
            paths[f"s{i + 1}"].append(s[i] / s.mean())
figures.store("07_spectrum", paths)

# %% tags=["figure"]
import numpy as np

from dufm import figures, spectral

data = figures.load("07_spectrum")
drawn = sorted(set(data["depth"].tolist()))
fig, axes = figures.subplots(1, len(drawn), width=7.0, height=2.3, sharey=True, squeeze=False)
for ax, L in zip(axes[0], drawn, strict=True):
    here = data["depth"] == L
    x = data["mean"][here]
    first = [data[f"s{i}"][here][0] for i in range(1, 8)]
    for i in np.argsort(first):
        # Light to dark by initial size.
        shade = np.argsort(np.argsort(first))[i] / 6
        ax.plot(x, data[f"s{i + 1}"][here], color=str(0.72 * (1 - shade)), linewidth=1.0)
    turn = spectral.turning_point(8, L)
    if turn > x[0]:
        ax.axvline(turn, color=figures.PALETTE["theory"], linestyle="--", linewidth=0.8)
        ax.annotate("$s^*$", (turn, 1.95), xytext=(2, 0), textcoords="offset points", fontsize=8)
    ax.annotate(
        f"$L = {L}$", (0.5, 1.0), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", ha="center"
    )
    ax.set_xscale("log")
    ax.set_xlim(x[0], 250)
    ax.set_ylim(0, 2.1)
    ax.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
axes[0][0].set_ylabel(r"$s_i/\bar s$")
fig.supxlabel(r"mean singular value $\bar s$", fontsize=9)
figures.save(
    fig,
    "07_spectrum",
    alt="Seven singular values over their mean against the mean, one panel for each depth. At depth 2 the lines only come together. At depth "
    "3 they spread until the dashed turning point and then come together. At larger depths they spread so far that some leave "
    "for zero and the others settle at a common larger value.",
)

# %% [markdown]
# *Seven singular values over their mean, the initially largest darkest. Dashed: the turning point $s^* = K(1 - 2/L)$. Left of it they repel each other, right
# of it they attract, unless the repulsion has carried them out of the basin of neural collapse (notebook 08): then some are
# left behind for good.*
#
# The same as an animation, `figures/07_frames.gif`, here as frames.

# %%
chosen = [L for L in depths if L in (2, 3, 6)] or depths[:3]
moments = [level(s, 8) for s in np.geomspace(1.05 * p.scale, 190.0, 8 if smoke else 32)]
frames = {name: [] for name in ("depth", "log_loss", "character", "ratio")}
for L in chosen:
    run = dufm.spectral_flow(start, L, "hadamard", rtol=1e-5, record={"log_loss": moments})
    for moment, s in zip(moments, run.history.s.numpy(), strict=True):
        for i in range(7):
            for name, value in zip(frames, (L, moment, i + 1, s[i] / s.mean()), strict=True):
                frames[name].append(value)
figures.store("07_frames", frames)

# %% tags=["figure"]
import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from dufm import figures, notebook

data = figures.load("07_frames")
drawn = sorted(set(data["depth"].tolist()))
moments = sorted(set(data["log_loss"].tolist()), reverse=True)


def bars(ax, L, moment):
    here = (data["depth"] == L) & (data["log_loss"] == moment)
    ax.bar(data["character"][here], data["ratio"][here], color=figures.depth_color(L), width=0.8)
    ax.axhline(1.0, color="black", linestyle="--", linewidth=0.7)
    ax.set_ylim(0, 2.0)
    ax.set_xticks([])


images = []
for moment in moments:
    fig, axes = figures.subplots(1, len(drawn), width=7.0, height=1.9, sharey=True, squeeze=False)
    for ax, L in zip(axes[0], drawn, strict=True):
        bars(ax, L, moment)
        ax.set_xlabel(f"$L = {L}$")
    axes[0][0].set_ylabel(r"$s_i/\bar s$")
    fig.suptitle(rf"$\log\mathcal{{L}} = {moment:.1f}$", fontsize=9)
    FigureCanvasAgg(fig)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=80)
    images.append(Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE, colors=16))
folder = notebook.out_dir() / "figures"
folder.mkdir(parents=True, exist_ok=True)
images[0].save(
    folder / "07_frames.gif", save_all=True, append_images=images[1:], duration=[120] * (len(images) - 1) + [1500], loop=0
)

shown = [moments[i] for i in np.linspace(0, len(moments) - 1, 6).round().astype(int)]
fig, axes = figures.subplots(len(drawn), len(shown), width=7.0, height=0.95 * len(drawn) + 0.3, sharey=True, squeeze=False)
for row, L in zip(axes, drawn, strict=True):
    for ax, moment in zip(row, shown, strict=True):
        bars(ax, L, moment)
        if L == drawn[0]:
            ax.annotate(
                rf"$\log\mathcal{{L}} = {moment:.3g}$",
                (0.5, 1.0),
                xycoords="axes fraction",
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    row[0].set_ylabel(f"$L = {L}$\n" + r"$s_i/\bar s$")
figures.save(
    fig,
    "07_frames",
    alt="Bar charts of the seven singular values over their mean at six moments of training, one row for each depth. At depth 2 the bars "
    "become equal. At depth 3 they first become more unequal and are equal at the end. At depth 6 they become far more unequal.",
)

# %% [markdown]
# *Seven singular values over their mean at six moments. Dashed: all equal.*
#
# ## The early phase, in closed form
#
# **Statement.** *While the loss is still near its start, $g_i \approx 1$ and*
# $$\dot s_i = L s_i^{2-2/L}\quad\Longrightarrow\quad s_i(t) = \bigl[s_i(0)^{-q} - (L-2)t\bigr]^{-1/q},\quad q = 1 - \tfrac2L;\qquad L = 2:\ s_i(t) = s_i(0)e^{2t}.$$
# *So at $L = 2$ all ratios stay, and for $L \ge 3$ the largest runs away in finite time $s_1(0)^{-q}/(L-2)$.*
#
# **Derivation.** $g_i = \sum_a p(a)(1 - \chi_i(a))$ is 1 for the uniform $p$ of $Z = 0$, because $\sum_a\chi_i(a) = 0$. Divide by $s^{2-2/L}$ and integrate: $\frac{d}{dt}s^{-q} = -qL = -(L-2)$.
# For two of them $\frac{d}{dt}\log(s_i/s_j) = L(s_i^q g_i - s_j^q g_j)$: with $q > 0$ the larger one is faster.
#
# Below, paths of seven different singular values against this formula, until the first $g_i$ has left 1 by $3\cdot10^{-4}$.

# %%
LEFT = 3e-4
chi8 = dufm.characters("hadamard", 8)
begin = torch.from_numpy(p.early_scale * np.linspace(1.0, 0.4, 7))
early = {name: [] for name in ("depth", "share_of_escape", "largest", "smallest", "law_largest", "law_smallest")}
early_error, ratio_drift = {}, 0.0
for L in depths:
    # L = 2 has no escape; there 1 is the time at which s = 1 by the formula.
    clock = -math.log(p.early_scale) / 2 if L == 2 else float(spectral.escape_time(begin, L)[0])
    shares = 1 - np.geomspace(0.99, 1e-3, levels_wanted // 2)
    run = dufm.spectral_flow(begin, L, "hadamard", rtol=1e-10, until_log_loss=-1.0, record={"log_time": np.log(shares * clock).tolist()})
    s = run.history.s
    arrived = ~s.isnan().any(-1)
    f = torch.cat([torch.zeros(len(s), 1), -(s.nan_to_num(1.0) @ chi8.rates)], -1)
    g = torch.softmax(f, -1) @ (1 - chi8.table).mT
    near = arrived & ((g - 1).abs().amax(-1) < LEFT)
    law = torch.stack([spectral.early_singular_values(float(x) * clock, begin, L) for x in shares])
    early_error[L] = float((s / law - 1).abs()[near].max())
    if L == 2:
        ratio_drift = float((s / s[:, :1] / (begin / begin[0]) - 1).abs()[near].max())
    last = float(shares[near.numpy()][-1])
    print(f"L = {L:2d}: largest relative deviation {early_error[L]:.1e}, g within {LEFT:g} of 1 up to {last:.3f} of the clock")
    for x, row, formula in zip(shares, s[arrived].numpy(), law[arrived].numpy(), strict=False):
        values = (L, x, row[0], row[-1], min(formula[0], 1e9), formula[-1])
        for name, value in zip(early, values, strict=True):
            early[name].append(value)
figures.store("07_early", early)

# %% tags=["figure"]
from dufm import figures

data = figures.load("07_early")
drawn = sorted(set(data["depth"].tolist()))
fig, axes = figures.subplots(1, len(drawn), width=7.0, height=2.2, sharey=True, squeeze=False)
for ax, L in zip(axes[0], drawn, strict=True):
    here = data["depth"] == L
    x = data["share_of_escape"][here]
    for which, marker in (("largest", "o"), ("smallest", "s")):
        ax.plot(x, data[which][here], marker=marker, markersize=2.5, linestyle="", color=figures.depth_color(L))
        ax.plot(x, data[f"law_{which}"][here], color="black", linestyle="--", linewidth=0.8)
    ax.set_yscale("log")
    ax.set_ylim(0.25 * data["smallest"].min(), 30)
    ax.annotate(
        f"$L = {L}$", (0.5, 1.0), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", ha="center"
    )
    ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
axes[0][-1].annotate("largest", (0.2, 4e-4), fontsize=7)
axes[0][-1].annotate("smallest", (0.2, 1.6e-5), fontsize=7)
axes[0][0].set_ylabel("singular value $s$")
fig.supxlabel(r"time over escape time $t\,(L-2)\,s_1(0)^{q}$   ($L = 2$: over $-\frac{1}{2}\log s_1(0)$)", fontsize=9)
figures.save(
    fig,
    "07_early",
    alt="The largest and the smallest of seven singular values against time, one panel for each depth, on a logarithmic axis. Marks lie "
    "on the dashed closed form until the loss falls. At depth 2 both are parallel lines; for larger depths the largest shoots up "
    "at the escape time while the smallest has hardly moved.",
)

# %% [markdown]
# *Marks: the flow; dashed: the closed form, which knows nothing of the loss and leaves through the roof.*
#
# ## Repulsion, then attraction
#
# **Statement.** *Let $s_i = \bar s(1 + \delta_i)$ with small $\delta_i$. To first order every $\delta$ is multiplied by*
# $$\frac{\delta(s)}{\delta(s_0)} = \Bigl(\frac{s}{s_0}\Bigr)^{1-2/L}e^{-(s-s_0)/K}\qquad\text{as } \bar s \text{ goes from } s_0 \text{ to } s:$$
# *it grows up to $s^* = K(1 - 2/L)$ and shrinks from there on. At $L = 2$, $s^* = 0$.*
#
# **Derivation**, for any finite abelian group with real spectrum.
# 1. $f(a) = \frac1K\sum_i s_i\chi_i(a)$, so $\partial f(a)/\partial s_j = \chi_j(a)/K$, and since $g_i = 1 - \mathbb E_p\chi_i$ for $p = \mathrm{softmax} f$, $\partial g_i/\partial s_j = -\operatorname{Cov}_p(\chi_i, \chi_j)/K$.
# 2. At equal $s_i = s$: $p(0) = e^s/(e^s + K - 1)$, the other $p(a)$ are equal. So $\mathbb E\chi = h := p(0) - p(a)$ for every nontrivial character, and $g = 1 - h = K/(e^s + K - 1)$.
# 3. $\chi_i\bar\chi_j$ is again a nontrivial character for $i \ne j$, so $\operatorname{Cov}(\chi_i, \bar\chi_j) = h - h^2$, and $1 - h^2$ for $i = j$: on deviations that sum to zero the covariance is $(1-h)$ times the identity, that is $g$.
# 4. Let $\varepsilon_i = s_i - \bar s$. $\dot\varepsilon_i = L(2 - \tfrac2L)s^{1-2/L}g\,\varepsilon_i - L s^{2-2/L}\,g\,\varepsilon_i/K$, and $\dot s = Ls^{2-2/L}g$. Divide: $d\varepsilon_i/ds = \bigl[(2-\tfrac2L)/s - 1/K\bigr]\varepsilon_i$.
# 5. $\delta = \varepsilon/s$ loses $1/s$ in the bracket: $d\log\delta/ds = (1 - \tfrac2L)/s - 1/K$. Integrate; the bracket vanishes at $s^*$. $\square$
#
# Speed and gradient share the factor $g$: that is why the law does not contain the loss at all.

# %%
EPS = 1e-6
growth = {name: [] for name in ("num_classes", "depth", "s", "growth", "law")}
law_error, turning_error = {}, {}
with notebook.timed("growth"):
    for m in notebook.progress(sorted(set(p.log2_classes))[: 1 if smoke else None], label="K"):
        K = 2**m
        # Groups of order K through Hadamard; a random direction that sums to zero.
        direction = torch.from_numpy(rng.standard_normal(K - 1))
        direction = direction - direction.mean()
        direction /= direction.norm()
        for L in depths:
            grid = np.geomspace(1.05 * p.scale, 3 * K, levels_wanted)
            star = spectral.turning_point(K, L)
            fine = star * np.linspace(0.9, 1.1, 9) if star > 1.2 * p.scale else np.array([])
            grid = np.sort(np.concatenate([grid, fine]))
            # Both signs: their difference has no second order.
            both = p.scale * (1 + EPS * torch.stack([direction, -direction]))
            record = {"log_loss": [level(s, K) for s in grid]}
            run = dufm.spectral_flow(both, L, "hadamard", rtol=1e-11, until_log_loss=record["log_loss"][-1], record=record)
            s = run.history.s
            mean = s.mean((-2, -1))
            grown = ((s[:, 0] - s[:, 1]) / (2 * EPS * mean.unsqueeze(-1))) @ direction
            law = spectral.nc_perturbation_growth(mean, torch.full_like(mean, p.scale), K, L)
            law_error[K, L] = float((grown / law - 1).abs().max())
            if len(fine):
                at = np.isin(grid, fine)
                curve = np.polynomial.Polynomial.fit(mean.numpy()[at], grown.log().numpy()[at], 4)
                roots = curve.deriv().roots()
                peak = float(roots[np.abs(roots - star).argmin()].real)
                turning_error[K, L] = abs(peak / star - 1)
            for row in zip(mean.tolist(), grown.tolist(), law.tolist(), strict=True):
                for name, value in zip(growth, (K, L, *row), strict=True):
                    growth[name].append(value)
figures.store("07_growth", growth)


def shown(error):
    """An error in one digit; below 1e-7 it is the rounding of the machine at hand."""
    return "below 1e-7" if error < 1e-7 else f"{error:.0e}"


print(" K   largest relative deviation from the law, and of the measured turning point, over the depths")
for K in sorted({K for K, _ in law_error}):
    print(
        f"{K:2d}   {shown(max(v for (k, _), v in law_error.items() if k == K))}   "
        f"{max((v for (k, _), v in turning_error.items() if k == K), default=float('nan')):.0e}"
    )

# %% tags=["figure"]
import numpy as np

from dufm import figures, spectral

data = figures.load("07_growth")
class_counts = sorted(set(data["num_classes"].tolist()))
drawn = sorted(set(data["depth"].tolist()))
fig, axes = figures.subplots(1, len(class_counts), width=7.0, height=2.5, sharey=True, squeeze=False)
for ax, K in zip(axes[0], class_counts, strict=True):
    for L in drawn:
        here = (data["num_classes"] == K) & (data["depth"] == L)
        x, y = data["s"][here], data["growth"][here]
        ax.plot(x, y, "o", markersize=2.2, color=figures.depth_color(L))
        ax.plot(x, data["law"][here], color="black", linestyle="--", linewidth=0.8)
        star = spectral.turning_point(K, L)
        if star > x[0]:
            ax.plot(star, np.interp(star, x, y), "v", markersize=5, color="black", zorder=4)
        if K == class_counts[-1]:
            ax.annotate(
                f"$L={L}$",
                (star if L > 2 else x[0], y.max()),
                xytext=(0, 4) if L > 2 else (6, -10),
                textcoords="offset points",
                ha="center" if L > 2 else "left",
                fontsize=7,
            )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(r"mean singular value $\bar s$")
    ax.annotate(
        f"$K = {K}$", (0.5, 1.0), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", ha="center"
    )
axes[0][0].set_ylabel(r"growth $\delta(s)/\delta(s_0)$")
figures.save(
    fig,
    "07_growth",
    alt="Growth of a small deviation from equal singular values against their mean, one panel for each number of classes and one curve for each depth. Marks "
    "lie on the dashed law. At depth 2 it only falls; at larger depths it rises to a peak at the turning point, marked, and falls after it.",
)

# %% [markdown]
# *Marks: the flow; dashed: the law; triangles: the turning point $s^* = K(1-2/L)$.*
#
# ## All directions: four families
#
# Hadamard starts see $K - 1$ directions. The full network has $K^2$. Write $Z = sC + E$ with $C = I - J/K$, $u = \mathbf 1/\sqrt K$.
#
# **Statement.** *For balanced factors, to first order in $E$, with $s$ as the clock and $\rho = (e^s - 1)/(e^s + K - 1)$:*
#
# | direction of $E$ | dimension | growth of $E/s$ from $s_0$ to $s$ |
# |---|---|---|
# | symmetric, centred, zero diagonal | $K(K-3)/2$ | $(s/s_0)^{1-2/L}e^{-(s-s_0)/K}$ |
# | antisymmetric, centred | $(K-1)(K-2)/2$ | $(s/s_0)^{-1}e^{-(s-s_0)/K}$ |
# | $u c^\top$: a common shift of each column | $K-1$ | $(s/s_0)^{-1/L}$ |
# | $C\,\mathrm{Diag}(x)\,C + b u^\top$, $x, b \perp \mathbf 1$: class imbalance | $2(K-1)$ | coupled, below |
#
# $$\frac{dx}{ds} = \frac{2-2/L}{s}x - \frac1K\bigl[x + \rho\,((K-2)x + \sqrt K\,b)\bigr],\qquad \frac{db}{ds} = \frac{1-1/L}{s}b - \frac1{LK}\bigl[b + \rho\,\bigl(\tfrac{K-2}{\sqrt K}x + b\bigr)\bigr].$$
# *With $C$ itself and $uu^\top$, which do not deviate and do not move, these are all $K^2$ directions.*
#
# **Derivation.**
# 1. *How balanced factors move Z.* $\dot Z = \sum_{l=1}^L (ZZ^\top)^{(L-l)/L}\,G\,(Z^\top Z)^{(l-1)/L}$ with $G = I - P$. Between singular vectors $u_i$ and $v_j$ the entry of $G$ is multiplied by
#    $\sum_l \sigma_i^{2(L-l)/L}\sigma_j^{2(l-1)/L}$.
# 2. *On the ray.* $G = \kappa C$, $\kappa = K/(e^s + K - 1)$, so $\dot s = L s^{2-2/L}\kappa$. $Z = sC$ has $\sigma = s$ on $\mathbf 1^\perp$ and $0$ along $u$.
# 3. *Perturb G.* Let $D$ be $E$ as margins see it: column $c$ of $\delta P$ is $p\circ(E_{\cdot c} - \langle p, E_{\cdot c}\rangle)$. With $p_1 = 1/(e^s + K - 1) = \kappa/K$ for the wrong classes and $p_0 = p_1e^s$ for the true one,
#    $\delta P = p_1E + (p_0 - p_1)\,\mathrm{diag}(E) - p\,(\cdot)$: besides a multiple of $E$, only the diagonal of $E$ and its column sums enter. For $E$ centred with zero diagonal $\langle p, E_{\cdot c}\rangle = 0$ and $\delta G = -(\kappa/K)E$.
# 4. *Perturb the preconditioner.* For $M = sC + E$ and centred $E = E_+ + E_-$ (symmetric, antisymmetric), $ZZ^\top \approx s^2C + 2sE_+ + s\,(\text{terms that cancel})$: for symmetric $E$ the function
#    $Z \mapsto L\,Z^{2-2/L}$ has derivative $L(2-\tfrac2L)s^{1-2/L}$; for antisymmetric $E$, $ZZ^\top = s^2C + s(E + E^\top) = s^2C$, no change at all.
# 5. *First two families.* $dE/ds = [(2-\tfrac2L)/s - 1/K]E$ and $dE/ds = -E/K$; divide by $s$.
# 6. *Third.* $E = uc^\top$ shifts a column: the loss does not see it, $\delta G = 0$. But $u$ is now slightly tilted into the range: $ZZ^\top$ and $Z^\top Z$ change in the blocks between $u$ and $\mathbf 1^\perp$; the sum in 1 has there
#    $L-1$ of its $L$ terms, so $dE/ds = (1-\tfrac1L)E/s$.
# 7. *Fourth.* $C\,\mathrm{Diag}(x)\,C$ is symmetric and centred, like the first, but has the diagonal $(1-\tfrac2K)x$, which step 3 turns into a pull of the classes on each other, with weight $\rho$; $bu^\top$ tilts the other side, as in 6, is seen by the loss through one
#    factor only, hence $1/L$, and feeds the same pull. $\square$
#
# The table is first-order; here it is measured on networks started from a random $E$ that holds all four at once, $\pm E$ so that second order cancels.


# %%
def families(K, generator):
    """One random unit direction of each family, (4, K, K): symmetric, antisymmetric, shift, imbalance."""
    C, u = np.eye(K) - 1 / K, np.full(K, K**-0.5)
    R = C @ generator.standard_normal((K, K)) @ C
    sym = R + R.T
    # Subtract the C Diag(x) C that has the same diagonal.
    sym -= C @ np.diag((np.diag(sym) - np.trace(sym) / K) / (1 - 2 / K) + np.trace(sym) / (K - 1)) @ C
    x, b, c = (C @ generator.standard_normal(K) for _ in range(3))
    # K = 3 has no first family: what is left of it there is rounding.
    parts = [sym if K > 3 else 0 * sym, R - R.T, np.outer(u, c), C @ np.diag(x) @ C + np.outer(b, u)]
    return [part / max(np.linalg.norm(part), 1e-300) for part in parts]


def measured_in(E, parts, K):
    """Growth of the first three families, and x and b of the fourth, from E of shape (levels, K, K)."""
    C, u = np.eye(K) - 1 / K, np.full(K, K**-0.5)
    found = [np.einsum("nij,ij->n", E, part) for part in parts[:3]]
    # The diagonal belongs to the fourth family alone.
    x = np.einsum("nii->ni", C @ E @ C) / (1 - 2 / K)
    return found, x, E @ u @ C


def coupled(x, b, s, K, L, rtol=1e-10):
    """The fourth family's equations, integrated along s."""

    def field(s, y):
        x, b = np.split(y, 2)
        rho = (1 - math.exp(-s)) / (1 + (K - 1) * math.exp(-s))
        dx = (2 - 2 / L) * x / s - (x + rho * ((K - 2) * x + math.sqrt(K) * b)) / K
        db = (1 - 1 / L) * b / s - (b + rho * ((K - 2) * x / math.sqrt(K) + b)) / (L * K)
        return np.concatenate([dx, db])

    run = solve_ivp(field, (s[0], s[-1]), np.concatenate([x, b]), "DOP853", t_eval=s, rtol=rtol, atol=1e-6 * rtol)
    return np.split(run.y.T, 2, axis=1)


SIZE, BEGIN = 1e-6, 0.5
names = ("symmetric", "antisymmetric", "shift", "imbalance")
table = {name: [] for name in ("num_classes", "depth", "family", "s", "growth", "law")}
family_error = {name: 0.0 for name in names}
classes = sorted(set(p.network_classes))
cells = [(K, L) for K in (classes[:2] if smoke else classes) for L in sorted(set(p.network_depths))[: 2 if smoke else None]]
with notebook.timed("families"):
    for K, L in notebook.progress(cells, label="K, L"):
        parts = families(K, np.random.default_rng([p.seed, K]))
        C = np.eye(K) - 1 / K
        E0 = SIZE * sum(parts)
        Z0 = torch.from_numpy(np.stack([BEGIN * C + E0, BEGIN * C - E0]))
        marks = [level(s, K) for s in np.geomspace(1.1 * BEGIN, 2.5 * K, 12)]
        run = dufm.gradient_flow(dufm.balanced_init(Z0, L), rtol=1e-11, until_log_loss=marks[-1], record={"log_loss": marks})
        Z = np.concatenate([Z0.numpy()[None], run.history.Z.numpy()])
        s = np.einsum("nbij,ij->n", Z, C) / (2 * (K - 1))
        E = (Z[:, 0] - Z[:, 1]) / (2 * SIZE)
        found, x, b = measured_in(E, parts, K)
        laws = [s * f for f in ((s / BEGIN) ** (1 - 2 / L) * np.exp(-(s - BEGIN) / K), (s / BEGIN) ** -1 * np.exp(-(s - BEGIN) / K), (s / BEGIN) ** (-1 / L))]
        for name, grown, law in zip(names, found, laws, strict=False):
            if name == "symmetric" and K == 3:
                continue
            law = law / BEGIN
            family_error[name] = max(family_error[name], float(np.abs(grown / law - 1).max()))
            for row in zip(s, grown * BEGIN / s, law * BEGIN / s, strict=True):
                for key, value in zip(table, (K, L, name, *row), strict=True):
                    table[key].append(value)
        both, law = np.concatenate([x, b], 1), np.concatenate(coupled(x[0], b[0], s, K, L), 1)
        size, expected = np.linalg.norm(both, axis=1), np.linalg.norm(law, axis=1)
        family_error["imbalance"] = max(family_error["imbalance"], float((np.linalg.norm(both - law, axis=1) / expected).max()))
        for row in zip(s, size / size[0] * BEGIN / s, expected / expected[0] * BEGIN / s, strict=True):
            for key, value in zip(table, (K, L, "imbalance", *row), strict=True):
                table[key].append(value)
figures.store("07_families", table)
for name in names:
    print(f"{name:14s} largest relative deviation from the law {shown(family_error[name])}")

# %% tags=["figure"]
import numpy as np

from dufm import figures

data = figures.load("07_families")
titles = {
    "symmetric": "symmetric,\nzero diagonal",
    "antisymmetric": "antisymmetric",
    "shift": "common shift $uc^\\top$",
    "imbalance": "class imbalance",
}
K = sorted(set(data["num_classes"].tolist()))[-1]
drawn = sorted(set(data["depth"].tolist()))
fig, axes = figures.subplots(1, 4, width=7.0, height=2.4, sharey=True)
for ax, (name, title) in zip(axes, titles.items(), strict=True):
    for L in drawn:
        here = (data["family"] == name) & (data["depth"] == L) & (data["num_classes"] == K)
        x, y = data["s"][here], data["growth"][here]
        if not len(x):
            continue
        ax.plot(x, y, "o", markersize=3, color=figures.depth_color(L))
        ax.plot(x, data["law"][here], color="black", linestyle="--", linewidth=0.8)
        if name != "antisymmetric":
            ax.annotate(f"$L={L}$", (x[-1], y[-1]), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)
    ax.axhline(1.0, color="0.6", linewidth=0.6)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(0.45, 45)
    ax.set_xticks([0.5, 2, 10], ["0.5", "2", "10"])
    ax.minorticks_off()
    ax.set_xlabel("$s$")
    ax.annotate(
        title, (0.5, 1.0), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points", ha="center", fontsize=8
    )
axes[1].annotate("all depths", (0.45, 0.62), xycoords="axes fraction", fontsize=7)
axes[0].set_ylabel("growth of $E/s$")
figures.save(
    fig,
    "07_families",
    alt="Growth of four kinds of deviation from neural collapse in a full network, K = 7, against the common singular value, one panel a family and one "
    "curve a depth. Marks lie on the dashed laws. The symmetric one rises above 1 at depths 3 and 6 and falls; the antisymmetric one falls at "
    "once, alike at all depths; the common shift falls slowly as a power; class imbalance lies between.",
)

# %% [markdown]
# *Full networks at the largest $K$; marks: the flow, dashed: the table. Above the grey line a deviation is amplified.*
#
# How far each family is amplified at most, from $s_0 = 0.01$ on, by the equations (1 is no amplification; for class imbalance, the worst mixture of $x$ and $b$):

# %%
peaks = {}
print(" K   L   symmetric   antisymmetric   shift   imbalance")
for K in classes[: 1 if smoke else None]:
    for L in depths:
        s = np.geomspace(0.01, 6 * K, 400)
        growth_of = (s / s[0]) ** (1 - 2 / L) * np.exp(-(s - s[0]) / K)
        columns = [np.concatenate(coupled(np.array([x]), np.array([b]), s, K, L, 1e-6), 1) for x, b in ((1.0, 0.0), (0.0, 1.0))]
        # Norm of E itself: ‖C Diag(x) C‖² = (1 − 2/K)‖x‖² for x ⟂ 1.
        weight = np.array([math.sqrt(1 - 2 / K), 1.0])
        maps = np.stack(columns, -1) * weight[:, None] / weight[None, :]
        peaks[K, L] = float((np.linalg.norm(maps, 2, axis=(1, 2)) * s[0] / s).max())
        first = f"{growth_of.max():9.2f}" if K > 3 else "     none"
        print(f"{K:2d}  {L:2d}   {first}   {1.0:13.2f}   {1.0:5.2f}   {peaks[K, L]:9.2f}")

# %% [markdown]
# Depth amplifies symmetric deviations that leave the classes' own logits alone, and class imbalance; it never amplifies antisymmetric deviations or common shifts.
#
# **Three classes.** $K = 3$ has no deviation of the first family. Class imbalance *is* amplified there too, so it is not true that nothing grows; but it has nowhere to
# go. A rank-1 matrix cannot separate three classes, so rank 2 is the floor, and at rank $2 = K - 1$ neural collapse is the best; the next cell looks for random networks that end elsewhere, each followed to its limit and certified there.

# %%
runs = {"smoke": 8, "default": 32, "full": 256}[p.budget]
three = {}
for L in (3,) if smoke else (3, 6):
    factors = dufm.gaussian_init(L, 8, 3, scale=0.5, batch=runs, seed=p.seed)
    end = dufm.end(dufm.gradient_flow(factors), L)
    three[L] = int((end.name == "NC").sum()), int((~end.decided).sum())
    print(f"K = 3, L = {L}: {three[L][0]} of {runs} random networks certified in neural collapse, {three[L][1]} undecided, {runs - sum(three[L])} elsewhere")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("07-early", max(early_error.values()))
claims.check("07-ratios-stay", ratio_drift if 2 in depths else float("nan"))
claims.check("07-growth", max(law_error.values()))
claims.check("07-turning-point", max(turning_error.values(), default=float("nan")))
claims.check("07-four-families", max(family_error.values()))
claims.check("07-never-repelled", max(family_error["antisymmetric"], family_error["shift"]))
claims.check("07-three-classes", float(sum(runs - sum(count) for count in three.values())))

# %% [markdown]
# ## Where it breaks
#
# *Large deviations.* The law is first-order. Scaling a deviation up from $10^{-6}$, the growth up to the turning point leaves the law by the amount below: at $L = 6$ a start 10% unequal already leaves neural collapse's basin.

# %%
K, L = 8, 6
direction = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 0.0], dtype=torch.float64)
star = spectral.turning_point(K, L)
sizes = [1e-3, 1e-2, 3e-2, 1e-1, 3e-1]
starts = torch.stack([p.scale * (1 + size * direction) for size in sizes])
run = dufm.spectral_flow(starts, L, "hadamard", rtol=1e-8, record={"log_loss": [level(star, K), -200.0]})
mean = run.history.s.mean(-1)
relative = (run.history.s / mean.unsqueeze(-1) - 1).norm(dim=-1) / direction.norm()
print("initial deviation   growth at s*, over the law   deviation at the end")
for i, size in enumerate(sizes):
    law = spectral.nc_perturbation_growth(mean[0, i], torch.tensor(p.scale, dtype=torch.float64), K, L)
    end = float(relative[1, i])
    print(f"{size:17.3f}   {float(relative[0, i] / size / law):26.3f}   {'below 1e-6' if end < 1e-6 else f'{end:.3f}'}")

# %% [markdown]
# ## Try it
#
# 1. `depths = [20]`: where is the turning point as $L \to \infty$? How much is amplified at most from $s_0$?
# 2. `scale = 1.0`: which depths show no repulsion any more, and why?
# 3. `network_classes = [6]`: are there six-class deviations that Hadamard or cyclic starts never see? Count them.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
