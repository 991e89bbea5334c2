// What a term means, beside it: while it is pointed at, has the focus, or was tapped. Escape puts it away.
{
  const tip = Object.assign(document.createElement("div"), { id: "tip", hidden: true });
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  document.querySelectorAll(".term[title]").forEach((term) => term.removeAttribute("title"));
  const termOf = ({ target }) => (target instanceof Element ? target.closest(".term") : null);
  const show = (term) => {
    const name = document.createElement("b");
    name.textContent = term.dataset.term;
    tip.replaceChildren(name, term.dataset.meaning);
    tip.hidden = false;
    const at = term.getBoundingClientRect(), { offsetWidth, offsetHeight } = tip;
    tip.style.left = `${Math.max(8, Math.min(at.left, document.documentElement.clientWidth - offsetWidth - 8))}px`;
    tip.style.top = `${at.bottom + offsetHeight + 12 < innerHeight ? at.bottom + 6 : Math.max(8, at.top - offsetHeight - 6)}px`;
    term.setAttribute("aria-describedby", "tip");
  };
  const hide = () => {
    tip.hidden = true;
    document.querySelectorAll('[aria-describedby="tip"]').forEach((term) => term.removeAttribute("aria-describedby"));
  };
  // A term that got the focus may have been scrolled to for it: what it means stays beside it.
  let focused = null;
  for (const [name, act] of [["mouseover", show], ["focusin", show], ["click", show], ["mouseout", hide], ["focusout", hide]]) {
    document.addEventListener(name, (event) => { const term = termOf(event); if (term) act(term); });
  }
  document.addEventListener("focusin", (event) => { focused = termOf(event); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") { focused = null; hide(); } });
  document.addEventListener("scroll", () => {
    const { top, bottom } = focused ? focused.getBoundingClientRect() : { top: -1, bottom: -1 };
    if (top >= 0 && bottom <= innerHeight) show(focused);
    else hide();
  }, { passive: true, capture: true });
}
