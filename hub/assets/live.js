// Keeps an open page true: applies what the hub sends, sorts tables as the reader left them, and
// says so loudly when nothing has come for 15 seconds.

import { morph } from "./morph.js";
import { clock, now, setNow, span, tick } from "./ages.js";

const LOST_MS = 15_000;
const root = document.documentElement;
const fresh = document.querySelector(".fresh");
const band = document.querySelector(".lost-band");
let beat = now();
let heard = Number(root.dataset.heard);

function show() {
  const silent = now() - beat;
  if (silent > LOST_MS) {
    root.dataset.lost = "";
    band.textContent = band.dataset.words.replace("{time}", clock(beat));
    fresh.dataset.fresh = "lost";
    fresh.textContent = fresh.dataset.lost;
  } else {
    delete root.dataset.lost;
    fresh.dataset.fresh = heard ? "now" : "wait";
    fresh.textContent = heard ? fresh.dataset.words.replace("{age}", span(now() - heard)) : fresh.dataset.none;
  }
}

function connect() {
  const source = new EventSource(`/events?di=${encodeURIComponent(root.dataset.watch)}`);
  source.addEventListener("part", (event) => {
    const { id, html } = JSON.parse(event.data);
    const part = document.getElementById(id);
    if (!part) return location.reload();
    const focused = document.activeElement;
    morph(part, html);
    tables();
    // a row that was moved has lost it
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    tick();
  });
  source.addEventListener("beat", (event) => {
    const news = JSON.parse(event.data);
    setNow(news.now);
    beat = news.now;
    heard = news.heard;
    show();
  });
  source.addEventListener("error", () => {
    // the browser tries again by itself unless the hub refused: then ask again, or go to the login
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(async () => {
      const answer = await fetch("/api/v1/overview").catch(() => null);
      if (answer?.status === 401) location.reload();
      else connect();
    }, 5000);
  });
  addEventListener("pagehide", () => source.close(), { once: true });
}

// the order that the reader chose, by table
const orders = new Map();

function tables() {
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const order = orders.get(table.dataset.sortable);
    if (!order) continue;
    const body = table.tBodies[0];
    const key = (row) => row.cells[order.column].dataset.v ?? row.cells[order.column].textContent.trim();
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
      return (numbers ? x - y : x.localeCompare(y, root.lang)) * order.sign;
    });
    rows.forEach((row, i) => { if (body.rows[i] !== row) body.insertBefore(row, body.rows[i]); });
    [...table.tHead.rows[0].cells].forEach((cell, i) => {
      if (i === order.column) cell.setAttribute("aria-sort", order.sign > 0 ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.(".sort");
  if (!button) return;
  const table = button.closest("table");
  const column = button.closest("th").cellIndex;
  const old = orders.get(table.dataset.sortable);
  orders.set(table.dataset.sortable, { column, sign: old?.column === column ? -old.sign : 1 });
  tables();
});

show();
setInterval(show, 1000);
connect();
