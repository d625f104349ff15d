"""deploy/kubernetes and the Dockerfiles, checked without a cluster, an engine or a network.

Environment: ACUITY_TOOLS, the environment that scripts/setup filled from scripts/requirements/deploy.txt.
"""
import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

import jsonschema
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(os.environ["ACUITY_TOOLS"]) / "bin"
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = ("cpu", "cuda", "tls", "inference-gateway")
VERSION = "1.37"  # of Kubernetes
VERSION_OF_ACUITY = re.search(r"project\(acuity VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
OWN_SCHEMAS = {kind: json.loads((KUBERNETES / f"schemas/{kind}.json").read_text())
               for kind in ("ServiceMonitor", "PrometheusRule", "InferencePool")}


def tool(name, *arguments):
    return subprocess.run([TOOLS / name, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120)


def render(overlay):
    run = tool("kubectl", "kustomize", KUBERNETES / "overlays" / overlay)
    if run.returncode != 0:
        raise AssertionError(run.stderr)
    return list(yaml.safe_load_all(run.stdout))


def validate(resource):
    """Raises on an unknown field, a wrong type, or a kind that neither Kubernetes nor our schemas know."""
    if resource["kind"] in OWN_SCHEMAS:
        jsonschema.validate(resource, OWN_SCHEMAS[resource["kind"]])
    else:
        kubernetes_validate.validate(resource, VERSION, strict=True)


def the(resources, kind):
    found = [r for r in resources if r["kind"] == kind]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} of kind {kind}")
    return found[0]


def named(resources, kind, name):
    return the([r for r in resources if r["metadata"]["name"] == name], kind)


class ManifestsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.rendered = {overlay: render(overlay) for overlay in OVERLAYS}

    def each(self, kind):
        for overlay, resources in self.rendered.items():
            with self.subTest(overlay):
                yield the(resources, kind)

    def test_every_resource_is_valid(self):
        for overlay, resources in self.rendered.items():
            for resource in resources:
                with self.subTest(f"{overlay} {resource['kind']}"):
                    validate(resource)

    def test_the_check_itself_rejects_what_is_wrong(self):
        deployment = the(self.rendered["cpu"], "Deployment")
        pod = ("spec", "template", "spec")
        for path, value, said in (((*pod, "contaniers"), [], "contaniers"), (("spec", "replicas"), "two", "two"),
                                  ((*pod, "containers", 0, "argz"), ["--device=cpu"], "argz"),
                                  ((*pod, "containers", 0, "livenessProbe", "grcp"), {"port": 8702}, "grcp"),
                                  ((*pod, "volumes", 0, "persistentVolumeClaim", "claim"), "x", "claim"),
                                  (("kind",), "Deploymint", "deploymint"), (("apiVersion",), "apps/v7", "v7")):
            wrong = copy.deepcopy(deployment)
            at = wrong
            for name in path[:-1]:
                at = at[name]
            at[path[-1]] = value
            with self.subTest(path), self.assertRaises(Exception) as caught:
                validate(wrong)
            self.assertIn(said, getattr(caught.exception, "message", "").lower(), path)
        for kind, overlay in (("ServiceMonitor", "cpu"), ("PrometheusRule", "cpu"),
                              ("InferencePool", "inference-gateway")):
            wrong = copy.deepcopy(the(self.rendered[overlay], kind))
            wrong["spec"]["nonsense"] = 1
            with self.assertRaises(jsonschema.ValidationError):
                validate(wrong)

    def test_everything_is_in_the_namespace(self):
        for overlay, resources in self.rendered.items():
            for resource in resources:
                if resource["kind"] != "Namespace":
                    self.assertEqual(resource["metadata"].get("namespace"), "acuity", f"{overlay} {resource['kind']}")

    def test_the_operators_rules_and_dashboards_are_the_files(self):
        subprocess.run([sys.executable, ROOT / "deploy/prometheus/prometheus_rule.py", "--check"], check=True)
        rules = yaml.safe_load((ROOT / "deploy/prometheus/acuity.rules.yml").read_text())
        for rule in self.each("PrometheusRule"):
            self.assertEqual(rule["spec"], rules)
        for resources in self.rendered.values():
            dashboards = named(resources, "ConfigMap", "acuity-dashboards")
            self.assertEqual(dashboards["metadata"]["labels"], {"grafana_dashboard": "1"})
            self.assertEqual(dashboards["data"], {f"{name}.json": (ROOT / f"deploy/grafana/{name}.json").read_text()
                                                  for name in ("service", "attention")})

    def test_the_cuda_overlay_asks_for_a_gpu_and_the_others_do_not(self):
        for overlay, resources in self.rendered.items():
            cuda = overlay == "cuda"
            pod = the(resources, "Deployment")["spec"]["template"]["spec"]
            daemon, guard = pod["containers"]
            self.assertEqual((pod.get("runtimeClassName"), pod.get("nodeSelector")),
                             ("nvidia", {"nvidia.com/gpu.present": "true"}) if cuda else (None, None))
            # Kubernetes wants requests and limits of such a resource equal.
            for bound in ("limits", "requests"):
                self.assertEqual(daemon["resources"][bound].get("nvidia.com/gpu"), 1 if cuda else None)
                self.assertNotIn("nvidia.com/gpu", guard["resources"][bound])
            self.assertIn(f"--device={'cuda' if cuda else 'cpu'}", daemon["args"])
            self.assertEqual(daemon["image"], f"acuity:{VERSION_OF_ACUITY}{'-cuda' if cuda else ''}")
            self.assertEqual(guard["image"], f"acuity-guard:{VERSION_OF_ACUITY}")

    def test_the_restricted_pod_security_standard(self):
        for deployment in self.each("Deployment"):
            pod = deployment["spec"]["template"]["spec"]
            self.assertEqual(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault")
            self.assertIs(pod["automountServiceAccountToken"], False)
            for key in ("hostNetwork", "hostPID", "hostIPC"):
                self.assertNotIn(key, pod)
            for container in pod["containers"]:
                context = container["securityContext"]
                self.assertEqual(context, {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                           "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}})
                self.assertIn("memory", container["resources"]["limits"])
                self.assertTrue(all("hostPort" not in port for port in container["ports"]))
            self.assertTrue(all(set(v) & {"persistentVolumeClaim", "secret"} for v in pod["volumes"]))

    def test_the_grace_period_holds_the_drain(self):
        for deployment in self.each("Deployment"):
            pod = deployment["spec"]["template"]["spec"]
            daemon = pod["containers"][0]
            drain = next(float(a.split("=")[1]) for a in daemon["args"] if a.startswith("--drain-seconds="))
            for container in pod["containers"]:
                command = container["lifecycle"]["preStop"]["exec"]["command"]
                self.assertEqual(command[0], "sleep")
                self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], int(command[1]) + drain + 5)
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                self.assertEqual(daemon[probe]["grpc"], {"port": 8702})

    def test_names_and_ports_meet(self):
        for overlay, resources in self.rendered.items():
            pod = the(resources, "Deployment")["spec"]["template"]
            ports = {p["name"]: p["containerPort"] for c in pod["spec"]["containers"] for p in c["ports"]}
            for port in the(resources, "Service")["spec"]["ports"]:
                self.assertEqual(ports[port["targetPort"]], port["port"])
            services = {p["name"] for p in the(resources, "Service")["spec"]["ports"]}
            for endpoint in the(resources, "ServiceMonitor")["spec"]["endpoints"]:
                self.assertIn(endpoint["port"], services)
            selectors = [the(resources, kind)["spec"]["selector"]["matchLabels"] for kind in
                         ("Deployment", "PodDisruptionBudget", "ServiceMonitor")]
            selectors += [the(resources, "Service")["spec"]["selector"],
                          the(resources, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]]
            for selector in selectors:
                self.assertLessEqual(selector.items(), pod["metadata"]["labels"].items(), overlay)
        pool = the(self.rendered["inference-gateway"], "InferencePool")["spec"]
        self.assertEqual(pool["targetPorts"], [{"number": ports["grpc"]}])
        self.assertLessEqual(pool["selector"]["matchLabels"].items(), pod["metadata"]["labels"].items())

    def test_metrics_that_the_manifests_name_are_documented(self):
        documented = set(re.findall(r"^\| `(acuity_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.M))
        for resources in self.rendered.values():
            text = yaml.safe_dump_all(r for r in resources if r["kind"] in ("HorizontalPodAutoscaler", "ConfigMap") and
                                      r["metadata"]["name"] != "acuity-dashboards")
            names = set(re.findall(r"\bacuity_\w+", text))
            self.assertTrue(names)
            self.assertLessEqual(names, documented)

    def test_the_endpoint_picker_is_told_the_port_of_the_metrics(self):
        resources = self.rendered["inference-gateway"]
        mapping = named(resources, "ConfigMap", "acuity-endpoint-picker-metrics")["data"]
        ports = {p["name"]: p["containerPort"] for c in the(resources, "Deployment")["spec"]["template"]["spec"]["containers"]
                 for p in c["ports"]}
        self.assertEqual(mapping["model-server-metrics-port"], str(ports["metrics"]))
        self.assertEqual({k for k in mapping if k.endswith("-metric")},
                         {"total-queued-requests-metric", "total-running-requests-metric", "kv-cache-usage-percentage-metric"})

    def test_secrets_are_named_and_never_contained(self):
        resources = self.rendered["tls"]
        self.assertFalse([r for r in resources if r["kind"] == "Secret"])
        pod = the(resources, "Deployment")["spec"]["template"]["spec"]
        named = {v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
        self.assertEqual(named, {"acuity-tls", "acuity-tokens", "acuity-probe"})
        # A missing secret keeps the pod from starting; it is never optional.
        self.assertTrue(all(v["secret"]["optional"] is False for v in pod["volumes"] if "secret" in v))
        guide = (ROOT / "docs/deploy.md").read_text()
        for name in named:
            self.assertIn(f"create secret generic {name}", guide)


class LintTest(unittest.TestCase):
    def test_dockerfiles(self):
        # DL3008: Debian's stable release pins the versions. DL3059: the RUN that checks is apart on purpose.
        run = tool("hadolint", "--ignore", "DL3008", "--ignore", "DL3059", "Dockerfile", "deploy/haproxy/Dockerfile")
        self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)

    def test_yaml(self):
        run = tool("yamllint", "--strict", "-c", "deploy/.yamllint", "deploy")
        self.assertEqual(run.returncode, 0, run.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
