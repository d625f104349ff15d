"""Trains the twins: one model per arm and seed.

    scripts/train-needle                      every arm and seed of the shipped set; resumes where it was stopped
    scripts/train-needle --arm ssmax --seed 0 one of them

A task is a module, recall.py (keyed recall) or text.py (the next byte). It has FFN, STEPS and LEARNING_RATE; `lesson`, the
tokens of a step and what is due, where every STRIDE-th of the last tokens predicts one; and what export.py asks of it.

Checkpoints go to ACUITY_DEPS (default ~/.cache/acuity)/needle, exported models to its folder `models`.
"""

import argparse
import dataclasses
import math
import os
import pathlib
import time
import types

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import export
import recall
import text
from twin import Shape, Twin

WARMUP_STEPS = 20
WEIGHT_DECAY = 0.1  # of matrices
CHECKPOINT_STEPS = 100
LAST_STEPS = 200  # whose mean loss is called the final one
CHECKED = (1, 4, 8, 16, 32)  # lengths, as multiples of the trained one
SWITCH = 0.75  # of the steps: where "switched" changes to SSMax


def auto_s(length: int) -> float:
    """s for which s ln n is 1 on average over n = 1..length: where SSMax starts from, and what ssmax:auto takes."""
    return length / math.lgamma(length + 1)


AUTO_S, TEXT_S = auto_s(recall.TRAINED_LENGTH), auto_s(text.TRAINED_LENGTH)

P_ROPE, ROPE, NOPE = (8, 8), (32, 32), (32, 0)  # rotated dimensions of 32 per layer


@dataclasses.dataclass(frozen=True)
class Arm:
    seeds: int
    s: float | None = None  # SSMax from this s; none: softmax
    bias: bool = False
    learned: bool = True
    ssmax_from: float = 0  # of the steps
    rotary: tuple[int, ...] = P_ROPE
    task: types.ModuleType = recall


ARMS = {
    "softmax": Arm(5),
    "ssmax": Arm(10, AUTO_S),
    "ssmax-bias": Arm(5, AUTO_S, bias=True),
    "ssmax-one": Arm(5, 1.0, learned=False),
    "switched": Arm(5, AUTO_S, ssmax_from=SWITCH),
    "softmax-rope": Arm(2, rotary=ROPE),
    "ssmax-rope": Arm(2, AUTO_S, rotary=ROPE),
    "softmax-nope": Arm(2, rotary=NOPE),
    "ssmax-nope": Arm(2, AUTO_S, rotary=NOPE),
    "text-softmax": Arm(3, task=text),
    "text-ssmax": Arm(3, TEXT_S, task=text),
}


def rate_at(highest: float, step: int, steps: int) -> float:
    return highest * min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def optimiser(twin: Twin) -> torch.optim.AdamW:
    learned = [p for p in twin.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.dim() == 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in learned if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)


