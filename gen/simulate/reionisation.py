"""A source of boxes of the epoch of reionisation, by 21cmFAST where it is installed."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from gen.errors import InputError
from gen.fields import Grid
from gen.simulate.nbody_pairs import Layout, Pair, check_box
from gen.simulate.theory import Cosmology

UNITS = {"brightness_temperature": "mK", "neutral_fraction": "1"}
SEEDS = 2**31 - 1
"""The seed is taken modulo this prime: 21cmFAST hands it to C as an int."""
BUBBLE = 50.0
"""Largest radius of a region that ionises itself [Mpc]; a third of the box where that is smaller."""


@dataclass(frozen=True)
class Reionisation:
    """The 21-cm brightness temperature [mK] or the fraction of neutral hydrogen, by 21cmFAST 4.1.

    Mesinger, Furlanetto & Cen 2011 (arXiv:1003.3878) and Murray et al. 2020 (JOSS 5, 2582), the template
    ``const-zeta``: 2LPT, an excursion set of regions whose halos ionise them, spin temperatures far above
    that of the background, no recombinations, no redshift space. An extra: ``cosmozoo[reionisation]``.

    Run with 21cmFAST 4.1.1: 32^3 cells of 3 Mpc/h take 2.5 to 5 s on one core. At z = 8 and efficiency 30 a
    box of (Omega_m, sigma_8) = (0.3, 0.8) is neutral by 0.36, one of sigma_8 = 0.9 by less than 0.001.

    Args:
        field: ``brightness_temperature`` or ``neutral_fraction``; both hold exact zeros where gas is ionised.
        efficiency: zeta, ionising photons that leave halos for each of their baryons, over recombinations.
        oversampling: cells of the initial conditions along each side of a cell.
    """

    field: str = "brightness_temperature"
    efficiency: float = 30.0
    oversampling: int = 3

    @property
    def redshifts(self) -> tuple[float, float]:
        """Between which 21cmFAST is asked for boxes."""
        return 5.0, 20.0

    def check(self, grid: Grid) -> None:
        check_box(grid, 0, 1, self.oversampling)
        if self.field not in UNITS or not 0 < self.efficiency <= 1000:
            raise InputError(
                f"field must be {' or '.join(UNITS)} and efficiency in (0, 1000], got {self.field!r} and "
                f"{self.efficiency:g}"
            )

    def layout(self, grid: Grid) -> Layout:
        del grid
        return Layout(UNITS[self.field])

    def fields(self, cosmo: Cosmology, z: float, grid: Grid, seed: int, device: str = "cpu") -> Pair:
        """One box; 21cmFAST works on the processor, on one thread.

        Raises:
            InputError: without 21cmFAST.
        """
        del device
        p21c = py21cmfast()
        side = grid.box_size[0] / cosmo.h
        with warnings.catch_warnings(), TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")  # of coarse cells, and of the template's own mass function
            inputs = p21c.InputParameters.from_template(
                "const-zeta", random_seed=seed % SEEDS, N_THREADS=1,
                BOX_LEN=side, HII_DIM=grid.shape[0], DIM=grid.shape[0] * self.oversampling,
                OMm=cosmo.Omega_m, OMb=cosmo.Omega_b, hlittle=cosmo.h, SIGMA_8=cosmo.sigma_8,
                POWER_INDEX=cosmo.n_s, HII_EFF_FACTOR=self.efficiency, R_BUBBLE_MAX=min(BUBBLE, side / 3),
            )  # fmt: skip
            cache = p21c.OutputCache(folder)
            (box,) = p21c.run_coeval(inputs=inputs, out_redshifts=[z], write=False, cache=cache)
        found = box.brightness_temp if self.field == "brightness_temperature" else box.neutral_fraction
        return Pair(torch.from_numpy(np.array(found, dtype=np.float32))[None, None], None)


def py21cmfast() -> Any:
    """The package.

    Raises:
        InputError: without it, which says what it needs.
    """
    try:
        return importlib.import_module("py21cmfast")
    except ImportError as error:
        raise InputError(
            f"reionisation boxes need 21cmFAST ({error}); on Debian and Ubuntu: apt install gcc g++ "
            "libfftw3-dev libgsl-dev, then pip install 'cosmozoo[reionisation]', which builds it"
        ) from error
