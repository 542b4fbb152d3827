# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One ReLU cuts the network in two: low rank is paid for below it and above it apart
#
# **Question.** The layers of the model are linear. Put *one* ReLU between two of its factors: does depth still favour low rank, does the place matter, and where do networks end?
#
# **Answer.** Yes, on either side of the ReLU by the layers of that side. Measured at four to six classes: at the first place logits lose rank about as often as without one, or as with one layer less. The later the place, the higher their rank: directly below the classifier nearly all networks end at full rank, most in collapse over orthogonal features. But then the low rank sits *below* the ReLU: from the third place on most matrices that it is applied to have lost rank, and it makes them full again.
#
# Before: [86, label noise](86_label_noise.ipynb). After: [91, your own network](../9_tools/91_your_own_network.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/8_assumptions/87_relu_between.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/8_assumptions/87_relu_between.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("87_relu_between")

# %% [markdown]
# *Mean rank at the ends of random networks against the place of the ReLU, width 16, scale 1, with 95% intervals: of the centred logits (above) and of what the ReLU is applied to (below); undecided networks, at most 9 of 64, are left out here. Dashed: the linear model of the same depth, from the same starts; $K-1$ is the rank of collapse.*
# [Drawn by](../../figures/87_relu_between.py)
#
# ## Statement
#
# $Z = BA$, $A = \operatorname{relu}(M)$, $M = W_l\cdots W_1$ ($d\times K$), $B = W_L\cdots W_{l+1}$, with the ReLU at place $l\in\{1, \dots, L-1\}$ and $d\ge2K$. The network is locally Lipschitz, definable and homogeneous of degree $L$ in its factors, so that the flow, once $\mathcal L<\log2$, converges in direction to KKT points, in Clarke's sense, of $\min\sum\|W_k\|_F^2$ at margins $\ge1$ (Lyu & Li 2020, Ji & Telgarsky 2020). Write $\|\cdot\|_{(m)}$ for the Schatten quasi-norm of index $2/m$.
#
# 1. *Factors of $M$ and $B$ cost at least $L\,(\|M\|_{(l)}\|B\|_{(L-l)})^{2/L}$, and as little for some.*
# 2. *The first place.* *For logits whose classes fall into groups of $k$ with $\sum_{c\in g}z_c = 0$ in each, a ReLU at $l = 1$ lowers the best margin at least by the factor $\sqrt{1 - 1/k}$. For collapse ($k = K$) it is just that, and it is $1/\sqrt2$ for antipodal pairs ($k = 2$), the most that any logits lose. Hence the orthoplex has $\frac12(2 - 2/K)^{(L-1)/2}$ times the margin of collapse: the ratio of the linear model with one layer less.*
# 3. *Frames.* *Let $A = I$ in $K$ units. The factors above the ReLU then satisfy exactly the KKT conditions of the linear model of depth $L - l$ with logits $B$. At $L - l = 1$ only collapse does; at $L - l = 2$ it alone is minimal.*
# 4. *Below collapse.* *Let $l\ge2$, $A = I$, $B = C = I - J/K$, and $M$ the sum of $K/k$ orthogonal simplices $\frac k{k-1}(I - J/k)$, $k$ any divisor of $K$ ($k = 1$: $M = I$). This is a KKT point at every $L$, of rank $K(k-1)/k$ below ($K$ for $k = 1$) and $K - 1$ above. Among these $k$ the margin does not depend on $k$ at $l = 2$; from $l = 3$ on the smallest $k\ge2$ has the largest: for even $K$ pairs, with $\frac12(2 - 2/K)^{l/2}$ times the margin of collapse in the linear model.*
#
# **Proof.**
# 1. Each chain is linear: $\sum_{k\le l}\|W_k\|^2\ge l\,\|M\|_{(l)}^{2/l}$, with equality for balanced factors ([12](../1_model/12_balance.ipynb)), and likewise above. $la + (L-l)b\ge L\,a^{l/L}b^{(L-l)/L}$, with equality at $a = b$, which the change $M\to tM$, $B\to B/t$ of the same $Z$ attains.
# 2. Centring $B$ changes no margin and raises no singular value, so let the columns of $B$ be centred, $BA = Z$, and let $P$ project onto the row space of $B$. For a group, $B\sum_ga_c = \sum_gz_c = 0$, so $P\sum_ga_c = 0$ and
#    $$\sum_g\|(I-P)a_c\|^2\ge\tfrac1k\Bigl\|(I-P)\sum_ga_c\Bigr\|^2 = \tfrac1k\Bigl\|\sum_ga_c\Bigr\|^2\ge\tfrac1k\sum_g\|a_c\|^2,$$
#    as no inner product of nonnegative columns is negative. Hence $\|PA\|_F^2\le(1-\frac1k)\|A\|_F^2\le(1-\frac1k)\|M\|_F^2$, and Hölder's inequality for $Z = B\,(PA)$ gives $\|Z\|_{(L)}\le\|B\|_{(L-1)}\|PA\|_F$. Collapse: $A = I$, $B = C$ costs $\sqrt K(K-1)^{(L-1)/2}$, against $(K-1)^{L/2}$ without a ReLU. Any $Z = BY$ with balanced chains: $A = (Y_+; Y_-)$ and $(B, -B)$ give the same logits at $\|A\|_F = \|Y\|_F$ and $\sqrt2\,\|B\|_{(L-1)}$. The ratio is that of [25](../2_margin/25_collapse_is_beaten.ipynb), $\frac12(2 - \frac2K)^{L/2}$, times $\sqrt{K/(2K-2)}$.
# 3. The slope of $\sum\lambda_{jc}(z_{cc} - z_{jc})$ in $B$ is $\Lambda A^\top = \Lambda$, as in the linear model with orthonormal inputs. At $L - l = 1$ it is the only critical point of a strictly convex problem, $\|B\|_F$ at margins 1, which permutations of the classes keep: a multiple of $C$. At 2 the cost is the nuclear norm, least at $C$ ([27](../2_margin/27_three_classes.ipynb)).
# 4. Above, $\Lambda = \kappa C$ does it, for $C$ has all its values equal. Its slope in $A$ is $B^\top\Lambda = \kappa C$; in $M$ only the diagonal passes, $\frac{K-1}K\kappa I$, since $m_{jc}\le0$ for $j\ne c$ and at a kink none may pass. So the chain below needs $\kappa'V = U\Sigma^{2/l-1}$ on the range of $M$: true with equal values and $U = V$. Both chains have the same $\sum\lambda$ once all factors have one norm, so the same $\kappa$. With $x = 1 - 1/k$, $\|M\|_{(l)} = x^{-1}(Kx)^{l/2}$, for $k\ge2$; $k = 1$ costs as $K^{l/2}$, as $x = 1$ would. Its exponent in $x$ is $l/2 - 1$, so from $l = 3$ on the least $x$ costs least, and $x\ge\frac12$. $\square$

