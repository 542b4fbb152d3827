# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Explicit codes beat neural collapse, from three layers on if there are six classes, and networks end in codes that it beats
#
# **Question.** The flow ends in critical points of the margin problem at fixed weight norm (notebook 21). For which numbers of classes and depths is there a
# code that one can write down and whose margin exceeds that of neural collapse? And does a network end where the margin is largest?
#
# **Answer.** For every $L\ge3$ and every $K\ge6$: the orthoplex for even $K$, pairs and a triangle for odd; for $K = 4$ and 5 from $L = 4$. None does for $K = 3$ or at $L = 2$ (notebook 27), and at $L = 3$ none is known for $K = 4, 5$. But largest is not what is
# reached: at $K = 6$, $L = 3$, from random starts of scale 0.5, a third of the networks end in a code with a *smaller* margin than collapse, and stay there.
# Before: [24, the best rank](24_best_rank.ipynb). After: [26, the floor of rank two](26_rank_two.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/2_margin/25_collapse_is_beaten.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/2_margin/25_collapse_is_beaten.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("25_closed_forms")

# %% [markdown]
# *Margin of three codes over that of neural collapse (the line at 1) against depth. In a logarithmic scale each is straight, of slope $\frac12\log\frac{K-1}r$ for a code of rank $r$: depth
# prices rank exponentially. The orthoplex overtakes collapse first; of these three, whoever has the lowest rank wins in the end. At $K = 4$ all three are the square.*
# [Drawn by](../../figures/25_closed_forms.py)
#
# ## Statement
#
# **Even $K$.** The orthoplex, $K/2$ antipodal pairs of orthogonal directions, has $\gamma_L = \frac12(K/2)^{-L/2}$, collapse $(K-1)^{-L/2}$. So
# $$\frac{\gamma_L^{\rm orthoplex}}{\gamma_L^{\rm NC}} = \frac12\Bigl(2-\frac2K\Bigr)^{L/2} > 1 \iff \Bigl(2-\frac2K\Bigr)^{L/2} > 2 .$$
# The left side rises with $K$ and with $L$, and is $(5/3)^{3/2} = 2.15$ at $K = 6$, $L = 3$. *Hence collapse is beaten for every $L\ge3$ and every even $K\ge6$, and for $K = 4$ from $L = 4$*
# ($(3/2)^2 = 2.25$, while $(3/2)^{3/2} = 1.84$). $\square$
#
# **Odd $K$.** Put two or more simplices on groups of $k_i\ge2$ classes in orthogonal subspaces, $Z = \bigoplus_i s_i(I - J/k_i)$. Between groups the margin is $z_{cc} = s_i(1 - 1/k_i)$, inside one it is $s_i$; at
# smallest margin 1, $s_i = k_i/(k_i - 1)$ and, with $p = 2/L$,
# $$\gamma_L = \Bigl(\sum_i(k_i-1)\Bigl(\frac{k_i}{k_i-1}\Bigr)^{p}\Bigr)^{-1/p}.$$
# With $(K-3)/2$ pairs and one triangle at $L = 3$ the bracket is $\frac{K-3}2\,2^{2/3} + 2\,(3/2)^{2/3}$, linear in $K$ with slope $2^{-1/3} < 1$, against $K - 1$ for collapse: who wins at $K = 7$ wins for
# all odd $K\ge7$, and at $K = 7$ the ratio of margins is 1.053. The bracket falls with $p$ and $K - 1$ does not: the code wins at every $L\ge3$. For $K = 5$, $\sqrt2 + \sqrt6 = 3.86 < 4$ at $L = 4$: it wins from there on. $\square$
#
# **The ladder of pairs.** $P(K, t)$ has $t$ antipodal pairs and $K - 2t$ single classes: logits 1 on the diagonal, $-1$ between partners, 0 elsewhere, centred. $t = 0$ is collapse and $2t = K$ the
# orthoplex. Its singular values are 2 ($t$ times), 1 ($K - 2t - 1$ times) and $\sqrt{2t/K}$ once (the part that centring leaves of the sum of the singles), so its rank is $K - t$ ($K - 1$ at $t = 0$) and
# $$\gamma_L = \bigl(t\,2^p + K - 2t - 1 + (2t/K)^{p/2}\bigr)^{-1/p}.$$
# For odd $K$ its top rung is better than pairs and a triangle: 1.0765 at $K = 7$, $L = 3$.
#
# **Which rungs are critical.** *$P(K, t)$, $K\ge3$, is a KKT point at every depth for every $t\ne1$, and at no depth for $t = 1$.* The equations of notebook 21 are linear in $\lambda$, so if they have a solution, its average over the
# symmetries of $P(K, t)$ is one: multipliers $x$ (sample of a pair, class of another pair), $y$ (pair, single), $w$ (single, pair), $v$ (single, single); partners have margin 2 and none. Let $n = K - 2t$.
#
# 1. Differences of partners, $\sigma = 2$: $(2t - 2)\,x + n\,y = 2^{p-1}$. Contrasts of singles, $\sigma = 1$: $2t\,w + n\,v = 1$.
# 2. The last singular value: its right vector is constant on the singles and 0 on the pairs, its left one takes different values on both. $\Lambda V = U\Sigma^{p-1}$ gives $2t\,w = (2t/K)^{p/2}\le1$, so $v\ge0$; $\Lambda^\top U = V\Sigma^{p-1}$ at the
#    samples of pairs gives $n\,y = 0$.
# 3. What is left is $(2t - 2)\,x = 2^{p-1}$: solved by an $x > 0$ for $t\ge2$, by none for $t = 1$. $\square$

