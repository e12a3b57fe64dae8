// Learning curves. The table below each chart says the same in words.
(() => {
  "use strict";
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const AXES = { cost: "Money spent, ", queries: "Queries paid", time: "Seconds since the start" };
  const COLOURS = ["--a", "--b", "--c", "--d", "--e", "--g"];
  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [1, 4]];

  const wilson = (p, n) => {
    const z = 1.96, m = (p + z * z / (2 * n)) / (1 + z * z / n);
    const h = z / (1 + z * z / n) * Math.sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    return [Math.max(0, m - h), Math.min(1, m + h)];
  };

  function draw(place, series, [x, currency], columns, unit, bands = []) {
    if (columns[0].length < 2) return; // what the server drew stays
    place.replaceChildren();
    const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "12px Inter, sans-serif" };
    const percent = unit === "%", title = AXES[x] + (x === "cost" ? currency : "");
    new uPlot({
      width: place.clientWidth, height: place.dataset.small ? 180 : 260,
      scales: { x: { time: false }, y: percent ? { range: (u, lo, hi) => [Math.max(0, lo - 4), Math.min(100, hi + 4)] } : {} },
      axes: [{ ...axis, size: 30, label: title, labelSize: 22, labelFont: "12px Inter, sans-serif" },
             { ...axis, size: 52, space: 22, label: percent ? "Right" : "Loss", labelSize: 18, labelFont: "12px Inter, sans-serif", values: (u, ticks) => ticks.map((t) => (percent ? `${t} %` : String(t))) }],
      series: [{ label: title }, ...series], bands, cursor: { y: false }, legend: { show: false },
    }, columns, place);
    const legend = document.createElement("ul");
    legend.className = "legend";
    for (const one of series.filter((s) => s.label)) {
      const item = document.createElement("li"), line = document.createElement("i");
      line.style.borderTopColor = one.stroke;
      line.style.borderTopStyle = (one.dash || []).length ? "dashed" : "solid";
      item.append(line, one.label);
      legend.append(item);
    }
    place.append(legend);
  }

  const bandOf = ({ accuracy, validation_images: n }) => accuracy.map((p) => (p === null || !n ? [null, null] : wilson(p, n)));
  const per = (values) => values.map((v) => (v === null ? null : 100 * v));

  // What was fetched is kept: another width, axis or colour scheme draws at once.
  const kept = new Map();
  async function curve(address, again) {
    if (again || !kept.has(address)) {
      const answer = await fetch(address);
      if (!answer.ok) return null;
      kept.set(address, await answer.json());
    }
    return kept.get(address);
  }

  async function single(root, again) {
    const data = await curve(root.dataset.curve, again), x = root.dataset.x;
    if (!data) return;
    const acc = data.accuracy, band = bandOf(data);
    const faint = { stroke: css("--a") + "55", width: 1, points: { show: false }, spanGaps: true };
    const rivals = data.baselines.map((b, i) => ({
      label: b.name, stroke: css(COLOURS[i + 1]), width: 1.5, dash: DASHES[i + 1], points: { show: false } }));
    const place = root.querySelector("[data-chart=accuracy]"), loss = root.querySelector("[data-chart=loss]");
    draw(place, [faint, faint,
      { label: "Validation accuracy", stroke: css("--a"), width: 2.5, spanGaps: true }, ...rivals], [x, data.currency],
      [data[x], per(band.map((b) => b[0])), per(band.map((b) => b[1])), per(acc),
        ...data.baselines.map((b) => data[x].map(() => 100 * b.accuracy))], "%",
      [{ series: [2, 1], fill: css("--a") + "22" }]);
    loss.closest("figure").hidden = data.loss.every((v) => v === null);
    if (!loss.closest("figure").hidden)
      draw(loss, [{ label: "Loss", stroke: css("--b"), width: 2, spanGaps: true }], [x, data.currency], [data[x], data.loss], "");
  }

  async function several(root, again) {
    const jobs = JSON.parse(root.dataset.compare), x = root.dataset.x;
    const found = await Promise.all(jobs.map((job) => curve(`/jobs/${job.id}/curve`, again)));
    if (found.includes(null)) return;
    const drawn = jobs.map((job, i) => {
      const band = bandOf(found[i]), edge = { stroke: css(COLOURS[i]) + "55", width: 1, points: { show: false }, spanGaps: true };
      const line = { label: job.name, stroke: css(COLOURS[i]), dash: DASHES[i], width: 2, spanGaps: true };
      return { table: [found[i][x], per(band.map((b) => b[0])), per(band.map((b) => b[1])), per(found[i].accuracy)],
        series: [edge, edge, line], fill: css(COLOURS[i]) + "1c" };
    }).filter((one) => one.table[0].length);
    if (drawn.length)
      draw(root.querySelector("[data-chart=accuracy]"), drawn.flatMap((one) => one.series), [x, found[0].currency],
        uPlot.join(drawn.map((one) => one.table)), "%", drawn.map((one, i) => ({ series: [3 * i + 2, 3 * i + 1], fill: one.fill })));
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const root of document.querySelectorAll("[data-curve], [data-compare]")) {
      const redraw = (again = false) => (root.dataset.curve ? single : several)(root, again);
      for (const button of root.querySelectorAll("[data-axis]"))
        button.addEventListener("click", (event) => {
          event.preventDefault();
          root.dataset.x = button.dataset.axis;
          for (const b of root.querySelectorAll("[data-axis]"))
            if (b === button) b.setAttribute("aria-current", "true"); else b.removeAttribute("aria-current");
          redraw();
        });
      redraw();
      document.addEventListener("reprog:moved", () => redraw(true));
      let width = root.clientWidth;
      addEventListener("resize", () => { if (root.clientWidth !== width) { width = root.clientWidth; redraw(); } });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
    }
  });
})();
