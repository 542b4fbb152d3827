# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Imbalanced classes: weights change nothing in the end, numbers of samples bring new ends, and collapse stays a strict optimum
#
# **Question.** The model has classes of equal size. What becomes of its ends, and of the bias of depth to low rank, if one class has a hundred times the samples of the others, or a hundredth?
#
# **Answer.** There are two imbalances. *Weights* in the loss leave the margin problem alone: the ends are the same and, in the networks of four classes below, are reached about as often; at finite loss margins differ by the logarithms of the weights, and relative to the margin that fades. *Samples* of their own, a free feature each, change its norm. Logits of collapse are still critical, at every depth and for all sizes, and a strict local optimum. But other ends appear: with one class of a hundredth of the samples, networks of three layers end at full rank and mostly *not* in collapse. Depth biases to low rank all the same.
#
# Before: [84, unbalanced starts](84_unbalanced_starts.ipynb). After: [86, label noise](86_label_noise.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/8_assumptions/85_imbalanced_classes.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/8_assumptions/85_imbalanced_classes.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("85_imbalance")

# %% [markdown]
# *Share of networks of four classes that end in collapse (filled) and at full rank (hollow, dashed), against the size of one class over that of the other three. Left: by weight, where both are one. Right: by samples. Bars: 95%. [Drawn by](../../figures/85_imbalance.py)*
#
# ## Statement
#
# Sizes $n_c$ have mean 1, $N = \operatorname{Diag}(n)$, and the loss is $\sum_c n_c\ell_c$; let it fall far enough, below $\log2\cdot\min n$. *By weight*, class $c$ has one feature $h_c$; many copies of one sample, which share their feature, amount to the same. *By samples*, each has a feature of its own. Equal ones stay equal, since they get equal gradients, and then cost $n_c\|h_c\|^2$; so in $\tilde h_c = \sqrt{n_c}\,h_c$ the flow is one of $K$ columns, $M = W_L\cdots W_2\tilde H$, with logits $Z = MN^{-1/2}$.
#
# 1. *By weight, the direction tends to a KKT point of the margin problem of equal classes. A network at rest at constant sharpness whose centred logits are $sC + o(s)$ has $z_{cc} - z_{jc} = s + \log n_c + O(1/s)$: they are $C(sI + \log N) + O(1/s)$. With $\log N$ less its mean, which is a part of $s$, they miss collapse by $\|C\log N\|$, a share that falls like $1/s$.*
# 2. *By samples it is one of $\min\|ZN^{1/2}\|_{S_{2/L}}$ under the same margins. There $Z = C$ is a KKT point with all multipliers positive, and a strict local minimum among centred logits, for all sizes and every $L\ge2$; at $L = 2$ the global one.*
#
# **Proof of 1.** For whole $n_c$ this is a deep linear network on a data set in which the input $e_c$ stands $n_c$ times, and the theorem of Lyu & Li (2020) applies to it (with Ji & Telgarsky 2020 for a limit rather than limits); the constraints of its problem stand $n_c$ times as well, which changes nothing. A common factor of all sizes is one of time, which settles rational ones. For real ones: their proof compares $\log(1/\mathcal L)$ with the least margin, and weights add to that a constant at most, as the number of samples does.
#
# At rest the weights of the soft minimum, $\lambda_{jc}\propto n_ce^{-(z_{cc} - z_{jc})}$, solve $\Lambda = U\Sigma^{p-1}V^\top$ at the logits themselves, $p = 2/L$. These are $sC + o(s)$, so the right side is $C + o(1)$ up to a factor, and all $\lambda_{jc}$ are equal up to that: $z_{cc} - z_{jc} - \log n_c$ is the same for all pairs up to $o(1)$, the logits are $sC + O(1)$, and the same step once more gives $O(1/s)$. The margins determine the centred logits, here $C(sI + \log N)$. $\square$
#
# **Proof of 2.** The flow of $\tilde H, W_2, \dots$ is that of a network homogeneous of degree $L$ with margins $z_{cc} - z_{jc} = (m_{cc} - m_{jc})/\sqrt{n_c}$; Lyu & Li's theorem and the least norm of factors ([21](../2_margin/21_where_the_flow_ends.ipynb)) give the problem.
#
# - *What has to be shown.* Let $S = CNC$. For $M = CN^{1/2} = U\Sigma V^\top$: $MM^\top = S$, so $U\Sigma^{p-1}V^\top = (S^+)^{1-1/L}N^{1/2}$, where $S^+$ is the pseudo-inverse. The KKT equations $\Lambda N^{-1/2}V = U\Sigma^{p-1}$, $N^{-1/2}\Lambda^\top U = V\Sigma^{p-1}$ are solved by $\Lambda = (S^+)^{1-1/L}N$, whose columns sum to 0. All margins are 1, so what is left is the sign: its entries off the diagonal must not be positive.
# - *The sign.* With $\tau = \sum_c1/n_c$ it is $S^+ = N^{-1} - N^{-1}\mathbf 1\mathbf 1^\top N^{-1}/\tau$: this matrix $T$ is symmetric with $T\mathbf 1 = 0$, so $CT = T$ and $ST = CNT = C(I - \mathbf 1\mathbf 1^\top N^{-1}/\tau) = C$. Off the diagonal its entries are $-1/(n_jn_c\tau)$: it is the Laplacian of a complete graph with positive weights. So $aI - S^+$ has positive entries for large $a$, and so has $e^{-tS^+} = e^{-ta}e^{t(aI - S^+)}$ for every $t > 0$. For $0 < \alpha < 1$
# $$(S^+)^\alpha = \frac{\alpha}{\Gamma(1-\alpha)}\int_0^\infty\bigl(I - e^{-tS^+}\bigr)\,\frac{dt}{t^{1+\alpha}}$$
#   has negative entries off the diagonal: with $\alpha = 1 - 1/L$ all $\lambda_{jc} > 0$.
# - *Strict.* Near $C$ the cost $f$ is a smooth function of centred logits, which their $K(K-1)$ margins determine. Where those change by $d_{jc}\ge0$, $f$ changes by a positive multiple of $\sum\lambda_{jc}d_{jc}$, at least a multiple of the size of the change, and by $O$ of its square. Logits that are not centred cost no less. At $L = 2$ it is a norm, with $\Lambda N^{-1/2} = UV^\top$ in its subdifferential, and a KKT point of a convex problem is a solution. $\square$
#
# The case $L = 2$ is that of Thrampoulidis et al. (2022): under imbalance the logits still collapse, while the classifier's rows, whose Gram matrix is $(MM^\top)^{1/2}$, do not form a simplex.
#
# **Predicted** before the grid was run, from 32 other networks a cell: the ends by weight are those of equal classes and hardly change their shares; at every size both ways depth lowers the rank; by samples, at a hundredth and three layers, more than half of the networks end at rank 3 outside collapse.

