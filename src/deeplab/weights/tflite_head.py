"""The head and decoder that ``.tflite`` files are known to hold, from features to classes."""

from __future__ import annotations

from deeplab.errors import WeightsError
from deeplab.models import mobilenet_edgetpu, mobilenet_v2
from deeplab.models.layers import scale_size
from deeplab.tflite.file import Operator
from deeplab.weights.tflite_backbones import Backbone
from deeplab.weights.tflite_walk import CONVOLUTIONS, KNOWN, Walk, rate_of

_POOLINGS = ("AVERAGE_POOL_2D", "MEAN")
_SPREADS = ("RESIZE_BILINEAR", "TILE", "BROADCAST_TO")
_ANSWERS = ("SOFTMAX", "ARG_MAX", "CAST", "LOGISTIC")
_TAPS = {"mobilenet_v2": mobilenet_v2.TAPS, "mobilenet_edgetpu": mobilenet_edgetpu.TAPS}


def walk_head(walk: Walk, backbone: Backbone) -> dict[str, object]:
    """Note the convolutions behind the backbone; return what they say about the configuration.

    Nothing is returned where the features go on to a classifier.

    Raises:
        WeightsError: it is no head that is known here.
    """
    readers = walk.readers(backbone.features)
    pooling = [op for op in readers if op.name in _POOLINGS]
    convs = [op for op in readers if op.name in CONVOLUTIONS]
    others = [op.name for op in readers if op.name not in (*_POOLINGS, *CONVOLUTIONS)]
    if not pooling and len(convs) == 1:  # a classifier goes on with one 1×1 convolution
        return {}
    if len(pooling) != 1 or not convs or others:
        kinds = ", ".join(op.name for op in readers)
        raise WeightsError(f"the features go to {kinds or 'nothing'}: no DeepLab v3. {KNOWN}")
    values, x = _walk_pyramid(walk, backbone, pooling[0], convs)
    while len(found := walk.readers(x)) == 1 and found[0].name in (
        "RESIZE_BILINEAR",
        "CONCATENATION",
    ):
        x = _walk_decoder(walk, backbone, x, values)
    classes = walk.only(x, "CONV_2D", what="classes")
    logits = walk.take("classifier", classes)
    values["num_classes"] = walk.shape(classes)[0]
    values["logits_kernel_size"] = walk.shape(classes)[1]
    values |= _walk_end(walk, logits)
    return values


# -------------------------------------------------------------------------------------- pyramid


def _walk_pyramid(
    walk: Walk, backbone: Backbone, pooling: Operator, convs: list[Operator]
) -> tuple[dict[str, object], int]:
    """Note the pooled image, the branches and their projection; return its tensor too."""
    project = walk.only(pooling.outputs[0], "CONV_2D", what="image pooling")
    pooled = walk.take("head.pooling.project", project)
    rates: list[int] = []
    branches: list[int] = []
    separable: bool | None = None
    normed = True
    for conv in sorted(convs, key=rate_of):
        last, layer = conv, f"head.branches.{len(branches)}"
        if conv.name == "DEPTHWISE_CONV_2D":
            separable, normed = True, walk.has_activation(conv)
            last = walk.only(walk.take(f"{layer}.depthwise", conv), "CONV_2D", what=layer)
            layer += ".pointwise"
        elif rate_of(conv) > 1:
            separable = False
        branches.append(walk.take(layer, last))
        if rate_of(conv) > 1:
            rates.append(rate_of(conv))
    values: dict[str, object] = {
        "atrous_rates": tuple(rates),
        "rates_stated_at": backbone.output_stride,
        **({} if separable is None else {"aspp_separable": separable}),
    }
    if separable:
        values["separable_norm"] = normed
    if pooling.name == "AVERAGE_POOL_2D":
        values["image_pooling_crop_size"] = tuple(
            (int(pooling.options.get(f"filter_{side}", 1)) - 1) * backbone.output_stride + 1
            for side in ("height", "width")
        )
    spread = walk.only(pooled, *_SPREADS, "CONCATENATION", "CONV_2D", what="image pooling")
    if spread.name == "CONV_2D":
        x = _join_apart(walk, spread, branches)
    else:
        if spread.name != "CONCATENATION":
            pooled = spread.outputs[0]
        join = walk.only(pooled, "CONCATENATION", what="image pooling")
        order = [walk.source(tensor) for tensor in join.inputs]
        parts = [walk.source(branch) for branch in branches]
        values["pooling_first"] = order[0] == walk.source(pooled)
        if order not in ([walk.source(pooled), *parts], [*parts, walk.source(pooled)]):
            raise WeightsError(
                f"the branches are joined in an order that is not the original's. {KNOWN}"
            )
        conv = walk.only(join.outputs[0], "CONV_2D", what="projection")
        x = walk.take("head.project", conv)
    values["head_channels"] = walk.shape(walk.layers["head.project"])[0]
    return values, x


