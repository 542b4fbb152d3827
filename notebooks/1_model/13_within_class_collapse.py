# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Samples of a class collapse at every layer, each by its own power law
#
# **Question.** With several samples a class, do they fall together, and at which layers?
#
# **Answer.** Relative to what grows, yes, at every layer; absolutely, no. What the network above a layer cannot see gets no gradient and is merely outgrown. At a run
# that ends in neural collapse, layer $l$ of $L$ ends with $\operatorname{Tr}\Sigma_W/\operatorname{Tr}\Sigma_B\sim s^{-2l/L}$ and $\mathrm{NC1}\sim s^{-(2l+4)/L}$, where $s$ is the
# size of the logits: deeper layers collapse faster, and nothing collapses exponentially. The first power is measured to a percent, the second to a tenth except at the last layer.
# Before: [12, balance](12_balance.ipynb). After: [14, NC1 at low rank](14_nc1_at_low_rank.ipynb).

# %%
from dufm import figures

figures.published("13_collapse")

# %% [markdown]
# *Within-class variability against minus log loss, over runs that end in neural collapse: median and 10–90% band. Left, NC1; right, the plain ratio of traces. Dashed: the powers of
# the statement, through the last point.*
# [Drawn by](../../figures/13_collapse.py)

# %% [markdown]
# ## Statement
#
# Let $\Sigma_W$, $\Sigma_B$ be the covariances within and between classes of the features $F_l = W_l\cdots W_1$ at layer $l$ (layer 1: the free features themselves), and
# $$\mathrm{NC1} = \tfrac1K\operatorname{Tr}\bigl(\Sigma_W\Sigma_B^{+}\bigr).$$
# Along the flow to neural collapse at depth $L$ with logits of size $s\approx-\log\mathcal L$, we expect at layer $l = 1,\dots,L-1$
# $$\frac{\operatorname{Tr}\Sigma_W}{\operatorname{Tr}\Sigma_B}\sim s^{-2l/L},\qquad \mathrm{NC1}\sim s^{-(2l+4)/L}.$$
#
# **Derivation** (orders of magnitude, not a proof). Write $F_l = M_l\otimes\mathbf 1^\top + V_l$, class means and deviations from them, and $A_l = W_L\cdots W_{l+1}$ for what follows.
# 1. *The gradient of $W_1$ is $A_1^\top(\cdot)$*: its columns lie in the row space of $A_1$, of dimension at most $K$. There the deviations shrink quickly, because samples of one class with
#    different logits have different gradients, until $A_1V_1\approx0$. Then all samples of a class have one gradient, and $V_1$ stands still, at a size of order one.
# 2. *Between the classes everything grows*: balanced layers (notebook 12) have singular values $s^{1/L}$, so $\|M_l\|\sim s^{l/L}$.
# 3. *$V_l = W_l\cdots W_2V_1$ stays of order one as well*: the directions of each layer that grow are those that the layers above see, and these $V_1$ avoids. With 2 the trace
#    ratio is $1/s^{2l/L}$.
# 4. *NC1 counts deviations in the span of $M_l$ only*, while $A_lV_l\approx0$ says that they avoid the row space of $A_l$. For balanced layers the two spaces are one. But the imbalance
#    $D_l = W_{l+1}^\top W_{l+1} - W_lW_l^\top$ is conserved, so beside $W_lW_l^\top\sim s^{2/L}$ they are tilted by an angle of order $s^{-2/L}$. Hence
#    $\mathrm{NC1}\sim(s^{-2/L})^2/s^{2l/L} = s^{-(2l+4)/L}$.
#
# So the slow last stage of NC1 is a trace of the *initial imbalance*.

# %% tags=["parameters"]
num_classes: int = 4  # number of classes K [3, 10]
depth: int = 3  # depth L, features included [2, 8]
width: int = 16  # hidden width d [2, 64]
scale: float = 0.5  # initial scale, entries N(0, scale²/fan-in) [0.05, 1]
n_per_class: int = 5  # samples a class [2, 20]
networks: int = 32  # networks in each batch [2, 256]
levels: list[float] = [0, -2, -5, -10, -20, -50, -100, -200, -400, -800, -1400, -2000]  # values of log ℒ [-1e5, 0]
depths: list[int] = [2, 3, 4, 5, 6]  # depths at which the powers are tested with three classes [2, 8]
late: list[float] = [-20000, -100000]  # two values of log ℒ between which they are tested [-1e6, -10]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas as pd
import torch

import dufm
from dufm import claims, figures, notebook

p = notebook.start("13_within_class_collapse", globals())
device, norm = notebook.device(), torch.linalg.matrix_norm


def batch(depth, num_classes, levels):
    """Factors of one batch at the levels of log ℒ, and which runs end in certified neural collapse."""
    start = dufm.gaussian_init(depth, p.width, num_classes, scale=p.scale, batch=p.networks, seed=p.seed, n_per_class=p.n_per_class)
    run = dufm.gradient_flow([W.to(device) for W in start], until_log_loss=min(levels), record={"log_loss": levels})
    return run.history.factors, torch.from_numpy(dufm.end(run, depth).name == "NC")


