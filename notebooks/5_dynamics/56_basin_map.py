# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Depth shrinks the basin of neural collapse, with four classes to a star with three unbounded arms
#
# **Question.** Four classes, Hadamard singular vectors, three singular values that start small in some proportion. Which proportions end in neural collapse?
#
# **Answer.** At $L = 2$ all of them. From $L = 3$ on fewer, the deeper the network and the smaller the start; the others end in a square, which keeps two
# values and drops the third: at any scale those whose third value is small enough for $s_3^{-q} > s_1^{-q} + s_2^{-q}$. What is left of the basin is not a disc around the centre but a star: along its arms one value leads by any amount, and the two others
# must be nearly equal.
# Before: [55, the separatrix](55_separatrix.ipynb). After: [57, the critical deviation](57_critical_deviation.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/5_dynamics/56_basin_map.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/5_dynamics/56_basin_map.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("56_maps")

# %% [markdown]
# *Where each proportion $(s_1 : s_2 : s_3)$ ends, one triangle a depth and an initial scale; a corner is one value alone, the centre three equal ones. Dark: neural
# collapse, with its share of the starts below, or their number where it is below 20; in three other shades: the squares, by the value that they drop. Beyond the dashed curves a value is lost at any scale, by the rule of products.* [Drawn by](../../figures/56_maps.py)
#
# ## Statement
#
# *Let $s_1\ge s_2\ge s_3 > 0$ be the singular values at some time, Hadamard vectors, $K = 4$, $q = 1 - 2/L$, $y_i = s_i^{-q}$.*
#
# *(a) At $L = 2$ the end is neural collapse. (b) At every depth it is if $s_2 = s_3$, however far $s_1$ leads.*
#
# *(c) At $L\ge3$ the difference $y_3 - y_1 - y_2$ never decreases. If it is ever positive, the end is the square without $s_3$: the **rule of products**.*
#
# *(d) At $L\ge3$ a start with $s_2\le1$ and $y_3 - y_2 > (L+2)/4$ ends in this square. So any fixed proportions with $s_2 > s_3$ do if the start is small enough.*
#
# **Proof.** The wrong classes have the margins $\frac12(s_i + s_j)$ and probabilities $w_{ij}$; $\dot s_i = Ls_i^{1+q}g_i$, $g_i = 2(w_{ij} + w_{ik})$ ([41](../4_spectral/41_frozen_vectors.ipynb)), so $\dot y_i = -(L-2)g_i$.
# All values rise, and equal ones stay equal: the order is kept. If $s_i + s_j$ stayed bounded, $w_{ij}$ and so $g_i$, $g_j$ would not go to 0 and both values rise without bound: so $s_i + s_j\to\infty$.
# - *(a)* $\frac{d}{dt}\log\frac{s_1}{s_3} = 2(g_1 - g_3) = -4(w_{23} - w_{12})\le0$. If the ratio had a limit above 1, then $s_1 - s_3\to\infty$, $w_{12}/w_{23} = e^{-(s_1-s_3)/2}\to0$, while $w_{13}\le w_{23}$: in the end
#   $d\log\frac{s_1}{s_3}/d\log s_1 = -(w_{23}-w_{12})/(w_{12}+w_{13}) < -\frac12$, and the ratio would go to 0. So it goes to 1.
# - *(b)* is the case $K = 4$ of the theorem on subgroups in notebook [57](57_critical_deviation.ipynb).
# - *(c)* $\chi_3 = \chi_1\chi_2$, hence $1-\chi_3 = (1-\chi_1) + (1-\chi_2) - (1-\chi_1)(1-\chi_2)$: the rate of $y_3 - y_1 - y_2$ is $(L-2)\,\mathbb E_p[(1-\chi_1)(1-\chi_2)]\ge0$. If it is $Y > 0$ once, $y_3\ge Y$ for ever: $s_3$ is bounded. Then
#   $s_1, s_2\to\infty$. While $s_1\ge(1+c)s_2$, $(w_{12}+w_{13})/(w_{12}+w_{23})\le2e^{-(s_1-s_2)/2}$ as soon as $s_2 > s_3$, so that $d\log\frac{s_1}{s_2}/d\log s_2\le2(s_1/s_2)^qe^{-(s_1-s_2)/2} - 1 < -\frac12$ in the end, for every $c > 0$: the ratio goes to 1.
# - *(d)* $g_3 - g_2 = 2(w_{13} - w_{12})\le w_{13}\,s_2\le w_{23}\,s_2\le\frac12g_2s_2$. So while $y_2$ falls to 1, the lag $y_3 - y_2$ loses at most $\frac12\int_1^\infty y^{-1/q}dy = (L-2)/4$, and is still above $1 = y_2\ge y_1$: (c). $\square$
#
# (c) holds for any $\mathbb Z_2^m$, one character being the product of others: $y_{\text{product}} - \sum y_{\text{factors}}$ never decreases, as the product is $-1$ only where a factor is. With $s_1 = s_2$ it is the separatrix of notebook 55, but at all times.
# How far below the constant of (d) the boundary lies is the subject of notebook 57; how much of the triangle is left, of notebook [58](58_share.ipynb).

