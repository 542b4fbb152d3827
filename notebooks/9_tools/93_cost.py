# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A decided end costs some four hundred gradients; a loop of constant steps never sees it
#
# **Question.** Training ends at a loss of zero, where no run arrives. What does it cost to know the end all the same, and what would the ways cost that one tries first: a loop with constant steps, Adam, steps scaled by the loss, or somebody else's solver?
#
# **Answer.** About 400 gradients from start to certificate, and a hundredth of a second where 64 networks go together. Constant steps are at a loss of $e^{-10}$ after 10,000 gradients; to $e^{-10000}$ they would need some $10^{4338}$. Adam comes hardly farther, and leaves the path at once. Steps scaled by the loss get there with nearly forty times the gradients, torchdiffeq with fifteen times. Stiff solvers, asked in the clock of the loss, take 1.8 times as long or more on one small network, and two of them less if they are given a Jacobian by hand: that an end in a batch costs a tenth of what any of them takes was expected, and is refuted by those two.
#
# Before: [92, the explorer](92_explorer.ipynb). After: [the overview](../00_overview.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/9_tools/93_cost.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/9_tools/93_cost.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("93_cost")

# %% [markdown]
# *What is reached against what it has cost: four classes, three layers, width 16, medians over five networks, on one thread. Curves: the way to a loss of $e^{-10000}$, at any level a run that ends there. On the top line: the end itself, decided and certified. Whoever gets to the top follows the path of the flow to better than 1%; Adam does not, and its curve only says when the loss was as small.* [Drawn by](../../figures/93_cost.py)
#
# ## Statement
#
# Let $m = -\log\mathcal L$. How many steps a method takes to a given $m$ depends on the clock in which its steps are constant.
#
# 1. *In the time of the flow $\dot W = -\nabla\mathcal L$ the way to $m$ takes $t\ge e^m/m^{O(1)}$. Steps of constant length $\eta$ follow it in $n = t/\eta$: no patience reaches $m = 100$.*
# 2. *A direction $W/\|W\|$ that has come to rest moves along $\|W\|\propto m^{1/L}$. Steps that change $W$ by a fixed share $\kappa$ are then $(\log 10)/(L\kappa)$ to every factor of ten in $m$: a logarithm.*
# 3. *Explicit steps cannot be that long. In the clock $m$ the stiff eigenvalues of the flow stay of order one, so that stability allows steps $\Delta m$ of order one: a number of steps proportional to $m$.*
#
# **Proof.**
# 1. $\dot m = \|\nabla\log\mathcal L\|^2e^{-m}$, so it is to show that the gradient of $\log\mathcal L$ is at most a power of $m$. Let $\lambda_{jc}\ge0$ be its slopes in the gaps $z_{jc} - z_{cc}$. Their sum is at most 1, since $\sigma(x) = 1 - e^{-\log(1 + e^x)}\le\log(1 + e^x)$. Hence $\|\partial\log\mathcal L/\partial Z\|_F^2\le\sum\lambda^2 + (\sum\lambda)^2\le2$, and $\|\nabla\log\mathcal L\|^2\le2\sum_l\prod_{k\ne l}\|W_k\|^2$. The factors grow slowly: with $F = -\nabla\log\mathcal L$ all $\langle W_l, F_l\rangle$ are the same number $w$, the margin averaged by $\lambda$, so $\|F_l\|\ge w/\|W_l\|$, and
# $$\frac{d\log\|W_l\|^2}{dm} = \frac{2w}{\|W_l\|^2\|F\|^2}\le\frac2w .$$
# The least margin is at least $-\log(e^{e^{-m}} - 1) = m - O(e^{-m})$ and $\sum\lambda\to1$, so $w\ge m(1 - o(1))$, and no factor grows faster than $m^{1+o(1)}$.
# 2. $Z$ is homogeneous of degree $L$ in $W$ and $m$ is the least margin up to a bounded term, so $m\propto\|W\|^L$ where the direction rests.
# 3. Let $\alpha = \|F\|^2/\langle F, W\rangle$ be the rate at which $W$ grows in the time of $F$; then $\|F\|^2 = \alpha Lw$. The stiff eigenvalues are those of $J^\top CJ$ with $C$ of size $\lambda$ ([21](../2_margin/21_where_the_flow_ends.ipynb)), which in units of $\alpha$ grow like $m$. In the clock $m$, in which $W$ moves by $F/\|F\|^2$, they are $O(\alpha m)/(\alpha Lw) = O(1)$. $\square$
#
# So whoever wants to see the end has to leave the clock of training, and then the steps that stability enforces. Solvers for stiff equations do both, if they are given $dW/dm = F/\|F\|^2$: that is how they are asked here. What is then left is what a step costs. They factor a Jacobian of $n\times n$, $n$ the number of weights; the steps of this package factor one of the pairs of classes, $K(K-1)$ of them, for all networks of a batch in one call.
#
# ## What counts as a gradient, and as the path
#
# A gradient is one pass through the network and back: of this package's implicit steps also every product with the transposed Jacobian and every linearisation, of SciPy's solvers also each column of a differenced Jacobian. The path error is the distance of $Z/\|Z\|$ at equal loss from a run of SciPy's Radau at `rtol` $10^{-9}$, with the Jacobian in closed form.

