"""deploy/compose.yaml, and what it mounts."""

import os
import re
import shutil
import stat
import subprocess
from ipaddress import ip_address, ip_network

import pytest
import yaml

from fastgate.config.units import duration
from tests.deploy.documents import DEPLOY, compiled, secret_files, variables
from tests.support import programs
from tests.support.process import Process, answers, free_port

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
GATEWAYS = {name: service for name, service in SERVICES.items() if name.startswith("fastgate-")}


def test_the_schema_of_compose_files(part, deploy, tmp_path):
    """dclint holds it against Compose's own schema and knows its traps; matters of taste are left to us."""
    taste = ["no-quotes-in-volumes", "require-quotes-in-ports", "service-keys-order", "services-alphabetical-order",
             "top-level-properties-order", "no-build-and-image"]  # fmt: skip
    settings = tmp_path / ".dclintrc.yaml"
    settings.write_text(yaml.safe_dump({"rules": dict.fromkeys(taste, 0)}))
    command = [*part(programs.dclint), "--config", str(settings), "--max-warnings", "0", str(deploy / "compose.yaml")]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert said.returncode == 0, said.stdout + said.stderr


def test_compose_itself(deploy, tmp_path):
    """Where there is a `docker compose`, or docker-compose in its second generation, it takes the file."""
    docker, alone = shutil.which("docker"), shutil.which("docker-compose")
    forms = [[docker, "compose"]] if docker else []
    forms += [[alone]] if alone else []
    for form in forms:
        version = subprocess.run([*form, "version"], capture_output=True, text=True, check=False, timeout=60)
        if version.returncode == 0 and not re.search(r"\b1\.\d+\.\d+", version.stdout):
            said = subprocess.run(
                [*form, "-f", str(deploy / "compose.yaml"), "config", "-q"],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert (said.returncode, said.stderr) == (0, "")
            return
    pytest.skip("no docker compose here; dclint has checked the schema")


def test_what_runs_is_pinned_and_watched():
    """Every image has a version, every service a health check of its own or the image's, and nothing to gain."""
    for name, service in SERVICES.items():
        tag = service["image"].rpartition(":")[2]
        assert tag not in {"", "latest", service["image"]}, name
        assert "healthcheck" in service or service["build"]["dockerfile"] == "deploy/Containerfile", name
        assert service.get("privileged") is None
        if name != "keycloak":
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
    assert len(GATEWAYS) == 2


def test_who_can_be_reached_from_outside():
    """HAProxy and Keycloak, from this machine alone; Redis and httpbin have no way out either."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"haproxy": ["127.0.0.1:8000:8000"], "keycloak": ["127.0.0.1:8080:8080"]}
    assert COMPOSE["networks"]["back"]["internal"] is True
    assert all(SERVICES[name]["networks"] == ["back"] for name in ("redis", "httpbin"))


def test_secrets_are_invented_once(checked, deploy, tmp_path):
    """The script makes what the file names; none twice, none empty; others see neither the folder nor a value."""
    checked("shellcheck", deploy / "secrets.sh")
    folder = tmp_path / "secrets"
    made = [subprocess.run([deploy / "secrets.sh", folder], capture_output=True, text=True, check=True) for _ in "12"]
    names = {path.name for path in folder.iterdir()}
    assert names == COMPOSE["secrets"].keys()
    assert COMPOSE["secrets"] == {name: {"file": f"./secrets/{name}"} for name in names}
    values = {path.read_text() for path in folder.iterdir()}
    assert len(values) == len(names)
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in values)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert made[1].stdout == ""
    assert not any(value in made[0].stdout for value in values)


def test_the_gateways_get_what_their_configuration_reads(tmp_path):
    """Every secret and variable of cluster.yaml is there; HAProxy is the one that is trusted; it compiles."""
    file = DEPLOY / "cluster.yaml"
    haproxy = SERVICES["haproxy"]["networks"]["front"]["ipv4_address"]
    (subnet,) = [each["subnet"] for each in COMPOSE["networks"]["front"]["ipam"]["config"]]
    assert ip_address(haproxy) in ip_network(subnet)
    for gateway in GATEWAYS.values():
        assert {f"/run/secrets/{name}" for name in gateway["secrets"]} == secret_files(file)
        assert variables(file) <= gateway["environment"].keys()
        assert gateway["environment"]["LOAD_BALANCER"] == haproxy
        assert gateway["volumes"] == ["./cluster.yaml:/etc/fastgate/fastgate.yaml:ro"]
        snapshot = compiled(file, tmp_path, **gateway["environment"])
        assert [str(network) for network in snapshot.settings.forwarding.trusted] == [f"{haproxy}/32"]
        assert snapshot.settings.limits.drain_timeout + 5 <= duration(gateway["stop_grace_period"])
        assert [each.port for each in (*snapshot.settings.listen, snapshot.settings.admin.address)] == [8000, 8001]


def test_the_realm_takes_its_secret_from_the_environment():
    """Keycloak is told the secret that the gateways have; no secret stands in the realm."""
    realm = yaml.safe_load((DEPLOY / "keycloak" / "fastgate-realm.json").read_text())
    clients = {client["clientId"]: client for client in realm["clients"]}
    assert clients["fastgate"]["secret"] == "${CLIENT_SECRET}"
    assert clients["app"]["publicClient"]
    keycloak = SERVICES["keycloak"]
    assert 'CLIENT_SECRET="$$(</run/secrets/client-secret)"' in keycloak["entrypoint"][-1]
    assert "client-secret" in keycloak["secrets"]


def test_redis_starts_with_its_password_and_keeps_the_ledger(part, deploy, tmp_path):
    """The command of the compose file, run: nobody gets in without the password, and no ledger is thrown out."""
    part(lambda: programs.program("redis-server"))
    port = free_port()
    password, data = tmp_path / "redis-password", tmp_path / "data"
    password.write_text("a-password-for-redis")
    data.mkdir()
    conf = tmp_path / "redis.conf"
    conf.write_text(
        (deploy / "redis" / "redis.conf").read_text().replace("dir /data", f"dir {data}") + f"port {port}\n"
    )
    shell, option, script = SERVICES["redis"]["command"]
    script = script.replace("$$", "$").replace("/run/secrets/redis-password", str(password))
    redis = Process("redis", [shell, option, script.replace("/etc/redis.conf", str(conf))])
    try:
        redis.wait_until(lambda: answers(port))

        def call(*words, auth=True):
            said = subprocess.run(
                ["redis-cli", "-p", str(port), *words],
                env={**os.environ, **({"REDISCLI_AUTH": password.read_text()} if auth else {})},
                capture_output=True,
                text=True,
                check=False,
                timeout=30,
            )
            return said.stdout.split()

        assert call("ping", auth=False)[0] == "NOAUTH"
        assert call("ping") == ["PONG"]
        assert call("config", "get", "maxmemory-policy")[1] == "volatile-lru"
        assert call("config", "get", "appendonly")[1] == "yes"
        assert (
            "a-password-for-redis"
            not in subprocess.run(
                ["ps", "-o", "args=", "-p", str(redis.pid)], capture_output=True, text=True, check=False
            ).stdout
        )
    finally:
        redis.stop()
    assert redis.exit_code == 0
    assert list(data.rglob("*.aof"))
