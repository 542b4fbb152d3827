# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Spectral initialisation: the softmax is diagonalised, the singular vectors freeze, and training is K − 1 scalar equations
#
# **Question.** Is there a start from which a deep network with a softmax loss can be solved on paper, as deep *linear* regression can?
#
# **Answer.** Yes. If the logits are a group matrix, $Z_{ab} = f(a - b)$ on a finite abelian group, so is their softmax. Balanced factors aligned with the characters then keep their singular vectors
# for ever and only the singular values move, by one scalar equation each. For $K = 2^m$ the characters are Hadamard's rows; cyclic groups and products of them
# give *every* $K$. Vectors turned by a small angle follow the scalar equations up to an error in proportion to that angle; for deep networks what was turned then grows, slowly, and leaves them.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
log2_classes: int = 3  # log2 of the number of classes of the Hadamard start [2, 4]
depths: list[int] = [2, 3, 5]  # depths L, the features included [2, 10]
scale: float = 0.1  # initial mean singular value [0.001, 1]
starts: int = 8  # random spectra for each group and depth [1, 256]
code_depth: int = 6  # depth at which the codes of each group are looked for [3, 12]
angles: list[float] = [1e-3, 1e-2, 1e-1]  # angles by which vectors are turned, radians [1e-8, 0.3]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import math

import numpy as np
import torch

import dufm
from dufm import claims, figures, notebook

p = notebook.start("06_spectral_initialization", globals())
smoke = p.budget == "smoke"
K = 2**p.log2_classes
count = {"smoke": 1, "default": p.starts, "full": 8 * p.starts}[p.budget]
depths = sorted(set(p.depths))[: 2 if smoke else None]
rng = np.random.default_rng(p.seed)


def draw(free, number):
    """Random spectra (number, free), within a factor of 5 of each other, mean scale."""
    s = rng.uniform(0.2, 1.0, (number, free))
    return torch.from_numpy(p.scale * s / s.mean(1, keepdims=True))


# %% [markdown]
# ## The matrix
#
# **Statement.** *Let $\Phi$ be the Sylvester–Hadamard matrix of order $K = 2^m$, rows $\chi_0 = \mathbf 1, \chi_1, \dots, \chi_{K-1}$, and $Z = \frac1K\sum_{i\ge1} s_i\chi_i\chi_i^\top$. Then $\Phi\,\mathrm{softmax}(Z)\,\Phi^\top$ is diagonal.*
#
# **Derivation.**
# 1. Label classes by bit vectors; $\chi_i(a) = (-1)^{\langle i,a\rangle}$ is multiplicative, $\chi_i(a)\chi_i(b) = \chi_i(a + b)$, and $a + b = a - b$. So $z_{ab} = f(a - b)$ with $f(a) = \frac1K\sum_i s_i\chi_i(a)$.
# 2. Any entrywise function of $Z$ is again a function of $a - b$; so is $e^{Z}$ taken entrywise, and all its columns have the same sum. Hence $P_{ab} = p(a - b)$, $p = \mathrm{softmax}(f)$.
# 3. A matrix $h(a - b)$ has the eigenvectors $\chi$ with eigenvalues $\sum_a h(a)\chi(a)$: $\sum_b h(a-b)\chi(b) = \chi(a)\sum_c h(c)\overline{\chi(c)}$. $\square$
#
# The same holds for every finite abelian group: only 1 and 3 used it. For real symmetric $Z$ conjugate characters, $\chi$ and $\bar\chi$, share one $s$ and span a plane, a cosine and a sine.

