# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The fall of rank needs no ReLU, deepens with small starts, and stops where networks no longer train
#
# **Question.** Is the fall of the effective rank with depth ([71](71_rank_and_depth.ipynb)) the doing of the ReLUs? What becomes of it with other starts, and where does the experiment itself end?
#
# **Answer.** Linear networks lose rank with depth as well. At five layers a smaller start ends at lower rank, as in the deep unconstrained feature model; at eight none of the five arrives in the steps given. Deep and
# *narrow* networks do not train at all within the time given.
#
# Before: [73, which code is learned](73_learned_codes.ipynb). After: [75, a deep linear head](75_deep_head.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/7_networks/74_limits.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/7_networks/74_limits.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("74_limits")

# %% [markdown]
# *Effective rank at a loss of $10^{-6}$ against depth, width 32, 20 images a class; bands: 95% intervals over five starts. A line ends, or begins, where not all networks of the next depth get there.* [Drawn by](../../figures/74_limits.py)
#
# ## Statement
#
# For *linear* layers and orthonormal images the fall is that of the deep unconstrained feature model ([11](../1_model/11_linear_network.ipynb)). The linear networks here stand between that model and the ReLU networks: their images are not orthonormal.
#
# What a fair comparison of sizes is follows from how a start passes a signal on. With entries $N(0, \sigma^2/\text{fan-in})$ and a fixed input $x$,
# $$\mathbb E\|W x\|^2 = \sigma^2\,\frac{\text{rows}}{\text{fan-in}}\,\|x\|^2,\qquad \mathbb E\|\phi(Wx)\|^2 = \tfrac12\,\mathbb E\|Wx\|^2 .$$
#
# **Proof.** An entry of $Wx$ is $N(0, \sigma^2\|x\|^2/\text{fan-in})$, and there are as many as rows; it is as often positive as negative with the same square, so that a ReLU keeps half of the mean square. $\square$
#
# A hidden layer, as wide as the one before, therefore keeps the mean square at $\sigma = \sqrt2$ with a ReLU (He et al. 2015) and at $\sigma = 1$ without; the logits at the start scale like $(\sigma/\sqrt2)^L$ and $\sigma^L$. Networks with fewer ReLUs start below at $\sigma = 1$. A convention of this kind is all there is: the size of the
# start, which matters, cannot be made the same in networks that differ in their ReLUs.
#
# **Two hindrances for deep networks.** *A small start is a saddle.* The gradient of every factor holds the product of all others, so that near zero the flow of depth $L$ moves at a rate $\sim\sigma^{L-2}$ of the size of the weights. *Narrow layers squeeze.* The singular values of a product of random
# $d\times d$ matrices part exponentially with $L/d$, and ReLUs add to it: their outputs are nonnegative, so that angles between images lie within 90°; and in a layer of $d$ units all are off for a given image with probability $2^{-d}$, after which no gradient passes: the network is dead for it.

# %% tags=["parameters"]
dataset: str = "digits"  # images {digits, mnist, fashion, cifar10}
depths: list[int] = [2, 3, 5, 8]  # depths L [2, 10]
width: int = 32  # width of the hidden layers [2, 512]
small_scales: list[float] = [0.7]  # scales of smaller starts, the usual one being 1.41 [0.01, 1.4]
fail_depths: list[int] = [8, 24]  # depths at which narrow networks are tried [2, 64]
fail_widths: list[int] = [4, 8]  # widths of those [2, 512]
flow_steps: int = 100  # steps of the flow for small starts and narrow networks [1, 100000]
epochs: int = 200  # epochs of minibatches for narrow networks [1, 100000]
seeds: int = 5  # networks a depth [2, 1000]
n_per_class: int = 20  # training images a class [5, 6000]
seed: int = 0  # first of the seeds [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import pandas as pd

from dufm import claims, data, figures, learned, networks, notebook, stats, sweep

p = notebook.start("74_limits", globals())

# %% [markdown]
# ## One narrow network
#
# Effective rank of the class means, layer by layer, before any training: at width 8 the layers of a deep network squeeze ten classes into nearly one direction. ReLUs do so a little faster, but the random matrices would do it alone.

# %%
X, y, held, held_y = data.split(p.dataset, p.n_per_class)
deep, narrow = max(p.fail_depths), max(p.fail_widths)
for words, relu_layers, scale in (("ReLU", deep - 1, networks.HE_SCALE), ("linear", 0, 1.0)):
    outputs = networks.forward(learned.initial_weights(p.seed, deep, narrow, len(X), scale), X, relu_layers)
    ranks = [float(networks.layer_ranks(A, y)) for A in outputs]
    print(f"{words:6s} width {narrow}, layers 1, 2, 4, …: " + " ".join(f"{ranks[2**k - 1]:.1f}" for k in range(len(ranks).bit_length())))

# %% [markdown]
# ## Fewer ReLUs, the mean kept, smaller starts
#
# Width 32, trained by full-batch flow to a loss of $10^{-6}$. Next to the ReLU network: the same with ReLUs at the first layer only, with none, and with images whose mean is not subtracted; and started from smaller weights.