# %% tags=["parameters"]
depths: list[int] = [2, 3, 4]  # depths L; the claims compare the first with the last, new ends are counted at the middle one [2, 8]
ratios: list[float] = [0.01, 0.1, 1.0, 10.0, 100.0]  # sizes of the first class over that of the others, 1.0 among them [1e-3, 1e3]
width: int = 8  # hidden width d [4, 64]
scale: float = 0.7  # initial scale σ [0.1, 2]
networks: int = 128  # random networks a cell [2, 4096]
sizes: int = 50  # random sizes, up to 1000 to 1, for every K at which collapse is certified [1, 1000]
seed: int = 0  # seed of the first network and of the random sizes [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import claims, class_sizes, metrics, notebook, stats, sweep
from dufm import width as widths

p = notebook.start("85_imbalanced_classes", globals())
K = 4

# %% [markdown]
# ## One rare class, both ways
#
# Three layers, a first class of a hundredth the size, the same first logits; the resting logits over their smallest margin, and the residual of the KKT equations of either problem.

# %%
rare = class_sizes.class_sizes(K, 0.01)
start = widths.random_start("gaussian", 3, p.width, K, scale=p.scale, seeds=[p.seed + 1])
for kind, column in (("weights", torch.ones(K)), ("samples", rare.sqrt())):
    factors = [start[0] * column, *start[1:]]
    rest = class_sizes.sized_limit(class_sizes.sized_flow(factors, rare, kind), rare, kind)
    Z = metrics.centred(rest.Z / column)
    Z = Z / dufm.margins(Z).amin()
    print(f"by {kind}: KKT residual {stats.below(class_sizes.sized_residual(Z, column**2, 3, K - 1, 0.05), 1e-5)}, logits\n{np.round(Z[0].numpy(), 2) + 0.0}")

