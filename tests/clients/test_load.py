"""The load generator as people use it: its page in a browser, and as a Job of Kubernetes."""

import json
import os
import shutil
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml
from PIL import Image

from server import BINARY, HANG, ROOT

LOAD = BINARY.with_name("jitney-load")
JOB = ROOT / "deploy" / "loadtest" / "job.yaml"
SCHEMA = json.loads((ROOT / "docs" / "loadtest.schema.json").read_text())
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# The first lines of each chart; see loadtest/src/report/chart.rs.
BLUE, ORANGE = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
# Two samples of 20 by 2.5 pixels and their edges; one line across a chart has 900.
MORE_THAN_LEGENDS = 300


def drawn(image, colour):
    """Pixels of a colour, or nearly: the edges of a line that is not level are blended."""
    return sum(count for count, seen in image.getcolors(1 << 24)
               if max(abs(one - other) for one, other in zip(seen, colour)) < 64)


# What a cluster says of the Job each time that it is asked, as long as it has failed or has not.
CONDITIONS = ["", "FailureTarget", "FailureTarget Failed"]
KUBECTL = """#!/bin/sh
echo "$*" >> calls
case "$*" in
*" get job"*) sed -n "$(grep -c ' get job' calls)p" conditions ;;
*" logs "*) cat "pod-$(echo "$*" | sed 's/.*completion-index=\\([0-9]*\\).*/\\1/')" ;;
esac
"""


