"""The web page in a real browser, on a real server: images in, answers and refusals out."""

from __future__ import annotations

import csv
import io
import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mapped import GRADES
from PIL import Image
from web_page import HEATMAP, POINTS, Watched, named, needs_browser

from dermalyze.artifact.cam_grade import UNGRADED
from dermalyze.config.classes import HAM10000_CLASSES
from dermalyze.core.result import DISCLAIMER

pytestmark = needs_browser
HOSTILE = "<svg onload=alert(1)>"
CHEST = Path(__file__).resolve().parents[3] / "shared" / "data" / "chest_xray" / "00027426_000.png"
Opener = Callable[..., Watched]


PLAINLY: dict[str, Any] = {"decision": "answer", "verdict": "accept", "reasons": [], "abstain": False}
"""An answer that the model gives without any doubt."""


def picture(name: str, kind: str = "JPEG", **options: Any) -> dict[str, Any]:
    """A small upload: wider than high as it is stored."""
    buffer = io.BytesIO()
    Image.new("RGB", (80, 60), (190, 120, 110)).save(buffer, kind, **options)
    return {"name": name, "mimeType": f"image/{kind.lower()}", "buffer": buffer.getvalue()}


def posted(address: str, path: Path) -> dict[str, Any]:
    """The server's own answer, without the page."""
    border = "border"
    head = f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    data = head.encode() + path.read_bytes() + f"\r\n--{border}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={border}"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}v1/predict", data, headers)) as response:
        return dict(json.load(response))


def test_answer_says_what_the_server_says(open_page: Opener, address: str, lesions: list[Path]) -> None:
    w, result = open_page(), posted(address, lesions[0])["results"][0]
    outcome = w.ask(lesions[0])
    expected = "refer" if result["verdict"] == "refer" else "set" if result["decision"] == "set" else None
    assert outcome == (expected or {"accept": "answer", "caution": "caution"}[result["verdict"]])
    names = [row.get_attribute("data-class") for row in w.page.locator(".bar").all()]
    ranked = result["probabilities"] or {}
    assert names == sorted(ranked, key=lambda name: -ranked[name])
    assert all(reason in w.page.inner_text(".verdict") for reason in result["reasons"])
    assert len(w.page.locator(".check").all()) == len(result["quality"]["checks"]) + 2


def test_plain_words_come_first(open_page: Opener, lesions: list[Path]) -> None:
    w = open_page()
    w.changed(**PLAINLY)
    assert w.ask(lesions[0]) == "answer"
    name = w.page.locator(".bar-name").first.inner_text()
    assert w.page.locator("#answer-heading").inner_text() == f"Most likely: {name}"
    w.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    notice = w.page.locator("#disclaimer")
    assert notice.inner_text() == DISCLAIMER
    assert notice.bounding_box()["y"] == 0  # in view wherever one is


def test_no_file_name_leaves_the_browser(open_page: Opener) -> None:
    w = open_page()
    w.ask(picture("Jane Doe 1970-01-01.jpg"))
    assert "Jane Doe 1970-01-01.jpg" in w.page.inner_text(".provenance")
    assert w.sent == [{"file": "picture image/jpeg", "model": "stand-in", "explain": "true"}]


@pytest.mark.parametrize("which", ["noise", "chest film"])
def test_refusal_shows_no_class(open_page: Opener, noise: Path, which: str) -> None:
    if which == "chest film" and not CHEST.exists():
        pytest.skip("no chest film in ../shared/data/chest_xray")
    w = open_page()
    assert w.ask(noise if which == "noise" else CHEST) == "refer"
    words = w.page.inner_text(".verdict")
    assert "No answer" in words
    shown = w.page.inner_text("#answer").lower()
    assert not any(name.lower() in shown for name in HAM10000_CLASSES.values())
    assert w.page.locator(".bar, .point, .map").count() == 0
    assert not re.search(r"\d %", words.replace("95 % of", ""))
    tag = w.page.locator(".verdict .tag")
    assert tag.evaluate("node => getComputedStyle(node).backgroundColor") == "rgb(176, 0, 32)"


