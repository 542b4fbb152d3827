# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Among networks that are diagonal in Hadamard's basis, the max-margin solution is a binary linear code
#
# **Question.** Start a deep network with all layers diagonal in the Hadamard basis and it stays so (notebook 41). Which of these networks has the
# largest margin, and can the answer be proved rather than searched for?
#
# **Answer.** A binary linear code: its length is the rank counted with multiplicity, its minimum distance the margin. Neural collapse is the simplex code, the orthoplex
# first-order Reed–Muller, the cube the trivial code. The cost is concave, so the best is a vertex of a polyhedron, and there are few: with depth the winner walks from the simplex code down in rank to the cube.
# Before: [43, turned vectors](43_turned_vectors.ipynb). After: [45, the list is complete](45_complete_list.ipynb).

# %%
from dufm import figures

figures.published("44_codes")

# %% [markdown]
# *Margin of every vertex over that of the best one, at each depth. Coloured, with a dot wherever it is best: the codes that win at some depth. Thin grey: all
# others. [Drawn by](../../figures/44_codes.py)*

# %% [markdown]
# ## Statement
#
# Let $K = 2^m$, let classes $a$ and characters $i$ be bit vectors, $\chi_i(a) = (-1)^{\langle i,a\rangle}$, and $Z = \frac1K\sum_{i\ne0}s_i\chi_i\chi_i^\top$ with $s_i\ge0$.
#
# **A spectrum is a code.** *Let $s_i = s\,n_i$ with whole numbers $n_i$, and let $G$ be the $m\times n$ matrix over $\mathbb F_2$ in which column $i$ stands $n_i$ times, $n = \sum_in_i$. Then the
# margin of class $c$ over class $c\oplus a$ is $\frac{2s}K$ times the Hamming weight of the codeword $aG$, and the smallest margin is $\frac{2s}K\,d$ with the minimum distance $d$ of the code $[n, m, d]$.*
#
# **Proof.** The logits are $z_{jc} = f(j\oplus c)$ with $f(a) = \frac1K\sum_is_i\chi_i(a)$, so the margin is
# $$f(0) - f(a) = \frac1K\sum_is_i\bigl(1 - \chi_i(a)\bigr) = \frac2K\sum_{i:\,\langle i,a\rangle=1}s_i .$$
# The codeword $aG$ has a one in each of the $n_i$ copies of column $i$ with $\langle i,a\rangle = 1$ and zeros elsewhere. $\square$
#
# **The best is a vertex.** *At smallest margin 1 the spectra form the polyhedron $\{s\ge0,\ As\ge1\}$, $A_{ai} = \frac2K\langle i,a\rangle$ (mod 2). At every depth $\sum_is_i^{2/L}$ takes its minimum there at a vertex.*
#
# **Proof.** The polyhedron lies in $s\ge0$ and so contains no line. The cost is concave for $L\ge2$ and bounded below by 0. A concave function that is bounded below does not fall along a ray, and on what is left, the convex hull of the vertices, it is least at one of them. $\square$
#
# **The two extremes.** *At $L = 2$ the simplex code is the only optimum; for large $L$ only codes of least rank $m$ are left, and the cube is one.*
#
# **Proof.** Every $i\ne0$ is odd against exactly $K/2$ of the $a$, so the $K - 1$ margins add up to $\sum_is_i$, which is therefore at least $K - 1$, with equality only if all margins are 1; $A$ is invertible, hence $s = \mathbf 1$.
# As $L\to\infty$ the cost of each of the finitely many vertices tends to its rank. A rank below $m$ separates nothing: fewer than $m$ columns leave some $a \ne 0$ with $aG = 0$. $\square$

# %% tags=["parameters"]
log2_classes: list[int] = [2, 3, 4]  # m, for 2^m classes [2, 4]
max_depth: int = 16  # largest depth L at which the best code is determined [3, 64]
seed: int = 0  # not used, nothing is drawn [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import pandas as pd

import dufm
from dufm import claims, figures, notebook

p = notebook.start("44_linear_codes", globals())

# %% [markdown]
# ## One vertex
#
# `dufm.hadamard_polyhedron` lists the vertices in whole numbers, one for each orbit under the coordinate changes $\mathrm{GL}(m,2)$, which only rename classes. For eight classes one of them is the orthoplex. Its spectrum, the code's weights, and the margins of
# the $8\times8$ matrix itself, computed without the code:

# %%
vertex = dufm.hadamard_polyhedron(3).orbits[1]
chi = dufm.characters("hadamard", 8)
Z = chi.logits(chi.basis.new_tensor([float(s) for s in vertex.spectrum]))
print(f"{vertex.name}: spectrum {[str(s) for s in vertex.spectrum]}, [n, k, d] = {list(vertex.nkd)}")
print("weights of the codewords:", vertex.weights)
print("margins over class 0:    ", dufm.margins(Z)[1:, 0].round(decimals=4).tolist())

# %% [markdown]
# A codeword of weight 2, the minimum distance, has margin 1; the one of weight 4 has margin 2: that class is the opposite corner of the orthoplex.
#
# ## All of them
#
# Costs are compared as decimals of 60 digits, so that a tie would be seen.

# %%
polyhedra = [dufm.hadamard_polyhedron(m) for m in sorted(set(p.log2_classes))]
KIND = {"simplex (collapse)": "nc", "Reed-Muller (orthoplex)": "orthoplex", "trivial (cube)": "cube", "trivial (square)": "polygon"}
codes, rows = [], []
for polyhedron in polyhedra:
    K, orbits, won = polyhedron.num_classes, polyhedron.orbits, polyhedron.best_depths(p.max_depth)
    for i, v in enumerate(orbits):
        at = won.get(i, ())
        codes.append((K, str(list(v.nkd)), v.rank, v.orbit_size, v.powers, " ".join(map(str, at)) if len(at) < 3 else f"{at[0]} to {at[-1]}", v.name))
        for L in range(2, p.max_depth + 1):
            best = orbits[polyhedron.best(L)[0]]
            rows.append((K, i, v.rank, KIND.get(v.name, "other"), L, v.margin(L) / best.margin(L), int(L in at)))
table = pd.DataFrame(rows, columns=["num_classes", "orbit", "rank", "kind", "depth", "ratio", "best"])
figures.store("44_codes", table)
pd.DataFrame(codes, columns=["K", "[n, k, d]", "rank", "in orbit", "singular values", "best at L", "name"])

# %% tags=["figure"]
figures.show(
    "44_codes",
    alt="Margin of every vertex over the best one's against depth, for 8 and for 16 classes. Coloured lines touch one where their code is best: "
    "the simplex code at depth 2, a code of middle rank next, the cube from depth 5 or 7 on. Thin grey lines, all other codes, stay below one.",
)

# %% [markdown]
# The winner's rank never rises with depth. At $K = 16$ the Reed–Muller code is best nowhere: between the simplex code and the cube stands $[5, 4, 2]$, the even-weight code, whose five equal singular values make a tight frame of 16 vectors in five dimensions.

# %%
winners = table[table["best"] == 1].sort_values(["num_classes", "depth"])
rises = int((winners.groupby("num_classes")["rank"].diff() > 0).sum())
reed_muller = winners[(winners["num_classes"] == 8) & (winners["kind"] == "orthoplex")]["depth"]
collapse = int(((table["depth"] == 2) & (table["best"] == 1) & (table["kind"] != "nc")).sum())
print(f"depths at which the rank of the best code rises: {rises}; Reed–Muller is best for eight classes at L = {reed_muller.tolist()}")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("44-rank-falls", rises)
claims.check("44-reed-muller", reed_muller.sum())
claims.check("44-simplex", collapse)

# %% [markdown]
# ## Where it breaks
#
# *Diagonal is a strong word.* The winner is exact, but among networks that are diagonal in one basis. At $K = 8$ the cube wins from $L = 5$ on, and [notebook 47](47_cube.ipynb) shows that without that symmetry it is not even a local optimum. Nor does training
# choose the best vertex: [notebook 46](46_training_ends.ipynb) counts where it lands.
#
# *Two classes' worth of bits.* All this needs $K = 2^m$. For other abelian groups the characters are complex, a conjugate pair shares one $s$, and the vertices are no longer rational; [notebook 42](42_codes_of_groups.ipynb) follows such spectra instead of listing them.
#
# ## Try it
#
# 1. `max_depth = 64`: does a third code ever return at $K = 16$?
# 2. `log2_classes = [4]`: which code is second best at $L = 3$, and by how much does it lose? (Read `table`.)
# 3. Write down the vertex $(4, 2, 2, 2)$ of $K = 8$ as a code and find its weights by hand.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
