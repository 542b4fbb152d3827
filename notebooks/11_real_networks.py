# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Real networks too: effective rank falls with depth and rises with width
#
# **Question.** The other notebooks train free features. Does a network that has to compute its features from images, through ReLUs, show the same preference for low rank?
#
# **Answer.** On handwritten digits, yes. The class means of its logits lose effective rank with depth, and width gives part of it back, though only to deep networks. What is
# learned at a loss of $10^{-6}$ is not a softmax code, only nearer to one than chance would be, and farther from it at eight layers than at two.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
dataset: str = "digits"  # what to train on; all but the digits need a file or the network {digits, mnist, fashion, cifar10}
depths: list[int] = [2, 3, 5, 8]  # depths L, weight matrices counted, the first included [2, 10]
widths: list[int] = [32, 128]  # widths of the hidden layers [10, 512]
seeds: int = 6  # networks a depth and width [5, 1000]
n_per_class: int = 60  # training images a class [10, 6000]
few_per_class: int = 20  # training images a class in the smaller experiments [10, 6000]
batch_size: int = 50  # images in a minibatch [1, 60000]
fail_depths: list[int] = [8, 24]  # depths at which narrow networks are tried [2, 64]
fail_widths: list[int] = [4, 8, 16, 32]  # widths of those [4, 512]
small_scales: list[float] = [0.3, 0.7]  # scales of smaller starts, the usual one being 1.41 [0.01, 2]
random_codes: int = 200  # random codes that the learned geometry is compared with [20, 100000]
seed: int = 0  # first of the seeds [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import hashlib
import math

import numpy as np
import scipy.stats
import torch

import dufm
from dufm import claims, data, figures, networks, notebook, sweep

p = notebook.start("11_real_networks", globals())
depths, widths, seeds, n_per_class, few = sorted(set(p.depths)), sorted(set(p.widths)), p.seeds, p.n_per_class, p.few_per_class
fail_depths, fail_widths, small_scales = sorted(set(p.fail_depths)), sorted(set(p.fail_widths)), sorted(set(p.small_scales))
flow_steps, epochs = 100, 200
if p.budget == "smoke":
    depths, widths, seeds, n_per_class, few = depths[:2], [widths[0], 2 * widths[0]], 2, 10, 10
    fail_depths, fail_widths, small_scales, flow_steps, epochs = fail_depths[:1], fail_widths[:1], small_scales[:1], 20, 20
if p.budget == "full":
    depths, widths, seeds = list(range(2, 11)), sorted({*widths, 32, 64, 128, 256, 512}), 4 * p.seeds
seed_list = range(p.seed, p.seed + seeds)
batch_size = min(p.batch_size, 10 * n_per_class)
LOSS_END = math.log(1e-6)

# %% [markdown]
# ## What is trained, and what is measured
#
# $Z = W_L\,\phi(W_{L-1}\cdots\phi(W_1X))$ with $\phi$ the ReLU, no biases, cross-entropy, no regularisation. Depth counts weight matrices, the first included. Pixels lie in $[0,1]$; the mean training image is subtracted. Weights start Gaussian with
# variance 2/fan-in. Training is *full-batch gradient flow* until the mean loss is below $10^{-6}$, or, for comparison, *minibatch descent* until the same loss.
#
# Let $\bar Z\in\mathbb R^{K\times K}$ hold the mean logits of each class, a column a class, less their common mean, with singular values $\sigma_i$. The **effective rank** is $\exp(-\sum_ip_i\log p_i)$, $p_i = \sigma_i/\sum_j\sigma_j$ (Roy & Vetterli 2007): at most $K - 1 = 9$, reached by neural collapse. The same number is taken
# of the class means after every layer. It is invariant under scale, so the growth of the logits does not enter.
#
# **Why one should expect it.** If all layers are linear and the inputs orthonormal, this is the deep unconstrained feature model exactly (notebook 01), and there the flow seeks a large margin at small $\|Z\|_{S_{2/L}}$, which prices rank more the deeper the network (notebooks 03, 04). Images are not orthonormal and ReLUs not linear: nothing
# is proved here. All below is measurement: means over independent starts, with 95% $t$ intervals over the starts; the data are the same for all. Every depth and width has starts of its own, which both ways of training share; the order of the images in minibatches is shared by the networks of one depth and width.


