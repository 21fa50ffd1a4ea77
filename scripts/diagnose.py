#!/usr/bin/env python3
"""Says why requests of a Jitney server are slow, with its evidence, from what anybody can see of it.

It looks at /metrics again and again (or at a Prometheus, or at files) and tells of each version that had requests:
healthy, slow client, cold version, slow device, big batch, queue, slow model, or unknown. What a server's console
remembers of batches and slow requests is added to the evidence, and so are traces. Exit codes: 0 all are healthy, 1 some
are not, 2 nothing can be told.
"""

import argparse
import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

PATIENCE = 10
# From one end of the time that is looked at to the other.
LOOKS = 10
# The error budget: such a share of requests may be refused, fail or be late.
BUDGET = 0.01
# A stage that takes more than this share of all the time is where requests are.
MOST = 0.5
# A device, or a run, that takes so many times as long as others is slow.
SLOW_DEVICE, SLOW_RUN = 1.5, 4
# From here on what comes is too much for what can be done.
FULL = 0.85
# So many batches that were not slow say that it is over.
FEWEST = 5
REFUSALS = {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE"}

LINE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*?)\})? (\S+)(?: # .*)?$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def main():
    options = arguments()
    try:
        change = Change(looks(options))
        batches, requests = remembered(options)
        traced = traces(options.traces)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"diagnose.py: {error}")
    told = [diagnosis(version, batches, requests, traced) for version in change.versions()]
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(map(text, told)) or "no version had requests meanwhile: nothing can be told")
    sys.exit(2 if not told else int(any(one["cause"] != "healthy" for one in told)))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", nargs="?", help="where REST is, such as http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=10, help="to look at, 10 if not given")
    parser.add_argument("--prometheus", metavar="URL", help="a Prometheus that has scraped the server meanwhile")
    parser.add_argument("--looks", type=Path, metavar="FILE", nargs="+", default=[],
                        help="answers of /metrics, the earliest first: two, or better one a second")
    parser.add_argument("--decisions", type=Path, metavar="FILE", help="an answer of /console/decisions")
    parser.add_argument("--breaches", type=Path, metavar="FILE", help="an answer of /console/breaches")
    parser.add_argument("--slow", type=Path, metavar="FILE", help="an answer of /console/slow")
    parser.add_argument("--traces", type=Path, metavar="FILE", nargs="+", default=[],
                        help="spans, as the OpenTelemetry collector's file exporter writes them")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    if not (options.server or options.prometheus or len(options.looks) > 1):
        parser.error("name a server, a Prometheus, or at least two files")
    return options


# What there is to see.


def looks(options):
    """What the metrics were worth at several moments, the earliest first."""
    moments = range(LOOKS + 1)
    if options.looks:
        return [parsed(file.read_text()) for file in options.looks]
    if options.prometheus:
        began = time.time() - options.seconds
        return [asked_of_prometheus(options.prometheus, began + moment * options.seconds / LOOKS)
                for moment in moments]
    seen = []
    for moment in moments:
        time.sleep(options.seconds / LOOKS if moment else 0)
        seen.append(parsed(get(f"{options.server}/metrics")))
    return seen


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return answer.read().decode()


def parsed(exposition):
    """Every value of a text of Prometheus's format, by name and labels."""
    values = {}
    for line in exposition.splitlines():
        found = LINE.match(line)
        if found:
            name, labels, value = found.groups()
            values[name, labels_of(labels or "")] = float(value)
    return values


def labels_of(written):
    def plain(value):
        return re.sub(r'\\[\\"n]', lambda found: ESCAPES[found[0]], value)
    return frozenset((name, plain(value)) for name, value in LABEL.findall(written))


def asked_of_prometheus(url, moment):
    """Every value that it had of the server at a moment; the servers' own names are a label of it."""
    query = urllib.parse.urlencode({"query": '{__name__=~"jitney_.*"}', "time": moment})
    answer = json.loads(get(f"{url}/api/v1/query?{query}"))
    values = {}
    for series in answer["data"]["result"]:
        labels = dict(series["metric"])
        name = labels.pop("__name__")
        values[name, frozenset(labels.items())] = float(series["value"][1])
    return values


