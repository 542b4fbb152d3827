# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A softmax code is depth's solution, up to twelve classes, exactly where it satisfies depth's own conditions
#
# **Question.** One problem fixes the lengths of all vectors, the other the singular values' powers. Why should they ever have the same solution, and when do they part?
#
# **Answer.** Their first-order conditions have the same left-hand sides. The right-hand sides coincide for tight frames with equal multipliers, and therefore for every code
# whose symmetries mix all classes and all directions, at every depth. They can coincide without that, as for the antiprism and for orthoplexes with vertices missing. Where the code does not satisfy the conditions something better must exist; where it does, up to twelve classes, none is found.
# Before: [33, depth against the code](33_depth_against_code.ipynb). After: [35, which are reached](35_reached.ipynb). Run it on [Binder](https://mybinder.org/v2/gh/OWNER/REPO/HEAD?urlpath=lab/tree/notebooks/3_codes/34_why_they_agree.ipynb), or on [Colab](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/3_codes/34_why_they_agree.ipynb) after [two lines](https://github.com/OWNER/REPO/blob/main/INSTALL.md#colab).

# %%
from dufm import figures

figures.published("34_conditions")

# %% [markdown]
# *One mark for each $K = 4\dots12$, rank and depth; up: by how much the best solution exceeds the code. Left: against the residual of the sufficient condition, equal multipliers;
# right: against that of depth's own condition $(\ast\ast)$ for the code. Values below $10^{-7}$ are drawn at 0.* [Drawn by](../../figures/34_conditions.py)

# %% [markdown]
# ## Statement
#
# Let $\Lambda=\sum\lambda_{jc}(e_c-e_j)e_c^\top$ with $\lambda\ge0$ on the pairs whose margin $\langle w_c-w_j,h_c\rangle$ is smallest; the columns of $\Lambda$ sum to zero.
#
# *The code.* Stationarity of $\max\min\langle w_c-w_j,h_c\rangle$ over unit vectors, with a multiplier for each length:
# $$\Lambda H=\operatorname{diag}(\alpha)\,W,\qquad \Lambda^\top W=\operatorname{diag}(\beta)\,H .$$
# *Depth.* Stationarity of $\sum_i\sigma_i^p$, $p=2/L$, at $Z=AB^\top=U\Sigma V^\top$ reads $\Lambda V=U\Sigma^{p-1}$, $\Lambda^\top U=V\Sigma^{p-1}$ ([21](../2_margin/21_where_the_flow_ends.ipynb)). To write it without singular vectors
# let $R=A^\top A$, $S=B^\top B$. From $ZZ^\top A=A\,SR$, any power acts as $(ZZ^\top)^{a}A=A\,(SR)^{a}$, so that $U\Sigma^{p-1}V^\top B=(ZZ^\top)^{p/2-1}ZB=A\,(SR)^{p/2-1}S$. Hence
# $$\Lambda B=A\,(SR)^{p/2-1}S,\qquad \Lambda^\top A=B\,(RS)^{p/2-1}R ,\qquad A=(I-\tfrac1KJ)W,\ B=H. \qquad(\ast\ast)$$
#
# **Statement.** *If $W$ and $H$ are tight frames, $W^\top W=H^\top H=\frac Kr I$, and the code's conditions hold with $\alpha_k=\beta_k=a>0$ for all classes, then $W$, $H$ solve $(\ast\ast)$ at every depth.*
#
# **Proof.** The columns of $\Lambda$ sum to zero, so summing the rows of $\Lambda H=aW$ gives $\sum_kw_k=0$: $A=W$. With $R=S=\frac KrI$ the right-hand sides of $(\ast\ast)$ are $(K/r)^{p-1}W$ and $(K/r)^{p-1}H$,
# so $\Lambda$, multiplied by $(K/r)^{p-1}/a$, satisfies both. $\square$
#
# **Symmetry gives all of it.** *Let a group of orthogonal maps of $\mathbb R^r$, $r\ge2$, permute the vectors of a softmax code transitively and act irreducibly. Then the code solves $(\ast\ast)$ at every depth.*
#
# **Proof.**
# 1. A code is a maximum of a minimum, so multipliers $\lambda\ge0$ of sum 1 exist. The point of the hull nearest to $w_k$ is unique, so the map that takes $w_k$ to $w_l$ takes $h_k$ to $h_l$, active pairs to active pairs, and $\Lambda$ to another set of multipliers. Averaged over the group $\Lambda$ commutes with
#    it, and $\alpha_k$, $\beta_k$ do not depend on $k$.
# 2. Both are the code's margin over $K$: $\sum_k\alpha_k=\langle W,\Lambda H\rangle=\langle\Lambda^\top W,H\rangle=\sum_k\beta_k$ is $\sum\lambda_{jc}\langle w_c-w_j,h_c\rangle$, and every active pair has the margin of the code, which is positive.
# 3. $W^\top W$ and $H^\top H$ are symmetric and commute with the group. Their eigenspaces are invariant, hence all of $\mathbb R^r$, and their traces are $K$. $\square$
#
# That covers collapse, polygon and orthoplex; icosahedron, Petersen and Clebsch codes, of which it is not proved that they are softmax codes, lie in the cones of their nearest neighbours: that gives $H = W$ and multipliers on the contacts, and the rest of the proof is the same. *It does not need $H=W$*, which transitive and irreducible symmetry does not give: a truncated tetrahedron whose corners are cut too little has both and $h_k\ne w_k$ (below).
# $H=W$ follows if $w_k$ lies in the cone of its nearest neighbours (the foot of $w_k$ on their plane is then in the hull, and nothing of the hull is nearer), or if the maps that fix $w_k$ fix only its line, on which $h_k$ must lie, on the side of $w_k$.
#
# *Neither is needed.* The antiprism's group is transitive, but splits space into a plane and an axis: the frame is not tight, and $(\ast\ast)$ is two equations, one for each part. But it also has two kinds of nearest pairs, within a square and between
# the squares, hence two free multipliers, and both equations can be met with $\lambda\ge0$. In the orthoplex with vertices missing the single vectors have $\alpha=0$: the code does not need them where they are, depth does.
#
# ## One code
#
# Whether $\lambda\ge0$ exists is a question of non-negative least squares, and its residual the answer.

