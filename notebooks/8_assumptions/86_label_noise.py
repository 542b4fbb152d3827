# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Label noise
#
# Four classes, balanced starts of size 0.1, L = 2, 3, 4, noise 0.3, 0.01, 0.0001, seeds not yet run.
#
# **Predicted** (from 24 other starts a cell): every network at every noise and depth ends in collapse of size s*; at time 0.1/ε and ε = 1e-4 most networks of four layers have effective rank below 2.5 and few of two layers; the time at which the effective rank is last below 2.5 grows like 1/ε, exponent between 0.9 and 1.1 at L = 3 and 4; beside the square the time to escape is that of the law to 5%.
