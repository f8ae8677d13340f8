// What the reader does on the page "Try it": a scan is opened, shown, run through the networks in a worker, and its masks saved.

import { readScan, workerOf } from "./scan.js";

const root = document.querySelector("#try"), part = (name) => root.querySelector(`[data-part=${name}]`);
const at = (path) => new URL(path, import.meta.url).href;
const COLOURS = { lungs: [86, 180, 233], infection: [213, 94, 0] };
const BRIGHT = { hounsfield: [-1250, 250], offset: [-226, 1274] }; // what is black and white on the screen, in stored numbers
let viewer, scan, worker, watch, masks, nth; // the viewer is given every nth pixel of a large scan

const tell = (text, wrong = false) => Object.assign(part("told"), { textContent: text, className: wrong ? "told wrong" : "told" });
const library = () => import(at("runtime/niivue.js"));

/** The viewer, loaded when a scan is first opened: axial on the left, coronal on the right. */
async function view() {
  if (viewer) return;
  const { Niivue } = await library();
  const made = new Niivue({ dragAndDropEnabled: false, isRadiologicalConvention: true, loadingText: "", logLevel: "error", crosshairWidth: 0.5, crosshairColor: [1, 1, 1, 0.4] });
  await made.attachToCanvas(part("canvas"));
  for (const [name, [red, green, blue]] of Object.entries(COLOURS)) {
    made.addColormap(name, { R: [0, red], G: [0, green], B: [0, blue], A: [0, 255], I: [0, 255] });
  }
  const beside = root.clientWidth > 600; // on a phone one stands above the other
  const place = (sliceType) => ({ sliceType, position: beside ? [sliceType / 2, 0, 0.5, 1] : [0, sliceType / 2, 1, 0.5] });
  made.setCustomLayout([place(0), place(1)]);
  made.onLocationChange = ({ vox }) => label(vox[2]);
  viewer = made;
}

/** @param {File[]} files */
async function open(files) {
  stop();
  scan = null;
  root.classList.remove("done", "open");
  part("run").disabled = true;
  const name = files.length > 1 ? `${files.length} files` : files[0].name;
  tell(`Opening ${name} …`);
  try {
    scan = await readScan(files, (await library()).NVImage);
  } catch (error) {
    return tell(`${name}: ${error.message}`, true);
  }
  part("run").disabled = false;
  nth = Math.ceil(Math.sqrt(scan.shape.reduce((a, b) => a * b) / Number(root.dataset.most)));
  tell(`${name}: stored as ${scan.axes}, numbers ${scan.intensity.kind}; ready.${nth > 1 ? ` It is large: the picture shows one pixel of ${nth} x ${nth}; the networks see all.` : ""}`);
  try {
    await view();
    while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
    const shown = nth > 1 ? await (await library()).NVImage.new(scan.fewer(nth), "scan.nii", "gray") : scan.volume;
    const [low, high] = BRIGHT[scan.intensity.kind] ?? [shown.cal_min, shown.cal_max];
    viewer.addVolume(Object.assign(shown, { cal_min: low, cal_max: high }));
    root.classList.add("open");
    Object.assign(part("slice"), { max: scan.shape[2] - 1, value: scan.shape[2] >> 1 });
    move();
  } catch (error) {
    tell(`${name}: ready, but the viewer cannot show it here (${error.message ?? error}).`);
  }
}

/** The slice's number beside its slider. */
function label(slice) {
  part("slice").value = slice;
  part("slice").nextElementSibling.textContent = `${slice + 1} of ${Number(part("slice").max) + 1}`;
}

function move() {
  const { value, max } = part("slice");
  viewer.scene.crosshairPos = [0.5, 0.5, (Number(value) + 0.5) / (Number(max) + 1)];
  viewer.drawScene();
  label(Number(value));
}

function stop(text) {
  clearTimeout(watch);
  worker?.terminate();
  worker = null;
  root.classList.remove("busy");
  if (text) tell(text, true);
}

