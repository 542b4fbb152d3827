# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # DRAFT
#
# ## What was predicted
#
# Five cells were looked at first ($K$, $L$, $d$, $\sigma$ = 4, 3, 8, 0.7; 4, 4, 16, 1; 4, 4, 8, 0.5; 6, 3, 16, 0.7; 6, 4, 32, 1). From them, before any of the 72 held-out cells was run:
#
# 1. At the same logits efficient starts end lower: the slope of the height on log efficiency is negative.
# 2. But at the same logits, weight norm *and* efficiency wide factors end at least 0.2 higher than skewed ones, at $d\ge16$.
# 3. It fails where there is nothing redundant: at $d = K$ the two kinds differ by less than 0.15.
# 4. At the same logits and weight norm scaled factors, more efficient by a factor of $e$ and more, end within 0.15 of skewed ones.
# 5. The slowest rate predicts the end better than efficiency, with slopes fitted to the five cells.
# 6. Among balanced starts of one cell, where efficiency says how low the rank of the logits already is, it predicts the end: negative slope.

# %% tags=["parameters"]
classes: list[int] = [4, 5, 6]  # numbers of classes K [4, 10]
depths: list[int] = [3, 4, 5]  # depths L [2, 8]
widths: list[int] = [0, 8, 16, 32]  # widths d of the Gaussian networks, 0 stands for K [0, 128]
scales: list[float] = [0.6, 0.9]  # initial scales σ, entries N(0, σ²/fan-in) [0.1, 2]
networks: int = 16  # networks, that is logits, a cell [4, 1024]
every: int = 20  # every n-th row of cells is computed here, the others are read from the table [1, 1000]
seed: int = 0  # first seed of all [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import numpy as np
import pandas
import torch

import dufm
from dufm import alignment, claims, notebook, stats, sweep, width

p = notebook.start("16_efficiency_decides", globals())
STARTS = [("wide", 1.0), ("wide", 0.5), ("skewed", 1.0), ("skewed", 0.5), ("scaled", 1.0), ("wide", 0.0)]

# %%
CELL, EXPLORED = ["num_classes", "depth", "width", "scale"], [(4, 3, 8, 0.7), (4, 4, 16, 1.0), (4, 4, 8, 0.5), (6, 3, 16, 0.7), (6, 4, 32, 1.0)]
held = [(K, L, d or K, s) for K in p.classes for L in p.depths for d in p.widths for s in p.scales]
cells = [(*cell, p.seed + first) for cell, first in [*((cell, 0) for cell in EXPLORED), *((cell, 1000 * (i + 1)) for i, cell in enumerate(held))]]
wanted = [dict(zip([*CELL, "first", "kind", "excess"], (*cell, *start))) for cell in cells for start in STARTS]
here = sweep.run(alignment.realigned_ends, wanted[:: p.every], seeds=range(p.networks), **notebook.sweep_options())
