"""The image, run as docs/deploy.md says: what is in it, that it serves without a network, that SIGTERM loses nothing,
what the browser shows of it, and what it says when its surroundings are wrong.

ACUITY_SCREENSHOTS: where the pictures of the attention page go; build/deploy by default.
"""
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from containers import Container, IMAGE, ROOT, podman, wait_for

sys.path.append(str(ROOT / "tests/integration"))
from browser import Browser

SMALL = ("--model", "smol=/models/model.gguf", "--max-context", "512", "--kv-memory", "64MiB")


def seconds(text):
    """A time stamp of podman or of the log, as seconds."""
    text = re.sub(r"\.(\d{1,6})\d*", lambda m: "." + m[1].ljust(6, "0"), text.replace("Z", "+00:00"))
    text = re.sub(r" ([+-]\d{2})(\d{2}) \w+$", r"\1:\2", text)
    return datetime.datetime.fromisoformat(text).timestamp()


class ContentsTest(unittest.TestCase):
    def test_neither_compiler_nor_python_nor_root(self):
        run = podman("run", "--rm", "--network", "none", "--entrypoint", "sh", IMAGE, "-c",
                     "id -u; id -g; for tool in gcc g++ cc ld as make cmake python3 pip perl; do command -v $tool; done; "
                     "ls /models /ccache /src 2>/dev/null; ls /opt/acuity/libtorch/torch/lib")
        lines = [line for line in run.stdout.split() if line != "/usr/bin/perl"]  # dpkg's own, perl-base
        self.assertEqual(lines[:2], ["65532", "65532"])
        self.assertEqual(sorted(l for l in lines[2:] if l not in ("/models:", "/ccache:")),
                         ["libc10.so", "libcudart.so.13", "libcupti.so.13", "libgomp.so.1", "libtorch_cpu.so"])

    def test_labels_and_bill_of_materials(self):
        image = json.loads(podman("image", "inspect", IMAGE).stdout)[0]
        labels = image["Config"]["Labels"]
        for name in ("title", "description", "licenses", "version", "revision", "base.name"):
            self.assertTrue(labels.get(f"org.opencontainers.image.{name}"), name)
        bill = json.loads(podman("run", "--rm", "--network", "none", "--entrypoint", "cat", IMAGE,
                                 "/usr/share/doc/acuity/sbom.cdx.json").stdout)
        self.assertEqual((bill["bomFormat"], bill["specVersion"]), ("CycloneDX", "1.5"))
        refs = [c["bom-ref"] for c in bill["components"]]
        self.assertEqual(len(refs), len(set(refs)))
        listed = {(c["name"], c["version"]) for c in bill["components"] if c["purl"].startswith("pkg:deb/")}
        installed = podman("run", "--rm", "--network", "none", "--entrypoint", "dpkg-query", IMAGE, "-W",
                           "-f", "${Package} ${Version}\\n").stdout
        self.assertEqual(listed, {tuple(line.split()) for line in installed.splitlines()})
        self.assertEqual({c["name"] for c in bill["components"] if c["purl"].startswith("pkg:pypi/")},
                         {"torch", "nvidia-cuda-runtime", "nvidia-cuda-cupti"})
        self.assertEqual(bill["metadata"]["component"]["version"], labels["org.opencontainers.image.version"])


class ServingTest(unittest.TestCase):
    def test_generates_and_is_scraped_and_is_healthy(self):
        with Container(*SMALL) as container:
            serving = container.wait_serving()
            started = container.state()["StartedAt"]
            print(f"serving {seconds(serving['time']) - seconds(started):.2f} s after the container's start")
            self.assertEqual((serving["listen"], serving["metrics"]), ("0.0.0.0:8700", "0.0.0.0:8701"))
            answer = container.acuity("generate", "--json", "--prompt", "The capital of France is",
                                      "--max-tokens", "8", "--temperature", "0")
            self.assertIn("Paris", json.loads(answer.stdout)["text"], answer.stderr)
            self.assertIn('acuity_requests_total{finish_reason="length",model="smol"} 1', container.metrics())
            self.assertEqual(podman("healthcheck", "run", container.id, check=False).returncode, 0)

    def test_sigterm_in_mid_stream_loses_nothing(self):
        streams, tokens = 8, 80
        with Container(*SMALL) as container:
            container.wait_serving()
            client = container.client(f"""for i in $(seq {streams}); do
                acuity generate --json --prompt "Story $i:" --max-tokens {tokens} --ignore-eos & done; wait""")
            wait_for("all streams run", lambda: f'acuity_requests_running{{model="smol"}} {streams}' in container.metrics())
            podman("kill", "--signal", "TERM", container.id)
            self.assertEqual(container.wait_end(), 0)
            output, errors = client.communicate(timeout=120)
            decoder, answers, rest = json.JSONDecoder(), [], output.strip()
            while rest:
                answer, end = decoder.raw_decode(rest)
                answers.append(answer["usage"]["completion_tokens"])
                rest = rest[end:].lstrip()
            self.assertEqual(answers, [tokens] * streams, errors)
            self.assertTrue(container.event("ended")["all_requests_finished"])
            print(f"SIGTERM with {streams} streams running: {streams - len(answers)} lost")


