# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The rate of training is one over the time, and its constant measures the margin
#
# **Question.** Once the direction of the logits has settled (notebook 21), only their size still grows. How fast does the loss fall, and does
# the rate know in which solution the network has ended?
#
# **Answer.** $\mathcal L \approx c\,/\,\bigl(t\,(\log t)^{2-2/L}\bigr)$ with $c = 1/(L\gamma_L^{2/L})$, where $\gamma_L$ is the normalised margin of the end:
# the better the end, the lower the loss at equal time. For neural collapse $c = (K-1)/L$. The law is reached only logarithmically.
# Before: [21, where the flow ends](21_where_the_flow_ends.ipynb). After: [23, what is left of the start](23_slow_residual.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/2_margin/22_rate.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/2_margin/22_rate.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("22_rate")

# %% [markdown]
# *The loss times time times the power of $\log t$, divided by its limit, against $-\log\mathcal L$. Left: the ray of neural collapse with four classes; marks are the full
# network, dashed lines the integral of the scalar law. Right: starts on other critical points, marked alike. All tend to the grey line at 1, and
# none has quite arrived at a loss of $e^{-10^4}$.* [Drawn by](../../figures/22_rate.py)
#
# ## Statement
#
# *Let the direction of the flow converge to a KKT point of normalised margin $\gamma_L > 0$, and the direction of $-\nabla\mathcal L$ to the same. Then, with $p = 2/L$,*
# $$\mathcal L\cdot t\cdot(\log t)^{2-p}\;\longrightarrow\;\frac{1}{L\,\gamma_L^{\,p}}\qquad(t\to\infty).$$
#
# **Proof.**
# 1. A KKT point is balanced (notebook 21), so at smallest margin $m$ the weights have $\sum_l\|W_l\|^2 = L\sum_i\sigma_i^p = L(m/\gamma_L)^p$.
# 2. The logits are homogeneous of degree $L$ in the weights, so $\langle W, -\nabla\mathcal L\rangle = L\,\langle Z, I - P\rangle = L\sum_{j\ne c}P_{jc}(z_{cc} - z_{jc})$.
#    Late in training every sum $\sum_{j\ne c}P_{jc}$ is the loss of its sample up to a factor that tends to 1, and only the smallest margins count:
#    $\langle W, -\nabla\mathcal L\rangle = Lm\,\mathcal L\,(1 + o(1))$.
# 3. Gradient and weights are parallel in the limit, so $\|\nabla\mathcal L\| = Lm\,\mathcal L/\|W\|\,(1+o(1))$. Along the flow
#    $$\frac{d}{dt}\frac1{\mathcal L} = \frac{\|\nabla\mathcal L\|^2}{\mathcal L^2} = \frac{L^2m^2}{L(m/\gamma_L)^p}(1+o(1)) = L\,\gamma_L^{\,p}\,m^{2-p}\,(1+o(1)).$$
# 4. $\log\mathcal L = -m + O(1)$; by step 3, $1/\mathcal L$ is $t$ up to powers of its logarithm, so $m/\log t\to1$. Integrating step 3 gives the limit. $\square$
#
# That both directions converge is assumed: Ji & Telgarsky (2020) prove it for homogeneous networks with exponential or logistic loss, that is, for two classes; with several classes notebook 21 has the direction of the logits, where the end is
# isolated, and every run here is seen to rest. The relative error is of order $\log\log t/\log t$, because
# $m$ differs from $\log t$ by a multiple of $\log\log t$: at $\mathcal L = e^{-100}$ it is several percent, at $e^{-10^4}$ some thousandths.
#
# *On the ray of neural collapse* $Z = s(I - J/K)$ the flow is one equation, and nothing is asymptotic about it:
# $$\dot s = L\,s^{2-2/L}\,\frac{K}{e^s + K - 1},\qquad t = \int_{s_0}^{s}\frac{e^u + K - 1}{LK\,u^{2-2/L}}\,du,\qquad \mathcal L = K\log\bigl(1 + (K-1)e^{-s}\bigr).$$
# `laws.collapse_log_time` is this integral; with it the full network is tested to the digits of its integrator, not only in the limit.

# %% tags=["parameters"]
num_classes: int = 4  # number of classes K on the ray of collapse [3, 12]
depths: list[int] = [2, 3, 4, 6]  # depths L, the features included [2, 12]
start_scale: float = 0.1  # singular values of the start on the ray of collapse [0.001, 1]
until_log_loss: float = -1e4  # log of the last loss [-1e6, -1e3]
rtol: float = 1e-5  # accuracy of the flow [1e-9, 1e-3]
seed: int = 0  # not used: nothing is drawn [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas

import dufm
from dufm import claims, codes, figures, laws, notebook

p = notebook.start("22_rate", globals())
levels = [-float(x) for x in np.geomspace(30, -p.until_log_loss, 8)]

# %% [markdown]
# ## One network
#
# A balanced network that starts on the ray of neural collapse stays on it. Its time at three losses, from the flow of all factors and from the integral:

# %%
simplex = codes.pairs_and_singles(p.num_classes, 0)
start = dufm.balanced_init(p.start_scale * simplex, 3)
run = dufm.gradient_flow(start, until_log_loss=levels[-1], rtol=p.rtol, record={"log_loss": levels})
for loss, log_time in zip(run.history.log_loss[::3].tolist(), run.history.log_time[::3].tolist(), strict=True):
    law = laws.collapse_log_time(loss, p.start_scale, p.num_classes, 3)
    print(f"log ℒ = {loss:8.1f}: log t = {log_time:.4f}, by the integral {law:.4f}")

# %% [markdown]
# ## All depths, and ends that are not collapse
#
# The same for every depth, and from starts on three other critical points: the square at $K = 4$, the orthoplex at $K = 6$, and two antipodal pairs with
# two single classes, whose margin is *smaller* than that of collapse at $L = 3$ (notebook 25). Each is divided by the constant of its own margin.
# These three start at a margin of 1, near enough to their end to stay.

# %%
ends = [("neural collapse", p.start_scale * simplex, L) for L in p.depths]
ends += [("square", codes.pairs_and_singles(4, 2), 4), ("orthoplex of 6", codes.pairs_and_singles(6, 3), 3)]
ends += [("two pairs, two single", codes.pairs_and_singles(6, 2), 3)]
rows = []
for end, Z, L in notebook.progress(ends, label="ends"):
    factors = [W.to(notebook.device()) for W in dufm.balanced_init(Z, L)]
    run = dufm.gradient_flow(factors, until_log_loss=levels[-1], rtol=p.rtol, record={"log_loss": levels})
    loss, time = run.history.log_loss.cpu().numpy(), run.history.log_time.cpu().numpy()
    constant = 1 / (L * float(dufm.normalized_margin(Z, L)) ** (2 / L))
    law = [laws.collapse_log_time(x, p.start_scale, len(Z), L) if end == "neural collapse" else np.nan for x in loss]
    rate = {name: np.exp(loss + t + (2 - 2 / L) * np.log(t)) / constant for name, t in (("measured", time), ("integral", np.array(law)))}
    rows.append(pandas.DataFrame({"end": end, "num_classes": len(Z), "depth": L, "minus_log_loss": -loss, "constant": constant} | rate))
table = pandas.concat(rows, ignore_index=True)
figures.store("22_rate", table)

# %% tags=["figure"]
figures.show(
    "22_rate",
    alt="Two panels: the loss times time times a power of log time over its limit, against minus log loss from 30 to 10000. Left, for four depths on the ray "
    "of collapse, marks lie on the dashed lines of the integral and rise to 1. Right, three other ends rise to the same 1.",
)

# %%
last = table.groupby(["end", "depth"], sort=False).last()
last[["num_classes", "constant", "measured", "integral"]].round(4)

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
on_ray = table[table["end"] == "neural collapse"]
claims.check("22-ray", (on_ray["measured"] / on_ray["integral"] - 1).abs().max())
claims.check("22-limit", last.loc["neural collapse", "measured"].min())
claims.check("22-other-ends", (last["measured"].drop("neural collapse") - 1).abs().max())

# %% [markdown]
# ## Where it breaks
#
# *While the direction still turns* the constant is that of no end. A random network is some time near one point, then near another (notebook 23); its
# rate then changes with it, at times that grow by powers of ten in $-\log\mathcal L$. The statement is about the time after the last turn.
#
# *Discrete steps.* Descent with a fixed rate $\eta$ follows the flow only while $\eta\,\|\nabla^2\mathcal L\|$ is small. Here it becomes ever smaller, since the curvature falls with the loss;
# that is why constant steps take $e^{m}$ of them to a margin of $m$, and why this package steps in $\log\mathcal L$.
#
# ## Try it ([answers](../answers.md#22))
#
# 1. `until_log_loss = -1e6`: how much nearer to 1 do a hundred times more logits bring the rate?
# 2. `depths = [2, 12]`: the limit is approached more slowly at large depth. Find the next term, a multiple of $\log\log t/\log t$, from step 4.
# 3. Start the two pairs at a tenth of their size, `0.1 * codes.pairs_and_singles(6, 2)`: the ratio settles at 0.943. Which end has the network found?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
