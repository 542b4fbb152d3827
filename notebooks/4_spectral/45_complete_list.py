# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The list of spectral codes is complete: 4, 64 and 9384 vertices, found by walking along edges in whole numbers
#
# **Question.** The best spectral code is a vertex of a polyhedron in $K - 1$ dimensions (notebook 44). Are all of its vertices known?
#
# **Answer.** Yes, for 4, 8 and 16 classes. A walk from the simplex code along every edge, in exact arithmetic, closes after 2, 4 and 15 orbits. Three checks that share no step with the walk agree: a rational
# rank for each vertex, brute force up to eight classes, and linear programs with random objectives for sixteen.
# Before: [44, spectral solutions are linear codes](44_linear_codes.ipynb). After: [46, where training ends](46_training_ends.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/4_spectral/45_complete_list.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/4_spectral/45_complete_list.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("45_graph")

# %% [markdown]
# *The orbits of vertices for sixteen classes, by rank, each labelled by its code $[n, k, d]$. A line joins two orbits that share an edge of the polyhedron: the walk follows them from the simplex code on the right. It has one way out, to the Reed–Muller code. The number beneath a mark says how many random linear objectives ended there; none of them ended elsewhere.
# [Drawn by](../../figures/45_graph.py)*

# %% [markdown]
# ## Statement
#
# *Let $\mathcal P = \{s\ge0,\ As\ge1\}$ with $A_{ai} = \frac2K\langle i,a\rangle$ (mod 2) for the nonzero bit vectors $i, a$ of $m$ bits. Start at the vertex $s = \mathbf 1$; from one representative of each orbit under $\mathrm{GL}(m,2)$ follow all edges to their other ends;
# stop when no end lies in a new orbit. Then every vertex of $\mathcal P$ lies in one of the orbits found.*
#
# **Proof.**
# 1. *Coordinate changes.* For $M\in\mathrm{GL}(m,2)$ the map $i\mapsto M^{-\top}i$, $a\mapsto Ma$ leaves $\langle i,a\rangle$ alone, so it permutes the constraints and maps $\mathcal P$ to itself, vertices to vertices and edges to edges. It is enough to leave one representative of each orbit.
# 2. *Connected.* Let $v$ be a vertex and $c$ a linear objective that is least at $v$ only. From any other vertex some edge leads down in $c$ (the simplex method's step), and none of these edges is unbounded, since $c$ is bounded below on $\mathcal P$. So every vertex is joined to $v$ by bounded edges.
# 3. *Closed.* A set of orbits that contains the ends of all its bounded edges is a union of connected components of that graph; there is only one. $\square$
#
# *The edges of a vertex* are the extreme rays of the cone $\{x : Bx\ge0\}$ of its tight constraints $B$. Many vertices are degenerate (more than $K - 1$ constraints are tight), so pivoting on bases would visit the same vertex again and again; the rays are computed by double
# description (Motzkin et al. 1953) in whole numbers instead. The end of an edge is a minimum of exact quotients.

# %% tags=["parameters"]
log2_classes: list[int] = [2, 3, 4]  # m, for 2^m classes [2, 4]
objectives: int = 300  # random linear objectives of each kind for the largest of them [10, 100000]
powers: list[float] = [2.0, 1.0, 0.5, 0.25]  # kinds of objectives, powers of exponential numbers [0.01, 4]
seed: int = 0  # seed of the objectives [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import itertools

import numpy as np
import pandas as pd
import scipy.optimize
import sympy

import dufm
from dufm import claims, figures, notebook

p = notebook.start("45_complete_list", globals())

# %% [markdown]
# ## One vertex
#
# The only vertex of eight classes with unequal singular values. All seven margins are computed as fractions; the constraints that are tight, four margins of 1 and three zeros, must have rank 7 over the rationals, by sympy:

# %%
vertex = dufm.hadamard_polyhedron(3).orbits[2]


def tight_rank(spectrum):
    """Smallest margin, and the rational rank of the tight constraints."""
    A = sympy.Matrix([[bin(i & a).count("1") % 2 for i in range(1, len(spectrum) + 1)] for a in range(1, len(spectrum) + 1)])
    margins = list(A * sympy.Matrix([sympy.Rational(s) for s in spectrum]) * 2 / (len(spectrum) + 1))
    zeros = [sympy.eye(len(spectrum)).row(i) for i, s in enumerate(spectrum) if s == 0]
    return min(margins), sympy.Matrix.vstack(*[A.row(a) for a, one in enumerate(margins) if one == 1], *zeros).rank()


print(f"{list(vertex.nkd)}, singular values {vertex.powers}: smallest margin and rank of what is tight:", tight_rank(vertex.spectrum))

# %% [markdown]
# ## The walk
#
# The walk counts orbits; an orbit holds $|\mathrm{GL}(m,2)|$ over the order of the stabiliser vertices. Each representative is then verified as above.