# %% tags=["parameters"]
num_classes: int = 6  # classes K of the ladder that is climbed by networks [5, 12]
depth: int = 3  # its depth L, the features included [3, 12]
width: int = 16  # hidden width d [5, 128]
scale: float = 0.5  # initial scale: entries N(0, scale²/fan-in) [0.01, 2]
networks: int = 256  # random networks [4, 4096]
disturbance: float = 0.01  # noise on every factor, over its norm [1e-4, 0.5]
most_classes: int = 40  # largest K at which direct sums are checked [8, 200]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import certificate, claims, codes, figures, margin, notebook, search, stats

p = notebook.start("25_collapse_is_beaten", globals())

# %% [markdown]
# ## One matrix
#
# Seven classes, two pairs and a triangle: its margin from its logits and from the formula, both over that of collapse.

# %%
Z = torch.block_diag(*(k / (k - 1) * (torch.eye(k, dtype=torch.float64) - 1 / k) for k in (2, 2, 3)))
collapse = dufm.closed_form_margin("nc", 7, 3)
print(f"from the logits {float(dufm.normalized_margin(Z, 3)) / collapse:.6f}, from the formula {margin.direct_sum_margin([2, 2, 3], 3) / collapse:.6f}")

# %%
kinds = {"polygon": range(4, 17), "orthoplex": (6, 8, 16), "hypercube": (8, 16)}
depths = range(2, 21)
curves = [(K, L, kind, dufm.closed_form_margin(kind, K, L) / dufm.closed_form_margin("nc", K, L)) for kind, Ks in kinds.items() for K in (4, 6, 8, 16) if K in Ks for L in depths]
figures.store("25_closed_forms", pandas.DataFrame(curves, columns=["num_classes", "depth", "code", "ratio"]))

# %% tags=["figure"]
figures.show(
    "25_closed_forms",
    alt="Margin of polygon, orthoplex and hypercube over that of collapse against depth, for 4, 6, 8 and 16 classes (the hypercube for 8 and 16), logarithmic. Each is a straight line that rises "
    "with depth and crosses 1; the orthoplex crosses first, the polygon later but ends highest.",
)

# %% [markdown]
# The formulas against the matrices, for all $K$ up to 40 (pairs, with a triangle where $K$ is odd) and for every rung; and which rungs are KKT points:

# %%
sums = [[2] * (K // 2) if K % 2 == 0 else [2] * ((K - 3) // 2) + [3] for K in range(6, p.most_classes + 1)]
matrices = [torch.block_diag(*(k / (k - 1) * (torch.eye(k, dtype=torch.float64) - 1 / k) for k in sizes)) for sizes in sums]
found = np.array([float(dufm.normalized_margin(Z, 3)) for Z in matrices])
mismatch = np.abs(found / [margin.direct_sum_margin(sizes, 3) for sizes in sums] - 1).max()
least = min(found / [dufm.closed_form_margin("nc", sum(sizes), 3) for sizes in sums])
rungs = pandas.DataFrame([(K, t, L) for K in (5, 6, 7, 8) for L in (2, 3, 4, 6) for t in range(1, K // 2 + 1)], columns=["K", "t", "L"])
logits = {(K, t): codes.pairs_and_singles(K, t) for K, t in zip(rungs["K"], rungs["t"], strict=True)}
rungs["residual"] = [float(dufm.kkt_residual(logits[K, t], L, K - t)) for K, t, L in rungs.to_numpy().tolist()]
rungs["error"] = [float(dufm.normalized_margin(logits[K, t], L)) / margin.ladder_margin(K, t, L) - 1 for K, t, L in rungs[["K", "t", "L"]].to_numpy().tolist()]
one, more = rungs[rungs["t"] == 1], rungs[rungs["t"] > 1]
print(f"residual of one pair: at least {one['residual'].min():.3f}; of two pairs or more: {stats.below(more['residual'].max(), 1e-12)}")

# %% [markdown]
# ## Which rungs are reached
#
# Networks at $K = 6$, $L = 3$, followed to their ends. Beside each rung: the smallest *curvature* of the Lagrangian among matrices of its rank (0: no direction leads down), and $\beta$, the norm of
# the multipliers' block off the range against their size on it. A dropped singular value $\varepsilon$ in that block, if it adds the same to all tight margins, obeys $\dot\varepsilon\propto\beta\varepsilon^{2-p}$ beside $\dot s\propto s^{2-p}$ of the kept ones, so
# $\varepsilon^{-q} - \beta s^{-q}$, $q = 1 - p$, is conserved: it freezes if $(\varepsilon/s)^q < 1/\beta$. From $L = 3$ on every $\beta$ leaves room below; at $L = 2$, $q = 0$ and only $\beta < 1$ would do. Notebook [28](28_complement.ipynb) proves and measures this.

# %%
K, L = p.num_classes, p.depth
start = dufm.gaussian_init(L, p.width, K, scale=p.scale, batch=p.networks, seed=p.seed)
limit = dufm.limit([W.to(notebook.device()) for W in start])
end = dufm.end(limit, L)
names = ["NC", f"1 pair, {K - 2} single"] + [str(codes.name_of(codes.pairs_and_singles(K, t))) for t in range(2, K // 2 + 1)]
rows = []
for t, name in enumerate(names):
    Z = codes.pairs_and_singles(K, t)
    proof = dufm.kkt_certificate(Z, L, K - max(t, 1))
    curvature = search.stratum_curvature(Z, L, K - max(t, 1)) if proof.holds() else np.nan
    ratio = margin.ladder_margin(K, t, L) / dufm.closed_form_margin("nc", K, L)
    rows.append((name, ratio, stats.below(proof.residual, 1e-12), round(curvature, 6) + 0.0, float(certificate.off_range_values(Z, L, proof)[0]), int((end.name == name).sum())))
ladder = pandas.DataFrame(rows, columns=["end", "margin over collapse", "residual", "curvature", "beta", "networks"])
ladder.assign(share=[stats.share(n, p.networks) for n in ladder["networks"]]).round(4)

# %% [markdown]
# Every network is on the ladder. The rung of two pairs has 0.9857 of the margin of collapse and is reached as often as the orthoplex. *It attracts*: all factors of the networks at rest there are
# disturbed by independent noise of 1% of their norm, and followed to the limit again.

# %%
rung = next(name for name in [*names[2:], "NC", *end.name] if (end.name == name).any())  # two pairs, where networks end there
settled = np.flatnonzero(end.name == rung)[:16]
draw = torch.Generator().manual_seed(p.seed)
resting = [W[settled].cpu() for W in limit.factors]
noise = [torch.randn(W.shape, generator=draw, dtype=W.dtype) for W in resting]
size = [torch.linalg.matrix_norm(W, keepdim=True) / torch.linalg.matrix_norm(N, keepdim=True) for W, N in zip(resting, noise, strict=True)]
back = dufm.end([(W + p.disturbance * s * N).to(notebook.device()) for W, s, N in zip(resting, size, noise, strict=True)], L)
left = int((back.name != rung).sum())
print(f"{len(settled) - left} of {len(settled)} return")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("25-beaten-at-three", least)
claims.check("25-direct-sums", mismatch)
claims.check("25-ladder", more["error"].abs().max())
claims.check("25-rung-kkt", more["residual"].max())
claims.check("25-one-pair", one["residual"].min())
claims.check("25-rung-share", stats.wilson(ladder["networks"][2], p.networks)[0])
claims.check("25-rung-returns", left)

# %% [markdown]
# ## Where it breaks
#
# *Small $K$ and $L$.* At $L = 3$ no code of the ladder beats collapse for $K\le5$: at $K = 5$ its top rung has 0.963 of the margin. *Multipliers of the orthoplex are not unique*: $\beta$ is that of least norm, $K/(K-2)$; a sparse choice gives
# another value. *Curvature 0 is no proof of a minimum*: turns of the factors always give it; that noise does not drive networks away is the stronger sign.
#
# ## Try it ([answers](../answers.md#25))
#
# 1. `scale = 0.2` and `scale = 1.0`: does the rung become commoner or rarer?
# 2. `num_classes = 8`: which rungs are reached now, and which have a margin above collapse?
# 3. Derive the depth at which the polygon overtakes the orthoplex for even $K$, and find it in the figure.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