# %% tags=["parameters"]
classes: list[int] = [4, 5, 6, 7, 8, 9, 10, 11, 12]  # numbers of classes K [4, 12]
depths: list[int] = [3, 4, 6, 10]  # depths L at which the conditions are checked [2, 32]
restarts: int = 128  # random starts of the search for each code [8, 2048]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import pandas

import dufm
from dufm import agreement, claims, codes, figures, notebook, stats

p = notebook.start("34_why_they_agree", globals())

# %%
tests = {"frame, spread": agreement.frame_spread, "equal multipliers": agreement.constant_multipliers}
tests |= {f"(∗∗) at L = {L}": lambda W, L=L: agreement.code_condition(W, L) for L in p.depths}
examples = {"icosahedron": codes.icosahedron(), "antiprism": codes.antiprism()}
examples |= {"square pyramid": codes.orthoplex(6)[:5], "pentagon": codes.polygon(5)}
examples["softmax code of seven in three dimensions"] = dufm.softmax_code(7, 3, restarts=p.restarts, seed=p.seed).vectors
pandas.DataFrame({name: {test: stats.below(f(W), 1e-7) for test, f in tests.items()} for name, W in examples.items()}).T

# %% [markdown]
# The icosahedron and the pentagon pass all, the antiprism passes without being tight, the pyramid without either. Seven classes pass nothing: no choice of multipliers balances their vectors at equal lengths.
#
# ## All codes
#
# The code of every $K$ and rank is searched, its residuals computed at every depth by two routes: $(\ast\ast)$ with the code's own vectors, and the certificate of $Z_{\rm code}$ on singular vectors, which knows nothing of $A$ and $B$.
# By how much the best solution exceeds the code comes from the table of [33](33_depth_against_code.ipynb).

# %%
rows = []
for K, r in notebook.progress([(k, r) for k in p.classes for r in range(2, k)], label="K, r"):
    W = agreement.selected_code(K, r, restarts=p.restarts, seed=p.seed)
    Z = codes.code_logits(W)
    frame, equal = agreement.frame_spread(W), agreement.constant_multipliers(W)
    certified = {L: float(dufm.kkt_certificate(Z, L, r).residual) for L in p.depths}
    rows += [(K, r, L, frame, equal, agreement.code_condition(W, L), certified[L]) for L in p.depths]
