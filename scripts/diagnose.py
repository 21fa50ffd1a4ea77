#!/usr/bin/env python3
"""Says why requests of a Jitney server are slow, with its evidence, from what anybody can see of it.

It looks twice at /metrics (or at a Prometheus, or at two files) and tells of each version that had requests: healthy,
slow client, cold version, slow device, big batch, queue, or unknown. Where the server has a console, the batches that it
remembers are added to the evidence. Exit codes: 0 all are healthy, 1 some are not, 2 nothing can be told.
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
# The error budget: such a share of requests may be refused, fail or be late.
BUDGET = 0.01
# A stage that takes more than this share of all the time is where requests are.
MOST = 0.5
# A device, or a run, that takes so many times as long as others is slow.
SLOW_DEVICE, SLOW_RUN = 1.5, 4
# From here on what comes is too much for what can be done.
FULL = 0.85
CLIENTS_OWN = {"CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"}
REFUSALS = {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE"}

LINE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*?)\})? (\S+)(?: # .*)?$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def main():
    options = arguments()
    try:
        before, after, batches = looks(options)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"diagnose.py: {error}")
    told = [diagnosis(version, batches) for version in Change(before, after).versions()]
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
    parser.add_argument("--before", type=Path, metavar="FILE", help="an earlier answer of /metrics")
    parser.add_argument("--after", type=Path, metavar="FILE", help="a later one")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    if not (options.server or options.prometheus or (options.before and options.after)):
        parser.error("name a server, a Prometheus, or two files")
    return options


# What there is to see.


def looks(options):
    """Two looks at the metrics, and the batches that the server remembers, if it tells of them."""
    if options.prometheus:
        now = time.time()
        earlier = asked_of_prometheus(options.prometheus, now - options.seconds)
        before, after = earlier, asked_of_prometheus(options.prometheus, now)
    elif options.before and options.after:
        before, after = parsed(options.before.read_text()), parsed(options.after.read_text())
    else:
        before = parsed(get(f"{options.server}/metrics"))
        time.sleep(options.seconds)
        after = parsed(get(f"{options.server}/metrics"))
    return before, after, remembered(options.server) if options.server else []


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


def remembered(server):
    """The last batches of a server that has a console, oldest first."""
    try:
        told = json.loads(get(f"{server}/console/decisions?last=1000"))["decisions"]
    except (urllib.error.HTTPError, ValueError, KeyError):
        return []
    return sorted(told, key=lambda batch: batch["left_unix_ms"])


class Change:
    """What happened from one look to the next."""

    def __init__(self, before, after):
        self.before, self.after = before, after

    def versions(self):
        """Those that were asked for something meanwhile."""
        keys = [dict(labels) for name, labels in self.after if name == "jitney_latency_objective_seconds"]
        keys.sort(key=lambda key: (key["model"], int(key["version"]), key.get("instance", "")))
        versions = [Version(self, key) for key in keys]
        return [version for version in versions if version.asked > 0]

    def each(self, name, **wanted):
        """Labels, and by how much the value grew; one that is less than it was began anew."""
        for (own, labels), value in self.after.items():
            if own == name and wanted.items() <= dict(labels).items():
                earlier = self.before.get((own, labels), 0)
                yield dict(labels), value - earlier if value >= earlier else value

    def grew(self, name, **wanted):
        return sum(growth for _, growth in self.each(name, **wanted))

    def now(self, name, **wanted):
        """The largest of the values at the second look."""
        values = [value for (own, labels), value in self.after.items()
                  if own == name and wanted.items() <= dict(labels).items()]
        return max(values, default=None)

    def was_zero(self, name, **wanted):
        return not any(value for (own, labels), value in self.before.items()
                       if own == name and wanted.items() <= dict(labels).items())

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
        self.asked = sum(growth for code, growth in codes.items() if code not in CLIENTS_OWN)
        self.refused = sum(codes.get(code, 0) for code in REFUSALS)
        in_time = self.grew("jitney_requests_in_time_total")
        self.not_in_time = max(0.0, 1 - in_time / self.asked) if self.asked else 0.0
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

    def capacity_used(self):
        """What comes over what can be done, of the version and of its fullest device."""
        offered = self.change.now("jitney_offered_rows_per_second", **self.key)
        can = self.change.now("jitney_sustainable_rows_per_second", **self.key)
        own = [offered / can] if offered is not None and can else []
        server = {name: value for name, value in self.key.items() if name in ("instance", "job")}
        devices = [self.change.now("jitney_device_capacity_used_ratio", device=device, **server)
                   for device in self.on_devices()]
        return max([*own, *(used for used in devices if used is not None)], default=None)


# What it means.


def diagnosis(version, batches):
    """The first of the causes whose signs are there, and why it is believed."""
    told = {"model": version.model, "version": version.number, "cause": "healthy",
            "not_in_time": round(version.not_in_time, 4), "evidence": [summary(version)]}
    if version.not_in_time <= BUDGET:
        return told
    told["cause"] = "unknown"
    told["evidence"].append(where(version))
    own = [batch for batch in batches
           if (batch["model"], str(batch["version"])) == (version.model, version.number)]
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
    """Its first batches are among those seen, some of them were slow, and none is expected to be any more."""
    rows, runs = version.mean_rows(), slow_runs(version)
    is_new = version.change.was_zero("jitney_execute_seconds_count", **version.key)
    if not (is_new and runs) or are_large(version, runs):
        return []
    expected = [version.expected(device, rows) for device in version.on_devices()]
    if any(time is None or time > runs["at_least"] / 2 for time in expected):
        return []
    first = [batch for batch in batches if batch["execute_ms"] >= runs["at_least"] * 1000]
    numbers = ", ".join(str(batch["number"]) for batch in first[:8])
    return [f"it was made ready meanwhile: {told(runs)}, and now {shown(max(expected))} is expected of one"] + (
        [f"the slow ones were the version's batches number {numbers}"] if numbers else [])


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
    """More comes than can be done."""
    used = version.capacity_used()
    waits = version.share("queue") > MOST or version.refused > BUDGET * version.asked
    if not waits or used is None or used < FULL:
        return []
    told = [f"{used:.0%} of what can be done in time is asked for: there are too few devices for the load"]
    if version.refused:
        told.append(f"{version.refused:.0f} requests were refused or too late")
    return told


# The more special before the more general: each of them makes queues.
CAUSES = {"slow client": slow_client, "cold version": cold_version, "slow device": slow_device,
          "big batch": big_batch, "queue": queue}


def slow_runs(version):
    """Runs far above the usual ones: how many, from what time on, and their share of all execution."""
    times = version.change.histogram("jitney_execute_seconds", **version.key)
    rows = version.change.histogram("jitney_batch_rows", **version.key)
    typical = median(times)
    if typical is None:
        return None
    slow = [bucket for bucket in times if bucket[0] >= typical * SLOW_RUN and bucket[2]]
    if not slow:
        return None
    usual = sum(middle(bucket) * bucket[2] for bucket in times if bucket[0] < typical * SLOW_RUN)
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
