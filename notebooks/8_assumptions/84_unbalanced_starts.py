# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Unbalanced starts: depth counts by its small layers, if the big ones are near to orthogonal
#
# **Question.** Balanced layers, $W_{l+1}^\top W_{l+1} = W_lW_l^\top$, are what turns depth into an equation for the logits. Start without balance and change nothing else: does depth still bias to low rank?
#
# **Answer.** At the ends nothing changes: they are critical points of the same margin problem. *Which* of them is reached changes, and the depth that decides is not the number of layers but the number $k$ of layers that start *small*. Where the big layers are large and near to orthogonal the network moves as one of depth $k$ until the logits have outgrown them, in whatever order the layers stand:
# one or two small layers leave next to no bias to low rank, and from three on it is that of depth $k$, logit matrix by logit matrix. Big layers that are *not* orthogonal lower the depth as well, but less.
#
# Before: [83, weight decay](83_weight_decay.ipynb). After: [85, imbalanced classes](85_imbalanced_classes.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/8_assumptions/84_unbalanced_starts.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/8_assumptions/84_unbalanced_starts.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("84_starts")

# %% [markdown]
# *Share of collapse against the size $h$ of the logits at which the big layers begin to move, a line for each number $k$ of small layers, from the same logits; bars: 95%. Hollow: the big layers are stretched balanced ones instead of orthogonal ones. Dashed: balanced networks of depth $L$ (left) and of depth $k$ (right, with $k$ beside it; at $k = 1$, the linear model, and 2 it is 1). Its own dashed line is where each filled line arrives.*
# [Drawn by](../../figures/84_starts.py)
#
# ## Statement
#
# The imbalances $D_l = W_{l+1}^\top W_{l+1} - W_lW_l^\top$ are conserved, and the weights are not bounded: $\|D_l\|/\|W\|^2\to0$ ([12](../1_model/12_balance.ipynb)). The theorem about ends ([21](../2_margin/21_where_the_flow_ends.ipynb)) assumes no balance at the start; its KKT points are balanced by themselves. So the ends stay critical points of the *same* problem, and only the way there is open.
# We take layers of width $K$, one sample a class, and $D_l = (a_{l+1} - a_l)I$ with least $a_l$ zero: layers $a_l = 0$ are *small*, the others, $a_l = a$, *big*: near to $\sqrt a$ times an orthogonal matrix. Let $p(y) = \prod_l(y + a_l)$, and $y_i\ge0$ the root of $p(y_i) = \sigma_i^2$, $Z = U\operatorname{diag}(\sigma_i)V^\top$. Let $h = a^{L/2}$.
#
# 1. *The logits follow an equation of their own, in which the order of the layers does not occur:*
# $$\dot Z = U\Bigl[\Gamma\circ U^\top(I-P)V\Bigr]V^\top,\qquad\Gamma_{ij} = \frac{\sigma_i^2 - \sigma_j^2}{y_i - y_j}\quad\bigl(p'(y_i)\text{ where }y_i = y_j\bigr).$$
# 2. *Let $k$ layers be small, $Z_0$ be invertible. In the time $\tau = h^{2(L-k)/(kL)}\,t$ the path of $Z$ is, on every $[0,T]$, that of a balanced network of depth $k$ up to $O(h^{-2/k})$. At $k = 1$ that is the linear model $\dot Z = I - P$.*
# 3. *Let $K = 4$, $Z_0$ diagonal in the Hadamard characters as in [51](../5_dynamics/51_early_escape.ipynb), its three values $s_i$ positive. If $k\le2$, there is an $h_0$ such that for $h > h_0$ the end is neural collapse, at every depth $L$.*
#
# **Proof of 1.** $W_{l+1}(W_lW_l^\top) = (W_{l+1}W_{l+1}^\top - (a_{l+1} - a_l)I)W_{l+1}$. Move on through the layers above: with $Y = W_LW_L^\top - a_LI$ this gives $A_l = W_{>l}W_{>l}^\top = \prod_{m>l}(Y + a_m)$, $ZZ^\top = p(Y)$; likewise $B_l = \prod_{m<l}(X + a_m)$, $Z^\top Z = p(X)$.
# Square layers: $Y + a_l$ has the spectrum of $W_lW_l^\top$, so $Y\ge0$, where $p$ increases: $Y$ and $X$ have the eigenvalues $y_i$. In $\dot Z = \sum_lA_l(I-P)B_l$ ([62](../6_width/62_lazy.ipynb)) the entry $ij$ of the force is multiplied by $\Gamma_{ij} = \sum_l\prod_{m>l}(y_i + a_m)\prod_{m<l}(y_j + a_m)$, and $(y_i - y_j)\Gamma_{ij}$ telescopes to $p(y_i) - p(y_j)$. $\square$
#
# **Proof of 2.** Put $y = a^{-(L-k)/k}\hat y$, $\varepsilon = a^{-L/k} = h^{-2/k}$. Then $y/a = \varepsilon\hat y$ and $\sigma^2 = \hat y^k(1 + \varepsilon\hat y)^{L-k}$, so $\Gamma_{ij}dt$ is the divided difference of $\hat p_\varepsilon(\hat y) = \hat y^k(1+\varepsilon\hat y)^{L-k}$ times $d\tau$: smooth in $Z$ and $\varepsilon$ where $Z$ is invertible, and at $\varepsilon = 0$ that of depth $k$.
# There the path exists for all $\tau$, since weights that descend a loss bounded below move by at most a multiple of $\sqrt\tau$, and $Z$ stays invertible, $|d\log\sigma_i/d\tau|\le k\sigma_i^{1-2/k}\|I-P\|$ at $k\ge2$; at $k = 1$, $\hat y$ is analytic in $\sigma^2$ and nothing is asked of $Z$. Gronwall's inequality gives the rest. $\square$
#
# **Proof of 3.** The vectors stay, $\dot s_i = \varphi(s_i)g_i$ with $\varphi = p'(y)$ and the forces $g_i = \mathbb E[1-\chi_i]$; equal values stay equal, so the order stays. Let $z$ be the largest, $y$ (from here on) the smallest value, $v = z - y$.
# - *(a)* With $A\le M\le B$ the $e^{-s/2}$ of the largest, middle and smallest value, $g_z/g_y = A(B+M)/(B(A+M))$, largest at $M = A$: $g_z/g_y\le\frac12(1 + e^{-v/2})$.
# - *(b)* In depth $k\le2$, $\varphi(s)/s\propto s^{1-2/k}$ does not increase, so $d\log(z/y)/d\log y\le g_z/g_y - 1\le-\frac12(1 - e^{-v/2})$. Hence $z/y$ stays bounded, $y\to\infty$ (else all would stay in a compact set of positive rates), and as $\log(z/y)\ge0$, $v\ge1$ cannot last: at some $\tau^*$, $v < 1$ and $y > 10$.
# - *(c)* By 2, which holds for the three values alone, as the fourth, 0, is not driven, so it is in our network at $\tau^*$ for large $h$. In it $d\log\varphi/d\log s = 2pp''/p'^2\le2 - 2/L$, since $p'/p = \sum_l(y+a_l)^{-1}$, $p''/p = (p'/p)^2 - \sum_l(y+a_l)^{-2}$, and by Cauchy's inequality. So as long as $0 < v\le1$, $y\ge10$:
#   $$\frac{dz}{dy}\le\Bigl(1 + \frac vy\Bigr)^{2-2/L}\frac{1 + e^{-v/2}}2 < e^{2v/y}e^{-v/5}\le1$$
#   ($\log\frac{1+e^{-v/2}}2$ is convex, 0 at 0, and below $-\frac15$ at 1). So $v$ falls, $y\to\infty$ as in (b), $z/y\to1$. $\square$
#
# *Not proved:* that other starts end where their depth-$k$ twins end. 2 brings them near; a direction near collapse is not yet logits near a multiple of collapse. And a second family has no such equation: *stretched* starts are balanced factors, the small layers times one number, the big ones times another, at the layer norms above. Here $\dot Z(0) = \sum_lc_l^{-2}A_l(I-P)B_l$ with the balanced $A_l$, $B_l$: the small layers move alone, but through big ones that prefer the large singular values. (One small layer: a linear model with the fixed kernel $\mathcal K: F\mapsto A_lFB_l$; until the handover it heads for the largest margin at given $\langle Z,\mathcal K^{-1}Z\rangle$, a solution of full rank for all but rare kernels, and not collapse.)
#
# **Predicted**, before the cells of the figure were run, from four classes at $L = 3$, 4 with other seeds and eight networks of six classes: the last two claims below, with their numbers. The first held; the second did not.

