// Draws the figures that the server describes. Colours in a figure are names of custom properties,
// so switching the theme redraws without asking the server. Every point leads to the list behind it.
(() => {
  "use strict";
  const CONFIG = { displayModeBar: false, responsive: true, showTips: false, scrollZoom: false, doubleClick: false };

  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const coloured = (value) => {
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v)]));
    return typeof value === "string" && value.startsWith("--") ? token(value) : value;
  };

  const themed = (layout) => {
    const axis = { color: token("--text-muted"), gridcolor: token("--line"), linecolor: token("--line-strong"), tickcolor: token("--line-strong"), zerolinecolor: token("--line-strong") };
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: token("--font"), size: 12, color: token("--text-muted") },
      hoverlabel: { bgcolor: token("--surface"), bordercolor: token("--line-strong"), font: { family: token("--font"), size: 12.5, color: token("--text") }, align: "left" },
      xaxis: { ...axis, automargin: true, ...coloured(layout.xaxis || {}) },
      yaxis: { ...axis, automargin: true, ...coloured(layout.yaxis || {}) },
    };
  };

  // Where a click on bucket `index` of trace `value` leads: the list of calls, or what data-href says.
  const address = (chart, edges, index, value) => {
    const url = new URL(chart.dataset.href, location.href);
    if (edges) {
      const [from, to] = edges[index];
      url.searchParams.delete("range");
      url.searchParams.set("from", from);
      url.searchParams.set("to", to);
    }
    if (chart.dataset.by && typeof value === "string") url.searchParams.set(chart.dataset.by, value);
    return url.toString();
  };

  const draw = (chart) => {
    const source = document.getElementById(chart.dataset.figure);
    if (!source || !window.Plotly) return;
    const figure = JSON.parse(source.textContent);
    const fresh = !chart.dataset.ready;
    window.Plotly.react(chart, figure.data.map(coloured), themed(figure.layout), CONFIG);
    chart.dataset.ready = "yes";
    if (fresh && chart.dataset.href) {
      chart.on("plotly_click", (event) => {
        const point = event.points[0];
        const hrefs = point.data.meta && point.data.meta.hrefs;
        if (hrefs) {
          location.assign(hrefs[point.pointNumber]);
          return;
        }
        const links = point.data.meta && point.data.meta.links;
        if (links) {
          const [trace, span] = links[point.pointNumber];
          location.assign(new URL(`../${trace}/${span}/`, new URL(chart.dataset.href, location.href)));
          return;
        }
        const edges = figure.layout.meta && figure.layout.meta.edges;
        location.assign(address(chart, edges, point.x, point.data.meta && point.data.meta.value));
      });
    }
  };

  const drawAll = () => document.querySelectorAll("[data-figure]").forEach(draw);
  window.costappCharts = { drawAll };
  document.addEventListener("DOMContentLoaded", drawAll);
  document.addEventListener("htmx:afterSettle", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
