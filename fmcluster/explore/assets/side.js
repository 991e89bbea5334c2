// What is chosen is brought into view beside the charts; on a narrow page it stays above them until it is closed.
(() => {
  const CHARTS = "#embedding, #flow, #grid, #legend, #band";
  let asked = false;
  const ask = ({ target }) => { asked = target instanceof Element && Boolean(target.closest(CHARTS)); };
  for (const event of ["pointerdown", "keydown"]) document.addEventListener(event, ask, true);
  document.addEventListener("click", ({ target }) => {
    if (target instanceof Element && target.closest("#close")) document.getElementById("side").classList.remove("kept");
  });
  const shown = { chosen: "", closely: "" };
  const bring = () => {
    const side = document.getElementById("side");
    if (!side) return;
    for (const name of Object.keys(shown)) {
      const panel = document.getElementById(name), text = panel?.querySelector("h3")?.textContent ?? "";
      if (text === shown[name]) continue;
      shown[name] = text;
      if (!asked || !text) continue;
      side.classList.add("kept");
      const card = panel.closest(".card");
      side.scrollTop += card.getBoundingClientRect().top - side.getBoundingClientRect().top;
    }
  };
  new MutationObserver(bring).observe(document.documentElement, { childList: true, subtree: true, characterData: true });
})();