# %% tags=["parameters"]
pairs: int = 1  # of the five networks of the committed table how many are followed again [1, 5]
methods: list[str] = ["dufm", "torchdiffeq dopri5", "SciPy BDF", "SciPy LSODA", "BDF, Jacobian", "LSODA, Jacobian"]  # by which methods
seeds: int = 5  # batches of 16 networks by which the growth with the target is measured [2, 64]
networks: int = 64  # networks brought to their decided ends at once [1, 512]
seed: int = 0  # seed of the open example [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas

import dufm
from dufm import claims, cost, notebook, peers, stats

p = notebook.start("93_cost", globals())

# %% [markdown]
# ## One network, two clocks
#
# The same start by the flow, which keeps the logarithm of its time, and by a loop of constant steps $\eta = 0.1$: the steps that were taken to $m$, and $t/\eta$ from the flow.

# %%
factors = [W[0] for W in cost.starts(p.seed, batch=1)]
run = dufm.gradient_flow(factors, until_log_loss=-1e4, rtol=1e-3, record={"log_loss": [-m for m in cost.LEVELS]})
_, plain = peers.constant_steps(factors, cost.LEVELS, lr=0.1)
found = pandas.DataFrame({"m": cost.LEVELS, "steps taken": plain.marks[:, 0], "log10 t/eta": (run.history.log_time / np.log(10) + 1).numpy().round(1)})
print(found.to_string(index=False, na_rep="-"))

# %% [markdown]
# The two agree where the loop arrives; the rest is extrapolated, by the law $n = t/\eta$ of statement 1: some $10^{42}$ steps to $m = 100$, some $10^{4338}$ to $10^4$. Adam is no gradient flow; its steps do not shrink with the loss until all gradients are below its $\varepsilon = 10^{-8}$. From there it is descent with the rate $10^{-3}/\varepsilon$, which takes five zeros away of four thousand.
#
# ## All methods, side by side
#
# Five networks with four classes, three layers and width 16, every method on each of them, one after the other: five pairs in which both see the same machine. Counts, errors and ends are the method's own, and some are computed again here; seconds are the machine's, and stand in [93_methods.csv](93_methods.csv) as `python tests/bench/bench_cost.py --write` measured them.

# %%
known = notebook.committed("93_methods").fillna({"end": ""})
rows = []
for pair in notebook.progress(range(p.pairs), label="networks"):
    rows += [*cost.compared(pair, p.methods), cost.ended(pair, 1), cost.ended(pair, p.networks)]
