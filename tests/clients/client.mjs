// A standard Socket.IO client that prints what it gets, a JSON object a line, until it is killed.
//
//   npm ci
//   node client.mjs --url http://127.0.0.1:5055 [--path /socket.io/]
//       [--transports polling|websocket|polling,websocket] [--token T] [--origin O]
//       [--header 'Cookie: a=b']... [--clients N]
//
//   {"connected":SID,"transport":"polling"}     CONNECT was answered
//   {"upgraded":"websocket"}                    the transport changed
//   {"event":NAME,"data":TEXT}                  TEXT: the argument, character by character as it came
//   {"connect_error":MESSAGE}                   a refusal has no retry after it, a failed attempt has
//   {"disconnected":REASON}
//   {"client_error":MESSAGE}                    text and parsed event differ, or not one argument; exit 1
//
// With --clients above 1 each line also has "client": 0 to N-1.

import { writeSync } from "node:fs";
import { isDeepStrictEqual, parseArgs } from "node:util";
import { io } from "socket.io-client";

const EVENT_PACKET = /^2\d*\["[^"\\]*(?:\\.[^"\\]*)*",(.*)\]$/s;

function readArguments() {
  const { values } = parseArgs({
    options: {
      url: { type: "string" },
      path: { type: "string", default: "/socket.io/" },
      transports: { type: "string", default: "polling,websocket" },
      token: { type: "string" },
      origin: { type: "string" },
      header: { type: "string", multiple: true, default: [] },
      clients: { type: "string", default: "1" },
    },
  });
  if (!values.url) throw new Error("--url is required");
  return { ...values, clients: Number(values.clients) };
}

function clientOptions({ path, transports, token, origin, header }) {
  const headers = Object.fromEntries(header.map(nameAndValue));
  if (origin !== undefined) headers.Origin = origin;
  return {
    path,
    transports: transports.split(","),
    auth: token === undefined ? {} : { token },
    extraHeaders: headers,
    forceNew: true,
  };
}

function nameAndValue(header) {
  const colon = header.indexOf(":");
  if (colon < 1) throw new Error(`--header ${header}: not 'Name: value'`);
  return [header.slice(0, colon).trim(), header.slice(colon + 1).trim()];
}

/** Written at once, also into a pipe: who reads it waits for each line. */
function print(line) {
  const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
  let written = 0;
  while (written < bytes.length) {
    try {
      written += writeSync(1, bytes, written);
    } catch (error) {
      // A full pipe whose other end is non-blocking: wait a moment instead of losing a line.
      if (error.code !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

function fail(message, tag) {
  print({ client_error: message, ...tag });
  process.exit(1);
}

function start(url, options, tag) {
  const socket = io(url, options);
  // Packets whose events the client has not emitted yet. It emits in order, a moment later.
  let packets = [];

  socket.io.on("open", () => {
    const { engine } = socket.io;
    packets = [];
    engine.on("message", (packet) => {
      if (typeof packet !== "string") fail("a binary message", tag);
      if (/^[25]/.test(packet)) packets.push(packet);
    });
    engine.on("upgrade", ({ name }) => print({ upgraded: name, ...tag }));
  });

  socket.onAny((event, ...values) => {
    const packet = packets.shift() ?? "";
    const [, data] = EVENT_PACKET.exec(packet) ?? [];
    if (data === undefined || values.length !== 1) fail(`not one argument: ${packet}`, tag);
    const parsed = JSON.parse(packet.slice(packet.indexOf("[")));
    const isSame = isDeepStrictEqual([event, ...values], parsed) && isDeepStrictEqual(parsed[1], JSON.parse(data));
    if (!isSame) fail(`not as emitted: ${packet}`, tag);
    print({ event, data, ...tag });
  });

  socket.on("connect", () => {
    print({ connected: socket.id, transport: socket.io.engine.transport.name, ...tag });
  });
  socket.on("connect_error", ({ message }) => print({ connect_error: message, ...tag }));
  socket.on("disconnect", (reason) => print({ disconnected: reason, ...tag }));
}

const given = readArguments();
for (let client = 0; client < given.clients; client += 1) {
  start(given.url, clientOptions(given), given.clients > 1 ? { client } : {});
}
// After a refusal nothing else would keep the process alive, and it is to end only when it is killed.
setInterval(() => {}, 60_000);
