# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From depth three on, the largest singular value escapes first and leaves the others behind
#
# **Question.** Training starts from small singular values that are not equal. What happens to their ratios before the loss has moved?
#
# **Answer.** At $L = 2$ nothing: all grow alike, and every ratio is kept. From $L = 3$ on each value follows its own closed form, which ends at
# a finite time, the earliest for the largest value: when it arrives, another has grown by a factor that stays bounded however small the start,
# for one that began at 0.4 of the largest by 55 at $L = 3$ and by 2.3 at $L = 10$.
# Before: [48, descent with finite steps](../4_spectral/48_descent.ipynb). After: [52, repulsion](52_repulsion.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/5_dynamics/51_early_escape.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/5_dynamics/51_early_escape.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("51_early")

# %% [markdown]
# *Seven singular values of eight classes, the largest and the smallest of them against time. Marks: the flow; dashed: the closed form, which knows
# nothing of the loss and goes on to infinity where the flow, having separated the classes, slows down.*
# [Drawn by](../../figures/51_early.py)
#
# ## Statement
#
# Start from balanced factors aligned with the characters of $(\mathbb Z/2)^m$, so that only the singular values move (notebook
# [41](../4_spectral/41_frozen_vectors.ipynb)):
# $$\dot s_i = L\,s_i^{2-2/L}g_i,\qquad g_i = \sum_a p(a)\bigl(1 - \chi_i(a)\bigr),\qquad p = \mathrm{softmax}(f),\quad f(a) = \tfrac1K\sum_i s_i\chi_i(a).$$
#
# *Write $q = 1 - 2/L$. With all $g_i = 1$ the solution is*
# $$s_i(t) = \bigl[s_i(0)^{-q} - (L-2)\,t\bigr]^{-1/q}\quad(L\ge3),\qquad s_i(t) = s_i(0)\,e^{2t}\quad(L = 2).$$
# *Call it $\hat s_i(t)$. The flow stays between $\hat s_i((1-m)t)$ and $\hat s_i((1+m)t)$, where $m = \frac1K\sum_js_j(t)$: the closed form is exact in the limit
# of small starts, with a relative error of the order of $m$ for as long as $t$ is a fixed share of $t_1$. There $L = 2$ keeps every ratio. For $L\ge3$ the form
# of the largest value $s_1$ escapes at the finite time $t_1 = s_1(0)^{-q}/(L-2)$, and at that moment that of another one has grown by the factor
# $\bigl[1 - (s_i(0)/s_1(0))^{q}\bigr]^{-1/q}$ only.*
#
# **Proof.**
# 1. With $g_i = 1$ the equations separate. For $L\ge3$ divide by $s^{2-2/L}$: $\frac{d}{dt}s^{-q} = -qs^{-q-1}\dot s = -qL = -(L-2)$. Integrate. For $L = 2$,
#    $\dot s = 2s$.
# 2. *How far the force can be from 1.* Characters are $\pm1$, so $|f(a)|\le m$ for every class. $\chi_i$ is 1 on half of the classes and $-1$ on the others; its mean under $p$ is largest
#    in size if $f$ is $m$ on one half and $-m$ on the other. Hence $|g_i - 1|\le\tanh m\le m$.
# 3. All $g_i > 0$, so all values rise, and $m$ with them: its value at $t$ bounds all earlier ones. For $L\ge3$ integrate $\frac{d}{dt}s_i^{-q} = -(L-2)g_i$: up to time $t$ the fall of $s_i^{-q}$ is between
#    $1-m$ and $1+m$ times $(L-2)t$, which is what $\hat s_i$ has at these times. For $L = 2$ the same with $\log s_i$.
# 4. The bracket of $s_1$ vanishes at $t_1$. Put $t_1$ into the bracket of $s_i$, which is then $s_i(0)^{-q} - s_1(0)^{-q}$. $\square$
#
# The force is the same for all at this stage; what differs is the speed that depth gives to a value of a given size. A value $s$ is a product of $L$
# numbers $s^{1/L}$. The gradient that reaches one of them is multiplied by the others, $s^{1-1/L}$, and so is what its change does to $s$: together
# $L$ times $s^{2-2/L}$. At $L = 2$ this is proportional to $s$. From $L = 3$ on it grows faster than $s$, and growth faster than exponential ends in
# finite time.

# %% tags=["parameters"]
depths: list[int] = [2, 3, 4, 6, 10]  # depths L, the features included [2, 20]
early_scale: float = 1e-4  # largest initial singular value [1e-8, 1e-3]
levels: int = 30  # times at which the path is looked at [5, 200]
scales: list[float] = [1e-4, 1e-3, 1e-2, 1e-1]  # starts at which the law breaks [1e-6, 0.5]
seed: int = 0  # not used, nothing is drawn [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import math