def remembered(options):
    """The batches and slow requests that a server with a console remembers; none of another."""
    batches = exported(options.decisions, options.server, "decisions?last=1000", "decisions")
    breaches = exported(options.breaches, options.server, "breaches")
    batches += [batch for breach in breaches for batch in breach["decisions"]]
    # A batch that is told twice is one; its wall clock may differ by a little.
    which = ("model", "version", "number", "device", "execute_ms")
    told = {tuple(batch[key] for key in which): batch for batch in batches}
    in_order = sorted(told.values(), key=lambda batch: batch["left_unix_ms"])
    return in_order, exported(options.slow, options.server, "slow?last=1000", "requests")


def exported(file, server, name, key=None):
    if file:
        return json.loads(file.read_text())[key or name]
    try:
        return json.loads(get(f"{server}/console/{name}"))[key or name] if server else []
    except urllib.error.HTTPError:
        return []


def traces(files):
    """The requests in files of spans: each with what its span says, and its stages in milliseconds."""
    spans = [span for file in files for line in file.read_text().splitlines() for span in spans_of(json.loads(line))]
    stages = {}
    for span in spans:
        stages.setdefault((span["traceId"], span.get("parentSpanId")), {})[span["name"]] = milliseconds(span)
    asked = [span for span in spans if span["kind"] in (2, "SPAN_KIND_SERVER")]
    return [{"trace": span["traceId"], "total_ms": milliseconds(span), **attributes(span),
             "stages": stages.get((span["traceId"], span["spanId"]), {})} for span in asked]


def spans_of(message):
    scopes = (scope for resource in message["resourceSpans"] for scope in resource["scopeSpans"])
    return [span for scope in scopes for span in scope["spans"]]


