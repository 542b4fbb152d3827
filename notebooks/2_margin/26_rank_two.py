# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Rank two is the floor, and the best code found there is the regular polygon
#
# **Question.** The best rank falls with depth (notebook 24). How far can it fall, and which code stands at the end?
#
# **Answer.** To 2: no matrix of rank 1 separates three classes. At rank 2 the best solution found is the regular polygon, at every depth searched from 2 to 64; for up to ten classes every higher rank has fallen behind it by
# $L = 8$. That a low rank wins in the end is no consequence of letting $L\to\infty$ matrix by matrix: notebook 29 proves it, with a depth, and says what is proved about the polygon.
# Before: [25, collapse is beaten](25_collapse_is_beaten.ipynb). After: [27, three classes](27_three_classes.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/2_margin/26_rank_two.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/2_margin/26_rank_two.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("26_rank_two")

# %% [markdown]
# *Margin of the best solution found at ranks 2 to 5, over that of the regular polygon (dashed line at 1), against depth. Rank 2 lies on the polygon everywhere. A higher rank is better while its curve is above the
# line and has lost where it has crossed it; the dotted vertical line is the first depth at which rank 2 wins.* [Drawn by](../../figures/26_rank_two.py)
#
# ## Statement
#
# **Rank 1 never separates $K\ge3$ classes.** Let $Z = ab^\top$. Sample $c$ is classified if $a_cb_c > a_jb_c$ for all $j\ne c$: $a_c$ must be the largest entry of $a$ if $b_c>0$ and the smallest if $b_c<0$. Only
# two classes can have that. $\square$
#
# **Many layers, one matrix.** With $p = 2/L\to0$, at margin 1 and rank $r$, for a *fixed* matrix
# $$\sum_{i\le r}\sigma_i^p = r + p\,\log(\sigma_1\cdots\sigma_r) + O(p^2),$$
# so its cost is first the rank and then the product of the singular values. At rank 2 this is more than a limit: $\sigma_1^p + \sigma_2^p\ge2(\sigma_1\sigma_2)^{p/2}$, with equality at equal values. Whoever has the least product $\sigma_1\sigma_2$ of all matrices of rank 2
# and margin 1, and has equal values, is best among them *at every depth at once*. For the regular polygon
# $$\sigma_1 = \sigma_2 = \frac{K}{4\sin^2(\pi/K)},\qquad \gamma_L = \frac4K\sin^2\frac\pi K\;2^{-L/2}.$$
#
# **What the expansion does not say.** The $O(p^2)$ depends on the matrix. A solution of rank 3 whose third value falls with $L$, $\sigma_3 = e^{-tL}$ say, pays only $\sigma_3^p = e^{-2t}$ for it at every depth, and $2 + e^{-2t}$ comes as near to 2 as one likes: comparing
# ranks one matrix at a time excludes no such family. What excludes it is that a small $\sigma_3$ also gains little margin, at most $\sqrt2\,\sigma_3$. Notebook [29](29_rank_two.ipynb) weighs the two, for all matrices together.
#
# For three classes the polygon is the simplex, and [27](27_three_classes.ipynb) proves it best.

# %% tags=["parameters"]
classes: list[int] = [3, 4, 5, 6, 7, 8, 9, 10]  # numbers of classes K [3, 32]
deep: int = 64  # a large depth L [16, 256]
restarts: int = 64  # random starts of each search [2, 512]
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
# ## Verdict

# %% tags=["verdict"]
claims.check("26-polygon", gap)
claims.check("26-every-depth", (two["over_polygon"] - 1).abs().max())

# %% [markdown]
# ## Where it breaks
#
# *Rank 2 is not enough early.* At $L = 2$ and 3 the polygon has less margin than collapse for every $K\ge4$; for ten classes it takes eight layers to win. *More classes need more layers*: the depth
# at which rank 2 wins grows with $K$; notebook 29 bounds it by a multiple of $\log K$, about twice what is found.
#
# *Reached is another matter*: a network of eight layers need not end at rank 2 (notebook [36](../3_codes/36_which_end.ipynb)).
#
# ## Try it ([answers](../answers.md#26))
#
# 1. `deep = 16`: is the polygon already the only end of the search at rank 2?
# 2. `classes = [16, 24, 32]`: does the search still find it from 64 starts?
# 3. Take the square with a third singular value $\varepsilon$ along $(1, -1, 1, -1)$. Which $\varepsilon$ has the largest normalised margin at $L = 3$, and at $L = 8$?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
