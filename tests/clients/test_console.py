"""The console in a real browser: what it shows, what it sends, and what it lets nobody do."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy
import pytest
import tritonclient.grpc as triton
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from server import HANG, Server, simulated

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
expect.set_options(timeout=HANG * 1000)


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium here: install it to see the console (on Debian: apt install chromium)")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=flags, timeout=HANG * 1000)
        yield browser
        browser.close()


def is_wrong(message):
    """Refused requests are told to the person, and the server may be gone before the page."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


@pytest.fixture
def look(browser):
    """Opens a server's console; whatever goes wrong in the page fails the test."""
    wrong, contexts = [], []

    def look(server, **settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(HANG * 1000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: is_wrong(message) and wrong.append(message.text))
        page.on("request", lambda request: request.url.startswith(f"http://{server.address}/")
                or request.url.startswith("data:") or wrong.append(request.url))
        page.goto(f"http://{server.address}/console")
        # It has looked, and shown what it saw.
        page.locator("html[data-looks]").wait_for(state="attached")
        return page

    yield look
    for context in contexts:
        context.close()
    assert wrong == []


def ask(server, rows, name="m", **options):
    """Sends rows of three numbers; gives what came back."""
    values = numpy.arange(3 * rows, dtype=numpy.float32).reshape(rows, 3)
    tensor = triton.InferInput("x", values.shape, "FP32")
    tensor.set_data_from_numpy(values)
    with server.client() as client:
        return client.infer(name, [tensor], **options)


def row(page, name):
    return page.get_by_role("table").first.get_by_role("row").filter(
        has=page.get_by_role("rowheader", name=name, exact=True))


def accessible(page):
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]})
    assert found.violations_count == 0, found.generate_report()


def test_models_are_shown_and_follow_what_runs(repository, look):
    simulated(repository, "m", "max_batch_size = 4")
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_text("no model")
    with Server(repository) as server:
        page = look(server)
        expect(page.locator("#ready")).to_have_text("not ready")
        expect(row(page, "m 1")).to_contain_text("READY")
        expect(row(page, "broken 1")).to_contain_text("UNAVAILABLE")
        expect(row(page, "broken 1")).to_contain_text("model.onnx")
        expect(page.locator("#signature")).to_contain_text("x FP32 [any, any]")
        expect(page.locator("#decisions")).to_have_text("No batch has left yet.")
        for _ in range(3):
            ask(server, 4)
        # Nobody reloads the page.
        expect(page.locator("#model-facts")).to_contain_text("3 requests, 12 rows, 3 batches")
        expect(page.locator("#decisions tr")).to_have_count(3)
        expect(page.locator("#decisions tr").first).to_contain_text("full")
        bars = page.get_by_role("img", name="Rows, up to")
        expect(bars).to_have_attribute("aria-label", re.compile(": 1: 0, 2: 0, 4: 3$"))
        accessible(page)


def test_a_form_asks_and_shows_the_request_as_commands_that_work(add, repository, look):
    add("add_sub")
    simulated(repository, "m")
    with Server(repository) as server:
        page = look(server)
        page.get_by_role("button", name="add_sub 1").click()
        first = page.get_by_role("group", name="INPUT0 INT32 [-1, 16]")
        second = page.get_by_role("group", name="INPUT1 INT32 [-1, 16]")
        first.get_by_label("Elements, as JSON").fill(json.dumps([list(range(16))]))
        second.get_by_label("Shape").fill("[1, 16]")
        second.get_by_role("button", name="Ones").click()
        page.get_by_label("Request id").fill("it's me")
        page.get_by_label("Request id").press("Enter")
        told = page.locator("#try-told")
        expect(told).to_contain_text("Answered in")
        sums, differences = page.locator("#try-answer pre").all_inner_texts()
        assert json.loads(sums) == [number + 1 for number in range(16)]
        assert json.loads(differences) == [number - 1 for number in range(16)]
        accessible(page)
        # The commands send what is in the form.
        expect(page.locator("#example-curl")).to_contain_text("s me")
        line = page.locator("#example-curl").inner_text()
        words = shlex.split(line)
        assert words[:2] == ["curl", "-s"] and json.loads(words[-1])["id"] == "it's me"
        if shutil.which("curl"):
            assert json.loads(paste(line))["outputs"][0]["data"] == json.loads(sums)
        said = json.loads(paste(page.locator("#example-grpcurl").inner_text()))
        assert said["id"] == "it's me" and said["modelVersion"] == "1"
        by_python = page.locator("#example-python").inner_text().replace("python3", sys.executable, 1)
        assert paste(by_python).split()[1] == "1"
        # What is wrong is told where it is.
        first.get_by_label("Elements, as JSON").fill("[1, 2")
        page.get_by_role("button", name="Send").click()
        expect(told).to_contain_text("INPUT0, elements: this is not JSON")
        expect(first.get_by_label("Elements, as JSON")).to_have_attribute("aria-invalid", "true")
        first.get_by_label("Elements, as JSON").fill("[1, 2]")
        page.get_by_role("button", name="Send").click()
        expect(told).to_contain_text("INPUT0")


