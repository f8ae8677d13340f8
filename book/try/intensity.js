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

/** The most frequent number, and how often it stands there; NaN and 0 of none. */
function commonest(numbers) {
  return counted(numbers.filter(Number.isFinite).sort()).reduce((a, b) => (b[1] > a[1] ? b : a), [NaN, 0]);
}

/** The offsets by which it can be a chest. */
function fitting(finite) {
  return Object.keys(rule.OFFSETS).filter((kind) => {
    const hu = finite.map((v) => v - rule.OFFSETS[kind]), body = hu.filter((v) => v >= rule.AIR[0] && v <= rule.BRIGHTEST);
    const odd = (part) => part.length - commonest(part)[1]; // one number alone is padding
    const outside = odd(hu.filter((v) => v < rule.AIR[0])) + odd(hu.filter((v) => v > rule.BRIGHTEST));
    const [air, soft, dense] = [rule.AIR, rule.SOFT, [rule.SOFT[1] + 1e-3, Infinity]].map(([a, b]) => body.filter((v) => v >= a && v <= b).length / body.length);
    const chest = air >= rule.LEAST_AIR && soft >= rule.LEAST_SOFT && dense <= rule.MOST_DENSE && (kind !== "offset" || dense >= rule.LEAST_DENSE);
    return body.length >= Math.max(outside, finite.length / 10) && chest;
  });
}

/** The one value that stands for nothing: above bone and held by too many voxels to be metal, or the corners'; NaN: none. */
function paddingOf(hounsfield, corners) {
  const [metal, often] = commonest(hounsfield.filter((v) => v > rule.BONE)), [corner, n] = commonest(corners);
  if (often > rule.CONSTANT * hounsfield.length) return metal;
  return n && n >= rule.CORNERS * corners.length && corner > rule.AIR[1] ? corner : NaN;
}

/**
 * What a scan's numbers are, by where air and soft tissue lie in a sample; `beside` holds the neighbour of each voxel of it,
 * `corners` those of the pictures.
 * @returns {{kind: string, scale: number, offset: number, ends: number[], padding: number, beyond: number, notes: string[]}}
 */
export function recognise(sample, beside, corners) {
  const finite = sample.filter(Number.isFinite).sort(), n = finite.length;
  if (!n || n < sample.length / 2) throw new Error("most of its voxels are NaN or infinite; no CT");
  if (finite[0] === finite[n - 1]) throw new Error(`every voxel is ${finite[0]}; no CT`);
  const [low, high] = [rule.OUTLIERS, 1 - rule.OUTLIERS].map((q) => finite[evenly((n - 1) * q)]);
  let [kind, other] = fitting(finite);
  if (!kind || other) { // padding may look like tissue
    const nothing = [paddingOf(finite, corners), commonest(corners)[0]], others = finite.filter((v) => !nothing.includes(v));
    [kind, other] = fitting(others.length ? others : finite);
  }
  refuseLabels(sample, beside, counted(finite), high, kind === "hounsfield" && !other);
  if (low >= 0 && high <= 255) {
    const most = Math.max(...corners), bright = finite.filter((v) => v > most).length / n;
    if (median(corners) > (low + high) / 2 && bright < rule.METAL / 2) {
      throw new Error(`grey of ${low} to ${high} with nothing brighter than its corners, where air is: inverted, or with a white margin. Invert or crop it`);
    }
    const notes = [`values of ${low} to ${high}: windowed before, not Hounsfield units${high <= 1 ? ", scaled by 255" : ""}`];
    return { kind: "grey", scale: high <= 1 ? 255 : 1, offset: 0, ends: rule.GREY, padding: NaN, beyond: rule.BEYOND, notes };
  }
  if (!kind || other) {
    throw new Error(`values of ${low} to ${high} are no chest in Hounsfield units, nor grey of 0 to 255. Was a slope or an intercept left out?`);
  }
  const offset = rule.OFFSETS[kind];
  const notes = offset ? [`values of ${low} to ${high}: Hounsfield units whose offset was left out, ${offset} is taken off`] : [];
  const hounsfield = finite.map((v) => v - offset), nothing = paddingOf(hounsfield, corners.map((v) => v - offset));
  const whole = nothing <= rule.BONE && !fitting(finite.filter((v) => v - offset !== nothing)).includes(kind); // it is the body's
  const padding = whole ? NaN : nothing;
  const wrapped = hounsfield.filter((v) => v > rule.BRIGHTEST && v !== padding).length > rule.METAL * n;
  return { kind, scale: 1, offset, ends: [rule.DARKEST, rule.BRIGHTEST], padding, beyond: wrapped ? rule.BRIGHTEST : rule.BEYOND, notes };
}

