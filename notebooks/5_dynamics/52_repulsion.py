# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Depth makes small singular values repel each other; nearly equal ones attract later, others are lost
#
# **Question.** Start near neural collapse, all singular values of $Z$ nearly equal. Does training make them more equal, or less?
#
# **Answer.** At $L = 2$ more equal. From $L = 3$ on *less* equal first. Deviations that are still small when the mean reaches about $K(1 - 2/L)$ shrink
# from there on; if the values have been driven far apart by then, some stay behind for good. That $L = 2$ only attracts is true near equality, and of the largest
# and the smallest value for up to eight classes, but not in general: from sixteen classes on the largest may gain on the smallest even there.
# Before: [51, early escape](51_early_escape.ipynb). After: [53, the growth law](53_growth_law.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/5_dynamics/52_repulsion.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/5_dynamics/52_repulsion.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("52_spectrum")

# %% [markdown]
# *Seven singular values of eight classes over their mean $\bar s$, which grows along the path; one start, spread by 6%, trained at five depths. Dashed: $s^* = K(1 - 2/L)$,
# where repulsion turns into attraction for small deviations, as here at $L = 3$ and 4. At $L = 6$ and 10 the deviations are large by then, and some values are left behind.*
# [Drawn by](../../figures/52_spectrum.py)
#
# ## Statement
#
# In the setting of notebook [51](51_early_escape.ipynb), with $q = 1 - 2/L$ and the forces $g_i = \mathbb E_p[1 - \chi_i]$:
# $$\frac{d}{dt}\log\frac{s_i}{s_j} = L\bigl(s_i^{q}g_i - s_j^{q}g_j\bigr).$$
#
# 1. *At $L\ge3$ the larger of two values gains on the other as long as $\log(s_i/s_j) > 2m/q$, $m = \frac1K\sum_ks_k$: any two unequal values repel if the start is small enough.*
# 2. *At $L = 2$ and $K = 4$ any two values attract at any time. At $K = 8$ the largest and the smallest do, though two others need not.*
#
# **Proof of 1.** $|g_i - 1|\le\tanh m$ for all forces (51), so $s_i^qg_i/s_j^qg_j \ge (s_i/s_j)^q\,\frac{1-\tanh m}{1+\tanh m} = (s_i/s_j)^q e^{-2m} > 1$.
#
# **Proof of 2.** At $L = 2$ the sign is that of $g_i - g_j = \mathbb E(\chi_j - \chi_i)$, and $\mathbb E(\chi_i - \chi_j) = 2\,\mathbb E[\chi_i;\,\delta = -1]$
# with $\delta = \chi_i\chi_j$, again a character. To show: this is positive if $s_i > s_j$.
#
# - On the half $H = \{a: \delta(a) = -1\}$ of the classes, $\chi\delta = -\chi$ for every $\chi$. So the terms of $\chi$ and $\chi\delta$ in
#   $f = \frac1K\sum s_\chi\chi$ add up to $\frac1K(s_\chi - s_{\chi\delta})\chi$; that of $i$ and $j$ is $h\chi_i$ with $h = (s_i - s_j)/K > 0$.
# - $K = 4$: $H$ has two elements, $f = \pm h$ on them up to a constant, and $\mathbb E[\chi_i;H]\propto e^{h} - e^{-h} > 0$.
# - $K = 8$: $H$ has four elements, and two more such terms, $h'\chi + h''\chi\chi_i$. If $s_i$ is the largest and $s_j$ the smallest value, then $|h'|, |h''|\le h$ and
#   $$\mathbb E[\chi_i;H]\propto e^{h}\cosh(h' + h'') - e^{-h}\cosh(h' - h'')\ge e^h - e^{-h}\cosh 2h = \tfrac12\bigl(e^{h} - e^{-3h}\bigr) > 0.\qquad\square$$
#
# Values closer than $2m/q$ repel as well, up to $s^*$, but to first order in the deviation only: that is the law of notebook [53](53_growth_law.ipynb).

# %% tags=["parameters"]
depths: list[int] = [2, 3, 4, 6, 10]  # depths L, the features included [2, 20]
scale: float = 0.1  # initial mean singular value [0.01, 1]
spread: float = 0.06  # relative spread at the start [0.001, 0.4]
levels: int = 120  # moments at which a path is kept [10, 1000]
film: list[int] = [2, 3, 6]  # depths of the moving picture [2, 20]
moments: int = 32  # pictures of the film [6, 200]
starts: int = 20000  # random starts of every count [100, 1000000]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas as pd
import torch

