"""Generation through a real daemon: streaming, sampling, stops, prefix reuse, neighbours, cancellation, deadlines."""

import concurrent.futures
import random
import threading
import time
import unittest

import grpc

from harness import Daemon, pb


class GenerateTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--max-context", "2048", "--kv-memory", "256MiB").__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)

    def test_answers_a_chat_in_pieces(self):
        answer = self.daemon.generate(chat="What is the capital of France?", temperature=0,
                                      max_tokens=40)
        self.assertIn("Paris", answer.text)
        self.assertGreater(answer.messages, 3)
        self.assertEqual(answer.finish[0], "FINISH_REASON_STOP")
        self.assertEqual(answer.result.usage.completion_tokens, len(answer.token_ids))
        self.assertGreater(answer.result.timings.time_to_first_token_seconds, 0)

    def test_max_tokens_is_exact_and_min_tokens_holds(self):
        for limit in (1, 2, 7):
            answer = self.daemon.generate("Once upon a time", max_tokens=limit, ignore_eos=True)
            self.assertEqual(len(answer.token_ids), limit)
            self.assertEqual(answer.finish[0], "FINISH_REASON_LENGTH")
        answer = self.daemon.generate(chat="Say hi.", temperature=0, min_tokens=60, max_tokens=60)
        self.assertEqual(len(answer.token_ids), 60)

    def test_seeded_samples_repeat_and_differ_from_each_other(self):
        arguments = dict(temperature=1.0, top_p=0.95, seed=11, n=4, max_tokens=16, ignore_eos=True)
        first = self.daemon.generate("The best thing about winter is", **arguments)
        second = self.daemon.generate("The best thing about winter is", **arguments)
        self.assertEqual(first.ids, second.ids)
        self.assertEqual(sorted(first.ids), [0, 1, 2, 3])
        self.assertEqual(len({tuple(ids) for ids in first.ids.values()}), 4)
        self.assertEqual(first.result.usage.completion_tokens, 64)
        self.assertEqual(first.result.seed, 11)

    def test_as_many_samples_as_there_may_be(self):
        arguments = dict(temperature=1.0, seed=12, max_tokens=6, ignore_eos=True)
        few = self.daemon.generate("The best thing about winter is", n=4, **arguments)
        most = self.daemon.generate("The best thing about winter is", n=16, **arguments)
        self.assertEqual(sorted(most.ids), list(range(16)))
        self.assertEqual({i: most.ids[i] for i in range(4)}, few.ids)
        self.assertGreater(len({tuple(ids) for ids in most.ids.values()}), 12)
        self.assertEqual(set(most.finish.values()), {"FINISH_REASON_LENGTH"})
        self.assertEqual(most.result.usage.completion_tokens, 16 * 6)
        self.assertEqual(self.daemon.wait_idle(), 0)
        with self.assertRaises(grpc.RpcError) as caught:
            self.daemon.generate("The best thing about winter is", n=17, **arguments)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        for part in ("sampling.n", "17", "16"):
            self.assertIn(part, caught.exception.details())

    def test_a_stop_string_is_cut_wherever_tokens_split_it(self):
        whole = self.daemon.generate("Count: one, two, three,", temperature=0, max_tokens=24,
                                     ignore_eos=True)
        for start in (3, 7, 12):
            stop = whole.text[start:start + 4]
            answer = self.daemon.generate("Count: one, two, three,", temperature=0, max_tokens=24,
                                          ignore_eos=True, stop=[stop, "never seen"])
            self.assertEqual(answer.text, whole.text[:whole.text.index(stop)])
            self.assertEqual(answer.finish[0], "FINISH_REASON_STOP")

    def test_a_stop_token_ends_the_sample(self):
        whole = self.daemon.generate("Count: one, two, three,", temperature=0, max_tokens=8,
                                     ignore_eos=True)
        stop = whole.token_ids[3]
        answer = self.daemon.generate("Count: one, two, three,", temperature=0, max_tokens=8,
                                      ignore_eos=True, stop_token_ids=[stop])
        self.assertEqual(answer.token_ids, whole.token_ids[:whole.token_ids.index(stop) + 1])

    def test_logprobs_agree_with_score(self):
        text = "The capital of France is"
        answer = self.daemon.generate(text, temperature=0, max_tokens=6, ignore_eos=True, logprobs=3)
        ids = self.daemon.tokenize(text) + answer.token_ids
        request = pb.ScoreRequest(model="smol", prompt=pb.Prompt(token_ids=pb.TokenIds(ids=ids)))
        scored = self.daemon.stub.Score(request)
        self.assertEqual(list(scored.token_ids), ids)
        self.assertNotEqual(scored.logprobs[0], scored.logprobs[0])  # NaN: nothing before it
        for entry, expected in zip(answer.logprobs[0], scored.logprobs[-6:]):
            self.assertAlmostEqual(entry.token.logprob, expected, places=5)
            self.assertEqual(entry.top[0].token_id, entry.token.token_id)
            self.assertEqual(len(entry.top), 3)
            self.assertGreaterEqual(entry.top[0].logprob, entry.top[1].logprob)

    def test_special_tokens_in_user_text_stay_text(self):
        plain = self.daemon.tokenize("<|im_end|>")
        self.assertGreater(len(plain), 1)
        chat = pb.Prompt()
        chat.chat.messages.add(role="user", content="a <|im_end|> b")
        ids = list(self.daemon.stub.Tokenize(
            pb.TokenizeRequest(model="smol", prompt=chat)).token_ids)
        special = 2  # <|im_end|>: one after the system message, one after the user's
        self.assertEqual(ids.count(special), 2)

    def test_detokenize_inverts_tokenize(self):
        text = "naïve café 🙂 12345 \t\n汉字"
        request = pb.DetokenizeRequest(model="smol", token_ids=self.daemon.tokenize(text))
        self.assertEqual(self.daemon.stub.Detokenize(request).text, text)

    def test_a_prefix_is_reused_within_a_tenant_only(self):
        ids = list(range(1000, 1200))
        first = self.daemon.generate(ids=ids, max_tokens=8, temperature=0, tenant="a")
        again = self.daemon.generate(ids=ids, max_tokens=8, temperature=0, tenant="a")
        other = self.daemon.generate(ids=ids, max_tokens=8, temperature=0, tenant="b")
        self.assertEqual(first.result.usage.cached_tokens, 0)
        self.assertEqual(again.result.usage.cached_tokens, 192)
        self.assertEqual(other.result.usage.cached_tokens, 0)
        self.assertEqual(first.token_ids, again.token_ids)
        self.assertEqual(first.token_ids, other.token_ids)

    def test_greedy_output_is_the_same_whatever_else_runs(self):
        prompts = [f"{word} is known for" for word in
                   ("Rome", "Tea", "Mars", "Bach", "Oslo", "Iron", "Salt", "Snow")]
        alone = [self.daemon.generate(p, temperature=0, max_tokens=24, ignore_eos=True, logprobs=0)
                 for p in prompts]
        noise = [list(range(3000 + 500 * i, 3400 + 500 * i)) for i in range(4)]
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            busy = [pool.submit(self.daemon.generate, ids=ids, max_tokens=16, ignore_eos=True)
                    for ids in noise]
            together = list(pool.map(
                lambda p: self.daemon.generate(p, temperature=0, max_tokens=24, ignore_eos=True,
                                               logprobs=0), prompts))
            for future in busy:
                future.result()
        for one, many in zip(alone, together):
            self.assertEqual(one.token_ids, many.token_ids)
            self.assertEqual([l.token.logprob for l in one.logprobs[0]],
                             [l.token.logprob for l in many.logprobs[0]])  # to the bit

    def test_a_deadline_ends_the_request_and_frees_its_blocks(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.daemon.generate("Tell a long story.", max_tokens=1500, ignore_eos=True, timeout=0.4)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertEqual(self.daemon.wait_idle(), 0)


class CancelTest(unittest.TestCase):
    CANCELS = 1000

    def test_cancelled_requests_leave_no_block_behind(self):
        """1,000 requests cancelled at random moments: queued, in prefill, while decoding."""
        with Daemon("--max-context", "1024", "--kv-memory", "48MiB", "--max-queue", "2000") as daemon:
            randomness = random.Random(5)
            slots = threading.Semaphore(24)

            def one(i):
                with slots:
                    ids = [randomness.randrange(500, 40000) for _ in range(randomness.randrange(1, 160))]
                    call = daemon.stub.Generate(daemon.request(ids=ids, max_tokens=400, ignore_eos=True))
                    timer = threading.Timer(randomness.random() ** 2 * 1.2, call.cancel)
                    timer.start()
                    try:
                        for _ in call:
                            pass
                    except grpc.RpcError as error:
                        self.assertEqual(error.code(), grpc.StatusCode.CANCELLED)
                        return 1
                    finally:
                        timer.cancel()
                    return 0

            start = time.time()
            with concurrent.futures.ThreadPoolExecutor(24) as pool:
                cancelled = sum(pool.map(one, range(self.CANCELS)))
            self.assertEqual(daemon.wait_idle(), 0)
            self.assertEqual(daemon.metric("acuity_kv_cache_utilization"), 0)
            print(f"{cancelled} of {self.CANCELS} cancelled in {time.time() - start:.0f} s, "
                  "held blocks: 0")
            self.assertGreater(cancelled, self.CANCELS // 2)
            # And it still answers.
            self.assertIn("Paris", daemon.generate("The capital of France is", temperature=0,
                                                   max_tokens=8).text)


class StormTest(unittest.TestCase):
    def test_a_pool_of_one_and_a_half_sequences_serves_sixteen_clients(self):
        """Preemption by recompute: everybody finishes, and the output is what an empty daemon gives."""
        # 512 tokens of context need 512 * 23,040 bytes in bfloat16.
        memory = str(int(512 * 23040 * 1.5))
        with Daemon("--max-context", "512", "--kv-memory", memory) as daemon:
            prompts = [list(range(2000 + 300 * i, 2000 + 300 * i + 120)) for i in range(16)]

            def run(ids):
                return daemon.generate(ids=ids, temperature=0, max_tokens=80, ignore_eos=True)

            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                together = list(pool.map(run, prompts))
            preemptions = sum(answer.result.timings.preemptions for answer in together)
            alone = [run(ids) for ids in prompts[:6]]
            self.assertEqual([a.token_ids for a in alone], [t.token_ids for t in together[:6]])
            self.assertGreater(preemptions, 0)
            self.assertEqual(daemon.wait_idle(), 0)
            print(f"{preemptions} preemptions, output identical")


if __name__ == "__main__":
    unittest.main(verbosity=2)
