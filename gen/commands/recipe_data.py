"""The data that a recipe names."""

from __future__ import annotations

from pathlib import Path

from gen.config import load_recipe
from gen.data.module import FieldData
from gen.training.base import TrainingRecipe
from gen.yaml_text import read_yaml


def fields_of(recipe: Path) -> FieldData | None:
    """The data of a recipe of training, or of one that names a source alone; not those of a simulation."""
    told = read_yaml(recipe)
    if "emulator" in told:
        return load_recipe(TrainingRecipe, recipe).value.data
    return load_recipe(FieldData, recipe).value if "source" in told else None
