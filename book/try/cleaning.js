// What is done to predicted lungs in three dimensions, as replication/scans/cleaning.py does it, and what a report says.

const GAS = -960, FAT = [-160, -30], DOUBT = 0.2, SMALLEST = 0.1, LEAST_AREA = 0.002;
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

function density(mask, [slices, rows, columns], hounsfield) {
  const plane = rows * columns;
  for (let k = 0; k < slices; k++) {
    const slice = mask.subarray(k * plane, (k + 1) * plane);
    if (!slice.some(Boolean)) continue;
    const { labels, sizes } = bodies(slice, [1, rows, columns]), patches = sizes.map(() => []), hu = hounsfield(k);
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

/** Lungs behind the steps, in place. `hounsfield`: slice number -> its HU; null where the scan has none. */
export function cleanLungs(mask, shape, hounsfield) {
  if (hounsfield) density(mask, shape, hounsfield);
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

/** Millilitres and shares of both lungs and by side. Masks as the scan's pictures; the patient's right is on the left. */
export function amounts(lungs, infection, columns, millilitres) {
  const [lung, ill] = [lungs, infection].map((mask) => {
    const sums = new Float64Array(columns);
    mask.forEach((v, i) => { sums[i % columns] += v; });
    return sums;
  });
  const held = [...lung.keys()].filter((c) => lung[c]), first = held[0] ?? columns, last = held.at(-1) ?? columns;
  const third = Math.floor((last - first + 1) / 3), low = first + third, high = Math.max(last - third, low) + 1;
  let middle = held.length ? low : columns >> 1; // the least lung in the middle third
  for (let c = low; held.length && c < high; c++) if (lung[c] < lung[middle]) middle = c;
  const of = (from, to) => {
    const [whole, part] = [lung, ill].map((sums) => sums.subarray(from, to).reduce((a, b) => a + b, 0) * millilitres);
    return { lungs_ml: whole, infection_ml: part, infected_share: whole ? part / whole : null };
  };
  return { both: of(0, columns), right: of(0, middle), left: of(middle, columns) };
}