def load(*arguments):
    done = subprocess.run(
        [LOAD, *arguments], capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def documents():
    return {document["kind"]: document for document in yaml.safe_load_all(JOB.read_text())}


def test_manifests_are_valid(documents):
    assert set(documents) == {"ConfigMap", "Job"}
    for document in documents.values():
        kubernetes_validate.validate(document, "1.33", strict=True)


def test_a_verdict_ends_no_generator_but_the_one_whose_it_is(documents):
    job = documents["Job"]["spec"]
    assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"]
    # Any limit of the whole Job would end those that still run.
    assert job["backoffLimitPerIndex"] == 0
    assert not {"backoffLimit", "maxFailedIndexes", "podFailurePolicy"} & set(job)


def test_the_commands_of_the_job_wait_for_its_failure_too(documents, examples, tmp_path):
    """As they stand in the manifest, with a cluster whose Job fails because one verdict is 1."""
    comments = JOB.read_text().split("apiVersion", 1)[0]
    commands = "\n".join(
        line[6:] for line in comments.splitlines() if line.startswith("#     "))
    count = documents["Job"]["spec"]["completions"]
    for index in range(count):
        scenario = tmp_path / f"{index}.toml"
        # The last one asks what nobody can give.
        scenario.write_text(
            'max_lag_ms = 60000\n[[requests]]\nmodel = "digits"\n[[steps]]\narrivals = "constant"\n'
            "rate = 50\nwarm_up_s = 0\nduration_s = 1\n"
            f"slo = {{ min_goodput = {1e6 if index == count - 1 else 1} }}\n")
        with (tmp_path / f"pod-{index}").open("w") as log:
            done = subprocess.run(
                [LOAD, "run", scenario, "--address", examples.address, "--json", "-"],
                stdout=log, stderr=subprocess.STDOUT, timeout=HANG, check=False)
        assert done.returncode == int(index == count - 1)
    (tmp_path / "conditions").write_text("\n".join(CONDITIONS))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in [("kubectl", KUBECTL), ("sleep", "#!/bin/sh\n"),
                       ("jitney-load", f'#!/bin/sh\nexec {LOAD} "$@"\n')]:
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    ended = subprocess.run(
        ["sh", "-c", commands], cwd=tmp_path, capture_output=True, text=True, timeout=HANG,
        check=False, env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"})
    calls = (tmp_path / "calls").read_text().splitlines()
    # In the namespace of the service, which pods look for by its name alone.
    assert all(call.startswith("-n jitney ") for call in calls), calls
    assert sum(" get job/" in call for call in calls) == len(CONDITIONS)
    assert sum(" logs " in call for call in calls) == count
    assert ended.returncode == 1, ended.stderr
    assert "offered   200.0/s" in ended.stdout and "MISSED" in ended.stdout, ended.stdout
    assert (tmp_path / "report.html").exists()


def test_generators_of_the_job_become_one_report(documents, examples, tmp_path):
    scenario = tmp_path / "scenario.toml"
    text = documents["ConfigMap"]["data"]["scenario.toml"]
    # Generators beside each other on a busy machine lag.
    text = "max_lag_ms = 60000\n" + text.replace("duration_s = 60", "duration_s = 2")
    scenario.write_text(text)
    [container] = documents["Job"]["spec"]["template"]["spec"]["containers"]
    logs = []
    for index in range(2):
        arguments = [
            argument.replace("/scenario/scenario.toml", str(scenario))
            .replace("jitney:8001", examples.address)
            .replace("$(INDEX)", str(index))
            for argument in container["args"]
        ]
        logs.append(tmp_path / f"{index}.log")
        # As Kubernetes keeps them: what a program prints and what it complains of are one log.
        with logs[-1].open("w") as log:
            subprocess.run(
                [LOAD, *arguments], stdout=log, stderr=subprocess.STDOUT, timeout=HANG, check=False)
    both = load("report", *logs)
    # The two together offer twice as much, and are judged together.
    assert "offered   200.0/s" in both, both
    assert "0 wrong answers" in both, both


def test_reports_are_what_the_schema_says(examples, tmp_path):
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(
        'max_lag_ms = 60000\n[[requests]]\nmodel = "digits"\n[[steps]]\narrivals = "poisson"\n'
        "rate = 100\nwarm_up_s = 0\nduration_s = 1.5\n"
        "slo = { latency_ms = 1000, min_goodput = 1, max_growth = { latency = 1 } }\n")
    report = tmp_path / "report.json"
    at = ["--address", examples.address, "--json", report]
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    load("run", scenario, *at)
    run = json.loads(report.read_text())
    jsonschema.validate(run, SCHEMA)
    [step] = run["steps"]
    assert step["asked"]["latency"] == {"share": 0.99, "within_ns": 1_000_000_000}
    [server] = step["server"]
    assert server["model"] == "digits" and server["requests"] == sum(
        second["outcomes"]["ok"] for second in step["seconds"])
    load("report", report, report, "--json", tmp_path / "twice.json")
    twice = json.loads((tmp_path / "twice.json").read_text())
    jsonschema.validate(twice, SCHEMA)
    assert len(twice["steps"][0]["generators"]) == 2
    both = ["--a", examples.address, "--b", examples.address]
    said = load("compare", scenario, *both, "--pairs", "6", "--json", report)
    compared = json.loads(report.read_text())
    jsonschema.validate(compared, SCHEMA)
    assert len(compared["comparisons"]) == 4 and len(compared["steps"]) == 2
    # All six turns of each.
    assert [step["seconds_measured"] for step in compared["steps"]] == [9, 9]
    assert said.count("p99") >= 3, said


def test_a_report_of_a_search_is_what_the_schema_says(examples, tmp_path):
    scenario = tmp_path / "scenario.toml"
    # Nobody answers in a microsecond.
    scenario.write_text(
        'max_lag_ms = 60000\n[[requests]]\nmodel = "digits"\n[[steps]]\narrivals = "constant"\n'
        "rate = 100\nwarm_up_s = 0\nduration_s = 1\n"
        "slo = { percentile = 50, latency_ms = 0.001 }\n")
    report = tmp_path / "report.json"
    load("search", scenario, "--address", examples.address, "--json", report)
    searched = json.loads(report.read_text())
    jsonschema.validate(searched, SCHEMA)
    assert searched["verdict"] == "missed"
    assert searched["search"] == {"holds": None, "does_not_hold": 30.0}


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium to look at the page")
def test_the_page_shows_its_charts_in_a_browser(examples, tmp_path):
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(
        'max_lag_ms = 60000\n[[requests]]\nmodel = "digits"\n[[steps]]\nname = "<steady & \\"so\\">"\n'
        'arrivals = "poisson"\nrate = 100\nwarm_up_s = 0\nduration_s = 4\n')
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    load("run", scenario, "--address", examples.address, "--html", page)
    # Nothing that a browser would fetch or run.
    text = page.read_text()
    assert not any(word in text for word in ["<script", "http://", "https://", "@import", "url("])
    subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-quic",
         f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1240,1600",
         f"--screenshot={picture}", page.as_uri()],
        env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, timeout=HANG, check=True)
    with Image.open(picture) as image:
        image = image.convert("RGB")
        # The charts lie in two columns; each has a blue line and, but for the batches, an orange one.
        half = image.width // 2
        for left in (0, half):
            column = image.crop((left, 0, left + half, image.height))
            assert drawn(column, BLUE) > MORE_THAN_LEGENDS
            assert drawn(column, ORANGE) > MORE_THAN_LEGENDS
