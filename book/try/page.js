// What the reader does on the page "Try it": a scan is opened in a worker, shown, run through the networks, and its masks saved.

import { workerOf } from "./scan.js";

const root = document.querySelector("#try"), part = (name) => root.querySelector(`[data-part=${name}]`);
const LABELS = { R: [0, 86, 213], G: [0, 180, 94], B: [0, 233, 0], A: [0, 255, 255], I: [0, 1, 2], labels: ["", "lungs", "infection"] };
let viewer, worker, watch, files, name;

const tell = (text, wrong = false) => Object.assign(part("told"), { textContent: text, className: wrong ? "told wrong" : "told" });
const library = () => import("./runtime/niivue.js");

/** The viewer, loaded when a scan is first opened: axial on the left, coronal on the right. */
async function view() {
  const { Niivue } = await library();
  const made = new Niivue({ dragAndDropEnabled: false, isRadiologicalConvention: true, loadingText: "", logLevel: "error", crosshairWidth: 0.5, crosshairColor: [1, 1, 1, 0.4] });
  await made.attachToCanvas(part("canvas"));
  const beside = root.clientWidth > 600; // on a phone one stands above the other
  const place = (sliceType) => ({ sliceType, position: beside ? [sliceType / 2, 0, 0.5, 1] : [0, sliceType / 2, 1, 0.5] });
  made.setCustomLayout([place(0), place(1)]);
  made.onLocationChange = ({ vox }) => label(vox[2]);
  return made;
}

/** A worker that reads these files, and runs the networks if it is asked to. It ends after a time without progress. */
function ask(run = false) {
  const quiet = Number(root.dataset.quiet), late = () => stop(`Stopped: nothing happened for ${quiet} seconds. A smaller scan, or chs-net segment, may do.`);
  const wait = () => { clearTimeout(watch); watch = setTimeout(late, 1000 * quiet); }, begun = {};
  worker ??= workerOf("worker.js");
  worker.onerror = (event) => stop(`It did not start: ${event.message ?? "unknown"}`);
  worker.onmessage = ({ data: { error, opened, found, told, step, done, left } }) => {
    wait();
    if (error) return stop(run ? error : `${name}: ${error}`);
    if (opened) return show(opened);
    if (found) return finish(found);
    if (told) return Object.assign(part("aside"), { textContent: told });
    const [since, from] = begun[step] ??= [performance.now(), done], each = (performance.now() - since) / (done - from);
    part("bar").value = done / (done + left) || 0;
    tell(`${step} … ${done > from ? `about ${Math.ceil((each * left) / 1000)} s left` : ""}`);
  };
  wait();
  worker.postMessage({ files, most: Number(root.dataset.most), run });
}

function stop(text) {
  clearTimeout(watch);
  worker?.terminate();
  worker = null;
  root.classList.remove("busy");
  if (text) tell(text, true);
}

/** @param {File[]} given */
function open(given) {
  if (!given.length) return tell("That was no file. Drop a scan's file, or the folder of a DICOM series.", true);
  stop();
  root.classList.remove("done", "open");
  part("run").disabled = true;
  [files, name] = [given, given.length > 1 ? `${given.length} files` : given[0].name];
  tell(`Opening ${name} …`);
  ask();
}

async function show({ axes, kind, slices, nth, shown }) {
  clearTimeout(watch);
  root.classList.add("open");
  let odd = nth > 1 ? ` It is large: the picture shows one pixel of ${nth} x ${nth}; the networks see all.` : "";
  try {
    viewer ??= await view();
    while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
    viewer.addVolume(await (await library()).NVImage.new(shown, "scan.nii", "gray", 1, null, 0, 255));
    Object.assign(part("slice"), { max: slices - 1, value: slices >> 1 });
    move();
  } catch (error) {
    odd = ` The viewer cannot show it here (${error.message ?? error}); the networks can run.`;
  }
  part("run").disabled = false;
  tell(`${name}: stored as ${axes}, numbers ${kind}; ready.${odd}`);
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

async function finish({ slice, amounts, warnings, saved, shown }) {
  clearTimeout(watch);
  part("amounts").innerHTML = Object.entries(amounts).map(([side, { lungs_ml, infection_ml, infected_share: share }]) =>
    `<tr><th scope="row">${side}</th><td>${lungs_ml.toFixed(0)}</td><td>${infection_ml.toFixed(0)}</td><td>${share === null ? "–" : (100 * share).toFixed(1)}</td></tr>`).join("");
  part("warnings").replaceChildren(...warnings.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  for (const [i, mask] of ["lungs", "infection"].entries()) {
    URL.revokeObjectURL(part(mask).href);
    Object.assign(part(mask), { href: URL.createObjectURL(saved[i]), download: `${mask}.nii.gz` });
  }
  if (viewer?.volumes.length) {
    const masks = await (await library()).NVImage.new(shown, "masks.nii", "gray", Number(part("opacity").value));
    masks.setColormapLabel(LABELS);
    viewer.addVolume(masks);
    part("slice").value = slice ?? part("slice").value;
    move();
  }
  root.classList.remove("busy");
  root.classList.add("done");
  tell("Done.");
}

/** Every file that was dropped, those in folders too. */
async function dropped({ items, files: loose }) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()), found = [];
  if (!entries.some((entry) => entry?.isDirectory)) return [...loose];
  const { traverseFileTree } = (await library()).Niivue.prototype;
  for (const entry of entries) await traverseFileTree(entry, "", found);
  return found;
}

part("file").addEventListener("change", ({ target }) => target.files.length && open([...target.files]));
part("drawn").addEventListener("click", async () => open([new File([await (await fetch(new URL("drawn-chest.nii.gz", import.meta.url))).blob()], "the drawn chest")]));
document.addEventListener("dragover", (event) => event.preventDefault()); // wherever it is dropped: else the browser leaves the page
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  open(await dropped(event.dataTransfer));
});
part("run").addEventListener("click", () => {
  root.classList.add("busy");
  root.classList.remove("done");
  while (viewer?.volumes.length > 1) viewer.removeVolume(viewer.volumes[1]);
  part("aside").textContent = "";
  ask(true);
});
part("stop").addEventListener("click", () => stop("Stopped."));
part("slice").addEventListener("input", move);
part("opacity").addEventListener("change", ({ target }) => viewer.volumes[1] && viewer.setOpacity(1, Number(target.value)));
root.classList.add("live");
