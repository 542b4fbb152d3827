# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The flow ends in critical points of a margin problem, and each end has its certificate
#
# **Question.** Gradient flow on the cross-entropy never stops: the loss goes to zero and the weights to infinity. Which *direction* do the logits
# $Z = W_L\cdots W_1$ settle on?
#
# **Answer.** On a critical point of "separate every class by 1 at the least Schatten-$2/L$ cost". At $L = 2$ that problem is convex and its only solution is
# neural collapse (notebook 27). From $L = 3$ on, with four classes or more, it has many critical points, some of low rank, and networks end in several of them: in better ones than collapse, and in worse.
# Before: [16, efficiency and the end](../1_model/16_efficiency_decides.ipynb). After: [22, the rate](22_rate.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/2_margin/21_where_the_flow_ends.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/2_margin/21_where_the_flow_ends.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("21_ends")

# %% [markdown]
# *Certified ends of random networks: margin over that of neural collapse (dashed) against depth. The number beside a mark says how many of the 32 networks of
# that depth ended there, and its size repeats it; crosses stand a little to the left of their depth. All are decided. Depth moves the ends from full rank to low rank, mostly to larger margins, but not always.*
# [Drawn by](../../figures/21_ends.py)
#
# ## Statement
#
# Let column $c$ of $Z$ be the logits of class $c$, and $p = 2/L$.
#
# *Once every sample is classified well enough that $\mathcal L < \log 2$, every limit point of the direction $W/\|W\|$ of the flow is along a KKT point of
# $\min\sum_l\|W_l\|_F^2$ subject to $z_{cc} - z_{jc}\ge1$ for $j\ne c$. If the logits of one of them are isolated among those of all KKT points, up to scale, then the direction of the logits converges to them. A KKT point is balanced, and its product $Z = U_r\Sigma V_r^\top$ satisfies, with some
# $\Lambda = \sum_{j\ne c}\lambda_{jc}(e_c - e_j)e_c^\top$, $\lambda\ge0$ on the margins that equal 1,*
# $$\Lambda V_r = U_r\Sigma^{p-1},\qquad \Lambda^\top U_r = V_r\Sigma^{p-1}.$$
#
# 1. *Limit points and convergence.* The network is homogeneous in its weights, and for such networks Lyu & Li (2020) prove the first sentence, cross-entropy with several classes included. The path of $W/\|W\|$ is continuous and bounded, so its limit points
#    form a connected set, and so do their logits, continuous in $W$: a connected set with an isolated point is that point. (That the weights' own direction has *one* limit Ji & Telgarsky (2020) prove for exponential and logistic loss of two
#    classes; we do not use it.)
# 2. *Stationarity.* $\frac12\sum_l\|W_l\|^2 - \langle\Lambda, W_L\cdots W_1\rangle$ is critical where $W_l = W_{>l}^\top\Lambda W_{<l}^\top$, with $W_{>l}$ and $W_{<l}$
#    the products on the left and right of $W_l$.
# 3. *Balance.* Multiply out: $W_{l+1}^\top W_{l+1} = W_{>l}^\top\Lambda(W_lW_{<l})^\top = W_{>l}^\top\Lambda W_{<l}^\top W_l^\top = W_lW_l^\top$.
# 4. *Reduction.* Balanced factors are $W_l = Q_l\Sigma^{1/L}Q_{l-1}^\top$. Stationarity of $W_1$ then reads $\Lambda^\top U_r = V_r\Sigma^{p-1}$ and that of $W_L$ the other
#    equation; these two give back every factor's. They are the stationarity of $\sum_i\sigma_i^p$ at fixed rank. $\square$
#
# The block of $\Lambda$ off the range of $Z$ enters none of these equations, at $L = 2$ as little as later: they cannot say whether a low rank survives. At $L = 2$, where the cost is a norm, its size decides who is optimal; whether a dropped singular value
# *stays* dropped is a question of the dynamics, and that is where depth comes in: notebook [28](28_complement.ipynb).
#
# *How an end is read.* `dufm.limit` follows the direction until it rests, at a constant sharpness (notebook 23 says why the flow alone takes too long). `dufm.end` centres the
# logits, since a common shift of a sample's logits changes ranks but no margin; solves the problem at every rank that drops little; takes the *nearest* solution whose
# residual and complementarity are below $10^{-8}$; and asks a second, independent sign: as many singular values must still grow with the margin as the solution keeps.
# What fails is *undecided* and stays in every denominator.

