# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Low-rank matrices propagate norm more efficiently
#
# **Question.** Give every layer of a deep linear network the same norm budget. How large a product can it buy, and how does
# that depend on the rank?
#
# **Answer.** With $r$ equal singular values the product shrinks by $r^{-(L-1)/2}$ against rank one: exponentially in depth. A
# margin needs norm, so depth pays for low rank. The layers have to *agree* on their subspace for this; when each is
# turned at random the advantage is gone.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
dimension: int = 32  # size of the square matrices [4, 256]
ranks: list[int] = [1, 2, 4, 8, 16]  # ranks r, at most the dimension [1, 256]
depths: list[int] = [2, 3, 4, 6]  # numbers of factors L [2, 16]
draws: int = 400  # random draws for each rank and depth [20, 100000]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import torch

import dufm
from dufm import claims, figures, notebook

p = notebook.start("02_norm_propagation", globals())
if max(p.ranks) > p.dimension:
    raise ValueError(f"ranks must be at most dimension = {p.dimension}, got {p.ranks}")
count = {"smoke": min(p.draws, 40), "default": p.draws, "full": 10 * p.draws}[p.budget]
d, ranks = p.dimension, sorted(set(p.ranks))
rng = np.random.default_rng(p.seed)
norm = torch.linalg.matrix_norm

# %% [markdown]
# ## Three experiments
#
# *Efficiency* of a product is $\|W_L\cdots W_1\|_F\,/\,\prod_l\|W_l\|_F$: 1 is the most that any matrices achieve.
#
# 1. **Balanced factors** of a matrix with $r$ equal singular values.
# 2. **Powers of one matrix**: $A$ symmetric positive semidefinite of rank $r$, random, $A^L$.
# 3. **Random factors that share a subspace**: Gaussian matrices that act on the same $r$ directions. Beside them, random
#    factors whose subspaces are turned independently.


# %%
def frames(rank, number):
    """Orthonormal frames (number, d, rank), Haar-distributed."""
    return torch.linalg.qr(torch.from_numpy(rng.standard_normal((number, d, rank)))).Q


def efficiency(factors):
    """‖product‖_F over the product of the norms, for a list of (n, d, d) factors."""
    total, size = factors[0], norm(factors[0])
    for W in factors[1:]:
        total, size = W @ total, size * norm(W)
    return (norm(total) / size).numpy()


def balanced(rank, depth):
    U, V = frames(rank, 8), frames(rank, 8)
    return efficiency(dufm.balanced_init(U @ V.mT, depth, d))


def powers(rank, depth):
    G = torch.from_numpy(rng.standard_normal((count, d, rank)))
    return efficiency([G @ G.mT] * depth)


def shared(rank, depth):
    Q = frames(rank, count)
    cores = torch.from_numpy(rng.standard_normal((depth, count, rank, rank)))
    return efficiency([Q @ core @ Q.mT for core in cores])


def turned(rank, depth):
    cores = torch.from_numpy(rng.standard_normal((depth, count, rank, rank)))
    return efficiency([frames(rank, count) @ core @ frames(rank, count).mT for core in cores])


experiments = {"balanced": balanced, "powers": powers, "shared": shared, "turned": turned}
with notebook.timed("experiments"):
    cells = [(name, L, r) for name in experiments for L in p.depths for r in ranks]
    samples = {cell: experiments[cell[0]](cell[2], cell[1]) for cell in notebook.progress(cells, label="experiments")}
quantiles = {cell: np.quantile(values, [0.5, 0.1, 0.9]) for cell, values in samples.items()}
figures.store(
    "02_efficiency",
    {
        "experiment": np.array([cell[0] for cell in cells]),
        "depth": np.array([cell[1] for cell in cells]),
        "rank": np.array([cell[2] for cell in cells]),
        **{name: np.array([quantiles[cell][i] for cell in cells]) for i, name in enumerate(("median", "low", "high"))},
    },
)

# %% tags=["figure"]
from dufm import figures

data = figures.load("02_efficiency")
titles = {
    "balanced": "balanced factors",
    "powers": "powers $A^L$",
    "shared": "random, shared subspace",
    "turned": "random, turned",
}
fig, axes = figures.subplots(1, 4, width=7.0, height=2.5, sharey=True)
depths = sorted(set(data["depth"].tolist()))
for ax, (name, label) in zip(axes, titles.items(), strict=True):
    for L in depths:
        here = (data["experiment"] == name) & (data["depth"] == L)
        r = data["rank"][here]
        ax.fill_between(r, data["low"][here], data["high"][here], color=figures.depth_color(L), alpha=0.2, linewidth=0)
        ax.plot(r, data["median"][here], "o-", markersize=3.5, color=figures.depth_color(L))
        if name != "turned":
            ax.plot(r, r ** (-(L - 1) / 2), color="black", linestyle="--", linewidth=0.8)
        if name in ("balanced", "turned"):
            ax.annotate(
                f"$L={L}$",
                (r[-1], data["median"][here][-1]),
                xytext=(-1, 5),
                textcoords="offset points",
                ha="right",
                fontsize=7,
                color=figures.depth_color(L),
            )
    ax.set_xscale("log", base=2)
    ax.set_xticks(r, [str(int(x)) for x in r])
    ax.set_yscale("log")
    ax.set_xlabel("rank $r$")
    ax.annotate(
        label, (0.5, 1.0), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8
    )