both = pandas.DataFrame(rows, columns=known.columns).merge(known, on=["pair", "method", "m"], suffixes=("", "_known"))
more, other = abs(both.gradients / both.gradients_known - 1) > 0.05, both.end != both.end_known
print(f"{len(both)} rows computed again: {more.sum()} with gradients that differ by more than 5%, {(both.error > 2 * both.error_known + 1e-5).sum()} with a larger error, {other.sum()} with another end")

# %%
last = known.sort_values(["pair", "m"]).groupby(["method", "pair"], sort=False).last()
alone, end = (last.loc[name] for name in ("dufm", "decided end, 64 at once"))


def spread(method, column, beside):
    ratio = last.loc[method][column] / beside[column]
    return f"{ratio.median():.3g} ({ratio.min():.3g} to {ratio.max():.3g})"


worst = known.groupby("method").error.max()
summary = pandas.DataFrame(
    {
        "reached": last.m.groupby("method", sort=False).median().round(1),
        "gradients": last.gradients.groupby("method", sort=False).median().round(),
        "path error": worst.map("{:.0e}".format),
        "ms": (1000 * last.processor.groupby("method", sort=False).median()).round(1),
        "over dufm alone": {method: spread(method, "processor", alone) for method in worst.index},
        "over one end of 64": {method: spread(method, "processor", end) for method in worst.index},
        "the same, wall": {method: spread(method, "wall", end) for method in worst.index},
        "end": last.end.groupby("method", sort=False).agg(lambda ends: ", ".join(sorted(set(ends)))),
    }
)
summary.sort_values("ms")

# %% [markdown]
# *Medians over the five networks, ranges in brackets; ratios of processor time, last but one of wall time. `reached` is $m$, the end infinite; the largest path error of all levels and networks; the end that the logits tell at the last level.*
#
# That the logits of Adam or of the loop sometimes name an end already at $e^{-10}$ is an early verdict of the kind that [91](91_your_own_network.ipynb) measures, and no saving: this start is one of collapse.

# %%
drawn = known[known.error.notna() | known.method.isin(["Adam", "constant steps"]) | np.isinf(known.m)]
curves = drawn[drawn.m.isin([*cost.LEVELS, np.inf])].groupby(["method", "m"])[["gradients", "processor"]].median()
figures.store("93_cost", curves.reset_index().replace(np.inf, 1e300))

# %% tags=["figure"]
figures.show("93_cost", alt="Two panels, the reached minus log loss against gradients and against processor seconds, both logarithmic. Constant steps and Adam bend to the right at 10 and stay there. All other lines rise to ten thousand: LSODA with a Jacobian at 195 gradients, this package at 298, BDF at 2500, LSODA and torchdiffeq near 4800, loss-scaled steps at 11,500. In seconds LSODA with a Jacobian is fastest alone, this package takes twice as long, BDF and LSODA four to five times, and one certified end of 64 at once lies left of all.")

# %% [markdown]
# ## How it grows
#
# With the target: gradients of the flow to $m$, 16 networks at once, five seeds. The exponent is the slope of the logarithms, with its 95% interval over the seeds.

# %%
rows = [cost.grown("m", m, s) for s in notebook.progress(range(p.seeds), label="seeds") for m in cost.AXES["m"] if m >= 1e4]
growth = pandas.DataFrame(rows, columns=["axis", "value", "seed", *cost.SPENT])


def exponent(rows, column):
    slopes = [np.polyfit(np.log(row.value), np.log(row[column]), 1)[0] for _, row in rows.groupby("seed")]
    return stats.mean_interval(slopes)


print("exponent {:.2f} [{:.2f}, {:.2f}]".format(*exponent(growth, "gradients")))
growth.groupby("value").gradients.mean().round(1).to_frame("gradients a network").rename_axis("m").T

# %% [markdown]
# From 318 to 750 gradients while $m$ grows ten thousandfold: up to $10^7$ nearly the same number for every factor of ten, as statement 2 has it for a direction at rest, and more for the next. A small power is not excluded, and an exponent below 0.1 was expected too boldly.
#
# With everything else: exponents of a network's cost from its start to the decided end, 16 at once, one thing varied at a time, from [93_scaling.csv](93_scaling.csv); for the methods by name, of one network to $\log\mathcal L = -10^4$ over the width.

