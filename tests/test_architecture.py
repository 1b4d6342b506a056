"""The layout keeps its promises: who imports whom, what stands where, what is never used."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "gen").rglob("*.py"), *(ROOT / "evaluation").rglob("*.py")])
LONGEST = 300

CORE = {"gen", "gen.errors", "gen.fields", "gen.noise", "gen.transforms"}
READING = {"gen.yaml_text", "gen.checkpoint_folder", "gen.config"}
#: What each room may import when it is loaded or run, beside itself; the longest matching name counts.
MAY_IMPORT = {
    "gen": {"gen.checkpoint"},
    "gen.errors": set(),
    "gen.fields": {"gen.errors"},
    "gen.noise": set(),
    "gen.transforms": {"gen.errors", "gen.fields"},
    "gen.yaml_text": {"gen.errors"},
    "gen.processes": set(),
    "gen.checkpoint_folder": {"gen.errors"},
    "gen.config": {"gen.errors", "gen.fields", "gen.yaml_text", "gen.checkpoint_folder"},
    "gen.io": CORE,
    "gen.nets": CORE,
    "gen.diffusion": CORE,
    # Closed forms of gravity, which residuals start from: growth rates, particles on a mesh, and lattices.
    "gen.emulators": CORE
    | {
        "gen.diffusion",
        "gen.nets",
        "gen.simulate.growth",
        "gen.simulate.lattices",
        "gen.simulate.mass_assignment",
        "gen.simulate.neutrinos",
    },
    # The record that simulations are handed on in is data's; nothing else of data is.
    "gen.simulate": CORE | READING | {"gen.data.base", "gen.processes"},
    "gen.data": CORE | READING | {"gen.simulate", "gen.io"},
    "gen.checkpoint": CORE | READING | {"gen.emulators", "gen.io"},
    "gen.sampling": CORE | READING | {"gen.emulators", "gen.io", "gen.checkpoint"},
    "gen.training": CORE
    | READING
    | {"gen.diffusion", "gen.nets", "gen.emulators", "gen.data", "gen.checkpoint", "gen.io"},
    "gen.cli": {"gen", "gen.errors", "gen.commands"},
    "gen.commands": {"gen", "evaluation"},
    "evaluation": {"gen.errors", "gen.fields", "gen.io", "gen.yaml_text", "gen.processes"},
}
#: Heavy libraries and the only places that load them.
ROOMS = {
    "matplotlib": ("evaluation.plots", "gen.training.sheet"),
    "pyccl": ("gen.simulate.theory",),
    "quantimpy": ("evaluation.minkowski",),
    "diffusers": ("gen.emulators.latent_diffusion", "gen.training.diffusion"),
    "jsonargparse": ("gen.config",),
    "xarray": (),
    "lightning": ("gen.training", "gen.data.module"),
    "astropy": ("gen.io.fits_file", "gen.data"),
    "zarr": ("gen.io.zarr_store",),
    "distributed": ("evaluation.spread",),
    "sklearn": ("evaluation.two_sample", "evaluation.inference"),
}
CONVOLUTIONS = {
    f"{kind}{n}d" for kind in ("Conv", "ConvTranspose", "conv", "conv_transpose") for n in (1, 2, 3)
}
NETWORK = {"requests", "urllib", "httpx", "aiohttp", "socket", "http", "ftplib", "huggingface_hub"}
SAFE_CALLS = {
    "torch.load": ("weights_only", "True"),
    "np.load": ("allow_pickle", "False"),
    "numpy.load": ("allow_pickle", "False"),
}
PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def imports(tree: ast.AST) -> Iterator[str]:
    """Names of modules imported anywhere at run time, so not those for type checking only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            for alias in node.names:
                inner = ROOT.joinpath(*module.split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                yield f"{module}.{alias.name}" if is_module else module
        else:
            yield from imports(node)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported_by(path: Path) -> tuple[str, ...]:
    return tuple(imports(parsed(path)))


def room_of(name: str) -> str:
    return max((room for room in MAY_IMPORT if within(name, room)), key=len)


def test_imports_run_one_way() -> None:
    offences = []
    for path in SOURCES:
        name = module_name(path)
        room = room_of(name)
        for imported in imported_by(path):
            if imported.split(".")[0] not in ("gen", "evaluation") or (
                within(imported, room) and room != "gen"
            ):
                continue
            # The package "gen" itself stands for its version only, unless a room is open to all of it.
            open_rooms = [r for r in MAY_IMPORT[room] if r != "gen" or room == "gen.commands"]
            if imported not in MAY_IMPORT[room] and not any(within(imported, r) for r in open_rooms):
                offences.append(f"{name} imports {imported}")
    assert not offences


def test_heavy_libraries_stand_in_their_rooms() -> None:
    offences = []
    for path in SOURCES:
        name = module_name(path)
        for imported in imported_by(path):
            rooms = ROOMS.get(imported.split(".")[0])
            if rooms is not None and not any(within(name, room) for room in rooms):
                offences.append(f"{name} imports {imported}")
    assert not offences


def test_files_are_short_and_say_what_they_are() -> None:
    long = {module_name(p): n for p in SOURCES if (n := len(p.read_text().splitlines())) > LONGEST}
    assert not long
    assert not [module_name(p) for p in SOURCES if not ast.get_docstring(parsed(p))]
    assert not [p for p in SOURCES if p.name in ("utils.py", "helpers.py", "misc.py", "common.py")]


def test_public_classes_have_docstrings() -> None:
    classes = [
        (module_name(path), node)
        for path in SOURCES
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert not [f"{module}.{node.name}" for module, node in classes if not ast.get_docstring(node)]
    assert not [node.name for _, node in classes if node.name.endswith("Manager")]


def test_only_layers_name_convolutions_of_a_dimension() -> None:
    offences = []
    for path in SOURCES:
        if module_name(path) != "gen.nets.layers":
            tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
            named = {token.string for token in tokens if token.type == tokenize.NAME} & CONVOLUTIONS
            offences += [f"{module_name(path)} names {name}" for name in named]
    assert not offences, "write 2D and 3D once: take the layer from gen/nets/layers.py"


def test_nothing_reaches_the_network() -> None:
    offences = [
        f"{module_name(path)} imports {imported}"
        for path in SOURCES
        for imported in imported_by(path)
        if imported.split(".")[0] in NETWORK
    ]
    assert not offences


def test_nothing_unpickles_or_runs_text() -> None:
    offences = [f"{module_name(path)}: {said}" for path in SOURCES for said in dangers(parsed(path))]
    assert not offences


def dangers(tree: ast.Module) -> Iterator[str]:
    """Uses of pickle other than its error, loads that may unpickle, and calls that run text as code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in PICKLING:
            if node.attr != "UnpicklingError":
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLING:
            if [alias.name for alias in node.names] != ["UnpicklingError"]:
                yield ast.unparse(node)
        elif isinstance(node, ast.Call):
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            wanted = SAFE_CALLS.get(ast.unparse(node.func))
            if wanted is not None and given.get(wanted[0]) != wanted[1]:
                yield f"{ast.unparse(node)} without {wanted[0]}={wanted[1]}"
            if (
                ast.unparse(node.func) in ("eval", "exec", "os.system", "os.popen")
                or given.get("shell") == "True"
            ):
                yield ast.unparse(node)


def test_the_checks_find_what_they_look_for() -> None:
    bad = "import pickle\npickle.loads(b)\ntorch.load(f)\nnp.load(f)\neval('1')\nrun('a', shell=True)"
    assert len(list(dangers(ast.parse(bad)))) == 5
    good = "pickle.UnpicklingError\ntorch.load(f, weights_only=True)\nnp.load(f, allow_pickle=False)"
    assert not list(dangers(ast.parse(good)))
    lazy = "if TYPE_CHECKING:\n    import torch\ndef f():\n    from gen.io import atomic, read_fields\n"
    assert list(imports(ast.parse(lazy))) == ["gen.io.atomic", "gen.io"]
    assert room_of("gen.checkpoint_folder") == "gen.checkpoint_folder"
    assert room_of("gen.emulators.latent_gan") == "gen.emulators"


def test_importing_changes_nothing() -> None:
    """No thread counts, seeds or default types are set by an import."""
    offences = []
    for path in SOURCES:
        for node in parsed(path).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = ast.unparse(node.value.func)
                if not (called.startswith("_") or called.split(".")[-1].startswith("register")):
                    offences.append(f"{module_name(path)} calls {called}")
    assert not offences


def test_user_input_is_not_asserted_on() -> None:
    """Assertions vanish under -O and explain nothing; only those that tell the type checker a type stay."""
    offences = []
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Assert):
                said = ast.unparse(node.test)
                if not (said.startswith("isinstance(") or said.endswith("is not None")):
                    offences.append(f"{module_name(path)}:{node.lineno} {said}")
    assert not offences


def test_the_top_level_is_as_promised() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    folders = {Path(name).parts[0] for name in listed if len(Path(name).parts) > 1}
    assert folders <= {".ci", "gen", "evaluation", "recipes", "tests", "checkpoints", "benchmarks", "docs"}


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, gen, gen.cli; gen.cli._parser().format_help(); "
        "heavy = {'torch', 'numpy', 'lightning', 'matplotlib', 'scipy', 'h5py'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