# %%
def digest_of(images, labels):
    """A few letters that change with the data, so that no result of other data is taken from the cache."""
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:12]


def load(name, digest, n_per_class, centred):
    """Training images class by class, and up to a thousand of the others: columns and labels."""
    images, labels = data.load(name)
    assert digest_of(images, labels) == digest, f"{name} is not what it was when the notebook started"
    X, y = data.balanced(images, labels, n_per_class)
    left = np.concatenate([np.flatnonzero(labels == k)[n_per_class:] for k in range(int(y.max()) + 1)])
    left = np.random.default_rng(0).permutation(left)[:1000]
    held, held_y = torch.from_numpy(images[left].T.astype(np.float64)), torch.from_numpy(labels[left])
    mean = X.mean(1, keepdim=True) if centred else 0.0
    return X - mean, y, held - mean, held_y


def class_rank(outputs, y):
    """Effective rank of the centred class means of one layer."""
    # R of a QR decomposition has the same singular values, and is square.
    return dufm.effective_rank(torch.linalg.qr(networks.class_means(outputs, y)).R)


def class_vectors(Z, rank):
    """Unit vectors of the classes, (..., K, rank): rows of U √Σ of the best approximation of Z of that rank."""
    U, sigma, _ = torch.linalg.svd(Z)
    W = U[..., :rank] * sigma[..., None, :rank].sqrt()
    return W / W.norm(dim=-1, keepdim=True)