# %% tags=["parameters"]
depths: list[int] = [2, 3, 4, 6, 10, 20]  # depths L [2, 32]
scales: list[float] = [0.1, 0.01, 0.001]  # initial mean singular values [1e-6, 1]
side: int = 50  # cells along a side of the triangle, which has this number squared [4, 100]
cell_starts: int = 4  # random starts in each cell [1, 100]
seed: int = 0  # seed of the starts [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import itertools

import pandas as pd
import torch

import dufm
from dufm import basin, claims, notebook, shares, stats

p = notebook.start("56_basin_map", globals())

# %% [markdown]
# ## Four starts
#
# One value ahead of two that are equal or not quite; last, one value behind: depth 4, scale 0.01.

# %%
for proportions in ([3.0, 1.0, 1.0], [3.0, 1.01, 1.0], [3.0, 1.2, 1.0], [1.0, 1.0, 0.9]):
    start = torch.tensor(proportions, dtype=torch.float64)
    start *= 0.01 / start.mean()
    run = dufm.spectral_flow(start, 4, "hadamard")
    print(f"{proportions} ends in: {basin.FOUR_ENDS[int(basin.ends_of_four(start, 4))]};  s at log loss -200: {run.s.round(decimals=1).tolist()}")

# %% [markdown]
# ## The whole triangle
#
# `basin.map_starts` cuts the triangle into equal cells with the same number of random starts in each: uniform, and more evenly spread than independent ones,
# so that the intervals below are on the safe side. `basin.ends_of_four` follows each to the limit of the flow and certifies where it rests; what it cannot certify is
# *undecided* and stays in the denominator.

# %%
starts, rows, lost = basin.map_starts(p.side, p.cell_starts, p.seed), [], []
for L, s0 in notebook.progress(list(itertools.product(p.depths, p.scales)), "maps"):
    ends = basin.ends_of_four(s0 * starts, L)
    cells = pd.DataFrame(torch.nn.functional.one_hot(ends, len(basin.FOUR_ENDS)).sum(0).numpy(), columns=basin.FOUR_ENDS)
    rows.append(cells.rename_axis("cell").reset_index().assign(depth=L, scale=s0))
    if L > 2:
        y = ((s0 * starts) ** (2 / L - 1)).sort(-1).values
        by_product, by_lag = y[..., 2] > y[..., 0] + y[..., 1], (y[..., 1] >= 1) & (y[..., 2] - y[..., 1] > (L + 2) / 4)
        other = ends != 1 + starts.argmin(-1)
        lost.append((L, s0, int(by_product.sum()), int(by_lag.sum()), int((other & (by_product | by_lag)).sum()), int((ends > 0).sum())))
