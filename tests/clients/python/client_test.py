"""The Python client, installed as a user would, against the real daemon: every call, every way to stop one, the report's
dataclasses, data frames and plots, and the examples."""

import asyncio
import builtins
import gc
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "integration"))

import acuity  # noqa: E402
from harness import MODEL, ROOT, Daemon, long_text, temporary_file  # noqa: E402

ENDLESS = dict(max_tokens=1500, ignore_eos=True)
GREEDY = dict(temperature=0, max_tokens=12)
PROMPT = "The capital of France is"


class DaemonTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--model", f"twin={MODEL}", "--attention", "twin=ssmax:auto", "--max-context", "2048",
                            "--kv-memory", "128MiB").__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)
        cls.client = acuity.Client(cls.daemon.address, timeout=300)
        cls.addClassCleanup(cls.client.close)

    def assert_frees(self):
        self.assertEqual(self.daemon.wait_idle(), 0)
        self.assertEqual(self.daemon.metric("acuity_requests_total", model="smol", finish_reason="length"), self.finished)

    def setUp(self):
        self.daemon.wait_idle()
        self.finished = self.daemon.metric("acuity_requests_total", model="smol", finish_reason="length")


class CallsTest(DaemonTest):
    def test_generate_is_what_the_stub_says(self):
        wanted = self.daemon.generate(PROMPT, seed=7, temperature=0.8, max_tokens=12, n=2, logprobs=3)
        got = self.client.generate(PROMPT, seed=7, temperature=0.8, max_tokens=12, n=2, logprobs=3)
        self.assertEqual([s.text for s in got.samples], [wanted.texts[0], wanted.texts[1]])
        self.assertEqual([list(s.token_ids) for s in got.samples], [wanted.ids[0], wanted.ids[1]])
        self.assertEqual((got.text, got.token_ids), (got.samples[0].text, got.samples[0].token_ids))
        self.assertEqual(got.usage.completion_tokens, sum(len(s.token_ids) for s in got.samples))
        self.assertEqual((got.seed, got.usage.prompt_tokens), (7, wanted.result.usage.prompt_tokens))
        self.assertIn(got.finish_reason, ("stop", "length"))
        for mine, theirs in zip(got.logprobs, wanted.logprobs[0]):
            self.assertEqual((mine.token.token_id, mine.token.token), (theirs.token.token_id, theirs.token.token))
            self.assertAlmostEqual(mine.token.logprob, theirs.token.logprob, places=4)
            self.assertEqual([t.token_id for t in mine.top], [t.token_id for t in theirs.top])
        self.assertGreater(got.timings.total_seconds, 0)

    def test_every_option_arrives(self):
        one = self.client.tokenize(" Paris").token_ids[0]
        result = self.client.generate(
            PROMPT, model="smol", temperature=0, top_k=5, top_p=0.9, min_p=0.01, repetition_penalty=1.1,
            presence_penalty=0.1, frequency_penalty=0.1, logit_bias={one: -100}, seed=2**64 - 1, n=1, max_tokens=8,
            min_tokens=2, stop=["zzz"], stop_token_ids=[3], ignore_eos=True, logprobs=0, attention="off", request_id="abc",
            priority=-1, tenant="t", cache_salt="s")
        self.assertNotIn(one, result.token_ids)
        self.assertEqual((result.request_id, result.seed, result.finish_reason), ("abc", 2**64 - 1, "length"))
        self.assertEqual(len(result.logprobs), 8)
        stopped = self.client.generate(PROMPT, stop=".", **GREEDY)
        self.assertEqual(stopped.finish_reason, "stop")
        self.assertNotIn(".", stopped.text)

    def test_prompt_forms_agree(self):
        text = self.client.generate(PROMPT, **GREEDY).token_ids
        self.assertEqual(self.client.generate(PROMPT.encode(), **GREEDY).token_ids, text)
        ids = self.client.tokenize(PROMPT).token_ids
        self.assertEqual(self.client.generate(token_ids=ids, **GREEDY).token_ids, text)
        chat = self.client.generate(chat="Hi", **GREEDY).token_ids
        self.assertEqual(self.client.generate(chat=[{"role": "user", "content": "Hi"}], **GREEDY).token_ids, chat)
        count = [{"role": "user", "content": "Count"}, {"role": "assistant", "content": "One, two,"}]
        request = self.daemon.request(ignore_eos=True, **GREEDY)
        request.continue_final_message = True
        for message in count:
            request.prompt.chat.messages.add(**message)
        wanted = [i for m in self.daemon.stub.Generate(request) for d in m.deltas for i in d.token_ids]
        continued = self.client.generate(chat=count, continue_final_message=True, ignore_eos=True, **GREEDY)
        self.assertEqual(list(continued.token_ids), wanted)
        self.assertNotEqual(self.client.generate(chat=count, ignore_eos=True, **GREEDY).token_ids, continued.token_ids)

    def test_stream_gives_deltas_then_the_result(self):
        stream = self.client.stream(PROMPT, **GREEDY)
        deltas = list(stream)
        result = stream.result()
        self.assertGreater(len(deltas), 3)
        self.assertEqual("".join(d.text for d in deltas), result.text)
        self.assertEqual(tuple(i for d in deltas for i in d.token_ids), result.token_ids)
        self.assertEqual([d.finish_reason for d in deltas if d.finish_reason], [result.finish_reason])

    def test_tokens_scores_models_health(self):
        text = "héllo wörld €"
        tokens = self.client.tokenize(text)
        self.assertEqual(list(tokens.token_ids), self.daemon.tokenize(text))
        self.assertEqual(b"".join(tokens.tokens).decode(), text)
        self.assertEqual(self.client.detokenize(tokens.token_ids), text)
        self.assertGreater(len(self.client.tokenize(chat="Hi").token_ids), 2)
        score = self.client.score(text, attention="layers")
        self.assertEqual(score.token_ids, tokens.token_ids)
        self.assertIsNone(score.logprobs[0])
        self.assertTrue(all(-50 < p < 0 for p in score.logprobs[1:]))
        self.assertEqual(len(score.prompt_attention.layers), 30)
        models = self.client.models()
        self.assertEqual([m.name for m in models], ["smol", "twin"])
        self.assertEqual((models[0].attention_policy, models[0].num_layers, models[0].max_context), ("softmax", 30, 2048))
        self.assertTrue(self.client.health())

    def test_embed(self):
        ids = self.client.tokenize(PROMPT).token_ids
        from_text, from_ids, other = self.client.embed([PROMPT, ids, b"Rust"], pooling="mean", normalize=True)
        self.assertEqual(from_text.values, from_ids.values)
        self.assertAlmostEqual(math.hypot(*from_text.values), 1, places=5)
        self.assertNotEqual(from_text.values, other.values)
        self.assertEqual(from_text.usage.prompt_tokens, len(ids))
        self.assertEqual(len(self.client.embed([PROMPT])[0].values), 576)

    def test_the_default_model_is_the_first_or_the_clients(self):
        with acuity.Client(self.daemon.address, model="twin") as client:
            report = client.generate("x y z", attention="layers", max_tokens=1).prompt_attention
        self.assertTrue(report.layers[0].policy.startswith("ssmax"))


