"use strict";
// Controls, legend, the picked image and the gallery. Everything that comes from data is set as text, never as markup.

const by = (id) => document.getElementById(id);
const SHOWN = 60;    // chips the gallery draws before it is asked for more
const BRIEF = ["class", "prediction", "score", "answer", "caption", "source"];    // facts beside the pointer

const inWords = (name) => name.replaceAll("_", " ");

function make(tag, text, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) element.textContent = text;
  return element;
}

class App {
  constructor(atlas) {
    this.atlas = atlas;
    this.chips = new Chips(atlas.sprites.edge, atlas.sprites.columns, atlas.sprites.perSheet);
    this.hidden = new Map();      // column name → codes that are hidden
    this.selected = [];           // what the gallery holds, in the order it came
    this.shownChips = SHOWN;
    this.controls();
    try {
      this.map = new PointMap(by("canvas"), atlas, {
        over: (index) => this.over(index), out: () => this.out(), pick: (index) => this.pick(index),
        toggle: (index) => this.toggle(index), select: (indices) => this.chosen(indices),
      });
    } catch (error) {
      by("broken").hidden = false;
      by("broken").textContent = "This browser draws no WebGL, so there is no map; search, phrases and gallery work. " +
        error.message;
    }
  }

  async start() {
    await this.redraw();
    this.filter();
    this.gallery();
  }

  // ---- controls

  controls() {
    const { atlas } = this, listen = (id, event, act) => by(id).addEventListener(event, act);
    for (const name of new Set(atlas.maps.map((map) => map.projection)))
      by("projection").append(new Option(name, name));
    for (const name of new Set(atlas.maps.map((map) => map.stage))) {
      const label = make("label"), radio = make("input", undefined, { type: "radio", name: "stage", value: name });
      label.append(radio, " " + name);
      by("stages").append(label);
    }
    [...document.getElementsByName("stage")].at(-1).checked = true;
    for (const column of atlas.columns) by("colour").append(new Option(column.name, column.name));
    if (atlas.phrases.length) by("colour").append(new Option("similarity to the phrase", "similarity"));
    by("phrase").append(new Option(atlas.phrases.length ? "none" : "no phrases are stored", ""));
    atlas.phrases.forEach((phrase, number) => by("phrase").append(new Option(phrase.text, number)));
    for (const name of ["order of selection", ...atlas.names, "similarity to the phrase"])
      by("sort").append(new Option(inWords(name), name));
    for (const id of ["projection", "stages", "colour"]) listen(id, "change", () => this.redraw());
    listen("phrase", "change", () => this.ask());
    listen("words", "input", () => this.filter());
    listen("mouse", "change", (event) => this.map?.plot.set({ mouseMode: event.target.value }));
    listen("nearer", "click", () => this.map?.zoom(0.8));
    listen("farther", "click", () => this.map?.zoom(1.25));
    listen("whole", "click", () => this.map?.whole());
    listen("take", "click", () => this.put(this.shown));
    listen("empty", "click", () => this.put([]));
    listen("sort", "change", () => this.gallery());
    listen("more", "click", () => { this.shownChips += 4 * SHOWN; this.gallery(); });
  }

  get stage() { return document.querySelector("input[name=stage]:checked").value; }
  get phrase() { return by("phrase").value === "" ? null : this.atlas.phrases[by("phrase").value]; }
  get column() { return this.atlas.columns.find((column) => column.name === by("colour").value); }

  get view() {
    return this.atlas.maps.find((map) => map.projection === by("projection").value && map.stage === this.stage);
  }

  async redraw() {
    if (by("colour").value === "similarity" && !this.phrase) by("phrase").selectedIndex = 1;
    const colour = this.column ?? this.phrase;
    this.legend();
    by("quality").textContent = this.view.quality;
    if (this.picked !== undefined) this.pick(this.picked);
    await this.map?.draw(this.view, colour);
  }

  // Colour by a phrase's similarity, and put what lies nearest to it into the gallery.
  ask() {
    if (this.phrase) {
      by("colour").value = "similarity";
      by("sort").value = "similarity to the phrase";
      const { values } = this.phrase;
      this.put([...this.shown].sort((a, b) => values[b] - values[a]).slice(0, 24));
    } else if (by("colour").value === "similarity") by("colour").selectedIndex = 0;
    this.redraw();
  }

  similarity(index) {
    const { low, high, values } = this.phrase;
    return low + (high - low) * values[index] / 255;
  }

  // ---- what is shown

  filter() {
    const word = by("words").value.trim().toLowerCase(), { count, columns, rows } = this.atlas;
    if (word) this.words ??= rows.map((row) => row.join(" ").toLowerCase());
    const hiding = columns.filter((column) => this.hidden.get(column.name)?.size);
    this.shown = [];
    for (let i = 0; i < count; i++)
      if ((!word || this.words[i].includes(word)) && !hiding.some((c) => this.hidden.get(c.name).has(c.codes[i])))
        this.shown.push(i);
    const part = this.shown.length < count;
    if (this.map && (this.map.shown || part)) this.map.show(part ? this.shown : null);
    this.say();
  }

  say() {
    const number = (n) => n.toLocaleString("en");
    by("status").textContent = `${number(this.shown.length)} of ${number(this.atlas.count)} images are shown, ` +
      `${number(this.selected.length)} in the gallery.`;
  }

