// The live page: shows each event of the daemon's Socket.IO server as it arrives, for a person to read.
//
// An event may have been written by anybody. So its text enters the page only as text (textContent,
// dataset, never markup), what is kept of it is bounded, and numbers are shown as they were written:
// as a JavaScript number, order 12345678901234567890 would become another order.

const ROWS_MAX = 500;
// Rows keep their text; 500 rows of the largest events would be half a gigabyte.
const CHARS_MAX = 16 * 1024 * 1024;
const TYPES_MAX = 40;
const OTHER_TYPES = "other types";
const RATE_SECONDS = 5;
// A rest after each row listed, several times what a row costs: in a flood the list is renewed a few
// times a second, which nobody reads faster, and the page still answers.
const REST_MS_PER_ROW = 0.6;
const PART_CHARS_MAX = 400;
const RECONNECT_AFTER_DISMISSAL_MS = 1000;

const element = (id) => document.getElementById(id);
const page = {
  state: element("state"),
  tokenForm: element("token-form"),
  token: element("token"),
  received: element("received"),
  rate: element("rate"),
  types: element("types"),
  filter: element("filter"),
  pause: element("pause"),
  clear: element("clear"),
  shown: element("shown"),
  events: element("events"),
};

// --- JSON as text -------------------------------------------------------------------------------

