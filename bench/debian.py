"""What the bench needs from Debian, installed when it is missing; the services Debian would start stay off."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from bench.machine import NotPossibleError, progress

PACKAGES = {
    "nginx": "nginx",
    "wrk": "wrk",
    "haproxy": "haproxy",
    "openssl": "openssl",
    "apache2-bin": "apache2",
    "libapache2-mod-auth-openidc": "/usr/lib/apache2/modules/mod_auth_openidc.so",
    "libapache2-mod-oauth2": "/usr/lib/apache2/modules/mod_oauth2.so",
    "libnginx-mod-http-lua": "/usr/lib/nginx/modules/ngx_http_lua_module.so",
    "lua-resty-core": "/usr/share/lua/5.1/resty/core.lua",
    "lua-cjson": "/usr/lib/x86_64-linux-gnu/lua/5.1/cjson.so",
}
"""By package: a program or a file that is there when it is installed."""
_POLICY = Path("/usr/sbin/policy-rc.d")


def need(*packages: str) -> None:
    """Make sure that they are installed. Raises NotPossibleError."""
    if missing := lacking(packages):
        names = " ".join(missing)
        raise NotPossibleError(f"{names} cannot be installed: as root, run `apt-get install {names}`")


def lacking(packages: Iterable[str]) -> list[str]:
    """Install what is missing, and say what is missing nevertheless."""
    wanted = [package for package in packages if not _here(package)]
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        _update()
        for package in wanted:
            progress(f"installing {package} with apt-get")
            _install(package)
    return [package for package in wanted if not _here(package)]


def _here(package: str) -> bool:
    proof = PACKAGES[package]
    if proof.startswith("/"):
        return Path(proof).exists()
    return shutil.which(proof) is not None


@cache
def _update() -> None:
    progress("apt-get update")
    _apt("update", "-q")


@cache
def _install(package: str) -> None:
    with _services_off():
        _apt("install", "-y", "-q", "--no-install-recommends", package)


def _apt(*arguments: str) -> None:
    """Run apt-get; what it could not do is said, and shows in what is missing afterwards."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        progress((done.stderr.strip().splitlines() or ["apt-get gave no reason"])[-1])


@contextmanager
def _services_off() -> Iterator[None]:
    """Tell Debian to start nothing, as its containers do: nginx, HAProxy and Apache would take port 80 or fail to."""
    if _POLICY.exists():
        yield  # whoever wrote it decides
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
