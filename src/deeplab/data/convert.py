"""Turn exports of annotation tools into a plain folder of photos, masks and a dataset.toml.

    COCO instances JSON     polygons and run lengths; the largest things are painted first
    COCO panoptic JSON      with its folder of PNGs beside it, under the same name
    labelme                 a folder of JSON files, one per photo
    CVAT                    "CVAT for images" XML

Convert each split into the same destination: the class ids of the first one stay.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path

from deeplab.data.coco import is_coco, read_coco
from deeplab.data.cvat import read_cvat
from deeplab.data.description import FILE_NAME, Description, read_description, write_description
from deeplab.data.export import BACKGROUND, Export, ids_of
from deeplab.data.labelme import is_labelme, read_labelme
from deeplab.data.masks import IGNORE, write_mask
from deeplab.errors import DataError
from deeplab.labels import voc_colours

_READS = (
    "COCO instances or panoptic JSON, a folder of labelme JSON files, or the XML of 'CVAT for "
    "images'"
)


def convert(
    source: str | PathLike[str],
    destination: str | PathLike[str],
    *,
    images: str | PathLike[str] | None = None,
    split: str = "train",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the export at ``source`` as a split of the folder ``destination``.

    Args:
        source: a file or folder as in the module's text.
        destination: a new folder, or one that an earlier call made.
        images: the folder of the photos, where they are not beside the annotations.
        split: the name of the split; its list of names is written beside images/.
        progress: called with (photos done, photos in all).

    Returns:
        How many pairs were written.

    Raises:
        DataError: the export is none of the known ones, or broken; or the destination has other
            classes, or already has the split or a photo of the same name.
    """
    export = read_export(Path(source), None if images is None else Path(images))
    if not export.drawings:
        raise DataError(f"{source}: the export has no photos.")
    root = Path(destination)
    described = root / FILE_NAME
    description = read_description(described) if described.is_file() else _describe(export)
    if split in description.splits:
        raise DataError(f"split: {root} already has '{split}'. Remove it or name another.")
    ids = ids_of(description.classes, export.names)
    rest = IGNORE if export.complete or BACKGROUND not in ids else ids[BACKGROUND]
    palette = description.labels().palette
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = []
    for drawing in export.drawings:
        photo = root / "images" / f"{drawing.name}{drawing.photo.suffix.lower()}"
        mask = root / "masks" / f"{drawing.name}.png"
        if mask.exists():
            raise DataError(f"{mask}: exists already; photo names must differ between all splits.")
        write_mask(mask, drawing.paint(ids, rest), palette)
        shutil.copyfile(drawing.photo, photo)
        names.append(drawing.name)
        if progress is not None:
            progress(len(names), len(export.drawings))
    (root / f"{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    splits = {**description.splits, split: f"{split}.txt"}
    write_description(described, replace(description, splits=splits))
    return len(names)


def read_export(source: Path, photos: Path | None) -> Export:
    """Recognise an export and read it; its pictures are read later.

    Raises:
        DataError: it is none of the known ones, or broken.
    """
    if source.is_dir():
        export = read_labelme(source, photos)
        if export.drawings:
            return export
        raise DataError(f"{source}: holds no labelme JSON. Expected {_READS}.")
    if not source.is_file():
        raise DataError(f"{source}: there is no such file or folder. Expected {_READS}.")
    if source.suffix.lower() == ".xml":
        return read_cvat(source, photos)
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: is not JSON ({error}). Expected {_READS}.") from None
    if is_coco(content):
        return read_coco(source, content, photos)
    if is_labelme(content):
        raise DataError(f"{source}: is one labelme file. Name the folder of all of them.")
    raise DataError(f"{source}: is not an export that is known. Expected {_READS}.")


def _describe(export: Export) -> Description:
    """Return the description of a new folder; with the export's colours if they tell all apart."""
    usual = voc_colours(len(export.classes))
    colours = tuple(export.colours.get(n, usual[i]) for i, n in enumerate(export.classes))
    named = bool(export.colours) and len(set(colours)) == len(colours)
    return Description(
        classes=export.classes,
        colours=colours if named else (),
        background=BACKGROUND if BACKGROUND in export.classes else "",
    )
