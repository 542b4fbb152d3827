"""Singular values of the best solution found against depth, with their multiplicity, for the largest K."""

import numpy as np

from dufm import figures


def draw(data):
    K = int(data["num_classes"].max())
    fig, ax = figures.subplots(width=7.0, height=2.9)
    least = 1.0
    depths = np.unique(data["depth"][data["num_classes"] == K])
    for L in depths:
        Z = np.zeros((K, K))
        here = (data["num_classes"] == K) & (data["depth"] == L)
        Z[data["row"][here], data["column"][here]] = data["value"][here]
        sigma = np.linalg.svd(Z - Z.mean(0), compute_uv=False)
        values, counts = np.unique(np.round(sigma[sigma > 1e-5 * sigma[0]] / sigma[0], 3), return_counts=True)
        least = min(least, values.min())
        ax.scatter(np.full(len(values), L), values, s=12 + 14 * counts, color=figures.depth_color(L), zorder=3)
        for value, count in zip(values, counts, strict=True):
            ax.annotate(f"{count}", (L, value), xytext=(6, 3), textcoords="offset points", fontsize=8)
    ax.set_title(f"best solutions for $K = {K}$ classes")
    ax.set(ylim=(0.9 * least, 1.06), xlabel="depth $L$", ylabel=r"singular values, $\sigma_i/\sigma_1$")
    ax.set_xticks(depths)
    ax.annotate("number: how many coincide", (0.02, 0.03), xycoords="axes fraction", fontsize=8)
    return fig
