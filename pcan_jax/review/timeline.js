// The overview and the lanes, drawn on canvases: only what is visible is drawn, so that hours with
// thousands of events stay fluid.

const GUTTER = 118;
const RULER = 22;
const ROW = 24;
const LOW_ROW = 17; // where many events overlap
const MANY_ROWS = 12;
const GAP = 6;
const GRIP = 6;
const NARROWEST = 400; // milliseconds across the view
// Okabe and Ito's colours, which people with any colour vision can tell apart.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8a8a8a"];

class Timeline {
  constructor(review, host) {
    this.review = review;
    this.host = host; // { selected(), time(), select(id), seek(ms), add(lane, ms), drag(...) }
    this.canvas = document.getElementById("timeline");
    this.overview = document.getElementById("overview");
    this.box = document.getElementById("lanes");
    this.start = 0;
    this.span = review.length;
    this.hits = [];
    this.pending = false;
    this.readColours();
    this.layOut();
    this.measure();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.readColours();
      this.draw();
    });
    new ResizeObserver(() => {
      this.measure();
      this.draw();
    }).observe(this.box);
    this.box.addEventListener("scroll", () => this.draw());
    listenToPointer(this);
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const names = ["paper", "ink", "soft", "line", "lane", "lane-other", "playhead"];
    const values = names.map((name) => [name, style.getPropertyValue(`--${name}`)]);
    this.colours = Object.fromEntries(values);
    this.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  }

  // A lane per body part and person, in the order of the labels; overlapping events in rows below
  // each other.
  layOut() {
    const lanes = new Map();
    const open = (tier, subject) => {
      const key = JSON.stringify([tier, subject]);
      if (!lanes.has(key)) lanes.set(key, { tier, subject, rows: [], rowOf: new Map() });
      return lanes.get(key);
    };
    const used = new Set(this.review.events.map((event) => event.tier));
    const several = new Set(this.review.events.map((event) => event.subject)).size > 1;
    for (const { tier } of this.review.labels) if (!several || !used.has(tier)) open(tier, "");
    for (const event of this.review.events) {
      const lane = open(event.tier, several ? event.subject : "");
      let row = lane.rows.findIndex((end) => end <= event.onset);
      if (row < 0) row = lane.rows.push(0) - 1;
      lane.rows[row] = event.offset;
      lane.rowOf.set(event.id, row);
    }
    const rank = this.review.ranks();
    this.lanes = [...lanes.values()].sort(
      (a, b) => rank(a.tier) - rank(b.tier) || a.subject.localeCompare(b.subject),
    );
    this.picture = null;
    const rows = this.lanes.reduce((sum, lane) => sum + Math.max(1, lane.rows.length), 0);
    this.row = rows > MANY_ROWS ? LOW_ROW : ROW;
    let top = RULER;
    this.laneOf = new Map();
    this.lanes.forEach((lane, index) => {
      lane.colour = COLOURS[rank(lane.tier) % COLOURS.length];
      lane.top = top;
      lane.height = Math.max(1, lane.rows.length) * this.row + GAP;
      lane.index = index;
      top += lane.height;
      for (const id of lane.rowOf.keys()) this.laneOf.set(id, lane);
    });
    this.height = top + 2;
    this.longest = this.review.events.reduce(
      (longest, event) => Math.max(longest, event.offset - event.onset),
      0,
    );
  }

  // Asking the browser for a width is slow, and would be done for every event.
  measure() {
    this.full = this.box.clientWidth;
    this.width = Math.max(60, this.full - GUTTER);
  }

  x(time) {
    return GUTTER + ((time - this.start) / this.span) * this.width;
  }

  timeAt(x) {
    return this.start + ((x - GUTTER) / this.width) * this.span;
  }

  // All moves of the view go through here.
  show(start, span) {
    const length = this.review.length * 1.02;
    this.span = Math.min(Math.max(span, NARROWEST), length);
    this.start = Math.min(Math.max(start, 0), Math.max(0, length - this.span));
    this.draw();
  }

  zoom(factor, around = this.start + this.span / 2) {
    const span = Math.min(Math.max(this.span * factor, NARROWEST), this.review.length * 1.02);
    this.show(around - ((around - this.start) / this.span) * span, span);
  }

  pan(share) {
    this.show(this.start + share * this.span, this.span);
  }

  showAll() {
    this.show(0, this.review.length * 1.02);
  }

  reveal(event) {
    const margin = this.span * 0.08;
    if (event.onset < this.start + margin || event.offset > this.start + this.span - margin) {
      this.show((event.onset + event.offset - this.span) / 2, this.span);
    }
    const lane = this.laneOf.get(event.id);
    if (!lane) return;
    if (lane.top - RULER < this.box.scrollTop) this.box.scrollTop = lane.top - RULER;
    const bottom = lane.top + lane.height;
    if (bottom > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = bottom - this.box.clientHeight;
    }
  }

  follow(time) {
    if (time < this.start || time > this.start + this.span * 0.95) {
      this.show(time - this.span * 0.05, this.span);
    } else this.draw();
  }

  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.paint();
      this.paintOverview();
    });
  }

  prepare(canvas, height) {
    const scale = devicePixelRatio || 1;
    const width = this.full;
    const wanted = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== wanted[0] || canvas.height !== wanted[1]) {
      [canvas.width, canvas.height] = wanted;
      canvas.style.height = `${height}px`;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.textBaseline = "middle";
    return pen;
  }

  font(size, weight = "") {
    return `${weight} ${size}px system-ui, "Segoe UI", "DejaVu Sans", sans-serif`.trim();
  }

  paint() {
    const pen = this.prepare(this.canvas, this.height);
    const { colours } = this;
    const right = GUTTER + this.width;
    for (const lane of this.lanes) {
      pen.fillStyle = lane.index % 2 ? colours["lane-other"] : colours.lane;
      pen.fillRect(0, lane.top, right, lane.height);
    }
    const marks = this.marks();
    pen.fillStyle = colours.line;
    for (const { x } of marks) pen.fillRect(x, RULER, 1, this.height);
    pen.save();
    pen.beginPath();
    pen.rect(GUTTER, 0, this.width, this.height);
    pen.clip();
    this.hits = [];
    const selected = this.host.selected();
    const { events } = this.review;
    let chosen = null;
    for (let place = this.firstVisible(); place < events.length; place++) {
      const event = events[place];
      if (event.onset > this.start + this.span) break;
      if (event.offset < this.start) continue;
      if (event.id === selected?.id) chosen = event;
      else this.paintEvent(pen, event, false);
    }
    if (chosen) this.paintEvent(pen, chosen, true);
    pen.restore();
    this.paintNames(pen);
    const top = this.box.scrollTop; // the ruler stays in sight
    this.paintRuler(pen, marks, top);
    const x = this.x(this.host.time());
    if (x >= GUTTER && x <= right) {
      pen.fillStyle = colours.playhead;
      pen.fillRect(x - 1, 0, 2, this.height);
      pen.beginPath();
      pen.moveTo(x - 6, top);
      pen.lineTo(x + 6, top);
      pen.lineTo(x, top + 9);
      pen.fill();
    }
  }

  firstVisible() {
    const wanted = this.start - this.longest;
    let low = 0;
    let high = this.review.events.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.review.events[middle].onset < wanted) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // Round times, some 90 pixels apart.
  marks() {
    const steps = [0.04, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600];
    const wanted = (this.span / this.width) * 90;
    const step = 1000 * (steps.find((one) => one * 1000 >= wanted) ?? 7200);
    const found = [];
    for (let at = Math.ceil(this.start / step) * step; at <= this.start + this.span; at += step) {
      const name = formatTime(at).replace(step >= 1000 ? /\.\d+$/ : /\d$/, "");
      found.push({ x: Math.round(this.x(at)), name });
    }
    return found;
  }

  paintRuler(pen, marks, top) {
    pen.fillStyle = this.colours.paper;
    pen.fillRect(0, top, this.full, RULER);
    pen.font = this.font(11);
    pen.textAlign = "left";
    for (const { x, name } of marks) {
      pen.fillStyle = this.colours.line;
      pen.fillRect(x, top + RULER - 6, 1, 6);
      pen.fillStyle = this.colours.soft;
      pen.fillText(name, x + 3, top + RULER / 2);
    }
  }

  paintNames(pen) {
    pen.fillStyle = this.colours.paper;
    pen.fillRect(0, 0, GUTTER - 2, this.height);
    pen.textAlign = "left";
    for (const lane of this.lanes) {
      pen.fillStyle = lane.index % 2 ? this.colours["lane-other"] : this.colours.lane;
      pen.fillRect(0, lane.top, GUTTER - 2, lane.height);
      pen.fillStyle = lane.colour;
      pen.fillRect(0, lane.top + 2, 5, lane.height - 4);
      pen.fillStyle = this.colours.ink;
      pen.font = this.font(12);
      const name = [lane.tier || "events", lane.subject].filter(Boolean).join(" · ");
      const middle = lane.top + GAP / 2 + this.row / 2;
      const lowest = lane.top + lane.height - this.row / 2;
      const y = Math.min(lowest, Math.max(middle, this.box.scrollTop + RULER + this.row / 2));
      this.fit(pen, name, 11, y, GUTTER - 18);
    }
  }

  fit(pen, text, x, y, width) {
    if (width < 12) return;
    const full = pen.measureText(text).width;
    let shown = full <= width ? text : text.slice(0, Math.floor((text.length * width) / full));
    while (shown !== text && shown && pen.measureText(`${shown}…`).width > width) {
      shown = shown.slice(0, -1);
    }
    if (!shown) return;
    pen.fillText(shown === text ? text : `${shown}…`, x, y);
  }

  // How sure the model is, is how high the box is filled; what was reviewed has a full border and a
  // tick, what was not has a dashed one.
  paintEvent(pen, event, selected) {
    const lane = this.laneOf.get(event.id);
    const left = this.x(event.onset);
    const width = Math.max(2, this.x(event.offset) - left);
    const top = lane.top + GAP / 2 + lane.rowOf.get(event.id) * this.row + 1;
    const height = this.row - 2;
    this.hits.push({ event, left, right: left + width, top, bottom: top + height });
    if (width < 5 && !selected) {
      pen.fillStyle = lane.colour;
      const share = event.reviewed ? 1 : 0.5;
      pen.fillRect(left, top + (height * (1 - share)) / 2, width, height * share);
      return;
    }
    pen.fillStyle = this.colours.paper;
    pen.fillRect(left, top, width, height);
    const sure = event.reviewed || event.confidence === null ? 1 : event.confidence;
    pen.globalAlpha = this.dark ? 0.55 : 0.38;
    pen.fillStyle = lane.colour;
    pen.fillRect(left, top + height * (1 - sure), width, height * sure);
    pen.globalAlpha = 1;
    pen.lineWidth = selected ? 3 : 1.2;
    pen.strokeStyle = selected ? this.colours.ink : this.dark ? this.colours.soft : lane.colour;
    pen.setLineDash(event.reviewed || width < 8 ? [] : selected ? [7, 3] : [4, 3]);
    pen.strokeRect(left + 0.5, top + 0.5, Math.max(1, width - 1), height - 1);
    pen.setLineDash([]);
    if (width > 16) {
      pen.fillStyle = this.colours.ink;
      pen.font = this.font(this.row > LOW_ROW ? 12 : 11, selected ? "600" : "");
      pen.textAlign = "left";
      const text = event.reviewed ? `✓ ${event.label}` : `${event.label} ${percent(event)}`;
      const visible = Math.max(left, GUTTER);
      this.fit(pen, text, visible + 5, top + height / 2 + 0.5, left + width - visible - 9);
    }
  }

  paintOverview() {
    const height = 34;
    const pen = this.prepare(this.overview, height);
    const length = this.review.length * 1.02;
    const width = this.full;
    pen.drawImage(this.pictureOfAll(height, length, width), 0, 0, width, height);
    const left = (this.start / length) * width;
    pen.strokeStyle = this.colours.ink;
    pen.lineWidth = 2;
    pen.strokeRect(left + 1, 1, Math.max(4, (this.span / length) * width - 2), height - 2);
    pen.fillStyle = this.colours.playhead;
    pen.fillRect((this.host.time() / length) * width - 1, 0, 2, height);
  }

  // Drawn again only after a change.
  pictureOfAll(height, length, width) {
    const known = this.picture;
    if (known?.width === this.overview.width && known?.lengthShown === length) return known;
    const picture = document.createElement("canvas");
    picture.width = this.overview.width;
    picture.height = this.overview.height;
    picture.lengthShown = length;
    const pen = picture.getContext("2d");
    pen.scale(picture.width / width, picture.height / height);
    const tall = (height - 8) / Math.max(1, this.lanes.length);
    for (const event of this.review.events) {
      const lane = this.laneOf.get(event.id);
      pen.fillStyle = lane.colour;
      pen.globalAlpha = event.reviewed ? 1 : 0.55;
      const x = (event.onset / length) * width;
      const wide = Math.max(1, ((event.offset - event.onset) / length) * width);
      pen.fillRect(x, 4 + lane.index * tall, wide, Math.max(1, tall - 0.5));
    }
    this.picture = picture;
    return picture;
  }

  // The event at a place, and which of its borders, if any; those of the selected event come first.
  find(x, y) {
    const grip = (hit) => (x - hit.left < hit.right - x ? "onset" : "offset");
    const near = (hit, margin) =>
      x >= hit.left - margin && x <= hit.right + margin && y >= hit.top && y <= hit.bottom;
    const chosen = this.hits.at(-1);
    if (chosen && chosen.event.id === this.host.selected()?.id && near(chosen, GRIP)) {
      const inner = Math.min(GRIP, (chosen.right - chosen.left) / 4);
      const atBorder = x < chosen.left + inner || x > chosen.right - inner;
      return { event: chosen.event, border: atBorder ? grip(chosen) : null };
    }
    const hit = this.hits.findLast((one) => near(one, 1));
    if (!hit) return null;
    const wide = hit.right - hit.left > 4 * GRIP;
    const atBorder = wide && (x < hit.left + GRIP || x > hit.right - GRIP);
    return { event: hit.event, border: atBorder ? grip(hit) : null };
  }

  onRuler(y) {
    return y < this.box.scrollTop + RULER;
  }

  laneAt(y) {
    return this.lanes.find((lane) => y >= lane.top && y < lane.top + lane.height) ?? null;
  }
}
