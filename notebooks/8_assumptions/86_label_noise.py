# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Label noise makes low rank a transient: it lasts for a time of order 1/ε, and then networks collapse
#
# **Question.** A share $\varepsilon$ of the labels is wrong. Do deep networks still end at low rank?
#
# **Answer.** If a feature is shared by samples of several labels, no. The loss then has a finite minimum, attained by logits of collapse of one definite size, whatever the depth; codes of low rank are saddles of it, and none of the random networks below stays at one. But most deep ones still go there first, and stay for a time of order $1/\varepsilon$: the bias to low rank is one of how long, and no more of where. If every sample has a feature of its own, wrong labels are classes of another size, and notebook [85](85_imbalanced_classes.ipynb) has them.
#
# Before: [85, imbalanced classes](85_imbalanced_classes.ipynb). After: [87, a ReLU between](87_relu_between.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/8_assumptions/86_label_noise.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/8_assumptions/86_label_noise.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("86_transient")

# %% [markdown]
# *Effective rank of the centred logits against time, four classes, a panel a depth: the median of the networks at three shares of wrong labels, with the band of the middle half at the least of them; dotted, without noise. Dashed: the ranks of the square and of collapse. [Drawn by](../../figures/86_transient.py)*
#
# ## Statement
#
# Class $c$'s feature carries its own label with probability $1-\varepsilon$ and each other one with $\varepsilon/(K-1)$, $\varepsilon < 1 - 1/K$: column $c$ of $Y$. The loss is the cross-entropy against $Y$ less its infimum, $\mathcal L = \sum_c\mathrm{KL}(y_c\|p_c)$, and $-\partial\mathcal L/\partial Z = Y - P$. Let the hidden width be at least $K$.
#
# 1. *At every depth the minimum is attained exactly where the centred logits are $s^*C$, $s^* = \log\frac{(1-\varepsilon)(K-1)}{\varepsilon}$.*
# 2. *A critical point of balanced factors whose logits are not these is no local minimum.*
# 3. *For $K = 4$ the square, two bits that are each right with probability $\frac{1+m}2$, $m = 1 - \frac43\varepsilon$, is critical among logits of rank 2; what it leaves over is $Y - P = g\,uu^\top$, $u = \frac12(1,-1,-1,1)$, with $g = m(1-m)$.*
# 4. *Beside it an aligned extra singular value $\varsigma$, in balanced factors of depth $L\ge3$, needs the time $T = \dfrac{\varsigma^{-q}}{(L-2)\,m(1-m)}\,(1 + o(1))$, $q = 1 - \frac2L$, to reach any fixed size below $s^*$, as $\varsigma\to0$: of order $1/\varepsilon$ for small $\varepsilon$.*
#
# **Proof.**
# 1. $\mathrm{KL}(y_c\|p_c) = 0$ iff $p_c = y_c$, which fixes column $c$ of $Z$ up to a common number: $\log\frac{1-\varepsilon}{\varepsilon/(K-1)}$ at $c$ against 0 elsewhere.
# 2. Let $R = Y - P\ne0$ and $r$ the rank of $Z = U\Sigma V^\top$. In balanced factors $W_l = U_l\Sigma^{1/L}U_{l-1}^\top$ with $U_L = U$, $U_0 = V$, and the gradients by the last and the first are $R\,V\Sigma^{1-1/L}U_{L-1}^\top$ and $U_1\Sigma^{1-1/L}\,U^\top R$: where they vanish, $RV = 0$ and $U^\top R = 0$. Let $u, v$ be the first singular pair of $R$: $u\perp U$, $v\perp V$. So $r < K$, and there are unit vectors $u_1,\dots,u_{L-1}$ of the hidden layers orthogonal to the $U_l$. Add $t\,u_lu_{l-1}^\top$ to every factor, $u_L = u$, $u_0 = v$: the logits change by $t^Luv^\top$ and nothing else, and
#    the loss by $-t^L\sigma_1(R) + O(t^{2L}) < 0$. (Without balance: every local minimum of a linear network as wide as this is global if the loss is convex, Laurent & von Brecht 2018.)
# 3. Two independent bits have $p_0 = \frac{(1+m)^2}4$, $p_1 = \frac{1-m^2}4$ (twice), $p_2 = \frac{(1-m)^2}4$, and $\log p$ is a sum over the bits: logits of rank 2. $Y - P$ is diagonal in the characters of two bits. $P$ has the eigenvalues $m$, $m$ and $m^2$, and $Y$ has $1 - \frac43\varepsilon = m$ three times: what is left is $m - m^2$ at the product of the bits.
# 4. Balanced aligned factors keep their vectors ([41](../4_spectral/41_frozen_vectors.ipynb); $Y$ is diagonal in the characters too): $\dot\varsigma = L\varsigma^{2-2/L}g(\varsigma, \cdot)$, and where the other two are at the square, they stay within $O(\varsigma)$ of it, since it is the strict minimum there. So $g = m(1-m) + O(\varsigma)$, and $\frac{d}{dt}\varsigma^{-q} = -(L-2)g$. Up to a small fixed size $\eta$ the time is $\varsigma^{-q}/((L-2)m(1-m))$ within a factor $1 + O(\eta)$, less $\eta^{-q}$ of the same; from there on it is bounded, since in the three values the loss is strictly convex with its minimum at $s^*$, and the flow goes down to it. Let $\varsigma\to0$, then $\eta\to0$. $\square$
#
# **On the ray of collapse** noise brings the turn from repulsion to attraction forward. With all values at $s$ and $p_1 = 1/(e^s + K - 1)$, $g = K(p_1 - \frac{\varepsilon}{K-1})$, a small relative deviation obeys $\frac{d\log(\delta/s)}{ds} = \frac qs - \frac{p_1}{g}$, since $\delta g = -p_1\delta$ as without noise ([53](../5_dynamics/53_growth_law.ipynb)): it grows until $s = Kq\,\bigl(1 - \frac{\varepsilon}{K-1}(e^s + K - 1)\bigr)$, earlier than $Kq$, and near $s^*$, where $g\to0$, it vanishes.
#
# The saddle in 2 has order $L$ in this direction. At $L = 2$ it is strict, and the extra value grows at the rate $2g$: the time is $\log(1/\varsigma)/2g$, no power. So depth and smallness of the start multiply the time that noise allows to low rank, and nothing makes it infinite.
#
# **Predicted** before the networks were run, from 24 other starts a cell: all end in collapse at every depth and noise; for $\varepsilon = 10^{-4}$ most of four layers have effective rank below 2.5 at time $0.1/\varepsilon$, and few of two; the time at which it is last below 2.5 has an exponent in $1/\varepsilon$ between 0.9 and 1.1.

