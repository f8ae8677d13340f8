// One scan through the cascade, slice by slice, away from the page: pictures, lungs, cleaned, infection, masks.

import { amounts, cleanLungs, implausible, warnings } from "./cleaning.js";
import { readNifti, unpacked } from "./nifti.js";
import { air, clipped, minmaxClahe, nearest, padded, padding, recognise, restored, toUnits } from "./prepare.js";

const at = (path) => new URL(path, import.meta.url).href;

/** A session for each network, on WebAssembly: threads where the site isolates its pages, else one. */
async function load(networks) {
  const ort = await import(at("runtime/ort.wasm.bundle.min.mjs")), found = [];
  ort.env.wasm.wasmPaths = { wasm: at("runtime/ort-wasm-simd-threaded.wasm") };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1;
  for (const name of networks) found.push(await ort.InferenceSession.create(at(`networks/${name}.onnx`)));
  return found.map((session) => async (bytes, size) => {
    const slices = new ort.Tensor("float32", Float32Array.from(bytes, (v) => v / 255), [1, 1, size, size]);
    const { logits } = await session.run({ slices });
    return Uint8Array.from(logits.data, (v) => v > 0);
  });
}

async function segment(file, size) {
  const say = (step, done, left) => postMessage({ step, done, left });
  say("reading", 0, 0);
  const scan = readNifti(await unpacked(file)), intensity = recognise(scan.sample, scan.beside);
  const [columns, rows, depth] = scan.shape, shape = [rows, columns], whole = [depth, size, size], plane = size * size;
  const pads = padding(shape, [scan.spacing[1], scan.spacing[0]]);
  const changed = {}, pixels = (k) => toUnits(scan.picture(k), columns, intensity);
  const part = (mask, k) => mask.subarray(k * plane, (k + 1) * plane);
  say("loading the networks", 0, 0);
  const [findLungs, findInfection] = await load(["lungs", "infection"]);

  const pictures = new Uint8Array(depth * plane), lungs = new Uint8Array(depth * plane), infection = new Uint8Array(depth * plane);
  for (let k = 0; k < depth; k++) {
    say("lungs", k, 2 * depth - k);
    const picture = toUnits(scan.picture(k), columns, intensity, changed);
    part(pictures, k).set(minmaxClahe(...padded(picture, shape, pads, air(picture)), size, intensity.ends));
    part(lungs, k).set(await findLungs(part(pictures, k), size));
  }
  cleanLungs(lungs, whole, intensity.kind === "grey" ? null : (k) => nearest(...padded(pixels(k), shape, pads, -1000), size));
  const seen = [...Array(depth).keys()].filter((k) => part(lungs, k).some(Boolean));
  for (const [done, k] of seen.entries()) {
    say("infection", depth + done, seen.length - done);
    const inside = await findInfection(part(pictures, k).map((v, i) => v * part(lungs, k)[i]), size);
    part(infection, k).set(inside.map((v, i) => v & part(lungs, k)[i]));
  }
  const back = [lungs, infection].map((mask) => {
    const out = new Uint8Array(depth * rows * columns);
    for (const k of seen) out.set(restored(part(mask, k), size, shape, pads), k * rows * columns);
    return out;
  });
  const found = amounts(...back, columns, scan.millilitres), odd = implausible(found.both, depth * rows * columns * scan.millilitres);
  return {
    masks: back.map(scan.file), amounts: found, axes: scan.axes, kind: intensity.kind,
    warnings: [...odd, ...scan.notes, ...intensity.notes, ...clipped(changed, intensity.ends), ...warnings(lungs, infection, whole)],
  };
}

onmessage = ({ data }) =>
  segment(data.file, data.size).then((found) => postMessage({ found }), (error) => postMessage({ error: error.message }));
