"""Weights of other people's networks with something wrong in them: the same, or refused in a line.

Each tensor of a layout is one number that only its name decides, so a weight that is taken for
another, dropped or never filled shows, however the file was changed. Files with checksums must give
what they held or be refused; of all others whatever is read must be whole and counted.
"""

from __future__ import annotations

import json
import random as rng
import re
import sys
import tarfile
import warnings
import zlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from deeplab.errors import DeepLabError
from deeplab.models import DeepLabConfig, build
from deeplab.weights import huggingface, kazuto, load_with_report, mobilevit, vainf
from deeplab.weights.checkpoints import Checkpoint
from deeplab.weights.naming import Layer, aspp_layers, mobilenet_v2_layers, resnet_layers
from deeplab.weights.report import ImportReport
from deeplab.weights.state_dicts import from_checkpoint
from deeplab.weights.tensorflow import expected_variables
from weights import mutate

sys.path.append(str(Path(__file__).parents[1] / "weights"))
from bundles import field, shape_message, write_checkpoint
from peers import shapes_of
from test_peers import jf_layers, mm_layers, smp_layers

State = dict[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]

_PLAIN: Any = {"aspp_separable": False, "decoder_separable": False, "separable_norm": False,
               "stride_unit": "first", "low_level": "block"}  # fmt: skip


def _torchvision() -> tuple[DeepLabConfig, list[Layer]]:
    config = DeepLabConfig(version="v3", backbone="resnet_v1_50", num_classes=21,
                           post_aspp="conv", **_PLAIN)  # fmt: skip
    return config, [
        *resnet_layers("backbone.", 50), *aspp_layers("classifier.0."),
        ("head.post", "classifier.1", "classifier.2"), ("classifier", "classifier.4", None),
    ]  # fmt: skip


def _vainf() -> tuple[DeepLabConfig, list[Layer]]:
    config = DeepLabConfig(version="v3+", num_classes=6, decoder_convs=1,
                           atrous_rates=(6, 12, 18), **_PLAIN)  # fmt: skip
    return config, [
        *mobilenet_v2_layers(vainf._feature), *aspp_layers("classifier.aspp."),
        *vainf._head_layers(plus=True, separable=None),
        ("classifier", "classifier.classifier.3", None),
    ]  # fmt: skip


def _kazuto() -> tuple[DeepLabConfig, list[Layer]]:
    config = DeepLabConfig(version="v2", backbone="resnet_v1_101", num_classes=5,
                           atrous_rates=(6, 12, 18, 24), output_stride=8)  # fmt: skip
    return config, list(kazuto._layers("scale.", (3, 4, 23, 3), 4))


def _mobilevit() -> tuple[DeepLabConfig, list[Layer]]:
    config = DeepLabConfig(version="v3", backbone="mobilevit_xxs", num_classes=4,
                           aspp_separable=False, output_stride=16)  # fmt: skip
    layers = mobilevit._backbone_layers("mobilevit.", v2=False)
    return config, [*layers, *mobilevit._head_layers()]


def _transformers() -> tuple[DeepLabConfig, list[Layer]]:
    config = DeepLabConfig(depth_multiplier=0.25, head_channels=8, num_classes=3)
    return config, list(huggingface._layers())


LAYOUTS: dict[str, Callable[[], tuple[DeepLabConfig, list[Layer]]]] = {
    "jfzhang95": partial(jf_layers, "mobilenet"),
    "jfzhang95 resnet": partial(jf_layers, "resnet"),
    "mmsegmentation": partial(mm_layers, "mobilenet", plus=True, deep=False),
    "mmsegmentation resnet": partial(mm_layers, "resnet18", plus=True, deep=True),
    "smp": partial(smp_layers, 18, plus=True),
    "smp v3": partial(smp_layers, 34, plus=False),
    "torchvision": _torchvision,
    "vainf": _vainf,
    "kazuto": _kazuto,
    "mobilevit": _mobilevit,
    "transformers": _transformers,
}


