# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Deep networks lose rank layer by layer, and the last layer takes more than an average one
#
# **Question.** The logits of a deep network have a lower effective rank than those of a shallow one ([71](71_rank_and_depth.ipynb)). Where inside the network is it lost? And do the features
# before the classifier collapse?
#
# **Answer.** From the second layer on nearly every layer takes a little, and the last one, which no ReLU follows, takes more than an average layer before it. Beyond three layers the features do not come nearer to neural
# collapse with depth by NC1, NC2 or NC3, and at every depth their class means are farther from the simplex than at two layers.
#
# Before: [71, rank falls with depth](71_rank_and_depth.ipynb). After: [73, which code is learned](73_learned_codes.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/7_networks/72_layers.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/7_networks/72_layers.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("72_layers")

# %% [markdown]
# *Effective rank of the class means from the images to the logits, at a loss of $10^{-6}$: means over eight starts with 95% intervals. All lines begin at the images' own rank, just above 8.*
# [Drawn by](../../figures/72_layers.py)
#
# ## Statement
#
# With $A_0 = X$ the images and $A_l = \phi(W_lA_{l-1})$ the outputs of layer $l$ (the logits $A_L = W_LA_{L-1}$ without ReLU), let $M_l$ hold the means of the columns of $A_l$, class by class, less their common mean. Its effective rank, at most
# $K - 1 = 9$, is followed through $l = 0,\dots,L$.
#
# What a layer can do to it follows from its two halves.
#
# - *The matrix* acts on the means themselves: $M_L = W_LM_{L-1}$, so at the last layer the rank cannot rise, $\operatorname{rank}(M_L)\le\operatorname{rank}(M_{L-1})$. The *effective* rank can do either:
#   with $M = U\Sigma V^\top$, $W = U\Sigma^{-1}U^\top$ makes all singular values equal, $W = U\Sigma U^\top$ spreads them. **[proved: multiply out]**
# - *The ReLU* acts on samples and not on means, $\overline{\phi(A)}\ne\phi(\bar A)$, and can raise the rank. Three classes at $-a, 0, a$ on a line have centred rank one; seen through $w = (1, -1)^\top$
#   and a ReLU they lie at $(0, a)$, $(0, 0)$ and $(a, 0)$, a triangle of rank two.
#
# So nothing forces a loss, at the last layer or anywhere: where effective rank is lost the weights do it, those that training has made or those that it has left as they were.
#
# **What collapse would look like.** On the outputs of the last hidden layer and the classifier $W_L$, with covariances $\Sigma_W$ within and $\Sigma_B$ between classes
# ([13](../1_model/13_within_class_collapse.ipynb)): *NC1* $= \operatorname{Tr}(\Sigma_W\Sigma_B^+)/K$ at rank $K-1$; the *trace ratio* $\operatorname{Tr}\Sigma_W/\operatorname{Tr}\Sigma_B$; *NC2*, the distance of the class means' Gram matrix at unit norm
# from the simplex's; *NC3*, the distance between classifier and class means at unit norm (Papyan, Han & Donoho 2020). All four vanish at collapse.

# %% tags=["parameters"]
dataset: str = "digits"  # images {digits, mnist, fashion, cifar10}
depths: list[int] = [2, 8]  # depths L trained today [2, 10]
widths: list[int] = [32]  # widths of the hidden layers trained today [2, 512]
seeds: int = 3  # networks a depth and width trained today [2, 1000]
n_per_class: int = 60  # training images a class [5, 6000]
seed: int = 0  # first of the seeds [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import pandas as pd

import dufm
from dufm import claims, data, figures, learned, networks, notebook, stats, sweep

p = notebook.start("72_layers", globals())

# %% [markdown]
# ## One network
#
# A deep one, followed from the images to the logits, before training and after. Random layers squeeze the class means towards fewer directions by themselves, and training leaves most of that as it is: it widens the last
# layers again, and not to where the images were.

# %%
X, y, held, held_y = data.split(p.dataset, p.n_per_class)
start = learned.initial_weights(p.seed, max(p.depths), p.widths[0], len(X))
run = networks.train(start, X, y)
for words, weights in (("start", start), ("end", run.weights)):
    ranks = [float(networks.layer_ranks(A, y)) for A in (X, *(A[0] for A in networks.forward(weights, X)))]
    print(f"{words:5s} layers 0 to {max(p.depths)}: " + " ".join(f"{rank:.1f}" for rank in ranks))

