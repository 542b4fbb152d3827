# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Efficiency does not decide the end; at equal efficiency the kind of imbalance matters
#
# **Question.** Low-rank matrices propagate norm more efficiently (15). Is that why a start ends at low rank: does the efficiency of its layers, and nothing else about them, decide the end?
#
# **Answer.** No. Efficient starts do end lower, on average. But of two starts with the same logits, the same layer norms and the same efficiency, one that is inefficient because its wide layers are *redundant* ends higher, by 0.36 at width 16 and more on a scale from 0 (rank 2) to 1 (rank $K-1$), than one whose
# layers are merely *skewed*. And at the same weight norm starts that are several times as efficient as the skewed ones end where these do on average, to within 0.03. What goes with high rank is not waste, but that no direction of the logits is driven slowly.
#
# Before: [15, norm propagation](15_norm_propagation.ipynb). After: [21, where the flow ends](../2_margin/21_where_the_flow_ends.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/1_model/16_efficiency_decides.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/1_model/16_efficiency_decides.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("16_starts")

# %% [markdown]
# *Mean height of the end, 0 at rank 2 and 1 at rank $K-1$, against the efficiency of the start relative to balanced factors of the same logits, over 18 cells a panel with 95% intervals. Three ways away from balance, the mark at 1: at one efficiency
# they end at different heights, unless the network is as narrow as $K$; diamond, balance itself.* [Drawn by](../../figures/16_starts.py)
#
# ## Statement
#
# Fix the logits $Z_0$ of the start. Its efficiency is $e = \|Z_0\|_F/\prod_l\|W_l\|_F$, and $R^2 = \sum_l\|W_l\|_F^2$.
#
# 1. *$e\le\|Z_0\|_F/\|Z_0\|_{S_{2/L}}$, with equality for balanced factors and their multiples; and if all layers have one norm, $e = \|Z_0\|_F\,(L/R^2)^{L/2}$.* So at given logits efficiency and weight norm are *one* number as long as layers have equal norms: nobody can vary the one and hold the other.
# 2. *Along $\dot W_l = D_lW_l - W_lD_{l-1}$, with the imbalances $D_l = W_{l+1}^\top W_{l+1} - W_lW_l^\top$ and $D_0 = D_L = 0$, the product stays and $R^2$ falls at the rate $2\sum_l\|D_l\|_F^2$.*
#
# **Proof.** 1 is statement 1 of notebook [15](15_norm_propagation.ipynb) and $\prod_l\|W_l\|_F = (R^2/L)^{L/2}$. 2: the terms $W_{l+1}D_lW_l$ of the derivative of the product cancel in pairs. $\frac{d}{dt}\|W_l\|_F^2 = 2\operatorname{Tr}(D_lW_lW_l^\top) - 2\operatorname{Tr}(D_{l-1}W_l^\top W_l)$; collect what stands
# with $D_l$ over $l$: $2\operatorname{Tr}D_l(W_lW_l^\top - W_{l+1}^\top W_{l+1}) = -2\|D_l\|_F^2$. $\square$
#
# **The intervention.** From the logits of a Gaussian network of width $d$ six starts are made; $Z_0$ is the same to the last digits in all.
# - *wide*: the Gaussian factors themselves, their layers brought to equal norms, and the factors half-way (in $\log R$) to balance along the path of 2.
# - *skewed*: balanced factors of width $K$ with $W_l\to e^{\tau S_l}W_le^{-\tau S_{l-1}}$, $S_l$ random symmetric, $\tau$ such that norm and efficiency are those of *wide*, fully or half-way. Orthogonal $e^{\tau S}$ would be no intervention: they give the same network in other coordinates.
# - *scaled*: balanced factors, the features larger and the rest smaller, of the norm of *wide* but the efficiency of balance.
# - *balanced* factors of width $K$; padding with zeros changes no path, a unit without weights gets no gradient.
#
# Held fixed: $Z_0$, so the loss and every gradient of the logits; between *wide* and *skewed* each layer's norm, between those and *scaled* $R^2$. What cannot be held is the speed $\sum_lA_l(I-P)B_l$ of the logits, $A_l = W_{>l}W_{>l}^\top$, $B_l = W_{<l}^\top W_{<l}$: it *is* the
# alignment. It suggests a rival of efficiency, the *slowest rate* $\min_E\langle E, \sum_lA_lEB_l\rangle/\|E\|^2$ over centred $E$: under it small singular values are not left behind.
#
# **Predicted** from five cells ($K$, $L$, $d$, $\sigma$ = 4, 3, 8, 0.7; 4, 4, 16, 1; 4, 4, 8, 0.5; 6, 3, 16, 0.7; 6, 4, 32, 1), before any of the 72 others was run: the six claims below, with their numbers.

