// Plots a load over time, with units on the axes and the value at the pointer.

const SPACE = "http://www.w3.org/2000/svg";
const LEFT = 52; // room for the labels of the axes, in pixels
const BOTTOM = 16;
const TOP = 8;
const RIGHT = 6;
const SHORTEST = 300; // seconds that the axis of time has at least
const GAP = 35; // seconds without a sample, after which the line is broken

function draw(kind, attributes, text = "") {
  const node = document.createElementNS(SPACE, kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

function clock(seconds, withSeconds = false) {
  const parts = { hour: "2-digit", minute: "2-digit", ...(withSeconds && { second: "2-digit" }) };
  return new Date(seconds * 1000).toLocaleTimeString([], parts);
}

// Returns the smallest of 1, 2, 2.5, 5 and 10 times `unit`, or 10, 100 … times these, that is at least `value`.
function above(value, unit) {
  let power = unit;
  while (power * 10 < value) power *= 10;
  return [1, 2, 2.5, 5, 10].map((times) => times * power).find((one) => one >= value);
}

export class Plot {
  // `format` writes a value with its unit; the steps of the axis are multiples of `unit`.
  constructor(figure, { name, format, unit }) {
    this.name = name;
    this.format = format;
    this.unit = unit;
    this.points = [];
    this.limit = 0;
    this.suffix = "";
    this.svg = figure.querySelector("svg");
    this.output = figure.querySelector("output");
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.unpoint());
    new ResizeObserver(() => this.show()).observe(this.svg);
  }

  // `points`: [seconds since 1970, value or null], the oldest one first. `limit`: a value that has
  // a line of its own; `suffix`: the text after the newest value.
  set(points, limit, suffix) {
    Object.assign(this, { points, limit, suffix });
    this.show();
  }

  x(at) {
    return LEFT + ((at - this.begin) / (this.end - this.begin)) * (this.width - LEFT - RIGHT);
  }

  y(value) {
    return this.height - BOTTOM - (value / this.top) * (this.height - BOTTOM - TOP);
  }

  show() {
    this.width = this.svg.clientWidth;
    this.height = this.svg.clientHeight;
    if (this.width <= LEFT + RIGHT || this.height <= 0) return;
    const known = this.points.filter(([, value]) => value !== null && value !== undefined);
    this.end = this.points.length ? this.points.at(-1)[0] : Date.now() / 1000;
    this.begin = Math.min(this.points.length ? this.points[0][0] : this.end, this.end - SHORTEST);
    this.top = above(Math.max(this.limit, ...known.map(([, value]) => value)), this.unit);
    const parts = [...this.axes()];
    if (this.limit < this.top) parts.push(this.line(this.limit, "limit"));
    for (const stretch of this.stretches()) {
      parts.push(draw("polyline", { points: stretch.map(([at, value]) => `${this.x(at)},${this.y(value)}`).join(" ") }));
    }
    this.pointer = draw("g", { class: "pointer" });
    this.svg.replaceChildren(...parts, this.pointer);
    const last = known.at(-1);
    const now = last ? this.format(last[1]) : "no value yet";
    this.svg.setAttribute("aria-label", `${this.name}: ${now}; the axis goes from 0 to ${this.format(this.top)}`);
    this.usual = last ? now + this.suffix : now;
    this.output.textContent = this.usual;
  }

  *axes() {
    for (const value of [0, this.top / 2, this.top]) {
      yield this.line(value, "grid");
      yield draw("text", { x: LEFT - 6, y: this.y(value) + 3, "text-anchor": "end" }, this.format(value));
    }
    for (const [part, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
      const at = this.begin + part * (this.end - this.begin);
      yield draw("text", { x: this.x(at), y: this.height - 3, "text-anchor": anchor }, clock(at));
    }
  }

  line(value, kind) {
    return draw("line", { x1: LEFT, x2: this.width - RIGHT, y1: this.y(value), y2: this.y(value), class: kind });
  }

  // Yields the runs of points that follow each other without a gap.
  *stretches() {
    let stretch = [];
    for (const point of this.points) {
      const isMissing = point[1] === null || point[1] === undefined;
      if (stretch.length && (isMissing || point[0] - stretch.at(-1)[0] > GAP)) {
        yield stretch;
        stretch = [];
      }
      if (!isMissing) stretch.push(point);
    }
    if (stretch.length) yield stretch;
  }

  point(event) {
    const pointerX = event.clientX - this.svg.getBoundingClientRect().left;
    const known = this.points.filter(([, value]) => value !== null && value !== undefined);
    if (!known.length || !this.pointer) return;
    const distance = ([at]) => Math.abs(this.x(at) - pointerX);
    const [at, value] = known.reduce((best, one) => (distance(one) < distance(best) ? one : best));
    this.pointer.replaceChildren(
      draw("line", { x1: this.x(at), x2: this.x(at), y1: TOP, y2: this.height - BOTTOM }),
      draw("circle", { cx: this.x(at), cy: this.y(value), r: 3 }),
    );
    this.output.textContent = `${this.format(value)} at ${clock(at, true)}`;
  }

  unpoint() {
    this.pointer?.replaceChildren();
    this.output.textContent = this.usual ?? "";
  }
}