def test_an_image_at_a_threshold_is_to_be_looked_at(open_page: Opener, lesions: list[Path]) -> None:
    """Whatever its class and however sure the model is of it."""
    w = open_page()
    sure = {**PLAINLY, "verdict": "caution", "predicted_class": "nv", "predicted_class_description": "Melanocytic nevi"}
    w.changed(**{**sure, "reasons": ["have it looked at: Melanoma"]}, confidence=0.9, flagged=["mel"], operating_points=POINTS)
    assert w.ask(lesions[0]) == "examine"
    assert w.page.inner_text("#answer-heading") == "Have it looked at: Melanoma 8 %"
    tag = w.page.locator(".verdict .tag")
    assert tag.evaluate("node => getComputedStyle(node).backgroundColor") == "rgb(138, 26, 107)"
    rows = w.page.locator(".point")
    assert rows.evaluate_all("nodes => nodes.map(node => node.dataset.positive)") == ["false", "true"]
    below, above = rows.all_inner_texts()
    assert "Malignant: 10.0 %. Below the threshold of 15.0 %" in below
    assert "This does not rule it out." in below
    assert "were not measured" in below
    assert "At or above the threshold of 6.4 %, chosen for a sensitivity of 95 %" in above
    assert "sensitivity 93 % (89 % – 97 %), specificity 61 % (58 % – 64 %)" in above
    facts = w.page.inner_text(".verdict")
    assert facts.index("What to do") < facts.index("Thresholds") < facts.index("Melanocytic nevi")
    assert "have it looked at: Melanoma" not in facts, "a threshold is told once"
    assert not re.search(r"harmless|benign|nothing to worry|not malignant", facts, re.I)


def test_a_table_marks_what_is_to_be_looked_at(open_page: Opener, lesions: list[Path], tmp_path: Path) -> None:
    w = open_page()
    w.changed(**{**PLAINLY, "verdict": "caution", "reasons": ["have it", "dark"]}, flagged=["mel"], operating_points=POINTS)
    w.batch(*lesions[:2])
    assert [row.get_attribute("data-state") for row in w.page.locator("tbody tr").all()] == ["examine"] * 2
    assert w.page.locator("td.why").all_inner_texts() == ["Melanoma 8 %; dark"] * 2
    assert "2 to be looked at" in w.page.inner_text("#batch")
    with w.page.expect_download() as download:
        w.page.get_by_role("button", name="Download as CSV").click()
    download.value.save_as(tmp_path / "answers.csv")
    row = next(csv.DictReader(io.StringIO((tmp_path / "answers.csv").read_text(encoding="utf-8"))))
    assert (row["flagged"], row["malignant_probability"], row["mel_probability"]) == ("mel", "0.1", "0.084")


def test_on_a_phone_the_answers_of_a_table_are_cards(open_page: Opener, lesions: list[Path]) -> None:
    w = open_page(viewport={"width": 360, "height": 740})
    w.batch(*lesions[:2])
    assert w.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for cell in w.page.locator("td.classes, td .pill").all():
        box = cell.bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= 360, "nothing is off-screen"
    labels = w.page.locator("tbody tr").first.locator("td[data-label]")
    assert labels.evaluate_all("nodes => nodes.map(node => node.dataset.label)")[:4] == ["No.", "File", "Outcome", "Class"]


