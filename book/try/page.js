// What the reader does on the page "Try it": a scan is opened, shown, run through the networks in a worker, and its masks saved.

const root = document.querySelector("#try"), part = (name) => root.querySelector(`[data-part=${name}]`);
const at = (path) => new URL(path, import.meta.url).href;
const SIZE = Number(root.dataset.size), QUIET = 180; // seconds without progress after which a worker is stopped
const COLOURS = { lungs: [86, 180, 233], infection: [213, 94, 0] };
let viewer, scan, worker, watch;

const tell = (text, wrong = false) => Object.assign(part("told"), { textContent: text, className: wrong ? "told wrong" : "told" });

/** The viewer, loaded when a scan is first opened: axial on the left, coronal on the right. */
async function view() {
  if (viewer) return viewer;
  const { Niivue } = await import(at("runtime/niivue.js"));
  const made = new Niivue({ dragAndDropEnabled: false, isRadiologicalConvention: true, loadingText: "", logLevel: "error", crosshairWidth: 0.5, crosshairColor: [1, 1, 1, 0.4] });
  await made.attachToCanvas(part("canvas"));
  for (const [name, [red, green, blue]] of Object.entries(COLOURS)) {
    made.addColormap(name, { R: [0, red], G: [0, green], B: [0, blue], A: [0, 255], I: [0, 255] });
  }
  const beside = root.clientWidth > 600; // on a phone one stands above the other
  const place = (sliceType) => ({ sliceType, position: beside ? [sliceType / 2, 0, 0.5, 1] : [0, sliceType / 2, 1, 0.5] });
  made.setCustomLayout([place(0), place(1)]);
  made.onLocationChange = ({ vox }) => label(vox[2]);
  return (viewer = made);
}

async function add(file, look = {}) {
  const { NVImage } = await import(at("runtime/niivue.js"));
  viewer.addVolume(await NVImage.loadFromFile({ file, name: file.name, ...look }));
}

async function open(file) {
  stop();
  scan = null;
  root.classList.remove("done");
  part("run").disabled = true;
  if (!/\.nii(\.gz)?$/i.test(file.name)) {
    return tell(`${file.name}: this page reads NIfTI files (.nii, .nii.gz). chs-net segment reads DICOM; dcm2niix makes a NIfTI of it.`, true);
  }
  tell(`Opening ${file.name} …`);
  try {
    await view();
    while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
    await add(file);
    const [volume] = viewer.volumes, slices = volume.dimsRAS[3];
    if (volume.global_min < -500) Object.assign(volume, { cal_min: -1250, cal_max: 250 }), viewer.updateGLVolume();
    root.classList.add("open");
    Object.assign(part("slice"), { max: slices - 1, value: slices >> 1 });
    move();
  } catch (error) {
    root.classList.remove("open"); // it can be run all the same, and the worker says what is wrong with it
    console.info(error);
  }
  scan = file;
  part("run").disabled = false;
  tell(`${file.name}: ready.`);
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
  const code = URL.createObjectURL(new Blob([`import ${JSON.stringify(at("worker.js"))};`], { type: "text/javascript" }));
  worker = new Worker(code, { type: "module" }); // from a blob, it is under the page's own policy: no other host
  const begun = {}, late = () => stop(`Stopped: nothing happened for ${QUIET} seconds. A smaller scan, or chs-net segment, may do.`);
  worker.onerror = (event) => stop(`The networks did not start: ${event.message ?? "unknown"}`);
  worker.onmessage = ({ data }) => {
    clearTimeout(watch);
    watch = setTimeout(late, 1000 * QUIET);
    if (data.error) return stop(`${scan.name}: ${data.error}`);
    if (data.found) return show(data.found);
    begun[data.step] ??= [performance.now(), data.done];
    const [since, from] = begun[data.step], each = (performance.now() - since) / (data.done - from);
    part("bar").value = data.done / (data.done + data.left) || 0;
    tell(`${data.step} … ${data.done > from ? `about ${Math.ceil((each * data.left) / 1000)} s left` : ""}`);
  };
  watch = setTimeout(late, 1000 * QUIET);
  worker.postMessage({ file: scan, size: SIZE });
}

async function show(found) {
  clearTimeout(watch);
  part("amounts").innerHTML = Object.entries(found.amounts).map(([side, { lungs_ml, infection_ml, infected_share: share }]) =>
    `<tr><th scope="row">${side}</th><td>${lungs_ml.toFixed(0)}</td><td>${infection_ml.toFixed(0)}</td><td>${share === null ? "–" : (100 * share).toFixed(1)}</td></tr>`).join("");
  part("warnings").replaceChildren(...found.warnings.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  for (const [i, name] of ["lungs", "infection"].entries()) {
    const packed = await new Response(new Blob([found.masks[i]]).stream().pipeThrough(new CompressionStream("gzip"))).blob();
    const link = part(name);
    URL.revokeObjectURL(link.href);
    Object.assign(link, { href: URL.createObjectURL(packed), download: `${name}.nii.gz` });
    if (!root.classList.contains("open")) continue;
    await add(new File([found.masks[i]], `${name}.nii`), { colormap: name, opacity: Number(part("opacity").value), cal_min: 0.5, cal_max: 1 }).catch(console.info);
  }
  stop();
  root.classList.add("done");
  tell(`Done: stored as ${found.axes}, numbers ${found.kind}.`);
}

part("file").addEventListener("change", (event) => event.target.files[0] && open(event.target.files[0]));
part("drawn").addEventListener("click", async () => open(new File([await (await fetch(at("drawn-chest.nii.gz"))).blob()], "drawn-chest.nii.gz")));
root.addEventListener("dragover", (event) => event.preventDefault());
root.addEventListener("drop", (event) => {
  event.preventDefault();
  const { files } = event.dataTransfer;
  if (files.length > 1) tell("One scan at a time; a DICOM series goes to chs-net segment.", true);
  else if (files.length) open(files[0]);
});
part("run").addEventListener("click", run);
part("stop").addEventListener("click", () => stop("Stopped."));
part("slice").addEventListener("input", move);
part("opacity").addEventListener("input", (event) => {
  for (let i = 1; i < viewer.volumes.length; i++) viewer.setOpacity(i, Number(event.target.value));
});
root.classList.add("live");
