# %% [markdown]
# # Weight decay
#
# Predictions, from 64 starts of a kind (seeds 0 to 63), for seeds from 1000 on: the claims 83-weak, 83-depth and 83-rung.
