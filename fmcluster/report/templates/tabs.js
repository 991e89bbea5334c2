// One panel at a time, of sets within sets. Without this, panels stand one after the other, as they do on paper.
document.documentElement.classList.add("script");
{
  const open = (set, panel) => {
    for (const each of set.panels) {
      each.classList.toggle("open", each === panel);
      const tab = set.tabs.get(each);
      tab.setAttribute("aria-selected", String(each === panel));
      tab.tabIndex = each === panel ? 0 : -1;
    }
    const tab = set.tabs.get(panel), list = tab.parentElement;
    list.scrollLeft = tab.offsetLeft - list.offsetLeft - (list.clientWidth - tab.offsetWidth) / 2;
    panel.dispatchEvent(new Event("opened"));
  };
  const sets = new Map();
  document.querySelectorAll(".tabset").forEach((element, number) => {
    const panels = [...element.children].filter((child) => child.classList.contains("panel"));
    const list = document.createElement("div");
    list.className = "tablist";
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", element.dataset.label);
    const tabs = new Map(), set = { panels, tabs };
    panels.forEach((panel, ordinal) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.id = `tab-${number}-${ordinal}`;
      tab.textContent = panel.dataset.tab;
      tab.setAttribute("role", "tab");
      panel.id ||= `panel-${number}-${ordinal}`;
      tab.setAttribute("aria-controls", panel.id);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      tab.addEventListener("click", () => {
        open(set, panel);
        // What was asked for is shown in view: where its list stands low in the window, the list goes to the top of it.
        if (list.getBoundingClientRect().top > innerHeight / 2) element.scrollIntoView();
      });
      tabs.set(panel, tab);
      sets.set(panel, set);
      list.append(tab);
    });
    list.addEventListener("keydown", (event) => {
      const ordinal = panels.findIndex((panel) => tabs.get(panel) === event.target);
      const next = { ArrowRight: ordinal + 1, ArrowLeft: ordinal - 1, Home: 0, End: panels.length - 1 }[event.key];
      if (ordinal < 0 || next === undefined) return;
      event.preventDefault();
      const panel = panels[(next + panels.length) % panels.length];
      open(set, panel);
      tabs.get(panel).focus();
    });
    element.prepend(list);
    element.classList.add("tabbed");
    open(set, panels[Number(element.dataset.open || 0)]);
  });

  // What a link names is brought to light: the panels it lies in are opened, what is folded is unfolded.
  const reveal = () => {
    const named = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!named) return;
    for (let each = named; each; each = each.parentElement) if (sets.has(each)) open(sets.get(each), each);
    if (named.tagName === "DETAILS") named.open = true;
    named.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  // A link to what was named last changes nothing in the address.
  document.addEventListener("click", ({ target }) => {
    const link = target instanceof Element && target.closest('a[href^="#"]');
    if (link && link.hash === location.hash) reveal();
  });
  addEventListener("load", reveal);
}
