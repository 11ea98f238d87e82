"""Ask a server by tritonclient: its address, a photo, and the mask that must come back (.npy)."""

import io
import sys

import numpy as np
import tritonclient.http as http
from PIL import Image
from tritonclient.utils import InferenceServerException

address, photo_file, mask_file = sys.argv[1:]
client = http.InferenceServerClient(address)
assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready("tiny")
assert client.get_server_metadata()["name"] == "deeplab"
metadata = client.get_model_metadata("tiny", "1")
assert {one["name"]: one["datatype"] for one in metadata["inputs"]} == {
    "image": "UINT8",
    "photo": "BYTES",
}
mask = np.load(mask_file)
with open(photo_file, "rb") as file:
    photo = file.read()
image = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))[None]
asked = 0
for binary_in in (True, False):
    for binary_out in (True, False, None):
        given = http.InferInput("image", list(image.shape), "UINT8")
        given.set_data_from_numpy(image, binary_data=binary_in)
        wanted = None
        if binary_out is not None:
            wanted = [http.InferRequestedOutput("mask", binary_data=binary_out)]
        answer = client.infer("tiny", [given], outputs=wanted, request_id="7")
        assert (answer.as_numpy("mask") == mask[None]).all()
        assert answer.get_response()["id"] == "7"
        asked += 1
given = http.InferInput("photo", [2], "BYTES")
given.set_data_from_numpy(np.array([photo, photo], object))
answer = client.infer("tiny", [given], parameters={"only": "cat"})
assert (answer.as_numpy("mask") == np.where(mask == 1, 1, 0)[None]).all()
given.set_data_from_numpy(np.array([b"none", photo], object))
for model, words in (("tyni", "Did you mean 'tiny'?"), ("tiny", "photo 1: is not a picture")):
    told = ""
    try:
        client.infer(model, [given])
    except InferenceServerException as error:
        told = str(error)
    assert words in told, told
print(asked, "masks are right")
