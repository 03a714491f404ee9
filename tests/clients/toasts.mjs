// Logs in to the stand-in's site in headless Chromium, opens its page, and prints each toast, a JSON object a
// line, until it is killed.
//
//   npm ci                                      and Chromium in /usr/bin/chromium, or where CHROMIUM says
//   node toasts.mjs --site https://NAME:PORT    NAME leads to this machine; a certificate that nobody signed will do
//
//   {"refused":401}                             the page's status before the log-in
//   {"connected":VIA}                           VIA: "app", the app's own server, or "bridge", through nginx
//   {"lost":VIA}
//   {"toast":TEXT,"event":NAME,"via":VIA,"at":MILLISECONDS}   at: since 1970, when the toast was in the page
//   {"console_error":TEXT}                      one that nobody caught

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

function print(line) {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

/** Runs in the page, before its own scripts. */
function watchPage() {
  document.addEventListener("DOMContentLoaded", () => {
    const toasts = document.getElementById("toasts");
    if (!toasts) return;
    const report = (mutations) => {
      for (const { addedNodes } of mutations) {
        for (const { dataset, textContent } of addedNodes) {
          globalThis.harnessPrint({ toast: textContent, ...dataset, at: Date.now() });
        }
      }
    };
    new MutationObserver(report).observe(toasts, { childList: true });
    for (const via of ["app", "bridge"]) {
      const { dataset } = document.getElementById(via);
      const tell = () => globalThis.harnessPrint({ [dataset.state]: via });
      new MutationObserver(tell).observe(document.getElementById(via), { attributeFilter: ["data-state"] });
    }
  });
}

const { values: given } = parseArgs({ options: { site: { type: "string" } } });
if (!given.site) throw new Error("--site is required");
const { hostname } = new URL(given.site);
const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: [...FLAGS, `--host-resolver-rules=MAP ${hostname} 127.0.0.1`],
});
const page = await browser.newPage({ ignoreHTTPSErrors: true });
page.on("pageerror", ({ message }) => print({ console_error: message }));
await page.exposeFunction("harnessPrint", print);
await page.addInitScript(watchPage);
print({ refused: (await page.goto(`${given.site}/dashboard?bridge`)).status() });
await page.evaluate(() => fetch("/login/trader", { method: "POST" }));
await page.goto(`${given.site}/dashboard?bridge`);
