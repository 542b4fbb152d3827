# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The width that collapse needs grows with depth, with the number of classes and as the scale shrinks, and follows no power law
#
# **Question.** How wide must a random network be for half of the networks to end in neural collapse?
#
# **Answer.** This *half-width* $d_{1/2}$ grows about like a power of $1/\sigma$ that is higher the deeper the network, and somewhat slower than the number $K(K-3)/2$ of directions that depth amplifies most. The power law that a scaling argument suggests is refuted: fitted where half-widths are small it is short by a factor of 1.7 where they are large. We offer no formula.
#
# Before: [62, why a wide network is lazy](62_lazy.ipynb). After: [64, balance undoes width](64_balance_undoes_width.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/6_width/63_half_width.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/6_width/63_half_width.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("63_half_width")

# %% [markdown]
# *Left: half-widths of four classes with 95% intervals against the initial scale. Dashed: power laws through the filled marks. Right: measured half-width over that of the formula where it was not fitted; 1 would be agreement. [Drawn by](../../figures/63_half_width.py)*
#
# ## Statement (a hypothesis)
#
# *$d_{1/2} = a_L\,\frac{K(K-3)}4\,\sigma^{-e_L}$ with $e_L = L - 2$ for $L = 3, 4$ and $e_L = L(L-3)/(L-2)$ for $L\ge5$.*
#
# **Scaling argument.**
# 1. While the network is lazy, $Z$ deviates from $sC$, $C = I - J/K$, by a share $\delta\sim\sqrt{K/d}$: the layers around a given one act on it not quite isotropically ([62](62_lazy.ipynb)).
# 2. The features are larger than balance wants until $s_\text{bal} = \sigma^L(d/K)^{L/2}$. Until then they do not move, and the other $L-1$ layers act like a network of depth $L-1$: $\delta$ grows like $s^{(L-3)/(L-1)}$.
# 3. Beyond $s_\text{bal}$ it grows like $s^{1-2/L}$, up to the turning point $s^* = K(1-2/L)$ ([52](../5_dynamics/52_repulsion.ipynb)), and shrinks after. Collapse is safe if $\delta$ stays small.
# 4. If $s_\text{bal} < s^*$ the powers combine to $\delta\sim(K/d)\,\sigma^{-(L-2)}$ at every depth, so $d_{1/2}\propto\sigma^{-(L-2)}$. Otherwise step 2 lasts to the turning point and $d_{1/2}\propto\sigma^{-L(L-3)/(L-2)}$. At the scales here the first applies to $L = 3$ and 4, the second to $L = 5$.
# 5. Depth amplifies $K(K-3)/2$ directions like the singular values ([54](../5_dynamics/54_four_families.ipynb); class imbalance less), none of this kind at $K = 3$, where neural collapse is the best solution at every depth ([27](../2_margin/27_three_classes.ipynb)). The half-width might follow that number.
#
# **How it is measured.** At fixed depth, scale and number of classes, a ladder of widths a factor of two apart, and the certified end of every network as in [61](61_diagram.ipynb). A logistic curve in $\log d$ is fitted to the counts by maximum likelihood, half a hit and half a miss added to each; $d_{1/2}$ is its centre, given only where the counts bracket one half, with a 95% interval from the Fisher information. The logistic form is a convenience: over all ladders no share lies further than 0.09 from its curve, which is within the noise of 64 networks. Undecided networks count as not collapsed.

# %% tags=["parameters"]
depths: list[int] = [3, 4, 5]  # depths L of the ladders, 3 among them [3, 5]
every: int = 9  # every n-th cell is computed here, the others are read from the table [1, 1000]
largest: int = 256  # largest hidden width of a ladder [16, 256]
networks: int = 64  # random networks a cell, fewer in dear cells [8, 4096]
seed: int = 0  # first seed; network i of a cell has seed + i [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas

from dufm import claims, notebook, stats, sweep, width
from dufm.companion import files

p = notebook.start("63_half_width", globals())

# %% [markdown]
# ## The ladders
#
# Those up to 64 are cheap; the small scales and the many classes need wider networks. Then the same with orthogonal starts, and a scale that shrinks with the width, for below. All cells were computed once, by `dufm reproduce 63 -p every=1`, and stand in [63_shares.csv](63_shares.csv); every ninth is computed here again and, where its networks end at different ranks, compared.


# %%
def rungs(K, lowest=1, highest=64):
    return [K] * (K >= lowest) + [2**i for i in range(2, 9) if max(K + 1, lowest) <= 2**i <= highest]


