# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Low-rank matrices propagate norm more efficiently, if they act on one subspace
#
# **Question.** Give every layer of a deep linear network the same norm. How large a product can it buy, and how does that depend on the rank?
#
# **Answer.** With $r$ equal singular values and aligned layers the product is smaller than at rank one by $r^{-(L-1)/2}$: the price of rank grows exponentially with depth. A margin needs norm,
# so depth pays for low rank. But the layers have to *agree* on their subspace for this. Between subspaces turned at random the root mean square does not depend on the rank at all, and the *typical*
# efficiency is reversed: it grows with the rank.
# Before: [14, NC1 at low rank](14_nc1_at_low_rank.ipynb). After: [16, does efficiency decide the end?](16_efficiency_decides.ipynb) Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/1_model/15_norm_propagation.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/1_model/15_norm_propagation.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("15_efficiency")

# %% [markdown]
# *Efficiency, the norm of a product over the product of the norms, against the rank of the factors: median and 10–90% band over draws, a line for each number of
# factors; dashed, $r^{-(L-1)/2}$. In the first three panels all layers act on one subspace and low rank is the more efficient; in the last each acts between subspaces of its own, and the order is reversed.*
# [Drawn by](../../figures/15_efficiency.py)

# %% [markdown]
# ## Statement
#
# The *efficiency* of factors is $e = \|W_L\cdots W_1\|_F\,/\,\prod_l\|W_l\|_F$. It is at most 1, and 1 for aligned factors of rank one.
#
# 1. *No factors of $Z$ are more efficient than $\|Z\|_F/\|Z\|_{S_{2/L}}$, with the Schatten quasi-norm $\|Z\|_{S_p} = (\sum_i\sigma_i^p)^{1/p}$, and balanced ones are as efficient. With $r$ equal singular values that is
#    $r^{-(L-1)/2}$; in general at most 1, reached at rank one.*
# 2. *A positive semidefinite matrix of rank $r$ has $\|A^L\|_F \ge r^{-(L-1)/2}\|A\|_F^L$: unequal eigenvalues lose less than equal ones.*
# 3. *For independent Gaussian $r\times r$ factors on one shared subspace $\mathbb E\|W_L\cdots W_1\|_F^2 = r^{-(L-1)}\prod_l\mathbb E\|W_l\|_F^2$.*
# 4. *If instead neighbouring subspaces are turned independently, $\mathbb E\,e^2 = d^{-(L-1)}$ whatever the ranks; at rank one $\mathbb E\log e = \frac{L-1}2\bigl(\psi(\tfrac12) - \psi(\tfrac d2)\bigr)$, with the digamma function $\psi$.*
#
# **Proof.** 1. Multiplying layers by numbers of product one changes neither side, so let all layers have one norm; then $\prod_l\|W_l\|_F = (R^2/L)^{L/2}$ with $R^2 = \sum_l\|W_l\|_F^2$. Notebook 12 has $R^2\ge L\,\|Z\|_{S_{2/L}}^{2/L}$, with equality
# for balanced factors. Insert. $\|Z\|_F\le\|Z\|_{S_{2/L}}$ because $2/L<2$, with equality for a single singular value only.
# 2. Power means of the $r$ eigenvalues: $\bigl(\frac1r\sum_i\lambda_i^{2L}\bigr)^{1/L}\ge\frac1r\sum_i\lambda_i^2$.
# 3. $\mathbb E\|GM\|_F^2 = r\|M\|_F^2$ while $\mathbb E\|G\|_F^2 = r^2$: each further layer costs $1/r$.
# 4. For $Q$ uniform among the rotations of $\mathbb R^d$, $\mathbb E\,QBB^\top Q^\top = \|B\|_F^2\,I/d$, hence $\mathbb E\|AQB\|_F^2 = \|A\|_F^2\|B\|_F^2/d$, layer by layer. At rank one $e$ is a product of $L-1$ independent cosines between a fixed and a uniform
# direction; $\cos^2$ has the law Beta$(\frac12,\frac{d-1}2)$. $\square$
#
# So at rank one the typical efficiency is below the root mean square by $\frac12(\log d + \psi(\frac12) - \psi(\frac d2))$ in the logarithm ($-0.62$ at $d = 32$, $-0.64$ in the limit) for every factor after the first: few numbers fluctuate more than many. Higher ranks average, and lose less.
# That is the reversal.

