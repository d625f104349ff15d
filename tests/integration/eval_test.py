"""`acuity eval`, each kind against a real daemon: figures against what the API says, and the page in a real browser."""

import json
import math
import pathlib
import shutil
import tempfile
import unittest

from browser import Browser
from harness import MODEL, Daemon, acuity, long_text, pb, temporary_file

# Ordinary tokens of the model's vocabulary, as noise, keys and values.
TASK = {"task": "keyed_recall", "trained_length": 32, "pairs": 3, "noise_tokens": [300, 400],
        "key_tokens": [1000, 1400], "value_tokens": [2000, 2400]}
TABLE = "[...document.querySelectorAll('figure table')].map((t) => [...t.rows].map((r) => [...r.cells].map(" \
        "(c) => c.textContent)))"


class EvalTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--model", f"twin={MODEL}", "--attention", "twin=ssmax:auto", "--max-context", "512",
                            "--kv-memory", "128MiB").__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.text = long_text(700)
        cls.text_file = temporary_file(cls.text)
        cls.task_file = temporary_file(json.dumps(TASK))
        cls.browser = Browser().__enter__()
        cls.addClassCleanup(cls.browser.__exit__)

    def run_eval(self, *arguments):
        """The results; those printed are those written."""
        out = self.folder / self.id()
        run = acuity("eval", *arguments, "--out", str(out), "--json", server=self.daemon.address)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("100 % after", run.stderr)
        results = json.loads(run.stdout)
        self.assertEqual(results, json.loads((out / "results.json").read_text()))
        self.check_page(out / "report.html", results)
        return results

    def check_page(self, path, results):
        page = self.browser
        page.events.clear()
        page.open(path.as_uri())
        figures = len(results["curves"]) + len(results["maps"])
        page.wait(f"document.querySelectorAll('figure table').length === {figures}")
        for curve, table in zip(results["curves"], page.evaluate(TABLE)):
            self.assertEqual(table[0], [curve["x_label"], *(s["label"] for s in curve["series"])])
            first = curve["series"][0]["points"][0]
            self.assertEqual(table[1][0], str(first["x"]))
            self.assertEqual(table[1][1].split()[0], f"{first['value']:.{curve['digits']}f}")
        drawn = page.evaluate("document.querySelectorAll('#curves path.curve').length")
        self.assertEqual(drawn, sum(len(c["series"]) for c in results["curves"]))
        self.assertEqual(page.evaluate("document.querySelectorAll('#series li').length"), len(results["models"]))
        self.assertFalse(page.evaluate("document.documentElement.scrollWidth > innerWidth"))
        # A keyboard reads single points, and every figure says what it is.
        page.evaluate("document.querySelector('#curves svg').focus()")
        page.key("ArrowRight")
        self.assertIn(results["curves"][0]["x_label"], page.evaluate("document.querySelector('output').textContent"))
        self.assertEqual(page.evaluate("[...document.querySelectorAll('figure svg')].filter((s) => "
                                       "!s.getAttribute('aria-label')).length"), 0)
        asked = {request["request"]["url"] for request in page.reported("Network.requestWillBeSent")}
        self.assertEqual(asked, {path.as_uri()})
        self.assertEqual(page.reported("Runtime.exceptionThrown") + page.reported("Log.entryAdded"), [])

    def points(self, results, curve, label):
        (curve,) = (c for c in results["curves"] if c["id"] == curve)
        (series,) = (s for s in curve["series"] if s["label"] == label)
        return {p["x"]: p for p in series["points"]}

    def test_needle_of_tokens(self):
        arguments = ("needle", "--task", self.task_file, "--model", "smol", "--model", "both=smol,twin", "--lengths",
                     "24,48,4096", "--prompts", "3", "--seed", "7")
        results = self.run_eval(*arguments)
        self.assertEqual(results["options"]["lengths"], [24, 48])  # the context is 512
        self.assertEqual([c["id"] for c in results["curves"]],
                         ["accuracy", "needle_attention", "max_probability", "normalized_entropy", "effective_context",
                          "needle_attention_mean"])
        for n in (24, 48):
            self.assertEqual(self.points(results, "accuracy", "smol")[n]["count"], 3 * 3)
            self.assertEqual(self.points(results, "accuracy", "both")[n]["count"], 2 * 3 * 3)
            attention = self.points(results, "needle_attention", "smol")[n]
            # A head that matches keys is there, and the pair is a small part of the prompt.
            self.assertGreater(attention["value"], 3 * 2 / n)
            self.assertLessEqual(attention["high"], 1)
            self.assertGreater(attention["value"], self.points(results, "needle_attention_mean", "smol")[n]["value"])
        self.assertEqual(results["curves"], self.run_eval(*arguments, "--concurrency", "1")["curves"])

    def test_needle_of_text(self):
        results = self.run_eval("needle", "--text", self.text_file, "--model", "smol", "--lengths", "200,400",
                                "--depths", "0,50,100", "--prompts", "2")
        accuracy = self.points(results, "accuracy", "smol")
        self.assertEqual({n: p["count"] for n, p in accuracy.items()}, {200: 6, 400: 6})
        # Even a small model copies a number of a short text.
        self.assertGreater(accuracy[200]["value"], 0.4)
        (found,) = results["maps"]
        self.assertEqual((found["rows"], found["columns"]), (["0", "50", "100"], ["200", "400"]))
        for column, n in enumerate((200, 400)):
            self.assertAlmostEqual(sum(row[column] for row in found["cells"]) / 3, accuracy[n]["value"])
        self.assertGreater(self.points(results, "needle_attention", "smol")[200]["value"], 0.1)

    def test_ppl_is_the_mean_of_scores(self):
        results = self.run_eval("ppl", "--text", self.text_file, "--model", "smol", "--model", "twin", "--window", "256",
                                "--max-tokens", "512")
        ids = self.daemon.tokenize(self.text)
        losses = {}
        for model in ("smol", "twin"):
            losses[model] = []
            for begin in (0, 256):
                answer = self.daemon.stub.Score(pb.ScoreRequest(model=model, prompt=pb.Prompt(
                    token_ids=pb.TokenIds(ids=ids[begin:begin + 256]))))
                losses[model].append([-logprob for logprob in answer.logprobs[1:]])

        def compare(curve, label, values):
            points = self.points(results, curve, label)
            self.assertEqual(list(points), [1, 2, 4, 8, 16, 32, 64, 128])
            for n, point in points.items():
                picked = [window[i - 1] for window in values for i in range(n, min(2 * n, 256))]
                mean = sum(picked) / len(picked)
                error = math.sqrt(sum((x - mean) ** 2 for x in picked) / (len(picked) - 1) / len(picked))
                self.assertAlmostEqual(point["value"], mean, places=6)
                self.assertAlmostEqual(point["high"] - point["value"], 1.96 * error, delta=1e-4 + 1e-4 * error)
                self.assertEqual(point["count"], len(picked))

        compare("loss", "smol", losses["smol"])
        compare("loss", "twin", losses["twin"])
        compare("loss_difference", "twin",
                [[b - a for a, b in zip(*pair)] for pair in zip(losses["smol"], losses["twin"])])
        self.assertIn("smol: ", results["summary"][0])
        wide = self.run_eval("ppl", "--text", self.text_file, "--window", "256", "--bucket", "100")
        self.assertEqual(list(self.points(wide, "loss", "smol")), [0, 100, 200])

    def test_flatness_is_the_mean_of_reports(self):
        results = self.run_eval("flatness", "--text", self.text_file, "--model", "twin", "--tokens", "300",
                                "--prompts", "1")
        request = self.daemon.request(ids=self.daemon.tokenize(self.text)[:300], max_tokens=1, tenant="fresh",
                                      attention=pb.ATTENTION_DETAIL_LAYERS)
        request.model = "twin"
        report = [m for m in self.daemon.stub.Generate(request)][-1].result.prompt_attention
        for field in ("normalized_entropy", "effective_context", "max_probability"):
            points = self.points(results, field, "twin")
            self.assertEqual(list(points), [2, 4, 8, 16, 32, 64, 128, 256])
            for bucket, n in enumerate(points, 1):
                values = [getattr(layer.buckets[bucket], field) for layer in report.layers]
                self.assertAlmostEqual(points[n]["value"], sum(values) / 30, places=6)
        (cells,) = results["maps"]
        self.assertEqual(len(cells["cells"]), 30)
        self.assertAlmostEqual(cells["cells"][5][3], report.layers[5].buckets[4].normalized_entropy)

    def test_tables_for_people(self):
        run = acuity("eval", "flatness", "--text", self.text_file, "--tokens", "64", "--prompts", "1",
                     server=self.daemon.address)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("Normalised entropy: H / ln n", run.stdout)
        self.assertIn("[low high]: ", run.stdout)

    def test_errors(self):
        def fails(code, message, *arguments):
            run = acuity("eval", *arguments, server=self.daemon.address)
            self.assertEqual(run.returncode, code, run.stderr)
            self.assertIn(message, run.stderr)

        fails(2, "--task", "needle")
        fails(1, "nope", "flatness", "--text", self.text_file, "--model", "nope")
        fails(1, "there twice", "flatness", "--text", self.text_file, "--model", "smol", "--model", "smol")
        fails(1, "/no/such", "ppl", "--text", "/no/such")
        fails(1, "--window: 513, the smallest context of the models is 512", "ppl", "--text", self.text_file,
              "--window", "513")
        fails(1, "--tokens: 512, the smallest context of the models leaves 511", "flatness", "--text", self.text_file,
              "--tokens", "512")
        fails(1, "from 12 to 512", "needle", "--task", self.task_file, "--lengths", "4096")
        far = {**TASK, "value_tokens": [2000, 1000000]}
        fails(1, "token 1000000; the vocabulary of smol has", "needle", "--task", temporary_file(json.dumps(far)))
        fails(1, "pairs is 0", "needle", "--task", temporary_file(json.dumps({**TASK, "pairs": 0})))
        fails(1, "cannot make", "flatness", "--text", self.text_file, "--tokens", "16", "--prompts", "1", "--out",
              "/dev/null/x")


if __name__ == "__main__":
    unittest.main(verbosity=2)
