# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Depth against collapse: from three layers on, low rank has the larger margin
#
# **Question.** The flow maximises a margin at fixed weight norm (notebook 03). For which numbers of classes and depths is neural
# collapse still the best answer to that problem, and what replaces it?
#
# **Answer.** At $L = 2$ it is the best, for every $K$. At $L = 3$ it is already beaten for every $K\ge6$, by explicit codes. The best rank falls
# with depth in steps until it reaches 2, the floor, where the winner is the regular polygon. Only $K = 3$ keeps its simplex at all depths.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
classes: list[int] = [3, 4, 5, 6, 7, 8, 9, 10]  # numbers of classes K of the diagram [3, 32]
depths: list[int] = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]  # depths L of the diagram [2, 32]
restarts: int = 64  # random starts of each search, beside the starts from neighbours [2, 512]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import math

import numpy as np
import torch

import dufm
from dufm import claims, figures, notebook

p = notebook.start("04_collapse_versus_depth", globals())
classes, depths, restarts = sorted(set(p.classes)), sorted(set(p.depths)), p.restarts
if p.budget == "smoke":
    classes, depths, restarts = classes[:3], depths[:3], min(restarts, 8)
if p.budget == "full":
    classes, depths, restarts = list(range(3, 33)), list(range(2, 33)), 2 * p.restarts

# %% [markdown]
# ## The search
#
# For each $K$, $L$ and rank $r$, `dufm.max_margin` climbs the normalised margin $\gamma_L$ from many starts, polishes the best ends and returns one
# solution with its certificate (residual and gap below $10^{-8}$) and a second-order probe. The solution of the previous depth
# is one more start. Every rank is searched at every depth: the margin, as a function of rank, can have two peaks (last section).
#
# A search finds good solutions; it cannot exclude better ones. Every value below is a *lower bound* on the best margin, and the depth at which collapse first loses is an
# *upper bound* on the true one.


# %%
def solve(K, L, r, known):
    """Put the best certified solution at exact rank r into ``known``, or None; shallower depths serve as starts."""
    before = [known[K, other, r].Z for other in depths if known.get((K, other, r)) is not None]
    try:
        known[K, L, r] = dufm.max_margin(
            K, L, r, restarts=restarts, seed=p.seed, starts=torch.stack(before[-1:]) if before else None
        )
    except dufm.DufmError:
        known[K, L, r] = None  # nothing at this rank could be certified: counted below


def gamma(solution):
    return -math.inf if solution is None else solution.gamma


known = {}
with notebook.timed("phase diagram"):
    for K, L in notebook.progress([(K, L) for K in classes for L in depths], label="K, L"):
        for r in range(2, K):
            solve(K, L, r, known)
best = {(K, L): max((known[K, L, r] for r in range(2, K)), key=gamma) for K in classes for L in depths}


