// What of a page is cut off or folded up.
{
  // What scrolls sideways fades out where there is more to see.
  const hint = (box) => box.classList.toggle("more", box.scrollWidth - box.clientWidth - box.scrollLeft > 2);
  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => hint(target.closest(".scroll"))));
  for (const box of document.querySelectorAll(".scroll")) {
    box.addEventListener("scroll", () => hint(box), { passive: true });
    for (const each of [box, ...box.children]) sizes.observe(each);
  }

  // On paper nothing is folded up, but for details that are there on demand: those are printed that were opened.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open], .on-demand)")];
    folded.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));
}
