"""The cpu overlay, really played: podman makes the pod of the rendered Deployment, and the test runs each of its probes
inside the pod's network, as a kubelet would. Then the guard's limits, and the end of the pod.

podman kube play knows one replica, runs no probes of its own and no claims: the claim becomes a folder.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import yaml

from containers import GUARD_IMAGE, IMAGE, MODEL, in_network_of, podman, wait_for
from manifests_test import render, the


def playable(overlay, folder):
    """The Deployment of the overlay with the images under test and a folder for the claim."""
    deployment = the(render(overlay), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    for volume in pod["volumes"]:
        if volume.pop("persistentVolumeClaim", None):
            volume["hostPath"] = {"path": str(folder), "type": "Directory"}
    daemon, guard = pod["containers"]
    daemon["image"], guard["image"] = IMAGE, GUARD_IMAGE
    daemon["resources"] = {"limits": {"memory": "1Gi"}}
    daemon["args"] = [a for a in daemon["args"] if not a.startswith("--kv-memory")]
    daemon["args"] += ["--kv-memory=64MiB", "--max-context=512"]
    for container in pod["containers"]:
        container["imagePullPolicy"] = "Never"
        container["resources"].pop("requests", None)
        container.pop("ports")  # podman publishes them, and there is no network to publish to
    pod["restartPolicy"] = "Never"  # the test ends it
    return deployment


class Pod:
    def __init__(self, folder, overlay="cpu"):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".yaml")
        self.probes = {}
        deployment = playable(overlay, folder)
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            self.probes[container["name"]] = {k: container[k] for k in container if k.endswith("Probe")}
        yaml.safe_dump(deployment, self.file)
        self.file.flush()

    def __enter__(self):
        podman("kube", "play", "--network", "none", self.file.name)
        return self

    def __exit__(self, *_):
        podman("kube", "down", self.file.name, check=False)
        podman("pod", "rm", "-f", "-t", "0", "acuity-pod-0", check=False)
        self.file.close()

    def state(self, name):
        return json.loads(podman("inspect", f"acuity-pod-0-{name}").stdout)[0]["State"]

    def log(self, name):
        run = podman("logs", f"acuity-pod-0-{name}", check=False)
        return run.stdout + run.stderr

    def client(self, *arguments):
        return podman("exec", "acuity-pod-0-acuityd", "acuity", "--server", "127.0.0.1:8700", *arguments, check=False)

    def inside(self, *command):
        return in_network_of(self.state("guard")["Pid"], *command)

    def probe(self, container, name):
        """Runs a probe as the manifest has it; True if it passes."""
        probe = self.probes[container][name]
        if "grpc" in probe:
            run = podman("exec", "acuity-pod-0-acuityd", "acuity", "--server", f"127.0.0.1:{probe['grpc']['port']}",
                         "health", "--timeout", "2", check=False)
        else:
            port = {"guard": 8703}[probe["httpGet"]["port"]]
            run = self.inside("curl", "-sf", "--max-time", "2", f"http://127.0.0.1:{port}{probe['httpGet']['path']}")
        return run.returncode == 0


class PodTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        pathlib.Path(cls.folder.name).chmod(0o755)
        model = pathlib.Path(cls.folder.name, "model.gguf")
        subprocess.run(["cp", "--reflink=auto", MODEL, model], check=True)

    def test_the_pod_serves_probes_limits_and_ends(self):
        with Pod(self.folder.name) as pod:
            wait_for("startup probe", lambda: pod.probe("acuityd", "startupProbe"), 120)
            for container, probes in pod.probes.items():
                for name in probes:
                    self.assertTrue(pod.probe(container, name), f"{container} {name}: {pod.log(container)}")
            answer = pod.client("generate", "--json", "--prompt", "The capital of France is", "--max-tokens", "4",
                                "--temperature", "0")
            self.assertIn("Paris", json.loads(answer.stdout)["text"], answer.stderr)
            scraped = pod.inside("curl", "-s", "http://127.0.0.1:8701/metrics").stdout
            self.assertIn('acuity_requests_total{finish_reason="length",model="default"} 1', scraped)
            self.assertIn("haproxy_frontend_connections_total", pod.inside(
                "curl", "-s", "http://127.0.0.1:8703/metrics").stdout)
            self.only_health_passes_the_probe_port(pod)
            self.one_address_cannot_take_all_connections(pod)
            self.the_end_loses_nothing(pod)

    def only_health_passes_the_probe_port(self, pod):
        run = podman("exec", "acuity-pod-0-acuityd", "acuity", "--server", "127.0.0.1:8702", "models", check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("PERMISSION_DENIED", run.stderr)

    def one_address_cannot_take_all_connections(self, pod):
        """100 idle connections from one address: 64 stay; the probes, on their own port, do not notice."""
        script = ("import socket,time\nkept=[socket.create_connection(('127.0.0.1',8700)) for _ in range(100)]\n"
                  "time.sleep(1)\nopen_=0\nfor s in kept:\n  s.setblocking(False)\n"
                  "  try: open_ += s.recv(1) != b''\n  except BlockingIOError: open_ += 1\n  except OSError: pass\n"
                  "print(open_, flush=True)\ntime.sleep(4)\n")
        flood = subprocess.Popen(["nsenter", f"--net=/proc/{pod.state('guard')['Pid']}/ns/net", sys.executable, "-c",
                                  script], stdout=subprocess.PIPE, text=True)
        kept = int(flood.stdout.readline())
        self.assertTrue(pod.probe("acuityd", "livenessProbe"))
        flood.communicate()
        self.assertLessEqual(kept, 64)
        self.assertGreater(kept, 0)
        print(f"100 connections from one address: the guard keeps {kept}")

    def the_end_loses_nothing(self, pod):
        client = subprocess.Popen(
            ["podman", "run", "--rm", "--no-healthcheck", "--pod", "acuity-pod-0", "--entrypoint",
             "acuity", IMAGE, "--server", "127.0.0.1:8700", "generate", "--json", "--prompt", "A story:",
             "--max-tokens", "120", "--ignore-eos"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running = 'acuity_requests_running{model="default"} 1'
        wait_for("a stream", lambda: running in pod.inside("curl", "-s", "http://127.0.0.1:8701/metrics").stdout)
        podman("kill", "--signal", "USR1", "acuity-pod-0-guard")  # its image's stop signal
        podman("kill", "--signal", "TERM", "acuity-pod-0-acuityd")
        output, errors = client.communicate(timeout=120)
        self.assertEqual(json.loads(output or "{}").get("usage", {}).get("completion_tokens"), 120, errors)
        self.assertEqual(podman("wait", "acuity-pod-0-acuityd").stdout.strip(), "0")

    def test_an_empty_model_volume_never_gets_ready(self):
        with tempfile.TemporaryDirectory() as empty:
            pathlib.Path(empty).chmod(0o755)
            with Pod(empty) as pod:
                wait_for("the message", lambda: "model default" in pod.log("acuityd"))
                self.assertIn("/models/model.gguf", pod.log("acuityd"))
                for name in pod.probes["acuityd"]:
                    self.assertFalse(pod.probe("acuityd", name))
                self.assertTrue(pod.probe("guard", "livenessProbe"), "the guard is not to be blamed")

    def test_a_missing_secret_is_named(self):
        pod = Pod(self.folder.name, overlay="tls")
        try:
            with self.assertRaisesRegex(AssertionError, "no secret with name or id .acuity-t"):
                with pod:
                    pass
        finally:
            pod.__exit__()


if __name__ == "__main__":
    unittest.main(verbosity=2)
