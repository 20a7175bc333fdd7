"use strict";
// What the page holds, unpacked: texts and numbers come as one compressed JSON text, chips as JPEG sheets.

function bytesOf(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function readAtlas() {
  const packed = new Blob([bytesOf(document.getElementById("atlas").textContent.trim())]);
  const atlas = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).json();
  for (const map of atlas.maps) {
    const stored = new Uint16Array(bytesOf(map.coords).buffer);    // x and y in turn, 0 to 65535
    map.x = new Float32Array(atlas.count);
    map.y = new Float32Array(atlas.count);
    for (let i = 0; i < atlas.count; i++) {
      map.x[i] = stored[2 * i] / 32767.5 - 1;
      map.y[i] = stored[2 * i + 1] / 32767.5 - 1;
    }
  }
  for (const column of atlas.columns) column.codes = new Uint16Array(bytesOf(column.codes).buffer);
  for (const phrase of atlas.phrases) phrase.values = bytesOf(phrase.values);    // 0 to 255, from low to high
  const Rows = atlas.count <= 65536 ? Uint16Array : Uint32Array;
  for (const stage of Object.keys(atlas.neighbours))
    atlas.neighbours[stage] = new Rows(bytesOf(atlas.neighbours[stage]).buffer);
  return atlas;
}

// Chips are cut from sheets, and a sheet is decoded when one of its chips is first looked at.
class Chips {
  constructor(edge, columns, perSheet) {
    Object.assign(this, { edge, columns, perSheet, sheets: new Map() });
  }

  sheet(number) {
    this.stored ??= JSON.parse(document.getElementById("sprites").textContent);
    if (!this.sheets.has(number)) {
      const image = new Image();
      image.src = "data:image/jpeg;base64," + this.stored[number];
      this.sheets.set(number, image.decode().then(() => image));
    }
    return this.sheets.get(number);
  }

  draw(index, label) {
    const canvas = document.createElement("canvas");
    canvas.className = "chip";
    canvas.width = canvas.height = this.edge;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
    const place = index % this.perSheet, x = place % this.columns, y = Math.floor(place / this.columns);
    this.sheet(Math.floor(index / this.perSheet)).then((image) => {
      canvas.getContext("2d").drawImage(
        image, x * this.edge, y * this.edge, this.edge, this.edge, 0, 0, this.edge, this.edge);
      canvas.dataset.drawn = "yes";
    });
    return canvas;
  }
}
