// A scan as the viewer reads it, by the rules of replication/data/reading: what it is shows in its first bytes, the header
// decides how it lies, and what cannot be told is refused.

import { recognise } from "./intensity.js";
import { kinds, scan as rule } from "./rules.js";

const EXPECTED = "expected a NIfTI, NRRD or MetaImage file, a DICOM series or a grey picture";
const READ_AS = { nifti: "nii", nrrd: "nrrd", metaimage: "mha" }; // by the viewer
const SPACE = /^space: *(right-anterior-superior|left-anterior-superior|left-posterior-superior|ras|las|lps)\s*$/im;
const ELSEWHERE = /^(data ?file: *|ElementDataFile *=(?! *LOCAL) *)(.*)\n*/im; // the file that a header's voxels are in
const UNPLACED = "its header does not tell how the scan lies", COLOURS = "its voxels are colours or complex; expected one whole or real number each";
const WINDOW = [-1250, 250], BYTES = 2; // HU that are black and white on the screen; NIfTI's number of the type

/**
 * @typedef {object} Scan turned: x, y and slices count towards the patient's left, front and head
 * @property {object} intensity what its numbers are, see `recognise`
 * @property {number[]} shape @property {number[]} spacing in mm @property {number} millilitres of one voxel
 * @property {string} axes how it is stored, such as RAS @property {string[]} doubts @property {string[]} notes
 * @property {(k: number) => Float32Array} picture a slice row by row: spine at the bottom, the patient's right on the left
 * @property {(mask: Uint8Array) => Uint8Array} saved a mask of the turned voxels, as a NIfTI file in the scan's own space
 * @property {(n: number, mask?: Uint8Array) => ArrayBuffer} shown the scan in grey, or such a mask, with every nth pixel of x and y:
 *   a NIfTI file
 */

/** @param {File[]} files one scan @returns {Promise<Scan>} */
export async function readScan(files) {
  const { NVImage } = await import("./runtime/niivue.js");
  const header = files.length === 2 && files.find(({ name }) => /\.(mhd|nhdr|hdr)$/i.test(name)), first = header || files[0];
  let buffer = await unpacked(first), kind = files.length > 1 && !header ? "dicom" : kindOf(buffer), voxels = null;
  const drawn = kind === "picture";
  if (kind === "dicom") [buffer, kind] = [await (await converted(files)).arrayBuffer(), "nifti"];
  if (drawn) [buffer, kind] = [await fromPicture(first, NVImage), "nifti"];
  if (!READ_AS[kind]) throw new Error(`${kinds.OTHERS[kind]}; ${EXPECTED}`);
  const text = kind === "nifti" ? "" : new TextDecoder("latin1").decode(buffer.slice(0, 4096)), [line, , elsewhere] = text.match(ELSEWHERE) ?? [];
  if (line && !header) throw new Error(`its voxels are in another file, ${elsewhere.trim()}: give both at once`);
  if (header) voxels = await files.find((file) => file !== header).arrayBuffer();
  if (header && kind === "nrrd") [buffer, voxels] = [await new Blob([text.replace(line, "").trimEnd(), "\n\n", voxels]).arrayBuffer(), null];
  if (kind === "metaimage" && !(/^TransformMatrix =/m.test(text) && /^Offset =/m.test(text))) throw new Error(`${UNPLACED} (no TransformMatrix or Offset)`);
  if (kind === "nrrd" && !SPACE.test(text)) throw new Error(`${UNPLACED} (no space of ras, las or lps)`);
  if (kind === "nrrd" && /^(line|byte) skip: *-?[1-9]/im.test(text)) throw new Error("its header skips lines or bytes; save it again");
  const volume = await NVImage.new(buffer, `scan.${READ_AS[kind]}`, "gray", 1, voxels).catch((error) => {
    throw new Error(`it cannot be read (${error.message ?? "no picture"}): damaged, cut short, or stored in a way the viewer does not know`);
  });
  const doubts = drawn ? ["a picture without a spacing, taken as 1 mm: its millilitres mean nothing"] : [];
  if (kind === "nifti") settle(volume, buffer, doubts);
  if (kind === "nrrd" && !volume.hdr.sform_code) throw new Error(`${UNPLACED} (no space directions)`);
  return asScan(volume, doubts, NVImage);
}

/** A worker by its path from here: started from a blob, it is under the page's own policy, no other host. */
export function workerOf(path) {
  const code = `import ${JSON.stringify(new URL(path, import.meta.url).href)};`;
  return new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
}