import dufm
from dufm import claims, notebook, perturbation, stats

p = notebook.start("52_repulsion", globals())
rng = np.random.default_rng(p.seed)

# %% [markdown]
# ## One start
#
# Two of the three values of four classes are equal, the third is 6% behind. Their ratio at the start, when the mean is $s^*$, and in the end:

# %%
pair, ratios = p.scale * torch.tensor([1.0, 1.0, 0.94], dtype=torch.float64), {}
for L in (2, 3, 4):
    turn = dufm.turning_point(4, L) if L > 2 else 1.0
    marks = {"log_loss": [dufm.nc_log_loss(turn, 4), -60.0]}
    s = dufm.spectral_flow(pair, L, "hadamard", rtol=1e-8, record=marks).history.s
    ratios[L] = [0.94, *(s[:, 2] / s[:, 0]).tolist()]
pd.DataFrame(ratios, index=["at the start", "at the turning point (L = 2: at 1)", "at log ℒ = −60"]).round(4).rename_axis("L", axis=1)

# %% [markdown]
# ## Many depths
#
# Seven values for eight classes, drawn once, between 6% below and 6% above `scale`. A path is kept at given losses, chosen such that the mean grows by
# a constant factor from one to the next as long as the values are equal.

# %%
start = torch.from_numpy(p.scale * (1 + p.spread * rng.uniform(-1, 1, 7)))


def path(L, count):
    marks = [dufm.nc_log_loss(s, 8) for s in np.geomspace(1.05 * p.scale, 190.0, count)]
    s = dufm.spectral_flow(start, L, "hadamard", rtol=1e-5, record={"log_loss": marks}).history.s
    mean = s.mean(-1, keepdim=True)
    columns = {"mean": mean.expand(s.shape).flatten(), "log_loss": np.repeat(marks, 7), "character": [*range(1, 8)] * count}
    return pd.DataFrame({"depth": L, **columns, "ratio": (s / mean).flatten()})


spectrum = pd.concat([path(L, p.levels) for L in p.depths])
figures.store("52_spectrum", spectrum.drop(columns="log_loss"))
figures.store("52_frames", pd.concat([path(L, p.moments) for L in p.film]).drop(columns="mean"))

# %% tags=["figure"]
figures.show(
    "52_spectrum",
    alt="Seven singular values over their mean against the mean, a panel a depth. At depth 2 the lines only come together. At 3 and 4 they spread until about the dashed turning point of small deviations, then come together. At 6 and 10 some fall behind and do not come back.",
)

# %% [markdown]
# The relative spread (standard deviation of the $s_i$ over their mean) at the start, at its largest and in the end, and the mean at which it is largest beside $s^*$. Where that is the last moment, attraction has lost.

# %%
widths = spectrum.groupby(["depth", "mean"]).ratio.std(ddof=0)
summary = {
    L: {"start": w.iloc[0], "largest": w.max(), "end": w.iloc[-1], "largest at": w.idxmax(), "s*": dufm.turning_point(8, L)}
    for L, w in ((L, widths[L].sort_index()) for L in p.depths)
}
pd.DataFrame(summary).T.rename_axis("L").round(3)

# %% [markdown]
# The same as a film, and six of its moments for print: ![The seven values over their mean as bars, while the loss falls, for depths 2, 3 and 6](../../figures/52_frames.gif)

# %% tags=["figure"]
figures.show(
    "52_frames",
    alt="Bar charts of the seven singular values over their mean at six moments, a row a depth. At depth 2 the bars become equal. At depth 3 they first become more unequal and are equal at the end. At depth 6 they become far more unequal and stay so.",
)

# %% [markdown]
# *One bar for each of the seven nontrivial characters; dashed: all equal. Time runs to the right, the loss is printed above.*
# [Drawn by](../../figures/52_frames.py), the film as well: `python figures/52_frames.py`.
#
# ## Any start
#
# First the same spread, drawn many times: in what share of the starts does it begin to grow? Second, at depth two, starts over four decades of size, from equal
# values to some a hundred times larger than others: how often does the largest value gain on the smallest, and how many pairs move apart?