# %% tags=["parameters"]
classes: list[int] = [4, 5, 6]  # numbers of classes K [4, 10]
depths: list[int] = [3, 4, 5]  # depths L [2, 8]
widths: list[int] = [0, 8, 16, 32]  # widths d of the Gaussian networks, 0 stands for K [0, 128]
scales: list[float] = [0.6, 0.9]  # initial scales σ, entries N(0, σ²/fan-in) [0.1, 2]
networks: int = 16  # logits a cell, each with six starts [4, 1024]
every: int = 71  # every n-th set of starts in the table is computed again [1, 1000]
seed: int = 0  # first seed of all [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import alignment, claims, notebook, stats, sweep, width

p = notebook.start("16_efficiency_decides", globals())
STARTS = [("wide", 1.0), ("wide", 0.5), ("skewed", 1.0), ("skewed", 0.5), ("scaled", 1.0), ("wide", 0.0)]

# %% [markdown]
# ## Four starts of one logit matrix
#
# One in which the kinds do end differently (at this $K$, $L$, $d$ and $\sigma$ about two thirds do).

# %%
gaussian = width.random_start("gaussian", 4, 16, 4, scale=1.0, seeds=[p.seed + 5])
rows = []
for kind, excess in [("wide", 1.0), ("skewed", 1.0), ("scaled", 1.0), ("wide", 0.0)]:
    start = alignment.realigned(gaussian, kind, excess, [p.seed + 5])
    found = dufm.end(dufm.gradient_flow(start, until_log_loss=-1e3, rtol=1e-3), 4)
    square = float(sum(W.square().sum() for W in start))
    moved = float(torch.linalg.matrix_norm(dufm.product(start) - dufm.product(gaussian)))
    rows.append([kind if excess else "balanced", stats.below(moved, 1e-9), square, float(dufm.efficiency(start)), float(alignment.slowest_rate(start)), found.name[0]])
pandas.DataFrame(rows, columns=["start", "change of Z", "R²", "efficiency", "slowest rate", "end"]).round(4).set_index("start")

# %% [markdown]
# ## All starts
#
# 77 cells, 16 logits each, six starts of each: computed once by `dufm reproduce 16 -p every=1` into [16_starts.csv](16_starts.csv), of which a sample of the held-out cells is computed again; the five of the first look are read. An undecided run counts as half-way up.

# %%
CELL = ["num_classes", "depth", "width", "scale", "first"]
held = [(K, L, d or K, s) for K in p.classes for L in p.depths for d in p.widths for s in p.scales]
cells = [(*cell, p.seed + 1000 * (i + 1)) for i, cell in enumerate(held)]
wanted = pandas.DataFrame([(*cell, *start) for cell in cells for start in STARTS], columns=[*CELL, "kind", "excess"])
once = notebook.committed("16_starts")
known = wanted.merge(once[wanted.columns].drop_duplicates(), how="left", indicator="known").known == "both"
chosen = wanted[~known | (wanted.index % p.every == 0)].to_dict("records")
here = sweep.run(alignment.realigned_ends, chosen, seeds=range(p.networks), **notebook.sweep_options())
KEYS = [*wanted.columns, "seed"]
table = once.merge(wanted).query("seed < @p.networks")
both = here.merge(table, on=KEYS, suffixes=("", "_table"))
runs = pandas.concat([here.drop(columns="error").round(4), table, once[once["first"] == 0]]).drop_duplicates(KEYS).sort_values(KEYS, ignore_index=True)
figures.store("16_starts", runs)
print(f"{len(here)} of {len(runs)} runs computed here; of {len(both)} that are in the table {int((both['rank'] != both['rank_table']).sum())} end at another rank; {int((runs['rank'] == 0).sum())} undecided")

# %%
runs["height"] = np.where(runs["rank"] > 0, (runs["rank"] - 2) / (runs.num_classes - 3), 0.5)
runs["cell"], runs["logits"] = runs["first"], runs["first"].astype(str) + "/" + runs.seed.astype(str)
runs["start"] = np.where(runs.excess == 0, "balanced", runs.kind + " " + runs.excess.astype(str))
seen, fresh = runs[runs["first"] == 0], runs[runs["first"] > 0]

