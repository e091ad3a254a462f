"use strict";
// What the other scripts share: elements made without markup, the data of the page, its parts, dark and light.
const page = {};

page.make = (tag, properties = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
};

page.data = (name) => {
  const element = document.getElementById(`${name}-data`);
  return element ? JSON.parse(element.textContent) : null;
};

page.opened = {};  // part → what is to be done when it is first shown

// The address tells its parts by slashes; those of an id are encoded. What somebody typed may be no encoding at all.
page.decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

page.show = () => {
  const [name, ...rest] = location.hash.slice(1).split("/").map(page.decoded);
  const parts = [...document.querySelectorAll(".part")];
  const shown = parts.find((part) => part.id === name) || parts[0];
  for (const part of parts) part.hidden = part !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.part === shown.id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  page.opened[shown.id]?.(rest);
  scrollTo(0, 0);
};

page.dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

page.download = (name, text) => {
  const link = page.make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
};

document.getElementById("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = page.dark() ? "light" : "dark";
});
addEventListener("hashchange", page.show);
document.addEventListener("DOMContentLoaded", page.show);