# %%
groups = {
    f"(Z/2)^{p.log2_classes}": dufm.characters("hadamard", K),
    "Z/5": dufm.characters("cyclic", 5),
    "Z/6": dufm.characters("cyclic", 6),
    "Z/7": dufm.characters("cyclic", 7),
    "Z/9": dufm.characters("cyclic", 9),
    "(Z/3)^2": dufm.characters((3, 3)),
    "Z/12": dufm.characters("cyclic", 12),
    "Z/2 x Z/6": dufm.characters((2, 6)),
}
diagonalised = {}
for name, chi in groups.items():
    s = 30 * draw(chi.num_free, 50)
    P = torch.softmax(chi.logits(s), -2)
    residual = torch.eye(chi.num_classes, dtype=torch.float64) - P
    diagonalised[name] = float(chi.spectrum(residual)[1].max())
    print(f"{name:10s} K = {chi.num_classes:2d}, {chi.num_free} free singular values; I − P off the characters: "
          f"{'below 1e-13' if diagonalised[name] < 1e-13 else f'{diagonalised[name]:.1e}'}")

# %% [markdown]
# ## Training
#
# **Statement.** *Balanced factors $W_1 = \Sigma^{1/L}V^\top$, $W_l = \Sigma^{1/L}$, $W_L = V\Sigma^{1/L}$, with $V$ the normalised characters, keep this form under gradient flow and under plain gradient descent. Under the flow*
# $$\dot s_i = L\,s_i^{2-2/L}\,g_i,\qquad g_i = \sum_a p(a)\bigl(1 - \operatorname{Re}\chi_i(a)\bigr).$$
#
# **Derivation.**
# 1. $-\partial\mathcal L/\partial Z = I - P$ is diagonal in the characters, with eigenvalue $1 - \sum_a p(a)\chi_i(a) = g_i$ (and 0 for the trivial character, which therefore never moves; it starts at 0).
# 2. $-\partial\mathcal L/\partial W_l = W_{>l}^\top(I - P)W_{<l}^\top$ is diagonal between the same vectors as $W_l$: for the singular value $w$ of each factor, $\dot w_i = w_i^{L-1}g_i$. A step of descent adds a matrix of the same form, so it keeps the form too. (Adam does not: it
#    rescales entries one by one, and does not know the characters.)
# 3. $s = w^L$: $\dot s_i = Lw_i^{L-1}\dot w_i = Ls_i^{2-2/L}g_i$. $\square$
#
# Every $g_i > 0$: all singular values only ever grow. With $u_i = \sqrt{m_iL}\,s_i^{1/L}$ ($m_i = 2$ for a conjugate pair) the scalar system is itself a Euclidean gradient flow, so the stepping that follows
# full networks follows it as well.
#
# Both are followed from the same random spectra and compared at equal loss, together with the part of $\Phi^\top Z\Phi/K$ off the diagonal.

# %%
end_loss = -20.0 if smoke else -100.0
levels = [math.log(K) + 0.3, 1.0, 0.0, -1.0, -3.0, -10.0, -20.0] + ([] if smoke else [-50.0, -100.0])
compare = {name: [] for name in ("group", "num_classes", "depth", "difference", "off", "off_late")}
with notebook.timed("training"):
    cells = [(name, L) for name in list(groups)[: 3 if smoke else None] for L in depths]
    for name, L in notebook.progress(cells, label="training"):
        chi = groups[name]
        s0 = draw(chi.num_free, count)
        record = {"log_loss": levels}
        few = dufm.spectral_flow(s0, L, chi, rtol=1e-8, until_log_loss=end_loss, record=record)
        full = dufm.gradient_flow(dufm.spectral_init(s0, L, chi), rtol=1e-8, until_log_loss=end_loss, record=record)
        met = ~few.history.s.isnan().any(-1)
        s, off = chi.spectrum(full.history.Z.nan_to_num(1.0))
        difference = (s / few.history.s - 1).abs().amax(-1)
        early = torch.tensor(levels).unsqueeze(-1).expand_as(met) >= -20.0
        values = (name, chi.num_classes, L, float(difference[met].max()), float(off[met & early].max()), float(off[met].max()))
        for key, value in zip(compare, values, strict=True):
            compare[key].append(value)
