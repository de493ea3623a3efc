// Reviewed events as CSV and as ELAN's EAF, and back.

const COLUMNS = ["video", "start", "end", "label", "tier", "subject", "confidence"];
const CONFIDENCE_TYPE = "pcan_confidence";

function stem(name) {
  return name.replace(/\.[^.]*$/, "") || name;
}

function writeCsv(review) {
  const cell = (value) => (/[",\r\n]|^\s|\s$/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
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

// A tier of ELAN cannot hold events that overlap: those go to TIER (2), TIER (3) and so on.
function elanTiers(review) {
  const tiers = new Map();
  const lanesOf = (tier, subject) => {
    const key = JSON.stringify([tier, subject]);
    if (!tiers.has(key)) tiers.set(key, { tier, subject, lanes: [] });
    return tiers.get(key).lanes;
  };
  for (const event of review.events) {
    const lanes = lanesOf(event.tier || "events", event.subject);
    const free = lanes.find((lane) => lane.at(-1).offset <= event.onset);
    if (free) free.push(event);
    else lanes.push([event]);
  }
  const used = new Set([...tiers.values()].map((one) => one.tier));
  for (const { tier } of review.labels) if (tier && !used.has(tier)) lanesOf(tier, "");
  const order = [...new Set(review.labels.map((one) => one.tier))];
  const rank = ({ tier }) => (order.includes(tier) ? order.indexOf(tier) : order.length);
  const sorted = [...tiers.values()].sort((a, b) => rank(a) - rank(b));
  const names = new Set();
  return sorted.flatMap(({ tier, subject, lanes }) =>
    (lanes.length ? lanes : [[]]).map((events) => {
      const suffix = subject ? `@${subject}` : "";
      let name = tier + suffix;
      for (let number = 2; names.has(name); number++) name = `${tier} (${number})${suffix}`;
      names.add(name);
      return { name, tier, subject, events };
    }),
  );
}

// ELAN does not escape the names of files; only what would be read as an escape has to be.
function asElanWritesIt(name) {
  return name.replace(/%(?=[0-9a-f]{2})/gi, "%25");
}

function writeEaf(review, mediaUrl) {
  const tiers = elanTiers(review);
  for (const text of tiers.flatMap(({ name, events }) => [name, ...events.map((one) => one.label)])) {
    // XML 1.0 has no way to write these.
    if (/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u.test(text)) {
      throw new Error(`EAF cannot hold a character of '${text}'; save as CSV`);
    }
  }
  const escape = (text) =>
    String(text)
      .replaceAll("&", "&amp;")
      .replaceAll("<", "&lt;")
      .replaceAll(">", "&gt;")
      .replaceAll('"', "&quot;")
      .replace(/[\t\n\r]/g, (char) => `&#${char.charCodeAt(0)};`);
  const element = (name, attributes, ...children) => {
    const given = Object.entries(attributes)
      .filter(([, value]) => value !== null)
      .map(([key, value]) => ` ${key}="${escape(value)}"`)
      .join("");
    return children.length ? `<${name}${given}>${children.join("")}</${name}>\n` : `<${name}${given}/>\n`;
  };

  const times = [];
  const slot = (time) => `ts${times.push(time)}`;
  let count = 0;
  const written = tiers.map(({ name, tier, subject, events }) => {
    const surely = [];
    const annotations = events.map((event) => {
      const id = `a${++count}`;
      if (!event.reviewed && event.confidence !== null) surely.push([id, event.confidence]);
      const place = {
        ANNOTATION_ID: id,
        TIME_SLOT_REF1: slot(event.onset),
        TIME_SLOT_REF2: slot(event.offset),
      };
      const value = `<ANNOTATION_VALUE>${escape(event.label)}</ANNOTATION_VALUE>`;
      return element("ANNOTATION", {}, element("ALIGNABLE_ANNOTATION", place, value));
    });
    const attributes = {
      LINGUISTIC_TYPE_REF: tier,
      TIER_ID: name,
      PARTICIPANT: subject || null,
    };
    return { name, attributes, annotations, surely };
  });
  // ELAN wants the slots in the order of time.
  const order = times.map((time, index) => [time, index]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const renamed = new Map(order.map(([, index], place) => [`ts${index + 1}`, `ts${place + 1}`]));
  const rename = (text) => text.replace(/(TIME_SLOT_REF[12])="(ts\d+)"/g, (_, key, id) => `${key}="${renamed.get(id)}"`);
  const slots = order.map(([time], place) =>
    element("TIME_SLOT", { TIME_SLOT_ID: `ts${place + 1}`, TIME_VALUE: time }),
  );
  const tierElements = written.flatMap(({ name, attributes, annotations, surely }) => {
    const found = [element("TIER", attributes, ...annotations.map(rename))];
    if (surely.length) {
      const child = {
        LINGUISTIC_TYPE_REF: CONFIDENCE_TYPE,
        PARENT_REF: name,
        TIER_ID: `${name} confidence`,
      };
      const values = surely.map(([id, confidence]) => {
        const reference = { ANNOTATION_ID: `a${++count}`, ANNOTATION_REF: id };
        const value = `<ANNOTATION_VALUE>${confidence.toFixed(3)}</ANNOTATION_VALUE>`;
        return element("ANNOTATION", {}, element("REF_ANNOTATION", reference, value));
      });
      found.push(element("TIER", child, ...values));
    }
    return found;
  });

  const vocabularies = new Map();
  for (const { tier, events } of tiers) {
    if (!vocabularies.has(tier)) {
      const labels = review.labels.filter((one) => one.tier === tier).map((one) => one.label);
      vocabularies.set(tier, new Set(labels));
    }
    for (const event of events) vocabularies.get(tier).add(event.label);
  }
  const types = [...vocabularies.keys()].map((tier) =>
    element("LINGUISTIC_TYPE", {
      CONTROLLED_VOCABULARY_REF: tier,
      GRAPHIC_REFERENCES: "false",
      LINGUISTIC_TYPE_ID: tier,
      TIME_ALIGNABLE: "true",
    }),
  );
  types.push(
    element("LINGUISTIC_TYPE", {
      CONSTRAINTS: "Symbolic_Association",
      GRAPHIC_REFERENCES: "false",
      LINGUISTIC_TYPE_ID: CONFIDENCE_TYPE,
      TIME_ALIGNABLE: "false",
    }),
  );
  const dictionaries = [...vocabularies].map(([tier, labels]) =>
    element(
      "CONTROLLED_VOCABULARY",
      { CV_ID: tier },
      element("DESCRIPTION", { LANG_REF: "und" }),
      ...[...labels].map((label, index) =>
        element(
          "CV_ENTRY_ML",
          { CVE_ID: `cveid${index}` },
          element("CVE_VALUE", { LANG_REF: "und" }, escape(label)),
        ),
      ),
    ),
  );
  const document = element(
    "ANNOTATION_DOCUMENT",
    {
      AUTHOR: "",
      DATE: new Date().toISOString().replace("Z", "+00:00"),
      FORMAT: "3.0",
      VERSION: "3.0",
      "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
      "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
    },
    element(
      "HEADER",
      { MEDIA_FILE: "", TIME_UNITS: "milliseconds" },
      element("MEDIA_DESCRIPTOR", {
        MEDIA_URL: asElanWritesIt(decodeURIComponent(mediaUrl)),
        MIME_TYPE: review.video.type,
        RELATIVE_MEDIA_URL: `./${asElanWritesIt(review.video.name)}`,
      }),
    ),
    element("TIME_ORDER", {}, ...slots),
    ...tierElements,
    ...types,
    element("LANGUAGE", {
      LANG_DEF: "http://cdb.iso.org/lg/CDB-00130975-001",
      LANG_ID: "und",
      LANG_LABEL: "undetermined (und)",
    }),
    element("CONSTRAINT", {
      DESCRIPTION: "1-1 association with a parent annotation",
      STEREOTYPE: "Symbolic_Association",
    }),
    ...dictionaries,
  );
  return `<?xml version="1.0" encoding="UTF-8"?>\n${document}`;
}

// Annotations between aligned ones are spaced evenly, as ELAN shows them: only borders have slots
// without a time, and the end of one is the start of the next.
function placeBetween(annotations, slots) {
  let known = null;
  let waiting = [];
  for (const one of annotations) {
    for (const name of ["TIME_SLOT_REF1", "TIME_SLOT_REF2"]) {
      const slot = one.getAttribute(name);
      const time = slots.get(slot) ?? null;
      if (time === null) {
        if (name === "TIME_SLOT_REF1" && waiting.length) waiting.at(-1).push(slot);
        else waiting.push([slot]);
        continue;
      }
      waiting.forEach((group, place) => {
        const share = (place + 1) / (waiting.length + 1);
        if (known !== null) {
          for (const each of group) slots.set(each, Math.round(known + share * (time - known)));
        }
      });
      known = time;
      waiting = [];
    }
  }
}

function readEaf(text) {
  const parsed = new DOMParser().parseFromString(text, "text/xml");
  const root = parsed.documentElement;
  if (root.nodeName !== "ANNOTATION_DOCUMENT") throw new Error("it is not an ELAN document");
  const origin = Number(root.querySelector("MEDIA_DESCRIPTOR")?.getAttribute("TIME_ORIGIN") ?? 0);
  const slots = new Map();
  for (const slot of root.querySelectorAll("TIME_ORDER > TIME_SLOT")) {
    const value = slot.getAttribute("TIME_VALUE");
    slots.set(slot.getAttribute("TIME_SLOT_ID"), value === null ? null : Number(value) + origin);
  }
  const sure = new Map();
  for (const one of root.querySelectorAll(`TIER[LINGUISTIC_TYPE_REF="${CONFIDENCE_TYPE}"] REF_ANNOTATION`)) {
    sure.set(one.getAttribute("ANNOTATION_REF"), Number(one.textContent));
  }
  const events = [];
  for (const tier of root.querySelectorAll("TIER")) {
    const subject = (tier.getAttribute("PARTICIPANT") ?? "").trim();
    let name = tier.getAttribute("TIER_ID");
    if (subject && name.endsWith(`@${subject}`)) name = name.slice(0, -subject.length - 1);
    const kind = tier.getAttribute("LINGUISTIC_TYPE_REF");
    if (name.replace(/ \(\d+\)$/, "") === kind) name = kind;
    const annotations = [...tier.querySelectorAll("ALIGNABLE_ANNOTATION")];
    placeBetween(annotations, slots);
    for (const one of annotations) {
      const label = (one.querySelector("ANNOTATION_VALUE")?.textContent ?? "").trim();
      if (!label) continue;
      const event = {
        onset: slots.get(one.getAttribute("TIME_SLOT_REF1")) ?? null,
        offset: slots.get(one.getAttribute("TIME_SLOT_REF2")) ?? null,
        label,
        tier: name,
        subject,
        confidence: sure.get(one.getAttribute("ANNOTATION_ID")) ?? null,
      };
      events.push(checked(event, `'${label}' in ${name}`));
    }
  }
  return events;
}

function download(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
