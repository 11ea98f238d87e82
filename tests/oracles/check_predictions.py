"""Let Label Studio's SDK check predictions; runs in the environment of `make oracles`.

    check_predictions.py CONFIG.xml PREDICTIONS.json OUT.npz

writes "INDEX|LABEL": the (H, W) bool of each brush mask, as its decoder has it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface


def main() -> None:
    config, predictions, out = map(Path, sys.argv[1:])
    interface = LabelInterface(config.read_text())
    arrays = {}
    for index, prediction in enumerate(json.loads(predictions.read_text())):
        assert interface.validate_prediction(prediction), prediction.keys()
        for result in prediction["result"]:
            if result["type"] == "brushlabels":
                size = result["original_height"], result["original_width"], 4
                alpha = decode_rle(result["value"]["rle"]).reshape(size)[..., 3]
                arrays[f"{index}|{result['value']['brushlabels'][0]}"] = alpha > 0
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main()
