# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What wins instead: small deep starts end in the cube of their first independent characters
#
# **Question.** With eight or sixteen classes and Hadamard singular vectors there are many solutions. Neural collapse is reached from almost nowhere (58). Which one is reached instead, and can it be told from the start?
#
# **Answer.** The cube, which keeps only $\log_2K$ singular values, the fewest that tell the classes apart. With depth and with smaller starts its share tends to one, and the values it keeps are the largest *independent* ones of the start: go through them from the
# largest down and skip each that is a product of those before.
# Before: [58, the share that collapses](58_share.ipynb). After: [61, width against depth](../6_width/61_diagram.ipynb).

# %%
from dufm import figures

figures.published("59_codes")

# %% [markdown]
# *Where uniform directions end, by depth and initial scale: a bar is all starts of one depth and scale. Four hundred starts a bar with eight classes, two hundred with sixteen.* [Drawn by](../../figures/59_codes.py)
#
# ## Statement
#
# Neural collapse keeps all $K-1$ values, equal; first-order Reed–Muller, which is the orthoplex, $K/2$ of them; the cube $\log_2K$. Others have unequal values. All are vertices of one polyhedron (notebook [44](../4_spectral/44_linear_codes.ipynb)).
#
# *Let $L\ge3$, and let a direction have distinct values. As its mean $s_0\to0$, the flow comes to a state in which $m = \log_2K$ values have grown past any bound and the others are as small as one likes: the greedy basis. Write the values in descending order;
# the basis takes the first, and then each that is not a product of those taken.*
#
# **Derivation.** Again $y_i = s_i^{-q}$, $q = 1-2/L$, $\dot y_i = -(L-2)g_i$ (57). As $s_0\to0$ the differences of the $y_i$ grow like $s_0^{-q}$: the values leave the origin one at a time, far apart.
# 1. All small: $p$ is uniform and every $g_i = \sum_a p(a)(1-\chi_i(a))$ is 1. The largest value, $\chi_1$, leaves first, and stops growing fast once the two halves it tells apart are told apart.
# 2. Then $p$ is uniform on the subgroup $H$ where $\chi_1 = 1$. For a character that is not constant on $H$ the sum over $H$ vanishes and $g_i = 1$ still; for one that is constant there, $g_i\approx0$.
# 3. After some have left, $H$ is where all of them are 1, and the characters constant on $H$ are just their products. Those have stopped. All the others still fall at the same rate $L-2$ in $y$, so the next to leave is the largest of *them*.
# 4. After $m$ steps $H = \{0\}$: every class is told from every other, and all that remains small is frozen by depth (55).
#
# Step 2 is exact only in the limit: while a value leaves, in a time of order one beside lags of order $s_0^{-q}$, others come along that are within a bounded lag. The directions for which this happens are a share of about $s_0^{q}$. That late training makes the $m$ values equal, and so a cube, is measured and not derived here.
# Nothing of this works at $L = 2$: there $q = 0$, all values leave together, in proportion, and collapse is the only end (56).
#
# *Not softmax codes.* The cube is a solution of the spectral problem only: it is no softmax code, and a slight turn of the singular vectors leaves it (notebook [47](../4_spectral/47_cube.ipynb)).

# %% tags=["parameters"]
depths: list[int] = [3, 4, 6, 10]  # depths L [2, 20]
scales: list[float] = [0.1, 0.01, 0.001]  # initial mean singular values [1e-6, 1]
starts_eight: int = 400  # directions of eight classes [10, 10000]
starts_sixteen: int = 200  # directions of sixteen classes [10, 10000]
seed: int = 0  # seed of the directions [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import torch

import dufm
from dufm import basin, claims, notebook, stats, sweep

p = notebook.start("59_which_code_wins", globals())

# %% [markdown]
# ## One start
#
# Eight classes, six layers. Character $i\,\mathrm{XOR}\,j$ is the product of characters $i$ and $j$. When the loss is still high the first leaders can be seen to leave; the end keeps the greedy basis.

