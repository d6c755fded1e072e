// Turns one piece of the page into another without replacing what stays: focus, scroll position and
// pictures that have not changed survive an update.

export function morph(target, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  children(target, template.content);
}

function children(now, next) {
  const wanted = [...next.childNodes];
  wanted.forEach((want, i) => {
    // a row is its own, wherever the reader's sorting has put it
    const key = want.dataset?.key;
    const own = key && [...now.children].find((c) => c.dataset.key === key);
    if (own && own !== now.childNodes[i]) now.insertBefore(own, now.childNodes[i]);
    const have = now.childNodes[i];
    if (have?.dataset?.key && have.dataset.key !== key) now.insertBefore(want, have);
    else if (!have) now.append(want);
    else if (have.nodeType !== want.nodeType || have.nodeName !== want.nodeName) have.replaceWith(want);
    else if (have.nodeType === Node.ELEMENT_NODE) element(have, want);
    else if (have.data !== want.data) have.data = want.data;
  });
  while (now.childNodes.length > wanted.length) now.lastChild.remove();
}

function element(have, want) {
  for (const { name } of [...have.attributes]) {
    // what the reader has opened stays open
    if (have.nodeName === "DETAILS" && name === "open") continue;
    if (!want.hasAttribute(name)) have.removeAttribute(name);
  }
  for (const { name, value } of want.attributes) {
    if (have.getAttribute(name) !== value) have.setAttribute(name, value);
  }
  children(have, want);
}
