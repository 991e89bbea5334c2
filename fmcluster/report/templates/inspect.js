// The embedding of a layer, and what a point of it stands for: feature maps, clusters over time, the members of a group.
// Of the page's `data`; charts say "drawn" when they stand.
{
  const make = (tag, attributes, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };

  // Sheets are decoded when they are first needed.
  const pictures = new Map();
  const picture = async (uri) => {
    if (!pictures.has(uri)) {
      const image = new Image();
      image.src = uri;
      pictures.set(uri, image.decode().then(() => image));
    }
    return pictures.get(uri);
  };
  const paint = async (canvas, sprites, sheet, tiles, size, pitch) => {
    const image = await picture(sprites.sheets[sheet]);
    const pen = canvas.getContext("2d");
    const { height, width, across } = sprites;
    pen.imageSmoothingEnabled = false;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    tiles.forEach((tile, ordinal) => pen.drawImage(
      image, (tile % across) * width, Math.floor(tile / across) * height, width, height, ordinal * pitch, 0, size, size));
  };

  const joinLayer = (plane) => {
    const number = Number(plane.dataset.layer), charts = data.layers[number];
    const at = (selector) => document.querySelector(`${selector}[data-layer="${number}"]`);
    const flow = at('[data-chart="flow"]');
    const panel = at(".inspect"), group = at(".group"), player = at(".player"), side = at(".side");
    const { frames, names, palette, clusters, titles } = charts.embedding;
    const sprites = data.sprites[number], shown_images = data.shown_images[number];
    const last = frames.length - 1;
    const now = () => (player ? Number(player.querySelector("input").value) : last);
    const section = document.getElementById(`layer-${number}`);
    const picks = [...section.querySelectorAll(".pick")];
    let pinned = data.most_moved[number], members = null;

    // The second trace of the embedding is the path of the row that is shown.
    const inspect = (row) => {
      Plotly.restyle(plane, { x: [frames.map((f) => f.x[row])], y: [frames.map((f) => f.y[row])] }, [1]);
      detail(row);
    };
    // In which cluster a row stays, from which snapshot to which.
    const staysOf = (row) => frames.reduce((stays, { cluster }, at) => {
      const before = stays.at(-1);
      if (before?.label === cluster[row]) before.to = at;
      else stays.push({ label: cluster[row], from: at, to: at });
      return stays;
    }, []);
    const detail = (row) => {
      panel.dataset.row = row;
      panel.querySelector(".which").value = row;
      panel.querySelector(".chips").replaceChildren(...staysOf(row).map(({ label, from, to }) => {
        const swatch = make("span", { className: "swatch" });
        swatch.style.setProperty("--color", palette[label]);
        return make("li", {}, swatch, `${titles[from]}${to > from ? ` to ${titles[to]}` : ""}: ${clusters[label]}`);
      }));
      for (const canvas of panel.querySelectorAll("[data-sheet]")) {
        const sheet = Number(canvas.dataset.sheet), columns = sprites.columns.length;
        canvas.setAttribute("aria-label", `Feature maps of ${plain(row)}, ${sprites.titles[sheet]}, `
          + `from ${titles[0]} to ${titles[last]}`);
        paint(canvas, sprites, sheet, sprites.columns.map((_, column) => row * columns + column), 64, 68);
      }
      panel.querySelectorAll(".shown").forEach((canvas, ordinal) => {
        const { title, rows } = shown_images[ordinal];
        const which = rows[row].map(([sample]) => `sample ${sample}`).join(", ") || "none";
        canvas.setAttribute("aria-label", `${title}: ${which}`);
        shown(canvas, rows[row], 64, 68);
      });
    };
    // The images that belong to a row, with a ring where in them it is, or answers most.
    const shown = async (canvas, images, size, pitch) => {
      const { uri, side, across, tiles } = data.thumbnails;
      const sheet = await picture(uri);
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, canvas.width, canvas.height);
      images.forEach(([sample, down, along], rank) => {
        const ordinal = tiles[sample], left = rank * pitch;
        if (ordinal === undefined) {
          pen.fillStyle = "#808080";
          pen.fillText(`sample ${sample}`, left, size / 2 + 2, size - 2);
          return;
        }
        pen.drawImage(sheet, (ordinal % across) * side, Math.floor(ordinal / across) * side, side, side, left, 0, size, size);
        if (down === null) return;
        for (const [width, color] of [[4, "#000000"], [2, "#ffffff"]]) {
          pen.lineWidth = width;
          pen.strokeStyle = color;
          pen.beginPath();
          pen.arc(left + size * along, size * down, 7, 0, 2 * Math.PI);
          pen.stroke();
        }
      });
    };
    // On a narrow screen, the result of a click stays in view until it is closed.
    const keep = () => side.classList.add("kept");
    const pin = (row) => { pinned = row; inspect(row); keep(); };
    side.querySelector(".away").addEventListener("click", () => side.classList.remove("kept"));

    const show = (rows, title, pressed) => {
      members = rows;
      for (const pick of picks) pick.setAttribute("aria-pressed", String(pick === pressed));
      const chosen = new Set(rows || names.keys());
      Plotly.restyle(plane, { "marker.opacity": [names.map((_, row) => (chosen.has(row) ? 0.9 : 0.12))] }, [0]);
      if (mosaic) showAll();
      group.hidden = !rows;
      if (!rows) return;
      keep();
      side.scrollTop = 0;
      group.querySelector("h3").textContent = `${title} (${rows.length})`;
      const ordinal = sprites ? nearest(now()) : 0;
      const pictured = sprites || (data.thumbnails && shown_images.length);
      group.querySelector(".tiles").replaceChildren(...rows.map((row) => {
        const button = make("button", { type: "button", title: plain(row) });
        if (pictured) {
          const canvas = make("canvas", { width: 52, height: 52 });
          if (sprites) paint(canvas, sprites, 0, [row * sprites.columns.length + ordinal], 52, 0);
          else shown(canvas, shown_images[0].rows[row], 52, 0);
          button.append(canvas);
        }
        button.append(plain(row).replace(/^channel |^sample (?=\d+$)/, ""));
        button.dataset.row = row;
        button.addEventListener("click", () => pin(row));
        return button;
      }));
    };
    const plain = (row) => new DOMParser().parseFromString(names[row], "text/html").body.textContent;
    const nearest = (snapshot) => sprites.columns.reduce(
      (best, ordinal, column) => (Math.abs(ordinal - snapshot) < Math.abs(sprites.columns[best] - snapshot) ? column : best), 0);
    const rowsWhere = (test) => [...names.keys()].filter(test);
    const showCluster = (pick) => show(
      rowsWhere((row) => String(frames[now()].cluster[row]) === pick.dataset.cluster),
      `${pick.textContent.trim()} at ${titles[now()]}`, pick);

    plane.on("plotly_hover", ({ points }) => { if (points[0].curveNumber === 0) inspect(points[0].pointNumber); });
    plane.on("plotly_unhover", () => inspect(pinned));
    plane.on("plotly_click", ({ points }) => { if (points[0].curveNumber === 0) pin(points[0].pointNumber); });
    const paths = at('[data-chart="trajectories"]');
    if (paths) whenDrawn(paths, () => paths.on("plotly_click", ({ points: [{ customdata }] }) => {
      const row = customdata ? names.indexOf(customdata[0]) : -1;
      if (row >= 0) pin(row);
    }));
    for (const pick of picks) {
      pick.addEventListener("click", () => (pick.getAttribute("aria-pressed") === "true" ? show(null) : showCluster(pick)));
    }
    // The members of a cluster, and the maps of all channels, are those at the snapshot that is shown.
    const offer = () => {
      const here = new Set(frames[now()].cluster.map(String));
      for (const pick of picks) {
        pick.parentElement.hidden = !here.has(pick.dataset.cluster) && pick.getAttribute("aria-pressed") === "false";
      }
    };
    offer();
    if (player) player.addEventListener("moved", () => {
      offer();
      const pressed = picks.find((pick) => pick.getAttribute("aria-pressed") === "true");
      if (pressed) showCluster(pressed);
      if (mosaic) showAll();
    });
    const mosaic = at(".mosaic");
    const tile = names.length > 256 ? 24 : names.length > 64 ? 36 : 56, pitch = tile + 2, line = tile + 5;
    const room = mosaic ? Math.min(832, mosaic.parentElement.clientWidth) : 832;
    const across = Math.max(1, Math.min(names.length, Math.floor(room / pitch)));
    const sorted = [...names.keys()].sort((a, b) => frames[last].cluster[a] - frames[last].cluster[b] || a - b);
    const showAll = async () => {
      const ordinal = nearest(now()), { columns, height, width } = sprites;
      const image = await picture(sprites.sheets[0]);
      const pen = mosaic.getContext("2d");
      pen.imageSmoothingEnabled = false;
      sorted.forEach((row, rank) => {
        const from = row * columns.length + ordinal, left = (rank % across) * pitch, top = Math.floor(rank / across) * line;
        pen.globalAlpha = members && !members.includes(row) ? 0.25 : 1;
        pen.clearRect(left, top, pitch, line);
        pen.drawImage(image, (from % sprites.across) * width, Math.floor(from / sprites.across) * height, width, height,
          left, top, tile, tile);
        pen.fillStyle = palette[frames[last].cluster[row]];
        pen.fillRect(left, top + tile, tile, 3);
      });
      at(".moment").textContent = titles[columns[ordinal]];
      mosaic.setAttribute("aria-label", `Feature maps of all ${names.length} channels, ${titles[columns[ordinal]]}`);
    };
    if (mosaic) {
      mosaic.width = across * pitch;
      mosaic.height = Math.ceil(names.length / across) * line;
      const rowAt = ({ offsetX, offsetY }) => {
        const scale = mosaic.width / mosaic.clientWidth;
        return sorted[Math.floor(offsetY * scale / line) * across + Math.floor(offsetX * scale / pitch)];
      };
      mosaic.addEventListener("click", (event) => { const row = rowAt(event); if (row !== undefined) pin(row); });
      mosaic.addEventListener("mousemove", (event) => {
        const row = rowAt(event);
        mosaic.title = row === undefined ? "" : `${plain(row)}, ${clusters[frames[now()].cluster[row]]} at ${titles[now()]}`;
      });
      showAll();
    }
    panel.querySelector(".which").addEventListener("input", (event) => pin(Number(event.target.value)));
    const showBand = (number) => {
      const [from, to, here, there] = charts.flow.moves[number];
      const rows = rowsWhere((row) => frames[from].cluster[row] === here && frames[to].cluster[row] === there);
      show(rows, `${clusters[here]} to ${clusters[there]}, ${titles[from]} to ${titles[to]}`);
    };
    if (flow) whenDrawn(flow, () => flow.on("plotly_click", ({ points }) => {
      if (points[0].source !== undefined) showBand(points[0].pointNumber); // else a bar
    }));
    const band = section.querySelector(".band");
    if (band) band.addEventListener("input", () => (band.value === "" ? show(null) : showBand(band.value)));
    group.querySelector(".clear").addEventListener("click", () => show(null));
    section.addEventListener("keydown", (event) => { if (event.key === "Escape" && members) show(null); });
    detail(pinned);
  };
  const whenDrawn = (div, act) => (div.dataset.drawn ? act() : div.addEventListener("drawn", act, { once: true }));
  for (const plane of document.querySelectorAll('[data-chart="embedding"]')) whenDrawn(plane, () => joinLayer(plane));
}
