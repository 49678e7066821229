"""A small language model: characters, n-grams of all orders mixed, NumPy alone."""

import numpy as np


class CharacterModel:
    """p_k(c | h) = (count(h c) + strength p_{k-1}(c | h)) / (count(h) + strength)."""

    def __init__(self, texts, order=4, strength=1.0):
        self.order, self.strength = order, strength
        self.symbols = sorted(set("".join(texts)))
        self.code = {c: i + 1 for i, c in enumerate(self.symbols)}  # 0: unknown and padding
        self.size = len(self.symbols) + 1
        self.tables = []
        rows = [self.encode(text) for text in texts]
        for k in range(1, order + 1):
            grams = np.concatenate([self.contexts(row, k) for row in rows])
            self.tables.append(np.unique(grams, return_counts=True))

    def encode(self, text):
        body = [self.code.get(c, 0) for c in text]
        return np.array([0] * (self.order - 1) + body, dtype=np.int64)

    def contexts(self, row, k):
        """Number of the k-gram that ends at each character."""
        out = np.zeros(len(row) - self.order + 1, dtype=np.int64)
        for back in range(k - 1, -1, -1):
            first = self.order - 1 - back
            out = out * self.size + row[first : first + len(out)]
        return out

    def count(self, k, grams):
        if k == 0:
            return np.full(grams.shape, float(self.tables[0][1].sum()))
        known, counts = self.tables[k - 1]
        at = np.minimum(np.searchsorted(known, grams), len(known) - 1)
        return np.where(known[at] == grams, counts[at], 0).astype(float)

    def laws(self, row):
        """Probability of every symbol at each place: shape (t, V)."""
        t = len(row) - self.order + 1
        law = np.full((t, self.size), 1.0 / self.size)
        for k in range(1, self.order + 1):
            heads = self.contexts(np.append(row[:-1], 0), k) // self.size * self.size
            counts = self.count(k, heads[:, None] + np.arange(self.size))
            law = (counts + self.strength * law) / (
                counts.sum(axis=1, keepdims=True) + self.strength
            )
        return law

    def log_probs(self, texts):
        """Log-probabilities, tokens, means and deviations over the vocabulary, and the mask."""
        width = max(map(len, texts))
        shape = (len(texts), width)
        values, tokens = np.zeros(shape), np.zeros(shape, dtype=int)
        means, deviations, mask = np.zeros(shape), np.ones(shape), np.zeros(shape, dtype=bool)
        for i, text in enumerate(texts):
            row, t = self.encode(text), len(text)
            law = self.laws(row)
            logs = np.log(law)
            tokens[i, :t] = row[self.order - 1 :]
            values[i, :t] = logs[np.arange(t), tokens[i, :t]]
            means[i, :t] = (law * logs).sum(axis=1)
            spread = (law * logs**2).sum(axis=1) - means[i, :t] ** 2
            deviations[i, :t] = np.sqrt(np.maximum(spread, 0))
            mask[i, :t] = True
        return values, tokens, means, deviations, mask

    def log_prob(self, text):
        """Log-probability of one text, without the laws of its places."""
        row = self.encode(text)
        chance = np.full(len(text), 1.0 / self.size)
        for k in range(1, self.order + 1):
            grams = self.contexts(row, k)
            heads = grams // self.size
            whole = self.count(k - 1, heads) if k > 1 else self.count(0, heads)
            chance = (self.count(k, grams) + self.strength * chance) / (whole + self.strength)
        return float(np.log(chance).sum())
