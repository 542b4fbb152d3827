# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which critical point is reached: the spectrum on the way tells better than the sizes of the network
#
# **Question.** The flow ends in a critical point of the margin problem, and there are many (notebooks [25](../2_margin/25_collapse_is_beaten.ipynb) and [35](35_reached.ipynb)). Which one does a random network of $K$ classes, depth $L$, width $d$ and initial scale $\sigma$ reach, and how early can one tell?
#
# **Answer.** Of 22,144 networks in 173 cells, one undecided, 23% end in collapse, 72% in the softmax code of their rank, 2.4% in a solution that is better than the code and 2.2% in a critical point of smaller margin than the best of its rank. Its rank shows in the spectrum when half of the loss is left: on cells that were not used to find it a law with two numbers calls 62% of the ranks right, a model that knows all sizes of the network 48%. It is no complete law: for nine and ten classes the shares that it expects at a tenth of the loss are off by 42 and 51% of the networks.
# Before: [35, which codes are reached](35_reached.ipynb). After: [41, frozen vectors](../4_spectral/41_frozen_vectors.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/3_codes/36_which_end.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/3_codes/36_which_end.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("36_ends")

# %% [markdown]
# *Ends of 128 random networks a cell at scale 1, each bar all of them, with 95% intervals of at most 0.09 on either side of a share; blank: not run. Depth downwards, width to the right. From left to right in a panel rank rises, downwards it falls; what lies between collapse and the polygon is a ladder of pairs and single classes.* [Drawn by](../../figures/36_ends.py)
#
# ## Statement
#
# **What keeps a rung.** Let $P(K,t)$ be $t$ antipodal pairs and $n = K-2t$ single classes ([25](../2_margin/25_collapse_is_beaten.ipynb): a critical point for every $t\ne1$, of rank $K-t$), $p = 2/L$, $q = 1-p$. Three things are said about $t\ge2$.
#
# 1. *Off its range the multipliers $\Lambda$ of least norm have the block $\frac t{t-1}2^{p-1}\,I$ on the $t-1$ contrasts of sums of pairs, and 0 elsewhere; the pairs themselves have $2^{p-1}$. So $\beta = t/(t-1)$ for these multipliers, whatever the depth; for $t\ge3$ there are others.*
# 2. *For $K = 2t$, the orthoplex, let balanced factors have the value $s$ on all differences of partners and $e < s$ on all contrasts of their sums. If ever $(e/s)^q < (t-1)/t$, then $e$ stays bounded while $s\to\infty$: rank $K/2$. If $(e/s)^q$ is larger by more than an amount that vanishes like $e^{-(s-e)/2}$, then $e$ catches up with $s$: neural collapse.*
# 3. *At $L = 2$, $q = 0$, there is no such room: every $e > 0$ catches up.*
#
# **Proof.** *1.* The solution of least norm is unique, so it has all symmetries of $P(K,t)$, and is the one of notebook 25: $\lambda = x = 2^{p-1}/(2t-2)$ between different pairs, $y = 0$ from samples of pairs to singles. On the vector that is $a_i$ on both classes of pair $i$, $\Lambda$ acts as $a_i\mapsto(2t-2)xa_i - 2x\sum_{j\ne i}a_j$: for $\sum a_i = 0$ that is $2tx\,a_i$, for equal $a_i$ it is 0.
#
# *2.* Let $A$ project on differences of partners, $B$ on contrasts of sums, $Z = sA + eB$. All entries depend only on whether two classes are equal, partners or neither, and so do those of $P$; such matrices commute and have $A$ and $B$ as eigenprojectors, so the plane is invariant. With the softmax weights $p_p$ of the partner and $p_c$ of any other class, $I - P$ is $g_s = (2t-2)p_c + 2p_p$ on $A$ and $g_e = 2tp_c$ on $B$, and $\dot s = Ls^{2-p}g_s$, $\dot e = Le^{2-p}g_e$. Margins are $s$ to the partner and $(s+e)/2$ to others, so $p_p/p_c = e^{-(s-e)/2}$. Hence $\frac{d(e^{-q})}{d(s^{-q})} = \frac{g_e}{g_s}\le\frac t{t-1}$, and because $s^{-q}$ falls, $E = e^{-q} - \frac t{t-1}s^{-q}$ never falls. If $E > 0$ once, $e^{-q}\ge E$ for ever. As long as $e < s$, $E$ gains at most $\frac t{(t-1)^2}\int\frac{p_p}{p_c}\,|d(s^{-q})|$, which is exponentially small in $s$ while $e\le cs$ with a constant $c<1$. If $E$ is below minus that, $e\le cs$ for ever would give $e^{-q} < 0$ in the end, where $s^{-q}\to0$; so $e/s$ exceeds every $c<1$ once, and for $c>(1-1/t)^{1/q}$ and large $s$ it cannot fall back through $c$, where $d\log(e/s)/d\log s = c^q\,t/(t-1+e^{-(1-c)s/2}) - 1 > 0$. *3.* At $q = 0$ the same with logarithms: $\log e - \frac t{t-1}\log s$ tends to a constant, and $e$ would overtake $s$. $\square$
#
# So *equal* extra values are lost together below $(1-1/t)^{1/q}$ of the pairs' value: 1/8 for two pairs and 8/27 for three at $L = 3$, 1/2 and 2/3 as $L\to\infty$. More pairs and more depth keep more. Unequal ones are not covered for $t\ge3$: a larger one changes which margins are tight, and with them $\beta$. At $t = 3$, $L = 3$ values $(0.9, 0.2)s$ regain the lower one, which is below 8/27, and of $(0.5, 0.001)s$ the upper one falls behind, though it is above. *It is the power $q$ of the ratio that decides, against a number that does not depend on depth.*
#
# **Hypothesis, the law.** At the moment when the loss has fallen to $\varphi K\log K$ let $\sigma_1\ge\sigma_2\ge\dots$ be the singular values of the centred logits of a random network. Every code has rank two or more; a further value survives by chance, the more likely the less it is behind the two first:
# $$\Pr(\text{rank}\ge i\mid\text{rank}\ge i-1) = \frac1{1+e^{-a-bx_i}},\qquad x_i = q\log\frac{\sigma_i}{\sqrt{\sigma_1\sigma_2}},\qquad3\le i\le\min(K-1,d),$$
# with two numbers $a$, $b$ for a given $\varphi$ and *all* $K, L, d, \sigma$. It says nothing about classes: only rank is predicted. Against it stand models that know the cell and not the network: a constant, one in $\log d$ and $L$, one in these, $\log K$, $\log\sigma$ and $\log(K-i)$.