def number(name: str, salt: str = "") -> float:
    """Return the number that stands for a name; every float of two bytes holds it."""
    drawn = zlib.crc32(f"{salt}{name}".encode())
    return float((128 + drawn % 128) * 2.0 ** (drawn // 128 % 15 - 8))


def fill(shapes: Shapes, salt: str = "") -> State:
    """Return tensors of one number each, which takes no memory."""
    return {name: torch.full((), number(name, salt)).expand(shape)
            for name, shape in shapes.items()}  # fmt: skip


@cache
def layout(name: str) -> tuple[dict[str, tuple[int, ...]], dict[str, float]]:
    """Return the shapes of a layout, and the number of each of our weights."""
    shapes = shapes_of(*LAYOUTS[name]())
    _, state, report = from_checkpoint(Checkpoint(tensors=fill(shapes)))
    assert len(report.kept) == len(shapes)
    return shapes, {key: float(value.flatten()[0]) for key, value in state.items()}


# ---------------------------------------------------------------------------------- tensors alone


def _harmless(random: rng.Random, state: State) -> State:
    """Change what no reader may stumble over: wrappers, order, precision, what lies beside."""
    if random.random() < 0.4 and all(value.is_floating_point() for value in state.values()):
        dtype = random.choice((torch.float16, torch.bfloat16, torch.float64))
        state = {name: value.to(dtype) for name, value in state.items()}
    if random.random() < 0.3:
        norms = [name for name in state if name.endswith("running_mean")]
        state |= {name.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
                  for name in norms}  # fmt: skip
    prefix = random.choice(("", "", "module.", "_orig_mod.", "_orig_mod.module.", "model.", "net.",
                            "state_dict.", "state_dict.model.module.", "ema.module."))  # fmt: skip
    state = {f"{prefix}{name}": value for name, value in state.items()}
    if random.random() < 0.3:
        state |= {f"optimizer.state.{at}.momentum_buffer": value
                  for at, value in enumerate(list(state.values())[:5])}  # fmt: skip
    if random.random() < 0.3:
        names = list(state)
        random.shuffle(names)
        state = {name: state[name] for name in names}
    return state


def _harmful(random: rng.Random, state: State) -> State:
    """Change something that a reader must see, or may leave out only where it counts it."""
    name = random.choice(list(state))
    value = state[name]
    kind = random.randrange(9)
    if kind == 0:
        del state[name]
    elif kind == 1:
        del state[name]
        words = name.split(".")
        at = random.randrange(len(words))
        words[at] = random.choice((words[at] + "_old", "x", str(random.randrange(6))))
        state[".".join(words)] = value
    elif kind == 2:
        more = random.choice((
            f"{name}_1", f"extra.{name}", "backbone.extra.weight", "weight",
            name.replace("weight", "bias"), name.replace(".0", ".9"),
        ))  # fmt: skip
        state.setdefault(more, torch.full((), 9000.0).expand(value.shape))
    elif kind == 3:
        if value.ndim > 1:
            state[name] = value.transpose(0, 1)
        else:
            state[name] = value[: len(value) // 2] if value.ndim else value
    elif kind == 4:
        shape = random.choice(((), (1,), (0,), (1, *value.shape), value.shape[1:]))
        state[name] = torch.full((), 9000.0).expand(shape)
    elif kind == 5:
        dtype = random.choice((torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64))
        state[name] = torch.full((), 3).to(dtype).expand(value.shape)
    elif kind == 6:
        odd = random.choice((float("nan"), float("inf"), 1e300))
        state[name] = torch.full((), odd, dtype=torch.float64).expand(value.shape)
    elif kind == 7:
        top = ".".join(name.split(".")[: random.choice((1, 2, 2, 3))]) + "."
        gone = [one for one in state if one.startswith(top)]
        for one in gone:
            del state[one]
    else:
        other = fill(layout(random.choice(list(LAYOUTS)))[0], "other")
        state = {**other, **state} if random.random() < 0.5 else {**state, **other}
    return state


def _twice(random: rng.Random, state: State) -> State:
    """Put a second set of the weights beside the first, whole or in part."""
    second = fill({name: tuple(value.shape) for name, value in state.items()}, "second")
    if random.random() < 0.5:
        second = {name: second[name] for name in random.sample(list(second), len(second) // 2)}
    first, other = random.choice((("model.", "model_ema."), ("", "ema."), ("state_dict.", "ema."),
                                  ("model.", "teacher."), ("student.", "teacher."),
                                  ("module.", ""), ("a.", "b.")))  # fmt: skip
    parts = [{f"{first}{name}": value for name, value in state.items()},
             {f"{other}{name}": value for name, value in second.items()}]  # fmt: skip
    random.shuffle(parts)
    return parts[0] | parts[1]


def _counted(report: ImportReport, names: set[str]) -> None:
    """Raise unless the report accounts for every tensor, once."""
    prefix = "" if report.taken in ("", "the file itself") else f"{report.taken}."
    others = ["" if one == "the file itself" else f"{one}." for one in report.others]
    elsewhere = {name for name in names if any(name.startswith(other) for other in others)
                 and not (prefix and name.startswith(prefix))}  # fmt: skip
    beside = 0
    for words in report.beside:
        found = re.search(r"\.\* \((\d+)\)$", words)
        beside += int(found.group(1)) if found else 1
    told = len(report.kept) + len(report.ignored) + beside
    if "" in others or not prefix:  # one lies around the other: its names are not told apart here
        assert told <= len(names), (told, len(names))
        return
    assert told + len(elsewhere) == len(names), (told, len(elsewhere), len(names))


def _check(config: DeepLabConfig, state: State, report: ImportReport,
           sets: list[tuple[str, str]]) -> None:  # fmt: skip
    """Raise unless every weight is there, and is that of its own name in one of the sets."""
    with torch.device("meta"):
        expected = build(config).state_dict()
    wanted = {key for key in expected if key.startswith("backbone.") or not report.backbone_only}
    assert set(state) == wanted, sorted(set(state) ^ wanted)[:4]
    for key, value in state.items():
        assert value.shape == expected[key].shape, key
        assert value.dtype == expected[key].dtype, key
    for name, salt in sets:
        shapes, _ = layout(name)
        _, fresh, _ = from_checkpoint(Checkpoint(tensors=fill(shapes, salt)))
        if set(state) == set(fresh) and all(
            bool((value == fresh[key].flatten()[0]).all()) for key, value in state.items()
        ):
            return
    _, fresh, _ = from_checkpoint(Checkpoint(tensors=fill(layout(sets[0][0])[0])))
    odd = [key for key in state if key not in fresh or state[key].shape != fresh[key].shape
           or not bool((state[key] == fresh[key]).all())]  # fmt: skip
    raise AssertionError(f"{sets[0][0]}: a weight is another's: {odd[:3]} of {len(odd)}, taken "
                         f"{report.taken}, {config}")  # fmt: skip


def _refused(error: DeepLabError, name: str = "") -> str:
    """Raise unless it is one line that names the file."""
    words = str(error)
    if "\n" in words or name not in words:
        raise AssertionError(f"several lines, or without {name}: {words}") from error
    return "refused"


def _try_tensors(random: rng.Random) -> str:
    name = random.choice(list(LAYOUTS))
    state, sets, must = fill(layout(name)[0]), [(name, "")], True
    if random.random() < 0.6:
        state, must = _harmful(random, state), False
        sets += [(other, "other") for other in LAYOUTS]
    elif random.random() < 0.5:
        state, must = _twice(random, state), False
        sets.append((name, "second"))
    state = _harmless(random, state)
    try:
        config, found, report = from_checkpoint(Checkpoint(tensors=state))
    except DeepLabError as error:
        if must:
            raise AssertionError(f"{name} is refused: {error}") from error
        return _refused(error)
    _check(config, found, report, sets)
    str(report)
    _counted(report, set(state))
    return "read"


# ------------------------------------------------------------------------------------------ files

_SMALL = DeepLabConfig(depth_multiplier=0.1, head_channels=8, num_classes=3)


def _variables() -> dict[str, np.ndarray]:
    """Return the variables of a small network of the original, as numbers of their names."""
    found = {}
    for name, shape in expected_variables(_SMALL).values():
        value = np.full(shape, number(name), np.float32)
        if name.endswith("depthwise_weights"):
            value = value.transpose(2, 3, 0, 1)
        elif name.endswith("/weights"):
            value = value.transpose(2, 3, 1, 0)
        found[name] = np.ascontiguousarray(value)
    return found


def _graph(variables: Mapping[str, np.ndarray]) -> bytes:
    graph = b""
    for name, value in variables.items():
        tensor = field(1, 1) + field(2, shape_message(value.shape)) + field(4, value.tobytes())
        attributes = [field(5, field(1, b"dtype") + field(2, field(6, 1))),
                      field(5, field(1, b"value") + field(2, field(8, tensor)))]  # fmt: skip
        node = field(1, name.encode()) + field(2, b"Const") + b"".join(attributes)
        graph += field(1, node)
    for at in range(4):  # an output stride of 16
        inputs = (f"down{at - 1}".encode() if at else b"image", b"MobilenetV2/Conv/weights")
        strides = field(5, field(1, b"strides") + field(2, field(1, field(3, b"\1\2\2\1"))))
        node = field(1, f"down{at}".encode()) + field(2, b"Conv2D") + strides
        graph += field(1, node + b"".join(field(3, name) for name in inputs))
    return graph


def _write_original(random: rng.Random, folder: Path) -> tuple[Path, list[Path]]:
    """Write a checkpoint or a graph of the original, in a folder or packed; (what, its files)."""
    variables = _variables()
    if random.random() < 0.4:
        _alter(random, variables)
    inside = folder / "model"
    inside.mkdir()
    if random.random() < 0.5:
        write_checkpoint(inside, {name: (1, value.shape, value.tobytes())
                                  for name, value in variables.items()},
                         shards=random.choice((1, 2)))  # fmt: skip
    else:
        (inside / "frozen_inference_graph.pb").write_bytes(_graph(variables))
    if random.random() < 0.3:
        path = folder / "model.tar.gz"
        with tarfile.open(path, "w:gz", compresslevel=random.choice((0, 1))) as tar:
            tar.add(inside, "model")
        return path, [path]
    return inside, list(inside.iterdir())


def _alter(random: rng.Random, variables: dict[str, np.ndarray]) -> None:
    name = random.choice(list(variables))
    value = variables.pop(name)
    kind = random.randrange(6)
    if kind == 0:
        variables[f"{name}_1"] = value
    elif kind == 1:
        variables[name] = value.reshape(-1)
    elif kind == 2:
        variables[name] = np.ascontiguousarray(value.T)
    elif kind == 3:
        variables |= {name: value, f"{name}/ExponentialMovingAverage": value + 1}
    elif kind == 4:
        variables[name] = np.full_like(value, random.choice((np.nan, np.inf)))


def _write_torch(random: rng.Random, folder: Path) -> tuple[Path, list[Path]]:
    """Write a file of torch.save, or a folder of transformers in one or two parts."""
    name = "transformers"
    state = {key: value.contiguous() for key, value in fill(layout(name)[0]).items()}
    kind = random.choice(("pth", "folder", "parts", "parts"))
    if kind == "pth":
        path = folder / "model.pth"
        torch.save({"model": state, "epoch": 3, "optimizer": {"state": {}}}, path)
        return path, [path]
    inside = folder / "model"
    inside.mkdir()
    settings = {
        "model_type": "mobilenet_v2", "architectures": ["MobileNetV2ForSemanticSegmentation"],
        "depth_multiplier": 0.25, "hidden_act": "relu6", "tf_padding": True, "output_stride": 16,
        "layer_norm_eps": 0.001, "id2label": {"0": "background", "1": "cat", "2": "dog"},
    }  # fmt: skip
    pixels = {
        "image_processor_type": "MobileNetV2ImageProcessor", "do_rescale": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255,
    }  # fmt: skip
    if kind == "folder":
        save_file(state, inside / "model.safetensors")
    else:
        names = list(state)
        table = {name: f"model-0000{1 + (at % 2)}-of-00002.safetensors"
                 for at, name in enumerate(names)}  # fmt: skip
        parts = {file: {key: state[key] for key in names if table[key] == file}
                 for file in sorted(set(table.values()))}  # fmt: skip
        _alter_parts(random, table, parts)
        for file, part in parts.items():
            save_file(part, inside / file)
        index = {"metadata": {"total_size": 1}, "weight_map": table}
        (inside / "model.safetensors.index.json").write_text(json.dumps(index))
    (inside / "config.json").write_text(json.dumps(settings))
    (inside / "preprocessor_config.json").write_text(json.dumps(pixels))
    return inside, list(inside.iterdir())


def _alter_parts(random: rng.Random, table: dict[str, str], parts: dict[str, State]) -> None:
    """Do what a download of two versions into one folder does."""
    first, second = parts
    key = random.choice([one for one in table if table[one] == first])
    kind = random.randrange(6)
    if kind == 0:  # another cut between the parts: this tensor lies in both, and differs
        parts[second][key] = parts[first][key] + 1
    elif kind == 1:
        parts[second][key] = parts[first].pop(key)
    elif kind == 2:
        del table[key]
    elif kind == 3:
        del parts[first][key]


_SURE = (".index", ".pth")
"""Files that hold checksums of all that they say; data files, whose index holds theirs, too."""


def _try_files(random: rng.Random, folder: Path) -> str:
    original = random.random() < 0.5
    path, files = (_write_original if original else _write_torch)(random, folder)
    changed = ""
    if random.random() < 0.7:
        victim = random.choice(files)
        changed = victim.name
        if random.random() < 0.1:
            victim.unlink()
        else:
            victim.write_bytes(mutate(random, victim.read_bytes()))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            config, state, report = load_with_report(path)
    except DeepLabError as error:
        return _refused(error, folder.name)
    with torch.device("meta"):
        expected = build(config).state_dict()
    assert set(state) == set(expected) or report.backbone_only
    assert all(state[key].shape == expected[key].shape for key in state)
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    if not changed or changed.endswith(_SURE) or ".data-" in changed:
        _same(state, original=original)
    return "read"


@cache
def _truth(original: bool) -> dict[str, float]:
    if not original:
        return layout("transformers")[1]
    return {key: number(name) for key, (name, _) in expected_variables(_SMALL).items()}


def _same(state: State, *, original: bool) -> None:
    for key, value in state.items():
        wanted = _truth(original)[key]
        fits = (value == wanted) | ((value == wanted + 1) if original else False)
        assert bool(fits.all()), f"{key} is {float(value.flatten()[0])}, expected {wanted}"


def run_one(random: rng.Random, folder: Path) -> str:
    """Read one changed set of tensors, or one changed file or folder."""
    torch.set_num_threads(1)
    return _try_tensors(random) if random.random() < 0.5 else _try_files(random, folder)
