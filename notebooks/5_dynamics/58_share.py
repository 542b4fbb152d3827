# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The share of starts that collapse: a power of the scale, less steep than counting directions says
#
# **Question.** The basin of neural collapse is a thin neighbourhood of equal values and of the arms of a star. What share of all directions lies in it, and how fast does that share vanish as the start gets smaller?
#
# **Answer.** At four classes like $\frac{4}{3q(2+q)}\bigl(s_0/(2q\log\frac1{s_0})\bigr)^q$, $q = 1 - 2/L$: a theorem, from which the share is still 6 to 9% away at $s_0 = 10^{-30}$, and 0.2% in the limit taken from three such scales. At $K = 2^m$, from counting arms and coincidences and not the $K-2$ free proportions, like $(s_0/\log\frac1{s_0})^{q(K-1-\log_2K)}$: a hypothesis, which at eight classes foretold shares at scales not used to find it.
# Before: [57, how unequal a start may be](57_critical_deviation.ipynb). After: [59, which code wins instead](59_which_code_wins.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/5_dynamics/58_share.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/5_dynamics/58_share.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("58_share")

# %% [markdown]
# *The share of neural collapse against the initial scale. Left: four classes, by quadrature; dashed, the sharper form with $\Lambda$, which is not proved, nothing fitted. Right: eight classes, by sampling, with 95% intervals;
# dashed, a constant times the fourth power of the share at four classes, fitted at $10^{-4}$ and $10^{-6}$ alone. Dotted: the slope that counts all directions, at $L = 3$.* [Drawn by](../../figures/58_share.py)
#
# ## Statement
#
# Directions are uniform on the simplex, with mean $s_0$. *Theorem. At $K = 4$ and every $L\ge3$ the share that ends in neural collapse is*
# $$\text{share} = \frac{4+o(1)}{3q(2+q)}\Bigl(\frac{s_0}{2q\log(1/s_0)}\Bigr)^{q}\qquad\text{as } s_0\to0 .$$
#
# **Proof.** Let $s_1\ge s_2\ge s_3$, an order that the flow keeps; $y_i = s_i^{-q}$, $D = y_2 - y_1$, $u = y_3 - y_2$, $\theta = 2^{-1/q} < 1$, $a = 2(L-2)$, and let $p_i \propto e^{s_i/2}$ be the probability of the wrong class that only character $i$ does not see. $C, c > 0$ depend on $q$ alone.
# 1. *Exact relations.* $\dot y_i = -(L-2)g_i$ (57) with $g_i$ twice the sum of the other two $p$. So $\dot u = -a(p_2-p_3)\le0$, $\dot D = -a(p_1-p_2)\le0$, $V = y_1 - u$ has $\dot V = -2ap_3 < 0$, and
# $$\frac{dy_1}{dy_2} = \frac{p_2+p_3}{p_1+p_3} = \frac{e^{s_2/2}+e^{s_3/2}}{e^{s_1/2}+e^{s_3/2}},\qquad \Bigl|\frac{du}{dy_2}\Bigr| = \frac{p_2-p_3}{p_1+p_3}\le e^{-(s_1-s_2)/2}.$$
# 2. *Too late.* Once $V\le0$ there is no collapse, whatever the scale: the rule of products ([56](56_basin_map.ipynb)).
# 3. *In time.* Let $x = u/y_1\le1-\varepsilon$ and $z = y_2/y_1\le2$ when $s_1 \ge S(\varepsilon)$. By step 1, $x$ falls iff $\tanh\frac{s_2-s_3}4 > x$ and $z$ iff $\frac{p_1-p_2}{p_2+p_3} > z-1$. As $1-(1+\cdot)^{-1/q}$ is concave, $s_2-s_3\ge cs_1x$ and $\frac{p_1-p_2}{p_2+p_3}\ge\frac{s_1-s_2}4\ge cs_1(z-1)$: both hold if $S$ is large, and go on holding as $s_1$ grows, which it does without bound: bounded $s$ would keep the $p_i$ from 0. There $d\log x/d\log y_1$ and $d\log(z-1)/d\log y_1$ stay above a positive constant, so $x\to0$, $z\to1$, all three become equal: collapse.
# 4. *Before $s_1 = 1$.* $s_i - s_j\le s_i^{1+q}(y_j-y_i)/q$ and $\dot s_i = Ls_i^{1+q}g_i$ turn step 1 into $d\log u\ge-\frac{p_3}{p_1+p_3}ds_2\ge-\frac12ds_2$ while $s_2\le1$, and $d\log D\ge-ds_1$ while $s_1\le1$. So $D$ keeps a share $1/e$ of $D_0$, and if $u_0\ge\sqrt e$ then $V\le0$ at $s_1 = 1$: by 2 no collapse, *whatever $D_0$*.
# 5. *The leader meanwhile.* From there to $z = 2$, $D_0$ large ($z > 2$ for ever would mean $e^{(1-\theta)s_1/2}|dy_1|\le2|dy_2|$ and keep $s_1$ bounded). Here $s_2\le\theta s_1$, so $dy_1/dy_2\le2e^{(s_2-s_1)/2}$, and $\int e^{s_1/2}|dy_1|\le CD_0 + 2e^{\theta s_1/2}$, while the left side is at least $cs_1^{-1-q}e^{s_1/2}$: $s_1\le2\log D_0 + C\log\log D_0$ at $z = 2$. While $s_2\le1$, $dy_1/dy_2\ge e^{-s_1/2}$, which integrates to $s_1\ge2\log D_0 - C$ from half of $y_2$ on. So $y_1 = \Lambda^{-q}(1+o(1))$ at $z = 2$, $\Lambda = 2\log D_0$.
# 6. *And the lag.* By 4, $\log u$ loses at most $s_2/2\to0$ until $y_2$ is halved and $\int\frac{p_3}{p_1+p_3}ds_2\le C/D_0$ until $s_2 = 1$; after that $u$ loses at most $e^{-(1-\theta)s_1/2}\le CD_0^{\theta-1}$ by step 1. All is $o(\Lambda^{-q})$. So by 2 and 3, for $D_0$ large, $u_0\le(1-\varepsilon)\Lambda^{-q}$ collapses and $u_0\ge(1+\varepsilon)\Lambda^{-q}$ does not.
# 7. *The area.* Starts with $D_0 < s_0^{-q/2}$ count for $O(s_0^{3q/2})$, by the bound in 4. For the others $\Lambda\ge q\log\frac1{s_0}$ bounds the integrand, and at fixed proportions $\Lambda/(2q\log\frac1{s_0})\to1$. Near $s_2 = s_3$ the lag is $u = q(s_2-s_3)s_2^{-1-q}$, so the share tends to $6\Lambda^{-q}\int_0^{s_0}\frac{s_2^{1+q}}q\,ds_2$ over the area $\frac92s_0^2$. $\square$
#
# **Sharper, not proved.** Kept to the next order, step 5 says $\Lambda = 2\log D + 2(1+q)\log\Lambda - 2\log q$. `shares.leading_share` uses this $\Lambda$ at $D = s_0^{-q}$: the same limit, approached sooner.
#
# *Hypothesis. At $K = 2^m$ the share falls like $(s_0/\log\frac1{s_0})^{q(K-1-\log_2K)}$.* Levels of 1, 2, 4, … new characters may lag behind one another by any amount; each but the first must bring all that the group then contains at once, $\sum_{j<m}(2^j-1) = K-1-\log_2K$ coincidences in all. Each is a strip as narrow as $\Lambda^{-q}$ in a range of $s_0^{-q}$. At $K = 8$, with four coincidences, $\text{share}_8\approx c_L\,\text{share}_4^4$.
#
# **How it is measured.** At $K = 4$ the boundary is one invariant surface, which attracts backwards in time; `shares.collapse_share` integrates it back from the separatrix (55) and takes the share by quadrature, to a relative error of about $10^{-6}$, at any scale. At $K = 8$ shares fall to $10^{-24}$: `shares.sampled_share` draws in the labels, with the exact Jacobian to directions, first broadly and then around the hits (population Monte Carlo); the last round's weights are unbiased whatever the kernels are. A start is a hit if the limit of its flow is collapse.

