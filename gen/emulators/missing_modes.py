"""The closed form of super-resolution: what of a coarse field is to be trusted, and a Gaussian rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gen.emulators.regression import Polynomial
from gen.emulators.torus import Torus
from gen.fields import Grid, ParameterSpace


class MissingModes(nn.Module):
    r"""``x_k = B(k) u_k + sqrt(P(k)) w_k``, with u the upsampled coarse field and w white noise.

    B is the regression of the true field x on u, ``P_xu / P_uu``, and P the power of what is left,
    ``P_xx - 2 B P_xu + B^2 P_uu`` with B as interpolated, so that both the power of x and its correlation
    with u come out right; where the coarse run knows nothing, B is zero and all is noise. Both are measured
    in ``n_k`` nodes of k and interpolated smoothly over the parameters, and so is the mean of x - u. It is
    the Gaussian process of these second moments, given u (Rybicki & Press 1992, ApJ 398, 169).

    Args:
        grid: of the true fields, periodic.
        vectors: how many vectors of ``grid.dim`` channels x holds, for potential flows: each is the gradient
            of a scalar, and all share one w. With 0, x has one scalar channel.
    """

    def __init__(
        self, grid: Grid, space: ParameterSpace, vectors: int = 0, degree: int = 2, n_k: int = 20
    ) -> None:
        super().__init__()
        self.grid, self.vectors, self.n_k = grid, vectors, n_k
        self.groups = max(1, vectors)
        self.response = Polynomial(space, self.groups * n_k, degree)
        self.log_power = Polynomial(space, self.groups * n_k, degree)
        self.shift = Polynomial(space, 1, degree)
        self.nodes = nn.Buffer(self._torus(grid.shape).nodes(n_k).float())

    def _torus(self, shape: Sequence[int]) -> Torus:
        return Torus(self.grid.resized(shape), 12 * self.grid.k_fundamental)

    @torch.no_grad()
    def fit(self, true: Tensor, upsampled: Tensor, params: Tensor) -> None:
        """Measure on pairs ``(N, C, *shape)`` at ``(N, P)`` parameters.

        B is that of all boxes together: what is left by a box's own lacks the waves that it has fitted, which
        are half of few.
        """
        torus, nodes = self._torus(self.grid.shape), self.nodes.double()
        found = []
        for x, u in zip(true, upsampled, strict=True):
            x, u = self._modes(x[None])[0], self._modes(u[None])[0]
            products = ((x * u.conj()).real, u.abs().square(), x.abs().square())
            xu, uu, xx = (
                torch.stack([torus.at_nodes(part.sum(0).double(), nodes) for part in self._grouped(p)])
                for p in products
            )
            uu = uu + 1e-30 + 1e-14 * float(uu.max())
            found.append(torch.stack([xu.flatten(), uu.flatten(), xx.flatten()]))
        xu, uu, xx = torch.stack(found, 1)
        self.response.fit(params, xu / uu, uu)
        b = self.response(params.float()).double()
        left = xx - 2 * b * xu + b.square() * uu
        powers = left.clamp(min=1e-9 * xx.amax(1, keepdim=True)).log()
        self.log_power.fit(params, powers)
        # The fit is to the mean logarithm, which is below the logarithm of the mean.
        made = self.log_power(params.float()).double()
        bias = powers.exp().mean(0).log() - made.exp().mean(0).log()
        self.log_power.coefficients[0] += bias.to(self.log_power.coefficients)
        self.shift.fit(params, (true - upsampled).flatten(1).double().mean(1, keepdim=True))

    def forward(self, upsampled: Tensor, white: Tensor, params: Tensor) -> Tensor:
        """Fields ``(B, C, *shape)`` of upsampled ones and unit white noise ``(B, 1, *shape)``."""
        return self.completed(*self.known(upsampled, params), white, params)

    def known(self, upsampled: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """What upsampled fields tell, ``B(k) u_k``, and the mean of the field."""
        response = self._on_lattice(self.response, params, self._torus(upsampled.shape[2:]))
        mean = upsampled.mean(self._axes(upsampled), keepdim=True)
        if not self.vectors:
            mean = mean + self.shift(params).reshape(-1, 1, *(1,) * self.grid.dim)
        return self._modes(upsampled).mul_(response), mean

    def rest(self, white: Tensor, params: Tensor) -> Tensor:
        """What is not known of scalar fields, ``(B, 1, *shape)``, from unit white noise of that shape."""
        shape, axes = white.shape[2:], self._axes(white)
        amplitude = self._on_lattice(self.log_power, params, self._torus(shape)).mul(0.5).exp()
        return torch.fft.irfftn(self._modes(white) * amplitude, s=shape, dim=axes, norm="ortho")

    def completed(self, modes: Tensor, mean: Tensor, white: Tensor, params: Tensor) -> Tensor:
        """Fields of what is known and the rest from white noise; ``modes`` are overwritten."""
        shape, axes = white.shape[2:], self._axes(white)
        amplitude = self._on_lattice(self.log_power, params, self._torus(shape)).mul(0.5).exp()
        w = torch.fft.rfftn(white.float(), dim=axes, norm="ortho")
        w[(slice(None), slice(None), *(0,) * self.grid.dim)] = 0
        modes.add_(self._polarised(w).mul_(amplitude))
        del amplitude, w  # of a large box each is as large as the field
        return torch.fft.irfftn(modes, s=shape, dim=axes, norm="ortho") + mean

    def _axes(self, x: Tensor) -> tuple[int, ...]:
        return tuple(range(2, x.ndim))

    def _modes(self, x: Tensor) -> Tensor:
        """Without the mean, of unit power for unit white noise."""
        axes = self._axes(x)
        return torch.fft.rfftn((x - x.mean(axes, keepdim=True)).float(), dim=axes, norm="ortho")

    def _grouped(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(C, *lattice)`` as its vectors, or as the one scalar."""
        return x.split(self.grid.dim if self.vectors else 1)

    def _on_lattice(self, polynomial: Polynomial, params: Tensor, torus: Torus) -> Tensor:
        """``(B, C, *lattice)`` of a measured function of k, the same for all components of a vector."""
        values = polynomial(params).unflatten(1, (self.groups, self.n_k))
        each = [torus.on_lattice(v, self.nodes.to(v)) for v in values.unbind(1)]
        repeats = self.grid.dim if self.vectors else 1
        return torch.stack(each, 1).repeat_interleave(repeats, 1).float()

    def _polarised(self, w: Tensor) -> Tensor:
        """The scalar itself, or a unit vector along i k for each vector."""
        if not self.vectors:
            return w
        shape = (*w.shape[2:-1], 2 * (w.shape[-1] - 1))
        axes = [torch.fft.fftfreq(n, device=w.device) for n in shape[:-1]]
        axes.append(torch.fft.rfftfreq(shape[-1], device=w.device))
        for n, axis in zip(shape, axes, strict=True):
            axis[n // 2] = 0  # a real field's gradient has none there
        k = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        unit = k / k.square().sum(0).sqrt().clamp(min=1e-12)
        return (1j * unit * w).repeat(1, self.vectors, *(1,) * self.grid.dim)