compare = {key: np.array(column) for key, column in compare.items()}
print("group       L   largest relative difference   off the characters, to log ℒ = −20   to the end")
for row in zip(*compare.values(), strict=True):
    shown = ["below 1e-7" if value < 1e-7 else f"{value:.0e}" for value in row[3:]]
    print(f"{row[0]:10s} {row[2]:2d}   {shown[0]:>27s}   {shown[1]:>34s}   {shown[2]:>10s}")
hadamard = np.char.startswith(compare["group"], "(Z/2)")

# %% [markdown]
# What is off the characters has no source in the equations: it is rounding, which an explicit method lets grow in stiff directions until it is as large as its own tolerance, here $10^{-8}$ a step.
# The test of that is to tighten the tolerance: at $10^{-10}$ it must come down.

# %%
frozen = {}
with notebook.timed("frozen"):
    for name, L in [(name, L) for name, L in cells if L == depths[-1] or name.startswith("(Z/2)")]:
        chi = groups[name]
        start = dufm.spectral_init(draw(chi.num_free, count), L, chi)
        full = dufm.gradient_flow(start, rtol=1e-10, until_log_loss=end_loss, record={"log_loss": levels})
        Z = full.history.Z
        met = ~Z.isnan().flatten(-2).any(-1)
        frozen[name, L] = float(chi.spectrum(Z[met])[1].max())
        shown = "below 1e-9" if frozen[name, L] < 1e-9 else f"{frozen[name, L]:.0e}"
        print(f"{name:10s} L = {L}: at rtol 1e-10 off the characters {shown}")

# %% [markdown]
# The picture for one Hadamard start, at the largest of these depths; the full network is a product of matrices that was never told to stay diagonal:

# %%
L = depths[-1]
chi = groups[f"(Z/2)^{p.log2_classes}"]
s0 = draw(chi.num_free, 1)[0]
grid = np.linspace(math.log(K * math.log(K)) - 0.02, -20.0, 30 if smoke else 60)
few = dufm.spectral_flow(s0, L, chi, rtol=1e-8, until_log_loss=grid[-1], record={"log_loss": grid.tolist()})
full = dufm.gradient_flow(dufm.spectral_init(s0, L, chi), rtol=1e-8, until_log_loss=grid[-1], record={"log_loss": grid.tolist()})
s, off = chi.spectrum(full.history.Z)
figures.store(
    "06_paths",
    {
        "depth": np.full(len(grid), L),
        "log_loss": grid,
        "off": off.numpy(),
        **{f"full{i + 1}": s[:, i].numpy() for i in range(chi.num_free)},
        **{f"scalar{i + 1}": few.history.s[:, i].numpy() for i in range(chi.num_free)},
    },
)

# %% tags=["figure"]
import numpy as np

from dufm import figures

data = figures.load("06_paths")
fig, axes = figures.subplots(1, 2, width=7.0, height=2.6)
free = sum(name.startswith("full") for name in data)
x = -data["log_loss"]
order = np.argsort([data[f"full{i}"][0] for i in range(1, free + 1)])
for place, i in enumerate(order):
    shade = 0.75 * place / max(free - 1, 1)
    axes[0].plot(x[::3], data[f"full{i + 1}"][::3], "o", markersize=3, color=(0.0, 0.27 + 0.5 * (0.75 - shade), 0.53 + 0.4 * (0.75 - shade)))
    axes[0].plot(x, data[f"scalar{i + 1}"], color="black", linestyle="--", linewidth=0.8)
axes[0].set_yscale("log")
axes[0].set_xlabel(r"$-\log\mathcal{L}$")
axes[0].set_ylabel("singular values $s_i$")
axes[1].plot(x, np.maximum(data["off"], 1e-17), color=figures.PALETTE["nc"])
axes[1].axhline(1e-8, color="black", linestyle="--", linewidth=0.8)
axes[1].annotate("claimed bound", (x[-1], 1e-8), xytext=(0, 3), textcoords="offset points", ha="right", fontsize=7)
axes[1].set_yscale("log")
axes[1].set_ylim(1e-17, 1e-6)
axes[1].set_xlabel(r"$-\log\mathcal{L}$")
axes[1].set_ylabel(r"off-diagonal share of $\Phi^\top Z\Phi/K$")
figures.save(
    fig,
    "06_paths",
    alt="Left: singular values of a full network, marks, on the dashed curves of the scalar equations, from a loss of two down to e to the minus 20. "
    "Right: the part of the logits off the diagonal in the Hadamard basis stays near rounding, far below the dashed bound.",
)

