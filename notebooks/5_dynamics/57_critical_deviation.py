# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How unequal a start may be and still collapse: a power of its scale
#
# **Question.** Start with small singular values, a few of them behind the rest by a share $\delta$. Up to which $\delta$ does training still end in
# neural collapse?
#
# **Answer.** Up to $\delta_c \approx (c^*/q)\,s_0^{q}$ with $q = 1 - 2/L$ and a constant $c^*$. Starts ten times smaller must be $10^q$ times as equal, and $q$
# grows with depth: at $L = 10$ and $s_0 = 10^{-6}$ a deviation of one in a hundred thousand is too much.
# Before: [56, the map of the basin](56_basin_map.ipynb). After: [58, its share of all directions](58_share.ipynb).

# %%
from dufm import figures

figures.published("57_critical")

# %% [markdown]
# *The critical deviation against the initial scale, one kind of mark a depth. Dashed: the law with the $c^*$ of the smallest scale, written
# beside it. Left: one of three values lags. Right: three of seven.* [Drawn by](../../figures/57_critical.py)
#
# ## Statement
#
# *Let $L\ge3$, and let some Hadamard characters start at $(1-\delta)s_0$ and the others at $s_0$. If a lag can keep training from collapse at all, then for small $s_0$ it does so from*
# $$\delta_c = 1 - (1 + c^*s_0^{q})^{-1/q} \approx \frac{c^*}{q}\,s_0^{q},\qquad q = 1 - \tfrac2L > 0,$$
# *on, with a $c^*$ that does not depend on $s_0$.*
#
# **Proof.** Each value obeys $\dot s_i = Ls_i^{1+q}g_i$ with $g_i = \sum_a p(a)(1-\chi_i(a))$ (notebook [41](../4_spectral/41_frozen_vectors.ipynb)).
# 1. In $y_i = s_i^{-q}$ this is $\dot y_i = -(L-2)\,g_i$. Near the origin $p$ is uniform up to $O(s)$, $s$ the largest value, so $g_i = 1 + O(s)$: every
#    $y_i$ falls at nearly the same rate $L - 2$.
# 2. Follow a trajectory backwards into the origin. There $s \sim |(L-2)t|^{-1/q}$, and $1/q > 1$, so $\int_{-\infty} s\,dt$ converges. Hence
#    $y_i + (L-2)t \to a_i$: *the differences $a_i - a_j$ are constants that label the trajectory.*
# 3. Conversely labels name one trajectory: it solves $y_i(t) = a_i - (L-2)t - (L-2)\int_{-\infty}^t (g_i - 1)\,d\tau$, and as $\partial s/\partial y = O(|t|^{-1/q-1})$ is integrable too, the right side
#    contracts on $t\le -T$ for $T$ large.
# 4. So the end is a function of the labels alone, and *the boundary of the basin is a fixed surface in them*. Let $c^*$ be where the line of labels "leaders 0, laggards $c$" first leaves the basin.
# 5. The start above has the label $c = s_0^{-q}\bigl[(1-\delta)^{-q} - 1\bigr]$ up to the part of the integral between the origin and $s_0$, which is $O(s_0^{2/L})$. Setting $c = c^*$ gives the formula. $\square$
#
# That the line leaves the basin only once is not proved here. The search below tries 23 labels at a time and refuses to answer if collapse wins, loses and wins again.

# %% tags=["parameters"]
depths: list[int] = [3, 4, 6, 10]  # depths L [3, 20]
small: list[float] = [1e-3, 1e-4, 1e-5, 1e-6]  # initial scales at which the law is tested [1e-6, 1e-2]
large: list[float] = [1.0, 0.1, 0.01]  # initial scales at which it breaks [1e-2, 1]
rounds: int = 4  # rounds of the search, each 24 times finer [1, 6]
seed: int = 0  # not used: nothing is drawn [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import basin, claims, notebook, shares

p = notebook.start("57_critical_deviation", globals())

# %% [markdown]
# ## Two starts
#
# Four classes, four layers, $s_0 = 10^{-3}$. The third value lags by 2%, then by 5%. Whoever gains late in training wins, and that is read off without the theory.

# %%
for delta in (0.02, 0.05):
    start = 1e-3 * torch.tensor([1.0, 1.0, 1.0 - delta], dtype=torch.float64)
    run = dufm.spectral_flow(start, 4, "hadamard", rtol=1e-10, until_log_loss=-60.0, record={"log_loss": [0.0, -40.0, -60.0]})
    ratio = run.history.s[:, 2] / run.history.s[:, 0]
    print(f"δ = {delta}: s_3/s_1 at log losses 0, −40, −60: " + ", ".join(f"{x:.4f}" for x in ratio))

