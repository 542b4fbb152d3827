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
# **Question.** Give every layer of a deep linear network the same norm. How large a product can it buy, and how does that depend on the rank?
#
# **Answer.** With $r$ equal singular values the product is smaller than at rank one by $r^{-(L-1)/2}$: the price of rank grows exponentially with depth. A margin needs norm,
# so depth pays for low rank. But the layers have to *agree* on their subspace for this: when each is turned at random the advantage is gone, and typically reversed.
# Before: [14, NC1 at low rank](14_nc1_at_low_rank.ipynb). After: [21, where the flow ends](../2_margin/21_where_the_flow_ends.ipynb).

# %%
from dufm import figures

figures.published("15_efficiency")

# %% [markdown]
# *Efficiency, the norm of a product over the product of the norms, against the rank of the factors: median and 10–90% band over draws, a line for each number of
# factors; dashed, $r^{-(L-1)/2}$. In the first three panels all layers act on one subspace, in the last each acts between subspaces of its own.*
# [Drawn by](../../figures/15_efficiency.py)

# %% [markdown]
# ## Statement
#
# The *efficiency* of factors is $\|W_L\cdots W_1\|_F\,/\,\prod_l\|W_l\|_F$. It is at most 1, and 1 for aligned factors of rank one.
#
# 1. *Balanced factors of a $Z$ with $r$ equal singular values have efficiency $r^{-(L-1)/2}$; with total squared norm $\sum_l\|W_l\|_F^2 = R^2$,*
# $$\|Z\|_F = \Bigl(\frac{R^2}{L}\Bigr)^{L/2} r^{-(L-1)/2}.$$
# 2. *For any singular values balanced factors have $\|Z\|_F = (R^2/L)^{L/2}\,\|Z\|_F/\|Z\|_{S_{2/L}}$, with the Schatten quasi-norm $\|Z\|_{S_p} = (\sum_i\sigma_i^p)^{1/p}$: at equal weight norm
#    matrices are ordered by $\|Z\|_F/\|Z\|_{S_{2/L}}$, which is largest at rank one.*
# 3. *Two factors whose subspaces are turned independently have mean squared efficiency $1/d$, whatever their ranks.*
#
# **Proof.** 1, 2. Balanced factors share the singular values $\sigma_i^{1/L}$ (notebook 12), so $R^2 = L\sum_i\sigma_i^{2/L} = L\,\|Z\|_{S_{2/L}}^{2/L}$; solve for $\|Z\|_{S_{2/L}}$ and multiply by $\|Z\|_F/\|Z\|_{S_{2/L}}$.
# With $r$ equal values $\sigma$: $\|Z\|_F = r^{1/2}\sigma$, $\prod_l\|W_l\|_F = (r^{1/2}\sigma^{1/L})^L = r^{L/2}\sigma$.
# 3. For $Q$ uniform among the rotations of $\mathbb R^d$, $\mathbb E\,QBB^\top Q^\top = \|B\|_F^2\,I/d$, hence $\mathbb E\|AQB\|_F^2 = \operatorname{Tr}(A^\top A\,\mathbb E\,QBB^\top Q^\top) = \|A\|_F^2\|B\|_F^2/d$. $\square$
#
# For Gaussian $r\times r$ factors on one shared subspace the mean square follows the law of 1: $\mathbb E\|GM\|_F^2 = r\|M\|_F^2$ while $\mathbb E\|G\|_F^2 = r^2$, so each further layer costs $1/r$ of
# the squared efficiency. A positive semidefinite matrix spends its norm unevenly, so its powers lose less, but still the more the higher the rank.

# %% tags=["parameters"]
dimension: int = 32  # size d of the square matrices [8, 256]
ranks: list[int] = [1, 2, 4, 8, 16]  # ranks r, at most the dimension [1, 256]
depths: list[int] = [2, 3, 4, 6]  # numbers of factors L [2, 16]
draws: int = 400  # random draws for each rank and depth [20, 100000]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas as pd
import torch

import dufm
from dufm import claims, figures, notebook

p = notebook.start("15_norm_propagation", globals())
rng = np.random.default_rng(p.seed)
norm = torch.linalg.matrix_norm

# %% [markdown]
# ## One product
#
# Four layers of norm one, each $r^{-1/2}$ times a projection on the same $r$ directions. Every layer multiplies what is left by $r^{-1/2}$:

# %%
rows = []
for r in (1, 4):
    layer = torch.diag(torch.tensor([r**-0.5] * r + [0.0] * (4 - r), dtype=torch.float64))
    rows.append([float(norm(dufm.product([layer] * l))) if l > 1 else float(norm(layer)) for l in (1, 2, 3, 4)])