# %%
near = torch.from_numpy(p.scale * (1 + p.spread * rng.uniform(-1, 1, (p.starts, 7))))
away, growing = near - near.mean(-1, keepdim=True), {}
for L in p.depths:
    speed = near ** (2 - 2 / L) * perturbation.forces(near, "hadamard")
    growing[L] = int(((away * speed).sum(-1) / (away**2).sum(-1) > speed.mean(-1) / near.mean(-1)).sum())
pd.Series({L: stats.share(k, p.starts, 4) for L, k in growing.items()}, name="spread begins to grow").rename_axis("L").to_frame()

# %%
gains, apart = {}, {}
for K in (4, 8):
    size, width = 10 ** rng.uniform(-2, 2, (p.starts, 1)), rng.uniform(0.0, 1.5, (p.starts, 1))
    s = torch.from_numpy(size * np.exp(width * rng.standard_normal((p.starts, K - 1))))
    g = perturbation.forces(s, "hadamard")
    gains[K] = int((g.gather(-1, s.argmax(-1, keepdim=True)) > g.gather(-1, s.argmin(-1, keepdim=True))).sum())
    larger = s.unsqueeze(-1) > s.unsqueeze(-2)
    apart[K] = float((larger & (g.unsqueeze(-1) > g.unsqueeze(-2) * (1 + 1e-9))).sum() / larger.sum())
pd.DataFrame({"largest gains on smallest": gains, "share of pairs moving apart": apart}).rename_axis("K").round(3)

# %% [markdown]
# ## Where it breaks
#
# *Depth two from sixteen classes on.* The proof above used that three terms on $H$ cannot outweigh $h$. With seven they can. Fix a class $a^*\ne0$. Let the characters with
# $\chi(a^*) = 1$ have the value $S$ and the others $r < S$; then exchange: one $\chi_i$ of the second kind gets slightly more than $S$, one $\chi_j$ of the first slightly less than
# $r$. *The largest value $s_i$ gains on the smallest $s_j$ if $S(\frac12 - \frac4K) > r + \log(K-2)$.* The margin of class $a$ is $\frac2K$ times the sum of the values that are $-1$ there. For $a^*$ this is
# $\frac2KS + r$ up to the slight changes and less $\frac2Kr$. On any other class at least $\frac K4 - 1$ of the large values are $-1$: a margin of at least $\frac S2 - \frac2KS$. So $g_i\ge2p(a^*)$ is more than
# $g_j\le2\sum_{a\ne a^*}p(a)$, for $\chi_j(a^*) = 1$. At $K\le8$ the bracket is not positive. $\square$ Here $S = 20$, $r = 1$:

# %%
chi = dufm.characters("hadamard", 16).table[:, 1]
far = torch.where(chi > 0, 20.0, 1.0).to(torch.float64)
leader, laggard = int((chi < 0).nonzero()[0]), int((chi > 0).nonzero()[0])
far[leader], far[laggard] = 20.1, 0.99
begun = float(dufm.log_loss(dufm.characters("hadamard", 16).logits(far)))
s = dufm.spectral_flow(far, 2, "hadamard", rtol=1e-8, until_log_loss=-4000.0, record={"log_loss": [*np.linspace(begun - 0.01, -60.0, 200), -4000.0]}).history.s
first, ratio = float(far[leader] / far[laggard]), s[:, leader] / s[:, laggard]
print(f"largest over smallest: {first:.2f} at the start, {float(ratio.max()):.2f} at most, {float(ratio[-1]):.2f} at log ℒ = −4000")

# %% [markdown]
# The two come together after all. That they come nearer all the time is what fails.
#
# ## Verdict

# %% tags=["verdict"]
deep = [stats.wilson(k, p.starts)[0] for L, k in growing.items() if L > 2]
claims.check("52-repelled", min(deep, default=float("nan")))
claims.check("52-depth-two", sum(gains.values()))
claims.check("52-sixteen", float(ratio.max()) / first)

# %% [markdown]
# ## Try it ([answers](../answers.md#52))
#
# 1. `scale = 1.0`: which depths show almost no repulsion any more, and why?
# 2. `spread = 0.01`: does everybody come back at $L = 10$? (Notebook [57](57_critical_deviation.ipynb) gives the spread at which the answer changes.)
# 3. `film = [20]`: how many of the seven values are left in the end? This is the rank of the solution.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
