# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The low-rank alternatives are softmax codes: where exactly, and where only nearly
#
# **Question.** Depth prefers low-rank solutions to neural collapse (notebook 04). Which arrangements of classes are they? A *softmax code* is
# the arrangement of unit vectors in few dimensions that keeps each one as far as possible from the hull of the others. Are the flow's ends
# softmax codes?
#
# **Answer.** Exactly so wherever the code is regular: simplices, polygons, orthoplexes, the square antiprism, the icosahedron, the Petersen code. Exactly so,
# too, for every rank $r$ with $K\le2r$, once one knows *which* of the many softmax codes depth selects: the orthoplex with vertices missing. For the
# other, irregular codes the depth problem does slightly better by giving up equal norms: by up to 3.4% here, for a reason that can be written down.
# Random networks find these exceptions too: every run below comes to rest, and those that are neither collapse nor a softmax code are counted by name.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
classes: list[int] = [4, 5, 6, 7, 8, 9, 10, 11, 12]  # numbers of classes K compared with their codes [4, 24]
depths: list[int] = [3, 4, 6, 10]  # depths L at which they are compared [2, 32]
restarts: int = 64  # random starts of each search for a depth solution, half as many as for a code [2, 512]
networks: int = 16  # random networks for each setting of the flow [2, 1024]
width: int = 16  # hidden width d of the wide networks, above every K they have [9, 128]
scale: float = 0.7  # initial scale: entries N(0, scale²/fan-in) [0.05, 2]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import math
from collections import Counter

import numpy as np
import scipy.stats
import torch

import dufm
from dufm import claims, codes, figures, notebook
from dufm._nnls import nonnegative_least_squares
from dufm.search import max_margin

p = notebook.start("05_softmax_codes", globals())
device = notebook.device()
classes, depths, restarts, networks = sorted(set(p.classes)), sorted(set(p.depths)), p.restarts, p.networks
code_restarts = 2 * restarts
# Networks to train: K, L, d.  Wide ones choose their rank; a bottleneck d = r leaves them no more than r.
wide = [(4, 6, p.width), (5, 6, p.width), (6, 4, p.width), (6, 6, p.width), (7, 4, p.width), (8, 4, p.width), (8, 6, p.width)]
wide += [(9, 4, p.width), (10, 4, p.width)]
narrow = [(8, 3, 2), (6, 2, 3), (6, 3, 3), (7, 2, 3), (8, 2, 3), (8, 3, 3), (9, 2, 3), (12, 2, 3), (10, 2, 4)]
if p.budget == "smoke":
    classes, depths, restarts, networks = classes[:2], depths[:2], min(restarts, 8), min(networks, 4)
    code_restarts = min(code_restarts, 16)
    wide, narrow = [(6, 6, p.width)], [(6, 2, 3), (8, 2, 3)]
if p.budget == "full":
    classes, depths = list(range(4, 17)), [3, 4, 5, 6, 8, 10, 16]
    restarts, networks = 4 * restarts, 8 * networks
    wide += [(10, 6, p.width), (12, 6, p.width)]
    narrow += [(8, 4, 3), (12, 3, 3), (12, 4, 3), (10, 3, 4), (5, 2, 3), (7, 3, 3), (9, 3, 3)]

# %% [markdown]
# ## What trained networks draw
#
# Random networks follow the flow to $\log\mathcal L=-10^4$, and from there its limit until the direction rests. Wide ones ($d = 16$) are free to choose their rank; narrow ones have a bottleneck $d = r$.
# The end is the certified solution at which a network rests (`dufm.end`, the rule of notebook 03): the nearest over all cuts of the centred logits.