def derived(*numbers):
    """A seed made of several numbers: one differs, all random numbers do."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def trained(seeds, dataset, digest, n_per_class, depth, width, batch_size, scale, relu_layers, centred, log_loss_end, max_steps):
    """Train a network a seed, and measure its end."""
    X, y, held, held_y = load(dataset, digest, n_per_class, centred)
    # Independent from one depth or width to the next; the same, up to their scale, in all experiments at one depth and width.
    starts = [networks.gaussian_init(depth, width, len(X), 10, scale=scale, seed=derived(seed, depth, width)) for seed in seeds]
    weights = [torch.cat(layer) for layer in zip(*starts, strict=True)]
    start = networks.class_means(networks.forward(weights, X, relu_layers)[-1], y)
    run = networks.train(
        weights, X, y, relu_layers=relu_layers, batch_size=batch_size, seed=derived(seeds[0], depth, width, 1), until_log_loss=log_loss_end, max_steps=max_steps
    )
    outputs = networks.forward(run.weights, X, relu_layers)
    Z = networks.class_means(outputs[-1], y)
    found = {"status": run.status, "log_loss": run.log_loss, "start_rank": dufm.effective_rank(start), "rank": dufm.effective_rank(Z)}
    done = run.status == "reached"
    if not done.all():
        return found
    guess = networks.forward(run.weights, held, relu_layers)[-1].argmax(1) if len(held_y) else None
    found["held_out"] = math.nan if guess is None else (guess == held_y).double().mean(1)
    found |= {f"layer_{index}": class_rank(A, y) for index, A in enumerate([X, *outputs])}
    nc = dufm.nc_metrics(outputs[-2], run.weights[-1], rank=len(Z[0]) - 1)
    found |= {name: nc[name] for name in ("nc1", "trace_ratio", "nc2", "nc3")}
    return found | {f"margin_{r}": dufm.one_vs_rest_margin(class_vectors(Z, r)) for r in range(2, len(Z[0]))}


digest = digest_of(*data.load(p.dataset))


def cell(**changes):
    """A cell of a sweep: the usual network, with changes."""
    usual = {
        "dataset": p.dataset, "digest": digest, "n_per_class": n_per_class, "depth": 2, "width": widths[0], "batch_size": None, "scale": networks.HE_SCALE,
        "relu_layers": None, "centred": True, "log_loss_end": LOSS_END, "max_steps": 2000,
    }
    return usual | changes


def compute(cells, label):
    with notebook.timed(label):
        table = sweep.run(trained, cells, seeds=seed_list, cost=lambda **c: c["depth"] * c["width"] ** 2, **notebook.sweep_options())
    failed = table[table["error"] != ""]
    assert failed.empty, failed["error"].iloc[0]
    return table


def interval(values):
    """Mean and half the 95% t interval."""
    values = np.asarray(values, dtype=float)
    return values.mean(), scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5


def shown(values, digits=1):
    """Mean and half interval, that rounded up."""
    mean, half = interval(values)
    if not math.isfinite(half):
        return "n/a"
    unit = 10**digits
    return f"{round(mean, digits) + 0.0:.{digits}f} ± {math.ceil(half * unit) / unit:.{digits}f}"


def lower(values):
    """Lower end of the 95% interval of the mean."""
    mean, half = interval(values)
    return mean - half


def small(probability):
    return "p < 0.001" if probability < 1e-3 else f"p = {probability:.2g}"


# %%
KINDS = {"flow": None, "minibatch": batch_size}
main = {
    kind: compute([cell(width=w, depth=L, batch_size=size) for w in widths for L in depths], kind) for kind, size in KINDS.items()
}


def ranks(kind, width, depth, column="rank"):
    table = main[kind]
    return table[(table["width"] == width) & (table["depth"] == depth)][column].to_numpy()


rows = [(kind, w, L, *interval(ranks(kind, w, L))) for kind in KINDS for w in widths for L in depths]
figures.store("11_rank", dict(zip(("training", "width", "depth", "rank", "half"), map(np.array, zip(*rows, strict=True)), strict=True)))

# %% tags=["figure"]
import numpy as np

from dufm import figures

drawn = figures.load("11_rank")
width_list = np.unique(drawn["width"])
fig, axes = figures.subplots(1, 2, width=7.0, height=2.7, sharey=True)
for ax, kind, words in zip(axes, ("flow", "minibatch"), ("full-batch gradient flow", "minibatch descent"), strict=True):
    for i, w in enumerate(width_list):
        here = (drawn["training"] == kind) & (drawn["width"] == w)
        L, mean, half = (drawn[name][here] for name in ("depth", "rank", "half"))
        colour = figures.matplotlib.colormaps["magma"](0.65 - 0.5 * i / max(len(width_list) - 1, 1))
        ax.fill_between(L, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
        ax.plot(L, mean, marker="os^Dv"[i % 5], color=colour)
        ax.annotate(f"width {w}", (L[-1], mean[-1]), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, color=colour)
    ax.axhline(9, color=figures.PALETTE["theory"], linestyle="--", linewidth=0.8)
    ax.annotate("neural collapse", (L[0], 9), xytext=(0, -3), textcoords="offset points", va="top", fontsize=8)
    ax.annotate(words, (0.5, 1.0), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9)
    ax.set_xticks(np.unique(drawn["depth"]))
    ax.set_xlim(drawn["depth"].min() - 0.3, drawn["depth"].max() * 1.28)
    ax.set_xlabel("depth $L$ (weight matrices)")
axes[0].set_ylabel("effective rank of the class means")
figures.save(
    fig,
    "11_rank",
    alt="Effective rank of the centred class-mean logits of trained ReLU networks against depth, one panel for full-batch gradient flow and one for minibatch "
    "descent. In both it falls with depth from just above 8, and falls less in the wider networks. A dashed line at 9 marks neural collapse.",
)

# %% [markdown]
# *Bands: 95% intervals over the starts. At two layers width makes no difference; at eight the wide networks keep about half of what the narrow ones lose.*

# %%
for kind in KINDS:
    print(f"{kind}: effective rank of the class-mean logits, and accuracy on images not trained on")
    for w in widths:
        print(f"  width {w:3d}: " + "   ".join(f"L = {L}: {shown(ranks(kind, w, L))} ({ranks(kind, w, L, 'held_out').mean():.0%})" for L in depths))
reached = np.concatenate([table["status"] == "reached" for table in main.values()]).mean()
print(f"loss below 1e-6: {reached:.0%} of {sum(len(table) for table in main.values())} networks")

# %% [markdown]
# ## Depth and width, tested
#
# *Depth*: Spearman's correlation of effective rank with depth over all networks of one width. *Width*: the rise from the narrowest to the widest networks at equal depth, by a $t$ interval over the starts; the starts of two widths are drawn from different seeds, independently, so that pairing them by number is as good as any other
# pairing.

# %%
def correlation(kind, width, column="rank", **options):
    """Spearman's correlation of a column with depth, and its p value; NaN with a single depth."""
    mine = main[kind][main[kind]["width"] == width]
    return scipy.stats.spearmanr(mine["depth"], mine[column], **options) if len(depths) > 1 else (math.nan, math.nan)


