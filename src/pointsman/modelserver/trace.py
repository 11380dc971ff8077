"""The step trace: one JSON line per engine step, for looking closely and for other simulators."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

import orjson

from pointsman.modelserver.engine import StepResult


class StepTrace:
    """Writes steps to a file. It grows as long as the server runs: meant for experiments."""

    def __init__(self, path: str, replica: int) -> None:
        self._replica = replica
        self._file: TextIO = sys.stderr
        if path != "-":
            # Open as long as the server runs; close() ends it.
            self._file = Path(path).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def write(self, result: StepResult) -> None:
        """Writes one step."""
        self._file.write(orjson.dumps(line_of(result, self._replica)).decode() + "\n")

    def close(self) -> None:
        """Ends the trace."""
        if self._file is not sys.stderr:
            self._file.close()


def line_of(result: StepResult, replica: int = 0) -> dict[str, Any]:
    """One step as the trace tells it. Times are engine seconds."""
    batch = result.batch
    return {
        "replica": replica,
        "step": result.number,
        "start_s": result.start_s,
        "end_s": result.end_s,
        "tokens": {sequence.id: tokens for sequence, tokens in batch.shares.items()},
        "prefill_tokens": batch.prefill_tokens,
        "context_tokens": batch.context_tokens,
        "adapter_loads": batch.adapter_loads,
        "adapter_fetches": batch.adapter_fetches,
        "admitted": [sequence.id for sequence in batch.admitted],
        "preempted": [sequence.id for sequence in batch.preempted],
        "finished": [sequence.id for sequence in result.finished],
        "running": result.running,
        "waiting": result.waiting,
        "kv_usage": result.kv_usage,
    }