# %% tags=["parameters"]
classes: list[int] = [3, 4, 5, 6, 7, 8]  # numbers of classes K at which frames are certified [3, 16]
depths: list[int] = [3, 4, 5, 6]  # their depths L [3, 12]
every: int = 17  # every n-th cell of the table is computed here [1, 1000]
networks: int = 64  # random networks a cell [2, 4096]
few: int = 16  # networks whose margin is compared with the price of the first place [2, 4096]
priced: list[int] = [4, 6]  # their depths [3, 12]
seed: int = 1000  # first of their seeds [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import pandas
import torch

import dufm
from dufm import claims, codes, notebook, rectified, stats, sweep, width

p = notebook.start("87_relu_between", globals())

# %% [markdown]
# ## One network
#
# Four classes, four layers, the ReLU directly below the classifier. What the ReLU is applied to, what it lets pass and the logits, each scaled to its largest value; singular values of all three.

# %%
start = width.random_start("gaussian", 4, 16, 4, seeds=[p.seed])
factors, turning = rectified.descend(start, 3)
M, A, B = (X[0] for X in rectified.layers(factors, 3))
for name, X in (("below the ReLU", M), ("above it", A), ("centred logits", (B - B.mean(0)) @ A)):
    sigma = torch.linalg.svdvals(X)
    print(f"{name:15s} singular values over the first: {(sigma / sigma[0]).round(decimals=2).tolist()}")

