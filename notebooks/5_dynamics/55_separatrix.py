# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The line between collapse and low rank: a ratio that depends on depth alone
#
# **Question.** Late in training, four classes, two singular values equal and the third behind. Will it catch up, or be left?
#
# **Answer.** It catches up if and only if $s_3/s_1 > 2^{-L/(L-2)}$: an eighth at $L = 3$, a quarter at $L = 4$, towards a half as depth grows. On either side the distance from that line grows like $s_1^{1-2/L}$,
# and a value left behind stops growing altogether.
# Before: [54, four families](54_four_families.ipynb). After: [56, the map of the basin](56_basin_map.ipynb).

# %%
from dufm import figures

figures.published("55_separatrix")

# %% [markdown]
# *The ratio $s_3/s_1$ while $s_1 = s_2$ grow, from six starts a depth. Blue runs end in neural collapse, orange ones in a square that drops $s_3$; the grey line is
# $2^{-L/(L-2)}$. Dashed, on the runs: the closed path.* [Drawn by](../../figures/55_separatrix.py)
#
# ## Statement
#
# *Let $K = 4$, $L\ge3$, $q = 1 - 2/L$, and $s_1 = s_2 = s$ large, $s_3 = xs$ with $x < 1$. Up to $e^{-(1-x)s/2}$,*
# $$x^{-q} - 2 = (x_0^{-q} - 2)\,(s/s_0)^{q}\qquad\text{until } x = 1.$$
# *So neural collapse wins if and only if $x_0 > 2^{-1/q} = 2^{-L/(L-2)}$.*
#
# **Proof.**
# 1. The margins of the Hadamard logits are half the sums of two of the values: $\frac12(s_1+s_3)$, $\frac12(s_2+s_3)$ and $\frac12(s_1+s_2)$. The first two are equal and smallest; the third class has the weight $e^{-(1-x)s/2}$ beside theirs and is dropped.
# 2. With equal weights $\pi$ on those two, $g_i = \sum_a p(a)(1-\chi_i(a))$ is $2\pi$ for $i = 1, 2$, whose characters are $-1$ on one of them, and $4\pi$ for $i = 3$, which is $-1$ on both.
# 3. $\dot s_i = Ls_i^{1+q}g_i$ gives $\dfrac{d\log s_3}{d\log s_1} = 2x^q$, so $\dfrac{d\log x}{d\log s} = 2x^q - 1$. In $w = x^{-q}$ this is linear: $\dfrac{dw}{d\log s} = q\,(w - 2)$, solved by the formula.
# 4. If $w_0 < 2$, $w$ falls and reaches 1, that is $s_3 = s_1$, when $s = s_0(2-w_0)^{-1/q}$: all margins are then active, and the third value is pulled along with the others. If $w_0 > 2$, $w\to\infty$ and $x\to0$. $\square$
#
# *What becomes of the loser.* In step 4, $s_3^{-q} = s^{-q}w\to s_0^{-q}(w_0 - 2)$: it freezes at the finite value $s_0(w_0-2)^{-1/q}$ while $s_1$ goes on without bound. Its gradient never vanishes in comparison with the leaders', $g_3 = 2g_1$ throughout;
# depth multiplies it by $s_3^{1+q}$, and that is what it loses by.
#
# *The line itself.* At $w = 2$ the ratio stays. The spectrum $(1, 1, 2^{-1/q})$ solves the equations of the margin problem, $s_i^{2/L-1}\propto g_i$, as collapse and the square do: it is a third KKT point, and an unstable one.
# At $L = 2$, $q = 0$ and $d\log x/d\log s = 1$: every ratio grows, and there is no line.

# %% tags=["parameters"]
depths: list[int] = [3, 4, 6, 10]  # depths L [3, 20]
size: float = 200.0  # s_1 = s_2 at the start [50, 1000]
sizes: list[float] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]  # smaller starts, where the law breaks [1, 50]
factors: list[float] = [0.6, 0.9, 0.98, 1.02, 1.1, 1.5]  # starts, in units of the critical ratio [0.1, 1.9]
rounds: int = 4  # rounds of the search, each 24 times finer [1, 6]
seed: int = 0  # not used: nothing is drawn [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import basin, claims, notebook

p = notebook.start("55_separatrix", globals())

# %% [markdown]
# ## Two runs
#
# Four layers, where the line is at a quarter. One run starts at half of that, one at 1.8 times, both at $s_1 = 20$.

