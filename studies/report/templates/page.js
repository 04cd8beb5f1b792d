"use strict";
// The table of runs: sorting, filtering, groups. The rows are in the page; nothing is fetched.
(() => {
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows].map((row, place) => ({
    row, place, text: row.textContent.toLowerCase(), values: [...row.cells].map((cell) => cell.dataset.v),
  }));
  const search = document.getElementById("search");
  const group = document.getElementById("group");
  const freeFirst = document.getElementById("free-first");
  const filters = [...document.querySelectorAll("select[data-filter]")];
  let sorted = { column: -1, down: false };

  const compare = (a, b) => {
    if (freeFirst.checked) {
      const free = (b.row.dataset.kind === "free") - (a.row.dataset.kind === "free");
      if (free) return free;
    }
    if (sorted.column < 0) return a.place - b.place;
    const [x, y] = [a.values[sorted.column], b.values[sorted.column]];
    if (x === "" || y === "") return (x === "") - (y === "") || a.place - b.place; // What is not there comes last.
    const number = "number" in heads[sorted.column].dataset;
    const difference = number ? Number(x) - Number(y) : x.localeCompare(y);
    return (sorted.down ? -difference : difference) || a.place - b.place;
  };

  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = rows.filter(({ row, text }) =>
      words.every((word) => text.includes(word)) &&
      filters.every((filter) => !filter.value || row.dataset[filter.dataset.filter] === filter.value));
    kept.sort(compare);
    const groups = new Map();
    for (const each of kept) {
      const name = group.value ? each.row.dataset[group.value] : "";
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(each.row);
    }
    const shown = document.createDocumentFragment();
    for (const [name, members] of groups) {
      if (group.value) {
        const head = document.createElement("tr");
        head.className = "group";
        const cell = document.createElement("th");
        cell.colSpan = heads.length;
        cell.scope = "rowgroup";
        cell.textContent = `${name || "none"} (${members.length})`;
        head.append(cell);
        shown.append(head);
      }
      shown.append(...members);
    }
    body.replaceChildren(shown);
    document.getElementById("count").textContent = `${kept.length} of ${rows.length} runs are shown.`;
  };

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const number = "number" in head.dataset;
      sorted = { column, down: sorted.column === column ? !sorted.down : number };
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      show();
    });
  });
  document.getElementById("controls").addEventListener("input", show);
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  show();
})();

// Figures and the theme.
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const themes = ["", "light", "dark"];
  const names = ["as the system", "light", "dark"];
  const sources = [...document.querySelectorAll("script[data-plot]")];

  // Plotly draws figures with the colours of the page, which it does not know by itself.
  const colours = (printing) => {
    const style = getComputedStyle(root);
    const read = (name) => style.getPropertyValue(name).trim();
    const [text, line] = printing ? ["#000000", "#999999"] : [read("--text"), read("--line")];
    return { text, line };
  };
  const changes = (layout, printing = false) => {
    const { text, line } = colours(printing);
    const made = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": text };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      made[`${axis}.gridcolor`] = line;
      made[`${axis}.zerolinecolor`] = line;
      made[`${axis}.linecolor`] = line;
      made[`${axis}.tickcolor`] = line;
    }
    return made;
  };
  const options = { displayModeBar: false, responsive: true };

  // The legend is clicked by mouse alone; boxes below a figure do the same by keyboard.
  const addBoxes = (place, data) => {
    const series = new Map();
    data.forEach((trace, i) => {
      if (trace.name) series.set(trace.name, [...(series.get(trace.name) || []), i]);
      else if (trace.legendgroup) series.set(trace.legendgroup, [...(series.get(trace.legendgroup) || []), i]);
    });
    if (series.size < 2) return;
    const details = document.createElement("details");
    details.className = "series";
    details.innerHTML = "<summary>Show or hide series</summary>";
    for (const [name, traces] of series) {
      const label = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = true;
      box.addEventListener("change", () => Plotly.restyle(place, { visible: box.checked ? true : "legendonly" }, traces));
      label.append(box, ` ${name}`);
      details.append(label);
    }
    place.parentElement.after(details);
  };

  // The picture of the clip on which the pointer rests, beside it.
  const pictures = JSON.parse(document.getElementById("pictures").textContent);
  const picture = document.createElement("img");
  picture.id = "picture";
  picture.alt = "";
  picture.hidden = true;
  document.body.append(picture);
  const showPictures = (place, data) => {
    place.on("plotly_hover", ({ event, points: [{ curveNumber, pointNumber }] }) => {
      const clip = data[curveNumber].text[pointNumber];
      const jpeg = Object.hasOwn(pictures, clip) ? pictures[clip] : "";
      picture.hidden = !jpeg;
      if (!jpeg) return;
      picture.src = `data:image/jpeg;base64,${jpeg}`;
      picture.style.left = `${event.pageX + 14}px`;
      picture.style.top = `${event.pageY + 14}px`;
    });
    place.on("plotly_unhover", () => { picture.hidden = true; });
  };

  // Plotly takes some tags and entities for its own; names of classes, runs and clips are shown as they are.
  const plain = (value) => {
    if (Array.isArray(value)) return value.map(plain);
    return typeof value === "string" ? value.replace(/&/g, "&amp;").replace(/</g, "&lt;") : value;
  };
  const shown = (trace) => {
    const texts = ["name", "text", "x", "y"].filter((key) => key in trace);
    return { ...trace, ...Object.fromEntries(texts.map((key) => [key, plain(trace[key])])) };
  };

  const draw = (source) => {
    const place = document.getElementById(source.dataset.plot);
    const { data, layout } = JSON.parse(source.textContent);
    layout.xaxis = layout.xaxis || {};
    layout.yaxis = layout.yaxis || {};
    Plotly.newPlot(place, data.map(shown), layout, options).then(() => Plotly.relayout(place, changes(layout)));
    addBoxes(place, data);
    if (source.dataset.plot.startsWith("map-")) showPictures(place, data);
    place.dataset.drawn = "";
  };
  const repaint = (printing = false) => {
    for (const source of sources) {
      const place = document.getElementById(source.dataset.plot);
      if ("drawn" in place.dataset) Plotly.relayout(place, changes(place.layout, printing));
    }
  };

  // A figure is drawn when it comes near the window, so that the page of a large study opens at once.
  const near = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      if (isIntersecting && !("drawn" in target.dataset)) {
        draw(sources.find((source) => source.dataset.plot === target.id));
      }
    }
  }, { rootMargin: "800px" });
  const drawAll = () => sources.forEach((source) => {
    if (!("drawn" in document.getElementById(source.dataset.plot).dataset)) draw(source);
  });
  sources.forEach((source) => near.observe(document.getElementById(source.dataset.plot)));

  let theme = 0;
  button.addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    root.dataset.theme = themes[theme];
    if (!themes[theme]) delete root.dataset.theme;
    button.textContent = `Theme: ${names[theme]}`;
    repaint();
  });
  dark.addEventListener("change", () => repaint());
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not(.series)").forEach((details) => { details.open = true; });
    drawAll();
    repaint(true);
  });
  addEventListener("afterprint", () => repaint());
})();
