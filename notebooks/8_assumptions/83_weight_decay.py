# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Weight decay unmakes neural collapse above a decay of its own, and a lesser end of four layers above one that nobody uses
#
# **Question.** Everything so far was without regularisation. Weight decay has a bias to low rank of its own, an *explicit* one: it prices rank. Is what remains as the decay $\lambda\to0$ the implicit bias of the flow, or the explicit one?
#
# **Answer.** The implicit one, but end by end. Neural collapse is a local minimum of the regularised loss for $\lambda < \lambda_c = K(Kq)^q/(e^{Kq}+K-1)$, $q = 1 - 2/L$, even where codes of low rank are cheaper, and none above. With four classes, at $\lambda = 10^{-4}$ 5 of 2304 starts change between collapse and another end; stronger decay takes collapse from more and more of them, above $\lambda_c$ from all, and
# even reaches rank 1, which cannot separate four classes. With six, the end of two pairs and two single classes exists up to $\lambda = 2.5\cdot10^{-3}$ at three layers, but at four only up to $2\cdot10^{-12}$: *there no decay in use is weak*.
# Before: [82, momentum, Adam and signs](82_momentum_adam_sign.ipynb). After: [84, unbalanced starts](84_unbalanced_starts.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/8_assumptions/83_weight_decay.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/8_assumptions/83_weight_decay.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("83_decay")

