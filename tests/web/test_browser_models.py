"""Which file runs on which processor, and which network for moving pictures."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from hosting import (
    STARTER,
    at_pixel,
    drop,
    look,
    saved_mask,
    serving,
    show,
    wait_for_result,
    wait_until,
)

from deeplab import Segmenter, zoo
from deeplab.evaluation.calibration import write_temperature
from deeplab.runtimes import describe
from deeplab.serve import browser_page
from deeplab.serve.browser_page import PageModel, describe_models, offer, write_page

pytestmark = [pytest.mark.reference, pytest.mark.integration]

QUANTISED = "deeplabv3_mnv2_dm05_pascal_quant.tflite"


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """What the host was asked for."""
    return []


@pytest.fixture(scope="module")
def host(built_page, reference, tmp_path_factory, asked):
    """Serve a page with an integer network and its sibling, a small one; yield its address."""
    folder = tmp_path_factory.mktemp("models") / "site"
    models = reference / "models"
    model = PageModel(path=models / QUANTISED, title="int8", graphics=models / STARTER)
    write_page(folder, [model])
    with serving(folder, headers=browser_page.HEADERS, asked=asked) as address:
        yield f"{address}/"


def models_of(asked: list[str]) -> list[str]:
    return [path.split("/")[-1].split("?")[0] for path in asked if "/models/" in path]


def test_a_model_of_the_package_brings_the_others_and_their_siblings():
    voc = zoo.locate("voc")
    described = describe_models(offer([PageModel(path=voc, title="mine")]))["models"]
    assert [model["title"] for model in described] == ["mine", "voc-fast"]
    assert [model["live"] for model in described] == [False, True]
    for model in described:
        assert model["bytes"] < model["graphics"]["bytes"]
        assert model["card"]["licence"] == "Apache-2.0"
    foreign = zoo.find(zoo.get("deeplabv3-mobilenetv2-dm05-257"))
    assert len(offer([PageModel(path=foreign, title="other")])) == 1


def test_the_weights_decide_and_the_wish_stays(host, asked, launch, open_page, reference):
    # The graphics processor is imitated on the CPU here, so the page does not choose it by itself.
    browser = launch("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
    page = open_page(browser, host)
    photo = reference / "photos" / "dog.jpg"
    assert page.input_value("#processor") == "auto"
    assert "It runs on the CPU" in page.inner_text("#network-note")
    assert models_of(asked) == [QUANTISED]

    # The sibling is loaded for the graphics processor, and only there.
    page.select_option("#processor", "gpu")
    page.wait_for_selector("#network-note >> text=runs on the graphics", timeout=120_000)
    assert models_of(asked) == [QUANTISED, STARTER]
    show(page, photo)
    expected = Segmenter(reference / "models" / STARTER, threads=1, exact=True)(photo).mask
    assert (saved_mask(page) == expected).mean() >= 0.999

    # Integer weights go to the CPU without a try; the list still says what is wished for.
    drop(page, ("int8.tflite", (reference / "models" / QUANTISED).read_bytes()))
    wait_for_result(page)
    assert "weights are integers" in page.inner_text("#network-note")
    assert page.input_value("#processor") == "gpu"
    # What is no model changes nothing, and the next float network is on the graphics processor.
    drop(page, ("notes.tflite", b"These are only notes."))
    page.wait_for_selector("#problem >> text=notes.tflite is no model")
    drop(page, ("float.tflite", (reference / "models" / STARTER).read_bytes()))
    page.wait_for_selector("#network-note >> text=runs on the graphics", timeout=60_000)
    wait_for_result(page)
    assert (saved_mask(page) == expected).mean() >= 0.999


def test_moving_pictures_take_the_fast_network_unless_one_was_chosen(
    browser, open_page, built_page, reference, tmp_path
):
    write_page(tmp_path / "site", offer([PageModel(path=zoo.locate("voc"), title="voc")]))
    with serving(tmp_path / "site", headers=browser_page.HEADERS) as address:
        page = open_page(browser, f"{address}/")
        assert page.locator("#model option").all_inner_texts() == ["voc", "voc-fast"]
        label = "document.querySelector('#model').selectedOptions[0].text"
        wait_until(page, f"{label} === 'voc'")  # a slow machine begins with voc-fast
        page.set_input_files("#file", reference / "photos" / "pexels_video.mp4")
        page.wait_for_selector("#network-note >> text=577")
        assert page.evaluate(label) == "voc-fast"
        page.wait_for_selector(".screen[data-state=live]")
        # The legend's rows stay where they are while pictures move.
        page.wait_for_selector("#legend li")
        seen: list[str] = []
        for _ in range(12):
            page.wait_for_timeout(150)
            rows = page.locator("#legend .name").all_inner_texts()
            assert rows[: len(seen)] == seen
            seen = rows
        page.set_input_files("#file", reference / "photos" / "dog.jpg")
        page.wait_for_selector("#network-note >> text=609")
        assert page.evaluate(label) == "voc"

        page.select_option("#model", "voc")
        page.set_input_files("#file", reference / "photos" / "pexels_video.mp4")
        page.wait_for_selector(".screen[data-state=live]")
        assert page.evaluate(label) == "voc"
        facts = page.locator("#model-facts").text_content()
        assert re.search(r"mIoU 7\d\.\d %", facts)
        assert "Apache-2.0" in facts


def test_a_sibling_is_the_network_that_ships(reference):
    photo = reference / "photos" / "dog.jpg"
    for name in ("voc", "voc-fast"):
        sibling = zoo.find_float16(zoo.get(name))
        one, other = (Segmenter(path, threads=1) for path in (zoo.locate(name), sibling))
        assert one.labels == other.labels
        assert (one.spec.height, one.spec.mean) == (other.spec.height, other.spec.mean)
        same = np.mean(one(photo).mask == other(photo).mask)
        print(f"{name}: {100 * same:.2f} % of the pixels are those of the int8 file")
        assert same > 0.97


def test_on_a_slow_line_the_small_network_comes_first_and_the_better_after_it(
    browser, built_page, reference, tmp_path
):
    write_page(tmp_path / "site", offer([PageModel(path=zoo.locate("voc"), title="voc")]))
    asked: list[str] = []
    with serving(tmp_path / "site", headers=browser_page.HEADERS, asked=asked) as address:
        context = browser.new_context()
        page = context.new_page()
        # The runtime takes longer than on a fast line; what is said meanwhile is kept.
        page.add_init_script(
            """const { postMessage } = Worker.prototype;
            Worker.prototype.postMessage = function (data, ...rest) {
              const again = performance.getEntriesByType('navigation')[0].type === 'reload';
              const better = again && data?.address?.includes('/voc.tflite');
              const wait = data?.kind === 'module' ? 2000 : better ? 5000 : 0;
              setTimeout(() => postMessage.call(this, data, ...rest), wait);
            };
            globalThis.said = [];
            addEventListener('DOMContentLoaded', () => {
              const note = document.querySelector('#network-note');
              const model = document.querySelector('#model');
              new MutationObserver(() => {
                said.push(`${model.selectedOptions[0]?.text}: ${note.textContent}`);
              }).observe(note, { childList: true });
            });"""
        )
        page.goto(f"{address}/")
        page.set_input_files("#file", reference / "photos" / "dog.jpg")
        wait_until(page, "said.at(-1)?.includes('609')", seconds=120)
        small, better = page.evaluate("[said.at(0), said.at(-1)]")
        assert small.startswith("voc-fast: 577 × 577")
        assert any("voc, which is better, is on its way" in one for one in page.evaluate("said"))
        assert better.startswith("voc: 609 × 609")
        assert models_of(asked) == ["voc-fast.tflite", "voc.tflite"]
        page.wait_for_selector("#status >> text=/^Found/")
        expected = Segmenter("voc", threads=1, exact=True)(reference / "photos" / "dog.jpg").mask
        assert (saved_mask(page) == expected).mean() > 0.99

        # What somebody has done to the picture is not undone: the network stays.
        page.reload()
        page.set_input_files("#file", reference / "photos" / "dog.jpg")
        page.wait_for_selector("#legend input")
        assert page.evaluate("document.querySelector('#model').value") == "shipped 1"
        page.locator("#legend input").first.uncheck()
        page.wait_for_timeout(8000)
        assert page.evaluate("document.querySelector('#model').value") == "shipped 1"
        assert not page.locator("#legend input").first.is_checked()
        context.close()


def test_a_models_temperature_is_honoured(browser, open_page, built_page, reference, tmp_path):
    photo = reference / "photos" / "dog.jpg"
    cooled = tmp_path / "cooled.tflite"
    shutil.copy(zoo.locate("voc-fast"), cooled)
    assert write_temperature(cooled, describe(cooled).card, 3.0) is not None
    expected = Segmenter(cooled, threads=1, exact=True)(photo).confidence
    before = Segmenter("voc-fast", threads=1, exact=True)(photo).confidence
    assert np.abs(expected - before).mean() > 0.05
    write_page(tmp_path / "site", [PageModel(path=cooled, title="cooled")])
    with serving(tmp_path / "site", headers=browser_page.HEADERS) as address:
        page = open_page(browser, f"{address}/")
        show(page, photo)
        look(page, "confidence")
        # At every twelfth of the picture, but for what is certain either way.
        height, width = expected.shape
        spots = [(width * i // 12, height * j // 12) for i in range(1, 12) for j in range(1, 12)]
        spots = [(x, y) for x, y in spots if abs(expected[y, x] - before[y, x]) > 0.03]
        assert len(spots) > 10
        for x, y in spots[:20]:
            page.mouse.move(*at_pixel(page, x, y))
            told = int(re.search(r"(\d+) %", page.inner_text("#probe"))[1])
            assert abs(told - 100 * expected[y, x]) < 1.6, (x, y)
