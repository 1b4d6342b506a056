"""Parameters inferred from fields by small convolutional networks, with errors of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from evaluation.answers import Answers, Inference, assess, over_strata
from evaluation.base import Measured, Sample
from evaluation.field_network import Convolutions, Views, check_fields, descend
from evaluation.inference import check_strata, folds
from evaluation.resampling import Boxes, common_strata, half_splits
from gen.fields import Grid

N_VIEWS = 2  # turned copies of a field over which an answer is averaged
_HIDDEN = 32
_LEARNING_RATE = 1e-2
_BATCH = 64


def field_infer(
    reference: Sample,
    samples: Sample,
    params: np.ndarray,
    names: tuple[str, ...],
    grid: Grid,
    *,
    n_steps: int = 200,
    batch_size: int = 32,
    channels: Sequence[int] = (8, 16, 32),
    n_folds: int = 5,
    n_bootstrap: int = 500,
    n_permutations: int = 1000,
    seed: int = 0,
) -> Inference:
    r"""The tests of ``infer`` on fields: no set of parameters is asked about that was trained on.

    A network gives the mean m and the factor L of the precision of a Gaussian posterior of the parameters
    t (in units of their scatter over the training sets) and is trained on its likelihood,

        loss = 1/2 |L^T (t - m)|^2 - log det L,    L lower triangular.

    Of each kind of fields and each fold there are two, trained on halves of the boxes, whose posteriors are
    joined by their first two moments (Lakshminarayanan et al. 2017, arXiv:1612.01474). What the two answer
    apart is the error of ``bias_from_samples``, taken as common to all folds, which overstates it if at all.

    Args:
        reference, samples: fields of one grid at the same sets of parameters (strata).
        params: ``(n_strata, P)``, in the order of the sorted strata; names: of the parameters.
        n_steps, batch_size: of the training of one network, of which there are 4 ``n_folds``.
        channels: of the layers, each of which halves the resolution.

    Raises:
        InputError: for fewer than ``inference.FEWEST_STRATA`` sets of parameters, other strata, or fields of
            another grid or that are not finite.
    """
    fields = [s.values[0 : len(s)] for s in (reference, samples)]
    for values in fields:
        check_fields(values, grid)
    ids = [Measured(np.arange(len(s))[:, None], s.simulation, s.stratum) for s in (reference, samples)]
    stratum_a, stratum_b, n_strata = common_strata(*ids)
    check_strata(params, names, n_strata)
    real = Measured(ids[0].vectors, reference.simulation, stratum_a)
    made = Measured(ids[1].vectors, samples.simulation, stratum_b)

    rng = np.random.default_rng([seed, 8])
    design = Design(grid, params, folds(n_strata, n_folds, seed), n_steps, batch_size, tuple(channels))
    from_real = FieldRegressors(design, fields[0], real, rng)
    from_made = FieldRegressors(design, fields[1], made, rng)
    turns = int(rng.integers(2**62))
    own = from_real.posteriors(fields[0], stratum_a, turns)
    theirs = from_real.posteriors(fields[1], stratum_b, turns)
    taught = from_made.posteriors(fields[0], stratum_a, turns)
    bias = over_strata((taught.mean - own.mean).mean(0), stratum_a, n_strata).mean(0)
    error = np.hypot(*(design.disagreement(x, stratum_a) for x in (own, taught)))
    a, b = own.joined(real), theirs.joined(made)
    return assess(a, b, (bias, error), params, names, n_bootstrap, n_permutations, seed, rng)


class Regressor(torch.nn.Module):
    """Convolutions, a hidden layer, and from it mean and precision of a Gaussian posterior."""

    def __init__(
        self, grid: Grid, channels: Sequence[int], n_parameters: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.n_parameters = n_parameters
        self.convolutions = Convolutions(grid, channels, generator, first_stride=2)
        n_out = n_parameters + n_parameters * (n_parameters + 1) // 2
        hidden = torch.randn(channels[-1], _HIDDEN, generator=generator) * math.sqrt(2 / channels[-1])
        head = torch.randn(_HIDDEN, n_out, generator=generator) * 0.1 / math.sqrt(_HIDDEN)
        self.hidden, self.head = torch.nn.Parameter(hidden), torch.nn.Parameter(head)
        self.offset = torch.nn.Parameter(torch.zeros(_HIDDEN))
        self.centre, self.spread = torch.zeros(channels[-1]), torch.ones(channels[-1])
        self.constant = torch.nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, 1, *shape)`` -> mean ``(B, P)`` and triangular factor L of the precision ``(B, P, P)``."""
        n = self.n_parameters
        features = (self.convolutions(x) - self.centre) / self.spread
        hidden = leaky_relu(features @ self.hidden + self.offset, 0.1)
        mean, diagonal, below = (hidden @ self.head + self.constant).tensor_split((n, 2 * n), dim=1)
        factor = torch.diag_embed(diagonal.exp())
        rows, columns = torch.tril_indices(n, n, -1)
        return mean, factor.index_put((torch.arange(len(x))[:, None], rows, columns), below)

    @torch.no_grad()
    def standardise(self, x: Tensor) -> None:
        """Begin with features of mean 0 and variance 1 over some fields (Salimans & Kingma 2016)."""
        std, mean = torch.std_mean(self.convolutions(x), dim=0)
        self.centre, self.spread = mean, std.clamp_min(1e-6)


