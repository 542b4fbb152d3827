# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Each optimiser has a margin problem of its own, and orthogonalised steps have one that depth does not change
#
# **Question.** The low-rank bias of depth is a statement about gradient flow, whose margin problem is written in the Euclidean norm of the weights. Momentum, Adam, sign descent and Muon are what networks are trained with. Which of them keep the bias?
#
# **Answer.** Momentum keeps nearly all ends of the flow. Sign descent and Adam change the problem, to one in the largest entry of the weights, and keep the bias: deep networks end at low rank, if not always at the flow's. Orthogonalised steps lose it. Their problem is to separate the classes with logits of least spectral norm, whatever the number of layers; neural collapse is its only solution, and all 336 random networks of two to six layers ended there, also where the flow ends in collapse once or never.
#
# Before: [81, minibatches](81_minibatches.ipynb). After: [83, weight decay](83_weight_decay.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/8_assumptions/82_momentum_adam_sign.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/8_assumptions/82_momentum_adam_sign.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("82_methods")

# %% [markdown]
# *Mean rank of the ends against depth, four and six classes, 48 random networks a point, the same for every method; bands: 95%. Networks that still turn count at the rank that they have, among them 27 of the 48 of sign descent at six classes and six layers. Dotted: the rank of neural collapse.* [Drawn by](../../figures/82_methods.py)
#
# ## Statement
#
# Let $N$ be a norm of all factors together and $G_l = -\partial\log\mathcal L/\partial W_l = W_{>l}^\top\Lambda W_{<l}^\top$, where $\Lambda = \sum\lambda_{jc}(e_c - e_j)e_c^\top$, $\lambda\ge0$, and $W_{>l}$, $W_{<l}$ are the products of the factors above and below. A method whose short steps have the direction $D$ of largest $\langle G, D\rangle$ among $N(D)\le1$ descends steepest in $N$. As its steps shrink, the limit directions of its weights are critical points of $\min N(W)$ under all margins $\ge1$ (Lyu & Li 2020 for descent; Tsilivis, Vardi & Kempe 2025 for other norms): $\langle G, W\rangle = N(W)\,N_*(G)$, with $N_*$ the dual norm and $\lambda_{jc} > 0$ only on margins equal to 1.
#
# | method | $N(W)$ | its steps |
# |---|---|---|
# | flow, momentum | Euclidean | $G$ |
# | sign descent, Adam with short memory | largest entry | $\operatorname{sign}G$ |
# | Muon | largest spectral norm of a factor | $UV^\top$, where $G_l = U\Sigma V^\top$ |
#
# **Muon.** *Let the hidden widths be at least $K$.*
# 1. *At every depth the problem is $\min\|Z\|_{op}$ under all margins $\ge1$. It is convex, and up to a common shift neural collapse $C = I - J/K$ is its only solution: all are $C + \beta J$.*
# 2. *A critical point at which every $G_l$ has rank $K - 1$ is neural collapse.*
# 3. *From a spectral start ([41](../4_spectral/41_frozen_vectors.ipynb)) a step of length $\eta$ adds $\eta$ to every $w_i = s_i^{1/L}$. Steps of any lengths, of infinite sum, end in collapse, at every depth.*
#
# **Proof.**
# 1. $\|Z\|_{op}\le\prod_l\|W_l\|_{op}\le N(W)^L$, with equality for balanced factors, so the least $N$ of a given $Z$ is $\|Z\|_{op}^{1/L}$. The matrix $KI - J$ has $K - 1$ singular values $K$, and $\langle KI - J, Z\rangle$ is the sum of all margins. Hence $K(K-1)\le\langle KI - J, Z\rangle\le K(K-1)\|Z\|_{op}$, with equality at $C$. In a case of equality all margins are 1: $Z = C + \mathbf 1b^\top$, and $\|Z\|_{op}\le1$, that is $Z^\top Z = C + Kbb^\top\preceq I = C + J/K$, leaves $b\propto\mathbf 1$.
# 2. Since $\langle G_l, W_l\rangle\le\|W_l\|_{op}\|G_l\|_*$, criticality means equality in every layer: $W_lv = Nu$ and $W_l^\top u = Nv$ for all pairs of singular vectors of $G_l$ with positive value. So $W_l$ is $N$ times an isometry from the rows $R_l$ of $G_l$ to its columns $C_l$, and $W_l^\top$ back. Let $R$ be the row space of $\Lambda$; its columns lie in $\mathbf 1^\perp$. All $G_l$ have rank $K - 1$, so $\Lambda$ has, and $R_l = W_{<l}R$, $C_l = W_{>l}^\top\mathbf 1^\perp$. Therefore $W_{>1}^\top$ is $N^{L-1}$ times an isometry on $\mathbf 1^\perp$, and $\langle\Lambda, Z\rangle = \langle G_1, W_1\rangle = N\|W_{>1}^\top\Lambda\|_* = N^L\|\Lambda\|_*$. For any $Z'$ with margins $\ge1$: $\|Z'\|_{op}\|\Lambda\|_*\ge\langle\Lambda, Z'\rangle\ge\sum\lambda = \langle\Lambda, Z\rangle\ge\|Z\|_{op}\|\Lambda\|_*$. So $Z$ solves the problem of 1.
# 3. $G_l$ is diagonal in the characters with values $w_i^{L-1}g_i > 0$ for $i\ne1$ and 0 for the trivial one ([48](../4_spectral/48_descent.ipynb)), up to a positive factor. Its $UV^\top$ is 1 on every character but the trivial one, and remains so if gradients are averaged first. So $w_i(n) = w_i(0) + \sum\eta$: all ratios tend to 1. $\square$
#
# What 2 leaves open are critical points with a gradient of lower rank in some layer. There are some: balanced factors of the square at four classes, exactly of rank 2, see only their own range, and are one. But a step $UV^\top$ has no small values. Where the flow lets a small singular value starve, Muon moves it as fast as the largest.
#
# **Sign descent.** *If no entry of the factors, of hidden width $d$, exceeds 1 in size, the least margin is at most $K d^{L-1}\gamma_L(Z)$, where $\gamma_L$ is the margin over the Schatten quasi-norm of the flow's own problem. For $K = 4$, even $L$ and even $d$ the square attains it.*
#
# **Proof.** $\|Z\|_{S_{2/L}}\le\prod_l\|W_l\|_F$ (Hölder), and $\|W_l\|_F^2$ is at most the number of entries of $W_l$: $dK$, $d^2$, …, $d^2$, $Kd$. Equality needs balanced factors with all entries $\pm1$. For the square these are, in blocks of $d/2$ equal rows and columns, the four vectors $(\pm1,\pm1)$ in $W_1$ and $W_L$ and $\begin{pmatrix}1&1\\1&-1\end{pmatrix}$ between, which returns the four vectors to their directions after an even number. $\square$
#
# So in the largest entry low rank pays as it does for the flow: at $K = 4$, even $d$ and even $L\ge6$ every best $Z$ of the flow's problem has rank 2, and if the square is one, as all searches say and [29](../2_margin/29_rank_two.ipynb) proves under one assumption, no network with bounded entries has a larger margin than it.