import numpy as np
import pandas as pd
import torch

import dufm
from dufm import claims, notebook, perturbation, stats

p = notebook.start("51_early_escape", globals())

# %% [markdown]
# ## One network
#
# Four classes, depth 4, three singular values. The factors are trained as matrices, without any knowledge of characters; half of the escape time later
# the singular values of their product stand beside the formula.

# %%
s0 = torch.tensor([1.0, 0.8, 0.5], dtype=torch.float64) * p.early_scale
half = 0.5 * dufm.escape_time(float(s0[0]), 4)
factors = dufm.spectral_init(s0, 4, "hadamard")
run = dufm.gradient_flow(factors, rtol=1e-8, until_log_loss=1.0, record={"log_time": [math.log(half)]})
found = torch.linalg.svdvals(run.history.Z[0])[:3]
law = dufm.early_singular_values(half, s0, 4)
pd.DataFrame({"start": s0, "flow": found, "closed form": law}, index=["s_1", "s_2", "s_3"]).map("{:.4e}".format)

# %% [markdown]
# ## Many depths
#
# Seven values between 1 and 0.4 of `early_scale`, for eight classes. `perturbation.early_phase` follows them to a list of shares of the escape time, and
# finds the time $\tau$ at which the closed form has the value that the flow has at $t$. The statement allows $|\tau/t - 1|\le m$: if a share of this above 1 is used, it is false.

# %%
begin = torch.from_numpy(p.early_scale * np.linspace(1.0, 0.4, 7))
shares = 1 - np.geomspace(0.99, 1e-3, p.levels)
paths = {L: pd.DataFrame(perturbation.early_phase(begin, L, shares)) for L in notebook.progress(p.depths, "L")}
tables = [
    pd.DataFrame({"depth": L, "share": path.share, "which": which, "value": path[which], "law": path[f"law_{which}"]})
    for L, path in paths.items()
    for which in ("largest", "smallest")
]
figures.store("51_early", pd.concat(tables).query("law < 1e9"))

# %% tags=["figure"]
figures.show(
    "51_early",
    alt="The largest and the smallest of seven singular values against time, one panel for each depth, on a logarithmic "
    "axis. Marks lie on the dashed closed form until the loss falls. At depth 2 both are parallel lines; for larger depths "
    "the largest shoots up at the escape time while the smallest is still far below, the less grown the deeper the network.",
)

# %% [markdown]
# The largest relative deviation of a value from the law about half-way, and the largest share of what is allowed that is used at any time; then the factor that the
# smallest value has gained when the largest leaves, read from the flow at the last time it was looked at, and as the statement has it. At $L = 2$ nothing leaves.

# %%
q = {L: 1 - 2 / L for L in p.depths}
rows = {
    L: {
        "deviation half-way": stats.below(path.deviation[path.share < 0.5].max(), 1e-9),
        "most used": f"{path.used.max():.3f}",
        "smallest gained": f"{path.smallest.iloc[-1] / float(begin[-1]):.4g}",
        "by the factor": f"{(1 - 0.4 ** q[L]) ** (-1 / q[L]):.4g}" if L > 2 else "none",
    }
    for L, path in paths.items()
}
pd.DataFrame(rows).T.rename_axis("L")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("51-early", max(path.used.max() for path in paths.values()))

# %% [markdown]
# ## Where it breaks
#
# *Starts that are not small.* The error is of the order of the largest value, which at half of the escape time is still of the order of the start. So it
# should be ten times larger for a start ten times larger. At $L = 2$ half of the clock is where the largest value has come to the square root of its start,
# so there the error grows by $\sqrt{10}$. The table shows the largest relative deviation of a value from the law at that moment. At a start of 0.1 the
# escape is no early phase any more: the classes are being told apart while it happens.

# %%
off = {
    L: {f"{scale:g}": perturbation.early_phase(begin / p.early_scale * scale, L, [0.5])["deviation"] for scale in p.scales}
    for L in p.depths
}
pd.DataFrame(off).T.map(lambda x: f"{x[0]:.1e}" if len(x) else "over").rename_axis("L").rename_axis("start", axis=1)

# %% [markdown]
# ## Try it ([answers](../answers.md#51))
#
# 1. `early_scale = 1e-8`: at which depth does the smallest value's gain come nearest to the factor? By which power of the start should it?
# 2. `depths = [20]`: by which factor has the smallest value grown when the largest escapes? What is the limit as $L\to\infty$?
# 3. `scales = [0.2, 0.5]`: which depth is the first to lose the law, and which force leaves 1 first?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
