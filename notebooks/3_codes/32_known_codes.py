# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Softmax codes: what is known of them, and a search that finds it again
#
# **Question.** A *softmax code* keeps each of $K$ unit vectors in $\mathbb R^d$ as far as possible from the hull of the others. Which arrangements are these?
#
# **Answer.** With enough room they are old acquaintances: the simplex for $K\le d+1$, and whatever has margin exactly 1 for $d+2\le K\le2d$. With less, they coincide,
# in every case known here, with the best spherical codes: points on a sphere with the largest smallest angle. The search of this package finds ten such optima of the literature to all digits.
# Before: [31, portraits](31_portraits.ipynb). After: [33, depth's solution against the code](33_depth_against_code.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/3_codes/32_known_codes.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/3_codes/32_known_codes.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("32_codes")

# %% [markdown]
# *One-vs-rest margin of the best code found, against the number of classes, for $d$ from 2 to 6. Dashed: the three values that are theorems.
# Rings: arrangements whose optimality among spherical codes is proved in the literature.* [Drawn by](../../figures/32_codes.py)

# %% [markdown]
# ## Statement
#
# **Definition** (Jiang et al., ICML 2024). Unit vectors $w_1,\dots,w_K\in\mathbb R^d$ that maximise $\min_k\operatorname{dist}(w_k, \operatorname{conv}\{w_j: j\ne k\})$, the
# *one-vs-rest margin*. By duality of a point and a convex set, the distance is the largest $\min_{j\ne k}\langle w_k - w_j, h\rangle$ over unit $h$, so that a code also solves
# $$\max_{\|w_k\|=\|h_k\|=1}\ \min_{j\ne k}\ \langle w_k - w_j, h_k\rangle ,$$
# the problem of a classifier $W$ and features $H$, both of fixed lengths.
#
# **Three values.** In all of them the distance to the hull is bounded by that to one of its points, and a minimum by an average.
# 1. $K\le d+1$: the margin is $K/(K-1)$. *Proof.* Take the mean of the others: with $m=\sum_jw_j$ the distance of $w_k$ is at most
#    $\|Kw_k-m\|/(K-1)$. The squares average to $(K^2-\|m\|^2)/(K-1)^2\le K^2/(K-1)^2$. The simplex attains it. $\square$
# 2. $K\ge d+2$: at most 1, attained for $K\le2d$. *Proof.* By Radon's theorem two disjoint groups have hulls with a common point, $x=\sum_{k\in P}c_kw_k=\sum_{k\in N}c'_kw_k$
#    with weights $c,c'\ge0$ of sum 1. For $k\in P$, $x$ lies in the hull of the others, so $w_k$ is at most $\|w_k-x\|$ away, and
#    $\sum_Pc_k\|w_k-x\|^2=1-\|x\|^2\le1$. The orthoplex $\{\pm e_i\}$, $2d-K$ vertices missing, attains it: $\langle w_k-w_j,w_k\rangle\ge1$. $\square$
# 3. $d=2$, $K\ge4$: $1-\cos\frac{2\pi}K$. *Proof.* With the angles $\alpha,\beta$ to its neighbours $w_k$ lies $\cos\frac{\alpha-\beta}2-\cos\frac{\alpha+\beta}2\le1-\cos\frac{\alpha+\beta}2$ above
#    their chord, and $\frac{\alpha+\beta}2$ averages to $\frac{2\pi}K$. The polygon attains it. $\square$
#
# **When it is a packing problem.** Choosing $h_k=w_k$ shows that the margin is at least $1-\cos\theta$, $\theta$ the smallest angle. If each $w_k$ lies in the cone of its nearest
# neighbours, the nearest point of the hull lies among them, straight below $w_k$, and the margin *is* $1-\cos\theta$. Whether a softmax code always has this form is not known
# to this companion; climbs in which $h$ was free have not found a better one. `dufm.softmax_code` therefore searches with $h=w$, and takes the ends to the accuracy of the first-order conditions.
#
# ## One search

# %% tags=["parameters"]
dims: list[int] = [2, 3, 4, 5, 6]  # dimensions d of the curves [2, 8]
most: int = 16  # largest number of classes K of the curves [6, 40]
restarts: int = 128  # random starts of each search for a known code, a quarter of it for each point of the curves [8, 4096]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import math

import pandas
import torch

import dufm
from dufm import claims, codes, figures, notebook, stats

p = notebook.start("32_known_codes", globals())

# %%
code = dufm.softmax_code(8, 3, restarts=p.restarts, seed=p.seed)
H, distance = codes.separators(code.vectors)
print(f"eight in three dimensions: margin {code.margin:.8f}, smallest angle {code.angle:.5f}°")
print(f"{code.agree} of {code.restarts} climbs end at this margin; first-order conditions to {stats.below(code.residual, 1e-9)}")
print(f"distances to the hulls {distance.min():.6f} to {distance.max():.6f}; ⟨w, h⟩ at least {(H * code.vectors).sum(1).min():.6f}")
print(f"antiprism of the same faces and sides: {codes.one_vs_rest_margin(codes.antiprism()):.8f}")

