"use strict";
// The map: regl-scatterplot draws, zooms, hovers and lassoes; the keyboard and fingers are ours.

// viridis, from far to near
const RAMP = [
  "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c",
  "#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725",
];

class PointMap {
  constructor(canvas, atlas, tell) {
    Object.assign(this, { canvas, atlas, tell, map: null, shown: null, at: -1 });
    this.plot = createScatterplot({
      canvas, pointSize: atlas.count > 5000 ? 3.5 : 7, pointSizeSelected: 3, opacity: 0.85,
      lassoColor: [0.3, 0.6, 1, 1], lassoMinDist: 3, backgroundColor: this.ground(), deselectOnEscape: false,
    });
    this.plot.subscribe("pointOver", (index) => this.tell.over(index));
    this.plot.subscribe("pointOut", () => this.tell.out());
    this.plot.subscribe("select", ({ points }) => this.tell.select([...points]));
    this.plot.subscribe("deselect", () => this.tell.select([]));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
      this.plot.set({ backgroundColor: this.ground() }));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.tell.out());
    this.fingers();
  }

  ground() { return getComputedStyle(document.documentElement).getPropertyValue("--page").trim(); }

  // Draw `map` with the points coloured by a column of classes, or by a phrase's similarities.
  draw(map, colour) {
    const moved = this.map && this.map !== map, similar = "low" in colour;
    const value = similar ? Float32Array.from(colour.values, (v) => v / 255) : Float32Array.from(colour.codes);
    const colours = similar ? RAMP : colour.colours;
    this.plot.set({ colorBy: "valueA", pointColor: colours.length > 1 ? colours : [...colours, ...colours] });
    const options = {
      transition: moved, transitionDuration: matchMedia("(prefers-reduced-motion: reduce)").matches ? 1 : 600,
      zDataType: similar ? "continuous" : "categorical", preventFilterReset: true,
    };
    if (this.map === map) options.spatialIndex = this.plot.get("spatialIndex");
    const first = !this.map;
    this.map = map;
    const drawn = this.plot.draw({ x: map.x, y: map.y, z: value }, options);
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    return first && clientHeight > clientWidth ? drawn.then(() => this.whole()) : drawn;
  }

  // Show only these points; null shows all.
  show(indices) {
    this.shown = indices;
    return indices ? this.plot.filter(indices, { preventEvent: true }) : this.plot.unfilter({ preventEvent: true });
  }

  select(indices) {
    if (indices.length) this.plot.select(indices, { preventEvent: true });
    else this.plot.deselect({ preventEvent: true });
  }

  place(index) { return this.plot.getScreenPosition(index); }

  zoom(factor) {
    const [x, y] = this.plot.get("cameraTarget"), distance = this.plot.get("cameraDistance");
    return this.plot.zoomToLocation([x, y], distance * factor, { transition: false });
  }

  pan(dx, dy) {
    const [x, y] = this.plot.get("cameraTarget"), distance = this.plot.get("cameraDistance"), step = 0.2 * distance;
    return this.plot.zoomToLocation([x + dx * step, y + dy * step], distance, { transition: false });
  }

  // A map is as wide as high; a view that is higher than wide has to stand back.
  whole() {
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    return this.plot.zoomToLocation([0, 0], Math.max(1, clientHeight / clientWidth), { transition: false });
  }

  // The nearest shown point in a direction; across costs twice as much as along.
  next(dx, dy) {
    const { x, y } = this.map, points = this.shown ?? null, count = points ? points.length : this.atlas.count;
    if (!count) return -1;
    if (this.at < 0) return points ? points[0] : 0;
    let best = -1, least = Infinity;
    for (let k = 0; k < count; k++) {
      const i = points ? points[k] : k, along = (x[i] - x[this.at]) * dx + (y[i] - y[this.at]) * dy;
      if (along <= 1e-6 || i === this.at) continue;
      const across = Math.abs((x[i] - x[this.at]) * dy) + Math.abs((y[i] - y[this.at]) * dx);
      if (along + 2 * across < least) { least = along + 2 * across; best = i; }
    }
    return best;
  }

  key(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const arrow = arrows[event.key];
    if (arrow && event.shiftKey) this.pan(...arrow);
    else if (arrow) {
      const index = this.next(...arrow);
      if (index >= 0) this.go(index);
    }
    else if (event.key === "Enter" && this.at >= 0) this.tell.pick(this.at);
    else if (event.key === " " && this.at >= 0) this.tell.toggle(this.at);
    else if (event.key === "+" || event.key === "=") this.zoom(0.8);
    else if (event.key === "-") this.zoom(1.25);
    else if (event.key === "0") this.whole();
    else if (event.key === "Escape") this.tell.select([]);
    else return;
    event.preventDefault();
  }

  // Put the reader on a point: it is highlighted and its image shown.
  go(index) {
    this.at = index;
    this.plot.hover(index, { preventEvent: true });
    this.tell.over(index);
  }

  // regl-scatterplot listens to a mouse: one finger speaks as one, two fingers zoom. A mouse comes from a place before
  // it is pressed; a finger does not, so it is seen in one frame and pressed in the next, or the map would jump to it.
  fingers() {
    let apart = 0, pinched = false, said = Promise.resolve();
    const spread = ({ touches: [a, b] }) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    const speak = (type, touch, buttons = 1) => this.canvas.dispatchEvent(new MouseEvent(type, {
      bubbles: true, cancelable: true, view: window, clientX: touch.clientX, clientY: touch.clientY, buttons,
    }));
    const later = (words) => { said = said.then(words); };
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    this.canvas.addEventListener("touchstart", (event) => {
      event.preventDefault();
      this.canvas.focus({ preventScroll: true });
      const [touch, second] = event.touches;
      if (second) { apart = spread(event); pinched = true; later(() => speak("mouseup", touch)); return; }
      later(async () => {
        for (const type of ["mouseenter", "mousemove"]) speak(type, touch, 0);
        await frame();
        await frame();
        speak("mousedown", touch);
      });
    }, { passive: false });
    this.canvas.addEventListener("touchmove", (event) => {
      event.preventDefault();
      const [touch, second] = event.touches;
      if (second) { const now = spread(event); this.zoom(apart / now); apart = now; }
      else later(() => speak("mousemove", touch));
    }, { passive: false });
    this.canvas.addEventListener("touchend", (event) => {
      event.preventDefault();
      const [touch] = event.changedTouches, types = pinched ? ["mouseup"] : ["mouseup", "click"];
      later(() => types.forEach((type) => speak(type, touch)));
      if (!event.touches.length) pinched = false;
    }, { passive: false });
  }
}
