# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Overview: what is claimed, what came out, and how to run it
#
# Train a deep linear model on a classification task without any regularisation, long past the point where every
# sample is classified correctly. Which geometry do the class representations end in? For two layers the answer is
# *neural collapse*: all classes at equal angles, the simplex. *The Implicit Bias of Depth: From Neural Collapse to
# Softmax Codes* (C. Garrod, J. P. Keating, C. Thrampoulidis, ICML 2026,
# [arXiv:2605.23087](https://arxiv.org/abs/2605.23087)) announces that with depth this changes: low-rank
# configurations, softmax codes, take its place. These notebooks derive and measure what the abstract of that paper
# announces, and some things beyond it.
#
# This page is the map. It is generated from the ledger `claims.toml` and from what the other notebooks recorded.

# %% [markdown]
# ## Parameters
#
# Nothing is computed here; the two parameters are those that every notebook has.

# %% tags=["parameters"]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
from IPython.display import Markdown

from dufm import claims, figures, notebook

p = notebook.start("00_overview", globals())

# %% [markdown]
# ## The notebooks

# %%
Markdown("\n".join(f"- [{name}]({name}.ipynb): {notebook.title(name)}" for name in notebook.names()))

# %% [markdown]
# ## The claims
#
# *Source* says whether the paper's abstract announces a claim or this companion adds it. *Proved* and *measured*
# claims must pass, or the run that checks them fails; a *hypothesis* reports what came out; a claim that *deviates*
# did not come out as expected, and its notebook says why.

# %%
Markdown(claims.table())

# %% [markdown]
# ## Verdict

# %% tags=["verdict"]
print(claims.summary())

# %% [markdown]
# ## The figures

# %%
Markdown(figures.gallery())

# %% [markdown]
# ## This run beside what was published
#
# The tables above show the committed results. If you ran notebooks yourself, this one shows what they recorded in
# your output folder. Under parameters other than the published ones a claim is *not applicable*.

# %% tags=["nbval-ignore-output"]
Markdown(claims.table(claims.records(notebook.out_dir() / "records.json")))

# %% [markdown]
# ## How to read a notebook, and how to run it again
#
# Each notebook states a claim in its title, derives it in short steps, computes it, draws a figure and checks the
# claim in its verdict cell. Then it shows where the claim breaks, and ends with exercises.
#
# - **In JupyterLab:** change the cell tagged `parameters`, then *Run All*.
# - **From the command line:** `dufm reproduce 03 -p num_classes=5` runs notebook 03 with five classes into the folder
#   `out`; `dufm list` shows the parameters of every notebook.
# - **With papermill:** `papermill notebooks/03_max_margin.ipynb out.ipynb -p num_classes 5`.
# - **Everything, as published:** `make reproduce`.
#
# The budget `smoke` takes seconds, `default` is what is committed, `full` takes more seeds and larger problems.
#
# ## Try it
#
# 1. Run notebook 03 with `num_classes=5` and come back: which claims are *not applicable* in the table of your run?
# 2. Change an `expected` in `claims.toml` so that it is wrong, and run `dufm reproduce` on that notebook. What does
#    the command return to the shell?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
