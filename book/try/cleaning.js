// What is done to predicted lungs in three dimensions, as replication/scans/cleaning.py does it, whose constants these are.

import { bodies } from "./intensity.js";
import { cleaning as rule } from "./rules.js";

export const count = (mask) => mask.reduce((sum, v) => sum + v, 0);

/** Calls back with each voxel that touches one by a face. Masks are (slices, rows, columns) everywhere here. */
function faces([slices, rows, columns]) {
  const plane = rows * columns;
  return (at, each) => {
    const inside = at % plane, column = inside % columns;
    if (column > 0) each(at - 1);
    if (column < columns - 1) each(at + 1);
    if (inside >= columns) each(at - columns);
    if (inside < plane - columns) each(at + columns);
    if (at >= plane) each(at - plane);
    if (at < (slices - 1) * plane) each(at + plane);
  };
}

/** Each slice of a mask that holds something. */
export function held(mask, [slices, rows, columns]) {
  const plane = rows * columns, all = Array.from({ length: slices }, (_, k) => [k, mask.subarray(k * plane, (k + 1) * plane)]);
  return all.filter(([, slice]) => slice.some(Boolean));
}

async function density(mask, shape, hounsfield) {
  for (const [k, slice] of held(mask, shape)) {
    const { labels, sizes } = bodies(slice, faces([1, ...shape.slice(1)])), patches = sizes.map(() => []), hu = await hounsfield(k);
    labels.forEach((label, i) => { if (label) patches[label].push(i); });
    for (const patch of patches.slice(1)) for (const i of gasOrFat(patch, hu)) slice[i] = 0;
  }
}

/** Which pixels of a patch are dropped: all where gas or fat is its median by far, none where it is not, else a part. */
function gasOrFat(patch, hu) {
  const share = (is) => patch.filter((i) => is(hu[i])).length / patch.length, [low, high] = rule.FAT;
  const gas = share((v) => v < rule.GAS), fat = 1 - Math.max(share((v) => v <= low), share((v) => v >= high));
  const unlike = gas > fat ? (i) => hu[i] : (i) => Math.abs(hu[i] - (low + high) / 2);
  const part = Math.min(Math.max((Math.max(gas, fat) - 0.5) / (2 * rule.DOUBT) + 0.5, 0), 1);
  return [...patch].sort((a, b) => unlike(a) - unlike(b)).slice(0, Math.floor(part * patch.length + 0.5));
}

function largest(mask, shape) {
  const { labels, sizes } = bodies(mask, faces(shape));
  const kept = [...sizes.keys()].slice(1).sort((a, b) => sizes[b] - sizes[a]).slice(0, 2);
  labels.forEach((label, i) => { if (!kept.includes(label) || sizes[label] < rule.SMALLEST * sizes[kept[0]]) mask[i] = 0; });
}

function holes(mask, shape) {
  const outside = new Set(), touching = faces(shape), { labels } = bodies(mask.map((v) => 1 - v), touching);
  labels.forEach((label, i) => {
    let beside = 0;
    if (label) touching(i, () => { beside++; });
    if (beside < 6) outside.add(label); // at an end of the scan
  });
  labels.forEach((label, i) => { if (label && !outside.has(label)) mask[i] = 1; });
}

function enough(mask, shape) {
  for (const [, slice] of held(mask, shape)) if (count(slice) / slice.length < rule.LEAST_AREA) slice.fill(0);
}

/** Lungs behind the steps, in place. `hounsfield`: slice number -> a promise of its HU; null where the scan has none. */
export async function cleanLungs(mask, shape, hounsfield) {
  if (hounsfield) await density(mask, shape, hounsfield);
  for (const step of [largest, holes, enough]) if (mask.some(Boolean)) step(mask, shape);
  return mask;
}
