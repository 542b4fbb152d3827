"""The flow to log ℒ = −10⁴ against stiff solvers; run as a script.

SciPy's BDF, Radau and LSODA follow ``dW/dm = F/‖F‖²``, m = −log ℒ, one network at a time, which ends exactly at the
target; F is written by hand in NumPy, or is the package's own torch field on one network where the line says so.  Each
runs with the Jacobian that it differences itself and with the exact one, ``JᵀHJ`` and the second-order term in closed
form.  (Radau at rtol 1e-2 is left out: it takes twenty times longer than at 1e-3.)  diffrax's Kvaerno5
(``pip install 'dufm[bench]'``) follows the same field compiled by jax, a batch under ``vmap``, one step a network.
Ratios within one run, one thread, processor time.  The error is that of Z/‖Z‖ at equal log ℒ against ``dufm`` at
rtol 1e-8: largest and median over the networks and levels, SciPy's by its own dense output.  SciPy does not count the
evaluations with which BDF and Radau difference their Jacobian.
"""

import math
import os
import statistics
import time

import numpy as np
import torch
from measure import error, seconds, sizes, time_at
from scipy.integrate import solve_ivp

import dufm
from dufm.flow import FactorModel

NUM_CLASSES, DEPTH, WIDTH, SCALE, BATCH, TARGET = 4, 3, 16, 0.5, 256, -1e4
LEVELS = [-10.0, -100.0, -1000.0, TARGET]
RTOLS = [1e-3, 3e-4, 1e-4]
SAMPLE = [0, 85, 170]
SCIPY = {"BDF": [1e-3, 1e-4, 1e-5], "Radau": [1e-3, 1e-4], "LSODA": [1e-3, 1e-4, 1e-5]}
DIFFRAX_BATCH, DIFFRAX_RTOLS = 16, [1e-2, 1e-3]
TARGETS = {"differenced": 1000, "exact": 100}
TORCH = "torch field"
ROUNDS = 2


