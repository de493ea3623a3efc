// Ties everything together: the player, the keys, the buttons.

const element = (id) => document.getElementById(id);
const data = JSON.parse(element("data").textContent);
const review = new Review(data);
const video = element("video");
const FRAME = data.frame;

const state = {
  selectedId: review.events[0]?.id ?? null,
  unsureFirst: false,
  openOnly: false,
  order: [],
  playUntil: null,
  clock: 0, // milliseconds, where there is no video
};

const selected = () => review.get(state.selectedId);
const hasVideo = () => video.readyState > 0;
const now = () => (hasVideo() ? video.currentTime * 1000 : state.clock);

function say(text, wrong = false) {
  element("said").textContent = text;
  element("said").classList.toggle("wrong", wrong);
}

function describe(event) {
  const place = state.order.indexOf(event) + 1;
  const sure = event.reviewed ? "reviewed" : `not reviewed, ${percent(event) || "no"} confidence`;
  const times = `${formatTime(event.onset)} to ${formatTime(event.offset)}`;
  return `${place} of ${state.order.length}: ${event.label}, ${event.tier}, ${times}, ${sure}`;
}

function reorder() {
  state.order = review.inOrder(state.unsureFirst, state.openOnly);
  const event = selected();
  // What was just accepted stays in sight until the next one is chosen.
  if (state.openOnly && event && !state.order.includes(event)) {
    const before = (one) =>
      state.unsureFirst ? (one.confidence ?? 2) < (event.confidence ?? 2) : one.onset < event.onset;
    state.order.splice(state.order.filter(before).length, 0, event);
  }
}

function seek(time) {
  const end = hasVideo() ? video.duration * 1000 : review.length;
  state.clock = Math.max(0, Math.min(time, end));
  state.playUntil = null;
  if (hasVideo()) video.currentTime = state.clock / 1000;
  showClock();
  timeline.draw();
}

function select(id, jump = true, reveal = true) {
  state.selectedId = id;
  if (state.openOnly) reorder();
  const event = selected();
  if (event) {
    if (jump) seek(event.onset);
    if (reveal) timeline.reveal(event);
    list.reveal(event);
    say(describe(event));
  }
  refresh();
}

function step(direction) {
  const { order } = state;
  if (!order.length) return say("There are no events in this list.");
  const place = order.indexOf(selected());
  const next = place < 0 ? 0 : place + direction;
  if (next >= order.length) return say("The last event.");
  if (next < 0) return say("The first event.");
  select(order[next].id);
}

function acceptAndGoOn() {
  const event = selected();
  if (!event) return;
  const place = state.order.indexOf(event);
  const rest = [...state.order.slice(place + 1), ...state.order.slice(0, Math.max(0, place))];
  review.accept(event);
  const next = rest.find((one) => !one.reviewed);
  if (next) select(next.id);
  else say("All events are reviewed.");
}

function remove() {
  const event = selected();
  if (!event) return;
  const place = state.order.indexOf(event);
  const next = state.order[place + 1] ?? state.order[place - 1] ?? null;
  state.selectedId = next?.id ?? null;
  review.remove(event);
  if (next) select(next.id, false);
  say(`Deleted ${event.label} at ${formatTime(event.onset)}. Z brings it back.`);
}

async function relabel() {
  const event = selected();
  if (!event) return;
  const option = await picker.choose(event, event.tier);
  if (!option) return;
  review.relabel(event, option);
  select(event.id, false);
}

async function add(lane = null, time = now()) {
  const event = selected();
  const option = await picker.choose(null, lane?.tier ?? null);
  if (!option) return;
  const subject = lane?.subject || event?.subject || "";
  const created = review.add(option, time, time + 1000, subject);
  select(created.id, false);
}

function moveBorder(border, time, merge = null) {
  const event = selected();
  if (!event) return;
  review.moveBorder(event, border, time, merge);
  say(describe(selected()));
}

