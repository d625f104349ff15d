"""Starts real daemons for the integration tests and talks to them as any client would.

Environment (set by ctest): ACUITY_BIN the folder of acuityd and acuity, ACUITY_DEPS what scripts/setup filled,
ACUITY_STUBS where the Python stubs were generated.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

BIN = pathlib.Path(os.environ["ACUITY_BIN"])
DEPS = pathlib.Path(os.environ.get("ACUITY_DEPS", pathlib.Path.home() / ".cache/acuity"))
MODEL = DEPS / "models/smollm2-135m-instruct-q4_1.gguf"
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, os.environ["ACUITY_STUBS"])

import grpc  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402

from acuity.v1 import acuity_pb2 as pb  # noqa: E402
from acuity.v1 import acuity_pb2_grpc  # noqa: E402

START_SECONDS = 120  # sanitised builds on a busy machine; a release build needs about two


class Daemon:
    """A running acuityd on free ports. Use as a context manager."""

    def __init__(self, *flags, model="smol", path=MODEL, listen="127.0.0.1:0", metrics="127.0.0.1:0"):
        self.model = model
        self.arguments = [str(BIN / "acuityd"), "--model", f"{model}={path}", "--listen", listen,
                          "--metrics-listen", metrics, *flags]
        self.log = []

    def __enter__(self):
        self.process = subprocess.Popen(self.arguments, stderr=subprocess.PIPE, text=True)
        ready = threading.Event()
        self.reader = threading.Thread(target=self._read_log, args=(ready,), daemon=True)
        self.reader.start()
        if not ready.wait(START_SECONDS) or self.event("serving") is None:
            self.process.kill()
            raise RuntimeError("acuityd did not serve:\n" + "\n".join(map(str, self.log)))
        serving = self.event("serving")
        self.address, self.metrics_address = serving["listen"], serving["metrics"]
        self.channel = grpc.insecure_channel(
            self.address, options=[("grpc.max_receive_message_length", -1)])
        self.stub = acuity_pb2_grpc.AcuityStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        return self

    def _read_log(self, ready):
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": None, "text": line.rstrip()}
            self.log.append(entry)
            if entry.get("event") == "serving":
                ready.set()
        ready.set()

    def event(self, name):
        return next((e for e in self.log if e.get("event") == name), None)

    def __exit__(self, *_):
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        self.reader.join(10)
        self.process.stderr.close()

    # ---- requests

    def request(self, text=None, *, ids=None, chat=None, attention=pb.ATTENTION_DETAIL_UNSPECIFIED,
                tenant="", **sampling):
        prompt = pb.Prompt()
        if text is not None:
            prompt.text = text.encode() if isinstance(text, str) else text
        if ids is not None:
            prompt.token_ids.ids.extend(ids)
        if chat is not None:
            prompt.chat.messages.add(role="user", content=chat)
        return pb.GenerateRequest(model=self.model, prompt=prompt, attention=attention,
                                  tenant=tenant, sampling=pb.Sampling(**sampling))

    def generate(self, *args, timeout=300, **kwargs):
        return Generation(self.stub.Generate(self.request(*args, **kwargs), timeout=timeout))

    def tokenize(self, text):
        request = pb.TokenizeRequest(model=self.model, prompt=pb.Prompt(text=text.encode()))
        return list(self.stub.Tokenize(request).token_ids)

    def status(self):
        return self.stub.GetModel(pb.GetModelRequest(model=self.model)).status

    def wait_idle(self, seconds=30):
        """Waits until no sequence runs or waits; returns the held blocks then."""
        end = time.time() + seconds
        while time.time() < end:
            status = self.status()
            if status.running == 0 and status.waiting == 0:
                return status.held_blocks
            time.sleep(0.02)
        raise AssertionError(f"still busy: {status}")

    # ---- metrics

    def metrics_text(self):
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=10) as page:
            return page.read().decode()

    def metric(self, name, **labels):
        """The sum of the samples of `name` that have these labels."""
        total = 0.0
        for line in self.metrics_text().splitlines():
            if line.startswith("#") or not line.startswith(name):
                continue
            head, value = line.rsplit(" ", 1)
            if head.split("{")[0] == name and all(f'{k}="{v}"' in head for k, v in labels.items()):
                total += float(value)
        return total

    def rss_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(l for l in status.splitlines() if l.startswith("VmRSS")).split()[1]) * 1024


class Generation:
    """A finished Generate stream, gathered."""

    def __init__(self, stream):
        self.texts, self.ids, self.finish, self.logprobs = {}, {}, {}, {}
        self.messages = 0
        self.result = None
        for message in stream:
            self.messages += 1
            for delta in message.deltas:
                self.texts[delta.sample] = self.texts.get(delta.sample, "") + delta.text
                self.ids.setdefault(delta.sample, []).extend(delta.token_ids)
                self.logprobs.setdefault(delta.sample, []).extend(delta.logprobs)
                if delta.finish_reason:
                    self.finish[delta.sample] = pb.FinishReason.Name(delta.finish_reason)
            if message.HasField("result"):
                self.result = message.result

    text = property(lambda self: self.texts[0])
    token_ids = property(lambda self: self.ids[0])


def acuity(*arguments, server=None, **kwargs):
    """Runs the command-line client."""
    command = [str(BIN / "acuity"), *(["--server", server] if server else []), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **kwargs)


def acuityd(*arguments, timeout=60):
    """Runs a daemon that is expected to end by itself."""
    return subprocess.run([str(BIN / "acuityd"), *arguments], capture_output=True, text=True,
                          timeout=timeout)


def long_text(tokens):
    """Natural text of roughly that many tokens, the same on every machine."""
    paragraph = ("The river had been low all summer, and in the village they spoke of little else. "
                 "Old Marten kept a book in which he wrote the height of the water every morning, "
                 "number {n}, beside the weather and the price of bread. ")
    text = "".join(paragraph.format(n=i) for i in range(tokens // 40 + 1))
    return text[: int(tokens * 4.3)]


def temporary_file(content, suffix=""):
    handle = tempfile.NamedTemporaryFile(delete=False, suffix=suffix)
    handle.write(content if isinstance(content, bytes) else content.encode())
    handle.close()
    return handle.name