def test_the_start_tells_which_model_answers_and_how_good_it_is(open_page: Opener) -> None:
    w = open_page()
    assert "was not measured" in w.page.inner_text("#start")
    words = {key: value for key, value in POINTS[1].items() if key not in ("probability", "positive")}
    figures = [{"name": "accuracy", "value": 0.75, "low": 0.7, "high": 0.8, "note": ""}]
    headline = {"set": "test", "recipe": "plain", "n_images": 1502, "n_groups": 1120, "level": 0.95, "figures": figures}
    w.described(headline=headline, operating_points=[])
    assert "accuracy 0.750 (0.700 – 0.800)" in w.page.inner_text("#start")
    w.described(headline=headline, operating_points=[words])
    said = w.page.inner_text("#start")
    assert "stand-in takes images of kind Dermoscopy and tells apart: " in said
    assert "On 1,502 test images of 1,120 lesions or patients" in said
    assert "Melanoma: sensitivity 93 % (89 % – 97 %), specificity 61 % (58 % – 64 %), at the threshold of 6.4 %" in said
    for number in range(3):
        w.page.locator(".example img").nth(number).evaluate("node => node.decode()")  # which fails on a broken image
    w.page.locator(".example").nth(1).click()
    w.page.wait_for_selector(".verdict")
    assert "Synthetic example 2" in w.page.inner_text(".provenance")
    assert w.page.locator("#start").is_hidden()
    w.page.get_by_role("button", name="Another image").click()
    assert w.page.locator("#start").is_visible()


def test_a_map_that_failed_its_test_is_drawn_only_if_asked_for_and_never_printed(
    open_page: Opener, lesions: list[Path]
) -> None:
    w = open_page()
    w.described(cam_grade=GRADES["no better"])
    w.changed(**PLAINLY, predicted_class="nv", heatmap={**HEATMAP, "grade": GRADES["no better"]})
    ticked = w.page.get_by_label("Draw a heat map (do not rely on it")
    assert not ticked.is_checked()
    with w.page.expect_response("**/v1/predict"):
        w.give(lesions[0])
    assert "explain" not in w.sent[-1]
    ticked.check()
    w.ask(lesions[0])
    assert w.sent[-1]["explain"] == "true"
    assert w.page.locator(".map").is_visible()
    w.page.emulate_media(media="print")
    assert w.page.locator(".map").is_hidden()
    assert w.page.locator(".grade").is_hidden()
    assert w.page.locator(".original img").is_visible()


def test_set_is_marked(open_page: Opener, lesions: list[Path]) -> None:
    w = open_page()
    w.changed(decision="set", verdict="caution", prediction_set=["mel", "nv"], abstain=False)
    assert w.ask(lesions[0]) == "set"
    assert w.page.locator("#answer-heading").inner_text() == "Undecided between 2 classes"
    inside = [row.get_attribute("data-class") for row in w.page.locator(".bar.inside").all()]
    assert sorted(filter(None, inside)) == ["mel", "nv"]


def test_heat_map_moves_and_changes_class(open_page: Opener, lesions: list[Path]) -> None:
    w = open_page()
    w.changed(**PLAINLY)
    w.ask(lesions[0])
    assert w.sent[-1]["explain"] == "true"
    opacity = "node => getComputedStyle(node).opacity"
    assert w.page.locator(".map").evaluate(opacity) == "0.5"
    w.page.locator("#strength").fill("85")
    assert w.page.locator(".map").evaluate(opacity) == "0.85"
    assert w.page.locator(".slider output").inner_text() == "85 %"
    boxes = [w.page.locator(name).bounding_box() for name in (".mapped > img:first-child", ".map")]
    assert boxes[0] == boxes[1]
    assert w.page.locator(".original").is_hidden()
    w.page.get_by_label("Side by side").check()
    left, right = (w.page.locator(name).bounding_box() for name in (".original", ".mapped"))
    assert left["x"] + left["width"] < right["x"]
    assert left["y"] == right["y"]
    with w.page.expect_response("**/v1/predict"):
        w.page.get_by_label("Heat map for").select_option("bcc")
    assert w.sent[-1]["class"] == "bcc"


