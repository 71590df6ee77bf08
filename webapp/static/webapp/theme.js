// Light, dark or the system's, from the account menu, without loading the page anew: what is being typed stays.

import {send} from "./http.js";

for (const form of document.querySelectorAll("form[data-part=theme]")) {
  form.addEventListener("submit", (event) => {
    const theme = event.submitter?.value;
    if (!theme) return;
    event.preventDefault();
    show(form, theme);
    send("POST", form.action, {theme}).catch(() => {}); // without the server it holds until the page is left
  });
}

function show(form, theme) {
  const chosen = theme === "system" ? "" : theme;
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  document.querySelector("meta[name=color-scheme]").content = chosen || "light dark";
  for (const button of form.querySelectorAll("button")) button.setAttribute("aria-pressed", button.value === theme);
}
