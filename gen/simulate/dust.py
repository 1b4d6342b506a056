"""A source of patches of polarised Galactic dust emission: synthetic, and labelled so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Grid
from gen.noise import normal, sample_generator
from gen.simulate.beam import between, binned, smoothed
from gen.simulate.nbody_pairs import Layout, Pair

ARCMIN = {"deg": 60.0, "arcmin": 1.0, "rad": 10800 / math.pi}
DEPTH = 3
"""Axis of the line of sight of ``(B, n0, n1, depth)``; the others are the rows and columns of a patch."""


class Waves(NamedTuple):
    """The rfftn lattice of a box of cubic cells: ``k (3, n0, n1, depth/2+1)`` [1/cell] and its square.

    Modes at a Nyquist frequency have no direction; ``held`` is False for them and for k = 0.
    """

    k: Tensor
    square: Tensor
    held: Tensor


@dataclass(frozen=True)
class Dust:
    """Stokes I, Q, U of dust aligned with a turbulent magnetic field, at a fine and at a coarse beam.

    In a periodic box of cubic cells whose last axis is the line of sight s,

        n = exp(width g - width^2 / 2),     P_g(k) ~ k^slope exp(-lam mu^2),   mu = k.B0 / (|k| |B0|)
        B = B0 + Bt,  div Bt = 0,           P_Bt(k) ~ k^slope,                 rms |Bt| = f_M |B0|
        I = sum_s n [1 - p (cos^2 gamma - 2/3)],   Q + iU = sum_s p n cos^2 gamma exp(2 i psi)

    g and Bt Gaussian and independent, gamma the angle of B to the plane of the sky, psi = its angle there and
    90 degrees (Planck 2015 int. XX, arXiv:1405.0872). f_M is that of Vansyngel et al. 2017, arXiv:1611.02577.
    lam > 0 lays the density's waves across B0, so structures along it: TE > 0 and BB < EE, as on the sky
    (Planck 2018 XI, arXiv:1801.04945: r_TE 0.36, BB/EE 0.5); lam = 0 gives TE = 0 and BB = EE. The direction
    of B0 in the plane is uniformly random, another for each seed.

    What it is not: a solution of the equations of magnetohydrodynamics. Density knows B0 but not Bt, there is
    one temperature and one kind of grain, and slopes are those of a power law from the box to the cell.

    Values are in units of the mean intensity. Patches that are not periodic are cut from a larger box, after
    it has been smoothed.

    Args:
        stokes: "IQU" or "I", the channels of values and coarse.
        fine_beam, coarse_beam: full widths at half maximum [arcmin] of the beams of values and coarse.
        coarse_factor: pixels of the patch along the side of a pixel of coarse.
        width: rms of ln n.
        depth: cells along the line of sight.
        margin: by how much the box is larger than a patch that is not periodic, over the patch's side.
        polarisation: p, intrinsic.
        inclination: of B0 to the plane of the sky [deg].
        convention: of U, "COSMO" (angles grow from axis 0 towards axis 1) or "IAU" (the other way).
    """

    stokes: str = "IQU"
    fine_beam: float = 12.0
    coarse_beam: float = 80.0
    coarse_factor: int = 1
    width: float = 1.0
    depth: int = 64
    margin: float = 0.5
    polarisation: float = 0.2
    inclination: float = 30.0
    convention: str = "COSMO"

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The parameters that it needs, and between which values they make sense."""
        return {"slope": (-5.0, -2.0), "lam": (0.0, 10.0), "f_M": (0.01, 2.0)}

    def check(self, grid: Grid) -> None:
        """Refuse a grid or arguments that no patch can be made of.

        Raises:
            InputError: for them.
        """
        if grid.dim != 2 or not grid.angular or abs(grid.spacing[0] / grid.spacing[1] - 1) > 1e-6:
            raise InputError(f"dust needs a flat patch of sky with square pixels, got {grid}")
        if self.stokes not in ("I", "IQU") or self.convention not in ("COSMO", "IAU"):
            raise InputError(
                f"stokes must be I or IQU and convention COSMO or IAU, got {self.stokes!r} and "
                f"{self.convention!r}"
            )
        if not 0 <= self.fine_beam < self.coarse_beam:
            raise InputError(
                f"the fine beam must be narrower than the coarse one, got {self.fine_beam:g} and "
                f"{self.coarse_beam:g} arcmin"
            )
        if not (0 < self.width <= 3 and 0 <= self.polarisation <= 0.5 and 0 <= self.inclination <= 90):
            raise InputError(
                "width must be in (0, 3], polarisation in 0 to 0.5 and inclination in 0 to 90 degrees, got "
                f"{self.width:g}, {self.polarisation:g} and {self.inclination:g}"
            )
        if self.depth < 4 or self.coarse_factor < 1 or any(n % self.coarse_factor for n in grid.shape):
            raise InputError(
                f"depth must be 4 cells or more and coarse_factor divide the patch of {grid.shape}, got "
                f"{self.depth} and {self.coarse_factor}"
            )
        gap = min(b - n for b, n in zip(self.box(grid), grid.shape, strict=True)) * self.pixel(grid)
        if not grid.periodic and gap < self.coarse_beam:
            raise InputError(
                f"the box must be larger than a patch by the coarse beam of {self.coarse_beam:g} arcmin, or "
                f"opposite edges see each other; margin {self.margin:g} gives {gap:g} arcmin, raise it"
            )

    def box(self, grid: Grid) -> tuple[int, ...]:
        """Cells of the periodic box across the line of sight; even, a multiple of 16 around large patches."""
        if grid.periodic:
            return grid.shape
        step = 16 if min(grid.shape) >= 64 else 2
        return tuple(step * math.ceil(n * (1 + self.margin) / step) for n in grid.shape)

    @staticmethod
    def pixel(grid: Grid) -> float:
        """Side of a pixel [arcmin]."""
        return grid.spacing[0] * ARCMIN[grid.unit]

    def layout(self, grid: Grid) -> Layout:
        shape = tuple(n // self.coarse_factor for n in grid.shape)
        polarised = ((1, 2),) if self.stokes == "IQU" else ()
        return Layout("1", len(self.stokes), (), len(self.stokes), shape, spin_channels=polarised)

    def fields(self, params: Mapping[str, float], grid: Grid, seed: int, device: str = "cpu") -> Pair:
        """One patch at both beams, of ``slope``, ``lam`` and ``f_M``."""
        maps = self.sky(params, self.box(grid), seed, device)[:, : len(self.stokes)]
        pixel = self.pixel(grid)
        fine = smoothed(maps, pixel, self.fine_beam)
        coarse = smoothed(fine, pixel, between(self.fine_beam, self.coarse_beam))
        fine, coarse = (x[..., : grid.shape[0], : grid.shape[1]].cpu() for x in (fine, coarse))
        return Pair(fine.contiguous(), binned(coarse, self.coarse_factor))

    def sky(
        self, params: Mapping[str, float], shape: tuple[int, ...], seed: int, device: str = "cpu"
    ) -> Tensor:
        """I, Q, U ``(1, 3, *shape)`` of a whole periodic box, without a beam."""
        angle = 2 * math.pi * float(torch.rand((), generator=sample_generator(seed, 0, "dust/angle")))
        tilt = math.radians(self.inclination)
        mean = torch.tensor(
            [math.cos(tilt) * math.cos(angle), math.cos(tilt) * math.sin(angle), math.sin(tilt)],
            dtype=torch.float64,
        )
        box = (*shape, self.depth)
        waves = wave_lattice(box, device)
        noise = normal([sample_generator(seed, 0, "dust/density")], box).to(device)
        n = lognormal(noise, waves, params["slope"], params["lam"], mean, self.width)
        noise = normal([sample_generator(seed, i, "dust/field") for i in range(3)], box).to(device)
        field = solenoidal(noise, waves, params["slope"], params["f_M"])
        field += mean.to(field)[:, None, None, None]
        return stokes(n, field[None], self.polarisation, self.convention)


def wave_lattice(box: tuple[int, ...], device: str = "cpu") -> Waves:
    """The waves of a box of cubic cells, float32."""
    axes = [torch.fft.fftfreq(n) for n in box[:-1]] + [torch.fft.rfftfreq(box[-1])]
    freq = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(device)
    square = freq.square().sum(0)
    return Waves(2 * math.pi * freq, 4 * math.pi**2 * square, (freq.abs() < 0.5).all(0) & (square > 0))


def lognormal(
    noise: Tensor, waves: Waves, slope: float, lam: float, mean_field: Tensor, width: float
) -> Tensor:
    """Density ``(1, n0, n1, depth)`` of mean 1 in the ensemble, from white noise of that shape."""
    direction = (mean_field / mean_field.norm()).to(waves.k)
    mu2 = torch.einsum("i,ixyz->xyz", direction, waves.k).square() / waves.square.clamp(min=1e-12)
    g = _coloured(noise, waves, slope, torch.exp(-0.5 * lam * mu2))
    return torch.exp(width * g - width**2 / 2)


def solenoidal(noise: Tensor, waves: Waves, slope: float, rms: float) -> Tensor:
    """Gaussian field ``(3, n0, n1, depth)`` without divergence, from white noise; ``rms`` of its length."""
    box = noise.shape[1:]
    modes = torch.fft.rfftn(noise, dim=(1, 2, 3))
    modes -= waves.k * ((waves.k * modes).sum(0) / waves.square.clamp(min=1e-12))
    amplitude = _amplitude(waves, slope, 1.0, box)
    return torch.fft.irfftn(modes * amplitude * (rms / math.sqrt(2)), s=box, dim=(1, 2, 3))


def stokes(density: Tensor, field: Tensor, polarisation: float, convention: str = "COSMO") -> Tensor:
    """I, Q, U ``(B, 3, n0, n1)``, means along the line of sight, of n ``(B, ...)`` and B ``(B, 3, ...)``.

    The emission is polarised across the field, so a field along axis 0 gives Q < 0.
    """
    b0, b1, bs = field.unbind(1)
    across = b0.square() + b1.square()
    weight = polarisation * density / (across + bs.square())
    i = density * (1 + 2 * polarisation / 3) - weight * across
    q = weight * (b1.square() - b0.square())
    u = -2 * weight * b0 * b1
    return torch.stack([x.mean(DEPTH) for x in (i, q, u if convention == "COSMO" else -u)], 1)


def _coloured(noise: Tensor, waves: Waves, slope: float, shape: Tensor) -> Tensor:
    """Unit-variance fields of the spectrum ``k^slope shape^2``, from white noise ``(B, n0, n1, depth)``."""
    box = noise.shape[1:]
    modes = torch.fft.rfftn(noise, dim=(1, 2, 3))
    return torch.fft.irfftn(modes * _amplitude(waves, slope, shape, box), s=box, dim=(1, 2, 3))


def _amplitude(waves: Waves, slope: float, shape: Tensor | float, box: torch.Size) -> Tensor:
    """``k^(slope/2) shape`` times what makes white noise a field of unit variance in the ensemble."""
    amplitude = waves.square.clamp(min=1e-12) ** (slope / 4) * shape * waves.held
    twice = torch.full((amplitude.shape[-1],), 2.0, dtype=torch.float64, device=amplitude.device)
    twice[0] = 1.0
    if box[-1] % 2 == 0:
        twice[-1] = 1.0
    variance = (amplitude.double().square() * twice).sum() / math.prod(box)
    return amplitude / variance.sqrt().to(amplitude)