@pytest.mark.parametrize(
    ("grade", "state", "words"),
    [
        (
            GRADES["better"],
            "better",
            "better than a blob in the center and a random map do. This was measured on 40",
        ),
        (GRADES["no better"], "no-better", "no better than a blob in the center does. This was measured on 40 test lesions"),
        (GRADES["not graded"], "not-graded", "There were too few test lesions (5)"),
        (UNGRADED.model_dump(), "not-graded", "has not been measured"),
        (None, "not-graded", "has not been measured"),
        ({"verdict": HOSTILE, "words": HOSTILE}, "not-graded", "has not been measured"),
        ({"verdict": "constructor"}, "not-graded", "has not been measured"),
    ],
    ids=["better", "no better", "few", "never evaluated", "no grade", "hostile", "odd"],
)
def test_a_map_says_how_far_it_is_to_be_trusted(
    open_page: Opener, lesions: list[Path], grade: dict[str, Any] | None, state: str, words: str
) -> None:
    w = open_page()
    w.changed(**PLAINLY, predicted_class="nv", heatmap={**HEATMAP, "grade": grade})
    w.ask(lesions[0])
    shown = w.page.locator(".grade")
    assert shown.get_attribute("data-grade") == state
    assert words in shown.inner_text()
    assert ("Do not rely on this map" in shown.inner_text()) == (state == "no-better")
    assert ("Faithfulness" in shown.inner_text()) == (state != "not-graded")
    assert "this map is for another" not in shown.inner_text()
    w.changed(**PLAINLY, predicted_class="mel", heatmap={**HEATMAP, "grade": grade})
    w.ask(lesions[0])
    assert ("this map is for another" in shown.inner_text()) == (state != "not-graded")
    w.page.get_by_label("Image alone").check()
    assert shown.is_hidden()


@pytest.mark.parametrize(
    ("modality", "words"),
    [
        ({"title": "Fundus", "words": {"subject": "finding", "subjects": "findings"}}, "on 40 test findings"),
        ({"title": "Fundus", "words": {"subjects": HOSTILE}}, f"on 40 test {HOSTILE}"),
        (None, "on 40 test cases"),
    ],
    ids=["its own", "hostile", "none"],
)
def test_words_are_those_of_the_models_modality(
    open_page: Opener, lesions: list[Path], modality: dict[str, Any] | None, words: str
) -> None:
    w = open_page()
    w.described(modality=modality)
    w.changed(**PLAINLY, predicted_class="nv", heatmap={**HEATMAP, "grade": GRADES["no better"]})
    w.ask(lesions[0])
    assert words in w.page.locator(".grade").inner_text()
    w.page.get_by_role("link", name="The model").click()
    w.page.wait_for_selector("#model:not(:empty)")
    assert ("Fundus" in w.page.inner_text("#model")) == (modality is not None)


def test_a_model_that_was_never_judged_says_so(open_page: Opener, lesions: list[Path]) -> None:
    w = open_page()
    w.changed(**PLAINLY)
    w.ask(lesions[0])
    assert w.page.locator(".grade").get_attribute("data-grade") == "not-graded"


