// Looks at the hub's pages as people do: login, overview, a site and attendance, on a phone, an
// office PC and a wall, in both languages, light and dark. It fails on any console error, any request
// to another host, any accessibility violation that axe-core knows, and sideways scrolling; and it
// watches that news appears on an open page without a reload.
//
// node look.mjs URL USER FOLDER   (password in SCC_PASSWORD; the folder gets the pictures)

import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [url, user, folder] = process.argv.slice(2);
const password = process.env.SCC_PASSWORD;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const sizes = [
  { name: "390", width: 390, height: 844, hasTouch: true, isMobile: true },
  { name: "1366", width: 1366, height: 768 },
  { name: "3840", width: 3840, height: 2160 },
];
const pages = [["ringkasan", "/"], ["lokasi", "/lokasi/rsud"], ["lokasi-lama", "/lokasi/villa-yuliana"], ["tanda-terima", "/lokasi/rsud/tanda-terima/2026-11-23"], ["absensi", "/absensi"]];
const faults = [];
await mkdir(folder, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});

function listen(page, where) {
  page.on("console", (m) => { if (m.type() === "error" || m.type() === "warning") faults.push(`${where()}: console: ${m.text()}`); });
  page.on("pageerror", (e) => faults.push(`${where()}: ${e}`));
  page.on("request", (r) => {
    const to = new URL(r.url());
    if (to.protocol !== "data:" && to.origin !== new URL(url).origin) faults.push(`${where()}: asks ${to.origin}`);
  });
  page.on("response", (r) => { if (r.status() >= 400) faults.push(`${where()}: ${r.status()} ${r.url()}`); });
}

async function check(page, where) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) {
    const who = await page.evaluate(() => [...document.querySelectorAll("body *")]
      .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5 && !e.closest(".vh, .skip, thead"))
      .map((e) => `${e.tagName}.${e.className.baseVal ?? e.className}`).slice(-3).join(" "));
    faults.push(`${where}: scrolls sideways by ${wide} px: ${who}`);
  }
  // evaluated by the debugger, so the page's own policy stays as strict as it is
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  for (const v of violations) {
    faults.push(`${where}: axe ${v.id} (${v.impact}): ${v.nodes.slice(0, 3).map((n) => `${n.target} ${n.failureSummary}`).join(" | ")}`);
  }
}

for (const { name, ...viewport } of sizes) {
  const { hasTouch, isMobile, ...box } = viewport;
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: box, hasTouch, isMobile });
  const page = await context.newPage();
  let where = `${name} masuk`;
  listen(page, () => where);
  await page.goto(`${url}/`);
  await check(page, where);
  await page.screenshot({ path: `${folder}/masuk-${name}.png` });
  await page.fill("#nama", user);
  await page.fill("#sandi", password);
  await page.click("button[type=submit]");
  await page.waitForSelector("h1");
  for (const lang of ["id", "en"]) {
    await page.goto(`${url}/bahasa/${lang}?ke=/`);
    for (const scheme of name === "1366" ? ["light", "dark"] : ["light"]) {
      await page.emulateMedia({ colorScheme: scheme });
      for (const [file, path] of pages) {
        where = `${name} ${lang} ${scheme} ${path}`;
        await page.goto(url + path);
        // the stream has spoken, pictures are there
        await page.waitForSelector('.fresh[data-fresh="now"]');
        await page.waitForFunction(() => [...document.images].every((i) => i.complete && i.naturalWidth > 0));
        await check(page, where);
        const dark = scheme === "dark" ? "-gelap" : "";
        await page.screenshot({ path: `${folder}/${file}-${name}-${lang}${dark}.png`, fullPage: name !== "3840" });
      }
    }
  }
  await context.close();
}

// keyboard: the first Tab reaches the way past the menu; sorting answers and says so
const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1366, height: 768 } });
const page = await context.newPage();
let silent = false;
listen(page, () => (silent ? "silence" : "live"));
await page.goto(`${url}/`);
await page.fill("#nama", user);
await page.fill("#sandi", password);
await page.press("#sandi", "Enter");
await page.waitForSelector('.fresh[data-fresh="now"]');
await page.keyboard.press("Tab");
if (!await page.evaluate(() => document.activeElement.classList.contains("skip"))) faults.push("live: Tab does not reach the skip link first");
await page.click("th .sort");
if (await page.getAttribute("th:first-child", "aria-sort") !== "ascending") faults.push("live: sorting does not say so");
const first = await page.textContent("tbody tr:first-child th a");

// the other side changes a state when it reads this line; the page must show it without a reload
const focus = page.locator("tbody tr:first-child th a");
await focus.focus();
const aim = await focus.getAttribute("href");
const before = await page.textContent("h1");
console.log("change");
await new Promise((done) => createInterface({ input: process.stdin }).once("line", done));
const begun = Date.now();
await page.waitForFunction((old) => document.querySelector("h1").textContent !== old, before, { timeout: 10_000 });
const took = Date.now() - begun;
if (took > 2_000) faults.push(`live: news took ${took} ms`);
if (await page.textContent("tbody tr:first-child th a") !== first) faults.push("live: an update forgets the order of the table");
if (await page.evaluate(() => document.activeElement.getAttribute("href")) !== aim) faults.push("live: an update takes the focus away");
console.log(`news took ${took} ms`);

// the hub falls silent: after 15 s everything but the clock is grey, and the page says since when
silent = true;
console.log("silence");
await page.waitForSelector("html[data-lost] .lost-band", { timeout: 30_000 });
await page.screenshot({ path: `${folder}/ringkasan-1366-tanpa-kabar.png` });
await browser.close();

// that nothing loads from a hub that is gone is no fault of the page
const real = faults.filter((f) => !f.startsWith("silence: console: Failed to load resource"));
for (const fault of real) console.error(fault);
process.exit(real.length ? 1 : 0);
