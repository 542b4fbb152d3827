# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # On handwritten digits too, the effective rank falls with depth and rises with width
#
# **Question.** So far every class had a free feature. Does a network that has to compute its features from images, through ReLUs, prefer low rank as well?
#
# **Answer.** On handwritten digits it does. The class means of its logits lose effective rank from layer count to layer count; width gives part of it back, though only
# to deep networks. Trained by minibatches the same happens, a little less strictly.
#
# Before: [65, the basin from random balanced starts](../6_width/65_basin_elsewhere.ipynb). After: [72, where in the network rank is lost](72_layers.ipynb).

# %%
from dufm import figures

figures.published("71_rank")

# %% [markdown]
# *Effective rank of the class-mean logits at a loss of $10^{-6}$: means over six starts with 95% intervals. At two layers width makes no difference; at eight the wide networks
# keep about half of what the narrow ones lose.* [Drawn by](../../figures/71_rank.py)
#
# ## Statement
#
# A network without biases, $Z = W_L\,\phi(W_{L-1}\cdots\phi(W_1X))$ with $\phi$ the ReLU; depth $L$ counts weight matrices, the first included. The columns of $X$ are images, pixels in
# $[0,1]$, less the mean training image. Let $\bar Z\in\mathbb R^{K\times K}$ hold the mean logits of each class, a column a class, less their common mean, with singular values
# $\sigma_i$, and
# $$\operatorname{erank}(\bar Z) = \exp\Bigl(-\sum_ip_i\log p_i\Bigr),\qquad p_i = \frac{\sigma_i}{\sum_j\sigma_j}$$
# (Roy & Vetterli 2007).
#
# *It lies between 1 and $K-1$, and equals $K-1$ exactly where all $K - 1$ singular values are equal, as they are in neural collapse.*
#
# **Proof.** $\bar Z\mathbf 1 = 0$, so one singular value is 0 and at most $K-1$ of the $p_i$ are not. The entropy of $K-1$ shares is largest, $\log(K-1)$, where they are equal, and nowhere
# else since $-x\log x$ is strictly concave; it is least, 0, where one share is 1. $\square$
#
# It does not change with the scale of $\bar Z$, so how far the logits have grown does not enter.
#
# **Why one should expect less rank from more depth.** Were all layers linear and the images orthonormal, this would be the deep unconstrained feature model exactly
# ([11](../1_model/11_linear_network.ipynb)), whose flow looks for a large margin at a small $\|Z\|_{S_{2/L}}$: a price on rank that rises with depth
# ([21](../2_margin/21_where_the_flow_ends.ipynb)). Images are not orthonormal and ReLUs not linear. What survives is that $Z$ is homogeneous of degree $L$ in the weights, so that a flow that separates the
# images has only critical points of the margin at given weight norm as limits of its direction (Lyu & Li 2020); which rank these have is *not* proved here. What follows is measurement, and what runs
# here are the 8 × 8 digits that scikit-learn ships.

# %% tags=["parameters"]
dataset: str = "digits"  # images {digits, mnist, fashion, cifar10}
depths: list[int] = [2, 5, 8]  # depths L trained today [2, 10]
widths: list[int] = [32]  # widths of the hidden layers trained today [2, 512]
seeds: int = 3  # networks a depth and width trained today [2, 1000]
n_per_class: int = 60  # training images a class [5, 6000]
batch_size: int = 50  # images in a minibatch [1, 60000]
seed: int = 0  # first of the seeds [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import pandas as pd
import scipy.stats
import torch

import dufm
from dufm import claims, data, figures, learned, networks, notebook, stats, sweep
from dufm.companion import files

p = notebook.start("71_rank_and_depth", globals())

# %% [markdown]
# ## Two networks
#
# The shallowest and the deepest, from one seed, both trained until the mean loss is below $10^{-6}$. The singular values of $\bar Z$, over the largest, spread with depth.

# %%
X, y, held, held_y = data.split(p.dataset, p.n_per_class)
for L in (min(p.depths), max(p.depths)):
    run = networks.train(learned.initial_weights(p.seed, L, p.widths[0], len(X)), X, y)
    Z = networks.class_means(networks.forward(run.weights, X)[-1], y)
    sigma = torch.linalg.svdvals(Z)[0, :-1]
    values = " ".join(f"{share:.1f}" for share in (sigma / sigma[0]).tolist())
    print(f"L = {L}, {run.status[0]}: {values}: effective rank {float(dufm.effective_rank(Z)):.1f}")

# %% [markdown]
# ## Many networks
#
# Weights start Gaussian with variance 2/fan-in. Training is full-batch *gradient flow*, or for comparison *minibatch descent* until the same loss. Every depth and width has starts of its own, which both ways
# of training share; the images are the same for all, and so is the order of the minibatches at one depth and width.
#
# Depths 2, 3, 5, 8 at widths 32 and 128, six seeds each, take two minutes. They were trained once, by `dufm reproduce 71 -p depths=[2,3,5,8] -p widths=[32,128] -p seeds=6`, and are kept in
# `71_grid.csv`, a row a network, with its provenance in `71_grid.json`. What the parameters above ask for is trained today; it replaces the same networks of the table, or
# joins them, and the difference between the two is checked.

