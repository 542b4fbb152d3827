# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The complement decides: what a code leaves out stays small from three layers on, and never at two
#
# **Question.** The KKT equations of a code of low rank do not see what lies off its range, at two layers as little as at ten (notebook [21](21_where_the_flow_ends.ipynb)). Why then does low rank survive only from three layers on?
#
# **Answer.** Because of a race. Off the range the multipliers push *harder* than on it, $\beta > 1$ times as hard, at every code of equal singular values and at every depth. But depth $L$ multiplies a push on a value $\sigma$ by $\sigma^{2-2/L}$. At $L = 2$ the harder push wins however small the extra value is; for $L\ge3$ it loses below a ratio of $\beta^{-L/(L-2)}$, and the extra value freezes while the others grow for ever.
# Before: [27, three classes](27_three_classes.ipynb). After: [29, the depth of rank two](29_rank_two.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/2_margin/28_complement.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/2_margin/28_complement.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("28_complement")

# %% [markdown]
# *Full networks that start at the orthoplex of six classes plus what it leaves out ($\beta = 3/2$). Left and middle: the extra value over the kept ones while these grow, at two and at three layers, from the same starts; dashed: the law. At two layers all rise, at three those below the thick line are lost, and grey crosses start on it. Right: the ratio at which full networks change over, for five extras and two depths, against the law. [Drawn by](../../figures/28_complement.py)*
#
# ## Statement
#
# Factors are balanced, $G = -\partial\mathcal L/\partial Z$, $q = 1 - 2/L$, $p = 2/L$. A KKT point of smallest margin 1 and rank $r$ is $Z = U\Sigma V^\top$ with $\Lambda = \sum\lambda_{jc}(e_c - e_j)e_c^\top$, $\lambda\ge0$ on tight margins, $\Lambda V = U\Sigma^{p-1}$, $\Lambda^\top U = V\Sigma^{p-1}$. So $\Lambda = U\Sigma^{p-1}V^\top + N$ with a block $N$ off the range. If $\Sigma = sI$, divide $\Lambda$ by $s^{p-1}$: it is 1 on the range, and *these are the equations of every other depth*. Points of equal values, their multipliers, and the singular values $\beta_k$ of $N$ do not depend on $L$.
#
# **1. The block pushes harder.** *If $\Sigma = sI$ and $r < K-1$, then $\max_k\beta_k\ge\frac{\|Z\|_* - r}{K-1-r} > 1$ for every choice of multipliers. At $L = 2$ this holds without equal values.*
#
# **Proof.** Take $L = 2$: $\Lambda = UV^\top + N$. Tight margins are 1, so $\operatorname{tr}\Lambda = \sum\lambda = \langle\Lambda, Z\rangle = \|Z\|_*$. Columns of $\Lambda$ sum to zero, so with $C = I - J/K$ also $\operatorname{tr}\Lambda = \langle C, UV^\top\rangle + \langle C, N\rangle\le r + \sum\beta_k$, and $N$ has at most $K-1-r$ values. Last, $\|Z\|_*\ge\langle C, Z\rangle = \frac1K\sum\text{margins}\ge K-1$, with equality only if all margins are 1; then $CZ = C$ has rank $K - 1 > r$. $\square$
#
# **2. Forces and values.** *A simple singular value of a balanced flow obeys $\frac{d}{dt}\sigma_i^{-q} = -qL\,u_i^\top Gv_i$. If from some time on $u_i^\top Gv_i\le b\,u_1^\top Gv_1$ and then $(\sigma_i/\sigma_1)^q < 1/b$, then $\sigma_i$ stays below $(\sigma_i^{-q} - b\,\sigma_1^{-q})^{-1/q}$ of that time for ever. At $L = 2$, if it is at least $b > 1$ times as large, $\sigma_i/\sigma_1$ grows at least like $\sigma_1^{b-1}$.*
#
# **Proof.** $\dot Z = \sum_l(ZZ^\top)^{(L-l)/L}G(Z^\top Z)^{(l-1)/L}$, hence $\dot\sigma_i = u_i^\top\dot Zv_i = L\sigma_i^{1+q}u_i^\top Gv_i$. So $\sigma_i^{-q} - b\,\sigma_1^{-q}$ does not fall, and $\sigma_1^{-q} > 0$. At $L = 2$ the same with $\log\sigma$. $\square$
#
# **3. The law.** *Let $P = UV^\top$ and $E$ have singular values 1 and 0, $P^\top E = PE^\top = 0$; let $E$ add the same to all tight margins of $P$; let $\beta > 0$ below, and let a group of symmetries of the classes leave only $sP + \varepsilon E$ fixed, beside directions whose value is 0. Then flows keep this form, $\varepsilon$ has $\beta = \frac{\langle E, \Lambda\rangle}{\|E\|^2}\big/\frac{\langle P, \Lambda\rangle}{\|P\|^2}$ times the force on $s$, with the same $\beta$ for all multipliers, and as long as $\varepsilon < s$ and the tight margins of $P$ remain the least*
# $$\varepsilon^{-q} - \beta s^{-q} = \text{const}\quad(L\ge3),\qquad\varepsilon\,s^{-\beta} = \text{const}\quad(L = 2),$$
# *up to a relative error $O(e^{-\text{gap}})$, gap the least by which other margins exceed the tight ones. Hence $\varepsilon$ is discarded, and freezes, iff $(\varepsilon/s)^q < 1/\beta$; at $L = 2$ nothing freezes, and $\varepsilon/s\propto s^{\beta-1}$ falls iff $\beta < 1$.*
#
# **Proof.** Values that are 0 stay so, and the flow keeps symmetry. $\langle E, \Lambda\rangle = \mu\sum\lambda$ and $\langle P, \Lambda\rangle = m\sum\lambda$, with $\mu$ and $m$ what $E$ and $P$ give to a tight margin: $\lambda$ cancels. The tight margins $sm + \varepsilon\mu$ stay equal, so $\langle E, G\rangle/\langle P, G\rangle = \mu/m + O(e^{-\text{gap}})$. By 2, $d\varepsilon^{-q} = (\beta + O(e^{-\text{gap}}))\,ds^{-q}$. $s^{-q}$ falls to 0: if the constant is positive, $\varepsilon$ tends to its power $-1/q$; if it is negative, $\varepsilon/s$ rises without end. $\square$
#
# *Examples.* The orthoplex and all that it leaves out: $\beta = K/(K-2)$, so the way to collapse is barred below $(1 - 2/K)^{L/(L-2)}$. The hypercube and all characters of $b$ bits: $\beta = b$. $K = 4$: $\beta = 2$ is the separatrix $2^{-L/(L-2)}$ of [notebook 55](../5_dynamics/55_separatrix.ipynb), and 3 its law.
#
# **4. Turns.** *At $sP$, $P = UV^\top$, let equal $\lambda$ on all tight margins be multipliers, $\Lambda = P + N$, so that the ray is kept up to $O(e^{-\text{gap}})$; let $Na = \beta b$, $N^\top b = \beta a$ for unit vectors ($a$ off the range of $V$, $b$ off that of $U$), and let $D = bx^\top V^\top + Uxa^\top$ change no tight margin. To first order the flow keeps this direction, with an angle that grows like $s^{(\beta-1)/L}$.*
#
# **Proof.** $G = g\Lambda$ does not change. Put $Z = sP + AV^\top + UB^\top$ into $\dot Z = s^{1+q}[\Pi G + G\Pi' + (L-2)\Pi G\Pi']$, $\Pi$ and $\Pi'$ the projections to column and row space: $\dot A = gs^q[(L-1)A + NB]$, $\dot B = gs^q[(L-1)B + N^\top A]$, $\dot s = Lgs^{1+q}$. With $A = bx^\top$, $B = ax^\top$ both grow like $s^{(L-1+\beta)/L}$; divide by $s$. $\square$
#
# The opposite sign in $D$ gives $-(\beta+1)/L$. A common shift $\mathbf 1c^\top$ has $\beta = 0$: the power $-1/L$ of [notebook 23](23_slow_residual.ipynb). At the cube $\beta = 2$: [notebook 47](../4_spectral/47_cube.ipynb).

