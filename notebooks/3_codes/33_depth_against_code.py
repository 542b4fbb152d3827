# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # At most ranks the best low-rank solution found is the softmax code, at some it is slightly better
#
# **Question.** Depth prefers solutions of low rank to neural collapse. The paper calls them softmax codes. Is the best solution of rank $r$, at given depth, the softmax code of $K$ classes in $r$ dimensions, exactly?
#
# **Answer.** Yes, to every digit of a search, in 45 of the 54 pairs of $K = 4\dots12$ and $r$, at all depths compared: wherever the code is regular, and for every rank with $K\le2r$, once one knows which
# of the many softmax codes depth selects: the orthoplex with vertices missing. In the other nine the code is irregular, and the depth problem does better by 0.03% to 3.4%.
# Before: [32, known codes](32_known_codes.ipynb). After: [34, why they agree](34_why_they_agree.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/3_codes/33_depth_against_code.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/3_codes/33_depth_against_code.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("33_agreement")

# %% [markdown]
# *Filled: at every depth compared the best solution found has the margin of the named softmax code to $10^{-6}$. Dashed: it has a larger one, by at most the percentage given.
# "2 pairs, 1 single" is the orthoplex with one vertex missing: two antipodal pairs of classes, and one class alone on its axis.* [Drawn by](../../figures/33_agreement.py)

# %% [markdown]
# ## Statement
#
# *The depth problem at rank $r$* maximises $\gamma_L(Z)=\min_{j\ne c}(z_{cc}-z_{jc})\,/\,\bigl(\sum_i\sigma_i^{2/L}\bigr)^{L/2}$ over matrices of that rank
# ([21](../2_margin/21_where_the_flow_ends.ipynb)). *The code* has no matrix of its own. Give it its best pair: classifier $W$, and as features the unit vectors $H$ which reach the distances
# to the hulls. Then all margins of $WH^\top$ are at least the one-vs-rest margin.
#
# *Centre it.* Adding a constant to a column of $Z$ changes no margin, and $\sigma_i\bigl((I-\tfrac1KJ)Z\bigr)\le\sigma_i(Z)$, since a projection never lengthens. So solutions are centred, and
# the fair matrix of a code is
# $$Z_{\rm code} = (I - \tfrac1KJ)\,WH^\top .$$
# Without centring an irregular code looks worse than it is, and even one that is optimal shows a gap.
#
# *Which code, where there are many?* For $r+2\le K\le2r$ every code of margin 1 is a softmax code. Depth selects the orthoplex with $s=2r-K$ vertices missing, $m=K-r$ pairs beside $s$ single vectors.
# A pair has the singular value $2$. The single columns have the Gram matrix $I_s-\frac1KJ$, whose eigenvalues are $1$ ($s-1$ times) and $1-\frac sK$. For $s\ge1$ this gives
# $$\gamma_L = \Bigl(m\,2^{2/L} + (s-1) + (1-\tfrac sK)^{1/L}\Bigr)^{-L/2}.\qquad(\ast)$$
# That no other matrix does better is not proved here: it is what the search finds, which where the code is not unique, $K<2r$, is not shown it.
#
# ## One cell
#
# Seven classes at rank 3 and depth 4. `agreement.compare` climbs from random codes, from $Z_{\rm code}$ where the code is unique, and from the best solution of the depth before,
# and certifies what it finds; its margin is therefore never below the code's, and a gap says that the code is *not* optimal.

# %% tags=["parameters"]
classes: list[int] = [7, 9]  # numbers of classes K searched anew, the others from the table [3, 24]
depths: list[int] = [3, 4, 6, 10]  # depths L, in all of which ranks up to 5 are compared [2, 32]
high: list[int] = [3, 10]  # depths L in which higher ranks are compared [2, 32]
restarts: int = 64  # random starts of each search, twice as many for a code [2, 512]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import pandas
import torch

import dufm
from dufm import agreement, claims, codes, figures, notebook, search, stats

p = notebook.start("33_depth_against_code", globals())

