"""constraints.txt -> the published security faults of what it names: `python tools/audit.py`, a part of `make lint`.

Asks osv.dev, through pip-audit. Exit status 1 if there is a fault; where the service cannot be asked it says so and
ends with 0, for a machine without internet must be able to lint, and CI must not fail with somebody else's server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
COMMAND = ["-r", str(CONSTRAINTS), "--no-deps", "--disable-pip", "--vulnerability-service", "osv", "--timeout", "5"]


def main() -> int:
    """The exit status."""
    command = [sys.executable, "-m", "pip_audit", *COMMAND, "--format", "json", "--progress-spinner", "off"]
    asked = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except ValueError:
        reason = asked.stderr.strip().splitlines()[-1:] or ["no answer"]
        print(f"Not audited: the service cannot be asked ({reason[0][:200]}).")
        return 0
    faults = [(package, fault) for package in packages for fault in package.get("vulns", [])]
    for package, fault in faults:
        mended = ", ".join(fault["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {fault['id']}, mended in {mended}")
    print(f"Audited {len(packages)} packages: {len(faults)} published faults.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
