"""Born convergence maps from the lens planes of one real N-body slab."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gen.data.arrays import open_array
from gen.data.base import SPLITS, SimulationSet, Source
from gen.errors import InputError
from gen.fields import Grid, ParameterSpace
from gen.noise import sample_generator


@dataclass(frozen=True)
class Sector:
    """A part of the planes: a block of pixels, cut to directions from pixel corner [0, 0].

    The planes show one slab at many distances, so a structure moves towards that corner in angle and
    keeps its ratio of row to column. Parts that share no direction share no structure.

    Args:
        split: what it is for.
        rows, columns: the block, half open.
        slope: range of tan(direction), column / row, of every point of every crop.
    """

    split: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    slope: tuple[float, float] = (0.0, np.inf)

    def corners(self, n: int) -> np.ndarray:
        """First pixels ``(m, 2)`` of all ``n x n`` crops that lie wholly inside."""
        r = np.arange(self.rows[0], self.rows[1] - n + 1)[:, None]
        c = np.arange(self.columns[0], self.columns[1] - n + 1)[None, :]
        inside = (c >= self.slope[0] * (r + n)) & (c + n <= self.slope[1] * r)
        i, j = np.nonzero(inside)
        return np.stack([i + self.rows[0], j + self.columns[0]], axis=1)


_TRAIN, _TEST = ((256, 504), (8, 256)), ((8, 192), (192, 384))

#: Each block in two by direction, with a gap of 13 pixels or more between the parts of one block.
SECTORS = (
    Sector("train", *_TRAIN, slope=(0.0, 0.45)),
    Sector("validation", *_TRAIN, slope=(0.50, 0.97)),
    Sector("test", *_TEST, slope=(1 / 0.32, np.inf)),
    Sector("test", *_TEST, slope=(1.03, 1 / 0.37)),
)
BLOCKS = (Sector("train", *_TRAIN), Sector("test", *_TEST))


class LensingPlanes(Source):
    """PSEUDO-INDEPENDENT convergence maps: every map is made of one slab of one N-body simulation.

    kappa = sum_i (1 - chi_i / chi_s) kappa_i over the planes before the source (Born approximation; the
    plane's thickness is in kappa_i, which is for a source at infinity). Each plane is cropped at random
    inside a sector and turned by a random element of the square's group *before* the sum; it is never
    rolled, since a sector has edges. Sectors share no direction from pixel corner [0, 0], so no structure
    is in two of them (data/README: a split by plane, row, column or random crop leaks).

    ``simulation`` is the sector. There are four (train, validation, two for test), so nothing here
    measures sample variance or the dependence on parameters: error bars from these maps are too small,
    and "test" means other structures of the same initial conditions. Use it for real input, for
    memorisation, and for the spread between regions.

    Values are dimensionless, pixels are 3.5 deg / 512, maps are not periodic. The planes are smoothed by
    about 2 pixels. Cosmology: flat, Omega_m = 0.26, h = 0.7; there are no parameters.

    Args:
        path: ``planes.npz``; by default in ``$COSMOZOO_DATA`` or in ``shared/data`` beside the repository.
        z_source: redshift of the sources, inside the planes' range.
        n_pixels: side of a map; up to 78 with four sectors.
        maps: number of maps of each sector's split: train, validation, test (test: in each sector).
        whole_blocks: take both blocks whole, without validation, for maps of up to 178 pixels.
        seed: of crops and turns; map i of a sector is a function of (seed, sector, i).

    Raises:
        InputError: for a file that is not this one, a redshift out of range, or maps that do not fit.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        z_source: float = 1.0,
        n_pixels: int = 64,
        maps: Sequence[int] = (4096, 512, 512),
        whole_blocks: bool = False,
        seed: int = 0,
    ) -> None:
        self.path = data_folder() / "lensing" / "planes.npz" if path is None else Path(path).expanduser()
        self.z_source, self.n_pixels, self.seed = z_source, n_pixels, seed
        self.maps = tuple(maps)
        if len(self.maps) != 3 or min(self.maps) < 0:
            raise InputError(f"maps must be three numbers, of train, validation and test, got {list(maps)}")
        self.sectors = BLOCKS if whole_blocks else SECTORS

    def prepare(self) -> None:
        if not self.path.is_file():
            raise InputError(
                f"{self.path} does not exist; give the path of planes.npz, or set COSMOZOO_DATA to the "
                "folder "
                f"that holds lensing/planes.npz"
            )
        for index, sector in enumerate(self.sectors):
            places = len(sector.corners(self.n_pixels))
            if places < 100:  # fewer would repeat themselves across the planes
                raise InputError(
                    f"maps of {self.n_pixels} pixels have {places} places in sector {index} of the planes, "
                    "at "
                    f"least 100 are needed; use fewer pixels, or whole_blocks"
                )

    def load(self) -> SimulationSet:
        self.prepare()
        planes, weights, pixel = self._planes()
        counts = [self.maps[SPLITS.index(sector.split)] for sector in self.sectors]
        values = np.concatenate([self._maps(planes, weights, i, n) for i, n in enumerate(counts)])
        side = self.n_pixels
        return SimulationSet(
            Grid((side, side), side * pixel, "deg", periodic=False),
            ParameterSpace((), (), ()),
            torch.from_numpy(values)[:, None],
            torch.zeros(len(values), 0),
            torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
            np.repeat([sector.split for sector in self.sectors], counts),
            np.full(len(values), "interior", dtype="<U13"),
            f"Born maps of one N-body slab, z_s={self.z_source:g} (pseudo-independent)",
            "1",
        ).check()

    def _planes(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Planes before the source ``(n, 512, 384)`` float32, their weights ``(n,)``, and the pixel [deg]."""
        kappa, z, chi = (open_array(self.path, key) for key in ("kappa", "z", "chi"))
        if kappa.ndim != 3 or kappa.shape[1:] != (512, 384) or not len(kappa) == len(z) == len(chi):
            raise InputError(
                f"{self.path} must hold kappa (n, 512, 384) with z and chi (n,), got shapes {kappa.shape}, "
                f"{z.shape}, {chi.shape}; use the planes.npz of data/README"
            )
        if not z[0] < self.z_source <= z[-1]:
            raise InputError(
                f"z_source must be in ({z[0]:.3f}, {z[-1]:.3f}], the planes' range, got {self.z_source}"
            )
        chi_source = np.interp(self.z_source, z, chi)
        before = chi < chi_source
        pixel = float(open_array(self.path, "angle_deg")) / int(open_array(self.path, "npix_full"))
        return kappa[before].astype(np.float32), (1 - chi[before] / chi_source).astype(np.float32), pixel

    def _maps(self, planes: np.ndarray, weights: np.ndarray, index: int, count: int) -> np.ndarray:
        """``count`` Born maps ``(count, n, n)`` of a sector."""
        n, corners = self.n_pixels, self.sectors[index].corners(self.n_pixels)
        place, turn = self._draws(index, count, len(planes), len(corners))
        total = np.zeros((count, n, n), dtype=np.float32)
        for i, (plane, weight) in enumerate(zip(planes, weights, strict=True)):
            windows = np.lib.stride_tricks.sliding_window_view(plane, (n, n))
            for element in range(8):
                rows = np.flatnonzero(turn[:, i] == element)
                crops = windows[tuple(corners[place[rows, i]].T)]
                total[rows] += weight * _turned(crops, element)
        return total

    def _draws(self, index: int, count: int, n_planes: int, n_places: int) -> tuple[np.ndarray, np.ndarray]:
        place = np.empty((count, n_planes), dtype=np.int64)
        turn = np.empty((count, n_planes), dtype=np.int64)
        for m in range(count):
            g = sample_generator(self.seed, m, f"planes/{index}")
            place[m] = torch.randint(n_places, (n_planes,), generator=g).numpy()
            turn[m] = torch.randint(8, (n_planes,), generator=g).numpy()
        return place, turn


def data_folder() -> Path:
    """``$COSMOZOO_DATA``, or ``shared/data`` beside the repository."""
    given = os.environ.get("COSMOZOO_DATA")
    return Path(given) if given else Path(__file__).parents[3] / "shared" / "data"


def _turned(maps: np.ndarray, element: int) -> np.ndarray:
    """``(m, n, n)`` maps moved by one of the square's eight symmetries."""
    turned = np.rot90(maps, element % 4, axes=(1, 2))
    return turned.transpose(0, 2, 1) if element >= 4 else turned