class ErrorsTest(DaemonTest):
    def test_the_daemons_errors(self):
        with self.assertRaises(acuity.InvalidArgumentError) as raised:
            self.client.generate("x", top_p=5.0)
        error = raised.exception
        self.assertEqual((error.code, error.reason), ("INVALID_ARGUMENT", "INVALID_FIELD"))
        self.assertEqual([v.field for v in error.field_violations], ["sampling.top_p"])
        self.assertIn("5", error.field_violations[0].description)
        with self.assertRaises(acuity.NotFoundError):
            self.client.score("x", model="nope")
        with self.assertRaises(acuity.DeadlineExceededError):
            self.client.generate("x", timeout=0.3, **ENDLESS)
        self.assert_frees()

    def test_nobody_there(self):
        with acuity.Client("127.0.0.1:1", retry=acuity.Retry(attempts=1)) as client:
            for call in (client.health, client.models, lambda: client.generate("x", model="m")):
                with self.assertRaises(acuity.UnavailableError) as raised:
                    call()
                self.assertIn("127.0.0.1:1", str(raised.exception))

    def test_wrong_arguments_are_named(self):
        generate = self.client.generate
        cases = [
            (lambda: generate("x", temprature=1), TypeError, "'temprature'; did you mean 'temperature'"),
            (lambda: generate("x", temperature="hot"), TypeError, "temperature: 'hot' is not a number"),
            (lambda: generate("x", max_tokens=1.5), TypeError, "max_tokens: 1.5 is not a whole number"),
            (lambda: generate("x", max_tokens=True), TypeError, "max_tokens"),
            (lambda: generate("x", max_tokens=2**31), ValueError, "max_tokens: 2147483648 is not within"),
            (lambda: generate("x", seed=-1), ValueError, "seed: -1 is not within 0"),
            (lambda: generate("x", stop=[1]), TypeError, "stop[0]: 1 is not a str"),
            (lambda: generate("x", stop_token_ids="1"), TypeError, "stop_token_ids"),
            (lambda: generate("x", logit_bias=[1]), TypeError, "logit_bias"),
            (lambda: generate("x", logit_bias={1: "a"}), TypeError, "logit_bias[1]"),
            (lambda: generate("x", ignore_eos=1), TypeError, "ignore_eos: 1 is not True or False"),
            (lambda: generate("x", attention="all"), ValueError, "attention: 'all' is not"),
            (lambda: generate("x", watch=3), TypeError, "watch: 3 is not a list"),
            (lambda: generate("x", watch=[(0, 1), 2]), TypeError, "watch[1]: 2 is not a list"),
            (lambda: generate("x", watch=[(0, 1, 2)]), TypeError, "watch[0]: (0, 1, 2) is not a pair (begin, end)"),
            (lambda: self.client.score("x", watch=[(0, "1")]), TypeError, "watch[0][1]: '1' is not a whole number"),
            (lambda: generate("x", model=3), TypeError, "model: 3 is not a str"),
            (lambda: generate("x", timeout=0), ValueError, "timeout: 0 is not above 0"),
            (lambda: generate("x", timeout="1"), TypeError, "timeout"),
            (lambda: generate(), TypeError, "exactly one of prompt, chat and token_ids is needed, not none"),
            (lambda: generate("x", chat="y"), TypeError, "not prompt and chat"),
            (lambda: generate(7), TypeError, "prompt: 7 is not a str or bytes"),
            (lambda: generate("\ud800"), ValueError, "prompt: surrogates not allowed"),
            (lambda: generate(token_ids=[1, "a"]), TypeError, "token_ids[1]: 'a'"),
            (lambda: generate(chat=[{"role": "user"}]), TypeError, "chat[0]"),
            (lambda: self.client.score("x", temperature=1), TypeError, "unknown option 'temperature'"),
            (lambda: self.client.detokenize("12"), TypeError, "token_ids"),
            (lambda: self.client.embed("x"), TypeError, "prompts"),
            (lambda: self.client.embed(["x", [1, "a"]]), TypeError, "prompts[1][1]: 'a'"),
            (lambda: self.client.embed(["x"], pooling="max"), ValueError, "pooling: 'max'"),
            (lambda: acuity.Client(""), TypeError, "address"),
            (lambda: acuity.Client(adress="x"), TypeError, "adress"),
            (lambda: acuity.Client("h:1", tls=False, root_certificates=b"x"), ValueError, "root_certificates"),
            (lambda: acuity.Client("h:1", client_key=b"-----BEGIN "), ValueError, "client_key"),
            (lambda: acuity.Client("h:1", root_certificates="/nowhere"), ValueError, "root_certificates: cannot read"),
            (lambda: acuity.Client("h:1", root_certificates=b"junk"), ValueError, "root_certificates: it is not PEM"),
            (lambda: acuity.Client("h:1", token="secret"), ValueError, "clear text"),
            (lambda: acuity.Client("localhost:1", token="two words"), ValueError, "token: it is empty or has"),
            (lambda: acuity.Retry(attempts=0), ValueError, "attempts: 0"),
            (lambda: acuity.Retry(max_delay=-1), ValueError, "max_delay: -1"),
        ]
        for call, kind, message in cases:
            with self.subTest(message), self.assertRaises(kind) as raised:
                call()
            self.assertIn(message, str(raised.exception))


