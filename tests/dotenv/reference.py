"""Reads .env texts with the real python-dotenv, for tests/dotenv/main.rs.

Standard input: {"environment": {name: value}, "texts": [text]}, standard output: {"version": ...,
"answers": [...]}, one answer per text. A text becomes bytes and is read again as a text file, since
that is where Python turns CR LF and CR into LF.
"""

import io
import json
import logging
import os
import sys
from importlib.metadata import version

from dotenv import dotenv_values
from dotenv.parser import parse_stream


def opened(text):
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")


def answer(text):
    assignments, unparseable = [], []
    for binding in parse_stream(opened(text)):
        # A statement begins, for python-dotenv, with the blank lines in front of it.
        statement = binding.original.string.lstrip()
        blank = binding.original.string[: len(binding.original.string) - len(statement)]
        line = binding.original.line + blank.count("\n")
        if binding.error:
            unparseable.append([line, statement.removesuffix("\n")])
        elif binding.key is not None:
            assignments.append([line, binding.key, binding.value])
    # What load_dotenv(override=True) would put into the environment: it passes over None.
    values = {k: v for k, v in dotenv_values(stream=opened(text)).items() if v is not None}
    return {"assignments": assignments, "unparseable": unparseable, "values": values}


def main():
    question = json.load(sys.stdin.buffer)
    logging.disable()
    os.environ.clear()
    os.environ.update(question["environment"])
    answers = [answer(text) for text in question["texts"]]
    json.dump({"version": version("python-dotenv"), "answers": answers}, sys.stdout)


main()