# %% [markdown]
# ## One network
#
# The first run that ends in collapse, at its features: the deviations $V_1$, the part of them that the network above sees, and the class means.

# %%
factors, collapsed = batch(p.depth, p.num_classes, p.levels)
one = [W[:, int(collapsed.nonzero()[0, 0])].cpu() for W in factors]
features, above = dufm.split_at(one, 1)
grouped = features.unflatten(-1, (p.num_classes, p.n_per_class))
means = grouped.mean(-1)
V = (grouped - means.unsqueeze(-1)).flatten(-2)
columns = {"log ℒ": p.levels, "‖V‖": norm(V), "‖AV‖/‖A‖": norm(above @ V) / norm(above), "‖M‖": norm(means - means.mean(-1, keepdim=True))}
pd.DataFrame(columns).round(3)

# %% [markdown]
# ## All networks, all layers
#
# `dufm.nc_metrics` takes the features at a layer and the product of what follows. Whether a run ended in neural collapse is decided by its certificate (notebook 21).

# %%
rows = []
for layer in range(1, p.depth):
    found = dufm.nc_metrics(*dufm.split_at(factors, layer), p.num_classes - 1)
    q = {key: torch.quantile(found[key][:, collapsed].cpu(), torch.tensor([0.1, 0.5, 0.9]).double(), dim=1) for key in ("nc1", "trace_ratio")}
    spread = {f"{key}{name}": values[i] for key, values in q.items() for i, name in enumerate(("_low", "", "_high"))}
    rows.append(pd.DataFrame({"depth": p.depth, "layer": layer, "minus_log_loss": -np.array(p.levels), **spread}))
table = pd.concat(rows)
figures.store("13_collapse", table)
print(f"{int(collapsed.sum())} of {p.networks} runs end in neural collapse")

# %% tags=["figure"]
figures.show(
    "13_collapse",
    alt="Within-class variability against minus log loss on logarithmic axes, two panels, one line a layer. NC1 falls by many decades at all layers, furthest at the "
    "last; the ratio of traces falls like a slower power. Dashed powers lie on the late parts.",
)

# %% [markdown]
# ## The powers, where they were not looked for
#
# The derivation says nothing about the number of classes. With three classes every depth ends in neural collapse, so depths up to six can be tested. The expectation, all exponents within a tenth, was
# written down before the first look. That look, between $\log\mathcal L = -800$ and $-2000$, refuted it: at $L = 5$ and 6 exponents were off by up to 0.78, NC1 alike at all layers. The samples of a class
# still disagree there ($A_lV_l$ is not small), so that step 1 has not ended. Two decades later, with the same tolerance:

# %%
rows = []
for L in notebook.progress(p.depths, label="three classes"):
    others, ended = batch(L, 3, p.late)
    for layer in range(1, L):
        found = dufm.nc_metrics(*dufm.split_at(others, layer), 2)
        median = {key: found[key][:, ended].median(1).values for key in ("nc1", "trace_ratio")}
        slope = {key: float((y[-1] / y[0]).log()) / np.log(p.late[-1] / p.late[0]) for key, y in median.items()}
        rows.append((L, layer, int(ended.sum()), slope["nc1"], -(2 * layer + 4) / L, slope["trace_ratio"], -2 * layer / L))
powers = pd.DataFrame(rows, columns=["L", "layer", "collapsed", "NC1", "NC1, law", "traces", "traces, law"])
powers.round(3)

# %% [markdown]
# The ratio of traces follows its power at every layer. NC1 does at all layers but the last, where it is smallest and its median least steady.

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
last, first = table[table.layer == p.depth - 1], table[table.layer == 1]
claims.check("13-nc1-penultimate", float(last.nc1[last.minus_log_loss == 200].iloc[0]) if -200.0 in p.levels else float("nan"))
slope = np.log(first.trace_ratio.iloc[-1] / first.trace_ratio.iloc[-3]) / np.log(p.levels[-1] / p.levels[-3])
claims.check("13-outgrown", slope * p.depth / 2)
claims.check("13-power-traces", (powers["traces"] / powers["traces, law"] - 1).abs().max())
claims.check("13-power-nc1", (powers["NC1"] / powers["NC1, law"] - 1).abs().max())

# %% [markdown]
# ## Where it breaks
#
# *Before the samples agree.* The powers begin where $A_lV_l$ is small, and how long that takes grows with depth: at $L = 6$ not before $\log\mathcal L\approx-10^4$, a loss no training reaches. What is
# measured in practice at great depth is this transient, in which NC1 is the same at all layers.
#
# *Low-rank ends.* There $\Sigma_B$ has an eigenvalue that stays, and NC1 as it is usually computed does not vanish at all: [notebook 14](14_nc1_at_low_rank.ipynb).
#
# ## Try it
#
# 1. `scale = 0.1`: the trace ratio starts lower. Does it keep its slope?
# 2. `width = 64`: is the imbalance of the start larger, and does NC1 know?
# 3. `n_per_class = 2`: do two samples collapse sooner than five?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