spearman = {}
for kind in KINDS:
    for w in widths:
        spearman[kind, w], chance_p = correlation(kind, w)
        print(f"{kind:9s} width {w:3d}: Spearman correlation of rank with depth {spearman[kind, w]:.2f}, {small(chance_p)}")


def rises(kind):
    """Rank in the widest networks less that in the narrowest, (depths, seeds)."""
    return np.array([ranks(kind, widths[-1], L) - ranks(kind, widths[0], L) for L in depths])


for kind in KINDS:
    print(f"{kind:9s} width {widths[0]} to {widths[-1]}: rise " + "   ".join(f"L = {L}: {shown(rise)}" for L, rise in zip(depths, rises(kind), strict=True)))
less = {(w, L): ranks("minibatch", w, L) - ranks("flow", w, L) for w in widths for L in depths}
for w in widths:
    print(f"minibatch less flow, width {w:3d}: " + "   ".join(f"L = {L}: {shown(less[w, L])}" for L in depths))
deeper = [less[w, L] for w in widths for L in depths if L > 2]
more = np.mean(deeper, axis=0) if deeper else np.full(seeds, math.nan)
print(f"minibatch less flow, mean over the widths and the depths above 2: {shown(more)}")

# %% [markdown]
# At two and three layers minibatches end where the flow does, to about 0.1; at five and eight their mean rank is *higher*, by about a half, and in the wide networks the fall is less strict. Whether the noise of the batches does that or the finite steps is not separated here.
#
# ## Layer by layer
#
# Where in the network is rank lost?

# %%
layers = [
    (w, L, index, *interval(ranks("flow", w, L, f"layer_{index}"))) for w in widths for L in depths for index in range(L + 1)
]
figures.store("11_layers", dict(zip(("width", "depth", "layer", "rank", "half"), map(np.array, zip(*layers, strict=True)), strict=True)))

# %% tags=["figure"]
import numpy as np

from dufm import figures

