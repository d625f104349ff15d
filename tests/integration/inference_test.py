"""The Open Inference Protocol, spoken by tritonclient, compared with what acuity.v1 says of the same requests."""

import queue
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import grpc
import numpy as np
import tritonclient.grpc as triton
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from harness import ROOT, Daemon, long_text, pb

PROMPT = "The capital of France is"
TYPES = {"max_tokens": ("INT32", np.int32), "stream": ("BOOL", np.bool_), "temperature": ("FP32", np.float32),
         "top_k": ("INT32", np.int32), "top_p": ("FP32", np.float32), "seed": ("UINT64", np.uint64),
         "exclude_input_in_output": ("BOOL", np.bool_)}


def inputs(text=PROMPT, shape=(1,), **values):
    """tritonclient's inputs: text_input and what is given besides."""
    made = []
    for name, value in {"text_input": text, **values}.items():
        datatype, kind = TYPES.get(name, ("BYTES", np.object_))
        if kind is np.object_:
            items = [v.encode() for v in (value if isinstance(value, list) else [value])]
            array = np.array(items, dtype=np.object_)
        else:
            array = np.array([value], dtype=kind)
        array = array.reshape(shape if array.size == 1 else array.shape)
        tensor = triton.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def text_of(result):
    return b"".join(result.as_numpy("text_output").reshape(-1)).decode()


class ProtocolTest(unittest.TestCase):
    """Our proto against the one in tritonclient: same names, numbers, types."""

    def test_messages_and_methods_are_the_protocols(self):
        with tempfile.NamedTemporaryFile() as out:
            subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "proto"),
                            f"--descriptor_set_out={out.name}", "inference/grpc_service.proto"], check=True)
            ours = descriptor_pb2.FileDescriptorSet.FromString(out.read()).file[0]
        theirs, of_config = descriptor_pb2.FileDescriptorProto(), descriptor_pb2.FileDescriptorProto()
        service_pb2.DESCRIPTOR.CopyToProto(theirs)
        model_config_pb2.DESCRIPTOR.CopyToProto(of_config)
        self.assertEqual(theirs.package, of_config.package)
        self.assertEqual(ours.package, theirs.package)

        def flat(messages, prefix=""):
            for message in messages:
                yield prefix + message.name, message
                yield from flat(message.nested_type, prefix + message.name + ".")

        def fields(message):
            return {f.name: (f.number, f.type, f.label, f.type_name, f.oneof_index if f.HasField("oneof_index") else None)
                    for f in message.field}

        known = dict(flat([*theirs.message_type, *of_config.message_type]))
        # Of these we have some fields only: what they say of other kinds of models is left out.
        partial = {"ModelConfig", "ModelInput", "ModelOutput", "ModelStatistics", "InferStatistics"}
        names = [name for name, _ in flat(ours.message_type)]
        self.assertGreater(len(names), 15)
        for name, message in flat(ours.message_type):
            with self.subTest(message=name):
                mine, expected = fields(message), fields(known[name])
                self.assertEqual(mine, {k: v for k, v in expected.items() if k in mine or name not in partial})
        values = lambda file: {e.name: {v.name: v.number for v in e.value} for e in file.enum_type}
        self.assertEqual(list(values(ours)), ["DataType"])
        self.assertLessEqual(values(ours)["DataType"].items(), values(of_config)["DataType"].items())
        methods = {m.name: m for m in theirs.service[0].method}
        self.assertEqual(ours.service[0].name, theirs.service[0].name)
        self.assertEqual(len(ours.service[0].method), 9)
        for method in ours.service[0].method:
            for part in ("input_type", "output_type", "client_streaming", "server_streaming"):
                self.assertEqual(getattr(method, part), getattr(methods[method.name], part), method.name)


class InferenceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--max-context", "2048", "--kv-memory", "256MiB").__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)
        cls.client = triton.InferenceServerClient(cls.daemon.address)
        cls.addClassCleanup(cls.client.close)
        cls.raw = service_pb2_grpc.GRPCInferenceServiceStub(cls.daemon.channel)

    def infer(self, *args, outputs=None, **values):
        asked = None if outputs is None else [triton.InferRequestedOutput(name) for name in outputs]
        return self.client.infer("smol", inputs(*args, **values), outputs=asked)

    def stream(self, requests, client=None):
        """Sends (id, inputs, empty_final) on one stream; every answer until all are done, as (id, final, result) or
        an exception."""
        answers = queue.Queue()
        client = client or triton.InferenceServerClient(self.daemon.address)
        client.start_stream(lambda result, error: answers.put(error or result))
        for name, tensors, empty_final in requests:
            client.async_stream_infer("smol", tensors, request_id=name, enable_empty_final_response=empty_final)
        gathered, ends = [], 0
        while ends < len(requests):
            answer = answers.get(timeout=120)
            if isinstance(answer, InferenceServerException):
                gathered.append(answer)
                ends += 1
                continue
            response = answer.get_response()
            final = response.parameters["triton_final_response"].bool_param
            gathered.append((response.id, final, answer))
            ends += final
        client.stop_stream()
        self.assertTrue(answers.empty())
        client.close()
        return gathered

    def test_what_there_is(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready("smol"))
        self.assertTrue(self.client.is_model_ready("smol", "1"))
        self.assertFalse(self.client.is_model_ready("smol", "2"))
        self.assertFalse(self.client.is_model_ready("nope"))
        self.assertEqual(self.client.get_server_metadata().name, "acuity")
        metadata = self.client.get_model_metadata("smol")
        self.assertEqual((metadata.name, list(metadata.versions), metadata.platform), ("smol", ["1"], "acuity_llama"))
        types = {t.name: t.datatype for t in metadata.inputs}
        self.assertEqual(types["text_input"], "BYTES")
        for name, (datatype, _) in TYPES.items():
            self.assertEqual(types[name], datatype)
        self.assertIn("attention_max_probability", [t.name for t in metadata.outputs])
        for name, version in (("nope", ""), ("smol", "2")):
            with self.assertRaises(InferenceServerException) as caught:
                self.client.get_model_metadata(name, version)
            self.assertEqual(caught.exception.status(), "StatusCode.NOT_FOUND")

    def test_the_configuration_says_what_the_metadata_says(self):
        metadata, config = self.client.get_model_metadata("smol"), self.client.get_model_config("smol").config
        self.assertEqual((config.name, config.platform, config.backend, config.max_batch_size),
                         ("smol", metadata.platform, "acuity", 0))
        self.assertTrue(config.model_transaction_policy.decoupled)  # a request may have many answers
        for ours, theirs in ((config.input, metadata.inputs), (config.output, metadata.outputs)):
            datatype = lambda t: model_config_pb2.DataType.Name(t.data_type)[len("TYPE_"):].replace("STRING", "BYTES")
            self.assertEqual([(t.name, datatype(t), list(t.dims)) for t in ours],
                             [(t.name, t.datatype, list(t.shape)) for t in theirs])
        self.assertEqual([t.name for t in config.input if not t.optional], ["text_input"])
        as_json = self.client.get_model_config("smol", "1", as_json=True)["config"]
        self.assertEqual(as_json["model_transaction_policy"], {"decoupled": True})
        for name, version in (("nope", ""), ("smol", "2"), ("", "")):
            with self.assertRaises(InferenceServerException) as caught:
                self.client.get_model_config(name, version)
            self.assertEqual(caught.exception.status(), "StatusCode.NOT_FOUND")

    def statistics(self, name="smol"):
        return self.client.get_inference_statistics(name).model_stats

    def test_statistics_are_those_of_the_metrics(self):
        self.daemon.wait_idle()
        before, queued = self.statistics()[0], self.daemon.metric("acuity_queue_duration_seconds_sum")
        whole = self.daemon.metric("acuity_request_duration_seconds_sum")
        for i in range(3):
            self.infer(f"Statistics {i}", max_tokens=4, sampling_parameters='{"ignore_eos": true}')
        self.daemon.generate("Statistics of acuity.v1", max_tokens=2)
        self.refused(service_pb2.ModelInferRequest(model_name="smol"), "inputs.text_input")
        self.daemon.wait_idle()
        after, = self.statistics()
        self.assertEqual((after.name, after.version), ("smol", "1"))
        self.assertEqual(after.inference_count - before.inference_count, 4)
        self.assertEqual(after.execution_count, self.daemon.metric("acuity_step_duration_seconds_count"))
        self.assertLess(abs(after.last_inference / 1000 - time.time()), 60)
        sums = {name: getattr(after.inference_stats, name).ns - getattr(before.inference_stats, name).ns
                for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")}
        for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
            self.assertEqual(getattr(after.inference_stats, name).count, after.inference_count, name)
        self.assertAlmostEqual(sums["success"] / 1e9,
                               self.daemon.metric("acuity_request_duration_seconds_sum") - whole, places=6)
        self.assertAlmostEqual(sums["queue"] / 1e9,
                               self.daemon.metric("acuity_queue_duration_seconds_sum") - queued, places=6)
        self.assertEqual(sums["success"], sums["queue"] + sums["compute_infer"])
        self.assertEqual((sums["fail"], sums["compute_input"], sums["compute_output"]), (0, 0, 0))
        # One that is cut off fails; of all models.
        with self.assertRaises(InferenceServerException):
            self.client.infer("smol", inputs(max_tokens=1500, sampling_parameters='{"ignore_eos": true}'),
                              client_timeout=0.5)
        self.daemon.wait_idle()
        failed, = self.statistics("")
        self.assertEqual(failed.inference_count, after.inference_count)
        self.assertEqual(failed.inference_stats.fail.count, after.inference_stats.fail.count + 1)
        self.assertGreater(failed.inference_stats.fail.ns - after.inference_stats.fail.ns, 400e6)
        for name, version in (("nope", ""), ("smol", "2"), ("", "2")):
            with self.assertRaises(InferenceServerException) as caught:
                self.client.get_inference_statistics(name, version)
            self.assertEqual(caught.exception.status(), "StatusCode.NOT_FOUND")

    def test_one_answer_is_that_of_acuity_v1(self):
        ours = self.daemon.generate(PROMPT, temperature=0, max_tokens=12, logprobs=0)
        for shape in ((1,), (1, 1)):
            result = self.infer(shape=shape, max_tokens=12, temperature=0.0)
            self.assertEqual(text_of(result), ours.text)
            self.assertEqual(result.as_numpy("finish_reason")[0], b"length")
            self.assertEqual(result.as_numpy("num_input_tokens")[0], ours.result.usage.prompt_tokens)
            self.assertEqual(result.as_numpy("num_output_tokens")[0], 12)
            self.assertAlmostEqual(float(result.as_numpy("cum_log_probs")[0]),
                                   sum(l.token.logprob for l in ours.logprobs[0]), places=4)
            self.assertIsNone(result.as_numpy("attention_max_probability"))  # a short prompt
        sampled = dict(temperature=0.9, top_k=40, top_p=0.95, seed=2**63 + 5)
        ours = self.daemon.generate(PROMPT, max_tokens=12, stop=["river"], **sampled)
        self.assertEqual(text_of(self.infer(max_tokens=12, stop_words=["river"], **sampled)), ours.text)
        as_json = ('{"max_tokens": 12, "temperature": 0.9, "top_k": 40, "top_p": 0.95, "seed": 9223372036854775813, '
                   '"stop": ["river"]}')
        self.assertEqual(text_of(self.infer(sampling_parameters=as_json, exclude_input_in_output=True)), ours.text)

    def test_stop_words(self):
        whole = self.daemon.generate(PROMPT, temperature=0, max_tokens=30, ignore_eos=True)
        word = whole.text.split()[-3]
        result = self.infer(max_tokens=30, temperature=0.0, stop_words=["never there", word],
                            sampling_parameters='{"ignore_eos": true}')
        self.assertEqual(text_of(result), whole.text[:whole.text.index(word)])
        self.assertEqual(result.as_numpy("finish_reason")[0], b"stop")

    def test_outputs_that_are_asked_for_and_no_others(self):
        result = self.infer(max_tokens=2, outputs=["num_output_tokens", "text_output"])
        self.assertEqual({o.name for o in result.get_response().outputs}, {"num_output_tokens", "text_output"})
        self.assertEqual(len(result.get_response().raw_output_contents), 2)

    def test_attention_is_that_of_the_report(self):
        statistics = ("entropy", "normalized_entropy", "effective_context", "effective_context_fraction",
                      "max_probability")
        names = ["attention_layer", "attention_context", *("attention_" + s for s in statistics)]
        text = long_text(300)
        for detail, kind in (("summary", pb.ATTENTION_DETAIL_SUMMARY), ("layers", pb.ATTENTION_DETAIL_LAYERS)):
            # Salts and tenants keep caches apart: what is found there is not measured.
            request = self.daemon.request(text + detail, temperature=0, max_tokens=1, attention=kind)
            request.cache_salt = "apart"
            layers = [m for m in self.daemon.stub.Generate(request)][-1].result.prompt_attention.layers
            result = self.infer(text + detail, max_tokens=1, temperature=0.0, attention=detail, outputs=names)
            self.assertEqual(list(result.as_numpy("attention_layer")), [l.layer for l in layers])
            contexts = list(result.as_numpy("attention_context"))
            self.assertEqual(contexts, [b.n_min for b in layers[0].buckets])
            for statistic in statistics:
                tensor = result.as_numpy("attention_" + statistic)
                self.assertEqual((tensor.shape, tensor.dtype), ((len(layers), len(contexts)), np.float32))
                expected = np.array([[getattr(b, statistic) for b in l.buckets] for l in layers], dtype=np.float32)
                np.testing.assert_array_equal(tensor, expected)
        # Named, hence measured, also without `attention`; off is off.
        self.assertEqual(self.infer(long_text(200) + "x", max_tokens=1, outputs=names).as_numpy(names[-1]).shape[0], 3)
        result = self.infer(long_text(200) + "y", max_tokens=1, attention="off", outputs=names)
        self.assertEqual(result.as_numpy(names[-1]).shape, (0, 0))
        # A long prompt is measured without being asked.
        result = self.infer(long_text(1100), max_tokens=1)
        self.assertEqual(result.as_numpy("attention_normalized_entropy").shape[0], 3)

    def test_several_requests_on_one_stream(self):
        prompts = {f"request {i}": f"{PROMPT} not number {i}, but" for i in range(5)}
        expected = {name: self.daemon.generate(text, temperature=0, max_tokens=16, ignore_eos=True)
                    for name, text in prompts.items()}
        sampling = '{"ignore_eos": true}'
        for empty_final in (False, True):
            answers = self.stream([(name, inputs(text, stream=True, max_tokens=16, temperature=0.0,
                                                 sampling_parameters=sampling), empty_final)
                                   for name, text in prompts.items()])
            for name, reference in expected.items():
                mine = [(final, result) for one, final, result in answers if one == name]
                self.assertEqual([final for final, _ in mine], [False] * (len(mine) - 1) + [True])
                full = [result for _, result in mine]
                if empty_final:
                    self.assertEqual(len(full.pop().get_response().outputs), 0)
                self.assertGreater(len(full), 4)
                self.assertEqual("".join(map(text_of, full)), reference.text)
                self.assertEqual(full[-1].as_numpy("num_output_tokens")[0], 16)
                self.assertIsNone(full[0].as_numpy("num_output_tokens"))
            # They ran at the same time.
            order = [name for name, _, _ in answers]
            self.assertLess(order.index("request 4"), len(order) - 1 - order[::-1].index("request 0"))

    def test_a_stream_takes_whole_answers_and_errors_too(self):
        whole = self.daemon.generate(PROMPT, temperature=0, max_tokens=10).text
        answers = self.stream([("a", inputs(max_tokens=10, temperature=0.0), False),
                               ("b", inputs(max_tokens=-5), True),
                               ("c", inputs(max_tokens=10, temperature=0.0, stream=False), True),
                               ("d", inputs(max_tokens=10, temperature=0.0, stream=True), False)])
        errors = [a for a in answers if isinstance(a, InferenceServerException)]
        self.assertEqual(len(errors), 1)
        for part in ("INVALID_ARGUMENT", "inputs.max_tokens", "-5", "1048576", '"b"'):
            self.assertIn(part, errors[0].message())
        by_id = lambda name: [a for a in answers if a not in errors and a[0] == name]
        self.assertEqual([final for _, final, _ in by_id("a")], [True])
        self.assertEqual(text_of(by_id("a")[0][2]), whole)
        self.assertEqual([final for _, final, _ in by_id("c")], [False, True])
        self.assertEqual(text_of(by_id("c")[0][2]), whole)
        self.assertEqual("".join(text_of(a[2]) for a in by_id("d")), whole)

    def test_more_requests_than_are_read_at_a_time(self):
        answers = self.stream([(str(i), inputs(f"{i}", max_tokens=1), False) for i in range(130)])
        self.assertEqual({name for name, _, _ in answers}, {str(i) for i in range(130)})

    def test_cancellation_frees_memory(self):
        answers = queue.Queue()
        client = triton.InferenceServerClient(self.daemon.address)
        client.start_stream(lambda result, error: answers.put(error or result))
        sampling = '{"ignore_eos": true}'
        for name in ("a", "b"):
            client.async_stream_infer("smol", inputs(stream=True, max_tokens=1500, sampling_parameters=sampling),
                                      request_id=name)
        client.async_stream_infer("smol", inputs(max_tokens=1500, sampling_parameters=sampling), request_id="c")
        answers.get(timeout=60)
        while self.daemon.status().running < 3:
            time.sleep(0.01)
        begin = time.time()
        client.stop_stream(cancel_requests=True)
        self.assertEqual(self.daemon.wait_idle(), 0)
        self.assertLess(time.time() - begin, 10)
        client.close()
        # A deadline, on the unary call.
        with self.assertRaises(InferenceServerException) as caught:
            self.client.infer("smol", inputs(max_tokens=1500, sampling_parameters=sampling), client_timeout=0.5)
        self.assertEqual(caught.exception.status(), "StatusCode.DEADLINE_EXCEEDED")
        self.assertEqual(self.daemon.wait_idle(), 0)

    def test_the_documented_example_runs(self):
        example = (ROOT / "docs/api.md").read_text().split("```python\n")[1].split("```")[0]
        self.assertIn("8700", example)
        example = example.replace("127.0.0.1:8700", self.daemon.address).replace('"smollm2"', '"smol"')
        run = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=120)
        self.assertEqual(run.returncode, 0, run.stderr)
        text = self.daemon.generate(PROMPT, temperature=0, max_tokens=8).text
        self.assertTrue(run.stdout.startswith(text + "\n[["), run.stdout)
        self.assertTrue(run.stdout.endswith(text), run.stdout)

    # ---- what is wrong

    def request(self, **changes):
        """A raw request with typed contents, which tritonclient never sends."""
        request = service_pb2.ModelInferRequest(model_name="smol")
        for name, datatype, field, value in (("text_input", "BYTES", "bytes_contents", PROMPT.encode()),
                                             ("max_tokens", "INT32", "int_contents", 4),
                                             ("temperature", "FP32", "fp32_contents", 0.0),
                                             ("stream", "BOOL", "bool_contents", False),
                                             ("seed", "UINT64", "uint64_contents", 7)):
            tensor = request.inputs.add(name=name, datatype=datatype, shape=[1])
            getattr(tensor.contents, field).append(value)
        return request

    def raw_request(self, raw, name="text_input", datatype="BYTES", shape=(1,)):
        request = service_pb2.ModelInferRequest(model_name="smol")
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
        return request

    def test_typed_contents(self):
        ours = self.daemon.generate(PROMPT, temperature=0, max_tokens=4)
        result = triton.InferResult(self.raw.ModelInfer(self.request()))
        self.assertEqual(text_of(result), ours.text)

    def refused(self, request, *parts, code=grpc.StatusCode.INVALID_ARGUMENT):
        with self.assertRaises(grpc.RpcError) as caught:
            self.raw.ModelInfer(request, timeout=60)
        error = caught.exception
        self.assertEqual(error.code(), code, error.details())
        for part in parts:
            self.assertIn(part, error.details())
        if code == grpc.StatusCode.INVALID_ARGUMENT:
            bad = error_details_pb2.BadRequest()
            self.assertTrue(rpc_status.from_call(error).details[1].Unpack(bad))
            self.assertTrue(error.details().startswith(bad.field_violations[0].field + ": "))
        # On a stream the same words come as an answer.
        answers = list(self.raw.ModelStreamInfer(iter([request]), timeout=60))
        self.assertEqual(len(answers), 1)
        self.assertEqual(answers[0].error_message.split(": ", 1), [code.name, error.details()])

    def test_each_wrong_input(self):
        def changed(change):
            request = self.request()
            change(request)
            return request

        def tensor(which, **fields):
            def change(request):
                one = next(t for t in request.inputs if t.name == which)
                for field, value in fields.items():
                    if field == "shape":
                        one.shape[:] = value
                    else:
                        setattr(one, field, value)
            return changed(change)

        rows = [
            (tensor("seed", name="sed"), "inputs.sed", "there is no such input", "text_input, stream, max_tokens"),
            (tensor("seed", name="max_tokens"), "inputs.max_tokens", "twice"),
            (tensor("max_tokens", datatype="INT64"), "inputs.max_tokens", '"INT64"', "INT32"),
            (tensor("text_input", datatype="FP32"), "inputs.text_input", '"FP32"', "BYTES"),
            (tensor("text_input", shape=[2]), "inputs.text_input", "[2]"),
            (tensor("text_input", shape=[2, 1]), "inputs.text_input", "[2, 1]", "batch of 1"),
            (tensor("text_input", shape=[]), "inputs.text_input", "[]", "1 or 2 dimensions"),
            (tensor("text_input", shape=[1, 1, 1]), "inputs.text_input", "[1, 1, 1]"),
            (tensor("text_input", shape=[0]), "inputs.text_input", "[0]"),
            (tensor("temperature", shape=[-1]), "inputs.temperature", "[-1]"),
            (changed(lambda r: r.inputs[0].contents.bytes_contents.append(b"x")), "inputs.text_input",
             "2 elements in contents.bytes_contents", "says 1"),
            (changed(lambda r: r.inputs[1].ClearField("contents")), "inputs.max_tokens", "0 elements"),
            (changed(lambda r: r.inputs.pop(0)), "inputs.text_input", "missing"),
            (changed(lambda r: r.inputs[0].parameters["shared_memory_region"].CopyFrom(
                service_pb2.InferParameter(string_param="x"))), "inputs.text_input", "shared_memory_region"),
            (changed(lambda r: r.outputs.add(name="text")), "outputs.text", "text_output, finish_reason"),
            (changed(lambda r: r.outputs.add(name="text_output").parameters["classification"].CopyFrom(
                service_pb2.InferParameter(int64_param=3))), "outputs.text_output", "classification"),
            (changed(lambda r: r.parameters["sequence_id"].CopyFrom(service_pb2.InferParameter(int64_param=3))),
             "parameters.sequence_id", "not known"),
            (changed(lambda r: r.raw_input_contents.append(b"x")), "raw_input_contents", "1 for 5 inputs"),
            (changed(lambda r: r.inputs[0].contents.bytes_contents.__setitem__(0, b"\xff")), "inputs.text_input"),
            (changed(lambda r: r.inputs[0].contents.bytes_contents.__setitem__(0, b"")), "inputs.text_input", "empty"),
            (changed(lambda r: r.inputs[1].contents.int_contents.__setitem__(0, 0)), "inputs.max_tokens", "0", "1048576"),
            (changed(lambda r: r.inputs[1].contents.int_contents.__setitem__(0, 5000)), "inputs.max_tokens", "2048"),
            (changed(lambda r: r.inputs[2].contents.fp32_contents.__setitem__(0, float("nan"))), "inputs.temperature",
             "nan", "100"),
            (changed(lambda r: setattr(r, "id", "i" * 129)), "id", "129", "128"),
            (self.raw_request(b""), "inputs.text_input", "length of 4 bytes", "0 are left"),
            (self.raw_request(b"\1\0\0"), "inputs.text_input", "length of 4 bytes", "3 are left"),
            (self.raw_request(struct.pack("<I", 6) + b"short"), "claims 6 bytes", "5 are left"),
            (self.raw_request(struct.pack("<i", -1) + b"short"), "claims 4294967295 bytes", "5 are left"),
            (self.raw_request(struct.pack("<I", 1) + b"long"), "inputs.text_input", "3 bytes after"),
            (self.raw_request(b"\0\0\0", "max_tokens", "INT32"), "inputs.max_tokens", "3 bytes", "4 are needed"),
            (self.raw_request(b"", "stream", "BOOL"), "inputs.stream", "0 bytes", "1 are needed"),
            (self.raw_request(b"", "stop_words", "BYTES", [17]), "inputs.stop_words", "[17]", "1 to 16"),
        ]
        for request, *parts in rows:
            with self.subTest(parts=parts):
                self.refused(request, *parts)
        not_found = grpc.StatusCode.NOT_FOUND
        self.refused(changed(lambda r: setattr(r, "model_name", "nope")), "nope", "smol", code=not_found)
        self.refused(changed(lambda r: setattr(r, "model_version", "3")), "model_version", '"3"', code=not_found)
        self.assertEqual(self.daemon.wait_idle(), 0)

    def test_what_only_makes_sense_elsewhere(self):
        rows = [
            (dict(sampling_parameters="{"), "inputs.sampling_parameters"),
            (dict(sampling_parameters='{"temprature": 1}'), "temprature"),
            (dict(sampling_parameters='{"temperature": "hot"}'), "inputs.sampling_parameters"),
            (dict(sampling_parameters='{"top_p": 3}'), "inputs.top_p", "3"),
            (dict(sampling_parameters="[" * 5000), "inputs.sampling_parameters"),
            (dict(sampling_parameters='{"n": 2}'), "n is 2"),
            (dict(sampling_parameters='{"seed": 1}', seed=2), "inputs.seed", "too"),
            (dict(stop_words=[""]), "inputs.stop_words", "empty"),
            (dict(exclude_input_in_output=False), "exclude_input_in_output"),
            (dict(attention="heads"), "inputs.attention", "heads", "summary"),
            (dict(stream=True), "inputs.stream", "ModelStreamInfer"),
        ]
        for values, *parts in rows:
            with self.subTest(values=str(values)[:60]):
                with self.assertRaises(InferenceServerException) as caught:
                    self.infer(**values)
                self.assertEqual(caught.exception.status(), "StatusCode.INVALID_ARGUMENT")
                for part in parts:
                    self.assertIn(part, caught.exception.message())

    def test_random_bytes_never_kill_it(self):
        random = np.random.default_rng(7)
        good = self.request()
        good.inputs.add(name="sampling_parameters", datatype="BYTES", shape=[1]).contents.bytes_contents.append(
            b'{"top_k": 5, "stop": ["a"]}')
        wire = good.SerializeToString()
        call = self.daemon.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        codes = set()
        for _ in range(200):
            damaged = bytearray(wire)
            for _ in range(random.integers(1, 4)):
                damaged[random.integers(len(damaged))] = random.integers(256)
            try:
                call(bytes(damaged[:random.integers(len(wire) // 2, len(wire) + 1)]), timeout=60)
                codes.add("OK")
            except grpc.RpcError as error:
                codes.add(error.code().name)
        # What is no message at all is refused by gRPC, as UNIMPLEMENTED or INTERNAL.
        self.assertLessEqual(codes, {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "INTERNAL"})
        self.assertLessEqual({"OK", "INVALID_ARGUMENT"}, codes)
        self.assertTrue(self.client.is_server_ready())


if __name__ == "__main__":
    unittest.main(verbosity=2)
