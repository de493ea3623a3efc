// What is not the timeline: the list of events, the chosen event, the choice of a label.

const ROW_HEIGHT = 28;

// Only the rows in view exist.
class EventList {
  constructor(host) {
    this.host = host; // { order(), selected(), select(id) }
    this.box = document.getElementById("list");
    this.rows = document.getElementById("rows");
    this.box.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.rows.addEventListener("click", (click) => {
      const row = click.target.closest(".event");
      if (row) this.host.select(Number(row.dataset.id));
    });
  }

  draw() {
    const order = this.host.order();
    const selected = this.host.selected();
    this.rows.style.height = `${order.length * ROW_HEIGHT}px`;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_HEIGHT) - 4);
    const count = Math.ceil(this.box.clientHeight / ROW_HEIGHT) + 8;
    const visible = order.slice(first, first + count);
    this.rows.replaceChildren(
      ...visible.map((event, index) => this.row(event, first + index, order.length, selected)),
    );
    const active = visible.includes(selected) ? `event-${selected.id}` : null;
    if (active) this.box.setAttribute("aria-activedescendant", active);
    else this.box.removeAttribute("aria-activedescendant");
  }

  row(event, place, total, selected) {
    const row = document.createElement("div");
    row.className = "event";
    row.id = `event-${event.id}`;
    row.dataset.id = event.id;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(event === selected));
    row.setAttribute("aria-posinset", place + 1);
    row.setAttribute("aria-setsize", total);
    row.style.top = `${place * ROW_HEIGHT}px`;
    const cells = [
      ["mark", event.reviewed ? "✓" : "?"],
      ["from", formatTime(event.onset)],
      ["name", event.label],
      ["tier", event.tier],
      ["sure", event.reviewed ? "" : percent(event)],
    ];
    for (const [name, text] of cells) {
      const cell = document.createElement("span");
      cell.className = name;
      cell.textContent = text;
      if (name === "mark") cell.ariaLabel = event.reviewed ? "reviewed" : "not reviewed";
      if (name === "name") cell.title = text;
      row.append(cell);
    }
    return row;
  }

  reveal(event) {
    const place = this.host.order().indexOf(event);
    if (place < 0) return;
    // Two more rows stay in sight on either side.
    const top = place * ROW_HEIGHT;
    const highest = top - 2 * ROW_HEIGHT;
    const lowest = top + 3 * ROW_HEIGHT - this.box.clientHeight;
    if (this.box.scrollTop > highest) this.box.scrollTop = highest;
    else if (this.box.scrollTop < lowest) this.box.scrollTop = lowest;
  }
}

// A dialog in which a label is found by typing: arrows choose, Enter takes, Escape leaves.
class Picker {
  constructor(review) {
    this.review = review;
    this.dialog = document.getElementById("picker");
    this.filter = document.getElementById("filter");
    this.options = document.getElementById("options");
    this.filter.addEventListener("input", () => this.fill());
    this.filter.addEventListener("keydown", (key) => this.key(key));
    this.options.addEventListener("click", (click) => {
      const option = click.target.closest("[role=option]");
      if (option) this.take(this.shown[Number(option.dataset.place)]);
    });
    this.dialog.addEventListener("close", () => this.finish(null));
  }

  // A promise of the chosen label, or of null.
  choose(current, tier) {
    this.current = current;
    this.tier = tier;
    this.filter.value = "";
    this.fill();
    this.dialog.showModal();
    this.mark(this.place);
    this.filter.focus();
    return new Promise((resolve) => (this.finish = resolve));
  }

  fill() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = ({ label, tier }) =>
      words.every((word) => `${label} ${tier}`.toLowerCase().includes(word));
    const order = [...new Set(this.review.labels.map((one) => one.tier))];
    if (this.tier !== null) order.sort((a, b) => (b === this.tier) - (a === this.tier));
    this.shown = this.review.labels
      .filter(matches)
      .sort((a, b) => order.indexOf(a.tier) - order.indexOf(b.tier));
    const elements = [];
    this.shown.forEach((one, place) => {
      if (one.tier !== this.shown[place - 1]?.tier) {
        const group = document.createElement("div");
        group.className = "group";
        group.role = "presentation";
        group.textContent = one.tier;
        elements.push(group);
      }
      const option = document.createElement("div");
      option.id = `option-${place}`;
      option.setAttribute("role", "option");
      option.dataset.place = place;
      option.textContent = one.label;
      elements.push(option);
    });
    if (!elements.length) {
      const none = document.createElement("div");
      none.className = "group";
      none.textContent = "No label has these letters.";
      elements.push(none);
    }
    this.options.replaceChildren(...elements);
    const now = this.shown.findIndex(
      (one) => one.label === this.current?.label && one.tier === this.current?.tier,
    );
    this.mark(words.length || now < 0 ? 0 : now);
  }

  mark(place) {
    this.place = place;
    for (const option of this.options.querySelectorAll("[role=option]")) {
      const chosen = Number(option.dataset.place) === place;
      option.setAttribute("aria-selected", String(chosen));
      if (chosen) {
        option.scrollIntoView({ block: "nearest" });
        this.filter.setAttribute("aria-activedescendant", option.id);
      }
    }
  }

  key(key) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[key.key];
    if (step) this.mark(Math.max(0, Math.min(this.shown.length - 1, this.place + step)));
    else if (key.key === "Enter") this.take(this.shown[this.place]);
    else return;
    key.preventDefault();
  }

  take(option) {
    if (!option) return;
    this.finish(option); // at once: the next key is for what was chosen
    this.dialog.close();
  }
}
