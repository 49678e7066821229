"""Shapley values by brute force, for the tests of this folder."""

import math

import numpy as np


def shapley_of(worth, n):
    """Shapley values of a game of n players; ``worth`` takes a sorted tuple of players."""
    table = np.array([worth(tuple(i for i in range(n) if s >> i & 1)) for s in range(1 << n)])
    sets = np.arange(1 << n)
    size = np.array([bin(s).count("1") for s in sets])
    values = np.empty(n)
    for i in range(n):
        without = sets[(sets >> i & 1) == 0]
        share = np.array([1 / (n * math.comb(n - 1, k)) for k in size[without]])
        values[i] = share @ (table[without | 1 << i] - table[without])
    return values
