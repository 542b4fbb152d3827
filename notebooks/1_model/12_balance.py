# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Balance: what the flow conserves, and why balanced factors are the cheapest
#
# **Question.** Many factorisations $W_L\cdots W_1$ give the same logits $Z$. What decides between them, and what does it cost in weight norm?
#
# **Answer.** Gradient flow conserves the imbalance $D_l = W_{l+1}^\top W_{l+1} - W_lW_l^\top$ of neighbouring layers. Where all $D_l$ vanish the weights have the least
# norm that $Z$ allows, $\sum_l\|W_l\|_F^2 = L\sum_i\sigma_i^{2/L}$: this is how depth turns the norm of the weights into the Schatten-$2/L$ quasi-norm of the logits.
# Where the loss goes to zero the weights grow without bound and $D_l$ does not: relative to its size every such network becomes balanced. And the drift of $D_l$ measures an integrator for nothing.
# Before: [11, the linear network](11_linear_network.ipynb). After: [13, within-class collapse](13_within_class_collapse.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/1_model/12_balance.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/1_model/12_balance.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("12_drift")

# %% [markdown]
# *Largest change of an imbalance since the start, over the squared norm of the largest layer, along training; the worst of all networks, a line for each tolerance of
# the integrator. Exact flow would be at zero.*
# [Drawn by](../../figures/12_drift.py)

# %% [markdown]
# ## Statement
#
# $Z = W_L\cdots W_1$ has singular values $\sigma_i$; write $W_{>l} = W_L\cdots W_{l+1}$, $W_{<l} = W_{l-1}\cdots W_1$, and $G = -\partial\mathcal L/\partial Z$ for any differentiable loss.
#
# 1. *Gradient flow conserves every $D_l$.*
# 2. *Over all factorisations of $Z$ into $L$ factors of width $d\ge\operatorname{rank}Z$, $\min\sum_l\|W_l\|_F^2 = L\sum_i\sigma_i^{2/L}$, and the minimum is reached exactly where $D_1 = \dots = D_{L-1} = 0$.*
#
# **Proof of 1.** $\dot W_l = W_{>l}^\top G\,W_{<l}^\top$. Both $W_{l+1}^\top\dot W_{l+1}$ and $\dot W_lW_l^\top$ are equal to $W_{>l}^\top G\,(W_lW_{<l})^\top$. Add the transposes: the two terms of
# $D_l$ have equal derivatives.
#
# **Proof of 2.** *Not less.* By Horn's inequality $\prod_{i\le k}\sigma_i(AB)\le\prod_{i\le k}\sigma_i(A)\sigma_i(B)$ for every $k$, and therefore, for every $q>0$,
# $\sum_i\sigma_i(Z)^q\le\sum_i\prod_l\sigma_i(W_l)^q$. With $q = 2/L$ the mean inequality bounds each product by $\frac1L\sum_l\sigma_i(W_l)^2$, and the sum over $i$ is $\frac1L\sum_l\|W_l\|_F^2$.
#
# *Reached where balanced.* If $W_{l+1}^\top W_{l+1} = W_lW_l^\top$ for all $l$, neighbours share their singular values $s_i$ and the singular vectors between them, so $\sigma_i = s_i^L$ and
# $\sum_l\|W_l\|_F^2 = L\sum_is_i^2 = L\sum_i\sigma_i^{2/L}$. Such factors exist: put $\Sigma^{1/L}$ between the singular vectors of $Z$ (`dufm.balanced_init`).
#
# *Only there.* For any matrix $A$, $(e^{tA}W_l,\;W_{l+1}e^{-tA})$ are factors of the same $Z$. At a minimum the derivative of the cost at $t = 0$, which is
# $-2\operatorname{Tr}(AD_l)$, vanishes for every $A$; hence $D_l = 0$. $\square$
#
# The last step shows why the two statements belong together: $D_l$ is what the symmetry $W_l\to e^{tA}W_l$, $W_{l+1}\to W_{l+1}e^{-tA}$ of the loss conserves, and also the slope of the cost along it.

# %% tags=["parameters"]
num_classes: int = 4  # number of classes K [2, 10]
depth: int = 3  # depth L, features included [2, 8]
width: int = 16  # hidden width d [2, 64]
scale: float = 0.5  # initial scale, entries N(0, scale²/fan-in) [0.05, 1]
networks: int = 32  # networks in the batch [1, 256]
rtols: list[float] = [1e-4, 1e-6, 1e-8]  # local errors of the integrator [1e-11, 1e-3]
products: int = 64  # matrices whose cheapest factors are searched [1, 1000]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas as pd
import torch

import dufm
from dufm import claims, figures, notebook, stats

p = notebook.start("12_balance", globals())
device, K, L = notebook.device(), p.num_classes, p.depth

