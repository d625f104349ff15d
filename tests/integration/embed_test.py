"""Embeddings through a real daemon. That hidden states are transformers' is tests/parity's to say."""

import concurrent.futures
import json
import math
import subprocess
import unittest

import grpc

from harness import BIN, Daemon, long_text, pb

LAST, MEAN = pb.POOLING_LAST, pb.POOLING_MEAN


def embed(daemon, *prompts, **fields):
    """Prompts are texts or lists of token ids."""
    request = pb.EmbedRequest(model=daemon.model, **fields)
    for prompt in prompts:
        if isinstance(prompt, str):
            request.prompts.add(text=prompt.encode())
        else:
            request.prompts.add().token_ids.ids.extend(prompt)
    return daemon.stub.Embed(request, timeout=300).embeddings


def vectors(*arguments, **fields):
    return [list(e.values) for e in embed(*arguments, **fields)]


class EmbedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--max-context", "1024", "--kv-memory", "128MiB").__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)

    def test_the_mean_is_that_of_the_last_states_of_all_prefixes(self):
        ids = self.daemon.tokenize("Attention fades as the context grows, and with it the answer.")
        prefixes = vectors(self.daemon, *[ids[:i + 1] for i in range(len(ids))])
        [mean] = vectors(self.daemon, ids, pooling=MEAN)
        self.assertEqual(len(mean), 576)
        for got, column in zip(mean, zip(*prefixes)):
            self.assertAlmostEqual(got, sum(column) / len(ids), places=4)
        self.assertEqual(vectors(self.daemon, ids), prefixes[-1:])

    def test_the_same_to_the_bit_in_any_company_and_any_chunks(self):
        texts = ["one", "two words", long_text(300), long_text(301)[5:], "a b c d e f g"]
        small = ("--max-batch-tokens", "17", "--max-running", "16")
        with Daemon("--max-context", "1024", "--kv-memory", "128MiB", *small) as chunked, \
                concurrent.futures.ThreadPoolExecutor() as pool:
            for pooling in (LAST, MEAN):
                busy = [pool.submit(self.daemon.generate, f"Tell me about {i}", max_tokens=30, ignore_eos=True)
                        for i in range(4)]
                together = vectors(self.daemon, *texts, pooling=pooling, cache_salt="together")
                for call in busy:
                    call.result()
                alone = [vectors(self.daemon, text, pooling=pooling, cache_salt="alone")[0] for text in texts]
                self.assertEqual(together, alone)
                self.assertEqual(vectors(chunked, *texts, pooling=pooling), alone)
        self.assertEqual(self.daemon.wait_idle(), 0)

    def test_a_cached_prefix_serves_the_last_state_only(self):
        text = long_text(200)
        for pooling, cached in ((LAST, True), (MEAN, False)):
            [first] = embed(self.daemon, text, pooling=pooling, cache_salt="c")
            [again] = embed(self.daemon, text, pooling=pooling, cache_salt="c")
            self.assertEqual(first.values, again.values)
            self.assertEqual(again.usage.cached_tokens > 0, cached)
            self.assertEqual(again.usage.prompt_tokens, len(self.daemon.tokenize(text)))
        self.assertGreater(again.timings.total_seconds, 0)

    def test_normalised(self):
        [plain] = vectors(self.daemon, "A vector", pooling=MEAN)
        [unit] = vectors(self.daemon, "A vector", pooling=MEAN, normalize=True)
        self.assertAlmostEqual(math.hypot(*unit), 1, places=5)
        for a, b in zip(plain, unit):
            self.assertAlmostEqual(a / math.hypot(*plain), b, places=6)

    def test_what_is_refused(self):
        rows = [
            ([], {}, "prompts: 0 is not within 1 to 64"),
            (["x"] * 65, {}, "prompts: 65 is not within 1 to 64"),
            (["x", ""], {}, "prompts[1].text: it is empty"),
            (["x", [1, 99999999]], {}, "prompts[1].token_ids: 99999999"),
            (["x", [5] * 1025], {}, "prompts[1]: 1025 tokens, the context holds 1024"),
            (["x"], {"pooling": 3}, "pooling: 3 is not a Pooling"),
            (["x"], {"priority": 101}, "priority: 101"),
            (["x"], {"cache_salt": "s" * 129}, "cache_salt: 129"),
        ]
        for prompts, fields, message in rows:
            with self.subTest(message), self.assertRaises(grpc.RpcError) as raised:
                embed(self.daemon, *prompts, **fields)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn(message, raised.exception.details())
        with self.assertRaises(grpc.RpcError) as raised:
            self.daemon.stub.Embed(pb.EmbedRequest(model="nope", prompts=[pb.Prompt(text=b"x")]))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
        with self.assertRaises(grpc.RpcError) as raised:
            self.daemon.stub.Embed(pb.EmbedRequest(model="smol", prompts=[pb.Prompt(text=long_text(900).encode())] * 8),
                                   timeout=0.2)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertEqual(self.daemon.wait_idle(), 0)

    def test_a_queue_that_does_not_hold_them_all_takes_none(self):
        with Daemon("--max-context", "256", "--kv-memory", "64MiB", "--max-queue", "8", "--max-running", "1") as daemon:
            with self.assertRaises(grpc.RpcError) as raised:
                embed(daemon, *[f"number {i} of many" for i in range(64)])
            self.assertEqual(raised.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.assertEqual(daemon.wait_idle(), 0)
            self.assertEqual(len(embed(daemon, "a", "b", "c", "d")), 4)

    def test_the_command(self):
        run = subprocess.run([BIN / "acuity", "embed", "--server", self.daemon.address, "--prompt", "Hello there",
                              "--pooling", "mean", "--normalize", "--json"], capture_output=True, text=True, timeout=120)
        self.assertEqual(run.returncode, 0, run.stderr)
        answer = json.loads(run.stdout)
        [wanted] = vectors(self.daemon, "Hello there", pooling=MEAN, normalize=True)
        for a, b in zip(answer["embedding"], wanted):
            self.assertAlmostEqual(a, b, places=6)
        self.assertEqual(answer["usage"]["prompt_tokens"], 2)
        run = subprocess.run([BIN / "acuity", "embed", "--server", self.daemon.address, "--prompt", "Hello there"],
                             capture_output=True, text=True, timeout=120)
        self.assertIn("2 tokens, 576 numbers: ", run.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
