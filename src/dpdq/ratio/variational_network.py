"""A neural network as log r, fitted by the loss of any smooth f-divergence.

    log r(x) = MLP(z),   z = standardised x,   minimising  E_q[f*(f'(r))] - E_p[f'(r)]

A network of any size can bring this loss down on its own rows without end, so that what decides is
when to stop. Rows held out by content judge every epoch; the best state is kept. The last layer
starts at zero, which is r = 1 and a loss of 0, so that the result is never worse on the held-out
rows than "no difference", and is exactly that where nothing better was found.

Training needs torch; scoring is a few matrix products in NumPy, and a fitted estimator pickles as
arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpdq._optional import require
from dpdq._random import RandomState, as_generator, child_seed
from dpdq._threads import one_openmp_thread
from dpdq.divergences import Divergence
from dpdq.errors import OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._bumps import blocks
from dpdq.ratio._common import Array, content_hash, validation_split
from dpdq.ratio.variational import smooth_divergence, variational_loss

__all__ = ["VariationalNetworkRatio"]

_EPOCHS_UNSEEN = 20  # where there are too few rows to hold some out
_STEEPEST = 5.0  # norm to which a gradient is cut: one row must not throw the network away
_FARTHEST = 1e6  # standard deviations; float32 holds no more through the layers


class VariationalNetworkRatio(RatioEstimator):
    """Log ratio as a multilayer perceptron, through any smooth f-divergence; needs torch.

        log r(x) = MLP(z),  minimising  E_q[f*(f'(r))] - E_p[f'(r)],  stopped by held-out rows

    For many rows and smooth interactions among many columns; on few rows or plain tables
    `LogisticRatio` and `GradientBoostingRatio` are better and faster. Seeds change the result.
    Far from the data it goes on as a straight line. ``kl`` and ``pearson_chi2`` have no least loss
    where q and p separate, on held-out rows neither: log ratios of hundreds come out, unless
    ``lipschitz`` bounds the slope. The default is bounded.

    Parameters
    ----------
    divergence
        A name of the table, or a `Divergence`.
    hidden
        Widths of the hidden layers (ELU units).
    learning_rate, weight_decay
        Of Adam; the decay is decoupled.
    batch_size, max_epochs, patience
        Rows a side in a batch, epochs at most, and epochs without a better held-out loss before
        stopping.

    lipschitz
        Bound of the slope of log r in standardised units, by spectral normalisation of every
        layer; None for no bound. Dozens of nats need room: a shift by one standard deviation with
        log r = x has slope 1.
    validation_fraction
        Share of the distinct rows that stops the training.
    device
        Of torch, for training.
    random_state
        Seed of the split, of the first weights and of the batches.

    Attributes
    ----------
    layers_
        Weights and biases, float64 arrays, spectral normalisation included.
    losses_
        Held-out loss after each epoch, the first before training (0); minus the smallest is about
        a lower bound of the divergence. Empty where there were too few rows to hold out.
    best_epoch_
        The epoch kept.

    Raises
    ------
    MissingDependencyError
        From ``fit``, without torch.

    Notes
    -----
    Cost: O(n h²) time an epoch for layers of width h, O(n d) memory.
    Held by: tests/ratio/test_variational_network.py::test_curved_ratio_in_many_columns

    Training is in float32; rows are put in the order of their content first, so that the order
    of the input does not matter. Without rows to hold out there are 20 epochs.

    References
    ----------
    .. [Nowozin2016] f-GAN: Training Generative Neural Samplers using Variational Divergence
       Minimization. Nowozin, 2016, NeurIPS.
    .. [Miyato2018] Spectral Normalization for Generative Adversarial Networks. Miyato, 2018,
       arXiv 1802.05957.
    """

    def __init__(
        self,
        divergence: str | Divergence = "jensen_shannon",
        *,
        hidden: Sequence[int] = (64,),
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-3,
        batch_size: int = 256,
        max_epochs: int = 200,
        patience: int = 10,
        lipschitz: float | None = None,
        validation_fraction: float = 0.2,
        device: str = "cpu",
        random_state: RandomState = None,
    ) -> None:
        self.divergence = divergence
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.lipschitz = lipschitz
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        member = smooth_divergence(self.divergence)
        self._check()
        torch: Any = require("torch", "VariationalNetworkRatio")
        seed = child_seed(as_generator(self.random_state))
        order_q = np.lexsort((weights_q, content_hash(q, seed)))
        order_p = np.lexsort((weights_p, content_hash(p, seed)))
        q, p, weights_q, weights_p = q[order_q], p[order_p], weights_q[order_q], weights_p[order_p]
        share_q, share_p = weights_q / weights_q.sum(), weights_p / weights_p.sum()
        self._center = (share_q @ q + share_p @ p) / 2
        scale = np.sqrt((share_q @ (q - self._center) ** 2 + share_p @ (p - self._center) ** 2) / 2)
        flat = scale <= 1e-12 * np.maximum(np.abs(self._center), 1e-300)
        self._scale = np.where(flat, np.inf, scale)

        split = validation_split(q, p, self.validation_fraction, seed)
        held = split if split else (np.zeros(len(q), dtype=bool), np.zeros(len(p), dtype=bool))
        sides: list[tuple[Any, Any, Any, Any]] = []
        for x, w, out in ((q, weights_q, held[0]), (p, weights_p, held[1])):
            rows = torch.as_tensor(self._standardised(x), dtype=torch.float32, device=self.device)
            mass = torch.as_tensor(w, dtype=torch.float32, device=self.device)
            mask = torch.as_tensor(out, device=self.device)
            sides.append((rows[~mask], mass[~mask], rows[mask], mass[mask]))
        with one_openmp_thread():
            network = _Network(torch, [q.shape[1], *self.hidden, 1], self.lipschitz, seed)
            network.to(self.device)
            self._train(torch, network, member, sides, seed, split is not None)

    def _check(self) -> None:
        for name in ("learning_rate", "batch_size", "max_epochs", "patience"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} is {getattr(self, name)}; expected a positive number")
        if not self.weight_decay >= 0:
            raise OptionError(f"weight_decay is {self.weight_decay}; expected 0 or more")
        if self.lipschitz is not None and not self.lipschitz > 0:
            raise OptionError(f"lipschitz is {self.lipschitz}; expected a positive number or None")
        if not all(isinstance(width, (int, np.integer)) and width > 0 for width in self.hidden):
            raise OptionError(f"hidden is {self.hidden}; expected positive widths such as (64, 64)")
        if not 0 < self.validation_fraction < 1:
            raise OptionError(
                f"validation_fraction is {self.validation_fraction}; expected between 0 and 1"
            )

    def _train(
        self,
        torch: Any,
        network: _Network,
        member: Divergence,
        sides: list[tuple[Any, Any, Any, Any]],
        seed: int,
        judged: bool,
    ) -> None:
        (x_q, w_q, held_q, mass_q), (x_p, w_p, held_p, mass_p) = sides

        def held_out_loss() -> float:
            with torch.no_grad():
                loss = variational_loss(
                    network(held_q).double(),
                    network(held_p).double(),
                    member,
                    weights_q=mass_q,
                    weights_p=mass_p,
                )
            return float(loss)

        optimiser = torch.optim.AdamW(
            network.parameters, lr=self.learning_rate, weight_decay=self.weight_decay
        )
        shuffler = torch.Generator().manual_seed(seed)
        steps = -(-max(len(x_q), len(x_p)) // self.batch_size)
        self.losses_ = [held_out_loss()] if judged else []
        best, self.best_epoch_, kept = 0.0, 0, network.arrays()
        for epoch in range(1, (self.max_epochs if judged else _EPOCHS_UNSEEN) + 1):
            batches_q = _batches(torch, len(x_q), steps, shuffler)
            batches_p = _batches(torch, len(x_p), steps, shuffler)
            for rows_q, rows_p in zip(batches_q, batches_p, strict=True):
                loss = variational_loss(
                    network(x_q[rows_q]),
                    network(x_p[rows_p]),
                    member,
                    weights_q=w_q[rows_q],
                    weights_p=w_p[rows_p],
                )
                optimiser.zero_grad()
                loss.backward()
                steepness = torch.nn.utils.clip_grad_norm_(network.parameters, _STEEPEST)
                if bool(torch.isfinite(steepness)):
                    optimiser.step()
            if not judged:
                self.best_epoch_, kept = epoch, network.arrays()
                continue
            self.losses_.append(held_out_loss())
            if self.losses_[-1] < best:
                best, self.best_epoch_, kept = self.losses_[-1], epoch, network.arrays()
            elif epoch - self.best_epoch_ >= self.patience:
                break
        self.layers_ = kept

    def _standardised(self, x: Array) -> Array:
        return np.clip((x - self._center) / self._scale, -_FARTHEST, _FARTHEST)

    def _log_ratio(self, x: Array) -> Array:
        out = np.empty(len(x))
        for block in blocks(len(x)):
            rows = self._standardised(x[block])
            for weight, bias in self.layers_[:-1]:
                rows = rows @ weight.T + bias
                rows = np.where(rows > 0, rows, np.expm1(np.minimum(rows, 0.0)))  # ELU
            weight, bias = self.layers_[-1]
            out[block] = (rows @ weight.T + bias)[:, 0]
        return out


class _Network:
    """A perceptron of ELU layers, whose last starts at zero; the layers' norms may be bounded.

    ELU has slopes in [0, 1], so that the product of the layers' spectral norms bounds the slope of
    the whole.
    """

    def __init__(self, torch: Any, widths: list[int], lipschitz: float | None, seed: int) -> None:
        self.torch = torch
        generator = torch.Generator().manual_seed(seed)
        self.parameters: list[Any] = []
        for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
            for shape in ((n_out, n_in), (n_out,)):
                first = (2 * torch.rand(shape, generator=generator) - 1) / np.sqrt(n_in)
                self.parameters.append(first)
        self.parameters[-2].zero_()
        self.parameters[-1].zero_()
        n_layers = len(widths) - 1
        self.bound = None if lipschitz is None else float(lipschitz) ** (1 / n_layers)

    def to(self, device: str) -> None:
        """Move the parameters and let them learn."""
        self.parameters = [each.to(device).requires_grad_() for each in self.parameters]

    def layers(self) -> list[tuple[Any, Any]]:
        """Weights and biases as they act."""
        pairs = zip(self.parameters[::2], self.parameters[1::2], strict=True)
        if self.bound is None:
            return list(pairs)
        norm = self.torch.linalg.matrix_norm
        return [(w / (norm(w, 2) / self.bound).clamp(min=1.0), b) for w, b in pairs]

    def __call__(self, x: Any) -> Any:
        """Log ratios of rows."""
        layers = self.layers()
        for weight, bias in layers[:-1]:
            x = self.torch.nn.functional.elu(x @ weight.T + bias)
        weight, bias = layers[-1]
        return (x @ weight.T + bias)[:, 0]

    def arrays(self) -> list[tuple[Array, Array]]:
        """A copy of the layers for NumPy."""
        return [
            (w.detach().double().cpu().numpy().copy(), b.detach().double().cpu().numpy().copy())
            for w, b in self.layers()
        ]


def _batches(torch: Any, n: int, steps: int, generator: Any) -> list[Any]:
    """Row numbers of ``steps`` batches of about equal size that cover all rows, some repeatedly."""
    order = torch.randperm(n, generator=generator)
    if n < steps:
        order = order.repeat(-(-steps // n))
    return list(torch.tensor_split(order, steps))
