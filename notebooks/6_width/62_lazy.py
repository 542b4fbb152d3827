# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A wide random network is lazy: it moves like a linear model until its logits have outgrown the start
#
# **Question.** Why does width protect neural collapse? Depth amplifies differences between singular values; what keeps it from doing so in a wide network?
#
# **Answer.** At the start all layers around a given one act on it like multiples of the identity, up to $O(d^{-1/2})$. So the logits move like those of a linear model, straight towards collapse, and no direction is amplified. That lasts while they are small beside $s_\text{lazy} = L\sigma^L\sqrt{d/K}$, and how fast it ends depends, in wide enough networks, on the depth and on $s/s_\text{lazy}$ alone.
#
# Before: [61, the diagram](61_diagram.ipynb). After: [63, the half-width](63_half_width.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/6_width/62_lazy.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/6_width/62_lazy.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("62_lazy")

# %% [markdown]
# *How much faster the logits move than at the start, against their size $s$, for eight pairs of depth and scale and two widths: one curve a depth. Dashed: the closed forms for $L = 2$, where the width stands in it (upper: 128), and 3. [Drawn by](../../figures/62_lazy.py)*
#
# ## Statement: the rate at the start
#
# Let $A_l = (W_L\cdots W_{l+1})(W_L\cdots W_{l+1})^\top$ and $B_l = (W_{l-1}\cdots W_1)^\top(W_{l-1}\cdots W_1)$, both $K \times K$. From $\dot W_l = -\partial\mathcal L/\partial W_l$ and $-\partial\mathcal L/\partial Z = I - P$, with $P$ the softmax of the logits,
#
# $$\dot Z = \sum_{l=1}^L A_l\,(I-P)\,B_l.$$
#
# *Let the factors be Gaussian, $W_l\sim N(0,\sigma^2/\text{fan-in})$, and let $d\to\infty$ at fixed $K$, $L$, $\sigma$. Then $A_l \to \sigma^{2(L-l)} I$ for every $l$, $B_1 = I$, $B_l\to\sigma^{2(l-1)}(d/K)\,I$ for $l\ge2$, and therefore*
#
# $$\dot Z \approx \kappa\,(I-P), \qquad \kappa \to \kappa_0 = \sigma^{2L-2}\Bigl(1 + (L-1)\frac dK\Bigr).$$
#
# **Proof.**
# 1. A Gaussian matrix of variance $\sigma^2/m$ with $m$ columns, applied to a fixed vector $x$, gives a vector of independent entries of variance $\sigma^2|x|^2/m$. If it has $n$ rows, its squared length is $\sigma^2|x|^2(n/m)(1 + O(n^{-1/2}))$, by the law of large numbers.
# 2. Polarisation extends this to inner products: $K$ fixed orthonormal vectors go to $K$ vectors that are orthogonal and of equal length up to $O(n^{-1/2})$.
# 3. $B_l$ is the Gram matrix of the $K$ unit vectors after $l - 1$ layers. The first has $m = K$, $n = d$ and gives $\sigma^2d/K$; each of the others has $m = n = d$ and gives $\sigma^2$. The layers are independent, so the steps follow each other.
# 4. $A_l$ is the same from the other side: $W_L^\top$ takes the $K$ unit vectors to $d$ dimensions with entries of variance $\sigma^2/d$, which gives $\sigma^2$, and so does each further layer.
# 5. Summing $\sigma^{2(L-l)}\cdot\sigma^{2(l-1)}d/K = \sigma^{2L-2}d/K$ over $l\ge2$ and adding $l = 1$ gives $\kappa_0$. $\square$
#
# This is the flow of a linear model. It lacks the factor $s^{2-2/L}$ of small balanced networks, and with it the repulsion of singular values ([52](../5_dynamics/52_repulsion.ipynb)): $Z$ heads for $I - J/K$, while $Z(0)$, of size $\sigma^L\sqrt K$, stays where it is.

# %% tags=["parameters"]
widths: list[int] = [16, 32, 64, 128, 256, 512, 1024]  # widths of the products [8, 4096]
wide: list[int] = [128, 512]  # widths of the flows [16, 2048]
networks: int = 16  # random networks of the products [2, 1024]
flows: int = 4  # networks followed for each depth, scale and width [1, 64]
scale: float = 1.0  # initial scale σ of the products [0.1, 2]
seed: int = 0  # first seed [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas

import dufm
from dufm import claims, lazy, notebook, sweep

p = notebook.start("62_lazy", globals())
K = 4

# %% [markdown]
# ## One network
#
# Four classes, four layers, more and more hidden units. The eigenvalues of the products on both sides of the second layer, over their limits $\sigma^{2(L-l)}$ and $\sigma^{2(l-1)}d/K$:

# %%
for d in p.widths[:: max(len(p.widths) // 2, 1)]:
    A, B = lazy.layer_products(dufm.gaussian_init(4, d, K, scale=p.scale, seed=p.seed))
    left, right = (np.linalg.eigvalsh(M[1][0]) for M in (A, B))
    print(f"d = {d:4d}: above {np.round(left / p.scale**4, 2)}, below {np.round(right / (p.scale**2 * d / K), 2)}")

# %% [markdown]
# `lazy.at_start` takes the largest relative distance over all layers, the worst condition number, and the rate $\kappa = \langle\dot Z, I - P\rangle/\|I - P\|^2$ over $\kappa_0$. Medians over the networks:

# %%
grid = {"num_classes": [K], "depth": [4], "width": p.widths, "scale": [p.scale]}
starts = sweep.run(lazy.at_start, grid, seeds=range(p.seed, p.seed + p.networks), **notebook.sweep_options())
products = starts.groupby("width")[["left", "right", "condition", "rate"]].median()
exponents = {side: np.polyfit(np.log(products.index), np.log(products[side]), 1)[0] for side in ("left", "right")}
figures.store("62_products", products[["left", "right"]].reset_index())
products.round(3)

# %% tags=["figure"]
figures.show("62_products", alt="Largest relative distance of the products around a layer from multiples of the identity, against hidden width, both axes logarithmic: two falling lines along a dashed line of slope minus one half.")

# %% [markdown]
# *Median over the networks, $K = 4$, $L = 4$; the vertical axis is the distance in Frobenius norm, over that of the limit. [Drawn by](../../figures/62_products.py)*
#
# ## How long it stays lazy
#
# The rate changes when the layers do. At depth 3 one can say exactly how.
#
# **Statement.** *Let $L = 3$ and $d\to\infty$ at fixed $s/s_\text{lazy}$, $s_\text{lazy} = L\sigma^L\sqrt{d/K}$, and let $\sigma\to0$, so that $Z(0)$, of size $\sigma^3$, leaves no trace in the softmax. Then $\kappa/\kappa_0 = \sqrt{1 + (3s/s_\text{lazy})^2}$.*
#
# **Proof.**
# 0. The logits are then $sC$ and the force is $I - P = g(s)\,C$. The rows $u_c$ of $W_3$ and the vectors $W_2W_1e_c$ start orthogonal and of equal lengths in the limit; the equations below keep both properties, so that every direction $v$ in the range of $C$ moves alike and the logits stay $sC$.
# 1. Take one direction $v$. Its features $x = W_1v$ have the length $|x| = \sigma\sqrt{d/K}$, frozen in the limit: $\dot x = g\,W_2^\top u$ moves $x$ by a share of itself that is $|u|^2/|x|^2 = O(K/d)$ of the share by which $\dot u = gW_2x$ moves $u$. Let $u$ be the row of $W_3$ that reads it and $h = W_2x$, so that $s = u\cdot h$.
# 2. With $g$ the pull of the loss, $\dot u = g\,h$ and $\dot h = g\,|x|^2u$. For $h = |x|\tilde h$ this reads $\dot u = g|x|\tilde h$, $\dot{\tilde h} = g|x|u$: a hyperbolic rotation.
# 3. Its constants are $|u|^2 - |\tilde h|^2$ and $(|u|^2 + |\tilde h|^2)^2 - 4(u\cdot\tilde h)^2$. At the start $|u| = |\tilde h| = \sigma$ and $u\cdot\tilde h \approx 0$, so the second is $4\sigma^4$.
# 4. $\dot s = g|x|^2(|u|^2+|\tilde h|^2)$, hence $\kappa = |x|^2\sqrt{4\sigma^4 + 4s^2/|x|^2}$, which at $s = 0$ is $2\sigma^4d/K$, the leading part of $\kappa_0$. The ratio is $\sqrt{1 + s^2/(\sigma^4|x|^2)}$, and $\sigma^2|x| = s_\text{lazy}/3$. $\square$
#
# At $L = 2$ both $u$ and $x$ move, and the same two constants give $\kappa = \sqrt{\kappa_0^2 + 4s^2}$: lazy up to $s\approx\kappa_0/2$, longer than $s_\text{lazy}$ says. At $L\ge4$ more than two layers move and we measure whether $\kappa/\kappa_0$ depends on $s/s_\text{lazy}$ alone.

# %%
settings = [(2, 1.0), (3, 0.8), (3, 0.3), (3, 0.1), (4, 0.8), (4, 0.3), (6, 0.8), (6, 0.6)]
seeds, levels = range(p.seed, p.seed + p.flows), np.geomspace(1 / 16, 1.0, 9)
parts = []
for (L, s, d) in notebook.progress([(L, s, d) for L, s in settings for d in p.wide], label="lazy range"):
    path = pandas.DataFrame(lazy.lazy_path(seeds, K, L, d, s, levels=levels, device=notebook.device()))
    law = lazy.lazy_law(path.ratio * lazy.lazy_size(L, d, K, s), L, d, K, s)
    parts.append(path.assign(depth=L, scale=s, width=d, law=law))
paths = pandas.concat(parts, ignore_index=True)
figures.store("62_lazy", paths)

# %% tags=["figure"]
figures.show(
    "62_lazy",
    alt="Rate of the logits over that at the start against their size over s_lazy, both axes logarithmic. The marks of each depth fall nearly on one curve whatever the scale and the width, those of depth 6 least: "
    "flat for depth 2, rising to 3 at depth 3, to 7 at depth 4 and to 20 at depth 6. At depth 3 the wider networks lie on the dashed closed form; at depth 2 all stay within a sixth of 1, below their closed forms by up to 7%.",
)


# %% [markdown]
# The rate at fractions of $s_\text{lazy}$, and how far the logits have left the straight path by a quarter of it, $\|Z - Z(0) - sC\|/\|sC\|$ with $C = I - J/K$. At scales where $s_\text{lazy}$ is large the loss ends first.

# %%
def at(path, ratio, column):
    """A column where s/s_lazy is ``ratio``, between the recorded levels; NaN where the flow ended before."""
    return np.interp(np.log(ratio), np.log(path.ratio), path[column], right=np.nan)


shown = {"at 1/8": (1 / 8, "growth"), "at 1/4": (1 / 4, "growth"), "at 1/2": (1 / 2, "growth"), "beside C at 1/4": (1 / 4, "beside")}
lazy = paths.groupby(["depth", "scale", "width"]).apply(lambda path: pandas.Series({name: at(path, *place) for name, place in shown.items()}))
lazy.round(3)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("62-products", max(abs(exponent + 0.5) for exponent in exponents.values()))
claims.check("62-rate-limit", products.rate.iloc[-1])
of_three = paths[(paths.depth == 3) & (paths.width == max(p.wide))]
claims.check("62-rate-three", (of_three.growth / of_three.law - 1).abs().max())
quarter = lazy["at 1/4"].groupby("depth")
claims.check("62-rate-collapse", (quarter.max() / quarter.min()).max())

# %% [markdown]
# ## Where it breaks
#
# *Width is a slow remedy.* The distances fall like $d^{-1/2}$, and they add up along the layers: at $d = 32$ the worst product around a layer of four still has a condition number of 7. That $\kappa/\kappa_0$ is a function of $s/s_\text{lazy}$ and the depth alone holds within 3% at $d = 512$; at $d = 128$ it still depends on the scale and the width, by up to 11% at $L = 4$ and 17% at $L = 6$, so the claim deviates: the deeper the network, the later the limit.
#
# *The limit is not uniform in $s$.* However wide the network, it stops being lazy when $s$ passes $s_\text{lazy}$, and training goes on to infinite $s$. Lazy training alone therefore does not lead to collapse. Whether it does is decided by what the repulsion of the singular values still finds when it sets in: [63](63_half_width.ipynb).
#
# ## Try it ([answers](../answers.md#62))
#
# 1. `wide = [64, 1024]`, four minutes: how much nearer are the curves of $L = 6$?
# 2. `scale = 0.5`: do the products of the start change?
# 3. `widths = [8, 16]`: is the exponent still $-1/2$?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
