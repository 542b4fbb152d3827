# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The cube is a certified critical point that only exact symmetry protects
#
# **Question.** For eight classes the cube is the best network that is diagonal in Hadamard's basis, from depth 5 on (notebook 44). Is it optimal among all networks?
#
# **Answer.** No. It satisfies the KKT conditions of the full problem to rounding, and it is not even a local optimum: turn one face against the other and the cost falls from the first degree on, by a closed form, all the way to the square antiprism. A network whose vectors are slightly turned leaves
# the cube, but so slowly, like the power $1/L$ of $-\log\mathcal L$, that no training of reasonable length shows it.
# Before: [46, where training ends](46_training_ends.ipynb). After: [48, descent with finite steps](48_descent.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/4_spectral/47_cube.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/4_spectral/47_cube.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("47_twist")

# %% [markdown]
# *Three layers. Left: least cost at margin 1 against the twist of the upper face; dashed, the best matrix of rank 3 that a search finds. Right: the two ends, the upper face in purple, the lower in grey. [Drawn by](../../figures/47_twist.py)*

# %% [markdown]
# ## Statement
#
# Throughout $p = 2/L$, $Z$ has margin 1 and the cost is $\|Z\|_{S_p} = (\sum\sigma_i^p)^{1/p}$.
#
# **Critical.** *A spectrum that satisfies the KKT conditions of $\min\sum s_i^p$ on its support, under the margins of notebook 44, gives a KKT point of the full problem.*
#
# **Proof.** Let $\mu_a\ge0$ be its multipliers: $\frac1K\sum_a\mu_a(1 - \chi_i(a)) = s_i^{p-1}$ where $s_i > 0$. Give every pair of classes at difference $a$ the multiplier $\lambda_{c\oplus a,\,c} = \mu_a/K$. Then $\Lambda = \sum\lambda_{jc}(e_c - e_j)e_c^\top$ depends on differences only, so $\Lambda\chi_i = \frac1K\sum_a\mu_a(1 - \chi_i(a))\,\chi_i$,
# which is $s_i^{p-1}\chi_i$ on the support: the certificate of the full problem. $\square$
#
# At the cube the tight margins are the three $a$ of one bit, with equal $\mu$, so $\Lambda$ has on $\chi_i$ an eigenvalue proportional to the number of ones of $i$: in units of its value on the range, $\beta = 2$ three times and $\beta = 3$ once.
#
# **Not optimal.** *Let the corners of the upper face be $(\cos, \sin, h)$ at angles turned by $\varphi$, $0\le\varphi\le45°$, against the lower face at $-h$. With $h^2 = \frac12\cos\varphi$ the margin is 1 and the cost $4\,(2 + \cos^p\varphi)^{1/p}$, which falls strictly. At $L = 3$ no other height costs less.*
#
# **Proof.** $Z = WW^\top$ has the singular values $4, 4, 8h^2$. Neighbours in a face have margin $1$; the nearest corner of the other face has $1 - \cos\varphi + 2h^2$, which is $1$ at this height; all others have at least as much. $\cos\varphi$ falls, and the cost with it. At $\varphi = 0$ this is the cube, of cost $4\cdot3^{L/2}$; the second derivative there is $-4\cdot3^{L/2-1}$.
# With $x = 2h^2$ and $c = \cos\varphi$ the cost at margin 1 is $4(2 + x^p)^{1/p}/\min(1, 1 - c + x)$. It rises for $x > c$; below, its slope has the sign of $x^{p-1}(1-c) - 2$, which changes once: it rises and then falls. So the least is at $x = c$ or at $x = 0$, and the latter, $4\cdot2^{L/2}/(1-c)\ge38$ at $L = 3$, is more than the cube's $20.8$. $\square$
#
# **Slow.** *Of all small deviations of rank 3 from the ray of the cube only twists, a space of dimension 2, grow to first order, like $s^{1/L}$, and so like $(-\log\mathcal L)^{1/L}$; all others decay.*
#
# **Proof.**
# 1. *Twists.* $D = \sum_kx_k(\chi_k\chi_{\bar k}^\top + \chi_{\bar k}\chi_k^\top)$, $\sum x = 0$, $\bar k$ the two bits other than $k$, changes no tight margin, and $\beta = 2$: [notebook 28](../2_margin/28_complement.ipynb), part 4.
# 2. *All others.* $Z\mapsto T_bZT_b^\top$ (notebook [43](43_turned_vectors.ipynb)) splits the entries $E_{ij}$ by $d = i\oplus j$. Relative to $s$, with $\log s$ as clock, the flow is $R - sH$: $H\ge0$ from the Hessian of the loss, 0 just where $\sum_{i\ni a}E_{i, i\oplus d} = 0$ for each bit $a$; $R$ has on pairs off the range $(\pm\beta - 1)/L$ for $E_{ij} = \pm E_{ji}$, within the range $q$ and $-1$.
#    Both are symmetric in the metric that counts entries within the range $1/L$ times. Hence the largest eigenvalue of $R - sH$ tends to that of $R$ between vectors of $\ker H$: for $d$ of one bit at most $-1/L$ (only $E_{ij} = -E_{ji}$ is left beside the ones, $\beta = 0$); of two bits $-(3 + 2/L)/(L+1)$, on one vector; of three bits, beside twists, $-2.6/L$; for $d = 0$ it is the ray. $\square$
#

