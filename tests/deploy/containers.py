"""Podman, as the deploy tests use it. scripts/test-deploy sets the environment:

ACUITY_IMAGE, ACUITY_GUARD_IMAGE the images under test; ACUITY_MODEL a GGUF file; CONTAINERS_CONF beside this file.
"""
import json
import os
import pathlib
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("ACUITY_IMAGE", "localhost/acuity:test")
GUARD_IMAGE = os.environ.get("ACUITY_GUARD_IMAGE", "localhost/acuity-guard:test")
os.environ.setdefault("CONTAINERS_CONF", str(pathlib.Path(__file__).with_name("containers.conf")))
MODEL = pathlib.Path(os.environ.get("ACUITY_MODEL", "~/.cache/acuity/models/smollm2-135m-instruct-q4_1.gguf")).expanduser()
# What docs/deploy.md tells an operator to run with.
HARDENED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--memory", "1g",
            "--pids-limit", "256")


def podman(*arguments, check=True, **kwargs):
    run = subprocess.run(["podman", *map(str, arguments)], capture_output=True, text=True, timeout=300, **kwargs)
    if check and run.returncode != 0:
        raise AssertionError(f"podman {' '.join(map(str, arguments))}: {run.returncode}\n{run.stdout}{run.stderr}")
    return run


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def in_network_of(pid, *command):
    """Runs a command of this machine in the network namespace of a container's process."""
    return subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", *command], capture_output=True, text=True, timeout=60)


class Container:
    """`podman run -d` of the image with the model folder at /models; removed at the end."""

    def __init__(self, *flags, options=(), model=MODEL, network="none", image=IMAGE):
        self.folder = None
        volumes = self._volumes(model)
        self.id = podman("run", "-d", *HARDENED, "--network", network, *volumes, *options, image,
                         *flags).stdout.strip()

    def _volumes(self, model):
        if model is None:  # an empty volume
            self.folder = tempfile.TemporaryDirectory()
            os.chmod(self.folder.name, 0o755)
            return ("-v", f"{self.folder.name}:/models:ro")
        return ("-v", f"{model}:/models/model.gguf:ro")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        podman("rm", "-f", "-t", "0", self.id, check=False)
        if self.folder is not None:
            self.folder.cleanup()

    def state(self):
        return json.loads(podman("inspect", self.id).stdout)[0]["State"]

    def events(self):
        """The daemon's log: one JSON object a line; other lines under "text"."""
        run = podman("logs", self.id)
        return [json.loads(line) if line.startswith("{") else {"event": None, "text": line}
                for line in (run.stdout + run.stderr).splitlines()]

    def event(self, name):
        return next((e for e in self.events() if e.get("event") == name), None)

    def wait_serving(self):
        def serving():
            if not self.state()["Running"]:
                raise AssertionError(f"ended: {self.events()}")
            return self.event("serving")
        return wait_for("serving", serving)

    def wait_end(self):
        """The exit code."""
        return int(podman("wait", self.id).stdout)

    def metrics(self, port=8701):
        run = in_network_of(self.state()["Pid"], "curl", "-sS", "--max-time", "10", f"http://127.0.0.1:{port}/metrics")
        if run.returncode != 0:
            raise AssertionError(run.stderr)
        return run.stdout

    def client(self, script):
        """Starts a shell with the `acuity` client in a container of its own that shares this one's network."""
        return subprocess.Popen(["podman", "run", "--rm", *HARDENED, "--network", f"container:{self.id}",
                                 "--no-healthcheck", "--entrypoint", "sh", IMAGE, "-c", script],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def acuity(self, *arguments):
        return podman("exec", self.id, "acuity", *arguments, check=False)
