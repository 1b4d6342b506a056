"""cosmozoo: generative emulators of cosmological fields.

``gen.load("checkpoints/convergence_2d_copula").sample({"Omega_m": 0.3, "sigma_8": 0.8}, n=16, seed=0)``
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gen.checkpoint import load

try:
    __version__ = version("cosmozoo")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """``gen.load`` brings torch in when it is first used, not before."""
    if name == "load":
        from gen.checkpoint import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
