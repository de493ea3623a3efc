// Reviewed events as a document of ELAN, and back.

const CONFIDENCE_TYPE = "pcan_confidence";

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
  const rank = review.ranks();
  const sorted = [...tiers.values()].sort((a, b) => rank(a.tier) - rank(b.tier));
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
  const texts = tiers.flatMap(({ name, events }) => [name, ...events.map((one) => one.label)]);
  for (const text of texts) {
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
    if (!children.length) return `<${name}${given}/>\n`;
    return `<${name}${given}>${children.join("")}</${name}>\n`;
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
  const order = times
    .map((time, index) => [time, index])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const renamed = new Map(order.map(([, index], place) => [`ts${index + 1}`, `ts${place + 1}`]));
  const references = /(TIME_SLOT_REF[12])="(ts\d+)"/g;
  const rename = (text) =>
    text.replace(references, (_, key, id) => `${key}="${renamed.get(id)}"`);
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
  const ofConfidence = `TIER[LINGUISTIC_TYPE_REF="${CONFIDENCE_TYPE}"] REF_ANNOTATION`;
  for (const one of root.querySelectorAll(ofConfidence)) {
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
