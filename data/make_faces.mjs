// Make faces.zip: 4,000 portraits, 16x16, no two alike, with what was drawn in each of them.
//
// In an empty folder beside the repository's own (node 20 or later):
//
//     npm install --no-save @dicebear/core@9.4.3 @dicebear/pixel-art@9.4.3 @resvg/resvg-js@2.6.2
//     node ../simple-diffusion/data/make_faces.mjs
//     python ../simple-diffusion/data/pack.py faces ../simple-diffusion/data/faces.zip
//
// The packages are looked up in the folder in which the script is started; the portraits and their
// labels.csv go to a folder `faces` there. The design, "Pixel Art" by DiceBear, is CC0 1.0.

import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { resolve } = createRequire(join(process.cwd(), "package.json"));
const load = (name) => import(pathToFileURL(resolve(name)));
const { createAvatar } = await load("@dicebear/core");
const design = await load("@dicebear/pixel-art");
const { Resvg } = await load("@resvg/resvg-js");

const COUNT = 4000;
const SIDE = 16;
const ENLARGED = 8;

// What the design leaves open. Any part that is not named here is drawn from all its variants, each
// as likely as the next.
const OPTIONS = {
  backgroundColor: ["b6e3f4", "d1c4f0", "ffd5dc", "c6ecd0", "fbf5df"], // five pastel tones
  glassesProbability: 25,
  hatProbability: 15,
  beardProbability: 15,
  accessoriesProbability: 15, // earrings
};
const HEAD = ["hair", "skin", "eyes", "mouth", "glasses", "hat", "beard"];
const PARTS = [...HEAD, "accessories", "clothing"];
const UNCOLOURED = ["beard"]; // a shade laid over the skin
const COLUMNS = PARTS.flatMap((part) =>
  part === "skin" ? ["skin_color"] : UNCOLOURED.includes(part) ? [part] : [part, `${part}_color`],
);

/** Pixels of a drawing, four bytes each: red, green, blue, opacity. */
function render(svg, side) {
  return new Resvg(svg, { fitTo: { mode: "width", value: side } }).render();
}

/** Whether the drawing has hard edges on the grid of pixels: larger, it is only larger. */
function isPixelExact(svg, small) {
  const large = render(svg, SIDE * ENLARGED).pixels;
  return Array.from({ length: (SIDE * ENLARGED) ** 2 }, (_, position) => {
    const x = Math.floor((position % (SIDE * ENLARGED)) / ENLARGED);
    const y = Math.floor(position / (SIDE * ENLARGED) / ENLARGED);
    return large.readUInt32LE(4 * position) === small.readUInt32LE(4 * (SIDE * y + x));
  }).every(Boolean);
}

/** What was drawn, by column: a variant such as "hat03", a colour such as "#2663a3", or "none". */
function describe(drawn) {
  const labels = Object.fromEntries(
    PARTS.flatMap((part) => {
      const absent = part !== "skin" && !drawn[part];
      return [
        [part, absent ? "none" : drawn[part]?.replace("variant", part)],
        [`${part}_color`, absent ? "none" : drawn[`${part}Color`]],
      ];
    }),
  );
  return [...COLUMNS.map((column) => labels[column]), drawn.primaryBackgroundColor];
}

mkdirSync("faces", { recursive: true });
const rows = [["file", ...COLUMNS, "background"]];
const seen = new Set();
for (let seed = 0; seen.size < COUNT; seed++) {
  const portrait = createAvatar(design, { ...OPTIONS, seed: String(seed) });
  const svg = portrait.toString();
  const image = render(svg, SIDE);
  const pixels = image.pixels.toString("base64");
  if (seen.has(pixels)) continue;
  if (!isPixelExact(svg, image.pixels)) throw new Error(`seed ${seed} has soft edges`);
  const file = `${String(seen.size).padStart(4, "0")}.png`;
  writeFileSync(join("faces", file), image.asPng());
  rows.push([file, ...describe(portrait.toJson().extra)]);
  seen.add(pixels);
}
writeFileSync(join("faces", "labels.csv"), rows.map((row) => `${row.join(",")}\n`).join(""));
console.log(`${COUNT} portraits in faces/`);
