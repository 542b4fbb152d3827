# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The logits of the flow show their end late, in parts only like a root of the logarithm of time
#
# **Question.** The direction of the flow settles on a critical point (notebook 21). How soon can one *see* where to, from the logits that a network really has?
#
# **Answer.** Late, for two reasons. A common shift of a sample's logits gets no gradient at all: it is never unlearnt, only outgrown, and its share falls like $(\log t)^{-1/L}$. And a network may pass
# near saddles and needs many factors of ten in $-\log\mathcal L$ to leave one: some are still a tenth away, or more, from their end at $\mathcal L = e^{-10^8}$. The package therefore centres the logits and follows the
# *limit* of the flow, which agrees with itself at three sharpnesses in all 128 networks compared.
# Before: [22, the rate](22_rate.ipynb). After: [24, the best rank](24_best_rank.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/2_margin/23_slow_residual.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/2_margin/23_slow_residual.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("23_shift")

# %% [markdown]
# *Share of the common shift in the logits of networks that end in neural collapse, four classes, against $\log t$; the last marks are at a loss of $e^{-10^8}$. Marks: median over the networks; dashed: slope
# $-1/L$ through the last mark. The deeper, the slower.* [Drawn by](../../figures/23_shift.py)
#
# ## Statement
#
# *Let $C = I - J/K$. The flow never changes $\mathbf 1^\top W_L$, and where its direction converges, and the frozen row meets the limit, the share of the shift falls as $\|Z - CZ\|_F/\|Z\|_F \sim (\log t)^{-1/L}$.*
#
# **Proof.**
# 1. $\mathcal L$ does not change if one number is added to all logits of a sample, so $\mathbf 1^\top\partial\mathcal L/\partial Z = 0$: each column of softmax less one-hot sums to zero.
# 2. $\mathbf 1^\top\dot W_L = -\mathbf 1^\top\frac{\partial\mathcal L}{\partial Z}(W_{L-1}\cdots W_1)^\top = 0$: the common row of the classifier is *frozen* at its random start.
# 3. $Z - CZ = \frac1K\mathbf 1\,(\mathbf 1^\top W_L)\,W_{L-1}\cdots W_1$ is that frozen row times a product of $L - 1$ factors. With $\rho = \|W\|$ and the direction converged, it grows like $\rho^{L-1}$ and $Z$ like $\rho^L$ (unless the row is orthogonal to the
#    limit of that product; in no run below is it): the share falls like $1/\rho$.
# 4. $\log t\sim m\sim\rho^L$ (notebook 22), so $1/\rho\sim(\log t)^{-1/L}$. $\square$
#
# At $L = 6$ the share halves while $\log t$ grows 64-fold. A KKT residual of the uncentred logits falls no faster, and means nothing; a rank read off their singular values sees a number that the loss
# does not. Centred, the residual of a network that has arrived is rounding.
#
# ## The other slow part, and the limit
#
# Write $W = \rho\,\theta$ with $\|\theta\| = 1$, and $u = \log m$ for the smallest margin $m$.
#
# 1. $F = -\nabla\log\mathcal L = \sum_i\lambda_i\nabla m_i$ over all margins $m_i$; late in training $\lambda_i\propto e^{-(m_i - m)} = e^{-m(m_i/m - 1)}$. The ratios $m_i/m$ depend on $\theta$ alone, so in $\lambda$ the size of the weights
#    enters through one number, the *sharpness* $m$.
# 2. Each $\nabla m_i$ is $\rho^{L-1}$ times a function of $\theta$. With $u$ as clock, $du = L\,d\log\rho$, every power of $\rho$ cancels:
#    $$\frac{d\theta}{du} = \frac{F - \langle F, \theta\rangle\theta}{L\,\langle F, \theta\rangle}.$$
# 3. Where it rests, $F\parallel\theta$: stationarity with the multipliers $\lambda$, a KKT point up to the blur $O(1/m)$ of the smooth minimum.
#
# The frozen row is the case $\beta = 0$ of notebook [28](28_complement.ipynb), which says how every part off the range grows or fades. Near a saddle $\theta$ leaves like a power of $m$, that is of $-\log\mathcal L$: hence the factors of ten. `dufm.limit` holds the sharpness at $10^4$ and lets $u$ run on until the direction rests; $u = 60$ would be a loss of
# $\exp(-10^{30})$. That is the limit of the flow and not the flow, so both are tested: over three sharpnesses, and against the logits of the flow wherever those decide.

