// What the mouse, a pen or a finger does on the timeline.

function listenToPointer(timeline) {
  const { host, canvas, overview } = timeline;
  let drag = null;
  canvas.addEventListener("pointerdown", (pointer) => {
    if (pointer.button !== 0 || pointer.offsetX < GUTTER) return;
    const { offsetX: x, offsetY: y } = pointer;
    const ruler = timeline.onRuler(y);
    const found = ruler ? null : timeline.find(x, y);
    pointer.preventDefault();
    canvas.setPointerCapture(pointer.pointerId);
    drag = { x, y, start: timeline.start, moved: false, ruler, ...found };
    // The view must not move under a border that is dragged.
    if (found) host.select(found.event.id, found.border === null, found.border === null);
    if (drag.ruler) host.seek(timeline.timeAt(x));
    if (drag.border) drag.merge = `drag ${performance.now()}`;
  });
  canvas.addEventListener("pointermove", (pointer) => {
    const { offsetX: x, offsetY: y } = pointer;
    if (!drag) {
      const found = x < GUTTER || timeline.onRuler(y) ? null : timeline.find(x, y);
      canvas.style.cursor = found?.border ? "ew-resize" : found ? "pointer" : "default";
      return;
    }
    if (Math.abs(x - drag.x) > 3) drag.moved = true;
    if (drag.ruler) host.seek(timeline.timeAt(x));
    else if (drag.border && drag.moved) {
      host.drag(drag.event.id, drag.border, timeline.timeAt(x), drag.merge);
    } else if (!drag.event && drag.moved) {
      timeline.show(drag.start - ((x - drag.x) / timeline.width) * timeline.span, timeline.span);
    }
  });
  const end = () => {
    if (drag && !drag.event && !drag.moved && !drag.ruler) host.seek(timeline.timeAt(drag.x));
    drag = null;
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", () => (drag = null));
  canvas.addEventListener("dblclick", (pointer) => {
    const { offsetX: x, offsetY: y } = pointer;
    if (x < GUTTER || timeline.onRuler(y) || timeline.find(x, y)) return;
    host.add(timeline.laneAt(y), timeline.timeAt(x));
  });
  canvas.addEventListener(
    "wheel",
    (wheel) => {
      if (wheel.offsetX < GUTTER && !wheel.shiftKey) return; // scrolls the lanes
      wheel.preventDefault();
      const sideways = wheel.shiftKey ? wheel.deltaY : wheel.deltaX;
      if (wheel.shiftKey || Math.abs(wheel.deltaX) > Math.abs(wheel.deltaY)) {
        timeline.pan(sideways / timeline.width);
      } else {
        const around = timeline.timeAt(Math.max(GUTTER, wheel.offsetX));
        timeline.zoom(Math.exp(wheel.deltaY / 400), around);
      }
    },
    { passive: false },
  );
  let sliding = false;
  const slide = (pointer) => {
    const time = (pointer.offsetX / timeline.full) * timeline.review.length * 1.02;
    timeline.show(time - timeline.span / 2, timeline.span);
  };
  overview.addEventListener("pointerdown", (pointer) => {
    sliding = true;
    overview.setPointerCapture(pointer.pointerId);
    slide(pointer);
  });
  overview.addEventListener("pointermove", (pointer) => sliding && slide(pointer));
  overview.addEventListener("pointerup", () => (sliding = false));
}