# %% [markdown]
# *Left: the full network (marks) and $K-1$ scalar equations (dashed). Right: what leaves the diagonal is rounding.*
#
# **Plain gradient descent** discretises time and keeps the vectors as exactly as the flow does:

# %%
descent_off = 0.0
for L in depths:
    start = dufm.spectral_init(draw(chi.num_free, count) * 3, L, chi)
    steps = 200 if smoke else 2000
    end = dufm.gradient_descent(start, lr=0.05, steps=steps, record=[steps // 10, steps])
    offs = chi.spectrum(end.history.Z)[1]
    descent_off = max(descent_off, float(offs.max()))
    print(f"L = {L}: after {steps} steps log ℒ = {float(end.log_loss.median()):.2f}, off the diagonal {'below 1e-10' if offs.max() < 1e-10 else f'{float(offs.max()):.0e}'}")

# %% [markdown]
# ## Which low-rank codes each group can express
#
# Equal $s$ on a subset of characters is a code on which the group acts: an orbit of it. Cyclic groups have the regular polygon (one conjugate pair) at every $K$; $(\mathbb Z/2)^m$ has no polygon for $m \ge 3$, since its real
# characters only flip signs: there the floor is the cube, rank $m$. Deep small random spectra of each group are followed to their ends; each row is one rank, with the best margin relative to neural collapse there.

# %%
number = {"smoke": 60, "default": 600, "full": 6000}[p.budget]
found_codes = {name: [] for name in ("group", "num_classes", "rank", "count", "ratio", "total")}
undecided = {}
with notebook.timed("codes"):
    for name, chi in notebook.progress(list(groups.items()), label="codes"):
        spectra = torch.from_numpy(rng.dirichlet(np.ones(chi.num_free), number).clip(1e-6) * chi.num_free * p.scale)
        run = dufm.spectral_flow(spectra, p.code_depth, chi, until_log_loss=-200.0)
        end = dufm.spectral_end(run.s, p.code_depth, chi)
        undecided[name] = int((~end.decided).sum())
        sure = end.decided
        ratio = dufm.normalized_margin(chi.logits(end.spectrum[sure]), p.code_depth)
        ratio = ratio / dufm.closed_form_margin("nc", chi.num_classes, p.code_depth)
        for rank in sorted(set(end.rank[sure].tolist())):
            here = end.rank[sure] == rank
            for key, value in zip(found_codes, (name, chi.num_classes, rank, int(here.sum()), float(ratio[here].max()), number), strict=True):
                found_codes[key].append(value)
figures.store("06_codes", found_codes)
print(f"L = {p.code_depth}: ranks reached from {number} starts (best margin over collapse's); undecided")
for name in groups:
    rows = [i for i, group in enumerate(found_codes["group"]) if group == name]
    text = ", ".join(f"{found_codes['rank'][i]} ({found_codes['ratio'][i]:.3f})" for i in rows)
    print(f"{name:10s} {text}; {undecided[name]}")

# %% tags=["figure"]
import numpy as np

from dufm import figures

data = figures.load("06_codes")
names = list(dict.fromkeys(data["group"].tolist()))
fig, ax = figures.subplots(width=7.0, height=2.6)
for place, name in enumerate(names):
    here = data["group"] == name
    classes = int(data["num_classes"][here][0])
    for rank, number, ratio, total in zip(*(data[key][here] for key in ("rank", "count", "ratio", "total")), strict=True):
        kind = "nc" if rank == classes - 1 else "cube" if name.startswith("(Z/2)^") and 2**rank == classes else "polygon" if rank == 2 else "orthoplex" if rank == classes / 2 else "other"
        ax.scatter(place, rank, s=15 + 160 * number / total, color=figures.PALETTE[kind], marker=figures.MARKER[kind], zorder=3)
        ax.annotate(f"{ratio:.2f}", (place, rank), xytext=(9, -3), textcoords="offset points", fontsize=7)
    ax.plot([place - 0.25, place + 0.08], [classes - 1, classes - 1], color="black", linestyle="--", linewidth=0.9)
pretty = [name.replace("Z", r"\mathbb{Z}").replace(" x ", r"\times ").replace("^2", "^2") for name in names]
ax.set_xticks(range(len(names)), [f"${text}$" for text in pretty])
ax.set_xlim(-0.5, len(names) - 0.2)
ax.set_ylim(1, 12)
ax.set_ylabel("rank of the end")
figures.save(
    fig,
    "06_codes",
    alt="Ranks in which random spectra of eight abelian groups end, with the margin relative to neural collapse beside each mark and its size the share of "
    "starts. Cyclic groups end mostly at rank 2, the polygon; Hadamard at rank 3; the product of two groups of order three at rank 4 or 2.",
)

# %% [markdown]
# *Ends by group. The number is the best margin over that of neural collapse at that rank; the size of a mark, the share of starts; dashed, rank $K-1$. Triangles: polygons; squares: rank $K/2$; diamond: the cube.*
#
# ## Verdict

# %% tags=["verdict"]
claims.check("06-softmax-diagonalised", max(diagonalised.values()))
claims.check("06-scalar-equations", float(compare["difference"][hadamard].max()))
claims.check("06-frozen", max(value for (name, _), value in frozen.items() if name.startswith("(Z/2)")))
claims.check("06-descent", descent_off)
claims.check("06-any-group", float(compare["difference"][~hadamard].max()))
claims.check("06-any-group-frozen", max(value for (name, _), value in frozen.items() if not name.startswith("(Z/2)")))
polygons = [i for i, group in enumerate(found_codes["group"]) if found_codes["rank"][i] == 2 and group in ("Z/5", "Z/7", "Z/9")]
law = [dufm.closed_form_margin("polygon", found_codes["num_classes"][i], p.code_depth) / dufm.closed_form_margin("nc", found_codes["num_classes"][i], p.code_depth) for i in polygons]
claims.check("06-polygons", max((abs(found_codes["ratio"][i] / want - 1) for i, want in zip(polygons, law, strict=True)), default=float("nan")))

# %% [markdown]
# ## Where it breaks
#
# Turn the singular vectors: $Z_0 \to RZ_0R^\top$ with a rotation $R$ by a small angle in a random direction of the space orthogonal to $\mathbf 1$. The turned start is no group matrix. How long do the scalar equations stay right? Followed is a start that ends in the cube ($K = 8$)
# or the square ($K = 4$), at the deepest of `depths`.

# %%
L = depths[-1]
chi = groups[f"(Z/2)^{p.log2_classes}"]
lead = torch.full((chi.num_free,), 0.7 * p.scale, dtype=torch.float64)
lead[[2**i - 1 for i in range(p.log2_classes)]] = 1.3 * p.scale
horizon = -50.0 if smoke else -1000.0
grid = [1.0, 0.0] + (-np.geomspace(1.0, -horizon, 12 if smoke else 40)).tolist()
scalar = dufm.spectral_flow(lead, L, chi, rtol=1e-8, until_log_loss=horizon, record={"log_loss": grid}).history.s
generator = np.random.default_rng(p.seed)
A = generator.standard_normal((K, K))
centre = np.eye(K) - 1 / K
A = centre @ (A - A.T) @ centre
A /= np.linalg.norm(A, 2)
turned = []
for angle in p.angles:
    R = torch.linalg.matrix_exp(torch.from_numpy(angle * A))
    turned.append(R @ chi.logits(lead) @ R.T)
run = dufm.gradient_flow(dufm.balanced_init(torch.stack(turned), L), rtol=1e-7, until_log_loss=horizon, record={"log_loss": grid})
sigma = torch.linalg.svdvals(run.history.Z)[..., : K - 1]
expected = scalar.sort(descending=True).values.unsqueeze(1)
deviation = (sigma - expected).norm(dim=-1) / expected.norm(dim=-1)
inner = chi.basis.mT @ run.history.Z @ chi.basis
off = (inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))).flatten(-2).norm(dim=-1) / inner.flatten(-2).norm(dim=-1)
broken = {"angle": [], "log_loss": [], "deviation": [], "off": []}
print(" angle     scalar equations right to 1% until log ℒ =   deviation at the end   off the diagonal, end over log ℒ = -1")
for j, angle in enumerate(p.angles):
    wrong = (deviation[:, j] > 0.01).nonzero().squeeze(-1)
    until = f"{grid[int(wrong[0]) - 1]:.3g}" if len(wrong) and int(wrong[0]) > 0 else "the start" if len(wrong) else "the end"
    print(f"{angle:7.0e}   {until:>43s}   {float(deviation[-1, j]):20.4f}   {float(off[-1, j] / off[2, j]):10.2f}")
    for value, level, loss in zip(deviation[:, j].tolist(), off[:, j].tolist(), grid, strict=True):
        for key, item in zip(broken, (angle, loss, value, level), strict=True):
            broken[key].append(item)
