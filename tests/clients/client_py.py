"""The same client with python-socketio: prints what it gets, a JSON object a line, until it is killed.

    pip install 'python-socketio[client]' aiohttp
    python3 client_py.py --flavour sync|asyncio --url http://127.0.0.1:5055 [--path /socket.io/]
        [--transports polling|websocket|polling,websocket] [--token T] [--origin O]
        [--header 'Cookie: a=b']... [--clients N]

The lines are those of client.mjs, with the reasons and messages of this library; a "client_error" does not end it.

The library refuses a polling answer of more than 16 packets (engineio.payload.Payload.max_decode_packets) and then
reports a transport error. That is left as it is: it is what a user's client does.
"""

import argparse
import asyncio
import json
import queue
import sys
import threading

import socketio


class TextOfEvents:
    """The JSON module that the client parses packets with; keeps the text of an event.

    The text travels inside the parsed argument instead of beside it, so that it cannot meet another event.
    """

    @staticmethod
    def loads(text, *args, **kwargs):
        value = json.loads(text, *args, **kwargs)
        # ["name", argument] is an event; everything else (handshake, CONNECT, refusals) is an object.
        if not isinstance(value, list):
            return value
        name, *arguments = value
        return [name, Received(argument_text(text), arguments)]

    @staticmethod
    def dumps(value, *args, **kwargs):
        return json.dumps(value, *args, **kwargs)


class Received:
    """What came after the name of an event: its text, and the values parsed by the library's own parser."""

    def __init__(self, text, arguments):
        self.text = text
        self.arguments = arguments


def argument_text(packet):
    """The argument's text in `["name",argument]`; None if there is none."""
    _, end_of_name = json.decoder.scanstring(packet, packet.index('"') + 1)
    rest = packet[end_of_name:]
    return rest[1:-1] if rest.startswith(",") and rest.endswith("]") else None


class Printer:
    """Whole lines, at once, from whatever thread."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, **line):
        text = json.dumps(line, separators=(",", ":")) + "\n"
        with self.lock:
            sys.stdout.write(text)
            sys.stdout.flush()


output = Printer()


def read_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--flavour", choices=["sync", "asyncio"], required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--path", default="/socket.io/")
    parser.add_argument("--transports", default="polling,websocket", type=lambda text: text.split(","))
    parser.add_argument("--token")
    parser.add_argument("--origin")
    parser.add_argument("--header", action="append", default=[], type=name_and_value)
    parser.add_argument("--clients", type=int, default=1)
    return parser.parse_args()


def name_and_value(header):
    name, colon, value = header.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{header}: not 'Name: value'")
    return name.strip(), value.strip()


def connect_options(given):
    headers = dict(given.header)
    if given.origin is not None:
        headers["Origin"] = given.origin
    return {
        "headers": headers,
        "auth": None if given.token is None else {"token": given.token},
        "transports": given.transports,
        "socketio_path": given.path,
        "wait": False,
        "retry": True,
    }


def event_line(event, received):
    if not isinstance(received, Received) or received.text is None or len(received.arguments) != 1:
        return {"client_error": f"not one argument: {event}"}
    # By their texts: NaN is not equal to itself.
    if repr(json.loads(received.text)) != repr(received.arguments[0]):
        return {"client_error": f"not as emitted: {event} {received.text}"}
    return {"event": event, "data": received.text}


def print_what_happens(client, transports, tag):
    """The handlers, the same for both flavours: the asyncio client calls plain functions too, in order."""

    def on_connect():
        # It upgrades before it reads the first message, so here that is over.
        if transports[0] == "polling" and client.transport() == "websocket":
            output(upgraded="websocket", **tag)
        output(connected=client.get_sid(), transport=client.transport(), **tag)

    def on_connect_error(message):
        text = message.get("message", message) if isinstance(message, dict) else message
        output(connect_error=str(text), **tag)

    def on_disconnect(reason):
        output(disconnected=reason, **tag)

    def on_event(event, received=None):
        output(**event_line(event, received), **tag)

    client.on("connect", on_connect)
    client.on("connect_error", on_connect_error)
    client.on("disconnect", on_disconnect)
    client.on("*", on_event)


def handle_messages_in_order(client):
    """The sync client starts a thread for each message, and threads keep no order: one thread takes them all."""
    start_thread = client.eio.start_background_task
    messages = queue.SimpleQueue()

    def work():
        while True:
            handle, arguments = messages.get()
            handle(*arguments)

    def start(target, *args, **kwargs):
        if target == client.eio.handlers["message"]:
            return messages.put((target, args))
        return start_thread(target, *args, **kwargs)

    client.eio.start_background_task = start
    threading.Thread(target=work).start()


def run_sync(given, tags):
    for tag in tags:
        # websocket-client adds an Origin of its own beside the one in the headers.
        only_ours = {"suppress_origin": given.origin is not None}
        client = socketio.Client(json=TextOfEvents, websocket_extra_options=only_ours)
        handle_messages_in_order(client)
        print_what_happens(client, given.transports, tag)
        # In a thread, since it returns only when the server is there.
        threading.Thread(target=client.connect, args=(given.url,), kwargs=connect_options(given)).start()
    threading.Event().wait()


async def run_asyncio(given, tags):
    clients = [socketio.AsyncClient(json=TextOfEvents) for _ in tags]
    for client, tag in zip(clients, tags):
        print_what_happens(client, given.transports, tag)
    await asyncio.gather(*(client.connect(given.url, **connect_options(given)) for client in clients))
    await asyncio.Event().wait()


def main():
    given = read_arguments()
    tags = [{}] if given.clients == 1 else [{"client": client} for client in range(given.clients)]
    if given.flavour == "sync":
        run_sync(given, tags)
    else:
        asyncio.run(run_asyncio(given, tags))


if __name__ == "__main__":
    main()
