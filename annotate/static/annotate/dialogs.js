// The page's dialogs. Markup is in the template; Escape and the browser's own focus handling do the rest.

export const open = (id) => {
  const dialog = document.getElementById(id);
  dialog.returnValue = "";
  dialog.showModal();
  return dialog;
};

// Resolves with the value of the button that closed the dialog, "" for Escape.
export function ask(id, texts = {}) {
  for (const [name, text] of Object.entries(texts)) {
    document.querySelector(`#${id} [data-text="${name}"]`).textContent = text;
  }
  const dialog = open(id);
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue), {once: true}));
}

// A dialog with a form: resolves with the form's fields when sent, null when closed otherwise.
export async function askForm(id) {
  const form = document.querySelector(`#${id} form`);
  form.reset();
  return (await ask(id)) === "send" ? Object.fromEntries(new FormData(form)) : null;
}
