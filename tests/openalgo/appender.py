"""One of several processes that append through the kit: appender.py FILE PROCESS COUNT."""

import sys

import support  # puts the kit on the path
from openalgo_bridge_kit import envelope
from openalgo_bridge_kit.reports import Reports
from openalgo_bridge_kit.writer import Writer


def main():
    path, process, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    writer = Writer(path, Reports(support.Log()))
    for number in range(count):
        data = {"symbol": "SBIN", "action": "BUY", "orderid": f"{process}-{number}", "padding": "x" * (number % 600)}
        writer.append(envelope.line("order_event", envelope.now(), "user", "openalgo", data))
    writer.close()
    counts = writer.counts()
    assert (counts["appended"], counts["failed"]) == (count, 0), counts


main()