class PageTest(unittest.TestCase):
    def test_the_attention_page_draws_what_the_daemon_measured(self):
        pictures = pathlib.Path(os.environ.get("ACUITY_SCREENSHOTS", ROOT / "build/deploy"))
        pictures.mkdir(parents=True, exist_ok=True)
        # On this machine's loopback, where the browser is.
        with Container(*SMALL, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--report-min-tokens", "300",
                       network="host") as container:
            serving = container.wait_serving()
            for number in range(3):
                text = f"Letter {number}. " + "The river was low all summer and they spoke of little else. " * (24 + number * 5)
                answer = container.acuity("--server", serving["listen"], "generate", "--json", "--prompt", text,
                                          "--max-tokens", "8")
                self.assertEqual(answer.returncode, 0, answer.stderr)
            with Browser() as browser:
                for dark in (False, True):
                    browser.open(f"http://{serving['metrics']}/", dark=dark)
                    browser.wait("document.querySelectorAll('#maps figure table').length === 1")
                    self.assertEqual(browser.evaluate("document.getElementById('recent').rows.length"), 4)
                    self.assertGreater(browser.evaluate("document.querySelectorAll('#maps svg rect').length"), 30 * 7)
                    browser.screenshot(pictures / f"page-{'dark' if dark else 'light'}.png")
                self.assertEqual(browser.reported("Runtime.exceptionThrown"), [])
        print(f"pictures of the attention page in {pictures}")


class WrongSurroundingsTest(unittest.TestCase):
    """The message is on stderr, the exit code is not 0, and the health check never passes."""

    def fails(self, container, *parts, code=1):
        healthy = podman("healthcheck", "run", container.id, check=False).returncode == 0
        self.assertEqual(container.wait_end(), code)
        text = "\n".join(e["text"] for e in container.events() if e["event"] is None)
        for part in parts:
            self.assertIn(part, text)
        self.assertFalse(healthy)
        self.assertIsNone(container.event("serving"))

    def test_an_empty_model_volume(self):
        with Container("--model", "smol=/models/model.gguf", model=None) as container:
            self.fails(container, "model smol", "/models/model.gguf")

    def test_no_argument_and_an_empty_volume(self):
        with Container(model=None) as container:
            self.fails(container, "model default", "/models/model.gguf")

    def test_a_socket_on_the_read_only_disk(self):
        with Container(*SMALL, "--listen", "unix:/run/acuity.sock") as container:
            self.fails(container, "--listen", "unix:/run/acuity.sock")

    def test_a_socket_on_a_disk_that_is_full(self):
        with tempfile.TemporaryDirectory() as full:
            # The folder itself takes the only inode.
            subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=1,mode=1777", "full", full], check=True)
            try:
                with Container(*SMALL, "--listen", "unix:/run/full/acuity.sock",
                               options=("-v", f"{full}:/run/full:rw")) as container:
                    self.fails(container, "--listen", "unix:/run/full/acuity.sock")
            finally:
                subprocess.run(["umount", full], check=True)

    def test_ports_in_use(self):
        with Container(*SMALL) as first:
            first.wait_serving()
            with Container(*SMALL, network=f"container:{first.id}") as second:
                self.assertEqual(second.wait_end(), 1)
                self.assertIn("--metrics-listen: cannot bind 0.0.0.0:8701", second.events()[-1]["text"])
            with Container(*SMALL, "--metrics-listen", "127.0.0.1:0", network=f"container:{first.id}") as second:
                self.assertEqual(second.wait_end(), 1)
                self.assertIn("--listen: cannot bind 0.0.0.0:8700", second.events()[-1]["text"])
            self.assertEqual(first.acuity("health").returncode, 0)

    def test_a_flag_that_does_not_exist(self):
        with Container(*SMALL, "--no-such-flag") as container:
            self.fails(container, "--no-such-flag", code=2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