/** A file's bytes, unpacked where they are packed. @param {Blob} file @returns {Promise<ArrayBuffer>} */
async function unpacked(file) {
  const [first, second] = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  if (first !== 0x1f || second !== 0x8b) return file.arrayBuffer();
  try {
    return await new Response(file.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  } catch {
    throw new Error("the packed file is damaged or cut short, or too large to unpack here; fetch it again");
  }
}

/** What a file is, by the first bytes of replication/data/reading/kinds.py. */
function kindOf(buffer) {
  const head = String.fromCharCode(...new Uint8Array(buffer.slice(0, 352)));
  const sizes = buffer.byteLength < 4 ? [] : [true, false].map((little) => new DataView(buffer).getInt32(0, little));
  const magic = kinds.MAGIC.find(([at, bytes]) => head.startsWith(bytes, at));
  if (magic) return magic[2];
  if (kinds.META.some((key) => head.startsWith(key))) return "metaimage";
  if (sizes.some((size) => size === 348 || size === 540)) return buffer.byteLength > 540 ? "nifti" : "pair";
  return head ? "unknown" : "empty";
}

/** A grey picture, as radiologists look at it, as a NIfTI file. */
async function fromPicture(file, NVImage) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }), { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height).getContext("2d");
  canvas.drawImage(bitmap, 0, 0);
  const { data } = canvas.getImageData(0, 0, width, height), grey = data.filter((_, i) => i % 4 === 0);
  if (data.some((v, i) => i % 4 < 3 && v !== grey[i >> 2])) throw new Error(COLOURS);
  const looked_at = [-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
  return NVImage.createNiftiArray([width, height, 1], [1, 1, 1], looked_at, BYTES, grey).buffer;
}

/** A DICOM series as a NIfTI file, by dcm2niix in a worker of its own. @param {File[]} files @returns {Promise<File>} */
async function converted(files) {
  const { Dcm2niix } = await import("./runtime/dcm2niix/index.jpeg.js"), reader = new Dcm2niix();
  reader.worker = workerOf("runtime/dcm2niix/worker.jpeg.js");
  try {
    await new Promise((ready, failed) => Object.assign(reader.worker, { onmessage: ready, onerror: () => failed(new Error("the reader of DICOM did not start")) }));
    const all = await reader.input(files).b("n").z("n").f("%s_%d").run().catch(() => []); // an error where there is no series
    const made = all.filter(({ name }) => name.endsWith(".nii"));
    if (made.length === 1) return made[0];
    if (made.length) throw new Error(`${made.length} volumes (${made.map(({ name }) => name).join(", ")}): give the files of one series, evenly spaced`);
  } finally {
    reader.worker.terminate();
  }
  throw new Error(`no DICOM series that can be read in ${files.length} files; ${EXPECTED}`);
}

/** @returns {Scan} */
function asScan(volume, doubts, NVImage) {
  const { hdr, img } = volume, notes = [], stored = hdr.dims.slice(1, Math.max(hdr.dims[0], 2) + 1);
  const shape = stored.length === 4 && stored[3] === 1 ? stored.slice(0, 3) : stored, count = shape.reduce((a, b) => a * b);
  if (shape.length !== 3) throw new Error(`its shape is ${stored.join(" x ")}; expected one volume of 3 dimensions: split a series into volumes`);
  if (volume.imaginary || img.length > count) throw new Error(COLOURS);
  if (img.length < count) throw new Error("it is cut short: fewer voxels than its header declares");
  if (stored.length === 4) notes.push("4 dimensions, the last of length 1, taken as 3");
  const millimetres = placed(volume, doubts, notes), [nx, ny, nz] = volume.dimsRAS.slice(1), plane = nx * ny;
  const value = (v) => Math.fround(v * hdr.scl_slope + hdr.scl_inter), every = Math.max(Math.floor(count / rule.SAMPLED), 1);
  const some = (first) => Float32Array.from({ length: Math.ceil((count - 1) / every) }, (_, i) => value(img[first + i * every]));
  const turned = volume.img2RAS(), edge = (i) => Math.floor(i / 4) * plane + (i & 1) * (nx - 1) + ((i >> 1) & 1) * (plane - nx);
  const intensity = recognise(some(0), some(1), Float32Array.from({ length: 4 * nz }, (_, i) => value(turned[edge(i)])));
  (intensity.kind === "offset" ? doubts : notes).push(...intensity.notes);
  volume.extensions = []; // the viewer writes them into a header that does not tell of them
  volume.img = null; // nor is it needed any more
  return {
    intensity, doubts, notes, shape: [nx, ny, nz], axes: letters(volume), ...millimetres,
    picture: (k) => Float32Array.from(turned.subarray(k * plane, (k + 1) * plane), value).reverse(),
    saved: (mask) => volume.toUint8Array(mask),
    shown(n, mask) {
      const dims = [Math.ceil(nx / n), Math.ceil(ny / n), nz], out = new Uint8ClampedArray(dims[0] * dims[1] * nz);
      const [low, high] = intensity.kind === "grey" ? intensity.ends : WINDOW, { scale, offset } = intensity;
      for (let k = 0, p = 0; k < nz; k++) for (let y = 0; y < ny; y += n) for (let x = 0; x < nx; x += n, p++) {
        const at = (k * ny + y) * nx + x;
        out[p] = mask ? mask[at] : (255 * (value(turned[at]) * scale - offset - low)) / (high - low);
      }
      const affine = volume.matRAS.map((v, i) => (i % 4 < 2 ? v * n : v)), sides = [0, 1, 2].map((j) => Math.hypot(affine[j], affine[4 + j], affine[8 + j]));
      return NVImage.createNiftiArray(dims, sides, affine, BYTES, out).buffer;
    },
  };
}

