# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The deep unconstrained feature model is a deep linear network on orthonormal inputs
#
# **Question.** The unconstrained feature model treats the features of every sample as free parameters. Nobody trains such a thing. Is it a
# model of anything that is trained?
#
# **Answer.** Yes, and not only in spirit: if the inputs are orthonormal, the features of a deep linear network move along gradient flow
# *exactly* as if they were free. Two codes that share nothing agree up to $\log t = 190$ to the accuracy of their steps; with one input
# stretched by two they part at once and do not meet again as far as they were followed.
# Before: [the overview](../00_overview.ipynb). After: [12, balance](12_balance.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/1_model/11_linear_network.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/1_model/11_linear_network.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("11_paths")

# %% [markdown]
# *Singular values of the logits along training. Circles: a deep linear network, integrated by SciPy; dashed: the deep unconstrained feature
# model from the same start, integrated by `dufm`. Left, the inputs are orthonormal; right, the first one is twice as long.*
# [Drawn by](../../figures/11_paths.py)

# %% [markdown]
# ## Statement
#
# Both models have logits $Z = W_L\cdots W_2H\in\mathbb R^{K\times N}$, one column a sample, and the cross-entropy $\mathcal L(Z)$ of the labels.
# In the *deep unconstrained feature model* $H\in\mathbb R^{d\times N}$ is a parameter: it is called $W_1$ everywhere else in these notebooks, and counted in the depth $L$.
# In a *deep linear network* $H = W_1X$ with inputs $X\in\mathbb R^{m\times N}$, and $W_1\in\mathbb R^{d\times m}$ is the parameter.
#
# **Statement.** *If $X^\top X = I$, then under gradient flow on all parameters $(H, W_2,\dots,W_L)$ follows the same path in both models at equal times, whatever
# $W_1$ does to vectors that are orthogonal to the inputs. That part of $W_1$ never moves.*
#
# **Proof.** The loss sees $W_1$ only through $H$, so by the chain rule
# $$\dot W_1 = -\frac{\partial\mathcal L}{\partial W_1} = -\frac{\partial\mathcal L}{\partial H}\,X^\top,\qquad
# \dot H = \dot W_1X = -\frac{\partial\mathcal L}{\partial H}\,X^\top X .$$
# With $X^\top X = I$ the right side is $-\partial\mathcal L/\partial H$, the equation of a free $H$. The equations of $W_2,\dots,W_L$ contain $H$ and not $W_1$. Both models
# thus solve one system of differential equations, whose solution is unique. For $v\perp X$: $\dot W_1v = 0$. $\square$
#
# Only the Gram matrix $X^\top X$ entered. It weighs the gradient of each sample, and couples samples that are not orthogonal: this is what the model leaves out.

# %% tags=["parameters"]
num_classes: int = 4  # number of classes K, one sample each [2, 10]
depth: int = 3  # depth L, features included [2, 8]
width: int = 16  # hidden width d [2, 64]
scale: float = 0.5  # initial scale, entries N(0, scale²/fan-in) [0.05, 1]
inputs: int = 24  # dimension m of the inputs, at least K [2, 200]
stretch: float = 2.0  # factor on the first input where the assumption fails [1, 10]
rtol: float = 1e-11  # local error of both integrators [1e-12, 1e-6]
log_times: list[float] = [0, 1, 3, 10, 20, 30, 45, 60, 75, 90, 100, 120, 140, 160, 175, 190]  # values of log t [-5, 300]
dimensions: list[int] = [24, 100, 1000, 10000]  # dimensions of Gaussian inputs [4, 100000]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas as pd
import torch

import dufm
from dufm import claims, figures, notebook, stats

p = notebook.start("11_linear_network", globals())
rng = np.random.default_rng(p.seed)

# %% [markdown]
# ## One gradient
#
# `first_layer` gives a $W_1$ with $W_1X = H$ that does something arbitrary to everything else. PyTorch's automatic differentiation, which
# knows nothing of the statement, differentiates both losses at the start.

# %%
X = dufm.haar_frames(p.inputs, p.num_classes, 1, rng)[0]
ufm = [W[0] for W in dufm.gaussian_init(p.depth, p.width, p.num_classes, scale=p.scale, seed=p.seed)]
beside = torch.from_numpy(rng.standard_normal((p.width, p.inputs)) / p.inputs**0.5)
H, W1 = ufm[0].clone().requires_grad_(), dufm.first_layer(ufm[0], X, beside).requires_grad_()
for features in (H, W1 @ X):
    Z = dufm.product([features, *ufm[1:]])
    torch.nn.functional.cross_entropy(Z.T, torch.arange(p.num_classes), reduction="sum").backward()
