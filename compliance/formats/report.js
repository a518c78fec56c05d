// The findings table of report.html: filter, pages, excerpts. Every text reaches the page as text, never as markup.
"use strict";
(() => {
  const PAGE = 200;
  const data = JSON.parse(document.getElementById("data").textContent);
  const body = document.querySelector("#findings-table tbody");
  const form = document.getElementById("filter");
  const told = document.getElementById("told");
  const buttons = { previous: document.getElementById("previous"), next: document.getElementById("next") };
  const STATES = {
    open: (row) => row[7] === 0,
    new: (row) => data.baselines[row[8]] === "new",
    unchanged: (row) => data.baselines[row[8]] === "unchanged",
    suppressed: (row) => (row[7] & 1) !== 0,
    waived: (row) => (row[7] & 2) !== 0,
  };
  let rows = data.findings;
  let first = 0;

  const element = (name, text, parent) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };

  // Columns count code points, from 1; the end column is the first behind.
  const marked = (row, number, text, line) => {
    const points = Array.from(text);
    const from = number === row[1] ? row[2] - 1 : 0;
    const end = number === row[11] && row[12] > 0 ? row[12] - 1 : points.length;
    const to = Math.max(end, from + 1);
    line.append(points.slice(0, from).join(""));
    element("mark", points.slice(from, to).join("") || " ", line);
    line.append(points.slice(to).join(""));
  };

  const source = (row, found) => {
    const line = element("tr", "");
    const cell = element("td", "", line);
    cell.colSpan = 5;
    const shown = element("pre", "", cell);
    found[1].forEach((text, offset) => {
      const number = found[0] + offset;
      element("span", `${String(number).padStart(6)} `, shown).className = "number";
      if (number >= row[1] && number <= row[11]) marked(row, number, text, shown);
      else shown.append(text);
      shown.append("\n");
    });
    return line;
  };

  const place = (row, cell, line) => {
    const told = `${data.paths[row[0]]}:${row[1]}:${row[2]}`;
    const found = data.excerpts[row[10]];
    if (!found) return element("code", told, cell);
    const details = element("details", "", cell);
    element("code", told, element("summary", "", details));
    let shown = null;
    details.addEventListener("toggle", () => {
      if (!details.open) return shown?.remove();
      shown ??= source(row, found);
      return line.after(shown);
    });
    return details;
  };

  const show = () => {
    const made = document.createDocumentFragment();
    for (const row of rows.slice(first, first + PAGE)) {
      const line = element("tr", "", made);
      if (row[7]) line.className = "muted";
      place(row, element("td", "", line), line);
      const state = [
        row[7] & 1 ? "suppressed" : "",
        row[7] & 2 ? `waived by ${row[9]}` : "",
        data.baselines[row[8]] === "none" ? "" : data.baselines[row[8]],
      ].filter(Boolean);
      element("td", data.levels[row[3]] + (state.length ? ` (${state.join(", ")})` : ""), line);
      element("code", data.rules[row[4]], element("td", "", line));
      element("td", data.detectors[row[5]], line);
      const told = element("td", row[6], line);
      for (const [rule, detector, message] of row[13]) {
        const other = element("div", "also reported by ", told);
        element("code", data.rules[rule], other);
        other.append(` (${data.detectors[detector]}): ${message}`);
      }
    }
    body.replaceChildren(made);
    const last = Math.min(first + PAGE, rows.length);
    const counted = (list) => list.reduce((sum, row) => sum + 1 + row[13].length, 0).toLocaleString("en");
    const all = counted(data.findings);
    const some = counted(rows);
    told.textContent = rows.length
      ? `${some} of ${all} findings; ${(first + 1).toLocaleString("en")} to ${last.toLocaleString("en")} shown`
      : `0 of ${all} findings`;
    buttons.previous.disabled = first === 0;
    buttons.next.disabled = last >= rows.length;
  };

  const filter = () => {
    const asked = Object.fromEntries(new FormData(form));
    const text = asked.text.toLowerCase();
    const chosen = (list, value) => (value === "" ? -1 : list.indexOf(value));
    const level = chosen(data.levels, asked.level);
    const rule = chosen(data.rules, asked.rule);
    const detector = chosen(data.detectors, asked.detector);
    const paths = data.paths.map((path) => path.toLowerCase().includes(text));
    const state = STATES[asked.state];
    rows = data.findings.filter(
      (row) =>
        (level < 0 || row[3] === level) &&
        (rule < 0 || row[4] === rule || row[13].some((other) => other[0] === rule)) &&
        (detector < 0 || row[5] === detector || row[13].some((other) => other[1] === detector)) &&
        (!state || state(row)) &&
        (!text || paths[row[0]] || [row, ...row[13]].some((one) => (one[6] ?? one[2]).toLowerCase().includes(text))),
    );
    first = 0;
    show();
  };

  for (const [name, list] of [["rule", data.rules], ["level", data.levels], ["detector", data.detectors]]) {
    for (const value of list) element("option", value, form.elements[name]).value = value;
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  buttons.previous.addEventListener("click", () => { first = Math.max(first - PAGE, 0); show(); });
  buttons.next.addEventListener("click", () => { first += PAGE; show(); });
  form.hidden = false;
  document.getElementById("pages").hidden = false;
  filter();
})();
