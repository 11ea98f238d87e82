"""The page in Chromium: what it shows, what it saves, and what it refuses."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import foreign
import numpy as np
import pytest
from hosting import (
    STARTER,
    TITLE,
    clear_status,
    download,
    drop,
    look,
    saved_mask,
    show,
    wait_for_result,
)
from PIL import Image

from deeplab import Segmenter
from deeplab.labels import CITYSCAPES, LabelSet
from deeplab.runtimes import describe

pytestmark = [pytest.mark.reference, pytest.mark.integration]

QUANTISED = "deeplabv3_mnv2_dm05_pascal_quant.tflite"


def agreement(mask: np.ndarray, expected: np.ndarray) -> float:
    assert mask.shape == expected.shape
    return float((mask == expected).mean())


@pytest.fixture(scope="module")
def starter(reference):
    return Segmenter(reference / "models" / STARTER, threads=1, exact=True)


def test_masks_equal_those_of_python(host, browser, open_page, reference, starter):
    page = open_page(browser, host)
    for name in ("dog", "person", "horses", "image1", "image2", "image3"):
        path = reference / "photos" / f"{name}.jpg"
        show(page, path)
        expected = starter(path)
        equal = agreement(saved_mask(page), expected.mask)
        print(f"{name}: {100 * equal:.4f} % of the pixels are Python's")
        assert equal >= 0.999
        first = next(iter(name for name in expected.shares if name != "background"))
        assert page.locator("#legend .name").first.inner_text() == first


@pytest.mark.parametrize("kind", ["turned", "tall", "transparent", "grey", "tiny", "large"])
def test_any_kind_of_photo_gives_pythons_mask(
    kind, host, browser, open_page, reference, starter, tmp_path
):
    photo = Image.open(reference / "photos" / "person.jpg")
    path = tmp_path / f"{kind}.jpg"
    if kind == "turned":
        exif = photo.getexif()
        exif[0x0112] = 6
        photo.save(path, quality=95, exif=exif)
    elif kind == "tall":
        photo.crop((180, 0, 400, 424)).save(path, quality=95)
    elif kind == "transparent":
        path = path.with_suffix(".png")
        shade = Image.linear_gradient("L").resize(photo.size)
        photo.putalpha(shade)
        photo.save(path)
    elif kind == "grey":
        path = path.with_suffix(".png")
        photo.convert("L").save(path)
    elif kind == "tiny":
        path = path.with_suffix(".png")
        photo.resize((90, 60)).save(path)
    else:
        photo.resize((2560, 1696)).save(path, quality=90)
    page = open_page(browser, host)
    show(page, path)
    assert agreement(saved_mask(page), starter(path).mask) >= 0.999


def test_a_dropped_model_is_run(host, browser, open_page, reference, tmp_path):
    models, photo = reference / "models", reference / "photos" / "person.jpg"
    page = open_page(browser, host)
    show(page, photo)

    # One that names its classes.
    drop(page, ("own.tflite", (models / "deeplabv3_with_metadata.tflite").read_bytes()))
    wait_for_result(page)
    page.wait_for_selector("#legend .name >> text=person")
    assert page.locator("#model").input_value() == "dropped 0"

    # A public one that does not, but is known.
    model = models / QUANTISED
    drop(page, ("int8.tflite", model.read_bytes()))
    wait_for_result(page)
    assert "513 × 513 pixels, 21 classes" in page.inner_text("#network-note")
    page.wait_for_selector("#legend .name >> text=person")
    equal = agreement(saved_mask(page), Segmenter(model, threads=1, exact=True)(photo).mask)
    print(f"int8: {100 * equal:.4f} % of the pixels are Python's")
    assert equal >= 0.999

    # One that nobody knows, and the label file that names its classes.
    drop(page, ("odd.tflite", model.read_bytes() + b"\0"))
    page.wait_for_selector("#legend .name >> text=class 15")
    assert "does not name its classes" in page.inner_text("#network-note")
    drop(page, ("names.txt", (reference / "golden" / "voc_labelmap.txt").read_bytes()))
    page.wait_for_selector("#legend .name >> text=person")

    # Back to the one that came with the page.
    page.select_option("#model", TITLE)
    page.wait_for_selector("#network-note >> text=257 × 257")


def test_labels_with_colours_of_their_own_get_them(host, browser, open_page, reference):
    page = open_page(browser, host)
    model = reference / "models" / "deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite"
    photo = reference / "photos" / "dog.jpg"
    names = "\n".join(CITYSCAPES.names).encode()
    show(page, photo)
    drop(page, ("streets.txt", names))
    page.wait_for_selector("#problem >> text=There are 19 label names")
    drop(page, ("streets.txt", names), ("streets.tflite", model.read_bytes() + b"\0"))
    page.wait_for_selector("#legend .name >> text=vegetation")
    segmenter = Segmenter(model, threads=1, exact=True)
    assert agreement(saved_mask(page), segmenter(photo).mask) >= 0.999
    _, content = download(page, "save-mask")
    palette = Image.open(io.BytesIO(content)).getpalette()
    assert palette == segmenter.labels.palette.ravel().tolist()


def test_what_cannot_be_used_is_refused_in_words(host, browser, open_page, reference):
    model = (reference / "models" / STARTER).read_bytes()
    classifier = (reference / "models" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes()
    page = open_page(browser, host)
    for name, content, words in [
        ("notes.tflite", b"These are only notes.", "notes.tflite is no model"),
        ("empty.tflite", b"", "it is empty"),
        ("page.tflite", b"<!DOCTYPE html><html>", "a web page"),
        ("cut.tflite", model[:50_000], "damaged or cut off"),
        ("classes.tflite", classifier, "is not a DeepLab: its output"),
        ("archive.zip", b"PK\3\4", "archive.zip is no model"),
        ("broken.jpg", b"\xff\xd8\xff no more", "is not a picture that this browser can read"),
    ]:
        drop(page, (name, content))
        page.wait_for_selector(f"#problem >> text={words}")
        # Everything else stays as it was.
        assert page.locator("#model option").all_inner_texts() == [TITLE]
        page.click("[data-action=dismiss]")
        assert page.is_hidden("#problem")
    show(page, reference / "photos" / "person.jpg")
    assert "person" in page.locator("#legend .name").all_inner_texts()


def test_looks_are_drawn_and_saved(host, browser, open_page, reference, starter):
    path = reference / "photos" / "person.jpg"
    photo = np.asarray(Image.open(path)).astype(int)
    seen = starter(path)
    page = open_page(browser, host)
    show(page, path)
    inside, outside = seen.mask != 0, seen.mask == 0

    def picture(effect: str) -> np.ndarray:
        look(page, effect)
        name, content = download(page, "save-picture")
        assert name == f"person.{effect}.{'png' if effect == 'cutout' else 'jpg'}"
        return np.asarray(Image.open(io.BytesIO(content))).astype(int)

    overlay = picture("overlay")
    assert abs(overlay - photo)[outside].mean() < 3
    assert abs(overlay - photo)[inside].mean() > 20
    page.fill("#opacity", "100")
    plain = picture("overlay")
    # The colours are those of the legend, which are made to be seen; saved masks keep their own.
    palette = np.zeros((256, 3), int)
    for row in page.locator("#legend li").all():
        colour = row.locator(".bar").evaluate("bar => getComputedStyle(bar).backgroundColor")
        palette[int(row.get_attribute("data-id"))] = re.findall(r"\d+", colour)[:3]
    assert (palette[seen.labels.names.index("person")] != 0).any()
    assert abs(plain - palette[seen.mask])[inside].mean() < 6

    cut = picture("cutout")
    expected = np.asarray(seen.cutout()).astype(int)
    assert (abs(cut[:, :, 3] - expected[:, :, 3]) <= 1).mean() >= 0.99
    # Canvases keep colours multiplied by alpha, so that is what can be compared.
    weights = expected[:, :, 3:] / 255
    assert (abs(cut - expected)[:, :, :3] * weights <= 2).all(axis=2).mean() >= 0.99
    assert (cut[cut[:, :, 3] == 0] == 0).all()  # nothing stays under the transparency

    blurred = picture("blur")
    detail = np.abs(np.diff(photo, axis=1)).sum(axis=2)
    blurred_detail = np.abs(np.diff(blurred, axis=1)).sum(axis=2)
    deep = np.asarray(Image.fromarray(outside).resize((80, 53)).resize(outside.shape[::-1]))
    assert blurred_detail[deep[:, 1:] & outside[:, 1:]].mean() < 0.5 * detail[outside[:, 1:]].mean()
    assert abs(blurred - photo)[inside].mean() < 8

    replaced = picture("replace")
    assert abs(replaced[5, 5] - [0x00, 0xB1, 0x40]).max() < 8
    page.set_input_files("#background-file", reference / "photos" / "horses.jpg")
    page.wait_for_timeout(300)
    behind = picture("replace")
    assert abs(behind - replaced)[outside].mean() > 20
    assert abs(behind - photo)[inside].mean() < 12

    # A class that is ticked off belongs to the background.
    page.get_by_role("checkbox", name="person").uncheck()
    without = picture("cutout")
    assert without[:, :, 3].sum() < 0.7 * cut[:, :, 3].sum()


def test_pointer_and_keyboard_name_the_class(
    host, browser, open_page, reference, starter, tmp_path
):
    path = tmp_path / "tall.png"
    Image.open(reference / "photos" / "person.jpg").crop((180, 0, 400, 424)).save(path)
    page = open_page(browser, host)
    show(page, path)
    seen = starter(path)
    box = page.locator("#canvas").bounding_box()
    height, width = seen.mask.shape
    scale = min(box["width"] / width, box["height"] / height)
    left = box["x"] + (box["width"] - scale * width) / 2
    top = box["y"] + (box["height"] - scale * height) / 2
    names = set()
    for y, x in np.random.default_rng(0).integers((0, 0), (height, width), (40, 2)):
        page.mouse.move(left + (x + 0.5) * scale, top + (y + 0.5) * scale)
        name = page.inner_text("#probe")
        assert name == seen.labels.names[seen.mask[y, x]]
        names.add(name)
    assert len(names) > 1
    page.mouse.move(left - 5, top + 50)  # beside the picture
    assert page.is_hidden("#probe")

    page.focus("#canvas")
    page.keyboard.press("ArrowRight")
    y, x = height // 2, int((0.5 + 1 / 24) * width)
    assert page.inner_text("#probe") == seen.labels.names[seen.mask[y, x]]
    page.keyboard.press("Escape")
    assert page.is_hidden("#probe")


def test_a_picture_can_be_pasted(host, browser, open_page, reference):
    page = open_page(browser, host)
    data = base64.b64encode((reference / "photos" / "person.jpg").read_bytes()).decode()
    page.evaluate(
        """(data) => {
          const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], 'image.jpg', { type: 'image/jpeg' }));
          document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer }));
        }""",
        data,
    )
    page.wait_for_selector("#legend .name >> text=person")


def test_processor_and_threads_can_be_chosen(host, browser, open_page, reference):
    page = open_page(browser, host)
    show(page, reference / "photos" / "dog.jpg")
    before = saved_mask(page)
    assert page.locator("#processor option").count() == 3
    assert page.input_value("#processor") == "auto"
    counts = page.locator("#threads option").all_inner_texts()
    assert page.is_enabled("#threads") == (len(counts) > 1)
    for threads in (counts[0], counts[-1]) if len(counts) > 1 else ():
        clear_status(page)
        page.select_option("#threads", threads)
        wait_for_result(page)
        assert agreement(saved_mask(page), before) >= 0.999


def test_networks_of_other_tools_give_pythons_mask(host, browser, open_page, reference, tmp_path):
    page = open_page(browser, host)
    photo = reference / "photos" / "dog.jpg"
    show(page, photo)
    for kind, data in foreign.READ.items():
        path = tmp_path / f"{kind}.tflite"
        path.write_bytes(data)
        drop(page, (path.name, data))
        wait_for_result(page)
        expected = Segmenter(path, threads=1, exact=True, labels=numbered(path))(photo)
        assert agreement(saved_mask(page), expected.mask) >= 0.999, kind
    assert "output 'main' of several" in page.inner_text("#network-note")
    for words, data in foreign.REFUSED.items():
        drop(page, ("odd.tflite", data))
        page.wait_for_selector(f"#problem >> text={words}")


def numbered(path: Path) -> LabelSet | None:
    count = describe(path).card.num_classes
    return None if "one" in path.stem else LabelSet(tuple(f"class {i}" for i in range(count)))


def test_every_control_has_a_name(host, browser, open_page, reference):
    page = open_page(browser, host)
    show(page, reference / "photos" / "dog.jpg")
    tree = page.locator("body").aria_snapshot()
    print(tree)
    controls = re.findall(r"- (button|checkbox|combobox|radio|slider|switch|img)\b(.*)", tree)
    assert len(controls) > 12
    assert [line for line in controls if '"' not in line[1]] == []
    for role in ("banner", "main", "complementary", "status", "toolbar"):
        assert f"- {role}" in tree
    # Everything can be reached by the keyboard.
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.dataset.action ?? document.activeElement.id")
        )
    assert {"canvas", "open", "camera", "save-picture", "save-mask", "opacity", "model"} <= reached
