#!/usr/bin/env python3
"""Sends many requests at a time from one thread, and cancels those that take longer than asked for."""

import argparse
import asyncio
import time

import acuity

QUESTIONS = ("Why is the sky blue?", "What is a prime number?", "Who wrote Hamlet?", "How do bees find their way?")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="127.0.0.1:8700")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--timeout", type=float, default=60, help="seconds for each")
    arguments = parser.parse_args()
    async with acuity.AsyncClient(arguments.server, timeout=arguments.timeout) as client:

        async def ask(number: int) -> int:
            question = QUESTIONS[number % len(QUESTIONS)]
            try:
                result = await client.generate(chat=question, max_tokens=32, temperature=0.7, seed=number)
            except acuity.DeadlineExceededError:
                print(f"{number:3} {question} (not within {arguments.timeout:g} s)")
                return 0
            first = result.timings.time_to_first_token_seconds
            print(f"{number:3} first token after {first:.2f} s  {question}  {result.text.strip()[:60]!r}")
            return result.usage.completion_tokens

        start = time.monotonic()
        tokens = await asyncio.gather(*(ask(number) for number in range(arguments.requests)))
        seconds = time.monotonic() - start
        print(f"{sum(tokens)} tokens in {seconds:.1f} s, {sum(tokens) / seconds:.1f} tokens/s")


if __name__ == "__main__":
    asyncio.run(main())
