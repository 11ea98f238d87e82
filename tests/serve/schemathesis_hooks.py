"""What OpenAPI cannot say of requests to the server; Schemathesis loads it.

Photos are files that can be read, some parameters are read by some outputs alone, and a tensor has
as many numbers as its shape says.
"""

import base64
import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image

READ_BY = {"background": ["replace"], "radius": ["blur"], "min_area": ["boxes", "polygons"]}
TENSOR = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [9] * 6}


def draw(asked):
    height, width, colour, kind = asked
    encoded = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(encoded, kind)
    return encoded.getvalue()


sides = st.integers(1, 60)
colours = st.tuples(*[st.integers(0, 255)] * 3)
photos = st.tuples(sides, sides, colours, st.sampled_from(["PNG", "JPEG", "BMP"])).map(draw)
schemathesis.openapi.format("binary", photos)
schemathesis.openapi.format("photo-base64", photos.map(lambda one: base64.b64encode(one).decode()))
for kind in ("image/*", "application/octet-stream", "image/png"):
    schemathesis.openapi.media_type(kind, photos)


@schemathesis.hook
def filter_case(context, case):
    """Leave out what is valid by the schema and no request."""
    fields = case.body if isinstance(case.body, dict) and "photo" in case.body else {}
    query = case.query or {}
    given = {**fields, **query}
    if given.get("output") == "confidence" and "only" in given:
        return False
    return not {*fields} & {*query} and all(
        name not in given or given.get("output") in outputs for name, outputs in READ_BY.items()
    )


@schemathesis.hook
def map_case(context, case):
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if case.path.endswith("/infer") and is_valid:
        case.body = {"inputs": [TENSOR]}
    return case
