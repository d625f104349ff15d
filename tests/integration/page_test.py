"""The attention page: attention.json is what the request's own report and /metrics say, the page in a real browser draws
it, and the listener that serves both is not to be blocked, framed or written to."""

import http.client
import json
import os
import socket
import time
import unittest
import urllib.error
import urllib.request

from browser import Browser
from harness import MODEL, Daemon, long_text, pb

FIELDS = ("normalized_entropy", "effective_context", "max_probability")
NAMES = ("smol", "twin")
TEXT = long_text(700)
# What a screen reader gets for an element's table: [[cell, ...], ...].
TABLE = "(table) => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent))"


class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--model", f"twin={MODEL}", "--attention", "twin=ssmax:auto", "--max-context", "2048",
                            "--kv-memory", "128MiB", "--report-min-tokens", "600").__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)
        cls.answers = {}
        cls.empty = cls.get("attention.json")
        for name in NAMES:
            request = cls.daemon.request(TEXT, attention=pb.ATTENTION_DETAIL_LAYERS, temperature=0, max_tokens=4,
                                         ignore_eos=True)
            request.model = name
            request.request_id = "<b>mine</b>"
            cls.answers[name] = [m for m in cls.daemon.stub.Generate(request)][-1].result
        cls.daemon.generate("Short.", attention=pb.ATTENTION_DETAIL_HEADS, max_tokens=2)
        cls.browser = Browser().__enter__()
        cls.addClassCleanup(cls.browser.__exit__)

    @classmethod
    def url(cls, path=""):
        return f"http://{cls.daemon.metrics_address}/{path}"

    @classmethod
    def get(cls, path):
        with urllib.request.urlopen(cls.url(path), timeout=10) as answer:
            return json.load(answer)

    def open(self, **kwargs):
        self.browser.open(self.url(), **kwargs)
        self.browser.wait("document.querySelectorAll('#maps figure table').length === 2")

    # ---- the data

    def test_json_is_empty_before_the_first_long_prompt(self):
        self.assertEqual([(m["name"], m["last"], m["recent"]) for m in self.empty["models"]],
                         [("smol", None, []), ("twin", None, [])])

    def test_json_is_the_requests_report(self):
        for model in self.get("attention.json")["models"]:
            report = self.answers[model["name"]].prompt_attention
            last = model["last"]
            self.assertEqual(last["context"], [b.n_min for b in report.layers[0].buckets])
            self.assertEqual([l["layer"] for l in last["layers"]], [l.layer for l in report.layers])
            for layer, wanted in zip(last["layers"], report.layers):
                self.assertEqual(layer["policy"], wanted.policy)
                for field in FIELDS:
                    for got, bucket in zip(layer[field], wanted.buckets, strict=True):
                        self.assertAlmostEqual(got, getattr(bucket, field), delta=6e-7)

    def test_json_and_metrics_agree(self):
        metric = self.daemon.metric
        compared = 0
        for model in self.get("attention.json")["models"]:
            name, last = model["name"], model["last"]
            for band, begin in (("front", 0), ("middle", 10), ("back", 20)):
                for column, n in enumerate(last["context"]):
                    if n < 256:
                        continue
                    for field in ("normalized_entropy", "max_probability"):
                        layers = [layer[field][column] for layer in last["layers"][begin:begin + 10]]
                        gauge = metric(f"acuity_attention_last_{field}", model=name, layers=band, context=str(n))
                        self.assertAlmostEqual(sum(layers) / 10, gauge, places=5)
                        compared += 1
            self.assertEqual(model["generated_tokens"], metric("acuity_generation_tokens_total", model=name))
            self.assertEqual(model["held_blocks"], metric("acuity_kv_cache_blocks_held", model=name))
            self.assertEqual((model["running"], model["waiting"]), (0, 0))
        self.assertEqual(compared, 2 * 3 * 2 * 2)

    def test_recent_is_bounded_and_has_ids_only(self):
        text = json.dumps(self.get("attention.json"))
        self.assertNotIn("mine", text)
        self.assertNotIn("river", text)
        for _ in range(34):  # a prompt that the prefix cache has but for its end
            self.daemon.generate(TEXT + " And so on.", attention=pb.ATTENTION_DETAIL_SUMMARY, max_tokens=1)
        recent = self.get("attention.json")["models"][0]["recent"]
        self.assertEqual(len(recent), 32)
        self.assertEqual(recent, sorted(recent, key=lambda r: -r["time"]))
        self.assertGreater(recent[0]["cached_tokens"], 256)
        # The whole prompt again, for the tests after this one.
        self.answers["smol"] = self.daemon.generate(TEXT, attention=pb.ATTENTION_DETAIL_LAYERS, tenant="fresh",
                                                    max_tokens=1).result

    # ---- the page

    def test_figures_and_tables_show_the_data(self):
        self.open()
        page = self.browser
        data = self.get("attention.json")
        for model in data["models"]:
            last, figure = model["last"], f"document.querySelector('[data-key=\"map:{model['name']}\"]')"
            columns = [i for i, n in enumerate(last["context"]) if n > 1]
            head, *rows, total = page.evaluate(f"({TABLE})({figure}.querySelector('table'))")
            self.assertEqual(head, ["Layer", *(str(last["context"][i]) for i in columns)])
            self.assertEqual(rows, [[str(layer["layer"]), *(f"{layer['normalized_entropy'][i]:.3f}" for i in columns)]
                                    for layer in last["layers"]])
            means = [sum(layer["normalized_entropy"][i] for layer in last["layers"]) / 30 for i in columns]
            for shown, mean in zip(total[1:], means, strict=True):
                self.assertAlmostEqual(float(shown), mean, delta=6e-4)
            cells = page.evaluate(f"{figure}.querySelectorAll('svg rect:not(.cursor)').length")
            self.assertEqual(cells, 31 * len(columns))
            self.assertIn(model["policy"], page.evaluate(f"{figure}.querySelector('h3').textContent"))
        for field in FIELDS:
            figure = f"document.querySelector('[data-key=\"curve:{field}\"]')"
            head, *rows = page.evaluate(f"({TABLE})({figure}.querySelector('table'))")
            self.assertEqual(head[1:], list(NAMES))
            self.assertEqual(page.evaluate(f"{figure}.querySelectorAll('path.curve').length"), 2)
            for column, model in enumerate(data["models"], 1):
                last = model["last"]
                for row, n in zip(rows, last["context"][1:], strict=True):
                    self.assertEqual(row[0], str(n))
                    layers = [layer[field][last["context"].index(n)] for layer in last["layers"]]
                    self.assertAlmostEqual(float(row[column]), sum(layers) / 30, delta=0.06 if "eff" in field else 6e-4)
        recent = page.evaluate(f"({TABLE})(document.getElementById('recent'))")
        self.assertEqual(len(recent) - 1, sum(len(model["recent"]) for model in data["models"]))
        newest = data["models"][0]["recent"][0]
        row = next(r for r in recent if r[2] == str(newest["id"]))
        self.assertEqual(row[3], f"{newest['prompt_tokens']:,}")
        self.assertEqual(row[10], f"{newest['longest']['normalized_entropy']:.3f}")

    def test_no_request_leaves_and_nothing_fails(self):
        self.browser.events.clear()
        self.open()
        time.sleep(2.5)
        self.browser.evaluate("1")
        urls = {r["request"]["url"] for r in self.browser.reported("Network.requestWillBeSent")}
        paths = {url.removeprefix(self.url()) for url in urls}
        self.assertEqual(paths, {"", "page.css", "figure.js", "page.js", "icon.svg", "attention.json"})
        self.assertEqual(self.browser.reported("Runtime.exceptionThrown"), [])
        self.assertEqual(self.browser.reported("Log.entryAdded"), [])  # content that the policy blocks, failed loads

    def test_keyboard_and_screen_reader(self):
        self.open()
        page = self.browser
        page.evaluate("document.querySelector('#maps svg').focus()")
        page.key("ArrowLeft")
        model = self.get("attention.json")["models"][0]
        value = model["last"]["layers"][0]["normalized_entropy"][-1]
        page.wait("document.querySelector('#maps output').textContent.startsWith('Layer 0, 512 keys')")
        self.assertIn(f"{value:.3f}", page.evaluate("document.querySelector('#maps output').textContent"))
        page.key("ArrowDown")
        page.key("ArrowLeft")
        value = model["last"]["layers"][1]["normalized_entropy"][-2]
        self.assertIn(f"Layer 1, 256 keys: H / ln n {value:.3f}",
                      page.evaluate("document.querySelector('#maps output').textContent"))
        unnamed = page.evaluate("""[...document.querySelectorAll('svg, button, a, summary, meter, [role=region]')]
            .filter((e) => !e.closest('[aria-hidden=true]'))
            .filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim()))
            .map((e) => e.outerHTML)""")
        self.assertEqual(unnamed, [])
        self.assertTrue(page.evaluate("[...document.querySelectorAll('th')].every((th) => th.scope)"))
        self.assertEqual(page.evaluate("document.documentElement.lang"), "en")
        tree = self.browser.call("Accessibility.getFullAXTree")["nodes"]
        named = [n["name"]["value"] for n in tree if n.get("role", {}).get("value") in ("image", "img", "graphics-document")
                 and n.get("name")]
        self.assertTrue(any("Heat map of normalised entropy for twin under ssmax" in name for name in named), named)

    def test_light_dark_and_phone(self):
        contrasts = """(() => {
          const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
          const light = (colour) => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
            const c = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255)
              .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
          const style = getComputedStyle(document.documentElement);
          const card = light(style.getPropertyValue('--card'));
          return ['--ink', '--soft', '--accent', '--good', '--bad', '--series-0', '--series-1', '--series-2', '--series-3',
            '--series-4', '--series-5'].map((name) => { const l = light(style.getPropertyValue(name));
              return [name, (Math.max(l, card) + 0.05) / (Math.min(l, card) + 0.05)]; }); })()"""
        backgrounds = []
        for dark in (False, True):
            for width, phone in ((1280, False), (360, True)):
                with self.subTest(dark=dark, width=width):
                    self.open(width=width, dark=dark, phone=phone)
                    self.assertLessEqual(self.browser.evaluate("document.documentElement.scrollWidth"), width)
                    self.assertEqual([c for c in self.browser.evaluate(contrasts) if c[1] < 4.5], [])
                    if folder := os.environ.get("ACUITY_SCREENSHOTS"):
                        self.browser.screenshot(f"{folder}/page-{width}-{'dark' if dark else 'light'}.png")
            backgrounds.append(self.browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        self.assertEqual(len(set(backgrounds)), 2)

    def test_it_is_live(self):
        with Daemon("--max-context", "2048", "--kv-memory", "64MiB", "--report-min-tokens", "300") as daemon:
            page = self.browser
            page.open(f"http://{daemon.metrics_address}/")
            page.wait("document.querySelector('#maps .empty') && document.querySelector('#state').dataset.state === 'live'")
            call = daemon.stub.Generate(daemon.request("a b c", max_tokens=1500, ignore_eos=True))
            page.wait("document.querySelector('.tiles').textContent.includes('1 / 0')")
            page.wait("parseFloat(document.querySelectorAll('.tiles dd')[1].textContent) > 1")
            page.wait("parseFloat(document.querySelector('meter').value) > 0")
            call.cancel()
            daemon.generate(long_text(400), max_tokens=1)
            page.wait("document.querySelector('#maps figure') && !document.querySelector('.empty')")
            page.evaluate("document.getElementById('pause').click()")
            self.assertEqual(page.evaluate("document.getElementById('pause').getAttribute('aria-pressed')"), "true")
            page.evaluate("document.getElementById('pause').click()")
        page.wait("document.getElementById('state').dataset.state === 'lost'")
        self.assertIn("no answer since", page.evaluate("document.getElementById('state').textContent"))

    # ---- the listener

    def test_only_get_of_what_there_is(self):
        connection = lambda: http.client.HTTPConnection(self.daemon.metrics_address, timeout=10)  # noqa: E731
        for method, path, wanted in (("GET", "/", 200), ("GET", "/index.html", 200), ("GET", "/attention.json?x=1", 200),
                                     ("GET", "/metrics", 200), ("POST", "/", 405), ("PUT", "/page.js", 405),
                                     ("DELETE", "/metrics", 405), ("OPTIONS", "/", 405), ("HEAD", "/", 405),
                                     ("GET", "/nothing", 404), ("GET", "/../CMakeLists.txt", 404),
                                     ("GET", "/%2e%2e/etc/passwd", 404), ("GET", "/metrics/", 404)):
            with self.subTest(f"{method} {path}"):
                here = connection()
                here.request(method, path)
                answer = here.getresponse()
                self.assertEqual(answer.status, wanted)
                self.assertIn("default-src 'none'", answer.getheader("Content-Security-Policy"))
                self.assertIn("frame-ancestors 'none'", answer.getheader("Content-Security-Policy"))
                self.assertEqual(answer.getheader("X-Content-Type-Options"), "nosniff")
                if wanted == 405:
                    self.assertEqual(answer.getheader("Allow"), "GET")
                here.close()

    def test_half_open_slow_and_huge_requests_block_nobody(self):
        host, port = self.daemon.metrics_address.rsplit(":", 1)
        connections = [socket.create_connection((host, int(port))) for _ in range(40)]  # more than there are threads
        for number, connection in enumerate(connections):
            if number % 2:
                connection.sendall(b"GET /attention.json HT")
            else:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")  # and never reads
        start = time.monotonic()
        self.get("attention.json")
        self.assertLess(time.monotonic() - start, 6)
        for connection in connections:
            connection.close()
        huge = socket.create_connection((host, int(port)))
        huge.settimeout(20)
        try:
            huge.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 20000 + b"\r\n\r\n")
            self.assertRegex(huge.recv(100), rb"^HTTP/1.[01] 4|^$")
        except ConnectionError:
            pass  # refused as well
        huge.close()
        self.get("attention.json")


if __name__ == "__main__":
    unittest.main(verbosity=2)
