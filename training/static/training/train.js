// The field for a hub model is shown only where the hub was chosen, and the button is pressed once.
const form = document.querySelector("[data-train]");

if (form) {
  const choice = form.elements.namedItem("base_model");
  const hub = form.elements.namedItem("hub_model").closest(".field");
  const show = () => { hub.hidden = choice.value !== "hub"; };
  choice.addEventListener("change", show);
  show();
  const button = form.querySelector("button.go");
  form.addEventListener("submit", () => { button.disabled = true; });
  addEventListener("pageshow", () => { button.disabled = false; });
}