# %% [markdown]
# *Where the flow with weight decay rests, against the decay; bands: 95%. Left and middle: share of neural collapse, four classes; vertical lines: the decay $\lambda_c$ above which collapse is no minimum. Right: share that ends in two pairs and two single classes, six classes; vertical lines: the decay above which Newton's method finds that end no more. Marks at the left edge and black dashes: the same starts without decay.*
# [Drawn by](../../figures/83_decay.py)
#
# ## Statement
#
# Let $F_\lambda = \mathcal L(W_L\cdots W_1) + \frac\lambda2\sum_l\|W_l\|_F^2$, $C = I - J/K$, widths at least $K - 1$. *A turn* is $W_l\to Q_lW_lQ_{l-1}^\top$ with orthogonal $Q_l$, $Q_0 = Q_L = I$: it changes nothing.
#
# **0.** *$\min F_\lambda = \min_Z\mathcal L(Z) + \frac{\lambda L}2\|Z\|_{S_{2/L}}^{2/L}$, and for $L\ge3$ zero is a strict local minimum at every $\lambda$.* By Hölder's inequality for Schatten norms and that of the means, $\|Z\|_{S_{2/L}}\le\prod_l\|W_l\|_F\le(\sum_l\|W_l\|_F^2/L)^{L/2}$, with equality for balanced factors. $\mathcal L$ is convex with gradient $-C$ at 0, so with $\rho = \sum_l\|W_l\|_F^2/L$
# also $F_\lambda - F_\lambda(0)\ge\frac{\lambda L}2\rho - \|Z\|_*\ge\frac{\lambda L}2\rho - \rho^{L/2}$, positive for small $\rho > 0$. $\square$
#
# **1. The threshold of collapse.** *Let $K\ge4$. $Z = sC$, $s > 0$, with balanced factors is stationary iff $\lambda = Ks^q/(e^s + K - 1)$. If $s > Kq$ it is a strict local minimum up to turns, if $s < Kq$ a saddle; so $F_\lambda$ has collapse as a local minimum for $\lambda < \lambda_c$ and not for $\lambda > \lambda_c$ (at $\lambda_c$ second order does not decide).*
#
# 1. *Stationary.* $-\partial\mathcal L/\partial Z = I - P = gC$ with $g = K\varepsilon$, $\varepsilon = 1/(e^s + K - 1)$ the probability of a wrong class. Up to turns, with $C = UU^\top$ and $w = s^{1/L}$, the factors are $w$ times $\binom{U^\top}0$, $\binom{I\ 0}{0\ 0}$, $(U\ 0)$; they are at rest iff $\lambda w = gw^{L-1}$.
# 2. *Second variation.* Let $V_l = \binom{A_l\ B_l}{B_l'\ D_l}$, the second row and column standing for hidden directions off the range, in the data and the logits for $u = \mathbf 1/\sqrt K$. Write $b = B_1$, $c = B_L'^\top$, $E = U(\sum_lA_l)U^\top + Ubu^\top + uc^\top U^\top$, $h(E) = \sum_c\operatorname{Var}_{p_c}(e_c)$. As
#    $w^{2L-2} = \lambda s/(K\varepsilon)$ and $\lambda = gw^{L-2}$, twice the second order of $F_\lambda$ is $\lambda$ times
#    $$\frac s{K\varepsilon}h(E) + \sum_l\|V_l\|^2 - 2\sum_{l<l'}\operatorname{tr}A_{l'}A_l - 2\sum_{l<L}\operatorname{tr}B_{l+1}B_l'.$$
# 3. *The curvature of the loss.* All entries of $p_c$ are at least $\varepsilon$, so $\operatorname{Var}_{p_c}(e_c) = \min_a\sum_jp_{jc}(e_{jc} - a)^2\ge\varepsilon\|Ce_c\|^2$ and $h(E)\ge\varepsilon\|CE\|^2 = \varepsilon(\|\sum_lA_l\|^2 + \|b\|^2)$.
# 4. *Squares.* With $A_l = S_l + T_l$, symmetric and antisymmetric, $\bar S$ the mean of the $S_l$, the form is at least
#    $$L^2\Bigl(\frac sK - q\Bigr)\|\bar S\|^2 + 2\sum_l\|S_l - \bar S\|^2 + \Bigl(1 + \frac sK\Bigr)\Bigl(\bigl\|\sum_lT_l\bigr\|^2 + \|b\|^2\Bigr) + \|c\|^2 + \sum_l\|D_l\|^2 + \sum_{l<L}\|B_{l+1}^\top - B_l'\|^2,$$
#    since $2\sum_l\|S_l\|^2 - \|\sum_lS_l\|^2 = 2\sum_l\|S_l - \bar S\|^2 - L^2q\|\bar S\|^2$. If $s > Kq$ it vanishes only where $\sum_lT_l = 0$, $B_{l+1}^\top = B_l'$ and all else is 0: these are the turns.
# 5. *Converse.* $E$ symmetric, of zero row sums and zero diagonal ($K(K-3)/2$ dimensions): its columns see equal probabilities $\varepsilon$ only, 3 is an equality, and $S_l = \bar S$ gives $L^2(\frac sK - q)\|\bar S\|^2$. These are the directions that the flow without decay repels until the same $s = Kq$ ([52](../5_dynamics/52_repulsion.ipynb), [53](../5_dynamics/53_growth_law.ipynb)).
# 6. $\frac d{ds}\log\lambda = \frac qs - \frac{e^s}{e^s+K-1} < 0$ for $s\ge Kq$, $s > 0$, the first being at most $1/K$ and the second more: $s > Kq$ corresponds to $\lambda < \lambda_c$. $\square$
#
# **2. Weak decay keeps every strict end.** *If $w^*$ is, up to turns, a strict local minimum of $\|w\|^2$ under margins at least 1, then for all small $\lambda$ there is a local minimum of $F_\lambda$ whose direction tends to that of $w^*$.* Let $B$ be a closed neighbourhood of the orbit of $w^*$, in which all other points of margins at least 1 are longer; $m = \log\frac1\lambda$, $W = m^{1/L}w$.
# At $(1+\eta)w^*$ the loss is at most $K^2\lambda^{(1+\eta)^L}$, so $F_\lambda\le\lambda m^{2/L}\bigl(\frac{(1+\eta)^2}2\|w^*\|^2 + o(1)\bigr)$. On $\partial B$ either all margins are at least $1 - \eta'$, and then $\|w\|^2\ge\|w^*\|^2 + \delta$ by compactness; or one is less, and the loss is at least $\log(1 + \lambda^{1-\eta'})$, far above $\lambda m^{2/L}$.
# So the minimum over $B$ lies inside; and $B$ may be as small as one likes. $\square$ Globally, minimisers tend to the largest margin (Rosset, Zhu & Hastie 2004): decay $\lambda\to0$ *prefers* the best code of [24](../2_margin/24_best_rank.ipynb), but a flow that starts elsewhere need not find it.
#
# How small $\lambda$ must be, 2 does not say. Why a flow with weak decay ends as without: $V = e^{\lambda t}W$ follows, in another time, the unregularised flow of the logits $e^{-L\lambda t}Z(V)$. Decay acts as a slow heating, and late on it holds the loss near $\lambda$ while the direction comes to rest, as the limit of [21](../2_margin/21_where_the_flow_ends.ipynb) does at a much smaller loss.

# %% tags=["parameters"]
classes: list[int] = [4, 5, 6]  # classes K at which the threshold is searched [4, 8]
depths: list[int] = [3, 4, 6]  # depths L [2, 12]
every: int = 97  # of the rows of the committed table every n-th is computed again [1, 1000]
disturbance: float = 0.01  # relative noise on the factors of collapse [1e-6, 0.1]
seed: int = 0  # seed of the noise [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import pandas
import torch