# %% tags=["parameters"]
depth: int = 3  # depth L at which the cube is examined [3, 12]
depths: list[int] = [3, 4, 6, 10]  # depths L at which the rate of leaving is measured [3, 20]
until: float = -2000.0  # log loss to which networks are followed [-4000, -100]
noise: float = 1e-3  # relative size of the disturbance of every entry [1e-8, 0.1]
angles: list[float] = [1e-3, 1e-2, 1e-1]  # angles by which vectors are turned, radians [1e-4, 0.3]
seed: int = 0  # seed of the disturbance, the turn and the search [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import functools

import numpy as np
import pandas as pd
import scipy.optimize
import torch

import dufm
from dufm import claims, figures, notebook, stats
from dufm.search import stratum_curvature
from dufm.spectral import random_turns

p = notebook.start("47_cube", globals())

# %% [markdown]
# ## The cube
#
# The certificate, the singular values of its multipliers off the range, and the smallest curvature of the Lagrangian along matrices of rank 3 that keep the tight margins, relative to the largest. The certificate knows nothing of characters.


# %%
def prism(twist, height):
    """Corners of two unit squares at ±height, the upper one turned by ``twist`` radians, and their logits."""
    corner = np.pi / 4 + np.pi / 2 * np.arange(4)
    faces = [(np.cos(corner + turn), np.sin(corner + turn), np.full(4, level)) for turn, level in ((twist, height), (0.0, -height))]
    W = torch.from_numpy(np.hstack(faces).T)
    return W, W @ W.mT


corners, cube = prism(0.0, np.sqrt(0.5))
certificate = dufm.kkt_certificate(cube, p.depth, 3)
beta = dufm.off_range_values(cube, p.depth, certificate)
curvature = stratum_curvature(cube, p.depth, 3)
print(f"residual {stats.below(float(certificate.residual), 1e-12)}, gap {stats.below(abs(float(certificate.gap)), 1e-12)}")
print("β off the range:", [f"{b:.4f}" for b in beta[:4].tolist()], f"  smallest curvature: {curvature:.4f}")

# %% [markdown]
# Negative curvature: the cube is a saddle of the problem at its own rank. The same certificate for every orbit of vertices; the one that fails at $K = 16$ is no minimum on its own support:

# %%
rows = []
for m in (2, 3, 4):
    orbits = dufm.hadamard_polyhedron(m).orbits
    spectra = torch.tensor([[float(s) for s in v.spectrum] for v in orbits], dtype=torch.float64)
    Z, rank = dufm.characters("hadamard", 2**m).logits(spectra), torch.tensor([v.rank for v in orbits])
    rows.append((2**m, len(orbits), int(dufm.kkt_certificate(Z, p.depth, rank).holds().sum())))
pd.DataFrame(rows, columns=["K", "orbits", f"certified at L = {p.depth}"])

# %% [markdown]
# ## The twist
#
# At each angle the height is searched for numerically, and the cost taken from the singular values of the matrix; the closed form enters only in the comparison. The multi-start search at rank 3 starts from random codes.

# %%
degrees, rows = np.linspace(0.0, 45.0, 46), []
for twist in np.deg2rad(degrees):
    cost = functools.partial(lambda twist, height: 1 / float(dufm.normalized_margin(prism(twist, height)[1], p.depth)), twist)
    best = scipy.optimize.minimize_scalar(cost, (0.3, 0.65, 1.5), method="golden", tol=1e-12)
    rows.append((best.x, best.fun, 4 * (2 + np.cos(twist) ** (2 / p.depth)) ** (p.depth / 2)))
searched = 1 / float(dufm.normalized_margin(dufm.max_margin(8, p.depth, 3, restarts=8, seed=p.seed).Z, p.depth))
table = pd.DataFrame(rows, columns=["height", "cost", "law"]).assign(angle=degrees, searched=searched)
figures.store("47_twist", table)
print(f"cost at margin 1: cube {table.cost.iloc[0]:.4f}, after the twist {table.cost.iloc[-1]:.4f}, search at rank 3 {searched:.4f}")

# %% tags=["figure"]
figures.show(
    "47_twist",
    alt="Left, cost at margin 1 against the twist of one face of the cube: it falls without a barrier from the cube at 0 degrees to the square antiprism "
    "at 45 degrees, where it meets the dashed value of the search. Right, drawings of the cube and of the antiprism.",
)