# %% tags=["parameters"]
classes: list[int] = [4, 5]  # numbers of classes K [4, 8]
depths: list[int] = [3, 5]  # depths L [2, 8]
handovers: list[float] = [1.0, 10.0, 100.0, 10000.0]  # handover sizes h [0.001, 1e8]
networks: int = 48  # logits a cell, the same in all cells of a K [4, 1024]
every: int = 13  # every n-th cell of the table is computed again [1, 1000]
again: int = 6  # networks of such a cell [1, 1024]
errors: list[float] = [1e-3, 1e-5]  # two values of h^(-2/k) at which paths are compared [1e-6, 0.1]
starts: int = 32  # Hadamard starts [1, 1000]
seed: int = 0  # seed of every random draw; the cells use those from seed + 1000 on [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import claims, notebook, stats, sweep, unbalanced, width

p = notebook.start("84_unbalanced_starts", globals())

# %% [markdown]
# ## One logit matrix
#
# Four classes, four layers. First the order of the layers, three words of small ones (s) and big ones (b): one path. Then the two rates: distance from the path of depth $k$, over $\varepsilon = h^{-2/k}$, for four logit matrices, $L = 5$. The path of depth $k$ is integrated by SciPy, the other by the flow of all five factors.

# %%
Z0 = dufm.product(width.random_start("limit", 2, 4, 4, seeds=range(p.seed, p.seed + 4)))
marks = {"log_loss": [0.0, -5.0]}
orders = [dufm.gradient_flow(unbalanced.shifted_init(Z0, word, 10.0), until_log_loss=-5.0, rtol=1e-9, record=marks).history.Z for word in ("ssbb", "bsbs", "bbss")]
apart = max(float((other - orders[0]).norm() / orders[0].norm()) for other in orders[1:])
print("ssbb, bsbs and bbss: paths apart by", stats.below(apart, 1e-6))

