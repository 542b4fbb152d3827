# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # With three classes, and at two layers, neural collapse is the only best solution
#
# **Question.** From three layers on, codes of low rank have a larger margin than collapse (notebook 25). Are there cases in which nothing has, and can that be proved?
#
# **Answer.** Two. At $L = 2$ collapse is the only logits of largest margin for every number of classes; and with $K = 3$ classes it is so at *every* depth, because the product of the two singular values
# cannot fall below that of collapse. Both proofs are short. Descents that know nothing of them, from starts of every shape, end nowhere else.
# Before: [26, the floor of rank two](26_rank_two.ipynb). After: [28, the complement](28_complement.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/2_margin/27_three_classes.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/2_margin/27_three_classes.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("27_triangles")

# %% [markdown]
# *Three classes: the product of the singular values at margin 1 against their ratio. Grey: starts, triangles of every shape with features of random lengths. Dashed: the bound of the proof for the most
# favourable orientation of a triangle of that ratio; only the ends of the descents (blue) touch it, at ratio 1 and product 1, which is collapse.* [Drawn by](../../figures/27_triangles.py)
#
# ## Statement
#
# *Let all margins of $Z\in\mathbb R^{K\times K}$ be at least 1, $z_{cc} - z_{jc}\ge1$ for $j\ne c$, and $C = I - J/K$.*
# - **A.** *For every $K$: $\|Z\|_*\ge K - 1$, with equality only for $Z = C$.*
# - **B.** *For $K = 3$: $\sigma_1\sigma_2\ge1$. So $\sum_i\sigma_i^p\ge2$ for every $p > 0$, at every depth $L = 2/p$, with equality only for $Z = C$.*
# - **C.** *For every $K\ge3$: $\sigma_1\sigma_2\ge1$.*
#
# **Centring.** $CZ$ has the margins of $Z$, and $\sigma_i(CZ)\le\sigma_i(Z)$ for every $i$. If all are equal, so are the Frobenius norms, and $\|Z\|_F^2 = \|CZ\|_F^2 + \|Z - CZ\|_F^2$ gives $Z = CZ$. The costs above rise strictly with each
# singular value: a shift $Z = CZ + \mathbf 1b^\top$, which no margin sees, is always paid for. It is enough to treat $Z = CZ$.
#
# **Proof of A.** The nuclear norm is dual to the spectral norm and $\|C\|_2 = 1$. Since $\langle C, Z\rangle = \sum_cz_{cc} - \frac1K\sum_{j,c}z_{jc}$,
# $$\|Z\|_*\ge\langle C, Z\rangle = \frac1K\sum_c\sum_{j\ne c}(z_{cc} - z_{jc})\ge\frac1K\,K(K-1) = K - 1 = \|C\|_* .$$
# The sum is over all $K(K-1)$ margins. Equality makes each of them 1: every column is $e_c$ plus a constant, so that $CZ = C$, and $Z = C$ after centring. $\square$
#
# **Proof of B.** The columns $z_c$ of $Z = CZ$ lie in the plane $\mathbf 1^\top z = 0$. There the unit vectors project to $e_1, e_2, e_3$, a regular triangle of side $\sqrt2$ and area $\Delta = \frac{\sqrt3}2$ with centre 0, and
# $z_{cc} - z_{jc} = \langle e_c - e_j, z_c\rangle$. Let $M = \sum_cz_cz_c^\top$ on the plane; it is invertible, as rank 1 never separates three classes (notebook 26).
#
# 1. For positive $Q$ with $\det Q = 1$, the eigenvalues of $Q^{1/2}MQ^{1/2}$ have product $\det M$, so $\operatorname{tr}QM\ge2\sqrt{\det M}$, with equality for $Q\propto M^{-1}$. With that $Q$,
#    $\sigma_1\sigma_2 = \sqrt{\det M} = \frac12\sum_c|Q^{1/2}z_c|^2$.
# 2. Let $v_c = Q^{-1/2}e_c$, a triangle of the same area, and $y_c = Q^{1/2}z_c$. Then $\langle v_c - v_j, y_c\rangle\ge1$ for both $j\ne c$, hence $\langle v_c - x, y_c\rangle\ge1$ for every $x$ on the opposite *side*, and $|y_c|\ge1/d_c$ with $d_c$ the
#    distance of $v_c$ from it. So $\sigma_1\sigma_2\ge\frac12\sum_cd_c^{-2}$.
# 3. *No angle exceeds $\pi/2$.* Every $d_c$ is a height, $2\Delta/a_c$ on the side $a_c$, and $\sum_cd_c^{-2} = \frac13\sum_ca_c^2\ge\frac13\,4\sqrt3\,\Delta = 2$. The inequality is Weitzenböck's: for sides $u, v, u - v$ in the complex plane,
#    $|u|^2 + |v|^2 + |u - v|^2 - 2\sqrt3\operatorname{Im}\bar uv = 2\,|v - e^{i\pi/3}u|^2$, which vanishes for regular triangles only.
# 4. *An angle $\pi - \beta$, $\beta<\frac\pi2$, between sides $b$ and $c$.* From the two acute corners the opposite side is nearest at the obtuse corner, so $\sum_cd_c^{-2} = \frac13a^2 + b^{-2} + c^{-2}$. With $bc\sin\beta = \sqrt3$ and
#    $a^2 = b^2 + c^2 + 2bc\cos\beta\ge2bc(1 + \cos\beta)$ it is at least $\frac2{\sqrt3}\bigl(\cot\frac\beta2 + \sin\beta\bigr)$. The derivative of the bracket, $\cos\beta - 1/(2\sin^2\frac\beta2)$, is negative: with $x = 2\sin^2\frac\beta2$ it is
#    $1 - x - 1/x$. At $\beta = \frac\pi2$ the bound is $4/\sqrt3>2$.
# 5. So $\sigma_1\sigma_2\ge1$. Equality needs step 3 with a regular triangle $v$: then $Q^{-1/2}$ maps one regular triangle with centre 0 to another of the same size, is a rotation or a reflection, and, being positive, $Q = I$. And $|z_c| = 1/d_c$ fixes
#    $z_c = (e_c - x_c)/d_c^2$ with $x_c$ the midpoint of the opposite side, $e_c - x_c = \frac32e_c$, $d_c^2 = \frac32$: $z_c = e_c$, that is $Z = C$.
# 6. $\sigma_1^p + \sigma_2^p\ge2(\sigma_1\sigma_2)^{p/2}\ge2$, the cost of collapse, where both values are 1; equality needs $\sigma_1\sigma_2 = 1$. $\square$
#
# **Proof of C.** The rows and columns of any three classes form logits of margin 1, and singular values of a submatrix are no larger than those of $Z$. $\square$

