"""Programs in the words of other libraries' documents; their import line is the only thing changed.

Each takes a folder with ``float.tflite``, ``frame.npy`` (RGB) and ``photo.png``, and leaves arrays
in ``OUT.npz`` and, as JSON on its last line, what it saw: values, types, and for each mistake the
kind of exception. Views are copied, because those libraries free the memory under them.
"""

TASK_LIBRARY = """
import json, sys
from {module} import core, processor, vision
import numpy as np

folder, out = sys.argv[1:3]
model = folder + "/float.tflite"
frame = np.load(folder + "/frame.npy")
seen, arrays = {{}}, {{}}


def create(file_name=model, output_type=processor.OutputType.CATEGORY_MASK, **base):
    base_options = core.BaseOptions(file_name=file_name, **base)
    segmentation_options = processor.SegmentationOptions(output_type=output_type)
    options = vision.ImageSegmenterOptions(
        base_options=base_options, segmentation_options=segmentation_options)
    return vision.ImageSegmenter.create_from_options(options)


image = vision.TensorImage.create_from_array(frame)
for name in sys.argv[3:]:
    path = folder + "/" + name + ".tflite"
    segmentation = create(path).segment(image).segmentations[0]
    arrays[name] = segmentation.category_mask
    seen[name] = [segmentation.height, segmentation.width, type(segmentation).__name__,
                  str(segmentation.category_mask.dtype), segmentation.confidence_masks]
    segmenter = create(path, processor.OutputType.CONFIDENCE_MASK)
    segmentation = segmenter.segment(image).segmentations[0]
    arrays[name + " confidences"] = np.stack([m.value for m in segmentation.confidence_masks])
    seen[name + " labels"] = [
        [*label.color, label.category_name, label.display_name, type(label).__name__]
        for label in segmentation.colored_labels]
segmenter = vision.ImageSegmenter.create_from_file(model)
for width in (frame.shape[1] // 2, 17, 3):
    part = np.ascontiguousarray(frame[:, :width])
    result = segmenter.segment(vision.TensorImage.create_from_array(part))
    arrays["part %d" % width] = result.segmentations[0].category_mask
photo = vision.TensorImage.create_from_file(folder + "/photo.png")
arrays["pixels"] = np.copy(photo.buffer)
seen["photo"] = [photo.height, photo.width, photo.color_space_type.value]
with open(folder + "/photo.png", "rb") as file:
    arrays["pixels of bytes"] = np.copy(vision.TensorImage.create_from_buffer(file.read()).buffer)
with open(model, "rb") as file:
    content = file.read()
options = vision.ImageSegmenterOptions(core.BaseOptions(file_content=content))
first = vision.ImageSegmenter.create_from_options(options).segment(image)
seen["equal"] = [first == segmenter.segment(image), first == 3]

array = vision.TensorImage.create_from_array
mistakes = {{
    "missing": lambda: create("nowhere.tflite"),
    "garbage": lambda: create(folder + "/photo.png"),
    "no metadata": lambda: create(folder + "/bare.tflite"),
    "folder": lambda: create(folder),
    "unnamed": lambda: create(None),
    "no threads": lambda: create(num_threads=0),
    "threads in words": lambda: create(num_threads="2"),
    "coral": lambda: create(use_coral=True),
    "unspecified": lambda: create(output_type=processor.OutputType.UNSPECIFIED),
    "no type": lambda: create(output_type=None),
    "an array": lambda: segmenter.segment(frame),
    "nothing": lambda: segmenter.segment(None),
    "real numbers": lambda: array(frame.astype(np.float32)),
    "grey": lambda: segmenter.segment(array(np.ascontiguousarray(frame[:, :, 0]))),
    "five channels": lambda: segmenter.segment(array(np.zeros((4, 5, 5), np.uint8))),
    "one axis": lambda: array(np.zeros(4, np.uint8)),
    "two photos": lambda: array(np.zeros((2, 4, 5, 3), np.uint8)),
    "a list": lambda: array([[1]]),
    "no photo": lambda: vision.TensorImage.create_from_file("nowhere.png"),
    "no picture": lambda: vision.TensorImage.create_from_file(model),
    "no bytes": lambda: vision.TensorImage.create_from_buffer(b"xx"),
    "no options": lambda: vision.ImageSegmenter.create_from_options(None),
    "empty options": lambda: vision.ImageSegmenterOptions(),
}}
for name, make in mistakes.items():
    try:
        make()
        seen["mistake: " + name] = None
    except Exception as error:
        seen["mistake: " + name] = type(error).__name__
np.savez(out, **arrays)
print(json.dumps(seen))
"""