def _join_apart(walk: Walk, pooled: Operator, branches: list[int]) -> int:
    """Note a projection whose pooled part is computed once and added: the sum of the two.

    So does every file of ours: a 1×1 convolution of joined channels is the sum of those of the
    parts.
    """
    total = walk.only(pooled.outputs[0], "ADD", what="image pooling")
    x = branches[0]
    if len(branches) > 1:
        join = walk.only(x, "CONCATENATION", what="branches")
        x = join.outputs[0]
        if [walk.source(i) for i in join.inputs] != [walk.source(i) for i in branches]:
            raise WeightsError(
                f"the branches are joined in an order that is not the original's. {KNOWN}"
            )
    maps = walk.only(x, "CONV_2D", what="projection")
    sums = {walk.source(tensor) for tensor in total.inputs}
    if sums != {walk.source(maps.outputs[0]), walk.source(pooled.outputs[0])}:
        raise WeightsError(f"the pooled image is not added to what is projected. {KNOWN}")
    walk.take_sum("head.project", pooled, maps)
    return total.outputs[0]


# -------------------------------------------------------------------------------------- decoder


def _walk_decoder(walk: Walk, backbone: Backbone, x: int, values: dict[str, object]) -> int:
    """Note one stage of the decoder; return the tensor of its features."""
    strides = values.setdefault("decoder_output_stride", ())
    assert isinstance(strides, tuple)
    stage = f"decoder.{len(strides)}"
    resize = walk.only(x, "RESIZE_BILINEAR", "CONCATENATION", what=stage)
    if resize.name == "RESIZE_BILINEAR":
        values["align_corners"] = bool(resize.options.get("align_corners"))
        x = resize.outputs[0]
    join = walk.only(x, "CONCATENATION", what=stage)
    order = [walk.source(tensor) for tensor in join.inputs]
    if len(order) != 2 or walk.source(x) not in order:
        raise WeightsError(f"{stage}: {len(order)} features are joined, expected 2. {KNOWN}")
    first = order.index(walk.source(x)) == 0
    low = walk.writer(order[1 if first else 0])
    if low is None or low.name != "CONV_2D":
        raise WeightsError(f"{stage}: its low-level features are not projected. {KNOWN}")
    walk.take(f"{stage}.low_level", low)
    stride, kind = _find_tap(walk, backbone, walk.source(low.inputs[0]), stage)
    x, count, separable, normed = _walk_convs(walk, stage, join.outputs[0])
    last = walk.layers[f"{stage}.convs.{count - 1}" + (".pointwise" if separable else "")]
    found: dict[str, object] = {
        "version": "v3+",
        "low_level": kind,
        "low_level_channels": walk.shape(low)[0],
        "decoder_order": "encoder_first" if first else "low_level_first",
        "decoder_convs": count,
        "decoder_separable": separable,
        "decoder_channels": walk.shape(last)[0],
        **({"separable_norm": normed} if separable else {}),
    }
    for name, value in found.items():
        if values.setdefault(name, value) != value:
            raise WeightsError(f"{stage}: {name} is {value}, elsewhere {values[name]}. {KNOWN}")
    values["decoder_output_stride"] = (*strides, stride)
    return x