# %%
common = {"dataset": p.dataset, "digest": data.fingerprint(p.dataset), "n_per_class": p.n_per_class}
variants = {
    "ReLU": {}, "first layer ReLU": {"relu_layers": 1, "scale": 1.0}, "linear": {"relu_layers": 0, "scale": 1.0}, "ReLU, mean kept": {"centred": False},
    **{f"scale {s:g}": {"scale": s, "max_steps": p.flow_steps} for s in p.small_scales},
}
usual = {"width": p.width, "relu_layers": None, "scale": networks.HE_SCALE, "centred": True, "max_steps": 2000}
grid = [common | usual | change | {"depth": L} for change in variants.values() for L in p.depths]
table = sweep.run(learned.trained, grid, seeds=range(p.seed, p.seed + p.seeds), cost=lambda depth, **_: depth, **notebook.sweep_options())
table["network"] = [name for name in variants for _ in p.depths for _ in range(p.seeds)]
reached = table.groupby(["network", "depth"], sort=False)["status"].agg(lambda status: (status == "reached").mean())
means = table.groupby(["network", "depth"], sort=False)["rank"].apply(stats.mean_interval)[reached == 1]
columns = pd.DataFrame(means.tolist(), index=means.index, columns=["mean", "low", "high"]).reset_index()
starts = columns["network"].isin(["ReLU", *(f"scale {s:g}" for s in p.small_scales)])
panels = [columns[columns["network"].isin(list(variants)[:4])].assign(panel="what is trained")]
panels.append(columns[starts].replace({"network": {"ReLU": "scale 1.41"}}).assign(panel="how large it starts"))
figures.store("74_limits", pd.concat(panels))

# %% tags=["figure"]
figures.show(
    "74_limits",
    alt="Effective rank of the class means against depth. Left, four kinds of network: ReLU from 8.3 down to 5.0, ReLU at the first layer only from 8.3 to 3.8, linear from 7.0 to 4.6, "
    "ReLU with the mean image kept from 6.6 to 5.2. Right, ReLU networks from two sizes of start: the smaller falls faster and ends at five layers, at 4.1.",
)

# %%
words = table.groupby(["network", "depth"], sort=False)["rank"].apply(stats.mean, digits=1)
words.where(reached == 1, "not all train").unstack("depth").loc[list(variants)]

# %%
rank = table.pivot_table(index="seed", columns=["network", "depth"], values="rank")
fall = {name: rank[name][min(p.depths)] - rank[name][max(p.depths)] for name in list(variants)[:4]}
falls = fall | {"ReLU less linear": fall["ReLU"] - fall["linear"]}
pd.DataFrame({name: [stats.mean(values, 1)] for name, values in falls.items()}, index=["fall with depth"])

# %% [markdown]
# The sign is the same for every kind. Linear networks, the ones the deep unconstrained feature model describes, lose 2.4, ReLU networks 3.3; with ReLUs at the first layer alone more is lost than with all or none. So ReLUs are not needed for the fall, and they add to it here. With the mean kept, one large direction that all
# images share lowers the rank already at two layers. At five layers a smaller start ends at lower rank, 4.1 against 6.5; at three, 7.3 against 7.9, the intervals overlap; at two one of five does not get to the loss in the steps given, at eight none. Where all do, its size acts as in [57](../5_dynamics/57_critical_deviation.ipynb) and [63](../6_width/63_half_width.ipynb).
#
# ## Deep and narrow
#
# Effective rank *before* training (0 where dead), how many networks have no gradient at all at the start, and how many reach $10^{-6}$: by the flow in 100 steps, by minibatches of one class's size in 200 epochs. More steps may yet get some of them there; nothing here says that they never would.

# %%
budgets = {"flow": p.flow_steps, "minibatch": p.epochs}
grid = [
    common | {"width": w, "depth": L, "training": training, "batch_size": p.n_per_class, "max_steps": steps}
    for training, steps in budgets.items() for w in p.fail_widths for L in p.fail_depths
]
tried = sweep.run(learned.trained, grid, seeds=range(p.seed, p.seed + p.seeds), cost=lambda depth, width, **_: depth * width, **notebook.sweep_options())
tried["arrived"] = tried["status"] == "reached"
tried["dead"] = tried["status"].str.startswith("stalled")
arrived = tried.pivot_table(index=["width", "depth"], columns="training", values="arrived", aggfunc="sum")
before = tried[tried["training"] == "flow"].groupby(["width", "depth"]).agg({"start_rank": "mean", "dead": "sum"})
before.round(1).join(arrived).rename(columns={"start_rank": "rank at the start", "flow": "arrived by flow", "minibatch": "by minibatches"})

# %% [markdown]
# None of them gets there; at width 32 all networks of eight layers do, as the figure shows. `budget = "full"` tries widths 16 and 32 too: some of the eight-layer networks of width 16 arrive, and at 24 layers none of width 32.
#
# ## Verdict

# %% tags=["verdict"]
claims.check("74-deep-narrow", tried[(tried["width"] == 8) & (tried["depth"] == 24)]["arrived"].mean())
claims.check("74-linear", round(stats.mean_interval(fall["linear"])[1], 1))

# %% [markdown]
# ## Where it breaks
#
# *Depth alone.* A network of 24 layers is not beyond training: residual connections, normalisation and biases exist for this. None of them is here, because each ends the homogeneity on which the theory rests.
#
# *Variants are not a decomposition.* The difference between the falls with and without ReLUs depends on the sizes of the starts, so that it is no share of the effect that could be called the ReLUs'.
#
# ## Try it ([answers](../answers.md#74))
#
# 1. `small_scales = [1.0, 1.2]`: how much of the rank at depth 8 is decided by the size of the start?
# 2. `fail_widths = [16]`, `fail_depths = [8, 12, 16]`: where between 8 and 24 layers does width 16 stop to train?
# 3. `flow_steps = 1000`, `fail_widths = [8]`, `fail_depths = [24]`: is it only a matter of time?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
