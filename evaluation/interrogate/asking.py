"""What a question is put to, and the Fourier side of displacement fields.

Everything here is a map from the Zel'dovich displacement ``(B, 3, n, n, n)`` [Mpc/h] of particles that start
at the centres of the cells of a periodic cube, q = (i + 1/2) L/n, to their evolved displacement, of the same
shape and unit. The emulator, 2LPT, the Zel'dovich approximation (the identity) and the simulation, which is
the truth, are such maps. The linear density is delta = - div psi.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gen.errors import InputError
from gen.fields import Grid

Map = Callable[[Tensor], Tensor]
Maps = Mapping[str, Map]
EMULATOR, SECOND_ORDER, FIRST_ORDER, TRUTH = "emulator", "2LPT", "Zel'dovich", "particle mesh"
CLOSED_FORM = "closed form"
"""What the emulator starts from, where that is not 2LPT."""
UNTOLD = "emulator, told the middle"
"""The emulator at the parameters of the middle universe, whatever the universe."""


def check_cube(grid: Grid) -> None:
    """Refuse what is no periodic cube of length.

    Raises:
        InputError: for it.
    """
    cube = grid.dim == 3 and len(set(grid.shape)) == len(set(grid.box_size)) == 1
    if not cube or not grid.periodic or grid.unit != "Mpc/h" or grid.shape[0] % 2 or grid.shape[0] < 8:
        raise InputError(
            f"displacements are questioned in a periodic cube in Mpc/h with an even number of cells a side, "
            f"at least 8, got {grid}"
        )


def places(grid: Grid) -> Tensor:
    """q = (i + 1/2) L/n, ``(3, n, n, n)`` [Mpc/h], float64."""
    lines = [
        (torch.arange(n, dtype=torch.float64) + 0.5) * d
        for n, d in zip(grid.shape, grid.spacing, strict=True)
    ]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))


def wavevector(grid: Grid) -> Tensor:
    """k on the rfftn lattice, ``(3, n, n, n/2+1)`` [h/Mpc], float64; Nyquist's, of no sign, are 0."""
    components = []
    for axis, (n, side) in enumerate(zip(grid.shape, grid.box_size, strict=True)):
        freq = (torch.fft.rfftfreq if axis == grid.dim - 1 else torch.fft.fftfreq)(
            n, 1 / n, dtype=torch.float64
        )
        components.append(torch.where(freq.abs() * 2 == n, 0.0, freq * (2 * math.pi / side)))
    return torch.stack(torch.meshgrid(*components, indexing="ij"))


def zeldovich(delta: Tensor, grid: Grid) -> Tensor:
    """psi with delta = - div psi and no curl, ``(B, 3, n, n, n)`` of ``(B, n, n, n)``, differentiable.

    psi_k = i k delta_k / k^2; waves on the Nyquist planes keep the components that have a sign.
    """
    k = wavevector(grid).to(delta)
    k2 = k.square().sum(0)
    inverse = torch.where(k2 > 0, 1 / k2.clamp(min=1e-30), 0.0)
    modes = torch.fft.rfftn(delta, dim=(1, 2, 3))
    return torch.fft.irfftn(1j * (k * inverse) * modes[:, None], s=grid.shape, dim=(2, 3, 4))


def linear_density(displacement: Tensor, grid: Grid) -> Tensor:
    """delta = - div psi, ``(B, n, n, n)`` of Zel'dovich displacements; the inverse of ``zeldovich``."""
    k = wavevector(grid).to(displacement)
    modes = torch.fft.rfftn(displacement, dim=(2, 3, 4))
    return torch.fft.irfftn((-1j * k * modes).sum(1), s=grid.shape, dim=(1, 2, 3))


def rms(displacement: Tensor) -> Tensor:
    """Root mean square length ``(B,)`` of vectors ``(B, 3, n, n, n)``, float64."""
    return displacement.double().square().sum(1).mean((1, 2, 3)).sqrt()