import dufm
from dufm import claims, codes, notebook, stats, weight_decay

p = notebook.start("83_weight_decay", globals())

# %% [markdown]
# ## One network on both sides
#
# Six classes, four layers, at collapse but for noise of one percent, with decay a tenth below and above $\lambda_c$, followed to rest.

# %%
collapse, draw = codes.named(6)["NC"], torch.Generator().manual_seed(p.seed)
for ratio in (0.9, 1.1):
    decay = ratio * weight_decay.critical_decay(6, 4)
    start = dufm.balanced_init(weight_decay.least_cost(collapse, 4, decay)[0] * collapse, 4)
    noisy = [W[None] * (1 + p.disturbance * torch.randn(W.shape, generator=draw, dtype=W.dtype)) for W in start]
    run = weight_decay.decayed_flow(noisy, decay)
    print(f"λ = {ratio} λ_c, {run.status[0]}: singular values " + ", ".join(f"{s:.3f}" for s in torch.linalg.svdvals(run.Z[0]).tolist()))

# %% [markdown]
# Unlike the flow without decay, which only outgrows what it drops, this one takes it to zero: at rest ranks are exact.
#
# ## The thresholds
#
# Collapse's by a route that does not know the proof: Newton's method in all entries of the factors, with automatic second derivatives, follows the minimum upwards in $\lambda$ until a curvature is negative, or the minimum is gone.

# %%
cells = [(K, L) for K in p.classes for L in p.depths]
known = pandas.Series({cell: weight_decay.critical_decay(*cell) for cell in cells}, name="formula")
found = pandas.Series({(K, L): weight_decay.threshold(codes.named(K)["NC"], L, known[K, L] / 20) for K, L in cells}, name="found")
far = {f"λ_c at K = {K}": [f"{weight_decay.critical_decay(K, L):.1e}" for L in (3, 4, 6, 12)] for K in (4, 10, 20, 50, 100)}
print(f"largest relative difference {stats.below((found / known - 1).abs().max(), 1e-4)}")
pandas.DataFrame(far, index=pandas.Index([3, 4, 6, 12], name="depth"))

# %% [markdown]
# $\lambda_c\approx K^{1+q}q^qe^{-Kq}$ falls exponentially with the number of classes (for the mean loss divide by $K$): with many classes and three layers or more collapse is a saddle under any decay in use. The same search for the rung of two pairs and two single classes ([25](../2_margin/25_collapse_is_beaten.ipynb)), which has no such formula:

# %%
rung = codes.pairs_and_singles(6, 2)
rungs = {L: weight_decay.threshold(rung, L, low, precision=1e-3) for L, low in ((3, 1e-5), (4, 1e-14), (5, 1e-25))}
print("the rung exists up to λ = " + ", ".join(f"{decay:.1e} at L = {L}" for L, decay in rungs.items()))

# %% [markdown]
# It is delicate because it is degenerate: margins between its pairs and its singles are active both ways, one way with vanishing multipliers, and only a sharp loss tells them apart.
#
# ## Where decay prefers what
#
# Cost at the best scale, over named codes of six and four classes: from which decay on is a code of lower rank cheaper than collapse, and from which is zero?

# %%
scan, rows = torch.logspace(-4, 0, 41).tolist(), []
for K, L in [(K, L) for K in (4, 6) for L in p.depths]:
    cost = pandas.DataFrame([{name: weight_decay.least_cost(Z, L, decay)[1] for name, Z in codes.named(K).items()} for decay in scan], index=scan)
    beaten, worthless = cost.index[cost.drop(columns="NC").min(axis=1) < cost["NC"]], cost.index[cost["NC"] > K * torch.tensor(K).log().item()]
    rows.append((K, L, beaten.min(), weight_decay.critical_decay(K, L), worthless.min()))
pandas.DataFrame(rows, columns=["K", "L", "code cheaper from", "saddle from", "zero cheaper from"]).round(4)

# %% [markdown]
# At $K = 4$, $L = 3$ no code has a larger margin than collapse, and yet from $\lambda = 0.05$ on the square is cheaper: at finite decay the explicit bias is stronger than the margin's. From the first number to the second collapse is a minimum that is not the best ($10^{-4}$ is the first decay scanned); at $K = 4$ it is dearer than zero before it is a saddle.
#
# ## Where starts end
#
# Starts with seeds from 1000 on: Hadamard spectra, uniform directions of mean 1, and networks of width 8 and scale 1 with four classes; with six, networks of width 16, of scale 0.5 at three layers and 0.7 at four. What was expected of them, claims 83-weak, 83-depth and 83-rung, was fixed on seeds 0 to 63. All cells were computed once, by `dufm reproduce 83 -p every=1`, and stand in
# [83_ends.csv](83_ends.csv); some are computed here again. At rest the rung is told from other ends of rank 4 by its singular values, of which two are equal and two alone.

