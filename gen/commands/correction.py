"""Proposals of a displacement emulator, corrected by a few forces of the particle mesh."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gen.checkpoint import load
from gen.commands.laboratory import AT_ONCE, Laboratory
from gen.emulators.displacement import Displacement
from gen.errors import InputError
from gen.simulate.frame import MovingFrame, check_forces, proposed


@torch.no_grad()
def corrected(emulator: Displacement, coarse: Tensor, params: Tensor, n_forces: int) -> Tensor:
    """Displacement [Mpc/h] and velocity [km/s] ``(B, C, n, n, n)``: the emulator proposes, forces correct.

    The equations of motion are solved in the frame of the emulated trajectories (``gen.simulate.frame``;
    Bartlett et al. 2024, arXiv:2409.02154), with the force law that the training data were made with. The
    more forces, the nearer the converged particle mesh, whatever the emulator.

    Args:
        emulator: of a periodic cube; on its device everything is computed.
        coarse: Zel'dovich displacement ``(B, 3, n, n, n)`` [Mpc/h] at the fields' redshift.
        params: ``(B, P)``, physical units.
        n_forces: force evaluations, 1 or more.

    Raises:
        InputError: for no force, an emulator of planes, or displacements of another shape.
    """
    coarse, params = (x.to(emulator.device).float() for x in (coarse, params))
    return followed(emulator, coarse, params, n_forces, emulator.predict(coarse, params))


@torch.no_grad()
def followed(
    emulator: Displacement, coarse: Tensor, params: Tensor, n_forces: int, proposal: Tensor | None
) -> Tensor:
    """As ``corrected``, from a proposal ``(B, C, n, n, n)`` that is known, or from 2LPT: undamped COLA."""
    if emulator.grid.dim != 3 or len(set(emulator.grid.box_size)) != 1 or len(set(emulator.grid.shape)) != 1:
        raise InputError(f"forces correct displacements in a periodic cube, got {emulator.grid}")
    check_forces(n_forces)
    made = torch.empty(len(coarse), emulator.n_channels, *coarse.shape[2:], device=coarse.device)
    universes, which = params.unique(dim=0, return_inverse=True)
    for i, universe in enumerate(universes.tolist()):
        solver = Laboratory(emulator, dict(zip(emulator.space.names, universe, strict=True))).solver
        for rows in (which == i).nonzero()[:, 0].split(AT_ONCE):
            end = None if proposal is None else proposal[rows, :3]
            frame = MovingFrame(solver, proposed(solver, coarse[rows], end), damped=end is not None)
            made[rows] = torch.cat(frame.run(n_forces), 1)[:, : emulator.n_channels]
    return made


def check_correction(folders: Sequence[Path], n_forces: int) -> None:
    """Refuse to correct by no force, or what moves no particles.

    Raises:
        InputError: for fewer than one force, no checkpoint, or one of another class than ``Displacement``.
    """
    check_forces(n_forces)
    others = [f"{f} is a {type(e).__name__}" for f in folders if not isinstance(e := load(f), Displacement)]
    if others or not folders:
        raise InputError(
            f"--correct follows particles by forces, so it takes checkpoints of the class "
            f"gen.emulators.displacement.Displacement, got {' and '.join(others) or 'none'}; leave it out"
        )
