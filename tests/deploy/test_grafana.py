"""deploy/grafana/fastgate.json: what Grafana 10 expects of a dashboard, and whether its queries find anything."""

import json
import re

import yaml

from fastgate.stats import SECONDS
from tests.deploy.documents import DEPLOY
from tests.deploy.metrics import series

BOARD = json.loads((DEPLOY / "grafana" / "fastgate.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
VALUES = {"status": "503", "tier": "memory", "state": "serving", "backend": "redis", "side": "upstream"}
"""Label values that queries ask for."""
PROCESS = ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds")


def asked(query):
    """Return a query as Grafana sends it."""
    variables = {"$__rate_interval": "1m", "$job": "fastgate", "$instance": ".*"}
    for name, value in variables.items():
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


def test_the_board():
    """It can be imported: a uid and no id, a schema of Grafana 10, and the three variables."""
    assert (BOARD["uid"], BOARD["title"]) == ("fastgate", "fastgate")
    assert "id" not in BOARD
    assert BOARD["schemaVersion"] >= 38
    variables = {each["name"]: each for each in BOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    assert all(variables[name]["datasource"] == SOURCE for name in ("job", "instance"))


def test_panels_have_their_places():
    """Numbers are given once; panels lie within 24 columns, over one another nowhere."""
    numbers = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_ask_the_chosen_source_about_the_chosen_job():
    """No panel has a source or a job of its own; every one has a title, a unit and a query with a letter."""
    for panel in PANELS:
        assert panel["datasource"] == SOURCE, panel["title"]
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            assert target["datasource"] == SOURCE
            selectors = re.findall(r"\{([^{}]*)\}", target["expr"])
            assert selectors
            assert all('job="$job", instance=~"$instance"' in selector for selector in selectors)


def test_legends_name_labels_that_are_left():
    """What a legend names is what the query groups by."""
    for panel in PANELS:
        for target in panel["targets"]:
            groups = re.search(r"by \(([^)]*)\)", target["expr"])
            left = set(re.split(r",\s*", groups[1])) if groups else {"instance"}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left, target


def test_every_query_finds_something(checked, tmp_path):
    """Prometheus evaluates every query over what a gateway exposes, and no panel stays empty."""
    labels = {"job": "fastgate", "instance": "a"}
    samples = []
    for name, names in (*series().items(), *((name, ()) for name in PROCESS)):
        own = labels | {label: VALUES.get(label, "x") for label in names}
        for le in [{"le": str(bound)} for bound in (*SECONDS, "+Inf")] if name.endswith("_bucket") else [{}]:
            text = ", ".join(f'{key}="{value}"' for key, value in (own | le).items())
            samples.append({"series": f"{name}{{{text}}}", "values": "0+10x40"})
    queries = [asked(query) for _, query in QUERIES]
    assert len(queries) > 30
    tests = [
        {"expr": f"clamp_max(count({query}), 1)", "eval_time": "9m", "exp_samples": [{"labels": "{}", "value": 1}]}
        for query in queries
    ]
    file = tmp_path / "tests.yaml"
    file.write_text(
        yaml.safe_dump({"tests": [{"interval": "15s", "input_series": samples, "promql_expr_test": tests}]})
    )
    checked("promtool", "test", "rules", file)
