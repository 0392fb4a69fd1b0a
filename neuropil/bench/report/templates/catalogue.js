"use strict";
(() => {
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const table = document.querySelector(".systems");
  const body = table.tBodies[0];
  const standings = [...$("standing").options].map((option) => option.value);

  // ---- theme: the same memory as the report pages --------------------------------------------------------------
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const remembered = (value) => {
    try { // storage is refused to some local files
      if (value) localStorage.setItem("neuropil-theme", value);
      return localStorage.getItem("neuropil-theme");
    } catch { return null; }
  };
  const label = () => { $("theme").textContent = isDark() ? "Light" : "Dark"; };
  if (["dark", "light"].includes(remembered())) root.dataset.theme = remembered();
  $("theme").hidden = false;
  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    label();
  });
  system.addEventListener("change", label);
  label();

  // ---- rows ----------------------------------------------------------------------------------------------------
  const rows = [...body.rows].map((line, place) => {
    const text = (selector) => line.querySelector(selector).textContent.trim();
    const number = (value) => (value === undefined || value === "" ? null : Number(value));
    const data = line.dataset;
    return {
      line, place, title: text("th").toLowerCase(), room: data.room, standing: standings.indexOf(data.standing),
      seconds: number(data.seconds), value: number(data.value), paper: number(data.paper),
      year: number(text(".year")), words: line.textContent.toLowerCase().replace(/\s+/g, " "), name: data.standing,
    };
  });

  // ---- filters: kept in the address, so that a view can be linked to ---------------------------------------------
  const controls = ["search", "room", "standing", "cost"].map($);
  let order = { key: "", down: false };

  function fits(row, [words, room, standing, cost]) {
    const within = cost === "more" ? row.seconds > 1800 : row.seconds !== null && row.seconds <= Number(cost);
    return words.every((word) => row.words.includes(word)) && (!room || row.room === room)
      && (!standing || row.name === standing) && (!cost || within);
  }

  function show() {
    const [search, ...rest] = controls.map((control) => control.value);
    const wanted = [search.toLowerCase().split(/\s+/).filter(Boolean), ...rest];
    let found = 0;
    for (const row of rows) {
      row.line.hidden = !fits(row, wanted);
      found += !row.line.hidden;
    }
    $("found").textContent = found === rows.length ? `${found} systems` : `${found} of ${rows.length} systems`;
    $("nothing").hidden = found > 0;
    const view = new URLSearchParams(controls.filter((control) => control.value).map((control) => [control.id, control.value]));
    if (order.key) view.set("sort", (order.down ? "-" : "") + order.key);
    const hash = view.toString();
    if (hash || location.hash.includes("=")) history.replaceState(null, "", hash ? `#${hash}` : "#systems");
  }

  // ---- sorting: what has no value comes last, either way ---------------------------------------------------------
  function compare(a, b) {
    const x = a[order.key], y = b[order.key];
    if ((x === null) !== (y === null)) return x === null ? 1 : -1;
    const sign = x === y ? 0 : (typeof x === "string" ? x.localeCompare(y) : x - y);
    return (order.down ? -sign : sign) || a.place - b.place;
  }

  function sort(key, down) {
    order = { key, down };
    body.append(...[...rows].sort(key ? compare : (a, b) => a.place - b.place).map((row) => row.line));
    for (const head of table.tHead.rows[0].cells) {
      if (head.dataset.sort === key) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const key = head.dataset.sort;
      sort(key, order.key === key && !order.down);
      show();
    });
  }

  function clear() {
    for (const control of controls) control.value = "";
    sort("", false);
    show();
    $("search").focus();
  }

  function read() {
    const view = new URLSearchParams(location.hash.slice(1));
    for (const control of controls) {
      const value = view.get(control.id) || "";
      control.value = value;
      if (control.value !== value) control.value = "";
    }
    const wish = view.get("sort") || "", key = wish.replace(/^-/, "");
    sort([...table.tHead.rows[0].cells].some((head) => head.dataset.sort === key) ? key : "", wish.startsWith("-"));
    show();
  }

  for (const control of controls) control.addEventListener("input", show);
  for (const id of ["clear", "clear-too"]) $(id).addEventListener("click", clear);
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.ctrlKey && !event.metaKey && !/^(INPUT|SELECT)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      $("search").focus();
    }
  });
  addEventListener("hashchange", () => { if (location.hash.includes("=")) read(); });
  document.querySelector(".filters").hidden = false;
  if (location.hash.includes("=")) read(); else show();
  root.dataset.ready = "true";
})();
