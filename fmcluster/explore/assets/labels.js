// Dash draws sliders and lists without a name, hides from screen readers a field that the keyboard reaches, and takes the
// labels of radio buttons for the options of a list.
(() => {
  const name = () => {
    for (const thumb of document.querySelectorAll("#snapshot [role=slider]:not([aria-label])"))
      thumb.setAttribute("aria-label", "snapshot");
    for (const field of document.querySelectorAll(".dash-dropdown-focus-target[aria-hidden]"))
      field.removeAttribute("aria-hidden");
    for (const list of document.querySelectorAll(".dash-dropdown-content:not([aria-label])"))
      list.setAttribute("aria-label", "Options");
    for (const list of document.querySelectorAll(".dash-dropdown-options[role=listbox]")) {
      list.setAttribute("role", "radiogroup");
      list.setAttribute("aria-label", "Options");
    }
    for (const option of document.querySelectorAll(".dash-dropdown-option[role=option]"))
      for (const wrong of ["role", "aria-selected"]) option.removeAttribute(wrong);
  };
  new MutationObserver(name).observe(document.documentElement, { childList: true, subtree: true });
})();
