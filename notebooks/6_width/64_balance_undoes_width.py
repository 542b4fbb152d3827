# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Balance undoes width: it is not the width that protects collapse but the imbalance of a wide random start
#
# **Question.** Wide random networks end in neural collapse. Is that because they are wide?
#
# **Answer.** No. Among balanced factors the width has no effect whatever: the logits follow the same path at every width. Replace the factors of a wide random network by balanced ones *with the same product*, and most networks of four or more layers end at low rank where all of the originals collapse, although not a single logit of the start was changed.
#
# Before: [63, the half-width](63_half_width.ipynb). After: [65, the basin from random balanced starts](65_basin_elsewhere.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/6_width/64_balance_undoes_width.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/6_width/64_balance_undoes_width.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("64_twins")

# %% [markdown]
# *Share of networks that end in neural collapse, four classes. Filled: Gaussian starts. Hollow: their balanced twins, which start from the same logits. Dashed, with its 95% band: the limit of the twins for $d\to\infty$. Bars: 95%. [Drawn by](../../figures/64_twins.py)*
#
# ## Statement
#
# *Let $Z_0 \in \mathbb R^{K\times K}$ and start from balanced factors of it, $W_{l+1}^\top W_{l+1} = W_lW_l^\top$, of hidden width $d \ge \operatorname{rank} Z_0$. Then the path of $Z$ does not depend on $d$, nor on which balanced factors are taken.*
#
# **Proof.**
# 1. Gradient flow conserves $W_{l+1}^\top W_{l+1} - W_lW_l^\top$ ([12](../1_model/12_balance.ipynb)), so the factors remain balanced.
# 2. Balance moves through a product: $W_L\cdots W_{l+1}W_{l+1}^\top\cdots W_L^\top = (W_LW_L^\top)^{L-l}$, by replacing $W_{l+1}W_{l+1}^\top$ with $W_{l+2}^\top W_{l+2}$ again and again. For $l = 0$: $ZZ^\top = (W_LW_L^\top)^L$.
# 3. So the products around a layer are functions of the logits: $A_l = (ZZ^\top)^{(L-l)/L}$, and in the same way $B_l = (Z^\top Z)^{(l-1)/L}$.
# 4. Insert them in $\dot Z = \sum_l A_l(I-P)B_l$ ([62](62_lazy.ipynb)):
#
# $$\dot Z = \sum_{l=1}^L (ZZ^\top)^{\frac{L-l}L}\,(I-P)\,(Z^\top Z)^{\frac{l-1}L}.$$
#
# The width has gone: what is left is an equation for the $K\times K$ matrix $Z$ alone (Arora, Cohen & Hazan 2018). Its right-hand side is smooth among matrices of one rank, and the rank is kept, for $\frac{d}{dt}\sigma_i$ is $\sigma_i^{2-2/L}$ times a bounded force: so it has one solution. $\square$
#
# Compare the lazy range of a wide random network, where $A_l$ and $B_l$ are multiples of the identity and have nothing to do with $Z$. There $\|W_1\|^2 \approx \sigma^2d$, while balanced features of the same logits have $\|W_1\|^2 = \sum_i\sigma_i(Z)^{2/L}$, which does not grow with $d$: the network is far from balance, the further the wider it is.
#
# **Twins.** To separate width from imbalance, take a Gaussian network, multiply out its logits $Z_0$, and factorise them anew in balance: $W_l = \Sigma^{1/L}$ between the singular vectors of $Z_0 = U\Sigma V^\top$, padded with zeros to the same width. Both start from the same logits and follow the same loss. If width as such protected collapse, both would be protected.
#
# By the statement the twins can feel the width through $Z_0$ alone, whose law depends on it. As $d\to\infty$ its entries become independent, $N(0, \sigma^{2L}/K)$: given the layers below, the last one gives Gaussian columns with the Gram matrix $\sigma^2B_L/d \to (\sigma^{2L}/K)\,I$. So the share of twins that collapse should tend to that of such Gaussian matrices in balanced factors. And the twins can be followed at width $K$, whatever the width of the network whose logits they take: below, all are.

# %% tags=["parameters"]
depths: list[int] = [3, 4, 6]  # depths L [2, 16]
widths: list[int] = [4, 8, 16, 32, 64]  # hidden widths d of the Gaussian networks [4, 256]
wider: list[int] = [256, 1024]  # further widths, of which only twins are followed [4, 4096]
networks: int = 40  # random networks a cell, four times as many in the limit [2, 4096]
scale: float = 1.0  # initial scale σ [0.1, 2]
seed: int = 0  # first seed; network i of a cell has seed + i [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import claims, notebook, stats, sweep, width

p = notebook.start("64_balance_undoes_width", globals())
K = 4

# %% [markdown]
# ## One pair of twins
#
# Four classes, six layers, the widest network: what the factors cost, and what the logits need. By the inequality between arithmetic and geometric means $\sum_l\|W_l\|^2 \ge L\sum_i\sigma_i(Z)^{2/L}$, with equality in balance.

