# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Started in the characters of a group, a network keeps its singular vectors, and training is one scalar equation for each singular value
#
# **Question.** Is there a start from which a deep network with a softmax loss can be solved on paper, as deep *linear* regression can?
#
# **Answer.** Yes. If the logits are a group matrix, $Z_{ab} = f(a - b)$ with $f(-a) = f(a)$ on a finite abelian group, so is their softmax. Balanced factors aligned with the characters then keep their singular vectors for ever and only the singular values move. For $K = 2^m$ the characters are the rows of
# Hadamard's matrix; cyclic groups and products of them give *every* $K$.
# Before: [36, which end is reached](../3_codes/36_which_end.ipynb). After: [42, the codes of each group](42_codes_of_groups.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/4_spectral/41_frozen_vectors.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/4_spectral/41_frozen_vectors.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("41_paths")

# %% [markdown]
# *A full network of depth 5 from a Hadamard start, all 64 logits free. Left: its singular values (marks) on the seven scalar equations (dashed); four grow with the margin, the three that freeze are labelled by their characters. Right: what leaves the diagonal of $\Phi^\top Z\Phi$ is rounding.
# [Drawn by](../../figures/41_paths.py)*

# %% [markdown]
# ## Statement
#
# Let $G$ be a finite abelian group of $K$ elements, the classes, with characters $\chi_0 = 1, \chi_1, \dots$, and $Z = \frac1K\sum_is_i\chi_i\chi_i^*$ with real $s_i\ge0$, equal for conjugate characters, $s_0 = 0$.
#
# **The softmax is diagonal too.** *The columnwise softmax $P$ of $Z$ has the singular vectors of $Z$.*
#
# **Proof.**
# 1. Characters are multiplicative, so $z_{ab} = f(a - b)$ with $f(a) = \frac1K\sum_is_i\chi_i(a)$.
# 2. Any entrywise function of $Z$ is again a function of $a - b$; so is $e^Z$ taken entrywise, and its columns have equal sums. Hence $P_{ab} = p(a - b)$ with $p = \mathrm{softmax}(f)$.
# 3. A matrix $h(a - b)$ has the eigenvectors $\chi$: $\sum_bh(a - b)\chi(b) = \chi(a)\sum_ch(c)\overline{\chi(c)}$. $\square$
#
# **Training.** *The balanced factors $W_1 = \Sigma^{1/L}V^\top$, $W_l = \Sigma^{1/L}$, $W_L = V\Sigma^{1/L}$, with $V$ the normalised real and imaginary parts of the characters, keep this form under gradient flow and under plain gradient descent. Under the flow*
# $$\dot s_i = L\,s_i^{2-2/L}\,g_i,\qquad g_i = \sum_ap(a)\bigl(1 - \operatorname{Re}\chi_i(a)\bigr).$$
#
# **Proof.**
# 1. $-\partial\mathcal L/\partial Z = I - P$ is diagonal in the characters with eigenvalues $1 - \sum_ap(a)\chi_i(a) = g_i$, and 0 for the trivial one, which therefore never moves. For real spectra $p(a) = p(-a)$, so $g_i$ is real.
# 2. $-\partial\mathcal L/\partial W_l = W_{>l}^\top(I - P)W_{<l}^\top$ is diagonal between the same vectors as $W_l$: for the singular value $w$ of every factor $\dot w_i = w_i^{L-1}g_i$. A step of descent adds a matrix of that form and so keeps it.
# 3. $s = w^L$ gives $\dot s_i = Lw_i^{L-1}\dot w_i = Ls_i^{2-2/L}g_i$. $\square$
#
# Every $g_i > 0$: singular values only ever grow. With $u_i = \sqrt{m_iL}\,s_i^{1/L}$ ($m_i = 2$ for a conjugate pair, else 1) the scalar system is a Euclidean gradient flow, so it is stepped by the same code as the full network.

# %% tags=["parameters"]
log2_classes: int = 3  # log2 of the number of classes of the Hadamard start [2, 4]
depths: list[int] = [2, 3, 5]  # depths L, the features included [2, 10]
scale: float = 0.1  # initial mean singular value [0.001, 1]
starts: int = 8  # random spectra for each group and depth [1, 256]
until: float = -100.0  # log loss to which runs are followed [-1000, -20]
steps: int = 2000  # steps of plain gradient descent [100, 100000]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import math

import numpy as np
import pandas as pd
import torch

import dufm
from dufm import claims, figures, notebook, stats
from dufm.spectral import compare_with_network

p = notebook.start("41_frozen_vectors", globals())
rng = np.random.default_rng(p.seed)
groups = {f"(Z/2)^{p.log2_classes}": (2,) * p.log2_classes, "Z/5": (5,), "Z/6": (6,), "Z/7": (7,), "Z/9": (9,)}
groups = {**groups, "(Z/3)^2": (3, 3), "Z/12": (12,), "Z/2 x Z/6": (2, 6)}
groups = {name: dufm.characters(orders) for name, orders in groups.items()}


def spectra(chi, number):
    """Random spectra within a factor of 5 of each other, of mean ``scale``."""
    s = rng.uniform(0.2, 1.0, (number, chi.num_free))
    return torch.from_numpy(p.scale * s / s.mean(1, keepdims=True))


# %% [markdown]
# ## One network
#
# First the softmax, for 50 random spectra of each group, 30 times larger than the starts: what of $I - P$ is off the characters.

# %%
diagonalised = {}
for name, chi in groups.items():
    P = torch.softmax(chi.logits(30 * spectra(chi, 50)), -2)
    diagonalised[name] = float(chi.spectrum(torch.eye(chi.num_classes) - P)[1].max())
