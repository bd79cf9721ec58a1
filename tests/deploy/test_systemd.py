"""deploy/systemd, by systemd's own checks."""

import configparser
import sys
from pathlib import Path

from fastgate.config.schema import Limits
from tests.deploy.documents import DEPLOY

FOLDER = DEPLOY / "systemd"


def settings(name):
    """Return the sections of a unit; keys that come several times are kept as a list."""

    class Several(dict):
        def __setitem__(self, key, value):
            if isinstance(value, list) and key in self:
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    parser = configparser.RawConfigParser(strict=False, dict_type=Several, delimiters=("=",))
    parser.optionxform = str
    parser.read(FOLDER / name)
    return parser


def test_the_units(checked, tmp_path):
    """`systemd-analyze verify` knows every key, and finds both units and the program."""
    for name in ("fastgate.service", "fastgate.socket"):
        text = (FOLDER / name).read_text()
        assert "/opt/fastgate/bin/fastgate" in text or name.endswith("socket")
        installed = str(Path(sys.executable).parent / "fastgate")
        (tmp_path / name).write_text(text.replace("ExecStart=/opt/fastgate/bin/fastgate", f"ExecStart={installed}"))
    said = checked("systemd-analyze", "verify", "--man=no", "./fastgate.service", "./fastgate.socket", cwd=tmp_path)
    assert said == ""


def test_how_exposed_the_service_is(checked):
    """`systemd-analyze security` calls it well protected: at most 2.0 of 10."""
    checked("systemd-analyze", "security", "--offline=true", "--threshold=20", FOLDER / "fastgate.service")


def test_it_is_stopped_only_when_it_has_drained():
    """systemd waits longer than a drain may take, and tells the supervisor alone."""
    service = settings("fastgate.service")["Service"]
    assert int(service["TimeoutStopSec"]) >= Limits().drain_timeout + 5
    assert service["KillMode"] == "mixed"
    assert (service["Type"], service["NotifyAccess"], service["OOMPolicy"]) == ("notify", "main", "continue")
    assert service["ExecReload"].endswith("-HUP $MAINPID")


def test_secrets_are_credentials():
    """Every secret is handed over by systemd, none by the environment."""
    text = (FOLDER / "fastgate.service").read_text()
    lines = [line for line in text.splitlines() if line.startswith("LoadCredential=")]
    names = [line.removeprefix("LoadCredential=").partition(":") for line in lines]
    assert {name for name, _, _ in names} == {"client-secret", "admin-token", "redis-password", "cache-secret"}
    assert all(path == f"/etc/fastgate/credentials/{name}" for name, _, path in names)
    assert "\nEnvironment" not in text


def test_the_socket_belongs_to_the_service():
    """Both name each other, so that neither is started without the other."""
    assert settings("fastgate.socket")["Socket"]["Service"] == "fastgate.service"
    assert settings("fastgate.service")["Unit"]["Requires"] == "fastgate.socket"
