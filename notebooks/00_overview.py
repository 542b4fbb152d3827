# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Deeper networks end at lower rank, unless they are wide: the story in pictures
#
# **Question.** Train a deep linear classifier without regularisation, long past the point where every sample is right. Which
# geometry do the class means end in?
#
# **Answer.** At two layers in *neural collapse*, all classes at equal angles. From three layers on with six classes or more, from four on with four or five, other
# arrangements of lower rank do better, and such are reached: often *softmax codes*, though not for every number of classes. *The Implicit Bias of Depth: From Neural Collapse to Softmax Codes* (C. Garrod,
# J. P. Keating, C. Thrampoulidis, ICML 2026, [arXiv:2605.23087](https://arxiv.org/abs/2605.23087)) announces this. These notebooks
# derive and measure what its abstract says, and some things beyond it; here is a picture for each part. Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/00_overview.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/00_overview.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %% tags=["parameters"]
seed: int = 0  # not used: nothing is drawn [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
from IPython.display import Markdown, display

from dufm import claims, figures, notebook
from dufm.companion import pages

p = notebook.start("00_overview", globals())
for title, question, answer, figure, links in pages.overview():
    display(Markdown(f"## {title}\n\n**{question}** {answer}"))
    figures.published(figure)
    display(Markdown(links))

# %% [markdown]
# ## What came out
#
# A claim *holds* when its number meets the expectation that stands in the ledger; a hypothesis may be *refuted*; a claim that
# *deviates* did not come out as stated, and its notebook says why. The whole ledger is [LEDGER.md](../LEDGER.md).

# %%
print(claims.counts(claims.recorded()))

# %% [markdown]
# ## How to read on
#
# Each notebook asks one question and answers it with a picture; the proof and the measurement follow, then the verdict, the case
# where it breaks, and exercises ([answers](answers.md)). In JupyterLab, change the cell tagged `parameters` and run all cells. From a terminal,
# `dufm reproduce 57 -p "depths=[3,20]"` runs one notebook with other parameters into the folder `out`; `dufm list 57` shows what a
# notebook takes. Under parameters other than the published ones a verdict is *not applicable*.

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
