"""Where a distant observer puts particles whose redshifts he takes for distances (Kaiser 1987)."""

from __future__ import annotations

from torch import Tensor

from gen.simulate.displacement import HUBBLE, Motion
from gen.simulate.growth import Growth


def redshift_space(motion: Motion, growth: Growth, a: float) -> Tensor:
    """Displacements ``(B, 3, n, n, n)`` [Mpc/h] with v / (a H) added along the last axis, the line of sight.

    Of linear motion, whose velocity is a H f psi, they are (1 + f) psi there, so the density's modes grow
    by 1 + f mu^2, mu the cosine of the line of sight.
    """
    shift = motion.velocity[:, 2] / (a * HUBBLE * float(growth.expansion(a)))
    moved = motion.displacement.clone()
    moved[:, 2] += shift
    return moved