MEDIAPIPE = """
import json, sys, threading
{import_line}
import numpy as np

BaseOptions = mp.tasks.BaseOptions
ImageSegmenter = mp.tasks.vision.ImageSegmenter
ImageSegmenterOptions = mp.tasks.vision.ImageSegmenterOptions
ImageProcessingOptions = mp.tasks.vision.ImageProcessingOptions
VisionRunningMode = mp.tasks.vision.RunningMode

folder, out = sys.argv[1:3]
model = folder + "/float.tflite"
frame = np.load(folder + "/frame.npy")
seen, arrays = {{}}, {{}}


def create(path=model, base=None, **options):
    base = base or BaseOptions(model_asset_path=path)
    return ImageSegmenter.create_from_options(ImageSegmenterOptions(base_options=base, **options))


image = mp.Image(image_format=mp.ImageFormat.SRGB, data=frame)
for name in sys.argv[3:]:
    path = folder + "/" + name + ".tflite"
    with create(path, running_mode=VisionRunningMode.IMAGE, output_category_mask=True) as segmenter:
        result = segmenter.segment(image)
        arrays[name] = np.copy(result.category_mask.numpy_view())
        arrays[name + " confidences"] = np.stack([m.numpy_view() for m in result.confidence_masks])
        one = result.confidence_masks[0]
        seen[name] = [type(result).__name__, segmenter.labels, len(result.confidence_masks),
                      result.category_mask.image_format, one.image_format, one.width, one.height,
                      one.channels, str(one.numpy_view().dtype), one.numpy_view().flags.writeable]
        for degrees in (90, 180, 270, -90):
            turned = segmenter.segment(image, ImageProcessingOptions(rotation_degrees=degrees))
            arrays[name + " %d" % degrees] = np.copy(turned.category_mask.numpy_view())
segmenter = create(running_mode=VisionRunningMode.IMAGE, output_confidence_masks=False,
                   output_category_mask=True)
for width in (frame.shape[1] // 2, 17, 3):
    part = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame[:, :width]))
    arrays["part %d" % width] = np.copy(segmenter.segment(part).category_mask.numpy_view())
seen["no confidences"] = segmenter.segment(image).confidence_masks
seen["no mask"] = ImageSegmenter.create_from_model_path(model).segment(image).category_mask
with open(model, "rb") as file:
    from_bytes = create(base=BaseOptions(model_asset_buffer=file.read()), output_category_mask=True)
arrays["of bytes"] = np.copy(from_bytes.segment(image).category_mask.numpy_view())

video = create(running_mode=VisionRunningMode.VIDEO, output_category_mask=True)
arrays["video"] = np.stack(
    [np.copy(video.segment_for_video(image, time).category_mask.numpy_view())
     for time in (0, 33)])

answers, answered = [], threading.Event()


def on_result(result, given, timestamp_ms):
    answers.append([type(result).__name__, type(given).__name__, timestamp_ms, given.width])
    arrays["live"] = np.copy(result.category_mask.numpy_view())
    answered.set()


live = create(running_mode=VisionRunningMode.LIVE_STREAM, output_category_mask=True,
              result_callback=on_result)
live.segment_async(image, 40)
seen["answered"] = answered.wait(30)
seen["live"] = answers

photo = mp.Image.create_from_file(folder + "/photo.png")
arrays["pixels"] = np.copy(photo.numpy_view())
seen["photo"] = [photo.width, photo.height, photo.channels, photo.image_format, photo[2, 1, 0]]
Image, Format = mp.Image, mp.ImageFormat
mistakes = {{
    "missing": lambda: create("nowhere.tflite"),
    "garbage": lambda: create(folder + "/photo.png"),
    "no metadata": lambda: create(folder + "/bare.tflite"),
    "folder": lambda: create(folder),
    "unnamed": lambda: create(base=BaseOptions()),
    "bad bytes": lambda: create(base=BaseOptions(model_asset_buffer=b"xx" * 50)),
    "nothing wanted": lambda: create(output_confidence_masks=False),
    "callback in vain": lambda: create(result_callback=on_result),
    "no callback": lambda: create(running_mode=VisionRunningMode.LIVE_STREAM),
    "an array": lambda: segmenter.segment(frame),
    "video in image": lambda: segmenter.segment_for_video(image, 1),
    "live in image": lambda: segmenter.segment_async(image, 1),
    "image in video": lambda: video.segment(image),
    "live in video": lambda: video.segment_async(image, 99),
    "image in live": lambda: live.segment(image),
    "video in live": lambda: live.segment_for_video(image, 99),
    "same time": lambda: video.segment_for_video(image, 33),
    "half a millisecond": lambda: video.segment_for_video(image, 40.5),
    "earlier": lambda: live.segment_async(image, 5),
    "turned by 45": lambda: segmenter.segment(image, ImageProcessingOptions(rotation_degrees=45)),
    "no photo": lambda: Image.create_from_file("nowhere.png"),
    "no picture": lambda: Image.create_from_file(model),
    "four axes": lambda: Image(image_format=Format.SRGB, data=frame[None]),
    "too few bytes": lambda: Image(image_format=Format.SRGB, data=frame[:, :, 0].copy()),
    "real numbers": lambda: Image(image_format=Format.SRGB, data=frame.astype(np.float32)),
    "doubles": lambda: Image(image_format=Format.VEC32F1, data=frame[:, :, 0].astype(float)),
    "a list": lambda: Image(image_format=Format.SRGB, data=[[1]]),
    "one index": lambda: photo[(1,)],
    "writing": lambda: photo.numpy_view().__setitem__((0, 0, 0), 1),
    "no options": lambda: ImageSegmenter.create_from_options(None),
    "empty options": lambda: ImageSegmenterOptions(),
}}
for name, make in mistakes.items():
    try:
        make()
        seen["mistake: " + name] = None
    except Exception as error:
        seen["mistake: " + name] = type(error).__name__
for opened in (video, segmenter, from_bytes, live):
    opened.close()
np.savez(out, **arrays)
print(json.dumps(seen))
"""

STARTER_TASK_LIBRARY = """
import sys
from {module} import vision
import numpy as np
segmenter = vision.ImageSegmenter.create_from_file(sys.argv[3])
frame = np.load(sys.argv[1] + "/frame.npy")
found = segmenter.segment(vision.TensorImage.create_from_array(frame)).segmentations[0]
np.savez(sys.argv[2], mask=found.category_mask)
print("null")
"""

STARTER_MEDIAPIPE = """
import sys
{import_line}
import numpy as np
vision = mp.tasks.vision
segmenter = vision.ImageSegmenter.create_from_options(vision.ImageSegmenterOptions(
    base_options=mp.tasks.BaseOptions(model_asset_path=sys.argv[3]), output_category_mask=True))
frame = np.load(sys.argv[1] + "/frame.npy")
found = segmenter.segment(mp.Image(image_format=mp.ImageFormat.SRGB, data=frame))
np.savez(sys.argv[2], mask=np.copy(found.category_mask.numpy_view()),
         person=np.copy(found.confidence_masks[15].numpy_view()))
print("null")
"""