# %% tags=["parameters"]
every: int = 12  # of the cells that are not saturated every n-th is computed here, with 1 all cells are [1, 1000]
networks: int = 128  # random networks a cell [8, 4096]
classes: list[int] = [4, 6, 7]  # numbers of classes of the rungs [4, 12]
depths: list[int] = [3, 6]  # their depths [3, 12]
off: float = 0.03  # relative distance from the threshold at which rungs are tested [0.001, 0.5]
margin: float = 60.0  # margin at which they are tested [20, 1000]
seed: int = 0  # first seed; network i of a cell has seed + i [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import math

import numpy as np
import pandas

from dufm import choice, claims, figures, notebook, stats, sweep

p = notebook.start("36_which_end", globals())

# %% [markdown]
# ## One network
#
# Six classes, four layers, width 16: the spectrum on the way, over its largest value, and the end. In the first, the two last values stay behind and are lost; in the second the last one, a thirtieth of the first at half of the loss, comes back: what follows is a law of chances, and no threshold.

# %%
runs = pandas.DataFrame(choice.which_end([p.seed + 1, p.seed + 2], 6, 4, 16))
for _, run in runs.iterrows():
    print(f"ends in {run['name']}, rank {run['rank']}; spectrum on the way:")
    for share in choice.LOSSES:
        print(f"  loss {share:4g} of its first value: {run[f'spectrum_{share:g}']}")

# %% [markdown]
# ## The rungs
#
# $\beta$ from multipliers that non-negative least squares finds, against $t/(t-1)$; the smallest curvature of the Lagrangian on the rung's stratum (0: no second-order way down); and starts at margin 60 with an extra value 3% below and above the threshold, followed to their ends.