# %%
for init in ("gaussian", "balanced"):
    start = width.random_start(init, 6, max(p.widths), K, scale=p.scale, seeds=[p.seed])
    sigma = torch.linalg.svdvals(dufm.product(start)[0])
    size = sum(float(W.square().sum()) for W in start)
    run = dufm.gradient_flow(start, until_log_loss=-1e3, rtol=1e-3)
    found = dufm.end(dufm.limit(run, sharpness=1e3), 6)
    print(f"{init:8s}: singular values {np.round(sigma.numpy(), 3)}, sum of squares {size:.0f} (least {6 * float((sigma ** (1 / 3)).sum()):.1f}), ends at {found.name[0]}")

# %% [markdown]
# ## All twins

# %%
def compute(init, widths, networks):
    grid = {"num_classes": [K], "depth": p.depths, "width": widths, "scale": [p.scale], "init": [init]}
    return sweep.run(width.ends, grid, seeds=range(p.seed, p.seed + networks), **notebook.sweep_options())


starts = {"gaussian": p.widths, "twin": sorted({*p.widths, *p.wider}), "limit": [K]}
runs = pandas.concat([compute(init, widths, p.networks * (4 if init == "limit" else 1)) for init, widths in starts.items()])
cells = width.by_cell(runs, ["depth", "init", "width"])
counts = list(zip(cells.collapse, cells.networks, strict=True))
cells["low"], cells["high"] = zip(*[stats.wilson(*count) for count in counts], strict=True)
cells["share"], cells["shown"] = cells.collapse / cells.networks, [stats.share(*count) for count in counts]
figures.store("64_twins", cells.drop(columns=["commonest", "shown"]))
cells.pivot(index=["depth", "init"], columns="width", values="shown").fillna("")

# %% tags=["figure"]
figures.show(
    "64_twins",
    alt="Share of collapse against hidden width, one panel a depth. Gaussian starts rise to one. Their balanced twins, with the same initial logits, rise only to a dashed line, 0.63 at depth 3, 0.35 at depth 4 and 0.19 at depth 6.",
)

# %% [markdown]
# Gaussian networks collapse the more often the wider they are, and all do at width 64. Their twins follow them a little way at first, as the law of $Z_0$ changes, and then no further.
#
# ## One path for all widths
#
# Six random $Z_0$ of small norm, balanced at widths 4, 16 and 64 and followed down to the loss $e^{-20}$; the largest relative distance between logits at equal loss.

# %%
Z0 = torch.from_numpy(0.02 * np.random.default_rng(p.seed).standard_normal((6, K, K)))
marks, paths = [-1.0, -5.0, -20.0], {}
for d in (4, 16, 64):
    run = dufm.gradient_flow(dufm.balanced_init(Z0, 4, d), until_log_loss=marks[-1], rtol=1e-8, record={"log_loss": marks})
    paths[d] = run.history.Z
size = torch.linalg.matrix_norm(paths[4])
apart = max(float((torch.linalg.matrix_norm(paths[d] - paths[4]) / size).max()) for d in (16, 64))
print("balanced starts of widths 4, 16, 64: paths apart by", stats.below(apart, 1e-6))

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("64-balanced", apart)
at = {(init, d): rows.set_index("depth") for (init, d), rows in cells.groupby(["init", "width"])}
plain, twin, widest, limit = at["gaussian", max(p.widths)], at["twin", max(p.widths)], at["twin", max(p.wider)], at["limit", K]
claims.check("64-twins-apart", (plain.low - twin.high).min())
error = (widest.share * (1 - widest.share) / widest.networks + limit.share * (1 - limit.share) / limit.networks) ** 0.5
claims.check("64-twins-limit", ((widest.share - limit.share).abs() / error).max())

# %% [markdown]
# ## Where it breaks
#
# *Narrow twins.* At widths of a few $K$ even the twins depend on the width: the product of narrow Gaussian matrices has singular values further apart than a single one, and starts with a larger lead of the first end at low rank more often. That is an effect of $Z_0$, and it is over where the marks reach the dashed line.
#
# *Two layers.* At $L = 2$ nothing is to be undone: every start ends in collapse ([61](61_diagram.ipynb)), balanced or not.
#
# *Between the two.* Orthogonal starts are balanced but for the directions that the first layer does not write or the last does not read, and need *less* width than Gaussian ones ([63](63_half_width.ipynb)). So it is not the amount of imbalance that counts, but its kind: redundant layers, which leave no direction of the logits slow, protect collapse, and merely skewed ones do not ([16](../1_model/16_efficiency_decides.ipynb)).
#
# ## Try it ([answers](../answers.md#64))
#
# 1. `scale = 0.5`: which of the two families changes more?
# 2. `depths = [2]`: why does balance do no harm there?
# 3. `widths = [128]`, `networks = 16`: do the twins notice?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
