// A scan as the viewer reads it, by the rules of replication/data/reading: what it is shows in its first bytes, the header
// decides how it lies, and what cannot be told is refused.

import { recognise } from "./prepare.js";

const FORMATS = "a NIfTI, NRRD or MetaImage file, a DICOM series or a PNG slice";
const META = /^(ObjectType|NDims|Comment|BinaryData|CompressedData|TransformMatrix)/, PLACED = /^(TransformMatrix|Offset) =/gm;
const SPACE = /^space: *(right-anterior-superior|left-anterior-superior|left-posterior-superior|ras|las|lps)\s*$/im;
const UNITS = { 1: ["metres", 1000], 3: ["micrometres", 0.001] }, PLAUSIBLE = [0.05, 100]; // mm: the longest side of a voxel
const OBLIQUE = 15, SHEARED = 1; // degrees from which it is said
const START = 352; // bytes before the voxels of a mask's file
const UNPLACED = "its header does not tell how the scan lies";

/**
 * @typedef {object} Scan turned: x, y and slices count towards the patient's left, front and head
 * @property {object} volume what the viewer shows @property {object} intensity what its numbers are, see `recognise`
 * @property {number[]} shape @property {number[]} spacing in mm @property {number} millilitres of one voxel
 * @property {string} axes how it is stored, such as RAS @property {string[]} doubts @property {string[]} notes
 * @property {(k: number) => Float32Array} picture a slice row by row: spine at the bottom, the patient's right on the left
 * @property {() => {bytes: Uint8Array, write: (k: number, picture: Uint8Array) => void}} mask an empty one: a NIfTI file's bytes
 *   in the scan's own space, and what writes a slice into them
 * @property {(n: number, mask?: Uint8Array) => ArrayBuffer} fewer the scan, or such a mask of it, with every nth pixel of x and y: a NIfTI file
 */

