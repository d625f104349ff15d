#!/usr/bin/env python3
"""Plots how sharply a model attends to a long prompt, by layer and context length."""

import argparse
import uuid

import acuity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="127.0.0.1:8700")
    parser.add_argument("--model", help="default: the daemon's first")
    parser.add_argument("--file", required=True, help="the prompt: a long text")
    parser.add_argument("--out", default="attention.png")
    arguments = parser.parse_args()
    with open(arguments.file, encoding="utf-8") as file:
        text = file.read()
    with acuity.Client(arguments.server, model=arguments.model) as client:
        # A salt of its own, so that no part of the prompt comes from the prefix cache unmeasured.
        result = client.generate(text, attention="layers", max_tokens=1, cache_salt=uuid.uuid4().hex)
    report = result.prompt_attention
    assert report is not None  # attention="layers" asks for it
    report.plot(title=f"Attention over {result.usage.prompt_tokens:,} tokens").savefig(arguments.out, dpi=150)
    print(f"{result.usage.prompt_tokens:,} tokens, {arguments.out}")
    print("keys n >=   H / ln n   e^H      largest probability")
    for bucket in report.mean():
        print(f"{bucket.n_min:9,}   {bucket.normalized_entropy:8.3f}   {bucket.effective_context:7.1f}   "
              f"{bucket.max_probability:.3f}")


if __name__ == "__main__":
    main()
