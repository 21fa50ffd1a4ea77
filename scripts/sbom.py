"""What an image is made of, as a CycloneDX 1.6 document: crates, ONNX Runtime, NVIDIA's wheels and
Debian's packages."""

import json
import uuid
from urllib.parse import quote


def document(version, crates, others):
    """The document of one image: `crates` as `cargo metadata` tells them, `others` as components."""
    components = [crate(package) for package in linked(crates)] + others
    components.sort(key=lambda one: one["purl"])
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # The same parts give the same number.
        "serialNumber": uuid.uuid5(
            uuid.NAMESPACE_URL, json.dumps(components, sort_keys=True)).urn,
        "version": 1,
        "metadata": {"component": {
            "type": "application", "name": "jitney", "version": version,
            "bom-ref": "jitney", "licenses": [{"license": {"id": "Apache-2.0"}}]}},
        "components": components,
    }


def component(kind, name, version, licence=None, namespace="", qualifiers=""):
    """One part; `kind` is the type of its package URL, `licence` its expression or text."""
    # A colon stands for itself in a package URL.
    path = "/".join(quote(one, safe=":") for one in [namespace, name] if one)
    purl = f"pkg:{kind}/{path}@{quote(version, safe=':')}{qualifiers}"
    part = {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}
    if licence:
        part["licenses"] = [{"license": {"name": licence}}]
    return part


def crate(package):
    part = component("cargo", package["name"], package["version"])
    if package["license"]:
        # Crates once wrote a slash where SPDX has OR.
        part["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return part


def linked(metadata):
    """The packages of other people that the server is linked from: not those of builds and tests."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    [root] = [one for one in packages.values() if one["name"] == "jitney"]
    seen, waiting = set(), [root["id"]]
    while waiting:
        package = waiting.pop()
        if package in seen or procedural(packages[package]):
            continue
        seen.add(package)
        waiting += [
            dependency["pkg"] for dependency in nodes[package]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])]
    return [packages[one] for one in sorted(seen) if packages[one]["source"]]


def procedural(package):
    """Macros run in the compiler alone."""
    return any("proc-macro" in target["kind"] for target in package["targets"])