# %%
def ends(K, L, d):
    """Where the flow ends: features at the middle layer ``(B, d, K)``, and the certified ends."""
    start = dufm.gaussian_init(L, d, K, scale=p.scale, batch=networks, seed=p.seed)
    rest = dufm.limit(dufm.gradient_flow([W.to(device) for W in start], until_log_loss=-1e4))
    features = rest.factors[0]
    for W in rest.factors[1 : max(L // 2, 1)]:
        features = W @ features
    return features.cpu(), dufm.end(rest, L)


trained = {}
for cell in notebook.progress(wide + narrow, label="K, L, d"):
    with notebook.timed(f"flow, limit and end {cell}"):
        trained[cell] = ends(*cell)


# %%
turns = np.linalg.qr(np.random.default_rng(0).standard_normal((150, 3, 3)))[0]


def best_view(X, joined):
    """Rotation of points ``(K, 3)`` whose projection keeps vertices apart from each other and from edges."""

    def clearance(flat):
        least = math.inf
        for i in range(len(flat)):
            for a, b in [(j, j) for j in range(len(flat)) if j != i] + [e for e in joined if i not in e]:
                along = flat[b] - flat[a]
                share = np.clip((flat[i] - flat[a]) @ along / max(along @ along, 1e-12), 0, 1)
                least = min(least, np.linalg.norm(flat[i] - flat[a] - share * along))
        return least

    return max((X @ turn for turn in turns), key=lambda turned: clearance(turned[:, :2]))


def portrait(K, L, d, rank):
    """Points ``(K, 3)``, edges: the features of the first of the best ends of this rank; None if there is none."""
    features, end = trained[K, L, d]
    fit = (end.decided & (end.rank == rank)).cpu()
    if not fit.any():
        return None
    margin = torch.where(fit, end.margin_ratio.cpu(), -1.0)
    F = features[(margin > margin.max() * (1 - 1e-6)).nonzero()[0, 0]]
    _, sigma, Vh = torch.linalg.svd(F - F.mean(-1, keepdim=True) if L > 2 else F, full_matrices=False)
    X = (sigma[:rank, None] * Vh[:rank]).T.numpy()
    X = X / np.linalg.norm(X, axis=1).mean()
    distance = np.linalg.norm(X[:, None] - X[None], axis=-1) + 9.0 * np.eye(K)
    joined = [(i, j) for i in range(K) for j in range(i) if distance[i, j] < 1.25 * np.median(distance.min(1))]
    if rank == 2:
        turn = math.pi / 2 - math.atan2(X[0, 1], X[0, 0])
        X = X @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        return np.column_stack([X, np.zeros(K)]), joined
    return best_view(X, joined), joined


wanted = [
    ("pentagon", 5, 6, p.width, 2),
    ("hexagon", 6, 6, p.width, 2),
    ("octagon", 8, 3, 2, 2),
    ("octahedron", 6, 4, p.width, 3),
    ("seven classes", 7, 2, 3, 3),
    ("antiprism", 8, 6, p.width, 3),
    ("nine classes", 9, 2, 3, 3),
    ("icosahedron", 12, 2, 3, 3),
]
if p.budget == "smoke":
    wanted = [("hexagon", 6, 6, p.width, 2), ("octahedron", 6, 2, 3, 3), ("antiprism", 8, 2, 3, 3)]
drawn = {name: [] for name in ("panel", "title", "num_classes", "depth", "width", "x", "y", "z", "joined")}
for title, K, L, d, rank in wanted:
    picture = portrait(K, L, d, rank)
    if picture is None:
        print(f"{title}: no certified run among those trained")
        continue
    points, joined = picture
    panel = drawn["panel"][-1] + 1 if drawn["panel"] else 0
    for i, (x, y, z) in enumerate(points):
        edges = ";".join(str(a) for a, b in joined if b == i) or "-"
        for column, value in zip(drawn.values(), (panel, title, K, L, d, x, y, z, edges), strict=True):
            column.append(value)
if not drawn["panel"]:  # a handful of networks may all end elsewhere: then an exact square stands in, and says so
    for i, (x, y) in enumerate(codes.polygon(4).tolist()):
        for column, value in zip(drawn.values(), (0, "no run", 4, 2, 2, x, y, 0.0, f"{i + 1}" if i < 3 else "-"), strict=True):
            column.append(value)
figures.store("05_portraits", drawn)

# %% tags=["figure"]
import numpy as np
from matplotlib.colors import to_rgb

from dufm import figures

data = figures.load("05_portraits")
panels = np.unique(data["panel"])
columns = min(len(panels), 4)
lines = -(-len(panels) // columns)
fig, axes = figures.subplots(lines, columns, width=7.0, height=2.05 * lines, squeeze=False)
for ax in axes.flat:
    ax.set_axis_off()
for panel, ax in zip(panels, axes.flat, strict=False):
    here = np.flatnonzero(data["panel"] == panel)
    x, y, z = data["x"][here], data["y"][here], data["z"][here]
    near = (z - z.min()) / max(np.ptp(z), 1e-9) if np.ptp(z) > 1e-6 else np.ones(len(z))
    K, title = int(data["num_classes"][here[0]]), str(data["title"][here[0]])
    kind = "polygon" if title.endswith("gon") else "orthoplex" if title == "octahedron" else "other"
    color = figures.PALETTE[kind] if kind != "other" else "#4f6f8f"
    edges = [(i, int(j)) for i, text in enumerate(data["joined"][here]) if text != "-" for j in str(text).split(";")]
    for i, j in sorted(edges, key=lambda e: near[e[0]] + near[e[1]]):
        for k in range(8):  # short pieces, so that an edge fades along its length
            a, b = k / 8, (k + 1) / 8
            depth = near[i] + (near[j] - near[i]) * (a + b) / 2
            ax.plot(
                [x[i] + (x[j] - x[i]) * a, x[i] + (x[j] - x[i]) * b],
                [y[i] + (y[j] - y[i]) * a, y[i] + (y[j] - y[i]) * b],
                color=str(0.82 - 0.7 * depth),
                linewidth=0.5 + 1.5 * depth,
                solid_capstyle="round",
                zorder=1 + depth,
            )
    for i in np.argsort(near):
        pale = 0.5 * (1 - near[i]) * np.ones(3) + (0.5 + 0.5 * near[i]) * np.array(to_rgb(color))
        ax.scatter(x[i], y[i], s=16 + 34 * near[i], color=pale, edgecolor="white", linewidth=0.7, zorder=2.5 + near[i])
    ax.set_aspect("equal")
    ax.set_xlim(-1.3, 1.3)
    ax.set_ylim(-1.15, 1.2)
    ax.annotate(
        f"{title}\n$K={K}$, $L={int(data['depth'][here[0]])}$, $d={int(data['width'][here[0]])}$",
        (0.5, 0.0), xycoords="axes fraction", xytext=(0, 1), textcoords="offset points", ha="center", va="top", fontsize=8,
    )
figures.save(
    fig,
    "05_portraits",
    alt="Features of trained networks, one dot a class, nearest neighbours joined, near edges thick and dark. Two-dimensional ones are regular polygons; "
    "three-dimensional ones are the octahedron, a capped shape of seven classes, the square antiprism of eight, a tricapped prism of nine, and the icosahedron of twelve.",
)

# %% [markdown]
# *Each dot is a class: the features of one trained network at its middle layer ($W_1$ at $L = 2$), at rest and unpolished, in their own two or three leading directions. Nearest neighbours are joined; near is thick and dark.
# Networks with $d=16$ chose this dimension themselves.*
#
# ## Softmax codes, and the arrangements everybody knows
#
# **Definition** (Jiang et al., ICML 2024). Unit vectors $w_1,\dots,w_K\in\mathbb R^d$ that maximise $\min_k\operatorname{dist}(w_k, \operatorname{conv}\{w_j: j\ne k\})$; equivalently,
# $$\max_{\|w_k\|=\|h_k\|=1}\ \min_{j\ne k}\ \langle w_k - w_j, h_k\rangle .$$
# For $K\le d+1$ the value is $K/(K-1)$, the simplex; for $d+2\le K\le2d$ it is 1.
#
# If each $w_k$ lies in the cone spanned by its nearest neighbours, the distance is $1-\cos\theta$ with $\theta$ the smallest angle, and the code also solves the problem of
# Tammes: place $K$ points with the largest smallest angle. Ten optimal arrangements from the literature test the search. Their cosines: $0$ for $K = d+2,\dots,2d$ (Rankin 1955);
# for $d = 3$ the root of $3x^3-9x^2-3x+1$ at $K = 7$, of $7x^2+2x-1$ at $K = 8$, and $1/3$ at $K=9$ (Schütte & van der Waerden 1951), $1/\sqrt5$ at $K=12$ (Fejes Tóth 1943);
# $1/6$ for 10 points in four dimensions (Bachoc & Vallentin 2009), $1/5$ for 16 in five and $1/4$ for 27 in six (Levenshtein 1992). All are also listed in N. J. A. Sloane's and in H. Cohn's tables of spherical codes.

# %%
literature = {
    (5, 3): 0.0,
    (6, 3): 0.0,
    (7, 3): min(x.real for x in np.roots([3, -9, -3, 1]) if x.real > 0),
    (8, 3): (2 * math.sqrt(2) - 1) / 7,
    (9, 3): 1 / 3,
    (12, 3): 1 / math.sqrt(5),
    (8, 4): 0.0,
    (10, 4): 1 / 6,
    (16, 5): 1 / 5,
    (27, 6): 1 / 4,
}
with notebook.timed("known codes"):
    known_codes = {key: codes.softmax_code(*key, restarts=code_restarts, seed=p.seed) for key in literature}
print(" K  d   one-vs-rest    angle     cosine − literature   residual      value − (1 − cos)")
cosine_error = {}
for (K, d), code in known_codes.items():
    cosine = math.cos(math.radians(code.angle))
    cosine_error[K, d] = abs(cosine - literature[K, d])
    small = ["below 1e-9" if abs(x) < 1e-9 else f"{x:.1e}" for x in (cosine_error[K, d], code.residual, code.value - 1 + cosine)]
    print(f"{K:2d}  {d}   {code.value:.8f}   {code.angle:9.5f}°   {small[0]:18s}   {small[1]:10s}   {small[2]}")

# %% [markdown]
# In all ten the value is $1-\cos\theta$, and the angle is that of the best known spherical code. **Where the softmax code is not unique:** for $d+2\le K<2d$, here $(5,3)$, any orthogonal sum of
# simplices over $K-d$ groups has value 1, and so has the orthoplex with vertices missing. Both below are softmax codes with different angles; the search returns one of a continuum.


# %%
def simplex_sum(sizes):
    """Simplices in orthogonal subspaces."""
    return torch.block_diag(*(codes.simplex_etf(k) for k in sizes))


for name, W in (("square pyramid: two pairs and one single vector", codes.orthoplex(6)[:5]), ("triangle and pair", simplex_sum([3, 2]))):
    largest = sorted({round(float(c), 3) + 0.0 for c in (W @ W.T)[~torch.eye(5, dtype=torch.bool)]})
    print(f"K = 5, d = 3, {name}: one-vs-rest {float(codes.one_vs_rest_margin(W)):.6f}, cosines {largest}")

# %% [markdown]
# ## Depth's solution beside the softmax code
#
# A code gives a matrix of logits. Take its optimal pair $(W, H)$, $H$ the unit vectors to which the rows of $W$ are compared; then $WH^\top$ has all margins at least the one-vs-rest value.
# Margins do not change when a constant is added to a column of $Z$, and centring never raises a singular value: every solution of the depth problem has centred columns, so the code's own matrix is
# $$Z_{\rm code} = (I - \tfrac1KJ)\,WH^\top .$$
# For every $K$ and rank $r$, `max_margin` searches the depth problem at exact rank $r$ from random starts and from $Z_{\rm code}$ itself, so its margin is never below that of the code; a gap says that the code is *not* optimal.
# Where the code is one of a continuum it is not a start: whether depth selects it is the question. What is found at one depth is a start at the next. At the default budget ranks above 5 are compared at the first and last depth only.
#
# **The codes for $K\le2r$.** Which of the many does depth select? *The orthoplex with $2r-K$ vertices missing*, $m=K-r$ pairs and $s=2r-K$ single vectors (`dufm.codes.pairs_and_singles`). Its matrix has a pair's singular value $2$ ($m$ times), and on the single columns the Gram
# matrix $I_s - J/K$: values $1$ ($s-1$ times) and $\sqrt{1-s/K}$. Hence, for $s\ge1$,
# $$\gamma_L = \Bigl(m\,2^{2/L} + (s-1) + (1-\tfrac sK)^{1/L}\Bigr)^{-L/2}.\qquad(\ast)$$


# %%
def missing_orthoplex_margin(K, r, L):
    """The closed form (∗), and that of the orthoplex at s = 0."""
    pairs, single = K - r, 2 * r - K
    return (pairs * 2 ** (2 / L) + ((single - 1) + (1 - single / K) ** (1 / L) if single else 0)) ** (-L / 2)


def separators(W):
    """Unit vectors H ``(K, r)`` from the hull of the others to each row of W, and the distances, by their dual."""
    H, distance = np.zeros(W.shape), np.zeros(len(W))
    for k in range(len(W)):
        others = np.delete(W, k, 0)
        system = np.vstack([(W[k] - others).T, np.ones(len(others))])
        weights, _ = nonnegative_least_squares(system, np.append(np.zeros(W.shape[1]), 1.0))
        nearest = W[k] - weights @ others / weights.sum()
        distance[k] = np.linalg.norm(nearest)
        H[k] = nearest / distance[k]
    return H, distance


code_of = {}


def code(K, r):
    """``(W, H, one-vs-rest value)`` of the softmax code; for r + 2 ≤ K < 2r the one with vertices missing."""
    if (K, r) not in code_of:
        if r + 2 <= K <= 2 * r:
            W = codes.orthoplex(2 * r)[:K]
        else:
            W = (known_codes.get((K, r)) or codes.softmax_code(K, r, restarts=code_restarts, seed=p.seed)).vectors
        H, distance = separators(W.numpy())
        code_of[K, r] = W, torch.from_numpy(H), float(distance.min())
    return code_of[K, r]


def code_logits(K, r):
    """Centred logits of the code, scaled to smallest margin 1."""
    W, H, value = code(K, r)
    Z = W @ H.mT
    return (Z - Z.mean(-2, keepdim=True)) / value


FURTHER = {(12, 3): "icosahedron", (16, 5): "Clebsch"}


def name_of(K, r):
    """Name of the softmax code of K vectors in R^r."""
    name = codes.name_of(code_logits(K, r)).item()
    return FURTHER.get((K, r), "irregular") if name == f"rank {r}" else name


solutions = {}


def solve(K, L, r):
    """Best certified solution of the depth problem at exact rank r, or None."""
    if (K, L, r) not in solutions:
        starts = [] if r + 2 <= K < 2 * r else [code_logits(K, r)]
        starts += [solutions[K, other, r].Z for other in depths if other < L and solutions.get((K, other, r))][-1:]
        try:
            solutions[K, L, r] = max_margin(K, L, r, restarts=restarts, seed=p.seed, starts=starts)
        except dufm.DufmError:
            solutions[K, L, r] = None  # nothing at this rank could be certified: counted below
    return solutions[K, L, r]


def compared(r):
    """Depths compared at rank r: below the full budget the first and the last only from rank 6 on."""
    return depths if r <= 5 or p.budget == "full" else sorted({depths[0], depths[-1]})


pairs = [(K, r) for K in classes for r in range(2, K)]
with notebook.timed("depth against code"):
    for K, r in notebook.progress(pairs, label="K, r"):
        for L in compared(r):
            solve(K, L, r)


# %%
def spread(x):
    """Largest over smallest, minus 1."""
    return float(x.max() / x.min() - 1)


def unit(X):
    return X / X.norm(dim=-1, keepdim=True)


names = ("num_classes", "rank", "depth", "code", "code_value", "code_angle", "code_singular_values", "ratio", "uncentred_ratio", "over_nc")
names += ("agree", "restarts", "locally_optimal", "value_classifier", "value_features", "angle_classifier", "angle_features")
names += ("norms_classifier", "norms_features", "singular_values")
beside = {name: [] for name in names}
for K, r in pairs:
    W, H, value = code(K, r)
    Z_code = code_logits(K, r)
    sigma_code = torch.linalg.svdvals(Z_code)[:r]
    for L in compared(r):
        solution = solve(K, L, r)
        if solution is None:
            continue
        U, sigma, Vh = torch.linalg.svd(solution.Z)
        A, B = U[:, :r] * sigma[:r].sqrt(), Vh[:r].T * sigma[:r].sqrt()
        row = (
            K, r, L, name_of(K, r), value, float(codes.smallest_angle(W)), " ".join(f"{x:.3f}" for x in sigma_code / sigma_code[0]),
            solution.gamma / float(dufm.normalized_margin(Z_code, L)),
            solution.gamma / float(dufm.normalized_margin(W @ H.mT, L)),
            solution.gamma / dufm.closed_form_margin("nc", K, L),
            solution.agree, solution.restarts, int(solution.locally_optimal),
            float(codes.one_vs_rest_margin(unit(A))), float(codes.one_vs_rest_margin(unit(B))),
            float(codes.smallest_angle(A)), float(codes.smallest_angle(B)), spread(A.norm(dim=1)), spread(B.norm(dim=1)),
            " ".join(f"{x:.3f}" for x in sigma[:r] / sigma[0]),
        )
        for column, entry in zip(beside.values(), row, strict=True):
            column.append(entry)
beside = {name: np.array(column) for name, column in beside.items()}
excess = {}  # margin of the depth solution over the code's, minus 1
for K, r, L, ratio in zip(beside["num_classes"], beside["rank"], beside["depth"], beside["ratio"], strict=True):
    excess[int(K), int(L), int(r)] = float(ratio) - 1
worst = {(K, r): max((abs(excess[K, L, r]) for L in depths if (K, L, r) in excess), default=math.nan) for K, r in pairs}
same = {pair for pair in pairs if worst[pair] < 1e-6}
figures.store("05_agreement", {name: np.round(column, 9) + 0.0 if column.dtype.kind == "f" else column for name, column in beside.items()})

# %% tags=["figure"]
import numpy as np
from matplotlib.patches import Rectangle

from dufm import figures

data = figures.load("05_agreement")
K_values, ranks = np.unique(data["num_classes"]), np.unique(data["rank"])
fig, ax = figures.subplots(width=7.0, height=0.62 + 0.34 * len(K_values))
for K in K_values:
    for r in ranks:
        here = (data["num_classes"] == K) & (data["rank"] == r)
        if not here.any():
            continue
        gap = np.abs(data["ratio"][here] - 1).max()
        label = str(data["code"][here][0])
        kind = {"NC": "nc", "polygon": "polygon"}.get(label, "orthoplex" if label == "orthoplex" or "single" in label else "other")
        if gap < 1e-6:
            ax.add_patch(Rectangle((r - 0.47, K - 0.45), 0.94, 0.9, color=figures.PALETTE[kind], alpha=0.30 if kind != "other" else 0.6, linewidth=0))
            ax.text(r, K, label.replace(", ", ",\n"), ha="center", va="center", fontsize=7, linespacing=0.95)
        else:
            ax.add_patch(Rectangle((r - 0.47, K - 0.45), 0.94, 0.9, fill=False, edgecolor="0.35", linewidth=0.8, linestyle=(0, (3, 2))))
            ax.text(r, K, f"+{100 * gap:.2f}%", ha="center", va="center", fontsize=7.5, weight="bold")
ax.set_xlim(ranks.min() - 0.55, ranks.max() + 0.55)
ax.set_ylim(K_values.min() - 0.55, K_values.max() + 0.55)
ax.set_xticks(ranks)
ax.set_yticks(K_values)
ax.set_xlabel("rank $r$")
ax.set_ylabel("number of classes $K$")
if len(K_values) > 4:
    lowest = K_values.min()
    ax.annotate("filled: depth's solution is the named softmax code\ndashed: its margin is larger than the code's, by at most this much",
                (ranks.max() + 0.45, lowest + 0.6), ha="right", va="center", fontsize=8)
figures.save(
    fig,
    "05_agreement",
    alt="Grid of classes K against rank r. Filled cells, where the depth solution equals the softmax code at every depth compared: collapse on the diagonal, polygons at rank 2, "
    "orthoplexes, or pairs and single classes, for K up to 2r, the antiprism at K = 8, the icosahedron at K = 12, the Petersen code at K = 10, r = 4. "
    "Dashed cells, between rank 2 and K/2, give the largest excess of margin in percent, from 0.03 to about 3.",
)

# %% [markdown]
# *Filled: at every depth compared, the depth solution has the margin of the named softmax code to $10^{-6}$ (NC is collapse; pairs and singles are the orthoplex with vertices missing). Dashed: it does better, at most by the percentage given.
# All numbers, with angles, norms, one-vs-rest values and singular values of both, are in `figures/05_agreement.csv`.*

# %%
empty = [key for key, solution in solutions.items() if solution is None]
optimal = int(beside["locally_optimal"].sum())
print(f"{len(solutions)} searches; none certified in {len(empty)}; locally optimal on their rank stratum {optimal} of {len(excess)}")
print(f"pairs (K, r) where both agree to 1e-6 at all depths: {len(same)} of {len(pairs)}")
dual_gap = max(abs(float(dufm.margins(W @ H.mT).amin()) - value) for W, H, value in code_of.values())
print(f"separators: smallest margin along H against the distance to the hull, largest difference {'below 1e-6' if dual_gap < 1e-6 else f'{dual_gap:.1e}'}")
print(f"one-vs-rest equals 1 − cos of the smallest angle in {sum(abs(code(K, r)[2] - 1 + math.cos(math.radians(float(codes.smallest_angle(code(K, r)[0]))))) < 1e-6 for K, r in pairs)} of {len(pairs)} codes")
missing = [(K, L, r) for K, L, r in excess if r + 2 <= K <= 2 * r]
from_formula = max((abs(solutions[c].gamma / missing_orthoplex_margin(c[0], c[2], c[1]) - 1) for c in missing), default=math.nan)
print(f"K ≤ 2r: {len(missing)} solutions searched without the code as a start; deviation from the closed form (∗) {'below 1e-9' if from_formula < 1e-9 else f'{from_formula:.1e}'}")

# %% [markdown]
# The cells where they differ, the code against the depth solution at the second depth compared: one-vs-rest value (of the depth solution: unit classifier rows, unit features), smallest angle of
# the features, spread of the norms of classifier and features (largest over smallest, minus 1), singular values. The excess is given for every depth, and without centring the code, which would look like a larger gap.

# %%
shown_depth = depths[min(1, len(depths) - 1)]
print(" K  r   excess at L = " + ", ".join(map(str, depths)) + "   uncentred |  one-vs-rest: code, W, H  | angle: code, H | norms: W, H  | σ: code → depth")
for K, r in pairs:
    at = (beside["num_classes"] == K) & (beside["rank"] == r) & (beside["depth"] == shown_depth)
    if (K, r) in same or not at.any():
        continue
    row = {name: column[at][0] for name, column in beside.items()}
    gaps = " ".join(f"{excess[K, L, r]:.5f}" if (K, L, r) in excess else "   -   " for L in depths)
    print(
        f"{K:2d}  {r}   {gaps}     {row['uncentred_ratio'] - 1:.5f}   | {row['code_value']:.4f} {row['value_classifier']:.4f} {row['value_features']:.4f}      |"
        f" {row['code_angle']:.2f} {row['angle_features']:.2f}    | {row['norms_classifier']:.3f} {row['norms_features']:.3f}  | {row['code_singular_values']} → {row['singular_values']}"
    )

# %% [markdown]
# ## Why: two sets of conditions, and when they are the same
#
# Let $\Lambda=\sum\lambda_{jc}(e_c-e_j)e_c^\top$ with $\lambda\ge0$ on the pairs whose margin is smallest; its columns sum to zero.
#
# *The code.* Differentiating $\max\min\langle w_c-w_j,h_c\rangle$ over unit $w$ and $h$:
# $$\Lambda H=\operatorname{diag}(\alpha)W,\qquad \Lambda^\top W=\operatorname{diag}(\beta)H .$$
# *Depth.* Stationarity of $\sum_i\sigma_i^p$ (notebook 03) at $Z=AB^\top$, with $R=A^\top A$, $S=B^\top B$. As $ZZ^\top A=A\,SR$, the matrix $U\Sigma^{p-1}V^\top=(ZZ^\top)^{p/2-1}Z$ applied to $B$ is $A\,(SR)^{p/2-1}S$, so
# $$\Lambda B=A\,(SR)^{p/2-1}S,\qquad \Lambda^\top A=B\,(RS)^{p/2-1}R ,\qquad A=(I-\tfrac1KJ)W,\ B=H. \qquad(\ast\ast)$$
#
# **Statement.** *If $H=W$ is a tight frame, $W^\top W=\frac Kr I$, and its conditions hold with $\alpha=\beta=$ const, then it solves $(\ast\ast)$ at every depth.*
# Summing the rows of $\Lambda H=aW$ gives $\sum_kw_k=0$, so $A=W$; $R=S=\frac Kr I$ makes the right sides multiples of $W$ and $H$. $\square$
# A symmetry group that is transitive on the classes makes $\alpha$ constant (average over it); if it is irreducible on $\mathbb R^r$, the frame is tight. That covers collapse, polygon, orthoplex, icosahedron, Petersen code.
#
# The antiprism's group is transitive, but splits $\mathbb R^3$ into plane and axis: it is not tight. It has two kinds of smallest pairs, within a square and between the squares. Their multipliers are two
# free numbers, and $(\ast\ast)$ has two equations, one for the plane and one for the axis: both can be met with $\lambda\ge0$. The orthoplex with vertices missing is not tight either, and its single vectors have $\alpha=0$: the code does not need them in place, depth does.
#
# Three residuals for each code, from non-negative least squares: of the *constant multipliers*, of $(\ast\ast)$ by the formula above, and, by another route, of the certificate (which works on the singular vectors). Collapse and polygons read 0 everywhere and are left out.


# %%
def fit(A, B, right_A, right_B, tight):
    """Relative residual of ΛB = right_A, ΛᵀA = right_B over λ ≥ 0 on the pairs ``tight``."""
    wrong, true = np.nonzero(tight)
    K, r = A.shape
    count = np.arange(len(wrong))
    left, below = np.zeros((len(wrong), K, r)), np.zeros((len(wrong), K, r))
    left[count, true] += B[true]
    left[count, wrong] -= B[true]
    below[count, true] = A[true] - A[wrong]
    system = np.concatenate([left.reshape(len(wrong), -1), below.reshape(len(wrong), -1)], axis=1).T
    target = np.concatenate([right_A.ravel(), right_B.ravel()])
    return nonnegative_least_squares(system, target)[1] / np.linalg.norm(target)


def power(M, exponent):
    """Power of a matrix similar to a positive definite one."""
    values, vectors = np.linalg.eig(M)
    return ((vectors * values.real**exponent) @ np.linalg.inv(vectors)).real


def conditions(K, r):
    """Spread of the frame, residual of constant multipliers, and residual of (∗∗) at each depth."""
    W, H, value = code(K, r)
    W, H = W.numpy(), H.numpy()
    margin = (W * H).sum(1) - W @ H.T + 9.0 * np.eye(K)
    tight = margin < value + 1e-6
    frame = np.linalg.svd(W, compute_uv=False)
    A = W - W.mean(0)
    R, S = A.T @ A, H.T @ H
    by_depth = {L: fit(A, H, A @ power(S @ R, 1 / L - 1) @ S, H @ power(R @ S, 1 / L - 1) @ R, tight) for L in depths}
    return frame[0] / frame[-1] - 1, fit(W, H, W, H, tight), by_depth


checked = {pair: conditions(*pair) for pair in pairs}
certificate = {
    (K, r): {L: float(dufm.kkt_certificate(code_logits(K, r), L, r).residual) for L in depths} for K, r in pairs
}


def small(x):
    return "0" if x < 1e-7 else f"{x:.3f}"


print(" K  r   code               frame   constant   (∗∗) at L = " + ", ".join(map(str, depths)) + "      agrees with depth")
for K, r in pairs:
    if r == K - 1 or (r == 2 and K > 5):
        continue
    frame, constant, by_depth = checked[K, r]
    print(f"{K:2d} {r:2d}   {name_of(K, r):17s}  {small(frame):5s}   {small(constant):5s}      " + "  ".join(f"{small(x):5s}" for x in by_depth.values()) + f"    {'yes' if (K, r) in same else f'no, {100 * worst[K, r]:.2f}%'}")
condition_holds = {(K, L, r): checked[K, r][2][L] < 1e-7 for K, L, r in excess}
mismatched = sum(condition_holds[cell] != (abs(excess[cell]) < 1e-6) for cell in excess)
routes = sum((checked[K, r][2][L] < 1e-7) != (certificate[K, r][L] < 1e-7) for K, r in pairs for L in depths)
regular = [pair for pair in pairs if checked[pair][0] < 1e-7 and checked[pair][1] < 1e-7]
regular_residual = max((max(certificate[pair].values()) for pair in regular), default=math.nan)
print(f"\ntight with constant multipliers: {len(regular)} codes; cells where (∗∗) and agreement with the search differ: {mismatched} of {len(excess)}")

# %% [markdown]
# So the line is sharp in these cells: the code satisfies $(\ast\ast)$ exactly in those cells in which the search finds nothing better. Where it does not, no choice of multipliers can balance vectors of equal norm, and depth answers with unequal norms and other angles.
#
# The largest gaps have shapes of their own, all made of the ten vectors of the Petersen code in four dimensions. At $r=5$ the depth solution is the *orthogonal sum* of that code and a pair ($K=12$), or a single vector ($K=11$, from $L=4$ on).
# With logits $\tfrac65WW^\top$ on the ten and a plain pair, or a single 1, beside them, every margin is at least 1; the centred singular values are $3$ (four times) and $2$, or $\sqrt{10/11}$. At $K=9$, $r=4$ it is the Petersen code *less one vector*, moved to the nearest critical point:

# %%
petersen = code(10, 4)[0]


def beside_petersen(block):
    """Logits of the orthogonal sum of the Petersen code and one more block, centred."""
    Z = torch.block_diag(1.2 * petersen @ petersen.mT, torch.tensor(block, dtype=torch.float64))
    return Z - Z.mean(-2, keepdim=True)


def away(K, L, r, Z):
    """Relative distance of the best margin found from that of Z; NaN where it was not searched."""
    return abs(solutions[K, L, r].gamma / float(dufm.normalized_margin(Z, L)) - 1) if solutions.get((K, L, r)) else math.nan


with_pair, with_single = beside_petersen([[1.0, -1.0], [-1.0, 1.0]]), beside_petersen([[1.0]])
less_one = {L: dufm.polish(codes.code_matrix(petersen[:9]), L, 4).Z for L in depths}
sums = [away(12, L, 5, with_pair) for L in depths] + [away(11, L, 5, with_single) for L in depths if L >= 4]
sum_gap = np.max(sums)
for text, gaps in (
    ("K = 12, r = 5, Petersen and a pair", {L: away(12, L, 5, with_pair) for L in depths}),
    ("K = 11, r = 5, Petersen and a single vector", {L: away(11, L, 5, with_single) for L in depths}),
    ("K = 9, r = 4, Petersen less one vector", {L: away(9, L, 4, less_one[L]) for L in depths}),
):
    print(f"{text}: " + ", ".join(f"L = {L} {'equal to 1e-9' if gap < 1e-9 else f'apart by {gap:.4f}'}" for L, gap in gaps.items()))
sum_formula = max(
    abs(float(dufm.normalized_margin(Z, L)) / (4 * 3 ** (2 / L) + last ** (2 / L)) ** (-L / 2) - 1)
    for L in depths
    for Z, last in ((with_pair, 2), (with_single, math.sqrt(10 / 11)))
)
print(f"the sums against their closed form: {'equal' if sum_formula < 1e-9 else sum_formula}")

# %% [markdown]
#
# ## Which of them does the flow reach?
#
# All networks of the first section. A decided end of rank $r$ counts as the softmax code if its margin is that of the code to $10^{-6}$, as *depth's own* if it has instead the margin of the best depth solution of that rank, and as *another critical point* otherwise.
# Shares are of **all** runs, with 95% Wilson intervals; an undecided run would stay in the denominator and give its reason.

# %%
KINDS = ("collapse", "polygon", "orthoplex", "other code", "depth's own", "another point", "undecided")
LOW_RANK_CODES = ("polygon", "orthoplex", "other code")


def kind_of(K, L, Z, rank):
    """Kind of a certified end."""
    gamma = float(dufm.normalized_margin(Z, L))
    if rank >= 2 and abs(gamma / float(dufm.normalized_margin(code_logits(K, rank), L)) - 1) < 1e-6:
        if rank == K - 1:
            return "collapse"
        return "polygon" if rank == 2 and K > 4 else "orthoplex" if K <= 2 * rank else "other code"
    best = solve(K, L, rank)
    return "depth's own" if best is not None and abs(gamma / best.gamma - 1) < 1e-6 else "another point"


def share(hits):
    """Share of all networks of a setting, with its interval."""
    interval = scipy.stats.binomtest(hits, networks).proportion_ci(method="wilson")
    return f"{hits / networks:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


outcome, listed = {}, {}
with notebook.timed("naming the ends"):
    for (K, L, d), (_, end) in trained.items():
        outcome[K, L, d], labels = [], []
        for Z, rank, name, ratio, decided, reason in zip(
            end.Z.cpu(), end.rank.tolist(), end.name, end.margin_ratio.tolist(), end.decided.tolist(), end.reason, strict=True
        ):
            kind = kind_of(K, L, Z, rank) if decided else "undecided"
            if name == f"rank {rank}" and kind == "other code":
                name = name_of(K, rank)
            outcome[K, L, d].append(kind)
            labels.append((kind, f"{name}: {reason}", 0, math.nan) if not decided else (kind, name, rank, round(ratio, 4)))
        listed[K, L, d] = Counter(labels)
everything = [kind for kinds in outcome.values() for kind in kinds]
print(f"{len(everything)} runs, {everything.count('undecided')} undecided\n")
print(" K  L   d   runs  share of all runs     end: rank, margin over collapse")
for (K, L, d), labels in listed.items():
    for (kind, name, rank, ratio), count in sorted(labels.items(), key=lambda item: (-item[1], -item[0][3])):
        text = name if kind == "undecided" else f"{name + ':' if not name.startswith('rank') else ''} rank {rank}, {ratio:.4f}".strip()
        remark = f"  ({kind})" if kind in ("depth's own", "another point") else ""
        print(f"{K:2d} {L:2d}  {d:2d}   {count:3d}   {share(count)}     {text}{remark}")
print("\n K  L   d   softmax codes below rank K − 1, share of all runs")
for (K, L, d), kinds in outcome.items():
    print(f"{K:2d} {L:2d}  {d:2d}   {share(sum(kind in LOW_RANK_CODES for kind in kinds))}")
bars = {name: [] for name in ("num_classes", "depth", "width", "kind", "count", "networks")}
for (K, L, d), kinds in outcome.items():
    for kind in KINDS:
        for column, entry in zip(bars.values(), (K, L, d, kind, kinds.count(kind), networks), strict=True):
            column.append(entry)
figures.store("05_reached", bars)

# %% tags=["figure"]
import numpy as np
from scipy.stats import binomtest

from dufm import figures

data = figures.load("05_reached")
looks = {
    "collapse": (figures.PALETTE["nc"], "", "white"),
    "polygon": (figures.PALETTE["polygon"], "", "black"),
    "orthoplex": (figures.PALETTE["orthoplex"], "", "white"),
    "other code": ("#4f6f8f", "", "white"),
    "depth's own": ("#d9c9a0", "///", "black"),
    "another point": ("#e6b8c8", "xx", "black"),
    "undecided": ("#f2f2f2", "", "0.35"),
}
cells = list(dict.fromkeys(zip(data["num_classes"].tolist(), data["depth"].tolist(), data["width"].tolist(), strict=True)))
cells = sorted(cells, key=lambda cell: (cell[2] < cell[0], cells.index(cell)))
fig, ax = figures.subplots(width=7.0, height=1.0 + 0.235 * len(cells))
shown = []
for line, (K, L, d) in enumerate(cells):
    here = (data["num_classes"] == K) & (data["depth"] == L) & (data["width"] == d)
    total, left, hits = int(data["networks"][here][0]), 0.0, 0
    for kind, count in zip(data["kind"][here], data["count"][here], strict=True):
        color, hatch, ink = looks[kind]
        hits += int(count) * (kind in ("polygon", "orthoplex", "other code"))
        if count:
            ax.barh(-line, count / total, left=left, height=0.72, color=color, hatch=hatch, edgecolor="white", linewidth=0.6)
            ax.text(left + count / total / 2, -line, f"{count}", ha="center", va="center", fontsize=7, color=ink,
                    bbox={"facecolor": color, "edgecolor": "none", "pad": 0.6} if hatch else None)
            shown.append(kind)
        left += count / total
    low, high = binomtest(hits, total).proportion_ci(method="wilson")
    ax.plot([1.04 + 0.3 * low, 1.04 + 0.3 * high], [-line, -line], color="0.45", linewidth=2.2, solid_capstyle="butt")
    ax.plot(1.04 + 0.3 * hits / total, -line, "o", color="black", markersize=3.2)
for x in (0, 0.5, 1):
    ax.plot([1.04 + 0.3 * x] * 2, [0.5, 0.5 - len(cells)], color="0.85", linewidth=0.6, zorder=0)
    ax.text(1.04 + 0.3 * x, -len(cells) + 0.35, f"{x:g}", ha="center", va="top", fontsize=7)
ax.text(1.19, 0.62, "share of low-rank codes", ha="center", va="bottom", fontsize=8)
ax.set_yticks([-line for line in range(len(cells))], [f"$K={K}$, $L={L}$, $d={d}$" for K, L, d in cells])
ax.set_xlim(0, 1.36)
ax.set_ylim(-len(cells) + 0.4, 0.65)
ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
ax.set_xlabel("share of runs", x=0.37)
ax.spines["bottom"].set_bounds(0, 1)
from matplotlib.patches import Patch

handles = [Patch(facecolor=looks[k][0], hatch=looks[k][1], edgecolor="0.6", linewidth=0.4, label=k) for k in looks if k in shown]
fig.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=1.1, columnspacing=1.0, handletextpad=0.4, fontsize=7.5)
figures.save(
    fig,
    "05_reached",
    alt="Stacked bars, one for each setting of classes, depth and width: how many random networks ended in collapse, a polygon, an orthoplex, another softmax code, the depth problem's own "
    "solution, another critical point, or are undecided. Beside each bar the share of low-rank softmax codes with its interval. Wide deep networks up to eight classes end mostly in polygons, orthoplexes and the antiprism; bottlenecked shallow ones mostly in the code of "
    "their dimension, except for seven and nine classes, where they end in the depth problem's own solution.",
)

# %% [markdown]
# *Numbers in the bars count runs; orthoplex: with or without vertices missing. Right: share of softmax codes of rank below $K-1$, with 95% Wilson interval.*
#
# With up to eight classes, wide networks that leave collapse end in a softmax code of their rank, but for five of 110. It is not always the one of largest margin: pairs and single classes are often reached where a lower rank would be better.
# The exceptions sit where the code is irregular. Seven classes in three dimensions never end in the softmax code: in the bottleneck 14 of 16 end in depth's own solution and two in a worse critical point. Nine classes there all end in depth's own;
# wide ones end in six different points, one of them a softmax code. Ten classes reach the Petersen code in about half of the runs, and otherwise mostly critical points of rank 4 whose margin is 5% to 6% smaller. So the claim that low-rank ends *are* softmax codes deviates:
# where no regular code exists, depth's own solution takes its place, and among many critical points the flow is not bound to take the best.

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("05-known-codes", max(cosine_error.values()))
named = [pair for pair in pairs if name_of(*pair) in ("polygon", "orthoplex", "antiprism", "Petersen", *FURTHER.values())]
claims.check("05-named-agree", max((worst[pair] for pair in named), default=math.nan))
claims.check("05-missing-orthoplex", from_formula)
claims.check("05-pairs-agree", float(len(same)))
irregular = [worst[pair] for pair in pairs if pair not in same and not math.isnan(worst[pair])]
claims.check("05-largest-gap", max(irregular, default=math.nan))
over_nc = {(int(K), int(L), int(r)): (x, x / y) for K, L, r, x, y in zip(*(beside[n] for n in ("num_classes", "depth", "rank", "over_nc", "uncentred_ratio")), strict=True)}
nothing = (math.nan, math.nan)
claims.check("05-seven-depth", over_nc.get((7, 4, 3), nothing)[0])
claims.check("05-seven-code", over_nc.get((7, 4, 3), nothing)[1])
claims.check("05-nine-depth", over_nc.get((9, 4, 3), nothing)[0])
claims.check("05-nine-code", over_nc.get((9, 4, 3), nothing)[1])
claims.check("05-orthogonal-sum", sum_gap)
claims.check("05-regular", regular_residual)
claims.check("05-condition", float(mismatched))
claims.check("05-two-routes", float(routes))
free = [kind for cell in wide for kind in outcome[cell] if kind != "collapse"]
claims.check("05-wide-ends", sum(kind in LOW_RANK_CODES for kind in free) / len(free) if free else math.nan)
bottleneck = outcome.get((12, 2, 3), [])
claims.check("05-icosahedron", bottleneck.count("other code") / len(bottleneck) if bottleneck else math.nan)
sevens = outcome.get((7, 2, 3), [])
claims.check("05-seven-networks", sevens.count("depth's own") / len(sevens) if sevens else math.nan)

# %% [markdown]
# ## Where it breaks
#
# *Networks in a bottleneck may end elsewhere.* A certified end is a critical point; "another point" in the table above has a smaller margin than the best solution of its rank.
#
# *"Softmax code" is not a name for everything critical.* The cube (rank 3, $K=8$) is a critical point of the depth problem at every depth, but its one-vs-rest value is below the antiprism's: it is not a softmax code, and not a local optimum either (notebook 09).

# %%
cube = codes.hypercube(8)
print(f"cube: one-vs-rest {float(codes.one_vs_rest_margin(cube)):.4f}, antiprism {code(8, 3)[2]:.4f}; "
      f"critical at L = 3: {bool(dufm.kkt_certificate(codes.code_matrix(cube), 3, 3).holds())}")

# %% [markdown]
# *Odd $K$.* Pairs and single classes beat the direct sums of simplices of notebook 04: at $L=3$, with $(K-1)/2$ pairs and one single class, their margin over that of collapse is

# %%
for K in (7, 9, 11):
    ratio = float(dufm.normalized_margin(codes.pairs_and_singles(K, (K - 1) // 2), 3)) / dufm.closed_form_margin("nc", K, 3)
    triangle = (((K - 3) / 2) * 2 ** (2 / 3) + 2 * 1.5 ** (2 / 3)) ** -1.5 / dufm.closed_form_margin("nc", K, 3)
    print(f"K = {K:2d}: {ratio:.4f}, against {triangle:.4f} for pairs and one triangle")

# %% [markdown]
# *A search is not a proof.* Agreement means that random starts, and the code itself as a start, led to nothing better. And *equal margin* is the test for "same": the matrices could differ in principle.
#
# ## Try it
#
# 1. `classes = [13, 14, 16]`: which rank of $K=16$ joins the exact cases? (Sixteen points in five dimensions.)
# 2. `depths = [2]`: at $L=2$ collapse is optimal over all ranks. Is each code still critical at its own rank?
# 3. `scale = 0.2`: do networks of seven and nine classes still end in depth's own solutions?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