maps = pd.concat(rows)
most = maps[list(basin.FOUR_ENDS)].idxmax(axis=1)
figures.store("56_maps", maps[["depth", "scale", "cell", "collapse"]].assign(starts=p.cell_starts, most=most))

# %% tags=["figure"]
figures.show(
    "56_maps",
    alt="Triangles of initial proportions of three singular values, one column a depth and one row an initial scale, coloured by where the flow "
    "ends. At depth 2 neural collapse fills the triangle. At larger depth and smaller scale it shrinks to a three-armed star along the medians, "
    "then to hardly anything, while three regions of squares fill the rest. The share of collapse is printed under each. Dashed curves near the sides "
    "bound what is lost at any scale; they move inwards with depth.",
)

# %%
counts = maps.groupby(["scale", "depth"])[list(basin.FOUR_ENDS)].sum()
total = p.side**2 * p.cell_starts
counts["collapse"].map(lambda hits: stats.share(hits, total, 4)).unstack().rename_axis(f"share of collapse [95%], {total} starts; depth", axis=1).T

# %% [markdown]
# How many of the starts (c) and (d) foretell, each at its scale, how many of these ended anywhere but in the square foretold, and how many did not collapse at all:

# %%
foretold = pd.DataFrame(lost, columns=["depth", "scale", "by (c)", "by (d)", "foretold wrongly", "not in collapse"])
foretold.set_index(["scale", "depth"]).sort_index()

# %% [markdown]
# ## Counting against quadrature
#
# The same shares without a single start followed forwards: `shares.collapse_share` integrates the boundary of the basin back from the late separatrix of notebook 55 and takes the area of
# what it encloses (notebook [58](58_share.ipynb)). The last column is how far the count is from the one expected, in standard errors of independent starts; these are spread more evenly.

# %%
deep = [L for L in p.depths if L > 2]
area = pd.DataFrame({L: shares.collapse_share(L, torch.tensor(p.scales, dtype=torch.float64)).share for L in deep}, index=p.scales)
beside = pd.DataFrame({"counted": counts["collapse"].unstack()[deep].stack(), "expected": total * area.stack()}).rename_axis(["scale", "depth"])
beside["off"] = (beside.counted - beside.expected) / (beside.expected * (1 - beside.expected / total)) ** 0.5
beside.round(2)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
chain = pd.concat([pd.DataFrame({2: 1.0}, index=p.scales), area], axis=1)[p.depths] if 2 in p.depths else area
shallow = counts["collapse"][counts.index.get_level_values("depth") == 2]
claims.check("56-depth-two", (total - shallow).sum())
claims.check("56-basin-shrinks", (chain.shift(1, axis=1) / chain).min().min())
claims.check("56-share-two-ways", beside["off"].abs().max())
claims.check("56-lost-for-good", foretold["foretold wrongly"].sum())

# %% [markdown]
# ## Where it breaks
#
# *Losses that are finite.* Near the boundary a run leaves the separatrix of notebook 55 only like $s_1^q$, a third of a power at $L = 3$. Stop at $\log\mathcal L = -200$ and ask how many runs are within
# a tenth of where they end: fewer of those that collapse than of the others, so that a rule which asks for nearness at a finite loss biases the share. It is the limit that decides. The last line
# counts what even the limit leaves undecided.

# %%
distance, ends = basin.distance_from_end(min(p.scales) * starts[:2], 3, -200.0)
for name, mine in (("neural collapse", ends == 0), ("a square", (ends > 0) & (ends < 4))):
    print(f"ends in {name}: within a tenth of it at log loss -200, {stats.share(int((distance[mine] < 0.1).sum()), int(mine.sum()))}")
print(f"undecided at the limit: {counts['undecided'].sum()} of {total * len(counts)}")

# %% [markdown]
# ## Try it ([answers](../answers.md#56))
#
# 1. `scales = [1.0]`: from which depth on are more than half of the starts lost?
# 2. `depths = [3]`, `scales = [1e-6]`: is anything left of the star, and where?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
