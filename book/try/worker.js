// One scan away from the page: read, and taken through the cascade slice by slice: pictures, lungs, cleaned, infection, masks.

import { cleanLungs, count, held } from "./cleaning.js";
import { clipped, evenly, toUnits, unchanged } from "./intensity.js";
import { amounts, hardlyDiffer, implausible, tallies, warnings } from "./report.js";
import { cascade } from "./rules.js";
import { readScan } from "./scan.js";

const at = (path) => new URL(path, import.meta.url).href;
const size = cascade.size, plane = size * size, input = [1, 1, size, size];
let scan, nth; // the page is given every nth pixel of a large scan

const say = (step, done = 0, left = 0) => postMessage({ step, done, left });

/** Runs a network by its name: inputs as [type, numbers, shape] -> its output's numbers. WebAssembly has threads where the site
 * isolates its pages, else one. */
async function load(provider) {
  const ort = await import(at(`runtime/${provider}.mjs`)), sessions = {};
  ort.env.wasm.wasmBinary = await (await fetch(at(`runtime/${provider}.wasm`))).arrayBuffer();
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1;
  for (const [name, by] of Object.entries({ lungs: provider, infection: provider, picture: "wasm", hounsfield: "wasm", mask: "wasm" })) {
    sessions[name] = await ort.InferenceSession.create(at(`networks/${name}.onnx`), { executionProviders: [by] });
  }
  return async (name, inputs) => {
    const given = Object.entries(inputs).map(([input, tensor]) => [input, new ort.Tensor(...tensor)]), { outputNames } = sessions[name];
    return (await sessions[name].run(Object.fromEntries(given), outputNames.slice(0, 1)))[outputNames[0]].data;
  };
}

/** Both masks of the scan, saved and shown, and what is told of them. */
async function segment(provider) {
  const { shape: [columns, rows, depth], spacing: [x, y], millilitres, intensity } = scan, whole = [depth, size, size];
  const pixels = (k, seen) => toUnits(scan.picture(k), columns, intensity, seen), part = (all, k) => all.subarray(k * plane, (k + 1) * plane);
  say("loading the networks");
  const run = await load(provider), pair = (...numbers) => ["int64", BigInt64Array.from(numbers, BigInt), [2]];
  const side = Math.max(rows * y, columns * x), square = pair(evenly(side / y), evenly(side / x)); // in mm
  const given = (picture) => ({ picture: ["float32", picture, [1, 1, rows, columns]], square });
  const find = async (name, bytes) => Uint8Array.from(await run(name, { slices: ["float32", Float32Array.from(bytes, (v) => v / 255), input] }), (v) => v > 0);

  const [pictures, lungs, infection] = [0, 0, 0].map(() => new Uint8Array(depth * plane)), changed = unchanged();
  for (let k = 0; k < depth; k++) {
    say("lungs", k, 2 * depth - k);
    part(pictures, k).set(await run("picture", { ...given(pixels(k, changed)), ends: ["float32", intensity.ends, [2]] }));
    part(lungs, k).set(await find("lungs", part(pictures, k)));
  }
  const dense = intensity.kind !== "grey"; // known
  await cleanLungs(lungs, whole, dense && ((k) => {
    say("cleaning the lungs", depth, depth);
    return run("hounsfield", given(pixels(k)));
  }));
  const seen = held(lungs, whole), tally = tallies(columns), masks = [0, 0].map(() => new Uint8Array(columns * rows * depth));
  for (const [done, [k, lung]] of seen.entries()) {
    say("infection", depth + done, seen.length - done);
    const inside = await find("infection", part(pictures, k).map((v, i) => v * lung[i]));
    part(infection, k).set(inside.map((v, i) => v & lung[i]));
    const found = [];
    for (const of of [lungs, infection]) found.push(await run("mask", { mask: ["uint8", part(of, k), input], shape: pair(rows, columns), square }));
    tally.add(...found, dense && pixels(k));
    masks.forEach((mask, i) => mask.set(found[i].reverse(), k * columns * rows));
  }
  const marked = (k) => plane * count(part(infection, k)) + count(part(lungs, k));
  const [slice] = seen.map(([k]) => k).sort((a, b) => marked(b) - marked(a)); // where most is called infected, or lung
  const told = amounts(tally, millilitres), odd = implausible(told.both, depth * rows * columns * millilitres);
  const noted = clipped(changed, intensity), ends = warnings(lungs, infection, whole);
  const packed = (mask) => new Response(new Blob([scan.saved(mask)]).stream().pipeThrough(new CompressionStream("gzip"))).blob();
  return {
    slice, amounts: told, warnings: [...odd, ...scan.doubts, ...scan.notes, ...noted, ...ends, ...hardlyDiffer(tally)],
    saved: await Promise.all(masks.map(packed)), shown: scan.shown(nth, masks[0].map((lung, i) => (masks[1][i] ? 2 : lung))),
  };
}

/** On the graphics card where there is one; where that fails, and everywhere else, on WebAssembly. */
async function found() {
  if (await navigator.gpu?.requestAdapter().catch(() => null)) {
    try {
      return await segment("webgpu");
    } catch (error) {
      postMessage({ told: `The graphics card did not do it (${error.message}); the processor does.` });
    }
  }
  return segment("wasm");
}

/** The page gives the files of one scan each time: to open it, then to run it. @param {{data: {files: File[], most: number, run: boolean}}} */
globalThis.onmessage = async ({ data: { files, most, run } }) => {
  try {
    scan ??= await readScan(files);
    nth = Math.ceil(Math.sqrt(scan.shape.reduce((a, b) => a * b) / most));
    if (run) return postMessage({ found: await found() });
    const { axes, intensity: { kind }, shape: [, , slices] } = scan, shown = scan.shown(nth);
    postMessage({ opened: { axes, kind, slices, nth, shown } }, [shown]);
  } catch (error) {
    postMessage({ error: error.message });
  }
};
