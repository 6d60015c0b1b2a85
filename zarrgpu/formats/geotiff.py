"""Where a TIFF's pixels lie on the Earth, and what GDAL says of them: tags as attributes.

Sources: OGC GeoTIFF 1.1 (19-008r4); GDAL's GeoTIFF driver (tags 42112 and 42113).

Only tags are read. A CRS is named by its EPSG code where the file gives one; otherwise the raw keys
are all there is, for a library such as pyproj to understand.
"""

from __future__ import annotations

import contextlib
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import numpy as np

from zarrgpu.formats.tiff_tags import Tag

if TYPE_CHECKING:
    from zarrgpu.formats.tiff_page import TiffPage

_MODEL_TYPE, _RASTER_TYPE, _GEOGRAPHIC, _PROJECTED, _VERTICAL = 1024, 1025, 2048, 3072, 4096
_PIXEL_IS_POINT: Final = 2
_EPSG_CODES: Final = range(1024, 32767)
"""What is an EPSG code in a key; 32767 says that the keys define the CRS."""

GEO_KEYS: Final = MappingProxyType(
    {
        1024: "GTModelTypeGeoKey", 1025: "GTRasterTypeGeoKey", 1026: "GTCitationGeoKey",
        2048: "GeodeticCRSGeoKey", 2049: "GeodeticCitationGeoKey", 2050: "GeodeticDatumGeoKey",
        2051: "PrimeMeridianGeoKey", 2052: "GeogLinearUnitsGeoKey",
        2053: "GeogLinearUnitSizeGeoKey", 2054: "GeogAngularUnitsGeoKey",
        2055: "GeogAngularUnitSizeGeoKey", 2056: "EllipsoidGeoKey",
        2057: "EllipsoidSemiMajorAxisGeoKey", 2058: "EllipsoidSemiMinorAxisGeoKey",
        2059: "EllipsoidInvFlatteningGeoKey", 2060: "GeogAzimuthUnitsGeoKey",
        2061: "PrimeMeridianLongitudeGeoKey", 2062: "GeogTOWGS84GeoKey", 3072: "ProjectedCRSGeoKey",
        3073: "ProjectedCitationGeoKey", 3074: "ProjectionGeoKey", 3075: "ProjMethodGeoKey",
        3076: "ProjLinearUnitsGeoKey", 3077: "ProjLinearUnitSizeGeoKey",
        3078: "ProjStdParallel1GeoKey", 3079: "ProjStdParallel2GeoKey",
        3080: "ProjNatOriginLongGeoKey", 3081: "ProjNatOriginLatGeoKey",
        3082: "ProjFalseEastingGeoKey", 3083: "ProjFalseNorthingGeoKey",
        3084: "ProjFalseOriginLongGeoKey", 3085: "ProjFalseOriginLatGeoKey",
        3086: "ProjFalseOriginEastingGeoKey", 3087: "ProjFalseOriginNorthingGeoKey",
        3088: "ProjCenterLongGeoKey", 3089: "ProjCenterLatGeoKey",
        3090: "ProjCenterEastingGeoKey", 3091: "ProjCenterNorthingGeoKey",
        3092: "ProjScaleAtNatOriginGeoKey", 3093: "ProjScaleAtCenterGeoKey",
        3094: "ProjAzimuthAngleGeoKey", 3095: "ProjStraightVertPoleLongGeoKey",
        4096: "VerticalGeoKey", 4097: "VerticalCitationGeoKey", 4098: "VerticalDatumGeoKey",
        4099: "VerticalUnitsGeoKey",
    }
)  # fmt: skip
"""Names of the standard; other keys are named by their number."""

_DECIMALS: Final = MappingProxyType({"scale": 1.0, "offset": 0.0})


def geo_attributes(page: TiffPage) -> dict[str, Any]:
    """Attributes of a page's geographic and GDAL tags; empty where it has none.

    ``geotransform``
        ``(x0, dx/dcolumn, dx/drow, y0, dy/dcolumn, dy/drow)`` in units of the CRS, in GDAL's order:
        of the outer corner of pixel (0, 0), also where the file speaks of pixel centres.
    ``gcps``
        ``(column, row, x, y, z)`` of each tie point, where there is no transformation.
    ``crs``, ``vertical_crs``
        ``"EPSG:<code>"``, where the keys name one.
    ``geo_keys``
        All GeoKeys by name.
    ``nodata``
        The number that stands for no value, as the file has it.
    ``band_scales``, ``band_offsets``, ``band_names``
        One per sample: value = stored * scale + offset; an empty name where there is none.
    ``gdal_metadata``
        Names and texts that concern the whole image.

    Raises
    ------
    MetadataError
        A tag is of a wrong type or leaves the file.
    """
    fields = page.ifd.fields
    attributes: dict[str, Any] = {}
    keys = _geo_keys(page) if Tag.GeoKeyDirectory in fields else {}
    if keys:
        attributes |= _crs(keys)
        attributes["geo_keys"] = {GEO_KEYS.get(key, str(key)): keys[key] for key in sorted(keys)}
    attributes |= _position(page, is_point=keys.get(_RASTER_TYPE) == _PIXEL_IS_POINT)
    if Tag.GdalMetadata in fields:
        attributes |= _gdal_metadata(page.ifd.text(Tag.GdalMetadata) or "", page.samples)
    if Tag.GdalNodata in fields:
        nodata = _number(page.ifd.text(Tag.GdalNodata) or "")
        if nodata is not None:
            attributes["nodata"] = nodata
    return attributes


