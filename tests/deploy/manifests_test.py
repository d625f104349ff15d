"""deploy/kubernetes and the Dockerfiles, checked without a cluster, an engine or a network.

Environment: ACUITY_TOOLS, the environment that scripts/setup filled from scripts/requirements/deploy.txt.
"""
import copy
import json
import os
import pathlib
import re
import subprocess
import unittest

import jsonschema
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(os.environ["ACUITY_TOOLS"]) / "bin"
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = ("cpu", "tls", "inference-gateway")
VERSION = "1.37"
OWN_SCHEMAS = {kind: json.loads((KUBERNETES / f"schemas/{kind}.json").read_text())
               for kind in ("ServiceMonitor", "InferencePool")}


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
        for path, value in ((("spec", "template", "spec", "contaniers"), []), (("spec", "replicas"), "two"),
                            (("kind",), "Deploymint"), (("apiVersion",), "apps/v7")):
            wrong = copy.deepcopy(deployment)
            at = wrong
            for name in path[:-1]:
                at = at[name]
            at[path[-1]] = value
            with self.subTest(path), self.assertRaises(Exception):
                validate(wrong)
        for kind, overlay in (("ServiceMonitor", "cpu"), ("InferencePool", "inference-gateway")):
            wrong = copy.deepcopy(the(self.rendered[overlay], kind))
            wrong["spec"]["nonsense"] = 1
            with self.assertRaises(jsonschema.ValidationError):
                validate(wrong)

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
            text = yaml.safe_dump_all(r for r in resources if r["kind"] in ("HorizontalPodAutoscaler", "ConfigMap"))
            names = set(re.findall(r"\bacuity_\w+", text))
            self.assertTrue(names)
            self.assertLessEqual(names, documented)

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