/** @param {File[]} files one scan @param {typeof import("@niivue/niivue").NVImage} NVImage @returns {Promise<Scan>} */
export async function readScan(files, NVImage) {
  const headed = files.find((file) => /\.mhd$/i.test(file.name)), pair = files.length === 2 && headed;
  let buffer = await unpacked(pair ? headed : files[0]), kind = pair ? "mha" : files.length > 1 ? "dicom" : kindOf(buffer);
  if (kind === "dicom") [buffer, kind] = [await (await converted(files)).arrayBuffer(), "nii"];
  const text = new TextDecoder().decode(buffer.slice(0, 4096));
  if (kind === "mha" && text.match(PLACED)?.length !== 2) throw new Error(`${UNPLACED} (no TransformMatrix or Offset)`);
  if (kind === "nrrd" && !SPACE.test(text)) throw new Error(`${UNPLACED} (no space of ras, las or lps)`);
  if (kind === "nrrd" && /^(line|byte) skip: *-?[1-9]/im.test(text)) throw new Error("its header skips lines or bytes; save it again");
  const voxels = pair ? await files.find((file) => file !== headed).arrayBuffer() : null;
  const volume = await NVImage.new(buffer, `scan.${kind}`, "gray", 1, voxels).catch((error) => {
    throw new Error(`it cannot be read (${error.message ?? "no picture"}): damaged, cut short, or stored in a way the viewer does not know`);
  });
  return asScan(volume, kind, buffer, NVImage);
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

function kindOf(buffer) {
  const head = new Uint8Array(buffer, 0, Math.min(buffer.byteLength, 352)), text = String.fromCharCode(...head);
  const size = head.length > 4 && new DataView(buffer).getInt32(0, head[0] !== 0);
  if (size === 348 || size === 540) return "nii";
  if (text.startsWith("NRRD")) return "nrrd";
  if (text.startsWith("\x89PNG")) return "png";
  if (text.startsWith("DICM", 128)) return "dicom";
  if (META.test(text)) return "mha";
  throw new Error(`this is no scan that is known here; expected ${FORMATS}`);
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
  throw new Error(`no DICOM series that can be read in ${files.length} files; expected ${FORMATS}`);
}

/** @returns {Scan} */
function asScan(volume, kind, buffer, NVImage) {
  const { hdr, img } = volume, doubts = [], notes = [], stored = hdr.dims.slice(1, Math.max(hdr.dims[0], 2) + 1);
  const shape = stored.length === 4 && stored[3] === 1 ? stored.slice(0, 3) : stored, count = shape.reduce((a, b) => a * b);
  if (shape.length !== 3) throw new Error(`its shape is ${stored.join(" x ")}; expected one volume of 3 dimensions: split a series into volumes`);
  if (volume.imaginary || img.length > count) throw new Error("its voxels are colours or complex; expected one whole or real number each");
  if (img.length < count) throw new Error("it is cut short: fewer voxels than its header declares");
  if (img instanceof Float64Array) mendLast(volume, kind, buffer);
  if (stored.length === 4) notes.push("4 dimensions, the last of length 1, taken as 3");
  if (kind === "nii") settle(volume, buffer, doubts);
  if (kind === "nrrd" && !hdr.sform_code) throw new Error(`${UNPLACED} (no space directions)`);
  if (kind === "png") {
    volume.setAffine([[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]); // as radiologists look at it
    doubts.push("a picture without a spacing, taken as 1 mm: its millilitres mean nothing");
  }
  const millimetres = placed(volume, doubts, notes), [nx, ny, nz] = volume.dimsRAS.slice(1);
  const [sx, sy, sz] = volume.img2RASstep, zero = volume.img2RASstart.reduce((a, b) => a + b);
  const visit = (k, each) => { // where each pixel of slice k's picture is stored
    for (let y = ny - 1, p = 0; y >= 0; y--) for (let x = nx - 1; x >= 0; x--, p++) each(p, zero + k * sz + y * sy + x * sx);
  };
  const value = (i) => Math.fround(img[i] * hdr.scl_slope + hdr.scl_inter), every = Math.max(Math.floor(count / 2 ** 20), 1);
  const some = (first) => Float32Array.from({ length: Math.ceil((count - 1) / every) }, (_, i) => value(first + i * every));
  const intensity = recognise(some(0), some(1));
  (intensity.kind === "offset" ? doubts : notes).push(...intensity.notes);
  volume.extensions = []; // the viewer writes them into a header that does not tell of them
  return {
    volume, intensity, doubts, notes, shape: [nx, ny, nz], axes: letters(volume), ...millimetres,
    picture(k) {
      const out = new Float32Array(nx * ny);
      visit(k, (p, at) => { out[p] = value(at); });
      return out;
    },
    mask() {
      const bytes = volume.toUint8Array(new Uint8Array(count));
      return { bytes, write: (k, picture) => visit(k, (p, at) => { bytes[START + at] = picture[p]; }) };
    },
    fewer(n, mask) {
      const dims = [Math.ceil(nx / n), Math.ceil(ny / n), nz], out = new (mask ? Uint8Array : Float32Array)(dims[0] * dims[1] * nz);
      for (let k = 0, p = 0; k < nz; k++) for (let y = 0; y < ny; y += n) for (let x = 0; x < nx; x += n, p++) {
        const at = zero + k * sz + y * sy + x * sx;
        out[p] = mask ? mask[START + at] : value(at);
      }
      const affine = volume.matRAS.map((v, i) => (i % 4 < 2 ? v * n : v)), sides = [0, 1, 2].map((j) => Math.hypot(affine[j], affine[4 + j], affine[8 + j]));
      return NVImage.createNiftiArray(dims, sides, affine, mask ? 2 : 16, out).buffer; // NIfTI's numbers for bytes and for real ones
    },
  };
}

/** The viewer forgets the last voxel of 32- and 64-bit integers: taken from a NIfTI file; of others it is the one beside it. */
function mendLast({ hdr, img }, kind, buffer) {
  const last = img.length - 1, view = new DataView(buffer), little = hdr.littleEndian;
  if (kind !== "nii") return void (hdr.numBitsPerVoxel === 32 && (img[last] = img[last - 1])); // a real number has 64
  const type = view.getInt16(view.getInt32(0, little) === 540 ? 12 : 70, little);
  const read = { 8: "getInt32", 768: "getUint32", 1024: "getBigInt64" }[type];
  if (read) img[last] = Number(view[read](hdr.vox_offset + (last * hdr.numBitsPerVoxel) / 8, little));
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
  const [of_q, of_s] = [qform, sform].map((affine) => affine && (volume.setAffine(affine), letters(volume)));
  if (!sform) volume.setAffine(qform);
  if (!(qform && sform)) return;
  const apart = Math.max(...sform.flat().map((v, i) => Math.abs(v - qform.flat()[i])));
  if (apart <= 0.01 * Math.max(...[0, 1, 2].map((j) => Math.hypot(...rows.map((row) => row[j]))))) return;
  if (of_q !== of_s) throw new Error(`its qform says ${of_q}, its sform ${of_s}; chs-net segment takes it with --axes`);
  doubts.push("qform and sform differ; the sform is taken");
}

/** Where each stored axis counts towards. */
function letters({ permRAS }) {
  const out = [];
  permRAS.forEach((axis, i) => { out[Math.abs(axis) - 1] = (axis > 0 ? "RAS" : "LPI")[i]; });
  return out.join("");
}

/** Spacing and a voxel's millilitres by the affine and the header's unit. */
function placed({ matRAS, hdr }, doubts, notes) {
  const columns = [0, 1, 2].map((j) => [0, 4, 8].map((row) => matRAS[row + j])), lengths = columns.map((column) => Math.hypot(...column));
  const [a, b, c] = columns.map((column, j) => column.map((v) => v / lengths[j]));
  const dot = (p, q) => p[0] * q[0] + p[1] * q[1] + p[2] * q[2], degrees = (cosine) => (Math.acos(Math.min(Math.max(cosine, -1), 1)) * 180) / Math.PI;
  const volume = Math.abs(dot(a, [b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]])); // of the unit vectors
  if (!(volume >= 0.01) || lengths.some((v) => !(v >= 1e-4 && v <= 1e3)) || matRAS.some((v) => Math.abs(v) > 1e5)) {
    throw new Error(`${UNPLACED}: voxels of ${lengths.map((v) => v.toPrecision(3)).join(", ")} mm, or axes that fall together`);
  }
  const [unit, factor] = UNITS[hdr.xyzt_units & 7] ?? ["mm", 1], longest = Math.max(...lengths), far = longest * factor;
  const told = far >= PLAUSIBLE[0] && far <= PLAUSIBLE[1], mm = told ? factor : 1;
  if (unit !== "mm" && told) notes.push(`the header's unit is ${unit}, not mm: lengths are converted`);
  if (unit !== "mm" && !told) doubts.unshift(`the header's unit is ${unit}, of which voxels would be ${Number(longest.toPrecision(6))} long: taken as mm`);
  const shear = Math.max(...[dot(a, b), dot(a, c), dot(b, c)].map((cosine) => Math.abs(90 - degrees(cosine)))), off = degrees(Math.abs(c[2]));
  if (shear > SHEARED) doubts.push(`axes sheared by ${shear.toFixed(0)} degrees (a tilted gantry?): planes are taken as stored`);
  if (off > OBLIQUE) doubts.push(`planes lie ${off.toFixed(0)} degrees off axial; the networks know axial slices only`);
  return { spacing: lengths.map((v) => v * mm), millilitres: (volume * lengths.reduce((x, y) => x * y) * mm ** 3) / 1000 };
}
