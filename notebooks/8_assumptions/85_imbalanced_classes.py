# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Imbalanced classes
#
# Four classes, width 8, scale 0.7; the first class R times as large as the others, R = 1/100 … 100, by weight or by number of free samples; L = 2, 3, 4; seeds 0 … 127, none of them run yet.
#
# **Predicted** (from 32 other networks a cell, seeds from 1000, scale 0.5):
#
# 1. By weight: every run rests at a certified solution of the problem with equal weights, and at every R the share of ends of rank below 3 is higher at L = 4 than at L = 2, intervals apart. The same by samples.
# 2. By samples, R = 1/100, L = 3: more than half of the networks rest at rank 3 and *not* in collapse, though collapse is critical.
# 3. By weight the share of collapse changes little; if anything a rare class raises it at L = 3.