axes[0].set_ylabel(r"$\|W_L\cdots W_1\|_F\,/\,\prod_l\|W_l\|_F$")
figures.save(
    fig,
    "02_efficiency",
    alt="Four panels, efficiency of a product against rank on logarithmic axes, one line a depth. For balanced factors it lies on the dashed "
    "law r to the minus (L-1)/2. Powers of a random matrix and random factors with a shared subspace fall with rank as well, deeper "
    "more steeply. For factors turned at random the lines do not fall with rank.",
)

# %% [markdown]
# *Median and 10–90% band over draws; dashed, $r^{-(L-1)/2}$. In the first three the layers act on one subspace and low rank wins, the more
# the deeper. In the last the subspaces are turned independently, and low rank wins nothing.*
#
# ## Statement and derivation
#
# **Statement.** *Balanced factors with total squared norm $\sum_l\|W_l\|_F^2 = R^2$ and $r$ equal singular values have*
# $$\|Z\|_F = \Bigl(\frac{R^2}{L}\Bigr)^{L/2} r^{-(L-1)/2}.$$
# *For any spectrum, $\|Z\|_F = (R^2/L)^{L/2}\,\|Z\|_F/\|Z\|_{S_{2/L}}$: at equal weight norm the ordering is that of $\|Z\|_F/\|Z\|_{S_{2/L}}$.*
#
# **Derivation.** Balanced factors share their singular values $\sigma_i^{1/L}$, so $R^2 = L\sum_i\sigma_i^{2/L} = L\,\|Z\|_{S_{2/L}}^{2/L}$, which is the second
# statement. With $r$ equal values, $\sigma = (R^2/(Lr))^{L/2}$ and $\|Z\|_F = r^{1/2}\sigma$. $\square$
#
# For Gaussian cores on a shared subspace the mean square says the same: $\mathbb E\|GM\|_F^2 = r\|M\|_F^2$ and $\mathbb E\|G\|_F^2 = r^2$, so each further
# layer costs $1/r$ of the squared efficiency. For a factor turned by a Haar rotation $Q$,
# $\mathbb E\|AQB\|_F^2 = \|A\|_F^2\|B\|_F^2/d$, whatever the ranks: no advantage is left, and because a product of few numbers fluctuates more than one of many, the
# *typical* efficiency of low rank is even a little lower.

# %%
spectra = torch.from_numpy(rng.dirichlet(np.ones(8), 200)) ** 2
Z = frames(8, 200) @ torch.diag_embed(spectra) @ frames(8, 200).mT
unequal = 0.0
for L in p.depths:
    factors = dufm.balanced_init(Z, L, d)
    budget = sum(W.square().sum((-2, -1)) for W in factors)
    bought = norm(dufm.product(factors))
    predicted = (budget / L) ** (L / 2) * norm(Z) / dufm.schatten(Z, 2 / L)
    unequal = max(unequal, float((bought / predicted - 1).abs().max()))

# %% [markdown]
# ## Verdict
#
# Ordering is checked on the logarithm of the efficiency: for each depth and each pair of neighbouring ranks, the lower rank must have the larger median.


# %%
def violations(name):
    """Pairs of neighbouring ranks whose medians are in the wrong order, over all depths."""
    return sum(
        quantiles[name, L, a][0] <= quantiles[name, L, b][0]
        for L in p.depths
        for a, b in zip(ranks[:-1], ranks[1:], strict=True)
    )


def slope(name, depth):
    """Least-squares exponent of the median efficiency in r."""
    return np.polyfit(np.log(ranks), np.log([quantiles[name, depth, r][0] for r in ranks]), 1)[0]


print("exponent of the median efficiency in r (law: -(L-1)/2)")
for L in p.depths:
    print(f"L = {L}: law {-(L - 1) / 2:5.2f}   " + "   ".join(f"{name} {slope(name, L):5.2f}" for name in experiments))

# %% tags=["verdict"]
exact = max(float(np.abs(samples["balanced", L, r] * r ** ((L - 1) / 2) - 1).max()) for L in p.depths for r in ranks)
claims.check("02-balanced", exact)
claims.check("02-unequal", unequal)
claims.check("02-powers", float(violations("powers")))
claims.check("02-shared", float(violations("shared")))
mean_square = [float((samples["turned", L, r] ** 2).mean() * d ** (L - 1)) for L in p.depths[:1] for r in ranks]
claims.check("02-turned", max(abs(value - 1) for value in mean_square))

# %% [markdown]
# ## Where it breaks
#
# The last panel is the break: the claim is about layers that *agree*. Gradient flow makes them agree, because it conserves
# the imbalance of neighbouring layers (notebook 01): what grows is balanced, and balanced layers share their singular
# vectors. At random initialisation nothing is aligned yet, and width enters here: independent wide layers propagate every
# direction alike (notebook 10 will measure it).
#
# ## Try it
#
# 1. `depths = [2, 8, 16]`: at which depth is rank 2 already a thousand times cheaper than rank 16?
# 2. Replace the square cores in `shared` by orthogonal ones. Which of the first three panels does it then reproduce exactly?
# 3. `dimension = 128` in the last panel: what moves, and what does not?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