function run() {
  stop();
  root.classList.add("busy");
  root.classList.remove("done");
  while (viewer?.volumes.length > 1) viewer.removeVolume(viewer.volumes[1]);
  masks = [scan.mask(), scan.mask()];
  part("aside").textContent = "";
  worker = workerOf("worker.js");
  const begun = {}, quiet = Number(root.dataset.quiet), late = () => stop(`Stopped: nothing happened for ${quiet} seconds. A smaller scan, or chs-net segment, may do.`);
  worker.onerror = (event) => stop(`The networks did not start: ${event.message ?? "unknown"}`);
  worker.onmessage = ({ data }) => {
    clearTimeout(watch);
    watch = setTimeout(late, 1000 * quiet);
    if (data.error) return stop(data.error);
    if (data.found) return show(data.found);
    if (data.told) return Object.assign(part("aside"), { textContent: data.told });
    if (data.masks) return data.masks.forEach((mask, i) => masks[i].write(data.slice, mask));
    if ("wanted" in data) return worker.postMessage({ picture: scan.picture(data.wanted) });
    begun[data.step] ??= [performance.now(), data.done];
    const [since, from] = begun[data.step], each = (performance.now() - since) / (data.done - from);
    part("bar").value = data.done / (data.done + data.left) || 0;
    tell(`${data.step} … ${data.done > from ? `about ${Math.ceil((each * data.left) / 1000)} s left` : ""}`);
  };
  watch = setTimeout(late, 1000 * quiet);
  const { shape, spacing, millilitres, intensity } = scan;
  worker.postMessage({ shape, spacing, millilitres, intensity, size: Number(root.dataset.size) });
}

async function show(found) {
  clearTimeout(watch);
  part("amounts").innerHTML = Object.entries(found.amounts).map(([side, { lungs_ml, infection_ml, infected_share: share }]) =>
    `<tr><th scope="row">${side}</th><td>${lungs_ml.toFixed(0)}</td><td>${infection_ml.toFixed(0)}</td><td>${share === null ? "–" : (100 * share).toFixed(1)}</td></tr>`).join("");
  const warnings = [...found.odd, ...scan.doubts, ...scan.notes, ...found.warnings];
  part("warnings").replaceChildren(...warnings.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  for (const [i, name] of ["lungs", "infection"].entries()) {
    const { bytes } = masks[i], packed = await new Response(new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"))).blob();
    const link = part(name);
    URL.revokeObjectURL(link.href);
    Object.assign(link, { href: URL.createObjectURL(packed), download: `${name}.nii.gz` });
    if (!root.classList.contains("open")) continue;
    const shown = await (await library()).NVImage.new(nth > 1 ? scan.fewer(nth, bytes) : bytes.buffer, `${name}.nii`, name, Number(part("opacity").value), null, 0.5, 1);
    viewer.addVolume(shown);
  }
  stop();
  root.classList.add("done");
  tell("Done.");
}

/** Every file that was dropped, those in folders too. */
async function dropped({ items, files }) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()), found = [];
  if (!entries.some((entry) => entry?.isDirectory)) return [...files];
  const { traverseFileTree } = (await library()).Niivue.prototype;
  for (const entry of entries) await traverseFileTree(entry, "", found);
  return found;
}

part("file").addEventListener("change", (event) => event.target.files.length && open([...event.target.files]));
part("drawn").addEventListener("click", async () => open([new File([await (await fetch(at("drawn-chest.nii.gz"))).blob()], "the drawn chest")]));
root.addEventListener("dragover", (event) => event.preventDefault());
root.addEventListener("drop", async (event) => {
  event.preventDefault();
  const files = await dropped(event.dataTransfer);
  if (files.length) open(files);
});
part("run").addEventListener("click", run);
part("stop").addEventListener("click", () => stop("Stopped."));
part("slice").addEventListener("input", move);
part("opacity").addEventListener("input", (event) => {
  for (let i = 1; i < viewer.volumes.length; i++) viewer.setOpacity(i, Number(event.target.value));
});
root.classList.add("live");
