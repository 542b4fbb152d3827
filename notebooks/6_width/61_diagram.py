# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Width raises the rank at which training ends; depth lowers it while the network is too narrow for collapse
#
# **Question.** Start a deep linear network of hidden width $d$ at random, not in one of the special ways of the notebooks before, and train it to the end. At which rank does it end, and what have depth and width to do with it?
#
# **Answer.** Width raises the rank at every depth above 2, up to neural collapse where networks wide enough could be run; depth lowers it as long as the network is too narrow for collapse. With four classes 64 hidden units are enough for collapse at every depth up to 8; with ten classes and four layers it takes 256.
#
# Before: [59, which code wins](../5_dynamics/59_which_code_wins.ipynb). After: [62, why a wide network is lazy](62_lazy.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/6_width/61_diagram.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/6_width/61_diagram.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("61_diagram")

# %% [markdown]
# *Each cell: the mean rank of the certified ends of 32 random networks (16 where they are dear). Below and to the right of the red line at least half of the networks end in neural collapse. [Drawn by](../../figures/61_diagram.py)*
#
# ## Statement
#
# *Let the entries of the factors be independent, $W_l \sim N(0, \sigma^2/\text{fan-in})$ with $\sigma = 1$, and let gradient flow run to zero loss. Then, for $K = 4$ and 10 classes and depths $L = 3, \dots, 8$,*
#
# 1. *the mean rank at which training ends rises with the hidden width $d$;*
# 2. *it falls with the depth $L$ where the width is too small for collapse.*
#
# Both are measured. At $L = 2$ there is nothing to measure: the margin problem is convex, neural collapse is its only solution ([27](../2_margin/27_three_classes.ipynb)), and random starts find it ([21](../2_margin/21_where_the_flow_ends.ipynb)). For $L \ge 3$ solutions of several ranks are stationary, and which one is reached is a matter of the start. What speaks for the two statements: small balanced networks amplify differences between singular values, the more the deeper they are ([52](../5_dynamics/52_repulsion.ipynb)); a wide random network is not balanced, and behaves like a linear model until late ([62](62_lazy.ipynb)).
#
# **How an end is read.** A network is followed to the loss $e^{-1000}$ and from there, at constant sharpness, to the limit of its direction; `dufm.end` names the certified solution that the limit has reached ([21](../2_margin/21_where_the_flow_ends.ipynb)). The rank of the network is the rank of that solution. Where nothing near is certified the network is *undecided*: it has no rank, but it remains in the denominator of every share, and counts against a change of the mean rank as far as it can (below).

# %% tags=["parameters"]
classes: list[int] = [4, 10]  # numbers of classes K [3, 32]
depths: list[int] = [2, 3, 4, 5, 6, 7, 8]  # depths L [2, 16]
every: int = 8  # every n-th cell is computed here, the others are read from the table [1, 1000]
scale: float = 1.0  # initial scale σ [0.1, 2]
networks: int = 32  # random networks a cell, half as many in dear cells [4, 4096]
sharpness: float = 1000.0  # the limit is taken at this minus log loss [100, 100000]
check_depth: int = 4  # depth of the cells whose ends are found a second time [2, 16]
seed: int = 0  # first seed; network i of a cell has seed + i [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import math

import pandas
import torch

import dufm
from dufm import claims, notebook, stats, sweep, width

p = notebook.start("61_diagram", globals())
CELL = ["num_classes", "depth", "width", "scale", "sharpness"]

# %% [markdown]
# ## Two networks
#
# Five layers, four classes, the same seed; one hidden layer of 4 units, one of 64.

# %%
for d in (4, 64):
    start = dufm.gaussian_init(5, d, 4, scale=p.scale, seed=p.seed)
    run = dufm.gradient_flow(start, until_log_loss=-p.sharpness, rtol=1e-3)
    found = dufm.end(dufm.limit(run, sharpness=p.sharpness), 5)
    values = ", ".join(f"{value:.4f}" for value in torch.linalg.svdvals(found.Z[0]))
    print(f"d = {d:2d}: {found.name[0]}, rank {int(found.rank[0])}, singular values {values}")

# %% [markdown]
# ## All of them
#
# The columns are powers of two up to 256, up to 64 at depths above 4, where wider networks take too long. All cells together cost five minutes of processor time. They were computed once, by `dufm reproduce 61 -p every=1`, and stand in [61_diagram.csv](61_diagram.csv); every eighth is computed again here, and where its networks end at different ranks it is compared with the table, counts and ranks.


# %%
def ladder(K, L):
    return [K, *(2**i for i in range(2, 9) if K < 2**i <= (256 if L <= 4 else 64))]


def compute(cells, count):
    return sweep.run(width.ends, cells, seeds=range(p.seed, p.seed + count), **notebook.sweep_options())


wanted = pandas.DataFrame([(K, L, d, p.scale, p.sharpness) for K in p.classes for L in p.depths for d in ladder(K, L)], columns=CELL)
wanted["networks"] = p.networks // (1 + ((wanted.num_classes > 8) | (wanted.width > 64)))
runs = pandas.concat([compute(group[CELL].to_dict("records"), count) for count, group in wanted[:: p.every].groupby("networks")])
here = width.by_cell(runs, CELL).merge(runs[runs["rank"] > 0].groupby(CELL)["rank"].agg(lowest="min", highest="max").reset_index()).assign(seed=p.seed)

