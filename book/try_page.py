"""The page "Try it": its controls as HTML, and the files that it loads when it is asked to (book/try says what they are).

Runtime and viewer come from npm, once for each lock, into _build/try; the networks are exported anew. Without npm, or
where it cannot reach its registry, the page is a picture and says why.
"""

import contextlib
import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).resolve().parent / "try"
STILL = "still.html"
PACKAGES = SOURCE.parent.parent / "_build/try"
MODULES = ("page.js", "worker.js", "scan.js", "intensity.js", "cleaning.js", "report.js")
VIEWER = "@niivue/niivue/dist/index.js"
RUNTIME = {  # of the page's folder `runtime` -> of the packages
    **{
        f"dcm2niix/{name}": f"@niivue/dcm2niix/dist/{name}"
        for name in ("index.jpeg.js", "worker.jpeg.js", "dcm2niix.jpeg.js", "dcm2niix.jpeg.wasm")
    },
    "wasm.mjs": "onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
    "wasm.wasm": "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "webgpu.mjs": "onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",  # weighs twice as much
    "webgpu.wasm": "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm",
}
FORGOTTEN = re.compile(
    r"(?<=i < )(vx|vx32|vxi32)(?: - 1)(?=; i\+\+)"
)  # the viewer's last voxel of 32- and 64-bit integers
GRADIENTS = re.compile(r"(this\.gradientTexture = )(?=gradientGL\()")
SIDE, DEPTH, SEED, SHOWN = 256, 16, 100, 9  # of the drawn chest; the slice that the still picture shows


def packages() -> Path:
    """The folder of the pinned packages, installed where they are not.

    Raises:
        OSError: no npm, or it failed; the message says which.
    """
    lock, done = SOURCE / "package-lock.json", PACKAGES / "installed.json"
    if not (done.is_file() and done.read_bytes() == lock.read_bytes()):
        if (npm := shutil.which("npm")) is None:
            raise OSError("npm was not there when the book was built")
        PACKAGES.mkdir(parents=True, exist_ok=True)
        for file in (lock, SOURCE / "package.json"):
            shutil.copyfile(file, PACKAGES / file.name)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0"]
        ran = subprocess.run(command, cwd=PACKAGES, capture_output=True, text=True)
        if ran.returncode:
            raise OSError("npm could not fetch the viewer and the runtime when the book was built")
        shutil.copyfile(lock, done)
    return PACKAGES / "node_modules"


def files() -> Path:
    """The folder of what the page loads, made once for each state of its sources.

    Raises:
        OSError: see `packages`.
    """
    import nibabel as nib

    from replication.scans import onnx_pictures
    from replication.scans.onnx_export import export_onnx
    from replication.scans.weights import load_cascade

    found, weights = packages(), load_cascade().weights
    told, size = rules(), weights["size"]
    pictures = {
        f"{name}.onnx": getattr(onnx_pictures, f"{name}_graph")(size)
        for name in ("picture", "hounsfield", "mask")
    }
    sources = [SOURCE / name for name in (*MODULES, "package-lock.json")] + [Path(__file__)]
    state = hashlib.sha256(
        b"".join([*(path.read_bytes() for path in sources), *pictures.values(), f"{weights}{told}".encode()])
    ).hexdigest()
    folder = PACKAGES / state[:16]
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=PACKAGES) as work:
        made = Path(work, "try")
        for part in ("runtime/dcm2niix", "networks"):
            (made / part).mkdir(parents=True)
        for name in MODULES:
            shutil.copyfile(SOURCE / name, made / name)
        for name, path in RUNTIME.items():
            shutil.copyfile(found / path, made / "runtime" / name)
        for stage, path in zip(("lungs", "infection"), export_onnx(weights["name"], work), strict=True):
            shutil.copyfile(path, made / "networks" / f"{stage}.onnx")
        for name, content in pictures.items():
            (made / "networks" / name).write_bytes(content)
        (made / "runtime/niivue.js").write_text(viewer(found / VIEWER), encoding="utf-8")
        (made / "rules.js").write_text(told, encoding="utf-8")
        drawn = drawn_chest()
        nib.save(nib.Nifti1Image(drawn.ct, drawn.affine), made / "drawn-chest.nii.gz")
        (made / STILL).write_text(still(), encoding="utf-8")
        with contextlib.suppress(OSError):  # another build was faster
            made.rename(folder)
    return folder


def viewer(path: Path) -> str:
    """NiiVue's code without two of its faults: a forgotten voxel, and gradients for surfaces that are not drawn, which freeze
    a page without a graphics card for half a minute.

    Raises:
        OSError: it is another version, which may not have them.
    """
    code, mended = FORGOTTEN.subn(r"\1", path.read_text("utf-8"))
    code, spared = GRADIENTS.subn(r"\1!this.opts.gradientAmount ? null : ", code)
    if (mended, spared) != (3, 2):
        raise OSError(f"NiiVue is another version than book/try_page.py mends: {mended} and {spared} places")
    return code


