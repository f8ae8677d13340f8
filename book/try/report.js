// What a report says of masks, in the words of replication/scans: segment.py, plausibility.py, density.py and report.py.

import { count, held } from "./cleaning.js";
import { evenly } from "./intensity.js";
import { density as dense, plausibility as rule } from "./rules.js";

/** What a reader of the masks has to know. Masks as the networks see them: (slices, rows, columns). */
export function warnings(lungs, infection, shape) {
  const found = held(lungs, shape), ends = { lowest: found[0], highest: found.at(-1) }, out = [];
  if (!found.length) return ["no lung was found: no chest, the wrong way up, a wrong preparation, or weights that learnt nothing"];
  for (const [end, [k, slice]] of Object.entries(ends)) {
    if ((k === 0 || k === shape[0] - 1) && count(slice) / slice.length > 0.02) out.push(`the ${end} slice still holds lung: the scan does not show all of it`);
  }
  if (infection.some(Boolean)) out.push("the networks never saw a slice without infection: they find some in healthy lungs too");
  return out;
}

/** What cannot be, or hardly, of the amounts of both lungs. */
export function implausible({ lungs_ml: lungs, infection_ml: infection }, scan) {
  const { FULL, MOST, LEAST, CONSUMED, CAUSES } = rule, out = [];
  if (lungs > FULL * scan) out.push(`${((100 * lungs) / scan).toFixed(0)}% of all voxels are called lung: ${CAUSES}`);
  else if (lungs > MOST) out.push(`lungs of ${(lungs / 1000).toFixed(0)} l; no body has more than ${MOST / 1000}: ${CAUSES}`);
  else if (lungs > 0 && lungs < LEAST) {
    out.push(`lungs of ${lungs.toFixed(0)} ml; an adult keeps ${LEAST} after breathing out: a child, part of a chest, or lungs that were missed`);
  }
  if (lungs && infection > CONSUMED * lungs) out.push(`${((100 * infection) / lungs).toFixed(0)}% of the lungs are called infected: ${CAUSES}`);
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

/** Whether what is called infected is as dense as the lungs around it. */
export function hardlyDiffer({ densities }) {
  if (densities.some((counts) => !counts.size)) return [];
  const [[, infected], [low, rest, high]] = densities.map(quartiles), whole = (v) => evenly(v).toFixed(0);
  if (infected >= dense.AERATED && infected > high) return [];
  return [`what is called infected is hardly denser than the rest of the lungs: median ${whole(infected)} HU, elsewhere ${whole(rest)} (quartiles ${whole(low)} to ${whole(high)}). Below ${dense.AERATED} HU lung is well aerated (after Colombi et al. 2020, doi 10.1148/radiol.2020201433); it may well be healthy`];
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
