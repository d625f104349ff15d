"""The cpu and tls overlays, really played: podman makes the pod of the rendered Deployment, and the test runs each of its probes
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

from containers import GUARD_IMAGE, IMAGE, MODEL, ROOT, in_network_of, podman, wait_for
from manifests_test import render, the

sys.path.append(str(ROOT / "tests/integration"))
from certificates import Certificates, token_line


def playable(overlay, folder, flags):
    """The Deployment of the overlay with the images under test, a folder for the claim and these flags of the daemon."""
    deployment = the(render(overlay), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    for volume in pod["volumes"]:
        if volume.pop("persistentVolumeClaim", None):
            volume["hostPath"] = {"path": str(folder), "type": "Directory"}
    daemon, guard = pod["containers"]
    daemon["image"], guard["image"] = IMAGE, GUARD_IMAGE
    daemon["resources"] = {"limits": {"memory": "1Gi"}}
    flags = {"--kv-memory": "64MiB", "--max-context": "512", **flags}
    daemon["args"] = [a for a in daemon["args"] if a.split("=")[0] not in flags] + [f"{k}={v}" for k, v in flags.items()]
    for container in pod["containers"]:
        container["imagePullPolicy"] = "Never"
        container["resources"].pop("requests", None)
        container.pop("ports")  # podman publishes them, and there is no network to publish to
    pod["restartPolicy"] = "Never"  # the test ends it
    return deployment


class Pod:
    """secrets: name -> {file name: bytes}, made before the pod and removed after it."""

    def __init__(self, folder, overlay="cpu", secrets=None, flags=None):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".yaml")
        self.probes = {}
        self.secrets = secrets or {}
        deployment = playable(overlay, folder, flags or {})
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            self.probes[container["name"]] = {k: container[k] for k in container if k.endswith("Probe")}
        yaml.safe_dump(deployment, self.file)
        self.file.flush()

    def __enter__(self):
        for name, files in self.secrets.items():
            # podman 4.3 writes `data` into the volume as it stands, without decoding it.
            data = {key: value.decode() for key, value in files.items()}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
            podman("secret", "create", name, "-", input=yaml.safe_dump(secret))
        podman("kube", "play", "--network", "none", self.file.name)
        return self

    def __exit__(self, *_):
        podman("kube", "down", self.file.name, check=False)
        podman("pod", "rm", "-f", "-t", "0", "acuity-pod-0", check=False)
        for name in self.secrets:
            podman("secret", "rm", name, check=False)
            podman("volume", "rm", name, check=False)
        self.file.close()

    def state(self, name):
        return json.loads(podman("inspect", f"acuity-pod-0-{name}").stdout)[0]["State"]

    def log(self, name):
        run = podman("logs", f"acuity-pod-0-{name}", check=False)
        return run.stdout + run.stderr

    def client(self, *arguments):
        return podman("exec", "acuity-pod-0-acuityd", "acuity", "--server", "127.0.0.1:8700", *arguments, check=False)

    def outside_client(self, folder, *arguments):
        """`acuity` in a container of its own in the pod's network; the folder is at /client."""
        return podman("run", "--rm", "--no-healthcheck", "--pod", "acuity-pod-0", "-v", f"{folder}:/client:ro",
                      "--entrypoint", "acuity", IMAGE, "--server", "127.0.0.1:8700", *arguments, check=False)

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


class WithModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.models = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.models.cleanup)
        pathlib.Path(cls.models.name).chmod(0o755)
        model = pathlib.Path(cls.models.name, "model.gguf")
        subprocess.run(["cp", "--reflink=auto", MODEL, model], check=True)


class PodTest(WithModel):
    def test_the_pod_serves_probes_limits_and_ends(self):
        with Pod(self.models.name) as pod:
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
        pod = Pod(self.models.name, overlay="tls")
        try:
            with self.assertRaisesRegex(AssertionError, "no secret with name or id .acuity-t"):
                with pod:
                    pass
        finally:
            pod.__exit__()

    def test_what_ends_the_daemon_is_said_and_never_ready(self):
        for flag, value, said, code in (
                ("--listen", "127.0.0.1:8701", "--listen: cannot bind 127.0.0.1:8701", 1),  # its own metrics have it
                ("--listen", "unix:/run/acuity.sock", "--listen: cannot bind unix:/run/acuity.sock", 1),  # read-only
                ("--kv-memory", "1MiB", "kv_memory", 1),
                ("--kv-memory", "lots", "--kv-memory", 2)):
            with self.subTest(flag=flag, value=value), Pod(self.models.name, flags={flag: value}) as pod:
                self.assertEqual(podman("wait", "acuity-pod-0-acuityd").stdout.strip(), str(code))
                self.assertIn(said, pod.log("acuityd"))
                for name in pod.probes["acuityd"]:
                    self.assertFalse(pod.probe("acuityd", name))

    def test_a_volume_that_was_full_before_the_model_was_whole(self):
        with tempfile.TemporaryDirectory() as full:
            pathlib.Path(full).chmod(0o755)
            pathlib.Path(full, "model.gguf").write_bytes(pathlib.Path(self.models.name, "model.gguf").read_bytes()[:60 << 20])
            with Pod(full) as pod:
                wait_for("the message", lambda: "model default" in pod.log("acuityd"))
                self.assertRegex(pod.log("acuityd"), "/models/model.gguf.*beyond the data section")
                for name in pod.probes["acuityd"]:
                    self.assertFalse(pod.probe("acuityd", name))
                self.assertEqual(podman("wait", "acuity-pod-0-acuityd").stdout.strip(), "1")


