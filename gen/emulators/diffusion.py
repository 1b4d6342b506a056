"""Diffusion emulators: a denoiser in some working space, its noise of the space's own law, and a solver."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from gen.diffusion.levels import Ladder
from gen.diffusion.posterior import Observe, conditioned
from gen.diffusion.solver import Denoiser, solve
from gen.diffusion.windows import Windowed
from gen.emulators.calibration import calibrate
from gen.emulators.denoisers import network
from gen.emulators.score_space import ScoreSpace
from gen.emulators.sharpened import tapered, tapered_power
from gen.fields import Grid, ParameterSpace
from gen.nets.layers import to_channels
from gen.nets.unet import UNet
from gen.noise import sample_generator

if TYPE_CHECKING:
    from gen.data.base import SimulationSet

DRAWS = 1024
"""Noises of which the spectrum of the loss is the mean."""


class Diffusion(ScoreSpace):
    r"""``y``, a field in a working space of unit scatter, diffused with noise ``sigma g`` of a Gaussian law.

    The denoiser starts as that of a y of g's own law, one number for all waves, and learns the rest,

        D(y, sigma; theta) = y / s^2 + sigma / s U(y / s, sigma; theta),   s^2 = 1 + sigma^2,

    U a network that is zero at the start. The preconditioning is that of Karras et al. 2022
    (arXiv:2206.00364), for a scatter of 1. Samples solve the probability flow (``gen.diffusion.solver``), so
    the noise that a field is made from is a latent like any other, and fields of one seed change smoothly
    with the parameters.

    Fields of other sizes than the trained come of one noise as large as they are, see ``_denoiser``.

    An emulator that is given a coarse field hears it (``told``) beside the noised one, and y is what it does
    not tell.

    Args:
        working: grid of y.
        channels: of y.
        denoiser: what U is, ``"unet"`` or ``"transformer"``.
        arguments: ``high``, ``low``, ``steps`` of the ladder, ``order`` of the solver, ``spectral_weight`` of
            the loss, ``shaped`` if U is in units of the noise, and those of U.

    Raises:
        InputError: for another denoiser.
    """

    micro_batch = 32
    #: Channels of ``told``.
    heard: ClassVar[int] = 0
    #: Whether a network that has learned nothing makes normal scores.
    plainly_normal: bool = True
    #: Whether these are near enough to samples' for them to be measured against.
    plainly_near: bool = True

    def __init__(
        self,
        grid: Grid,
        space: ParameterSpace,
        field: str,
        unit: str,
        working: Grid,
        channels: int,
        denoiser: str,
        arguments: Mapping[str, Any],
    ) -> None:
        super().__init__(grid, space, field, unit)
        a = arguments
        self.working, self.channels = working, channels
        self.ladder, self.order = Ladder(a["high"], a["low"], a["steps"]), int(a["order"])
        self.spectral_weight = float(a["spectral_weight"])
        self.shaped = bool(a["shaped"])
        n_in = channels * (1 + self.shaped) + self.heard
        self.network = network(working, n_in, channels, len(space) + 1, denoiser, a)
        # Without an axis for one channel, as checkpoints have had it from the first.
        more = () if channels == 1 else (channels,)
        half = (*working.shape[:-1], working.shape[-1] // 2 + 1)
        self.spectrum: Tensor
        self.register_buffer("spectrum", torch.ones(*more, *half))

    @abstractmethod
    def to_working(self, values: Tensor, params: Tensor) -> Tensor:
        """y ``(B, channels, *working)`` of fields in physical units."""

    @abstractmethod
    def scores(self, y: Tensor, params: Tensor, white: Tensor | None = None) -> Tensor:
        """Scores ``(B, 1, *shape)`` of y, as yet neither filtered nor mended, differentiable; ``white`` of
        ``detail`` is what y does not tell."""

    def to_physical(self, y: Tensor, params: Tensor, white: Tensor | None = None) -> Tensor:
        """The inverse of ``to_working``, differentiable; ``white`` as in ``scores``."""
        return self.finished(self.scores(y, params, white), params)

    @abstractmethod
    def gaussian(self, params: Tensor, white: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """g of unit variance of white noise ``(B, N)``, for fields of ``shape``."""

    @abstractmethod
    def covariance(self, y: Tensor, params: Tensor) -> Tensor:
        """The covariance of g times y."""

    def told(self, coarse: Tensor | None, params: Tensor, shape: Sequence[int]) -> Tensor | None:
        """What U hears of coarse fields, ``(B, heard, *shape)``; nothing here."""
        del coarse, params, shape
        return None

    def less(self, y: Tensor, told: Tensor | None, params: Tensor) -> Tensor:
        """y without what is told of it."""
        del told, params
        return y

    def restored(self, y: Tensor, told: Tensor | None, params: Tensor) -> Tensor:
        """The inverse of ``less``."""
        del told, params
        return y

    @abstractmethod
    def coloured(self, y: Tensor, params: Tensor, *, inverse: bool = False) -> Tensor:
        """Fields ``(B, channels, *working)`` given the power of g, wave by wave, or rid of it."""

    def detail(self, white: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """The part of white noise ``(B, N)`` that is behind what y does not tell of a field; none here."""
        del shape
        return white[:, :0]

    def noise(self, params: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """g of unit variance, ``(B, channels, *working)``."""
        return self.gaussian(params, self.white_latent(generators))

    def plain_scores(self, white: Tensor, params: Tensor) -> Tensor:
        """``raw_scores`` of a network that has learned nothing."""
        return self.scores(self.gaussian(params, white), params, self.detail(white))

    def calibrate(self, data: SimulationSet) -> None:
        """Measure the filter and the law of samples' scores, if there are."""
        if self.filter is not None and self.score_law is not None:
            calibrate(self, data)

    @torch.no_grad()
    def fit_noise(self, data: SimulationSet) -> None:
        """The spectrum of the noise as the loss sees it."""
        drawn = [
            self.noise(data.params[i].float(), [sample_generator(0, int(j), "spectrum") for j in i])
            for i in (torch.arange(DRAWS) % len(data)).split(128)
        ]
        channels = torch.cat(drawn).split(1, dim=1)
        spectrum = torch.stack([tapered_power(self.working, one) for one in channels])
        self.spectrum.copy_(spectrum.clamp(min=1e-6 * float(spectrum.max())).reshape(self.spectrum.shape))

    def correction(self, y: Tensor, sigma: Tensor, params: Tensor, told: Tensor | None = None) -> Tensor:
        """U of noised y ``(B, channels, *working)`` at levels ``(B,)`` and parameters ``(B, P)``."""
        centre, half = (0.5 * math.log(self.ladder.high * (self.ladder.low**s)) for s in (1, -1))
        level = (sigma.log() - centre) / half
        modulation = torch.cat([self.space.normalise(params), level[:, None].to(params)], 1)
        seen = y / to_channels((1 + sigma.square()).sqrt()[:, None], y)
        given = [seen, self.coloured(seen, params, inverse=True)] if self.shaped else [seen]
        made = self.network(torch.cat(given if told is None else [*given, told], 1), modulation)
        return self.coloured(made.float(), params) if self.shaped else made

    def denoised(self, y: Tensor, sigma: float, params: Tensor, told: Tensor | None = None) -> Tensor:
        """The mean of the fields whose noised version y is, as it was learned."""
        levels = params.new_full((len(y),), sigma)
        learned = self.correction(y, levels, params, told)
        return y / (1 + sigma**2) + sigma / math.sqrt(1 + sigma**2) * learned

    def loss(
        self,
        values: Tensor,
        params: Tensor,
        generators: Sequence[torch.Generator],
        sigma: Tensor,
        coarse: Tensor | None = None,
        mirrored: float = 0.0,
    ) -> dict[str, Tensor]:
        """Mean square errors of U at levels of noise ``(B,)``, 1 where nothing is learned.

        U's aim, ``(sigma y - g) / sqrt(1 + sigma^2)``, has the spectrum of g. In cells its short waves hardly
        count; in waves under a taper, each in units of that spectrum, all count alike. Of levels below
        ``mirrored`` both g and -g are seen.
        """
        told = self.told(coarse, params, values.shape[2:])
        y, g = self.less(self.to_working(values, params), told, params), self.noise(params, generators)
        again = (sigma < mirrored).nonzero().flatten()
        rows = torch.cat([torch.arange(len(y), device=again.device), again])
        g = torch.cat([g, -g[again]])
        y, params, s = y[rows], params[rows], to_channels(sigma[rows, None], y)
        aim = (s * y - g) / (1 + s.square()).sqrt()
        heard = None if told is None else told[rows]
        error = self.correction(y + s * g, sigma[rows], params, heard).float() - aim
        waves = tapered(self.working, error) / self.spectrum
        share = torch.where(sigma < mirrored, 0.5, 1.0)[rows].to(waves) / len(sigma)
        cells, waves = (share @ x.to(share).flatten(1).mean(1) for x in (error.square(), waves))
        return {"cells": (1 - self.spectral_weight) * cells, "waves": self.spectral_weight * waves}

    def generate(
        self,
        params: Tensor,
        generators: Sequence[torch.Generator],
        coarse: Tensor | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        return self.from_white(self.white_latent(generators, shape), params, shape, coarse)

    def from_white(
        self,
        white: Tensor,
        params: Tensor,
        shape: Sequence[int] | None = None,
        coarse: Tensor | None = None,
    ) -> Tensor:
        """Fields ``(B, 1, *shape)`` in physical units of white noise ``(B, N)``."""
        return self.finished(self.raw_scores(white, params, shape, coarse), params)

    def raw_scores(
        self,
        white: Tensor,
        params: Tensor,
        shape: Sequence[int] | None = None,
        coarse: Tensor | None = None,
    ) -> Tensor:
        """Scores of samples of white noise ``(B, N)``, as yet neither filtered nor mended."""
        told = self.told(coarse, params, self.grid.shape if shape is None else shape)
        start = math.sqrt(1 + self.ladder.high**2) * self.gaussian(params, white, shape)
        y = solve(self._denoiser(params, start.shape[2:], told), start, self.ladder, self.order)
        return self.scores(self.restored(y, told, params), params, self.detail(white, shape))

    def _denoiser(self, params: Tensor, cells: Sequence[int], told: Tensor | None = None) -> Denoiser:
        """Of fields of these cells: by windows of the trained size where the network cannot take them whole.

        A convolution around a larger torus is what it was around its own. A larger open field is not: its
        faces are elsewhere; nor is attention, which knows the number of its tokens.
        """

        def whole(x: Tensor, sigma: float) -> Tensor:
            return self.denoised(x, sigma, params.repeat(len(x) // len(params), 1), told)

        trained, round_a_torus = self.working.shape, self.working.periodic and isinstance(self.network, UNet)
        fits = all(n % self.network.factor == 0 for n in cells)
        inside = all(n >= m for n, m in zip(cells, trained, strict=True))
        if tuple(cells) == trained or (fits and (round_a_torus or not inside)):
            return whole
        return Windowed(whole, trained, min(trained) // 2, periodic=self.working.periodic)

    def posterior(
        self,
        observe: Observe,
        data: Tensor,
        variance: Tensor | float,
        params: Tensor,
        generators: Sequence[torch.Generator],
        iterations: int = 64,
        coarse: Tensor | None = None,
    ) -> Tensor:
        """Fields that fit ``data = observe(field) + noise``, without any training for it.

        Inpainting, denoising, super-resolution: see ``gen.diffusion.posterior``, of which the prior is this
        emulator's law at ``params``. Where the map of y to values bends within its scatter given the noised
        field, it is as approximate as that.

        Args:
            observe: of fields ``(B, 1, *shape)`` in physical units, differentiable.
            data: as ``observe`` gives them, ``(B, ...)``.
            variance: of their noise.
            params: ``(B, P)``.
            generators: one a sample.
            iterations: of conjugate gradients at each level.
            coarse: fields that the prior is given, if it takes any.

        Returns:
            ``(B, 1, *grid.shape)`` in physical units.
        """
        white = self.white_latent(generators)
        detail, told = self.detail(white), self.told(coarse, params, self.grid.shape)

        def physical(y: Tensor) -> Tensor:
            return self.to_physical(self.restored(y, told, params), params, detail)

        prior = conditioned(
            self._denoiser(params, self.working.shape, told),
            lambda y: observe(physical(y)),
            data,
            variance,
            lambda v: self.covariance(v, params),
            iterations,
        )
        start = math.sqrt(1 + self.ladder.high**2) * self.gaussian(params, white)
        return physical(solve(prior, start, self.ladder, self.order).detach())