# %% [markdown]
# ## Which frames are critical
#
# Factors of every sum of equal simplices below the ReLU and collapse above it, and for comparison the orthoplex above it; a certificate over all factors by non-negative least squares, which knows neither of chains nor of frames.

# %%
cells = [(K, L, l, k) for K in p.classes for L in p.depths for l in range(2, L) for k in range(1, K + 1) if K % k == 0]
frames = pandas.DataFrame(cells, columns=["K", "L", "place", "size"])
collapse = {K: codes.pairs_and_singles(K, 0) for K in p.classes}
frames["residual"] = [rectified.residual(rectified.network(rectified.sums_of_simplices(K, k), collapse[K], l, L), l) for K, L, l, k in cells]
frames["ratio"] = [float(rectified.place_margin(rectified.sums_of_simplices(K, k), collapse[K], l, L)) / dufm.closed_form_margin("nc", K, L) for K, L, l, k in cells]
print(f"{len(frames)} frames, largest residual {stats.below(frames.residual.max(), 1e-12)}")
frames[(frames.K == 6) & (frames.L == max(p.depths))].pivot(index="place", columns="size", values="ratio").round(4)

# %% [markdown]
# Margins at six classes, over that of collapse in the linear model: columns are the sizes of the simplices below the ReLU.
#
# ## Where networks end
#
# Flow is not to be had here: where a unit is pushed onto its kink from both sides the path slides along it, and steps that control their error come to a stop. So the networks descend with steps of a fixed small share of their norm, at constant sharpness 100 until the margin has grown by $e^{60}$, then at 1000. *Undecided*: the direction still turns, a singular value lies between what is kept and what is dropped, or the classes are not separated. All cells were computed once, by `dufm reproduce 87 -p every=1`, and stand in [87_places.csv](87_places.csv); the claims about them were written down before, after a look at other seeds.

