"""Bad input: a clear error naming field, value and limit, the right code, and the daemon goes on."""

import math
import os
import socket
import tempfile
import time
import unittest

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from harness import MODEL, Daemon, acuityd, pb, temporary_file

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


class RequestErrorsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--max-context", "512", "--kv-memory", "32MiB", "--max-queue", "4",
                            "--max-running", "2").__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)

    def fails(self, call):
        with self.assertRaises(grpc.RpcError) as caught:
            list(call())
        return caught.exception

    def check(self, error, code, field, *parts):
        self.assertEqual(error.code(), code, error.details())
        status = rpc_status.from_call(error)
        self.assertIsNotNone(status, error.details())
        info = error_details_pb2.ErrorInfo()
        self.assertTrue(status.details[0].Unpack(info))
        self.assertEqual(info.domain, "acuity")
        if code == INVALID:
            bad = error_details_pb2.BadRequest()
            self.assertTrue(status.details[1].Unpack(bad))
            self.assertEqual(bad.field_violations[0].field, field)
        for part in parts:
            self.assertIn(part, error.details())

    def test_each_field_out_of_range(self):
        request = self.daemon.request
        rows = [
            ("sampling.temperature", dict(temperature=-0.5), "-0.5"),
            ("sampling.temperature", dict(temperature=101), "100"),
            ("sampling.temperature", dict(temperature=math.nan), "nan"),
            ("sampling.temperature", dict(temperature=math.inf), "inf"),
            ("sampling.top_k", dict(top_k=-1), "-1"),
            ("sampling.top_k", dict(top_k=49153), "49152"),
            ("sampling.top_p", dict(top_p=0), "0"),
            ("sampling.top_p", dict(top_p=1.5), "1.5"),
            ("sampling.min_p", dict(min_p=1), "1"),
            ("sampling.repetition_penalty", dict(repetition_penalty=0), "0"),
            ("sampling.presence_penalty", dict(presence_penalty=2.5), "2.5"),
            ("sampling.frequency_penalty", dict(frequency_penalty=-3), "-3"),
            ("sampling.n", dict(n=0), "0"),
            ("sampling.n", dict(n=17), "16"),
            ("sampling.max_tokens", dict(max_tokens=0), "0"),
            ("sampling.max_tokens", dict(max_tokens=-2147483648), "-2147483648"),
            ("sampling.max_tokens", dict(max_tokens=600), "512"),
            ("sampling.min_tokens", dict(min_tokens=9, max_tokens=8), "9"),
            ("sampling.logprobs", dict(logprobs=21), "20"),
            ("sampling.stop", dict(stop=[""]), "empty"),
            ("sampling.stop", dict(stop=["x"] * 17), "16"),
            ("sampling.stop", dict(stop=["x" * 257]), "256"),
            ("sampling.stop_token_ids", dict(stop_token_ids=[49152]), "49152"),
            ("sampling.logit_bias", dict(logit_bias={49152: 1.0}), "49152"),
            ("sampling.logit_bias", dict(logit_bias={5: 101.0}), "100"),
            ("sampling.logit_bias", dict(logit_bias={i: 1.0 for i in range(301)}), "300"),
        ]
        for field, sampling, part in rows:
            with self.subTest(field=field, sampling=str(sampling)[:40]):
                error = self.fails(lambda: self.daemon.stub.Generate(request("x", **sampling)))
                self.check(error, INVALID, field, field, part)

    def test_each_prompt_error(self):
        generate = self.daemon.stub.Generate
        rows = [
            ("prompt", pb.Prompt(), "none of"),
            ("prompt.text", pb.Prompt(text=b""), "empty"),
            ("prompt.text", pb.Prompt(text=b"abc\xff"), "3"),
            ("prompt", pb.Prompt(token_ids=pb.TokenIds(ids=[])), "no tokens"),
            ("prompt.token_ids", pb.Prompt(token_ids=pb.TokenIds(ids=[-1])), "-1"),
            ("prompt.token_ids", pb.Prompt(token_ids=pb.TokenIds(ids=[49152])), "49151"),
            ("prompt", pb.Prompt(token_ids=pb.TokenIds(ids=[5] * 512)), "512"),
            ("prompt.chat.messages", pb.Prompt(chat=pb.Chat()), "1024"),
            ("prompt.chat.messages.role",
             pb.Prompt(chat=pb.Chat(messages=[pb.ChatMessage(content="x")])), "empty"),
            ("prompt.chat.tools_json",
             pb.Prompt(chat=pb.Chat(messages=[pb.ChatMessage(role="user", content="x")], tools_json="{}")), "array"),
            ("prompt.chat.messages.tool_calls",
             pb.Prompt(chat=pb.Chat(messages=[pb.ChatMessage(role="user", tool_calls=[pb.ToolCall()] * 129)])), "128"),
            ("prompt.chat", pb.Prompt(chat=pb.Chat(messages=[pb.ChatMessage(role="user")])), "'content' is undefined"),
        ]
        for field, prompt, part in rows:
            with self.subTest(field=field, part=part):
                error = self.fails(lambda: generate(pb.GenerateRequest(model="smol", prompt=prompt)))
                self.check(error, INVALID, field, part)

    def test_other_fields(self):
        prompt = pb.Prompt(text=b"x")
        rows = [
            ("request_id", dict(request_id="i" * 129), "128"),
            ("tenant", dict(tenant="t" * 129), "128"),
            ("cache_salt", dict(cache_salt="s" * 129), "128"),
            ("priority", dict(priority=101), "100"),
            ("attention", dict(attention=9), "9"),
        ]
        for field, extra, part in rows:
            with self.subTest(field=field):
                request = pb.GenerateRequest(model="smol", prompt=prompt, **extra)
                self.check(self.fails(lambda: self.daemon.stub.Generate(request)), INVALID, field, part)

    def test_every_numeric_field_at_its_extremes_never_kills_the_engine(self):
        extremes = {"float": [-3e38, -1, 0, 3e38, math.nan, math.inf, -math.inf],
                    "int": [-2**31, -1, 0, 2**31 - 1], "uint": [0, 2**64 - 1]}
        answered = 0
        for field in pb.Sampling.DESCRIPTOR.fields:
            repeated = field.label == field.LABEL_REPEATED if hasattr(field, "label") else field.is_repeated
            if repeated or field.cpp_type not in (field.CPPTYPE_FLOAT, field.CPPTYPE_INT32,
                                                  field.CPPTYPE_UINT64):
                continue
            kind = {field.CPPTYPE_FLOAT: "float", field.CPPTYPE_INT32: "int",
                    field.CPPTYPE_UINT64: "uint"}[field.cpp_type]
            for value in extremes[kind]:
                sampling = {"max_tokens": 2, field.name: value}
                try:
                    self.daemon.generate("x", **sampling)
                except grpc.RpcError as error:
                    self.assertEqual(error.code(), INVALID, (field.name, value))
                answered += 1
        self.assertGreater(answered, 40)
        self.assertEqual(len(self.daemon.generate("x", max_tokens=3, ignore_eos=True).token_ids), 3)

    def test_limits_at_their_edges(self):
        """What is at the limit is taken, one more is not."""
        base = dict(max_tokens=1, temperature=0)
        rows = [  # sampling fields or others; value at the limit, one beyond
            ("temperature", 100.0, 101.0), ("top_k", 49152, 49153), ("presence_penalty", 2.0, 2.01),
            ("repetition_penalty", 10.0, 10.1), ("logprobs", 20, 21), ("max_tokens", 511, 512),
            ("stop", ["x" * 256], ["x" * 257]), ("stop", list("abcdefghijklmnop"), list("abcdefghijklmnopq")),
            ("stop_token_ids", list(range(16)), list(range(17))),
            ("logit_bias", {i: -100.0 for i in range(300)}, {i: 1.0 for i in range(301)}),
            ("request_id", "i" * 128, "i" * 129), ("tenant", "t" * 128, "t" * 129), ("cache_salt", "s" * 128, "s" * 129),
            ("priority", 100, 101), ("priority", -100, -101),
        ]
        for field, good, bad in rows:
            for value, code in ((good, None), (bad, INVALID)):
                with self.subTest(field=field, value=str(value)[:20]):
                    request = self.daemon.request(ids=[500], **{**base, **({} if hasattr(pb.GenerateRequest(), field)
                                                                           else {field: value})})
                    if hasattr(request, field):
                        setattr(request, field, value)
                    call = self.daemon.stub.Generate(request, timeout=120)
                    if field == "max_tokens" and code is None:  # taken: that is enough
                        next(iter(call))
                        call.cancel()
                        continue
                    try:
                        list(call)
                        self.assertIsNone(code)
                    except grpc.RpcError as error:
                        self.assertEqual(error.code(), code, error.details())

    def test_prompts_and_messages_at_their_edges(self):
        score = lambda n: self.daemon.stub.Score(pb.ScoreRequest(
            model="smol", prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[500] * n))))
        self.assertEqual(len(score(512).logprobs), 512)
        self.check(self.fails(lambda: [score(513)]), INVALID, "prompt", "513", "512")
        # A message of 4 MiB arrives, whatever is then said of it; one byte more does not.
        limit = 4 << 20
        message = lambda size: pb.TokenizeRequest(model="nope", prompt=pb.Prompt(text=b"x" * size))
        overhead = message(limit - 100).ByteSize() - (limit - 100)
        for excess, code in ((-1, NOT_FOUND), (0, NOT_FOUND), (1, grpc.StatusCode.RESOURCE_EXHAUSTED)):
            with self.subTest(excess=excess):
                request = message(limit - overhead + excess)
                self.assertEqual(request.ByteSize(), limit + excess)
                self.assertEqual(self.fails(lambda: [self.daemon.stub.Tokenize(request, timeout=60)]).code(), code)

    def test_headers_at_their_limit(self):
        call = lambda size: self.daemon.stub.ListModels(pb.ListModelsRequest(), metadata=[("padding", "p" * size)])
        self.assertEqual(len(call(7 << 10).models), 1)
        # A call that is refused ends by itself: others on its connection go on.
        running = self.daemon.stub.Generate(self.daemon.request(ids=[500], max_tokens=20, ignore_eos=True))
        next(running)
        for size in (8 << 10, 100 << 10, 900 << 10):
            with self.subTest(size=size):
                self.check(self.fails(lambda: [call(size)]), INVALID, "headers", "8192")
        self.assertTrue(list(running)[-1].HasField("result"))

    def test_unknown_model_and_bad_ids(self):
        stub = self.daemon.stub
        prompt = pb.Prompt(text=b"x")
        for call in (lambda: stub.Generate(pb.GenerateRequest(model="nope", prompt=prompt)),
                     lambda: [stub.Score(pb.ScoreRequest(model="nope", prompt=prompt))],
                     lambda: [stub.Tokenize(pb.TokenizeRequest(model="nope", prompt=prompt))],
                     lambda: [stub.Detokenize(pb.DetokenizeRequest(model="nope"))],
                     lambda: [stub.GetModel(pb.GetModelRequest(model="nope"))]):
            self.check(self.fails(call), NOT_FOUND, "", "nope", "smol")
        error = self.fails(
            lambda: [stub.Detokenize(pb.DetokenizeRequest(model="smol", token_ids=[-5]))])
        self.check(error, INVALID, "token_ids", "-5")

    def test_a_full_queue_refuses_with_retry_info(self):
        calls = [self.daemon.stub.Generate(self.daemon.request(ids=[700 + i], max_tokens=400,
                                                               ignore_eos=True)) for i in range(12)]
        end = time.time() + 60
        while sum(call.done() for call in calls) < 3 and time.time() < end:
            time.sleep(0.05)
        refused = [call for call in calls if call.done()]
        for call in calls:
            call.cancel()
        # At least 12 - 4 waiting - 2 running - what the engine admitted meanwhile.
        self.assertGreaterEqual(len(refused), 3)
        for call in refused:
            self.assertEqual(call.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.assertIn("limit is 4", call.details())
            retry = error_details_pb2.RetryInfo()
            details = rpc_status.from_call(call).details
            self.assertTrue(any(d.Unpack(retry) for d in details if d.Is(retry.DESCRIPTOR)))
        self.assertEqual(self.daemon.wait_idle(), 0)


class StartErrorsTest(unittest.TestCase):
    """A daemon that cannot start says why, on stderr, with exit code 1 (2: wrong usage)."""

    def check(self, code, *parts, arguments):
        run = acuityd(*arguments)
        self.assertEqual(run.returncode, code, run.stderr)
        for part in parts:
            self.assertIn(part, run.stderr)

    def quiet(self, *arguments):
        return ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *arguments]

    def test_usage(self):
        model = f"m={MODEL}"
        self.check(2, "--nonsense", arguments=["--model", model, "--nonsense"])
        self.check(2, "--model", arguments=[])
        self.check(2, "NAME=PATH", arguments=["--model", "justapath"])
        self.check(2, "twice", arguments=["--model", model, "--model", model])
        self.check(2, "other", arguments=["--model", model, "--attention", "other=softmax"])
        self.check(2, "12 apples", arguments=["--model", model, "--kv-memory", "12 apples"])
        self.check(2, "float16", arguments=["--model", model, "--dtype", "float16"])
        self.check(2, "float16", arguments=["--model", model, "--kv-dtype", "float16"])
        self.check(2, "--kv-dtype", "bfloat16 and float8", arguments=[
            "--model", model, "--device", "cuda", "--kv-dtype", "float32"])
        self.check(2, "--device cuda", arguments=["--model", model, "--device", "cuda"])
        self.check(2, "nonsense", arguments=[
            "--config", temporary_file(f'model=["{model}"]\nnonsense=1\n', ".toml")])

    def test_help_names_every_flag(self):
        run = acuityd("--help")
        self.assertEqual(run.returncode, 0)
        for flag in ("--model", "--attention", "--listen", "--metrics-listen", "--dtype", "--kv-dtype",
                     "--device", "--kv-memory", "--max-queue", "--config", "--drain-seconds"):
            self.assertIn(flag, run.stdout)

    def test_models(self):
        damaged = temporary_file(MODEL.read_bytes()[:100_000], ".gguf")
        self.check(1, "/no/such.gguf", arguments=self.quiet("--model", "m=/no/such.gguf"))
        self.check(1, "m:", arguments=self.quiet("--model", f"m={damaged}"))
        self.check(1, "m:", arguments=self.quiet("--model", f"m={temporary_file('hello')}"))
        self.check(1, "m:", arguments=self.quiet("--model", f"m={tempfile.gettempdir()}"))
        self.check(1, "kv_memory", arguments=self.quiet("--model", f"m={MODEL}", "--kv-memory", "10MiB"))
        self.check(1, "ssmax:q=1", arguments=self.quiet("--model", f"m={MODEL}",
                                                        "--attention", "m=ssmax:q=1"))
        self.check(1, "8192", arguments=self.quiet("--model", f"m={MODEL}", "--max-context", "9000"))
        os.unlink(damaged)

    def test_addresses(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.check(1, "--listen", address, arguments=[
                "--model", f"m={MODEL}", "--listen", address, "--metrics-listen", ""])
            self.check(1, "--metrics-listen", address, arguments=[
                "--model", f"m={MODEL}", "--listen", "127.0.0.1:0", "--metrics-listen", address])


if __name__ == "__main__":
    unittest.main(verbosity=2)
