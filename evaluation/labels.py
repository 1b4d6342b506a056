"""What statistics and axes are called on the page."""

from __future__ import annotations

TITLES = {
    "power": "power spectrum",
    "pdf": "pixel PDF",
    "peaks": "peak counts",
    "minima": "minima counts",
    "bispectrum": "equilateral bispectrum",
    "scattering": "scattering transform",
    "bispectrum_squeezed": "squeezed bispectrum",
    "bispectrum_isosceles": "isosceles bispectrum",
    "bispectrum_reduced": "reduced bispectrum",
    "smoothed_variance": "variance by smoothing scale",
    "smoothed_skewness": "skewness by smoothing scale",
    "smoothed_kurtosis": "kurtosis by smoothing scale",
    "void_sizes": "void sizes",
    "void_count": "voids above a size",
    "bispectrum_angle": "bispectrum by angle",
    "bispectrum_angle_reduced": "reduced bispectrum by angle",
    "log_pdf": "PDF over decades",
    "column_density": "column densities",
    "column_density_los": "column densities, line of sight",
    "multipole_2": "quadrupole",
    "multipole_4": "hexadecapole",
    **{f"three_point_{ell}": rf"three-point multipole $\ell = {ell}$" for ell in range(9)},
    **{f"V{i}": f"Minkowski functional $V_{i}$" for i in range(4)},
}
SHORT = {
    "pdf": "PDF",
    "scattering": "scatt.",
    "bispectrum": "bisp.",
    "bispectrum_squeezed": "squ.",
    "bispectrum_isosceles": "isosc.",
    "bispectrum_reduced": "red.",
    "smoothed_variance": r"$\sigma^2(R)$",
    "smoothed_skewness": "$S(R)$",
    "smoothed_kurtosis": "$K(R)$",
    "void_sizes": "voids",
    "void_count": "voids >",
    "bispectrum_angle": r"$B(\theta)$",
    "bispectrum_angle_reduced": r"$Q(\theta)$",
    "log_pdf": "PDF",
    "column_density": "$f(N)$",
    "column_density_los": "$f(N)$",
    "multipole_2": "$P_2$",
    "multipole_4": "$P_4$",
    **{f"three_point_{ell}": rf"$\zeta_{ell}$" for ell in range(9)},
    **{f"V{i}": f"$V_{i}$" for i in range(4)},
}
SCALES = ("smoothed_variance", "smoothed_skewness", "smoothed_kurtosis", "void_sizes", "void_count")
ABSCISSAE = {
    "column": "column density $N$",
    "rad": r"angle $\theta$ [rad]",
    "pair of shells": "pair of shells",
    "multipole": r"multipole $\ell$",
    "h/Mpc": r"$k$ [$h$ Mpc$^{-1}$]",
    "sigma": r"threshold $\nu$ [$\sigma$]",
}
RESIDUALS = {"mean": "ratio $-$ 1 [%]", "peak": r"$\Delta$ [% of peak]"}