class CancellationTest(DaemonTest):
    def test_leaving_the_loop(self):
        stream = self.client.stream("a b c", **ENDLESS)
        for delta in stream:
            break
        self.assert_frees()
        with self.assertRaises(acuity.CancelledError):
            stream.result()

    def test_leaving_the_with_block_and_dropping_the_stream(self):
        with self.client.stream("a b c", **ENDLESS):
            pass
        self.assert_frees()
        stream = self.client.stream("a b c", **ENDLESS)
        del stream
        gc.collect()
        self.assert_frees()

    def test_cancel_from_another_thread(self):
        stream = self.client.stream("a b c", **ENDLESS)
        threading.Timer(0.3, stream.cancel).start()
        with self.assertRaises(acuity.CancelledError):
            stream.result()
        self.assert_frees()


class AsyncTest(DaemonTest):
    def run_async(self, body):
        async def main():
            async with acuity.AsyncClient(self.daemon.address, timeout=300) as client:
                return await body(client)

        return asyncio.run(main())

    def test_calls_are_those_of_the_client(self):
        async def body(client):
            return (await client.generate(PROMPT, **GREEDY), await client.score(PROMPT), await client.tokenize(PROMPT),
                    await client.detokenize([504, 2988]), await client.embed([PROMPT]), [m.name for m in await client.models()], await client.health())

        result, score, tokens, text, embeddings, names, healthy = self.run_async(body)
        self.assertEqual(result.text, self.client.generate(PROMPT, **GREEDY).text)
        self.assertEqual(score.logprobs, self.client.score(PROMPT).logprobs)
        self.assertEqual(tokens, self.client.tokenize(PROMPT))
        self.assertEqual(text, self.client.detokenize([504, 2988]))
        self.assertEqual(embeddings[0].values, self.client.embed([PROMPT])[0].values)
        self.assertEqual((names, healthy), (["smol", "twin"], True))

    def test_many_at_a_time_give_what_each_gives_alone(self):
        prompts = [f"Number {i} is" for i in range(24)]

        async def body(client):
            return await asyncio.gather(*(client.generate(p, **GREEDY) for p in prompts))

        alone = [self.client.generate(p, **GREEDY).text for p in prompts[:4]]
        self.assertEqual([r.text for r in self.run_async(body)][:4], alone)

    def test_stream_and_result(self):
        async def body(client):
            stream = client.stream(PROMPT, **GREEDY)
            deltas = [d async for d in stream]
            return deltas, await stream.result()

        deltas, result = self.run_async(body)
        self.assertGreater(len(deltas), 3)
        self.assertEqual("".join(d.text for d in deltas), result.text)

    def test_cancellation(self):
        async def idle(client):
            for _ in range(200):
                if (await client.models())[0].status.running == 0:
                    return
                await asyncio.sleep(0.05)
            self.fail("still running")

        async def busy(client):
            while (await client.models())[0].status.running == 0:
                await asyncio.sleep(0.01)

        async def body(client):
            stream = client.stream("a b c", **ENDLESS)
            async for _ in stream:
                break
            await idle(client)
            async with client.stream("a b c", **ENDLESS) as stream:
                task = asyncio.create_task(stream.result())
                await busy(client)
            with self.assertRaises(acuity.CancelledError):
                await task
            await idle(client)
            task = asyncio.create_task(client.generate("a b c", **ENDLESS))
            await busy(client)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            await idle(client)
            with self.assertRaises(acuity.DeadlineExceededError):
                await client.generate("a b c", timeout=0.3, **ENDLESS)
            with self.assertRaises(acuity.InvalidArgumentError):
                await client.generate("x", top_p=5.0)
            with self.assertRaises(TypeError):
                client.stream("x", temprature=1)

        self.run_async(body)
        self.assert_frees()