def rules() -> str:
    """The constants of the rules that the page follows, as a module of JavaScript: one object for each module of Python."""
    from replication.data.reading import intensity, kinds, scan
    from replication.scans import cleaning, density, plausibility
    from replication.scans.weights import load_cascade

    parts = {
        module.__name__.rpartition(".")[2]: {
            name: value
            for name, value in vars(module).items()
            if name.isupper() and isinstance(value, (int, float, str, tuple, dict))
        }
        for module in (intensity, kinds, scan, cleaning, density, plausibility)
    } | {"cascade": {"size": load_cascade().weights["size"]}}
    return "".join(
        f"export const {name} = {json.dumps(part, default=lambda b: b.decode('latin-1'))};\n"
        for name, part in parts.items()
    )


@functools.cache
def drawn_chest():
    """The chest of chapter 17."""
    from replication.data.phantom.volumes import make_volume

    return make_volume(name="coronacases_001", seed=SEED, size=SIDE, depth=DEPTH)


def still() -> str:
    """The drawn chest with its drawn masks, as a picture."""
    from explorers import picture

    drawn = drawn_chest()
    grey = (np.clip(np.rot90(drawn.ct[..., SHOWN]), -1250, 250) + 1250) / 1500 * 255
    pixels = np.repeat(grey[..., None], 3, 2)
    for mask, colour in ((drawn.lung, (86, 180, 233)), (drawn.infection, (213, 94, 0))):
        inside = np.rot90(mask[..., SHOWN]) > 0
        pixels[inside] = 0.6 * pixels[inside] + 0.4 * np.array(colour)
    return picture(
        np.rint(pixels).astype(np.uint8), "A drawn chest, lungs blue, infection red", kind="WEBP", css="still"
    )


def page(folder: Path) -> str:
    """The page's part in HTML without a blank line; what it loads is copied into `folder`."""
    from replication.scans.report import NOT_CLINICAL

    try:
        shutil.copytree(files(), folder)
    except OSError as error:
        return (
            f'<div class="try"><p class="why">Nothing can be run on this page: {escape(str(error))}. '
            f"<code>chs-net segment</code> does the same.</p>{still()}</div>"
        )
    return CONTROLS.format(
        use=escape(NOT_CLINICAL),
        still=(folder / STILL).read_text("utf-8"),
    )


CONTROLS = """<div class="try" id="try" data-quiet="180" data-most="12000000">
<p class="use"><strong>{use}</strong></p>
<p class="why">Nothing runs here yet: this needs JavaScript, and a page that comes from a server. Where the book was opened as a file, serve its folder, as with
<code>python -m http.server</code>, and open the address that it prints. The command <code>chs-net segment SCAN OUTPUT</code> does the same without a browser.</p>
<div class="controls choose"><button data-part="drawn" type="button">Open the drawn chest</button>
<label>or your own CT, dropped here or chosen: a NIfTI, NRRD or MetaImage file, all files of a DICOM series, or one slice as a grey picture
<input data-part="file" type="file" multiple></label></div>
<div class="looks">{still}<div class="view"><canvas data-part="canvas" role="img" aria-label="The scan, axial and coronal; the sliders below move it"></canvas></div></div>
<div class="controls moves"><label>Slice <input data-part="slice" type="range" min="0" max="15" value="8"><output></output></label>
<label>Masks <input data-part="opacity" type="range" min="0" max="1" step="0.1" value="0.4" aria-label="Opacity of the masks"></label></div>
<div class="controls runs"><button data-part="run" type="button" disabled>Find lungs and infection</button>
<button data-part="stop" type="button">Stop</button><progress data-part="bar" max="1" value="0" aria-label="How far it is"></progress></div>
<p class="told" data-part="told" role="status">Open the drawn chest, or a scan.</p>
<p class="told" data-part="aside" role="status"></p>
<div class="found"><table><caption>What the networks mark: lungs blue, infection red</caption>
<thead><tr><th scope="col">side</th><th scope="col">lungs, ml</th><th scope="col">called infected, ml</th><th scope="col">share, %</th></tr></thead>
<tbody data-part="amounts"></tbody></table>
<ul data-part="warnings"></ul>
<p>Save, in the scan’s own space: <a data-part="lungs">lungs.nii.gz</a>, <a data-part="infection">infection.nii.gz</a></p></div>
</div>
<script type="module" src="../_static/try/page.js"></script>"""

if __name__ == "__main__":  # so that a build without a network finds them
    sys.path.insert(0, str(SOURCE.parent.parent))
    try:
        print(packages())
    except OSError as error:
        sys.exit(f"error: {error}")
