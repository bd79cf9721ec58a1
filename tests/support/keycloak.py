"""A real Keycloak from Maven Central, with the realm in `keycloak/fastgate-realm.json`.

The distribution is fetched and unpacked once per version into the cache; every run of the tests gets its own copy
with its own database, so that nothing of an earlier run is left. What Keycloak compiles at its first start is kept, so
that a second run starts in half the time.
"""

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support import cache
from tests.support.client import Answer, fetch
from tests.support.process import Process, answers, free_port, scratch

VERSION = os.environ.get("FASTGATE_KEYCLOAK_VERSION", "26.7.3")
REALM = Path(__file__).parent / "keycloak" / "fastgate-realm.json"
SECRET = "gateway-secret-for-tests"
ODD_SECRET = "odd:+ %é&=/secret"
"""Of the client `fastgate-odd`."""
APP = ("app", "app-secret-for-tests")
"""The client that logs alex in, with its secret."""
FORM = ("Content-Type", "application/x-www-form-urlencoded")
ADMIN_PASSWORD = "admin-password-for-tests"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"


def distribution() -> Path:
    """Return the unpacked Keycloak, fetching it once with Maven; raises cache.Missing."""
    java = cache.tool("java", "Keycloak needs Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless)")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < 17:
        raise cache.Missing(f"Keycloak needs Java 17 or newer, `java -version` says: {said.splitlines()[:1]}")

    def fetch_and_unpack(folder: Path) -> None:
        maven = cache.tool("mvn", "Keycloak comes from Maven Central with it (Debian: apt-get install maven)")
        cache.run(
            f"Keycloak {VERSION} cannot be fetched from Maven Central",
            *(maven, "-q", "-B", "-ntp", _COPY),
            f"-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:tar.gz",
            *(f"-DoutputDirectory={folder}", "-Dmdep.useBaseVersion=true"),
        )
        archive = next(folder.glob("*.tar.gz"))
        cache.run("Keycloak cannot be unpacked", "tar", "xzf", str(archive), "--strip-components=1", cwd=folder)
        archive.unlink()

    return cache.once(cache.root() / f"keycloak-{VERSION}", fetch_and_unpack)


class Keycloak:
    """Keycloak in development mode on one loopback port for its whole life; sessions live through a restart."""

    def __init__(self) -> None:
        dist = distribution()
        self.home = scratch("keycloak-home") / "keycloak"
        shutil.copytree(dist, self.home, ignore=shutil.ignore_patterns("compiled*"))
        if (dist / "compiled").is_dir():
            shutil.copytree(dist / "compiled", self._compiled, dirs_exist_ok=True)
        (self.home / "data" / "import").mkdir(parents=True)
        shutil.copy(REALM, self.home / "data" / "import")
        self.port = free_port()
        self.process: Process | None = None
        self._asked_before = 0
        self.start()
        cache.once(dist / "compiled", lambda folder: shutil.copytree(self._compiled, folder, dirs_exist_ok=True))

    @property
    def _compiled(self) -> Path:
        return self.home / "lib" / "quarkus"

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}/realms/fastgate"

    def start(self) -> None:
        """Start, again too; blocks until the realm is served: 40 s, 20 s when compiled before, 10 s again."""
        self.process = Process(
            "keycloak",
            [
                *(str(self.home / "bin" / "kc.sh"), "start-dev", "--import-realm"),
                *("--http-host", "127.0.0.1", "--http-port", str(self.port)),
                *("--http-access-log-enabled", "true"),
            ],
            env={
                "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m",
                "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
                "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
            },
        )
        started = self.process
        started.wait_until(lambda: b"Listening on:" in started.out.read_bytes() and answers(self.port), 600)

    def stop(self) -> None:
        """Stop: connections are refused until `start`."""
        if self.process is not None:
            self.process.stop(60)
            self._asked_before += self._asked()
            self.process = None

    def suspend(self) -> None:
        """Hang: connections are accepted, nothing is answered until `resume`."""
        assert self.process is not None
        self.process.suspend()

    def resume(self) -> None:
        """Go on after `suspend`."""
        assert self.process is not None
        self.process.resume()

    async def token(self, *, scope: str = "invoices:read", client: tuple[str, str] = APP) -> str:
        """Log alex in at a client (password grant) and return the access token."""
        form = {"grant_type": "password", "username": "alex", "password": "doe", "scope": scope}
        token: str = json.loads((await self._post("token", form, *client)).body)["access_token"]
        return token

    async def configure(self, client_id: str, attributes: Mapping[str, str] | None = None, **settings: Any) -> None:
        """Change a client as the admin console does: it reads it, changes fields of the form, and writes it back."""
        [client] = await self.admin("GET", f"/clients?clientId={client_id}")
        client["attributes"] |= attributes or {}
        await self.admin("PUT", f"/clients/{client['id']}", client | settings)

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the admin API of the realm, as the admin console does; returns its JSON, if it says any."""
        form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": ADMIN_PASSWORD}
        got = await self._send("POST", "/realms/master/protocol/openid-connect/token", FORM, body=urlencode(form))
        bearer = ("Authorization", f"Bearer {json.loads(got.body)['access_token']}")
        written = None if body is None else json.dumps(body)
        got = await self._send(
            method, f"/admin/realms/fastgate{path}", bearer, ("Content-Type", "application/json"), body=written
        )
        return json.loads(got.body) if got.body else None

    async def revoke(self, token: str) -> None:
        """Revoke a token (RFC 7009)."""
        await self._post("revoke", {"token": token, "token_type_hint": "access_token"})

    async def introspect(self, token: str, client_id: str, client_secret: str) -> Any:
        """Ask Keycloak about a token, without the gateway; both credentials are form-encoded."""
        return json.loads((await self._post("token/introspect", {"token": token}, client_id, client_secret)).body)

    async def introspections(self) -> int:
        """Count the questions in Keycloak's own access log since the very first start."""
        return self._asked_before + self._asked()

    def _asked(self) -> int:
        if self.process is None:
            return 0
        return self.process.out.read_bytes().count(b"POST /realms/fastgate/protocol/openid-connect/token/introspect ")

    async def _post(self, path: str, form: dict[str, str], client: str = APP[0], secret: str = APP[1]) -> Answer:
        pair = urlencode({client: secret}).replace("=", ":", 1)
        basic = ("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
        where = f"/realms/fastgate/protocol/openid-connect/{path}"
        return await self._send("POST", where, basic, FORM, body=urlencode(form))

    async def _send(self, method: str, path: str, *fields: tuple[str, str], body: str | None = None) -> Answer:
        octets = None if body is None else body.encode()
        answer = await fetch(self.port, method, path, *fields, body=octets, host=f"127.0.0.1:{self.port}")
        assert answer.status in {200, 204}, answer
        return answer