# %% tags=["parameters"]
depths: list[int] = [3, 5]  # depths L at which extra values are discarded [3, 20]
size: float = 100.0  # kept singular value at which networks start [40, 400]
growth: float = 20.0  # factor by which margins grow on the way [3, 100]
rounds: int = 3  # rounds of the search for the ratio, each 24 times finer [1, 5]
disturbed: int = 16  # networks disturbed at each orthoplex and depth [1, 512]
networks: int = 48  # random networks that may end in the orthoplex [4, 2048]
seed: int = 0  # seed of multipliers, noise and networks [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import basin, claims, codes, complement, notebook, stats
from dufm.metrics import centred

p = notebook.start("28_complement", globals())

# %% [markdown]
# ## One code, two depths
#
# The orthoplex of six classes with a fifth of its size in all it leaves out, followed at two and at three layers:

# %%
P, E = complement.orthoplex_extra(6)
law = dufm.late_separatrix(3, 1.5)
for L in (2, 3):
    s, extra = complement.extra_growth(P, E, L, p.size, [0.2], [2.0, p.growth])
    print(f"L = {L}: ε/s = 0.2, then", (extra / s)[:, 0].numpy().round(4), "and ε =", extra[:, 0].numpy().round(1))

# %%
shares = [0.1, 0.4, 0.9, 1.0, 1.1, 1.6]
growths = np.geomspace(1.2, p.growth, 14)
frames = []
for L in (2, 3):
    s, extra = complement.extra_growth(P, E, L, p.size, [x * law for x in shares], growths)
    start = torch.tensor(shares, dtype=s.dtype) * law
    columns = {"start": start.expand(s.shape), "growth": s / p.size, "ratio": extra / s, "law": basin.late_ratio(start, s / p.size, L, 1.5)}
    frames.append(pandas.DataFrame({"depth": L, **{name: value.flatten().numpy() for name, value in columns.items()}}))

