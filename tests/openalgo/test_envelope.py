"""One event as one line."""

import datetime
import decimal
import json
import re
import unittest

import support  # noqa: F401  puts the kit on the path
from openalgo_bridge_kit import envelope


def made(data, event="order_event", user="u"):
    return envelope.line(event, envelope.now(), user, "openalgo", data)


class EnvelopeTest(unittest.TestCase):
    def test_fields_their_order_and_the_time(self):
        line = made({"symbol": "SBIN"}).decode()
        pattern = (
            r'\{"event_type":"order_event","timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",'
            r'"user_id":"u","source":"openalgo","data":\{"symbol":"SBIN"\}\}\n'
        )
        self.assertRegex(line, re.compile(pattern + r"\Z"))

    def test_the_time_has_six_digits_when_they_are_zeros(self):
        class Clock(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(2026, 1, 29, 10, 30, 45, tzinfo=tz)

        real, envelope.datetime = envelope.datetime, Clock
        self.addCleanup(setattr, envelope, "datetime", real)
        self.assertEqual(envelope.now(), "2026-01-29T10:30:45.000000Z")

    def test_what_json_lacks_becomes_the_nearest_json(self):
        data = {
            "nan": float("nan"),
            "inf": [float("-inf"), 1.5],
            "bytes": b"a\xff",
            "time": datetime.date(2026, 1, 2),
            "price": decimal.Decimal("850.50"),
            "pair": (1, {2}),
            1: "int",
            None: "none",
            False: "false",
            (1, 2): "tuple",
        }
        line = made(data)
        found = json.loads(line, parse_constant=lambda name: self.fail(name))["data"]
        self.assertEqual(
            found,
            {
                "nan": None,
                "inf": [None, 1.5],
                "bytes": "a\ufffd",
                "time": "2026-01-02",
                "price": "850.50",
                "pair": [1, [2]],
                "1": "int",
                "null": "none",
                "false": "false",
                "(1, 2)": "tuple",
            },
        )

    def test_no_payload_raises_anything_else_and_the_reason_holds_no_payload(self):
        class Hostile:
            def __str__(self):
                raise KeyError("secret")

        circular = {"secret": 1}
        circular["self"] = circular
        deep = {}
        for _ in range(100_000):
            deep = {"secret": deep}
        for data in ("secret", None, ["secret"], {"x": Hostile()}, circular, deep, {"n": 10**5000}):
            with self.assertRaises(envelope.NotAnEvent) as raised:
                made(data)
            self.assertNotIn("secret", str(raised.exception))

    def test_a_line_is_ascii_and_has_one_line_end(self):
        line = made({"\u20b9": "a\nb\u2028\U0001f600\ud800"}, user="\ud800x\u20b9")
        line.decode("ascii")
        self.assertEqual(line.count(b"\n"), 1)
        # A lone surrogate may stand in data, but makes a line invalid in one of the four strings.
        self.assertEqual(json.loads(line)["user_id"], "?x\u20b9")


if __name__ == "__main__":
    unittest.main()
