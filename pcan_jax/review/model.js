// The events under review, every change to them, and the way back.
//
// Times are whole milliseconds. An event without a confidence is a person's; what a person accepts
// or changes is "reviewed", and saved without a confidence.

const SHORTEST = 20;

class Review {
  constructor(data) {
    this.video = data.video;
    this.labels = data.labels;
    this.duration = data.duration;
    this.events = [];
    this.byId = new Map();
    this.past = [];
    this.future = [];
    this.saved = 0;
    this.nextId = 1;
    this.listeners = [];
    for (const event of data.events) {
      this.put({ ...event, id: this.nextId++, reviewed: event.confidence === null });
    }
    this.sort();
  }

  get length() {
    return Math.max(this.duration, ...this.events.slice(-1).map((event) => event.offset), 1000);
  }

  get(id) {
    return this.byId.get(id) ?? null;
  }

  put(event) {
    this.byId.set(event.id, event);
  }

  sort() {
    this.events = [...this.byId.values()].sort(
      (a, b) => a.onset - b.onset || a.offset - b.offset || a.id - b.id,
    );
    this.last = this.events.reduce((last, event) => Math.max(last, event.offset), 0);
  }

  onChange(listener) {
    this.listeners.push(listener);
  }

  // A change is a list of [id, event before or null, event after or null].
  apply(change, direction = 1) {
    for (const [id, before, after] of change.parts) {
      const event = direction > 0 ? after : before;
      if (event) this.put(event);
      else this.byId.delete(id);
    }
    this.sort();
    for (const listener of this.listeners) listener();
  }

  // Changes with the same `merge` that follow each other become one: a drag is undone at once.
  commit(name, parts, merge = null) {
    const last = this.past.at(-1);
    if (merge && last?.merge === merge && !this.future.length && this.past.length !== this.saved) {
      for (const [id, , after] of parts) last.parts.find((part) => part[0] === id)[2] = after;
      this.apply({ parts });
      return;
    }
    const change = { name, parts, merge };
    if (this.saved > this.past.length) this.saved = -1;
    this.past.push(change);
    this.future = [];
    this.apply(change);
  }

  undo() {
    const change = this.past.pop();
    if (!change) return null;
    this.future.push(change);
    this.apply(change, -1);
    return change;
  }

  redo() {
    const change = this.future.pop();
    if (!change) return null;
    this.past.push(change);
    this.apply(change);
    return change;
  }

  get unsaved() {
    return this.past.length !== this.saved;
  }

  change(event, fields, name, merge = null) {
    this.commit(name, [[event.id, event, { ...event, ...fields, reviewed: true }]], merge);
  }

  accept(event) {
    if (!event.reviewed) this.change(event, {}, "accept");
  }

  // The lane follows the label, unless it was the coder's own.
  relabel(event, option) {
    const known = this.labels.some((one) => one.tier === event.tier) || !event.tier;
    const tier = known ? option.tier : event.tier;
    this.change(event, { label: option.label, tier }, "relabel");
  }

  moveBorder(event, border, time, merge = null) {
    const rounded = Math.round(time);
    const fields =
      border === "onset"
        ? { onset: Math.max(0, Math.min(rounded, event.offset - SHORTEST)) }
        : { offset: Math.min(this.limit, Math.max(rounded, event.onset + SHORTEST)) };
    if (Object.entries(fields).every(([key, value]) => event[key] === value)) return;
    this.change(event, fields, `move ${border}`, merge);
  }

  // Where events may end: with the video, if its length is known.
  get limit() {
    return this.duration || Infinity;
  }

  add(option, onset, offset, subject) {
    const end = Math.min(Math.round(offset), this.limit);
    const start = Math.max(0, Math.min(Math.round(onset), end - SHORTEST));
    const event = {
      id: this.nextId++,
      onset: start,
      offset: end,
      label: option.label,
      tier: option.tier,
      subject,
      confidence: null,
      reviewed: true,
    };
    this.commit("new event", [[event.id, null, event]]);
    return event;
  }

  remove(event) {
    this.commit("delete", [[event.id, event, null]]);
  }

  replaceAll(events, name) {
    const parts = this.events.map((event) => [event.id, event, null]);
    for (const event of events) {
      const id = this.nextId++;
      parts.push([id, null, { ...event, id, reviewed: event.confidence === null }]);
      this.know(event);
    }
    this.commit(name, parts);
  }

  // Labels of a loaded file that the label tree does not have can be chosen too.
  know(event) {
    if (!this.labels.some((one) => one.tier === event.tier && one.label === event.label)) {
      this.labels.push({ tier: event.tier, label: event.label });
    }
  }

  // The place of every tier among those of the labels; others come last.
  ranks() {
    const order = [...new Set(this.labels.map((one) => one.tier))];
    return (tier) => (order.includes(tier) ? order.indexOf(tier) : order.length);
  }

  inOrder(unsureFirst, openOnly) {
    const events = openOnly ? this.events.filter((event) => !event.reviewed) : [...this.events];
    if (!unsureFirst) return events;
    return events.sort((a, b) => (a.confidence ?? 2) - (b.confidence ?? 2) || a.onset - b.onset);
  }
}

function formatTime(milliseconds) {
  const total = Math.max(0, Math.round(milliseconds));
  const pad = (value, width = 2) => String(value).padStart(width, "0");
  const hours = Math.floor(total / 3600000);
  const minutes = Math.floor(total / 60000) % 60;
  const rest = `${pad(Math.floor(total / 1000) % 60)}.${pad(total % 1000, 3)}`;
  return hours ? `${hours}:${pad(minutes)}:${rest}` : `${minutes}:${rest}`;
}

// Milliseconds of 75.5, 1:15.5 or 0:01:15.5; null for anything else.
function parseTime(text) {
  const parts = text.trim().replace(",", ".").split(":");
  if (parts.length > 3 || !parts.every((part) => /^\d+(\.\d*)?$/.test(part))) return null;
  return Math.round(1000 * parts.reduce((sum, part) => 60 * sum + Number(part), 0));
}

function percent(event) {
  return event.confidence === null ? "" : `${Math.round(100 * event.confidence)} %`;
}