def milliseconds(span):
    return (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e6


def attributes(span):
    return {one["key"]: next(iter(one["value"].values()), None) for one in span.get("attributes", [])}


class Change:
    """What happened from the first look to the last."""

    def __init__(self, looks):
        self.looks, self.before, self.after = looks, looks[0], looks[-1]
        made_ready = "jitney_version_loaded_timestamp_seconds"
        # What was made ready since counts from nothing.
        self.anew = [labels for (name, labels), value in self.after.items()
                     if name == made_ready and self.before.get((name, labels)) != value]

    def versions(self):
        """Those that were asked for something meanwhile."""
        keys = [dict(labels) for name, labels in self.after if name == "jitney_latency_objective_seconds"]
        keys.sort(key=lambda key: (key["model"], int(key["version"]), key.get("instance", "")))
        versions = [Version(self, key) for key in keys]
        return [version for version in versions if version.asked > 0]

    def each(self, name, **wanted):
        """Labels, and by how much the value grew."""
        for (own, labels), value in self.after.items():
            if own == name and wanted.items() <= dict(labels).items():
                is_new = any(version <= labels for version in self.anew)
                yield dict(labels), value - (0 if is_new else self.before.get((own, labels), 0))

    def grew(self, name, **wanted):
        return sum(growth for _, growth in self.each(name, **wanted))

    def now(self, name, **wanted):
        """The largest of the values at the second look."""
        values = [value for (own, labels), value in self.after.items()
                  if own == name and wanted.items() <= dict(labels).items()]
        return max(values, default=None)

    def histogram(self, name, **wanted):
        """Of what came meanwhile: lower bound, upper bound, and how many lay between, the least first."""
        below = {}
        for labels, growth in self.each(f"{name}_bucket", **wanted):
            bound = float(labels["le"])
            below[bound] = below.get(bound, 0) + growth
        buckets, low, before = [], 0.0, 0
        for bound, count in sorted(below.items()):
            buckets.append((low, bound if math.isfinite(bound) else low, count - before))
            low, before = bound, count
        return buckets


class Version:
    """What one version went through between two looks."""

    def __init__(self, change, key):
        self.change, self.key = change, key
        self.model, self.number = key["model"], key["version"]
        self.objective = change.now("jitney_latency_objective_seconds", **key)
        codes = {labels["code"]: growth for labels, growth in change.each("jitney_requests_total", **key)}
        self.refused = sum(codes.get(code, 0) for code in REFUSALS)
        late, in_time = (self.grew(f"jitney_requests_{how}_total") for how in ("not_in_time", "in_time"))
        self.asked = in_time + late
        self.not_in_time = late / self.asked if self.asked else 0.0
        self.seconds = self.stages()

    def grew(self, name, **wanted):
        return self.change.grew(name, **self.key, **wanted)

    def stages(self):
        """Seconds of requests by what they were spent on."""
        stages = ["queue", "stack", "execute", "slice"]
        seconds = {stage: self.grew("jitney_stage_seconds_total", stage=stage) for stage in stages}
        return {"decode": self.grew("jitney_decode_seconds_sum"), **seconds,
                "encode": self.grew("jitney_encode_seconds_sum")}

    def share(self, stage):
        whole = sum(self.seconds.values())
        return self.seconds[stage] / whole if whole else 0.0

    def mean_rows(self):
        batches = self.grew("jitney_batch_rows_count")
        return self.grew("jitney_batch_rows_sum") / batches if batches else None

    def expected(self, device, rows):
        """What a batch of so many rows is expected to take on a device now, as the scheduler has learned."""
        where = {**self.key, "device": device}
        parts = [self.change.now(name, **where)
                 for name in ("jitney_learned_batch_seconds", "jitney_learned_row_seconds")]
        return None if None in parts else parts[0] + rows * parts[1]

    def on_devices(self):
        """By device that ran something: batches, and what one took on average."""
        counts = {labels["device"]: growth
                  for labels, growth in self.change.each("jitney_execute_seconds_count", **self.key) if growth}
        return {device: (count, self.grew("jitney_execute_seconds_sum", device=device) / count)
                for device, count in counts.items()}

    def server(self):
        return {name: value for name, value in self.key.items() if name in ("instance", "job")}

    def capacity_used(self):
        """What comes over what can be done, of the version and of its fullest device."""
        offered = self.change.now("jitney_offered_rows_per_second", **self.key)
        can = self.change.now("jitney_sustainable_rows_per_second", **self.key)
        own = [offered / can] if offered is not None and can else []
        devices = [self.change.now("jitney_device_capacity_used_ratio", device=device, **self.server())
                   for device in self.on_devices()]
        return max([*own, *(used for used in devices if used is not None)], default=None)


# What it means.


def diagnosis(version, batches, requests, traced):
    """The first of the causes whose signs are there, and why it is believed."""
    own, slow = ([one for one in told if (one["model"], str(one["version"])) == (version.model, version.number)]
                 for told in (batches, requests))
    traced = [one for one in traced
              if (one.get("jitney.model"), one.get("jitney.version")) == (version.model, version.number)]
    told = {"model": version.model, "version": version.number, "cause": "healthy",
            "not_in_time": round(version.not_in_time, 4), "evidence": [summary(version)]}
    if version.not_in_time <= BUDGET:
        return told
    told["cause"] = "unknown"
    told["evidence"].append(where(version))
    if slow:
        told["evidence"].append(where_slow(slow))
    told["evidence"] += where_traced([one for one in traced if is_bad(one)])
    for cause, signs in CAUSES.items():
        evidence = signs(version, own)
        if evidence:
            told["cause"] = cause
            told["evidence"] += evidence
            break
    return told


def slow_client(version, _):
    if version.share("decode") > MOST:
        mean = version.seconds["decode"] / version.asked
        return [f"from a request's headers to its last byte it takes {shown(mean)} on average, "
                f"{version.share('decode'):.0%} of all the time: clients send slowly"]
    return []


def cold_version(version, batches):
    """It was made ready meanwhile, was slow then, and is so no longer."""
    runs = slow_runs(version)
    if not runs or frozenset(version.key.items()) not in version.change.anew:
        return []
    since = runs_since(version, runs["at_least"])
    if since < max(runs["count"], FEWEST):
        return []
    slow = [str(batch["number"]) for batch in batches if batch["execute_ms"] >= runs["at_least"] * 1000]
    return [f"it was made ready meanwhile: {told(runs)}, and none of the last {since:.0f}"] + (
        [f"the slow ones were the version's batches number {', '.join(slow[:8])}"] if slow else [])


def runs_since(version, at_least):
    """How many batches ran after the last that took so long."""
    for number in range(1, len(version.change.looks) - 1):
        times = Change(version.change.looks[number:]).histogram("jitney_execute_seconds", **version.key)
        if not any(count for low, _, count in times if low >= at_least):
            return sum(count for _, _, count in times)
    return 0


def slow_device(version, batches):
    """One of its devices is expected to take longer than another, and did."""
    rows, devices = version.mean_rows(), version.on_devices()
    expected = {device: version.expected(device, rows) for device in devices}
    if len(devices) < 2 or None in expected.values():
        return []
    slow, fast = (choose(expected, key=expected.get) for choose in (max, min))
    took = {device: mean for device, (_, mean) in devices.items()}
    times = expected[slow] / expected[fast]
    if times < SLOW_DEVICE or took[slow] < SLOW_DEVICE * took[fast]:
        return []
    # Not a difference that nobody feels.
    if took[slow] - took[fast] < 0.2 * version.objective:
        return []
    runs = [batch for batch in batches if batch["execute_ms"] >= 1000 * took[slow] / 2]
    there = sum(batch["device"] == slow for batch in runs)
    return [f"{slow} took {shown(took[slow])} a batch and {fast} {shown(took[fast])}; for {rows:.1f} rows "
            f"{times:.1f} times as long is expected of it"] + (
        [f"{there} of the {len(runs)} slow batches that are remembered ran there"] if runs else [])


def big_batch(version, batches):
    """Few runs take most of the time, because they have so many rows."""
    runs = slow_runs(version)
    if not runs or not are_large(version, runs) or runs["share"] < 0.2:
        return []
    rows = largest(version, runs["count"])
    seen = sorted((batch["rows"] for batch in batches), reverse=True)[:5]
    return [f"{told(runs)}, {runs['share']:.0%} of all execution: those of more than {rows[0]:.0f} rows, "
            f"where most have {runs['typical_rows']:.0f} or less; whoever came meanwhile waited"] + (
        [f"the largest that are remembered had {', '.join(map(str, seen))} rows"] if seen else [])


def queue(version, _):
    """Requests wait, and none of the above makes them."""
    if version.share("queue") <= MOST and version.refused <= BUDGET * version.asked:
        return []
    used = version.capacity_used() or 0.0
    told = [f"{used:.0%} of what can be done in time was asked for within the last ten seconds: "
            + ("there are too few devices for the load" if used >= FULL else "more comes at once than is done at once")]
    if version.refused:
        told.append(f"{version.refused:.0f} requests were refused or too late")
    alive, executors = (version.change.now(name, **version.key) for name in ("jitney_executors_alive", "jitney_executors"))
    if alive is not None and executors is not None and alive < executors:
        told.append(f"only {alive:.0f} of {executors:.0f} executors can run")
    return told + neighbours(version)


def neighbours(version):
    """Others that had more of its devices than it had."""
    told = []
    for device in version.on_devices():
        own = version.grew("jitney_device_seconds_total", device=device)
        where = {**version.server(), "device": device}
        for labels, growth in version.change.each("jitney_device_seconds_total", **where):
            if growth > own and labels["model"] != version.model:
                told.append(f"{labels['model']}:{labels['version']} had {growth / own if own else math.inf:.1f} times as "
                            f"much of {device}")
    return told


def slow_model(version, _):
    """Nothing keeps it from running, and a run alone takes as long as the whole may."""
    means = [mean for _, mean in version.on_devices().values()]
    if means and min(means) >= MOST * version.objective:
        return [f"a batch of {version.mean_rows():.1f} rows takes {shown(min(means))} wherever it runs: it is the model "
                "that takes so long"]
    return []


# The more special before the more general: each of them makes queues.
CAUSES = {"slow client": slow_client, "cold version": cold_version, "slow device": slow_device,
          "big batch": big_batch, "queue": queue, "slow model": slow_model}


def slow_runs(version):
    """Runs far above the usual ones that users feel: how many, from what time on, and their share of all execution."""
    times = version.change.histogram("jitney_execute_seconds", **version.key)
    rows = version.change.histogram("jitney_batch_rows", **version.key)
    typical = median(times)
    if typical is None:
        return None
    bound = max(typical * SLOW_RUN, version.objective * MOST)
    slow = [bucket for bucket in times if bucket[0] >= bound and bucket[2]]
    if not slow:
        return None
    usual = sum(middle(bucket) * bucket[2] for bucket in times if bucket[0] < bound)
    long = sum(middle(bucket) * bucket[2] for bucket in slow)
    return {"count": sum(bucket[2] for bucket in slow), "at_least": slow[0][0], "share": long / (long + usual),
            "all": sum(bucket[2] for bucket in times), "typical": typical, "typical_rows": median(rows)}


def told(runs):
    return (f"{runs['count']:.0f} of {runs['all']:.0f} batches took {shown(runs['at_least'])} or more, "
            f"where most take {shown(runs['typical'])} or less")


def are_large(version, runs):
    """Whether their rows explain why these runs are slow: so many are as large as that."""
    low, high = largest(version, runs["count"])
    expected = [version.expected(device, high) for device in version.on_devices()]
    known = [time for time in expected if time is not None]
    return low >= SLOW_RUN * runs["typical_rows"] and (not known or max(known) >= runs["at_least"] / 2)


def largest(version, count):
    """The bounds within which the least of so many largest batches lies."""
    bounds, seen = (0.0, 0.0), 0
    for low, high, inside in reversed(version.change.histogram("jitney_batch_rows", **version.key)):
        if seen < count and inside:
            bounds, seen = (low, high), seen + inside
    return bounds


def median(buckets):
    """The upper bound of the bucket in which the middle one lies."""
    whole, seen = sum(count for _, _, count in buckets), 0
    for _, high, count in buckets:
        seen += count
        if whole and seen >= whole / 2:
            return high
    return None


def middle(bucket):
    low, high, _ = bucket
    return math.sqrt(low * high) if low else high / 2


# How it is told.


def summary(version):
    return (f"{version.not_in_time:.1%} of {version.asked:.0f} requests were refused, failed or took longer than "
            f"{shown(version.objective)}")


def where(version):
    most = sorted(version.seconds, key=version.seconds.get, reverse=True)
    parts = [f"{stage} {version.share(stage):.0%}" for stage in most if version.share(stage) >= 0.01]
    return "the time of those that were answered went into " + (", ".join(parts) or "nothing: none was")


def where_slow(requests):
    stages = {}
    for one in (stage for request in requests for stage in request["stages"]):
        stages[one["stage"]] = stages.get(one["stage"], 0) + one["duration_ms"]
    most = max(stages, key=stages.get, default="nothing")
    whole = sum(stages.values()) or 1
    return (f"the {len(requests)} slow or failed requests that are remembered spent "
            f"{stages.get(most, 0) / whole:.0%} of their time in {most}")


def is_bad(traced):
    return traced.get("jitney.slow") or traced.get("jitney.code") != "OK"


def where_traced(requests):
    """Where the time of slow or failed requests went, by their traces, and which trace to open."""
    if not requests:
        return []
    most = [max(one["stages"], key=one["stages"].get, default="nothing") for one in requests]
    stage = max(set(most), key=most.count)
    told = f"of {len(requests)} slow or failed requests that are traced, {most.count(stage)} spent most of their time in {stage}"
    devices = [one["jitney.device"] for one in requests if "jitney.device" in one]
    if devices:
        device = max(set(devices), key=devices.count)
        told += f"; {devices.count(device)} of {len(devices)} ran on {device}"
    slowest = max(requests, key=lambda one: one["total_ms"])
    parts = sorted(slowest["stages"].items(), key=lambda part: part[1], reverse=True)[:2]
    parts = ", ".join(f"{name} {shown(part / 1e3)}" for name, part in parts)
    batch = "".join(f", in a batch of {slowest[rows]} rows on {slowest['jitney.device']}"
                    for rows in ["jitney.batch.rows"] if rows in slowest)
    return [told, f"the slowest that is traced took {shown(slowest['total_ms'] / 1e3)} ({parts}{batch}): "
                  f"trace {slowest['trace']}"]


def shown(seconds):
    for unit, size in [("s", 1), ("ms", 1e-3), ("us", 1e-6)]:
        if seconds >= size:
            break
    return f"{seconds / size:.3g} {unit}"


def text(told):
    head = f"{told['model']}:{told['version']}: {told['cause']}"
    return "\n".join([head, *(f"  - {line}" for line in told["evidence"])])


if __name__ == "__main__":
    main()
