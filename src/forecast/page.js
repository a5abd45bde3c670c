"use strict";
// Draws the charts, links them, and recomputes posterior and milestones for the reader's own odds.
const data = JSON.parse(document.getElementById("payload").textContent);
const byId = (id) => document.getElementById(id);
const views = new Map();
const state = { assumptions: data.first, pinned: null };

// Charts -----------------------------------------------------------------------------------------------

// Room for the vertical axis of one panel, and between panels, in pixels.
const AXIS = 64, GAP = 22, LEAST = 190;

function fitted(spec, width) {
  const made = structuredClone(spec), margin = spec.usermeta?.margin ?? AXIS;
  const wanted = spec.columns ?? 1;
  const each = made.concat ? margin : 0;
  const count = Math.max(1, Math.min(wanted, Math.floor((width - margin) / (LEAST + each))));
  const room = made.concat ? width / count - margin - GAP / 2 : (width - margin) / count - GAP;
  const cell = Math.max(120, Math.floor(Math.min(room, spec.facet || made.concat ? 420 : 2000)));
  if (made.concat) { made.columns = count; made.concat.forEach((panel) => { panel.width = cell; }); }
  else if (made.facet) { made.columns = count; made.spec.width = cell; }
  else made.width = cell;
  return made;
}

async function draw(id) {
  const place = byId(id), width = place.clientWidth;
  const spec = fitted(data.specs[id], width);
  for (const p of spec.params ?? []) {
    if (p.name === "worldview") p.value = state.assumptions;
    if (p.name === "focus") p.value = state.pinned;
  }
  views.get(id)?.view.finalize();
  // Vega labels what it draws; the place around it has the text alternative.
  const inner = document.createElement("div");
  inner.setAttribute("aria-hidden", "true");
  place.replaceChildren(inner);
  const { view } = await vegaEmbed(inner, spec, { renderer: "svg", actions: false, tooltip: { disableDefaultStyle: true } });
  views.set(id, { view, width });
  view.addEventListener("pointerover", (_, item) => setFocus(item?.datum?.dynamic ?? state.pinned));
  view.addEventListener("pointerout", () => setFocus(state.pinned));
  if (id === "own-chart") fillOwnChart();
}

async function drawAll() {
  for (const id of Object.keys(data.specs)) {
    if (views.get(id)?.width === byId(id).clientWidth) continue;
    await draw(id);
    await new Promise((done) => setTimeout(done));  // Input is answered between charts.
  }
  document.body.dataset.ready = "yes";
}

let focused = null;
function setFocus(name) {
  if (!data.dynamics.includes(name)) name = null;
  if (name === focused) return;
  focused = name;
  for (const { view } of views.values()) view.signal("focus", name).runAsync();
}

document.querySelectorAll(".chip").forEach((chip) => chip.addEventListener("click", () => {
  state.pinned = state.pinned === chip.dataset.dynamic ? null : chip.dataset.dynamic;
  document.querySelectorAll(".chip").forEach((c) => c.setAttribute("aria-pressed", String(c.dataset.dynamic === state.pinned)));
  setFocus(state.pinned);
}));

let waiting;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });

function useAssumptions(name) {
  state.assumptions = name;
  byId("assumptions").value = name;
  for (const [id, texts] of Object.entries(data.texts)) {
    if (!texts[name]) continue;
    byId(id + "-title").textContent = texts[name].title;
    byId(id + "-notes").textContent = texts[name].notes;
    byId(id).setAttribute("aria-label", texts[name].alt);
  }
  for (const { view } of views.values()) {
    if ("worldview" in view.getState().signals) view.signal("worldview", name).runAsync();
  }
  recompute();
}

// Your own prior ---------------------------------------------------------------------------------------

const sliders = data.dynamics.map((_, k) => byId("odds-" + k));

// Posterior = odds times evidence, normalised; its error by the delta method from errors of pairwise log Bayes factors.
function posterior(odds, one) {
  const joint = odds.map((p, k) => Math.log(p) + one.log_evidence[k]);
  const top = Math.max(...joint), raw = joint.map((x) => Math.exp(x - top));
  const sum = raw.reduce((a, b) => a + b), p = raw.map((x) => x / sum);
  const v = one.factor_se.map((row) => row.map((x) => x * x));
  const error = p.map((pk, k) => {
    let total = 0;
    p.forEach((pi, i) => p.forEach((pj, j) => { total += pi * pj * (v[k][i] + v[k][j] - v[i][j]) / 2; }));
    return pk * Math.sqrt(Math.max(total, 0));
  });
  return { p, error };
}

const mixed = (weights, rows) => rows[0].map((_, t) => weights.reduce((sum, w, k) => sum + w * rows[k][t], 0));
const mixedError = (weights, rows) => rows[0].map((_, t) => Math.sqrt(weights.reduce((sum, w, k) => sum + (w * rows[k][t]) ** 2, 0)));
const share = (x, digits = 1) => (100 * x).toFixed(digits) + " %";

function verdict(ratio) {
  const word = ratio >= data.thresholds.settled ? "settled" : ratio >= data.thresholds.leaning ? "leaning" : "open";
  return Number.isFinite(ratio) ? `${word}, ${ratio >= 100 ? ratio.toPrecision(2) : ratio.toFixed(1)} to 1` : "settled by your odds";
}

function row(cells, values = []) {
  const tr = document.createElement("tr");
  cells.forEach((text, i) => {
    const cell = document.createElement(i ? "td" : "th");
    if (!i) cell.scope = "row";
    cell.textContent = text;
    if (values[i] !== undefined) cell.dataset.value = values[i];
    tr.append(cell);
  });
  return tr;
}