# %% tags=["figure"]
figures.show("16_starts", alt="Four panels, network widths K, 8, 16 and 32: mean height of the end against the efficiency relative to balance. At width K the lines of the three kinds of start nearly coincide. At larger widths the line of wide starts climbs as efficiency is lost, to 0.4 at width 8 and to 0.8 at width 32, the line of skewed starts hardly, and scaled starts reach the height of skewed ones without any loss of efficiency.")

# %% [markdown]
# The slope of height on log efficiency and on the log of the slowest rate. Comparing starts of the same logits takes width, scale and everything else about $Z_0$ out; comparing starts of one cell takes out $K$, $L$, width and scale. The answer to the plain question, whether efficiency predicts the end of a random network beyond width and scale, stands in the fourth row: not detectably.

# %%
def slopes(name, part, within):
    """One row: both slopes with their intervals, unless a predictor does not vary."""
    found = [stats.within_slope(part[x], part.height, part[within]) for x in ("log_efficiency", "log_rate")]
    return name, *(f"{x:.3f} [{low:.3f}, {high:.3f}]" for x, low, high in found)


rows = [slopes("all starts, same logits", fresh, "logits")]
rows += [slopes(f"{kind} and balanced, same logits", fresh[(fresh.kind == kind) | (fresh.excess == 0)], "logits") for kind in ("wide", "skewed")]
rows += [slopes(f"{start} alone, same cell", fresh[fresh.start == start], "cell") for start in ("wide 1.0", "balanced")]
pandas.DataFrame(rows, columns=["starts", "on log efficiency", "on log slowest rate"]).set_index("starts")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
def centred(x, part):
    """Values less their mean over the starts of the same logits."""
    return part[x] - part.groupby("logits")[x].transform("mean")


def ends(values):
    """Both ends of the 95% interval of the mean; no number where such cells were not asked for."""
    return np.array(stats.mean_interval(values)[1:])


heights = fresh.pivot(index="logits", columns="start", values="height").dropna()
at = fresh.drop_duplicates("logits").set_index("logits").loc[heights.index]
kinds, norms = heights["wide 1.0"] - heights["skewed 1.0"], heights["scaled 1.0"] - heights["skewed 1.0"]
claims.check("16-efficient-lower", stats.within_slope(fresh.log_efficiency, fresh.height, fresh.logits)[2])
claims.check("16-kind", ends(kinds[at.width >= 16])[0])
claims.check("16-narrow", np.abs(ends(kinds[at.width == at.num_classes])).max())
claims.check("16-norm", np.abs(ends(norms)).max())
left = {}
for x in ("log_efficiency", "log_rate"):
    fitted = float(stats.within_slope(seen[x], seen.height, seen.logits)[0])
    left[x] = (centred("height", fresh) - fitted * centred(x, fresh)) ** 2
total = (centred("height", fresh) ** 2).sum()
print("explained of what starts of the same logits differ by:", ", ".join(f"{x} {1 - part.sum() / total:.3f}" for x, part in left.items()))
claims.check("16-slowest-rate", stats.mean_interval((left["log_efficiency"] - left["log_rate"]).groupby(fresh.logits).sum())[1])
balanced = fresh[fresh.start == "balanced"]
claims.check("16-balanced", stats.within_slope(balanced.log_efficiency, balanced.height, balanced.cell)[2])

# %% [markdown]
# ## Where it breaks
#
# *Where nothing is redundant.* At $d = K$ a Gaussian network is a skewed one, and the two kinds differ by 0.05 in height, against 0.30 and 0.42 at $d = 16$ and 32. So "width pushes the other way" is about redundancy: the slowest rate is lifted only where more units than classes share each direction.
#
# *The slowest rate is no law either*: it explains a fifth of what starts of the same logits differ by, efficiency a thirteenth. The rest is in what the layers do later.
#
# *Among balanced starts* efficiency is a property of $Z_0$ alone, and there it does predict: logits that are nearer to low rank end there.
#
# ## Try it ([answers](../answers.md#16))
#
# 1. `scales = [0.2]`, `every = 1`, `networks = 8`: which kind has lost most of what it gained?
# 2. Replace the features by the classifier in *scaled*. Which $A_l$, $B_l$ grow then, and does the end move?
# 3. `classes = [7]`: what are the ranks between 2 and 6 that occur?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
