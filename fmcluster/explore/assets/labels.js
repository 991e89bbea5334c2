// Dash draws sliders without a name, and hides from screen readers a field that the keyboard reaches.
(() => {
  const name = () => {
    for (const thumb of document.querySelectorAll("#snapshot [role=slider]:not([aria-label])"))
      thumb.setAttribute("aria-label", "snapshot");
    for (const field of document.querySelectorAll(".dash-dropdown-focus-target[aria-hidden]"))
      field.removeAttribute("aria-hidden");
  };
  new MutationObserver(name).observe(document.documentElement, { childList: true, subtree: true });
})();