print("largest share of I − P off the characters:", {name: stats.below(off, 1e-13) for name, off in diagonalised.items()})

# %% [markdown]
# ## All groups
#
# From the same random spectra both are followed and compared at equal loss: the scalar equations, and the full network, a product of matrices that is never told to stay diagonal. The largest relative difference of a singular value and the largest part off the characters, over all depths and losses:

# %%
levels = [math.log(2**p.log2_classes) + 0.3, 1.0, 0.0, -1.0, -3.0, -10.0, -20.0, *[x for x in (-50.0, -100.0) if x >= p.until]]
rows = []
for name, L in notebook.progress([(name, L) for name in groups for L in sorted(set(p.depths))]):
    both = compare_with_network(spectra(groups[name], p.starts), L, groups[name], levels)
    rows.append((name, L, np.nanmax((both.network / both.scalar - 1).abs()), np.nanmax(both.off)))
compare = pd.DataFrame(rows, columns=["group", "L", "difference", "off"])
worst = compare.groupby("group", sort=False)[["difference", "off"]].max().map(lambda x: stats.below(x, 1e-7))
worst.assign(K=[chi.num_classes for chi in groups.values()], values=[chi.num_free for chi in groups.values()])

# %% [markdown]
# What is off the characters has no source in the equations. It is rounding, which an explicit method lets grow in stiff directions to the size of its own tolerance, here $10^{-8}$ a step. The test of that: at a tolerance of $10^{-10}$ it must come down.

# %%
deepest, frozen = max(p.depths), {}
for name, L in [(name, L) for name in groups for L in sorted(set(p.depths)) if L == deepest or name.startswith("(Z/2)")]:
    frozen[name, L] = float(np.nanmax(compare_with_network(spectra(groups[name], p.starts), L, groups[name], levels, rtol=1e-10).off))
print("off the characters at tolerance 1e-10, the largest:", stats.below(max(frozen.values()), 1e-9))

# %%
chi, L = groups[f"(Z/2)^{p.log2_classes}"], deepest
grid = np.linspace(math.log(chi.num_classes * math.log(chi.num_classes)) - 0.02, -20.0, 60)
both = compare_with_network(spectra(chi, 1)[0], L, chi, grid.tolist())
index, level = np.meshgrid(range(1, chi.num_free + 1), grid)
paths = {"depth": L, "log_loss": level.ravel(), "character": index.ravel(), "network": both.network.ravel(), "scalar": both.scalar.ravel()}
figures.store("41_paths", pd.DataFrame({**paths, "off": both.off.repeat_interleave(chi.num_free)}))

# %% tags=["figure"]
figures.show(
    "41_paths",
    alt="Left: singular values of a full network, marks, on the dashed curves of the scalar equations, from a loss of ten down to e to the minus 20; four "
    "grow with the margin, three freeze. Right: the part of the logits off the diagonal in the Hadamard basis stays near rounding, far below the dashed bound.",
)

# %% [markdown]
# **Plain gradient descent** discretises time and keeps the vectors as exactly as the flow does:

# %%
descent = []
for L in sorted(set(p.depths)):
    end = dufm.gradient_descent(dufm.spectral_init(3 * spectra(chi, p.starts), L, chi), lr=0.05, steps=p.steps, record=[p.steps // 10, p.steps])
    descent.append((L, float(end.log_loss.median()), float(chi.spectrum(end.history.Z)[1].max())))
pd.DataFrame([(L, round(loss, 2), stats.below(off, 1e-10)) for L, loss, off in descent], columns=["L", "median log loss", "off the diagonal"])

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
hadamard = compare.group.str.startswith("(Z/2)")
claims.check("41-softmax-diagonalised", max(diagonalised.values()))
claims.check("41-scalar-equations", compare[hadamard].difference.max())
claims.check("41-frozen", max(off for (name, _), off in frozen.items() if name.startswith("(Z/2)")))
claims.check("41-descent", max(off for *_, off in descent))
claims.check("41-any-group", compare[~hadamard].difference.max())
claims.check("41-any-group-frozen", max(off for (name, _), off in frozen.items() if not name.startswith("(Z/2)")))

# %% [markdown]
# ## Where it breaks
#
# *With Adam.* It rescales single entries, so it sees in which basis the hidden units are written, which the flow does not. A Hadamard start with its hidden layers written in another basis:

# %%
chi = dufm.characters("hadamard", 8)
first, hidden, last = dufm.spectral_init(spectra(chi, 1)[0], 3, chi)
Q = torch.from_numpy(np.linalg.qr(rng.standard_normal((8, 8)))[0])
factors = [W.requires_grad_() for W in (Q @ first, Q @ hidden @ Q.T, last @ Q.T)]
optimiser = torch.optim.Adam(factors, lr=0.01)
for step in range(101):
    Z = dufm.product(factors)
    if step in (0, 1, 10, 100):
        print(f"after {step:3d} steps of Adam: off the diagonal {stats.below(float(chi.spectrum(Z.detach())[1]), 1e-10)}")
    optimiser.zero_grad()
    torch.nn.functional.cross_entropy(Z.mT, torch.arange(8), reduction="sum").backward()
    optimiser.step()

# %% [markdown]
# *With a spectrum that is not real.* If $Z$ is a group matrix but not symmetric, only the planes of conjugate characters are kept and phases turn inside them; `dufm` refuses such a spectrum. *With vectors that are not quite the characters':* [notebook 43](43_turned_vectors.ipynb).
#
# ## Try it ([answers](../answers.md#41))
#
# 1. `log2_classes = 4`: fifteen equations and 256 logits. Does the difference grow?
# 2. Write $Q = I$ in the last cell. Why does one step of Adam now keep the vectors, and why not the tenth?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