checked = pandas.DataFrame(rows, columns=["num_classes", "rank", "depth", "frame", "equal_multipliers", "condition", "certificate"])
searched = notebook.committed("33_agreement")
table = checked.merge(searched[["num_classes", "rank", "code"]].drop_duplicates())
table = table.merge(searched[["num_classes", "rank", "depth", "excess"]], how="left")
table = table[table.excess.notna() | ~table.depth.isin(searched.depth)]  # of depths that were not searched the conditions alone
figures.store("34_conditions", table.round(9))

# %% tags=["figure"]
figures.show(
    "34_conditions",
    alt="Two scatter plots of the excess of the best solution over the softmax code. Against the residual of equal multipliers the marks at zero excess spread "
    "widely; against the residual of depth's own condition they all lie at zero, and all marks with an excess have a residual between 0.02 and 0.1.",
)

# %% [markdown]
# The codes in groups: how many pairs $(K, r)$, and the ranges of what was measured. Only the last column separates those that agree.

# %%
holds = {name: checked[name] < 1e-7 for name in ("frame", "equal_multipliers", "condition", "certificate")}
group = table.assign(
    tight=table.frame < 1e-7,
    equal=table.equal_multipliers < 1e-7,
    critical=table.condition < 1e-7,
    agrees=(table.excess.abs() < 1e-6).where(table.excess.notna(), "not searched"),
).groupby(["tight", "equal", "critical", "agrees"])
names = group.code.agg(lambda names: ", ".join(sorted({"pairs and singles" if "single" in name else name for name in names})))
sizes = group.apply(lambda rows: len(rows[["num_classes", "rank"]].drop_duplicates()), include_groups=False)
pandas.DataFrame({"pairs (K, r)": sizes, "codes": names}).reset_index()

# %% [markdown]
# A code that is not critical cannot be best, so an excess without the condition is no discovery; the claim counts the other cell: condition met, and yet something better.
#
# ## Verdict

# %% tags=["verdict"]
regular = holds["frame"] & holds["equal_multipliers"]
claims.check("34-regular", checked.certificate[regular].max())
met = table.excess[table.condition < 1e-7].dropna()
claims.check("34-condition", (met > 1e-6).sum() if len(met) else float("nan"))
claims.check("34-two-routes", (holds["condition"] != holds["certificate"]).sum())

# %% [markdown]
# ## Where it breaks
#
# *Critical is not optimal.* The conditions are of first order. The cube is a tight frame with equal multipliers and critical at every depth, but its one-vs-rest margin is below the antiprism's, and it
# is not even a local optimum of its rank ([47](../4_spectral/47_cube.ipynb)): softmax codes are not all that is critical, and agreement in the right panel is a fact about the *best* codes of these $K$ and $r$.

# %%
cube = codes.hypercube(8)
for name, W in (("cube", cube), ("antiprism", codes.antiprism())):
    print(f"{name}: one-vs-rest margin {float(codes.one_vs_rest_margin(W)):.4f}")
pandas.Series({test: stats.below(f(cube), 1e-7) for test, f in tests.items()}).to_frame("cube").T

# %% [markdown]
# *Symmetry without criticality.* The statement is about codes, that is, about maxima. Twelve vectors $(\pm1,\pm1,\pm b)$ and their permutations, an even number of minuses: transitive, irreducible, a tight frame for every $b$. Only $b=3$, Archimedes' truncated tetrahedron, is critical, and only there is $h_k=w_k$.

# %%
shapes = {b: codes.truncated_tetrahedron(b) for b in (2.0, 2.5, 3.0, 4.0)}
rows = {f"b = {b:g}": {"⟨w, h⟩": round(float((W * codes.separators(W)[0]).sum(1).min()), 4)} | {test: stats.below(f(W), 1e-7) for test, f in tests.items()} for b, W in shapes.items()}
pandas.DataFrame(rows).T

# %% [markdown]
# *The residual does not tell the gap.* Among the nine irregular codes the residual of $(\ast\ast)$ varies by a factor of four, the excess by a factor of a hundred:

# %%
irregular = table[table.excess > 1e-6]
irregular.groupby(["num_classes", "rank"])[["condition", "excess"]].max().round(5)

# %% [markdown]
# ## Try it ([answers](../answers.md#34))
#
# 1. `depths = [2]`: at $L=2$ the right-hand sides are $A(SR)^{-1/2}S$. Which codes remain critical?
# 2. `restarts = 8`: is any code missed, and would its residuals tell?

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