# %%
times, rows = np.array([1.0, 5.0, 25.0]), []
for k in (1, 2, 3):
    shallow = torch.from_numpy(np.stack([unbalanced.shallow_path(Z, k, times) for Z in Z0], 1))
    for error in p.errors:
        h, word = error ** (-k / 2), "s" * k + "b" * (5 - k)
        record = {"log_time": (np.log(times) - 2 * (5 - k) / (5 * k) * np.log(h)).tolist()}
        Z = dufm.gradient_flow(unbalanced.shifted_init(Z0, word, h), until_log_loss=-12.0, rtol=1e-10, record=record).history.Z
        distance = torch.linalg.matrix_norm(Z - shallow) / torch.linalg.matrix_norm(shallow)
        rows += [(k, error, *row) for row in np.column_stack([times, distance / error])]
rate = pandas.DataFrame(rows, columns=["k", "ε", "τ", *range(4)]).set_index(["k", "ε", "τ"]).rename_axis("distance/ε of network", axis=1)
rate.round(3)

# %% [markdown]
# ## Many starts
#
# Logits with entries $N(0, 1/K)$, the same in every cell of a $K$; beside the unbalanced starts the balanced ones of every depth. All cells were computed once, by `dufm reproduce 84 -p every=1 -p again=48`, into [84_starts.csv](84_starts.csv); some networks of every thirteenth are computed again here.

# %%
CELL = ["num_classes", "word", "handover", "kind"]
words = ["s" * k + "b" * (L - k) for L in p.depths for k in range(1, L)]
cells = [(K, "s" * L, 1.0, "shifted") for K in p.classes for L in range(2, max(p.depths) + 1)]
cells += [(K, word, h, kind) for K in p.classes for word in words for kind in unbalanced.KINDS for h in p.handovers]
wanted, once = pandas.DataFrame(cells, columns=CELL), notebook.committed("84_starts").astype({"handover": float})
first, last = p.seed + 1000, p.seed + 1000 + p.networks
table = once.merge(wanted)[lambda rows: rows.seed.between(first, last - 1)]
counts = wanted.merge(table.groupby(CELL, as_index=False).size(), how="left")["size"]
new, old = wanted[counts != p.networks], wanted[counts == p.networks][:: p.every]
runs = [sweep.run(unbalanced.unbalanced_ends, part.to_dict("records"), seeds=range(first, end), **notebook.sweep_options()) for part, end in [(new, last), (old, min(first + p.again, last))] if len(part)]
here = pandas.concat(runs)
width.check_ran(here)
both = here.merge(table, on=[*CELL, "seed"], suffixes=("", "_table"))
print(f"{len(here)} networks followed here; of {len(both)} that are in the table {int((both['rank'] != both['rank_table']).sum())} end at another rank")

# %% [markdown]
# Each network beside its balanced twins of depth $k$ and of depth $L$: does it end at their rank? At $k = 1$ the twin is the linear model, whose end is collapse.

