"""The types of KServe's objects, as its Python package publishes them, to hold documents against.

The package is read and not imported, for it is in an environment of its own.
"""

import ast
import re

from server import ROOT

FOLDERS = sorted((ROOT / ".jitney" / "venv-kserve").glob("lib/python*/site-packages/kserve/models"))
PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
# A version of the API, and a name, that this package wrote: others are Kubernetes' own.
OWN = re.compile(r"V1(alpha|beta)\d\w+")


class Types:
    """Each class of the package: the key of every field, and its type."""

    def __init__(self, folder):
        self.fields = {}
        for file in folder.glob("*.py"):
            self._read(ast.parse(file.read_text()))

    def _read(self, tree):
        for one in tree.body:
            if isinstance(one, ast.ClassDef):
                told = {assigned.targets[0].id: ast.literal_eval(assigned.value)
                        for assigned in one.body if isinstance(assigned, ast.Assign)}
                types, keys = told["openapi_types"], told["attribute_map"]
                self.fields[one.name] = {keys[field]: types[field] for field in types}

    def mistakes(self, value, kind, path=""):
        """Keys that a class does not know, and values that are not of their field's type."""
        if inner := re.fullmatch(r"list\[(.*)\]", kind):
            if not isinstance(value, list):
                return [f"{path} is no list"]
            return [mistake for index, one in enumerate(value)
                    for mistake in self.mistakes(one, inner[1], f"{path}[{index}]")]
        if inner := re.fullmatch(r"dict\(str, (.*)\)", kind):
            return [mistake for key, one in value.items()
                    for mistake in self.mistakes(one, inner[1], f"{path}.{key}")]
        if kind in PLAIN:
            return [] if isinstance(value, PLAIN[kind]) else [f"{path} is no {kind}"]
        if not OWN.fullmatch(kind):
            return []
        fields = self.fields[kind]
        return [mistake for key, one in value.items()
                for mistake in (self.mistakes(one, fields[key], f"{path}.{key}")
                                if key in fields else [f"{path}.{key} is unknown"])]