def paste(line):
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    return done.stdout


MARKUP = "<img src=x onerror=document.title='caught'><b>bold</b>"


def test_what_clients_and_models_call_things_is_text(repository, look):
    simulated(repository, "m", "latency_objective_ms = 1", "fixed_ms = 20")
    text = (repository / "m" / "model.toml").read_text()
    (repository / "m" / "model.toml").write_text(text.replace('name = "y"', f'name = "{MARKUP}"'))
    with Server(repository) as server:
        ask(server, 1, request_id=MARKUP)
        page = look(server)
        story = page.locator("#slow details").first
        story.locator("summary").click()
        expect(story).to_contain_text(f"Id {MARKUP}")
        expect(story.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"^decode .* execute [\d.]+ ms"))
        expect(page.locator("#signature")).to_contain_text(f"{MARKUP} FP32")
        expect(page.locator("#example-python")).to_contain_text("<img src=x")
        assert page.locator("#slow img, #slow b, main b, main img").count() == 0
        assert page.title() == "Jitney console"
        accessible(page)


def test_models_are_loaded_and_unloaded_where_that_is_permitted(repository, look):
    simulated(repository, "m")
    simulated(repository, "other")
    flags = ["--model-control", "explicit", "--load-model", "m", "--console", "control"]
    with Server(repository, *flags) as server:
        page = look(server)
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Load other").click()
        expect(page.locator("#notice")).to_have_text("Loaded other.")
        expect(row(page, "other 1")).to_contain_text("READY")
        page.get_by_role("button", name="Unload m").click()
        expect(page.locator("#notice")).to_have_text("Unloaded m.")
        expect(row(page, "m 1")).to_contain_text("UNAVAILABLE")
        with server.client() as client:
            assert client.is_model_ready("other") and not client.is_model_ready("m")
        accessible(page)
        shutil.rmtree(repository / "m" / "1")
        page.get_by_role("button", name="Load m").click()
        expect(page.locator("#notice")).to_contain_text("m: 4")


def test_nobody_changes_anything_unless_it_is_permitted(repository, look):
    simulated(repository, "m")
    with Server(repository, "--model-control", "explicit", "--load-model", "m") as server:
        page = look(server)
        expect(row(page, "m 1")).to_contain_text("READY")
        expect(page.get_by_role("button", name=re.compile("load", re.IGNORECASE))).to_have_count(0)
        expect(page.locator("#access")).to_contain_text("Only to look at")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_in_either_light_and_no_models(repository, look, scheme):
    simulated(repository, "m")
    empty = repository.parent / "empty"
    empty.mkdir()
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    with Server(empty) as server:
        page = look(server, **phone)
        expect(page.locator("#no-models")).to_be_visible()
        expect(page.locator("#model")).to_be_hidden()
        accessible(page)
    with Server(repository) as server:
        ask(server, 2)
        page = look(server, **phone)
        expect(page.locator("#example-curl")).to_contain_text("curl")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        accessible(page)
        # By the keyboard alone: the first stop is the way past the head.
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the models")).to_be_focused()
        page.get_by_role("button", name="Pause").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "true")


def test_a_server_that_is_gone_is_told(repository, browser):
    simulated(repository, "m")
    with Server(repository) as server:
        page = browser.new_page()
        page.set_default_timeout(HANG * 1000)
        page.goto(f"http://{server.address}/console")
        expect(page.locator("#ready")).to_have_text("ready")
        server.stop()
        expect(page.locator("#ready")).to_have_text("no answer")
        page.close()
