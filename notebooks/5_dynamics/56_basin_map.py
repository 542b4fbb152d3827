# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Depth shrinks the basin of neural collapse, to a star with three unbounded arms
#
# **Question.** Four classes, Hadamard singular vectors, three singular values that start small in some proportion. Which proportions end in neural collapse?
#
# **Answer.** At $L = 2$ all of them. From $L = 3$ on fewer, the deeper the network and the smaller the start; the others end in a square, which keeps two
# values and drops the third. What is left of the basin is not a disc around the centre but a star: along its arms one value leads by any amount, and the two others
# must be nearly equal.
# Before: [55, the separatrix](55_separatrix.ipynb). After: [57, the critical deviation](57_critical_deviation.ipynb).

# %%
from dufm import figures

figures.published("56_maps")

# %% [markdown]
# *Where each proportion $(s_1 : s_2 : s_3)$ ends, one triangle a depth and an initial scale; a corner is one value alone, the centre three equal ones. Dark: neural
# collapse, with its share below; light, in three shades: the squares, by the value that they drop.* [Drawn by](../../figures/56_maps.py)
#
# ## Statement
#
# *Let $s_0$ be the mean of three positive singular values with Hadamard vectors, $K = 4$.*
#
# *(a) At $L = 2$ every start ends in neural collapse.*
#
# *(b) At every depth the starts with $s_1 \ge s_2 = s_3$ end in neural collapse, however far $s_1$ leads.*
#
# *(c) For $L\ge3$ every other start with $s_1 \ge s_2 > s_3$ ends in the square without $s_3$ if $s_0$ is small enough.*
#
# **Why.** $\dot s_i = Ls_i^{1+q}g_i$, $q = 1 - 2/L$ (notebook [41](../4_spectral/41_frozen_vectors.ipynb)). The margins are the half sums of two values.
# - *(a)* The cost at $L = 2$ is $\sum s_i$, which is convex (notebook [21](../2_margin/21_where_the_flow_ends.ipynb)), so the margin problem has one solution on this set: three equal
#   values, because the set is symmetric. A start with all values positive cannot end where one of them is zero: at a square without $s_3$ the two margins that count are those which hold $s_3$, so $g_3 = 2g_1$,
#   and at $L = 2$, where $\dot s_i/s_i = 2g_i$, the absent value would outgrow the others.
# - *(b)* $s_2 = s_3$ is preserved, for the equations are symmetric in them. The leader's own classes are separated first; $g_1$ falls, and the two others arrive together. What is then left is the line of
#   notebook [55](55_separatrix.ipynb) in another order, one large value and two equal smaller ones: the smallest margin is $\frac12(s_2+s_3)$, and only these two grow until all are equal.
# - *(c)* In $y_i = s_i^{-q}$ all values fall at nearly the same rate near the origin, so $y_3 - y_2 > 0$ is kept while $s$ is small; in units of $s_0^{-q}$ it is a fixed number,
#   in units of one it grows without bound as $s_0\to0$. When the first two have arrived, $s_3$ is below every ratio, the one of notebook 55 included: it is lost. $\square$
#
# In (c) "small enough" depends on how unequal the start is, and that is the subject of notebook [57](57_critical_deviation.ipynb); how much of the triangle is left, of notebook [58](58_share.ipynb).

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
# One value ahead and the others equal, or nearly so: depth 4, scale 0.01.

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
starts, rows = basin.map_starts(p.side, p.cell_starts, p.seed), []
for L, s0 in notebook.progress(list(itertools.product(p.depths, p.scales)), "maps"):
    ends = torch.nn.functional.one_hot(basin.ends_of_four(s0 * starts, L), len(basin.FOUR_ENDS)).sum(0)
    cells = pd.DataFrame(ends.numpy(), columns=basin.FOUR_ENDS)
    rows.append(cells.rename_axis("cell").reset_index().assign(depth=L, scale=s0))
maps = pd.concat(rows)
most = maps[list(basin.FOUR_ENDS)].idxmax(axis=1)
figures.store("56_maps", maps[["depth", "scale", "cell", "collapse"]].assign(starts=p.cell_starts, most=most))

# %% tags=["figure"]
figures.show(
    "56_maps",
    alt="Triangles of initial proportions of three singular values, one column a depth and one row an initial scale, coloured by where the flow "
    "ends. At depth 2 neural collapse fills the triangle. At larger depth and smaller scale it shrinks to a three-armed star along the medians, "
    "then to hardly anything, while three regions of squares fill the rest. The share of collapse is printed under each.",
)

# %%
counts = maps.groupby(["scale", "depth"])[list(basin.FOUR_ENDS)].sum()
total = p.side**2 * p.cell_starts
counts["collapse"].map(lambda hits: stats.share(hits, total, 4)).unstack().rename_axis(f"share of collapse [95%], {total} starts; depth", axis=1).T

# %% [markdown]
# ## Counting against quadrature
#
# The same shares without a single start followed forwards: `shares.collapse_share` integrates the boundary of the basin back from the late separatrix of notebook 55 and takes the area of
# what it encloses (notebook [58](58_share.ipynb)). Compared where the count has at least a hundred hits.

# %%
counted = (counts["collapse"] / total)[(counts["collapse"] >= 100) & (counts.index.get_level_values("depth") > 2)].rename("counted")
area = {(s0, L): float(shares.collapse_share(L, s0).share) for s0, L in counted.index}
beside = counted.to_frame().assign(quadrature=pd.Series(area), off=lambda t: t.counted / t.quadrature - 1)
beside.round(4).rename_axis(["scale", "depth"])

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
squares = counts[[name for name in basin.FOUR_ENDS if name.startswith("square")]].sum(axis=1)
claims.check("56-depth-two", squares[squares.index.get_level_values("depth") == 2].sum())
claims.check("56-basin-shrinks", (counts["collapse"].unstack().diff(axis=1) > 0).sum().sum())
claims.check("56-share-two-ways", beside["off"].abs().max())

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
# ## Try it
#
# 1. `scales = [1.0]`: from which depth on is a start of size 1 small?
# 2. `depths = [3]`, `scales = [1e-6]`: is anything left of the star, and where?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
