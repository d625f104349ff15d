"""One measurement of OpenVINO GenAI, in process; prints JSON. Run by peers.py with the peer's own Python.

    peers_openvino.py GGUF PROMPT_TOKENS OUTPUT_TOKENS SEQUENCES THREADS
"""
import json
import sys
import time

import numpy
import openvino
import openvino_genai as genai


def main():
    model = sys.argv[1]
    prompt, output, sequences, threads = map(int, sys.argv[2:])
    random = numpy.random.default_rng(1)

    def tokens(count):
        return openvino.Tensor(random.integers(300, 49000, size=(1, count), dtype=numpy.int64))

    scheduler = genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = max(prompt, 512) + 256
    scheduler.cache_size = 1  # GB
    warm_up = genai.GenerationConfig(ignore_eos=True, max_new_tokens=2)
    config = genai.GenerationConfig(ignore_eos=True, max_new_tokens=output, min_new_tokens=output)
    if sequences == 1:
        pipeline = genai.LLMPipeline(model, "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=threads)
        pipeline.generate(tokens(16), warm_up)
        result = pipeline.generate(tokens(prompt), config)
        metrics = result.perf_metrics
        print(json.dumps({
            "first_token_s": metrics.get_ttft().mean / 1000,
            "total_s": metrics.get_generate_duration().mean / 1000,
            "output_tokens": len(result.tokens[0]),
        }))
        return
    pipeline = genai.ContinuousBatchingPipeline(model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads})
    pipeline.generate([tokens(16)], [warm_up])
    prompts = [tokens(prompt) for _ in range(sequences)]
    start = time.perf_counter()
    results = pipeline.generate(prompts, [config] * sequences)
    print(json.dumps({
        "total_s": time.perf_counter() - start,
        "output_tokens": sum(len(r.m_generation_ids[0]) for r in results),
    }))


if __name__ == "__main__":
    main()
