# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # On images too, the effective rank falls with depth and rises with width, less by minibatches
#
# **Question.** So far every class had a free feature. Does a network that has to compute its features from images, through ReLUs, prefer low rank as well?
#
# **Answer.** On handwritten digits and on MNIST it does. Under full-batch flow the class means of the logits lose effective rank from layer count to layer count; width gives part of it back from three layers on, on MNIST from five on. Minibatches weaken the fall, and on MNIST at width 128 nothing of it is left. On CIFAR-10, as far as networks arrive, the fall is as steep by minibatches. None of the networks that arrive is near a solution of the margin problem.
#
# Before: [65, the basin from random balanced starts](../6_width/65_basin_elsewhere.ipynb). After: [72, where in the network rank is lost](72_layers.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/7_networks/71_rank_and_depth.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/7_networks/71_rank_and_depth.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("71_rank")

# %% [markdown]
# *Effective rank of the class-mean logits at the end of training, at a loss of $10^{-6}$: means over eight starts with 95% intervals, a line a width. Hollow: not all networks arrived, and the mean is over where they stopped.* [Drawn by](../../figures/71_rank.py)
#
# ## Statement
#
# A network without biases, $Z = W_L\,\phi(W_{L-1}\cdots\phi(W_1X))$ with $\phi$ the ReLU; depth $L$ counts weight matrices, the first included. The columns of $X$ are images, pixels in
# $[0,1]$, less the mean training image. Let $\bar Z\in\mathbb R^{K\times K}$ hold the mean logits of each class, a column a class, less their common mean, with singular values $\sigma_i$, and
# $$\operatorname{erank}(\bar Z) = \exp\Bigl(-\sum_ip_i\log p_i\Bigr),\qquad p_i = \frac{\sigma_i}{\sum_j\sigma_j}$$
# (Roy & Vetterli 2007).
#
# *It lies between 1 and $K-1$, and equals $K-1$ exactly where all $K - 1$ singular values are equal, as they are in neural collapse.*
#
# **Proof.** $\bar Z\mathbf 1 = 0$, so one singular value is 0 and at most $K-1$ of the $p_i$ are not. The entropy of $K-1$ shares is largest, $\log(K-1)$, where they are equal, and nowhere else since $-x\log x$ is strictly concave; it is least, 0, where one share is 1. $\square$
#
# It does not change with the scale of $\bar Z$, so how far the logits have grown does not enter.
#
# **Why one should expect less rank from more depth.** Were all layers linear and the images orthonormal, this would be the deep unconstrained feature model exactly ([11](../1_model/11_linear_network.ipynb)), whose flow looks for a large margin at a small $\|Z\|_{S_{2/L}}$: a price on rank that rises with depth
# ([21](../2_margin/21_where_the_flow_ends.ipynb)). Images are not orthonormal and ReLUs not linear. What survives is that $Z$ is homogeneous of degree $L$ in the weights, so that a flow that separates the images has only critical points of the margin at given weight norm as limits of its direction (Lyu & Li 2020); which rank these have is *not* proved here. What follows is measurement.

# %% tags=["parameters"]
dataset: str = "digits"  # images {digits, mnist, fashion, cifar10}
depths: list[int] = [2, 5, 8]  # depths L trained today [2, 10]
widths: list[int] = [32]  # widths of the hidden layers trained today [2, 512]
seeds: int = 3  # networks a depth and width trained today [2, 1000]
n_per_class: int = 60  # training images a class [5, 6000]
batch_size: int = 50  # images in a minibatch [1, 60000]
seed: int = 0  # first of the seeds [0, 1000000]
precision: str = "float64"  # numbers that networks are trained in {float32, float64}
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import pandas as pd
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
# What takes hours was trained once and is kept, a row a network, in `71_digits.csv`, `71_mnist.csv` and `71_cifar10.csv`, each with its command, data hash, versions and seconds in a `.json` of its name. What the parameters above ask for is trained
# today; it replaces the same networks of its table, or joins them, and the difference between the two is checked. MNIST and CIFAR-10 are not shipped: without their files the kept tables are all that is shown of them. Of the flow on CIFAR-10 only two cells were run (one took 38 minutes and did not arrive), of width 512 on MNIST only minibatches at two and eight layers.

