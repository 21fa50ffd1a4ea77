#!/usr/bin/env python3
"""Writes jitney.json, the dashboard: what each panel asks is easier to read and to change here."""

import json
from pathlib import Path

DASHBOARD = Path(__file__).with_name("jitney.json")
WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# What variables choose.
SERVER = 'instance=~"$instance"'
VERSION = SERVER + ',model=~"$model",version=~"$version"'
DEVICE = VERSION + ',device=~"$device"'

GREEN, YELLOW, RED = "green", "yellow", "red"


def rate(metric, labels=VERSION):
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def total(metric, by="", labels=VERSION):
    by = f" by ({by})" if by else ""
    return f"sum{by} ({rate(metric, labels)})"


def mean(histogram, by="", labels=VERSION):
    return f"{total(histogram + '_sum', by, labels)} / {total(histogram + '_count', by, labels)}"


def quantile(share, histogram, by="", labels=VERSION):
    by = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {total(histogram + '_bucket', by, labels)})"


def share(part, whole):
    return f"{part} / {whole}"


def not_in_time(by=""):
    late, well = total("jitney_requests_not_in_time_total", by), total("jitney_requests_in_time_total", by)
    return f"{late} / ({late} + {well})"


def refused(by=""):
    codes = 'code=~"RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED|UNAVAILABLE|INTERNAL"'
    return total("jitney_requests_total", by, f"{VERSION},{codes}")


def steps(*bounds):
    """Green, then each colour from its bound on."""
    return {"mode": "absolute", "steps": [{"color": GREEN, "value": None}] + [
        {"color": color, "value": value} for value, color in bounds]}


def queries(asked, **also):
    return [{"refId": chr(ord("A") + number), "datasource": DATASOURCE, "editorMode": "code",
             "expr": expression, "legendFormat": legend, "range": True, **also}
            for number, (expression, legend) in enumerate(asked)]


def stat(title, unit, description, expression, thresholds=None, decimals=None, none="no data"):
    defaults = {"unit": unit, "thresholds": thresholds or steps(), "noValue": none, "mappings": []}
    if decimals is not None:
        defaults["decimals"] = decimals
    return {
        "type": "stat", "title": title, "description": description, "size": (4, 4),
        "targets": queries([(expression, title)]),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"colorMode": "background" if thresholds else "value", "graphMode": "area",
                    "justifyMode": "auto", "orientation": "auto", "textMode": "value",
                    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}},
    }


def lines(title, unit, description, *asked, stack=False, thresholds=None, top=None, size=(8, 8), **also):
    custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if stack else 5,
              "showPoints": "never", "spanNulls": False,
              "stacking": {"mode": "normal" if stack else "none", "group": "A"},
              "thresholdsStyle": {"mode": "line" if thresholds else "off"}}
    defaults = {"unit": unit, "min": 0, "custom": custom, "color": {"mode": "palette-classic"},
                "thresholds": thresholds or steps(), "mappings": []}
    if top is not None:
        defaults["max"] = top
    return {
        "type": "timeseries", "title": title, "description": description, "size": size,
        "targets": queries(asked, **also),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "calcs": [],
                               "showLegend": True},
                    "tooltip": {"mode": "multi", "sort": "desc"}},
    }


def heatmap(title, unit, description, histogram, labels=VERSION, size=(8, 8)):
    expression = f"sum by (le) (increase({histogram}_bucket{{{labels}}}[$__rate_interval]))"
    return {
        "type": "heatmap", "title": title, "description": description, "size": size,
        "targets": queries([(expression, "{{le}}")], format="heatmap"),
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "options": {"calculate": False, "cellGap": 1, "showValue": "never",
                    "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "reverse": False,
                              "exponent": 0.5, "fill": "dark-orange"},
                    "filterValues": {"le": 1e-9}, "rowsFrame": {"layout": "auto"},
                    "yAxis": {"axisPlacement": "left", "unit": unit, "reverse": False},
                    "cellValues": {"unit": "short"}, "legend": {"show": False},
                    "exemplars": {"color": "rgba(255,0,255,0.7)"},
                    "tooltip": {"show": True, "yHistogram": True}},
    }


