"""What decides whether depth's solution is the softmax code: excess of margin against two conditions on the code."""

import numpy as np

from dufm import figures

LABELS = {"nc": "NC", "polygon": "polygon", "orthoplex": "orthoplex, vertices missing or not", "other": "other code"}
WORDS = {"nc": "NC", "polygon": "polygons", "orthoplex": "orthoplexes", "other": "others"}
MARKS = {"nc": "o", "polygon": "^", "orthoplex": "s", "other": "D"}
FLOOR = 1e-7
UNKNOWN = 0.06  # height of the codes at depths that were not searched


def draw(data):
    fig, axes = figures.subplots(1, 2, width=7.0, height=3.2, sharey=True)
    codes = zip(data["code"], data["num_classes"], strict=True)
    kinds = np.array(["orthoplex" if "single" in name else figures.kind_of(name, K) for name, K in codes])
    excess = np.where(data["excess"] < FLOOR, 0, data["excess"])
    unknown = np.isnan(excess)
    excess = np.where(unknown, UNKNOWN, excess)
    for ax, key in zip(axes, ("equal_multipliers", "condition"), strict=True):
        residual = np.where(data[key] < FLOOR, 0, data[key])
        for kind, label in LABELS.items():
            here = kinds == kind
            color = figures.PALETTE[kind] if kind != "other" else "0.45"
            dot = {"marker": MARKS[kind], "color": color, "edgecolor": "white", "linewidth": 0.4}
            ax.scatter(residual[here], excess[here], s=20, label=label, **dot)
        ax.set_xscale("symlog", linthresh=1e-2, linscale=0.5)
        ax.set_yscale("symlog", linthresh=1e-4, linscale=0.4)
        ax.set(xlim=(-2e-3, 0.35), ylim=(-4e-5, 0.09))
        ax.set_xticks([0, 0.01, 0.1], ["0", "0.01", "0.1"])
        ax.minorticks_off()
        at_zero = kinds[(residual == 0) & (excess == 0)]
        counts = [f"{(at_zero == kind).sum()} {WORDS[kind]}" for kind in LABELS if kind in at_zero]
        lines = [", ".join(part) for part in (counts[:2], counts[2:]) if part]
        words = f"here {len(at_zero)}: " + ",\n".join(lines)
        if len(at_zero):
            ax.annotate(words, (0, 0), (4, 19), textcoords="offset points", fontsize=7.5)
    note = {"textcoords": "offset points", "ha": "center", "fontsize": 7.5}
    if not unknown.all():
        axes[0].annotate("unequal multipliers, and yet the best", (0.1, 0), (0, 7), **note)
    ticks = {0: "0", 1e-4: "0.01%", 1e-3: "0.1%", 1e-2: "1%"} | ({UNKNOWN: "not searched"} if unknown.any() else {})
    axes[0].set_yticks(list(ticks), list(ticks.values()))
    axes[0].set_title("equal multipliers: sufficient", fontsize=9)
    axes[1].set_title(r"depth's condition $(\ast\ast)$: decides", fontsize=9)
    axes[0].set(xlabel="residual of the code", ylabel="excess of depth's margin\nover the code's")
    axes[1].set(xlabel="residual of the code")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, handletextpad=0.2)
    return fig
