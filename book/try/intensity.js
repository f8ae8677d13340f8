// What a scan's numbers are, and a slice of them in Hounsfield units: replication/data/reading/intensity.py, whose constants these are.

import { intensity as rule } from "./rules.js";

const [NONE, BRIGHT, DARK] = [1, 2, 3]; // what is wrong with a voxel

/** As Python rounds. */
export const evenly = (v) => (Math.abs(v % 1) === 0.5 ? 2 * Math.round(v / 2) : Math.round(v));

/** Each value of sorted numbers once, and how often: [[value, count], ...]. */
function counted(sorted) {
  const out = [];
  for (const v of sorted) if (out.at(-1)?.[0] === v) out.at(-1)[1]++; else out.push([v, 1]);
  return out;
}

/** By which offsets there is enough of air and of soft tissue. */
function fitting(finite) {
  return Object.keys(rule.OFFSETS).filter((kind) => {
    const body = finite.map((v) => v - rule.OFFSETS[kind]).filter((v) => v >= rule.AIR[0] && v <= rule.BRIGHTEST);
    const share = ([a, b]) => body.filter((v) => v >= a && v <= b).length / body.length;
    return body.length >= finite.length / 10 && share(rule.AIR) >= rule.LEAST_AIR && share(rule.SOFT) >= rule.LEAST_SOFT;
  });
}

/** The one value above bone that too many voxels hold to be metal; NaN: none. */
function paddingOf(sorted, off) {
  const most = [NaN, rule.CONSTANT * sorted.length];
  return counted(sorted.filter((v) => v - off > rule.BONE)).reduce((a, b) => (b[1] > a[1] ? b : a), most)[0] - off;
}

/**
 * What a scan's numbers are, by where air and soft tissue lie in a sample; `beside` holds the neighbour of each voxel of it.
 * @returns {{kind: string, scale: number, offset: number, ends: number[], padding: number, notes: string[]}}
 */
export function recognise(sample, beside) {
  const finite = sample.filter(Number.isFinite).sort(), n = finite.length;
  if (!n || n < sample.length / 2) throw new Error("most of its voxels are NaN or infinite; no CT");
  if (finite[0] === finite[n - 1]) throw new Error(`every voxel is ${finite[0]}; no CT`);
  const [low, high] = [rule.OUTLIERS, 1 - rule.OUTLIERS].map((q) => finite[evenly((n - 1) * q)]);
  let [kind, other] = fitting(finite);
  if (other) { // padding may look like tissue of the other kind
    const padding = paddingOf(finite, 0);
    [kind, other] = fitting(finite.filter((v) => v !== padding));
  }
  if (kind !== "hounsfield" || other) refuseLabels(sample, beside, counted(finite), high);
  if (low >= 0 && high <= 255) {
    const notes = [`values of ${low} to ${high}: windowed before, not Hounsfield units${high <= 1 ? ", scaled by 255" : ""}`];
    return { kind: "grey", scale: high <= 1 ? 255 : 1, offset: 0, ends: rule.GREY, padding: NaN, notes };
  }
  if (!kind || other) {
    throw new Error(`values of ${low} to ${high} are no chest in Hounsfield units, nor grey of 0 to 255. Was a slope or an intercept left out?`);
  }
  const offset = rule.OFFSETS[kind];
  const notes = offset ? [`values of ${low} to ${high}: Hounsfield units whose offset was left out, ${offset} is taken off`] : [];
  return { kind, scale: 1, offset, ends: [rule.DARKEST, rule.BRIGHTEST], padding: paddingOf(finite, offset), notes };
}

function refuseLabels(sample, beside, values, high) {
  const often = [...values].sort((a, b) => b[1] - a[1]), total = values.reduce((sum, [, n]) => sum + n, 0);
  let needed = 0, patches = 0;
  for (let sum = 0; sum < (1 - rule.OUTLIERS) * total; needed++) sum += often[needed][1];
  if (values[0][0] >= 0 && high <= 255 && values.every(([v]) => Number.isInteger(v))) {
    const inside = [...sample.keys()].filter((i) => sample[i] !== often[0][0] && sample[i] < high);
    patches = inside.length ? inside.filter((i) => sample[i] === beside[i]).length / inside.length : 1;
  }
  const held = often.slice(0, 8).reduce((sum, [, n]) => sum + n, 0);
  if (needed > rule.FEW && patches < rule.ALIKE && held < rule.HELD * total) return;
  throw new Error(`a label map or mask, no CT: ${needed} values fill it. Give the scan that it was drawn on`);
}