ON = "{{model}}:{{version}}"
ON_DEVICE = "{{model}}:{{version}} on {{device}}"
SHARE_LEFT = steps((0.001, YELLOW), (0.01, RED))

ROWS = [
    ("Is it us?", [
        stat("Not in time", "percentunit",
             "Share of requests that were refused, failed, or answered later than the version's latency "
             "objective. What clients did wrong or gave up does not count. Above 1 % users notice.",
             not_in_time(), SHARE_LEFT, 2),
        stat("p99 latency", "s",
             "99 of 100 requests were answered within this time, from a call's headers to its written "
             "answer. What lies before the server is not in it: if users wait and this is low, look there.",
             quantile(0.99, "jitney_request_duration_seconds")),
        stat("Refused or failed", "percentunit",
             "Share of all requests that were refused, too late or failed in the server.",
             share(f"({refused()} or vector(0))", total("jitney_requests_total")), SHARE_LEFT, 2),
        stat("Capacity used", "percentunit",
             "What comes, over what can be answered within the objective, on the fullest device of the "
             "fullest server. Above 85 % add devices, above 100 % requests are late or refused.",
             f"max(jitney_capacity_used_ratio{{{SERVER}}})", steps((0.7, YELLOW), (0.85, RED)), 0),
        stat("Servers", "none", "Servers that are scraped and answer.",
             f"count(jitney_build_info{{{SERVER}}})", steps()),
        stat("Models that failed to load", "none",
             "Versions whose last load failed. If an earlier version serves, it goes on doing so. "
             "ModelRepositoryIndex and the log have the reason.",
             f'sum(jitney_model_load_failed{{{SERVER},model=~"$model"}}) or vector(0)',
             steps((1, RED))),
        lines("Requests by what they were told", "reqps",
              "OK, or the code of an error. RESOURCE_EXHAUSTED: a full queue or a server's bound. "
              "DEADLINE_EXCEEDED: too late, or refused early because it would have been. INVALID_ARGUMENT "
              "and CANCELLED are the clients' own.",
              (f"{total('jitney_requests_total', 'code')} > 0", "{{code}}"), stack=True),
        lines("Latency", "s",
              "Half, and 99 of 100, of all requests were answered within these times; beside them the "
              "shortest latency objective of the chosen models. Points are requests in a trace.",
              (quantile(0.5, "jitney_request_duration_seconds"), "p50"),
              (quantile(0.99, "jitney_request_duration_seconds"), "p99"),
              (f"min(jitney_latency_objective_seconds{{{VERSION}}})", "objective"), exemplar=True),
        heatmap("Requests by latency", "s",
                "How many requests took how long: two bands mean two kinds of requests, or two devices.",
                "jitney_request_duration_seconds"),
    ]),
    ("Which model?", [
        lines("Not in time, by model", "percentunit",
              "Share of each model's requests that were refused, failed or late. The one that rises alone "
              "is to blame; if all do, it is a device or the server.",
              (not_in_time("model"), "{{model}}")),
        lines("p99 latency, by version", "s",
              "99 of 100 requests of each version were answered within this time.",
              (quantile(0.99, "jitney_request_duration_seconds", "model, version"), ON)),
        lines("Requests, by version", "reqps",
              "Requests that each version answered, with success or not.",
              (total("jitney_requests_total", "model, version"), ON), stack=True),
        lines("Device time, by version", "percentunit",
              "Devices that each version keeps busy: 1 is one device all the time. Where batches share a "
              "device, its time is divided among them.",
              (total("jitney_device_seconds_total", "model, version", DEVICE), ON), stack=True),
        lines("Versions by age", "s",
              "How long ago each version was made ready. A version that has just been loaded may run "
              "slower at first.",
              (f"time() - max by (model, version) (jitney_version_loaded_timestamp_seconds{{{VERSION}}})",
               ON)),
        lines("Versions by state", "none",
              "Versions that load, serve, or do not. Those that were replaced or unloaded stay "
              "UNAVAILABLE for as long as the repository has them.",
              (f'sum by (state) (jitney_model_state{{{SERVER},model=~"$model"}})', "{{state}}")),
    ]),
    ("Why?", [
        lines("Where the time of a request goes", "s",
              "Mean time in each stage. Decode grows with slow clients and large bodies, queue with too "
              "much load or others' long batches, execute with large batches or a slow device.",
              *[(f"{total(f'jitney_{stage}_seconds_sum', labels=labels)} / "
                 f"{total(f'jitney_{stage}_seconds_count', labels=labels)}", stage)
                for stage, labels in [("decode", VERSION), ("queue", VERSION), ("stack", DEVICE),
                                      ("execute", DEVICE), ("slice", DEVICE), ("encode", VERSION)]],
              stack=True),
        lines("p99 in the queue, by version", "s",
              "99 of 100 requests that ran waited no longer than this for their batch.",
              (quantile(0.99, "jitney_queue_seconds", "model, version"), ON)),
        lines("Requests waiting", "none",
              "Requests in the queue of each version. A queue that only grows is one that nothing empties: "
              "compare what comes with what can be done, below.",
              (f"sum by (model, version) (jitney_queued_requests{{{VERSION}}})", ON)),
        heatmap("Time in the queue", "s", "How many requests waited how long for their batch.",
                "jitney_queue_seconds"),
        lines("p99 of execution, by device", "s",
              "99 of 100 batches ran no longer than this. One device above the others is slow: throttled, "
              "shared, or failing.",
              (quantile(0.99, "jitney_execute_seconds", "model, version, device", DEVICE), ON_DEVICE)),
        heatmap("Execution", "s",
                "How many batches ran how long. A thin band far above the rest are very large batches, or "
                "the first ones of a new version.",
                "jitney_execute_seconds", DEVICE),
        lines("Learned time of a batch, by device", "s",
              "What the scheduler expects of a batch of mean size: the fixed part and each row's. It should "
              "be the same on all devices of one kind.",
              (f"avg by (model, version, device) (jitney_learned_batch_seconds{{{DEVICE}}}) + "
               f"avg by (model, version, device) (jitney_learned_row_seconds{{{DEVICE}}}) "
               f"* on (model, version) group_left () ({mean('jitney_batch_rows', 'model, version', DEVICE)})",
               ON_DEVICE)),
        lines("p99 of stacking and slicing, by device", "s",
              "99 of 100 batches took no longer to be put together, and to be cut into answers: copies in "
              "the host's memory, so large tensors or a busy processor.",
              (quantile(0.99, "jitney_stack_seconds", "device", DEVICE), "stack for {{device}}"),
              (quantile(0.99, "jitney_slice_seconds", "device", DEVICE), "slice from {{device}}")),
        lines("p99 of decoding and encoding, by model", "s",
              "From a call's headers to a request that is understood, while its body comes: clients that "
              "send slowly show here and nowhere else. Encoding is the server's own work.",
              (quantile(0.99, "jitney_decode_seconds", "model"), "decode {{model}}"),
              (quantile(0.99, "jitney_encode_seconds", "model"), "encode {{model}}")),
    ]),
    ("Are there enough devices?", [
        lines("Capacity used, by device", "percentunit",
              "What comes, over what each device could do within the objectives of its models. Scale so "
              "that it stays under 0.7; above 1 requests are late or refused.",
              (f'max by (instance, device) (jitney_device_capacity_used_ratio{{{SERVER},device=~"$device"}})',
               "{{device}} of {{instance}}"),
              thresholds=steps((0.85, YELLOW), (1, RED))),
        lines("Rows that come, and that could", "cps",
              "Rows a second that came, that each version could answer within its objective with all its "
              "executors, and how many more that are.",
              (f"sum by (model, version) (jitney_offered_rows_per_second{{{VERSION}}})", f"{ON} comes"),
              (f"sum by (model, version) (jitney_sustainable_rows_per_second{{{VERSION}}})", f"{ON} could"),
              (f"sum by (model, version) (jitney_headroom_rows_per_second{{{VERSION}}})", f"{ON} has left")),
        lines("Executors busy", "percentunit",
              "Share of the time in which executors had a batch. Executors that share a device may be busy "
              "while the device waits for the host.",
              (f"{total('jitney_executor_busy_seconds_total', 'model, version', DEVICE)} / "
               f"sum by (model, version) (jitney_executors{{{VERSION}}} > 0)", ON)),
        lines("Executors", "none",
              "Those that can run a batch, and all that there are. The difference is broken: a lost device, "
              "or one that is being restarted.",
              (f"sum by (model, version) (jitney_executors_alive{{{VERSION}}})", f"{ON} alive"),
              (f"sum by (model, version) (jitney_executors{{{VERSION}}})", f"{ON} all"), size=(12, 8)),
        lines("Device memory", "percentunit",
              "Share of each device's memory that is taken, by whomever; cpu is the host.",
              (f'jitney_device_memory_bytes{{{SERVER},device=~"$device",state="used"}} / ignoring (state) '
               f'sum without (state) (jitney_device_memory_bytes{{{SERVER},device=~"$device"}})',
               "{{device}} of {{instance}}"),
              thresholds=steps((0.9, YELLOW), (0.95, RED)), top=1, size=(12, 8)),
    ]),
    ("Batches", [
        heatmap("Rows of a batch", "none",
                "How many batches had how many rows. Larger ones are cheaper a row; a single very large "
                "one delays all behind it.",
                "jitney_batch_rows", DEVICE),
        lines("Mean rows of a batch, by version", "none",
              "Rows of a batch, without those that were added. Near 1 under load: shapes that differ, or "
              "nothing is gained by batching.",
              (mean("jitney_batch_rows", "model, version", DEVICE), ON)),
        lines("Batches", "cps", "Batches that each version ran.",
              (total("jitney_batches_total", "model, version"), ON)),
        heatmap("Padding of a batch", "percentunit",
                "How many batches had which share added to fill them up.",
                "jitney_batch_padding_ratio", DEVICE, size=(12, 8)),
        lines("Mean padding, by version", "percentunit",
              "Share of what ran that was added to fill batches up, over batches. Above a half, narrower "
              "lengths or batch sizes would save device time.",
              (mean("jitney_batch_padding_ratio", "model, version", DEVICE), ON), size=(12, 8)),
    ]),
    ("Refusals, cache, memory, cost", [
        lines("Refusals and errors, by model and code", "reqps",
              "Requests that got no answer, by what they were told. docs/alerts.md says what each is about.",
              (f"{total('jitney_requests_total', 'model, code', VERSION + ',' + 'code!=' + chr(34) + 'OK' + chr(34))} > 0",
               "{{model}} {{code}}"), stack=True),
        lines("Answers from the cache", "percentunit",
              "Share of the questions put to the response cache that it had the answer to.",
              (f"{total('jitney_cache_hits_total', 'model')} / ({total('jitney_cache_hits_total', 'model')} "
               f"+ {total('jitney_cache_misses_total', 'model')})", "{{model}}"), top=1),
        lines("What the cache holds", "bytes",
              "Bytes of the response cache that are taken, and that may be, on each server.",
              (f"jitney_cache_bytes{{{SERVER}}}", "{{instance}}"),
              (f"jitney_cache_limit_bytes{{{SERVER}}}", "limit of {{instance}}")),
        lines("Answers that left the cache", "cps",
              "Answers that had to leave for others, and how many there are. Many, with few hits: the cache "
              "is too small for what is asked.",
              (f"sum ({rate('jitney_cache_evictions_total', SERVER)})", "evicted a second"),
              (f"sum (jitney_cache_entries{{{SERVER}}})", "entries")),
        lines("Memory of versions", "bytes",
              "Memory that each version was found to take on each device. Known where --device-memory-bytes "
              "has it measured.",
              (f"jitney_model_memory_bytes{{{DEVICE}}}", ON_DEVICE), stack=True),
        lines("Cost of a thousand requests", "none",
              "In the currency of --device-price-per-hour: the device time that a version had, over its "
              "requests that succeeded, since it was loaded.",
              (f"max by (model, version) (jitney_cost_per_thousand_requests{{{VERSION}}})", ON)),
    ]),
    ("The process", [
        lines("Processor", "percentunit", "Cores that the server keeps busy: 1 is one core.",
              (f'rate(process_cpu_seconds_total{{{SERVER}}}[$__rate_interval]) '
               f'and on (instance) jitney_build_info{{{SERVER}}}', "{{instance}}"), size=(6, 7)),
        lines("Resident memory", "bytes", "Memory of the host that the server has.",
              (f"process_resident_memory_bytes{{{SERVER}}} and on (instance) jitney_build_info{{{SERVER}}}",
               "{{instance}}"), size=(6, 7)),
        lines("Files and sockets", "percentunit",
              "Share of the files and sockets that may be open that are. At 1 no connection is accepted.",
              (f"process_open_fds{{{SERVER}}} / process_max_fds{{{SERVER}}} "
               f"and on (instance) jitney_build_info{{{SERVER}}}", "{{instance}}"), size=(6, 7)),
        lines("Up since", "s", "Time since the server started: it falls to nothing when it restarts.",
              (f"time() - process_start_time_seconds{{{SERVER}}} "
               f"and on (instance) jitney_build_info{{{SERVER}}}", "{{instance}}"), size=(6, 7)),
        lines("Calls in progress", "none",
              "Calls that the server is busy with; max_requests bounds them.",
              (f"jitney_in_flight_calls{{{SERVER}}}", "{{instance}}"), size=(8, 7)),
        lines("Bytes in progress", "bytes",
              "Bytes of their requests; max_in_flight_bytes bounds them.",
              (f"jitney_in_flight_bytes{{{SERVER}}}", "{{instance}}"), size=(8, 7)),
        lines("Threads", "none", "Threads of the server: I/O, executors, and ONNX Runtime's own.",
              (f"process_threads{{{SERVER}}} and on (instance) jitney_build_info{{{SERVER}}}",
               "{{instance}}"), size=(8, 7)),
    ]),
]