# %% [markdown]
# Both lags first grow, because larger values run away from smaller ones ([52](52_repulsion.ipynb)); the first is then made good, the second never.
#
# ## The critical label
#
# `basin.critical_labels` looks for the change between the two, in the label and not in $\delta$, in which the power law is reached only slowly.

# %%
PATTERNS = {"(1, 1, 1−δ)": [0, 0, 1], "(1⁴, (1−δ)³)": [1, 1, 1, 0, 0, 0, 0]}
scales = [*p.small, *p.large]
rows = []
for pattern, L in notebook.progress([(pattern, L) for pattern in PATTERNS for L in p.depths], label="critical labels"):
    labels = basin.critical_labels(PATTERNS[pattern], L, scales, rounds=p.rounds).tolist()
    rows += [(pattern, L, s0, c, basin.critical_deviation(c, s0, L)) for s0, c in zip(scales, labels, strict=True)]
table = pandas.DataFrame(rows, columns=["pattern", "depth", "scale", "label", "deviation"])
figures.store("57_critical", table)

# %% tags=["figure"]
figures.show(
    "57_critical",
    alt="Critical relative deviation against initial scale on logarithmic axes, left for one lagging value of three, right for three of seven, one kind of "
    "mark for each of four depths. The marks lie on dashed lines up to scales of about a tenth; deeper networks have steeper and lower lines.",
)

# %% [markdown]
# At the small scales, for each direction and depth: the critical labels, which should not change along a row, and the exponent of $(1-\delta_c)^{-q} - 1$ against $s_0$, which should be $q$.


# %%
def exponent(rows):
    q = 1 - 2 / rows.depth.iloc[0]
    return np.polyfit(np.log(rows.scale), np.log((1 - rows.deviation) ** -q - 1), 1)[0]


tested = table[table.scale.isin(p.small)]
wide = tested.pivot(index=["pattern", "depth"], columns="scale", values="label")
fits = pandas.Series({key: exponent(rows) for key, rows in tested.groupby(["pattern", "depth"])})
q = 1 - 2 / wide.index.get_level_values("depth")
wide.assign(exponent=fits, law=q).round(4)

# %% [markdown]
# For four classes there is a second way to $c^*$, with no search in it: the boundary of the basin is the surface that runs into the separatrix of notebook
# [55](55_separatrix.ipynb), and `shares.boundary_labels` integrates it back from there. It begins at leaders that are equal, the direction on the left.

# %%
searched = wide.loc["(1, 1, 1−δ)"][min(p.small)]
back = pandas.Series({L: float(shares.boundary_labels(L, min(p.small))[1][0]) for L in p.depths})
pandas.DataFrame({"searched": searched, "integrated back": back}).round(4)

# %% [markdown]
# ## Directions without a critical deviation
#
# Not every lag can keep training from collapse. Let one value lead by any factor, $(1+\delta, 1, 1)$. The leader stops when the two classes it can tell apart are told apart, and
# the two followers, equal for ever, come together and bring both of what is missing. These are the arms of the star in the map.

# %%
leads = torch.tensor([1e-2, 1e-1, 1.0, 10.0, 1e3, 1e5], dtype=torch.float64)
ahead = 1e-3 * torch.stack([1 + leads, torch.ones(6), torch.ones(6)], -1)
ends = torch.stack([basin.ends_of_four(ahead, L, rtol=1e-8) for L in p.depths])
print(f"{int((ends == 0).sum())} of {ends.numel()} such starts, δ up to 1e5, end in collapse")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("57-label-flat", ((wide.max(axis=1) - wide.min(axis=1)) / wide.mean(axis=1)).max())
claims.check("57-label-four", wide.loc[("(1, 1, 1−δ)", p.depths[0])].mean())
claims.check("57-exponent", (fits / q - 1).abs().max())
claims.check("57-two-ways", (searched / back - 1).abs().max())
claims.check("57-no-critical", (ends != 0).sum())

# %% [markdown]
# ## Where it breaks
#
# *Starts that are not small.* The labels are constants of the motion only near the origin. How far the label found at a larger scale is from that of the smallest, relative to it:

# %%
four = table[table.pattern == "(1, 1, 1−δ)"].pivot(index="depth", columns="scale", values="label")
(four[p.large].div(four[min(p.small)], axis=0) - 1).round(4)

# %% [markdown]
# One percent is reached between $s_0 = 0.01$ and $0.1$, the order of the $O(s_0^{2/L})$ of the proof times the deviation itself. At $L = 2$ there is nothing to find: $q = 0$, and collapse always wins.
#
# ## Try it
#
# 1. `depths = [20]`: how equal must a start be at $s_0 = 10^{-6}$?
# 2. `large = [0.5, 0.2, 0.05]`: from which scale on is the label right to one percent?
# 3. Lags of $(1, 1-\delta, 1-\delta)$: `basin.critical_labels([0, 1, 1], 4, [1e-3])` refuses. Why?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