# %% tags=["parameters"]
num_classes: int = 4  # classes K of the shift [3, 12]
depths: list[int] = [2, 3, 4, 6]  # depths L of the shift [2, 12]
width: int = 16  # hidden width d [3, 128]
scale: float = 0.7  # initial scale of the shift's networks [0.01, 2]
networks: int = 32  # random networks for each depth [4, 1024]
compared: int = 64  # random networks compared in each of two cells [4, 1024]
sharpnesses: list[float] = [1e3, 1e4, 1e5]  # sharpnesses of the limit, 1e4 among them [1e3, 1e6]
decades: int = 8  # the flow itself is followed to a loss of e to the minus ten to this [4, 8]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import claims, ends, figures, notebook, search, stats
from dufm.metrics import centred

p = notebook.start("23_slow_residual", globals())
levels = [-(10.0**x) for x in range(2, p.decades + 1)]

# %% [markdown]
# ## One network
#
# The common row of the classifier at the start and at $e^{-10^8}$, and the share of the shift in between:

# %%
one = [W[0] for W in dufm.gaussian_init(3, p.width, 4, scale=p.scale, batch=1, seed=p.seed)]
run = dufm.gradient_flow(one, until_log_loss=levels[-1], rtol=1e-3, record={"log_loss": levels})
before, after = one[-1].sum(0), run.factors[-1].sum(0)
print(f"length of the common row {before.norm():.5f}, changed by {stats.below((after - before).norm() / before.norm(), 1e-6)} of it")
for loss, Z in zip(levels[::2], run.history.Z[::2], strict=True):
    print(f"log ℒ = {loss:.0e}: share of the shift {torch.linalg.norm(Z - centred(Z)) / torch.linalg.norm(Z):.5f}")

# %% [markdown]
# ## Many networks

# %%
rows, residuals = [], []
for L in notebook.progress(p.depths, label="shift"):
    factors = [W.to(notebook.device()) for W in dufm.gaussian_init(L, p.width, p.num_classes, scale=p.scale, batch=p.networks, seed=p.seed)]
    ended = dufm.end(factors, L).name == "NC"
    if not ended.any():
        print(f"L = {L}: none of {p.networks} networks ends in neural collapse; raise scale, width or networks")
        continue
    run = dufm.gradient_flow([W[ended] for W in factors], until_log_loss=levels[-1], rtol=1e-3, record={"log_loss": levels})
    Z = run.history.Z.cpu()
    share = (torch.linalg.matrix_norm(Z - centred(Z)) / torch.linalg.matrix_norm(Z)).median(1).values
    log_time = run.history.log_time.cpu().median(1).values
    rows.append(pandas.DataFrame({"depth": L, "networks": ended.sum(), "log_time": log_time, "share": share}))
    last = dufm.kkt_certificate(Z[-1], L, p.num_classes - 1, active_tol=0.1)
    residuals.append((L, int(ended.sum()), stats.below(last.residual.max(), 1e-12), stats.below(last.gap.max(), 1e-8)))
if not rows:
    raise dufm.DufmError(f"no network of depths {p.depths} ends in neural collapse")
shift = pandas.concat(rows, ignore_index=True)
figures.store("23_shift", shift)

# %% tags=["figure"]
figures.show(
    "23_shift",
    alt="Share of a common shift in the flow's own logits against log time, up to 1e8, on logarithmic axes, for networks of four classes that end in neural collapse. The lines of the depths "
    "2, 3, 4 and 6 run along dashed slopes of minus one over L: deeper falls more slowly.",
)

# %%
slopes = shift.groupby("depth").apply(lambda t: np.diff(np.log(t["share"]))[-1] / np.diff(np.log(t["log_time"]))[-1], include_groups=False)
arrived = pandas.DataFrame(residuals, columns=["depth", "networks", "centred residual", "gap"]).set_index("depth")
arrived.assign(slope=slopes.round(3), predicted=[round(-1 / L, 3) for L in arrived.index])

# %% [markdown]
# ## The flow beside its limit
#
# Two cells, network by network: the end by name at each sharpness, and the end that `dufm.end` gives to the flow's own logits, read at three losses without the limit and without the second sign. Where that
# decides otherwise, the curvature of the point it names.