# %%
start = 1e-3 * torch.from_numpy(np.random.default_rng(p.seed).dirichlet(np.ones(7)) * 7)
run = dufm.spectral_flow(start, 6, "hadamard", record={"log_loss": [1.9, 1.2, 0.5, -10.0]})
end = dufm.spectral_end(run.s, 6, "hadamard")
print(f"in descending order {(start.argsort(descending=True) + 1).tolist()}, greedy basis {basin.greedy_basis(start)}")
for loss, s in zip((1.9, 1.2, 0.5, -10.0), run.history.s, strict=True):
    print(f"log loss {loss:5}: above a hundredth of the largest: {((s > 0.01 * s.max()).nonzero().flatten() + 1).tolist()}")
print(f"the end keeps {((end.spectrum > 0).nonzero().flatten() + 1).tolist()}, rank {int(end.rank)}")

# %% [markdown]
# ## All of them
#
# `basin.code_counts` follows uniform directions to the limit of their flow and names the certified vertex; a start that is not decided is counted as such. It also compares what each cube keeps with the greedy basis of its start.

# %%
cells = [
    {"num_classes": K, "depth": L, "scale": s0, "starts": starts}
    for K, starts in ((8, p.starts_eight), (16, p.starts_sixteen))
    for L in p.depths
    for s0 in p.scales
]
table = sweep.run(basin.code_counts, cells, seeds=[p.seed], **notebook.sweep_options())
KEYS = ["num_classes", "depth", "scale", "starts"]
figures.store("59_codes", table.melt(KEYS, list(basin.CODES), "code", "count"))

# %% tags=["figure"]
figures.show(
    "59_codes",
    alt="Stacked bars of the codes in which Hadamard starts end, for eight and sixteen classes, by depth and within a depth by initial scale. At depth 3 and the largest scale Reed–Muller leads with "
    "eight classes and other codes with sixteen; with depth and with smaller scale the cube takes nearly all. Collapse is nearly absent.",
)

# %% [markdown]
# Shares with 95% intervals:

# %%
words = {code: [stats.share(k, n) for k, n in zip(table[code], table.starts, strict=True)] for code in basin.CODES[:4]}
table[KEYS[:3]].assign(**words)

# %% [markdown]
# And how many of the cubes are the one the rule names, in counts:

# %%
table["of cubes"] = table["greedy cube"].astype(str) + " of " + table["cube"].astype(str)
table.pivot(index=["num_classes", "depth"], columns="scale", values="of cubes").iloc[:, ::-1]

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
small = table[(table.depth == max(p.depths)) & (table.scale == min(p.scales))]
claims.check("59-cube", (small["cube"] / small.starts).min())
claims.check("59-greedy", min(stats.wilson(k, n)[0] for k, n in zip(small["greedy cube"], small.starts, strict=True)))

# %% [markdown]
# ## Where it breaks
#
# *Shallow nets and large starts.* At $L = 3$, $q = 1/3$: a thousandfold smaller scale makes the exceptions only ten times rarer. How fast does the share that is *not* the greedy cube fall from the largest scale to the smallest, as a power of it? The argument says $q$, up to logarithms:

# %%
missed = table.assign(missed=1 - table["greedy cube"] / table.starts).pivot(index=["num_classes", "depth"], columns="scale", values="missed")
first, last = missed[max(p.scales)], missed[min(p.scales)]
power = np.log(first / last.where(last > 0)) / np.log(max(p.scales) / min(p.scales))
missed.round(4).iloc[:, ::-1].assign(power=power.round(2), q=(1 - 2 / missed.index.get_level_values("depth")).round(2))

# %% [markdown]
# The powers found are below $q$ at $L = 3$, 0.23 and 0.11, where most starts are still exceptions, and above it at $L = 6$, about 0.9: over these scales the argument gives the order and not the exponent. At $L = 10$ the last share is one start or none; where a row has no power, no exception is left to count.
#
# *Values that tie.* Two values within a lag of order one in $y$ leave together, and their product with them: this is how Reed–Muller and the unnamed codes arise, and, if all seven tie, collapse.
#
# ## Try it
#
# 1. `depths = [2]`: what does the figure show, and why?
# 2. `depths = [3], scales = [1e-5]`: does the cube take over at depth 3, too?
# 3. `scales = [1.0]`: which codes win from starts that are not small?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