# %%
polyhedra = {m: dufm.hadamard_polyhedron(m) for m in sorted(set(p.log2_classes))}
exact = [tight_rank(v.spectrum) == (1, len(v.spectrum)) and min(v.spectrum) >= 0 for P in polyhedra.values() for v in P.orbits]
rows = [(2**m, len(P.orbits), P.num_vertices, len(P.edges), sum(v.degenerate for v in P.orbits)) for m, P in polyhedra.items()]
print(f"verified by sympy: {sum(exact)} of {len(exact)} representatives")
pd.DataFrame(rows, columns=["K", "orbits", "vertices", "pairs of orbits with an edge", "degenerate orbits"])

# %% [markdown]
# ## Brute force, for four and eight classes
#
# Every vertex is the solution of some $K - 1$ of the $2(K - 1)$ constraints. All choices are solved in floating point; what is feasible is a vertex, and is compared with the images of the representatives one by one. At $K = 8$ there are 3432 systems, at $K = 16$ there would be $1.6\cdot10^8$.


# %%
def brute_force(m):
    """All vertices by solving every square system of tight constraints, as a set of tuples."""
    rows = np.vstack([dufm.characters("hadamard", 2**m).rates.numpy().T, np.eye(2**m - 1)])
    right = np.repeat([1.0, 0.0], 2**m - 1)
    bases = [list(chosen) for chosen in itertools.combinations(range(len(rows)), 2**m - 1)]
    solved = [np.linalg.solve(rows[b], right[b]) for b in bases if abs(np.linalg.det(rows[b])) > 1e-9]
    return {tuple(np.round(s, 6) + 0.0) for s in solved if (rows @ s >= right - 1e-9).all()}


brute = {m: brute_force(m) for m in polyhedra if m <= 3}
listed = {m: {tuple(s) for s in (polyhedra[m].vertices[0].round(6) + 0.0).tolist()} for m in brute}
print({f"K = {2**m}": f"brute force {len(brute[m])}, list {len(listed[m])}, in one only {len(brute[m] ^ listed[m])}" for m in brute})

# %% [markdown]
# ## Random objectives, for sixteen classes
#
# A linear objective $c > 0$ is least at a vertex. HiGHS's simplex method solves 300 of each of four kinds, whose entries are powers of exponentially distributed numbers: unequal entries lead to vertices of low rank, nearly equal ones to the simplex code. Each optimum is read as fractions, must be a vertex in exact arithmetic, and is looked up on the list.

# %%
P = polyhedra[max(polyhedra)]
A = dufm.characters("hadamard", P.num_classes).rates.numpy().T
rng = np.random.default_rng(p.seed)
costs = np.vstack([rng.exponential(size=(p.objectives, len(A))) ** power for power in p.powers])
solutions = [scipy.optimize.linprog(c, A_ub=-A, b_ub=-np.ones(len(A)), method="highs-ds").x for c in notebook.progress(costs)]
met = P.orbit_of(np.array(solutions))
misses = int((met < 0).sum())
print(f"K = {P.num_classes}: {len(costs)} objectives, {misses} optima off the list, {len(set(met[met >= 0]))} of {len(P.orbits)} orbits met")

# %%
edges = [(i, j, v.rank, str(list(v.nkd)).replace(" ", ""), int((met == i).sum())) for i, v in enumerate(P.orbits) for j in range(len(P.orbits)) if (min(i, j), max(i, j)) in P.edges]
figures.store("45_graph", pd.DataFrame(edges, columns=["orbit", "neighbour", "rank", "code", "met"]))

# %% tags=["figure"]
figures.show(
    "45_graph",
    alt="The fifteen orbits of vertices for sixteen classes as a graph, placed by rank from four to fifteen and labelled by their codes; lines join orbits "
    "with a common edge. The simplex code has one neighbour, the Reed-Muller code. Numbers beneath the marks, how often random objectives ended there, are positive for all.",
)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("45-exact", np.mean(exact))
claims.check("45-brute-force", sum(len(brute[m] ^ listed[m]) for m in brute))
claims.check("45-sixteen-complete", misses)

# %% [markdown]
# ## Where it breaks
#
# *At 32 classes.* $\mathrm{GL}(5,2)$ has ten million elements, and the smallest image of a point under all of them is how orbits are told apart here. Random objectives could still sample vertices, but nothing would say when to stop; `dufm` refuses $m = 5$.
#
# *A random objective is no proof.* The squared entries alone (`powers = [2.0]`) meet four of the fifteen orbits: had the list lacked the other eleven, nothing would have been seen. Even all four kinds together could miss an orbit whose objectives are rare. The proof is the walk; the objectives test its code.
#
# ## Try it ([answers](../answers.md#45))
#
# 1. `objectives = 3000`: which orbits are met now? Which are not?
# 2. `powers = [0.05]`: why is it nearly always the simplex code?
# 3. `log2_classes = [2]`: draw the polyhedron by hand, its four vertices and its unbounded edges.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