# %%
runs = pandas.concat([here[table.columns], table]).drop_duplicates([*CELL, "seed"], ignore_index=True)
shares = unbalanced.beside_twins(runs)
figures.store("84_starts", shares)
top = shares[(shares.handover == max(p.handovers)) & (shares.small < shares.depth)]
print(f"undecided: {int(shares.undecided.sum())} of {int(shares.networks.sum())}")
shown = {name: [stats.share(n, m) for n, m in zip(top[name], top.networks, strict=True)] for name in ("collapse", "as_small", "as_deep")}
top[["num_classes", "depth", "small", "kind"]].assign(**shown).set_index(["num_classes", "depth", "small", "kind"]).unstack("kind")

# %% tags=["figure"]
figures.show(
    "84_starts",
    alt="Share of collapse against the handover size h, one panel for each number of classes and depth, one line for each number k of small layers. With one small layer the share is above that of a balanced network of depth L at h = 1 already and soon one; with two it rises more slowly; with three and four it rises to the share of a balanced network of depth k. The hollow marks of stretched starts mostly lie lower, and at five classes, five layers and two small ones far lower.",
)

# %% [markdown]
# Statement 3 on networks of all factors: Hadamard starts whose values differ by up to $e^4$, and balanced networks of the same logits.

# %%
chi, rng = dufm.characters("hadamard", 4), np.random.default_rng(p.seed)
far = chi.logits(torch.from_numpy(np.exp(rng.uniform(-3, 1, (p.starts, 3)))))
ends = {word: unbalanced.certified_end(unbalanced.shifted_init(far, word, 1e6)).name for word in ("ssss", "sbbb", "ssbb", "bsbbsb")}
lost = {word: int((names != "NC").sum()) for word, names in ends.items()}
pandas.DataFrame({"not in collapse": lost, "starts": p.starts}).rename_axis("word")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
large, little = (rate.xs(error, level="ε") * error for error in (max(p.errors), min(p.errors)))
exponent = np.log(large / little) / np.log(max(p.errors) / min(p.errors))
claims.check("84-rate", (exponent - 1).abs().to_numpy().max())
claims.check("84-two-small", sum(count for word, count in lost.items() if "b" in word))
shifted = top[top.kind == "shifted"]
claims.check("84-effective-depth", min(stats.wilson(n, m)[0] for n, m in zip(shifted.as_small, shifted.networks, strict=True)))
both = runs[runs.word.str.contains("b") & (runs.handover == max(p.handovers))].assign(collapse=runs["rank"] == runs.num_classes - 1)
pairs = both.pivot(index=["num_classes", "seed", "word"], columns="kind", values="collapse").astype(float)
change, fall, rise = stats.mean_interval((pairs.stretched - pairs.shifted).groupby(["num_classes", "seed"]).mean())
print(f"stretched less shifted, over all cells: {change:+.3f} [{fall:+.3f}, {rise:+.3f}]")
claims.check("84-stretched", max(abs(fall), abs(rise)))

# %% [markdown]
# ## Where it breaks
#
# *Big layers that are not orthogonal.* Stretched ones lower the depth too, but they do not let all directions through alike, and the handover finds the singular values unequal. At five classes, five layers and two small ones all 48 shifted starts collapse, of the stretched ones 22. That the number of small layers alone counts, as the first look at three and four layers suggested, is refuted.
#
# *Small imbalance.* Where $h$ is far below the logits of the start, $D_l\ne0$ changes nothing: the big layers are as small as the others. The left end of the figure, $h = 1$, is not yet there: one small layer already protects.
#
# *Many small layers.* The error is a multiple of $h^{-2/k}$, at $k = 4$ and $h = 10^4$ a hundredth. The more layers are small, the larger the others must be before they do not count; and a start near the edge of a basin may go over all the same.
#
# *Two small layers are slow.* A balanced network of two layers reaches collapse from all logits used here, but past saddles, at large logits; if the handover comes first, what is still behind stays behind.
#
# *Wide layers* ([62](../6_width/62_lazy.ipynb), [64](../6_width/64_balance_undoes_width.ipynb)) are no multiples of the identity in balance terms, but each layer sees the others as such: $L$ linear models at once, so no repulsion until all have moved. *Skewed* square factors do not ([16](../1_model/16_efficiency_decides.ipynb)), and there imbalance does not help collapse much.
#
# ## Try it ([answers](../answers.md#84))
#
# 1. `handovers = [0.01]`: why is the balanced share of depth $L$ back, though $D_l\ne0$?
# 2. `depths = [8]`, `classes = [4]`: with two small layers of eight, is there any bias left at $h = 100$?
# 3. Give the layers three sizes, $a_l\in\{0, a, a^2\}$. What are the depths that the logits pass through?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