class ReportTest(DaemonTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.text = long_text(580)
        cls.result = cls.client.generate(cls.text, attention="heads", temperature=0, max_tokens=3, ignore_eos=True)
        cls.report = cls.result.prompt_attention

    def test_dataclasses(self):
        layers = self.report.layers
        self.assertEqual([l.layer for l in layers], list(range(30)))
        self.assertEqual(len(layers[0].heads), 9)
        self.assertEqual([b.n_min for b in layers[0].buckets], [2**i for i in range(10)])
        rows = sum(b.rows for b in layers[0].buckets)
        self.assertEqual(rows, self.result.usage.prompt_tokens)
        for bucket in layers[3].buckets:
            heads = [h.buckets[int(math.log2(bucket.n_min))] for h in layers[3].heads]
            self.assertAlmostEqual(sum(b.normalized_entropy for b in heads) / 9, bucket.normalized_entropy, places=6)
        self.assertEqual(sum(b.rows for b in self.result.generated_attention.layers[0].buckets), 2)
        self.assertIsNone(self.client.generate("short", max_tokens=1).prompt_attention)

    def test_mean_is_that_of_the_bands(self):
        summary = self.client.generate(self.text, attention="summary", max_tokens=1, cache_salt="other").prompt_attention
        self.assertEqual(len(summary.layers), 3)
        for ours, theirs in zip(self.report.mean(), summary.mean()):
            self.assertEqual((ours.n_min, ours.rows), (theirs.n_min, theirs.rows))
            self.assertAlmostEqual(ours.normalized_entropy, theirs.normalized_entropy, places=6)
            self.assertAlmostEqual(ours.effective_context, theirs.effective_context, delta=1e-5 * theirs.effective_context)

    def test_to_dataframe(self):
        frame = self.report.to_dataframe()
        self.assertEqual(len(frame), 30 * 10)
        cell = frame[(frame.layer == 7) & (frame.n_min == 256)].iloc[0]
        self.assertEqual(cell.max_probability, self.report.layers[7].buckets[8].max_probability)
        heads = self.report.to_dataframe(heads=True)
        self.assertEqual(len(heads), 30 * 9 * 10)
        pivot = frame.pivot(index="layer", columns="n_min", values="normalized_entropy")
        self.assertEqual(pivot.shape, (30, 10))
        plain = self.client.generate("a b", attention="layers", max_tokens=1).prompt_attention
        with self.assertRaisesRegex(ValueError, "heads"):
            plain.to_dataframe(heads=True)

    def test_watched_spans_are_what_the_stub_says(self):
        ids = self.client.tokenize(self.text).token_ids[:40]
        request = self.daemon.request(ids=ids, temperature=0, max_tokens=3, ignore_eos=True)
        for begin, end in ((0, 1), (5, 40)):
            request.watch.add(begin=begin, end=end)
        wanted = list(self.daemon.stub.Generate(request))[-1].result
        got = self.client.generate(token_ids=ids, watch=[(0, 1), [5, 40]], temperature=0, max_tokens=3, ignore_eos=True)
        for mine, theirs in ((got.prompt_spans, wanted.prompt_spans), (got.generated_spans, wanted.generated_spans)):
            self.assertEqual((mine.rows, len(mine.layers)), (theirs.rows, 30))
            for layer, other in zip(mine.layers, theirs.layers):
                self.assertEqual((layer.layer, len(layer.heads)), (other.layer, 9))
                for head, same in zip(layer.heads, other.heads):
                    self.assertEqual((head.head, head.mass), (same.head, tuple(same.mass)))
                    self.assertEqual((head.normalized_entropy, head.effective_context, head.max_probability),
                                     (same.normalized_entropy, same.effective_context, same.max_probability))
        self.assertEqual(self.client.score(token_ids=ids, watch=[(0, 1), (5, 40)]).prompt_spans, got.prompt_spans)
        frame = got.prompt_spans.to_dataframe()
        self.assertEqual(len(frame), 30 * 9 * 2)
        cell = frame[(frame.layer == 7) & (frame["head"] == 2) & (frame.span == 1)].iloc[0]
        self.assertEqual(cell.mass, got.prompt_spans.layers[7].heads[2].mass[1])
        plain = self.client.generate("short", max_tokens=1)
        self.assertEqual((plain.prompt_spans, plain.generated_spans), (None, None))
        self.assertIsNone(self.client.score("short").prompt_spans)
        with self.assertRaisesRegex(acuity.InvalidArgumentError, r"watch: \[0, 41\) is no part"):
            self.client.score(token_ids=ids, watch=[(0, 41)])

    def test_plot_draws_the_report(self):
        figure = self.report.plot()
        lines, heat = figure.axes[:2]
        self.assertEqual(len(lines.lines), 31)
        self.assertEqual(list(lines.lines[7].get_ydata()), [b.normalized_entropy for b in self.report.layers[7].buckets[1:]])
        drawn = heat.images[0].get_array()
        self.assertEqual(drawn.shape, (30, 9))
        self.assertEqual(drawn[7][8], self.report.layers[7].buckets[9].normalized_entropy)
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            figure.savefig(file.name)
            self.assertGreater(os.path.getsize(file.name), 20_000)

    def test_without_pandas_or_matplotlib_the_error_says_what_to_install(self):
        real = builtins.__import__

        def without(name, *args, **kwargs):
            if name.split(".")[0] in ("pandas", "matplotlib"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        with mock.patch.object(builtins, "__import__", without):
            with self.assertRaisesRegex(ImportError, "pip install pandas"):
                self.report.to_dataframe()
            with self.assertRaisesRegex(ImportError, "pip install pandas"):
                self.client.score("a b", watch=[(0, 1)]).prompt_spans.to_dataframe()
            with self.assertRaisesRegex(ImportError, "pip install matplotlib"):
                self.report.plot()

    def test_examples(self):
        prompt = temporary_file(self.text, ".txt")
        out = tempfile.mkdtemp()
        for name, arguments, wanted in (
                ("attention_plot", ["--file", prompt, "--out", f"{out}/a.png"], "      512  "),
                ("concurrent_asyncio", ["--requests", "4"], "128 tokens in"),
                ("ssmax_twin", ["--file", prompt, "--models", "smol", "twin", "--out", f"{out}/t.png"], "twin (ssmax")):
            done = subprocess.run([sys.executable, ROOT / f"clients/python/examples/{name}.py", "--server",
                                   self.daemon.address, *arguments], capture_output=True, text=True, timeout=300)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(wanted, done.stdout)
        for name in ("a.png", "t.png"):
            self.assertEqual((pathlib.Path(out) / name).read_bytes()[:8], b"\x89PNG\r\n\x1a\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
