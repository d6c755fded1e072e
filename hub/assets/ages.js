// Ages that grow and the clock that runs, both by the hub's clock: a PC whose own clock is wrong
// shows no wrong age. The words are the page's own (data-units on <html>), as the hub writes them.

const root = document.documentElement;
const units = JSON.parse(root.dataset.units);
const zoneMs = Number(root.dataset.offset) * 60_000;
const point = root.lang === "id" ? "." : ":";
let ahead = Number(root.dataset.now) - Date.now();

export function setNow(ms) { ahead = ms - Date.now(); }
export function now() { return Date.now() + ahead; }

const two = (n) => String(n).padStart(2, "0");

export function span(ms) {
  const s = Math.floor(Math.max(ms, 0) / 1000);
  if (s < 60) return `${s} ${units.second}`;
  if (s < 3600) return `${Math.floor(s / 60)} ${units.minute}`;
  if (s < 86400) {
    const h = Math.floor(s / 3600), m = Math.floor(s % 3600 / 60);
    return m === 0 || h >= 10 ? `${h} ${units.hour}` : `${h} ${units.hour} ${m} ${units.minute}`;
  }
  const days = Math.floor(s / 86400);
  return `${days} ${days === 1 ? units.day : units.days}`;
}

export function clock(ms) {
  const at = new Date(ms + zoneMs);
  return [at.getUTCHours(), at.getUTCMinutes(), at.getUTCSeconds()].map(two).join(point);
}

export function tick() {
  for (const el of document.querySelectorAll("[data-age]")) {
    const text = span(now() - Number(el.dataset.age));
    if (el.textContent !== text) el.textContent = text;
  }
  const face = document.querySelector(".clock time");
  if (face) face.textContent = clock(now());
}

tick();
setInterval(tick, 1000);