# %%
for factor in (0.5, 1.8):
    start = 20 * torch.tensor([1.0, 1.0, factor * dufm.late_separatrix(4)], dtype=torch.float64)
    run = dufm.spectral_flow(start, 4, "hadamard", record={"log_loss": [-20.0, -50.0, -100.0, -200.0]})
    values = ", ".join(f"({a:.1f}, {b:.1f})" for a, _, b in run.history.s)
    print(f"s_3/s_1 from {factor / 4:.3f}: (s_1, s_3) passes {values}; ends in {basin.FOUR_ENDS[basin.ends_of_four(start, 4)]}")

# %% [markdown]
# The lower run's $s_3$ has all but stopped, at the value that step 4 predicts; the upper one's grows faster than $s_1$ and has caught up.
#
# ## All of them
#
# Runs on both sides of the line, far enough to see $s_1$ grow by a factor fifty. The closed path is computed by `basin.late_ratio` from the start alone.

# %%
levels = -p.size * np.geomspace(1.3, 50, 25)
tables = []
for L in notebook.progress(p.depths, label="runs"):
    ratios = torch.tensor(p.factors, dtype=torch.float64) * dufm.late_separatrix(L)
    starts = p.size * torch.stack([torch.ones_like(ratios), torch.ones_like(ratios), ratios], -1)
    run = dufm.spectral_flow(starts, L, "hadamard", rtol=1e-8, until_log_loss=levels[-1], record={"log_loss": levels.tolist()})
    s, ends = run.history.s, basin.ends_of_four(starts, L).tolist()
    path = {"growth": s[..., 0] / p.size, "ratio": s[..., 2] / s[..., 0], "law": basin.late_ratio(ratios, s[..., 0] / p.size, L)}
    for i, (factor, end) in enumerate(zip(p.factors, ends, strict=True)):
        tables.append(pandas.DataFrame({"depth": L, "factor": factor, "end": basin.FOUR_ENDS[end], **{name: x[:, i] for name, x in path.items()}}))
table = pandas.concat(tables, ignore_index=True)
figures.store("55_separatrix", table)

# %% tags=["figure"]
figures.show(
    "55_separatrix",
    alt="Ratio of the third singular value to the two equal ones against their growth, one panel for each of four depths. Runs that start above a horizontal grey line rise to 1, runs that start below it "
    "fall towards 0, and dashed curves of the closed law lie on all of them. The line rises from 0.125 at depth 3 to 0.42 at depth 10.",
)

# %% [markdown]
# The line can be found without the law, too: `basin.critical_ratio` narrows the ratio at which the third value gains late in training, again and again by a factor 24, from nothing but forward runs.

# %%
measured = [float(basin.critical_ratio(L, [p.size], rounds=p.rounds)) for L in p.depths]
found = pandas.DataFrame({"measured": measured}, index=pandas.Index(p.depths, name="depth"))
found["law"] = [dufm.late_separatrix(L) for L in p.depths]
found.round(5)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
early = table[table.ratio < 0.9]
wrong = (table.end == "collapse") != (table.factor > 1)
claims.check("55-separatrix", (found.measured / found.law - 1).abs().max())
claims.check("55-path", (early.ratio / early.law - 1).abs().max())
claims.check("55-ends", table[wrong][["depth", "factor"]].drop_duplicates().shape[0])

# %% [markdown]
# ## Where it breaks
#
# *Early on.* The third class is not negligible while $s_1$ is small. The critical ratio found from smaller starts, relative to the law:

# %%
off = {L: (basin.critical_ratio(L, p.sizes, rounds=p.rounds) / dufm.late_separatrix(L) - 1).tolist() for L in p.depths}
pandas.DataFrame(off, index=pandas.Index(p.sizes, name="s_1")).T.rename_axis("depth").round(4)

# %% [markdown]
# The error falls like the weight $e^{-(1-x)s_1/2}$ that step 1 drops, later at greater depth because the line is higher there. Followed back from late times to the origin, the line becomes the whole boundary of the basin: notebooks 57 and 58.
#
# *Leaders that differ.* With $s_1 > s_2$ the two smaller margins are not equal, and the line becomes a surface that attracts backwards in time. The late law then fixes where that surface ends, not its shape.
#
# ## Try it
#
# 1. `depths = [20]`: how far is the line from a half?
# 2. `factors = [0.999, 1.001]`: how long do two neighbours stay together? Compare depths 3 and 10.
# 3. Compute $s_0(w_0-2)^{-1/q}$ for the first of the two runs, and compare it with the last value printed.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
