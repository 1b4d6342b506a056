"""Figures are whole SVG and PNG, show what they are given, and touch no global state."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from PIL import Image

from evaluation.plots import (
    Curve,
    Excess,
    Panel,
    Scale,
    colour_bar,
    distributions_figure,
    looks,
    parameters_figure,
    picture,
    statistics_figure,
    text,
)
from evaluation.plots.style import math_name

NAMES = ["net", "copula"]


def svg_of(address: str) -> ET.Element:
    head, data = address.split(",", 1)
    assert head == "data:image/svg+xml;base64"
    return ET.fromstring(base64.b64decode(data))


def image_of(address: str) -> Image.Image:
    head, data = address.split(",", 1)
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def panel(residual: float, bins: int = 8, log: bool = False) -> Panel:
    x = np.geomspace(100, 3000, bins)
    one = np.ones(bins)

    def curve(name: str, level: float) -> Curve:
        return Curve(name, 2 * one, level * one, one, 0.1 * one, one, 0.05 * one)

    return Panel(
        title="power",
        label=r"$C_\ell$",
        unit="multipole",
        x=x,
        log_x=log,
        log_y=log,
        reference=2 * one,
        low=one,
        high=3 * one,
        floor=one,
        ks_floor=0.05 * one,
        residual_label="ratio",
        curves=(curve("net", residual), curve("copula", 300.0)),
        judged_to=1000.0,
        looks=looks(NAMES, "copula"),
    )


def excess() -> Excess:
    return Excess(
        ("power", "$V_0$"),
        {"net": [(1.2, 0.8, 1.5), (0.3, 0.0, 0.9)], "copula": [(5.0, 4.0, 6.0), (90.0, 80.0, 99.0)]},
        [(0.6, 1.3), (0.5, 1.4)],
        looks(NAMES, "copula"),
        2.0,
    )


def test_the_baseline_looks_the_same_whatever_stands_beside_it():
    alone, among = looks(["copula"], "copula"), looks(["copula", "a", "b"], "copula")
    assert alone["copula"] == among["copula"] and among["copula"].dashed
    assert len({look.colour for look in among.values()}) == len({look.marker for look in among.values()}) == 3
    assert not any(look.dashed for look in looks(["copula", "a"], None).values())


@pytest.mark.parametrize("n", [1, 7, 8])
def test_figures_are_whole_svg_without_anything_foreign(n):
    panels = [panel(3.0, log=i == 0) for i in range(n)]
    for address in (statistics_figure(panels, excess()), distributions_figure(panels)):
        root = svg_of(address)
        for element in root.iter():
            assert not element.tag.endswith(("script", "image", "foreignObject"))
            for key, value in element.attrib.items():
                assert not key.endswith("href") or value.startswith("#"), value


def test_figures_repeat_to_the_byte_and_leave_settings_alone():
    before = dict(matplotlib.rcParams)
    first = statistics_figure([panel(3.0)], excess())
    assert first == statistics_figure([panel(3.0)], excess())
    assert first != statistics_figure([panel(4.0)], excess())
    assert dict(matplotlib.rcParams) == before


def test_drawing_needs_no_pyplot():
    code = "import sys, evaluation.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bins_without_a_number_are_left_out():
    holes = panel(3.0)
    for array in (holes.curves[0].residual, holes.floor, holes.curves[1].ks_D, holes.curves[1].scatter_ratio):
        array[2] = np.nan
    svg_of(statistics_figure([holes], excess()))
    svg_of(distributions_figure([holes]))


def test_a_network_sets_the_residual_panel_and_the_baseline_leaves_it():
    from matplotlib.figure import Figure

    from evaluation.plots.panels import draw_residuals

    axes = Figure().add_subplot()
    draw_residuals(axes, panel(12.0))
    low, high = axes.get_ylim()
    assert low == -high and 12.0 < high < 40.0
    arrows = [line for line in axes.lines if line.get_marker() == "^" and len(line.get_xdata()) == 8]
    assert any(np.all(np.asarray(a.get_ydata()) < high) for a in arrows), "300 % is shown at the rim"


@pytest.mark.parametrize("names", [("Omega_m", "sigma_8"), ("z",), ("$\\frac{", "a_b_c", "\\x")])
def test_the_map_of_parameters_takes_any_number_and_name(names):
    p = len(names)
    tests = [("A", [0.3] * p, "interior"), ("B", [0.9] * p, "somewhere")]
    training = np.linspace(0, 1, 5 * p).reshape(5, p)
    for known in (training, None):
        svg_of(parameters_figure(names, known, tests, ([0.0] * p, [1.0] * p)))


def test_names_are_symbols_only_where_they_are():
    assert math_name("Omega_m") == r"$\Omega_{\mathrm{m}}$"
    assert math_name("sigma_8") == r"$\sigma_{8}$"
    assert math_name("A_SN1") == r"$A_{\mathrm{SN1}}$"
    assert math_name("mass_nu") == "mass_nu"
    assert "$" not in math_name("$x$").replace(r"\$", "") and text(r"\a$") == r"/a\$"


def test_one_scale_for_all_and_the_palette_in_order():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((4, 50, 50))
    scale = Scale.of(reference)
    assert not scale.log and scale.low == pytest.approx(np.quantile(reference, 0.005))
    values = np.linspace(scale.low, scale.high, 256).reshape(16, 16)
    image = image_of(picture(values, scale))
    assert image.size == (16, 16) and image.mode == "P"
    assert np.array_equal(np.asarray(image).ravel(), np.arange(256))
    inferno = (255 * matplotlib.colormaps["inferno"](np.arange(256))[:, :3]).round()
    assert np.array_equal(np.asarray(image.convert("RGB")).reshape(256, 3), inferno)
    assert scale(np.array([-99.0, 99.0])).tolist() == [0.0, 1.0]
    assert image_of(colour_bar()).size == (256, 1)


def test_a_steep_positive_field_gets_a_logarithmic_scale():
    scale = Scale.of(np.logspace(-4, 4, 1000))
    assert scale.log
    middle = np.sqrt(scale.low * scale.high)
    assert scale(np.array([scale.low, middle, scale.high])) == pytest.approx([0, 0.5, 1])
    clustered = np.exp(1.5 * np.random.default_rng(0).standard_normal(10_000)) * (np.arange(10_000) % 20 > 0)
    density = Scale.of(clustered)
    assert density.log and density.high == pytest.approx(1000 * density.low), "empty cells are the darkest"
    assert density(np.array([0.0, np.median(clustered)])) == pytest.approx([0, 0.37], abs=0.05)
    assert not Scale.of(clustered - 0.01).log, "a field with negative values has no logarithm"
    constant = Scale.of(np.full(10, 3.0))
    assert constant(np.array([3.0])).tolist() == [0.0]


def test_large_maps_shrink_by_block_means_and_cubes_show_a_slice():
    x = np.random.default_rng(1).random((600, 300))
    scale = Scale(0.0, 1.0, log=False)
    image = np.asarray(image_of(picture(x, scale)))
    assert image.shape == (200, 100)
    assert image[3, 5] == round(255 * x[9:12, 15:18].mean())
    cube = np.random.default_rng(2).random((6, 6, 6))
    assert picture(cube, scale) == picture(cube[..., 0], scale)