def _walk_convs(walk: Walk, stage: str, x: int) -> tuple[int, int, bool, bool]:
    """Note a stage's convolutions; return their last tensor, count, kind, and norm between."""
    count, separable, normed = 0, False, True
    while True:
        readers = walk.readers(x)
        if len(readers) != 1 or readers[0].name not in CONVOLUTIONS:
            break
        conv, layer = readers[0], f"{stage}.convs.{count}"
        if conv.name == "DEPTHWISE_CONV_2D":
            separable, normed = True, walk.has_activation(conv)
            pointwise = walk.only(walk.take(f"{layer}.depthwise", conv), "CONV_2D", what=layer)
            x = walk.take(f"{layer}.pointwise", pointwise)
        elif separable or not _goes_on(walk, conv):
            break  # the classes
        else:
            x = walk.take(layer, conv)
        count += 1
    if not count:
        raise WeightsError(f"{stage}: no convolution behind the joined features. {KNOWN}")
    return x, count, separable, normed


def _goes_on(walk: Walk, conv: Operator) -> bool:
    """Whether more convolutions, or another stage, follow on one: it does not give the classes."""
    readers = walk.readers(conv.outputs[0])
    resized = [op for r in readers for op in walk.readers(r.outputs[0]) if r.name != "CONV_2D"]
    return any(op.name in (*CONVOLUTIONS, "CONCATENATION") for op in (*readers, *resized))


def _find_tap(walk: Walk, backbone: Backbone, tensor: int, stage: str) -> tuple[int, str]:
    """Return the stride of low-level features, and whether they lie inside a block."""
    for stride, block in _TAPS[backbone.name].items():
        inner = walk.layers.get(f"backbone.blocks.{block}.depthwise")
        if inner is not None and walk.source(inner.outputs[0]) == tensor:
            return stride, "inner"
        if walk.blocks.get(block) == tensor:
            return stride, "block"
    raise WeightsError(f"{stage}: its low-level features are not those of the original. {KNOWN}")


# ------------------------------------------------------------------------------------------ end


def _walk_end(walk: Walk, logits: int) -> dict[str, object]:
    """Return what follows on the logits: nothing, a resize, or the sum with a second look."""
    readers = [op for op in walk.readers(logits) if op.name not in _ANSWERS]
    if not readers:
        return {}
    if len(readers) > 1 or readers[0].name not in ("RESIZE_BILINEAR", "ADD"):
        kinds = " and ".join(reader.name for reader in readers)
        raise WeightsError(f"the logits go to {kinds}, expected RESIZE_BILINEAR. {KNOWN}")
    if readers[0].name == "RESIZE_BILINEAR":
        return {"align_corners": bool(readers[0].options.get("align_corners"))}
    return {"mirror_scale": _read_mirror(walk, readers[0], logits)}


def _read_mirror(walk: Walk, total: Operator, logits: int) -> float:
    """Return the scale of the second look, at the mirrored photo, whose logits are averaged in.

    It has the same weights; every convolution that is not noted yet must be one of them again.
    """
    start = walk.source(walk.file.inputs[0])
    second = [op for op in walk.readers(start) if op.name in ("RESIZE_BILINEAR", "REVERSE_V2")]
    noted = [walk.weights(op) for op in walk.operators()]
    again = [walk.weights(op) for op in walk.file.operators if op.name in CONVOLUTIONS]
    mirrors = [op for op in walk.file.operators if op.name == "REVERSE_V2"]
    half = walk.only(total.outputs[0], "MUL", what="the second look")
    if (
        len(second) != 1
        or sorted(again) != sorted(noted * 2)
        or len(mirrors) != 2
        or any(walk.numbers(op.inputs[1]) not in ([2], [-2]) for op in mirrors)
        or walk.numbers(half.inputs[1]) != [0.5]
    ):
        raise WeightsError(f"what is added to the logits is no mirrored second look. {KNOWN}")
    if second[0].name == "REVERSE_V2":
        return 1.0
    small = walk.file.tensors[second[0].outputs[0]].shape[1:3]
    large = walk.file.tensors[start].shape[1:3]
    for digits in range(1, 8):  # the shortest number that gives this size
        for nudge in (0, 1):
            scale = float(round((small[0] - 1) / (large[0] - 1) + nudge * 10**-digits, digits))
            if [scale_size(side, scale) for side in large] == [*small]:
                return scale
    raise WeightsError(f"the second look has the size {small} of {large}: no scale gives it.")
