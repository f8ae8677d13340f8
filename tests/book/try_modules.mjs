// Runs the page's own modules over files that test_try_modules.py wrote: node try_modules.mjs FOLDER SIZE VIEWER, results to FOLDER.
import { openAsBlob, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { amounts, cleanLungs, hardlyDiffer, implausible, tallies, warnings } from "../../book/try/cleaning.js";
import { air, clahe, clipped, minmax, nearest, padded, padding, restored, toUnits, DARKEST, BRIGHTEST } from "../../book/try/prepare.js";
import { readScan } from "../../book/try/scan.js";

const [folder, told, viewer] = process.argv.slice(2), size = Number(told), found = { bounds: [DARKEST, BRIGHTEST] };
const { NVImage } = await import(viewer);
const pairs = { "pair.mhd": "pair.raw" };
for (const name of readdirSync(folder).filter((n) => /\.(nii(\.gz)?|nrrd|mha|mhd)$/.test(n))) {
  try {
    const files = [name, pairs[name]].filter(Boolean).map(async (part) => new File([await openAsBlob(`${folder}/${part}`)], part));
    const scan = await readScan(await Promise.all(files), NVImage), { intensity, millilitres } = scan;
    const [nx, ny, nz] = scan.shape, pads = padding([ny, nx], [scan.spacing[1], scan.spacing[0]]), plane = size * size, changed = {};
    const greys = new Uint8Array(nz * plane), pictures = greys.slice(), hounsfield = new Float32Array(nz * plane), mask = scan.mask(), tally = tallies(nx);
    const lungs = new Uint8Array(readFileSync(`${folder}/lungs.bin`)).slice(0, nz * plane), part = (all, k) => all.subarray(k * plane, (k + 1) * plane);
    for (let k = 0; k < nz; k++) {
      const picture = toUnits(scan.picture(k), nx, intensity, changed);
      part(greys, k).set(minmax(...padded(picture, [ny, nx], pads, air(picture)), size, intensity.ends));
      part(pictures, k).set(clahe(part(greys, k), size));
      part(hounsfield, k).set(nearest(...padded(picture, [ny, nx], pads, -1000), size));
    }
    const known = intensity.kind !== "grey"; // else all of the lungs are called infected
    await cleanLungs(lungs, [nz, size, size], known ? async (k) => part(hounsfield, k) : null);
    for (let k = 0; k < nz; k++) {
      const back = restored(part(lungs, k), size, [ny, nx], pads), ill = back.map((v, i) => v & (!known || i % 3 === 0));
      mask.write(k, back);
      tally.add(back, ill, known && toUnits(scan.picture(k), nx, intensity));
    }
    writeFileSync(`${folder}/${name}.greys`, greys);
    writeFileSync(`${folder}/${name}.pictures`, pictures);
    writeFileSync(`${folder}/${name}.lungs`, lungs);
    writeFileSync(`${folder}/${name}.mask`, mask.bytes);
    writeFileSync(`${folder}/${name}.fewer`, Buffer.from(scan.fewer(2)));
    writeFileSync(`${folder}/${name}.fewer-mask`, Buffer.from(scan.fewer(2, mask.bytes)));
    const { shape, spacing, axes, doubts, notes } = scan, found_ml = amounts(tally, millilitres);
    found[name] = {
      shape, spacing, axes, kind: intensity.kind, doubts, notes: [...notes, ...clipped(changed, intensity.ends)], amounts: found_ml,
      warnings: [...implausible(found_ml.both, nx * ny * nz * millilitres), ...warnings(lungs, lungs, [nz, size, size]), ...hardlyDiffer(tally)],
    };
  } catch (error) {
    found[name] = { error: error.message };
  }
}
writeFileSync(`${folder}/found.json`, JSON.stringify(found));
