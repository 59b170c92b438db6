"""What the program can say when it must stop, and with which exit status."""

from __future__ import annotations

EXIT_BUG = 1
EXIT_INPUT = 2
EXIT_SPACE = 3
EXIT_MEMORY = 4
EXIT_ARGUMENT = 5


class Fault(Exception):
    """A sentence for a person and the exit status that the pipeline's ``judge`` understands."""

    def __init__(self, exit_status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_status = exit_status


def input_fault(sentence: str) -> Fault:
    return Fault(EXIT_INPUT, sentence)
