"""GDAL, through rasterio (the extra ``tiles``): what reads and writes the pictures of it here."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deeplab.errors import MissingExtraError

_SETTINGS: dict[str, Any] = {
    "GDAL_CACHEMAX": 64_000_000,  # bytes of decoded blocks
    "GDAL_ERROR_ON_LIBJPEG_WARNING": True,  # else what is cut off is grey
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",  # which does not tell of what is cut off
}


def import_rasterio(what: str) -> Any:
    """Return the library.

    Args:
        what: is done with it, for the message.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import rasterio
    except ImportError as error:
        raise MissingExtraError(what, package="rasterio", extra="tiles") from error
    return rasterio


@contextmanager
def quiet_gdal(what: str) -> Iterator[Any]:
    """Give the library with our settings, and without its warnings of pictures that are no maps.

    Args, raises:
        as :func:`import_rasterio`.
    """
    rasterio = import_rasterio(what)
    with warnings.catch_warnings(), rasterio.Env(**_SETTINGS):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        warnings.simplefilter("ignore", rasterio.errors.NodataShadowWarning)
        yield rasterio


def gdal_errors() -> tuple[type[Exception], ...]:
    """Return what is raised for files that cannot be read or written.

    Most of GDAL's errors come wrapped in the library's own; where a file says something of itself
    that cannot be read, they come bare.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    return RasterioError, CPLE_BaseError


def first_line(error: BaseException) -> str:
    """Return the reason for a message; the library's own words for it are "see above"."""
    reason = error.__cause__ or error.__context__ or error
    return str(reason).strip().split("\n")[0].rstrip(".")
