// One scan through the cascade, slice by slice, away from the page: pictures, lungs, cleaned, infection, masks. It holds what
// the networks see; a slice of the scan itself is asked of the page when it is needed.

import { amounts, cleanLungs, hardlyDiffer, implausible, tallies, warnings } from "./cleaning.js";
import { air, clahe, clipped, minmax, nearest, padded, padding, restored, toUnits } from "./prepare.js";

const at = (path) => new URL(path, import.meta.url).href;
const RUNTIMES = { // names of onnxruntime-web's builds; that for graphics cards weighs twice as much
  webgpu: ["runtime/ort.webgpu.bundle.min.mjs", "runtime/ort-wasm-simd-threaded.asyncify.wasm"],
  wasm: ["runtime/ort.wasm.bundle.min.mjs", "runtime/ort-wasm-simd-threaded.wasm"],
};
let given; // what waits for the slice that was asked for

const say = (step, done = 0, left = 0) => postMessage({ step, done, left });
const stored = (k) => new Promise((resolve) => { given = resolve; postMessage({ wanted: k }); });

/** Both networks: bytes of a square slice -> its mask. WebAssembly has threads where the site isolates its pages, else one. */
async function load(provider, size) {
  const [code, wasm] = RUNTIMES[provider].map(at), ort = await import(code), found = [];
  ort.env.wasm.wasmPaths = { wasm };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1;
  for (const name of ["lungs", "infection"]) {
    found.push(await ort.InferenceSession.create(at(`networks/${name}.onnx`), { executionProviders: [provider] }));
  }
  return found.map((session) => async (bytes) => {
    const slices = new ort.Tensor("float32", Float32Array.from(bytes, (v) => v / 255), [1, 1, size, size]);
    const { logits } = await session.run({ slices });
    return Uint8Array.from(logits.data, (v) => v > 0);
  });
}

async function segment({ shape: [columns, rows, depth], spacing, millilitres, intensity, size }, provider) {
  const shape = [rows, columns], whole = [depth, size, size], plane = size * size, pads = padding(shape, [spacing[1], spacing[0]]);
  const pixels = async (k, seen) => toUnits(await stored(k), columns, intensity, seen), part = (mask, k) => mask.subarray(k * plane, (k + 1) * plane);
  say("loading the networks");
  const [findLungs, findInfection] = await load(provider, size), changed = {};

  const pictures = new Uint8Array(depth * plane), lungs = new Uint8Array(depth * plane), infection = new Uint8Array(depth * plane);
  for (let k = 0; k < depth; k++) {
    say("lungs", k, 2 * depth - k);
    const picture = await pixels(k, changed);
    part(pictures, k).set(clahe(minmax(...padded(picture, shape, pads, air(picture)), size, intensity.ends), size));
    part(lungs, k).set(await findLungs(part(pictures, k)));
  }
  const units = intensity.kind === "grey" ? null : async (k) => nearest(...padded(await pixels(k), shape, pads, -1000), size);
  await cleanLungs(lungs, whole, units);
  const seen = [...Array(depth).keys()].filter((k) => part(lungs, k).some(Boolean)), tally = tallies(columns);
  for (const [done, k] of seen.entries()) {
    say("infection", depth + done, seen.length - done);
    const inside = await findInfection(part(pictures, k).map((v, i) => v * part(lungs, k)[i]));
    part(infection, k).set(inside.map((v, i) => v & part(lungs, k)[i]));
    const masks = [lungs, infection].map((mask) => restored(part(mask, k), size, shape, pads));
    tally.add(...masks, units && await pixels(k));
    postMessage({ slice: k, masks }, masks.map(({ buffer }) => buffer));
  }
  const found = amounts(tally, millilitres), odd = implausible(found.both, depth * rows * columns * millilitres);
  const noted = clipped(changed, intensity.ends), ends = warnings(lungs, infection, whole);
  return { amounts: found, odd, warnings: [...noted, ...ends, ...hardlyDiffer(tally)] };
}

/** On the graphics card where there is one; where that fails, and everywhere else, on WebAssembly. */
async function run(scan) {
  if (await navigator.gpu?.requestAdapter().catch(() => null)) {
    try {
      return await segment(scan, "webgpu");
    } catch (error) {
      postMessage({ told: `The graphics card did not do it (${error.message}); the processor does.` });
    }
  }
  return segment(scan, "wasm");
}

onmessage = ({ data }) => {
  if (data.picture) given(data.picture);
  else run(data).then((found) => postMessage({ found }), (error) => postMessage({ error: error.message }));
};