# %%
grid = {
    "dataset": [p.dataset], "digest": [data.fingerprint(p.dataset)], "n_per_class": [p.n_per_class], "batch_size": [p.batch_size], "precision": [p.precision],
    "training": ["flow", "minibatch"], "depth": p.depths, "width": p.widths,
}
fresh = sweep.run(learned.trained, grid, seeds=range(p.seed, p.seed + p.seeds), cost=lambda depth, width, **_: depth * width, **notebook.sweep_options())
kept = pd.concat([notebook.committed(f"71_{name}") for name in ("digits", "mnist", "cifar10")])
today, difference = learned.joined(kept, fresh.drop(columns="error"))
files.write_atomic(files.out_dir() / f"71_{p.dataset}.csv", today.to_csv(index=False, float_format="%.8g"))
table = pd.concat([today, kept[kept["dataset"] != p.dataset]])
print(f"{len(fresh)} networks trained today, {len(table)} in all; those in both differ in effective rank by {stats.below(difference, 0.05)}")

# %%
groups = table.groupby(["dataset", "training", "width", "depth"], sort=False)
columns = pd.DataFrame(groups["rank"].apply(stats.mean_interval).tolist(), index=groups["rank"].first().index, columns=["mean", "low", "high"])
figures.store("71_rank", columns.assign(arrived=groups["status"].agg(lambda status: (status == "reached").mean())).reset_index())

# %% tags=["figure"]
figures.show(
    "71_rank",
    alt="Effective rank of the centred class-mean logits against depth, one row for full-batch flow and one for minibatches, one panel each for the digits, MNIST and CIFAR-10. "
    "At two layers it lies just above 8 at every width. Under the flow it falls with depth, on digits and MNIST to 5 or 6 at width 32 and eight layers and less in the wider networks; under minibatches it falls less there, on MNIST at width 128 not at all, and on CIFAR-10 to 5 and 6.5. Hollow marks, such as the flow's on CIFAR-10 at eight layers, are of networks that did not all get to the loss. "
    "A dashed line at 9 marks neural collapse.",
)

# %% [markdown]
# The same in numbers, with the accuracy on up to a thousand images that were not trained on, and how many of the networks arrived.

# %%
arrived = groups["status"].agg(lambda status: f", {sum(status == 'reached')} of {len(status)}")
(groups["rank"].apply(stats.mean, digits=1) + groups["accuracy"].mean().map(", {:.0%}".format).replace(", nan%", "") + arrived).unstack("depth").fillna("")

# %% [markdown]
# ## Depth and width, tested
#
# *Depth*: Spearman's correlation of effective rank with depth over all networks of one width, and the probability $p$ of one as low by chance. A network that did not arrive counts with the rank that speaks most against the fall: 9 at depth 5 and more, 1 below.
# *Width*: the rise from width 32 to 128 at equal depth, by a $t$ interval over the starts; the starts of two widths are independent, so that pairing them by number is as good as any other pairing. Shown are the ranks as they are; judged is with 9 for a network of width 32 that did not arrive, and 1 for a wider one. Width 512 was added later and is shown, not judged.

# %%
table["judged"], table["counted"] = (table["rank"].where(table["status"] == "reached", high.map({True: 9.0, False: 1.0})) for high in (table["depth"].ge(5), table["width"].le(32)))
spearman = table.groupby(["dataset", "training", "width"], sort=False).apply(lambda t: stats.falling(t["depth"], t["judged"]))
pd.DataFrame({"correlation with depth": [f"{r:.2f}" for r, _ in spearman], "p": [stats.below(chance, 1e-3) for _, chance in spearman]}, index=spearman.index)

# %%
rank, counted = (table[table["width"] <= 128].pivot_table(index="seed", columns=["dataset", "training", "width", "depth"], values=kind) for kind in ("rank", "counted"))
rise, against = {}, {}
for key in rank.columns.droplevel(["width", "depth"]).unique():
    widths = rank[key].columns.get_level_values("width")
    if max(widths) > min(widths):
        rise[key], against[key] = ((ranks[key][max(widths)] - ranks[key][min(widths)]).dropna(axis=1, how="all").dropna() for ranks in (rank, counted))
pd.DataFrame({", ".join(key): {f"L = {L}": stats.mean(rises[L], 1) for L in rises} for key, rises in rise.items()}).T.fillna("")

# %% [markdown]
# Minibatches against the flow from the same starts: at two and three layers they end at the same rank to about 0.1, at five and eight *higher*, on the digits by a half and on MNIST at eight layers by a whole dimension, so that at width 128 rank no longer falls there. Whether the noise of the batches does that or the finite steps is not separated here.