# %%
(seven,) = agreement.compare(7, 3, [4], restarts=p.restarts, seed=p.seed)
row = seven.row()
print(f"margin over that of the centred code, minus 1: {seven.excess:.5f}; {seven.agree} of {seven.restarts} climbs end here")
collapse = dufm.closed_form_margin("nc", 7, 4)
margins = [f"{x / collapse:.5f}" for x in (seven.margin, seven.code_margin, seven.uncentred_margin)]
print("over collapse: solution {}, code {}, code without centring {}".format(*margins))
print(f"smallest angle of the features {row['angle_features']:.2f}°, of the code {row['angle_code']:.2f}°")
print(f"spread of lengths: classifier {row['spread_classifier']:.3f}, features {row['spread_features']:.3f}")

# %% [markdown]
# Its vectors are not a code any more: lengths differ by 8% and 6%, the smallest angle is below the code's 77.87°. Depth has given up equal norms, which nothing in its problem asks for.
#
# ## All cells
#
# The 174 searches take two minutes. They were done once, by `dufm reproduce 33 -p classes=[4,5,6,7,8,9,10,11,12]`, and their results stand in
# `33_agreement.csv` beside this notebook. Here the rows of the classes in `classes` are computed anew, compared with the table, and put in their place.

# %%
once = notebook.committed("33_agreement")
found = []
for K, r in notebook.progress([(k, r) for k in p.classes for r in range(2, k)], label="K, r"):
    try:
        found += agreement.compare(K, r, p.depths if r <= 5 else p.high, restarts=p.restarts, seed=p.seed)
    except search.NothingCertified as error:  # near full rank beyond twelve classes: climbs lose rank
        print(f"K = {K}, r = {r} is left out: {error}")
anew = pandas.DataFrame([x.row() for x in found])
kept = once[~once.num_classes.isin(p.classes)]
table = pandas.concat([kept, anew]).sort_values(["num_classes", "rank", "depth"], ignore_index=True)
both = anew.merge(once, on=["num_classes", "rank", "depth"], suffixes=("", "_once"))
differs = (both.margin / both.margin_once - 1).abs().max()
print(f"{len(anew)} searches; {len(both)} of them in the table, largest relative difference of margins {stats.below(differs, 1e-7)}")
figures.store("33_agreement", table)

# %% tags=["figure"]
figures.show(
    "33_agreement",
    alt="Grid of classes K against rank r. Filled cells, where the best solution equals the softmax code: collapse on the diagonal, polygons at rank 2, orthoplexes, "
    "or pairs and single classes, for K up to 2r, the antiprism at K = 8, the Petersen code at K = 10 and rank 4, the icosahedron at K = 12. "
    "Dashed cells, between rank 3 and K/2, give the largest excess of margin in percent, from 0.03 to 3.43.",
)

# %%
table["worst"] = table.excess.abs().groupby([table.num_classes, table["rank"]]).transform("max")
pairs = table.drop_duplicates(["num_classes", "rank"])
print(f"{len(table)} cells, {int(table.locally_optimal.sum())} of them locally optimal at their rank")
print(f"{int((pairs.worst < 1e-6).sum())} of {len(pairs)} pairs (K, r) agree")

# %% [markdown]
# The cells where they differ: by how much at each depth, then, at the second depth, what has become of unit vectors: smallest angles,
# spread of lengths (largest over smallest, less 1), singular values.

# %%
apart = table[table.worst >= 1e-6].set_index(["num_classes", "rank"])
apart.pivot_table("excess", ["num_classes", "rank"], "depth").round(5)

# %%
shape = ["angle_code", "angle_features", "spread_classifier", "spread_features", "sigma_code", "sigma"]
apart.loc[apart.depth == p.depths[:2][-1], shape].round(3)

