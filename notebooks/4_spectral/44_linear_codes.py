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
# first-order Reed–Muller, the cube the trivial code. The cost is concave, so the best is a vertex of a polyhedron, and there are few: for four, eight and sixteen classes the winner is known exactly at every depth, and walks from the simplex code down in rank to the cube.
# Before: [43, turned vectors](43_turned_vectors.ipynb). After: [45, the list is complete](45_complete_list.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/4_spectral/44_linear_codes.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/4_spectral/44_linear_codes.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("44_codes")

# %% [markdown]
# *Margin of every vertex over that of the best one, at each depth. Thick, with a mark wherever it is best: the codes that win at some depth. Thin grey: all
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
#
# **Every depth.** *With $x = 2^{2/L}$, which falls from 2 to 1 as $L$ grows from 2, the least cost is*
# $$K=4:\ \min(3,\,2x)\qquad K=8:\ \min(7,\,4x,\,3x^2)\qquad K=16:\ \min(15,\,8x,\,5x^2,\,4x^3),$$
# *that of the simplex code, Reed–Muller ($K=8,16$), the even-weight code $[5,4,2]$ ($K=16$), and the square or the cube. Each is best on one interval of depths, between the $x$ at which neighbours are equal:*
# *$\frac32$; $\frac74,\frac43$; $\frac{15}8,\frac85,\frac54$. So the rank of the best falls with depth and never rises.*
#
# **Proof.** The vertices are those of the complete list ([45](45_complete_list.ipynb)), in the table below; a value $v$ costs $v^p$, $p = 2/L\in(0,1]$, so $2^p=x$. *$K=4$*: there are no others. *$K=8$*: $(4,2^3)$ costs $x^2+3x>4x$. *$K=16$*, eleven others. Use $3^p>x$, $6^p>x$, $8^p>x$, and
# $(\frac43)^p = x^{\log_2(4/3)}\ge\frac{x+2}3$, a concave function of $x$ above its chord on $[1, 2]$.
# 1. $(3,2^4,1^6)$: $3^p+4x+6>5x+6\ge8x$. $(2^9)$: $9x>8x$. $(4,2^7)$, $(6,2^7)$, $(8,2^7)$: more than $x+7x$.
# 2. $(4^6)$, $(8,4^4)$, $(8^2,4^3)$: $6x^2$, $x^3+4x^2$, $2x^3+3x^2$, all above $5x^2$. $(4^3,2^4)$: $3x^2+4x\ge5x^2$, and at $x=2$ it is $20>15$.
# 3. $((\frac83)^3,(\frac43)^7)$: $(\frac43)^p(3x+7)\ge\frac13(x+2)(3x+7) = 8x+\frac13(3x^2-11x+14)>8x$, the discriminant being $121-168$.
# 4. $((\frac83)^7)$: $7x(\frac43)^p\ge\frac73x(x+2)$, which exceeds $8x$ for $x>\frac{10}7$ and $5x^2$ for $x<\frac74$.
#
# What is left are the powers $n\,x^k$ of the statement: each crosses the next once, and the crossings come in order. $\square$

# %% tags=["parameters"]
log2_classes: list[int] = [2, 3, 4]  # m, for 2^m classes [2, 4]
max_depth: int = 16  # largest depth L at which the best code is determined [3, 64]
objectives: int = 30  # random linear objectives of each kind from which the programs start [1, 10000]
seed: int = 0  # seed of these objectives [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import math

import numpy as np
import pandas as pd
import scipy.optimize

import dufm
from dufm import claims, figures, notebook, stats

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
# At $K = 16$ the Reed–Muller code is best only for $2.21\le L\le2.95$, which no network has as its depth: between the simplex code and the cube stands $[5, 4, 2]$, the even-weight code, whose five equal singular values make a tight frame of 16 vectors in five dimensions.

# %%
winners = table[table["best"] == 1].sort_values(["num_classes", "depth"])
LEAST = {4: ((3, 0), (2, 1)), 8: ((7, 0), (4, 1), (3, 2)), 16: ((15, 0), (8, 1), (5, 2), (4, 3))}  # n, k of the costs n x^k
proved = [min(LEAST[K], key=lambda nk: nk[0] * 2 ** (2 * nk[1] / L))[0] for K, L in zip(winners.num_classes, winners.depth)]
surprises = int((winners["rank"] != proved).sum())
print(f"{len(winners)} best vertices by enumeration, of another rank than proved: {surprises}")

# %% [markdown]
# ## Without the list
#
# The proof leans on the list of vertices. So the least cost is searched by means that do not know it: minimise a random linear objective over $\{s\ge0, As\ge1\}$, replace it by the slope of the cost at the solution, and repeat until the cost no longer falls. One per cent to either side of every change:


# %%
def least_cost(A, power, objectives):
    best = np.inf
    for c in objectives:
        cost, before = np.inf, None
        while before is None or cost < before - 1e-12:
            s = scipy.optimize.linprog(c, A_ub=-A, b_ub=-np.ones(len(A)), method="highs-ds").x
            before, cost, c = cost, (s[s > 1e-9] ** power).sum(), np.maximum(s, 1e-3) ** (power - 1)
        best = min(best, cost)
    return best


rng, rows = np.random.default_rng(p.seed), []
for K in sorted(2**m for m in set(p.log2_classes)):
    A = dufm.characters("hadamard", K).rates.numpy().T
    for (n, k), (fewer, _) in zip(LEAST[K], LEAST[K][1:]):
        for L in (0.99 * 2 / math.log2(n / fewer), 1.01 * 2 / math.log2(n / fewer)):
            found = least_cost(A, 2 / L, np.vstack([rng.exponential(size=(p.objectives, K - 1)) ** w for w in (2, 1, 0.5, 0.25, 0.1)]))
            cost, rank = min((n * 2 ** (2 * k / L), n) for n, k in LEAST[K])
            rows.append((K, L, rank, cost, found / cost - 1))
crossed = pd.DataFrame(rows, columns=["K", "L", "rank by the proof", "cost", "found, relative difference"])
crossed.assign(**{"found, relative difference": [stats.below(x, 1e-9) for x in crossed.iloc[:, -1]]}).round(4)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("44-rank-falls", surprises)
claims.check("44-crossings", crossed.iloc[:, -1].abs().max())

# %% [markdown]
# ## Where it breaks
#
# *Diagonal is a strong word.* The winner is exact, but among networks that are diagonal in one basis. At $K = 8$ the cube wins from $L = 5$ on, and [notebook 47](47_cube.ipynb) shows that without that symmetry it is not even a local optimum. Nor does training
# choose the best vertex: [notebook 46](46_training_ends.ipynb) counts where it lands.
#
# *Two classes' worth of bits.* All this needs $K = 2^m$. For other abelian groups the characters are complex, a conjugate pair shares one $s$, and the vertices are no longer rational; [notebook 42](42_codes_of_groups.ipynb) follows such spectra instead of listing them.
#
# ## Try it ([answers](../answers.md#44))
#
# 1. `max_depth = 64`: does a third code ever return at $K = 16$?
# 2. `log2_classes = [4]`: which code is second best at $L = 3$, and by how much does it lose? (Read `table`.)
# 3. Write down the vertex $(4, 2, 2, 2)$ of $K = 8$ as a code and find its weights by hand.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