def test_batch_sorts_and_downloads(open_page: Opener, lesions: list[Path], noise: Path, tmp_path: Path) -> None:
    w = open_page()
    bad = {"name": "=1+1, bad.jpg", "mimeType": "image/jpeg", "buffer": b"no picture at all"}
    good = [named(f"{name}.jpg", lesion) for name, lesion in zip("cab", lesions, strict=False)]
    w.batch(*good, named("=2+2.png", noise), bad)
    states = [row.get_attribute("data-state") for row in w.page.locator("tbody tr").all()]
    assert states[3:] == ["refer", "error"]
    assert set(states[:3]) <= {"answer", "caution"}
    assert {sent["file"].split()[0] for sent in w.sent} == {"picture"}
    for direction, order in (("ascending", sorted), ("descending", lambda names: sorted(names, reverse=True))):
        w.page.get_by_role("button", name="File").click()
        shown = w.page.locator("tbody td.name").all_inner_texts()
        assert [name for name in shown if not name.startswith("=")] == order(["a.jpg", "b.jpg", "c.jpg"])
        assert w.page.locator("th[aria-sort]").get_attribute("aria-sort") == direction
        assert w.page.evaluate("document.activeElement.dataset.focus") == "sort file"
    w.page.get_by_role("button", name="Probability").click()
    assert [row.get_attribute("data-state") for row in w.page.locator("tbody tr").all()][3:] == ["refer", "error"]
    with w.page.expect_download() as download:
        w.page.get_by_role("button", name="Download as CSV").click()
    download.value.save_as(tmp_path / "answers.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "answers.csv").read_text(encoding="utf-8"))))
    assert [row["file"] for row in rows] == ["c.jpg", "a.jpg", "b.jpg", "'=2+2.png", "'=1+1, bad.jpg"]
    assert all(row["disclaimer"] == DISCLAIMER for row in rows)
    assert abs(sum(float(rows[0][name]) for name in rows[0] if name.startswith("p_")) - 1) < 1e-6
    assert rows[3]["predicted_class"] == rows[3]["p_mel"] == rows[3]["confidence"] == ""
    assert rows[4]["error"]


def test_one_of_a_batch_opens_and_goes_back(open_page: Opener, lesions: list[Path]) -> None:
    w = open_page()
    w.batch(*lesions[:3])
    w.page.get_by_role("button", name="Open image 2").click()
    assert lesions[1].name in w.page.inner_text(".provenance")
    assert w.page.evaluate("document.activeElement.id") == "answer-heading"
    assert w.page.locator("#batch").is_hidden()
    w.page.get_by_role("button", name="Back to the table").click()
    assert w.page.locator("tbody tr").count() == 3
    assert w.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Open image 2"


def test_metadata_is_asked_for_only_where_it_is_used(open_page: Opener, lesions: list[Path]) -> None:
    w = open_page()
    assert w.page.locator("fieldset legend", has_text="About the person").count() == 0
    columns = [
        {"name": "age", "kind": "numeric", "choices": None, "range": [0, 85]},
        {"name": "sex", "kind": "categorical", "choices": ["female", "male"], "range": None},
    ]
    w.described(metadata=columns)
    answer = json.dumps(posted(w.page.url.split("#")[0], lesions[0]))
    w.page.route("**/v1/predict", lambda route: route.fulfill(body=answer, content_type="application/json"))
    w.page.get_by_label("Age in years").fill("55")
    w.ask(lesions[0])
    assert w.sent[-1]["metadata"] == '{"age":55}'
    w.page.get_by_label("Sex").select_option("female")
    with w.page.expect_response("**/v1/predict"):
        w.page.get_by_role("button", name="Answer again with these").click()
    assert w.sent[-1]["metadata"] == '{"age":55,"sex":"female"}'
    w.ask(lesions[1])  # another image is perhaps another person
    assert "metadata" not in w.sent[-1]
    assert "cleared" in w.page.inner_text("#error")


def test_a_second_image_goes_with_one_picture_only(open_page: Opener, lesions: list[Path]) -> None:
    w = open_page()
    assert w.page.get_by_label("Second image").count() == 0
    w.described(optional_images=["image_2"])
    answer = json.dumps(posted(w.page.url.split("#")[0], lesions[0]))
    w.page.route("**/v1/predict", lambda route: route.fulfill(body=answer, content_type="application/json"))
    w.page.get_by_label("Second image").set_input_files(str(lesions[1]))
    with w.page.expect_request("**/v1/predict") as asked:
        w.ask(lesions[0])
    body = asked.value.post_data_buffer or b""
    assert body.count(b'name="image_2"; filename="picture"') == body.count(b'name="file"; filename="picture"') == 1
    assert lesions[1].name.encode() not in body, "no file name is sent"
    with w.page.expect_request("**/v1/predict") as asked:
        w.ask(lesions[2])  # another image is perhaps another person
    assert b"image_2" not in (asked.value.post_data_buffer or b"")
    assert "cleared" in w.page.inner_text("#error")


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (413, {}, None),
        (415, {}, None),
        (422, {}, None),
        (503, {"Retry-After": "7"}, "busy. Try again in about 7 s"),
        (500, {}, "Something broke on the server (500)"),
        (401, {}, "wants a key"),
        (200, {}, "does not understand"),
        (None, {}, "does not answer"),
    ],
)
def test_what_goes_wrong_is_said(
    open_page: Opener, lesions: list[Path], status: int | None, headers: dict[str, str], words: str | None
) -> None:
    """In the page's words, and in the server's; what is wrong with an image in the server's alone."""
    w = open_page()
    body = json.dumps({"error": {"code": "some_code", "message": f"the server's words {HOSTILE}", "remedy": "a remedy"}})
    body = body.replace("some_code", "busy") if status == 503 else body
    handle = {"body": body, "content_type": "application/json", "headers": headers}
    w.page.route("**/v1/predict", lambda route: route.abort() if status is None else route.fulfill(status=status, **handle))
    w.give(lesions[0])
    w.page.wait_for_selector("#error h2")
    said = w.page.inner_text("#error")
    assert (words or "The server's words") in said
    assert words or w.page.locator("#error p").count() == 1
    assert ("The server's words <svg onload=alert(1)>." in said) == (status not in (200, None))
    assert w.page.locator(".verdict").count() == 0
    again = w.page.get_by_role("button", name="Try again")
    assert again.count() == (0 if status in (401, 413, 415, 422) else 1)
    w.page.unroute("**/v1/predict")
    if again.count():
        again.click()
        w.page.wait_for_selector(".verdict")
        assert w.page.locator("#error").is_hidden()