function nudge(border, frames) {
  const event = selected();
  if (!event) return;
  const time = event[border] + frames * FRAME;
  moveBorder(border, time, `nudge ${border} ${event.id}`);
  seek(selected()[border]);
}

function playEvent() {
  const event = selected();
  if (!event) return;
  seek(event.onset);
  state.playUntil = event.offset;
  if (hasVideo()) video.play();
}

function togglePlay() {
  state.playUntil = null;
  if (!hasVideo()) return;
  if (video.paused) video.play();
  else video.pause();
}

function back(direction) {
  const change = direction < 0 ? review.undo() : review.redo();
  if (!change) return say(direction < 0 ? "Nothing to undo." : "Nothing to redo.");
  const [id, before, after] = change.parts[0];
  const event = direction < 0 ? before : after;
  if (event) select(id, false);
  else if (!selected()) state.selectedId = review.events[0]?.id ?? null;
  refresh();
  say(`${direction < 0 ? "Undone" : "Done again"}: ${change.name}.`);
}

function save(format) {
  try {
    const name = stem(review.video.name);
    if (format === "csv") download(`${name}.csv`, "text/csv", writeCsv(review));
    else {
      const url = new URL(review.video.url, location.href).href;
      download(`${name}.eaf`, "application/xml", writeEaf(review, url));
    }
    review.saved = review.past.length;
    refresh();
    say(`Saved ${review.events.length} events as ${name}.${format}, among your downloads.`);
  } catch (error) {
    say(`Not saved: ${error.message}`, true);
  }
}

async function load(file) {
  try {
    const text = await file.text();
    const isEaf = /\.eaf$/i.test(file.name) || text.includes("<ANNOTATION_DOCUMENT");
    const events = isEaf ? readEaf(text) : readCsv(text, review.video.name);
    review.replaceAll(events, `load ${file.name}`);
    state.selectedId = review.events[0]?.id ?? null;
    reorder();
    if (selected()) select(state.selectedId);
    say(`Loaded ${events.length} events of ${file.name}. Z brings the former ones back.`);
  } catch (error) {
    say(`${file.name} was not loaded: ${error.message}`, true);
  }
}

