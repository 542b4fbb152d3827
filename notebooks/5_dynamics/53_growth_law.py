# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # To first order, deviations from equal singular values grow like $s^{1-2/L}e^{-s/K}$: repulsion up to $s^* = K(1 - 2/L)$
#
# **Question.** By how much does depth amplify a small difference between the singular values, and when does it stop?
#
# **Answer.** While the mean goes from $s_0$ to $s$, every small relative deviation is multiplied by
# $(s/s_0)^{1-2/L}e^{-(s-s_0)/K}$. It is largest at $s^* = K(1-2/L)$, which is zero at $L = 2$. The law is exact to first order, holds for every
# finite abelian group, and does not contain the loss. It says nothing of where a deviation of finite size ends: with eight classes and six layers most starts that are a tenth unequal never
# turn back.
# Before: [52, repulsion](52_repulsion.ipynb). After: [54, four families](54_four_families.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/5_dynamics/53_growth_law.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/5_dynamics/53_growth_law.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("53_growth")

# %% [markdown]
# *Growth of a random deviation of relative size $10^{-6}$, for 4, 8 and 16 classes, against the mean singular value. Marks: the flow, one shape a depth;
# dashed: the law; triangles: where the law has its maximum, at $s^*$.* [Drawn by](../../figures/53_growth.py)
#
# ## Statement
#
# *Let the singular values be $s_i = \bar s(1 + \delta_i)$ with small $\delta_i$ that sum to zero. To first order each of them obeys*
# $$\frac{\delta(s)}{\delta(s_0)} = \Bigl(\frac{s}{s_0}\Bigr)^{1-2/L}e^{-(s-s_0)/K}\qquad\text{as } \bar s \text{ goes from } s_0 \text{ to } s.$$
#
# **Proof**, for the characters of any finite abelian group of order $K$ and a real spectrum. The equations are those of notebook
# [51](51_early_escape.ipynb), $\dot s_i = Ls_i^{2-2/L}g_i$.
# 1. *How the forces change.* $f(a) = \frac1K\sum_is_i\chi_i(a)$, so $\partial f(a)/\partial s_j = \chi_j(a)/K$, and $g_i = 1 - \mathbb E_p\chi_i$ with $p = \mathrm{softmax}f$
#    gives $\partial g_i/\partial s_j = -\operatorname{Cov}_p(\chi_i,\chi_j)/K$.
# 2. *At equal values $s$.* $p(0) = e^s/(e^s + K - 1)$, and the other $p(a)$ are equal. So every nontrivial character has the same mean $h = p(0) - p(a)$, and every force is
#    $g = 1 - h = K/(e^s + K - 1)$.
# 3. *The covariance.* For $i\ne j$, $\chi_i\bar\chi_j$ is a nontrivial character again, with mean $h$; for $i = j$ it is 1. So $\operatorname{Cov}(\chi_i,\bar\chi_j)$ is
#    $h - h^2$ off the diagonal and $1 - h^2$ on it: on deviations that sum to zero it acts as the number $1 - h = g$.
# 4. *The difference from the mean*, $\varepsilon_i = s_i - \bar s$: speed and force both change,
#    $\dot\varepsilon_i = L\bigl(2-\tfrac2L\bigr)s^{1-2/L}g\,\varepsilon_i - Ls^{2-2/L}\,\tfrac gK\,\varepsilon_i$, while $\dot{\bar s} = Ls^{2-2/L}g$. Divide the first by the second:
#    $d\varepsilon_i/ds = \bigl[(2-\tfrac2L)/s - 1/K\bigr]\varepsilon_i$.
# 5. *Relative to the mean*, $\delta = \varepsilon/s$, the bracket loses $1/s$: $d\log\delta/ds = (1-\tfrac2L)/s - 1/K$. Integrate; the right side vanishes at $s^*$. $\square$
#
# In step 4 the factor $g$ has cancelled. That is why the law knows nothing of the loss, and why it goes on long after the classes are separated: what repels is the
# factor $s^{2-2/L}$ that depth puts before the force, what attracts is the force itself, smaller for a value that is ahead.

# %% tags=["parameters"]
log2_classes: list[int] = [2, 3, 4]  # log2 of the number of classes K, a Hadamard group [2, 5]
depths: list[int] = [2, 3, 4, 6, 10]  # depths L, the features included [2, 20]
scale: float = 0.1  # initial mean singular value [0.01, 1]
levels: int = 60  # moments at which the growth is measured [12, 400]
sizes: list[float] = [1e-3, 1e-2, 3e-2, 1e-1, 3e-1]  # deviations that are not small [1e-4, 0.9]
starts: int = 200  # random directions of each of these sizes [20, 100000]
seed: int = 0  # seed of the directions [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas as pd
import torch

import dufm
from dufm import claims, notebook, perturbation, stats

p = notebook.start("53_growth_law", globals())

# %% [markdown]
# ## One start
#
# Another group than those below: five classes in a circle, the cyclic group of order 5, whose two pairs of characters have the singular values $s_1, s_2$.
# They start a millionth apart. Depth 4, so $s^* = 2.5$.

