// Copy buttons. Without this module the text can still be selected and copied by hand.

for (const button of document.querySelectorAll("[data-copy]")) {
  const box = button.parentElement;
  const text = box.querySelector("[data-copy-from]");
  text.addEventListener("focus", () => text.select());
  button.hidden = false;
  button.addEventListener("click", async () => {
    if (await copy(text)) box.querySelector("[data-copy-said]").textContent = button.textContent = button.dataset.copied;
  });
}

// The clipboard API exists only over https and on localhost; selecting and the old command work everywhere.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text.value);
    return true;
  } catch {
    text.select();
    return document.execCommand("copy");
  }
}