let result = null;
function recompute() {
  const one = data.worldviews[state.assumptions];
  const raw = sliders.map((s) => Number(s.value)), sum = raw.reduce((a, b) => a + b);
  const say = byId("own-verdict"), body = byId("own-table").tBodies[0], list = byId("own-milestones").tBodies[0];
  if (!one?.log_evidence || sum === 0) {
    result = null;
    body.replaceChildren(); list.replaceChildren(); byId("own-title").textContent = "";
    say.textContent = sum === 0 ? "Give at least one dynamic some odds." : `The fit of ${state.assumptions} failed its gate, so there is nothing to compute.`;
    sliders.forEach((_, k) => { byId("share-" + k).textContent = sum ? share(raw[k] / sum, 0) : "–"; });
    return;
  }
  const odds = raw.map((x) => x / sum), { p, error } = posterior(odds, one);
  result = { p, one };
  const order = p.map((_, k) => k).sort((a, b) => p[b] - p[a]), lead = order[0], second = order[1];
  odds.forEach((x, k) => { byId("share-" + k).textContent = share(x, 0); sliders[k].setAttribute("aria-valuetext", share(x, 0)); });
  say.textContent = `On your odds and the assumptions of ${state.assumptions}, ${data.dynamics[lead]} leads with ${share(p[lead])}; against ${data.dynamics[second]} the matter is ${verdict(p[lead] / p[second])}.`;
  body.replaceChildren(...p.map((x, k) => row([
    data.dynamics[k], share(odds[k]), `${share(x)} ± ${(100 * error[k]).toFixed(1)}`,
    k === lead ? "leads" : verdict(p[lead] / x),
    x >= 0.5 ? "none" : x > 0 ? `${((1 - x) / x).toPrecision(2)} times as likely` : "never at odds of 0",
  ], [undefined, odds[k], x])));
  list.replaceChildren(...data.milestones.map((m) => {
    const here = one.milestones[m.id], by = mixed(p, here.by), se = mixedError(p, here.se);
    const at = [...data.key_years.map((y) => data.dates.indexOf(y)), by.length - 1];
    return row([m.title, ...at.map((i) => `${share(by[i])} ± ${(100 * se[i]).toFixed(1)}`)], [undefined, ...at.map((i) => by[i])]);
  }));
  fillOwnChart();
}

function fillOwnChart() {
  const view = views.get("own-chart")?.view;
  if (!result) { view?.data("own", []).runAsync(); return; }
  const id = byId("own-milestone").value, here = result.one.milestones[id];
  const dates = [...data.dates, data.never], by = mixed(result.p, here.by), se = mixedError(result.p, here.se);
  const rows = dates.flatMap((date, t) => [
    ...data.dynamics.map((name, k) => ({ date, kind: name, dynamic: name, probability: here.by[k][t], error: here.se[k][t] })),
    { date, kind: "your odds", probability: by[t], error: se[t] },
  ]);
  view?.data("own", rows).runAsync();
  const title = data.milestones.find((m) => m.id === id).title, mid = data.dates.indexOf(data.key_years[1]);
  byId("own-title").textContent = `On your odds ${share(by[mid], 0)} by ${data.key_years[1]}, ${share(by.at(-1), 0)} never: ${title}`;
}

// The setting in the address ---------------------------------------------------------------------------

function remember() {
  const odds = data.dynamics.map((n, k) => `${encodeURIComponent(n)}:${sliders[k].value}`).join(",");
  const hash = `#prior=${odds}&assumptions=${encodeURIComponent(state.assumptions)}`;
  history.replaceState(null, "", hash);
  byId("own-link").value = location.href;
}

function recall() {
  const said = new URLSearchParams(location.hash.slice(1));
  const given = new Map((said.get("prior") ?? "").split(",").map((part) => part.split(":")).map(([n, v]) => [decodeURIComponent(n), Number(v)]));
  const known = data.dynamics.every((n) => given.get(n) >= 0 && given.get(n) <= 100);
  if (known) data.dynamics.forEach((n, k) => { sliders[k].value = given.get(n); });
  const name = said.get("assumptions");
  useAssumptions(data.worldviews[name]?.log_evidence ? name : state.assumptions);
  if (known) byId("own").scrollIntoView();
  byId("own-link").value = location.href;
}

function preset(name) {
  sliders.forEach((s, k) => { s.value = name ? 100 * data.worldviews[name].odds[k] : 25; });
}

sliders.forEach((s) => s.addEventListener("input", () => { recompute(); remember(); }));
document.querySelectorAll("[data-preset]").forEach((b) => b.addEventListener("click", () => { preset(b.dataset.preset); recompute(); remember(); }));
byId("assumptions").addEventListener("change", (e) => { useAssumptions(e.target.value); remember(); });
byId("own-milestone").addEventListener("change", fillOwnChart);
byId("own-form").addEventListener("submit", (e) => e.preventDefault());
byId("copy").addEventListener("click", async () => {
  const field = byId("own-link"), button = byId("copy");
  field.select();
  try { await navigator.clipboard.writeText(field.value); } catch { document.execCommand("copy"); }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
byId("filter").addEventListener("input", (e) => {
  const word = e.target.value.toLowerCase();
  let shown = 0;
  for (const tr of byId("rows").tBodies[0].rows) {
    tr.hidden = !tr.textContent.toLowerCase().includes(word);
    shown += !tr.hidden;
  }
  byId("filter-count").textContent = `${shown} rows`;
});
addEventListener("hashchange", () => { if (location.hash.startsWith("#prior=")) recall(); });
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));

if (state.assumptions) preset(state.assumptions);
recall();
// The first paint needs no chart.
requestAnimationFrame(() => setTimeout(drawAll));
