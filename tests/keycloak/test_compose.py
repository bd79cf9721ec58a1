"""Keycloak by the entry point and realm of deploy/compose.yaml, and a gateway with deploy/cluster.yaml before it."""

import asyncio
import json
import shutil
from urllib.parse import urlencode

import pytest
import yaml

from tests.support.client import fetch
from tests.support.gateway import ROOT, Gateway
from tests.support.keycloak import distribution
from tests.support.process import Process, answers, free_port, scratch

pytestmark = [pytest.mark.keycloak, pytest.mark.timeout(900)]
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
SERVICE = COMPOSE["services"]["keycloak"]


@pytest.fixture
def secrets():
    """Give a folder of secrets as compose mounts them."""
    folder = scratch("compose-secrets")
    for name in COMPOSE["secrets"]:
        (folder / name).write_text(f"{name}-invented-for-a-test")
    return folder


@pytest.fixture
async def ports(part, secrets):
    """Start Keycloak as compose does; give its port and that of its health check."""
    dist = part(distribution)
    home = scratch("compose-keycloak") / "keycloak"
    shutil.copytree(dist, home, ignore=shutil.ignore_patterns("compiled*"))
    (home / "data" / "import").mkdir(parents=True)
    (volume,) = SERVICE["volumes"]
    source, target, _ = volume.split(":")
    shutil.copy(ROOT / "deploy" / source, home / target.removeprefix("/opt/keycloak/"))
    port, health = free_port(), free_port()
    *shell, script = SERVICE["entrypoint"]
    script = script.replace("$$", "$").replace("/run/secrets", str(secrets)).replace("/opt/keycloak", str(home))
    script = f"{script.strip()} --http-port {port} --http-management-port {health}"
    env = {"JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m", **SERVICE["environment"]}
    env["KC_HOSTNAME"] = env["KC_HOSTNAME"].replace("8080", str(port))
    process = Process("keycloak", [*shell, script], env=env)
    await asyncio.to_thread(process.wait_until, lambda: answers(port) and answers(health), 600)
    yield port, health
    process.kill()


async def healthy(port):
    """Run the health check of the compose file."""
    _, *command = SERVICE["healthcheck"]["test"]
    words = [word.replace("$$", "$").replace("/9000", f"/{port}") for word in command]
    process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.DEVNULL)
    return await asyncio.wait_for(process.wait(), 30) == 0


async def test_the_tokens_of_the_realm(ports, secrets, httpbin):
    """The issuer is the outer name, the server is asked under another; scope and subject are what the file says."""
    port, health = ports
    assert await healthy(health)
    assert not await healthy(free_port())
    document = (ROOT / "deploy" / "cluster.yaml").read_text().replace("/run/secrets", str(secrets))
    config = yaml.safe_load(document)
    config = {name: config[name] for name in ("identity_providers", "services")}
    env = {
        "ISSUER": f"http://localhost:{port}/realms/fastgate",
        "INTROSPECTION_ENDPOINT": f"http://127.0.0.1:{port}/realms/fastgate/protocol/openid-connect/token/introspect",
        "UPSTREAM": httpbin.url,
    }
    form = {"grant_type": "password", "client_id": "app", "username": "alex", "password": "doe"}

    async def token(**more):
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        path = "/realms/fastgate/protocol/openid-connect/token"
        got = await fetch(port, "POST", path, kind, body=urlencode(form | more).encode(), host=f"localhost:{port}")
        assert got.status == 200, got
        return json.loads(got.body)["access_token"]

    async with Gateway(config, env=env) as gateway:
        await gateway.ready()
        assert (await gateway.get("/anything")).status == 401
        assert (await gateway.get("/anything", token=await token())).status == 403
        good = await gateway.get("/anything", token=await token(scope="invoices:read"))
        assert good.status == 200
        assert json.loads(good.body)["headers"]["X-Auth-Subject"]
        assert (await gateway.get("/status/204")).status == 204
        assert await gateway.metric("fastgate_introspections_total", outcome="rejected") == 0