/** What `toUnits` changed, of many pictures. */
export const unchanged = () => ({ voxels: 0, [NONE]: 0, [BRIGHT]: 0, [DARK]: 0, mended: 0, darkest: Infinity, brightest: -Infinity });

/** A picture's stored numbers as HU or grey between its ends; what was changed is added to `seen`. */
export function toUnits(stored, columns, { kind, scale, offset, ends: [low, high], padding }, seen = unchanged()) {
  const least = Math.min(low, rule.AIR[0]), units = stored.map((v) => v * scale - offset), nothing = kind === "grey" ? low : rule.NOTHING;
  const wrong = Uint8Array.from(units, (v) => (!Number.isFinite(v) || v > rule.BEYOND || v === padding ? NONE : v > high ? BRIGHT : v < least ? DARK : 0));
  wrong.forEach((what, i) => {
    if (what) seen[what]++;
    if (what === DARK) seen.darkest = Math.min(seen.darkest, units[i]);
    if (what === BRIGHT) seen.brightest = Math.max(seen.brightest, units[i]);
  });
  seen.voxels += stored.length;
  seen.mended += fillSmall(units, columns, wrong);
  return units.map((v, i) => (wrong[i] === NONE || wrong[i] === DARK ? nothing : Math.min(Math.max(v, low), high)));
}

/** Bodies of voxels that touch, numbered from 1 in `labels`. `visit` calls back with each voxel beside one. */
export function bodies(mask, visit) {
  const labels = new Int32Array(mask.length), sizes = [0], stack = [];
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start]) continue;
    const label = sizes.push(0) - 1, take = (i) => { if (mask[i] && !labels[i]) { labels[i] = label; stack.push(i); } };
    for (take(start); stack.length; sizes[label]++) visit(stack.pop(), take);
  }
  return { labels, sizes };
}

const median = (numbers) => {
  const sorted = [...numbers].sort((a, b) => a - b), n = sorted.length;
  return (sorted[(n - 1) >> 1] + sorted[n >> 1]) / 2;
};

/** Fill small patches of wrong numbers, in place, from their rim inwards; returns how many pixels. */
function fillSmall(picture, columns, wrong) {
  const rows = picture.length / columns, most = Math.max(rule.PATCH * picture.length, rule.LEAST_PATCH);
  const around = (i, each) => { // by a side or a corner
    const r = Math.floor(i / columns), c = i % columns;
    for (let y = Math.max(r - 1, 0); y <= Math.min(r + 1, rows - 1); y++) {
      for (let x = Math.max(c - 1, 0); x <= Math.min(c + 1, columns - 1); x++) each(y * columns + x);
    }
  };
  const { labels, sizes } = bodies(wrong, around);
  let left = [...labels.keys()].filter((i) => labels[i] && sizes[labels[i]] <= most);
  const filled = left.length;
  while (left.length) {
    const rim = left.map((i) => {
      const known = [];
      around(i, (j) => { if (!wrong[j]) known.push(picture[j]); });
      return [i, known];
    }).filter(([, known]) => known.length).map(([i, known]) => [i, median(known)]);
    for (const [i, v] of rim) [picture[i], wrong[i]] = [v, 0];
    left = left.filter((i) => wrong[i]);
  }
  return filled;
}

/** What was changed, in words. */
export function clipped({ voxels, [NONE]: none, [DARK]: dark, [BRIGHT]: bright, mended, darkest, brightest }, [low, high]) {
  const short = (v, digits) => (v < 1e-4 && v > 0 ? v.toExponential(1).replace(".0e", "e").replace(/-(\d)$/, "-0$1") : `${Number(v.toPrecision(digits))}`);
  return [
    [none, `NaN, infinite, padding or beyond ${rule.BEYOND.toLocaleString("en")} HU, which no scanner measures: taken as air`],
    [dark, `below ${Math.min(low, rule.AIR[0])}, down to ${short(darkest, 6)}: padding, taken as air`],
    [bright, `above ${high}, up to ${short(brightest, 6)}: metal or noise, taken as ${high}`],
  ].filter(([n]) => n).map(([n, what]) => `${n} of ${voxels} voxels (${short(n / voxels, 2)} of all) ${what}`)
    .concat(mended ? [`${mended} of these lie in small patches: filled by what is around them`] : []);
}