# %% tags=["parameters"]
networks: int = 8  # networks run again in each of the cells that are [2, 48]
every: int = 13  # of the cells of the committed table every how many are run again; 1 is all [1, 1000]
until: float = 1e-6  # loss at which the open example stops [1e-7, 1]
starts: int = 8  # spectral starts of each kind [1, 256]
seed: int = 0  # seed of the open example and the spectral starts [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import itertools

import numpy as np
import pandas
import torch

import dufm
from dufm import claims, notebook, optimizers, stats, sweep

p = notebook.start("82_momentum_adam_sign", globals())

# %% [markdown]
# ## One start, three optimisers as PyTorch has them
#
# Four classes, four layers, constant steps, the loss itself, down to $10^{-6}$: singular values of the centred logits over the largest.

# %%
makers = {"momentum": lambda w: torch.optim.SGD(w, lr=0.02, momentum=0.9), "Adam": lambda w: torch.optim.Adam(w, lr=2e-3), "Muon": lambda w: torch.optim.Muon(w, lr=2e-3, weight_decay=0.0)}
for name, make in makers.items():
    weights = [torch.nn.Parameter(W[0].clone()) for W in dufm.gaussian_init(4, 8, 4, scale=0.7, seed=p.seed)]
    optimizer, loss = make(weights), torch.tensor(torch.inf)
    while loss > p.until:
        loss = torch.nn.functional.cross_entropy(torch.linalg.multi_dot(weights[::-1]).mT, torch.arange(4), reduction="sum")
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    sigma = torch.linalg.svdvals(dufm.metrics.centred(dufm.product([W.detach() for W in weights])))
    print(f"{name}: " + ", ".join(f"{x:.2f}" for x in sigma[:3] / sigma[0]))

# %% [markdown]
# ## Spectral starts
#
# Statement 3 on full matrices: fifty steps of 0.01, or one of 0.5, and the ends. Values that differ by more would not do: beside a force of $e^{-37}$ of the largest, double precision has no $UV^\top$.

# %%
rng, rows = np.random.default_rng(p.seed), []
for (kind, K), L, lr in itertools.product((("hadamard", 4), ("hadamard", 8), ("cyclic", 5), ("cyclic", 6)), (2, 4, 6), ((0.01, 50), (0.5, 1))):
    group = dufm.characters(kind, K)
    uneven, names = optimizers.muon_increments(torch.from_numpy(10 ** rng.uniform(-3, 0, (p.starts, group.num_free))), L, group, *lr)
    rows.append({"group": f"{kind} {K}", "L": L, "step": lr[0], "starts": p.starts, "uneven": int((uneven > 1e-9).sum()), "elsewhere": int((names != "NC").sum())})
spectral = pandas.DataFrame(rows)
spectral.groupby("group")[["starts", "uneven", "elsewhere"]].sum()