const STRING = String.raw`"[^"\\]*(?:\\.[^"\\]*)*"`;
const STRING_OR_NUMBER = new RegExp(`${STRING}|-?[0-9][0-9.eE+-]*`, "gs");
const TOKEN = new RegExp(`${STRING}|[{}\\[\\]:,]|[^\\s{}\\[\\]:,"]+`, "gs");
// The argument of an event's packet: 2["name",argument]
const EVENT_PACKET = new RegExp(`^2[0-9]*\\[${STRING},(.*)\\]$`, "s");
// Characters that show nothing or turn the text around them; the joiners of Indic scripts and emoji stay.
const UNSEEN = /[\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

function visible(text) {
  return text.replace(UNSEEN, (it) => `\\u${it.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** The value of a JSON text, its numbers as strings of just the characters that were written. */
function parseNumbersAsText(json) {
  return JSON.parse(json.replace(STRING_OR_NUMBER, (it) => (it.startsWith('"') ? it : `"${it}"`)));
}

/** A JSON text on indented lines, with escaped characters readable and numbers untouched. */
function pretty(json) {
  let lines = "";
  let depth = 0;
  let previous = "";
  for (const [token] of json.matchAll(TOKEN)) {
    const opens = token === "{" || token === "[";
    const closes = token === "}" || token === "]";
    const afterOpening = previous === "{" || previous === "[";
    if (closes) depth -= 1;
    const isNewLine = closes ? !afterOpening : afterOpening || previous === ",";
    if (isNewLine) lines += `\n${"  ".repeat(depth)}`;
    lines += token.startsWith('"') ? visible(JSON.stringify(JSON.parse(token))) : token;
    if (token === ":") lines += " ";
    if (opens) depth += 1;
    previous = token;
  }
  return lines;
}

// --- what an event says, in one line ------------------------------------------------------------
//
// A summary is { tone, lead, subject, details, mode }: "BUY", "SBIN", ["NSE", "MARKET"], "live".

const SUMMARIES = new Map([
  ["order_event", summarizeOrder],
  ["analyzer_update", summarizeAnalyzer],
  ["order_notification", summarizeStatus],
  ["master_contract_download", summarizeStatus],
  ["password_change", summarizeStatus],
]);

function summarize(type, json) {
  // In brackets, since a foreign server may send several arguments: the first tells.
  const [data] = parseNumbersAsText(`[${json}]`);
  if (!isObject(data)) return { details: [word(data) || json] };
  return (SUMMARIES.get(type) ?? summarizeAnything)(data);
}

function summarizeOrder(order) {
  const action = word(order.action);
  const orderId = word(order.orderid);
  const batch = order.batch_order === true;
  const trade = isTrade(action);
  return {
    tone: isIncomplete(action) || isIncomplete(orderId) ? "warn" : sideTone(action),
    lead: trade ? action.toUpperCase() : batch ? "BATCH" : action,
    subject: word(order.symbol),
    details: [
      batch && !trade && action,
      batch && orderId,
      batch && word(order.failed_legs) > 0 && `${word(order.failed_legs)} failed`,
      quantityAtPrice(order),
      word(order.exchange),
      known(order.price_type),
      known(order.product_type),
      word(order.broker),
      !batch && orderId && `order ${orderId}`,
    ],
    mode: word(order.mode),
  };
}

function summarizeAnalyzer(update) {
  const request = isObject(update.request) ? update.request : {};
  const response = isObject(update.response) ? update.response : {};
  // The app sends {} and {} when the sandbox filled something by itself.
  if (!Object.keys(request).length && !Object.keys(response).length) {
    return { lead: "REFRESH", details: ["something changed in the sandbox, without details"] };
  }
  const call = word(request.api_type) || "placeorder";
  const action = word(request.action);
  return {
    // Not red: a BUY that failed must not look like a SELL.
    tone: word(response.status) === "error" ? "warn" : sideTone(action),
    lead: isTrade(action) ? action.toUpperCase() : call,
    subject: word(request.symbol) || word(request.underlying) || word(request.strategy),
    details: [
      isTrade(action) && call !== "placeorder" && call,
      quantityAtPrice(request),
      word(request.exchange),
      word(request.pricetype),
      word(request.product),
      Array.isArray(request.orders) && `${request.orders.length} orders`,
      Array.isArray(request.legs) && `${request.legs.length} legs`,
      answerOf(response),
    ],
    mode: word(response.mode),
  };
}

/** What the app answered: `success: 7 of 8, order 26012912345678`. */
function answerOf(response) {
  const results = Array.isArray(response.results) ? response.results : [];
  const succeeded = results.filter((it) => isObject(it) && it.status === "success").length;
  const facts = [
    word(response.message),
    results.length > 0 && `${succeeded} of ${results.length}`,
    isObject(response.data) && word(response.data.order_status),
    word(response.quantity) && `quantity ${word(response.quantity)}`,
    word(response.orderid) && `order ${word(response.orderid)}`,
  ];
  return [word(response.status), facts.filter(Boolean).join(", ")].filter(Boolean).join(": ");
}

function summarizeStatus(news) {
  const status = word(news.status);
  return {
    tone: statusTone(status),
    lead: status.toUpperCase(),
    subject: word(news.symbol) || word(news.user) || word(news.broker),
    details: [
      word(news.message),
      word(news.progress) && `${word(news.progress)} %`,
      word(news.ip_address) && `from ${word(news.ip_address)}`,
    ],
  };
}

function summarizeAnything(data) {
  const fields = Object.entries(data).filter(([name, value]) => name !== "mode" && word(value));
  const details = fields.slice(0, 8).map(([name, value]) => `${name}: ${word(value)}`);
  return { details: details.length > 0 ? details : ["nothing to tell in a line"], mode: word(data.mode) };
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value that fits into a sentence as its text, everything else as no text. */
function word(value) {
  if (typeof value === "boolean") return String(value);
  return typeof value === "string" ? value.trim() : "";
}

/** The app writes "Unknown" where it does not know. */
function known(value) {
  return word(value) === "Unknown" ? "" : word(value);
}

function isTrade(action) {
  return /^(buy|sell)$/i.test(action);
}

/** Whether a count such as "3/4 orders" says that some are missing. */
function isIncomplete(count) {
  const [, done, all] = /^([0-9]+)\/([0-9]+)\b/.exec(count) ?? [];
  return done !== all;
}

function quantityAtPrice({ quantity, price }) {
  const isPriced = Number(word(price)) !== 0;
  return [word(quantity), isPriced && `@ ${word(price)}`].filter(Boolean).join(" ");
}

function sideTone(action) {
  return { BUY: "good", SELL: "bad" }[action.toUpperCase()];
}

function statusTone(status) {
  return /error|reject|fail/i.test(status) ? "bad" : /success/i.test(status) ? "good" : undefined;
}

// --- rows ---------------------------------------------------------------------------------------

function textElement(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  const cut = text.length > PART_CHARS_MAX ? `${text.slice(0, PART_CHARS_MAX)}…` : text;
  made.textContent = visible(cut);
  return made;
}

function clockTime(date) {
  return `${date.toTimeString().slice(0, 8)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

function rowOf({ type, json, arrived }) {
  const { tone = "", lead = "", subject = "", details = [], mode = "" } = summarize(type, json);
  // A BASKET of product BASKET says so once.
  const sentence = [...new Set(details.filter(Boolean))].join(" · ");

  const what = document.createElement("span");
  what.className = "what";
  // <bdi>: a right-to-left symbol must not reorder what stands beside it.
  for (const [className, text] of Object.entries({ lead, subject, details: sentence, mode })) {
    if (text) what.append(textElement("bdi", className, text), " ");
  }

  const time = textElement("time", "", clockTime(arrived));
  time.dateTime = arrived.toISOString();
  const summary = document.createElement("summary");
  summary.append(time, " ", textElement("span", "event-type", type), " ", what);
  const disclosure = document.createElement("details");
  disclosure.append(summary);

  const row = document.createElement("li");
  row.dataset.eventType = type;
  row.dataset.json = json;
  row.dataset.tone = tone;
  row.append(disclosure);
  return row;
}

/** Most rows are never opened, so the text is laid out when one is. */
function fillOpenedRow({ target: opened }) {
  if (!opened.open || opened.querySelector("pre")) return;
  const text = document.createElement("pre");
  text.tabIndex = 0;
  text.textContent = pretty(opened.closest("li").dataset.json);
  opened.append(text);
}

// --- the list -----------------------------------------------------------------------------------

/** Events that arrived and are not in the list yet, oldest first: until the next frame, or while paused. */
let waiting = [];
let waitingChars = 0;
let listedChars = 0;
let isPaused = false;
let isFrameRequested = false;
let restsUntil = 0;
const pressedTypes = new Set();

function requestFrame() {
  if (isFrameRequested) return;
  isFrameRequested = true;
  // A hidden page gets no frames; what waits meanwhile is bounded.
  setTimeout(() => requestAnimationFrame(showWhatIsNew), restsUntil - performance.now());
}

function showWhatIsNew() {
  isFrameRequested = false;
  if (!isPaused) {
    restsUntil = performance.now() + waiting.length * REST_MS_PER_ROW;
    listWaiting();
  }
  showCounters();
  showHowMany();
}

function keepForList(event) {
  waiting.push(event);
  waitingChars += event.json.length;
  let dropped = 0;
  while (waiting.length - dropped > ROWS_MAX || waitingChars > CHARS_MAX) {
    waitingChars -= waiting[dropped].json.length;
    dropped += 1;
  }
  if (dropped > 0) waiting.splice(0, dropped);
}

function listWaiting() {
  const rows = waiting.reverse().map(rowOf);
  for (const row of rows) row.hidden = !isWanted(row);
  listedChars += waitingChars;
  waiting = [];
  waitingChars = 0;
  page.events.prepend(...rows);
  while (page.events.childElementCount > ROWS_MAX || listedChars > CHARS_MAX) {
    listedChars -= page.events.lastElementChild.dataset.json.length;
    page.events.lastElementChild.remove();
  }
}

function isWanted(row) {
  if (pressedTypes.size > 0 && !pressedTypes.has(countedAs(row.dataset.eventType))) return false;
  const wanted = page.filter.value.trim().toLowerCase();
  if (!wanted) return true;
  return `${row.textContent} ${row.dataset.json}`.toLowerCase().includes(wanted);
}

function filterRows() {
  for (const row of page.events.children) row.hidden = !isWanted(row);
  showHowMany();
}

function showHowMany() {
  const kept = page.events.childElementCount;
  const isFiltered = pressedTypes.size > 0 || page.filter.value.trim() !== "";
  const shown = isFiltered ? page.events.querySelectorAll(":scope > li:not([hidden])").length : kept;
  setText(page.shown, howMany(shown, kept, isFiltered));
  const held = `${waiting.length}${waiting.length === ROWS_MAX ? "+" : ""} new`;
  setText(page.pause, !isPaused ? "Pause" : waiting.length > 0 ? `Resume (${held})` : "Resume");
}

function howMany(shown, kept, isFiltered) {
  if (kept === 0) return "Events appear here as they arrive, newest first. Open one to see its JSON.";
  if (isFiltered) return `${shown} of the newest ${kept} match. Filtering hides rows, counting goes on.`;
  if (kept === ROWS_MAX) return `The newest ${ROWS_MAX}; older ones are gone from this page.`;
  return `${kept} ${kept === 1 ? "event" : "events"}, newest first.`;
}

/** Leaves an unchanged text alone: no layout, and nothing for a screen reader to repeat. */
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function togglePause() {
  isPaused = !isPaused;
  showHowMany();
  requestFrame();
}

function clearList() {
  page.events.replaceChildren();
  waiting = [];
  waitingChars = 0;
  listedChars = 0;
  showHowMany();
}

// --- counters -----------------------------------------------------------------------------------

let received = 0;
/** By type: { count, countText }. */
const types = new Map();
/** What had been received when, one a second, for the rate. */
const samples = [{ at: performance.now(), received: 0 }];

function countedAs(type) {
  return types.has(type) || types.size < TYPES_MAX ? type : OTHER_TYPES;
}

function count(type) {
  received += 1;
  const name = countedAs(type);
  if (!types.has(name)) types.set(name, addType(name));
  types.get(name).count += 1;
}

function addType(name) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "type";
  button.setAttribute("aria-pressed", "false");
  const countText = textElement("span", "count", "");
  button.append(textElement("span", "name", name), " ", countText);
  button.addEventListener("click", () => {
    if (!pressedTypes.delete(name)) pressedTypes.add(name);
    button.setAttribute("aria-pressed", String(pressedTypes.has(name)));
    filterRows();
  });
  page.types.append(button);
  return { count: 0, countText };
}

function showCounters() {
  setText(page.received, received.toLocaleString("en"));
  for (const type of types.values()) setText(type.countText, type.count.toLocaleString("en"));
}

/** By the clock, since the timers of a hidden page are slowed down. */
function showRate() {
  samples.push({ at: performance.now(), received });
  if (samples.length > RATE_SECONDS + 1) samples.shift();
  const [oldest, newest] = [samples[0], samples.at(-1)];
  const rate = ((newest.received - oldest.received) * 1000) / (newest.at - oldest.at);
  setText(page.rate, rate.toLocaleString("en", { maximumFractionDigits: rate < 10 ? 1 : 0 }));
}

// --- the connection -----------------------------------------------------------------------------

/** The packets of events, oldest first, that the client has not emitted yet. */
let packets = [];
let token = "";

function showState(state, text) {
  page.state.dataset.state = state;
  setText(page.state, text);
}

/** Beside /live, also where a proxy has put both below a prefix. */
function socketIoPath() {
  return location.pathname.replace(/\/live$/, "") + document.body.dataset.socketioPath;
}

function connect() {
  const socket = globalThis.io({
    path: socketIoPath(),
    auth: (send) => send(token ? { token } : {}),
  });

  // The client hands out parsed events only; the text is in the packets, which it emits in order.
  socket.io.on("open", () => {
    packets = [];
    socket.io.engine.on("message", (packet) => {
      if (/^[25]/.test(packet)) packets.push(packet);
    });
  });

  socket.onAny((type, ...values) => {
    const [, json] = EVENT_PACKET.exec(packets.shift() ?? "") ?? [];
    count(type);
    keepForList({ type, json: json ?? JSON.stringify(values[0] ?? null), arrived: new Date() });
    requestFrame();
  });

  socket.on("connect", () => {
    page.tokenForm.hidden = true;
    showState("connected", `Connected since ${clockTime(new Date()).slice(0, 8)}`);
  });
  socket.on("disconnect", (reason) => onDisconnect(socket, reason));
  socket.on("connect_error", (error) => onConnectError(socket, error));
  return socket;
}

function onDisconnect(socket, reason) {
  const at = clockTime(new Date()).slice(0, 8);
  showState("lost", `Connection lost at ${at} (${reason}), reconnecting…`);
  // The client takes a server's goodbye for final; here it means a restart, or a page that was too slow.
  if (!socket.active) setTimeout(() => socket.connect(), RECONNECT_AFTER_DISMISSAL_MS);
}

/** Without an answer the client tries again by itself; after a refusal only a person can help. */
function onConnectError(socket, error) {
  if (socket.active) {
    showState("lost", `No connection (${whatHappened(error)}), trying again…`);
    return;
  }
  showState("refused", `Refused: ${visible(error.message)}`);
  const wasHidden = page.tokenForm.hidden;
  page.tokenForm.hidden = false;
  if (wasHidden) page.token.focus();
}

/** The client's message, and the HTTP status where there was an answer. */
function whatHappened({ message, description }) {
  return typeof description === "number" && description > 0 ? `${message}, HTTP ${description}` : message;
}

// --- the start ----------------------------------------------------------------------------------

const socket = connect();

page.tokenForm.addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  if (socket.active) return; // an attempt is under way: a second CONNECT would be one too many
  token = page.token.value.trim();
  showState("connecting", "Connecting…");
  socket.connect();
});
page.events.addEventListener("toggle", fillOpenedRow, true); // does not bubble, so on its way down
page.filter.addEventListener("input", filterRows);
page.pause.addEventListener("click", togglePause);
page.clear.addEventListener("click", clearList);
setInterval(showRate, 1000);
showHowMany();