# %% [markdown]
# ## One network
#
# The layers grow, what they disagree by does not: relative to the norm, the network becomes balanced by itself.

# %%
start = dufm.gaussian_init(L, p.width, K, scale=p.scale, batch=p.networks, seed=p.seed)
run = dufm.gradient_flow([W[0] for W in start], rtol=1e-8, record={"log_loss": [0.0, -10.0, -50.0, -200.0]})
size = run.history.factors[0].square().sum((-2, -1))
first, later = (torch.linalg.matrix_norm(dufm.imbalance(factors)[0]) for factors in ([W[0] for W in start], run.history.factors))
pd.DataFrame({"log ℒ": [0, -10, -50, -200], "‖W_1‖²": size, "‖D_1‖": later, "‖D_1‖ at the start": float(first), "‖D_1‖/‖W_1‖²": later / size}).round(4)

# %% [markdown]
# ## The drift of the integrator
#
# Steps of a Runge–Kutta pair know nothing of $D_l$. `dufm.imbalance_drift` is $\max_l\|D_l - D_l(0)\|_F\,/\max_l\|W_l\|_F^2$, here for a batch at sixty levels of the loss.

# %%
levels = np.linspace(0.5, -200, 60)
rows = []
for rtol in notebook.progress(p.rtols, label="drift"):
    run = dufm.gradient_flow([W.to(device) for W in start], rtol=rtol, record={"log_loss": levels.tolist()})
    drift = dufm.imbalance_drift([W.to(device) for W in start], run.history.factors)
    rows.append(pd.DataFrame({"rtol": rtol, "minus_log_loss": -levels, "drift": drift.nan_to_num(0.0).amax(1).cpu()}))
table = pd.concat(rows)
figures.store("12_drift", table[(table.drift > 0) & (table.minus_log_loss > 0)])

# %% tags=["figure"]
figures.show(
    "12_drift",
    alt="Largest relative change of an imbalance against minus log loss, on logarithmic axes, one line a tolerance. Each line stays below its tolerance; most are flat or fall "
    "along training, that of the coarsest doubles once on its way.",
)

# %%
worst = table.groupby("rtol")["drift"].max()
pd.DataFrame({"largest drift": [f"{x:.1e}" for x in worst]}, index=pd.Index([f"{x:.0e}" for x in worst.index], name="rtol"))

# %% [markdown]
# ## The cheapest factors, found without the formula
#
# That balanced factors cost what the formula says is an identity; that nothing is cheaper is the statement. It is put to a search that knows nothing of balance. All invertible factorisations of an invertible $Z$
# of width $K$ are $(B_1W_1,\ B_2W_2B_1^{-1},\ \dots,\ W_LB_{L-1}^{-1})$; `dufm.cheapest_factors` minimises the cost over $B_l = e^{A_l}$ by LBFGS, from factors drawn at random. It would refute the formula by ending below it, or by ending above.


# %%
def cost(factors):
    """Total squared norm."""
    return sum(W.square().sum((-2, -1)) for W in factors)


drawn = dufm.gaussian_init(L, K, K, batch=p.products, seed=p.seed + 2)
found = dufm.cheapest_factors(drawn)
whole = L * dufm.schatten(dufm.product(drawn), 2 / L) ** (2 / L)
before, after = (cost(factors) / whole - 1 for factors in (drawn, found))
pd.DataFrame({"as drawn": before.quantile(torch.tensor([0.0, 0.5, 1.0]).double()), "after the search": [stats.below(x, 1e-6) for x in after.quantile(torch.tensor([0.0, 0.5, 1.0]).double())]}, index=["least", "median", "largest"]).round(3).rename_axis("excess over the formula")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("12-imbalance-drift", worst[min(p.rtols)])
claims.check("12-search", after.abs().max())

# %% [markdown]
# ## Where it breaks
#
# *Finite steps.* Plain gradient descent with step $\eta$ adds $\eta^2(\dot W_{l+1}^\top\dot W_{l+1} - \dot W_l\dot W_l^\top)$ to $D_l$ at every step: conserved only as $\eta\to0$. *Adam* conserves
# nothing: it treats each entry by itself and has no symmetry under $e^{tA}$. *Biases and normalisation layers* break the chain of the proof at their layer.
#
# ## Try it ([answers](../answers.md#12))
#
# 1. `rtols = [1e-3, 1e-10]`: does the drift follow the tolerance over seven decades?
# 2. `depth = 2`: the sum is $2\sum_i\sigma_i$, the nuclear norm. What does the search start from, and where does it end?
# 3. `scale = 1.0`: the network starts far from balance. At which loss is $\|D_1\|$ a hundredth of $\|W_1\|^2$?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