# %% tags=["parameters"]
depths: list[int] = [2, 3, 4]  # depths L, one of them above 2: the law of escape has those [2, 6]
noise: list[float] = [0.3, 0.01, 0.0001]  # shares ε of wrong labels, 2 or more, falling [1e-5, 0.7]
size: float = 0.1  # size of the first logits, balanced, entries N(0, size²/K) [1e-3, 1]
networks: int = 32  # random networks a depth [4, 1024]
beside: list[float] = [0.1, 0.01]  # shares at which the law of escape is tried [1e-4, 0.7]
extra: float = 1e-4  # the extra value beside the square, over the square's [1e-8, 1e-2]
seed: int = 0  # first seed; network i has seed + i [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import claims, metrics, notebook, soft_labels, stats
from dufm import width as widths

p = notebook.start("86_label_noise", globals())
K = 4
if max(p.depths) < 3:
    raise dufm.DufmError("depths must hold one above 2")

# %% [markdown]
# ## One network
#
# Four layers, the middle share of wrong labels: singular values of the centred logits along the time, and those of $s^*C$.

# %%
def starts(L, count):
    return widths.random_start("limit", L, K, K, scale=p.size ** (1 / L), seeds=range(p.seed, p.seed + count))


middle = p.noise[len(p.noise) // 2]
moments = sorted({1, 10, 1 / middle, 3 / middle})
run = soft_labels.noisy_flow(starts(4, 1), middle, record={"log_time": np.log(moments)})
for t, Z in zip(moments, run.history.Z[:, 0], strict=True):
    print(f"t = {t:5.0f}: {np.round(torch.linalg.svdvals(metrics.centred(Z))[:-1].numpy(), 3)}")
print(f"at rest: {np.round(torch.linalg.svdvals(metrics.centred(run.Z[0]))[:-1].numpy(), 3)}, s* = {soft_labels.collapse_size(K, middle):.3f}")

# %% [markdown]
# ## All networks
#
# Followed until the loss is within $e^{-20}$ of its infimum; a network that has arrived keeps its last rank. Beside them the same starts without noise.

# %%
decades = np.arange(-1, np.log10(1 / min(p.noise)) + 2.01, 0.2)
times, simplex = np.log(10) * decades, metrics.centred(torch.eye(K, dtype=torch.float64))
ranks, left, rows = {}, 0, []
for L, share in notebook.progress([(L, share) for L in p.depths for share in (*p.noise, 0.0)], label="networks"):
    flow = soft_labels.noisy_flow if share else dufm.gradient_flow
    run = flow(starts(L, p.networks), *([share] if share else []), until_log_loss=-20.0, record={"log_time": times})
    last = dufm.effective_rank(metrics.centred(run.Z))
    found = dufm.effective_rank(metrics.centred(run.history.Z.nan_to_num()))
    ranks[L, share] = torch.where(run.history.log_loss.isnan(), last, found).numpy()
    if share:
        goal = soft_labels.collapse_size(K, share) * simplex
        left += int((~(torch.linalg.matrix_norm(metrics.centred(run.Z) - goal) <= 0.01 * torch.linalg.matrix_norm(goal))).sum())
    low, mid, high = np.quantile(ranks[L, share], [0.25, 0.5, 0.75], axis=1)
    shown = decades <= (np.inf if share else float(run.log_time.min()) / np.log(10))
    rows.append(pandas.DataFrame({"depth": L, "noise": share, "decade": decades, "low": low, "median": mid, "high": high})[shown])
figures.store("86_transient", pandas.concat(rows))
print(f"{left} of {len(p.depths) * len(p.noise) * p.networks} are not within 1% of collapse of size s* at the end")

# %% tags=["figure"]
figures.show(
    "86_transient",
    alt="Three panels, two, three and four layers: effective rank against time on a logarithmic axis. The medians fall from 2.6 to 2.35 at two layers and to 2.1 or below at three and four, by time 3. At two layers they return to 3 at once. At three and four layers those with "
    "less noise stay longer, a hundred times for a hundredth of the noise, and then rise to 3; without noise they stay low.",
)

# %% [markdown]
# At time $0.1/\varepsilon$, how many are below 2.5; and of those that are at the least noise, the exponent with which the time they stay there grows in $1/\varepsilon$, with its 95% interval.

# %%
few, some = p.noise[-1], p.noise[-2]
index = {share: int(np.abs(decades - np.log10(0.1 / share)).argmin()) for share in p.noise}
low = pandas.DataFrame({share: {L: int((ranks[L, share][index[share]] < 2.5).sum()) for L in p.depths} for share in p.noise})


def last_low(L, share):
    """Decade at which the effective rank of each network is last below 2.5."""
    return np.where(ranks[L, share] < 2.5, decades[:, None], decades[0]).max(axis=0)


exponents = {}
for L in p.depths:
    stay = ranks[L, few][index[few]] < 2.5
    if stay.sum() > 1:
        exponents[L] = stats.mean_interval((last_low(L, few) - last_low(L, some))[stay] / np.log10(some / few))
print("exponents:", {L: tuple(round(x, 3) for x in values) for L, values in exponents.items()})
low.rename_axis("depth").rename_axis(columns=f"below 2.5 at 0.1/ε, of {p.networks}; ε")

# %% [markdown]
# ## The square, and the way out
#
# Networks of width 2 cannot leave rank 2 and should find the square. What they leave over, against $m(1-m)$; the last digits, which no descent of a loss resolves, by SciPy from the equations. Then the time in which an extra value beside the square grows to half of $s^*$, over $T$ for its first value less $T$ for its last.

# %%
errors = []
for share in (0.3, 0.03):
    narrow = soft_labels.noisy_flow(dufm.gaussian_init(3, 2, K, batch=8, seed=p.seed), share, max_steps=300)
    rest = torch.stack([soft_labels.critical_at_rank(Z, share, 2) for Z in narrow.Z])
    over = torch.linalg.svdvals(soft_labels.noisy_labels(K, share) - rest.softmax(-2))[:, 0]
    errors.append(float((over / soft_labels.square_force(share) - 1).abs().max()))
third, escape = torch.tensor([0.5, -0.5, -0.5, 0.5], dtype=torch.float64), {}
for L in [L for L in p.depths if L > 2]:
    for share in p.beside:
        square, force, half = soft_labels.square(share), soft_labels.square_force(share), soft_labels.collapse_size(K, share) / 2
        value = p.extra * float(torch.linalg.svdvals(square)[0])
        law = float(soft_labels.time_to_escape(value, L, force) - soft_labels.time_to_escape(half, L, force))
        grid = law * np.linspace(0.8, 1.2, 81)
        start = dufm.balanced_init((square + value * torch.outer(third, third))[None], L)
        run = soft_labels.noisy_flow(start, share, record={"log_time": np.log(grid)})
        grown = (run.history.Z[:, 0] @ third @ third).nan_to_num(2 * half).numpy()
        escape[L, share] = float(np.interp(half, grown, grid)) / law
print("what is left over, relative error:", stats.below(max(errors), 1e-6))
pandas.Series(escape).unstack().round(3).rename_axis("depth").rename_axis(columns="measured time over the law; ε")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("86-collapse", left)
claims.check("86-square", max(errors))
claims.check("86-escape", max(abs(x - 1) for x in escape.values()))
deep, shallow = low.loc[max(p.depths), few], low.loc[min(p.depths), few]
claims.check("86-transient", stats.wilson(deep, p.networks)[0] - stats.wilson(shallow, p.networks)[1])

# %% [markdown]
# ## Where it breaks
#
# *Starts that are exactly aligned, with a negative value.* In characters an extra value of the wrong sign obeys the same equation, falls to 0 and never crosses: such symmetric starts stay at the saddle. The random ones here are not.
#
# *Rest and saddle are hard to tell apart.* At small $\varepsilon$ a network of four layers sits at rank 2 for most of its training, its loss nearly flat; whoever stops there sees low rank. Smaller starts stay longer: what they discard is smaller in proportion, so that by 4 the stay tends to grow like the power $-q$ of the size. Sizes of 0.1 are far from that limit, and there it grows faster.
#
# *Other codes.* Statement 2 is for balanced ends of all of them, and says nothing on how long a network stays; 3 and 4 are for the square alone; for more classes the force is that of the residual's block off the range, which one has to compute.
#
# ## Try it ([answers](../answers.md#86))
#
# 1. `size = 0.01`: by which factor do three layers stay longer?
# 2. `noise = [0.6, 0.1, 0.001]`: how much noise leaves no trace of low rank?
# 3. Show that at $L = 2$ the square is a strict saddle, and compute the rate at which it is left.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
