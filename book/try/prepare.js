// A scan's slices as the networks expect them, and masks back at the pictures' own size.
// The same as replication/scans/prepare.py, replication/data/reading/intensity.py and OpenCV's resize and CLAHE.

export const DARKEST = -1024, BRIGHTEST = 2000; // HU: below is padding, above is metal
const GREY = [0, 255], BEYOND = 30710, NOTHING = -1000, OUTLIERS = 0.002, CONSTANT = 0.03, BONE = 300, FEW = 32, ALIKE = 0.85, HELD = 0.9;
const AIR = [-1100, -700], SOFT = [-150, 150], LEAST = [0.02, 0.08], OFFSETS = { hounsfield: 0, offset: 1024 };
const CLIP = 7, TILES = 8, SPIKE = 0.1, DARK = 0.01, PATCH = 0.001, LEAST_PATCH = 9;
const f = Math.fround;

/** Each value of sorted numbers once, and how often: [[value, count], ...]. */
function counted(sorted) {
  const out = [];
  for (const v of sorted) if (out.at(-1)?.[0] === v) out.at(-1)[1]++; else out.push([v, 1]);
  return out;
}

/** What a scan's numbers are, by where air and soft tissue lie in a sample; `beside` holds the neighbour of each voxel of it. */
export function recognise(sample, beside) {
  const finite = sample.filter(Number.isFinite).sort(), n = finite.length, notes = [];
  if (!n || n < sample.length / 2) throw new Error("most of its voxels are NaN or infinite; no CT");
  if (finite[0] === finite[n - 1]) throw new Error(`every voxel is ${finite[0]}; no CT`);
  const [low, high] = [OUTLIERS, 1 - OUTLIERS].map((q) => finite[evenly((n - 1) * q)]);
  const shares = (off) => {
    const body = finite.filter((v) => v - off >= AIR[0] && v - off <= BRIGHTEST);
    return [AIR, SOFT].map(([a, b]) => (body.length < n / 10 ? 0 : body.filter((v) => v - off >= a && v - off <= b).length / body.length));
  };
  const fitting = Object.keys(OFFSETS).filter((kind) => shares(OFFSETS[kind]).every((share, i) => share >= LEAST[i]));
  if (`${fitting}` !== "hounsfield") refuseLabels(sample, beside, counted(finite), high);
  if (low >= 0 && high <= 255) {
    notes.push(`values of ${low} to ${high}: windowed before, not Hounsfield units${high <= 1 ? ", scaled by 255" : ""}`);
    return { kind: "grey", scale: high <= 1 ? 255 : 1, ends: GREY, notes };
  }
  if (fitting.length !== 1) {
    throw new Error(`values of ${low} to ${high} are no chest in Hounsfield units, nor grey of 0 to 255. Was a slope or an intercept left out?`);
  }
  const [kind] = fitting, bone = counted(finite.filter((v) => v - OFFSETS[kind] > BONE));
  if (kind === "offset") notes.push(`values of ${low} to ${high}: Hounsfield units whose offset was left out, 1024 is taken off`);
  const often = bone.reduce((a, b) => (b[1] > a[1] ? b : a), [NaN, CONSTANT * n]);
  return { kind, scale: 1, ends: [DARKEST, BRIGHTEST], padding: often[0] - OFFSETS[kind], notes };
}

function refuseLabels(sample, beside, values, high) {
  const often = [...values].sort((a, b) => b[1] - a[1]), total = values.reduce((sum, [, n]) => sum + n, 0);
  let needed = 0, patches = 0;
  for (let sum = 0; sum < (1 - OUTLIERS) * total; needed++) sum += often[needed][1];
  if (values[0][0] >= 0 && high <= 255 && values.every(([v]) => Number.isInteger(v))) {
    const inside = [...sample.keys()].filter((i) => sample[i] !== often[0][0] && sample[i] < high);
    patches = inside.length ? inside.filter((i) => sample[i] === beside[i]).length / inside.length : 1;
  }
  const held = often.slice(0, 8).reduce((sum, [, n]) => sum + n, 0);
  if (needed <= FEW || patches >= ALIKE || held >= HELD * total) throw new Error(`a label map or mask, no CT: ${needed} values fill it. Give the scan that it was drawn on`);
}

/** Stored numbers of a picture, in place, as HU or grey between its ends; `seen` counts what was changed. */
export function toUnits(picture, columns, { kind, scale, ends: [low, high], padding }, seen = {}) {
  const { total = 0, darkest = low, brightest = high } = seen, off = OFFSETS[kind] ?? 0, least = Math.min(low, AIR[0]);
  Object.assign(seen, { none: 0, dark: 0, bright: 0, mended: 0, ...seen, total: total + picture.length, darkest, brightest });
  const unit = (i) => f(picture[i] * scale - off), none = (v) => !Number.isFinite(v) || v > BEYOND || v === padding;
  const wrong = new Uint8Array(picture.length);
  for (let i = 0; i < picture.length; i++) {
    const v = unit(i);
    wrong[i] = none(v) || v > high || v < least;
    if (none(v)) seen.none++;
    else if (v > high) [seen.bright, seen.brightest] = [seen.bright + 1, Math.max(seen.brightest, v)];
    else if (v < low) [seen.dark, seen.darkest] = [seen.dark + (v < least), Math.min(seen.darkest, v)];
  }
  if (wrong.some(Boolean)) seen.mended += fillSmall(picture, columns, wrong);
  for (let i = 0; i < picture.length; i++) {
    const v = unit(i);
    picture[i] = none(v) || v < least ? (kind === "grey" ? low : NOTHING) : Math.min(Math.max(v, low), high);
  }
  return picture;
}