# %% tags=["parameters"]
runs: int = 400  # descents from triangles of every shape [20, 100000]
most_stretch: float = 30.0  # largest stretch of a triangle along one axis, shrunk across it [1, 1000]
depths: list[int] = [3, 6, 12, 48]  # depths L of the searches with three classes [2, 128]
classes: list[int] = [3, 4, 5, 6, 7, 8]  # numbers of classes K at two layers [3, 16]
restarts: int = 32  # random starts of each search [2, 512]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import claims, codes, figures, notebook, rank_two, stats

p = notebook.start("27_three_classes", globals())

# %% [markdown]
# ## One descent
#
# Three corners of a thin obtuse triangle and, for each, the shortest feature that gives it margin 1. The descent sees logits, their singular values and six margins, and no triangle:

# %%
W = torch.tensor([[-6.0, 0.0], [0.0, 0.3], [6.0, 0.0]], dtype=torch.float64)
H, distance = codes.separators(W)
end = rank_two.least_product(W.numpy(), (H / distance[:, None]).numpy())
for word, Z in (("start", (W - W.mean(0)).numpy() @ (H / distance[:, None]).numpy().T), ("end", end)):
    sigma = np.linalg.svd(Z, compute_uv=False)
    print(f"{word:>5s}: σ = {sigma[0]:.4f}, {sigma[1]:.4f}, product {sigma[0] * sigma[1]:.4f}")