# %% [markdown]
# ## Ten arrangements of the literature
#
# `codes.LITERATURE` lists optimal spherical codes with those who proved them. For $d=3$ that is the problem of Tammes, posed for the
# pores of pollen grains in 1930: the cosine is the root of $3x^3-9x^2-3x+1$ at seven points, of $7x^2+2x-1$ at eight (the square antiprism), $1/3$ at nine, $1/\sqrt5$ at twelve (the icosahedron).
# The others are the Petersen code (10 in four dimensions), Clebsch's sixteen in five, and Schläfli's 27 in six. None of this is known to the search.

# %%
known, errors = [], []
for (K, d), (cosine, source) in notebook.progress(codes.LITERATURE.items(), label="known codes"):
    code = dufm.softmax_code(K, d, restarts=p.restarts, seed=p.seed)
    found = math.cos(math.radians(code.angle))
    errors.append(abs(found - cosine))
    small = [stats.below(x, 1e-9) for x in (errors[-1], code.margin - 1 + found)]
    known.append((K, d, code.margin, code.angle, *small, source))
pandas.DataFrame(known, columns=["K", "d", "margin", "angle", "cosine off", "margin − (1 − cos)", "proved by"]).round(6)

# %% [markdown]
# ## The curves
#
# The margin for every $K$. Once the plateau at 1 ends, at $K=2d$, it falls quickly: the next vector costs more than all those between $d+2$ and $2d$
# together, which cost nothing.

# %%
grid = [(K, d) for d in p.dims for K in range(3, p.most + 1)]
curves = [
    (K, d, dufm.softmax_code(K, d, restarts=max(p.restarts // 4, 8), seed=p.seed).margin, (K, d) in codes.LITERATURE)
    for K, d in notebook.progress(grid, label="curves")
]
table = pandas.DataFrame(curves, columns=["num_classes", "dimension", "margin", "proved"])
figures.store("32_codes", table)

# %% tags=["figure"]
figures.show(
    "32_codes",
    alt="One-vs-rest margin of softmax codes against the number of classes, a line for each dimension from 2 to 6. All follow the simplex curve down to "
    "K = d + 1, stay at exactly 1 up to K = 2d, and then fall, the lower dimensions first; rings mark arrangements of the literature.",
)

# %% [markdown]
# ## Not unique on the plateau
#
# For $d+2\le K<2d$ many codes share the margin 1: any orthogonal sum of simplices over $K-d$ groups, and the orthoplex with vertices missing. Two with five vectors in three dimensions,
# which have different angles and different matrices of inner products. Which of the many *depth* selects is the subject of the next notebook.

# %%
pyramid = codes.orthoplex(6)[:5]
triangle_and_pair = torch.block_diag(codes.simplex_etf(3), codes.simplex_etf(2))
for name, W in (("square pyramid: two pairs and one single vector", pyramid), ("a triangle and a pair", triangle_and_pair)):
    cosines = sorted({round(x, 3) + 0.0 for x in (W @ W.T)[~torch.eye(5, dtype=torch.bool)].tolist()})
    print(f"{name}: margin {float(codes.one_vs_rest_margin(W)):.6f}, cosines {cosines}")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
K, d = table.num_classes, table.dimension
law = (K / (K - 1)).where(K <= d + 1, 1.0)
claims.check("32-known-codes", max(errors))
claims.check("32-plateau", (table.margin - law)[(K <= d + 1) | (K <= 2 * d)].abs().max())

# %% [markdown]
# ## Where it breaks
#
# *A search is not a proof.* Agreement with the literature says that the search is good at these sizes. Larger $K$ have many local optima close below the best,
# and the share of climbs that end at the best margin falls:

# %%
hard = {(K, d): dufm.softmax_code(K, d, restarts=p.restarts, seed=p.seed) for K, d in ((12, 3), (14, 4), (24, 4), (22, 5))}
rows = [(K, d, code.margin, stats.share(code.agree, code.restarts)) for (K, d), code in hard.items()]
pandas.DataFrame(rows, columns=["K", "d", "margin", "climbs that end there"]).round(6)

# %% [markdown]
# *A regular body need not be a code.* The cube has eight vertices in three dimensions, and its margin is below the antiprism's: turning one face by 45° moves all vertices apart.

# %%
for name, W in (("cube", codes.hypercube(8)), ("antiprism", codes.antiprism())):
    print(f"{name}: {float(codes.one_vs_rest_margin(W)):.4f}")

# %% [markdown]
# ## Try it ([answers](../answers.md#32))
#
# 1. `most = 30`, `dims = [4]`: at which $K$ do 24 vertices, the 24-cell, interrupt the smooth fall?
# 2. `restarts = 8`: which of the ten are still found?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
