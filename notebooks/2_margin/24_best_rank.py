# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The best rank found falls with depth, in steps, from full rank to two
#
# **Question.** Among all logits, which have the largest margin at fixed weight norm? Neural collapse has rank $K - 1$. For how many classes and layers is that the best rank?
#
# **Answer.** At $L = 2$ for every $K$, and at every depth for $K = 3$: these are theorems. With four and five classes nothing better than collapse is found at $L = 3$, and it is beaten from $L = 4$ on; with six and more from $L = 3$ on.
# In the searches, $K\le10$ and $L\le12$, the best rank never rises with depth and falls in steps to 2, the floor, where the winner is the regular polygon.
# Before: [23, what is left of the start](23_slow_residual.ipynb). After: [25, collapse is beaten](25_collapse_is_beaten.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/2_margin/24_best_rank.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/2_margin/24_best_rank.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("24_phase")

# %% [markdown]
# *Rank of the best solution found, by classes and depth (bold, and colour); below it, its margin over that of collapse. Marks name the solution, the orange bars stand where collapse first
# loses. Unmarked cells with a name are the Petersen code ($K = 10$, $L = 4$) and the square antiprism ($K = 8$, $L = 5, 6$); the others are irregular.* [Drawn by](../../figures/24_phase.py)
#
# ## Statement
#
# Write $p = 2/L$. The flow's ends (notebook 21) are critical points of
# $$\gamma_L(Z) = \frac{\min_{j\ne c}(z_{cc} - z_{jc})}{\bigl(\sum_i\sigma_i(Z)^p\bigr)^{1/p}},$$
# with ranks and singular values of the centred logits. *One column and one row of the diagram are theorems*, proved in notebook [27](27_three_classes.ipynb): at $L = 2$ collapse alone is best for every $K$, and for $K = 3$ at every depth. A
# third, in notebook [29](29_rank_two.ipynb), says that rank 2 is best from a depth $L_0(K)$ on: from 5, 8, 10 and 12 layers for $K = 4, 5, 6, 7$. That collapse is *not* best needs only one better code: for $L\ge3$ and $K\ge6$, and for
# $K = 4, 5$ from $L = 4$, notebook 25 writes it down. Every other cell is the outcome of a search.
#
# **Depth prices rank.** At equal singular values $s$, $\bigl(\sum_i\sigma_i^p\bigr)^{1/p} = s\,r^{L/2}$: from one depth to the next a solution of rank $r$ pays the factor $\sqrt r$. Between solutions of different rank the lower
# one therefore gains with depth, and once it has won it stays ahead: between solutions with equal singular values the better rank cannot rise with depth. For unequal ones, and for solutions that change with depth, this is measured.
#
# *The search.* For each $K$, $L$ and rank $r$, `dufm.max_margin` climbs $\gamma_L$ from many starts, polishes the best ends and returns one solution with its certificate; the solution of the depth before is one more
# start. **A search finds good solutions and does not exclude better ones**: every margin is a lower bound on the best, and a depth at which collapse first loses an upper bound on the true one.
#
# *Computed once.* The 396 searches took three minutes and a half, by `dufm reproduce 24 -p classes=[3,4,5,6,7,8,9,10] -p depths=[2,3,4,5,6,7,8,9,10,11,12]`. Their tables stand beside this notebook,
# `24_phase.csv` (a row a search) and `24_solutions.csv` (the best matrices, an entry a row). A run repeats those of its `classes` and `depths`, and all best matrices are certified anew.

# %% tags=["parameters"]
classes: list[int] = [6, 8]  # numbers of classes K to search again [3, 32]
depths: list[int] = [2, 3, 8]  # depths L to search again [2, 32]
restarts: int = 64  # random starts of each search, beside the starts from neighbours [2, 512]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import certificate, claims, figures, notebook, search, stats

p = notebook.start("24_best_rank", globals())

