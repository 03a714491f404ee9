// Opens the live page in headless Chromium, prints what it shows, a JSON object a line, until it is killed.
//
//   npm ci                                      and Chromium in /usr/bin/chromium, or where CHROMIUM says
//   node browser.mjs --page http://127.0.0.1:5055/live [--token T] [--screenshot FILE]
//
//   {"connected":true}                          each time that the page says so
//   {"state":STATE,"text":TEXT}                 connecting, lost, refused: as the page words it
//   {"event":NAME,"text":TEXT}                  a row, in order of arrival; TEXT: the argument as it came
//   {"console_error":TEXT}                      an error in the console or one that nobody caught
//   {"request":URL}                             a request to another origin; there must be none
//
// The page lists a few times a second and keeps the newest 500, so of a burst of more than 500 the rest has no row.
//
// --token is typed into the page's field when the page asks for one.
// --screenshot: written on SIGTERM, then it ends with 0.

import { writeSync } from "node:fs";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox", // tests run as root in containers, where the sandbox cannot start
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-default-apps",
  "--disable-sync",
  "--no-first-run",
];

function readArguments() {
  const { values } = parseArgs({
    options: { page: { type: "string" }, token: { type: "string" }, screenshot: { type: "string" } },
  });
  if (!values.page) throw new Error("--page is required");
  return values;
}

function print(line) {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

/** Runs in the page, before its own scripts. Mutations come in order, so the lines do too. */
function watchPage() {
  const reportState = ({ dataset, textContent }) =>
    globalThis.harnessPrint(
      dataset.state === "connected" ? { connected: true } : { state: dataset.state, text: textContent },
    );

  // The page lists the newest first, so what it adds at once is reversed.
  const reportRows = (mutations) => {
    for (const { addedNodes } of mutations) {
      for (const { dataset } of [...addedNodes].reverse()) {
        globalThis.harnessPrint({ event: dataset.eventType, text: dataset.json });
      }
    }
  };

  document.addEventListener("DOMContentLoaded", () => {
    const state = document.getElementById("state");
    reportState(state);
    // Its text, since a second refusal in the same state is news too.
    new MutationObserver(() => reportState(state)).observe(state, { childList: true });
    new MutationObserver(reportRows).observe(document.getElementById("events"), { childList: true });
  });
}

function isForeign(url, origin) {
  return !url.startsWith("data:") && new URL(url).origin.replace(/^ws/, "http") !== origin;
}

async function typeToken(page, token) {
  await page.locator("#token-form").waitFor({ state: "visible", timeout: 0 });
  await page.locator("#token").fill(token);
  await page.locator("#token-form button").click();
}

const given = readArguments();
const origin = new URL(given.page).origin;
const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS, handleSIGTERM: false });
const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });

page.on("console", (message) => {
  if (message.type() === "error") print({ console_error: message.text() });
});
page.on("pageerror", ({ message }) => print({ console_error: message }));
for (const kind of ["request", "websocket"]) {
  page.on(kind, (it) => {
    if (isForeign(it.url(), origin)) print({ request: it.url() });
  });
}

process.on("SIGTERM", async () => {
  if (given.screenshot) await page.screenshot({ path: given.screenshot });
  await browser.close();
  process.exit(0);
});

await page.exposeFunction("harnessPrint", print);
await page.addInitScript(watchPage);
await page.goto(given.page);
if (given.token !== undefined) await typeToken(page, given.token);
