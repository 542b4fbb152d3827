# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Rank two is the floor, and its winner is the regular polygon
#
# **Question.** The best rank falls with depth (notebook 24). How far can it fall, and which code stands at the end?
#
# **Answer.** To 2: no matrix of rank 1 separates three classes. At rank 2 the best solution found is the regular polygon, at every depth searched from 2 to 64, and every higher rank falls behind it in
# the end, by the factor $\sqrt{r/2}$ a layer. With three classes the polygon is the simplex itself: there collapse is never beaten.
# Before: [25, collapse is beaten](25_collapse_is_beaten.ipynb). After: [28, the complement decides](28_complement.ipynb).

# %%
from dufm import figures

figures.published("26_rank_two")

# %% [markdown]
# *Margin of the best solution found at ranks 2 to 5, over that of the regular polygon (dashed line at 1), against depth. Rank 2 lies on the polygon everywhere. A higher rank is better while its curve is above the
# line and has lost for good where it has crossed it; the dotted vertical line is the depth from which rank 2 wins.* [Drawn by](../../figures/26_rank_two.py)
#
# ## Statement
#
# **Rank 1 never separates $K\ge3$ classes.** Let $Z = ab^\top$. Sample $c$ is classified if $a_cb_c > a_jb_c$ for all $j\ne c$: $a_c$ must be the largest entry of $a$ if $b_c>0$ and the smallest if $b_c<0$. Only
# two classes can have that. $\square$
#
# **The limit of infinite depth.** With $p = 2/L\to0$, at margin 1 and rank $r$,
# $$\sum_{i\le r}\sigma_i^p = r + p\,\log(\sigma_1\cdots\sigma_r) + O(p^2),$$
# so the cost is first the rank and then the product of the singular values. At rank 2 the cheapest matrix is the one of least $\sigma_1\sigma_2$. For the regular polygon
# $$\sigma_1 = \sigma_2 = \frac{K}{4\sin^2(\pi/K)},\qquad \gamma_L = \frac4K\sin^2\frac\pi K\;2^{-L/2}.$$
#
# **Three classes.** *For $K = 3$ neural collapse is optimal at every depth.* Centred logits $z_1, z_2, z_3$ lie in the plane $1^\top z = 0$, where the unit vectors project to a regular triangle $e_1, e_2, e_3$ of side
# $\sqrt2$ and area $\Delta = \sqrt3/2$. Since $\sigma_1^p + \sigma_2^p\ge2(\sigma_1\sigma_2)^{p/2}$, and collapse has $\sigma_1 = \sigma_2 = 1$, it is enough that $\sigma_1\sigma_2\ge1$ at margin 1
# (centring changes no margin and raises no singular value).
#
# 1. For a positive $2\times2$ matrix, $2\sqrt{\det M} = \min_{\det Q = 1}\operatorname{tr}QM$, so $\sigma_1\sigma_2 = \frac12\min_{\det Q=1}\sum_c|Q^{1/2}z_c|^2$.
# 2. Fix $Q$ and write $v_c = Q^{-1/2}e_c$, a triangle of the same area. The margins of sample $c$ say $\langle v_c - v_j, Q^{1/2}z_c\rangle\ge1$ for both $j$, so $|Q^{1/2}z_c|\ge1/d_c$, $d_c$ the distance of $v_c$ from the opposite *side*.
# 3. Acute: $d_c$ is the height $2\Delta/a_c$ on the side $a_c$, and $\sum_c d_c^{-2} = \sum_c a_c^2/3\ge4\sqrt3\,\Delta/3 = 2$ by Weitzenböck's inequality.
# 4. Obtuse, $\pi - \beta$ between the sides $b$ and $c$: then $\sum_c d_c^{-2} = a^2/3 + b^{-2} + c^{-2}$ with $bc = \sqrt3/\sin\beta$ and $a^2\ge2bc(1 + \cos\beta)$, hence at least
#    $\frac2{\sqrt3}\bigl(\cot\frac\beta2 + \sin\beta\bigr)$, which falls in $\beta$ and is $4/\sqrt3 > 2$ at $\beta = \pi/2$.
# 5. So $\sigma_1\sigma_2\ge1$ in both cases. $\square$

# %% tags=["parameters"]
classes: list[int] = [3, 4, 5, 6, 7, 8, 9, 10]  # numbers of classes K [3, 32]
deep: int = 64  # a large depth L [16, 256]
restarts: int = 64  # random starts of each search [2, 512]
draws: int = 200000  # random matrices with three classes [100, 10000000]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import torch

import dufm
from dufm import claims, figures, notebook, stats

p = notebook.start("26_rank_two", globals())

# %% [markdown]
# ## One search
#
# Seven classes, rank 2, at the large depth: the singular values of the best solution at margin 1, and the angles between neighbouring classes.