# %% [markdown]
# By samples two large classes have become antipodal: a pair and single classes, the rung that equal classes do not have ([25](../2_margin/25_collapse_is_beaten.ipynb)), bent a little. Two of the twelve margins are near 1.9, the others are 1 up to the blur of the loss.
#
# ## All networks

# %%
grid = {"num_classes": [K], "depth": p.depths, "width": [p.width], "scale": [p.scale], "ratio": p.ratios, "kind": list(class_sizes.KINDS)}
runs = sweep.run(class_sizes.sized_ends, grid, seeds=range(p.seed, p.seed + p.networks), **notebook.sweep_options())
widths.check_ran(runs)
runs = runs.assign(full=runs["rank"] == K - 1, nc=runs["name"] == "NC", undecided=runs["rank"] == 0)
cells = runs.groupby(["kind", "depth", "ratio"], as_index=False).agg(networks=("nc", "size"), collapse=("nc", "sum"), full=("full", "sum"), undecided=("undecided", "sum"))
for column in ("collapse", "full"):
    cells[[f"{column}_low", f"{column}_high"]] = [stats.wilson(*pair) for pair in zip(cells[column], cells.networks, strict=True)]
figures.store("85_imbalance", cells)
print(f"{int(cells.undecided.sum())} of {len(runs)} undecided")
cells.pivot(index=["kind", "depth"], columns="ratio", values=["collapse", "full"])

# %% tags=["figure"]
figures.show(
    "85_imbalance",
    alt="Two panels, share of networks against the relative size of one class, from a hundredth to a hundred, for 2, 3 and 4 layers. By weight the shares of collapse are level: one at two "
    "layers, about 0.85 at three, about 0.3 at four. By samples they are the same near equal sizes; at a hundredth collapse falls to 0.2 at three layers while full rank stays near one, and at four layers it nearly vanishes at both ends.",
)

# %% [markdown]
# Network by network against equal sizes: how many gain collapse and how many lose it, and the 95% interval of the change of the share.

# %%
wide = runs.pivot(index=["kind", "depth", "seed"], columns="ratio", values="nc")
rows = []
for (kind, L), table in wide.groupby(level=[0, 1]):
    for ratio in (min(p.ratios), max(p.ratios)):
        gained, lost = int((table[ratio] & ~table[1.0]).sum()), int((table[1.0] & ~table[ratio]).sum())
        rows.append((kind, L, ratio, gained, lost, *np.round(stats.paired(gained, lost, len(table)), 3)))
pandas.DataFrame(rows, columns=["kind", "depth", "ratio", "gained", "lost", "low", "high"])

# %% [markdown]
# ## Collapse is critical at all sizes
#
# Random sizes of 3, 4, 5 and 8 classes at five depths. The multipliers are found by non-negative least squares, which know nothing of Laplacians. For contrast the square, two antipodal pairs, which is critical for equal classes.

# %%
draw = torch.Generator().manual_seed(p.seed)
residual = []
for classes in (3, 4, 5, 8):
    simplex = metrics.centred(torch.eye(classes, dtype=torch.float64)).expand(p.sizes, classes, classes)
    some = 1000 ** torch.rand(p.sizes, classes, generator=draw, dtype=torch.float64)
    residual += [float(class_sizes.sized_residual(simplex, some, L, classes - 1).max()) for L in (2, 3, 4, 6, 12)]
