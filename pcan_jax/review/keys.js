// The keys, and the help that lists them.

// A key, what the help says of it, what it does, how the help writes it.
const KEYS = [
  ["Space", "Play or pause", togglePlay],
  ["P", "Play the event", playEvent],
  ["ArrowLeft", "A frame back", () => seek(now() - FRAME), "←"],
  ["ArrowRight", "A frame on", () => seek(now() + FRAME), "→"],
  ["Shift+ArrowLeft", "A second back", () => seek(now() - 1000), "Shift ←"],
  ["Shift+ArrowRight", "A second on", () => seek(now() + 1000), "Shift →"],
  ["J", "Next event", () => step(1), "J or ↓"],
  ["K", "Previous event", () => step(-1), "K or ↑"],
  ["Enter", "Accept, go to the next that is not reviewed", acceptAndGoOn],
  ["L", "Change the label", relabel],
  ["N", "New event here", () => add()],
  ["X", "Delete the event", remove, "X or Delete"],
  ["I", "Let the event start here", () => moveBorder("onset", now())],
  ["O", "Let the event end here", () => moveBorder("offset", now())],
  ["A", "Start a frame earlier", () => nudge("onset", -1)],
  ["S", "Start a frame later", () => nudge("onset", 1)],
  ["D", "End a frame earlier", () => nudge("offset", -1)],
  ["F", "End a frame later", () => nudge("offset", 1)],
  ["U", "Unsure events first, or by time", () => element("unsure").click()],
  ["Z", "Undo", () => back(-1), "Z or Ctrl Z"],
  ["Shift+Z", "Redo", () => back(1), "Shift Z"],
  ["+", "Zoom in", () => timeline.zoom(0.6, centre())],
  ["-", "Zoom out", () => timeline.zoom(1 / 0.6, centre())],
  ["0", "Show everything", () => timeline.showAll()],
  ["PageUp", "Timeline back", () => timeline.pan(-0.8)],
  ["PageDown", "Timeline on", () => timeline.pan(0.8)],
  ["?", "These keys", showHelp, "? or H"],
];
const SAME = {
  " ": "Space",
  ArrowDown: "J",
  ArrowUp: "K",
  Delete: "X",
  Backspace: "X",
  "Ctrl+Z": "Z",
  "Ctrl+Shift+Z": "Shift+Z",
  "Ctrl+Y": "Shift+Z",
  H: "?",
  "Shift+?": "?",
  "Shift++": "+",
  "=": "+",
};

// Zooming keeps the playhead or the chosen event where it is, if it is in view.
function centre() {
  const inView = (time) => time >= timeline.start && time <= timeline.start + timeline.span;
  const event = selected();
  if (event && inView(event.onset)) {
    return (event.onset + Math.min(event.offset, timeline.start + timeline.span)) / 2;
  }
  return inView(now()) ? now() : timeline.start + timeline.span / 2;
}

function onKey(key) {
  if (document.querySelector("dialog[open]") || key.altKey || key.metaKey) return;
  const { target } = key;
  const writing = target.matches("input:not([type=checkbox]), select, textarea");
  if (writing) return;
  const isPressed = target.matches("button, input[type=checkbox]");
  if (isPressed && [" ", "Enter"].includes(key.key)) return;
  const letter = key.key.length === 1 ? key.key.toUpperCase() : key.key;
  const name = `${key.ctrlKey ? "Ctrl+" : ""}${key.shiftKey ? "Shift+" : ""}${letter}`;
  const wanted = SAME[name] ?? name;
  const frames = { "Shift+A": -10, "Shift+S": 10, "Shift+D": -10, "Shift+F": 10 }[name];
  const found = KEYS.find(([one]) => one === wanted);
  if (frames) nudge("AS".includes(letter) ? "onset" : "offset", frames);
  else if (found) found[2]();
  else return;
  key.preventDefault();
}

function showHelp() {
  element("help").showModal();
}

function fillHelp() {
  const rows = KEYS.map(([key, text, , shown]) => {
    const row = document.createElement("tr");
    const cell = row.insertCell();
    for (const part of (shown ?? key).split(" ")) {
      if (part === "or") cell.append(" or ");
      else {
        const one = document.createElement("kbd");
        one.textContent = part;
        cell.append(one, " ");
      }
    }
    row.insertCell().textContent = text;
    return row;
  });
  element("keys").replaceChildren(...rows);
}