/** The pixels of a picture beside one. */
function around(i, rows, columns) {
  const out = [], r = Math.floor(i / columns), c = i % columns;
  for (let y = Math.max(r - 1, 0); y <= Math.min(r + 1, rows - 1); y++) {
    for (let x = Math.max(c - 1, 0); x <= Math.min(c + 1, columns - 1); x++) if (y !== r || x !== c) out.push(y * columns + x);
  }
  return out;
}

const median = (numbers) => {
  const sorted = Float64Array.from(numbers).sort(), n = sorted.length;
  return (sorted[(n - 1) >> 1] + sorted[n >> 1]) / 2;
};

/** Fill small patches of wrong numbers, in place, from their rim inwards; returns how many pixels. */
function fillSmall(picture, columns, wrong) {
  const rows = picture.length / columns, most = Math.max(PATCH * picture.length, LEAST_PATCH), seen = wrong.slice();
  let left = [];
  for (let start = 0; start < wrong.length; start++) {
    if (!seen[start]) continue;
    const patch = [start];
    seen[start] = 0;
    for (const i of patch) for (const j of around(i, rows, columns)) if (seen[j]) { seen[j] = 0; patch.push(j); }
    if (patch.length <= most) for (const i of patch) left.push(i);
  }
  const filled = left.length;
  while (left.length) {
    const known = left.map((i) => [i, around(i, rows, columns).filter((j) => !wrong[j])]);
    const rim = known.filter(([, beside]) => beside.length).map(([i, beside]) => [i, median(beside.map((j) => picture[j]))]);
    for (const [i, v] of rim) [picture[i], wrong[i]] = [v, 0];
    left = left.filter((i) => wrong[i]);
  }
  return filled;
}

/** What `toUnits` changed, in words. */
export function clipped({ total, none, dark, bright, mended, darkest, brightest }, [low, high]) {
  const short = (v, digits) => (v < 1e-4 && v > 0 ? v.toExponential(1).replace(".0e", "e").replace(/-(\d)$/, "-0$1") : `${Number(v.toPrecision(digits))}`);
  return [
    [none, `NaN, infinite, padding or beyond ${BEYOND.toLocaleString("en")} HU, which no scanner measures: taken as air`],
    [dark, `below ${Math.min(low, AIR[0])}, down to ${short(darkest, 6)}: padding, taken as air`],
    [bright, `above ${high}, up to ${short(brightest, 6)}: metal or noise, taken as ${high}`],
  ].filter(([n]) => n).map(([n, what]) => `${n} of ${total} voxels (${short(n / total, 2)} of all) ${what}`)
    .concat(mended ? [`${mended} of these lie in small patches: filled by what is around them`] : []);
}

export const evenly = (v) => (Math.abs(v % 1) === 0.5 ? 2 * Math.round(v / 2) : Math.round(v)); // as Python rounds

/** Pixels before and after rows and columns that make a picture square in mm: [[top, bottom], [left, right]]. */
export function padding(shape, spacing) {
  const side = Math.max(...shape.map((n, i) => n * spacing[i]));
  return shape.map((n, i) => {
    const spare = evenly(side / spacing[i]) - n;
    return [Math.floor(spare / 2), spare - Math.floor(spare / 2)];
  });
}

/** A picture (rows, columns) with `value` around it: its pixels, rows and columns. */
export function padded(picture, [rows, columns], [[top, bottom], [left, right]], value) {
  const wide = left + columns + right, tall = top + rows + bottom;
  const out = new Float32Array(wide * tall).fill(value);
  for (let r = 0; r < rows; r++) out.set(picture.subarray(r * columns, (r + 1) * columns), (top + r) * wide + left);
  return [out, tall, wide];
}

const cubic = (t) => {
  const a = -0.75, u = t + 1, v = 1 - t;
  const w = [((a * u - 5 * a) * u + 8 * a) * u - 4 * a, ((a + 2) * t - (a + 3)) * t * t + 1, ((a + 2) * v - (a + 3)) * v * v + 1].map(f);
  return [...w, f(1 - w[0] - w[1] - w[2])];
};

/** Each of `lines` lines of `from` pixels as `to`, edges repeated; what comes out is transposed. */
function along(picture, lines, from, to, linear) {
  const out = new Float32Array(to * lines);
  for (let i = 0; i < to; i++) {
    const x = f((i + 0.5) * (from / to) - 0.5), at = Math.floor(x);
    const weights = linear ? [f(1 - (x - at)), f(x - at)] : cubic(f(x - at));
    const places = weights.map((_, k) => Math.min(Math.max(at + k - (linear ? 0 : 1), 0), from - 1));
    for (let line = 0; line < lines; line++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += picture[line * from + places[k]] * weights[k];
      out[i * lines + line] = sum;
    }
  }
  return out;
}