# %%
found = dufm.max_margin(7, p.deep, 2, restarts=min(p.restarts, 16), seed=p.seed)
U, sigma, Vh = torch.linalg.svd(found.Z)
angle = torch.atan2(Vh[1], Vh[0]).rad2deg().sort().values
print(f"σ = {sigma[0]:.5f}, {sigma[1]:.5f}; for the heptagon {7 / (4 * np.sin(np.pi / 7) ** 2):.5f}")
print("between neighbours: " + ", ".join(f"{x:.3f}°" for x in angle.diff().tolist()) + f"; 360°/7 = {360 / 7:.3f}°")

# %% [markdown]
# ## All classes, and every depth of the diagram
#
# At depth 64 each number of classes is searched afresh; for the depths up to 12 the committed searches of notebook 24 are read, at every rank.

# %%
deep = {K: dufm.max_margin(K, p.deep, 2, restarts=p.restarts, seed=p.seed).margin for K in notebook.progress(p.classes, label="polygons")}
gap = max(abs((margin / dufm.closed_form_margin("polygon", K, p.deep)) ** (2 / p.deep) - 1) for K, margin in deep.items())
table = notebook.committed("24_phase")[["num_classes", "depth", "rank", "margin_ratio"]]
cells = table[["num_classes", "depth"]].to_numpy().tolist()
collapse, polygon = (np.array([dufm.closed_form_margin(kind, K, L) for K, L in cells]) for kind in ("nc", "polygon"))
table["over_polygon"] = table["margin_ratio"] * collapse / polygon
two = table[table["rank"] == 2]
print(f"rank 2 over the polygon, less 1: {stats.below(gap, 1e-8)} at L = {p.deep}; at L ≤ 12 {stats.below((two['over_polygon'] - 1).abs().max(), 1e-7)}")
shown = table[table["num_classes"].isin([6, 8, 10]) & (table["rank"] <= 5)]
figures.store("26_rank_two", shown[["num_classes", "depth", "rank", "over_polygon"]])

# %% tags=["figure"]
figures.show(
    "26_rank_two",
    alt="Margin of the best solution at ranks 2 to 5 over that of the regular polygon, against depth, for 6, 8 and 10 classes, logarithmic. Rank 2 lies on the line at 1; the "
    "higher ranks start above it and fall below it one after the other, the last at depth 6, 7 and 8.",
)

# %% [markdown]
# From which depth on rank 2 wins, and by how much the best higher rank is beaten there and one layer before:

# %%
higher = table[table["rank"] > 2].groupby(["num_classes", "depth"])["over_polygon"].max()
first = higher[higher < 1].reset_index().groupby("num_classes").first()
first["one layer before"] = [higher[K, L - 1] for K, L in first["depth"].items()]
first.rename(columns={"depth": "rank 2 wins from L", "over_polygon": "best higher rank there, over the polygon"}).round(4)

# %% [markdown]
# *Three classes.* The inequality $\sigma_1\sigma_2\ge1$ on random logits: collapse and noise of every size, centred, scaled to margin 1 where they separate the classes.

# %%
draw = np.random.default_rng(p.seed)
Z = np.eye(3) + draw.uniform(0.1, 2, (p.draws, 1, 1)) ** 2 * draw.standard_normal((p.draws, 3, 3))
Z -= Z.mean(1, keepdims=True)
margin = dufm.margins(torch.from_numpy(Z)).amin((1, 2)).numpy()
sigma = np.linalg.svd(Z[margin > 0] / margin[margin > 0, None, None], compute_uv=False)
product = sigma[:, 0] * sigma[:, 1]
print(f"{len(product)} of {p.draws} separate the classes; smallest σ_1σ_2 {product.min():.5f}, median {np.median(product):.2f}")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("26-polygon", gap)
claims.check("26-every-depth", (two["over_polygon"] - 1).abs().max())
claims.check("26-three-classes", product.min())

# %% [markdown]
# ## Where it breaks
#
# *Rank 2 is not enough early.* At $L = 2$ and 3 the polygon has less margin than collapse for every $K\ge4$; for ten classes it takes eight layers to win. *More classes need more layers*: how the depth
# grows with $K$ is open, and a bound beyond which rank 2 is optimal is proved here for three classes only.
#
# *Reached is another matter*: a network of eight layers need not end at rank 2 (notebook [35](../3_codes/35_reached.ipynb)).
#
# ## Try it
#
# 1. `deep = 16`: is the polygon already the only end of the search at rank 2?
# 2. `classes = [16, 24, 32]`: does the search still find it from 64 starts?
# 3. Equality in the proof for three classes needs a regular triangle and $Q = I$. Conclude that collapse is the *only* optimum.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