# %%
pair = p.scale * torch.tensor([1 + 1e-6, 1 - 1e-6], dtype=torch.float64)
means = torch.tensor([mean for mean in (0.5, 1.0, 2.5, 5.0, 10.0) if mean > p.scale], dtype=torch.float64)
s = dufm.spectral_flow(pair, 4, (5,), rtol=1e-11, record={"log_loss": dufm.nc_log_loss(means, 5).tolist()}).history.s
growth = (s[:, 0] - s[:, 1]) / (2e-6 * s.mean(-1))
law = dufm.nc_perturbation_growth(means, p.scale, 5, 4)
pd.DataFrame({"mean": s.mean(-1), "growth": growth, "law": law}).round(5)

# %% [markdown]
# ## Many groups and depths
#
# `perturbation.measured_repulsion` follows two starts on either side of equality, in a random direction of the $K - 1$ values: half of their difference has no second
# order. It also finds where the measured growth is largest, from the measured growth alone: a polynomial through the nine moments about the largest.

# %%
cells = [(2**m, L) for m in p.log2_classes for L in p.depths]
found = {
    (K, L): perturbation.measured_repulsion(K, L, scale=p.scale, levels=p.levels, seed=p.seed)
    for K, L in notebook.progress(cells, "K, L")
}
peaks = pd.DataFrame({cell: {"peak": run.pop("peak"), "s*": dufm.turning_point(*cell)} for cell, run in found.items()}).T
growth = pd.concat({cell: pd.DataFrame(run) for cell, run in found.items()}, names=["num_classes", "depth", None])
figures.store("53_growth", growth.reset_index(level=[0, 1]))

# %% tags=["figure"]
figures.show(
    "53_growth",
    alt="Growth of a deviation of a millionth from equal singular values against their mean, one panel for each number of classes and "
    "one curve for each depth. Marks lie on the dashed law. At depth 2 it only falls; at larger depths it rises to a peak, "
    "marked by a triangle, and falls after it.",
)

# %%
growth["off"] = (growth.growth / growth.law - 1).abs()
peaks["off"] = (peaks["peak"] / peaks["s*"] - 1).abs()
worst = growth.groupby("num_classes").off.max().map(lambda x: stats.below(x, 1e-7))
turns = peaks["off"].groupby(level=0).max().map(lambda x: stats.below(x, 1e-7))
pd.DataFrame({"growth off the law, at most": worst, "measured peak off s*, at most": turns}).rename_axis("K")

# %% [markdown]
# ## Where it breaks
#
# *Deviations that are not small.* Eight classes at depth 6, one direction, its size scaled up: the growth from the start to $s^*$, as a multiple of what the law
# says, and what is left of the deviation at $\log\mathcal L = -200$. A start that is 1% unequal still behaves almost as the law has it and comes back. One that is 3%
# unequal in this direction is amplified by nearly the same factor, and is out of the basin of collapse by then: the law tells how it grew, not where it ends. Why it cannot come back is
# the rule of products in notebook [56](56_basin_map.ipynb); where the boundary lies, notebook [57](57_critical_deviation.ipynb).

# %%
direction = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 0.0], dtype=torch.float64)
star = dufm.turning_point(8, 6)
begin = torch.stack([p.scale * (1 + size * direction) for size in p.sizes])
run = dufm.spectral_flow(begin, 6, "hadamard", rtol=1e-8, record={"log_loss": [dufm.nc_log_loss(star, 8), -200.0]})
mean = run.history.s.mean(-1)
left = (run.history.s / mean.unsqueeze(-1) - 1).norm(dim=-1) / direction.norm()
law = torch.tensor(p.sizes, dtype=torch.float64) * dufm.nc_perturbation_growth(mean[0], p.scale, 8, 6)
end = [stats.below(float(x), 1e-6) for x in left[1]]
pd.DataFrame({"initial deviation": p.sizes, "growth to s*, over the law": (left[0] / law).round(decimals=3), "left in the end": end})

# %% [markdown]
# In random directions, the largest of the seven deviations of the size named: which share of the starts ends somewhere else, by the certified limit of the flow? What is undecided is
# counted with collapse here.

# %%
drawn = torch.from_numpy(np.random.default_rng([p.seed, 6]).standard_normal((p.starts, 7)))
drawn -= drawn.mean(-1, keepdim=True)
drawn /= drawn.abs().amax(-1, keepdim=True)
lost = {}
for size in p.sizes:
    end = dufm.spectral_end(dufm.spectral_flow(p.scale * (1 + size * drawn), 6, "hadamard").s, 6, "hadamard")
    lost[size] = int((end.decided & (end.rank < 7)).sum())
shares = [stats.share(k, p.starts) for k in lost.values()]
pd.DataFrame({"largest deviation": p.sizes, "ends elsewhere [95%]": shares})

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("53-growth", growth.off.max())
claims.check("53-turning-point", peaks.off[peaks["s*"] > p.scale].max(skipna=False))
claims.check("53-finite", stats.wilson(lost[0.1], p.starts)[0] if 0.1 in lost else float("nan"))

# %% [markdown]
# ## Try it ([answers](../answers.md#53))
#
# 1. `depths = [20]`: where is the turning point as $L\to\infty$, and by how much is a deviation amplified at most from `scale` on?
# 2. `scale = 1.0`, `log2_classes = [2]`: which depths show no repulsion at all?
# 3. `sizes = [0.025, 0.0275, 0.03]`: between which two is the boundary of the basin, in this direction?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