class Peer:
    """The flow of one network with L = 3, ``[A, B, C]``, in the clock m, and its Jacobian in closed form."""

    def __init__(self, num_classes, width):
        K, d = num_classes, width
        self.shapes = [(d, K), (d, d), (K, d)]
        self.cuts = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        self.wrong, self.of = np.nonzero(~np.eye(K, dtype=bool))
        self.model = FactorModel([torch.empty(1, *shape) for shape in self.shapes])
        self.eye, self.parts = np.eye(d), np.split(np.arange(2 * d * K + d * d), self.cuts)

    def split(self, x):
        return [part.reshape(shape) for part, shape in zip(np.split(x, self.cuts), self.shapes, strict=True)]

    def logits(self, x):
        A, B, C = self.split(x)
        return C @ B @ A

    def loss(self, Z):
        """Log ℒ; λ as a matrix; the softmax of the wrong classes; the slope of softplus."""
        gaps = Z - Z.diagonal()
        np.fill_diagonal(gaps, -np.inf)
        top = gaps.max(0)
        wrong = np.exp(gaps - top)
        total = wrong.sum(0)
        ell = top + np.log(total)
        far = ell < -30
        near = np.where(far, 0.0, ell)
        sigmoid = np.where(far, 0.0, 1 / (1 + np.exp(-near)))
        softplus = np.log1p(np.exp(near))
        sample, slope = np.where(far, ell, np.log(softplus)), np.where(far, 1.0, sigmoid / softplus)
        most = sample.max()
        share = np.exp(sample - most)
        return most + math.log(share.sum()), wrong * (slope * share / share.sum() / total), wrong / total, sigmoid

    def descent(self, x):
        """F, log ℒ, and what the Jacobian needs."""
        A, B, C = self.split(x)
        BA, CB = B @ A, C @ B
        log_loss, weights, *rest = self.loss(C @ BA)
        G = -weights
        np.fill_diagonal(G, weights.sum(0))
        F = np.concatenate([(CB.T @ G).ravel(), (C.T @ G @ A.T).ravel(), (G @ BA.T).ravel()])
        return F, log_loss, (A, B, C, BA, CB, G, weights, *rest)

    def field(self, _, x):
        F = self.descent(x)[0]
        return F / (F @ F)

    def torch_field(self, _, x):
        state = torch.from_numpy(x).unsqueeze(0)
        out = torch.empty_like(state)
        self.model.field(state, out)
        return (out / out.square().sum())[0].numpy()

    def jacobian(self, _, x):
        F, _, (A, B, C, BA, CB, G, weights, softmax, sigmoid) = self.descent(x)
        K, d = C.shape
        eye, pairs = np.eye(K), (self.wrong, self.of)
        rate = np.concatenate(
            [
                np.einsum("aj,ck->acjk", CB, eye).reshape(K, K, -1),
                np.einsum("ai,jc->acij", C, A).reshape(K, K, -1),
                np.einsum("ab,ic->acbi", eye, BA).reshape(K, K, -1),
            ],
            axis=2,
        )
        rate = rate[pairs] - rate[self.of, self.of]
        weight = weights[pairs]
        curved = np.diag(weight) - np.outer(weight, weight)
        curved -= (self.of[:, None] == self.of) * np.outer(weight, (softmax * sigmoid)[pairs])
        turn = -rate.T @ curved @ rate
        first, second, third = self.parts
        for rows, columns, block in (
            (second, first, np.einsum("ik,jl->ijlk", C.T @ G, self.eye)),
            (third, second, np.einsum("aj,ib->aibj", G @ A.T, self.eye)),
            (third, first, np.einsum("ak,ij->aijk", G, B)),
        ):
            block = block.reshape(len(rows), len(columns))
            turn[np.ix_(rows, columns)] += block
            turn[np.ix_(columns, rows)] += block.T
        speed = F @ F
        return (turn - np.outer(F, 2 / speed * (F @ turn))) / speed

    def check(self, x):
        """The closed form against differences."""
        step = 1e-6
        rows = [(self.field(0, x + step * e) - self.field(0, x - step * e)) / (2 * step) for e in np.eye(len(x))]
        exact = self.jacobian(0, x)
        assert abs(exact - np.array(rows).T).max() < 1e-7 * abs(exact).max()

    def follow(self, x, method, rtol, jac):
        """Z at the levels, and evaluations."""
        ends = -np.array(LEVELS)
        field, jac = self.torch_field if jac == TORCH else self.field, {"jac": self.jacobian} if jac == "exact" else {}
        run = solve_ivp(
            field, (-self.descent(x)[1], ends[-1]), x, method, t_eval=ends, rtol=rtol, atol=rtol * x.std(), **jac
        )
        assert run.success, run.message
        return np.stack([self.logits(state) for state in run.y.T]), run.nfev


# ---------------------------------------------------------------- diffrax