square = torch.block_diag(*[torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)] * 2)[None]
unequal = [float(class_sizes.sized_residual(square, class_sizes.class_sizes(K, ratio), 3, 2)) for ratio in (1.0, 10.0)]
print(f"collapse: {stats.below(max(residual), 1e-12)}; square at equal sizes: {stats.below(unequal[0], 1e-12)}, one class ten times as large: {unequal[1]:.2f}")

# %% [markdown]
# ## How fast weights are forgotten
#
# Two layers, where every run ends in collapse: deviation of the centred logits from their part along $C$, over $\|C\log N\|$ with $\log N$ less its mean, on the flow itself, which at finite loss is only near rest. The law says 1.

# %%
levels, ratio_to_law = [-50.0, -200.0, -1000.0], {}
for ratio in (0.01, 10.0):
    sized = class_sizes.class_sizes(K, ratio)
    start = widths.random_start("gaussian", 2, p.width, K, scale=p.scale, seeds=range(p.seed, p.seed + 16))
    run = class_sizes.sized_flow(start, sized, "weights", until_log_loss=levels[-1], rtol=1e-4, record={"log_loss": levels})
    simplex = metrics.centred(torch.eye(K, dtype=torch.float64))
    Z, law = metrics.centred(run.history.Z), simplex * (sized.log() - sized.log().mean())
    along = (Z * simplex).sum((-2, -1), keepdim=True) / (K - 1) * simplex
    found = torch.linalg.matrix_norm(Z - along) / torch.linalg.matrix_norm(law)
    ratio_to_law[ratio] = pandas.Series((found - 1).abs().amax(-1), index=pandas.Index(levels, name="log loss"))
fading = pandas.DataFrame(ratio_to_law).rename_axis(columns="largest error of 16 networks at ratio")
fading.round(4)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("85-collapse-critical", max(residual))
claims.check("85-weights-fade", fading.loc[-1000.0].max())
at = cells.set_index(["depth", "kind", "ratio"])
first, last = at.loc[min(p.depths)], at.loc[max(p.depths)]
claims.check("85-depth", (first.full_low - (last.full + last.undecided).combine(last.networks, lambda hits, total: stats.wilson(hits, total)[1])).min())
new = runs[(runs.kind == "samples") & (runs.depth == p.depths[len(p.depths) // 2]) & (runs.ratio == min(p.ratios))]
claims.check("85-new-ends", stats.wilson(int((new.full & ~new.nc).sum()), len(new))[0])

# %% [markdown]
# ## Where it breaks
#
# *Reached and optimal are two things, again.* At a hundredth by samples collapse is a strict optimum with a smaller norm than the pair ($\sum\sigma^{2/3}$ of 2.90 against 2.92 at three layers), and most networks go to the pair. The loss of the large classes falls first, so the others may have chosen their places before the rare one counts. At four layers a class a hundred times as large does the same: of 128 networks 33 keep full rank and 4 collapse.
#
# *Unequal features within a class* are outgrown ([13](../1_model/13_within_class_collapse.ipynb)); that the ends are then those of equal ones is not shown here. *Ends by samples* are certified less sharply: the residual is that of a run at rest at sharpness 1000, whose active margins differ by about one part in 200, and there is no polish to more digits for this norm. Collapse is told from other ends by its distance, below 2%: where new ends were seen, it is below 0.4% in those counted and above 60% in the others of full rank.
#
# ## Try it ([answers](../answers.md#85))
#
# 1. `ratios = [0.001, 1.0]`: does the rare class by weight show at last?
# 2. `depths = [2, 6]`: which end is left at a hundredth by samples?
# 3. Show that as $L\to\infty$ the multiplier of sample $c$ against class $j$ becomes $1/(n_j\tau)$. Which constraints weigh most?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
