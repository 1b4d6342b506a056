"""Convergence maps: planes of a simulation's snapshots along the line of sight, Born-summed.

kappa(theta) = sum_i W(chi_i) L delta_2D,i(chi_i theta), one plane per slab of one box length L
(Jain, Seljak & White 2000, astro-ph/9901191; Petri 2016, arXiv:1606.01903, for the reuse of one
box). Each map sees each plane along a random axis, randomly shifted, mirrored and rotated by any angle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d as average_pool

from gen.errors import InputError
from gen.fields import Grid
from gen.simulate.mass_assignment import deposit, readout, window, wrap
from gen.simulate.theory import Cosmology, comoving_distance, lensing_weight, scale_factor


@dataclass(frozen=True)
class Slab:
    """One box length of the light cone: distance [Mpc/h], scale factor, weight of delta_2D in kappa."""

    distance: float
    a: float
    weight: float


def slabs(cosmo: Cosmology, box_size: float, z_source: float) -> list[Slab]:
    """Slabs from the observer to the source, nearest first.

    The last one is cut by the source; the whole box is projected all the same, with its weight
    lowered by the root of the cut, which keeps the variance. Its share of the power is below 0.1 %.
    """
    source = float(comoving_distance(cosmo, 1 / (1 + z_source)))
    out = []
    for i in range(math.ceil(source / box_size)):
        depth = min(box_size, source - i * box_size)
        middle = i * box_size + depth / 2
        weight = float(lensing_weight(cosmo, middle, source)) * math.sqrt(depth * box_size)
        out.append(Slab(middle, float(scale_factor(cosmo, middle)), weight))
    return out


def plane_modes(positions: Tensor, cells: int, mesh: int, cutoff: float = math.inf) -> Tensor:
    """Fourier modes ``(B, 3, mesh, mesh/2+1)`` of the density contrast projected along each axis.

    Args:
        positions: ``(B, 3, P)`` in units of the box's ``cells``.
        mesh: cells of the plane along each side; the assignment's window is divided out.
        cutoff: modes are multiplied by exp(-(k/cutoff)^4), k in cycles per side.

    The transverse axes stay in order, so axis 1 gives a plane of (x, z). Normalised as a mean, so that
    delta(u) = sum_k modes_k exp(2 pi i k u).
    """
    scaled = positions * (mesh / cells)
    scaled = scaled.masked_fill(scaled >= mesh, 0.0)
    planes = [deposit(scaled[:, axes].contiguous(), mesh) for axes in ([1, 2], [0, 2], [0, 1])]
    count = torch.stack(planes, dim=1)
    modes = torch.fft.rfft2(count / count[0, 0].sum())
    rows = torch.fft.fftfreq(mesh, 1 / mesh, device=positions.device)[:, None]
    columns = torch.arange(mesh // 2 + 1, device=positions.device)
    damping = torch.exp(-(((rows**2 + columns**2) / cutoff**2) ** 2))
    modes = modes * (damping / window(mesh, 2, device=positions.device)).to(damping.dtype)
    modes[..., 0, 0] = 0
    modes[..., mesh // 2, :] = 0
    modes[..., mesh // 2] = 0
    return modes


def sample_planes(
    planes: Tensor, choice: Tensor, pixel: tuple[float, float], shape: tuple[int, int]
) -> Tensor:
    """Pixel means of one plane per map, ``(M, *shape)``: linear interpolation at up to 3^2 points a pixel.

    A pixel smaller than a cell of the plane needs one point, as the plane is smooth on the scale of a cell.

    Args:
        planes: ``(3, mesh, mesh)``, the planes along the three axes.
        choice: ``(M, 5)`` uniform numbers in [0, 1): axis, angle of rotation, mirror, two shifts.
        pixel: pixel sides as fractions of the plane.
    """
    mesh = planes.shape[1]
    samples = min(3, math.ceil(max(pixel) * mesh))
    axis, angle = (choice[:, 0] * 3).long(), 2 * math.pi * choice[:, 1]
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    lines = [
        ((torch.arange(n * samples, device=planes.device) + 0.5) / samples - n / 2) * side
        for n, side in zip(shape, pixel, strict=True)
    ]
    u = lines[0][None, :, None] * torch.where(choice[:, 2] < 0.5, -1.0, 1.0)[:, None, None]
    v = lines[1][None, None, :]
    points = torch.stack([cosine * u - sine * v, sine * u + cosine * v], dim=1) + choice[:, 3:, None, None]
    points = wrap(torch.remainder(points, 1.0) * mesh, mesh).flatten(2)
    values = readout([planes[axis]], points).reshape(len(choice), 1, *(n * samples for n in shape))
    return average_pool(values, samples)[:, 0]


@dataclass(frozen=True)
class LightCone:
    """Convergence maps of one simulation, summed plane by plane as its snapshots come.

    Args:
        cosmo: the cosmology of the simulation.
        box_size: its side, the thickness of a slab [Mpc/h].
        grid: the map, flat sky; a pixel's value is the mean over the pixel.
        z_source: redshift of all sources.
        plane_mesh: cells along a plane's side.
        cutoff: planes are filtered by exp(-(k/cutoff)^4) [h/Mpc]. Well beyond the particles' Nyquist
            wavenumber they hold shot noise and, in voids, the lattice that the particles started from.

    A map wider than the box (3.5 deg beyond chi = 2095 Mpc/h of a 128 Mpc/h box) sees a plane repeat;
    at z_source = 1 these planes carry 1 % of the power at Omega_m = 0.3, 7 % at 0.1, none from 0.5 on.
    """

    cosmo: Cosmology
    box_size: float
    grid: Grid
    z_source: float = 1.0
    plane_mesh: int = 256
    cutoff: float = math.inf

    def __post_init__(self) -> None:
        if self.grid.dim != 2 or not self.grid.angular:
            raise InputError(f"a convergence map needs a 2-D grid in degrees, got {self.grid}")

    def slabs(self) -> list[Slab]:
        return slabs(self.cosmo, self.box_size, self.z_source)

    def project(self, slab: Slab, positions: Tensor, cells: int, choice: Tensor) -> Tensor:
        """Contribution of a slab to the maps ``(B, M, *shape)``; ``choice`` is ``(B, M, 5)`` uniform."""
        mesh = self.plane_mesh
        modes = plane_modes(positions, cells, mesh, self.cutoff * self.box_size / (2 * math.pi))
        # The readout interpolates with the same window as the deposit.
        modes = modes / window(mesh, 2, device=modes.device).to(modes.real.dtype)
        planes = torch.fft.irfft2(modes, s=(mesh, mesh), norm="forward")
        n0, n1 = self.grid.shape
        s0, s1 = self.grid.k_sides
        scale = slab.distance / self.box_size
        pixel = (s0 / n0 * scale, s1 / n1 * scale)
        maps = [sample_planes(p, c, pixel, (n0, n1)) for p, c in zip(planes, choice, strict=True)]
        return slab.weight * torch.stack(maps)