# %% [markdown]
# ## Networks that start at the cube
#
# Exactly; with every entry of the factors disturbed (in the corners' own three directions, since the cube's equal singular values leave the basis to rounding); and with singular vectors turned, $Z_0\to RZ_0R^\top$, which leaves singular values, balance and rank alone. Measured is the part of $\Phi^\top Z\Phi/K$ off the diagonal, over $\|Z\|$; then the flow's limit is taken.

# %%
rng, marks, root = np.random.default_rng(p.seed), [p.until / 1000, p.until / 20, p.until], 2 ** (1 / p.depth)
V, three = torch.nn.functional.pad(corners / 2, (0, 5)), torch.diag(torch.arange(8) < 3).double()
start = [root * V.mT, *[root * three] * (p.depth - 2), root * V]  # balanced factors of half the cube
nudged = [W + p.noise * float(W.abs().max()) * torch.from_numpy(rng.standard_normal(tuple(W.shape))) for W in start]
turned = 0.5 * (R := random_turns(8, p.angles, rng)) @ cube @ R.mT
factors = [torch.cat([torch.stack(ends), rest]) for *ends, rest in zip(start, nudged, dufm.balanced_init(turned, p.depth), strict=True)]
run = dufm.gradient_flow(factors, until_log_loss=p.until, record={"log_loss": marks})
off, end = dufm.characters("hadamard", 8).spectrum(run.history.Z)[1], dufm.end(run, p.depth)
left = pd.DataFrame({f"off at log loss {mark:g}": [stats.below(x, 5e-4) for x in level] for mark, level in zip(marks, off.tolist(), strict=True)})
left["cost there"], left["cost at the limit"] = (1 / dufm.normalized_margin(Z, p.depth).numpy().round(7) for Z in (run.Z, end.Z.nan_to_num(1.0)))
left["end"] = end.name
left.set_axis(["exact", f"disturbed {p.noise:g}", *(f"turned {angle:g}" for angle in p.angles)]).round(3)

# %% [markdown]
# At these losses the cost has hardly moved, while the limit carries every network but the exact one to the antiprism. How fast they leave, from one start turned by the first of these angles:

# %%
levels, rows = [*(-np.geomspace(2.0, -p.until / 4, 9)), p.until], []
for L in notebook.progress(p.depths):
    slow = dufm.gradient_flow(dufm.balanced_init(turned[0], L), until_log_loss=p.until, rtol=1e-6, record={"log_loss": levels})
    rows += [(L, -level, x) for level, x in zip(levels, dufm.characters("hadamard", 8).spectrum(slow.history.Z)[1].tolist(), strict=True)]
leaving = pd.DataFrame(rows, columns=["depth", "neg_log_loss", "off"])
figures.store("47_leaving", leaving)
exponents = leaving.groupby("depth").apply(lambda t: np.log(t.off.iloc[-1] / t.off.iloc[-2]) / np.log(4), include_groups=False)
print({f"L = {L}": f"exponent {slope:.3f}, 1/L {1 / L:.3f}" for L, slope in exponents.items()})

# %% tags=["figure"]
figures.show(
    "47_leaving",
    alt="Part of the logits off the Hadamard diagonal against minus log loss, on logarithmic axes, for four depths: after a short fall each line rises "
    "along its dashed line of slope one over L, the deeper the flatter.",
)

# %% [markdown]
# *Off the diagonal against $-\log\mathcal L$, a line a depth; dashed: slope $1/L$ through the last mark. [Drawn by](../../figures/47_leaving.py)*
#
# ## Verdict

# %% tags=["verdict"]
claims.check("47-cube-critical", max(float(certificate.residual), abs(float(certificate.gap))))
claims.check("47-cube-beta", float((beta - beta.new_tensor([3.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0])).abs().max()))
claims.check("47-cube-unstable", curvature)
claims.check("47-twist-law", float((table.cost / table.law - 1).abs().max()))
claims.check("47-twist-end", table.cost.iloc[-1] / searched)
claims.check("47-leaving-rate", max(abs(slope * L - 1) for L, slope in exponents.items()))

# %% [markdown]
# ## Where it breaks
#
# *Among turns, not all are slow in this way.* The proof needs that no tight margin changes to first order. A turn of a one-bit character into the three-bit one has $\beta = 3$ but changes margins; those turns are pulled back. *And the antiprism is not the end of the story:* deeper still, rank 2 wins, and the same $45°$ prism at height 0 is the octagon.
#
# ## Try it ([answers](../answers.md#47))
#
# 1. `depth = 5`, then `depth = 10`: how much is won by the twist? Compare with the octagon's $4\cdot2^{L/2}/(1 - \cos45°)$.
# 2. `angles = [0.3]`: how far does a network get by itself, without the limit?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
