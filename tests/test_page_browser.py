"""The two pages in a real browser: what a person does with them, what a screen reader gets, and that nothing leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import Labeller, picture, zipped
from serving import Serving, serving
from test_answer import write_reader
from test_explain_texts import explained, write_text_models
from test_serve_tasks import Pictures
from test_span import write_span_reader

import recur
from recur.explain.evidence import write_page
from recur.explain.explanation import explain
from recur.explain.film import FilmExplanation
from recur.explain.film import told as film_told
from recur.explain.span import explain_span
from recur.predict.caption import Captioner
from recur.predict.detect import Detected, Detections

sync_api = pytest.importorskip("playwright.sync_api")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
pytest.importorskip("fastapi")

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
PATIENCE = 180_000  # milliseconds: a busy machine is no failure
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def captioner(tiny_bundle: Path) -> Captioner:
    loaded: Captioner = recur.load(tiny_bundle, threads=1)
    return loaded


@pytest.fixture(scope="module")
def text_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_text_models(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def service(captioner: Captioner) -> Iterator[Serving]:
    with serving({"caption": captioner}) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page; at the end no script has failed, and nothing was asked of another place than the page's own."""
    contexts, wrong = [], []

    def open_page(address: str, viewport: dict[str, int], **options: Any) -> Any:
        context = browser.new_context(viewport=viewport, locale="en", reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.set_default_navigation_timeout(PATIENCE)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
        own = address.split("/", 3)[2]
        page.on(
            "request", lambda each: wrong.append(each.url) if own not in each.url[:40] and "://" in each.url else None
        )
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def violations(page: Any) -> list[str]:
    found = axe_playwright.Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def light(page: Any) -> str:
    """What is painted over the picture, as a string that is the same only for the same light."""
    return str(page.evaluate("document.querySelector('canvas.light').toDataURL()"))


def sentence(page: Any, number: int = 0) -> str:
    return " ".join(page.locator(".caption").nth(number).locator(".word:not(.ends)").all_inner_texts())


def upload(page: Any, photo: Path) -> None:
    page.locator("#file").set_input_files(photo)
    page.locator(".tabs").wait_for()  # the last to come


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_a_picture_is_described_and_its_words_can_be_looked_into(
    service: Serving, captioner: Captioner, photos: list[Path], opened: Any, viewport: dict[str, int]
) -> None:
    page = opened(f"http://127.0.0.1:{service.port}/", viewport, color_scheme="dark" if viewport is PHONE else "light")
    # axe takes its time: one look at each thing, and the dark phone has the most to show.
    assert viewport is PHONE or violations(page) == []
    upload(page, photos[0])
    for number, lang in enumerate(("en", "zh")):
        (caption,) = captioner([photos[0]], lang=lang, n_best=5)
        assert sentence(page, number) == " ".join(word.word for word in caption.words)
    # With the keyboard: the light moves, and the panel tells of the word.
    words = page.locator(".caption").first.locator(".word")
    words.nth(0).focus()
    page.keyboard.press("ArrowRight")
    before = light(page)
    assert words.nth(1).get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowLeft")
    assert light(page) != before
    assert page.locator(".panel b").inner_text() == words.nth(0).inner_text()
    page.keyboard.press("Escape")
    assert page.locator(".panel").inner_text() == ""
    # A runner-up continues the sentence, and there is a way back.
    words.nth(0).click()
    own = sentence(page)
    other = page.locator("button.runner span").first.inner_text()
    page.locator("button.runner").first.click()
    page.locator(".back").wait_for()
    assert sentence(page).split()[0] == other
    assert sentence(page) != own
    page.locator(".back").click()
    assert sentence(page) == own
    # The inside.
    for tab, inside in (
        ("The search", "svg.tree"),
        ("Step by step", ".steps canvas.block"),
        ("Units and gates", "canvas.units"),
    ):
        page.get_by_role("tab", name=tab).click()
        assert page.locator(inside).first.is_visible()
        assert viewport is DESK or violations(page) == []
    page.get_by_label("Unit", exact=True).fill("3")
    assert "Unit 3" in page.locator(".deep .told").inner_text()
    page.get_by_role("tab", name="The search").click()
    page.locator("svg.tree").focus()
    told = page.locator(".deep .told").inner_text()
    assert "the caption: score" in told
    page.keyboard.press("ArrowLeft")
    assert "kept" in page.locator(".deep .told").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_another_language_and_a_file_that_is_no_picture(
    service: Serving, photos: list[Path], opened: Any, tmp_path: Path
) -> None:
    page = opened(f"http://127.0.0.1:{service.port}/", DESK)
    upload(page, photos[1])
    own = sentence(page)
    page.locator("#language").click()
    assert page.locator("#ask").inner_text() == "给它看一张图片"
    assert page.evaluate("document.documentElement.lang") == "zh"
    assert "置信度" in page.locator(".facts").first.inner_text()
    assert sentence(page) == own
    (tmp_path / "notes.txt").write_text("These are words.")
    page.locator("#language").click()
    page.locator("#file").set_input_files(tmp_path / "notes.txt")
    page.locator("#problem").wait_for()
    assert "the file is text" in page.locator("#problem").inner_text()
    assert violations(page) == []
    page.locator("#file").set_input_files(photos[2])
    page.locator("#problem").wait_for(state="hidden")


def test_objects_come_into_the_page_and_are_drawn_where_they_are(
    captioner: Captioner, photos: list[Path], opened: Any
) -> None:
    dog = Detections(None, (Detected("dog", 0.9, (20, 10, 60, 50)),), None, "eye", 100, 80)
    with serving({"caption": captioner, "detect": Pictures(lambda problem, options: dog)}) as running:
        page = opened(f"http://127.0.0.1:{running.port}/", DESK)
        upload(page, photos[0])
        chip = page.get_by_role("button", name="dog 90 %")
        chip.click()
        frame, box = page.locator(".frame").bounding_box(), page.locator(".object").bounding_box()
        assert (box["x"] - frame["x"]) / frame["width"] == pytest.approx(0.2, abs=0.02)
        assert box["height"] / frame["height"] == pytest.approx(0.5, abs=0.02)
        chip.click()
        assert not page.locator(".object").is_visible()


def test_pasting_and_dropping(service: Serving, photos: list[Path], opened: Any) -> None:
    page = opened(f"http://127.0.0.1:{service.port}/", DESK)
    send = """async ([kind, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
      const event = kind === "paste" ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
        : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    }"""
    for kind, photo in (("paste", photos[0]), ("drop", photos[3])):
        page.evaluate(send, [kind, list(photo.read_bytes())])
        size = "100 × 80" if kind == "paste" else "130 × 80"
        page.get_by_text(size).wait_for()


def test_a_token_is_asked_for(captioner: Captioner, photos: list[Path], opened: Any) -> None:
    with serving({"caption": captioner}, token="secret") as running:
        page = opened(f"http://127.0.0.1:{running.port}/", PHONE)
        page.get_by_label("Token").fill("secret")
        page.get_by_role("button", name="Use it").click()
        upload(page, photos[0])
        assert sentence(page)


def test_a_question_about_a_story_is_answered_in_its_tab(opened: Any, tmp_path: Path) -> None:
    with serving({"answer": recur.load(write_reader(tmp_path / "reader"))}) as running:
        page = opened(f"http://127.0.0.1:{running.port}/", PHONE, color_scheme="dark")
        page.get_by_role("button", name="Stories").click()
        page.get_by_label("Story").fill("Mary went to the park. John went to the office.")
        page.get_by_label("Question").fill("Where is Mary?")
        page.get_by_role("button", name="Answer", exact=True).click()
        page.locator(".evidence").wait_for()
        assert page.locator(".evidence tbody tr").count() == 2
        readings = page.locator(".evidence thead th").count() - 2
        assert readings > 0
        assert page.locator(".evidence tbody svg").count() == 2 * (1 + readings)
        assert violations(page) == []
        page.locator("#language").click()
        assert page.get_by_role("button", name="回答", exact=True).is_visible()


def test_the_offline_page_of_stories(opened: Any, tmp_path: Path) -> None:
    reader = recur.load(write_reader(tmp_path / "reader"))
    told = reader("Mary went to the park. John went to the office.", "Where is Mary?")
    write_page(tmp_path / "page.html", [told])
    for viewport in (PHONE, DESK):
        page = opened(
            (tmp_path / "page.html").as_uri(), viewport, color_scheme="dark" if viewport is PHONE else "light"
        )
        assert page.locator("tbody tr").count() == 2
        assert page.locator("tbody svg").count() == 2 * (1 + len(told.evidence[0].gates))
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_an_answer_is_marked_in_its_passage(opened: Any, tmp_path: Path, viewport: dict[str, int]) -> None:
    reader = recur.load(write_span_reader(tmp_path / "reader"))
    passage, question = (
        "😀 Mary went to the park, and John to the office by the river. 小明在家。 Then it rained.",
        "Where is Mary?",
    )
    told = reader(passage, question)
    with serving({"span": reader}) as running:
        page = opened(f"http://127.0.0.1:{running.port}/", viewport, color_scheme="dark")
        page.get_by_role("button", name="Answers").click()
        page.get_by_label("Passage").fill(passage)
        page.get_by_label("Question").fill(question)
        page.keyboard.press("Enter")
        page.locator(".passage").wait_for()
        assert page.locator(".spancard .verdict").inner_text() == (told.answer or "No answer in this passage")
        assert f"{100 * told.confidence:.0f} %" in page.locator(".spancard > .share").inner_text()
        # A runner-up is marked where it stands; what it is coloured by can be chosen.
        other = next(each for each in told.others if each.answer is not None)
        page.locator("button.runner[aria-pressed=false]").first.click()
        assert page.locator(".passage mark").inner_text() == other.answer
        page.get_by_label("Colour by").select_option("attention to “Mary”")
        assert page.locator(".passage mark").inner_text() == other.answer
        assert page.locator(".passage").inner_text().strip("… ").startswith("😀 Mary went")
        assert violations(page) == []
        page.locator("#language").click()
        assert page.get_by_text("网络权衡过的答案").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_texts_are_judged_translated_and_written_on(
    text_models: dict[str, Path], opened: Any, viewport: dict[str, int]
) -> None:
    tasks = {"sentiment": "sentiment", "translate": "translate", "language": "generate"}
    models = {task: recur.load(text_models[name]) for task, name in tasks.items()}
    with serving(models) as running:
        page = opened(
            f"http://127.0.0.1:{running.port}/", viewport, color_scheme="dark" if viewport is PHONE else "light"
        )
        page.get_by_role("button", name="Sentiment").click()
        page.get_by_label("How does it sound?").fill("a good film, not a bad one")
        page.get_by_role("button", name="Judge it").click()
        page.locator(".running .curve").wait_for()
        (judged,) = models["sentiment"](["a good film, not a bad one"], words=True)
        assert page.locator(".weighed span").all_inner_texts() == [word for word, _ in judged.words]
        assert violations(page) == []
        page.get_by_role("button", name="Translation").click()
        page.get_by_label("Say it in another language").fill("A dog runs.")
        page.get_by_role("button", name="Translate").click()
        page.locator(".matrix").wait_for()
        (said,) = models["translate"](["A dog runs."], source="en", target="de")
        assert page.locator(".origins span").all_inner_texts() == list(said.parts[0].source)
        assert page.locator(".matrix tbody tr").count() == len(said.parts[0].words)
        assert viewport is DESK or violations(page) == []
        page.get_by_role("button", name="Text").click()
        area = page.get_by_label("Type, and watch it read")
        area.fill("abc")
        page.get_by_role("button", name="Write on").click()
        page.locator(".chars span").nth(130).wait_for()
        assert area.input_value() == "abc" + models["language"]("abc", length=128, temperature=0.7, seed=0)
        assert viewport is DESK or violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_a_video_has_a_timeline(opened: Any, tmp_path: Path, viewport: dict[str, int]) -> None:
    scheme = "dark" if viewport is DESK else "light"
    (tmp_path / "drive.zip").write_bytes(zipped({f"f{n}.png": picture(5 * n) for n in range(52)}))
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    with serving({"frames": Labeller()}) as running:
        page = opened(f"http://127.0.0.1:{running.port}/", viewport, color_scheme=scheme)
        page.get_by_role("button", name="Video").click()
        page.locator(".drop input").set_input_files(tmp_path / "broken.zip")
        page.get_by_text("archive: broken").wait_for()
        page.locator(".drop input").set_input_files(tmp_path / "drive.zip")
        page.locator(".timeline").wait_for()
        assert page.locator(".problem:visible").count() == 0
        slider, verdict = page.get_by_label("Moment"), page.locator(".moment .verdict")
        assert verdict.inner_text() == "a"
        # A click on the timeline goes there; where the label is not sure the page says so.
        box = page.locator(".timeline").bounding_box()
        page.locator(".timeline").click(position={"x": box["width"] - 3, "y": 20})
        assert (slider.input_value(), verdict.inner_text()) == ("51", "b")
        assert "100 %" in page.locator(".odds").inner_text()
        page.locator(".changes .link").click()
        assert slider.input_value() == "26"
        assert verdict.inner_text() == "not sure: b, or a"
        slider.press("ArrowLeft")
        assert (slider.input_value(), verdict.inner_text()) == ("25", "not sure: a, or b")
        assert "frame 25" in page.locator(".when").inner_text()
        assert page.locator(".still img").get_attribute("src").startswith("data:image/jpeg")
        assert violations(page) == []
        page.locator("#language").click()
        assert page.get_by_text("是什么改变了判断").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_offline_page_needs_nothing(
    captioner: Captioner, photos: list[Path], opened: Any, tmp_path: Path, viewport: dict[str, int]
) -> None:
    told = explain(captioner, photos[0])
    page = opened(told.write(tmp_path / "page.html").as_uri(), viewport)
    page.locator(".tabs").wait_for()
    assert viewport is PHONE or violations(page) == []
    data = told.data["sentences"][0]
    words = page.locator(".caption").first.locator(".word")
    assert sentence(page) == " ".join(word["word"] for word in data["words"])
    words.nth(1).click()
    other = page.locator("button.runner").first
    name = other.locator("span").first.inner_text()
    other.click()
    expected = next(each for each in data["continuations"] if each["place"] == 1 and each["word"] == name)
    assert sentence(page) == " ".join([data["words"][0]["word"], name, *(word["word"] for word in expected["words"])])
    page.locator(".back").click()
    assert sentence(page) == " ".join(word["word"] for word in data["words"])
    page.get_by_role("button", name="中文").click()
    assert page.get_by_role("tab", name="搜索过程").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_without_script_the_sentences_are_there(
    captioner: Captioner, photos: list[Path], opened: Any, tmp_path: Path
) -> None:
    told = explain(captioner, photos[0], detail=False)
    page = opened(told.write(tmp_path / "page.html").as_uri(), PHONE, java_script_enabled=False)
    assert page.locator("p.sentence").first.inner_text() == told.data["sentences"][0]["caption"]
    assert page.locator("tbody th").first.inner_text() == told.data["sentences"][0]["words"][0]["word"]


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_offline_pages_of_videos_and_passages(opened: Any, tmp_path: Path, viewport: dict[str, int]) -> None:
    passage = "Mary went to the park, and John to the office by the river."
    told = explain_span(recur.load(write_span_reader(tmp_path / "reader")), passage, "Where is John?")
    page = opened(told.write(tmp_path / "span.html").as_uri(), viewport)
    assert page.locator(".passage").inner_text() == passage
    assert page.locator(".weighed button").all_inner_texts() == ["Where", "is", "John", "?"]
    assert viewport is PHONE or violations(page) == []
    bright = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    film = FilmExplanation(film_told(Labeller(), bright, "a & b.mp4", range(40), [n / 10 for n in range(40)]))  # type: ignore[arg-type]
    page = opened(film.write(tmp_path / "film.html").as_uri(), viewport, color_scheme="dark")
    page.locator(".changes .link").click()
    assert page.locator(".when").inner_text() == "2.00 s · frame 20"
    assert viewport is PHONE or violations(page) == []
    page.get_by_role("button", name="中文").click()
    assert page.get_by_text("是什么改变了判断").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_pages_of_texts_show_what_is_told(
    text_models: dict[str, Path], opened: Any, tmp_path: Path, viewport: dict[str, int]
) -> None:
    told = explained(text_models)
    page = opened(told["generate"].write(tmp_path / "generate.html").as_uri(), viewport)
    assert page.locator(".chars span").count() == len(told["generate"].data["text"])
    data = told["generate"].data
    named = next(rule["units"][0] for rule in data["follows"] if rule["units"])
    page.locator(".follows .chip").first.click()
    assert page.locator(".controls b").inner_text() == f"unit {named['unit']}"
    assert page.locator(".gates circle").count() == sum(len(kind["units"]) for kind in data["saturated"])
    assert viewport is PHONE or violations(page) == []
    page.get_by_role("button", name="中文").click()
    assert page.locator(".controls b").inner_text() == "意外程度"
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page = opened(told["sentiment"].write(tmp_path / "sentiment.html").as_uri(), viewport)
    assert page.locator(".weighed span").all_inner_texts() == [word for word, _ in told["sentiment"].data["words"]]
    assert page.locator(".curve").is_visible()
    assert viewport is PHONE or violations(page) == []
    page = opened(told["translate"].write(tmp_path / "translate.html").as_uri(), viewport)
    cells = sum(len(part["source"]) * len(part["words"]) for part in told["translate"].data["parts"])
    assert page.locator(".matrix tbody td").count() == cells
    page.locator(".word").first.focus()
    assert page.locator(".origins .lit").inner_text() == told["translate"].data["alignment"][0][1]
    assert viewport is PHONE or violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