drawn = figures.load("11_layers")
width_list = np.unique(drawn["width"])[[0, -1]]
fig, axes = figures.subplots(1, 2, width=7.0, height=2.7, sharey=True)
for ax, w in zip(axes, width_list, strict=True):
    for i, L in enumerate(np.unique(drawn["depth"])):
        here = (drawn["width"] == w) & (drawn["depth"] == L)
        layer, mean, half = (drawn[name][here] for name in ("layer", "rank", "half"))
        colour = figures.depth_color(L)
        ax.fill_between(layer, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
        ax.plot(layer, mean, marker="os^Dvp<>h"[i % 9], color=colour, label=f"$L={L}$")
    ax.annotate(f"width {w}", (0.5, 1.0), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9)
    ax.set_xticks(range(int(drawn["layer"].max()) + 1))
    ax.set_xlabel("layer (0: images)")
axes[1].legend(loc="lower left")
axes[0].set_ylabel("effective rank of the class means")
figures.save(
    fig,
    "11_layers",
    alt="Effective rank of the class means after each layer, from the images to the logits, one line a depth, one panel for the narrow and one for the wide networks. "
    "The lines start together just above 8 and fall from the second layer on, slowly inside the network and steeply at the last layer; shallow networks hardly fall.",
)

# %% [markdown]
# *Bands: 95% intervals over the starts, full-batch flow.*

# %%
deepest = depths[-1]
profile = {w: np.array([ranks("flow", w, deepest, f"layer_{index}").mean() for index in range(deepest + 1)]) for w in widths}
for w in widths:
    print(f"width {w:3d}, L = {deepest}: layers 0 to {deepest}: " + " ".join(f"{rank:.1f}" for rank in profile[w]))
last = {w: ranks("flow", w, deepest, f"layer_{deepest - 1}") - ranks("flow", w, deepest, f"layer_{deepest}") for w in widths}
inside = {w: (ranks("flow", w, deepest, "layer_0") - ranks("flow", w, deepest, f"layer_{deepest - 1}")) / (deepest - 1) for w in widths}
for w in widths:
    print(f"width {w:3d}: lost at the last layer {shown(last[w])}, at each layer before it {shown(inside[w], 2)}")

# %% [markdown]
# Up to the last hidden layer the narrow networks lose about 0.3 of a dimension a layer on average, the wide ones about half of that, though not at every layer: before the end the profile is flat. The last layer, which no ReLU follows, takes more than the average layer before it.
#
# ## Neural collapse at the last hidden layer
#
# `dufm.nc_metrics` on the outputs of the last hidden layer and the classifier $W_L$. *NC1* $= \operatorname{Tr}(\Sigma_W\Sigma_B^+)/K$ with the plain pseudo-inverse, at rank $K-1$; *trace ratio* $= \operatorname{Tr}\Sigma_W/\operatorname{Tr}\Sigma_B$; *NC2* the distance of the class means' Gram matrix, at unit norm, from the simplex's; *NC3*
# the distance between classifier and class means, at unit norm. All vanish at collapse.

# %%
for w in widths:
    print(f"flow, width {w}")
    for name, label in (("nc1", "NC1"), ("trace_ratio", "trace ratio"), ("nc2", "NC2"), ("nc3", "NC3")):
        print(f"  {label:11s} " + "   ".join(f"L = {L}: {shown(ranks('flow', w, L, name), 2)}" for L in depths))
nc2 = {w: correlation("flow", w, "nc2")[0] for w in widths}
print("Spearman correlation of NC2 with depth: " + ", ".join(f"width {w}: {nc2[w]:.2f}" for w in widths))

# %% [markdown]
# Relative to the variability between the classes, that within them is smaller in deep networks than at two layers (trace ratio). NC1 does not follow: at eight layers its mean is no smaller than at two. It divides by the eigenvalues of $\Sigma_B$, some of which are small where the rank is low. And the class means move *away* from the simplex (NC2).
#
# ## Is what is learned a softmax code?
#
# Low rank is half of the prediction; the other half is which arrangement. Take the best approximation $U\Sigma V^\top$ of $\bar Z$ of rank $r$, $r$ the effective rank rounded (the mean over the starts). Its balanced factor $U\sqrt\Sigma$ has a row a class; scaled to unit length these rows $w_k$ form a code in $r$ dimensions. The softmax code has the largest
# one-vs-rest margin (notebook 05), so
# $$\text{gap} = 1 - \frac{\min_k\operatorname{dist}(w_k,\operatorname{conv}\{w_j\}_{j\ne k})}{\text{that of the softmax code of } K \text{ classes in } r \text{ dimensions}} \in[0,1],$$
# 0 for a softmax code. What chance gives: directions drawn uniformly in $r$ dimensions.

# %%
best = {r: dufm.softmax_code(10, r, seed=p.seed).value for r in range(2, 10)}


def random_gap(r):
    """Quantiles 5, 50 and 95% of the gap of a random code."""
    W = np.random.default_rng([p.seed, r]).standard_normal((p.random_codes if p.budget != "smoke" else 20, 10, r))
    W = torch.from_numpy(W / np.linalg.norm(W, axis=-1, keepdims=True))
    return np.quantile(1.0 - dufm.one_vs_rest_margin(W).numpy() / best[r], [0.05, 0.5, 0.95])


def gaps(table, r):
    return 1.0 - table[f"margin_{r}"].to_numpy() / best[r]


def rounded(values):
    return int(np.clip(np.round(np.mean(values)), 2, 9))


chance = {r: random_gap(r) for r in best}
gap = {(w, L): gaps(main["flow"][(main["flow"]["width"] == w) & (main["flow"]["depth"] == L)], rounded(ranks("flow", w, L))) for w in widths for L in depths}
for w in widths:
    print(f"width {w:3d}: gap at r   " + "   ".join(f"L = {L}: {gap[w, L].mean():.2f} at {rounded(ranks('flow', w, L))}" for L in depths))
print("chance, median at r: " + "   ".join(f"{r}: {chance[r][1]:.2f}" for r in range(4, 10)))

# %% [markdown]
# Nearer than chance everywhere, a softmax code nowhere. Is that the network's last word, or only early? The same starts on fewer images, trained far beyond the usual end; $r$ is the one of the last stage.

# %%
stages = [LOSS_END, -30.0] if p.budget == "smoke" else [LOSS_END, -50.0, -200.0]
longer = compute([cell(n_per_class=few, depth=L, log_loss_end=end, max_steps=20000) for L in depths for end in stages], "longer")


def stage(L, end):
    return longer[(longer["depth"] == L) & (longer["log_loss_end"] == end)]


late_rank = {L: rounded(stage(L, stages[-1])["rank"]) for L in depths}
late_gap = {(L, end): gaps(stage(L, end), late_rank[L]) for L in depths for end in stages}
for L in depths:
    print(f"L = {L}: log loss " + "   ".join(f"{end:.0f}: rank {stage(L, end)['rank'].mean():.1f}, gap {late_gap[L, end].mean():.2f}" for end in stages))
change = np.array([late_gap[L, stages[0]] - late_gap[L, stages[-1]] for L in depths])
print("fall of the gap: " + "   ".join(f"L = {L}: {shown(fall, 2)}" for L, fall in zip(depths, change, strict=True)) + f"   mean {shown(change.mean(0), 2)}")

# %% [markdown]
# At two layers the gap goes on falling, by nearly half. At three and more the interval of the fall contains zero, though the mean over the depths is above it: if deep networks end in softmax codes at all, they are a very long way off.

# %%
def band(values):
    mean, half = interval(values)
    return mean - half, mean, mean + half


found = [("width", w, L, ranks("flow", w, L).mean(), LOSS_END, *band(gap[w, L])) for w in widths for L in depths]
found += [("chance", 0, 0, float(r), 0.0, *chance[r]) for r in chance]
found += [("stage", widths[0], L, stage(L, end)["rank"].mean(), end, *band(late_gap[L, end])) for L in depths for end in stages]
names = ("kind", "width", "depth", "rank", "log_loss", "low", "gap", "high")
figures.store("11_code", dict(zip(names, map(np.array, zip(*found, strict=True)), strict=True)))

# %% tags=["figure"]
import numpy as np

from dufm import figures

drawn = figures.load("11_code")
fig, (left, right) = figures.subplots(1, 2, width=7.0, height=2.7, sharey=True)
at = drawn["kind"] == "chance"
left.fill_between(drawn["rank"][at], drawn["low"][at], drawn["high"][at], color=figures.PALETTE["other"], alpha=0.4, linewidth=0)
left.plot(drawn["rank"][at], drawn["gap"][at], color="0.4", linewidth=0.8)
left.annotate("random codes", (drawn["rank"][at][-2], drawn["gap"][at][-2]), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=8, color="0.3")
width_list = np.unique(drawn["width"][drawn["kind"] == "width"])
for i, w in enumerate(width_list):
    here = (drawn["kind"] == "width") & (drawn["width"] == w)
    colour = figures.matplotlib.colormaps["magma"](0.65 - 0.5 * i / max(len(width_list) - 1, 1))
    r, mean = drawn["rank"][here], drawn["gap"][here]
    left.vlines(r, drawn["low"][here], drawn["high"][here], color=colour, linewidth=1)
    left.plot(r, mean, "os^Dv"[i % 5], color=colour, label=f"width {w}", linestyle="none")
left.legend(loc="lower left", handletextpad=0.1)
left.set_xticks(range(2, 10))
left.set_xlim(drawn["rank"][drawn["kind"] != "chance"].min() - 0.6, 9.2)
left.set_ylim(0, 1)
left.set_xlabel("effective rank of the class means")
left.set_ylabel("gap to the softmax code")
for i, L in enumerate(np.unique(drawn["depth"][drawn["kind"] == "stage"])):
    here = (drawn["kind"] == "stage") & (drawn["depth"] == L)
    colour = figures.depth_color(L)
    x, mean = -drawn["log_loss"][here], drawn["gap"][here]
    right.fill_between(x, drawn["low"][here], drawn["high"][here], color=colour, alpha=0.2, linewidth=0)
    right.plot(x, mean, marker="os^Dvp<>h"[i % 9], color=colour)
    right.annotate(f"$L={L}$", (x[-1], mean[-1]), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, color=colour)
right.set_xscale("log")
right.set_xticks([15, 50, 200], ["15", "50", "200"])
right.minorticks_off()
right.set_xlim(12, 330)
right.set_xlabel(r"$-\log\mathcal{L}$ at the end of training")
figures.save(
    fig,
    "11_code",
    alt="Left, gap between the one-vs-rest margin of the learned class vectors and that of the softmax code of the same rank, against rank, for both widths, below the median of "
    "random codes, in a grey band; it grows from about 0.15 at rank 8 to about a half at rank 5. Right, the gap against minus log loss, one line a depth, higher the deeper: it falls slowly as training goes on, at eight layers hardly.",
)

# %% [markdown]
# *Left: at a loss of $10^{-6}$, the gap at the rounded effective rank, with 95% intervals; grey, from the 5% to the 95% quantile of random codes of rank $r$. Right: the same training continued, width of the narrow networks.*
#
# ## Where it breaks
#
# *Deep and narrow networks do not train at all.* With every ReLU layer the images of all classes are squeezed towards one direction; in a narrow layer they can also all die at once. Below, with fewer images, the effective rank of the class-mean logits *before* training (0 where dead), how many networks are dead at the start (no gradient at all), and whether training reaches a loss of $10^{-6}$,
# by the flow in 100 steps and by minibatches in 200 epochs. More steps may yet get some of them there; nothing here says that they never would.

# %%
failing = {
    kind: compute(
        [
            cell(n_per_class=few, width=w, depth=L, batch_size=size and few, max_steps=flow_steps if size is None else epochs)
            for w in fail_widths
            for L in fail_depths
        ],
        f"failing, {kind}",
    )
    for kind, size in KINDS.items()
}


def share(done):
    """All, some or none: counts between would depend on rounding."""
    return "all" if done.all() else "some" if done.any() else "none"


trainable = {}
print("width depth   rank at the start   dead at the start   reach 1e-6 by flow   by minibatches")
for w in fail_widths:
    for L in fail_depths:
        at = {kind: table[(table["width"] == w) & (table["depth"] == L)] for kind, table in failing.items()}
        trainable[w, L] = {kind: (mine["status"] == "reached").to_numpy() for kind, mine in at.items()}
        dead = at["flow"]["status"].str.startswith("stalled").sum()
        print(
            f"{w:5d} {L:5d}   {at['flow']['start_rank'].mean():17.1f}   {dead:10d} of {seeds:<3d}   "
            f"  {share(trainable[w, L]['flow']):>18s}   {share(trainable[w, L]['minibatch']):>14s}"
        )

# %% [markdown]
# *Small starts.* The logits at the start scale like $(\text{scale}/\sqrt2)^L$. In deep networks a small start is a saddle that the flow must leave first; the same budget of steps.

# %%
small_start = compute(
    [cell(n_per_class=few, depth=L, scale=s, max_steps=flow_steps) for s in [*small_scales, networks.HE_SCALE] for L in depths], "small starts"
)
print(f"flow, width {widths[0]}, {few} images a class: who reaches 1e-6, and at which effective rank")
for s in [*small_scales, networks.HE_SCALE]:
    at = {L: small_start[(small_start["scale"] == s) & (small_start["depth"] == L)] for L in depths}
    done = {L: (mine["status"] == "reached").to_numpy() for L, mine in at.items()}
    words = [f"L = {L}: {share(done[L])}" + (f" {at[L]['rank'].mean():.1f}" if done[L].all() else "") for L in depths]
    print(f"  scale {s:.2f}: " + "   ".join(words))

# %% [markdown]
# From three layers on, where a smaller start still trains it ends at lower rank: the size of the start acts as in notebook 08.
#
# *Is it the ReLU?* The same with only the first layer a ReLU, with none, and with images whose mean is not subtracted. The variance 2/fan-in makes up for the half of the signal that a ReLU cuts away; without ReLUs it would double the mean square at every layer, and a larger start ends at a higher rank. The first two variants therefore start with
# variance 1/fan-in, at which linear layers keep the size of what passes through them.

# %%
variants = {
    "ReLU": {},
    "first layer ReLU": {"relu_layers": 1, "scale": 1.0},
    "linear": {"relu_layers": 0, "scale": 1.0},
    "ReLU, mean kept": {"centred": False},
}
other = {name: compute([cell(n_per_class=few, depth=L, **change) for L in depths], name) for name, change in variants.items()}
fall = {}
for name, table in other.items():
    at = {L: table[table["depth"] == L]["rank"].to_numpy() for L in depths}
    fall[name] = at[depths[0]] - at[depths[-1]]
    print(f"  {name:17s} " + "   ".join(f"L = {L}: {at[L].mean():.1f}" for L in depths) + f"   fall {shown(fall[name])}")
print(f"ReLU less linear: fall {shown(fall['ReLU'] - fall['linear'])}")

# %% [markdown]
# The sign is the same in every row. Linear networks, the ones the deep unconstrained model describes, lose 2.4, ReLU networks 3.3; with ReLUs at the first layer alone more is lost than with all or none. So ReLUs are not needed for the fall, and they add to it here. How much is theirs depends on the size of the start, which cannot be made the same in networks
# that differ in their ReLUs except by a convention like this one. With the mean kept, one large direction shared by all images lowers the rank already at two layers.
#
# ## Verdict

# %% tags=["verdict"]
strictness = {kind: max(spearman[kind, w] for w in widths) for kind in KINDS}
narrow = trainable.get((8, 24))
rise = rises("flow")
if p.dataset == "digits":
    claims.check("11-reached", reached)
    claims.check("11-depth", strictness["flow"])
    claims.check("11-width", round(lower(rise.mean(0)), 1))
    claims.check("11-width-deep", round(lower(rise[-1] - rise[0]), 1))
    claims.check("11-minibatch", strictness["minibatch"])
    claims.check("11-minibatch-p", max(correlation("minibatch", w, alternative="less")[1] for w in widths))
    claims.check("11-minibatch-rank", round(lower(more), 1))
    claims.check("11-last-layer", round(min(lower(last[w] - inside[w]) for w in widths), 1))
    claims.check("11-nc2", min(nc2.values()))
    claims.check("11-better-than-chance", round(max(gap[w, L].mean() / chance[rounded(ranks("flow", w, L))][1] for w in widths for L in depths), 1))
    claims.check("11-softmax-code", round(min(values.mean() for values in gap.values()), 2))
    claims.check("11-gap-falls", round(lower(change.mean(0)), 2))
    claims.check("11-deep-narrow", math.nan if narrow is None else float(np.concatenate(list(narrow.values())).mean()))
    claims.check("11-linear", round(lower(fall["linear"]), 1))
else:
    claims.check(f"11-{p.dataset}-depth", strictness["flow"])
    claims.check(f"11-{p.dataset}-width", round(lower(rise.mean(0)), 1))

# %% [markdown]
# MNIST, Fashion-MNIST and CIFAR-10 stand in the ledger as *not run*. To run one: `dufm reproduce 11 -p dataset=mnist`, with a network or with a file `mnist.npz` in the folder `DUFM_DATA` (`dufm.data.load` says what it must hold).
#
# ## Try it
#
# 1. `dataset = "mnist"`: does the fall with depth survive on larger images?
# 2. `widths = [16, 32, 64, 128]`: at depth 8, is the rank a function of depth over width?
# 3. `small_scales = [1.0, 1.2]`: how much of the rank at depth 8 is decided by the size of the start?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
