# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What wins instead: as starts shrink, nearly all end in the cube of their first independent characters
#
# **Question.** With eight or sixteen classes and Hadamard singular vectors there are many solutions. Neural collapse is reached from almost nowhere (58). Which one is reached instead, and can it be told from the start?
#
# **Answer.** From $L = 3$ on the cube, which keeps only $\log_2K$ singular values, the fewest that tell the classes apart. As starts shrink its share tends to one, the sooner the deeper the network, and the values it keeps are the largest *independent* ones of the start: go through them from the
# largest down and skip each that is a product of those before. At $L = 3$ and a scale of 0.001 it has still less than half of the starts with sixteen classes.
# Before: [58, the share that collapses](58_share.ipynb). After: [61, width against depth](../6_width/61_diagram.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/5_dynamics/59_which_code_wins.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/5_dynamics/59_which_code_wins.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("59_codes")

# %% [markdown]
# *Where uniform directions end, by depth and initial scale: a bar is all starts of one depth and scale. Four hundred starts a bar with eight classes, two hundred with sixteen, which know a share to 0.05 and 0.07.* [Drawn by](../../figures/59_codes.py)
#
# ## Statement
#
# Neural collapse keeps all $K-1$ values, equal; first-order Reed–Muller, which is the orthoplex, $K/2$ of them; the cube $m = \log_2K$. Others have other ranks, or unequal values. All are vertices of one polyhedron (notebook [44](../4_spectral/44_linear_codes.ipynb)).
# The *greedy basis* $b_1,\dots,b_m$: write the characters in descending order of their values, take the first, and then each that is not a product of those taken. $V_k$ are the products of the first $k$.
#
# *Let $L\ge3$, $q = 1-2/L$, $y_i = s_i^{-q}$. If for every $k$ all characters outside $V_{k-1}$ lag behind $b_k$ in $y$ by more than*
# $$1.75\,(L-2)\,2^{-2/L} + (m-1)\,2^{q},$$
# *then the flow ends in the cube that keeps the greedy basis. The lags grow like $s_0^{-q}$: so as the mean $s_0\to0$ this is the end for all directions with distinct values, and the exceptions are a share of at most a constant times $s_0^q$.*
#
# **Proof.** $\dot y_i = -(L-2)g_i$, $g_i = \mathbb E_p[1-\chi_i]$ (57). Let $H_k$ be the classes where $b_1,\dots,b_k$ are 1, $M_k$ the largest value outside $V_k$.
# 1. *What has left does not disturb what has not.* Characters in $V_k$ are constant on the cosets of $H_k$, the others add at most $M_k$ to $|f|$. A character $\chi_i$ outside $V_k$ is 1 on half of each coset and $-1$ on the other, so its mean there under $p$ is at most that of weights $e^{M_k}$ and $e^{-M_k}$: $|g_i - 1|\le\tanh M_k$.
# 2. *Lags are kept.* For $i, j\notin V_k$ hence $|\frac{d}{dt}(y_i-y_j)|\le2(L-2)\tanh M_k$, while $\dot M_k\ge LM_k^{1+q}(1-\tanh M_k)$. Until $M_k = \frac12$ the lag changes by at most $\int_0^{1/2}q\,(e^{2M}-1)M^{-1-q}dM\le\int_0^{1/2}3.5\,q\,M^{-q}dM = 1.75(L-2)2^{-2/L} =: C$.
# 3. *One at a time.* So $b_{k+1}$ stays the largest outside $V_k$ until it reaches $\frac12$, at time $T_k$, after $T_{k-1}$ ($T_0 = 0$ if $b_1$ starts above $\frac12$; the others' lags put them below). Any other $j\in V_{k+1}\setminus V_k$ is a product of $b_{k+1}$ and some of $b_1,\dots,b_k$, whose $y$ are at most $2^q$; $y_j$ is more than $2^q + (m-1)2^q$ by then. The rule of products
#    ([56](56_basin_map.ipynb)): $y_j$ less the sum of its factors' $y$ is positive, and never decreases. So $s_j$ is bounded for ever.
# 4. *The end.* After $T_{m-1}$ only the basis can grow. Each does without bound: the class where only $b$ is $-1$ has a margin of $\frac2Ks_b + O(1)$, and if that stayed bounded, $g_b$ would be bounded below. Let $s_b > (1+\epsilon)s_{b'}$: the classes where $b = -1$ have margins of at least $\frac2Ks_b$, so
#    $g_b/g_{b'}\le O(1)\,e^{-(2/K)(s_b-s_{b'})}$, $d\log(s_b/s_{b'})/d\log s_{b'}\to-1$, and the ratio falls below $1+\epsilon$. All of the basis become equal: a cube.
# 5. *How many.* A lag $s_0^{-q}(\pi_j^{-q} - \pi_b^{-q})$ is below a constant only if the proportions $\pi_b>\pi_j$ differ by less than a constant times $s_0^q$: a share of that order. $\square$
#
# At $L = 2$ all values leave together, in proportion, and collapse is the only end ([27](../2_margin/27_three_classes.ipynb)).
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
# `basin.code_counts` follows uniform directions to the limit of their flow and names the certified vertex; a start that is not decided is counted as such. It also compares what each cube keeps with the greedy basis of its start, and
# marks beforehand the starts whose lags make the greedy cube sure.