# %% tags=["parameters"]
dimension: int = 32  # size d of the square matrices [8, 256]
ranks: list[int] = [1, 2, 4, 8, 16]  # ranks r, at most the dimension, 2 or more [1, 256]
depths: list[int] = [2, 3, 4, 6]  # numbers of factors L [2, 16]
draws: int = 400  # random draws for each rank and depth [20, 100000]
seed: int = 1  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas as pd
import torch

import dufm
from dufm import claims, figures, notebook, stats

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
    "more steeply. For factors turned at random the lines rise with rank.",
)

# %% [markdown]
# The exponent of the efficiency in $r$, by least squares over all draws, with its 95% interval (a draw at all ranks is one independent unit):


# %%
def exponent(family, L):
    """Slope of log e on log r with its interval."""
    logs = np.log([samples[family, L, r] for r in sorted(set(p.ranks))])
    unit = np.broadcast_to(np.arange(p.draws), logs.shape)
    rank = np.broadcast_to(np.log(sorted(set(p.ranks)))[:, None], logs.shape)
    return stats.within_slope(rank.ravel(), logs.ravel(), unit.ravel())


slopes = {(family, L): [float(x) for x in exponent(family, L)] for family in families[1:] for L in p.depths}
shown = pd.Series({key: f"{x:.2f} [{low:.2f}, {high:.2f}]" for key, (x, low, high) in slopes.items()}).unstack(0)[list(families[1:])]
shown.insert(0, "law", [-(L - 1) / 2 for L in shown.index])
shown.rename_axis("L")

# %% [markdown]
# The bound of statement 1 is tested where it is tight: on thousands of products of small Gaussian matrices, some of which are nearly aligned by chance.

# %%
ratios = {}
for L in p.depths:
    for K in (2, 3, 4):
        factors = dufm.gaussian_init(L, K, K, batch=10 * p.draws, seed=p.seed)
        Z = dufm.product(factors)
        ratios[K, L] = float((dufm.efficiency(factors) * dufm.schatten(Z, 2 / L) / norm(Z)).max())
pd.Series(ratios).unstack().rename_axis(index="K", columns="L").round(3)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("15-low-rank", max(slopes[family, L][2] for family in ("powers", "shared") for L in p.depths))
claims.check("15-reversal", min(slopes["turned", L][1] for L in p.depths))
claims.check("15-bound", max(ratios.values()))
claims.check("15-powers", min((samples["powers", L, r] * r ** ((L - 1) / 2)).min() - 1 for L in p.depths for r in p.ranks if r > 1))
means = [stats.mean_interval(samples["turned", 2, r] ** 2 * p.dimension) if 2 in p.depths else 3 * [np.nan] for r in p.ranks]
claims.check("15-turned", max(abs(middle - 1) / (high - middle) for middle, _, high in means))

# %% [markdown]
# ## Where it breaks
#
# *Layers that do not agree*: the last panel. "Low rank propagates norm more efficiently" is a statement on aligned layers; among layers turned at random it is false of the typical draw, at every depth of the table. Gradient flow makes
# layers agree, because their imbalance is conserved while they grow (notebook 12). At random initialisation they do not yet, and
# this is where width enters: wide independent layers propagate every direction alike ([62, the lazy phase](../6_width/62_lazy.ipynb)).
#
# *Efficiency is not fate.* That a matrix is cheap does not say that training goes there: whether the efficiency of a start predicts its end is asked in [16](16_efficiency_decides.ipynb).
#
# ## Try it ([answers](../answers.md#15))
#
# 1. `depths = [2, 8, 16]`: at which depth is rank 2 a thousand times more efficient than rank 16?
# 2. `dimension = 128`: in the last panel, what moves and what does not?
# 3. Replace the Gaussian cores of *shared* by orthogonal ones. Which of the first three panels does it then reproduce exactly?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