function download(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function showClock() {
  const length = hasVideo() ? video.duration * 1000 : review.length;
  element("clock").textContent = `${formatTime(now())} / ${formatTime(length)}`;
}

function showDetail() {
  const event = selected();
  for (const id of ["label", "onset", "offset", "accept", "delete", "play-event"]) {
    element(id).disabled = !event;
  }
  element("label").textContent = event ? event.label : "No event";
  const where = event ? [event.tier, event.subject] : [];
  element("where").textContent = where.filter(Boolean).join(" · ");
  for (const border of ["onset", "offset"]) {
    if (document.activeElement !== element(border)) {
      element(border).value = event ? formatTime(event[border]) : "";
    }
  }
  const sure = !event ? "" : event.reviewed ? "✓ reviewed" : `? ${percent(event)} confidence`;
  element("sure").textContent = sure;
}

function refresh() {
  timeline.draw();
  list.draw();
  showDetail();
  showClock();
  const done = review.events.filter((event) => event.reviewed).length;
  const total = review.events.length;
  element("reviewed").max = Math.max(1, total);
  element("reviewed").value = done;
  const unsaved = review.unsaved ? " · not saved" : "";
  element("count").textContent = `${done} of ${total} reviewed${unsaved}`;
  element("undo").disabled = !review.past.length;
  element("redo").disabled = !review.future.length;
}

const timeline = new Timeline(review, {
  selected,
  time: now,
  select,
  seek,
  add,
  drag: (id, border, time, merge) => {
    state.selectedId = id;
    moveBorder(border, time, merge);
    seek(selected()[border]);
  },
});
const list = new EventList({ order: () => state.order, selected, select });
const picker = new Picker(review);

function onTimeInput(border) {
  const input = element(border);
  const time = parseTime(input.value);
  if (time === null) {
    input.setAttribute("aria-invalid", "true");
    say(`'${input.value}' is not a time such as 1:02.500.`, true);
    return;
  }
  input.removeAttribute("aria-invalid");
  moveBorder(border, time);
  input.value = formatTime(selected()[border]);
}

function showNoVideo() {
  element("no-video").hidden = false;
  element("no-video-text").textContent =
    `This browser cannot play ${review.video.name}: it was moved, or has a format that browsers ` +
    "do not play (MP4 with H.264 and WebM are safe). Everything but the player works without it.";
}

// A recording of hours opens at its first minute: everything at once would be dust.
function showBeginning() {
  timeline.show(0, Math.min(review.length * 1.02, 60000));
}

function wire() {
  const on = (id, type, listener) => element(id).addEventListener(type, listener);
  on("play", "click", togglePlay);
  on("play-event", "click", playEvent);
  on("speed", "change", () => (video.playbackRate = Number(element("speed").value)));
  on("label", "click", relabel);
  on("accept", "click", acceptAndGoOn);
  on("delete", "click", remove);
  on("previous", "click", () => step(-1));
  on("next", "click", () => step(1));
  on("add", "click", () => add());
  on("undo", "click", () => back(-1));
  on("redo", "click", () => back(1));
  on("save-csv", "click", () => save("csv"));
  on("save-eaf", "click", () => save("eaf"));
  on("open", "click", () => element("file").click());
  on("show-help", "click", showHelp);
  on("detail", "submit", (submit) => submit.preventDefault());
  on("file", "change", () => {
    const [file] = element("file").files;
    if (file) load(file);
    element("file").value = "";
  });
  on("choose-video", "click", () => element("video-file").click());
  on("video-file", "change", () => {
    const [file] = element("video-file").files;
    if (file) video.src = URL.createObjectURL(file);
  });
  for (const border of ["onset", "offset"]) {
    on(border, "change", () => onTimeInput(border));
    on(border, "keydown", (key) => {
      if (key.key !== "Escape" && key.key !== "Enter") return;
      element(border).blur();
      key.preventDefault();
    });
    on(border, "focus", () => element(border).select());
    on(border, "blur", showDetail);
  }
  for (const [id, field] of [["unsure", "unsureFirst"], ["open-only", "openOnly"]]) {
    on(id, "change", () => {
      state[field] = element(id).checked;
      reorder();
      const first = state.order.find((event) => !event.reviewed) ?? state.order[0];
      if (id === "unsure" && state.unsureFirst && first) select(first.id);
      else refresh();
    });
  }
  document.addEventListener("keydown", onKey);
  // After a click, Space and Enter are for the events again, and not for the button.
  document.addEventListener("click", (click) => {
    const pressed = click.target.closest("button, input[type=checkbox], label");
    if (click.detail && pressed && !pressed.closest("dialog")) document.activeElement.blur();
  });
  addEventListener("beforeunload", (leave) => review.unsaved && leave.preventDefault());
  review.onChange(() => {
    timeline.layOut();
    reorder();
    refresh();
  });
  video.addEventListener("error", showNoVideo);
  video.addEventListener("loadedmetadata", () => {
    element("no-video").hidden = true;
    if (Number.isFinite(video.duration)) review.duration = Math.round(video.duration * 1000);
    showBeginning();
    if (selected()) seek(selected().onset);
    refresh();
  });
  for (const type of ["play", "pause"]) {
    video.addEventListener(type, () => {
      element("play").textContent = video.paused ? "Play" : "Pause";
      if (!video.paused) requestAnimationFrame(tick);
    });
  }
  video.addEventListener("seeked", () => {
    showClock();
    timeline.draw();
  });
  video.addEventListener("click", togglePlay);
}

function tick() {
  if (state.playUntil !== null && now() >= state.playUntil) {
    video.pause();
    state.playUntil = null;
  }
  showClock();
  timeline.follow(now());
  if (!video.paused) requestAnimationFrame(tick);
}

fillHelp();
wire();
video.src = review.video.url;
reorder();
showBeginning();
if (selected()) say(describe(selected()));
refresh();