def test_refused_for_real(open_page: Opener) -> None:
    w = open_page()
    w.give({"name": "text.jpg", "mimeType": "image/jpeg", "buffer": b"no picture at all"})
    w.page.wait_for_selector("#error h2")
    assert w.page.locator("#error p").all_inner_texts() == [
        "Not an image; accepted are JPEG, PNG, WEBP, BMP, AVIF, HEIC, DICOM. Send a JPEG, PNG, WebP, AVIF or BMP file."
    ], "the reason once"
    for kind, data, words in (("application/pdf", b"%PDF", "was not sent"), ("image/jpeg", b"", "is empty")):
        sent = len(w.sent)
        w.give({"name": "a", "mimeType": kind, "buffer": data})
        w.page.wait_for_selector(f"#error >> text={words}")
        assert len(w.sent) == sent


def test_busy_server_is_waited_for(open_page: Opener, lesions: list[Path]) -> None:
    w, refused = open_page(), []

    def handle(route: Any) -> None:
        if len(refused) < 2:
            refused.append(route)
            body = {"error": {"code": "busy", "message": "9 requests are under way", "remedy": ""}}
            route.fulfill(status=503, json=body, headers={"Retry-After": "1"})
        else:
            route.continue_()

    w.page.route("**/v1/predict", handle)
    w.batch(*lesions[:3])
    assert len(refused) == 2
    assert "0 failed" in w.page.inner_text("#batch")


def test_names_stay_text(open_page: Opener) -> None:
    w = open_page()

    check = {"name": HOSTILE, "value": 1.0, "limit": 0.0, "ok": True, "words": HOSTILE}
    poison = {
        **PLAINLY, "verdict": "caution", "predicted_class": HOSTILE, "predicted_class_description": f"d{HOSTILE}",
        "reasons": [HOSTILE], "notes": [HOSTILE], "probabilities": {HOSTILE: 0.9, "b": 0.1}, "accepted_leak": HOSTILE,
        "modality": {"verdict": "accept", "score": 1.0, "words": HOSTILE}, "quality": {"verdict": "accept", "checks": [check]},
    }  # fmt: skip
    w.page.on("dialog", lambda dialog: w.errors.append("a script ran"))
    w.changed({"name": HOSTILE}, **poison)
    w.ask(picture(f"{HOSTILE}.jpg"))
    assert w.page.locator("#answer-heading").inner_text() == f"Perhaps: d{HOSTILE}"
    assert f"{HOSTILE}.jpg" in w.page.inner_text(".provenance")
    assert w.page.locator("#answer svg").count() == 0
    w.batch(picture(f"{HOSTILE}.jpg"), picture("b.jpg"))
    assert w.page.locator("#batch svg").count() == 0
    w.page.route("**/v1/models/*/card", lambda route: route.fulfill(body=CARD, content_type="text/markdown"))
    w.page.get_by_role("link", name="The model").click()
    w.page.wait_for_selector(".markdown")
    assert w.page.locator(".markdown :is(script, svg, img, a[href^=javascript])").count() == 0
    assert w.page.locator(".markdown a").get_attribute("href") == "https://example.org/a"
    assert w.page.locator(".markdown td").all_inner_texts() == ["a|b", "1"]
    assert [w.page.locator(f".markdown {tag}").inner_text() for tag in ("h3", "h4", "code")] == ["Card *", "Deep", "<b>"]
    assert HOSTILE in w.page.inner_text(".markdown")