# %%
KEYS = [*CELL, "networks", "seed"]
table = notebook.committed("61_diagram").astype({"scale": float}).merge(wanted.assign(seed=p.seed)[KEYS])
cells = pandas.concat([here, table]).drop_duplicates(KEYS).sort_values(CELL, ignore_index=True)
differ = width.differing(here[here.sd_rank > 0], table, KEYS)
figures.store("61_diagram", cells)
print(f"{len(here)} of {len(cells)} cells computed here; of {len(differ)} of mixed rank that are in the table too, {int(differ.sum())} differ")

# %% tags=["figure"]
figures.show(
    "61_diagram",
    alt="Depth against hidden width, one panel for four and one for ten classes. The mean rank of the certified ends stands in each cell and is "
    "its colour. In every row above depth 2 it grows to the right, in narrow networks it falls upwards; a red line bounds the cells in which at least half "
    "of the networks end in neural collapse: with four classes it runs from width 4 at depth 3 to width 32 at depth 8, with ten classes from 64 to 128 up to depth 4, and beyond no cell collapses.",
)

# %% [markdown]
# The shares of networks that end in collapse, of all networks of a cell, with 95% intervals:

# %%
cells["share"] = [stats.share(k, n) for k, n in zip(cells.collapse, cells.networks, strict=True)]
cells.pivot(index=["num_classes", "depth"], columns="width", values="share").fillna("")

# %% [markdown]
# The commonest end of each cell. At $K = 4$ the only alternative to collapse (NC) is the orthoplex, here a square. With ten classes there are several: antipodal pairs and single classes, of which the orthoplex has pairs alone; the Petersen graph; and others without a name.

# %%
cells.pivot(index=["num_classes", "depth"], columns="width", values="commonest").fillna("")

# %% [markdown]
# ## Rows and columns
#
# Does the rank rise along every row, and fall along every column? The difference of the mean ranks at the two ends of each, with Welch's 95% interval. A cell in which all networks have one rank is given the error of a cell in which one network is a rank off. *Undecided networks count against the statement*: each is given, of the ranks that any network of its row or column ended at, the one that makes the change least.

# %%
def changes(groups, along, sign):
    """Change of the mean rank from the first to the last cell of each group, the undecided at the ranks that oppose ``sign``."""
    rows = []
    for name, group in groups:
        against = (group.highest.max(), group.lowest.min())[::sign]
        pair = [width.completed(cell, rank) for cell, rank in zip(group.sort_values(along).iloc[[0, -1]].itertuples(), against, strict=True)]
        rows.append((*name, *width.rank_change(*pair), *(cell.collapse / cell.networks for cell in pair)))
    return rows


NAMES = ["change", "low", "high", "collapse first", "collapse last"]
rows = pandas.DataFrame(changes(cells[cells.depth > 2].groupby(["num_classes", "depth"]), "width", 1), columns=["num_classes", "depth", *NAMES])
rows.round(2)

# %%
columns = pandas.DataFrame(changes(cells.groupby(["num_classes", "width"]), "depth", -1), columns=["num_classes", "width", *NAMES])
columns.round(2)

# %% [markdown]
# Width raises the rank in every row. Depth lowers it in every column in which fewer than half of the deepest networks collapse, and need not elsewhere: where all networks collapse, nothing is left to lower.
#
# ## Is the end a matter of how it was found?
#
# Two cells once more, with ten times the sharpness at which the limit is taken, and with a tenth of the step tolerance on the way to it.

# %%
moved = {"sharpness": 0, "tolerance": 0}
check = wanted[(wanted.depth == p.check_depth) & (wanted.width == [ladder(K, 2)[1] for K in wanted.num_classes])]
for cell in check.to_dict("records"):
    count = cell.pop("networks")
    plain, *others = (compute([{**cell, **changed}], count) for changed in ({}, {"sharpness": 10 * p.sharpness}, {"rtol": 1e-4}))
    for way, other in zip(moved, others, strict=True):
        moved[way] += int(((plain["name"] != other["name"]) | (plain["rank"] != other["rank"])).sum())
print(f"of {check.networks.sum()} networks end elsewhere: sharpness x 10: {moved['sharpness']}, tolerance / 10: {moved['tolerance']}")

# %% [markdown]
# The sharpness does not matter. Finer steps lead one network elsewhere: near the border of two basins the error of a step decides. That is far less than the intervals of the shares allow for.
#
# ## Verdict

# %% tags=["verdict"]
claims.check("61-width-rank", (rows.low <= 0).sum())
claims.check("61-depth-rank", (columns.high >= 0).sum())
claims.check("61-depth-narrow", ((columns.high >= 0) & (columns["collapse last"] < 0.5)).sum())
claims.check("61-sharpness", moved["sharpness"])
claims.check("61-computed-again", differ.sum() if len(differ) else math.nan)

# %% [markdown]
# ## Where it breaks
#
# *Ten classes and five or more layers.* No network of width 64 collapses, and wider ones were not computed: that they do in the end is expected from [63](63_half_width.ipynb), where the width at which half of the networks collapse is measured, and has not been seen.
#
# *Undecided networks.* There are 18. All have ten classes and four or more layers: most still turn where the margin has grown by a factor $e^{300}$, some rest near nothing that certifies. The tables above count them against the statement; that they might have ranks which no network of their row or column has shown is not excluded.
#
# ## Try it ([answers](../answers.md#61))
#
# 1. `classes = [4]`, `scale = 0.5`, `every = 1`: how far does the red line move to the right?
# 2. `classes = [3]`, `every = 1`: what is left of the diagram?
# 3. `sharpness = 100.0`: do any ends change?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
