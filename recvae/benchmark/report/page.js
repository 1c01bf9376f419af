// Draws each chart from the spec beside it. Nothing is fetched: a loader that refuses all addresses is given to Vega.
"use strict";
(async () => {
  const nothing = { load: () => Promise.reject(new Error("no network")), sanitize: (uri) => Promise.resolve({ href: uri }) };
  const options = { renderer: "svg", actions: false, loader: nothing, tooltip: { theme: "page" } };
  for (const plot of document.querySelectorAll(".plot")) {
    const spec = JSON.parse(document.getElementById(`spec-${plot.dataset.chart}`).textContent);
    try {
      await window.vegaEmbed(plot, spec, options);
    } catch (error) {
      plot.textContent = "This chart could not be drawn; its numbers are in the table below.";
      console.error(plot.dataset.chart, error);
    }
  }
  document.documentElement.dataset.drawn = "yes";
  // a printed page has another width
  const fit = () => window.dispatchEvent(new Event("resize"));
  window.matchMedia("print").addEventListener("change", fit);
})();
