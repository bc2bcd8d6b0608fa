// Draws each chart when it comes near the screen, from the rows of its CSV link. Without scripts, and on paper, the still picture stays.
(() => {
  const config = {
    background: "transparent", aria: false, font: "system-ui, sans-serif", autosize: { type: "fit-x", contains: "padding" },
    view: { stroke: null }, mark: { tooltip: true },
    axis: { labelColor: "currentColor", titleColor: "currentColor", domainColor: "currentColor", tickColor: "currentColor", gridColor: "currentColor",
      gridOpacity: 0.12, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" },
    axisX: { grid: false },
    legend: { labelColor: "currentColor", titleColor: "currentColor", orient: "top", direction: "vertical", labelFontSize: 12, labelLimit: 320, symbolStrokeWidth: 2 },
  };
  let library;
  const load = () => library ??= (async () => {
    const packed = Uint8Array.from(atob(document.getElementById("vega").textContent), (letter) => letter.charCodeAt(0));
    const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
  })();
  const rowsOf = (figure) => {
    const csv = figure.querySelector("a.csv").href;
    return { values: decodeURIComponent(csv.slice(csv.indexOf(",") + 1)), format: { type: "csv", parse: { sigma: "number", draws: "number" } } };
  };
  const draw = async (figure) => {
    await load();
    const chart = figure.querySelector(".chart"), spec = JSON.parse(figure.querySelector("script").textContent), data = rowsOf(figure);
    figure.classList.add("drawn");
    for (const panel of JSON.parse(figure.dataset.panels)) {
      const place = document.createElement("div");
      place.style.width = "100%";
      if (panel) chart.append(Object.assign(document.createElement("p"), { className: "panel", textContent: panel }));
      chart.append(place);
      const transform = panel ? [{ filter: { field: "panel", equal: panel } }] : [];
      await vegaEmbed(place, { height: 230, ...spec, width: "container", data, transform, config }, { actions: false, renderer: "svg", logLevel: 1 });
      place.querySelector("svg").setAttribute("aria-hidden", "true"); // the chart around it is an image with a name
    }
    figure.dataset.done = "";
  };
  const figures = document.querySelectorAll("figure[data-panels]");
  if (!("DecompressionStream" in window)) return;
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "300px" });
  requestAnimationFrame(() => setTimeout(() => figures.forEach((figure) => seen.observe(figure))));
})();