# %%
settings = notebook.committed("93_scaling")
beside = growth.merge(settings, on=["axis", "value", "seed"], suffixes=("", "_known"))
print(f"{len(beside)} rows computed again: {(abs(beside.gradients / beside.gradients_known - 1) > 0.05).sum()} with gradients that differ by more than 5%")
cells = [(axis, f"{rows.value.min():g} to {rows.value.max():g}", *("{:.2f} [{:.2f}, {:.2f}]".format(*exponent(rows, column)) for column in cost.SPENT)) for axis, rows in settings.groupby("axis", sort=False)]
pandas.DataFrame(cells, columns=["grows", "from", *cost.SPENT]).set_index("grows")

# %% [markdown]
# In a batch of 256 a network costs 5 ms, one alone twenty-eight times that. Width hardly matters, since the pairs of classes are no more for it; SciPy's solvers, even with the Jacobian, slow down like a power of 1.8 to 2.7 of it, and at width 32 all of them take at least seven times as long as this package for one network. What is dear are classes and depth: more gradients to the end, and larger systems to solve.
#
# Of the processor's speed in matrix products this uses, on one thread, in billions of operations a second: the flow to $\log\mathcal L = -200$; one batched product of the same shapes; one of $1024\times1024$.

# %%
speed = notebook.committed("93_peak").groupby(["num_classes", "depth", "width", "batch"])[["flow", "same", "big"]].median() / 1e9
speed.assign(**{"of same": speed.flow / speed.same, "of big": speed.flow / speed.big}).round(2)

# %% [markdown]
# Small matrices leave most of a processor idle. The flow's products run at a fifth of the speed of one batched product of the same shapes at width 16, where the steps' own bookkeeping costs more than the products, and at half of it at width 256; of the peak for large matrices they reach 3%, 10% and 14%. Products by ten columns cannot reach it, on any solver.
#
# ## Verdict

# %% tags=["verdict"]
others = [name for name in cost.METHODS if name != "dufm" and worst[name] < 0.01 and (last.loc[name].m == 1e4).all()]
print("on the path:", ", ".join(others))
claims.check("93-gradients", min((last.loc[name].gradients / alone.gradients).min() for name in others if "Jacobian" not in name and name != "diffrax Kvaerno5"))
claims.check("93-time", min((last.loc[name].processor / end.processor).min() for name in others))
claims.check("93-target", round(exponent(growth, "gradients")[2], 2))

# %% [markdown]
# ## Where it breaks
#
# *One small network, once.* At width 16 the $n = 384$ weights make a Jacobian that costs little to factor. Whoever follows one such network, and has its Jacobian at hand, is served better by LSODA. A step of this package is hundreds of calls from Python, and one network pays for all of them alone.
#
# *Wide networks and many classes trade places.* The differenced columns grow with the number of weights, like $d^2$, and the factorisation like its cube; a step of this package has to factor the pairs of classes, and above some thirty classes explicit steps are cheaper for it, which follow $m$ only in proportion.
#
# *Seconds.* They are those of one shared machine on one evening. Ratios of processor time, side by side on one thread, suffer less from that than anything else, but caches are shared too. Jax compiles before its clock starts.
#
# *The early levels.* Until a loss of $e^{-30}$ or so any adaptive method is good enough, and explicit ones are the cheapest. What is expensive is the end.
#
# ## Try it ([answers](../answers.md#93))
#
# 1. `budget = "full"`: does every count come out on your machine? Then `python tests/bench/bench_cost.py`: which ratios of seconds?
# 2. `peers.constant_steps(factors, cost.LEVELS, lr=10.0)`: how much of $e^m$ does a rate a hundred times as large buy, and where does it leave the path?
# 3. `peers.stiff` with `method="LSODA", exact=True` at width 64: how long does it take?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