# %%
grid = {
    "dataset": [p.dataset], "digest": [data.fingerprint(p.dataset)], "n_per_class": [p.n_per_class], "batch_size": [p.batch_size],
    "training": ["flow", "minibatch"], "depth": p.depths, "width": p.widths,
}
fresh = sweep.run(learned.trained, grid, seeds=range(p.seed, p.seed + p.seeds), cost=lambda depth, width, **_: depth * width, **notebook.sweep_options())
table, difference = learned.joined(notebook.committed("71_grid"), fresh.drop(columns="error"))
files.write_atomic(files.out_dir() / "71_grid.csv", table.to_csv(index=False, float_format="%.8g"))
print(f"{len(fresh)} networks trained today, {len(table)} in all; those in both differ in effective rank by {stats.below(difference, 1e-3)}")

# %%
means = table.groupby(["training", "width", "depth"])["rank"].apply(stats.mean_interval)
columns = pd.DataFrame(means.tolist(), index=means.index, columns=["mean", "low", "high"])
figures.store("71_rank", columns.reset_index())

# %% tags=["figure"]
figures.show(
    "71_rank",
    alt="Effective rank of the centred class-mean logits of trained ReLU networks against depth, one panel for full-batch gradient flow and one for minibatch descent. "
    "In both it falls with depth from just above 8, and falls less in the wider networks. A dashed line at 9 marks neural collapse.",
)

# %% [markdown]
# The same in numbers, with the accuracy on up to a thousand images that were not trained on.

# %%
groups = table.groupby(["training", "width", "depth"])
(groups["rank"].apply(stats.mean, digits=1) + groups["accuracy"].mean().map(", {:.0%}".format)).unstack("depth")

# %% [markdown]
# ## Depth and width, tested
#
# *Depth*: Spearman's correlation of effective rank with depth over all networks of one width, and the probability $p$ of one as low by chance. *Width*: the rise from the narrowest to the widest networks at equal depth, by a $t$ interval over the starts;
# the starts of two widths are independent, so that pairing them by number is as good as any other pairing.

# %%
spearman = table.groupby(["training", "width"]).apply(lambda t: scipy.stats.spearmanr(t["depth"], t["rank"], alternative="less"))
pd.DataFrame({"correlation with depth": [f"{r:.2f}" for r, _ in spearman], "p": [stats.below(chance, 1e-3) for _, chance in spearman]}, index=spearman.index)

# %%
rank = table.pivot_table(index="seed", columns=["training", "width", "depth"], values="rank").dropna()
narrow, wide, shallow, deep = min(table["width"]), max(table["width"]), min(table["depth"]), max(table["depth"])
rise = {training: rank[training][wide] - rank[training][narrow] for training in ("flow", "minibatch")}
pd.DataFrame({training: {f"L = {L}": stats.mean(rises[L], 1) for L in rises} for training, rises in rise.items()})

# %% [markdown]
# Minibatches against the flow from the same starts: at two and three layers they end at the same rank to about 0.1, at five and eight *higher* by about a half, and in the wide networks the fall is less strict.
# Whether the noise of the batches does that or the finite steps is not separated here.

# %%
more = (rank["minibatch"] - rank["flow"]).T.groupby("depth").mean().T
print("minibatch less flow, mean over the widths: " + "; ".join(f"L = {L}: " + stats.mean(more[L], 1) for L in more))

# %% [markdown]
# ## Verdict
#
# Interval ends are rounded to the tenth of a dimension before they are judged: training amplifies rounding, and deep networks differ in the second decimal between machines.

# %% tags=["verdict"]
name = "71" if p.dataset == "digits" else f"71-{p.dataset}"
claims.check(f"{name}-depth", max(r for r, _ in spearman["flow"]))
claims.check(f"{name}-width", round(stats.mean_interval(rise["flow"].mean(axis=1))[1], 1))
if p.dataset == "digits":
    claims.check("71-reached", (table["status"] == "reached").mean())
    claims.check("71-width-deep", round(stats.mean_interval(rise["flow"][deep] - rise["flow"][shallow])[1], 1))
    claims.check("71-minibatch", max(r for r, _ in spearman["minibatch"]))
    claims.check("71-minibatch-p", max(chance for _, chance in spearman["minibatch"]))
    claims.check("71-minibatch-rank", round(stats.mean_interval(more.loc[:, more.columns > 2].mean(axis=1))[1], 1))
    claims.check("71-table", difference)

# %% [markdown]
# ## Where it breaks
#
# *Other images*: MNIST, Fashion-MNIST and CIFAR-10 stand in the ledger as *not run*, because their images are not shipped. `dufm reproduce 71 -p dataset=mnist` trains on one of them, with a network or with
# a file `mnist.npz` in the folder `DUFM_DATA` (`dufm.data.load` says what it must hold).
#
# *The start falls too.* Before training the class means of the logits lose effective rank with depth already, and less so in wide networks, since random layers squeeze. Training raises the rank at every depth and width, by more where the
# network is shallow, so that the end falls more steeply than the start. How much of the end is inherited, and how much chosen by the flow, is not separated here.

# %%
table[table["training"] == "flow"].groupby(["width", "depth"])[["start_rank", "rank"]].mean().round(1).transpose()

# %% [markdown]
# *Width without depth*: at two layers the rise with width is nil within its interval. What else changes or stops the fall, narrow layers above all, is in [74](74_limits.ipynb).
#
# ## Try it
#
# 1. `dataset = "mnist"`: does the fall with depth survive on larger images?
# 2. `depths = [8]`, `widths = [16, 64]`: is the rank at depth 8 a function of depth over width?
# 3. `n_per_class = 10`: is less lost when there is less to learn? (The table is then left out: it holds networks of 60 images a class.)

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