# %%
blocks = notebook.committed("83_ends")
chosen = notebook.progress(blocks[:: p.every].to_dict("records"), "cells")
here = weight_decay.by_decay(pandas.concat([weight_decay.again(row) for row in chosen]))
both = here.merge(blocks, on=[*weight_decay.CELL, "starts"], suffixes=("", "_known"))
differ = sum(both[name] != both[f"{name}_known"] for name in ("collapse", "rung", "one", "zero", "undecided")) > 0
print(f"{len(here)} of {len(blocks)} cells computed here, {int(differ.sum())} differ from the table")
table = blocks.groupby(weight_decay.CELL[:-1], as_index=False).sum().drop(columns="first")
table["share"] = table["collapse"].where(table.num_classes == 4, table["rung"]) / table.starts
table["low"], table["high"] = zip(*(stats.wilson(round(share * n), n) for share, n in zip(table.share, table.starts)))
table["threshold"] = [weight_decay.critical_decay(4, L) if K == 4 else rungs[L] for K, L in zip(table.num_classes, table.depth)]
figures.store("83_decay", table[["num_classes", "depth", "width", "decay", "share", "low", "high", "threshold"]])

# %% tags=["figure"]
figures.show("83_decay", alt="Shares against weight decay on a logarithmic axis. Left and middle, four classes: one curve a depth, nearly level with its value without decay up to a decay of about a hundredth, falling to zero at a vertical line between 0.4 and 0.7; deeper is lower. Right, six classes: the share of two pairs and two single classes is level for four layers up to a vertical line at 2e-12, rises slightly for three layers up to one at 2.5e-3, and is zero beyond.")

# %% [markdown]
# All starts, by decay: those that collapse, or not, against what they do without decay; those in rank 1; those that decay takes to zero.

# %%
four = table[(table.num_classes == 4) & (table.decay > 0)]
kind = four.width.map({0: "spectral"}).fillna("networks").rename("starts")
four.assign(text=four.moved.astype(str) + ", " + four.one.astype(str) + ", " + four.zero.astype(str)).pivot(index=["width", "depth", "starts"], columns="decay", values="text")

# %% [markdown]
# Nearly all changes are losses, and they set in gradually: starts near the edge of the basin go first. With six classes and three layers the rung gains before it is lost: 60 of 128 networks end there without decay, 72 at $10^{-3}$. In rank 1 the classes lie on a line, where only the two outermost can be told from all others: the flow without decay cannot end there.

# %%
above = table[(table.num_classes == 4) & (table.decay > table.threshold)]
print(f"above λ_c: {above.collapse.sum()} of {above.starts.sum()} collapse; undecided in all: {table.undecided.sum()} of {table.starts.sum()}")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
weak = four[four.decay == 1e-4].groupby("width")[["moved", "starts"]].sum()
shares = four[four.decay <= 0.1].pivot(index=["width", "decay"], columns="depth", values=["low", "high"])
deep = table[(table.num_classes == 6) & (table.depth == 4)].set_index("decay")
claims.check("83-threshold", (found / known - 1).abs().max())
claims.check("83-weak", max(stats.wilson(hits, n)[1] for hits, n in zip(weak.moved, weak.starts)))
claims.check("83-depth", (shares["low"][3] - shares["high"][6]).min())
claims.check("83-rung", deep.low[1e-14] - deep.high[1e-10])

# %% [markdown]
# ## Where it breaks
#
# *Three classes* have none of the directions of step 5. *Small starts:* a start with $\sqrt{2K}\rho^{L/2} < \lambda\rho$ goes to zero, and many larger ones follow; the scales above are of order one. *Statement 2 is about single ends:* that nearly all starts agree at weak decay is measured, and holds only below the thresholds of all ends that the starts reach. *The margin problem has critical points that are no minima*, where the flow does not rest.
#
# ## Try it ([answers](../answers.md#83))
#
# 1. `weight_decay.threshold(codes.pairs_and_singles(8, 3), 4, 1e-22)`: three pairs and two single classes.
# 2. `weight_decay.decay_ends(range(32), 4, 4, 8, 0.4, 0.3)`: what is left of smaller starts?
# 3. Show that for $L = 2$ the threshold is $\lambda_c = 1$ for every $K$, and that there zero takes over.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
