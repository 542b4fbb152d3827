# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Small deviations from neural collapse fall into four families, of which depth amplifies two
#
# **Question.** Singular values are $K - 1$ numbers, but a $K\times K$ matrix of logits can deviate from neural collapse in $K^2$ directions. What does training
# do to the others?
#
# **Answer.** To first order they fall into four families, each with its own law. From three layers on, symmetric deviations that leave the classes' own logits alone grow like the singular values, and class
# imbalance is amplified less: from small starts its peak is 0.92 of theirs at four classes and three layers, 0.55 at seven and ten. Antisymmetric deviations and common shifts only shrink, at every depth. With three classes there is no family of the first kind.
# Before: [53, the growth law](53_growth_law.ipynb). After: [55, the separatrix](55_separatrix.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/5_dynamics/54_four_families.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/5_dynamics/54_four_families.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("54_families")

# %% [markdown]
# *A full network with seven classes, started next to neural collapse with one deviation of each family at once; each family's size over $s$, from its start. Marks:
# gradient flow of the factors; dashed: the law of the family. Above the grey line a deviation is amplified.* [Drawn by](../../figures/54_families.py)
#
# ## Statement
#
# Write $Z = sC + E$ with $C = I - J/K$ and $u = \mathbf 1/\sqrt K$.
# *For balanced factors, to first order in $E$, and with $\rho = (e^s - 1)/(e^s + K - 1)$:*
#
# | direction of $E$ | dimension | growth of $E/s$ from $s_0$ to $s$ |
# |---|---|---|
# | symmetric, centred, zero diagonal | $K(K-3)/2$ | $(s/s_0)^{1-2/L}e^{-(s-s_0)/K}$ |
# | antisymmetric, centred | $(K-1)(K-2)/2$ | $(s/s_0)^{-1}e^{-(s-s_0)/K}$ |
# | $u c^\top$, $c\perp\mathbf 1$: all logits of a sample shifted | $K-1$ | $(s/s_0)^{-1/L}$ |
# | $C\,\mathrm{Diag}(x)\,C + b u^\top$, $x, b \perp \mathbf 1$: class imbalance | $2(K-1)$ | coupled |
#
# $$x' = \frac{2-2/L}{s}x - \frac1K\bigl[x + \rho\,((K-2)x + \sqrt K\,b)\bigr],\qquad b' = \frac{1-1/L}{s}b - \frac1{LK}\bigl[b + \rho\,\bigl(\tfrac{K-2}{\sqrt K}x + b\bigr)\bigr].$$
# *With $C$ itself and $uu^\top$, which do not deviate, these are all $K^2$ directions, and they are orthogonal.*
#
# **Proof.** Let $\kappa = K/(e^s + K - 1)$ and $p_1 = \kappa/K$.
# 1. *How Z moves.* $\dot Z = \sum_{l=1}^L A_l\,G\,B_l$ with $A_l = (ZZ^\top)^{(L-l)/L}$, $B_l = (Z^\top Z)^{(l-1)/L}$, $G = I - P$, and $A_L = B_1 = I$ whatever the rank of $Z$. On the ray a wrong class has the
#    probability $p_1$ and the true one $p_0 = e^sp_1$, so $G = \kappa C$; $A_l = s^{2(L-l)/L}C$ for $l<L$, $B_l = s^{2(l-1)/L}C$ for $l>1$; hence $\dot s = Ls^{2-2/L}\kappa$.
# 2. *How G changes.* Column $c$ of $\delta P$ is $p\circ(E_{\cdot c} - \langle p, E_{\cdot c}\rangle\mathbf 1)$, $p = p_1\mathbf 1 + (p_0-p_1)e_c$. Let the columns of $E$ sum to zero and $d$ be its diagonal. Then
#    $\langle p, E_{\cdot c}\rangle = (p_0 - p_1)d_c = \rho\,d_c$. Off the diagonal $\delta P_{jc} = p_1(E_{jc} - \rho d_c)$; on it $p_0d_c(1-\rho) = p_1(d_c + \rho(K-1)d_c)$, for $e^s(1-\rho) = 1 + (K-1)\rho$. Together
#    $$\delta P = p_1\{E + \rho\,[K\,\mathrm{Diag}(d) - \mathbf 1d^\top]\} = p_1\{E + \rho K\,C\,\mathrm{Diag}(d)\},\qquad\delta G = -\delta P.$$
# 3. *How the powers change.* $ZZ^\top = s^2C + s(EC + CE^\top) + EE^\top$ has $K-1$ eigenvalues near $s^2$ and one near 0. To first order a power $\alpha>0$ acts on the part of $EC + CE^\top$ within $\mathbf 1^\perp$ like the
#    derivative, $\alpha s^{2\alpha-1}$, and on its part between $u$ and $\mathbf 1^\perp$ like the divided difference $s\,(s^{2\alpha} - 0)/(s^2 - 0) = s^{2\alpha-1}$. If $E$ has no part $uu^\top$, the singular value near 0 is
#    $O(|E|^2)$, and since $u^\top G = 0$ and $Gu = O(|E|)$, all that it adds is $O(|E|^{1+4/L})$; with such a part, $O(|E|^{1+2/L})$. Both vanish beside $E$.
# 4. *Family one*, $E = E^\top$ centred, $d = 0$. $\delta G = -p_1E$. $Z$ is symmetric, $A_l$ and $B_l$ are powers of it, and on $\mathbf 1^\perp$ it is near a multiple of the identity: $\delta A_l\,CB_l + A_lC\,\delta B_l = (2-\frac2L)s^{1-2/L}E$
#    for every $l$. Sum, divide by $\dot s$: $E' = [(2-\frac2L)/s - \frac1K]E$. *Family two*, $E = -E^\top$ centred: $d = 0$, $EC + CE^\top = 0$, and so for $Z^\top Z$: only $\delta G$ is left, $E' = -E/K$. Divide by $s$.
# 5. *Three*, $E = uc^\top$. No margin sees it: $\delta G = 0$. $CE = 0$, so $Z^\top Z$ does not change, but $ZZ^\top$ does, by $s(uc^\top + cu^\top)$: $\delta A_l\,\kappa C\,B_l = \kappa s^{1-2/L}uc^\top$ for $l<L$, nothing for $l = L$.
#    Hence $E' = (1-\frac1L)E/s$.
# 6. *Four*, $E = C\,\mathrm{Diag}(x)\,C + bu^\top$. Its first part has the diagonal $(1-\frac2K)x$, its second $b/\sqrt K$: $Kd = (K-2)x + \sqrt K\,b$. As $d\perp\mathbf 1$, $C\,\mathrm{Diag}(d) = C\,\mathrm{Diag}(d)\,C + du^\top/\sqrt K$, so that
#    $$\delta G = -p_1\bigl\{C\,\mathrm{Diag}\bigl(x + \rho Kd\bigr)\,C + \bigl(b + \rho\sqrt K\,d\bigr)u^\top\bigr\}:$$
#    the same kind. Between $A_l$ and $B_l$ its first part keeps the factor $s^{2-2/L}$ for every $l$; the second is killed by $B_lu = 0$ unless $l = 1$: hence $1/L$. Of the powers, the first part of $E$ changes both, as in 4; $bu^\top$
#    changes only $Z^\top Z$, by $s(bu^\top + ub^\top)$, and gives $\kappa s^{1-2/L}bu^\top$ for $l>1$, as in 5. Sum, divide by $\dot s = Ls^{2-2/L}\kappa$, insert $Kd$: the two equations.
# 7. *All directions.* $K(K-3)/2 + (K-1)(K-2)/2 + 3(K-1) + 2 = K^2$. Orthogonal: $\langle E, C\,\mathrm{Diag}(x)\,C\rangle = \sum_cx_cd_c$ for centred $E$, which vanishes if $d = 0$ or $E = C$; the rest is plain. $\square$

