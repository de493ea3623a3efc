// Reviewed events as CSV, and back.

const COLUMNS = ["video", "start", "end", "label", "tier", "subject", "confidence"];

function stem(name) {
  return name.replace(/\.[^.]*$/, "") || name;
}

function writeCsv(review) {
  const needsQuotes = /[",\r\n]|^\s|\s$/;
  const cell = (value) =>
    needsQuotes.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  const rows = review.events.map((event) => [
    review.video.name,
    (event.onset / 1000).toFixed(3),
    (event.offset / 1000).toFixed(3),
    event.label,
    event.tier,
    event.subject,
    event.reviewed || event.confidence === null ? "" : event.confidence.toFixed(4),
  ]);
  return [COLUMNS, ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}

function parseCsv(text) {
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  const body = text.replace(/^\ufeff/, "");
  const first = body.split(/\r?\n/, 1)[0];
  const delimiter = [",", ";", "\t"].reduce((best, one) =>
    first.split(one).length > first.split(best).length ? one : best,
  );
  for (let place = 0; place < body.length; place++) {
    const char = body[place];
    if (quoted) {
      if (char !== '"') cell += char;
      else if (body[place + 1] === '"') cell += body[++place];
      else quoted = false;
    } else if (char === '"' && !cell) quoted = true;
    else if (char === delimiter || char === "\n") {
      row.push(cell);
      cell = "";
      if (char === "\n") {
        rows.push(row);
        row = [];
      }
    } else if (char !== "\r") cell += char;
  }
  if (quoted) throw new Error("a quotation mark is not closed");
  if (cell || row.length) rows.push([...row, cell]);
  return rows.filter((one) => one.some((value) => value.trim()));
}

function checked(event, where) {
  if (event.onset === null || event.offset === null) throw new Error(`${where}: a time is missing`);
  if (event.offset <= event.onset) throw new Error(`${where}: it ends before it starts`);
  if (!event.label) throw new Error(`${where}: there is no label`);
  const sure = event.confidence;
  if (sure !== null && !(sure >= 0 && sure <= 1)) throw new Error(`${where}: confidence ${sure}`);
  return event;
}

function readCsv(text, videoName) {
  const [header = [], ...rows] = parseCsv(text);
  const place = Object.fromEntries(header.map((name, index) => [name.trim().toLowerCase(), index]));
  for (const name of COLUMNS.slice(0, 4)) {
    if (!(name in place)) throw new Error(`there is no column '${name}'`);
  }
  const events = [];
  rows.forEach((row, index) => {
    const cell = (name) => (row[place[name]] ?? "").trim();
    const file = cell("video").split(/[\\/]/).at(-1);
    if (stem(file) !== stem(videoName)) return;
    events.push(
      checked(
        {
          onset: parseTime(cell("start")),
          offset: parseTime(cell("end")),
          label: cell("label"),
          tier: cell("tier"),
          subject: cell("subject"),
          confidence: cell("confidence") === "" ? null : Number(cell("confidence")),
        },
        `row ${index + 2}`,
      ),
    );
  });
  if (rows.length && !events.length) throw new Error(`it has no events of ${videoName}`);
  return events;
}
