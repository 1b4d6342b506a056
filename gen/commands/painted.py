"""A baseline of HI reports that knows the physics and no network: halos painted in 2LPT boxes."""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm import tqdm

from gen.commands.recipe_data import fields_of
from gen.data.simulated import Simulated
from gen.io import FieldFile
from gen.noise import sample_generator
from gen.simulate.hi import HI
from gen.simulate.hi_painting import PaintedHI
from gen.simulate.recipe import SimulationRecipe, read_recipe
from gen.simulate.theory import Cosmology

PAINTING = "painting"


def painting(recipe: Path, reference: FieldFile, seed: int) -> dict[str, FieldFile]:
    """One painted box for each of the reference's, at its parameters, if the recipe's data are HI boxes.

    Args:
        recipe: of data, or of a training on them.
        seed: box i is a function of ``(seed, i)`` and its parameters alone.

    Returns:
        The boxes by the name ``PAINTING``, or nothing for other data.
    """
    made_by = _simulated(recipe)
    if made_by is None or not isinstance(made_by.source, HI):
        return {}
    painter = PaintedHI(made_by.source)
    boxes = []
    for i, row in enumerate(tqdm(reference.params.tolist(), unit=" fields", desc=PAINTING, disable=None)):
        omega_m, sigma_8, z = (*row, 0.0)[:3]
        cosmo, grid = Cosmology(omega_m, sigma_8), reference.grid
        boxes.append(painter.fields(cosmo, z, grid, _seed(seed, i)))
    attributes = {key: reference.attributes[key] for key in ("field", "units")}
    attributes |= {"made_by": "halos of a mass function, painted in 2LPT boxes", "seed": seed}
    values = torch.cat(boxes)
    return {
        PAINTING: FieldFile(values, reference.params, None, None, reference.grid, reference.space, attributes)
    }


def _seed(seed: int, i: int) -> int:
    return int(torch.randint(2**62, (), generator=sample_generator(seed, i, PAINTING)))


def _simulated(recipe: Path) -> SimulationRecipe | None:
    """What made the data, if this package did."""
    fields = fields_of(recipe)
    if fields is None:
        return read_recipe(recipe)
    return fields.source.recipe if isinstance(fields.source, Simulated) else None