# %% tags=["parameters"]
classes: list[int] = [4, 6]  # numbers of classes K [3, 12]
depths: list[int] = [2, 3, 4, 6]  # depths L, the features included [2, 12]
width: int = 16  # hidden width d [3, 128]
scale: float = 0.7  # initial scale: entries N(0, scale²/fan-in) [0.01, 2]
networks: int = 32  # random networks for each K and L [4, 1024]
steps: list[float] = [4e-3, 2e-3]  # steps of plain descent, 2 or more, the second half of the first [1e-4, 0.1]
descend_to: list[float] = [0.0, -10.0, -100.0, -1000.0, -4000.0]  # log losses at which descent is compared [-1e5, 1]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import certificate, claims, codes, ends, figures, flow, notebook, search, stats

p = notebook.start("21_where_the_flow_ends", globals())

# %% [markdown]
# ## One network, by the flow and by plain descent
#
# Six classes, three layers. The singular values of the centred logits at four losses, each over the largest, then of the end itself.

# %%
one = [W[0] for W in dufm.gaussian_init(3, p.width, 6, scale=0.5, batch=1, seed=p.seed)]
run = dufm.gradient_flow(one, until_log_loss=-2e3, rtol=1e-3, record={"log_loss": [0.0, -10.0, -200.0, -2e3]})
one_end = dufm.end(run, 3)
for level, Z in zip(["log ℒ = 0", "-10", "-200", "-2000", "end"], [*run.history.Z, one_end.Z], strict=True):
    sigma = torch.linalg.svdvals(dufm.metrics.centred(Z))[:5]
    print(f"{level:>10s}:  " + "  ".join(f"{x:.3f}" for x in (sigma / sigma[0]).tolist()))
print(f"the end: {one_end.name}, margin {float(one_end.margin_ratio):.4f} of that of neural collapse")

# %% [markdown]
# At $e^{-2000}$ the end is not yet in sight; the limit finds it. Is any of this the integrator's doing? Plain descent $W\leftarrow W - \eta\nabla\mathcal L$ with $\eta = h/\mathcal L$ takes the
# same path: the difference of $Z$ at equal loss is below a thousandth and halves with the step.

# %%
descents = {step: flow.loss_scaled_descent(one, step, p.descend_to) for step in p.steps}
losses = sorted({loss for descent in descents.values() for loss in descent.log_loss.tolist()}, reverse=True)
run = dufm.gradient_flow(one, until_log_loss=losses[-1], rtol=1e-6, record={"log_loss": losses})
at = dict(zip(losses, run.history.Z, strict=True))
away = pandas.DataFrame(index=pandas.Index(p.descend_to, name="log ℒ below"))
for step, descent in descents.items():
    there = torch.stack([at[loss] for loss in descent.log_loss.tolist()])
    away[f"h up to {step:g}"] = (torch.linalg.matrix_norm(descent.Z - there) / torch.linalg.matrix_norm(there)).numpy()
away.map("{:.1e}".format)

# %% [markdown]
# ## Many networks
#
# Each cell is one batch. Beside the end, two numbers of every certificate: the residual of step 2 on every *factor*, a computation that shares only $\Lambda$
# with the certificate; and the logits at two losses, read as if training had stopped there.

# %%
rows, early, curvatures = [], [], search.end_curvatures(dufm.end(one_end.Z[None], 3), 3)
for K, L in notebook.progress([(K, L) for K in p.classes for L in p.depths], label="K, L"):
    factors = dufm.gaussian_init(L, p.width, K, scale=p.scale, batch=p.networks, seed=p.seed)
    run = dufm.gradient_flow([W.to(notebook.device()) for W in factors], until_log_loss=-2e3, rtol=1e-3, record={"log_loss": [-200.0, -2e3]})
    limit = dufm.limit(run)
    end = dufm.end(limit, L)
    second = certificate.factor_residual(end.Z.nan_to_num(), L, end.certificate).where(end.decided, torch.nan)
    rows.append(pandas.DataFrame({"num_classes": K, "depth": L} | ends.columns(end, limit) | {"factor_residual": second.cpu().numpy()}))
    curvatures += search.end_curvatures(end, L)
    for level, Z in zip((-200, -2000), run.history.Z.cpu(), strict=True):
        read = dufm.end(Z, L)
        other = np.flatnonzero(read.decided.numpy() & (read.name != end.name))
        saddles = sum(x < -1e-3 for x in search.end_curvatures(read, L, other))
        early.append((K, L, level, int((~read.decided).sum()), len(other), saddles))
table = pandas.concat(rows, ignore_index=True)
figures.store("21_ends", table[["num_classes", "depth", "network", "end", "rank", "margin_ratio"]])

