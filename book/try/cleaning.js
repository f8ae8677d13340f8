// What is done to predicted lungs in three dimensions, as replication/scans/cleaning.py does it, and what a report says.

import { evenly } from "./prepare.js";

const GAS = -960, AERATED = -700, FAT = [-160, -30], DOUBT = 0.2, SMALLEST = 0.1, LEAST_AREA = 0.002;
const MOST = 11000, LEAST = 500, FULL = 0.8, CONSUMED = 0.95; // ml of both lungs; share of the scan; share of the lungs

/** Bodies of voxels that touch by a face, numbered from 1 in `labels`. Masks are (slices, rows, columns) everywhere here. */
function bodies(mask, [slices, rows, columns]) {
  const labels = new Int32Array(mask.length), sizes = [0], stack = [], plane = rows * columns;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start]) continue;
    const label = sizes.push(0) - 1;
    labels[start] = label;
    stack.push(start);
    while (stack.length) {
      const at = stack.pop(), inside = at % plane, column = inside % columns;
      sizes[label]++;
      const visit = (next) => { if (mask[next] && !labels[next]) { labels[next] = label; stack.push(next); } };
      if (column > 0) visit(at - 1);
      if (column < columns - 1) visit(at + 1);
      if (inside >= columns) visit(at - columns);
      if (inside < plane - columns) visit(at + columns);
      if (at >= plane) visit(at - plane);
      if (at < (slices - 1) * plane) visit(at + plane);
    }
  }
  return { labels, sizes };
}

async function density(mask, [slices, rows, columns], hounsfield) {
  const plane = rows * columns;
  for (let k = 0; k < slices; k++) {
    const slice = mask.subarray(k * plane, (k + 1) * plane);
    if (!slice.some(Boolean)) continue;
    const { labels, sizes } = bodies(slice, [1, rows, columns]), patches = sizes.map(() => []), hu = await hounsfield(k);
    labels.forEach((label, i) => { if (label) patches[label].push(i); });
    for (const patch of patches.slice(1)) for (const i of gasOrFat(patch, hu)) slice[i] = 0;
  }
}

/** Which pixels of a patch are dropped: all where gas or fat is its median by far, none where it is not, else a part. */
function gasOrFat(patch, hu) {
  const share = (is) => patch.filter((i) => is(hu[i])).length / patch.length;
  const gas = share((v) => v < GAS), fat = 1 - Math.max(share((v) => v <= FAT[0]), share((v) => v >= FAT[1]));
  const unlike = gas > fat ? (i) => hu[i] : (i) => Math.abs(hu[i] - (FAT[0] + FAT[1]) / 2);
  const part = Math.min(Math.max((Math.max(gas, fat) - 0.5) / (2 * DOUBT) + 0.5, 0), 1);
  return [...patch].sort((a, b) => unlike(a) - unlike(b)).slice(0, Math.floor(part * patch.length + 0.5));
}

function largest(mask, shape) {
  const { labels, sizes } = bodies(mask, shape);
  const kept = [...sizes.keys()].slice(1).sort((a, b) => sizes[b] - sizes[a]).slice(0, 2);
  labels.forEach((label, i) => { if (!kept.includes(label) || sizes[label] < SMALLEST * sizes[kept[0]]) mask[i] = 0; });
}

function holes(mask, shape) {
  const [slices, rows, columns] = shape, plane = rows * columns;
  const { labels } = bodies(mask.map((v) => 1 - v), shape), outside = new Set();
  labels.forEach((label, i) => {
    const row = Math.floor((i % plane) / columns), column = i % columns;
    const edge = i < plane || i >= (slices - 1) * plane || row === 0 || row === rows - 1 || column === 0 || column === columns - 1;
    if (label && edge) outside.add(label);
  });
  labels.forEach((label, i) => { if (label && !outside.has(label)) mask[i] = 1; });
}

function enough(mask, [slices, rows, columns]) {
  const plane = rows * columns;
  for (let k = 0; k < slices; k++) {
    const slice = mask.subarray(k * plane, (k + 1) * plane);
    if (count(slice) / plane < LEAST_AREA) slice.fill(0);
  }
}

export const count = (mask) => mask.reduce((sum, v) => sum + v, 0);

/** Lungs behind the steps, in place. `hounsfield`: slice number -> a promise of its HU; null where the scan has none. */
export async function cleanLungs(mask, shape, hounsfield) {
  if (hounsfield) await density(mask, shape, hounsfield);
  for (const step of [largest, holes, enough]) if (mask.some(Boolean)) step(mask, shape);
  return mask;
}