class TlsPodTest(Certificates, WithModel):
    """Everything over TLS through the guard: clients with a certificate and a token, the kubelet's probes with neither."""

    def read(self, name):
        return pathlib.Path(self.path(name)).read_bytes()

    def secrets(self):
        self.authority("ca")
        for name in ("daemon", "guard", "client"):
            self.certificate(name, "ca")
        return {"acuity-tls": {"tls.crt": self.read("daemon.crt"), "tls.key": self.read("daemon.key"),
                               "ca.crt": self.read("ca.crt")},
                "acuity-probe": {"probe.pem": self.read("guard.crt") + self.read("guard.key")},
                "acuity-tokens": {"tokens": token_line("ann", "a-secret").encode()}}

    def test_certificates_tokens_and_probes(self):
        secrets = self.secrets()
        self.authority("strangers")
        self.certificate("stranger", "strangers")
        pathlib.Path(self.path("token")).write_text("a-secret")
        pathlib.Path(self.path("wrong")).write_text("b-secret")
        for file in pathlib.Path(self.folder.name).iterdir():
            file.chmod(0o644)
        pathlib.Path(self.folder.name).chmod(0o755)
        certificate = ("--tls-ca", "/client/ca.crt", "--tls-cert", "/client/client.crt", "--tls-key", "/client/client.key")
        stranger = ("--tls-ca", "/client/ca.crt", "--tls-cert", "/client/stranger.crt", "--tls-key", "/client/stranger.key")
        token = ("--token-file", "/client/token")
        with Pod(self.models.name, overlay="tls", secrets=secrets) as pod:
            wait_for("startup probe", lambda: pod.probe("acuityd", "startupProbe"), 120)
            for container, probes in pod.probes.items():
                for name in probes:
                    self.assertTrue(pod.probe(container, name), f"{container} {name}: {pod.log(container)}")
            ask = lambda *flags: pod.outside_client(self.folder.name, "generate", "--json", "--prompt", "The capital of France is",
                                                    "--max-tokens", "4", "--temperature", "0", *flags)
            answer = ask(*certificate, *token)
            self.assertIn("Paris", json.loads(answer.stdout or '{"text": ""}')["text"], answer.stderr)
            for flags, part in (((*certificate,), "UNAUTHENTICATED"),
                                ((*certificate, "--token-file", "/client/wrong"), "UNAUTHENTICATED"),
                                ((*stranger, *token), "UNAVAILABLE"),
                                (("--tls-ca", "/client/ca.crt", *token), "UNAVAILABLE"),
                                (token, "UNAVAILABLE")):
                refused = ask(*flags)
                self.assertEqual(refused.returncode, 1, flags)
                self.assertIn(part, refused.stderr, flags)
            scraped = pod.inside("curl", "-s", "http://127.0.0.1:8701/metrics").stdout
            self.assertIn('acuity_requests_total{finish_reason="length",model="default"} 1', scraped)
            self.assertIn("acuity_unauthenticated_calls_total 2", scraped)
            self.assertTrue(pod.probe("acuityd", "livenessProbe"))
            podman("kill", "--signal", "TERM", "acuity-pod-0-acuityd")
            self.assertEqual(podman("wait", "acuity-pod-0-acuityd").stdout.strip(), "0")
            self.assertFalse(pod.probe("acuityd", "readinessProbe"))

    def test_a_guard_whose_certificate_the_daemon_does_not_know_keeps_the_pod_out(self):
        secrets = self.secrets()
        self.authority("strangers")
        self.certificate("guard", "strangers")
        secrets["acuity-probe"] = {"probe.pem": self.read("guard.crt") + self.read("guard.key")}
        with Pod(self.models.name, overlay="tls", secrets=secrets) as pod:
            wait_for("serving", lambda: '"serving"' in pod.log("acuityd"))
            for name in pod.probes["acuityd"]:
                self.assertFalse(pod.probe("acuityd", name))
            self.assertTrue(pod.probe("guard", "livenessProbe"))

    def test_a_secret_with_the_wrong_key_is_named(self):
        secrets = self.secrets()
        secrets["acuity-tls"]["tls.key"] = self.read("client.key")
        with Pod(self.models.name, overlay="tls", secrets=secrets) as pod:
            self.assertEqual(podman("wait", "acuity-pod-0-acuityd").stdout.strip(), "1")
            self.assertIn("not the key", pod.log("acuityd"))
            self.assertFalse(pod.probe("acuityd", "readinessProbe"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
