"""The real Prometheus scrapes a daemon under load: every recording rule, every selector of an alert and every
expression of the two dashboards returns data. Then the daemon is killed, and Prometheus notices.

Environment: ACUITY_BIN the folder of acuityd and acuity, ACUITY_DEPS what scripts/setup filled.
"""
import json
import math
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
import urllib.request

import promql_parser
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ["ACUITY_BIN"])
MODEL = pathlib.Path(os.environ["ACUITY_DEPS"]) / "models/smollm2-135m-instruct-q4_1.gguf"
RULES = ROOT / "deploy/prometheus/acuity.rules.yml"
KUBERNETES = ROOT / "deploy/kubernetes"
DASHBOARDS = [ROOT / f"deploy/grafana/{name}.json" for name in ("service", "attention")]


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def selectors(node):
    """The vector selectors of a parsed expression, as text."""
    if isinstance(node, promql_parser.VectorSelector):
        return [node.prettify()]
    children = []
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        children.append(getattr(node, name, None))
    children.extend(getattr(node, "args", None) or [])
    return [found for child in children if child is not None for found in selectors(child)]


def panel_expressions():
    """(where, expression) of every target, with Grafana's variables filled in."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
                yield f"{path.stem}: {panel['title']} {target['refId']}", expression


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Prometheus:
    def __init__(self, folder, target):
        config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
        config["rule_files"] = [str(RULES)]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        path = pathlib.Path(folder, "prometheus.yml")
        path.write_text(yaml.safe_dump(config))
        self.address = f"127.0.0.1:{free_port()}"
        self.log = open(pathlib.Path(folder, "prometheus.log"), "w")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address={self.address}"], stdout=self.log, stderr=self.log)

    def query(self, expression):
        """The samples of an instant query that are numbers."""
        url = f"http://{self.address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(url, timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        return [s for s in result if not math.isnan(float(s["value"][1]))]

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


class Load(threading.Thread):
    """Short and long prompts, all different, until stopped."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.stopped, self.errors, self.rounds = server, threading.Event(), [], 0

    def run(self):
        while not self.stopped.is_set():
            # Different from the start (a prefix that is found is not measured), and long enough for a second context.
            text = f"Letter {self.rounds}. " + "The river was low all summer and they spoke of little else. " * 44
            for prompt, tokens in ((text, 4), (f"Number {self.rounds}", 8)):
                run = subprocess.run([BIN / "acuity", "--server", self.server, "generate", "--json", "--prompt", prompt,
                                      "--max-tokens", str(tokens), "--ignore-eos"], capture_output=True, text=True)
                if run.returncode != 0:
                    self.errors.append(run.stderr)
            self.rounds += 1


class MonitoringTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.daemon = subprocess.Popen(
            [BIN / "acuityd", "--model", f"smol={MODEL}", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
             "--max-context", "1024", "--kv-memory", "64MiB", "--report-min-tokens", "400"],
            stderr=subprocess.PIPE, text=True)
        cls.addClassCleanup(cls.daemon.stderr.close)
        cls.addClassCleanup(cls.daemon.wait)
        cls.addClassCleanup(cls.daemon.kill)
        for line in cls.daemon.stderr:
            serving = json.loads(line)
            if serving["event"] == "serving":
                break
        cls.metrics = serving["metrics"]
        cls.prometheus = Prometheus(folder.name, serving["metrics"])
        cls.addClassCleanup(cls.prometheus.stop)
        cls.load = Load(serving["listen"])
        cls.load.start()

    def expect(self, expressions, seconds=90):
        """Waits until each of (name, expression) returns data."""
        missing, end = dict(expressions), time.monotonic() + seconds
        total = len(missing)
        while missing and time.monotonic() < end:
            time.sleep(0.5)
            try:
                missing = {name: e for name, e in missing.items() if not self.prometheus.query(e)}
            except OSError:
                continue  # it is still starting
        self.assertEqual(missing, {}, f"no data for these after {seconds} s; load: {self.load.errors[:3]}")
        return total

    def what_kubernetes_asks_for_is_a_gauge(self):
        """The names in the endpoint picker's mapping and in the autoscaler, of the daemon under load."""
        mapping = yaml.safe_load((KUBERNETES / "overlays/inference-gateway/metric-mapping.yaml").read_text())["data"]
        autoscaler = yaml.safe_load((KUBERNETES / "components/autoscaling/autoscaler.yaml").read_text())["spec"]
        picked = {key: name for key, name in mapping.items() if key.endswith("-metric")}
        names = {*picked.values(), *(metric["pods"]["metric"]["name"] for metric in autoscaler["metrics"])}
        self.assertEqual(len(picked), 3)
        self.expect([(name, name) for name in names])
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as answer:
            types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", answer.read().decode(), re.M))
        self.assertEqual({types[name] for name in names}, {"gauge"})
        # They mean it: something runs while there is load, and holds a share of the cache.
        self.expect([(key, f"max_over_time({picked[key]}[1m]) > 0") for key in
                     ("total-running-requests-metric", "kv-cache-usage-percentage-metric")])
        self.expect([("a share", f"max_over_time({picked['kv-cache-usage-percentage-metric']}[1m]) <= 1")])

    def test_everything_returns_data_and_the_end_is_noticed(self):
        recorded = [(r["record"], r["record"]) for r in rules() if "record" in r]
        of_alerts = [(f"{r['alert']}: {s}", s) for r in rules() if "alert" in r
                     for s in selectors(promql_parser.parse(r["expr"]))]
        self.assertTrue(all(any(name.startswith(r["alert"] + ":") for name, _ in of_alerts)
                            for r in rules() if "alert" in r))
        panels = list(panel_expressions())
        self.assertEqual(len(panels), len(dict(panels)), "two panels of one title")
        for _, expression in panels:
            promql_parser.parse(expression)
        self.what_kubernetes_asks_for_is_a_gauge()
        counts = [self.expect(group) for group in (recorded, of_alerts, panels)]
        print(f"{counts[0]} recorded series, {counts[1]} selectors of alerts and {counts[2]} panel expressions return "
              f"data after {self.load.rounds} rounds of load")
        self.load.stopped.set()
        self.assertEqual(self.load.errors, [])
        pending = {s["metric"]["alertname"] for s in self.prometheus.query("ALERTS")}
        self.assertEqual(pending - {"AcuityAttentionFlattening", "AcuityAttentionFlatAtLongContext"}, set(),
                         "a healthy daemon raises no alert")
        self.daemon.kill()
        self.expect([("AcuityDown", 'ALERTS{alertname="AcuityDown"}'), ("AcuityAbsent", 'ALERTS{alertname="AcuityAbsent"}')])


class FilesTest(unittest.TestCase):
    def test_dashboards_are_what_their_code_writes(self):
        subprocess.run([sys.executable, ROOT / "deploy/grafana/dashboards.py", "--check"], check=True)

    def test_every_metric_that_is_named_exists(self):
        known = set(re.findall(r"^\| `(acuity_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.M))
        known |= {k + suffix for k in known for suffix in ("_bucket", "_sum", "_count")}
        known |= {r["record"] for r in rules() if "record" in r} | {"up"}
        expressions = [e for _, e in panel_expressions()] + [r["expr"] for r in rules()]
        for expression in expressions:
            for selector in selectors(promql_parser.parse(expression)):
                self.assertIn(selector.split("{")[0], known)

    def test_every_alert_has_a_test(self):
        tests = "".join(p.read_text() for p in (ROOT / "deploy/prometheus/tests").glob("*.yml"))
        for rule in rules():
            if "alert" in rule:
                self.assertIn(rule["alert"], tests)


if __name__ == "__main__":
    unittest.main(verbosity=2)
