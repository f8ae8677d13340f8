// One NIfTI file in memory: what its header says, its slices as radiologists look at them, masks in its own space.
// The rules are those of replication/data/reading: the header decides how a scan lies, and what it cannot tell is refused.

const KINDS = {
  2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 64: Float64Array,
  256: Int8Array, 512: Uint16Array, 768: Uint32Array, 1024: BigInt64Array, 1280: BigUint64Array,
};
const AXES = "LAS"; // the picture's columns, rows upwards and slices count towards these
const OBLIQUE = 15, SHEARED = 1; // degrees from which it is said
const MOST_VOXELS = 512 * 512 * 800, SIZE = 348, START = 352; // bytes of the header, and before the voxels

/**
 * @typedef {object} Scan turned: x, y and slices count towards the patient's left, front and head
 * @property {number[]} shape @property {number[]} spacing in mm @property {number} millilitres of one voxel
 * @property {string} axes how it is stored, such as RAS @property {string[]} notes
 * @property {(k: number) => Float32Array} picture a slice row by row: spine at the bottom, the patient's right on the left
 * @property {Float32Array} sample some voxels, spread over all @property {Float32Array} beside the next of each
 * @property {(mask: Uint8Array) => Uint8Array} file masks of all pictures as a NIfTI file in the scan's own space
 */

/** A NIfTI file's bytes, unpacked where they are packed. @param {Blob} file @returns {Promise<ArrayBuffer>} */
export async function unpacked(file) {
  const [first, second] = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  if (first !== 0x1f || second !== 0x8b) return file.arrayBuffer();
  try {
    return await new Response(file.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  } catch {
    throw new Error("the packed file is damaged or cut short; fetch it again");
  }
}

/** @param {ArrayBuffer} buffer @returns {Scan} */
export function readNifti(buffer) {
  const view = new DataView(buffer), long = buffer.byteLength >= SIZE;
  const little = long && view.getInt32(0, true) === SIZE;
  if (!long || view.getInt32(0, little) !== SIZE) throw new Error("this is no NIfTI-1 file; expected .nii or .nii.gz");
  const magic = String.fromCharCode(...new Uint8Array(buffer, 344, 3));
  if (magic !== "n+1") throw new Error(`its magic is ${magic}; expected one NIfTI file with its voxels`);
  const float = (at) => view.getFloat32(at, little), short = (at) => view.getInt16(at, little);
  const stored = Array.from({ length: Math.max(0, Math.min(short(40), 7)) }, (_, i) => short(42 + 2 * i));
  const shape = stored.length === 4 && stored[3] === 1 ? stored.slice(0, 3) : stored;
  if (shape.length !== 3 || Math.min(...shape) < 1) {
    throw new Error(`its shape is ${stored.join(" x ")}; expected one volume of 3 dimensions: split a series into volumes`);
  }
  const [code, bits, offset] = [short(70), short(72), float(108)], Kind = KINDS[code];
  if (!Kind) throw new Error(`voxels of NIfTI's type ${code}; expected whole or real numbers of up to 64 bits`);
  if (bits !== 8 * Kind.BYTES_PER_ELEMENT) throw new Error(`its header gives ${bits} bits to voxels of type ${code}`);
  if (!(offset >= START && Number.isInteger(offset))) throw new Error(`its header puts the voxels at byte ${offset}`);
  const count = shape[0] * shape[1] * shape[2], end = offset + (count * bits) / 8;
  if (count > MOST_VOXELS) throw new Error(`${shape.join(" x ")} voxels are more than a browser holds; chs-net segment takes them`);
  if (end > buffer.byteLength) throw new Error("it is cut short: fewer voxels than its header declares");

  const bytes = new Uint8Array(buffer.slice(offset, end)), wide = bits / 8;
  for (let i = 0; !little && i < bytes.length; i += wide) bytes.subarray(i, i + wide).reverse();
  const data = new Kind(bytes.buffer);
  const scaled = float(112) !== 0 && Number.isFinite(float(112)), [slope, inter] = scaled ? [float(112), float(116)] : [1, 0];
  const value = (i) => Math.fround(Number(data[i]) * slope + inter);

  const notes = stored.length === 4 ? ["4 dimensions, the last of length 1, taken as 3"] : [];
  const affine = placed(short, float, notes), lies = orientation(affine, notes);
  const strides = [1, shape[0], shape[0] * shape[1]], [nx, ny, nz] = lies.order.map((axis) => shape[axis]);
  const [sx, sy, sz] = lies.order.map((axis, i) => strides[axis] * lies.signs[i]);
  const zero = lies.order.reduce((sum, axis, i) => sum + (lies.signs[i] < 0 ? (shape[axis] - 1) * strides[axis] : 0), 0);
  const visit = (k, each) => { // where each pixel of slice k's picture is stored
    for (let r = 0, p = 0; r < ny; r++) for (let c = 0; c < nx; c++, p++) each(p, zero + k * sz + (ny - 1 - r) * sy + c * sx);
  };
  const every = Math.max(Math.floor(count / 2 ** 20), 1);
  const some = (first) => Float32Array.from({ length: Math.ceil((count - 1) / every) }, (_, i) => value(first + i * every));
  return {
    shape: [nx, ny, nz], spacing: lies.order.map((axis) => lies.lengths[axis]), axes: lies.axes, notes,
    millilitres: Math.abs(determinant(affine)) / 1000,
    picture(k) {
      const out = new Float32Array(nx * ny);
      visit(k, (p, at) => { out[p] = value(at); });
      return out;
    },
    sample: some(0), beside: some(1),
    file(mask) {
      const out = new Uint8Array(START + count), head = new DataView(out.buffer);
      out.set(new Uint8Array(buffer, 0, SIZE));
      for (const [at, v] of [[70, 2], [72, 8]]) head.setInt16(at, v, little);
      for (const [at, v] of [[108, START], [112, 1], [116, 0], [124, 0], [128, 0]]) head.setFloat32(at, v, little);
      for (let k = 0; k < nz; k++) visit(k, (p, at) => { out[START + at] = mask[k * nx * ny + p]; });
      return out;
    },
  };
}

/** Rows of the affine: the sform where it is set, else the qform; refused where neither is, or both disagree. */
function placed(short, float, notes) {
  const codes = [short(252), short(254)], unknown = "its header does not tell how the scan lies";
  if (!codes.some(Boolean) || codes.some((c) => c < 0 || c > 5)) {
    throw new Error(`${unknown} (no qform or sform); chs-net segment takes it with --axes`);
  }
  const sform = codes[1] && [280, 296, 312].map((row) => [0, 4, 8, 12].map((at) => float(row + at)));
  const qform = codes[0] && fromQuaternion(float), affine = sform || qform;
  if (!affine || affine.flat().some((v) => !(Math.abs(v) <= 1e5))) throw new Error(`${unknown}: the affine is not finite, or beyond 100 m`);
  const far = sform && qform ? Math.max(...sform.flat().map((v, i) => Math.abs(v - qform.flat()[i]))) : 0;
  if (far > 1e-2 * Math.max(...orientation(affine, []).lengths)) {
    const [of_s, of_q] = [sform, qform].map((form) => orientation(form, []).axes);
    if (of_s !== of_q) throw new Error(`its qform says ${of_q}, its sform ${of_s}; chs-net segment takes it with --axes`);
    notes.push("qform and sform differ; the sform is taken");
  }
  return affine;
}

function fromQuaternion(float) {
  const [b, c, d, x, y, z] = [256, 260, 264, 268, 272, 276].map(float), [flip, ...mm] = [76, 80, 84, 88].map(float);
  const rest = 1 - (b * b + c * c + d * d), a = Math.sqrt(Math.max(rest, 0));
  if (Math.abs(flip) !== 1 || mm.some((v) => !(v >= 0)) || rest < -1e-6) return null;
  return [
    [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c), x],
    [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b), y],
    [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c, z],
  ].map((row) => [row[0] * mm[0], row[1] * mm[1], row[2] * mm[2] * flip, row[3]]);
}