figures.store("06_turned", broken)

# %% tags=["figure"]
import numpy as np

from dufm import figures

data = figures.load("06_turned")
fig, axes = figures.subplots(1, 2, width=7.0, height=2.5)
styles = ["-", "--", ":", "-."]
for number, angle in enumerate(sorted(set(data["angle"].tolist()))):
    here = data["angle"] == angle
    x = -data["log_loss"][here]
    for ax, name in zip(axes, ("off", "deviation"), strict=True):
        ax.plot(x, np.maximum(data[name][here], 1e-12), color=figures.PALETTE["cube"], linestyle=styles[number % 4])
    y = data["off"][here]
    axes[0].annotate(f"$10^{{{np.log10(angle):.0f}}}$", (x[0], y[0]), xytext=(2, 4), textcoords="offset points", fontsize=7)
axes[1].axhline(0.01, color="black", linestyle="--", linewidth=0.8)
axes[1].annotate("1%", (0, 0.01), xytext=(0, 3), textcoords="offset points", fontsize=7)
for ax in axes:
    ax.set_xscale("symlog", linthresh=2)
    ax.set_xlim(-1.2, 1.3 * x[-1])
    ax.set_yscale("log")
    ax.set_xlabel(r"$-\log\mathcal{L}$")
axes[0].set_ylabel("off the diagonal")
axes[1].set_ylabel("deviation of the spectrum")
figures.save(
    fig,
    "06_turned",
    alt="After a rotation of the initial vectors by three small angles: left, the part of the logits off the diagonal, first level, then slowly growing; right, the relative "
    "deviation of the singular values from the scalar equations, in proportion to the angle; only the largest angle passes the dashed one percent.",
)

# %% [markdown]
# *Left: what is off the diagonal, for three angles; the lines are labelled by the angle in radians. Right: the spectrum of the full network against the scalar equations.*
#
# Late in training the turned part grows (or shrinks, at $L = 3$) like a power of the margin only. The cube is not a local optimum of the full problem, but leaving it takes a very large margin, or a large angle.
#
# The other limit of the picture is a spectrum that is not real. For a group matrix that is not symmetric only the planes of conjugate characters are kept, and phases turn inside them; `dufm` refuses such a spectrum rather than follow it wrongly.
#
# ## Try it
#
# 1. `log2_classes = 4`: which ranks does $(\mathbb Z/2)^4$ reach that $\mathbb Z/12$ does not?
# 2. `code_depth = 3`: which groups now end in neural collapse as well?
# 3. `angles = [0.2, 0.3]`: is there anything left of the scalar equations?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