/** `fits`: they fit Hounsfield units; then only two values are no CT. */
function refuseLabels(sample, beside, values, high, fits) {
  const often = [...values].sort((a, b) => b[1] - a[1]), total = values.reduce((sum, [, n]) => sum + n, 0);
  let needed = 0, patches = 0;
  for (let sum = 0; sum < (1 - rule.OUTLIERS) * total; needed++) sum += often[needed][1];
  if (values[0][0] >= 0 && high <= 255 && values.every(([v]) => Number.isInteger(v))) {
    const inside = [...sample.keys()].filter((i) => sample[i] !== often[0][0] && sample[i] < high);
    patches = inside.length ? inside.filter((i) => sample[i] === beside[i]).length / inside.length : 1;
  }
  const held = often.slice(0, 8).reduce((sum, [, n]) => sum + n, 0);
  const shares = values[0][0] >= 0 && high <= 1, between = sample.filter((v) => v > rule.SURE * high && v < (1 - rule.SURE) * high).length / sample.length;
  const odd = needed <= rule.FEW || patches >= rule.ALIKE || held >= rule.HELD * total || (shares && between < rule.LEAST_BETWEEN);
  if (needed <= 2 || (odd && !fits)) throw new Error(`a label map or mask, no CT: ${needed} values fill it. Give the scan that it was drawn on`);
}

/** What `toUnits` changed, of many pictures. */
export const unchanged = () => ({ voxels: 0, [NONE]: 0, [BRIGHT]: 0, [DARK]: 0, mended: 0, blank: 0, darkest: Infinity, brightest: -Infinity });

/** A picture's stored numbers as HU or grey between its ends; what was changed is added to `seen`. */
export function toUnits(stored, columns, { kind, scale, offset, ends: [low, high], padding, beyond }, seen = unchanged()) {
  const least = Math.min(low, rule.AIR[0]), units = stored.map((v) => v * scale - offset), nothing = kind === "grey" ? low : rule.NOTHING;
  const wrong = Uint8Array.from(units, (v) => (!Number.isFinite(v) || v > beyond || v === padding ? NONE : v > high ? BRIGHT : v < least ? DARK : 0));
  wrong.forEach((what, i) => {
    if (what) seen[what]++;
    if (what === DARK) seen.darkest = Math.min(seen.darkest, units[i]);
    if (what === BRIGHT) seen.brightest = Math.max(seen.brightest, units[i]);
  });
  seen.voxels += stored.length;
  seen.blank += units.every((v) => v === units[0]);
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
export function clipped({ voxels, [NONE]: none, [DARK]: dark, [BRIGHT]: bright, mended, blank, darkest, brightest }, { ends: [low, high], beyond }) {
  const short = (v, digits) => (v < 1e-4 && v > 0 ? v.toExponential(1).replace(".0e", "e").replace(/-(\d)$/, "-0$1") : `${Number(v.toPrecision(digits))}`);
  return [
    [none, `NaN, infinite, padding or beyond ${beyond.toLocaleString("en")} HU, which is no measurement: taken as air`],
    [dark, `below ${Math.min(low, rule.AIR[0])}, down to ${short(darkest, 6)}: padding, taken as air`],
    [bright, `above ${high}, up to ${short(brightest, 6)}: metal or noise, taken as ${high}`],
  ].filter(([n]) => n).map(([n, what]) => `${n} of ${voxels} voxels (${short(n / voxels, 2)} of all) ${what}`)
    .concat(blank ? [`${blank} planes hold one number each: nothing was scanned there`] : [])
    .concat(mended ? [`${mended} of these lie in small patches: filled by what is around them`] : []);
}