function determinant([[a, b, c], [d, e, f], [g, h, i]]) {
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}

/** Which stored axis counts towards the patient's left, front and head, and from which end. */
function orientation(affine, notes) {
  const column = (j) => affine.map((row) => row[j]);
  const lengths = [0, 1, 2].map((j) => Math.hypot(...column(j)));
  if (lengths.some((v) => !(v >= 1e-4 && v <= 1e3))) throw new Error(`its header gives voxels of ${lengths.map((v) => v.toPrecision(3)).join(", ")} mm`);
  const units = [0, 1, 2].map((j) => column(j).map((v) => v / lengths[j]));
  if (Math.abs(determinant(units)) < 1e-2) throw new Error("its header does not tell how the scan lies: the affine is singular");
  const order = [], signs = [], names = [];
  const sorted = [0, 1, 2].sort((a, b) => Math.max(...units[b].map(Math.abs)) - Math.max(...units[a].map(Math.abs)));
  for (const axis of sorted) {
    const free = [0, 1, 2].filter((w) => order[w] === undefined);
    const world = free.reduce((best, w) => (Math.abs(units[axis][w]) > Math.abs(units[axis][best]) ? w : best));
    const letter = ["LR", "PA", "IS"][world][units[axis][world] > 0 ? 1 : 0];
    order[world] = axis;
    signs[world] = letter === AXES[world] ? 1 : -1;
    names[axis] = letter;
  }
  const degrees = (cos) => (Math.acos(Math.min(Math.max(cos, -1), 1)) * 180) / Math.PI;
  const dot = (p, q) => p.reduce((sum, v, i) => sum + v * q[i], 0);
  const shear = Math.max(...[[0, 1], [0, 2], [1, 2]].map(([p, q]) => Math.abs(90 - degrees(dot(units[p], units[q])))));
  if (shear > SHEARED) notes.push(`axes sheared by ${shear.toFixed(0)} degrees (a tilted gantry?): planes are taken as stored`);
  const off = degrees(Math.abs(units[order[2]][2]));
  if (off > OBLIQUE) notes.push(`planes lie ${off.toFixed(0)} degrees off axial; the networks know axial slices only`);
  return { order, signs, lengths, axes: names.join("") };
}