# %%
cells = [
    {"num_classes": K, "depth": L, "scale": s0, "starts": starts}
    for K, starts in ((8, p.starts_eight), (16, p.starts_sixteen))
    for L in p.depths
    for s0 in p.scales
]
table = sweep.run(basin.code_counts, cells, seeds=[p.seed], **notebook.sweep_options())
missed_by_law = (table["sure"] - table["sure and greedy"]).sum()
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
# How many of the starts that the statement calls sure end as it says; and how many of the cubes, sure or not, are the greedy one:

# %%
table["sure"] = table["sure and greedy"].astype(str) + " of " + table["sure"].astype(str)
table["of cubes"] = table["greedy cube"].astype(str) + " of " + table["cube"].astype(str)
table.pivot(index=["num_classes", "depth"], columns="scale", values=["sure", "of cubes"]).iloc[:, ::-1]

# %% [markdown]
# At three layers, and with sixteen classes at four, no start above is sure. At smaller scales some are:

# %%
further = [{"num_classes": K, "depth": L, "scale": s0, "starts": p.starts_sixteen} for K, L, s0 in ((8, 3, 1e-5), (16, 3, 1e-6), (16, 4, 1e-4))]
further = sweep.run(basin.code_counts, further, seeds=[p.seed], **notebook.sweep_options())
further[[*KEYS, "sure", "sure and greedy"]]

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
small = table[(table.depth == max(p.depths)) & (table.scale == min(p.scales))]
claims.check("59-limit", missed_by_law + (further["sure"] - further["sure and greedy"]).sum())
claims.check("59-greedy", min(stats.wilson(k, n)[0] for k, n in zip(small["greedy cube"], small.starts, strict=True)))

# %% [markdown]
# ## Where it breaks
#
# *Shallow nets and large starts.* At $L = 3$, $q = 1/3$: a thousandfold smaller scale makes the exceptions only ten times rarer. How fast does the share that is *not* the greedy cube fall from the largest scale to the smallest, as a power of it? In the limit not more slowly than $s_0^q$, says the statement:

# %%
missed = table.assign(missed=1 - table["greedy cube"] / table.starts).pivot(index=["num_classes", "depth"], columns="scale", values="missed")
first, last = missed[max(p.scales)], missed[min(p.scales)]
power = np.log(first / last.where(last > 0)) / np.log(max(p.scales) / min(p.scales))
missed.round(4).iloc[:, ::-1].assign(power=power.round(2), q=(1 - 2 / missed.index.get_level_values("depth")).round(2))

# %% [markdown]
# The powers found are below $q$ at $L = 3$, 0.23 and 0.11, where most starts are still exceptions and the limit is far, and above it at $L = 6$, about 0.9. At $L = 10$ the last share is one start or none; where a row has no power, no exception is left to count.
#
# *Lags that are enough and not needed.* The constants are crude: most starts that are not sure end in the greedy cube as well. And every cube counted so far was the greedy one, which is not proved.
#
# *Values that tie.* Two values within a lag of order one in $y$ leave together, and their product with them: this is how Reed–Muller and the unnamed codes arise, and, if all seven tie, collapse. *Depth alone:* at a fixed scale the lag that is enough grows with $L$, so nothing is proved as $L\to\infty$.
#
# ## Try it ([answers](../answers.md#59))
#
# 1. `depths = [2]`: what does the figure show, and why?
# 2. `depths = [3], scales = [1e-5]`: does the cube take over at depth 3, too?
# 3. `scales = [1.0]`: which codes win from starts that are not small?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