# %% tags=["parameters"]
classes: list[int] = [3, 4, 5, 7]  # numbers of classes K [3, 10]
depths: list[int] = [2, 3, 6]  # depths L of the networks [2, 10]
peak_depths: list[int] = [2, 3, 4, 6, 10]  # depths of the table of peaks [2, 20]
sizes: list[float] = [1e-3, 1e-4, 1e-5, 1e-6]  # sizes at which first order is judged, 2 or more [1e-6, 1e-2]
peak_classes: int = 3  # number of classes whose peaks a network is to reach [3, 10]
seed: int = 0  # seed of the directions [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas as pd
import torch

import dufm
from dufm import claims, notebook, perturbation, stats

p = notebook.start("54_four_families", globals())

# %% [markdown]
# ## One network
#
# Four classes, depth 3: a random matrix is split into the families, the network is followed until $s$ has grown from 0.5 to 10, and what came of $\pm E$ is split again.

# %%
E = 1e-6 * perturbation.random_directions(4, p.seed).sum(0)
ray = torch.eye(4, dtype=torch.float64) - 0.25
start = dufm.balanced_init(torch.stack([0.5 * ray + E, 0.5 * ray - E]), 3)
end = dufm.gradient_flow(start, rtol=1e-11, until_log_loss=dufm.nc_log_loss(10.0, 4)).Z
sizes = [torch.linalg.matrix_norm(perturbation.project(part)) for part in (E, (end[0] - end[1]) / 2)]
laws = [perturbation.family_growth(family, 10.0, 0.5, 4, 3) for family in perturbation.FAMILIES[:3]]
table = {"of E/s, by the flow": sizes[1] / sizes[0] * 0.5 / 10.0, "by the law": [*laws, float("nan")]}
pd.DataFrame(table, index=perturbation.FAMILIES).round(5).astype(object).fillna("coupled")