# %% tags=["parameters"]
depths: list[int] = [3, 4, 6]  # depths L at four classes [3, 8]
scales: list[float] = [1e-2, 1e-4, 1e-6]  # initial mean singular values [1e-6, 1e-2]
tiny: list[float] = [1e-12, 1e-18, 1e-30]  # further scales at four classes, 3 or more [1e-30, 1e-7]
eight_depths: list[int] = [3]  # depths of eight classes to sample here [3, 4]
eight_scales: list[float] = [1e-2]  # scales of eight classes to sample here [1e-10, 0.1]
count: int = 4000  # starts a round of sampling [1000, 100000]
side: int = 40  # points along a side of the plane of labels [8, 200]
seed: int = 0  # seed of the sampling [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

from dufm import basin, claims, notebook, shares, stats

p = notebook.start("58_share", globals())

# %% [markdown]
# ## The strip
#
# The plane of labels at $K = 4$, $L = 3$: lags $y_2 - y_1$ and $y_3 - y_1$ behind the leader. Every point is followed forward from two scales a thousandfold apart; the boundary comes from the integration back.

# %%
q = 1 - 2 / 3
lags = torch.linspace(0, 6, p.side + 1, dtype=torch.float64)[:-1] + 3 / p.side
labels = torch.cartesian_prod(lags, lags)
found = {s0: basin.ends_of_four((s0**-q + torch.nn.functional.pad(labels, (1, 0))) ** (-1 / q), 3, rtol=1e-6) for s0 in (1e-3, 1e-6)}
lead, lag = (side.numpy() for side in shares.boundary_labels(3, 1e-6))
plane = pandas.DataFrame({"lag_2": labels[:, 0], "lag_3": labels[:, 1], "end": [basin.FOUR_ENDS[i] for i in found[1e-3]]})
plane["boundary"] = plane.lag_2 + np.interp(plane.lag_2, lead, lag)
figures.store("58_strip", plane)
inside = plane[["lag_2", "lag_3"]].max(axis=1) < plane[["lag_2", "lag_3"]].min(axis=1) + np.interp(plane[["lag_2", "lag_3"]].min(axis=1), lead, lag)
alike, right = (found[1e-3] == found[1e-6]).double().mean(), (inside == (plane.end == "collapse")).mean()
print(f"{alike:.2%} of {len(plane)} points end alike from both scales; {right:.2%} lie on the side of the boundary they should")

