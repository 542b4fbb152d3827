"""Images per second of a batch of networks under minibatch descent, beside a plain PyTorch loop; run as a script.

The plain loop is what one would write first: ``nn.Sequential``, ``CrossEntropyLoss``, ``SGD``, a network at a time,
images in memory.  Both train the same bias-free ReLU networks in float32, on as many threads as there are cores, wall
time; the plain loop on one thread too, and the faster of the two is the one compared.  An epoch of the batch also
holds its check of the loss on all images, which the plain loop does not have.
"""

import os
import statistics
import time

import torch
from measure import verdict
from torch import nn

from dufm import data, networks

NETWORKS, IMAGES, EPOCHS, ROUNDS, TARGET = 16, 50, 3, 5, 5.0


def plain(weights, X, y):
    """Images per second of one network."""
    layers = []
    for weight in weights:
        layers += [nn.Linear(*reversed(weight.shape[1:]), bias=False), nn.ReLU()]
        layers[-2].weight.data.copy_(weight[0])
    net, loss, rows = nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss(), X.mT.contiguous()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    began = time.perf_counter()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(y)).split(IMAGES):
            optimizer.zero_grad()
            loss(net(rows[batch]), y[batch]).backward()
            optimizer.step()
    return EPOCHS * len(y) / (time.perf_counter() - began)


def batched(weights, X, y):
    """Images per second of all networks together."""
    began = time.perf_counter()
    networks.train(weights, X, y, batch_size=IMAGES, max_steps=EPOCHS, until_log_loss=-60.0)
    return len(weights[0]) * EPOCHS * len(y) / (time.perf_counter() - began)


def main():
    X, y, _, _ = data.split("digits", 60)
    X, cores = X.float(), os.cpu_count()
    print(f"{NETWORKS} networks on {len(y)} digits, {IMAGES} images a batch, {cores} cores, {ROUNDS} pairs")
    for depth, width in ((2, 128), (5, 128), (8, 128), (5, 32), (5, 512)):
        starts = networks.he_init(depth, width, len(X), 10, batch=NETWORKS, seed=0)
        weights = [weight.float() for weight in starts]
        ratios = []
        for _ in range(ROUNDS):
            torch.set_num_threads(cores)
            both, alone = batched(weights, X, y), plain(weights, X, y)
            torch.set_num_threads(1)
            ratios.append(both / max(alone, plain(weights, X, y)))
        told = verdict(statistics.median(ratios), TARGET) if width == 128 else f"{statistics.median(ratios):.3g}"
        print(f"  L = {depth}, width {width}: {both:,.0f} images a second, {told} times the plain loop, "
              f"{min(ratios):.3g} to {max(ratios):.3g}", flush=True)


if __name__ == "__main__":
    main()