# %% [markdown]
# ## Many networks
#
# `perturbation.measured_families` does this at twelve moments, and integrates the coupled equations from the $x$ and $b$ of the start. Two starts, $\pm E$, so that the second
# order cancels.

# %%
cells = [(K, L) for K in p.classes for L in p.depths]
found = {
    (K, L): pd.DataFrame(perturbation.measured_families(K, L, seed=p.seed)) for K, L in notebook.progress(cells, "K, L")
}
growth = pd.concat(found, names=["num_classes", "depth", None]).reset_index(level=[0, 1])
figures.store("54_families", growth.drop(columns="deviation"))

# %% tags=["figure"]
figures.show(
    "54_families",
    alt="Growth of four kinds of deviation from neural collapse in a full network against the common singular value, one panel "
    "for each family and one curve for each depth. Marks lie on the dashed laws. The symmetric one rises above 1 at depths 3 and 6 "
    "and falls; the antisymmetric one falls at once, alike at all depths; the shift falls slowly; class imbalance lies between.",
)

# %%
off = growth.groupby("family").deviation.max().reindex(perturbation.FAMILIES).dropna()
pd.DataFrame({"largest relative deviation from the law": off.map(lambda x: stats.below(x, 1e-7))})

# %% [markdown]
# How far the families can be amplified at most, by the equations, from $s_0 = 0.01$ on; 1 is no amplification. For class imbalance it is the worst mixture of $x$ and $b$.

# %%
peaks = {}
for K in p.classes:
    for L in p.peak_depths:
        top = max(dufm.turning_point(K, L), 0.01)
        symmetric = f"{dufm.nc_perturbation_growth(top, 0.01, K, L):.2f}" if K > 3 else "none"
        peaks[K, L] = {"symmetric": symmetric, "antisymmetric": "1", "shift": "1", "imbalance": f"{perturbation.imbalance_peak(K, L):.2f}"}
pd.DataFrame(peaks).T.rename_axis(["K", "L"])

# %% [markdown]
# **Three classes** have no deviation of the first family: class imbalance is all that depth amplifies. Does a network reach the peaks of the equations? It starts at $s = 0.01$ with the worst mixture of $x$ and $b$
# and ends where the peak should be; its deviation is measured whole, whatever family it has come to. (Amplified does not mean lost: rank 1 cannot separate three classes.)

# %%
deep = [L for L in p.peak_depths if L > 2]
grown = {L: perturbation.measured_imbalance(p.peak_classes, L, seed=p.seed) for L in notebook.progress(deep, "peaks")}
reach = pd.DataFrame({"network": grown, "equations": {L: perturbation.imbalance_peak(p.peak_classes, L) for L in deep}})
reach.round(2).rename_axis("L")

# %% [markdown]
# ## Where it breaks
#
# *The tilted directions are first order only by a fractional power.* A shift and an imbalance at once give $u$ a singular value of its own, of the order of the square of the deviation,
# and in step 1 it enters with the power $2/L$ at least. So the laws of families three and four may be off by (size)$^{4/L}$ (step 3), while the first two, by $\pm E$, are off by the square. Four classes, depth 6:

# %%
first_order = pd.DataFrame({size: pd.DataFrame(perturbation.measured_families(4, 6, seed=p.seed, size=size)).groupby("family").deviation.max() for size in p.sizes})
exponent = np.polyfit(np.log(p.sizes), np.log(first_order.loc["shift"]), 1)[0]
print(f"exponent of the shift's deviation in the size: {exponent:.3f}, expected 4/L = {4 / 6:.3f}")
first_order.loc[list(perturbation.FAMILIES)].map(lambda x: stats.below(x, 1e-7)).rename_axis("size", axis=1)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("54-four-families", off.max())
claims.check("54-imbalance-peak", (reach["network"] / reach["equations"] - 1).abs().max())
claims.check("54-first-order", exponent)

# %% [markdown]
# ## Try it ([answers](../answers.md#54))
#
# 1. `classes = [6]`: how many directions does the first family have, and how many of them do cyclic starts see?
# 2. `peak_depths = [20]`: does class imbalance ever overtake the symmetric deviations?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