# %%
marks = [-(10.0 ** (x / 2)) for x in range(2, 2 * p.decades + 1)]
read_at = [-2e3, *sorted({-(10.0 ** min(6, p.decades)), -(10.0**p.decades)}, reverse=True)]
rows, standard, followed = [], {}, {}
for K, L, scale in notebook.progress([(6, 3, 0.5), (4, 8, 1.0)], label="agreement"):
    factors = [W.to(notebook.device()) for W in dufm.gaussian_init(L, p.width, K, scale=scale, batch=p.compared, seed=p.seed)]
    limits = {("limit, sharpness", m): dufm.end(dufm.limit(factors, sharpness=m), L) for m in p.sharpnesses}
    standard[K], places = limits["limit, sharpness", 1e4], sorted({*marks, *read_at} if K == 6 else read_at, reverse=True)
    run = dufm.gradient_flow(factors, until_log_loss=places[-1], rtol=1e-3, record={"log_loss": places})
    followed[K] = dict(zip(places, run.history.Z.cpu(), strict=True))
    for what, end in [*limits.items(), *((("flow, log ℒ", x), dufm.end(followed[K][x], L)) for x in read_at)]:
        other = np.flatnonzero(end.decided.cpu().numpy() & (end.name != standard[K].name))
        saddle = max(search.end_curvatures(end, L, other), default=np.nan)
        rows.append((K, L, *what, int(end.decided.sum()), len(other), round(saddle, 4)))
agreement = pandas.DataFrame(rows, columns=["K", "L", "read from", "at", "decided", "otherwise", "largest curvature"])
agreement.assign(at=agreement["at"].map("{:.0e}".format)).set_index(["K", "L", "read from", "at"])

# %% [markdown]
# Over the sharpnesses the end is the same for every network. The logits of the flow agree wherever they have come near enough, but an early reading can be wrong, for single networks still at $e^{-10^8}$: the nearest certified
# point is then a *saddle*, with a direction that leads down among matrices of its own rank. A certificate does not know the difference, and logits alone do not tell what still grows.
#
# How the flow comes to its end: the sixteen first networks at $K = 6$ whose limit is two pairs and two single classes.

# %%
rung = np.flatnonzero(standard[6].name == "2 pairs, 2 single")[:16]
if not len(rung):
    raise dufm.DufmError(f"no network of width {p.width} ends in two pairs and two single classes: lower width, or raise compared")
path = torch.stack([followed[6][loss][rung] for loss in marks])
away = ends.distance(path, standard[6].Z[rung].cpu()).numpy()
approach = pandas.DataFrame({"network": np.tile(rung, len(marks)), "minus_log_loss": -np.repeat(marks, len(rung)), "distance": away.ravel()})
figures.store("23_approach", approach)

# %% tags=["figure"]
figures.show(
    "23_approach",
    alt="Relative distance of the flow's logits from the certified end with two pairs and two single classes, against minus log loss from 10 to 1e8 on logarithmic axes. Every line falls, "
    "at very different times; some networks are a tenth away at the right edge.",
)

# %% [markdown]
# *Distance from the certified end at six classes and three layers, one line a network. All come to it in the end, some only where a loss can no longer be written.* [Drawn by](../../figures/23_approach.py)
#
# ## Verdict

# %% tags=["verdict"]
by_network = approach[approach["minus_log_loss"] >= 999].groupby("network")["distance"]
limits, flows = agreement[agreement["read from"] == "limit, sharpness"], agreement[agreement["read from"] == "flow, log ℒ"]
claims.check("23-shift", max(abs(slope * L + 1) for L, slope in slopes.items()))
claims.check("23-approach", int((by_network.diff() >= 0).sum()))
claims.check("23-sharpness", (limits["otherwise"] + p.compared - limits["decided"]).sum())
claims.check("23-flow", flows["otherwise"][flows["at"] == -1e6].sum())
claims.check("23-flow-late", flows["otherwise"][flows["at"] == -1e8].sum())
claims.check("23-saddles", flows["largest curvature"].max())

# %% [markdown]
# ## Where it breaks
#
# *The two claims about the flow's own logits deviate*: at $e^{-10^6}$ five readings, and at $e^{-10^8}$ two, name a saddle that is being passed. A rank read off raw logits is worse still: it sees the shift.
# *Float64 ends the flow* somewhere beyond $e^{-10^{12}}$, where margins are no longer known finely enough; only the limit goes on.
#
# ## Try it ([answers](../answers.md#23))
#
# 1. `depths = [12]`, `scale = 1`: what share of the logits is shift at the last loss, and after how many factors of ten in $\log t$ would it be one percent?
# 2. `sharpnesses = [1e3, 1e4, 1e6]`: do ends still agree network by network?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