# %%
more = {name: (rank[name]["minibatch"] - rank[name]["flow"]).dropna(axis=1, how="all").dropna().T.groupby("depth").mean().T for name in table["dataset"].unique() if name in rank}
pd.DataFrame({f"{name}: minibatch less flow": {f"L = {L}": stats.mean(less[L], 1) for L in less} for name, less in more.items()}).T.fillna("")

# %% [markdown]
# **Certified structure.** `dufm.diagnose` compares each network's logits with the named codes and with the certified solution that their polish leads to. Mean distance to the nearest code, and how many of the networks are within 10% of a certified solution:

# %%
near = groups["certified"].agg(lambda ranks: f", {sum(ranks > 0)}")
(groups["distance"].mean().map("{:.2f}".format) + near).replace("nan, 0", "").unstack("depth").fillna("")

# %% [markdown]
# ## Verdict
#
# Interval ends are rounded to the tenth of a dimension before they are judged: training amplifies rounding, and deep networks differ in the second decimal between machines.

# %% tags=["verdict"]
for name in table["dataset"].unique():
    known = "71" if name == "digits" else f"71-{name}"
    claims.check(f"{known}-reached", (table[table["dataset"] == name]["status"] == "reached").mean())
    training = "minibatch" if name == "cifar10" else "flow"
    claims.check(f"{known}-depth", max((r for r, _ in spearman[name][training].loc[:128]), default=float("nan")))
    if (name, training) in rise:
        claims.check(f"{known}-width", round(stats.mean_interval(against[name, training].mean(axis=1))[1], 1))
if (p.dataset, "flow") in rise:
    rises = against[p.dataset, "flow"]
    claims.check("71-width-deep", round(stats.mean_interval(rises[rises.columns.max()] - rises[rises.columns.min()])[1], 1))
less = more.get(p.dataset)
if less is not None:
    claims.check("71-minibatch", max(spearman[p.dataset]["minibatch"][width][0] - r for width, (r, _) in spearman[p.dataset]["flow"].loc[:128].items()))
    claims.check("71-minibatch-p", max(chance for _, chance in spearman[p.dataset]["minibatch"].loc[:128]))
    claims.check("71-minibatch-rank", round(stats.mean_interval(less.loc[:, less.columns > 2].mean(axis=1).dropna())[1], 1))
claims.check("71-mnist-minibatch", max(chance for _, chance in spearman["mnist"]["minibatch"].loc[:128]))
claims.check("71-table", round(difference, 1))

# %% [markdown]
# ## Where it breaks
#
# *Other images*: Fashion-MNIST stands in the ledger as *not run*. `dufm reproduce 71 -p dataset=mnist` trains on another set, with a network or with
# a file `mnist.npz` in the folder `DUFM_DATA` (`dufm.data.load` says what it must hold). The CIFAR-10 here are copies that were stored as JPEG, 300 a class, which bias-free networks learn by heart: a third of other images are called right.
#
# *Networks that do not arrive.* On CIFAR-10 at width 32 minibatches did not reach the loss within 2,000 epochs at two layers, and at eight in half of the networks; the flow at eight layers did not in 2,000 steps (rank 4.0 where it stopped). One of the networks on MNIST has an image for which all units of a layer are off: no step moves it any more.
#
# *The start falls too.* Before training the class means of the logits lose effective rank with depth already, and less so in wide networks, since random layers squeeze. Training raises the rank at every depth and width, by more where the network is shallow, so that the end falls more steeply than the start. How much of the end is inherited, and how much chosen by the flow, is not separated here.

# %%
table[(table["training"] == "flow") & (table["dataset"] == p.dataset)].groupby(["width", "depth"])[["start_rank", "rank"]].mean().round(1).transpose()

# %% [markdown]
# *Width without depth*: on the digits, under the flow, the rise with width is nil within its interval at two layers. What else changes or stops the fall, narrow layers above all, is in [74](74_limits.ipynb).
#
# ## Try it ([answers](../answers.md#71))
#
# 1. `batch_size = 300` on the digits: does a batch of half of the images act like the flow?
# 2. `depths = [8]`, `widths = [16, 64]`: is the rank at depth 8 a function of depth over width?
# 3. `n_per_class = 10`: is less lost when there is less to learn? (The table is then left out: it holds networks of 60 images a class.)

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
