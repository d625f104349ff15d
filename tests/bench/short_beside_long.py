"""Time to the first token of short prompts, alone and beside a giant prompt that is prefilled.

    short_beside_long.py --acuityd PATH --model GGUF [--long TOKENS] [--short TOKENS] [--rounds N] [daemon flags ...]

One short request at a time, by the daemon's own clock (`acuity generate --json`, timings.time_to_first_token_seconds).
A round is: as many short prompts alone as there will be beside, then short ones until the giant's first token comes.
Every prompt is different, so that no prefix is found. Prints medians, the worst, and their ratio; no gate.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import threading

WORDS = "The river was low all summer and they spoke of little else in the village by the old stone bridge. "


class Daemon:
    def __init__(self, acuityd, model, flags):
        self.acuity = pathlib.Path(acuityd).with_name("acuity")
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [acuityd, "--model", f"m={model}", "--listen", f"unix:{self.folder.name}/socket", "--metrics-listen", "",
             *flags], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if '"serving"' in line:
                break
        else:
            raise SystemExit("short_beside_long: the daemon did not serve")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def first_token_seconds(self, prompt):
        """And the number of prompt tokens."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(prompt)
            file.flush()
            run = subprocess.run(
                [self.acuity, "--server", f"unix:{self.folder.name}/socket", "generate", "--json", "--prompt-file",
                 file.name, "--max-tokens", "1", "--attention", "off"], capture_output=True, text=True)
        if run.returncode != 0:
            raise SystemExit(f"short_beside_long: {run.stderr}")
        answer = json.loads(run.stdout)
        return answer["timings"]["time_to_first_token_seconds"], answer["usage"]["prompt_tokens"]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def text(start, tokens):
    return start + WORDS * (tokens // 21 + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--acuityd", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--long", type=int, default=7800)
    parser.add_argument("--short", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    options, flags = parser.parse_known_args()
    daemon = Daemon(options.acuityd, options.model, flags)
    alone, beside, giants, count = [], [], [], 0

    def one():
        nonlocal count
        count += 1
        return daemon.first_token_seconds(text(f"{count} ", options.short))[0]

    one()
    for i in range(options.rounds):
        giant = threading.Thread(target=lambda: giants.append(daemon.first_token_seconds(
            text(f"Letter {i}. ", options.long))))
        giant.start()
        before = len(beside)
        while giant.is_alive():
            beside.append(one())
        beside.pop()  # it may have run alone
        alone.extend(one() for _ in range(len(beside) - before))
    daemon.stop()
    for name, values in (("alone", alone), (f"beside a prefill of {giants[0][1]} tokens", beside)):
        print(f"short prompts {name}: median {1000 * statistics.median(values):.0f} ms, worst {1000 * max(values):.0f} ms "
              f"({len(values)})")
    print(f"ratio of the medians {statistics.median(beside) / statistics.median(alone):.1f}; "
          f"the giant's own first token: {', '.join(f'{g:.1f} s' for g, _ in giants)}")


if __name__ == "__main__":
    main()