error = torch.linalg.matrix_norm(W1.grad @ X - H.grad) / torch.linalg.matrix_norm(H.grad)
print("change of H in the network against change of H in the model, relative difference:", stats.below(error, 1e-12))

# %% [markdown]
# ## The whole path
#
# A gradient at one point is not a path. `dufm.linear_network_flow` integrates the network in NumPy with a loss of its own, backpropagation from the inputs
# on, and SciPy's pair of order eight; `dufm.gradient_flow` integrates the model. They are compared at equal $\log t$: the loss falls to $e^{-197}$ on the way.


# %%
def network(X):
    """(H, W_2, …, W_L) of the linear network with inputs X that starts where the model does."""
    W1 = dufm.first_layer(ufm[0], X, beside)
    weights = dufm.linear_network_flow(X, [W1, *ufm[1:]], p.log_times, rtol=p.rtol)
    return [weights[0] @ X, *weights[1:]]


def apart(factors, others):
    """Relative distance over all factors, one number a level."""
    square = [sum(W.square().sum((-2, -1)) for W in part) for part in ([a - b for a, b in zip(factors, others)], others)]
    return (square[0] / square[1]).sqrt()


run = dufm.gradient_flow(ufm, rtol=p.rtol, until_log_loss=-max(p.log_times) - 10, record={"log_time": p.log_times})
model = run.history.factors
lengths = torch.ones(p.num_classes, dtype=torch.float64).index_fill(0, torch.tensor([0]), p.stretch)
networks = {"orthonormal": network(X), "one stretched": network(X * lengths)}

# %%
sigma = {name: torch.linalg.svdvals(dufm.product(factors)) for name, factors in {**networks, "model": model}.items()}
tables = [
    pd.DataFrame({"inputs": name, "depth": p.depth, "number": i + 1, "log_time": p.log_times, "network": sigma[name][:, i], "model": sigma["model"][:, i]})
    for name in networks
    for i in range(p.num_classes - 1)
]
figures.store("11_paths", pd.concat(tables))

# %% tags=["figure"]
figures.show(
    "11_paths",
    alt="Singular values of the logits against log t, two panels. With orthonormal inputs the circles of the linear network lie on the dashed lines of "
    "the unconstrained feature model, which merge into one, neural collapse. With one input stretched they leave the lines and stay apart from each other.",
)

# %%
difference = {name: apart(factors, model) for name, factors in networks.items()}
pd.DataFrame({name: [stats.below(x, 1e-9) for x in values] for name, values in difference.items()}, index=pd.Index(p.log_times, name="log t"))

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
claims.check("11-linear-network", difference["orthonormal"].max())

# %% [markdown]
# ## Where it breaks
#
# *Inputs that are not orthonormal*: the right panel, and the second column of the table. The stretched class is learnt faster, its features being cheaper, and the
# singular values do not meet.
#
# *Inputs that are nearly so.* Independent Gaussian inputs of dimension $m$ have $X^\top X = I + O(\sqrt{K/m})$. As only the Gram matrix counts, the network may be run on $R$ from $X = QR$ instead of
# $X$, and $m$ costs nothing. How far it is from the model at $\log t = 10$:

# %%
record = dufm.gradient_flow(ufm, rtol=1e-8, until_log_loss=-20.0, record={"log_time": [10.0]}).history.factors
rows = {}
for m in p.dimensions:
    R = torch.linalg.qr(torch.from_numpy(rng.standard_normal((m, p.num_classes)) / m**0.5)).R
    W1 = dufm.first_layer(ufm[0], R, torch.zeros(p.width, p.num_classes, dtype=torch.float64))
    weights = dufm.linear_network_flow(R, [W1, *ufm[1:]], [10.0], rtol=1e-8)
    gram = torch.linalg.matrix_norm(R.mT @ R - torch.eye(p.num_classes))
    rows[m] = {"distance of the Gram matrix from I": float(gram), "relative difference": float(apart([weights[0] @ R, *weights[1:]], record))}
pd.DataFrame(rows).T.rename_axis("m").round(4)

# %% [markdown]
# ## Try it ([answers](../answers.md#11))
#
# 1. `stretch = 10`: which singular value profits, and does the smallest one still grow?
# 2. `inputs = 4`, the number of classes: what is left of "everything beside the inputs"?
# 3. `rtol = 1e-6`: how far apart are the two codes now, and does the distance grow along the path?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
