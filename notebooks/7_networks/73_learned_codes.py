# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What networks learn on images is nearer to a softmax code than chance, and is none
#
# **Question.** Low rank is half of the prediction. The other half is which arrangement the classes take in the dimensions that are left: is it a softmax code?
#
# **Answer.** At a loss of $10^{-6}$, no. The classes are better separated than the median of random directions of the same number of dimensions is, at every depth, but they fall short of the softmax code
# by about a sixth at two and three layers, and by more at eight: a half at width 32, a quarter at 128; at 512 still a sixth. Training on to a loss of $e^{-200}$ closes nearly half of the gap in networks of two layers; in deeper ones the intervals of what it closes reach to zero or nearly.
#
# Before: [72, where rank is lost](72_layers.ipynb). After: [74, limits](74_limits.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/7_networks/73_learned_codes.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/7_networks/73_learned_codes.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("73_code")

# %% [markdown]
# *Gap between the learned class code and the softmax code of as many dimensions, from the shallowest networks (right ends) to the deepest; bars: 95% intervals over eight starts. 0 would be a softmax code.*
# [Drawn by](../../figures/73_code.py)
#
# ## Statement
#
# Let $\bar Z = U\Sigma V^\top$ be the centred class-mean logits of notebook [71](71_rank_and_depth.ipynb), cut to the rank $r$ nearest to their mean effective rank. If $\bar Z = W\!H$ is a balanced factorisation, $W^\top W = HH^\top$, then
# $W = U\Sigma^{1/2}Q$ with $Q$ orthogonal.
#
# **Proof.** $WW^\top WW^\top = W(HH^\top)W^\top = \bar Z\bar Z^\top$, so $WW^\top = (\bar Z\bar Z^\top)^{1/2} = U\Sigma U^\top$: the rows of $W$ have the inner products of the rows of $U\Sigma^{1/2}$, and are those up to a rotation. $\square$
#
# So, up to a rotation, a balanced classifier of these logits would hold the rows of $U\Sigma^{1/2}$, one a class. Scaled to unit length they are the network's **class code** $w_1,\dots,w_K\in\mathbb R^r$ (`codes.class_code`). A *softmax code* (Jiang et al., ICML 2024;
# [32](../3_codes/32_known_codes.ipynb)) has the largest one-vs-rest margin of all codes, so
# $$\text{gap} = 1 - \frac{\min_k\operatorname{dist}(w_k,\operatorname{conv}\{w_j\}_{j\ne k})}{\text{that of the softmax code of } K\text{ classes in } r\text{ dimensions}}\in[0,1],$$
# which is 0 for a softmax code and only then, and 1 where some class lies in the hull of the others.
#
# **Why a small gap is not to be taken for granted.** In the deep unconstrained feature model the best solution of rank $r$ is a softmax code where the code is regular enough, and a little off it elsewhere ([34](../3_codes/34_why_they_agree.ipynb)); but the flow often
# ends in a solution that is not the best ([35](../3_codes/35_reached.ipynb)). And images have classes that resemble each other: a code that treats all classes alike need not be the one of largest margin for them.

# %% tags=["parameters"]
dataset: str = "digits"  # images {digits, mnist, fashion, cifar10}
depths: list[int] = [2, 3, 5, 8]  # depths L of the networks trained on [2, 10]
width: int = 32  # width of their hidden layers [8, 512]
stages: list[float] = [-13.8155, -50.0, -200.0]  # log losses at which they are measured [-2000, -5]
seeds: int = 6  # networks a depth [2, 1000]
n_per_class: int = 20  # training images a class [5, 6000]
random_codes: int = 200  # random codes to compare with [20, 100000]
seed: int = 0  # first of the seeds [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas as pd

import dufm
from dufm import claims, data, figures, learned, networks, notebook, stats, sweep

p = notebook.start("73_learned_codes", globals())

# %% [markdown]
# ## One network
#
# Two layers, $r = 8$. The softmax code of ten classes in eight dimensions has margin 1: it may be taken from the orthoplex, in which all angles are at least 90°. The closest pair of this network is nearer than that.

# %%
X, y, held, held_y = data.split(p.dataset, p.n_per_class)
run = networks.train(learned.initial_weights(p.seed, 2, p.width, len(X)), X, y)
Z = networks.class_means(networks.forward(run.weights, X)[-1], y)[0]
code = dufm.codes.class_code(Z, 8)
cosine = (code @ code.T).fill_diagonal_(-1)
pair = divmod(int(cosine.argmax()), 10)
print(f"smallest angle {float(dufm.codes.smallest_angle(code)):.0f} degrees, between classes {pair[0]} and {pair[1]}")
print(f"one-vs-rest margin {float(dufm.one_vs_rest_margin(code)):.2f}, of the softmax code {dufm.softmax_code(10, 8, seed=p.seed).margin:.2f}")

# %% [markdown]
# ## Many networks
#
# The networks of notebook 71, from its table `71_digits.csv` (digits, full-batch flow, 60 images a class), and what chance gives: directions drawn uniformly in $r$ dimensions.

# %%
best = {r: dufm.softmax_code(10, r, seed=p.seed).margin for r in notebook.progress(range(2, 10), label="softmax codes")}