class Run:
    """One model in training; `step` steps are done."""

    def __init__(self, arm: str, seed: int, steps: int, device: str):
        self.arm, self.seed, self.steps, self.device = ARMS[arm], seed, steps, device
        self.task = task = self.arm.task
        self.step = 0
        self.losses: list[float] = []  # of each step
        torch.manual_seed(seed)
        self.twin = Twin(Shape(task.VOCABULARY, ffn=task.FFN, rotary=self.arm.rotary)).to(device)
        self.optimiser = optimiser(self.twin)
        if self.arm.ssmax_from == 0:
            self._switch()

    def _switch(self) -> None:
        if self.arm.s is None:
            return
        moments = self.optimiser.state
        self.twin.use_ssmax(self.arm.s, self.arm.bias, self.arm.learned)
        self.optimiser = optimiser(self.twin)
        self.optimiser.state.update(moments)

    def advance(self) -> None:
        """One step."""
        if self.step > 0 and self.step == int(self.arm.ssmax_from * self.steps):
            self._switch()
        # Of seed and step alone: training can be resumed, and arms of one seed see the same.
        lesson = self.task.lesson(np.random.default_rng((self.seed, self.step)), self.step, self.steps)
        tokens, due = (torch.from_numpy(part).to(self.device) for part in lesson)
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.task.LEARNING_RATE, self.step, self.steps)
        logits = self.twin(tokens, self.task.STRIDE * due.shape[1])[:, :: self.task.STRIDE]
        loss = F.cross_entropy(logits.flatten(0, 1), due.flatten())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.twin.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self.losses.append(loss.item())

    def save(self, path: pathlib.Path, cpu_seconds: float) -> None:
        state = {"step": self.step, "steps": self.steps, "cpu_seconds": cpu_seconds, "losses": self.losses,
                 "twin": self.twin.state_dict(), "optimiser": self.optimiser.state_dict()}
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def load(self, path: pathlib.Path) -> float:
        """Continues from a checkpoint; the CPU seconds that were spent on it."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["steps"] != self.steps:
            raise SystemExit(f"{path} is of a run of {state['steps']} steps, not {self.steps}: remove it to start anew")
        if any(name.endswith("attention.s") for name in state["twin"]) and self.arm.ssmax_from > 0:
            self._switch()
        self.twin.load_state_dict(state["twin"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.losses = state["step"], state["losses"]
        return state["cpu_seconds"]

    def check(self) -> str:
        """How well it does, a guide in training: published figures are the daemon's, but for the training loss."""
        loss = f"loss of the last {LAST_STEPS} steps {np.mean(self.losses[-LAST_STEPS:]):.4f}"
        if self.task is not recall:
            return loss
        shares = [accuracy(self.twin, times * recall.TRAINED_LENGTH, 32, self.device) for times in CHECKED]
        return f"{loss}, recall at {CHECKED} times the length {' '.join(f'{share:.3f}' for share in shares)}"


@torch.no_grad()
def accuracy(twin: Twin, length: int, prompts: int, device: str) -> float:
    """Share of the values that are predicted."""
    tokens = recall.batch(prompts, length, np.random.default_rng(length))
    rows = torch.from_numpy(tokens).to(device).split(1)  # one by one: long ones would need much memory
    predicted = torch.cat([twin(row, recall.TAIL)[:, ::2].argmax(-1) for row in rows])
    return float((predicted.cpu().numpy() == recall.answers(tokens)).mean())


def train(arm: str, seed: int, steps: int | None, folder: pathlib.Path, device: str) -> Run:
    """steps: the task's own if None."""
    run = Run(arm, seed, steps or ARMS[arm].task.STEPS, device)
    steps = run.steps
    checkpoint = folder / f"{arm}-{seed}.pt"
    seconds = run.load(checkpoint) if checkpoint.exists() else 0.0
    begin = time.process_time() - seconds
    with tqdm(total=steps, initial=run.step, desc=f"{arm} {seed}", mininterval=1) as bar:
        while run.step < steps:
            run.advance()
            bar.update()
            if run.step % CHECKPOINT_STEPS == 0 or run.step == steps:
                bar.set_postfix(loss=f"{run.losses[-1]:.3f}")
                run.save(checkpoint, time.process_time() - begin)
    export.export(run.twin, run.task, folder / "models" / f"{arm}-{seed}")
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the twins; resumes where it was stopped.")
    parser.add_argument("--arm", choices=ARMS, nargs="+", default=list(ARMS), help="these only")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--steps", type=int, help="default: as many as the task needs")
    parser.add_argument("--check", action="store_true", help="print each one's recall, or loss, when it is trained")
    parser.add_argument("--ship", action="store_true", help="copy those that the repository ships into it")
    arguments = parser.parse_args()
    if arguments.ship and arguments.steps is not None:
        parser.error("--ship is for models that are trained to the end: no --steps beside it")
    torch.set_num_threads(1)  # such small matrices are not worth more
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cache = pathlib.Path(os.environ.get("ACUITY_DEPS", pathlib.Path.home() / ".cache/acuity")) / "needle"
    cache.mkdir(parents=True, exist_ok=True)
    shipped = {}
    for arm in arguments.arm:
        for seed in range(ARMS[arm].seeds) if arguments.seed is None else [arguments.seed]:
            run = train(arm, seed, arguments.steps, cache, device)
            name = f"{arm}-{seed}"
            if export.ships(arm, seed):
                shipped[name] = run
            if arguments.check:
                print(f"{name}:", run.check())
    if arguments.ship:
        for name, run in shipped.items():
            export.ship(cache / "models", name, run.twin, run.task)
        (export.ROOT / "models/needle/haystack.txt").write_text(recall.haystack())


if __name__ == "__main__":
    main()