# %% tags=["figure"]
figures.show(
    "58_strip",
    alt="The plane of two lags behind the leader. Neural collapse fills a square near the origin and from there a strip along the diagonal that goes on without end; a square solution wins on both sides. Dashed curves, integrated back, follow its edges.",
)

# %% [markdown]
# *Four classes, three layers. One coincidence and not two: the strip along the diagonal has no end.* [Drawn by](../../figures/58_strip.py)
#
# How narrow is the strip behind a leader at lag $D$: the slope of (width)$^{-1/q}$ in $\log D$, on the boundary, beside $d\Lambda/d\log D$ of the sharper $\Lambda$. Were it affine in $\log D$, as one might read off a few of its values, all slopes would be the same.

# %%
far = np.array([1e4, 1e6, 1e8, 1e10])
slopes = []
for L in p.depths:
    lead, width = (side.numpy() for side in shares.boundary_labels(L, 1e-24))
    size = np.interp(np.log(far), np.log(lead), width ** (-1 / (1 - 2 / L)))
    law = shares.leader_size(torch.from_numpy(far), L).numpy()
    slopes += [(L, f"{low} to {low + 2}", *(np.diff(x)[i] / np.log(100) for x in (size, law))) for i, low in enumerate((4, 6, 8))]
(slopes := pandas.DataFrame(slopes, columns=["depth", "log10 D", "slope", "law"])).round(4)

# %% [markdown]
# ## The shares
#
# All eight-class shares took four minutes; they were computed once, by `dufm reproduce 58 -p eight_depths=[3,4] -p eight_scales=[0.01,0.0001,1e-06,1e-08,1e-10]`, and stand in [58_eight.csv](58_eight.csv), the rows of eight classes of the table that it stores. One is computed again here, from the same seed. The prediction for $10^{-8}$ and $10^{-10}$ was written down before they were sampled.

# %%
KEYS = ["num_classes", "depth", "scale", "count", "seed"]
VALUES = ["share", "error", "largest", "undecided"]
cases = notebook.progress([(L, s0) for L in p.eight_depths for s0 in p.eight_scales], label="eight classes")
sampled = [(L, s0, shares.sampled_share(8, L, s0, count=p.count, seed=p.seed)) for L, s0 in cases]
here = pandas.DataFrame([(8, L, s0, p.count, p.seed, *(getattr(x, name) for name in VALUES)) for L, s0, x in sampled], columns=[*KEYS, *VALUES])
known = notebook.committed("58_eight")
known = known[(known["count"] == p.count) & (known.seed == p.seed)]
both = here.merge(known, on=KEYS, suffixes=("", "_known"))
eight = pandas.concat([here, known]).drop_duplicates(KEYS)
apart = (both.share / both.share_known - 1).abs()
print(f"{len(here)} sampled here; of {len(both)} that are in the table too, {int((apart > 1e-3).sum())} differ by more than 0.1%")
print(f"largest share of a sum that one weight holds: {eight.largest.max():.0%}; undecided weigh {stats.below(eight.undecided.max(), 1e-30)}")

# %%
at = torch.tensor([*p.scales, *p.tiny], dtype=torch.float64)
four = pandas.concat([
    pandas.DataFrame({"num_classes": 4, "depth": L, "scale": at, "share": found.share, "error": 0.0, "leading": shares.leading_share(L, at)})
    for L, found in ((L, shares.collapse_share(L, at)) for L in p.depths)
])
eight = shares.fourth_power(eight, fitted=(1e-4, 1e-6))
table = pandas.concat([four, eight]).sort_values(["num_classes", "depth", "scale"], ascending=[True, True, False], ignore_index=True)
figures.store("58_share", table[[*KEYS, *VALUES, "leading"]])

