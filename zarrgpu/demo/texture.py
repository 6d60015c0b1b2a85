"""Quilt a whole slide out of a small, real stained section.

The tissue is scikit-image's immunohistochemistry image (512 x 512 pixels of colon: brown DAB
epithelium, blue haematoxylin nuclei). The steps: cut square pieces of it, turned and mirrored,
ordered by how much stain they hold; lay them on a jittered grid, choosing epithelium or stroma by a
slow random field, so that the slide has regions; join them along ragged seams; cut irregular
islands out of it; and put those on glass with uneven light and sensor noise. Everything is done in
optical density, where stain adds up, and follows from the seed.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import MissingDependencyError

Float: TypeAlias = NDArray[np.float32]
Image: TypeAlias = NDArray[np.uint8]

PIECE_PX = 256
"""Side of one quilted piece; neighbours overlap by nearly half."""

PITCH_PX = 144
"""Distance of two pieces before jitter."""

SEAM_SHARPNESS = 24.0
"""Exponent of the blend: higher makes seams narrower. 24 leaves a few pixels of transition."""

GLASS_RGB = (243.0, 242.0, 245.0)
NOISE_SIGMA = 1.6


def stained_section() -> Image:
    """Pixels of the real section: shape (512, 512, 3), RGB, uint8."""
    try:
        from skimage import data
    except ImportError as error:
        msg = "the demo's own slide needs scikit-image: pip install 'zarrgpu[demo]', or pass a path"
        raise MissingDependencyError(msg) from error
    return np.ascontiguousarray(data.immunohistochemistry(), dtype=np.uint8)


def tissue_image(size_px: int, *, seed: int) -> Image:
    """Paint a square slide of `size_px` pixels: shape (size_px, size_px, 3), RGB, uint8."""
    rng = np.random.default_rng(seed)
    alpha = _islands(size_px, rng)
    density = _quilt(alpha > 0, rng)
    density *= alpha[..., None]
    del alpha
    return _expose(density, rng)


def smooth_field(shape: tuple[int, int], cells: int, rng: np.random.Generator) -> Float:
    """Random field that varies over about ``1 / cells`` of the image; roughly in -1 ... 1."""
    knots = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    rows, columns = (_spline_basis(n, cells) for n in shape)
    return np.asarray(rows @ knots @ columns.T, np.float32)


def _spline_basis(n: int, cells: int) -> Float:
    """Cubic B-spline weights of `n` samples on `cells` intervals: shape (n, cells + 3)."""
    position = (np.arange(n, dtype=np.float32) + 0.5) * (cells / n)
    first = np.minimum(position.astype(np.int64), cells - 1)
    t = position - first
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    basis = np.zeros((n, cells + 3), np.float32)
    for k, weight in enumerate(weights):
        basis[np.arange(n), first + k] = weight / 6
    return basis


def _islands(size: int, rng: np.random.Generator) -> Float:
    """Opacity of the tissue, 0 on glass and 1 inside, with a ragged edge a few pixels wide."""
    coarse = max(size // 8, 1)
    y, x = np.mgrid[0:coarse, 0:coarse].astype(np.float32) / coarse
    shape = (coarse, coarse)
    warp_y, warp_x = (0.05 * smooth_field(shape, 5, rng) for _ in range(2))
    blobs = (
        (0.38, 0.33, 0.30, 0.23, 0.5),
        (0.68, 0.70, 0.21, 0.25, -0.4),
        (0.17, 0.78, 0.10, 0.12, 0.2),
    )
    height = np.full(shape, -1.0, np.float32)
    for cy, cx, ry, rx, turn in blobs:
        dy, dx = y + warp_y - cy, x + warp_x - cx
        u, v = dy * np.cos(turn) - dx * np.sin(turn), dy * np.sin(turn) + dx * np.cos(turn)
        height = np.maximum(height, 1 - np.hypot(u / ry, v / rx))
    height += 0.10 * smooth_field(shape, 12, rng) + 0.05 * smooth_field(shape, 40, rng)
    # Finer raggedness than the coarse grid holds comes in after the enlargement.
    enlarge = _linear_basis(size, coarse)
    fine: Float = enlarge @ height.astype(np.float32) @ enlarge.T
    fine += 0.012 * smooth_field((size, size), max(size // 24, 1), rng)
    edge = np.clip(fine * np.float32(size / 60) + 0.5, 0, 1)
    return np.asarray(edge * edge * (3 - 2 * edge), np.float32)


def _linear_basis(n: int, cells: int) -> Float:
    """Linear interpolation weights from `cells` cell centres to `n` samples: shape (n, cells)."""
    position = np.clip((np.arange(n) + 0.5) * (cells / n) - 0.5, 0, cells - 1)
    first = np.minimum(position.astype(np.int64), max(cells - 2, 0))
    t = (position - first).astype(np.float32)
    basis = np.zeros((n, cells), np.float32)
    basis[np.arange(n), first] = 1 - t
    basis[np.arange(n), np.minimum(first + 1, cells - 1)] += t
    return basis


def _pieces(rng: np.random.Generator) -> list[Float]:
    """Square pieces of the section as optical density, palest first."""
    density = -np.log((stained_section().astype(np.float32) + 1) / 256)
    limit = density.shape[0] - PIECE_PX
    pieces = []
    for y in range(0, limit + 1, 32):
        for x in range(0, limit + 1, 32):
            piece = density[y : y + PIECE_PX, x : x + PIECE_PX]
            pieces.append(np.rot90(piece, int(rng.integers(4)))[:, :: int(rng.choice([-1, 1]))])
    pieces.sort(key=lambda piece: float(piece.mean()))
    # The palest are the section's own background, which would look like holes everywhere.
    return pieces[len(pieces) // 10 :]


def _quilt(wanted: NDArray[np.bool_], rng: np.random.Generator) -> Float:
    """Optical density of tissue wherever `wanted`: shape (h, w, 3)."""
    size = wanted.shape[0]
    pieces = _pieces(rng)
    stain = smooth_field(wanted.shape, 7, rng)
    order = np.sort(stain[::16, ::16], axis=None)
    window = np.hanning(PIECE_PX + 2)[1:-1].astype(np.float32)
    bump = np.sqrt(np.outer(window, window))
    total = np.zeros((size, size, 3), np.float32)
    weights = np.full((size, size, 1), 1e-12, np.float32)
    for cy in range(0, size + PITCH_PX, PITCH_PX):
        for cx in range(0, size + PITCH_PX, PITCH_PX):
            jitter = rng.integers(-24, 25, 2)
            ragged = 0.35 * smooth_field((PIECE_PX, PIECE_PX), 14, rng)
            spread = rng.normal(0, 0.10)
            top, left = (int(c + j) - PIECE_PX // 2 for c, j in zip((cy, cx), jitter, strict=True))
            target, source = _overlap(top, left, size)
            if not wanted[target].any():
                continue
            middle = stain[min(max(cy, 0), size - 1), min(max(cx, 0), size - 1)]
            rank = np.clip(np.searchsorted(order, middle) / order.size + spread, 0, 0.999)
            piece = pieces[int(rank * len(pieces))][source]
            # Ragged seams: the piece with the largest bump plus noise wins almost outright.
            weight = np.exp(SEAM_SHARPNESS * (bump + ragged * bump))[source][..., None]
            weight *= (bump[source] > 0.02)[..., None]
            total[target] += weight * piece
            weights[target] += weight
    total /= weights
    total *= 1 + 0.06 * smooth_field(wanted.shape, 4, rng)[..., None]
    return total


def _overlap(top: int, left: int, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the canvas and of the piece where a piece at (top, left) meets the canvas."""
    target, source = [], []
    for start in (top, left):
        low, high = max(start, 0), min(start + PIECE_PX, size)
        high = max(high, low)
        target.append(slice(low, high))
        source.append(slice(low - start, high - start))
    return (target[0], target[1]), (source[0], source[1])


def _expose(density: Float, rng: np.random.Generator) -> Image:
    """Photograph the section: glass colour, uneven light, sensor noise, 8 bits."""
    size = density.shape[0]
    light = 1 + 0.004 * smooth_field((size, size), 3, rng)
    noise = (NOISE_SIGMA * rng.standard_normal((512, 512, 3))).astype(np.float32)
    image = np.empty(density.shape, np.uint8)
    glass = np.array(GLASS_RGB, np.float32)
    step = 256
    for y in range(0, size, step):
        for x in range(0, size, step):
            box = (slice(y, y + step), slice(x, x + step))
            lit = np.exp(-density[box]) * glass * light[box][..., None]
            dy, dx = rng.integers(0, 512 - step, 2)
            lit += noise[dy : dy + lit.shape[0], dx : dx + lit.shape[1]]
            image[box] = np.clip(np.rint(lit), 0, 255)
    return image