CARD = f"""---
license: none
---
# Card \\*

Words {HOSTILE} <script>alert(1)</script> ![x](javascript:alert(1)) [bad](javascript:alert(1)) [good](https://example.org/a)

### Deep

| name | n |
|---|---|
| a\\|b | 1 |

- `<b>` **strong**
"""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_picture_stands_as_the_model_saw_it(open_page: Opener, kind: str) -> None:
    w, exif = open_page(), Image.Exif()
    exif[0x0112] = 6
    w.ask(picture("turned", kind, exif=exif))
    assert "turned upright by EXIF" in w.page.inner_text(".provenance")
    size = "async node => { await node.decode(); return [node.naturalWidth, node.naturalHeight]; }"
    assert w.page.locator(".original img").evaluate(size) == [60, 80]


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_drop_and_paste(open_page: Opener, lesions: list[Path], way: str) -> None:
    w = open_page()
    w.page.evaluate(
        """([way, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", { type: "image/jpeg" }));
          const event = way === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
          document.body.dispatchEvent(event);
        }""",
        [way, list(lesions[0].read_bytes())],
    )
    w.page.wait_for_selector(".verdict")
    assert "dropped.jpg" in w.page.inner_text(".provenance")


def test_camera(open_page: Opener) -> None:
    w = open_page(permissions=["camera"])
    w.page.get_by_role("button", name="Take a photo").click()
    w.page.locator("#camera-take:enabled").click()
    w.page.wait_for_selector(".verdict")
    assert w.page.locator("#camera-dialog").is_hidden()
    assert w.page.evaluate("document.getElementById('camera-video').srcObject") is None


def test_newer_picture_wins(open_page: Opener, lesions: list[Path]) -> None:
    w, held = open_page(), []
    w.page.route("**/v1/predict", lambda route: held.append(route))
    with w.page.expect_request("**/v1/predict"):
        w.give(lesions[0])
    w.page.unroute("**/v1/predict")
    w.ask(lesions[1])
    assert lesions[1].name in w.page.inner_text(".provenance")
    assert w.page.locator("#error").is_hidden()


def test_model_page(open_page: Opener) -> None:
    w = open_page()
    bins = [{"confidence": c, "accuracy": c - 0.1, "count": 10 * k} for k, c in enumerate((0.3, 0.5, 0.7, 0.9))]
    w.page.route("**/v1/models/*/reliability", lambda route: route.fulfill(json=bins))
    w.page.get_by_role("link", name="The model").click()
    w.page.wait_for_selector(".diagram")
    assert w.page.locator(".dot-of-bin").count() == 3  # an empty bin has none
    assert "at 90 % right in 80 % of 30" in (w.page.locator(".diagram").get_attribute("aria-label") or "")
    assert "MEL" in w.page.inner_text("#model")
    assert "Dermoscopy" in w.page.inner_text("#model")
    w.page.go_back()
    assert w.page.locator("#view-picture").is_visible()


def test_printed_case(open_page: Opener, lesions: list[Path]) -> None:
    w = open_page()
    w.changed(**PLAINLY)
    w.ask(lesions[0])
    w.page.emulate_media(media="print")
    for hidden in ("#ask", "nav", ".controls", ".case > .buttons"):
        assert w.page.locator(hidden).is_hidden(), hidden
    for shown in ("#disclaimer", "#answer-heading", ".original img", ".map", ".bar >> nth=0", ".provenance", ".check >> nth=0"):
        assert w.page.locator(shown).is_visible(), shown
    assert w.page.pdf().startswith(b"%PDF")
