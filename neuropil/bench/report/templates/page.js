"use strict";
(() => {
  const root = document.documentElement;
  const narrow = matchMedia("(max-width: 44rem)");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const plots = [];

  // ---- theme -------------------------------------------------------------------------------------------------
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const remembered = (value) => {
    try { // storage is refused to some local files
      if (value) localStorage.setItem("neuropil-theme", value);
      return localStorage.getItem("neuropil-theme");
    } catch { return null; }
  };
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  const saved = remembered();
  if (saved === "dark" || saved === "light") root.dataset.theme = saved;
  button.hidden = false;
  label();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    label();
    redraw();
  });
  system.addEventListener("change", () => { label(); redraw(); });
  narrow.addEventListener("change", () => redraw());

  // ---- plots -------------------------------------------------------------------------------------------------
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // Plotly computes the panels' places from `grid`; a phone gets fewer columns and a taller figure.
  function arranged(layout, data) {
    const { panels = 1, columns = 1, row = 240, x: xTitle = "", y: yTitle = "" } = layout.meta || {};
    if (!layout.grid) return layout;
    const across = narrow.matches ? Math.min(columns, panels > 4 ? 2 : 1) : columns;
    const rows = Math.ceil(panels / across);
    layout.grid.columns = across;
    layout.grid.rows = rows;
    const entries = data.filter((trace) => trace.showlegend === true || trace.name === "optimum").length;
    const legend = entries ? 26 * Math.ceil(entries / (narrow.matches ? 3 : 12)) : 0;
    layout.margin.t = 30 + (layout.coloraxis ? 46 : legend);
    layout.height = row * rows + 40 + layout.margin.t;
    if (layout.coloraxis && narrow.matches) Object.assign(layout.coloraxis.colorbar, { len: 0.8, nticks: 4 });
    layout.grid.ygap = 74 / (layout.height / rows);
    layout.grid.xgap = across > 1 ? (narrow.matches ? 0.3 : 0.2) : 0;
    for (let i = 0; i < panels; i++) {
      const x = layout["xaxis" + (i ? i + 1 : "")];
      const y = layout["yaxis" + (i ? i + 1 : "")];
      const own = (axis, common) => axis.title.text && axis.title.text !== common;
      if (!own(x, xTitle)) x.title.text = i + across < panels ? "" : xTitle;
      if (!own(y, yTitle)) y.title.text = i % across ? "" : yTitle;
    }
    return layout;
  }

  function themed(layout) {
    const ink = colour("--ink"), soft = colour("--soft"), line = colour("--line"), paper = colour("--paper");
    layout.font = { family: colour("--sans"), size: 12.5, color: soft };
    layout.hoverlabel = { bgcolor: paper, bordercolor: line, font: { color: ink, size: 13 } };
    for (const key of Object.keys(layout)) {
      if (!/^[xy]axis\d*$/.test(key)) continue;
      Object.assign(layout[key], { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line });
    }
    for (const note of layout.annotations || []) {
      if (!note.font) note.font = {};
      if (!note.font.color) note.font.color = ink;
    }
    if (layout.legend) layout.legend.font = { color: ink };
    if (layout.coloraxis && isDark()) {
      layout.coloraxis.colorscale = [[0, "#20262b"], [0.35, "#2f5560"], [0.7, "#5fa3a0"], [1, "#f0e6c8"]];
    }
    return layout;
  }

  const copy = (value) => JSON.parse(JSON.stringify(value));
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
  };

  function layoutOf(plot) {
    const layout = arranged(themed(copy(plot.layout)), plot.data);
    delete layout.updatemenus;
    return layout;
  }

  function redraw() {
    for (const plot of plots) Plotly.react(plot.div, plot.data, layoutOf(plot), config);
  }

  // Plotly's own menus cannot be reached by keyboard; a native select can.
  function choose(plot, menu, controls) {
    const wrap = document.createElement("label");
    const select = document.createElement("select");
    wrap.append(menu.name || "Show", select);
    menu.buttons.forEach((choice, i) => select.add(new Option(choice.label, String(i))));
    select.addEventListener("change", () => {
      const [update, traces] = menu.buttons[Number(select.value)].args;
      for (const [key, values] of Object.entries(update)) {
        (traces || plot.data.map((_, i) => i)).forEach((t, i) => { plot.data[t][key] = values[i % values.length]; });
      }
      Plotly.react(plot.div, plot.data, layoutOf(plot), config);
    });
    controls.append(wrap);
  }

  function draw(figure, text) {
    const { data, layout } = JSON.parse(text);
    const plot = { div: figure.querySelector(".plot"), data, layout };
    for (const menu of layout.updatemenus || []) choose(plot, menu, figure.querySelector(".controls"));
    plots.push(plot);
    return Plotly.newPlot(plot.div, plot.data, layoutOf(plot), config);
  }

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  async function drawAll() {
    for (const figure of document.querySelectorAll("figure")) {
      const script = figure.querySelector("script");
      await draw(figure, "packed" in script.dataset ? await unpacked(script.textContent) : script.textContent);
    }
    root.dataset.drawn = "true";
  }
  drawAll();

  // ---- copy --------------------------------------------------------------------------------------------------
  for (const copyButton of document.querySelectorAll(".copy-button")) {
    const code = copyButton.parentElement.querySelector("code");
    copyButton.hidden = false;
    copyButton.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        copyButton.textContent = "Copied";
      } catch { // a local file may not write to the clipboard: select the text instead
        getSelection().selectAllChildren(code);
        copyButton.textContent = "Selected";
      }
      setTimeout(() => { copyButton.textContent = "Copy"; }, 1600);
    });
  }
})();