# %% [markdown]
# ## One cell
#
# $K = 6$, $L = 3$, rank by rank. A search that walked from rank to rank would go astray: between two good codes, collapse and orthoplex, lies a bad rank.

# %%
for r in range(2, 6):
    found = dufm.max_margin(6, 3, r, restarts=min(p.restarts, 16), seed=p.seed)
    ratio = found.margin / dufm.closed_form_margin("nc", 6, 3)
    print(f"rank {r}: {ratio:.4f} of collapse's margin, {dufm.codes.name_of(found.Z)}; residual {stats.below(found.certificate.residual, 1e-8)}, "
          f"{found.agree} of {found.restarts} climbs agree")

# %% [markdown]
# ## All cells

# %%
KEYS = ["num_classes", "depth", "rank"]
rows, matrices = [], {}
depths, ranks = sorted(set(p.depths)), [(K, r) for K in sorted(set(p.classes)) for r in range(2, K)]
for K, r in notebook.progress(ranks, label="K, rank"):
    for L, found in zip(depths, search.along_depth(K, r, depths, restarts=p.restarts, seed=p.seed), strict=True):
        matrices[K, L, r] = found and found.Z.numpy()
        rows.append({"num_classes": K, "depth": L, "rank": r} | search.as_row(found, L))
again = pandas.DataFrame(rows)

# %% [markdown]
# The tables beside the notebook, with the searches of this run in the place of theirs: the best of each cell, and its matrix.

# %%
kept = notebook.committed("24_phase")
table = pandas.concat([again, kept]).drop_duplicates(KEYS).sort_values(KEYS, ignore_index=True)
best = table.loc[table.groupby(["num_classes", "depth"])["margin_ratio"].idxmax()]
parts = []
for K, L, r in best[KEYS].to_numpy().tolist():
    if matrices.get((K, L, r)) is not None:
        row, column = np.indices((K, K)).reshape(2, -1)
        parts.append(pandas.DataFrame({"num_classes": K, "depth": L, "row": row, "column": column, "value": matrices[K, L, r].ravel()}))
entries = pandas.concat([*parts, notebook.committed("24_solutions")]).drop_duplicates(["num_classes", "depth", "row", "column"])
entries = entries.sort_values(["num_classes", "depth", "row", "column"], ignore_index=True)
figures.store("24_phase", table)
figures.store("24_solutions", entries)

# %%
both = again.merge(kept, on=KEYS, suffixes=("", "_committed"))
repeated = (both["margin_ratio"] / both["margin_ratio_committed"] - 1).abs().max()
print(f"{len(again)} of {len(table)} searches repeated, largest relative difference {stats.below(repeated, 1e-8)}; none certified in {table['margin_ratio'].isna().sum()}")

# %% tags=["figure"]
figures.show(
    "24_phase",
    alt="Grid of classes K against depth L, each cell coloured by the rank of the best solution found, with the rank and its margin over neural collapse printed. At depth 2 "
    "the rank is K-1 and the ratio 1 in every row. The rank falls with depth, to 2 at the right; the row K = 3 stays at rank 2 with ratio 1. Orange bars mark where collapse first loses.",
)

# %% [markdown]
# A second route to every best matrix, from the numbers in the file alone: polished, its certificate, the stationarity of all factors, and the smallest curvature at its rank.

# %%
checked = []
for (K, L), matrix in entries.groupby(["num_classes", "depth"]):
    solved = dufm.polish(torch.tensor(matrix["value"].to_numpy().reshape(K, K)), L, int(best.set_index(["num_classes", "depth"])["rank"][K, L]))
    ratio = float(dufm.normalized_margin(solved.Z, L)) / dufm.closed_form_margin("nc", K, L)
    factors = float(certificate.factor_residual(solved.Z, L, solved.certificate))
    curvature = search.stratum_curvature(solved.Z, L, int(solved.certificate.rank))
    checked.append((K, L, ratio, max(float(solved.certificate.residual), abs(float(solved.certificate.gap))), factors, curvature))
