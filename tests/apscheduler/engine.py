"""Our side: a conversation with `punctual preview --batch`, one JSON line each way."""

import json
import os
import subprocess
from datetime import datetime, timezone


class Refused(Exception):
    """The trigger was not accepted; the text says why."""


def to_text(at):
    """An instant as the program reads it."""
    return at.astimezone(timezone.utc).isoformat()


class Engine:
    """The running program."""

    def __init__(self, program):
        self.process = subprocess.Popen(
            [program, "preview", "--batch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            # Where a trigger names no zone, the machine's must not matter.
            env={**os.environ, "TZ": "UTC"},
        )

    def ask(self, question):
        """The answer to one question, as it is."""
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the program ended at the question {question}")
        return json.loads(line)

    def times(self, spec, after=None, inclusive=False, count=1):
        """The next occurrences, fewer if there are no more."""
        answer = self.ask({
            "op": "preview",
            "trigger": spec,
            "after": None if after is None else to_text(after),
            "inclusive": inclusive,
            "count": count,
        })
        if "error" in answer:
            raise Refused(answer["error"])
        return [datetime.fromisoformat(text) for text in answer["times"]]

    def validate(self, spec):
        """Refuses a trigger that cannot be added."""
        answer = self.ask({"op": "validate", "trigger": spec})
        if "error" in answer:
            raise Refused(answer["error"])

    def close(self):
        self.process.stdin.close()
        self.process.wait()
