// SPDX-License-Identifier: MIT
// Draws the data of the page (see page.py): a panel for each unit, one above the other, on one axis of time.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const chart = document.getElementById("chart");
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const COLORS = ["#3b82d6", "#e07b28", "#2fa36b", "#c8508f", "#8a6fd1", "#b0932b", "#2aa5b5", "#d64f4f"];
  const DASHES = ["solid", "dot", "dash", "longdash", "dashdot", "longdashdot"];
  const CONFIG = {
    responsive: true, displaylogo: false,
    modeBarButtonsToRemove: ["sendChartToCloud"], plotlyServerURL: "", // the data stays here
  };
  const MOST_LABELS = 30;
  const LABEL_LENGTH = 28;
  const PANEL_HEIGHT = 240;

  const units = [...new Set(data.series.map((one) => one.unit))];
  const axisOf = (unit) => (unit === units[0] ? "y" : "y" + (units.indexOf(unit) + 1));

  // Plotly reads tags in names and labels; ours have none.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const faded = (color) => color + "40";

  // The values of a metric, with null between runs, so that no line is drawn across a hole.
  function line(one, color) {
    const x = [], y = [], about = [];
    for (const [begin, end] of one.runs) {
      for (let i = begin; i < end; i++) {
        x.push(one.times[i]);
        y.push(one.values[i]);
        about.push([one.minima[i], one.maxima[i], one.counts[i]]);
      }
      if (one.step) {
        x.push(one.times[end - 1] + one.step);
        y.push(one.values[end - 1]);
        about.push(about[about.length - 1]);
      }
      x.push(x[x.length - 1]);
      y.push(null);
      about.push(null);
    }
    const format = one.prefixes ? ".5~s" : ".6~g";
    const range = ` (%{customdata[0]:${format}} to %{customdata[1]:${format}}, %{customdata[2]} values)`;
    return {
      type: "scatter", mode: "lines", name: plain(one.metric), legendgroup: one.metric, yaxis: axisOf(one.unit),
      x, y, customdata: one.step ? about : undefined, connectgaps: false,
      line: { color, width: 1.5, shape: one.step ? "hv" : "linear" },
      hovertemplate: `%{fullData.name}: %{y:${format}}${one.step ? range : ""}<extra></extra>`,
    };
  }

  // From the minimum to the maximum of each step: one outline for each run.
  function band(one, color) {
    const x = [], y = [];
    for (const [begin, end] of one.runs) {
      const until = (i) => (i + 1 < end ? one.times[i + 1] : one.times[i] + one.step);
      for (let i = begin; i < end; i++) {
        x.push(one.times[i], until(i));
        y.push(one.maxima[i], one.maxima[i]);
      }
      for (let i = end - 1; i >= begin; i--) {
        x.push(until(i), one.times[i]);
        y.push(one.minima[i], one.minima[i]);
      }
      x.push(null);
      y.push(null);
    }
    return {
      type: "scatter", mode: "lines", name: "min to max", legendgroup: one.metric, showlegend: false,
      yaxis: axisOf(one.unit), x, y, fill: "toself", fillcolor: faded(color), line: { width: 0, color },
      hoverinfo: "skip",
    };
  }

  // Points that have no neighbour: a line would not show them.
  function alone(one, color) {
    const at = one.runs.filter(([begin, end]) => end === begin + 1).map(([begin]) => begin);
    return {
      type: "scatter", mode: "markers", name: "points", legendgroup: one.metric, showlegend: false,
      yaxis: axisOf(one.unit), x: at.map((i) => one.times[i]), y: at.map((i) => one.values[i]),
      marker: { color, size: 5 }, hoverinfo: "skip",
    };
  }

  function traces() {
    return data.series.flatMap((one, index) => {
      const color = COLORS[index % COLORS.length];
      return one.step ? [band(one, color), line(one, color)] : [line(one, color), alone(one, color)];
    });
  }

  function shape(event) {
    const dash = DASHES.includes(event.dash) ? event.dash : "dash";
    const common = { xref: "x", yref: "paper", y0: 0, y1: 1, x0: event.start, line: { color: event.color, dash, width: 1.5 } };
    return event.end === null
      ? { ...common, type: "line", x1: event.start }
      : { ...common, type: "rect", x1: event.end, fillcolor: event.color, opacity: 0.25, layer: "below" };
  }

  function label(event, index) {
    const short = event.label.length > LABEL_LENGTH ? event.label.slice(0, LABEL_LENGTH - 1) + "…" : event.label;
    return {
      xref: "x", x: Math.max(event.start, data.range[0]), xanchor: "left", yref: "paper", y: 1, yanchor: "top",
      yshift: -15 * (index % 4), showarrow: false, font: { size: 11 },
      text: data.events.length > MOST_LABELS ? "◆" : plain(short), hovertext: plain(event.label),
    };
  }

  function layout() {
    const text = dark.matches ? "#dce3ea" : "#1d2733";
    const ground = dark.matches ? "#14181d" : "#ffffff";
    const grid = dark.matches ? "#2c343d" : "#dce2e9";
    const gap = units.length > 1 ? 0.05 : 0;
    const height = (1 + gap) / units.length - gap;
    const made = {
      autosize: true, height: Math.max(420, PANEL_HEIGHT * units.length + 120),
      margin: { l: 72, r: 16, t: 8, b: 48 }, font: { color: text },
      paper_bgcolor: ground, plot_bgcolor: ground, modebar: { bgcolor: ground, color: grid, activecolor: text },
      hovermode: "x unified", hoversubplots: "axis", hoverdistance: 60, hoverlabel: { bgcolor: dark.matches ? "#20262d" : "#ffffff" },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, showlegend: true,
      uirevision: "kept", // zoom and hidden metrics outlast a change of colours
      shapes: data.events.map(shape), annotations: data.events.map(label),
      xaxis: {
        type: "date", range: data.range, gridcolor: grid, title: { text: plain(data.zone) },
        anchor: units.length > 1 ? "y" + units.length : "y", hoverformat: "%Y-%m-%d %H:%M:%S.%3f",
        spikecolor: text, spikethickness: 1, spikedash: "dot",
      },
    };
    units.forEach((unit, index) => {
      const prefixes = data.series.some((one) => one.unit === unit && one.prefixes);
      const top = 1 - index * (height + gap);
      made["yaxis" + (index ? index + 1 : "")] = {
        title: { text: plain(unit) }, domain: [Math.max(0, top - height), top], gridcolor: grid, zerolinecolor: grid,
        tickformat: prefixes ? "~s" : "", automargin: true,
      };
    });
    return made;
  }

  const draw = () => Plotly.react(chart, traces(), layout(), CONFIG);
  dark.addEventListener("change", draw);
  draw();
})();
