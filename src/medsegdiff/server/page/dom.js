// Makes elements. Text of users is always text, never markup.

export const $ = (id) => document.getElementById(id);

export function make(kind, properties = {}, ...children) {
  const svg = ["svg", "line", "rect", "circle", "title"].includes(kind);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", kind) : document.createElement(kind);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") for (const [key, of] of Object.entries(value)) element.style.setProperty(key, of);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (svg || name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(...children.filter(Boolean));
}

let fading;
/** Say what went wrong. */
export function complain(error) {
  const toast = $("toast");
  toast.textContent = error.message ?? String(error);
  toast.hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => { toast.hidden = true; }, 12000);
}

/** Run something that may fail, and say so. */
export function guarded(work) {
  return async (...given) => {
    try { return await work(...given); } catch (error) { complain(error); return null; }
  };
}