# %% [markdown]
# ## Extras, depths
#
# $\beta$ is read off the certificate's multipliers, the ratio at which networks change over is searched for with full networks, which are told neither.

# %%
extras = {f"orthoplex {K}": complement.orthoplex_extra(K) for K in (6, 10)} | {f"cube {K}, {b} bits": complement.cube_extra(K, b) for K, b in ((8, 2), (8, 3), (16, 4))}
rows = []
for name, (P, E) in notebook.progress(extras.items(), label="extras"):
    pull = complement.random_multipliers(P, 1, p.seed)[0]
    beta = float(complement.force_ratio(pull, P, E))
    s, extra = complement.extra_growth(P, E, 2, p.size, [1e-3, 1e-2], [1.5, 3.0])
    slope = float(((extra[1] / extra[0]).log() / (s[1] / s[0]).log() / beta - 1).abs().max())
    for L in p.depths:
        q, law = 1 - 2 / L, dufm.late_separatrix(L, beta)
        s, extra = complement.extra_growth(P, E, L, p.size, [law / 3, law], [1.2, p.growth])
        kept = extra**-q - beta * s**-q
        drift = float(((kept[1] - kept[0]) / (torch.tensor([law / 3, law]) * p.size) ** -q).abs().max())
        rows.append((name, L, beta, complement.critical_extra(P, E, L, p.size, rounds=p.rounds), law, drift, slope))
critical = pandas.DataFrame(rows, columns=["extra", "depth", "beta", "ratio", "law", "drift", "slope at L = 2 off by"])
figures.store("28_complement", pandas.concat([*frames, critical[["depth", "beta", "ratio", "law"]]]))
critical.assign(**{c: [stats.below(x, 1e-4) for x in critical[c]] for c in critical.columns[5:]}).round(4)

# %% tags=["figure"]
figures.show(
    "28_complement",
    alt="Three panels. At two layers the ratio of the extra to the kept values rises on every curve, from the smallest start too; at three layers curves from below 0.296 fall and those from above rise to 1. "
    "Right, the measured ratio at which this changes lies on the law, beta to the power minus L over L minus 2, for beta from 1.25 to 4 at depths 3 and 5.",
)

# %% [markdown]
# ## The block, and turns into it
#
# The largest $\beta$ of codes with equal values, its least and its largest over random corners of their sets of multipliers. For the orthoplex of six classes these range from $\sqrt3$ up, while $3/2$ belongs to equal multipliers, the ones of least norm.

# %%
points = {"orthoplex 6": dufm.orthoplex(6), "orthoplex 8": dufm.orthoplex(8), "cube": dufm.hypercube(8), "pentagon": dufm.polygon(5), "icosahedron": codes.icosahedron(), "Petersen": codes.petersen(), "Clebsch": codes.clebsch()}
rows = []
for name, W in points.items():
    Z = centred(codes.code_matrix(W))
    U, sigma, Vh = torch.linalg.svd(Z)
    K, r = len(Z), W.shape[1]
    top = complement.block_values(complement.random_multipliers(U[:, :r] @ Vh[:r], 40, p.seed), Z, r)[:, 0]
    rows.append((name, K, r, float(sigma.sum() - r) / (K - 1 - r), float(top.min()), float(top.max())))