# %%
def name_of(K, L, solution):
    """The code whose closed-form margin a solution has, or a dash."""
    kinds = ["nc"] + (["polygon"] if K > 3 else []) + (["orthoplex"] if K % 2 == 0 and K > 4 else [])
    ranks = {"nc": K - 1, "polygon": 2, "orthoplex": K // 2}
    for kind in kinds:
        if solution.rank == ranks[kind] and abs(solution.gamma / dufm.closed_form_margin(kind, K, L) - 1) < 1e-7:
            return kind
    return "other"


cells = [(K, L) for K in classes for L in depths]
diagram = {
    "num_classes": np.array([K for K, L in cells]),
    "depth": np.array([L for K, L in cells]),
    "rank": np.array([best[cell].rank for cell in cells]),
    "ratio": np.array([best[K, L].gamma / dufm.closed_form_margin("nc", K, L) for K, L in cells]),
    "code": np.array([name_of(K, L, best[K, L]) for K, L in cells]),
    "agree": np.array([best[cell].agree for cell in cells]),
    "restarts": np.array([best[cell].restarts for cell in cells]),
    "locally_optimal": np.array([int(best[cell].locally_optimal) for cell in cells]),
}
figures.store("04_phase", diagram)

# %% tags=["figure"]
import numpy as np
from matplotlib.patches import Rectangle

from dufm import figures

data = figures.load("04_phase")
K_values, L_values = np.unique(data["num_classes"]), np.unique(data["depth"])
fig, ax = figures.subplots(width=7.0, height=3.6)
grid = np.full((len(K_values), len(L_values)), np.nan)
for K, L, r, ratio, code in zip(*(data[c] for c in ("num_classes", "depth", "rank", "ratio", "code")), strict=True):
    i, j = np.searchsorted(K_values, K), np.searchsorted(L_values, L)
    grid[i, j] = r
    shade = (r - 2) / max(data["rank"].max() - 2, 1)
    ink = "black" if shade > 0.55 else "white"
    ax.text(j, i + 0.2, f"{int(r)}", ha="center", va="center", fontsize=9, color=ink, weight="bold")
    ax.text(j, i - 0.22, f"{ratio:.3g}", ha="center", va="center", fontsize=6.5, color=ink)
    if code in ("polygon", "orthoplex", "nc"):
        mark = {"polygon": "^", "orthoplex": "s", "nc": "o"}[code]
        ax.plot(j + 0.34, i + 0.28, mark, color=ink, markersize=3)
image = ax.imshow(grid, origin="lower", aspect="auto", cmap="cividis", vmin=2, vmax=max(data["rank"].max(), 3))
for i, K in enumerate(K_values):
    beaten = [
        j
        for j, L in enumerate(L_values)
        if data["ratio"][(data["num_classes"] == K) & (data["depth"] == L)][0] > 1 + 1e-6
    ]
    if beaten:
        ax.add_patch(Rectangle((beaten[0] - 0.5, i - 0.5), 0.001, 1.0, edgecolor="#e69f00", linewidth=2.2))
ax.set_xticks(range(len(L_values)), L_values)
ax.set_yticks(range(len(K_values)), K_values)
ax.set_xlabel("depth $L$")
ax.set_ylabel("number of classes $K$")
fig.colorbar(
    image, ax=ax, label="rank of the best solution found", ticks=range(2, int(data["rank"].max()) + 1), pad=0.02
)
figures.save(
    fig,
    "04_phase",
    alt="Grid of classes K against depth L, each cell coloured by the rank of the best solution found, with the rank and its margin over "
    "neural collapse printed. At depth 2 the rank is K-1 and the ratio 1 in every row. The rank falls with depth, to 2 at the right; "
    "the row K = 3 stays at rank 2, its full rank, with ratio 1. An orange bar marks where collapse first loses.",
)

# %% [markdown]
# *Bold: rank of the best solution found; below it, its margin over that of collapse. Circle: collapse itself, square: orthoplex, triangle: regular polygon,
# no mark: another code. Orange bar: from here on collapse is beaten.*

# %%
searched = len(known)
empty = [cell for cell, solution in known.items() if solution is None]
print(
    f"{searched} searches over (K, L, r); none certified in {len(empty)} of them: {sorted(empty) if len(empty) < 9 else '…'}"
)
print(
    f"best solutions: residual at most {'1e-12' if max(float(best[c].certificate.residual) for c in cells) < 1e-12 else '1e-8'}, "
    f"locally optimal on their rank stratum: {sum(best[c].locally_optimal for c in cells)} of {len(cells)}"
)
print("\n K   collapse first loses at L ≤   best there: rank, margin ratio   restarts that agree")
first = {}
for K in classes:
    lost = [L for L in depths if best[K, L].gamma > dufm.closed_form_margin("nc", K, L) * (1 + 1e-6)]
    first[K] = lost[0] if lost else None
    if lost:
        solution = best[K, lost[0]]
        ratio = solution.gamma / dufm.closed_form_margin("nc", K, lost[0])
        print(
            f"{K:2d}   {lost[0]:2d}                            {solution.rank:2d}  {ratio:.4f}                      {solution.agree} of {solution.restarts}"
        )
    else:
        print(f"{K:2d}   at no depth searched (L ≤ {depths[-1]})")

# %% [markdown]
# ## Statement: collapse is beaten for every $L\ge3$ and every $K\ge6$ at $L = 3$
#
# **Even $K$.** The orthoplex (rank $K/2$, $\pm$ pairs of orthogonal directions) has $\gamma_L = \frac12(K/2)^{-L/2}$, collapse $(K-1)^{-L/2}$. So
# $$\frac{\gamma_L^{\rm orthoplex}}{\gamma_L^{\rm NC}} = \frac12\Bigl(2-\frac2K\Bigr)^{L/2} > 1 \iff \Bigl(2-\frac2K\Bigr)^{L/2} > 2 .$$
# The left side increases with $K$ and with $L$; at $K = 6$, $L = 3$ it is $(5/3)^{3/2} = 2.15$. *Hence collapse is beaten for every $L\ge3$ and every even $K\ge6$, and for $K = 4$ from $L = 4$*
# ($(3/2)^{2} = 2.25$, while $(3/2)^{3/2} = 1.84$). $\square$
#
# **Odd $K$.** Split the classes into groups of sizes $k_i$ and put a simplex on each, in orthogonal subspaces: $Z = \bigoplus_i s_i(I - J/k_i)$. Between groups the margin is $z_{cc} = s_i(1-1/k_i)$, inside it is $s_i$; at smallest margin 1,
# $s_i = k_i/(k_i-1)$ and
# $$\gamma_L = \Bigl(\sum_i(k_i-1)\Bigl(\frac{k_i}{k_i-1}\Bigr)^{2/L}\Bigr)^{-L/2}.$$
# With $(K-3)/2$ pairs and one triangle at $L = 3$ the bracket is $\frac{K-3}2\,2^{2/3} + 2\,(3/2)^{2/3}$, linear in $K$ with slope $2^{-1/3} < 1$, against $K - 1$ for collapse: if it wins at $K = 7$ it wins for all odd $K\ge7$. At $K = 7$ the ratio of margins is $1.053$. $\square$


# %%
def direct_sum(sizes):
    """Z of a direct sum of simplices, smallest margin 1."""
    blocks = [k / (k - 1) * (torch.eye(k, dtype=torch.float64) - 1.0 / k) for k in sizes]
    return torch.block_diag(*blocks)


def sum_formula(sizes, L):
    return sum((k - 1) * (k / (k - 1)) ** (2 / L) for k in sizes) ** (-L / 2)


mismatch, smallest = 0.0, math.inf
for K in range(6, 41):
    sizes = [2] * (K // 2) if K % 2 == 0 else [2] * ((K - 3) // 2) + [3]
    measured = float(dufm.normalized_margin(direct_sum(sizes), 3))
    mismatch = max(mismatch, abs(measured / sum_formula(sizes, 3) - 1))
    smallest = min(smallest, measured / dufm.closed_form_margin("nc", K, 3))
print(
    "pairs and one triangle at L = 3, margin over collapse: "
    + ", ".join(
        f"K = {K}: {sum_formula([2] * ((K - 3) // 2) + [3], 3) / dufm.closed_form_margin('nc', K, 3):.4f}"
        for K in (7, 9, 11)
    )
)

# %% [markdown]
# ## Closed forms over depth
#
# Each named code is a straight line in $\log\gamma_L$ against $L$, of slope $-\frac12\log r$ for rank $r$: depth prices rank exponentially, and whoever has the lower rank wins in the end.

# %%
curves = {"num_classes": [], "depth": [], "code": [], "ratio": []}
for K in (4, 6, 8, 16):
    for kind in ("polygon", "orthoplex", "hypercube"):
        if (kind == "hypercube" and (K & (K - 1) or K == 4)) or (kind == "orthoplex" and K == 4):
            continue  # at K = 4 all three are the square
        for L in range(2, 21):
            for column, value in zip(
                curves.values(),
                (K, L, kind, dufm.closed_form_margin(kind, K, L) / dufm.closed_form_margin("nc", K, L)),
                strict=True,
            ):
                column.append(value)
figures.store("04_closed_forms", {name: np.array(column) for name, column in curves.items()})

# %% tags=["figure"]
import numpy as np

from dufm import figures

data = figures.load("04_closed_forms")
K_values = np.unique(data["num_classes"])
fig, axes = figures.subplots(1, len(K_values), width=7.0, height=2.4, sharey=True)
looks = {"polygon": "polygon", "orthoplex": "orthoplex", "hypercube": "cube"}
for ax, K in zip(axes, K_values, strict=True):
    ax.axhline(1.0, color=figures.PALETTE["nc"], linewidth=1.3)
    for code, key in looks.items():
        here = (data["num_classes"] == K) & (data["code"] == code)
        if here.any():
            ax.plot(
                data["depth"][here], data["ratio"][here], color=figures.PALETTE[key], linestyle=figures.LINESTYLE[key]
            )
            if K == K_values[-1]:
                place = {"polygon": (9.5, 1.5e3), "orthoplex": (13.5, 6), "hypercube": (14.2, 3.5e2)}[code]
                ax.annotate(
                    code, place, fontsize=8, color=figures.PALETTE[key], ha="right" if code == "polygon" else "left"
                )
    ax.annotate(
        f"$K={int(K)}$", (0.5, 1.0), xycoords="axes fraction", xytext=(0, 2), textcoords="offset points", ha="center"
    )
    ax.set_yscale("log")
    ax.set_ylim(5e-3, 1e4)
    ax.set_xticks([2, 8, 14, 20])
    ax.set_xlabel("depth $L$")
axes[0].annotate("collapse", (19.5, 0.8), ha="right", va="top", fontsize=8, color=figures.PALETTE["nc"])
axes[0].set_ylabel(r"$\gamma_L/\gamma_L^{\rm NC}$")
figures.save(
    fig,
    "04_closed_forms",
    alt="Margin of polygon, orthoplex and hypercube over that of collapse against depth, for 4, 6, 8 and 16 classes, logarithmic. Each is a "
    "straight line that rises with depth and crosses 1; the orthoplex crosses first, the polygon later but ends highest.",
)

# %% [markdown]
# *The margin of each named code over that of collapse. The orthoplex overtakes first, then lower ranks.*
#
# ## The solutions, as data
#
# The matrices behind the diagram are saved as `figures/04_solutions.csv`, one entry a row. Their singular values for the largest $K$ show the staircase.

# %%
entries = {name: [] for name in ("num_classes", "depth", "row", "column", "value")}
for (K, L), solution in best.items():
    rows, columns = np.indices((K, K))
    for column, values in zip(
        entries.values(),
        (np.full(K * K, K), np.full(K * K, L), rows.ravel(), columns.ravel(), solution.Z.numpy().ravel()),
        strict=True,
    ):
        column.append(values)
figures.store("04_solutions", {name: np.concatenate(values) for name, values in entries.items()})

# %% tags=["figure"]
import numpy as np

from dufm import figures

data = figures.load("04_solutions")
K = data["num_classes"].max()
depths = np.unique(data["depth"][data["num_classes"] == K])
fig, ax = figures.subplots(width=3.4, height=2.6)
points = []
for L in depths:
    here = (data["num_classes"] == K) & (data["depth"] == L)
    Z = np.zeros((K, K))
    Z[data["row"][here], data["column"][here]] = data["value"][here]
    sigma = np.linalg.svd(Z, compute_uv=False)
    sigma = sigma[sigma > 1e-6 * sigma[0]]
    values, counts = np.unique(np.round(sigma / sigma[0], 3), return_counts=True)
    ax.scatter(np.full(len(values), L), values, s=12 + 14 * counts, color=figures.depth_color(L), zorder=3)
    points += [(L, value) for value in values]
    for value, number in zip(values, counts, strict=True):
        ax.annotate(f"{number}", (L, value), xytext=(5, 4), textcoords="offset points", fontsize=6.5)
ax.set_ylim(0.85 * min(value for _, value in points), 1.08)
ax.set_xticks(depths)
ax.set_xlabel("depth $L$")
ax.set_ylabel(r"singular values, $\sigma_i/\sigma_1$")
figures.save(
    fig,
    "04_solutions",
    alt="Singular values of the best solution found, relative to the largest, against depth, for the largest K of the diagram. Numbers give how "
    "many coincide: all K-1 at depth 2, fewer at each further step, two at large depth; where the code is irregular they split.",
)

# %% [markdown]
# *Numbers count coinciding singular values. Between the regular codes the spectrum splits.*
#
# ## The floor, and the limit of infinite depth
#
# *Rank 1 never separates $K\ge3$ classes.* If $Z = ab^\top$, sample $c$ needs $a_cb_c > a_jb_c$ for all $j$: $a_c$ must be the largest entry of $a$ where $b_c>0$ and the smallest where $b_c<0$; only two classes can have that. $\square$
#
# At rank 2 and $L\to\infty$, $p = 2/L\to0$ and $\sum_i\sigma_i^p = 2 + p\log(\sigma_1\sigma_2) + O(p^2)$: the cheapest is the least product $\sigma_1\sigma_2$ at margin 1. The search at a depth of 64 finds the regular polygon for every $K$ here.

# %%
with notebook.timed("polygon"):
    polygon = {K: dufm.max_margin(K, 64, 2, restarts=restarts, seed=p.seed) for K in classes}
polygon_gap = {
    K: abs(solution.gamma / dufm.closed_form_margin("polygon", K, 64)) ** (2 / 64) - 1
    for K, solution in polygon.items()
}

# %% [markdown]
# ## A hypothesis on the best rank
#
# A covering argument (codes of $K$ points with small angles in dimension $r-1$) suggests, with $X = 4\log K/(L-2)$,
# $$r \approx 1 + \tfrac12\bigl(X + \sqrt{X^2 + 4X}\bigr).$$
# It is meant for large $K$ and small angles; the diagram asks how far it carries at $K\le10$.


# %%
def predicted(K, L):
    X = 4 * math.log(K) / (L - 2)
    return min(max(1 + (X + math.sqrt(X * X + 4 * X)) / 2, 2), K - 1)


tested = [(K, L) for K, L in cells if L >= 3 and K >= 4]
deviation = np.array([best[K, L].rank - predicted(K, L) for K, L in tested])
within_one = float((np.abs(deviation) <= 1).mean()) if len(tested) else math.nan
print(
    f"{len(tested)} cells with L ≥ 3, K ≥ 4: best rank within 1 of the formula in {within_one:.0%}, exactly its rounding in "
    f"{float((np.round([predicted(*c) for c in tested]) == [best[c].rank for c in tested]).mean()):.0%}; "
    f"mean deviation (found - predicted) {deviation.mean():+.2f}"
)
deep = np.array([d for (K, L), d in zip(tested, deviation, strict=True) if L >= 8])
if len(deep):
    print(f"at L ≥ 8 the formula is too {'high' if deep.mean() < 0 else 'low'}, by {abs(deep.mean()):.2f} on average")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
at_two = [abs(best[K, 2].gamma / dufm.closed_form_margin("nc", K, 2) - 1) for K in classes if (K, 2) in best]
claims.check("04-depth-two", max(at_two, default=math.nan))
claims.check(
    "04-three-classes",
    max((best[3, L].gamma / dufm.closed_form_margin("nc", 3, L) for L in depths if (3, L) in best), default=math.nan),
)
claims.check("04-beaten-at-three", smallest)
claims.check("04-direct-sums", mismatch)
claims.check("04-k6-l3", best[6, 3].gamma / dufm.closed_form_margin("nc", 6, 3) if (6, 3) in best else math.nan)
claims.check("04-k8-l8", best[8, 8].gamma / dufm.closed_form_margin("nc", 8, 8) if (8, 8) in best else math.nan)
claims.check(
    "04-certified", max(max(float(s.certificate.residual), abs(float(s.certificate.gap))) for s in best.values())
)
rises = sum(best[K, b].rank > best[K, a].rank for K in classes for a, b in zip(depths[:-1], depths[1:], strict=True))
claims.check("04-rank-falls", float(rises))
claims.check("04-polygon", max(abs(value) for value in polygon_gap.values()))
claims.check("04-best-rank", within_one)

# %% [markdown]
# ## Where it breaks
#
# *A search that walks from rank to rank would go astray.* At $K = 6$, $L = 3$ rank 4 is worse than both rank 5, collapse, and rank 3, the orthoplex: between two
# good codes lies a bad one, and nothing local leads from one to the other.

# %%
for K, L in ((6, 3), (classes[-1], 3), (classes[-1], depths[-1])):
    if (K, L) in best:
        shown = ", ".join(
            f"{r}: {gamma(known[K, L, r]) / dufm.closed_form_margin('nc', K, L):.4g}" for r in range(2, K)
        )
        print(f"K = {K}, L = {L}, margin over collapse by rank  {shown}")

# %% [markdown]
# *Best is not what is reached.* The diagram is about solutions of the margin problem. Which of them the flow ends in depends on the start, the scale and the
# width: many runs of notebook 03 at $K = 4$, $L = 4$ end in collapse although the square is better, and notebook 05 names the ends at other $K$ and $L$.
#
# ## Try it
#
# 1. `classes = [12]`: which ranks win, and at which depths? The icosahedron has rank 3.
# 2. `depths = [2, 3, 4, 5, 6, 8, 12, 16, 24]`: at which depth does $K = 10$ reach the polygon?
# 3. Derive the depth at which the polygon overtakes the orthoplex for even $K$, and find it in the closed forms.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