def laid_out():
    """Panels with their numbers and places: from left to right, a new line where one is full."""
    panels, y = [], 0
    for title, members in ROWS:
        row = {"type": "row", "title": title, "collapsed": False, "panels": []}
        panels.append({"id": len(panels) + 1, **row, "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        x, y, line = 0, y + 1, 0
        for member in members:
            panel = dict(member)
            width, height = panel.pop("size")
            if x + width > WIDTH:
                x, y, line = 0, y + line, 0
            panel["gridPos"] = {"x": x, "y": y, "w": width, "h": height}
            panels.append({"id": len(panels) + 1, "datasource": DATASOURCE, **panel})
            x, line = x + width, max(line, height)
        y += line
    return panels


def variable(name, label, query):
    return {"type": "query", "name": name, "label": label, "datasource": DATASOURCE,
            "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1,
            "multi": True, "includeAll": True, "allValue": ".*", "hide": 0, "skipUrlSync": False,
            "current": {"text": ["All"], "value": ["$__all"]}, "options": [], "regex": ""}


def dashboard():
    versions = {
        "name": "Versions made ready", "datasource": DATASOURCE, "enable": True, "hide": False,
        "iconColor": "blue", "titleFormat": "ready", "textFormat": ON,
        "expr": f"max by (model, version) (jitney_version_loaded_timestamp_seconds{{{VERSION}}}) * 1000",
        "useValueForTime": True, "step": "30s",
    }
    return {
        "uid": "jitney", "title": "Jitney", "tags": ["jitney", "inference"],
        "description": "Is it us, which model, why, and are there enough devices?",
        "schemaVersion": 41, "version": 1, "editable": True, "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"}, "timezone": "browser", "refresh": "30s",
        "timepicker": {"refresh_intervals": ["5s", "30s", "1m", "5m"]},
        "fiscalYearStartMonth": 0, "liveNow": False, "weekStart": "", "links": [],
        "annotations": {"list": [versions]},
        "templating": {"list": [
            {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus",
             "current": {}, "hide": 0, "refresh": 1, "regex": "", "multi": False, "includeAll": False,
             "options": [], "skipUrlSync": False},
            variable("instance", "Server", "label_values(jitney_build_info, instance)"),
            variable("model", "Model", f"label_values(jitney_model_state{{{SERVER}}}, model)"),
            variable("version", "Version",
                     f'label_values(jitney_model_state{{{SERVER},model=~"$model"}}, version)'),
            variable("device", "Device", f"label_values(jitney_device_memory_bytes{{{SERVER}}}, device)"),
        ]},
        "panels": laid_out(),
    }


if __name__ == "__main__":
    DASHBOARD.write_text(json.dumps(dashboard(), indent=2) + "\n")
