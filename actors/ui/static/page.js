"use strict";
/* What a page does by itself: it listens for changes, and draws. Everything else is HTML and htmx. */
(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const el = (tag, text, className) => { const e = document.createElement(tag); if (text != null) e.textContent = text; if (className) e.className = className; return e; };

  /* One stream a page; changes that come thick are shown once a second. */
  const live = document.getElementById("live");
  let due = 0;
  const changed = () => {
    if (due) return;
    due = setTimeout(() => {
      due = 0;
      if (document.hidden) { stale = true; return; }
      if (document.activeElement && document.activeElement.matches("#rest input, #part input")) { changed(); return; }
      document.body.dispatchEvent(new Event("changed"));
      draw();
    }, 300);
  };
  let stale = false;
  document.addEventListener("visibilitychange", () => { if (!document.hidden && stale) { stale = false; changed(); } });
  if (!location.pathname.startsWith("/sign-in")) {
    const source = new EventSource("/events");
    source.onopen = () => { live.dataset.state = "live"; live.textContent = "live"; };
    source.onerror = () => { live.dataset.state = "lost"; live.textContent = "not connected"; };
    source.addEventListener("changed", changed);
    window.addEventListener("pagehide", () => source.close());
  } else { live.textContent = ""; live.hidden = true; }

  const charts = [];
  let smooth = false, range = null;
  const smoothed = (values) => { let last = null; return values.map((v) => (last = v == null ? last : last == null ? v : last + 0.1 * (v - last))); };
  const DAY = "{YYYY}-{MM}-{DD}", MINUTE = "{HH}:{mm}";
  const TIMES = [[86400 * 365, "{YYYY}", null, null, null, null, null, null, 1], [86400 * 28, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1], [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [60, MINUTE, `\n${DAY}`, null, "\n{D} {MMM}", null, null, null, 1], [1, ":{ss}", `\n${DAY} ${MINUTE}`, null, `\n{D} {MMM} ${MINUTE}`, null, `\n${MINUTE}`, null, 1], [0.001, ":{ss}.{fff}", `\n${DAY} ${MINUTE}`, null, `\n{D} {MMM} ${MINUTE}`, null, `\n${MINUTE}`, null, 1]];
  const axes = () => { const a = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") }, font: "11px system-ui, sans-serif" }; return [{ ...a }, { ...a, size: 56 }]; };

  const timed = () => { const a = axes(); a[0].values = TIMES; return a; };

  /* Alarms with the windows that they began in, orders, versions and the baseline, over and under the line. */
  const marks = (told, orders) => ({ hooks: {
    drawClear: (u) => {
      const { ctx, bbox } = u;
      ctx.save(); ctx.beginPath(); ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height); ctx.clip();
      ctx.fillStyle = css("--band");
      for (const a of told.alarms) { const from = u.valToPos(a.from, "x", true), to = u.valToPos(a.at, "x", true); ctx.fillRect(from, bbox.top, Math.max(to - from, 2), bbox.height); }
      ctx.restore();
    },
    draw: (u) => {
      const { ctx, bbox } = u, ratio = devicePixelRatio || 1;
      const upright = (x, color, dash, label, row) => {
        const at = u.valToPos(x, "x", true);
        if (at < bbox.left || at > bbox.left + bbox.width) return;
        ctx.strokeStyle = ctx.fillStyle = color; ctx.lineWidth = ratio; ctx.setLineDash(dash.map((d) => d * ratio));
        ctx.beginPath(); ctx.moveTo(at, bbox.top); ctx.lineTo(at, bbox.top + bbox.height); ctx.stroke();
        const right = at > bbox.left + bbox.width - 90 * ratio;
        ctx.font = `${11 * ratio}px system-ui, sans-serif`; ctx.textAlign = right ? "right" : "left"; ctx.fillText(label, at + (right ? -4 : 4) * ratio, row < 0 ? bbox.top + bbox.height - 6 * ratio : bbox.top + (12 + 13 * row) * ratio);
      };
      ctx.save();
      if (told.baseline != null) {
        const y = u.valToPos(told.baseline, "y", true);
        ctx.strokeStyle = css("--good"); ctx.setLineDash([6 * ratio, 4 * ratio]); ctx.lineWidth = 1.5 * ratio;
        // The baseline of one version: drawn from where that version begins.
        const from = Math.max(bbox.left, u.valToPos(told.times[Math.max(0, told.versions.indexOf(told.version))] ?? 0, "x", true));
        ctx.beginPath(); ctx.moveTo(from, y); ctx.lineTo(bbox.left + bbox.width, y); ctx.stroke();
      }
      for (const bound of told.bounds) {
        const y = u.valToPos(bound, "y", true);
        ctx.strokeStyle = css("--bad"); ctx.setLineDash([2 * ratio, 3 * ratio]); ctx.lineWidth = ratio;
        ctx.beginPath(); ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y); ctx.stroke();
      }
      let before = null;
      told.versions.forEach((v, i) => { if (v !== before) { upright(told.times[i], css("--learn"), [2, 3], v, 0); before = v; } });
      // Labels that would run into each other are their sign alone.
      let last = Infinity;
      for (const a of [...told.alarms].sort((a, b) => b.at - a.at)) { const at = u.valToPos(a.at, "x", true), wide = last - at > 64 * ratio; upright(a.at, css("--bad"), [], wide ? "\u25b2 alarm" : "\u25b2", -1); last = at; }
      for (const o of orders) upright(o.at, css("--accent"), [5, 3], "order " + o.state, 2);
      ctx.restore();
    } } });

  const put = (box, options, data) => { const u = new uPlot({ width: Math.max(box.clientWidth - 24, 200), legend: { live: true }, tzDate: (t) => uPlot.tzDate(new Date(t * 1e3), "Etc/UTC"), axes: axes(), ...options }, data, box); charts.push([u, box]); return u; };
  addEventListener("resize", () => charts.forEach(([u, box]) => u.setSize({ width: Math.max(box.clientWidth - 24, 200), height: u.height })));
  const clear = (place) => { while (charts.length) charts.pop()[0].destroy(); place.replaceChildren(); };

  async function drawSeries(place) {
    const answer = await fetch(place.dataset.series, { credentials: "same-origin" });
    if (!answer.ok) { place.replaceChildren(el("p", await answer.text(), "problem")); return; }
    const told = await answer.json();
    clear(place);
    const only = place.dataset.only, around = Number(place.dataset.around);
    let names = Object.keys(told.metrics);
    if (only && told.metrics[only]) names = [only];
    names.slice(0, 12).forEach((name) => {
      const m = told.metrics[name], box = el("div", null, "chart"), title = el("h3");
      title.append(el("bdi", name), el("span", m.baseline == null ? (m.watched ? "" : "  not watched") : `  baseline of ${m.version} ${m.baseline.toPrecision(4)} (dashed), ${m.bounds.length ? `bounds ${m.bounds.join(", ")} (dotted), ` : ""}${m.alarms.length} ${m.alarms.length === 1 ? "alarm" : "alarms"}`, "quiet"));
      box.append(title); place.append(box);
      /* A chart is a picture to a screen reader; its numbers are in the tables below. */
      box.setAttribute("role", "group"); box.setAttribute("aria-label", `${name} over time, ${m.alarms.length} alarms`);
      const order = m.times.map((_, i) => i).sort((a, b) => m.times[a] - m.times[b]);
      const sorted = { ...m, times: order.map((i) => m.times[i]), versions: order.map((i) => m.versions[i]) };
      const raw = order.map((i) => m.values[i]);
      const u = put(box, { height: only ? 280 : 220, cursor: { sync: { key: "model" }, drag: { x: true, y: false } }, plugins: [marks(sorted, told.orders)], axes: timed(),
        scales: { x: { time: true }, y: { range: (_u, low, high) => { const more = [m.baseline, ...m.bounds].filter((v) => v != null), all = [Math.min(low, ...more), Math.max(high, ...more)]; const pad = (all[1] - all[0] || 0.1) * 0.08; return [all[0] - pad, all[1] + pad]; } } },
        series: [{ value: `${DAY} ${MINUTE}:{ss}` }, { label: name, stroke: css("--accent"), width: 1.4, points: { show: raw.length < 60, size: 4 } }] }, [sorted.times, smooth ? smoothed(raw) : raw]);
      if (!range && only && around && sorted.times.length > 1) {
        const at = sorted.times.findIndex((t) => t >= around), from = Math.max(0, at - 120), to = Math.min(sorted.times.length - 1, at + 80);
        if (at >= 0 && sorted.times[to] > sorted.times[from]) u.setScale("x", { min: sorted.times[from], max: sorted.times[to] });
      } else if (range) u.setScale("x", range);
    });
    if (!names.length) place.append(el("p", "No events in the log.", "quiet"));
  }

  async function drawStudy(place) {
    const answer = await fetch(place.dataset.trials, { credentials: "same-origin" });
    if (!answer.ok) return;
    const { mode, trials, logarithmic } = await answer.json();
    clear(place);
    const done = trials.filter((t) => t.value != null);
    if (!done.length) { place.append(el("p", "No trial has a value yet.", "quiet")); return; }
    const better = mode === "max" ? Math.max : Math.min, box = el("div", null, "chart");
    let best = null;
    const line = done.map((t) => (best = best == null ? t.value : better(best, t.value)));
    const winner = done.find((t) => t.value === best);
    place.append(box);
    const counted = axes(); counted[0].incrs = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
    put(box, { height: 220, axes: counted, scales: { x: { time: false } }, series: [{ label: "trial" }, { label: "value", stroke: css("--accent"), paths: () => null, points: { show: true, size: 5, fill: css("--accent") } }, { label: "best so far", stroke: css("--bad"), width: 2, points: { show: false } }] }, [done.map((t) => t.id), done.map((t) => t.value), line]);
    const names = Object.keys(done[0].params), grid = el("div", null, "grid");
    place.append(el("h2", "Value by parameter"), grid);
    /* A parameter that is searched by its logarithm is drawn by it, and texts stand at equal distances. */
    const scale = (name) => {
      const values = [...new Set(done.map((t) => t.params[name]))];
      if (!values.every((v) => typeof v === "number")) {
        const texts = values.map(String).sort();
        return { texts, at: (v) => (texts.length > 1 ? texts.indexOf(String(v)) / (texts.length - 1) : 0.5), low: texts[0], high: texts.at(-1), raw: (v) => texts.indexOf(String(v)) };
      }
      const low = Math.min(...values), high = Math.max(...values), log = low > 0 && logarithmic.includes(name), f = log ? Math.log : (v) => v;
      return { log, at: (v) => (high > low ? (f(v) - f(low)) / (f(high) - f(low)) : 0.5), low: low.toPrecision(3), high: high.toPrecision(3), raw: (v) => v };
    };
    const measured = (s) => {
      const a = axes();
      if (s.log) a[0].values = (_u, at) => at.map((v) => (v == null ? "" : String(Number(v.toPrecision(2)))));
      if (s.texts) Object.assign(a[0], { incrs: [1], values: (_u, at) => at.map((i) => s.texts[i] ?? "") });
      return { axes: a, scales: { x: s.texts ? { time: false, range: [-0.5, s.texts.length - 0.5] } : s.log ? { time: false, distr: 3 } : { time: false } } };
    };
    names.slice(0, 12).forEach((name) => {
      const one = el("div", null, "chart"), s = scale(name), rows = [...done].sort((a, b) => s.raw(a.params[name]) - s.raw(b.params[name]));
      one.append(el("h3", s.log ? `${name} (logarithmic)` : name)); grid.append(one);
      put(one, { height: 150, legend: { show: false }, ...measured(s), series: [{}, { stroke: css("--accent"), paths: () => null, points: { show: true, size: 5, fill: css("--accent") } }] }, [rows.map((t) => s.raw(t.params[name])), rows.map((t) => t.value)]);
    });
    const NS = "http://www.w3.org/2000/svg", make = (tag, attributes) => { const e = document.createElementNS(NS, tag); for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v); return e; };
    const columns = [...names.slice(0, 12), null], step = 900 / Math.max(1, columns.length - 1), svg = make("svg", { viewBox: "0 0 1000 250", class: "parallel", role: "img", "aria-label": "Parallel coordinates of the parameters and the value" });
    const of = { low: Math.min(...done.map((t) => t.value)), high: Math.max(...done.map((t) => t.value)) };
    const scales = columns.map((name) => (name == null ? { at: (v) => (of.high > of.low ? (v - of.low) / (of.high - of.low) : 0.5), low: of.low.toPrecision(3), high: of.high.toPrecision(3) } : scale(name)));
    const shown = done.slice(-400).filter((t) => t !== winner).concat(winner);
    shown.forEach((t) => svg.append(make("path", { d: columns.map((name, i) => `${i ? "L" : "M"}${50 + i * step} ${215 - 180 * scales[i].at(name == null ? t.value : t.params[name])}`).join(""), class: t === winner ? "best" : "" })));
    columns.forEach((name, i) => { const x = 50 + i * step; svg.append(make("line", { x1: x, x2: x, y1: 35, y2: 215 })); [[name ?? "value", 14], [scales[i].high, 29], [scales[i].low, 232]].forEach(([text, y]) => { const e = make("text", { x, y, "text-anchor": "middle" }); e.textContent = text; svg.append(e); }); });
    const card = el("div", null, "chart"); card.append(svg); place.append(el("h2", "Parallel coordinates (the best trial in red)"), card);
  }

  let drawing = false, again = false;
  async function draw() {
    if (drawing) { again = true; return; }
    drawing = true;
    try {
      const series = document.getElementById("charts"), study = document.getElementById("study");
      if (series) await drawSeries(series);
      if (study) await drawStudy(study);
    } catch (error) { live.dataset.state = "lost"; live.textContent = "not connected"; } finally { drawing = false; if (again) { again = false; draw(); } }
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-smooth], [data-zoom]");
    if (!button) return;
    if (button.hasAttribute("data-smooth")) { smooth = !smooth; button.setAttribute("aria-pressed", String(smooth)); draw(); return; }
    const kind = button.dataset.zoom;
    if (kind === "all") { range = null; draw(); return; }
    charts.forEach(([u]) => { const { min, max } = u.scales.x, middle = (min + max) / 2, half = ((max - min) / 2) * (kind === "in" ? 0.5 : 2); range = { min: middle - half, max: middle + half }; u.setScale("x", range); });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