# %% [markdown]
# ## Many networks
#
# Trained by full-batch flow as in notebook 71, whose table `71_digits.csv` also holds these columns, at widths 32 and 128 (at 512 hardly any rank is lost); the networks asked for above are trained today and take the place of theirs.

# %%
grid = {
    "dataset": [p.dataset], "digest": [data.fingerprint(p.dataset)], "n_per_class": [p.n_per_class], "batch_size": [50],
    "training": ["flow"], "depth": p.depths, "width": p.widths,
}
fresh = sweep.run(learned.trained, grid, seeds=range(p.seed, p.seed + p.seeds), cost=lambda depth, width, **_: depth * width, **notebook.sweep_options())
table, difference = learned.joined(notebook.committed("71_digits").query("width <= 128"), fresh.drop(columns="error"))
table = table[(table["training"] == "flow") & (table["status"] == "reached")]
if table.empty:
    raise dufm.DufmError("no network arrived: raise widths, or lower depths")
print(f"{len(fresh)} networks trained today, {len(table)} in all; those in both differ in effective rank by {stats.below(difference, 0.05)}")

# %%
layers = table.drop(columns="rank").melt(["width", "depth", "seed"], [name for name in table if name.startswith("layer_")], "layer", "rank").dropna()
layers["layer"] = layers["layer"].str.removeprefix("layer_").astype(int)
means = layers.groupby(["width", "depth", "layer"])["rank"].apply(stats.mean_interval)
columns = pd.DataFrame(means.tolist(), index=means.index, columns=["mean", "low", "high"])
figures.store("72_layers", columns.reset_index())

# %% tags=["figure"]
figures.show(
    "72_layers",
    alt="Effective rank of the class means after each layer, from the images to the logits, one line a depth, one panel for the narrow and one for the wide networks. "
    "The lines start together just above 8 and fall from the second layer on, slowly inside the network and steeply at the last layer; shallow networks hardly fall.",
)

# %% [markdown]
# What the deepest networks lose at the last layer, and at an average layer before it. The narrow ones lose about 0.3 of a dimension a layer, the wide ones half of that, though not at every layer: before the end the profile is flat.

# %%
deepest = table[table["depth"] == max(table["depth"])]
L = int(max(table["depth"]))
deepest = deepest.assign(last=deepest[f"layer_{L - 1}"] - deepest[f"layer_{L}"], before=(deepest["layer_0"] - deepest[f"layer_{L - 1}"]) / (L - 1))
lost = deepest.groupby("width")[["last", "before"]].agg(stats.mean)
lost.rename(columns={"last": "lost at the last layer", "before": "lost at an average layer before"})

# %% [markdown]
# ## Collapse at the last hidden layer

# %%
metrics = {"nc1": "NC1", "trace_ratio": "trace ratio", "nc2": "NC2", "nc3": "NC3"}
found = table.groupby(["width", "depth"])[list(metrics)].agg(stats.mean)
found.rename(columns=metrics)

# %% [markdown]
# Relative to the variability between the classes, that within them is smaller in deep networks than at two layers (trace ratio). NC1 does not follow: it falls from two to three layers, as NC3 does, and then rises; at eight layers its mean is no smaller than at two. It divides by the eigenvalues of $\Sigma_B$, some of
# which are small where the rank is low ([14](../1_model/14_nc1_at_low_rank.ipynb)). And NC2 *rises* with depth.

# %%
nc2 = table.groupby("width").apply(lambda t: stats.falling(t["depth"], t["nc2"])[0])
print("Spearman correlation of NC2 with depth: " + ", ".join(f"width {width}: {r:.2f}" for width, r in nc2.items()))

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
surplus = (deepest["last"] - deepest["before"]).groupby(deepest["width"]).apply(lambda values: stats.mean_interval(values)[1])
claims.check("72-last-layer", round(min(surplus), 1))
claims.check("72-nc2", min(nc2))

# %% [markdown]
# ## Where it breaks
#
# *Shallow networks.* At two layers there is no layer before the last but one with a ReLU, and hardly anything to lose: the logits end at the rank of the images. The first layer even raises it, in the shallow networks by 0.2: pixels are correlated, and
# random features of them less so.
#
# *Other norms of rank.* The effective rank weighs small singular values in. A count of those above a threshold would fall in steps, and at other layers for other thresholds.
#
# ## Try it ([answers](../answers.md#72))
#
# 1. `depths = [10]`: does the flat stretch before the last layer grow?
# 2. `widths = [16]`, `depths = [5]`: in narrower networks, which layers take more?
# 3. `n_per_class = 10`: is the last layer still the dearest? (The table is then left out: it holds networks of 60 images a class.)

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
