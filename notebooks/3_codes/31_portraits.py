# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What trained networks draw: bodies, and in deeper networks polygons
#
# **Question.** A network without regularisation is trained on a handful of classes until nothing but the scale of its logits grows. It has
# sixteen dimensions in which to place the classes. How does it arrange them, and what does depth change?
#
# **Answer.** In regular shapes, and the deeper the network, the flatter: tetrahedron, pyramid, octahedron and antiprism in shallower networks,
# square, pentagon, hexagon and octagon in deeper ones. Neural collapse, the simplex in $K-1$ dimensions, is what the shallowest draw.
# Before: [29, the depth of rank two](../2_margin/29_rank_two.ipynb). After: [32, the codes that are known](32_known_codes.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/3_codes/31_portraits.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/3_codes/31_portraits.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("31_portraits")

# %% [markdown]
# *Each dot is a class: its feature half-way through a trained network of width 16 ($W_1$ at $L=2$), at rest and unpolished, in the network's own two or three
# leading directions. Each panel shows the most frequent end among the networks of its setting, and how many of them end there.
# A column has the same classes, above in the shallower network.* [Drawn by](../../figures/31_portraits.py)

# %% [markdown]
# ## Statement
#
# A picture of features is a picture of the *logits* only if one knows what the layers in between do. At rest one does:
#
# *Let the flow of $W_L\cdots W_1 = Z$ go on until its direction rests, at $Z\to U\Sigma V^\top$ up to scale. Then the features after $m$ layers,
# $H_m = W_m\cdots W_1$, have up to scale the Gram matrix*
# $$H_m^\top H_m \;\to\; (Z^\top Z)^{m/L} = V\,\Sigma^{2m/L}\,V^\top .$$
#
# **Proof.**
# 1. The flow conserves each $D_l = W_{l+1}^\top W_{l+1} - W_lW_l^\top$ ([12](../1_model/12_balance.ipynb)), while the factors grow without bound. Relative to
#    their squares the $D_l$ vanish: in the limit $W_{l+1}^\top W_{l+1} = W_lW_l^\top$.
# 2. Then $H_m^\top H_m = (W_1^\top W_1)^m$, by induction. For $m+1$, move the balance inwards one layer at a time:
#    $H_m^\top(W_{m+1}^\top W_{m+1})H_m = H_m^\top(W_mW_m^\top)H_m = H_{m-1}^\top(W_m^\top W_m)^2H_{m-1} = \dots = (W_1^\top W_1)^{m+1}.$
# 3. For $m=L$ this is $Z^\top Z$, so $W_1^\top W_1 = (Z^\top Z)^{1/L}$, and step 2 gives the claim. $\square$
#
# Consequences for the eye. Every layer shows the same directions $V$, and the dimension of the picture is the rank of $Z$. Where the singular values of
# $Z$ are equal (simplex, polygon, octahedron) every layer shows the same shape. Where they are not (pyramid, antiprism) the
# powers $\sigma_i^{m/L}$ make early layers rounder than late ones.
#
# ## One network
#
# Six classes in a network of six layers. The flow runs to $\log\mathcal L=-10^4$, from there its limit is followed until the
# direction rests, and `dufm.end` finds and certifies the solution it has arrived at (the rule of [21](../2_margin/21_where_the_flow_ends.ipynb)).

# %% tags=["parameters"]
classes: list[int] = [4, 5, 6, 8]  # numbers of classes K, a column each [3, 10]
shallow: list[int] = [2, 4, 4, 6]  # depth L of the upper network of each column [2, 12]
deep: list[int] = [6, 6, 6, 10]  # depth L of the lower network of each column [2, 12]
networks: int = 16  # random networks for each panel [2, 256]
width: int = 16  # hidden width d [8, 64]
scale: float = 0.7  # initial scale: entries N(0, scale²/fan-in) [0.05, 2]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
from collections import Counter
from itertools import accumulate

import pandas
import torch

import dufm
from dufm import claims, codes, figures, notebook, stats

p = notebook.start("31_portraits", globals())
if len(p.classes) > min(len(p.shallow), len(p.deep)) or any(a >= b for _, a, b in zip(p.classes, p.shallow, p.deep)):
    raise dufm.DufmError("every class needs a shallow depth, and a deep one above it")

# %%
run = dufm.gradient_flow(dufm.gaussian_init(6, p.width, 6, scale=p.scale, seed=p.seed), until_log_loss=-1e4)
rest = dufm.limit(run)
end = dufm.end(rest, 6)
H = rest.factors[2][0] @ rest.factors[1][0] @ rest.factors[0][0]
X = codes.principal_points(H, int(end.rank))
print(f"{end.name[0]} of rank {int(end.rank)}, margin over collapse {float(end.margin_ratio):.4f}")
lengths = X.norm(dim=1)
print(f"features after three layers: lengths {lengths.min():.4f} to {lengths.max():.4f}, smallest angle {codes.smallest_angle(X):.3f}°")

