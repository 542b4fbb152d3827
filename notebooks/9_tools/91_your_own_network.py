# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own network: what is decided, and what is not yet
#
# **Question.** I have trained a classifier. Has it collapsed, is it on its way to a code of lower rank, or is it too early to tell?
#
# **Answer.** `dufm.diagnose` reads it off the logits of the training samples, and refuses to answer where they do not tell. Below, the logits of a ReLU network with one linear layer on top have collapsed, its features only in part; with five linear layers on top its classes lie flatter, but nothing is decided; five linear layers on free features have made a square. Of random networks stopped early, all that were decided at a code with a name ended there; a critical point without a name they may only be passing.
#
# Before: [87, a ReLU between the factors](../8_assumptions/87_relu_between.ipynb). After: [92, the explorer](92_explorer.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/9_tools/91_your_own_network.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/9_tools/91_your_own_network.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("91_classes")

# %% [markdown]
# *The classes of three networks, a dot each, in the leading directions of their logits, and the sentence of the diagnosis. As in the portraits of [31](../3_codes/31_portraits.ipynb), lengths are square roots of singular values. Left and middle: handwritten digits 0 to 3; right: features that are free parameters.* [Drawn by](../../figures/91_classes.py)
#
# ## Statement
#
# Let $Z$ be the class means of the logits, a class a column, less the mean of each column. A network of given depth is called decided at rank $r$ if every training sample is right and a certified critical point $Z_*$ of rank $r$ of the margin problem of that depth
# ([21](../2_margin/21_where_the_flow_ends.ipynb)) lies within $\delta = 10\%$: with both scaled to smallest margin 1, $\|Z - Z_*\|_F\le\delta\|Z\|_F$. What this says about the network itself is modest and certain:
#
# *At most the share $\delta^2 = 1\%$ of $\|Z\|_F^2$ lies outside $r$ directions, and every margin of $Z$ is within $\sqrt2\,\delta\,\|Z\|_F$ of that of $Z_*$.* (Without a depth there is no certificate: $Z_*$ is then a code with a name that is critical at every depth, at the scale that fits best, and the same two bounds hold.)
#
# **Proof.** $Z_*$ has rank $r$, and no matrix of that rank is nearer to $Z$ than its truncated singular value decomposition (Eckart and Young): $\sum_{i>r}\sigma_i(Z)^2\le\|Z - Z_*\|_F^2$. A margin is $(e_c - e_j)^\top Ze_c$, linear in $Z$ with a coefficient matrix $(e_c - e_j)e_c^\top$ of norm $\sqrt2$. $\square$
#
# That training *goes on* to $Z_*$ does not follow: a flow can pass near a critical point, a saddle above all, and leave it. How often it does is measured below.
#
# ## Twenty lines to replace by yours
#
# Any classifier will do. What counts is: no weight decay, all training samples right, and patience. `depth` is the number of weight matrices in the linear part, the features counting as one: a ReLU network with one linear layer on top has depth 2. A bias counts as part of the logits. The margin problem is that of classes of equal size: with unequal ones it is another, and collapse not its only end of full rank ([85](../8_assumptions/85_imbalanced_classes.ipynb)).

# %% tags=["parameters"]
num_classes: int = 4  # digits 0 to K - 1 [3, 10]
n_per_class: int = 20  # training images a class [5, 170]
steps: int = 1000  # steps of Adam for the first network, twice as many for the third [100, 100000]
classes: list[int] = [4, 5, 6]  # numbers of classes of the networks that are stopped early [4, 8]
depths: list[int] = [2, 4, 6]  # their depths L [2, 12]
log_losses: list[float] = [-5.0, -10.0, -20.0, -30.0]  # where they are stopped [-1000, -2]
networks: int = 64  # networks for each K and L [2, 512]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import pandas
import torch
from torch import nn

import dufm
from dufm import claims, codes, data, figures, notebook, stats

p = notebook.start("91_your_own_network", globals())


# %%
def train(body, head, inputs, labels, steps):
    network = nn.Sequential(body, head).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(inputs), labels)
        loss.backward()
        optimizer.step()
    features = body(inputs).detach()
    return features, head(features).detach()