# %% [markdown]
# ## What the largest gaps look like
#
# They are all made of the ten vectors of the Petersen code in four dimensions. At $r=5$ the solution is the *orthogonal sum* of that code and a pair ($K=12$) or a single vector ($K=11$, from $L=4$ on):
# with logits $\tfrac65PP^\top$ on the ten, and a plain pair or a single 1 beside them, every margin is at least 1, and the centred singular values are $3$ four times, and $2$, or $\sqrt{10/11}$. At $K=9$, $r=4$ it is the
# Petersen code less one vector, moved to the nearest critical point.

# %%
def centred_sum(block):
    P = codes.petersen()
    Z = torch.block_diag(1.2 * P @ P.mT, torch.tensor(block).double())
    return Z - Z.mean(0)


# %%
shapes = {(12, 5): centred_sum([[1.0, -1.0], [-1.0, 1.0]]), (11, 5): centred_sum([[1.0]])}
shapes[9, 4] = codes.code_matrix(codes.petersen()[:9])
off = {}
for (K, r), Z in shapes.items():
    for x in agreement.compare(K, r, p.depths, restarts=p.restarts, seed=p.seed):
        law = dufm.polish(Z, x.depth, r).Z if (K, r) == (9, 4) else Z
        off[K, r, x.depth] = abs(x.margin / float(dufm.normalized_margin(law, x.depth)) - 1)
pandas.Series(off).rename_axis(["K", "r", "L"]).map(lambda x: stats.below(x, 1e-9)).unstack("L")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
named = table.code.isin(["polygon", "orthoplex", "antiprism", "Petersen", "icosahedron", "Clebsch"])
plateau = table[(table["rank"] + 2 <= table.num_classes) & (table.num_classes <= 2 * table["rank"])]
pairs, single = plateau.num_classes - plateau["rank"], 2 * plateau["rank"] - plateau.num_classes
law = pairs * 2 ** (2 / plateau.depth) + (single - 1 + (1 - single / plateau.num_classes) ** (1 / plateau.depth)).where(single > 0, 0)
exact = [float(dufm.normalized_margin(codes.pairs_and_singles(K, t), L)) for K, t, L in zip(plateau.num_classes, pairs, plateau.depth)]
claims.check("33-recomputed", round(differs, 7))
claims.check("33-named-agree", table.excess[named].abs().max())
claims.check("33-missing-orthoplex", max(plateau.excess.abs().max(), (exact / law ** (-plateau.depth / 2) - 1).abs().max()))
claims.check("33-pairs-agree", (table.drop_duplicates(["num_classes", "rank"]).worst < 1e-6).sum())
claims.check("33-largest-gap", table.worst.max())
claims.check("33-seven-nine", table.excess[table.num_classes.isin([7, 9]) & (table["rank"] == 3) & (table.depth == 4)].min())
claims.check("33-orthogonal-sum", max(x for (K, _, L), x in off.items() if K == 12 or K == 11 and L >= 4))

# %% [markdown]
# ## Where it breaks
#
# *A search is not a proof.* Agreement means that random starts, and the code itself as a start, have led to nothing better. And *equal margin* is the test for "same": two matrices could share it.
#
# *Odd $K$, rank $(K+1)/2$.* Pairs and a single class beat what one would build from simplices. At $L=3$, with $(K-1)/2$ pairs and one single class, over the margin of collapse:

# %%
rows = []
for K in (7, 9, 11):
    collapse = dufm.closed_form_margin("nc", K, 3)
    alone = float(dufm.normalized_margin(codes.pairs_and_singles(K, (K - 1) // 2), 3))
    triangle = ((K - 3) / 2 * 2 ** (2 / 3) + 2 * 1.5 ** (2 / 3)) ** -1.5
    rows.append((K, alone / collapse, triangle / collapse))
pandas.DataFrame(rows, columns=["K", "pairs and a single class", "pairs and a triangle"]).round(4)

# %% [markdown]
# ## Try it ([answers](../answers.md#33))
#
# 1. `classes = [16]`: which rank joins the exact cases? (Sixteen points in five dimensions.) Near full rank no climb keeps its rank at $L=10$; the cells left out are named.
# 2. `depths = [2, 3]`, `high = [2]`: at $L=2$ collapse is optimal over all ranks. Is each code still the best of its own?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