/** What a reader of the masks has to know, in the words of replication/scans/segment.py. Masks as the networks see them. */
export function warnings(lungs, infection, [slices, rows, columns]) {
  const plane = rows * columns, area = (k) => count(lungs.subarray(k * plane, (k + 1) * plane)) / plane;
  const held = Array.from({ length: slices }, (_, k) => k).filter((k) => area(k) > 0);
  if (!held.length) return ["no lung was found: no chest, the wrong way up, a wrong preparation, or weights that learnt nothing"];
  const ends = { lowest: held[0], highest: held.at(-1) }, out = [];
  for (const [end, k] of Object.entries(ends)) {
    if ((k === 0 || k === slices - 1) && area(k) > 0.02) out.push(`the ${end} slice still holds lung: the scan does not show all of it`);
  }
  if (infection.some(Boolean)) out.push("the networks never saw a slice without infection: they find some in healthy lungs too");
  return out;
}

/** What cannot be, or hardly, of the amounts of both lungs, in the words of replication/scans/plausibility.py. */
export function implausible({ lungs_ml: lungs, infection_ml: infection }, scan) {
  const causes = "weights that learnt nothing, a wrong preparation, a wrong spacing in the header, or no chest", out = [];
  if (lungs > FULL * scan) out.push(`${((100 * lungs) / scan).toFixed(0)}% of all voxels are called lung: ${causes}`);
  else if (lungs > MOST) out.push(`lungs of ${(lungs / 1000).toFixed(0)} l; no body has more than ${MOST / 1000}: ${causes}`);
  else if (lungs > 0 && lungs < LEAST) {
    out.push(`lungs of ${lungs.toFixed(0)} ml; an adult keeps ${LEAST} after breathing out: a child, part of a chest, or lungs that were missed`);
  }
  if (lungs && infection > CONSUMED * lungs) out.push(`${((100 * infection) / lungs).toFixed(0)}% of the lungs are called infected: ${causes}`);
  return out;
}

/** What is counted of a scan's masks, slice by slice: voxels in each column, and how often each density (null: it has none). */
export function tallies(columns) {
  const lungs = new Float64Array(columns), infection = new Float64Array(columns), densities = [new Map(), new Map()];
  const add = (lung, ill, hounsfield) => lung.forEach((inside, i) => {
    lungs[i % columns] += inside;
    infection[i % columns] += ill[i];
    if (!hounsfield || !(inside || ill[i])) return;
    const of = densities[ill[i] ? 0 : 1], hu = Math.round(8 * hounsfield[i]) / 8;
    of.set(hu, (of.get(hu) ?? 0) + 1);
  });
  return { lungs, infection, densities, add };
}

/** Quartiles of numbers that were counted, as numpy's, to a tenth. */
function quartiles(counts) {
  const sorted = [...counts].sort(([a], [b]) => a - b), most = sorted.reduce((sum, [, n]) => sum + n, 0) - 1;
  const nth = (i) => { let left = i; return sorted.find(([, n]) => (left -= n) < 0)[0]; };
  return [0.25, 0.5, 0.75].map((q) => {
    const low = Math.floor(most * q), from = nth(low);
    return Math.round(10 * (from + (most * q - low) * (nth(Math.min(low + 1, most)) - from))) / 10;
  });
}

/** Whether what is called infected is as dense as the lungs around it, in the words of replication/scans/density.py. */
export function hardlyDiffer({ densities }) {
  if (densities.some((counts) => !counts.size)) return [];
  const [[, infected], [low, rest, high]] = densities.map(quartiles), whole = (v) => evenly(v).toFixed(0);
  if (infected >= AERATED && infected > high) return [];
  return [`what is called infected is hardly denser than the rest of the lungs: median ${whole(infected)} HU, elsewhere ${whole(rest)} (quartiles ${whole(low)} to ${whole(high)}). Below ${AERATED} HU lung is well aerated (after Colombi et al. 2020, doi 10.1148/radiol.2020201433); it may well be healthy`];
}

/** Millilitres and shares of both lungs and by side; the patient's right is on the left. */
export function amounts({ lungs, infection }, millilitres) {
  const columns = lungs.length, held = [...lungs.keys()].filter((c) => lungs[c]), third = Math.floor((held.at(-1) - held[0] + 1) / 3);
  const least = held.length ? lungs.subarray(held[0] + third, Math.max(held.at(-1) - third, held[0] + third) + 1) : [];
  const middle = held.length ? held[0] + third + least.indexOf(Math.min(...least)) : columns >> 1; // of the middle third
  const of = (from, to) => {
    const [whole, part] = [lungs, infection].map((sums) => sums.subarray(from, to).reduce((a, b) => a + b, 0) * millilitres);
    return { lungs_ml: whole, infection_ml: part, infected_share: whole ? part / whole : null };
  };
  return { both: of(0, columns), right: of(0, middle), left: of(middle, columns) };
}