# %%
known = notebook.committed("87_places")
grid = known[rectified.CELL].to_dict("records")[p.every // 2 :: p.every]
runs = sweep.run(rectified.ends, grid, seeds=range(p.seed, p.seed + p.networks), **notebook.sweep_options())
here = rectified.by_place(runs)
both = here.merge(known, on=[*rectified.CELL, "networks"], suffixes=("", "_known"))
counts = ["full", "collapsed", "frame", "less", "undecided"]
differ = sum(both[name] != both[f"{name}_known"] for name in counts) > 0
print(f"{len(here)} of {len(known)} cells computed here, {int(differ.sum())} of {len(both)} differ from the table")
table = pandas.concat([here, known[~known.set_index(rectified.CELL).index.isin(here.set_index(rectified.CELL).index)]]).sort_values(rectified.CELL, ignore_index=True)
figures.store("87_relu_between", table[[*rectified.CELL, "networks", "full", "rank", "rank_error", "below", "below_error"]])

# %% tags=["figure"]
figures.show("87_relu_between", alt="Mean rank against the place of the ReLU, a column each for four, five and six classes. Above, logits: at place 1 near the dashed line of the linear model, rising to full rank at the last place, at greater depths later. Below, what the ReLU is applied to: full rank at place 1, at place 2 too but for five and six classes in the deepest networks, low from place 3 on at every depth.")

# %% [markdown]
# Networks of all whose logits end at full rank, $K - 1$, by the place of the ReLU; 0: the linear model.

# %%
table["text"] = [stats.share(n, m) for n, m in zip(table.full, table.networks, strict=True)]
table.pivot(index=["num_classes", "depth"], columns="place", values="text").fillna("")

# %% [markdown]
# *The first place* changes little: 391 of 768 end at full rank, against 383 without a ReLU. The one clear change is that at six classes and three layers, from 50 of 64 to 63, and statement 2 has it: the orthoplex has 1.08 of the margin of collapse without a ReLU there, and 0.83 with it, as at two layers. *Few layers above*: with one layer 761 of 768 end at full rank. With two it was expected of nearly all as well, and is not so: at six classes and six layers only 34 of 64 do, and there the features are no frame. *Below*: the fall of the rank between the second place and the third is that of statement 4, at every depth. How many have rank $K - 2$ or less there, of all with the ReLU at that place or later:

# %%
below = table[table.place > 0].groupby(["num_classes", "place"])[["less", "networks"]].sum()
below["share"] = [stats.share(n, m) for n, m in zip(below.less, below.networks, strict=True)]
below.share.unstack().fillna("")

# %% [markdown]
# *Is descent the flow?* Without a ReLU both are to be had: ends of the same starts by `dufm.end`, certified, beside those of descent.

# %%
few = {"num_classes": [4], "depth": p.priced, "width": [16], "scale": [1.0]}
flow, descent = (sweep.run(task, few | more, seeds=range(p.seed, p.seed + p.few), **notebook.sweep_options()) for task, more in ((width.ends, {}), (rectified.ends, {"place": [0, 1]})))
linear = descent[descent.place == 0]
print(f"{int((flow['rank'].to_numpy() != linear['rank'].to_numpy()).sum())} of {len(flow)} end at another rank")

# %% [markdown]
# ## The price of the first place
#
# Four classes, the ReLU at the first place: margins at the ends over collapse's in the linear model, beside statement 2, by the rank of the logits.

# %%
first = descent[(descent.place == 1) & (descent["rank"] > 0)]
square = [dufm.closed_form_margin("orthoplex", 4, L) / dufm.closed_form_margin("nc", 4, L) / 2**0.5 for L in first.depth]
first = first.assign(price=[(3 / 4) ** 0.5 if r == 3 else ratio for r, ratio in zip(first["rank"], square, strict=True)])
first.groupby(["depth", "rank"]).agg(networks=("seed", "size"), least=("margin_ratio", "min"), most=("margin_ratio", "max"), price=("price", "mean")).round(3)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
last = table[table.place == table.depth - 1]
deep, two = last[last.depth >= 4], table[(table.place > 0) & (table.depth - table.place <= 2)]
claims.check("87-last-collapses", stats.wilson(last.frame.sum(), last.networks.sum())[0])
claims.check("87-low-below", stats.wilson(deep.less.sum(), deep.networks.sum())[0])
claims.check("87-few-above", stats.wilson((two.networks - two.full).sum(), two.networks.sum())[1])
claims.check("87-first-price", (first.margin_ratio / first.price - 1).abs().max())
claims.check("87-frames", frames.residual.max())

# %% [markdown]
# ## Where it breaks
#
# *Features that are no frame.* Statement 3 is about $A = I$. At $K = 4$, $L = 6$ and the second place, ends of rank 2 have features $e_c + e_{c+1}$ around a cycle; their margin, $27/(8\sqrt2(1+\sqrt2)) = 0.989$ of the linear model's collapse, is far above collapse's 0.75 there. And no frame can lie over an $M$ of rank 2 if $K\ge5$: where a unit's half plane holds its own class alone, the two angles beside that class make 180° or more, and a plane has room for four. Of the networks at $K = 5$ and 6 with six layers some go to rank 2 all the same: with features at 56° to 60° instead of 90°, and larger margins. At $K = 6$, $L = 6$ only 37 of 64 end in collapse over a frame at the last place. Over rank 3 at most a frame exists for every $K$: $m_{jc} = (\cos\frac{2\pi(j-c)}K - \cos\frac{2\pi}K)\,/\,(1 - \cos\frac{2\pi}K)$.
#
# *Rest.* What is judged to rest is the direction of the logits. Where three layers or more lie below the ReLU, the residual of nine tenths of the networks is up to 0.17, against 0.03 at the first place and $3\cdot10^{-4}$ without a ReLU: units swing about their kinks, and some matrices below still lose rank. *One width, one scale*; the factor below the ReLU starts larger by $\sqrt2$, as [74](../7_networks/74_limits.ipynb) explains. A unit that is off for a class at the first place is off for ever, and a class without a live unit, or two with the same single one, are never told apart from all others: such networks count as undecided.
#
# ## Try it ([answers](../answers.md#87))
#
# 1. Show that not all classes can be right if $M$ has rank 1 and $K\ge3$.
# 2. `rectified.ends(range(16), 6, 6, 64, 4)`: does width bring the frames back?
# 3. For which even $K$ does the $M$ of rank 3 above beat the orthoplex below the ReLU, and from which $l$ on? (`rectified.place_margin`)

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
