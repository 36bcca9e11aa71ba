// Charts, drawn as SVG from series of points over time. They keep their size whatever the data is.

import { h, s } from "./dom.js";

const HEIGHT = 180;
const LEFT = 58;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 22;

/** Round numbers from 0 to at least `max`, at most five of them; powers of two if `binary`. */
function ticks(max, binary) {
  if (!(max > 0)) return [0, 1];
  const rough = max / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = binary ? 2 ** Math.ceil(Math.log2(rough)) : [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const list = [];
  for (let value = 0; value < max + step * 0.999; value += step) list.push(value);
  return list;
}

/** Powers of ten around what there is, for durations that differ by orders of magnitude. */
function decades(values) {
  const positive = values.filter((value) => value > 0);
  if (positive.length === 0) return [1e-4, 1e-3, 1e-2];
  let low = Math.floor(Math.log10(Math.min(...positive)));
  let high = Math.ceil(Math.log10(Math.max(...positive)));
  if (high - low < 2) high = low + 2;
  const list = [];
  for (let power = low; power <= high; power += 1) list.push(10 ** power);
  return list;
}

const points = (list) => list.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

/**
 * A chart of the last `span` seconds. `draw(series, limits)` shows series: { color, kind: "line" | "points", shape, data: [[time in
 * ms, value]] } and dashed lines [{ color, value }].
 */
export function chart({ label, span, format, logarithmic = false, binary = false, least = 0 }) {
  const svg = s("svg", { class: "chart", role: "img", "aria-label": label, preserveAspectRatio: "none" });
  let last = null;

  function draw(series, limits = []) {
    last = [series, limits];
    const width = Math.max(240, svg.clientWidth || 480);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const now = Date.now();
    const start = now - span * 1000;
    const shown = series.map((one) => ({ ...one, data: one.data.filter(([time]) => time >= start) }));
    const values = shown.flatMap((one) => one.data.map(([, value]) => value)).concat(limits.map((limit) => limit.value)).filter(Number.isFinite);
    const marks = logarithmic ? decades(values) : ticks(values.reduce((a, b) => Math.max(a, b), least), binary);
    const low = logarithmic ? Math.log10(marks[0]) : 0;
    const high = logarithmic ? Math.log10(marks.at(-1)) : marks.at(-1);
    const floor = HEIGHT - BOTTOM;
    const x = (time) => LEFT + ((time - start) / (span * 1000)) * (width - LEFT - RIGHT);
    const y = (value) => {
      const at = logarithmic ? Math.log10(Math.max(value, marks[0])) : value;
      return floor - ((at - low) / (high - low)) * (floor - TOP);
    };
    const nodes = [];
    const skip = Math.ceil(marks.length / 5);
    marks.forEach((mark, index) => {
      if (index % skip) return;
      nodes.push(s("line", { class: "grid-line", x1: LEFT, x2: width - RIGHT, y1: y(mark), y2: y(mark) }));
      nodes.push(s("text", { x: LEFT - 8, y: y(mark) + 4, "text-anchor": "end" }, format(mark)));
    });
    for (const [passed, anchor] of [[span, "start"], [span / 2, "middle"], [0, "end"]]) {
      const words = passed === 0 ? "now" : `−${passed} s`;
      nodes.push(s("text", { x: x(now - passed * 1000), y: HEIGHT - 6, "text-anchor": anchor }, words));
    }
    nodes.push(s("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: floor, y2: floor }));
    for (const { color, value } of limits) {
      if (Number.isFinite(value)) nodes.push(s("line", { class: `dash c-${color}`, x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    }
    let count = 0;
    for (const { color, kind, shape, data } of shown) {
      count += data.length;
      const placed = data.filter(([, value]) => Number.isFinite(value)).map(([time, value]) => [x(time), y(value)]);
      if (kind === "points") {
        for (const [cx, cy] of placed) {
          nodes.push(
            shape === "diamond"
              ? s("path", { class: `point c-${color}`, d: `M${cx},${cy - 5}l5,5l-5,5l-5,-5z` })
              : s("circle", { class: `point c-${color}`, cx, cy, r: 3.2 }),
          );
        }
      } else if (placed.length > 0) {
        const area = [[placed[0][0], floor], ...placed, [placed.at(-1)[0], floor]];
        nodes.push(s("polygon", { class: `area c-${color}`, points: points(area) }));
        nodes.push(s("polyline", { class: `line c-${color}`, points: points(placed) }));
        const [cx, cy] = placed.at(-1);
        nodes.push(s("circle", { class: `point c-${color}`, cx, cy, r: 3.2 }));
      }
    }
    if (count === 0) nodes.push(s("text", { x: LEFT + (width - LEFT - RIGHT) / 2, y: HEIGHT / 2 - 4, "text-anchor": "middle" }, "nothing yet"));
    svg.replaceChildren(...nodes);
    // How many points there are, and the greatest value: for whoever cannot see the drawing.
    svg.setAttribute("aria-description", `${count} values, at most ${format(values.reduce((a, b) => Math.max(a, b), 0))}`);
    svg.dataset.points = count;
  }

  const observer = new ResizeObserver(() => last && draw(...last));
  observer.observe(svg);
  return { node: svg, draw, stop: () => observer.disconnect() };
}

/** Entries: [color, shape, text]. */
export function legend(entries) {
  return entries.map(([color, shape, text]) => h("span", null, h("i", { className: `key ${shape} c-${color}` }), text));
}

/** A small line without axes; `values` are the latest. */
export function sparkline(label) {
  const width = 120;
  const height = 30;
  const svg = s("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const draw = (values, room) => {
    const top = Math.max(...values, 1e-9);
    const placed = values.map((value, index) => [
      width - (values.length - 1 - index) * (width / (room - 1)),
      height - 2 - (value / top) * (height - 5),
    ]);
    const nodes = [];
    if (placed.length > 1) {
      nodes.push(s("polygon", { class: "area c-accent", points: points([[placed[0][0], height], ...placed, [width, height]]) }));
    }
    nodes.push(s("polyline", { class: "line c-accent", points: points(placed.length > 1 ? placed : [[0, height - 2], [width, height - 2]]) }));
    svg.replaceChildren(...nodes);
  };
  draw([], 2);
  return { node: svg, draw };
}

/** The value that a share of all does not exceed. */
export function percentile(values, share) {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))];
}
