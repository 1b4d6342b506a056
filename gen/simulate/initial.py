"""Initial conditions: white noise whose large scales do not depend on the resolution, and 2LPT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from gen.noise import normal


@lru_cache(maxsize=4)
def _mode_order(n: int) -> Tensor:
    """Flat rfftn indices of all modes below the Nyquist planes, in an order that larger lattices extend."""
    half = n // 2
    full = torch.fft.fftfreq(n, 1 / n).to(torch.int64)
    kx, ky, kz = torch.meshgrid(full, full, torch.arange(half + 1), indexing="ij")
    shell = torch.stack([kx.abs(), ky.abs(), kz]).amax(0)
    base = 1 << 13
    key = ((shell * base + kx + base // 2) * base + ky + base // 2) * base + kz
    inside = (shell < half).reshape(-1).nonzero()[:, 0]
    return inside[key.reshape(-1)[inside].argsort()]


def white_noise(generators: Sequence[torch.Generator], n: int) -> Tensor:
    """Fourier modes ``(B, n, n, n/2+1)`` of unit white noise, <|w_k|^2> = 1, zero on the Nyquist planes.

    Numbers are drawn shell by shell, so row i of any two sizes shares the modes that both hold: the
    same universe at another resolution.
    """
    order = _mode_order(n)
    count = -(-2 * len(order) // 16) * 16  # torch draws in blocks of 16
    draws = normal(generators, (count,))[:, : 2 * len(order)].reshape(len(generators), -1, 2)
    modes = torch.zeros(len(generators), n * n * (n // 2 + 1), dtype=torch.complex64)
    modes[:, order] = torch.view_as_complex(draws.contiguous()) * 0.5**0.5
    modes = modes.reshape(len(generators), n, n, n // 2 + 1)
    plane = modes[..., 0]
    mirror = torch.roll(torch.flip(plane, (1, 2)), (1, 1), (1, 2)).conj()
    modes[..., 0] = (plane + mirror) * 0.5**0.5  # a real field's own conjugate, at unit variance
    modes[:, 0, 0, 0] = 0
    return modes


def wavevector(
    n: int, box_size: float, device: torch.device | None = None, *, odd: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Components of k on the rfftn lattice, broadcastable; ``odd`` zeroes Nyquist, for odd derivatives."""
    full = torch.fft.fftfreq(n, box_size / n / (2 * torch.pi), device=device)
    half = torch.fft.rfftfreq(n, box_size / n / (2 * torch.pi), device=device)
    if odd:
        full[n // 2], half[-1] = 0, 0
    return full[:, None, None], full[None, :, None], half[None, None, :]


def sum_of_squares(k: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """|k|^2 on the lattice."""
    return k[0] ** 2 + k[1] ** 2 + k[2] ** 2


def linear_modes(noise: Tensor, box_size: float, power: Callable[[Tensor], Tensor]) -> Tensor:
    """Modes ``(B, n, n, n/2+1)`` of the linear density contrast, torch.fft.rfftn convention.

    <|delta_k|^2> = P(k) N^2 / V with N = n^3 cells; ``power`` takes k [h/Mpc], gives (Mpc/h)^3.
    """
    n = noise.shape[1]
    k = sum_of_squares(wavevector(n, box_size)).sqrt()
    amplitude = torch.zeros_like(k)
    held = k > 0
    amplitude[held] = (power(k[held]) * n**6 / box_size**3).sqrt().to(amplitude.dtype)
    return noise * amplitude.to(noise.device)


def at_cell_centres(modes: Tensor) -> Tensor:
    """Modes ``(B, n, n, n/2+1)`` of the field half a cell on along each axis, f(x + L / 2n).

    Index i of a lattice of n stands for x = i L/n to a Fourier transform. Lattices of two sizes whose
    cells nest, with values at the centres (i + 1/2) L/n, hold one universe only after this shift.
    Modes on the Nyquist planes must be zero, as ``white_noise`` leaves them.
    """
    n = modes.shape[1]
    kx, ky, kz = wavevector(n, float(n), modes.device)
    phase = (kx + ky + kz) / 2
    return modes * torch.polar(torch.ones_like(phase), phase)


def divergence_modes(displacement: Tensor, box_size: float) -> Tensor:
    """Modes ``(B, n, n, n/2+1)`` of - div psi, the linear density of a displacement ``(B, 3, n, n, n)``."""
    modes = torch.fft.rfftn(displacement, dim=(2, 3, 4))
    k = wavevector(displacement.shape[-1], box_size, displacement.device, odd=True)
    return torch.stack([-1j * ki * modes[:, i] for i, ki in enumerate(k)]).sum(0)


def displacements(delta: Tensor, box_size: float) -> tuple[Tensor, Tensor]:
    """First and second order displacement at unit growth, each ``(B, 3, n, n, n)`` [Mpc/h].

    x = q - D1 grad phi1 + D2 grad phi2 with lap phi1 = delta and lap phi2 = sum_{i<j}
    (phi1_ii phi1_jj - phi1_ij^2) (Bouchet et al. 1995, astro-ph/9406013); returns -grad phi1 and
    grad phi2.
    """
    n = delta.shape[1]
    k = wavevector(n, box_size, delta.device)
    k2 = sum_of_squares(k)
    inverse = torch.where(k2 > 0, 1 / k2.clamp(min=1e-30), torch.zeros_like(k2))
    phi = -delta * inverse

    def real(modes: Tensor) -> Tensor:
        return torch.fft.irfftn(modes, s=(n, n, n), dim=(1, 2, 3))

    def gradient(potential: Tensor) -> Tensor:
        return torch.stack([real(1j * ki * potential) for ki in k], dim=1)

    diagonal = [real(-ki * ki * phi) for ki in k]
    source = diagonal[0] * diagonal[1] + diagonal[1] * diagonal[2] + diagonal[2] * diagonal[0]
    for i, j in ((0, 1), (1, 2), (2, 0)):
        source -= real(-k[i] * k[j] * phi) ** 2
    phi2 = -torch.fft.rfftn(source, dim=(1, 2, 3)) * inverse
    return -gradient(phi), gradient(phi2)
