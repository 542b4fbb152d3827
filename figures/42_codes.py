"""Ranks in which random spectra of eight groups end, with share and best margin, and the least rank of each group."""

from dufm import figures

WORDS = {"nc": "neural collapse", "polygon": "polygon", "orthoplex": "orthoplex", "cube": "cube", "other": "other code"}


def draw(data):
    names = list(dict.fromkeys(data["group"].tolist()))
    fig, ax = figures.subplots(width=7.0, height=3.2)
    for place, name in enumerate(names):
        here = data["group"] == name
        classes, least = int(data["num_classes"][here][0]), int(data["least"][here][0])
        ax.plot([place - 0.3, place + 0.3], [classes - 1] * 2, color="black", linewidth=0.6, zorder=1)
        ax.plot([place - 0.3, place + 0.3], [least] * 2, color="black", linewidth=2.0, zorder=1)
        for rank, share, ratio, code in zip(
            data["rank"][here], data["count"][here] / data["total"][here], data["ratio"][here], data["name"][here],
            strict=True,
        ):  # fmt: skip
            kind = figures.kind_of(str(code), classes)
            style = {"color": figures.PALETTE[kind], "marker": figures.MARKER[kind], "zorder": 3}
            ax.scatter(place, rank, s=12 + 150 * share, **style)
            ax.annotate(f"{ratio:.2f}", (place, rank), xytext=(9, 4), textcoords="offset points", fontsize=7)
    for kind, word in WORDS.items():
        ax.plot([], [], figures.MARKER[kind], color=figures.PALETTE[kind], label=word)
    ax.plot([], [], color="black", linewidth=0.6, label="$K-1$")
    ax.plot([], [], color="black", linewidth=2.0, label="least rank")
    ax.legend(loc="upper left", ncols=2)
    pretty = [name.replace("Z", r"\mathbb{Z}").replace(" x ", r"\times ") for name in names]
    ax.set_xticks(range(len(names)), [f"${text}$" for text in pretty])
    ax.set_xlim(-0.5, len(names) - 0.3)
    ax.set_ylim(1, max(data["num_classes"]) + 0.5)
    ax.set(xlabel="group", ylabel="rank of the end")
    return fig
