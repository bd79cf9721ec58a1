"""deploy/prometheus: by promtool, and against the metrics that there are."""

import re
import shutil

import pytest
import yaml

from tests.deploy.documents import DEPLOY
from tests.deploy.metrics import announced, families, named, series
from tests.support.gateway import Gateway

FOLDER = DEPLOY / "prometheus"
ALERTS = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
RECORDED = [rule for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"] for rule in group["rules"]]


def test_the_rules(checked):
    """promtool reads them."""
    checked("promtool", "check", "rules", FOLDER / "rules.yaml", FOLDER / "alerts.yaml")


def test_the_configuration(checked):
    """promtool reads it; it loads the rules and shows the admin token."""
    checked("promtool", "check", "config", "--syntax-only", FOLDER / "prometheus.yml")
    settings = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert settings["rule_files"] == ["rules.yaml", "alerts.yaml"]
    jobs = {job["job_name"]: job for job in settings["scrape_configs"]}
    assert jobs["fastgate"]["authorization"]["credentials_file"]
    used = set(re.findall(r'job="([a-z-]+)"', (FOLDER / "alerts.yaml").read_text()))
    assert used <= jobs.keys()


def test_what_fires_and_what_does_not(checked):
    """The unit tests of the rules."""
    assert "SUCCESS" in checked("promtool", "test", "rules", FOLDER / "tests.yaml")


def test_a_changed_threshold_is_noticed(checked, tmp_path):
    """The unit tests of the rules can fail."""
    tests = yaml.safe_load((FOLDER / "tests.yaml").read_text())
    tests["tests"] = [test for test in tests["tests"] if "refuses our credentials" in test["name"]]
    assert tests["tests"]
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    shutil.copy(FOLDER / "rules.yaml", tmp_path)
    (tmp_path / "alerts.yaml").write_text((FOLDER / "alerts.yaml").read_text().replace("> 0.02", "> 0.9"))
    with pytest.raises(AssertionError, match="FastgateServerErrors"):
        checked("promtool", "test", "rules", tmp_path / "tests.yaml")


def test_every_alert_is_tested_and_says_what_it_is():
    """Each fires in some test; each has a severity and a summary."""
    fired = set(re.findall(r'alertname="(\w+)"', (FOLDER / "tests.yaml").read_text()))
    assert fired == {rule["alert"] for rule in ALERTS}
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]


@pytest.mark.parametrize(
    "file", ["prometheus/rules.yaml", "prometheus/alerts.yaml", "prometheus/tests.yaml", "grafana/fastgate.json",
             "kubernetes/prometheus-adapter.yaml", "kubernetes/hpa.yaml"],
)  # fmt: skip
def test_only_metrics_that_exist(file):
    """A name that nobody exposes is a typing mistake."""
    made_here = {"fastgate_requests_per_second"}
    assert named((DEPLOY / file).read_text()) <= series().keys() | made_here


def test_only_labels_that_exist():
    """Selectors and groupings of the rules use the labels that the metrics have."""
    labels = series()
    for rule in (*RECORDED, *ALERTS):
        for name, selector in re.findall(r"(?<![\w:])(fastgate_\w+)\{([^}]*)\}", rule["expr"]):
            used = set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)", selector)) - {"job", "instance"}
            assert used <= set(labels.get(name, used)), rule


async def test_a_running_gateway_exposes_them(upstream):
    """What the tests take for the metrics of a gateway are those of one."""
    service = {"name": "s", "url": upstream.url, "routes": [{"paths": ["/"], "auth": "none"}]}
    async with Gateway({"services": [service]}) as gateway:
        await gateway.get("/")
        text = (await gateway.admin("GET", "/metrics")).body.decode()
    assert families(text) == announced()
    for name in ("process_open_fds", "process_max_fds", "process_cpu_seconds_total", "process_resident_memory_bytes"):
        assert f"\n{name} " in text