# %% tags=["figure"]
figures.show(
    "58_share",
    alt="Share of neural collapse against initial scale on logarithmic axes, left for four, right for eight classes, one kind of mark a depth. At four classes the marks lie on dashed lines of the sharper law down to the smallest scale; at eight on dashed lines of the fourth power of the share at four; both leave the dotted line, twice or one and a half times as steep, of the naive count.",
)

# %% [markdown]
# The exponent between a scale and the next smaller one, divided by that of the law. The last column is what the naive count would give, the intervals are those of the sampling.

# %%
grouped = table.groupby(["num_classes", "depth"])
logs = np.log(table[["share", "scale"]]).groupby([table.num_classes, table.depth]).diff(-1)
law = (1 - 2 / table.depth) * (table.num_classes - 1 - np.log2(table.num_classes))
table["exponent"] = logs.share / logs.scale / law
table["spread"] = 1.96 * np.hypot(table.error / table.share, grouped.error.shift(-1) / grouped.share.shift(-1)) / logs.scale / law
table["naive"] = (table.num_classes - 2) / (table.num_classes - 1 - np.log2(table.num_classes))
shown = table.dropna(subset="exponent")[["num_classes", "depth", "scale", "share", "exponent", "spread", "naive"]]
shown.round({"exponent": 3, "spread": 3}).assign(share=[f"{x:.3g}" for x in shown.share], scale=[f"{x:g}" for x in shown.scale])

# %% [markdown]
# At four classes the exponents lie *above* the law of powers alone and come down slowly, as the logarithm makes them; at eight they scatter. At four classes, the quadrature over the sharper law; at eight, how far the samples lie from the fourth power, in standard errors:

# %%
four["over"] = four.share / four.leading
four["proved"] = [4 / (3 * q * (2 + q)) * (s0 / (2 * q * np.log(1 / s0))) ** q for q, s0 in zip(1 - 2 / four.depth, four.scale)]
away = (four.share / four.proved - 1).abs().groupby([four.depth, four.scale]).last().unstack()
x = np.log(1 / np.sort(p.tiny))
terms = np.stack([np.ones_like(x), np.log(x) / x, 1 / x], axis=1)
limits = np.array([np.linalg.lstsq(terms, rows.sort_values("scale").eval("share / proved"))[0][0] for _, rows in four[four.scale.isin(p.tiny)].groupby("depth")])
print("distance from the proved law:", "; ".join(f"L = {L}: {row[max(p.tiny)]:.3f} at {max(p.tiny):g}, {row[min(p.tiny)]:.3f} at {min(p.tiny):g}" for L, row in away.iterrows()))
print("share over law in the limit:", limits.round(4))
eight["away"] = np.log(eight.share / eight.leading) / eight.leading_error
pandas.concat([four.pivot(index="depth", columns="scale", values="over"), eight.pivot(index="depth", columns="scale", values="away")], keys=["4 classes: ratio", "8 classes: errors"]).round(3).astype(object).fillna("")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
last = table[np.isclose(table.scale, 1e-4) & table.exponent.notna()]
beyond = ((last.naive - last.exponent) / last.spread)[last.num_classes == 8]
claims.check("58-share-leading", np.abs(limits - 1).max())
claims.check("58-share-sharper", (four[four.scale == min(p.tiny)].over - 1).abs().max())
claims.check("58-strip-slope", (slopes.slope / slopes.law - 1).abs().max())
claims.check("58-strip-affine", (1 - slopes.groupby("depth").slope.last() / slopes.groupby("depth").slope.first()).max())
claims.check("58-share-law", ((last.exponent - 1).abs() + last.spread.fillna(0)).max())
claims.check("58-eight-fourth", eight[eight.scale < 1e-7].away.abs().max())
claims.check("58-naive-excluded", beyond.min())

# %% [markdown]
# ## Where it breaks
#
# *Scales that are not small.* At $s_0 = 0.01$ the exponent is still 9 to 15% above the law, and at $s_0 = 1$ there is no power law. *Sampling that misses an arm.* With few starts a round the kernels can miss an arm of the basin: the share comes out low and its error too small. A warning sign is a single weight that holds much of the sum, as printed above.
#
# *Eight classes have no proof.* Three levels of leaders meet there: one needs the boundary behind two of them, and that no other arm is as wide.
#
# ## Try it ([answers](../answers.md#58))
#
# 1. `depths = [8]`: does the naive count come closer with depth?
# 2. `eight_scales = [0.1]`: how far is the share from $c_L$ times the fourth power of that at four classes, 0.42 at this scale?
# 3. `count = 1000`: by how much does the sampled share fall?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