def scaled_geotransform(
    transform: tuple[float, ...], columns_ratio: float, rows_ratio: float
) -> tuple[float, ...]:
    """Geotransform of an overview: of pixels that are so many times as wide and as tall."""
    x0, xc, xr, y0, yc, yr = transform
    return (
        x0, xc * columns_ratio, xr * rows_ratio, y0, yc * columns_ratio, yr * rows_ratio,
    )  # fmt: skip


def parse_nodata(nodata: float | None, dtype: np.dtype[Any]) -> Any:
    """Value of chunks that are not stored: nodata if the type can hold it, else 0."""
    native = dtype.newbyteorder("=")
    if nodata is None or native.kind not in "iuf":
        return native.type(0)
    if native.kind == "f":
        with np.errstate(over="ignore"):
            return native.type(nodata)
    info = np.iinfo(native)
    whole = nodata == nodata and info.min <= nodata <= info.max and nodata == int(nodata)
    return native.type(int(nodata) if whole else 0)


def _number(text: str) -> int | float | None:
    """Integer where it is one of 64 bits, which do not fit a float; None if it is no number."""
    text = text.strip()
    with contextlib.suppress(ValueError):
        if abs(number := int(text)) < 1 << 64:
            return number
    with contextlib.suppress(ValueError):
        return float(text)
    return None


def _geo_keys(page: TiffPage) -> dict[int, Any]:
    ifd = page.ifd
    table = ifd.integers(Tag.GeoKeyDirectory)
    if table is None or table.size < 4 or table.size < 4 * (table[3] + 1):
        raise ifd.error(Tag.GeoKeyDirectory, "shorter than the number of keys that it states")
    doubles = ifd.numbers(Tag.GeoDoubleParams)
    texts = ifd.binary(Tag.GeoAsciiParams)
    keys: dict[int, Any] = {}
    for key, location, count, value in table[4 : 4 * (table[3] + 1)].reshape(-1, 4).tolist():
        if location == 0:
            keys[key] = value
        elif location == Tag.GeoAsciiParams:
            keys[key] = texts[value : value + count].decode("utf-8", "replace").rstrip("|\0")
        elif location == Tag.GeoDoubleParams and doubles is not None:
            numbers = doubles[value : value + count].tolist()
            keys[key] = numbers[0] if len(numbers) == 1 else numbers
    return keys


def _crs(keys: dict[int, Any]) -> dict[str, str]:
    found = {}
    for name, candidates in (("crs", (_PROJECTED, _GEOGRAPHIC)), ("vertical_crs", (_VERTICAL,))):
        code = next((keys[key] for key in candidates if key in keys), None)
        if isinstance(code, int) and code in _EPSG_CODES:
            found[name] = f"EPSG:{code}"
    return found


def _position(page: TiffPage, *, is_point: bool) -> dict[str, Any]:
    ifd = page.ifd
    matrix = ifd.numbers(Tag.ModelTransformation)
    scale = ifd.numbers(Tag.ModelPixelScale)
    ties = ifd.numbers(Tag.ModelTiepoint)
    points = None if ties is None else ties[: ties.size // 6 * 6].reshape(-1, 6)
    if matrix is not None:
        if matrix.size != 16:
            raise ifd.error(Tag.ModelTransformation, f"expected 16 values, got {matrix.size}")
        xc, xr, _, x0, yc, yr, _, y0 = matrix[:8].tolist()
    elif scale is not None and points is not None and len(points):
        if scale.size < 2:
            raise ifd.error(Tag.ModelPixelScale, f"expected 3 values, got {scale.size}")
        (xc, yr), (xr, yc) = (float(scale[0]), -float(scale[1])), (0.0, 0.0)
        column, row, _, x, y, _ = points[0].tolist()
        x0, y0 = x - column * xc, y - row * yr
    elif points is not None and len(points):
        return {"gcps": [tuple(point) for point in points[:, [0, 1, 3, 4, 5]].tolist()]}
    else:
        return {}
    if is_point:  # to the corner of the pixel whose centre it is
        x0, y0 = x0 - (xc + xr) / 2, y0 - (yc + yr) / 2
    return {"geotransform": (x0, xc, xr, y0, yc, yr)}


def _gdal_metadata(text: str, samples: int) -> dict[str, Any]:
    """Items of GDAL's XML; nothing where it is no XML, for it only describes."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return {}  # entities can grow without bound
    try:
        items = list(ET.fromstring(text.strip()).iter("Item"))
    except (ET.ParseError, LookupError, ValueError):
        return {}
    whole: dict[str, str] = {}
    bands: dict[str, list[Any]] = {}
    for item in items:
        name, role, value = item.get("name", ""), item.get("role", ""), (item.text or "").strip()
        sample = item.get("sample")
        if sample is None:
            whole[name] = value
            continue
        if not re.fullmatch("[0-9]{1,9}", sample) or int(sample) >= samples:
            continue
        if role == "description":
            bands.setdefault("band_names", [""] * samples)[int(sample)] = value
        elif role in _DECIMALS and (number := _number(value)) is not None:
            default = [_DECIMALS[role]] * samples
            bands.setdefault(f"band_{role}s", default)[int(sample)] = float(number)
    return ({"gdal_metadata": whole} if whole else {}) | bands
