// A field for a hub model is shown only where the hub was chosen, and the button is pressed once.
const form = document.querySelector("[data-train]");

if (form) {
  for (const written of form.querySelectorAll("input[name^=hub_]")) {
    const name = written.name === "hub_model" ? "base_model" : written.name.slice("hub_".length);
    const choice = form.elements.namedItem(name);
    const hub = written.closest(".field");
    const show = () => { hub.hidden = choice.value !== "hub"; };
    choice.addEventListener("change", show);
    show();
  }
  const button = form.querySelector("button.go");
  form.addEventListener("submit", () => { button.disabled = true; });
  addEventListener("pageshow", () => { button.disabled = false; });
}