cheap = [(4, L, s) for L, scales in ((3, (0.8, 0.4, 0.2, 0.1)), (4, (1.0, 0.7, 0.5, 0.35)), (5, (1.0, 0.8, 0.65))) for s in scales]
cheap += [(5, 3, 0.4), (6, 3, 0.8), (8, 3, 0.8), (5, 4, 0.8), (6, 4, 1.0)]
dear = {(4, 3, 0.05): (32, 128), (4, 4, 0.25): (32, 128), (4, 5, 0.5): (16, 128), (6, 3, 0.2): (32, 128), (4, 3, 0.025): (64, 256)}
dear |= {case: (64, 256) for case in ((4, 4, 0.18), (8, 3, 0.2), (8, 4, 0.7), (10, 3, 0.4), (10, 4, 1.0))}
plan = [(*case, d, "gaussian") for case in cheap for d in rungs(case[0])]
plan += [(*case, d, "gaussian") for case, ends in dear.items() for d in rungs(case[0], *ends)]
plan += [(4, L, s, d, "orthogonal") for L, s in ((3, 0.2), (4, 0.5)) for d in rungs(4)]
shrinking = [(4, L, round(s * (8 / d) ** (1 / width.scaling_exponent(L)), 6), d, "gaussian") for L, s in ((3, 0.4), (4, 0.7)) for d in (8, 16, 32, 64)]