def diffrax_solver():
    """A function of flat starts, ends of m and rtol: end states and steps, under vmap."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    K, d = NUM_CLASSES, WIDTH
    own = jnp.eye(K, dtype=bool)

    def log_loss(x):
        A, B, C = x[: d * K].reshape(d, K), x[d * K : -d * K].reshape(d, d), x[-d * K :].reshape(K, d)
        Z = C @ (B @ A)
        ell = jax.nn.logsumexp(jnp.where(own, -jnp.inf, Z - jnp.diagonal(Z)), axis=0)
        far = ell < -30
        return jax.nn.logsumexp(jnp.where(far, ell, jnp.log(jnp.log1p(jnp.exp(jnp.where(far, 0.0, ell))))))

    def field(m, x, args):
        F = -jax.grad(log_loss)(x)
        return F / (F @ F)

    def one(x, rtol):
        run = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Kvaerno5(), -log_loss(x), -TARGET, None, x,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol * jnp.std(x)), max_steps=20_000,
            saveat=diffrax.SaveAt(ts=-jnp.array(LEVELS)),
        )
        return run.ys, run.stats["num_steps"]

    return jax.jit(jax.vmap(one, in_axes=(0, None))), jax.block_until_ready


# ---------------------------------------------------------------- report


def line(name, rtol, times, errors, note):
    largest, median = sizes(errors)
    print(f"  {name:24s} {rtol:7.0e} {1e3 * min(times):10.2f} {1e3 * max(times):10.2f} {largest:12.1e} {median:9.1e}   "
          f"{note}", flush=True)


def main():
    torch.set_num_threads(1)
    began = time.perf_counter()
    factors = dufm.gaussian_init(DEPTH, WIDTH, NUM_CLASSES, scale=SCALE, batch=BATCH, seed=0)
    flat = torch.cat([factor.flatten(1) for factor in factors], 1).numpy()
    peer = Peer(NUM_CLASSES, WIDTH)
    peer.check(flat[0])

    def ours(rows, rtol):
        some = [factor[rows] for factor in factors]
        return dufm.gradient_flow(some, until_log_loss=TARGET, rtol=rtol, record={"log_loss": LEVELS}).history.Z

    reference = ours(SAMPLE, 1e-8)
    times, found, notes = {}, {}, {}
    for _ in range(ROUNDS):  # alternating, so that both see the same machine
        for rtol in RTOLS:
            took, run = seconds(lambda rtol=rtol: dufm.gradient_flow(factors, until_log_loss=TARGET, rtol=rtol))
            times.setdefault(("dufm", "", rtol), []).append(took / BATCH)
            notes["dufm", "", rtol] = f"{run.steps.double().mean():.0f} steps, {BATCH} networks at once"
        for method, rtols in SCIPY.items():
            for rtol in rtols:
                for jac in (*TARGETS, *[TORCH] * (method == "LSODA" and rtol == rtols[0])):
                    took, runs = seconds(lambda method=method, rtol=rtol, jac=jac: [
                        peer.follow(flat[i], method, rtol, jac) for i in SAMPLE
                    ])
                    times.setdefault((method, jac, rtol), []).append(took / len(SAMPLE))
                    found[method, jac, rtol] = error(np.stack([Z for Z, _ in runs], 1), reference)
                    notes[method, jac, rtol] = f"{statistics.mean(count for _, count in runs):.0f} evaluations"
    for rtol in RTOLS:
        found["dufm", "", rtol] = error(ours(SAMPLE, rtol), reference)
    print(f"(b) K = {NUM_CLASSES}, L = {DEPTH}, d = {WIDTH}, scale {SCALE}, to log ℒ = {TARGET:g}; "
          f"SciPy and errors on {len(SAMPLE)} networks")
    print("                              rtol ms/network  (slowest)   error: max    median")
    for (method, jac, rtol), took in times.items():
        line(f"{method} {jac}", rtol, took, found[method, jac, rtol], notes[method, jac, rtol])

    def ratios(method, jac, rtols):
        """Ratios at equal largest and median error, by the rtol of dufm."""
        cells = []
        for rtol in RTOLS:
            for which in (0, 1):
                reached = sizes(found["dufm", "", rtol])[which]
                slow = time_at(
                    reached, [(sizes(found[method, jac, r])[which], min(times[method, jac, r])) for r in rtols]
                )
                cells.append(f"{slow / min(times['dufm', '', rtol]):.0f}" if slow else "–")
        return "  ".join("/".join(cells[i : i + 2]).rjust(9) for i in range(0, len(cells), 2))

    print("  ratio at equal max/median error, dufm at " + ", ".join(f"{rtol:.0e}" for rtol in RTOLS))
    for jac, target in TARGETS.items():
        for method, rtols in SCIPY.items():
            print(f"  {method:6s} {jac:12s} {ratios(method, jac, rtols)}   (target {target})")
    print(f"  LSODA  {TORCH:12s} {ratios('LSODA', TORCH, SCIPY['LSODA'][:1])}")
    try:
        solve, ready = diffrax_solver()
    except ImportError:
        print("  diffrax is not installed: pip install 'dufm[bench]'")
    else:
        few = SAMPLE + [i for i in range(DIFFRAX_BATCH + len(SAMPLE)) if i not in SAMPLE][: DIFFRAX_BATCH - len(SAMPLE)]
        ready(solve(flat[few], 1e-1))  # compiles
        for rtol in DIFFRAX_RTOLS:
            took, (states, steps) = seconds(lambda rtol=rtol: ready(solve(flat[few], rtol)))
            Z = [[peer.logits(x) for x in np.array(network)] for network in states[: len(SAMPLE)]]
            key = "Kvaerno5", "by autodiff", rtol
            times[key], found[key] = [took / len(few)], error(np.array(Z).swapaxes(0, 1), reference)
            line("Kvaerno5 by autodiff", rtol, times[key], found[key],
                 f"{np.mean(steps):.0f} steps, {len(few)} networks under vmap, compiled before")
        print(f"  Kvaerno5           {ratios('Kvaerno5', 'by autodiff', DIFFRAX_RTOLS)}")
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
