# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The late separatrix: a lagging singular value is lost below the ratio $2^{-L/(L-2)}$
#
# **Question.** Four classes, long after every sample is right. Two singular values are equal and the third lags behind. Does it catch up,
# so that training ends in neural collapse, or is it left behind for ever?
#
# **Answer.** It catches up exactly if it is larger than $2^{-L/(L-2)}$ times the others: an eighth at $L = 3$, a quarter at $L = 4$, and half in the limit of great
# depth. At $L = 2$ any positive value catches up. The ratio itself is a third solution of the margin problem, one that every disturbance leaves.
# Before: [54, the four families](54_four_families.ipynb). After: [56, the map of the basin](56_basin_map.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/5_dynamics/55_separatrix.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/5_dynamics/55_separatrix.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("55_separatrix")

# %% [markdown]
# *The ratio $s_3/s_1$ while $s_1 = s_2$ grows up to a hundredfold, from starts on either side. Marks: the flow; thin dashed: the closed solution; thick dashed: the
# separatrix. Above it the ratio goes to 1, neural collapse; below it to 0, a square.* [Drawn by](../../figures/55_separatrix.py)
#
# ## Statement
#
# *Let $K = 4$, Hadamard singular vectors, $s_1 = s_2 > s_3 > 0$, $L\ge3$, $q = 1 - 2/L$. The ratio $x = s_3/s_1$ and $D = \frac12(s_1 - s_3)$ obey*
# $$\frac{dx}{d\log s_1} = x\Bigl(\frac{2x^{q}}{1 + e^{-D}} - 1\Bigr).\qquad\text{Without }e^{-D}:\quad x^{-q} = 2 + (x_0^{-q} - 2)\,(s_1/s_1^{(0)})^{q}.$$
# *From every start with $x_0 < 2^{-1/q} = 2^{-L/(L-2)}$ it falls to 0; from one with $2x_0^q > 1 + e^{-D_0}$ it rises to 1. Between the two is a strip of width $O(e^{-D_0})$.*
#
# **Proof.**
# 1. *The margins.* The three wrong classes $a$ of a sample have the margins $\frac12(s_1+s_3)$, $\frac12(s_2 + s_3)$ and $\frac12(s_1+s_2)$: each character is $-1$ on two of them. With $s_1 = s_2$
#    the first two are equal and the third is larger by $D$: the softmax puts weights $w, w$ and $we^{-D}$ on them.
# 2. *The forces.* $g_i = \sum_ap(a)(1-\chi_i(a))$ counts, twice, the weight on which $\chi_i = -1$. $\chi_3$ is $-1$ on the first two classes, $\chi_1$ and $\chi_2$ on one of them and the third: $g_3 = 4w$, $g_1 = g_2 = 2w(1 + e^{-D})$.
# 3. *The ratio.* From $\dot s_i = Ls_i^{1+q}g_i$ (notebook [41](../4_spectral/41_frozen_vectors.ipynb)): $ds_3/ds_1 = 2x^{1+q}/(1 + e^{-D})$, hence the equation. Without $e^{-D}$, $u = x^{-q}$ makes it linear, $du/d\log s_1 = q\,(u - 2)$: the point $u = 2$ is fixed, and every other $u$ leaves it like $s_1^q$.
# 4. *Below.* If $2x_0^q < 1$, the bracket is negative and falls as $x$ does: $x\to0$, at every size of the leaders.
# 5. *Above.* With $t = 1 - x$ the bracket is positive where $f(t) = e^{-s_1t/2}$ is below $h(t) = 2(1-t)^q - 1$. $f$ is convex, $h$ concave, and they meet at $t = 0$: if $f < h$ at the start, then also at all smaller $t$, and the more so for larger $s_1$. So $x$ rises, and its limit is 1, since below 1 $D$ grows without end and the bracket tends to $2x^q - 1 > 0$. $\square$
#
# The laggard is pushed twice as hard as the others, but its speed carries the factor $x^{1+q}$: depth decides which of the two is more. On $x = 2^{-1/q}$ they
# balance, and the direction stays where it is: that is a critical point of the margin problem between the two others, of full rank and with unequal values. The factor two
# is the $\beta$ of the square, the force on what it leaves out over that on what it keeps: [notebook 28](../2_margin/28_complement.ipynb) has the law $\beta^{-L/(L-2)}$ for other codes and what it means for the survival of low rank.

