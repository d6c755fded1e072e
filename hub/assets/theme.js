// Chooses light or dark before anything is drawn. Without a choice the page follows the system.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* no storage: the system's choice holds */ }
addEventListener("DOMContentLoaded", () => {
  document.querySelector(".theme")?.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const next = (root.dataset.theme || dark) === "dark" ? "light" : "dark";
    root.dataset.theme = next;
    try { localStorage.setItem("theme", next); } catch { /* holds for this page only */ }
  });
});
