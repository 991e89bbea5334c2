// The charts of the page's `data`, and what moves them.
{
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const pointer = matchMedia("(pointer: fine)");
  const config = { displayModeBar: false, responsive: true, doubleClick: "reset" };

  const chartOf = ({ dataset }) => {
    if (dataset.metric !== undefined) return data.metrics[dataset.metric];
    if (dataset.similarity !== undefined) return data.similarity[dataset.similarity];
    return data.layers[dataset.layer][dataset.chart];
  };

  // What the embedding shows at one snapshot.
  const frameOf = (chart, snapshot) => {
    const { x, y, cluster } = chart.frames[snapshot];
    return {
      x, y,
      marker: { color: cluster.map((label) => chart.palette[label]) },
      customdata: cluster.map((label, row) => [chart.names[row], chart.clusters[label], chart.titles[snapshot]]),
    };
  };

  // Rows of an embedding at one snapshot, or their paths through all of them.
  const trace = ({ frames, names, clusters, titles }, { rows, at }) => {
    const steps = at === null ? [...frames.keys(), null] : [at];
    const along = (value) => rows.flatMap((row) => steps.map((step) => (step === null ? null : value(frames[step], row, step))));
    return {
      x: along(({ x }, row) => x[row]),
      y: along(({ y }, row) => y[row]),
      customdata: along(({ cluster }, row, step) => [names[row], clusters[cluster[row]], titles[step]]),
    };
  };

  const draw = async (div) => {
    const chart = chartOf(div);
    const { data: traces, layout } = chart.figure;
    if (chart.frames) {
      const frame = frameOf(chart, chart.frames.length - 1);
      Object.assign(traces[0], frame, { marker: { ...traces[0].marker, ...frame.marker } });
    }
    if (chart.traced) {
      const embedding = data.layers[div.dataset.layer].embedding;
      chart.traced.forEach((which, order) => Object.assign(traces[order], trace(embedding, which)));
    }
    if (div.classList.contains("plane") && pointer.matches) layout.dragmode = "zoom";
    await Plotly.newPlot(div, traces, layout, config);
    if (div.dataset.chart === "embedding") document.querySelectorAll(`.player[data-layer="${div.dataset.layer}"]`).forEach(join);
    document.querySelectorAll(`.chooser[data-for="${div.dataset.similarity}"]`).forEach(choose);
    div.dataset.drawn = "yes";
    div.dispatchEvent(new Event("drawn"));
  };

  const join = (player) => {
    const chart = data.layers[player.dataset.layer].embedding;
    const div = document.querySelector(`[data-layer="${player.dataset.layer}"][data-chart="embedding"]`);
    const [button, slider, output] = ["button", "input", "output"].map((name) => player.querySelector(name));
    const heading = document.querySelector(`.shown-at[data-layer="${player.dataset.layer}"]`);
    const last = chart.frames.length - 1;
    let timer = 0, seen = chart.frames[last].axes;

    const show = () => {
      const snapshot = Number(slider.value);
      output.textContent = heading.textContent = chart.titles[snapshot];
      slider.setAttribute("aria-valuetext", chart.titles[snapshot]);
      player.dispatchEvent(new Event("moved"));
      const { axes } = chart.frames[snapshot];
      const other = axes && String(axes) !== String(seen);
      if (other) Plotly.relayout(div, { "xaxis.range": [...axes[0]], "yaxis.range": [...axes[1]] });
      seen = axes;
      const duration = still.matches || other ? 0 : 600;
      // An animation that the next one cuts short is no error.
      Plotly.animate(div, { data: [frameOf(chart, snapshot)], traces: [0] }, {
        mode: "immediate", frame: { duration, redraw: false }, transition: { duration, easing: "cubic-in-out" },
      }).catch(() => {});
    };
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      button.textContent = "Play";
    };
    const go = (snapshot) => {
      slider.value = snapshot;
      show();
      if (snapshot === last) stop();
    };
    button.addEventListener("click", () => {
      if (timer) return stop();
      button.textContent = "Pause";
      timer = setInterval(() => go(Number(slider.value) + 1), 1000);
      if (Number(slider.value) === last) go(0);
    });
    slider.addEventListener("input", () => { stop(); show(); });
  };

  // A heat map, and what chooses which it is.
  const choose = (control) => {
    const div = document.querySelector(`[data-similarity="${control.dataset.for}"]`);
    const output = control.parentElement.querySelector("output");
    control.addEventListener("input", () => {
      const chart = data.similarity[control.dataset.for];
      const changed = { z: [chart.stages[control.value]], zmin: chart.starts[control.value] };
      if (chart.figure.data[0].texttemplate) changed.texttemplate = `%{z:.${chart.digits[control.value]}f}`;
      Plotly.restyle(div, changed, [0]);
      if (!output) return;
      output.textContent = data.titles[control.value];
      control.setAttribute("aria-valuetext", output.textContent);
    });
  };

  // On paper, charts are as wide as it is, and what would be cut off is made smaller.
  const paper = document.documentElement.classList;
  const room = ({ parentElement }) => {
    const { paddingLeft, paddingRight } = getComputedStyle(parentElement);
    return parentElement.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
  };
  let changed = [];
  addEventListener("beforeprint", () => {
    const charts = [...document.querySelectorAll(".chart")].map((div) => [div, div.offsetWidth, div.offsetHeight]);
    const wide = [...document.querySelectorAll(".scroll > :not(.chart)")];
    changed = [...charts.map(([div]) => div), ...wide].map((each) => [each, each.style.cssText]);
    paper.add("paper");
    for (const [div, width, height] of charts) {
      Object.assign(div.style, { width: `${width}px`, height: `${height}px`, minWidth: 0, maxHeight: "none", aspectRatio: "auto" });
      div.style.zoom = room(div) / width;
    }
    for (const each of wide) each.style.zoom = Math.min(1, room(each) / each.offsetWidth);
  });
  addEventListener("afterprint", () => {
    changed.forEach(([each, style]) => { each.style.cssText = style; });
    paper.remove("paper");
  });

  // One chart after the other, so that the page answers while they are drawn; first what the reader looks at.
  const start = async () => {
    const waiting = new Set(document.querySelectorAll(".chart"));
    const away = (div) => {
      if (getComputedStyle(div).visibility === "hidden") return 1e6; // in a panel that is not open
      const { top, bottom } = div.getBoundingClientRect();
      return Math.max(0, top - innerHeight, -bottom);
    };
    while (waiting.size) {
      const [next, distance] = [...waiting].map((div) => [div, away(div)]).reduce((a, b) => (b[1] < a[1] ? b : a));
      if (distance > 0) document.documentElement.dataset.ready = "yes";
      await draw(next);
      waiting.delete(next);
      await new Promise((proceed) => setTimeout(proceed));
    }
    document.documentElement.dataset.ready = document.documentElement.dataset.drawn = "yes";
  };
  start();
}
