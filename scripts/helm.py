#!/usr/bin/env python3
"""Makes sure that Helm is there, for the tests of the chart and to render it.

The machine's own is used if there is one. Otherwise Go builds it from its module, once, which takes
a few minutes of a core. Where there is no Go either it says so, and the tests of the chart are skipped.
"""

import argparse
import os
import shutil
import subprocess
from pathlib import Path

MODULE = "helm.sh/helm/v3/cmd/helm@v3.22.0"
# A newer Go is not to be downloaded for it.
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath -ldflags=-s", "GOTOOLCHAIN": "local"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="where it goes")
    folder = parser.parse_args().folder.resolve()
    if shutil.which("helm") or (folder / "helm").exists():
        return
    if shutil.which("go") is None:
        print("helm.py: neither Helm nor Go is on PATH: the chart's tests are skipped")
        return
    print(f"building {MODULE}", flush=True)
    go = subprocess.run(["go", "install", MODULE], capture_output=True, text=True,
                        env={**os.environ, **ENVIRONMENT, "GOBIN": str(folder)})
    if go.returncode != 0:
        print(f"helm.py: {MODULE} could not be built, and the chart's tests are skipped: "
              f"{go.stderr.strip()[-200:]}")


if __name__ == "__main__":
    main()
