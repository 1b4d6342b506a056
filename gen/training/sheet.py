"""A sheet of fields as a PNG, for the eye; written by hand to keep plotting libraries out of training."""

from __future__ import annotations

import struct
import zlib

import torch
from torch import Tensor

# Black, violet, red, amber, ivory: lightness grows evenly, so that peaks read as light.
_COLOURS = torch.tensor([[5, 5, 15], [75, 25, 110], [190, 55, 75], [245, 150, 45], [255, 250, 215]])


def png(rgb: Tensor) -> bytes:
    """Encode ``(H, W, 3)`` uint8 as a PNG file (ISO/IEC 15948)."""
    height, width, _ = rgb.shape
    rows = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), rgb.reshape(height, -1)], 1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(rows.numpy().tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def flat(fields: Tensor) -> Tensor:
    """First channel as images ``(N, H, W)``; of volumes the mean over an eighth of the first axis."""
    images = fields[:, 0].detach().float().cpu()
    return images if images.ndim == 3 else images[:, : max(1, images.shape[1] // 8)].mean(1)


def sheet(real: Tensor, fake: Tensor, gap: int = 2) -> bytes:
    """Real fields above, generated ones of the same parameters below, on one scale; a PNG file.

    Args:
        real, fake: ``(N, C, *shape)``. The scale runs between the real fields' 0.5 and 99.5 percentiles;
            cells that are not finite are drawn green.
    """
    top, bottom = flat(real), flat(fake)
    ordered = top.flatten().sort().values
    low, high = ordered[int(0.005 * len(ordered))], ordered[int(0.995 * (len(ordered) - 1))]
    zoom = max(1, 128 // top.shape[1])
    rows = []
    for images in (top, bottom):
        share = ((images - low) / (high - low).clamp(min=1e-30)).clamp(0, 1)
        tiles = _coloured(share)
        tiles[~torch.isfinite(images)] = torch.tensor([0, 255, 0], dtype=torch.uint8)
        tiles = tiles.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
        framed = torch.full(
            (len(tiles), tiles.shape[1] + gap, tiles.shape[2] + gap, 3), 255, dtype=torch.uint8
        )
        framed[:, gap:, gap:] = tiles
        rows.append(torch.cat(list(framed), 1))
    return png(torch.cat(rows, 0))


def _coloured(share: Tensor) -> Tensor:
    position = torch.nan_to_num(share) * (len(_COLOURS) - 1)
    left = position.floor().clamp(max=len(_COLOURS) - 2).long()
    mixed = torch.lerp(_COLOURS[left].float(), _COLOURS[left + 1].float(), (position - left)[..., None])
    return mixed.round().to(torch.uint8)