/** How a NIfTI file lies and is scaled, as nibabel has it: the sform before the qform, no intercept without a slope. */
function settle(volume, buffer, doubts) {
  const { hdr } = volume, view = new DataView(buffer), second = view.getInt32(0, hdr.littleEndian) === 540;
  const real = (at, in2) => (second ? view.getFloat64(in2, hdr.littleEndian) : view.getFloat32(at, hdr.littleEndian));
  const codes = [hdr.qform_code, hdr.sform_code], turn = hdr.quatern_b ** 2 + hdr.quatern_c ** 2 + hdr.quatern_d ** 2;
  const rows = [0, 1, 2].map((row) => [0, 1, 2, 3].map((i) => real(280 + 16 * row + 4 * i, 400 + 32 * row + 8 * i)));
  const qform = codes[0] && turn < 1 + 1e-6 && hdr.getQformMat(), sform = codes[1] && [...rows, [0, 0, 0, 1]];
  if (!(qform || sform) || codes.some((code) => code < 0 || code > 5)) throw new Error(`${UNPLACED} (no qform or sform); chs-net segment takes it with --axes`);
  if (!real(112, 176)) hdr.scl_inter = 0;
  const axesOf = (affine) => affine && (volume.setAffine(affine), geometry(volume.matRAS) && letters(volume)), of_q = axesOf(qform), of_s = axesOf(sform);
  if (of_q && !of_s) volume.setAffine(qform);
  if (of_q && sform && !of_s) doubts.push("the sform is none that can be; the qform is taken");
  if (!of_q || !of_s) return;
  const apart = Math.max(...sform.flat().map((v, i) => Math.abs(v - qform.flat()[i])));
  if (apart <= 0.01 * Math.max(...geometry(volume.matRAS).lengths)) return;
  if (of_q !== of_s) throw new Error(`its qform says ${of_q}, its sform ${of_s}; chs-net segment takes it with --axes`);
  doubts.push("qform and sform differ; the sform is taken");
}

/** Where each stored axis counts towards. */
function letters({ permRAS }) {
  const out = [];
  permRAS.forEach((axis, i) => { out[Math.abs(axis) - 1] = (axis > 0 ? "RAS" : "LPI")[i]; });
  return out.join("");
}

/** Lengths and angles (degrees) of an affine's axes, the last of which is that of the slices; null where it can be none. */
function geometry(affine) {
  const columns = [0, 1, 2].map((j) => [0, 4, 8].map((row) => affine[row + j])), lengths = columns.map((column) => Math.hypot(...column));
  const [a, b, c] = columns.map((column, j) => column.map((v) => v / lengths[j]));
  const dot = (p, q) => p[0] * q[0] + p[1] * q[1] + p[2] * q[2], degrees = (cosine) => (Math.acos(Math.min(Math.max(cosine, -1), 1)) * 180) / Math.PI;
  const volume = Math.abs(dot(a, [b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]])); // of the unit vectors
  if (!(volume >= 0.01) || lengths.some((v) => !(v >= 1e-4 && v <= 1e3)) || affine.some((v) => Math.abs(v) > 1e5)) return null;
  const shear = Math.max(...[dot(a, b), dot(a, c), dot(b, c)].map((cosine) => Math.abs(90 - degrees(cosine))));
  return { lengths, volume: volume * lengths.reduce((x, y) => x * y), shear, off: degrees(Math.abs(c[2])) };
}

/** Spacing and a voxel's millilitres by the affine and the header's unit, unless only another fits a CT. */
function placed({ matRAS, hdr }, doubts, notes) {
  const told = geometry(matRAS), units = rule.UNITS, named = units[hdr.xyzt_units & 7] ?? units[2];
  if (!told) throw new Error(`${UNPLACED}: voxels of no length, or axes that fall together`);
  const { lengths, volume, shear, off } = told, longest = Math.max(...lengths), [least, most] = rule.PLAUSIBLE;
  const [unit, mm] = [named, units[2], units[1], units[3]].find(([, factor]) => longest * factor >= least && longest * factor <= most) ?? units[2];
  if (unit !== named[0]) doubts.unshift(`the header's unit is ${named[0]}, of which voxels would be ${Number(longest.toPrecision(6))} long: taken as ${unit}`);
  else if (mm !== 1) notes.push(`the header's unit is ${unit}, not mm: lengths are converted`);
  if (shear > rule.SHEARED) doubts.push(`axes sheared by ${shear.toFixed(0)} degrees (a tilted gantry?): planes are taken as stored`);
  if (off > rule.OBLIQUE) doubts.push(`planes lie ${off.toFixed(0)} degrees off axial; the networks know axial slices only`);
  return { spacing: lengths.map((v) => v * mm), millilitres: (volume * mm ** 3) / 1000 };
}