block = pandas.DataFrame(rows, columns=["code", "K", "rank", "bound", "least", "largest"])
turns = []
for K, beta in ((8, 2), (16, 3)):
    for L in (2, *p.depths):
        s, angle = complement.turn_growth(*complement.cube_turn(K), L, p.size, 1e-4, [1.5, p.growth])
        turns.append((K, L, float((angle[1] / angle[0]).log() / (s[1] / s[0]).log()), (beta - 1) / L))
turns = pandas.DataFrame(turns, columns=["K", "depth", "exponent of the turn", "(β − 1)/L"])
block.round(4)

# %%
turns.round(5)

# %% [markdown]
# ## Networks
#
# *Disturbed* at the orthoplex by Gaussian noise in all logits, of a tenth of its size in spectral norm; and *random* networks that end there: the largest $\beta$ of their own softmax weights, in the flow at $\log\mathcal L = -10^6$ and in its limit.

# %%
rows, draw = [], torch.Generator().manual_seed(p.seed)
for K in (6, 8):
    P, _ = complement.orthoplex_extra(K)
    noise = torch.randn(p.disturbed, K, K, generator=draw, dtype=P.dtype)
    Z = p.size / 5 * (P + 0.1 * noise / torch.linalg.matrix_norm(noise, 2)[:, None, None])
    for L in (2, *p.depths):
        names = dufm.end(dufm.balanced_init(Z, L), L).name
        rows.append((K, L, *((names == end).sum() for end in ("orthoplex", "NC"))))
ends = pandas.DataFrame(rows, columns=["K", "depth", "orthoplex", "collapse"])
start = dufm.gaussian_init(3, 16, 6, scale=0.5, batch=p.networks, seed=p.seed)
limit = dufm.limit(start)
there = dufm.end(limit, 3).name == "orthoplex"
late = dufm.gradient_flow(start, until_log_loss=-1e6, rtol=1e-3)
top = {name: complement.block_values(dufm.log_loss_residual(Z), Z, 3)[there, 0] for name, Z in (("flow", late.Z), ("limit", limit.Z))}
seen = pandas.DataFrame({name: values.numpy() for name, values in top.items()})
print(seen.agg(["count", "min", "max"]).round(4))
ends.assign(of=p.disturbed)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
deep = ends[ends.depth > 2]
claims.check("28-bound", (block.least - block.bound).min())
claims.check("28-separatrix", (critical.ratio - critical.law).abs().max())
claims.check("28-conserved", critical.drift.max())
claims.check("28-two-layers", critical["slope at L = 2 off by"].max())
claims.check("28-turn", (turns.iloc[:, 2] - turns.iloc[:, 3]).abs().max())
claims.check("28-survives", int((p.disturbed - deep.orthoplex).sum()))
claims.check("28-lost-at-two", int((p.disturbed - ends[ends.depth == 2].collapse).sum()))
claims.check("28-flow-sees", stats.wilson(int((seen["flow"] > 1.6).sum()), max(len(seen), 1))[0])

# %% [markdown]
# ## Where it breaks
#
# *One direction of several.* The orthoplex of six classes leaves out two directions. One alone adds unequal amounts to the tight margins; where multipliers are not unique, they give way as soon as $\varepsilon$ is of order 1, and its $\beta$ falls from $3/2$ to 1: it is discarded at every ratio below 1. Only both together can climb to collapse. For unaligned, unequal extras 2 is what is left: an inequality, with a $b$ that the flow must be known to keep.
# *Multipliers that are not unique* are settled by what was frozen: a value $\varepsilon$ of finite size goes on changing margins by amounts of order 1, hence softmax weights by factors. In the flow the orthoplex therefore has a $\beta$ of its own in every network, from near $3/2$ to above 2; the limit, where the frozen part has dropped out, has $3/2$. That nearly all are above 1.6 is not certain: the claim deviates.
# *Values that are not equal.* With $\rho$ the common growth of all kept values, $\varepsilon^{-q} - \beta\rho^{-q}$ is kept in the same way, $\beta$ now of $\Lambda = U\Sigma^{p-1}V^\top + N$ itself; but 1 needs equal values from three layers on.
#
# ## Try it ([answers](../answers.md#28))
# 1. In `extra_growth` take one vector of the orthoplex's complement for $E$. At which size does $\varepsilon$ stop growing like $s^{3/2}$ at $L = 2$?
# 2. `depths = [20]`: what is left of the ratio, and what does that say about very deep networks?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