# %%
rungs = pandas.DataFrame([choice.rung(K, t, L, off=p.off, margin=p.margin) for K in p.classes for t in range(2, K // 2 + 1) for L in p.depths])
whole = rungs[rungs["K"] == 2 * rungs["t"]]
print(f"{len(rungs)} rungs, β off by {stats.below(rungs['error'].max(), 1e-9)}, least curvature {stats.below(rungs['curvature'].min(), 1e-6)}")
whole[["K", "L", "threshold", "below", "above"]].round(4)

# %% [markdown]
# ## The cells, and the prediction
#
# The models were fitted to the first set below. Their coefficients, all that they predict with, and the expectations of the claims were written down before a cell of the second was run: other numbers of classes, greater depths, a smaller scale. A third set, not scored, completes the picture: width 64, where nearly all collapse, and width 2, where the rank is 2. Left out for their cost: seven to ten classes at the greatest depths, most depths of ten classes, and narrow networks of eight layers, whose slowest take minutes.


# %%
def product(classes, depths, widths, scale=1.0):
    return [(K, L, d, scale) for K in classes for L in depths for d in widths]


used = product((4, 5, 6, 8), (3, 4, 5), (3, 4, 8, 16, 32)) + product((4, 5, 6), (3, 4, 5), (3, 4, 8, 16, 32), 0.5)
held = product((7,), (3, 4, 5), (3, 4, 8, 16, 32)) + product((9,), (3, 4), (8, 16, 32)) + product((10,), (3,), (8, 16, 32)) + product((10,), (4,), (16,))
held += product((4, 5, 6), (6,), (4, 8, 16, 32)) + product((4, 6), (8,), (8, 16, 32)) + product((6,), (3, 4), (4, 8, 16, 32), 0.25)
rest = product((4, 5, 6), (3, 4, 5), (64,)) + product((4, 5, 6, 8), (3, 4), (2,))
roles = pandas.DataFrame([(*cell, role) for role, cells in {"used": used, "held out": held, "rest": rest}.items() for cell in cells], columns=[*choice.CELL, "role"])
FITTED = {
    "law 0.9": [4.024, 4.140], "law 0.5": [4.620, 3.899], "law 0.1": [5.015, 5.058], "law 0.01": [5.401, 6.268],
    "law 0.1, power 1": [5.216, 2.431], "constant": [0.223], "two": [0.986, 1.395, -1.023], "five": [17.529, 2.804, -1.988, -10.708, 3.449, 5.259],
}

# %% [markdown]
# All cells were computed once, by `dufm reproduce 36 -p every=1`, and stand in [36_ends.csv](36_ends.csv), their scores in [36_models.csv](36_models.csv). Of those in which no end has more than nine tenths of the networks, and that are cheap, every twelfth of each set is computed here again.

# %%
ends, models = notebook.committed("36_ends"), notebook.committed("36_models")
mixed = ends[(ends.networks < 0.9 * ends.of) & (ends.depth < 6) & ends.width.between(4, 16) & (ends.num_classes < 9)].groupby(choice.CELL).networks.max().reset_index()
chosen = roles if p.every == 1 else roles.merge(mixed[choice.CELL]).groupby("role").nth(slice(None, None, p.every))
runs = sweep.run(choice.which_end, chosen[choice.CELL].to_dict("records"), seeds=range(p.seed, p.seed + p.networks), **notebook.sweep_options())
here = choice.counted(runs).assign(seed=p.seed).merge(roles)
here["kind"] = [choice.kind_of(*row) for row in here[["num_classes", "depth", "rank", "margin_ratio"]].itertuples(index=False)]
score = choice.scores(runs, {name: np.array(numbers) for name, numbers in FITTED.items()}).assign(seed=p.seed, networks=p.networks).merge(roles)
KEYS = [*choice.CELL, "seed"]
table = ends[(ends.seed == p.seed) & (ends.of == p.networks)]
both = table.merge(here[KEYS].drop_duplicates())
differ = sum(here.groupby([*KEYS, "name"]).networks.sum().sub(both.groupby([*KEYS, "name"]).networks.sum(), fill_value=0) != 0) if len(both) else math.nan
ends = pandas.concat([here, table.merge(here[KEYS].drop_duplicates(), how="left", indicator=True).query("_merge == 'left_only'")])[list(table)]
scored = pandas.concat([score, models[(models.seed == p.seed) & (models.networks == p.networks)]])[list(models)].drop_duplicates([*KEYS, "model"])
figures.store("36_ends", ends.sort_values([*KEYS, "networks", "name"], ascending=[True] * 5 + [False, True], ignore_index=True))
figures.store("36_models", scored.sort_values([*KEYS, "model"], ignore_index=True))
print(f"{chosen.shape[0]} cells computed here, {ends.groupby(KEYS).ngroups} in all; counts that differ from the table: {differ}")
again = choice.fit_models(runs)
print("law fitted to the cells computed here:", ", ".join(f"φ = {share:g}: {again[f'law {share:g}'].round(1)}" for share in choice.LOSSES))

# %% tags=["figure"]
figures.show("36_ends", alt="A panel for each number of classes from 4 to 10; in each, bars by depth and width show what random networks ended in. Wide shallow networks collapse, narrow deep ones end in polygons, between them lie pairs and single classes and the orthoplex; from seven classes on some end in solutions that are no softmax codes.")

# %% [markdown]
# What the networks of all cells end in, by number of classes. *worse*: critical points whose margin is below that of the best solution of their rank; the last column but one counts all ends whose margin is below that of collapse.

# %%
by = ends.assign(below=(ends.margin_ratio < 1 - 1e-5) & (ends["rank"] > 0), undecided=ends["rank"] == 0)
kinds = by.pivot_table(index="num_classes", columns="kind", values="networks", aggfunc="sum", fill_value=0)
total = kinds.sum(axis=1)
kinds = kinds.apply(lambda column: [stats.share(n, m) for n, m in zip(column, total, strict=True)])
by[by["rank"] > 0].groupby("kind").beta.agg(["min", "median", "max"]).add_prefix("beta, ").round(2)

# %%
kinds.assign(**{"below collapse": [stats.share(n, m) for n, m in zip((by.networks * by.below).groupby(by.num_classes).sum(), total, strict=True)], "networks": total})

# %% [markdown]
# ## The law where it was not fitted
#
# Mean log score of a network's rank (nearer to 0 is better), total variation between shares expected and found, and share of networks whose rank was the likeliest, over cells; the last columns are the gain in log score over the model in $\log d$ and $L$, with its 95% interval, cells drawn again.

# %%
rows = []
for role in ("used", "held out"):
    part = scored[scored.role == role]
    rows += [(role, name, *part[part.model == name][["log_score", "variation", "right"]].mean(), *choice.advantage(part, name, "two", seed=p.seed)) for name in FITTED]
pandas.DataFrame(rows, columns=["cells", "model", "log score", "variation", "right", "gain over two", "low", "high"]).set_index(["cells", "model"]).round(3)

# %% tags=["figure"]
figures.show("36_models", alt="Left: mean log score of the law on held-out cells rises from about minus 1 at nine tenths of the loss to minus 0.6 at a hundredth; dashed lines of a constant and of log d and L lie at minus 1.5, that of all five numbers at minus 1.2. Right: mean rank found against expected at half of the loss, near the diagonal up to rank 5; the highest are expected higher than they are found, by up to 1.4 ranks.")

# %% [markdown]
# *Held-out cells. Left: the law at four losses, band: cells drawn again; dashed: models that know the cell alone. Right: one mark a cell.* [Drawn by](../../figures/36_models.py)
#
# ## Verdict

# %% tags=["verdict"]
test = scored[scored.role == "held out"]
claims.check("36-block", rungs["error"].max())
claims.check("36-plane", int(((whole["below"] != "orthoplex") | (whole["above"] != "NC")).sum()))
claims.check("36-curvature", rungs["curvature"].min())
lost = int(ends.networks[ends["rank"] == 0].sum())
claims.check("36-decided", stats.wilson(lost, ends.networks.sum())[1])
claims.check("36-computed-again", differ)
claims.check("36-law", min(choice.advantage(test, "law 0.5", other, seed=p.seed)[1] for other in ("two", "constant")))
claims.check("36-law-five", choice.advantage(test, "law 0.5", "five", seed=p.seed)[1])
claims.check("36-early", choice.advantage(test, "law 0.9", "five", seed=p.seed)[2])
claims.check("36-power", choice.advantage(test, "law 0.1", "law 0.1, power 1", seed=p.seed)[1])
claims.check("36-variation", test[test.model == "law 0.1"].variation.mean())
wide = ends[(ends.role == "held out") & ends.depth.between(3, 5) & (ends.width >= 8)]
rung = wide["name"].str.contains("pair|NC|orthoplex")
claims.check("36-ladder", stats.wilson(wide.networks[rung].sum(), max(wide.networks.sum(), 1))[0])

# %% [markdown]
# ## Where it breaks
#
# *Four expectations were wrong*, three of them here, the fourth below. The spectrum at nine tenths of the loss was expected to tell less than the five numbers of the cell, as it does on the cells that were used; on the others it tells more, because the five do not carry over to other depths and numbers of classes: what extrapolates is the state of the network, not a formula in its sizes. The power $q$, which the separatrix demands late, is not seen: the law with the plain ratio in its place scores as well (gain $-0.01$, interval from $-0.10$ to $0.08$). And the ladder is *not* nearly all: three quarters of the held-out networks of three to five layers and width 8 or more are on it, nearly all the rest in polygons, at small scale, and in solutions of rank 3 to 5 of seven to ten classes.
#
# *The shares are not exact.* A total variation of 0.25 at a tenth of the loss was found where less than 0.15 had been expected: 0.13 at six layers, 0.27 for seven classes, 0.42 for nine, 0.51 for ten, where the five numbers of the cell score better (0.50). With more classes more codes of a rank compete, and the spectrum does not see which classes pair.
#
# *The separatrix is the orthoplex's.* Rungs with single classes have the same $\beta$ and keep more: all of them return from 3% above the threshold, too. An extra value makes pairs more distant from each other, singles take over their multipliers, and the block shrinks. A first-order criterion is not the border of a basin.
#
# *Read late, any law is right.* At a hundredth of the loss three quarters of the ranks are the likeliest ones; that is a description of what remains of the path and explains nothing about the start.
#
# ## Try it ([answers](../answers.md#36))
#
# 1. `networks = 512`, `every = 40`: are the shares expected at half of the loss biased, or only scattered?
# 2. `choice.which_end(range(64), 6, 3, 16, scale=2.0)`: does the law, fitted at scales up to 1, hold for a larger one?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
