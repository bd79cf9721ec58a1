"""deploy/kubernetes: against Kubernetes' own schemas, against itself and against what fastgate really does."""

import re
from itertools import chain

import kubernetes_validate
import pytest
import yaml

from tests.deploy.documents import DEPLOY, compiled, secret_files, several

FOLDER = DEPLOY / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
RESOURCES = list(chain.from_iterable(several(FOLDER / name) for name in KUSTOMIZATION["resources"]))
EXAMPLE = yaml.safe_load((FOLDER / "secret.example.yaml").read_text())
BY_ITSELF = {"kustomization.yaml", "fastgate.yaml", "secret.example.yaml", "prometheus-adapter.yaml"}
NAME = {"app.kubernetes.io/name": "fastgate"}


def resource(kind, name="fastgate"):
    (found,) = [each for each in RESOURCES if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


POD = resource("Deployment")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize(
    "document", [*RESOURCES, EXAMPLE], ids=lambda each: f"{each['kind']}-{each['metadata']['name']}"
)
def test_the_schema(document, version):
    """Strictly: no unknown key, in the oldest version that is promised and in the newest there is."""
    kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_finds_mistakes():
    """What the tests above rely on."""
    wrong = yaml.safe_load(yaml.safe_dump(resource("Deployment")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.30", strict=True)


def test_every_file_has_its_place():
    """What lies in the folder is a resource of the kustomization, or says in its first lines that it is none."""
    files = {path.name for path in FOLDER.glob("*.yaml")}
    assert files == {*KUSTOMIZATION["resources"]} | BY_ITSELF
    assert KUSTOMIZATION["configMapGenerator"] == [{"name": "fastgate", "files": ["fastgate.yaml"]}]
    assert {each["metadata"].get("namespace", "fastgate") for each in RESOURCES} == {"fastgate"}


def test_what_the_pod_may():
    """The restricted pod security standard, whose profile the namespace enforces; nothing can be written."""
    assert resource("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] == 10001
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    assert all(mount["readOnly"] for mount in CONTAINER["volumeMounts"])
    assert CONTAINER["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "cpu" not in CONTAINER["resources"]["limits"]


def test_probes_ask_what_the_admin_listener_answers():
    """Liveness never depends on others; readiness does. Both without a token, on the admin port."""
    asked = {name: CONTAINER[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: where["path"] for name, where in asked.items()} == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    assert {where["port"] for where in asked.values()} == {"admin"}


def test_the_configuration(tmp_path):
    """It compiles; its secrets are those of the Secret; ports, drain and grace fit each other."""
    file = FOLDER / "fastgate.yaml"
    assert {f"/run/secrets/fastgate/{key}" for key in EXAMPLE["stringData"]} >= secret_files(file)
    settings = compiled(file, tmp_path).settings
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"http": settings.listen[0].port, "admin": settings.admin.address.port}
    wait = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] >= wait + settings.limits.drain_timeout + 5
    probe = CONTAINER["readinessProbe"]
    assert wait >= probe["periodSeconds"]


def test_selectors_meet():
    """Services, budget, spread and policy all select the pods of the Deployment."""
    spec = resource("Deployment")["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"] == NAME
    for name, port in (("fastgate", "http"), ("fastgate-admin", "admin")):
        service = resource("Service", name)["spec"]
        assert service["selector"] == NAME
        assert [each["targetPort"] for each in service["ports"]] == [port]
    assert resource("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == NAME
    assert resource("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == NAME
    assert {each["topologyKey"] for each in POD["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    assert all(each["labelSelector"]["matchLabels"] == NAME for each in POD["topologySpreadConstraints"])


def test_it_scales_by_a_metric_that_exists():
    """The autoscaler's metric is the one that the Prometheus adapter makes of a counter of ours."""
    spec = resource("HorizontalPodAutoscaler")["spec"]
    assert spec["scaleTargetRef"]["name"] == resource("Deployment")["metadata"]["name"]
    assert "replicas" not in resource("Deployment")["spec"]
    assert spec["minReplicas"] > 1
    metrics = {each["type"]: each for each in spec["metrics"]}
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert metrics["Pods"]["pods"]["metric"]["name"] == rule["name"]["as"]
    assert rule["seriesQuery"].startswith("fastgate_requests_total{")
    assert "cpu" in CONTAINER["resources"]["requests"], "utilization is a share of the request"


def test_what_may_come_in_and_go_out():
    """Everything is denied first; then clients to 8000, monitoring to 8001, out to DNS, IdP, Redis and upstreams."""
    nothing = resource("NetworkPolicy", "nothing")["spec"]
    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    spec = resource("NetworkPolicy")["spec"]
    assert [[port["port"] for port in rule["ports"]] for rule in spec["ingress"]] == [[8000], [8001]]
    assert all(rule["from"] for rule in spec["ingress"])
    out = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    text = (FOLDER / "fastgate.yaml").read_text()
    needed = {int(port) for port in re.findall(r"\.svc:([0-9]+)", text)} | {443, 53}
    assert needed <= out
    assert all(rule["to"] for rule in spec["egress"])
    (outside,) = [rule["to"][0]["ipBlock"] for rule in spec["egress"] if "ipBlock" in rule["to"][0]]
    assert "169.254.0.0/16" in outside["except"], "the cloud's metadata are not for gateways"


def test_what_prometheus_reads():
    """The monitor finds the admin Service and shows the admin token."""
    (monitor,) = several(FOLDER / "monitoring" / "servicemonitor.yaml")
    service = resource("Service", "fastgate-admin")
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["authorization"]["credentials"]["key"] in EXAMPLE["stringData"]
