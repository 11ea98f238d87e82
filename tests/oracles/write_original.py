"""Run the original's networks on seeded weights, and write their logits for the tests.

    python tests/oracles/write_original.py RESEARCH tests/models/original.npz [CASE …]

RESEARCH is the folder ``research`` of tensorflow/models, in an environment of its own with
tensorflow-cpu 2.15, tf-slim and six. The original imports ``tensorflow.contrib``, which is gone:
a copy of it gets other imports, and no other line is changed. Weights and photo are functions of
their names (``tests/models/seeded.py``), so that the file holds numbers alone.
"""

from __future__ import annotations

import importlib
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from seeded import CASES, seeded_image, seeded_weight  # type: ignore[import-not-found]

_IMPORTS = {
    r"from tensorflow\.contrib import slim as (\w+)": r"import tf_slim as \1",
    r"from tensorflow\.contrib import framework as": "from tf_slim.ops import arg_scope as",
    r"from tensorflow\.contrib import (layers|training) as (\w+)": r"import contrib_\1 as \2",
    r"from tensorflow\.contrib\.layers\.python\.layers import": "from tf_slim.layers import",
    r"from tensorflow\.contrib\.slim\.nets import": "from nets import",
    r"import tensorflow as tf": "import tensorflow.compat.v1 as tf",
}
_LAYERS = """
from tf_slim.layers.initializers import variance_scaling_initializer, xavier_initializer
from tf_slim.layers.regularizers import l2_regularizer
from tf_slim import instance_norm as group_norm
"""
_TRAINING = """
class HParams:
    def __init__(self, **values): self.__dict__.update(values)
    def set_hparam(self, name, value): setattr(self, name, value)
"""


def prepare(research: Path, folder: Path) -> None:
    """Copy the original into a folder, with imports that today's TensorFlow has."""
    shutil.copytree(research / "deeplab", folder / "deeplab")
    shutil.copytree(research / "slim" / "nets", folder / "nets")
    (folder / "nets" / "__init__.py").touch()
    (folder / "contrib_layers.py").write_text(_LAYERS)
    (folder / "contrib_training.py").write_text(_TRAINING)
    for path in folder.rglob("*.py"):
        text = path.read_text()
        for old, new in _IMPORTS.items():
            text = re.sub(rf"^{old}\b", new, text, flags=re.MULTILINE)
        # Keras has since given the same method a public name.
        text = text.replace("self._convolution_op(", "self.convolution_op(")
        path.write_text(re.sub(r"\bnp\.int\b", "int", text))


def _alias_keras() -> None:
    """Let TensorFlow 2.15 find its old layers, which it looks for under a later name."""
    for name in ("base", "convolutional", "core", "normalization", "pooling"):
        module = importlib.import_module(f"keras.src.legacy_tf_layers.{name}")
        sys.modules[f"tf_keras.legacy_tf_layers.{name}"] = module


def run(case: dict[str, object]) -> np.ndarray:
    """Return the logits (1, h, w, K) of one case."""
    import tensorflow.compat.v1 as tf
    from absl import flags
    from deeplab.core import resnet_v1_beta

    from deeplab import common, model  # type: ignore[import-not-found]

    given = case["flags"]
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["original", *(f"--{name}={value}" for name, value in given.items())])
    size = case["size"]
    plain = resnet_v1_beta.resnet_arg_scope
    if case.get("weight_standardization"):  # an argument of the original that no flag reaches
        from deeplab.core import feature_extractor

        def standardised(**values: object) -> object:
            return plain(use_weight_standardization=True, **values)

        feature_extractor.arg_scopes_map[given["model_variant"]] = standardised
    with tf.Graph().as_default(), tf.Session() as session:
        options = common.ModelOptions(
            {common.OUTPUT_TYPE: case["num_classes"]},
            crop_size=size,
            atrous_rates=case["atrous_rates"],
            output_stride=case["output_stride"],
        )
        photo = tf.constant(seeded_image(*size)[None].astype(np.float32))
        scales = model.multi_scale_logits(photo, options, image_pyramid=None)
        logits = scales[common.OUTPUT_TYPE]["merged_logits"]
        variables = tf.global_variables()
        session.run(
            [variable.initializer for variable in variables],
            {
                variable.initializer.inputs[1]: seeded_weight(
                    variable.op.name, variable.shape.as_list(), case["scale"]
                )
                for variable in variables
            },
        )
        result: np.ndarray = session.run(logits)
    return result


def main() -> None:
    """Write one array per case."""
    research, target = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        prepare(research, Path(folder))
        sys.path.insert(0, folder)
        import tensorflow.compat.v1 as tf

        tf.disable_v2_behavior()
        _alias_keras()
        found = dict(np.load(target)) if target.is_file() else {}
        for name in sys.argv[3:] or CASES:
            found[name] = run(CASES[name])
            print(name, found[name].shape, float(np.abs(found[name]).max()), flush=True)
    np.savez_compressed(target, **found)


if __name__ == "__main__":
    main()
