"""CVAT's command line on a server made of a few answers; runs in the environment of the clients.

    cvat_client.py FOLDER MODEL OUT.npz OPTION…

A task with the photos of a folder is annotated with ``deeplab.integrations.cvat``. Written is what
was uploaded: for each photo the ids, as CVAT's decoder or Pillow's filling of polygons gives them.
"""

from __future__ import annotations

import http.server
import io
import json
import os
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

DATE = "2026-01-01T00:00:00Z"
LIST = {"count": 0, "next": None, "previous": None, "results": []}


class Server(http.server.BaseHTTPRequestHandler):
    photos: ClassVar[list[Path]]
    names: ClassVar[list[str]]
    uploaded: ClassVar[list[dict[str, Any]]] = []

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: Any, kind: str = "application/vnd.cvat+json") -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rstrip("/")
        if path == "/api/server/about":
            about = {"name": "CVAT", "description": "", "version": "2.80.0"}
            self.answer({**about, "logo_url": "/logo", "subtitle": ""})
        elif path == "/api/users/self":
            self.answer({"id": 1, "username": "me", "groups": []})
        elif path == "/api/tasks/1":
            self.answer(self.task())
        elif path == "/api/labels":
            names = enumerate(self.names, 100)
            more = {"color": "#fff000", "attributes": [], "type": "any", "sublabels": []}
            labels = [{"id": number, "name": name, **more} for number, name in names]
            self.answer({**LIST, "count": len(labels), "results": labels})
        elif path == "/api/tasks/1/data/meta":
            more = {"width": 1, "height": 1, "related_files": 0}
            frames = [{"name": photo.name, **more} for photo in self.photos]
            self.answer(
                {
                    "chunk_size": 10,
                    "size": len(frames),
                    "image_quality": 95,
                    "start_frame": 0,
                    "stop_frame": len(frames) - 1,
                    "frame_filter": "",
                    "frames": frames,
                    "deleted_frames": [],
                    "included_frames": None,
                    "chunks_updated_date": DATE,
                }
            )
        elif path == "/api/tasks/1/data":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for number, photo in enumerate(self.photos):
                    archive.writestr(f"{number:06d}{photo.suffix}", photo.read_bytes())
            self.answer(packed.getvalue(), "application/zip")
        else:
            print("asked for", self.path, file=sys.stderr)
            self.send_error(404)

    def task(self) -> dict[str, Any]:
        summary = {"url": "http://localhost/api", "count": 1, "completed": 0, "validation": 0}
        empty = ("project_id", "owner", "assignee", "guide_id", "organization", "organization_id")
        chunks = dict.fromkeys(
            ("data_compressed_chunk_type", "data_original_chunk_type"), "imageset"
        )
        return {
            **dict.fromkeys((*empty, "target_storage", "source_storage")),
            **chunks,
            "url": "http://localhost/api/tasks/1",
            "id": 1,
            "name": "task",
            "subset": "",
            "mode": "annotation",
            "status": "annotation",
            "dimension": "2d",
            "bug_tracker": "",
            "created_date": DATE,
            "updated_date": DATE,
            "jobs": summary,
            "labels": summary,
            "overlap": 0,
            "segment_size": 10,
            "data_chunk_size": 10,
            "image_quality": 95,
            "size": len(self.photos),
            "data": 1,
        }

    def do_PATCH(self) -> None:
        self.take()

    def do_PUT(self) -> None:
        self.take()

    def take(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.uploaded.append(body)
        self.answer({"version": 1, "tags": [], "shapes": [], "tracks": []})


def read(shapes: list[dict[str, Any]], frame: int, size: tuple[int, int]) -> np.ndarray:
    from cvat_sdk.masks import decode_mask

    height, width = size
    ids = np.zeros(size, np.uint8)
    for shape in shapes:
        if shape["frame"] != frame:
            continue
        assert shape["source"] == "auto"
        if shape["type"] == "mask":
            where = decode_mask(shape["points"], image_width=width, image_height=height)
        else:
            assert shape["type"] == "polygon"
            corners = list(zip(shape["points"][::2], shape["points"][1::2], strict=True))
            canvas = Image.new("1", (width, height))
            ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in corners], fill=1)
            where = np.array(canvas)
        assert not ids[where].any()
        ids[where] = shape["label_id"] - 100
    return ids


def main() -> None:
    folder, model, out, *options = sys.argv[1:]
    Server.photos = sorted(Path(folder).iterdir())
    from deeplab import Segmenter

    Server.names = list(Segmenter(model).labels.names)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
    os.environ["CVAT_ACCESS_TOKEN"] = "token"
    from cvat_cli.__main__ import main as cvat

    code = cvat([
        "--server-host", "http://127.0.0.1", "--server-port", str(server.server_address[1]),
        "task", "auto-annotate", "1", "--function-module", "deeplab.integrations.cvat",
        "-p", f"model=str:{model}", *options,
    ])  # fmt: skip
    assert not code, code
    (uploaded,) = Server.uploaded
    found = {}
    for frame, photo in enumerate(Server.photos):
        width, height = Image.open(photo).size
        found[photo.stem] = read(uploaded["shapes"], frame, (height, width))
    np.savez(out, **found)


if __name__ == "__main__":
    main()
