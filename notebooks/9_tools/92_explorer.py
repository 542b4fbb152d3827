# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Explore: move the depth, the width, the scale, and see which end the classes reach
#
# **Question.** How do the singular values move, where in the triangle do they stand, what does the code look like, and which end is it, if I change one thing?
#
# **Answer.** Run the cells and move the sliders of the last picture. The spectral model answers at once, a network within a second or two, with the certificate of its end. Started at the spectral model's own start a network mostly moves and ends with it, but not always: rounding is enough to leave what attracts only inside a symmetry.
#
# Before: [91, your own network](91_your_own_network.ipynb). After: [93, what a decided end costs](93_cost.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/9_tools/92_explorer.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/9_tools/92_explorer.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("92_explorer")

# %% [markdown]
# *One run of either model at the sharpness of the grey line. From left to right: the share that each singular value has of their sum; their place in the triangle of [56](../5_dynamics/56_basin_map.ipynb), the star their end (other numbers of classes: bars); the classes, a dot each; the normalised margin over that of neural collapse, dashed.* [Drawn by](../../figures/92_explorer.py)
#
# ## Statement
#
# What the sliders mean:
#
# - *K*, *L*, *width*: classes, factors (the features are the first) and the width of the hidden ones. The spectral model has no width: it needs $K - 1$.
# - *scale*: how large the singular values of the logits are at the start, $s_0$. In the spectral model it is their mean, and their proportions are drawn uniformly. The network is Gaussian with layers of scale $s_0^{1/L}$. Of such layers the expected squared norm of $Ze_c$ is the product of theirs,
#   $\mathbb E\|Ze_c\|^2 = \prod_l (s_0^{1/L})^2 = s_0^2$, so $s_0$ is the root mean square of the singular values. One slider, one meaning.
# - *seed*: of the draw.
# - *sharpness*: how far training has gone, $-\log\mathcal L$; at 4 every sample is right, at 256 no floating-point loss is left to see. *end* is the limit, decided and certified as in [21](../2_margin/21_where_the_flow_ends.ipynb). Nothing is computed again when it moves: it is a way to look along the run.
# - *turn*: turns the picture, nothing else.
#
# *The flow of a network at a spectral start never leaves the spectral model* ([41](../4_spectral/41_frozen_vectors.ipynb)), *so both panels should end in the same solution.* That is proved for exact arithmetic. In floating point the network is a product of matrices that is told nothing of its symmetry; an end that is a saddle among all networks could be left by rounding.
# Two things are measured below, at starts drawn over the sliders' ranges: whether they move together, and whether they end together.

# %% tags=["parameters"]
num_classes: int = 4  # classes K [3, 8]
depth: int = 4  # factors L [2, 8]
width: int = 16  # width of the network d [2, 32]
scale: float = 0.1  # size of the singular values at the start [0.001, 1]
state: int = 9  # which state is shown, 0 the start and 14 the end [0, 14]
turn: int = 25  # turn of the picture, degrees [0, 360]
draws: int = 200  # settings drawn for the verdict [1, 1000]
every: int = 25  # every n-th of them is computed here, the others are read from the table [1, 1000]
interactive: str = "auto"  # sliders where a reader runs the cells, everywhere or nowhere {auto, always, never}
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import pandas

from dufm import claims, explorer, figures, notebook, stats

p = notebook.start("92_explorer", globals())

# %% [markdown]
# ## One setting, plainly
#
# What a panel calls is a generator: it yields the share of the work that is done, which is the bar, and can be left at each yield, which is how a new move cancels an old run.

# %%
runs = {
    "spectral": explorer.finished(explorer.spectral(p.num_classes, p.depth, p.scale, p.seed)),
    "network": explorer.finished(explorer.network(p.num_classes, p.depth, p.width, p.scale, p.seed)),
}
for panel, run in runs.items():
    print(panel + ":", explorer.words(run, p.state))
table = pandas.concat([pandas.DataFrame(explorer.columns(panel, run, p.state, p.turn)) for panel, run in runs.items()])
figures.store("92_explorer", table)

# %% tags=["figure"]
figures.show(
    "92_explorer",
    alt="Two rows of four pictures, the spectral model above, a network below: singular values as shares along the loss, their path in a triangle to a star, the four classes as a body, and the margin over that of neural collapse.",
)

# %% [markdown]
# ## Both panels at the same start
#
# Settings drawn over the sliders' ranges; at each the spectral model, and a network that starts at its singular values and vectors. They end together if both are decided, at one rank and with margins equal to six digits; `apart` is the largest distance of their logits, scaled to norm 1, up to sharpness 256. All were computed once, by `dufm reproduce 92 -p every=1`, and stand in [92_beside.csv](92_beside.csv); some are computed here again. What rounding decides differs from machine to machine, so that they may differ.

# %% tags=["nbval-ignore-output"]
drawn = explorer.settings(p.draws, p.seed)
known = notebook.committed("92_beside")
here = pandas.DataFrame([explorer.beside(**setting) for setting in notebook.progress(drawn[:: p.every], label="settings")])
both = here.merge(known, on=explorer.SETTING, suffixes=("", "_known"))
print(f"{len(here)} of {len(drawn)} settings computed here, {(both.network != both.network_known).sum()} of {len(both)} end otherwise than in the table")

# %%
beside = pandas.concat([known, here]).drop_duplicates(explorer.SETTING).merge(pandas.DataFrame(drawn))
apart = beside[~beside["same"]]
apart.groupby(["num_classes", "spectral", "network"]).agg(settings=("seed", "size"), depths=("depth", lambda found: ", ".join(map(str, sorted(set(found))))))

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
print("share that ends elsewhere, 95% interval: {:.3f} to {:.3f}".format(*stats.wilson(len(apart), len(beside))))
claims.check("92-panels", len(apart))
claims.check("92-together", beside["apart"][beside["same"]].max())

# %% [markdown]
# ## The sliders
#
# Every slider takes the keyboard: tab to it, then the arrow keys. Below the sliders each panel has its bar, the words for its picture, and the picture. Without a reader (papermill, nbval) the cell says so and shows the picture above; `interactive` overrides it.

# %%
from IPython.display import display

from dufm import panels

if p.interactive == "always" or (p.interactive == "auto" and panels.attended()):
    display(panels.sliders(p, explorer))
else:
    print("No reader here: the sliders stand where this cell is run in JupyterLab, Voilà or Binder.")

# %% [markdown]
# ## Where it breaks
#
# *Ends that attract only inside a symmetry.* All ends that are left but one of rank 3 are cubes or of rank 4, with six, seven or eight classes: half of the cubes, and two thirds of the ends of rank 4 at seven classes ([43](../4_spectral/43_turned_vectors.ipynb) turns such networks on purpose). Nine are left on the way past the saddles of a small deep start, with logits `apart` by more than a half, the others late. The certificate certifies a critical point, not that anything else ends there.
#
# *Time.* Narrow deep networks (width 2 or 3 at depth 7 or 8) grow logits of rank 1 and size $10^5$ to $10^7$ before they leave that saddle, and take two to four seconds to their end; the bar shows how far they are. After 1000 steps the panel gives up and says so. *Undecided ends.* A network that is still turning when the limit has followed it for a factor of $e^{300}$ in the margin is shown as undecided, with the reason in words.
#
# ## Try it ([answers](../answers.md#92))
#
# 1. Four classes, scale 0.001: raise the depth from 2 and watch the path in the triangle.
# 2. Eight classes, depth 6: which ends do seeds 0 to 9 reach at width 8, and at width 32?
# 3. Width 2: what is left of neural collapse?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