pd.DataFrame(rows, index=pd.Index([1, 4], name="rank"), columns=[f"after layer {l}" for l in (1, 2, 3, 4)])

# %% [markdown]
# ## Four families
#
# `dufm.rank_r_factors` draws them: *balanced* factors of $QQ'^\top$; *powers* $A^L$ of a random positive semidefinite $A$; Gaussian factors on one *shared* subspace; Gaussian factors between
# subspaces *turned* independently.

# %%
families = ("balanced", "powers", "shared", "turned")
cells = [(family, L, r) for family in families for L in p.depths for r in sorted(set(p.ranks))]
samples = {}
for family, L, r in notebook.progress(cells, label="families"):
    draws = 8 if family == "balanced" else p.draws
    samples[family, L, r] = dufm.efficiency(dufm.rank_r_factors(family, r, L, p.dimension, draws, rng)).numpy()
quantiles = [np.quantile(samples[cell], [0.5, 0.1, 0.9]) for cell in cells]
table = pd.DataFrame([(*cell, *q) for cell, q in zip(cells, quantiles)], columns=["family", "depth", "rank", "median", "low", "high"])
figures.store("15_efficiency", table)

# %% tags=["figure"]
figures.show(
    "15_efficiency",
    alt="Four panels, efficiency of a product against rank on logarithmic axes, one line a depth. For balanced factors it lies on the dashed "
    "law r to the minus (L-1)/2. Powers of a random matrix and random factors with a shared subspace fall with rank as well, deeper "
    "more steeply. For factors turned at random the lines do not fall with rank.",
)

# %% [markdown]
# The exponent of the median efficiency in $r$, by least squares:

# %%
medians = table.pivot(index="rank", columns=["family", "depth"], values="median")
slopes = pd.Series(np.polyfit(np.log(medians.index), np.log(medians), 1)[0], medians.columns).unstack("family")[list(families)]
slopes.insert(0, "law", -(slopes.index - 1) / 2)
slopes.round(2)

# %% [markdown]
# Unequal singular values: 200 random spectra, and what balanced factors of a given total norm really buy against statement 2.

# %%
spectra = torch.from_numpy(rng.dirichlet(np.ones(8), 200)) ** 2
left, right = (dufm.haar_frames(p.dimension, 8, 200, rng) for _ in range(2))
Z = left @ torch.diag_embed(spectra) @ right.mT
unequal = {}
for L in p.depths:
    factors = dufm.balanced_init(Z, L, p.dimension)
    spent = sum(W.square().sum((-2, -1)) for W in factors)
    predicted = (spent / L) ** (L / 2) * norm(Z) / dufm.schatten(Z, 2 / L)
    unequal[L] = float((norm(dufm.product(factors)) / predicted - 1).abs().max())

# %% [markdown]
# ## Verdict
#
# Order is checked on medians: for each depth and each pair of neighbouring ranks, the lower rank must have the larger one.

# %% tags=["verdict"]
wrong = (np.diff(medians.to_numpy(), axis=0) >= 0).sum(0)
wrong = pd.Series(wrong, medians.columns).groupby("family").sum()
exact = max(np.abs(samples["balanced", L, r] * r ** ((L - 1) / 2) - 1).max() for L in p.depths for r in p.ranks)
claims.check("15-low-rank", wrong[["balanced", "powers", "shared"]].sum())
claims.check("15-balanced", exact)
claims.check("15-unequal", max(unequal.values()))
claims.check("15-powers", wrong["powers"])
claims.check("15-shared", wrong["shared"])
claims.check("15-turned", max(abs((samples["turned", p.depths[0], r] ** 2).mean() * p.dimension ** (p.depths[0] - 1) - 1) for r in p.ranks))

# %% [markdown]
# ## Where it breaks
#
# *Layers that do not agree*: the last panel. Nothing is gained by low rank there, and because a product of few numbers fluctuates more than one of many, the *typical* efficiency of low rank
# is lower: the exponents of the table are positive. Gradient flow makes layers agree, because their imbalance is conserved while they grow (notebook 12). At random initialisation they do not yet, and
# this is where width enters: wide independent layers propagate every direction alike ([62, the lazy phase](../6_width/62_lazy.ipynb)).
#
# ## Try it
#
# 1. `depths = [2, 8, 16]`: at which depth is rank 2 a thousand times cheaper than rank 16?
# 2. `dimension = 128`: in the last panel, what moves and what does not?
# 3. Replace the Gaussian cores of *shared* by orthogonal ones. Which of the first three panels does it then reproduce exactly?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