checked = pandas.DataFrame(checked, columns=["num_classes", "depth", "margin_ratio", "certificate", "factors", "curvature"]).set_index(["num_classes", "depth"])
print(f"certificates: at most {stats.below(checked['certificate'].max(), 1e-8)}; factors {stats.below(checked['factors'].max(), 1e-6)}; "
      f"local maxima of their rank, to second order: {(checked['curvature'] > -1e-6).sum()} of {len(checked)}")
lost = best[best["margin_ratio"] > 1 + 1e-6].groupby("num_classes").first()
lost[["depth", "rank", "margin_ratio", "agree", "climbs"]].round(4)

# %% [markdown]
# *Where collapse first loses: the depth, and the rank and margin of who wins there.* The singular values of the best matrices, for the largest $K$:

# %% tags=["figure"]
figures.show(
    "24_solutions",
    alt="Singular values of the best solution found for ten classes, relative to the largest, against depth. Numbers say how many coincide: nine at depth 2, fewer at each "
    "further step, two at large depth; where the code is irregular they split.",
)

# %% [markdown]
# *Singular values of the best solution found for ten classes, over the largest, against depth; the numbers count those that coincide.* [Drawn by](../../figures/24_solutions.py)
#
# ## A hypothesis on the best rank, and its end
#
# A covering argument (codes of $K$ points with small angles in dimension $r - 1$) suggests $r\approx1 + \frac12\bigl(X + \sqrt{X^2 + 4X}\bigr)$ with $X = 4\log K/(L-2)$, capped to $[2, K-1]$. A law says something if it beats what
# knows nothing of codes: the constant, and the linear rule in $\log K$ and $1/L$, that do best for $K\le7$, all judged for $K\ge8$.

# %%
cells = best[(best["depth"] >= 3) & (best["num_classes"] >= 4)]
K, L, rank = (cells[name].to_numpy(float) for name in ("num_classes", "depth", "rank"))
X, fitted = 4 * np.log(K) / (L - 2), K <= 7
features = np.stack([np.ones(len(K)), np.log(K), 1 / L], 1)
rules = {"formula": 1 + (X + np.sqrt(X**2 + 4 * X)) / 2, "linear": features @ np.linalg.lstsq(features[fitted], rank[fitted], rcond=None)[0]}
rules["constant"] = np.full(len(K), max(range(2, 9), key=lambda c: (abs(rank - c) <= 1)[fitted].sum()), float)
held = {name: np.abs(rule.clip(2, K - 1) - rank)[~fitted] for name, rule in rules.items()}
within = {name: (away <= 1).mean() for name, away in held.items()}
pandas.DataFrame({"within 1": within, "mean distance": {name: away.mean() for name, away in held.items()}}).round(3)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
ratio = best.set_index(["num_classes", "depth"])["margin_ratio"]
claims.check("24-six-classes", ratio[6, 3])
claims.check("24-eight-classes", ratio[8, 8])
claims.check("24-local", int((checked["curvature"] <= -1e-6).sum()))
claims.check("24-rank-falls", int((best.groupby("num_classes")["rank"].diff() > 0).sum()))
claims.check("24-again", repeated)
claims.check("24-formula", within["formula"] - max(within["constant"], within["linear"]))

# %% [markdown]
# ## Where it breaks
#
# *Best is not what is reached.* Which solution a network ends in depends on start, scale and width: many end in collapse at $K = 4$, $L = 4$ although the square is better (notebook 21), and notebook
# [35](../3_codes/35_reached.ipynb) counts the ends. *A larger search may find more*: the claims are about what was found. *Beyond $L = 12$*, and for
# the limit of many layers, a table proves nothing: see notebook 29.
#
# ## Try it ([answers](../answers.md#24))
#
# 1. `classes = [12]`: which ranks win, and at which depths? The icosahedron has rank 3.
# 2. `depths = [2, 3, 4, 5, 6, 8, 12, 16, 24]` with `classes = [10]`: at which depth is the polygon reached for good?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