# %% [markdown]
# ## Many descents, and the bound
#
# The same from triangles with sides of random directions and lengths, stretched up to thirtyfold, and features of random lengths. Beside them the right side of step 2, the least over all orientations of the stretch:

# %%
found = rank_two.product_runs(3, p.runs, most_stretch=p.most_stretch, seed=p.seed)
ratios = np.geomspace(1, 400, 76)
turns = np.linspace(0, np.pi / 3, 61)
bound = np.array([[rank_two.image_bound(ratio, turn) for turn in turns] for ratio in ratios])
parts = {"start": found[["start_ratio", "start_product"]], "end": found[["ratio", "product"]], "bound": np.stack([ratios, bound.min(1)], 1)}
table = pandas.concat([pandas.DataFrame(np.asarray(part), columns=["ratio", "product"]).assign(what=what) for what, part in parts.items()])
figures.store("27_triangles", table)
print(f"{len(found)} starts: ratio {found['start_ratio'].min():.2f} to {found['start_ratio'].max():.0f}, product {found['start_product'].min():.3f} to {found['start_product'].max():.0f}")
print(f"least bound {bound.min():.6f}, at ratio {ratios[bound.min(1).argmin()]:.3f}; descents that fail: {found['product'].isna().sum()}")

# %% tags=["figure"]
figures.show(
    "27_triangles",
    alt="Product of the singular values against their ratio, both logarithmic, for logits of three classes at margin 1. Grey starts lie above a dashed bound that rises from product 1 at ratio 1; "
    "all descents end in one blue point, product 1 at ratio 1.",
)

# %% [markdown]
# Two layers, by climbs of the normalised margin from random codes and from every rung of the ladder of pairs (notebook 25), at full rank; and three classes at several depths:

# %%
rows = []
for K, L in [(K, 2) for K in p.classes] + [(3, L) for L in p.depths]:
    ladder = torch.stack([codes.pairs_and_singles(K, t) for t in range(1, K // 2 + 1)])
    best = dufm.max_margin(K, L, K - 1, restarts=p.restarts, seed=p.seed, starts=ladder)
    away = float(torch.linalg.matrix_norm(best.Z - codes.pairs_and_singles(K, 0))) / np.sqrt(K - 1)
    rows.append((K, L, best.margin / dufm.closed_form_margin("nc", K, L), away, best.agree, best.restarts))
searched = pandas.DataFrame(rows, columns=["K", "L", "ratio", "away", "agree", "climbs"])
searched.assign(away=[stats.below(x, 1e-6) for x in searched["away"]], ratio=searched["ratio"].round(8)).set_index(["K", "L"])

# %% [markdown]
# One climb of 33 does not come to an end at three classes and four of the depths: at $L = 3$, 6 and 12 it stops within 1% of collapse's margin.
#
# ## Verdict

# %% tags=["verdict"]
claims.check("27-product", found["product"].min())
claims.check("27-ends", int((~(found["away"] < 1e-4)).sum()))
claims.check("27-three-classes", searched["away"][searched["K"] == 3].max())
claims.check("27-depth-two", searched["away"][searched["L"] == 2].max())

# %% [markdown]
# ## Where it breaks
#
# *At four classes* statement C still holds, but a sum of $K - 1$ powers is no longer ruled by the first two: the square, with values 2, 2, 0, has the product 4 and is cheaper than collapse with 1, 1, 1 from $L = 4$ on, where $2\cdot2^p<3$.
# *Optimal is not reached*: that no other *local* minimum of the product exists at $K = 3$ is measured here and not proved, and the flow of a network ends in critical points of the cost at its own depth.
#
# *Step 4 cannot be dropped*: the inequality of step 3 holds for the heights of an obtuse triangle too, but there a foot lies outside its side, $d_c$ exceeds the height, and the reciprocal height is no lower bound on $|y_c|$.
#
# ## Try it ([answers](../answers.md#27))
#
# 1. `most_stretch = 1000`: do descents from needles still find their way?
# 2. Show that every unitarily invariant norm at margin 1 is least at collapse when $K = 3$. (Weak majorisation of logarithms.)
# 3. Which step of the proof of A fails for $\sum\sigma_i^p$ with $p<1$?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