def gap(networks_of_one_kind):
    """Gaps at the rounded mean effective rank."""
    r = int(np.clip(round(networks_of_one_kind["rank"].mean()), 2, 9))
    return 1 - networks_of_one_kind[f"margin_{r}"].to_numpy() / best[r]


table = notebook.committed("71_digits").query("training == 'flow'")
rows = [(f"width {w}", L, some["rank"].mean(), *stats.mean_interval(gap(some))) for (w, L), some in table.groupby(["width", "depth"])]
chance = {r: np.quantile(1 - learned.random_margins(10, r, p.random_codes, seed=p.seed).numpy() / best[r], [0.5, 0.05, 0.95]) for r in best}
rows += [("random", np.nan, r, *quantiles) for r, quantiles in chance.items()]
codes = pd.DataFrame(rows, columns=["code", "depth", "rank", "gap", "low", "high"])
figures.store("73_code", codes)
codes[codes["code"] != "random"].round(2)

# %% tags=["figure"]
figures.show(
    "73_code",
    alt="Gap between the one-vs-rest margin of the learned class code and that of the softmax code, against the effective rank. From about 0.15 at "
    "rank 8, two layers, it grows to a quarter (width 128) or a half (width 32) at eight layers and hardly at all at width 512, below the median of random codes, which lies between 0.5 and 0.7 in a grey band.",
)

# %% [markdown]
# Below the median of random codes everywhere, and a softmax code nowhere.
#
# ## Trained on
#
# Is that the last word, or only early? The same starts on fewer images, trained far beyond the usual end; $r$ is that of the last stage, so that one gap is followed.

# %%
grid = {
    "dataset": [p.dataset], "digest": [data.fingerprint(p.dataset)], "n_per_class": [p.n_per_class], "depth": p.depths, "width": [p.width],
    "log_loss_end": p.stages, "max_steps": [20000],
}
further = sweep.run(learned.trained, grid, seeds=range(p.seed, p.seed + p.seeds), cost=lambda depth, log_loss_end, **_: -depth * log_loss_end, **notebook.sweep_options())
late = {L: int(np.clip(round(some["rank"].mean()), 2, 9)) for L, some in further[further["log_loss_end"] == min(p.stages)].groupby("depth")}
further["gap"] = [1 - row[f"margin_{late[row['depth']]}"] / best[late[row["depth"]]] for _, row in further.iterrows()]
means = further.groupby(["depth", "log_loss_end"])["gap"].apply(stats.mean_interval)
columns = pd.DataFrame(means.tolist(), index=means.index, columns=["gap", "low", "high"])
figures.store("73_further", columns.reset_index().rename(columns={"log_loss_end": "log_loss"}))

# %% tags=["figure"]
figures.show(
    "73_further",
    alt="The gap against minus log loss at the end of training, one line a depth, higher the deeper: from 14 to 200 it falls by nearly half at two layers, little at three and five, and at eight hardly.",
)

# %% [markdown]
# *Digits, width 32. Bands: 95% intervals over the starts.* [Drawn by](../../figures/73_further.py)

# %%
gaps = further.pivot_table(index="seed", columns=["log_loss_end", "depth"], values="gap")
fall = gaps[max(p.stages)] - gaps[min(p.stages)]
falls = {f"L = {L}": fall[L] for L in fall}
pd.DataFrame({words: [stats.mean(values)] for words, values in falls.items()}, index=["fall of the gap"])

# %% [markdown]
# At two layers the gap goes on falling, by nearly half. At three and eight the interval of the fall contains zero, at five it begins at 0.002, so that the claim for every depth deviates. If deep networks end in softmax codes at all, they are a very long way off: a shift by a factor $e^{186}$ in the loss has moved
# eight layers by two hundredths.
#
# ## Verdict

# %% tags=["verdict"]
learned_codes = codes[codes["code"] != "random"]
medians = learned_codes["rank"].map(lambda rank: chance[int(np.clip(round(rank), 2, 9))][0])
claims.check("73-better-than-chance", round((learned_codes["high"] / medians).max(), 1))
claims.check("73-softmax-code", round(learned_codes["gap"].min(), 2))
least = {L: round(stats.mean_interval(fall[L])[1], 2) for L in fall}
claims.check("73-gap-falls", min(least.values()))
claims.check("73-gap-falls-two", least.get(2, np.nan))

# %% [markdown]
# ## Where it breaks
#
# *The rank is a choice.* An effective rank of 6.4 is cut to 6, and its seventh direction is left out. Cut at other ranks the gaps differ; that they stay above zero does not.
#
# *The logits are not the features.* Balanced factors are what the flow of a linear network conserves; in a ReLU network the last hidden layer is not $H$. The class code describes the logits, which both share.
#
# ## Try it ([answers](../answers.md#73))
#
# 1. `stages = [-13.8155, -1000.0]`, `depths = [2]`: how much further does the gap fall?
# 2. `width = 128`, `depths = [8]`: do wide networks come nearer when they are trained on?
# 3. `n_per_class = 5`: fewer images constrain less. Is the code then more regular?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