  legend() {
    const box = by("key"), column = this.column;
    box.replaceChildren(make("h2", column ? column.name : "Similarity to “" + this.phrase.text + "”"));
    if (!column) {
      const ends = make("div", undefined, { className: "ends" }), bar = make("div", undefined, { className: "bar" });
      bar.style.background = `linear-gradient(to right, ${RAMP})`;
      ends.append(make("span", this.phrase.low.toFixed(2)), make("span", this.phrase.high.toFixed(2)));
      box.append(bar, ends);
      return;
    }
    const hidden = this.hidden.get(column.name) ?? new Set(), list = make("ul");
    this.hidden.set(column.name, hidden);
    const boxes = column.values.map((value, code) => {
      const item = make("li"), label = make("label"), swatch = make("span", undefined, { className: "swatch" });
      const check = make("input", undefined, { type: "checkbox", checked: !hidden.has(code) });
      check.addEventListener("change", () => { hidden[check.checked ? "delete" : "add"](code); this.filter(); });
      swatch.style.background = column.colours[code];
      const number = make("span", column.counts[code].toLocaleString("en"), { className: "number" });
      label.append(check, swatch, make("span", value), number);
      item.append(label);
      list.append(item);
      return check;
    });
    for (const [text, checked] of [["Show all", true], ["Hide all", false]]) {
      const button = make("button", text, { type: "button" });
      button.addEventListener("click", () => {
        boxes.forEach((check, code) => { check.checked = checked; hidden[checked ? "delete" : "add"](code); });
        this.filter();
      });
      box.append(button, " ");
    }
    box.append(list);
  }

  // ---- one image

  title(index) { return this.atlas.rows[index][0]; }

  facts(index, names = this.atlas.names) {
    const list = make("dl"), row = this.atlas.rows[index];
    for (const name of names.filter((name) => this.atlas.names.includes(name)))
      list.append(make("dt", inWords(name)), make("dd", row[this.atlas.names.indexOf(name)] || "–"));
    if (this.phrase) list.append(make("dt", "similarity"), make("dd", this.similarity(index).toFixed(3)));
    return list;
  }

  over(index) {
    const tip = by("tip"), place = this.map.place(index);
    tip.replaceChildren(this.chips.draw(index, this.title(index)), this.facts(index, BRIEF));
    tip.hidden = false;
    if (!place) return;
    const { clientWidth, clientHeight } = by("plot"), clamp = (v, high) => Math.max(4, Math.min(v, high));
    const room = place[0] + 16 + tip.offsetWidth < clientWidth;
    const left = room ? place[0] + 16 : place[0] - 16 - tip.offsetWidth;
    tip.style.left = clamp(left, clientWidth - tip.offsetWidth - 4) + "px";
    tip.style.top = clamp(place[1] - 40, clientHeight - tip.offsetHeight - 4) + "px";
  }

  out() { by("tip").hidden = true; }

  button(index) {
    const button = make("button", undefined, { type: "button" });
    button.dataset.index = index;
    button.append(this.chips.draw(index, ""), make("span", this.title(index)));
    button.addEventListener("click", () => this.pick(index));
    return button;
  }

  pick(index) {
    const box = by("picked"), card = make("div", undefined, { className: "card" });
    this.picked = index;
    card.append(this.chips.draw(index, this.title(index)), this.facts(index));
    box.replaceChildren(make("h2", "Picked image"), card);
    const near = this.atlas.neighbours[this.stage], { near: count } = this.atlas;
    if (!near) return;
    const list = make("ul", undefined, { className: "chips" });
    for (const other of near.subarray(index * count, (index + 1) * count)) {
      const item = make("li");
      item.append(this.button(other));
      list.append(item);
    }
    box.append(make("h3", `Its nearest images, ${this.stage}`), list);
    if (this.map) this.map.at = index;
  }

  // ---- the gallery

  chosen(indices) {
    if (indices.length === 1) this.pick(indices[0]);
    else this.put(indices, false);
  }

  toggle(index) {
    this.put(this.selected.includes(index) ? this.selected.filter((i) => i !== index) : [...this.selected, index]);
  }

  put(indices, tellMap = true) {
    this.selected = indices;
    this.shownChips = SHOWN;
    if (tellMap) this.map?.select(indices);
    this.gallery();
    this.say();
  }

  sorted() {
    const order = by("sort").value, column = this.atlas.names.indexOf(order);
    if (column >= 0) {
      const { rows } = this.atlas;
      return [...this.selected].sort((a, b) => rows[a][column].localeCompare(rows[b][column], "en", { numeric: true }));
    }
    if (order === "similarity to the phrase" && this.phrase) {
      const { values } = this.phrase;
      return [...this.selected].sort((a, b) => values[b] - values[a]);
    }
    return this.selected;
  }

  gallery() {
    const drawn = this.sorted().slice(0, this.shownChips);
    by("count").textContent = this.selected.length ? `(${this.selected.length.toLocaleString("en")})` : "";
    by("chips").replaceChildren(...drawn.map((index) => {
      const item = make("li");
      item.append(this.button(index));
      return item;
    }));
    const hint = "Draw a lasso, ask a phrase, or put in all that is shown.";
    if (!drawn.length) by("chips").append(make("li", hint, { className: "soft" }));
    by("more").hidden = drawn.length >= this.selected.length;
  }
}

readAtlas()
  .then(async (atlas) => {
    globalThis.explorer = new App(atlas);
    await globalThis.explorer.start();
    globalThis.firstDraw = performance.now();    // milliseconds since the page was opened
  })
  .catch((error) => {
    by("status").textContent = "This page cannot be shown: " + error.message + ". It wants a browser of 2023 or newer.";
    throw error;
  });
