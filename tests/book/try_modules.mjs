// Runs the page's own modules over files that test_try.py wrote: node try_modules.mjs FOLDER SIZE, results to FOLDER.
import { openAsBlob, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { amounts, cleanLungs, implausible, warnings } from "../../book/try/cleaning.js";
import { readNifti, unpacked } from "../../book/try/nifti.js";
import { air, clipped, minmaxClahe, nearest, padded, padding, recognise, restored, toUnits, DARKEST, BRIGHTEST } from "../../book/try/prepare.js";

const [folder, told] = process.argv.slice(2), size = Number(told), found = { bounds: [DARKEST, BRIGHTEST] };
for (const name of readdirSync(folder).filter((n) => /\.nii(\.gz)?$/.test(n))) {
  try {
    const scan = readNifti(await unpacked(await openAsBlob(`${folder}/${name}`)));
    const intensity = recognise(scan.sample, scan.beside), changed = {}, [nx, ny, nz] = scan.shape;
    const pads = padding([ny, nx], [scan.spacing[1], scan.spacing[0]]), plane = size * size;
    const pictures = new Uint8Array(nz * plane), hounsfield = new Float32Array(nz * plane), back = new Uint8Array(nz * ny * nx);
    const lungs = new Uint8Array(readFileSync(`${folder}/lungs.bin`)).slice(0, nz * plane);
    for (let k = 0; k < nz; k++) {
      const picture = toUnits(scan.picture(k), nx, intensity, changed);
      pictures.set(minmaxClahe(...padded(picture, [ny, nx], pads, air(picture)), size, intensity.ends), k * plane);
      hounsfield.set(nearest(...padded(picture, [ny, nx], pads, -1000), size), k * plane);
    }
    cleanLungs(lungs, [nz, size, size], intensity.kind === "grey" ? null : (k) => hounsfield.subarray(k * plane, (k + 1) * plane));
    for (let k = 0; k < nz; k++) back.set(restored(lungs.subarray(k * plane, (k + 1) * plane), size, [ny, nx], pads), k * nx * ny);
    writeFileSync(`${folder}/${name}.pictures`, pictures);
    writeFileSync(`${folder}/${name}.lungs`, lungs);
    writeFileSync(`${folder}/${name}.mask`, scan.file(back));
    const { both } = amounts(back, back, nx, scan.millilitres);
    const odd = implausible(both, back.length * scan.millilitres);
    const { shape, spacing, axes, millilitres, notes } = scan;
    found[name] = {
      shape, spacing, axes, millilitres, notes: [...notes, ...intensity.notes, ...clipped(changed, intensity.ends)], kind: intensity.kind,
      amounts: amounts(back, back, nx, millilitres), warnings: [...odd, ...warnings(lungs, lungs, [nz, size, size])],
    };
  } catch (error) {
    found[name] = { error: error.message };
  }
}
writeFileSync(`${folder}/found.json`, JSON.stringify(found));