/** Resize a picture, row by row, without antialiasing, as OpenCV's INTER_CUBIC and INTER_LINEAR. */
export function resized(picture, rows, columns, tall, wide, linear = false) {
  if (rows === tall && columns === wide) return picture;
  return along(along(picture, rows, columns, wide, linear), wide, rows, tall, linear);
}

/** INTER_NEAREST, to a square. */
export function nearest(picture, rows, columns, size) {
  const from = (i, n) => Math.floor((i * n) / size);
  return Float32Array.from({ length: size * size }, (_, i) => picture[from(Math.floor(i / size), rows) * columns + from(i % size, columns)]);
}

/** What is black on a picture: its air, not its darkest pixel. */
export function air(picture) {
  const sorted = picture.slice().sort(), at = (picture.length - 1) * DARK, below = Math.floor(at);
  return sorted[below] + (at - below) * ((sorted[below + 1] ?? 0) - sorted[below]);
}

/** A picture in which each pixel that lies outside the range of its eight neighbours by more than `most` is the median of 3 x 3. */
function withoutSpikes(picture, rows, columns, most) {
  const at = (y, x) => picture[Math.min(Math.max(y, 0), rows - 1) * columns + Math.min(Math.max(x, 0), columns - 1)]; // edges repeated
  return picture.map((v, i) => {
    const r = Math.floor(i / columns), c = i % columns;
    let low = Infinity, high = -Infinity;
    for (let y = Math.max(r - 1, 0); y <= Math.min(r + 1, rows - 1); y++) {
      for (let x = Math.max(c - 1, 0); x <= Math.min(c + 1, columns - 1); x++) {
        if (y !== r || x !== c) [low, high] = [Math.min(low, picture[y * columns + x]), Math.max(high, picture[y * columns + x])];
      }
    }
    if (v <= high + most && v >= low - most) return v;
    return median([-1, 0, 1].flatMap((y) => [-1, 0, 1].map((x) => at(r + y, c + x))));
  });
}

/** Cubic resize, stretched between the ends: a padded picture as bytes. */
export function minmax(picture, rows, columns, size, [low, high]) {
  const grey = resized(withoutSpikes(picture, rows, columns, SPIKE * (high - low)), rows, columns, size, size);
  return Uint8Array.from(grey, (v) => f(Math.min(Math.max(f(f(v - low) / (high - low)), 0), 1) * 255));
}

/** Contrast-limited equalisation of a square picture in 8 x 8 tiles, as OpenCV does it: what a network sees. */
export function clahe(grey, size) {
  const tile = size / TILES, area = tile * tile, limit = Math.max(Math.floor((CLIP * area) / 256), 1);
  const tables = Array.from({ length: TILES * TILES }, (_, t) => {
    const counts = new Int32Array(256), top = Math.floor(t / TILES) * tile, left = (t % TILES) * tile;
    for (let r = 0; r < tile; r++) for (let c = 0; c < tile; c++) counts[grey[(top + r) * size + left + c]]++;
    let clipped = 0;
    counts.forEach((n, i) => { if (n > limit) { clipped += n - limit; counts[i] = limit; } });
    const each = Math.floor(clipped / 256);
    let rest = clipped - 256 * each;
    const stride = rest ? Math.max(Math.floor(256 / rest), 1) : 1;
    for (let i = 0; i < 256; i++) counts[i] += each;
    for (let i = 0; i < 256 && rest > 0; i += stride, rest--) counts[i]++;
    let sum = 0;
    return Uint8Array.from(counts, (n) => evenly(f((sum += n) * f(255 / area))));
  });
  const ends = (x) => {
    const at = f(x / tile - 0.5), one = Math.floor(at);
    return [Math.max(one, 0), Math.min(one + 1, TILES - 1), f(at - one)];
  };
  const out = new Uint8Array(size * size);
  for (let r = 0; r < size; r++) {
    const [up, down, y] = ends(r);
    for (let c = 0; c < size; c++) {
      const [left, right, x] = ends(c), v = grey[r * size + c];
      const above = tables[up * TILES + left][v] * (1 - x) + tables[up * TILES + right][v] * x;
      const below = tables[down * TILES + left][v] * (1 - x) + tables[down * TILES + right][v] * x;
      out[r * size + c] = evenly(f(above * (1 - y) + below * y));
    }
  }
  return out;
}

/** A mask (size, size) at the picture's own size: enlarged linearly, cut at a half, unpadded. */
export function restored(mask, size, [rows, columns], [[top, bottom], [left, right]]) {
  const tall = top + rows + bottom, wide = left + columns + right;
  const grown = resized(Float32Array.from(mask), size, size, tall, wide, true), out = new Uint8Array(rows * columns);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[r * columns + c] = grown[(top + r) * wide + left + c] > 0.5;
  return out;
}
