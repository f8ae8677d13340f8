"""Weights as ONNX: what a runtime without torch finds is what torch finds, at any size of slice."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from chslib.network import build_network
from chslib.pretrained import DEFAULT, load_pretrained, read_weights
from replication.cli import main
from replication.data.fusing.preparation import minmax_clahe
from replication.data.phantom.volumes import make_volume
from replication.data.reading.intensity import Intensity
from replication.scans.onnx_export import to_onnx
from replication.scans.onnx_pictures import hounsfield_graph, mask_graph, picture_graph
from replication.scans.prepare import prepared, restored
from replication.scans.segment import _hounsfield
from replication.scans.weights import load_cascade


@pytest.mark.parametrize("name", [DEFAULT, "cpu/table2-lungs"])
def test_logits_and_masks_are_torch_s_at_any_size(name: str, tmp_path, capsys) -> None:
    assert main(["weights", "export", str(tmp_path), "--onnx", "--weights", name]) == 0
    network, sidecar = load_pretrained(name), read_weights(name)[1]
    side = sidecar["record"]["config"]["size"]
    drawn = make_volume(name="coronacases_001", seed=0, size=side, depth=4)
    slices = minmax_clahe(np.rot90(drawn.ct[..., 2]), size=side)[None, None] / np.float32(255)
    stages = {name: network}
    if sidecar["first_stage"]:
        stages = {f"{sidecar['profile']}/{sidecar['first_stage']}": network.lungs, name: network.infection}
    written = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert written == [str(tmp_path / f"{of}.onnx") for of in stages]
    for of, stage in stages.items():
        content = (tmp_path / f"{of}.onnx").read_bytes()
        session = onnxruntime.InferenceSession(content)
        for x in (slices, np.random.default_rng(0).random((2, 1, 48, 32), np.float32)):  # a bottleneck of 3x2
            with torch.inference_mode():
                logits = stage(torch.from_numpy(x)).numpy()
            found = session.run(None, {"slices": x})[0]
            np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)
            assert ((found > 0) != (logits > 0)).mean() <= 1e-5
        told = {p.key: p.value for p in onnx.load_from_string(content).metadata_props}
        own = read_weights(of)[1]
        assert {k: told[k] for k in ("name", "sha256", "licence", "preparation")} == {
            "name": of, "sha256": own["sha256"], "licence": own["licence"], "preparation": own["preparation"],
        }  # fmt: skip
        assert "not for diagnosis" in told["use"] and told["size"] == str(side)
        assert len(content) < 1.1 * (2 * sum(p.numel() for p in stage.state_dict().values()) + 200_000)


def test_what_cannot_be_written_is_refused(tmp_path, capsys) -> None:
    with pytest.raises(ValueError, match="only networks of residual inception blocks"):
        to_onnx(build_network("bu").eval(), about={})
    with pytest.raises(ValueError, match="no half-precision numbers"):
        to_onnx(build_network().eval(), about={})
    assert main(["weights", "export", str(tmp_path), "--onnx", "--weights", "nobody"]) == 1
    assert "No weights 'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "shape", "spacing"),
    [(256, (512, 512), (0.7, 0.7)), (128, (97, 120), (1.0, 1.3)), (256, (60, 201), (2.1, 0.9))],
)
def test_pictures_and_masks_are_opencv_s(size: int, shape, spacing, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    hu = np.rint(cv2.GaussianBlur(rng.normal(-300, 6000, shape), (0, 0), 3) + rng.normal(0, 60, shape)).clip(
        -1024, 2000
    )
    hu[rng.random(shape) < 0.001] = 2000  # spikes
    scan = SimpleNamespace(
        shape=(*shape[::-1], 1), spacing=(*spacing[::-1], 1.0), intensity=Intensity("hounsfield"), dicom=None,
        plane=lambda _: np.rot90(hu, -1).astype(np.float32),
    )  # fmt: skip
    square = [round(max(np.multiply(shape, spacing)) / mm) for mm in spacing]
    given = {"picture": hu[None, None].astype(np.float32), "square": np.array(square)}

    def run(graph, **more) -> list[np.ndarray]:
        return [out[0, 0] for out in onnxruntime.InferenceSession(graph(size)).run(None, more)]

    equalised, stretched = run(picture_graph, **given, ends=np.float32(scan.intensity.ends))
    origin, clahe = replace(load_cascade().lungs.origin, size=size), cv2.createCLAHE
    np.testing.assert_array_equal(run(hounsfield_graph, **given)[0], _hounsfield(scan, size)(0))
    # CLAHE makes one grey up to eight, so that each of the two steps is checked by itself.
    assert np.abs(equalised.astype(int) - clahe(7.0, (8, 8)).apply(stretched)).max() <= 1
    monkeypatch.setattr(cv2, "createCLAHE", lambda **_: SimpleNamespace(apply=np.asarray))
    apart = np.abs(stretched.astype(int) - prepared(scan, size=size, origin=origin)[0, 0])
    assert apart.max() <= 1 and apart.mean() < 1e-4
    mask = (cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (0, 0), 6) > 0).astype(np.uint8)
    found = run(mask_graph, mask=mask[None, None], shape=np.array(shape), square=np.array(square))[0]
    np.testing.assert_array_equal(found, np.rot90(restored(mask[None], scan)[:, :, 0]))