# %%
CELL = ["num_classes", "depth", "scale", "width", "init"]
KEYS = [*CELL, "networks", "seed"]
wanted = pandas.DataFrame(sorted(plan), columns=CELL)
slow = (wanted.num_classes > 8) | (wanted.width > 64)
wanted["networks"] = np.where(slow, p.networks // np.where(wanted.num_classes <= 4, 2, 4), p.networks)
wanted = pandas.concat([wanted, pandas.DataFrame(shrinking, columns=CELL).assign(networks=8 * p.networks)]).query("width <= @p.largest and depth in @p.depths").assign(seed=p.seed)
parts = []
for count, group in wanted[:: p.every].groupby("networks"):
    runs = sweep.run(width.ends, group[CELL].to_dict("records"), seeds=range(p.seed, p.seed + count), **notebook.sweep_options())
    parts.append(width.by_cell(runs, CELL))
here = pandas.concat(parts, ignore_index=True).assign(seed=p.seed)
table = notebook.committed("63_shares").merge(wanted[KEYS])
cells = pandas.concat([here, table]).drop_duplicates(KEYS).sort_values(KEYS, ignore_index=True)
files.write_atomic(files.out_dir() / "63_shares.csv", cells.to_csv(index=False, float_format="%.8g"))
differ = width.differing(here[here.sd_rank > 0], table, KEYS)
print(f"{len(here)} of {len(cells)} cells computed here; of {len(differ)} of mixed rank that are in the table too, {int(differ.sum())} differ")
shrunk, cells = cells[cells.networks > p.networks].copy(), cells[cells.networks <= p.networks]
figures.store("63_shares", cells)

# %% [markdown]
# ## One ladder
#
# Four classes, three layers, scale 0.4: the share of collapse rises from nearly none to all over a factor of eight in width. Beside the counts, with their intervals, the curve that is fitted to them:

# %%
ladder = cells[(cells.num_classes == 4) & (cells.depth == 3) & (cells.scale == 0.4)]
fit = width.half_width(ladder.width, ladder.collapse, ladder.networks)
for row in ladder.itertuples():
    curve = 1 / (1 + (row.width / fit.interval[0]) ** -fit.slope)
    print(f"d = {row.width:2d}: {stats.share(row.collapse, row.networks)}, logistic curve {curve:.2f}")
print("half-width {:.1f} [{:.1f}, {:.1f}]".format(*fit.interval))

# %% [markdown]
# ## All ladders
#
# The power laws are fitted at $K = 4$, on the ladders that end at 64 (and once more where the half-width is above 16). The formula is then tested where it was not fitted: on the longer ladders, and at other numbers of classes.

# %% tags=["figure"]
figures.show(
    "63_shares",
    alt="Share of collapse against hidden width, panels for depths 3, 4 and 5, a line for each scale: the share rises with the width, over a factor of four to sixteen of it and as far as 0.78 to 1 at the widest, the smaller the scale the later.",
)

# %% [markdown]
# *Four classes, Gaussian starts; bars: 95%. [Drawn by](../../figures/63_shares.py)*

# %%
LADDER = ["num_classes", "depth", "scale", "init"]
found = pandas.DataFrame(width.half_widths(cells, LADDER))
print(f"{len(found)} ladders; the largest distance of a share from its curve is {found.misfit.max():.2f}")
gaussian = found[(found.init == "gaussian") & found.half_width.notna()]
exponents = []
for L, rows in gaussian[gaussian.num_classes == 4].groupby("depth"):
    for which, chosen in (("ladders up to 64", rows[rows.widest <= 64]), ("half-widths above 16", rows[rows.half_width > 16])):
        exponents.append((L, which, width.scaling_exponent(L), *width.power_law(chosen.scale, chosen.log_width, chosen.error)))
exponents = pandas.DataFrame(exponents, columns=["depth", "fitted on", "candidate", "exponent", "interval", "log a"])
exponents.round(2)

# %% [markdown]
# *interval* is half of the 95% interval of the exponent. The two fits of a depth differ by more than their intervals at $L = 3$ and 4: a first sign that the law is no power.
#
# With the fits on the ladders up to 64 the formula predicts $\log d_{1/2} = \log a_L - e_L\log\sigma + \log\frac{K(K-3)}4$. In the table below *ratio* is the measured half-width over that. The last column needs no fit: it is the half-width over that of four classes at the same scale and depth, and over $K(K-3)/4$ (NaN where four classes were not measured).

# %%
drawn = gaussian.merge(exponents[exponents["fitted on"] == "ladders up to 64"]).assign(modes=lambda rows: rows.num_classes * (rows.num_classes - 3) / 4)
drawn["predicted"] = np.exp(drawn["log a"] - drawn.exponent * np.log(drawn.scale)) * drawn.modes
drawn["ratio"] = drawn.half_width / drawn.predicted
drawn = drawn.merge(drawn[drawn.num_classes == 4][["depth", "scale", "half_width"]], on=["depth", "scale"], how="left", suffixes=("", "_four"))
drawn["same_scale"] = (drawn.half_width / drawn.half_width_four / drawn.modes).where(drawn.num_classes > 4)
drawn["fitted"] = np.where((drawn.widest <= 64) & (drawn.num_classes == 4), "fitted", "not fitted")
names = ["num_classes", "depth", "scale", "fitted", "half_width", "low", "high", "predicted", "ratio", "same_scale"]
figures.store("63_half_width", drawn[names])
drawn[names].round(3)

# %% tags=["figure"]
figures.show(
    "63_half_width",
    alt="Left: half-width against initial scale, steeper the deeper; the smallest scales lie above the dashed power laws. Right: measured over predicted half-width: 1.1 to 1.7 for four classes, 0.65 to nearly 1 for more.",
)

# %% [markdown]
# **No formula is offered.** The half-width is not a power of the scale over the range that one can compute: it steepens as $\sigma$ falls. Where $d_{1/2} > 16$ the exponent at $L = 4$ is the candidate's; at $L = 3$ it is steeper (between $s_\text{lazy}$ and $s_\text{bal}$ the argument has no power there, but room for a logarithm); at $L = 5$ it is less steep, with a wide interval. The number of classes acts more weakly than $K(K-3)$ where half-widths are a few times $K$, and nearly like it where they are above 50: there the last column lies between 0.88 and 1.03. That was seen, not predicted.
#
# ## Orthogonal starts
#
# If it is the deviations of the layers from multiples of the identity that depth amplifies, orthogonal starts, which have none, should need less width. What is left to amplify there is $Z(0)$ alone. They do need less, by a third at $L = 3$ and by a little less than that at $L = 4$; the intervals do not overlap:

# %%
pairs = found.pivot(index=["num_classes", "depth", "scale"], columns="init", values=["half_width", "low", "high"]).dropna(subset=[("half_width", "orthogonal")])
pairs.round(1)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
wide = exponents[exponents["fitted on"] == "half-widths above 16"]
claims.check("63-half-exponents", ((wide.exponent - wide.candidate).abs() / wide.interval).max(skipna=False))
tested = drawn[drawn.fitted == "not fitted"]
claims.check("63-half-classes", np.log(tested.ratio[tested.widest <= 64]).abs().max())
claims.check("63-half-formula", np.log(tested.ratio).abs().max())
claims.check("63-orthogonal", np.log(pairs["low", "gaussian"] / pairs["high", "orthogonal"]).min())
claims.check("63-computed-again", differ.sum() if len(differ) else np.nan)
shrunk["share"] = shrunk.collapse / shrunk.networks
change = {L: stats.unpaired(*rows.sort_values("share")[["collapse", "networks"]].iloc[[-1, 0]].to_numpy().T) for L, rows in shrunk.groupby("depth")}
claims.check("63-scale-takes", max(high for _, high in change.values()))

# %% [markdown]
# ## Where it breaks
#
# *A scale that shrinks with the width.* What width gives, scale takes. Let $\sigma = \sigma_8\,(8/d)^{1/e_L}$: if the exponents of the hypothesis held, the share of collapse would stay where it is at $d = 8$. It does not: the largest and the smallest share of a depth, of eight times as many networks, differ by more than chance.

# %%
shrunk["shown"] = [stats.share(row.collapse, row.networks) for row in shrunk.itertuples()]
print("differ by: " + "; ".join(f"L = {L}, {low:.2f} to {high:.2f}" for L, (low, high) in change.items()))
shrunk.pivot(index="depth", columns="width", values="shown")

# %% [markdown]
# ## Try it ([answers](../answers.md#63))
#
# 1. `every = 1`, `networks = 256`, `largest = 64`: do narrower intervals bring the exponents nearer to the hypothesis?
# 2. `every = 1`, `largest = 32`, `seed = 1000`: how far do the half-widths of other networks lie from these?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