# %% [markdown]
# ## All panels
#
# For every column both depths, many networks each. The panel takes the most frequent end and draws the first network that arrived there. What is
# compared with the proof are the features themselves against $\Sigma^{m/L}V^\top$ of the certified end, which the network has never seen.


# %%
def train(K, L):
    start = dufm.gaussian_init(L, p.width, K, scale=p.scale, batch=p.networks, seed=p.seed)
    rest = dufm.limit(dufm.gradient_flow(start, until_log_loss=-1e4))
    return rest, dufm.end(rest, L)


def predicted(Z, share, rank):
    _, sigma, Vh = torch.linalg.svd(Z)
    return codes.principal_points(sigma[:rank, None] ** share * Vh[:rank], rank)


# %%
points, rows, ranks = [], [], {}
for K, L in notebook.progress([*zip(p.classes, p.shallow), *zip(p.classes, p.deep)], label="K, L"):
    rest, end = train(K, L)
    name, runs = Counter(end.name[end.decided.numpy()].tolist()).most_common(1)[0]
    first, half = end.name.tolist().index(name), max(L // 2, 1)
    rank, layers = int(end.rank[first]), accumulate((W[first] for W in rest.factors[:-1]), lambda H, W: W @ H)
    drawn = [codes.principal_points(H, rank) for H in layers]
    laws = [predicted(end.Z[first], m / L, rank) for m in range(1, L)]
    X, error = drawn[half - 1], max(float((X @ X.T - law @ law.T).abs().max()) for X, law in zip(drawn, laws))
    ranks[K, L] = torch.where(end.decided, end.rank, 2 if (K, L) in zip(p.classes, p.shallow) else K - 1).numpy()
    rows.append((K, L, name, rank, runs, ranks[K, L].mean(), error))
    places = torch.nn.functional.pad(X, (0, 3))[:, :3].tolist()
    points += [(K, L, name, rank, runs, p.networks, *place) for place in places]
names = ["num_classes", "depth", "name", "rank", "runs", "networks", "x", "y", "z"]
figures.store("31_portraits", pandas.DataFrame(points, columns=names))

# %% tags=["figure"]
figures.show(
    "31_portraits",
    alt="Features of trained networks, a dot for each class, in four columns for 4, 5, 6 and 8 classes. Above, in shallower networks, bodies: "
    "the tetrahedron of neural collapse, a square pyramid, an octahedron, a square antiprism. Below, in deeper ones, regular polygons.",
)

# %% [markdown]
# The same in numbers. *Mean rank* is over all networks of the setting (undecided ones counted with rank 2 in the shallow networks and $K-1$ in the deep ones, which makes the fall least), *off the law* the largest
# deviation of an inner product of the drawn features from those of $\Sigma^{m/L}V^\top$, at mean length 1.

# %%
table = pandas.DataFrame(rows, columns=["K", "L", "most frequent", "rank", "runs", "mean rank", "off the law"])
table.assign(**{"off the law": [stats.below(x, 1e-6) for x in table["off the law"]]}).sort_values(["K", "L"]).round(2)

# %% [markdown]
# ## Verdict
#
# The fall of the rank from the upper to the lower network is judged by the lower end of its 95% interval over the networks, in the column where it is
# smallest.

# %% tags=["verdict"]
falls = [stats.mean_interval(ranks[K, a] - ranks[K, b])[1] for K, a, b in zip(p.classes, p.shallow, p.deep)]
claims.check("31-rank-falls", min(falls))
claims.check("31-features", table["off the law"].max())

# %% [markdown]
# ## Where it breaks
#
# *Most frequent is not always.* At depth 6 half of the networks of six classes do not end in the hexagon, and one ends in no named shape ([35](35_reached.ipynb) counts all ends). Nor is every shape one of those that mathematicians have names for: seven classes in three dimensions have
# an irregular one ([33](33_depth_against_code.ipynb)). *Bodies of rank 4 and more* cannot be drawn: six to ten classes at small depth
# end there, and the figure would show their three leading directions.
#
# *The law is one of the limit.* At a finite loss the features still carry what the start has left in the other directions:

# %%
start = dufm.gaussian_init(4, p.width, 6, scale=p.scale, seed=p.seed)
left = {}
for log_loss in (-10.0, -100.0, -1e3, -1e4):
    W = dufm.gradient_flow(start, until_log_loss=log_loss).factors
    left[f"log loss {log_loss:g}"] = torch.linalg.svdvals(W[1] @ W[0])[0] / torch.linalg.svdvals(W[1] @ W[0])[0, 0]
pandas.DataFrame(left, index=[f"σ_{i} / σ_1" for i in range(1, 7)]).T.round(3)

# %% [markdown]
# ## Try it ([answers](../answers.md#31))
#
# 1. `classes = [7]`, `shallow = [4]`, `deep = [8]`: which body do seven classes make, and is it flat at depth 8?
# 2. `width = 8`: do narrower networks draw flatter pictures at the same depth?
# 3. `scale = 0.3`: from which depth on does a smaller start give polygons?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