# %% [markdown]
# ## Random networks: the direction, followed until it rests
#
# The logarithm of the loss is followed, in steps of 0.2% of the weights' norm (0.4% for Muon), and from $\log\mathcal L = -100$ on at that sharpness, as `dufm.limit` does for the flow. An end is *rested* if the last quarter of the steps has turned the logits by less than 1%. All cells were computed once by `dufm reproduce 82 -p every=1 -p networks=48` and stand in [82_ends.csv](82_ends.csv); some are run again here.

# %%
known = notebook.committed("82_ends")
runs, both, elsewhere = sweep.run_again(optimizers.method_ends, known, optimizers.CELL, every=p.every, networks=p.networks, **notebook.sweep_options())
print(f"{runs} networks run again, {elsewhere} of {both} end elsewhere than in the table")
table = optimizers.by_method(known)
ranks = known.groupby(["num_classes", "depth", "method"])["rank"].apply(lambda x: pandas.Series(stats.mean_interval(x), ["rank", "low", "high"]))
figures.store("82_methods", ranks.unstack().reset_index())

# %% tags=["figure"]
figures.show("82_methods", alt="Mean rank of the ends against depth in two panels. Muon stays level at the rank of neural collapse, 3 and 5. The flow, momentum, sign descent and Adam start there at two layers and fall together to about 2 at six layers for four classes, and to between 2 and 3 for six classes, sign descent staying at 3.")

# %% [markdown]
# Shares of ends of full rank, with 95% intervals. Of 48 networks: those that do not end where the flow ends (`elsewhere`), that have rested at an end that is certified or aligned (`decided`), and whose weights are aligned to 0.98 with steepest descent in the method's own norm, and in the Euclidean one (`own`, `euclidean`).

# %%
table["full rank"] = [stats.share(hits, n) for hits, n in zip(table.full, table.networks)]
table["collapse"] = [stats.share(hits, n) for hits, n in zip(table.collapsed, table.networks)]
table[["num_classes", "depth", "method", "full rank", "collapse", "elsewhere", "decided", "own", "euclidean"]].set_index(["num_classes", "method", "depth"]).sort_index()

# %% [markdown]
# Of 336 networks momentum takes 14 elsewhere than the flow, half of them because they have not rested. Under sign descent and Adam even two layers end outside collapse, at full rank: those ends are critical in the largest entry and, but for a few, not in the Euclidean norm. With depth the two find the same codes, the square and the orthoplex; not the same weights, hardly any of which are aligned in the Euclidean norm. And rest comes late there: at six classes and six layers more than half of the networks of sign descent still turn by more than 1% over the last quarter of their steps, and are counted at the rank that they have. Muon's ends are critical in both norms as well: collapse is a solution of its own problem and a critical point of the flow's.
#
# ## Verdict

# %% tags=["verdict"]
low, high = (np.array([stats.wilson(hits, n)[end] for hits, n in zip(table.collapsed, table.networks)]) for end in (0, 1))
claims.check("82-muon", low[table.method == "Muon"].min())
claims.check("82-best", known.spectral_margin.max())
claims.check("82-spectral", spectral.uneven.sum() + spectral.elsewhere.sum())
fall = []
for method, K in itertools.product(("sign", "Adam"), sorted(table.num_classes.unique())):
    rows = table[(table.method == method) & (table.num_classes == K)].sort_values("depth")
    first, last = (stats.wilson(rows.full.iloc[i], rows.networks.iloc[i]) for i in (0, -1))
    fall.append(first[0] - last[1])
claims.check("82-sign", min(fall))

# %% [markdown]
# ## Where it breaks
#
# *Long memories.* Heavy ball is the flow only while the loss falls by little within the memory of its buffer, and Adam is sign descent only while the same holds for its second moments: here both are given the gradient of $\log\mathcal L$, Adam with $\beta_1 = \beta_2 = 0.9$. With $\beta_2 = 0.999$ the steps used here are not yet short: its networks had the ranks of sign descent, but were aligned to 0.65 to 0.8 only (16 networks, looked at once).
#
# *Adam's $\varepsilon$* is zero here. A positive one wins once all gradients are below it, and then Adam is descent with another step (Wang et al. 2021): with $\varepsilon = 10^{-8}$ that is beyond the losses of practice.
#
# *Muon as it is used* orthogonalises only to within a third (PyTorch's five steps in bfloat16), and its weight decay adds a bias of its own ([83](83_weight_decay.ipynb)).
#
# ## Try it ([answers](../answers.md#82))
#
# 1. In the open example, stop at $10^{-3}$: is the third value already lost under momentum?
# 2. `optimizers.train_by(factors, "sign")` from factors of the square, with entries $\pm1$, in random bases, and by `balanced_init`: `optimizers.flatness` of where it ends?
# 3. `optimizers.muon_increments` needs a spectral start. Turn its last factor by `spectral.random_turns` and train with `train_by`: do the ends change?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