# %% tags=["figure"]
figures.show(
    "21_ends",
    alt="Certified ends of gradient flow from random networks, margin over that of neural collapse against depth, for K = 4 and K = 6. At depth 2 every network ends at "
    "ratio 1. Polygons and orthoplexes lie above 1 and rise with depth; at K = 6, L = 3 another end lies just below 1. Numbers count networks.",
)

# %% [markdown]
# How clear the decisions are (growth 1 and 0 in the limit), how far the polish had to move a network, and every end by name, with its share of all networks and the 95% interval:

# %%
named = table.groupby(["num_classes", "depth", "end"]).agg(margin_ratio=("margin_ratio", "first"), networks=("end", "size"))
named = named.sort_values(["num_classes", "depth", "networks"], ascending=[True, True, False])
print(f"slowest growth kept {table['slowest_kept'].min():.4f}, fastest dropped {table['fastest_dropped'].max():.4f}; moved by {table['moved'].max():.4f} at most")
named.assign(share=[stats.share(n, p.networks) for n in named["networks"]]).round(4)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
four = table[table["num_classes"] == 4]
shallow = table["end"][table["depth"] == 2]
claims.check("21-depth-two", stats.wilson(int((shallow == "NC").sum()), len(shallow))[0])
claims.check("21-certified", stats.wilson(int((table["reason"] == "").sum()), len(table))[0])
claims.check("21-factor-level", table["factor_residual"].max())
claims.check("21-low-rank", four["margin_ratio"][(four["depth"] == 4) & (four["rank"] == 2)].max())
claims.check("21-curvature", round(min(curvatures), 9) + 0.0)
claims.check("21-descent", away.iloc[:, -1].max())
claims.check("21-descent-order", away.iloc[-1, 0] / away.iloc[-1, 1])

# %% [markdown]
# ## Where it breaks
#
# *Stop early, and the end is misread*: some networks are undecided, some are given another end than theirs, here always a saddle that they are passing. This is no failure of the
# theorem, which speaks of $t\to\infty$.

# %%
early = pandas.DataFrame(early, columns=["K", "L", "log ℒ", "undecided", "wrong", "of them saddles"])
early.set_index(["log ℒ", "K", "L"]).sort_index(ascending=[False, True, True]).unstack("log ℒ", sort=False)

# %% [markdown]
# *A residual alone certifies nothing.* Add to the square ($K = 4$, values 2 and 2) a third direction $u = \frac12(1, -1, 1, -1)$ of value $2\varepsilon$, $\varepsilon < 1$. Only the margins 1 of neighbours are active, and by symmetry their multipliers may be taken equal: $\Lambda = x(2I - A)$, $A$ the
# adjacency of a ring of four, which is $2x$ on the square's plane and $4x$ on $u$. So *at rank 3 and $L\ge3$ the matrix is critical for one $\varepsilon < 1$ only*, $2x = 2^{p-1}$ and $4x = (2\varepsilon)^{p-1}$: $\varepsilon = 2^{-L/(L-2)}$, an eighth at $L = 3$. *Cut to rank 2 it passes for every
# $\varepsilon < 1$*: $u$ is orthogonal to the plane, and what is left is the square. And *a certificate is no optimum*: at $L = 2$ the orthoplex of six classes has one, though collapse has 1.2 times its margin.

# %%
square, u = codes.code_matrix(codes.polygon(4)), torch.tensor([0.5, -0.5, 0.5, -0.5], dtype=torch.float64)
traps = {x: square + 2 * x * torch.outer(u, u) for x in np.append(np.geomspace(0.05, 0.2, 41), 0.1)}
whole = {x: float(dufm.kkt_residual(trap, 3, 3)) for x, trap in traps.items()}
cut = max(float(dufm.kkt_residual(trap, 3, 2)) for trap in traps.values())
print(f"ε = 0.1: residual {stats.below(cut, 1e-12)} when cut to rank 2, {whole[0.1]:.4f} at rank 3; least at ε = {min(whole, key=whole.get):.4f}")
orthoplex = codes.pairs_and_singles(6, 3)
better = dufm.closed_form_margin("nc", 6, 2) / float(dufm.normalized_margin(orthoplex, 2))
print(f"orthoplex at L = 2: certificate holds, {bool(dufm.kkt_certificate(orthoplex, 2, 3).holds())}; collapse has {better:.3f} of its margin")
claims.check("21-trap-cut", cut)
claims.check("21-trap-whole", min(whole, key=whole.get))

# %% [markdown]
# ## Try it ([answers](../answers.md#21))
#
# 1. `classes = [3]`: does any depth leave neural collapse? Why is there no other end (notebook 27)?
# 2. `scale = 0.2`: smaller starts spend longer near saddles. Which way do the shares move?
# 3. `width = 64`: width pushes back. How deep must the network be before rank 2 wins half of the networks?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