# %% tags=["parameters"]
depths: list[int] = [3, 4, 6, 10]  # depths L [3, 20]
size: float = 200.0  # size of the two leaders at which the separatrix is measured [60, 1000]
rounds: int = 4  # rounds of the search, each 24 times finer [1, 6]
seed: int = 0  # not used: nothing is drawn [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas as pd
import torch

import dufm
from dufm import basin, claims, notebook, stats

p = notebook.start("55_separatrix", globals())

# %% [markdown]
# ## One laggard on either side
#
# Depth 4, where the separatrix is a quarter. Two starts, a tenth below and a tenth above it, followed to a finite loss, and then to the
# limit of the flow, which is certified.

# %%
for factor in (0.9, 1.1):
    start = p.size * torch.tensor([1.0, 1.0, factor * dufm.late_separatrix(4)], dtype=torch.float64)
    run = dufm.spectral_flow(start, 4, "hadamard", rtol=1e-8, until_log_loss=-3 * p.size)
    end = basin.FOUR_ENDS[int(basin.ends_of_four(start, 4))]
    print(f"s_3/s_1 starts at {start[2] / start[0]:.3f}, is {run.s[2] / run.s[0]:.3f} at log loss {-3 * p.size:g}, ends in: {end}")

# %% [markdown]
# ## The measured separatrix
#
# `basin.critical_ratio` knows nothing of the law. It starts 23 ratios at a time, asks which laggards gain on the leaders between two late losses, and divides the
# interval in which the answer changes again. It refuses to answer if the answer changes twice.

# %%
rows = []
for L in notebook.progress(p.depths, "depths"):
    measured, law = float(basin.critical_ratio(L, [p.size], rounds=p.rounds)), dufm.late_separatrix(L)
    rows.append((L, measured, law, measured / law - 1))
found = pd.DataFrame(rows, columns=["depth", "measured", "law", "off"])
found.assign(off=[stats.below(x, 1e-4) for x in found.off]).round(4)

# %% [markdown]
# For the picture: starts at fixed multiples of the separatrix, their ratio read off while the leaders grow, beside the closed solution `basin.late_ratio`.

# %%
losses = (-np.geomspace(1.2, 60, 16) * p.size).tolist()
curves = []
for L in p.depths:
    begin = torch.tensor([0.5, 0.9, 1.0, 1.1, 1.6]) * dufm.late_separatrix(L)
    starts = torch.stack([torch.ones(5), torch.ones(5), begin], -1).double() * p.size
    s = dufm.spectral_flow(starts, L, "hadamard", rtol=1e-9, until_log_loss=losses[-1], record={"log_loss": losses}).history.s
    growth = s[..., 0] / p.size
    columns = {"start": begin.expand(growth.shape), "growth": growth, "ratio": s[..., 2] / s[..., 0], "law": basin.late_ratio(begin.double(), growth, L)}
    curves.append(pd.DataFrame({"depth": L, **{name: value.flatten().numpy() for name, value in columns.items()}}))
figures.store("55_separatrix", pd.concat(curves))

# %% tags=["figure"]
figures.show(
    "55_separatrix",
    alt="Ratio of the lagging to the leading singular values against the growth of the leaders, one panel a depth. Curves that start above the thick dashed line, the "
    "separatrix, rise to 1; those below fall to 0; the one on it stays. The separatrix is an eighth at depth 3 and 0.42 at depth 10. Marks lie on the thin dashed curves.",
)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("55-separatrix", found.off.abs().max())
claims.check("55-late-ratio", max((c.ratio / c.law - 1)[c.start != c.start.unique()[2]].abs().max() for c in curves))

# %% [markdown]
# ## Where it breaks
#
# *Leaders that are not large.* Then $e^{-D}$ counts, the strip is wide, and the boundary lies in it: a laggard can be lost from closer than the law says, never win from further, as the table shows. The boundary of the whole basin starts from here: followed backwards in time, it
# is the surface that notebooks [56](56_basin_map.ipynb) to [58](58_share.ipynb) are about.

# %%
sizes = [2.0, 5.0, 10.0, 20.0, 40.0]
small = {L: (basin.critical_ratio(L, sizes, rounds=p.rounds) / dufm.late_separatrix(L) - 1).numpy() for L in p.depths}
table = pd.DataFrame(small, index=pd.Index(sizes, name="leaders")).map(lambda x: stats.below(x, 1e-4))
table.rename_axis("critical ratio over the law, less 1; depth", axis=1)

# %% [markdown]
# ## Try it ([answers](../answers.md#55))
#
# 1. `depths = [20]`: how close to one half is the separatrix, and why can it never be more?
# 2. `size = 60.0`: which depth is the first to leave the law?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
