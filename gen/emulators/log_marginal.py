"""The one-point law of a positive field that spans decades and may be of two phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.special import ndtr, ndtri

from gen.emulators.marginal import OnePointLaw, at_rank, empirical_quantiles
from gen.emulators.piecewise import LEAST, increasing, through
from gen.emulators.regression import Polynomial, needed
from gen.errors import InputError
from gen.fields import ParameterSpace

STEP = 0.0625
LOWEST, HIGHEST = -3.0, 5.0
"""Scores within its phase where a law's nodes begin, and where those of the upper phase end."""
TABLE = 4096
"""Even scores at which a law is tabulated, 0.002 to 0.003 apart: no field tells its law so well."""
MOST_EMPTY = 1e-5
"""Share of cells of a training set that may hold nothing."""


class LogMarginal(OnePointLaw):
    r"""``q(x; theta)``, piecewise linear in ln q.

    Neutral hydrogen, as an example, fills halos and, thinly, all else: between its two phases ln q climbs by
    decades, at a score s(theta) that moves far. Nodes at fixed scores would smear that step over all its
    places; so ln q is regressed on the parameters at fixed scores *within* a phase, w, where

        Phi(x) = Phi(s) Phi(w) of the lower phase and Phi(-x) = Phi(-s) Phi(-w) of the upper,

    and s as well. Above ``reach`` all cosmologies are pooled.

    Args:
        reach: score up to which the fields of one cosmology tell their law; 3.5 for 10^4 cells.
        phases: 1 or 2.
        knots: of ``Polynomial``.

    Raises:
        InputError: for another number of phases.
    """

    def __init__(
        self,
        space: ParameterSpace,
        reach: float = 4.25,
        degree: int = 3,
        phases: int = 1,
        knots: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        if phases not in (1, 2):
            raise InputError(f"a law has 1 or 2 phases, got {phases}")
        super().__init__()
        self.reach = reach
        upper = torch.arange(LOWEST if phases == 2 else -HIGHEST, HIGHEST + STEP / 2, STEP).double()
        lower = torch.arange(LOWEST, -LOWEST + STEP / 2, STEP).double() if phases == 2 else upper[:0]
        #: Scores within each phase of its nodes.
        self.within = (lower, upper)
        self.n_nodes = len(lower) + len(upper)
        self.shape = Polynomial(space, self.n_nodes, degree, knots)
        self.boundary = Polynomial(space, 1, degree, knots)

    def places(self, params: Tensor) -> Tensor:
        """Scores of the nodes, ``(B, n_nodes)``, increasing."""
        lower, upper = (w.to(params.device) for w in self.within)
        if not len(lower):
            return upper.to(params).expand(len(params), -1)
        s = self.boundary(params).double()
        return torch.cat([ndtri(ndtr(lower) * ndtr(s)), -ndtri(ndtr(-upper) * ndtr(-s))], 1).to(params)

    def nodes(self, params: Tensor) -> Tensor:
        """ln q at the nodes, ``(B, n_nodes)``, increasing."""
        return increasing(self.shape(params))

    def _node(self, w: float) -> int:
        """The node at a score within the upper phase."""
        lower, upper = self.within
        return len(lower) + round((w - float(upper[0])) / STEP)

    @torch.no_grad()
    def fit_fields(self, params: Tensor, fields: Sequence[Tensor]) -> None:
        """From positive fields ``(B, ...)`` at each of ``M`` cosmologies ``(M, P)``.

        Raises:
            InputError: for values below 0, and for more than a few cells that are empty.
        """
        empty = sum(int((field <= 0).sum()) for field in fields) / sum(field.numel() for field in fields)
        least = min(float(field.min()) for field in fields)
        if least < 0 or empty > MOST_EMPTY:
            raise InputError(
                f"a copula of logarithms needs positive values, and at most {MOST_EMPTY:g} of all cells "
                f"empty, got values down to {least:g} and {empty:.2g} of all cells at 0 or below; leave out "
                "logarithmic"
            )
        logs = [logarithm(field.double()).flatten().sort().values for field in fields]
        told = []
        parts = self._parts(params, logs)
        for phases in parts:
            pairs = zip(phases, self.within, strict=True)
            told.append(torch.cat([empirical_quantiles(p, w) for p, w in pairs if len(w)]))
        self.shape.fit(params, torch.stack(told))
        self._pool_tail(params, [upper for _, upper in parts])
        self._calibrate(params, parts)

    def _parts(self, params: Tensor, logs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Each cosmology's values below and above the step between its phases; fits where that lies."""
        if not len(self.within[0]):
            return [(x[:0], x) for x in logs]
        height = Polynomial(self.shape.space, 1, 1).double()
        height.fit(params, torch.stack([_steepest(x) for x in logs])[:, None])
        parts = []
        for x, level in zip(logs, height(params.double())[:, 0], strict=True):
            n = int(torch.searchsorted(x, level).clamp(2, len(x) - 2))
            parts.append((x[:n], x[n:]))
        share = torch.tensor([len(a) / (len(a) + len(b)) for a, b in parts], dtype=torch.float64)
        self.boundary.fit(params, ndtri(share)[:, None])
        return parts

    def _pool_tail(self, params: Tensor, upper: Sequence[Tensor]) -> None:
        """Beyond ``reach``, the steps of all cosmologies together, as if they did not depend on parameters.

        One field of each ends where all together still tell the law. A tail that is prolonged instead makes
        a few cells, and with them the power of such a field, too large at random.
        """
        last = self._node(self.reach)
        if last >= self.n_nodes - 1:
            return
        ends = self.shape(params.to(self.shape.coefficients))[:, last].double()
        beyond = torch.cat([(x - end).clamp(min=0) for x, end in zip(upper, ends, strict=True)])
        outer = ndtr(-self.within[1][last - len(self.within[0]) :])
        height = beyond.topk(int(outer[0] * len(beyond)) + 2).values
        climb = at_rank(height, (outer * len(beyond) - 0.5).clamp(0, len(height) - 2))
        climb = (climb - climb[0]) + LEAST * torch.arange(len(climb))
        coefficients = self.shape.coefficients
        coefficients[:, last:] = coefficients[:, last, None]
        coefficients[0, last:] += climb.to(coefficients)

    def _calibrate(self, params: Tensor, parts: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Move all laws alike so that of all fields together as many cells as should are below each node.

        Fields of one law scatter, and the mean of their quantiles lies inside the quantiles of their mixture.
        """
        params = params.to(self.shape.coefficients)
        n_lower = len(self.within[0])
        places = (slice(0, n_lower), slice(n_lower, None))
        for place, w, values in zip(places, self.within, zip(*parts, strict=True), strict=True):
            if not len(w):
                continue
            nodes = self.nodes(params)[:, place].double()
            inside = [through(n[None], w[None], x[None])[0] for n, x in zip(nodes, values, strict=True)]
            seen = empirical_quantiles(torch.cat(inside), w)
            moved = through(w.expand(len(nodes), -1), nodes, seen.expand(len(nodes), -1)) - nodes
            self.shape.coefficients[0, place] += moved.mean(0).to(self.shape.coefficients)

    def forward(self, x: Tensor, params: Tensor, places: Tensor | None = None) -> Tensor:
        """Values of scores, see ``OnePointLaw``.

        Read off a table of even scores, which is four times as fast as to look for each cell's node.
        """
        rows = needed(params)
        places = (self.places(params) if places is None else places)[rows]
        low, high = places[:, :1], places[:, -1:]
        at = low + (high - low) * torch.linspace(0, 1, TABLE, device=x.device, dtype=x.dtype)
        table = through(places, self.nodes(params)[rows], at).expand(len(x), -1)
        step = (x.reshape(len(x), -1) - low) * ((TABLE - 1) / (high - low))
        cell = step.detach().long().clamp(0, TABLE - 2)
        climb = table.diff(dim=-1).gather(1, cell) * (step - cell)
        return (table.gather(1, cell) + climb).exp().reshape(x.shape)

    def variable(self, x: Tensor, params: Tensor) -> Tensor:
        """What a two-point function is taken of, at scores x: ln q."""
        return through(self.places(params), self.nodes(params), x)

    def of_values(self, values: Tensor) -> Tensor:
        return logarithm(values)

    def inverse(self, values: Tensor, params: Tensor, places: Tensor | None = None) -> Tensor:
        places = self.places(params) if places is None else places
        return through(self.nodes(params), places, logarithm(values))

    def mean(self, params: Tensor) -> Tensor:
        """E[q], ``(B,)``."""
        x = torch.linspace(-6, 6, 2401).to(params)
        weight = torch.softmax(-(x**2) / 2, 0)
        return (self(x.expand(len(params), -1), params) * weight).sum(1)

    def scale(self, params: Tensor) -> Tensor:
        ends = params.new_tensor([-1.0, 1.0]).expand(len(params), -1)
        return self(ends, params).diff(dim=-1)[:, 0] / 2


def logarithm(values: Tensor) -> Tensor:
    """ln of fields ``(B, ...)``, in which an empty cell counts as the least of its field that is not."""
    if bool((values > 0).all()):
        return values.log()
    least = torch.where(values > 0, values, torch.inf).flatten(1).amin(1)
    return torch.where(values > 0, values, least.reshape(-1, *[1] * (values.ndim - 1))).log()


def _steepest(ordered: Tensor) -> Tensor:
    """The middle of the quarter of a sigma over which ln q climbs most, of scores in -3 to 0.5."""
    scores = torch.arange(-3, 0.501, 0.0625, dtype=torch.float64)
    q = empirical_quantiles(ordered, scores)
    start = int((q[4:] - q[:-4]).argmax())
    return (q[start] + q[start + 4]) / 2