def linear(*widths):
    return nn.Sequential(*[nn.Linear(a, b, bias=False) for a, b in zip(widths, widths[1:])])


K = p.num_classes
images, digits, _, _ = data.split("digits", p.n_per_class)
images, digits = images.T[digits < K], digits[digits < K]
torch.manual_seed(p.seed)
body, head = nn.Sequential(nn.Linear(64, 256), nn.ReLU()), nn.Linear(256, K, bias=False)
features, logits = train(body, head, images, digits, p.steps)
own = dufm.diagnose(logits, digits, depth=2, features=features, classifier=head.weight)
print(own)

# %% [markdown]
# Line by line:
#
# - *margins*: true logit less the largest wrong one, over the samples. At or below zero a sample is wrong, and then nothing is decided. Training has no end; a *least* margin of 5 to 10 is early, and float32 prints a loss of zero from about 16 on, while its gradients go on moving the margins.
# - *rank*: that of the certified solution nearby, of at most $K - 1$. The *effective* rank (exponential of the entropy of the singular values over their sum) and the *stable* rank ($\|Z\|_F^2/\sigma_1^2$) need no decision; if they are far from the rank, it is early.
# - *collapse*: NC1 is the spread within the classes against that between them, NC2 the distance of the class means from a simplex of equal angles, NC3 that of the classifier from the class means. All vanish at neural collapse; at a code of lower rank NC1 does, and NC3 if the code is symmetric, but not NC2. They are slow: NC2 of the features can be far from zero where the logits are nearly there. They need no decision; NC3 is NaN where features came without a classifier. Without features they are those of the logits, and the classifier is the identity.
# - *nearest code*: of all codes with a name, whatever the order of your classes, the distance in per cent of $\|Z\|_F$ at the best scale. At more than a few tens of per cent the name means nothing but that the others are farther still.
# - *depth*: the normalised margin of the class means over that of neural collapse. Above 1 a network has beaten collapse.
# - *certificate*: how exactly the solution nearby solves the conditions of a critical point. It is a statement about that solution, not about your network.
# - *softmax code*: how far the directions of your classes fall short of the best code of their rank. The last line is the finding, or the reason why there is none.
#
# ## More linear layers, and free features
#
# Two changes, one after the other: four more linear layers on the same kind of body; then no images at all, only the numbers of the classes (each twice, or a sample a row and a sample a column could not be told apart), which makes the features free parameters.

# %%
torch.manual_seed(p.seed)
body, head = nn.Sequential(nn.Linear(64, 64), nn.ReLU()), linear(64, 64, 64, 64, 64, K)
deep_features, deep_logits = train(body, head, images, digits, p.steps)
classifier = torch.linalg.multi_dot([layer.weight for layer in reversed(head)])
deep = dufm.diagnose(deep_logits, digits, depth=6, features=deep_features, classifier=classifier)
print(deep, "\n")

torch.manual_seed(p.seed)
which = torch.arange(K).repeat(2)
free_features, free_logits = train(linear(K, 32), linear(32, 32, 32, 32, 32, K), torch.eye(K, dtype=torch.float64)[which], which, 2 * p.steps)
free = dufm.diagnose(free_logits, which, depth=6)
print(free)

# %% [markdown]
# What could the last two become at best? `dufm best 4 6` on the command line, or:

# %%
print(dufm.best(K, 6))
points = []
for panel, found in enumerate([own, deep, free]):
    _, sigma, Vh = torch.linalg.svd(found.Z)
    places = codes.principal_points(sigma.sqrt()[:, None] * Vh, min(found.rank or 3, K - 1, 3))
    places = torch.nn.functional.pad(places, (0, 3 - places.shape[1]))
    points += [(panel, found.rank or 0, found.name, found.sentence, c, *place) for c, place in enumerate(places.tolist())]
figures.store("91_classes", pandas.DataFrame(points, columns=["panel", "rank", "name", "sentence", "class", "x", "y", "z"]))

# %% tags=["figure"]
figures.show(
    "91_classes",
    alt="Classes of three networks as dots with their edges. Left, a ReLU network with one linear layer: a nearly regular tetrahedron, neural collapse. Middle, with five linear layers: an irregular tetrahedron, not decided. Right, free features: a square.",
)