def likelihood_loss(mean: Tensor, factor: Tensor, truth: Tensor) -> Tensor:
    """-log N(truth; mean, (L L^T)^-1) of ``(B, P)``, mean over the batch, less its constant."""
    off = (factor.mT @ (truth - mean)[..., None]).square().sum((1, 2)) / 2
    return (off - factor.diagonal(dim1=1, dim2=2).log().sum(1)).mean()


@dataclass(frozen=True, eq=False)
class Posteriors:
    """Of each field by either half: mean ``(2, N, P)`` and covariance ``(2, N, P, P)``."""

    mean: np.ndarray
    covariance: np.ndarray

    def joined(self, of: Measured) -> Answers:
        """Mean and covariance of the two posteriors' mixture."""
        apart = (self.mean[0] - self.mean[1]) / 2
        covariance = self.covariance.mean(0) + apart[:, :, None] * apart[:, None, :]
        return Answers(Measured(self.mean.mean(0), of.simulation, of.stratum), covariance)


@dataclass(frozen=True, eq=False)
class Design:
    """What all networks of one comparison share; ``folds`` are the sets to train on and to ask about."""

    grid: Grid
    params: np.ndarray
    folds: Sequence[tuple[np.ndarray, np.ndarray]]
    n_steps: int
    batch_size: int
    channels: tuple[int, ...]

    @property
    def scale(self) -> np.ndarray:
        """``(P,)`` the networks' unit of the parameters."""
        return self.params.std(0)

    def truth(self, stratum: np.ndarray) -> Tensor:
        """``(B, P)`` parameters as the networks see them."""
        return torch.from_numpy((self.params - self.params.mean(0)) / self.scale).float()[stratum]

    def disagreement(self, said: Posteriors, stratum: np.ndarray) -> np.ndarray:
        """``(P,)`` half of what the halves answer apart in the mean over a fold; rms over folds."""
        apart = over_strata((said.mean[0] - said.mean[1]) / 2, stratum, len(self.params))
        return np.sqrt(np.mean([apart[test].mean(0) ** 2 for _, test in self.folds], axis=0))


class FieldRegressors:
    """Two networks a fold, each trained on half of the boxes of all sets of parameters outside it."""

    def __init__(self, design: Design, fields: Tensor, ids: Measured, rng: np.random.Generator) -> None:
        self.design = design
        self.views = Views([fields], design.grid)
        boxes = Boxes.of(ids.simulation, ids.stratum, len(design.params)).single_box_strata_as_maps()
        self.networks: list[list[Regressor]] = []
        for train, _ in design.folds:
            first = half_splits(boxes, 1, rng)[boxes.box, 0]
            inside = np.isin(ids.stratum, train)
            halves = [np.flatnonzero(inside & half) for half in (first, ~first)]
            self.networks.append([self._trained(fields, rows, ids.stratum[rows], rng) for rows in halves])

    def _trained(
        self, fields: Tensor, rows: np.ndarray, stratum: np.ndarray, rng: np.random.Generator
    ) -> Regressor:
        """A network that has learnt from the fields at ``rows``, every set of parameters as often."""
        d = self.design
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        network = Regressor(d.grid, d.channels, d.params.shape[1], generator).to(fields.device)
        order = np.argsort(stratum, kind="stable")
        names, start, count = np.unique(stratum[order], return_index=True, return_counts=True)

        def loss() -> Tensor:
            drawn = rng.integers(len(names), size=d.batch_size)
            index = rows[order[start[drawn] + rng.integers(count[drawn])]]
            x = self.views(fields[torch.from_numpy(index)], rng)
            mean, factor = network(x)
            return likelihood_loss(mean, factor, d.truth(names[drawn]).to(x))

        network.standardise(
            self.views(fields[torch.from_numpy(rows[rng.integers(len(rows), size=256)])], rng)
        )
        descend(network, loss, d.n_steps, _LEARNING_RATE)
        return network

    @torch.no_grad()
    def posteriors(self, fields: Tensor, stratum: np.ndarray, turns: int) -> Posteriors:
        """Of all fields, by the networks that have not seen their parameters; the same turns for all."""
        d = self.design
        n = d.params.shape[1]
        mean, covariance = np.empty((2, len(fields), n)), np.empty((2, len(fields), n, n))
        for networks, (_, test) in zip(self.networks, d.folds, strict=True):
            for rows in torch.from_numpy(np.flatnonzero(np.isin(stratum, test))).split(_BATCH):
                rng = np.random.default_rng(turns)
                views = torch.cat([self.views(fields[rows], rng) for _ in range(N_VIEWS)])
                for half, network in enumerate(networks):
                    m, factor = (
                        x.double().unflatten(0, (N_VIEWS, -1)).mean(0).cpu().numpy() for x in network(views)
                    )
                    mean[half, rows] = m * d.scale + d.params.mean(0)
                    inverse = np.linalg.inv(factor) * d.scale
                    covariance[half, rows] = inverse.swapaxes(-1, -2) @ inverse
        return Posteriors(mean, covariance)
