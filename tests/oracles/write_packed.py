"""Write a folder of photos and masks as shards; runs in the environment of `make oracles`.

write_packed.py webdataset|datasets FOLDER OUT
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def main(kind: str, source: Path, out: Path) -> None:
    out.mkdir()
    shutil.copy(source / "labels.txt", out)
    photos = sorted((source / "images").iterdir())
    masks = sorted((source / "masks").iterdir())
    if kind == "webdataset":
        import webdataset

        with webdataset.ShardWriter(f"file:{out}/%03d.tar", maxcount=4, verbose=0) as sink:
            for photo, mask in zip(photos, masks, strict=True):
                files = {"jpg": photo.read_bytes(), "png": mask.read_bytes()}
                sink.write({"__key__": photo.stem, **files, "json": {"name": photo.stem}})
        return
    from datasets import Dataset, Features, Image, Value
    from datasets.table import embed_table_storage

    features = Features({"image": Image(), "label": Image(), "name": Value("string")})
    columns = {
        "image": list(map(str, photos)),
        "label": list(map(str, masks)),
        "name": [photo.stem for photo in photos],
    }
    made = Dataset.from_dict(columns, features=features).with_format("arrow")
    made = made.map(embed_table_storage, batched=True)  # as push_to_hub does
    for index in range(2):
        part = made.shard(2, index, contiguous=True)
        part.to_parquet(out / f"part-{index:05}-of-00002.parquet")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