# %% [markdown]
# ## How far can an early verdict be trusted?
#
# Random networks of the model, run to several losses and diagnosed there by the same rule (`dufm.end` of the logits as they are, which `diagnose` calls); then the flow goes on to its certified end. An early verdict is right if it has the end's rank and its margin to six digits. Runs whose end is not decided count as wrong. A first run, at other starts, was expected to find at least 95% right and did not: its ten errors of 175 stood at critical points without a name, from which the flow went on. Whether the named ones can be trusted is therefore asked of fresh starts.

# %%
rows = []
for number, L in notebook.progress([(number, L) for number in p.classes for L in p.depths], label="K, L"):
    start = dufm.gaussian_init(L, 16, number, scale=0.7, batch=p.networks, seed=p.seed + 1)
    last = dufm.end(dufm.gradient_flow(start, until_log_loss=-1e4), L)
    for level in p.log_losses:
        early = dufm.end(dufm.product(dufm.gradient_flow(start, until_log_loss=level).factors), L)
        same = (early.margin_ratio / last.margin_ratio - 1).abs() < 1e-6
        right = early.decided & last.decided & same & (early.rank == last.rank)
        known = [not name.startswith(("rank", "undecided")) for name in early.name]
        rows += [(level, L, int(a), int(b), int(c), int(b and c)) for a, b, c in zip(early.decided, right, known)]
runs = pandas.DataFrame(rows, columns=["log loss", "L", "decided", "right", "named", "named, right"])
runs.assign(runs=1).groupby(["log loss", "L"]).sum().sort_index(ascending=[False, True])

# %% [markdown]
# *Networks decided, rightly decided, and the same of those decided at a code with a name, by the log loss at which they were stopped, and by depth: at two layers every end is collapse.* What a mistake in the call looks like:

# %%
mistakes = {
    "predictions for logits": lambda: dufm.diagnose(logits.argmax(1), digits),
    "probabilities for logits": lambda: dufm.diagnose(logits.softmax(1), digits),
    "labels from 1": lambda: dufm.diagnose(logits, digits + 1),
    "a class missing": lambda: dufm.diagnose(logits[digits > 0], digits[digits > 0]),
    "one sample a class": lambda: dufm.diagnose(free_logits[:K], which[:K]),
    "classifier transposed": lambda: dufm.diagnose(deep_logits, digits, features=deep_features, classifier=classifier.T),
    "diverged": lambda: dufm.diagnose(logits * torch.nan, digits),
}
for words, call in mistakes.items():
    try:
        call()
    except ValueError as error:
        print(f"{words}: {error}")

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
first, final = (runs[runs["log loss"] == level].reset_index() for level in (max(p.log_losses), min(p.log_losses)))
change = final["decided"] - first["decided"]
claims.check("91-early", stats.wilson(final["right"].sum(), max(final["decided"].sum(), 1))[0])
claims.check("91-named", stats.wilson(*final.loc[final["L"] > 2, ["named, right", "named"]].sum())[0])
claims.check("91-later", stats.paired((change > 0).sum(), (change < 0).sum(), len(change))[0])

# %% [markdown]
# ## Where it breaks
#
# *Images are not free features.* The theory behind the certificate is that of linear layers on features that can go anywhere ([11](../1_model/11_linear_network.ipynb)). With ten digits instead of four nothing is decided within these steps: the classes of images are not alike, and trained
# networks were on their way to no regular code ([73](../7_networks/73_learned_codes.ipynb)). Then the effective rank is what remains. *Adam is not gradient flow*: what other optimisers change is in [82](../8_assumptions/82_momentum_adam_sign.ipynb).
#
# *Most of the named ones are easy.* Of the 165 networks that are decided at a code with a name, 96 have two layers, where every end is collapse. The 69 deeper ones are right as well, but alone their interval begins at 0.947. *Ten per cent is a convention.* A network nearer to a code than that can be on its way elsewhere, and one farther away on its way there. Where the rank is decided but the nearest named code is far, train on before you believe it.
#
# ## Try it ([answers](../answers.md#91))
#
# 1. `num_classes = 10`: which lines of the table still say something?
# 2. `steps = 4000`: is the second network decided later, or does it stay where it is?
# 3. Put your own network, features and labels in the place of `train`, and leave the rest.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
